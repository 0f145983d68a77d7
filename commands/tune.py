"""`pipeline tune`: settings searched on valid, of a backbone or of a method of stage one."""

from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sgfd.commands.inputs import backbone_class, load, plain_name, training_inputs
from sgfd.commands.options import training_options, tunings_root_option
from sgfd.commands.output import counted, present, print_figures, print_run, run_summary
from sgfd.commands.settings import SettingsHelp, choose, names_in, read_settings

if TYPE_CHECKING:
    from sgfd.settings import Range

OF_DISTILLING = {  # what `--stage distill` takes
    *("stage", "method", "dataset", "split", "split_seed", "overrides", "seed", "device"),
    *("threads", "data_root", "as_json", "trials", "bounds", "name", "tunings_root"),
}


@click.command(
    cls=SettingsHelp, short_help="Search settings on valid; train the best, judge test once."
)
@click.option(
    "--stage",
    type=click.Choice(["train", "distill"]),
    default="train",
    show_default=True,
    help="Tune a backbone, or a method of distillation: on held-out items, by their training and "
    "valid interactions. `pipeline distill --help` lists a method's settings.",
)
@click.option("--method", help="Of --stage distill [default: sgfd-plus].")
@click.option(
    "--backbone",
    is_eager=True,  # so that --help after it knows it
    help="Of --stage train: the recommender, a name below; with --help, its settings alone.  "
    "[required there]",
)
@training_options
@click.option(
    "--trials",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Settings to try, the first being those that it starts from.",
)
@click.option(
    "--range",
    "bounds",
    multiple=True,
    metavar="NAME=LOW:HIGH",
    help="Search a setting elsewhere than its backbone or method says; repeatable. Of --stage "
    "distill any number will do, such as dimension=16:64: a size is judged by Recall@20 alone, "
    "whatever it costs.",
)
@click.option("--name", help="Name of the search's folder [default: made from the inputs].")
@tunings_root_option
def tune(
    stage: str,
    method: str | None,
    trials: int,
    bounds: tuple[str, ...],
    name: str | None,
    tunings_root: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Search a backbone's settings on valid; train the best ones and judge test, once.

    The same seed gives the same trials. A setting given by --set stays as it is; the others are
    searched where the list below says. Goes on where it was stopped.
    """
    if both := sorted({*names_in(options["overrides"])} & {*names_in(bounds)}):
        raise click.UsageError(f"--range {both[0]}: --set fixes it; leave one of the two out")
    if stage == "distill":
        _refuse_what_is_of_training()
        _tune_method(method, trials, bounds, name, tunings_root, as_json, options)
        return
    if method is not None:
        raise click.UsageError("--method: is of --stage distill; leave it out, or add that")
    from sgfd import recommenders

    kind = backbone_class(options["backbone"])
    ranges = _ranges(kind.Settings, kind.ranges(), bounds)
    told = training_inputs(options)
    made_from = told.features.manifest.name if told.features else "no-features"
    given = {name: ranges[name] for name in names_in(bounds)}
    if idle := [name for name, at in given.items() if at.features and not told.features]:
        raise click.UsageError(
            f"--range {idle[0]}: makes no difference without features; add --features, "
            "or leave it out"
        )
    usual = f"{told.dataset.name}-{told.backbone}-{made_from}"
    run = recommenders.tune(
        told.dataset,
        told.backbone,
        told.features,
        _within(told.settings, given),
        folder=tunings_root / _folder_name(name, usual, options),
        trials=trials,
        fixed=told.fixed,
        ranges=ranges,
        **told.options,
    )
    present(run_summary(run), as_json, lambda: print_run(run))


def _refuse_what_is_of_training() -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and parameter.name not in OF_DISTILLING:
            option = parameter.opts[0]
            raise click.UsageError(f"{option}: is of --stage train, not of distill; leave it out")


def _tune_method(
    name: str | None,
    trials: int,
    bounds: tuple[str, ...],
    folder_name: str | None,
    tunings_root: Path,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    from sgfd.distill import DEFAULT_METHOD, METHODS
    from sgfd.settings import numbers_of, ranges_of

    name = name or DEFAULT_METHOD
    kind = choose(name, METHODS, "--method").settings
    settings = read_settings(kind, options["overrides"])
    ranges = _ranges(kind, ranges_of(kind), bounds, numbers_of(kind))
    settings = _within(settings, {each: ranges[each] for each in names_in(bounds)})
    if options["dataset"] is None:
        raise click.UsageError("missing option --dataset; name a data set")
    from sgfd.distill import tuning

    loaded = load(options["dataset"], options["data_root"])
    found = tuning.tune(
        loaded,
        tunings_root / _folder_name(folder_name, f"{loaded.name}-{name}", options),
        settings,
        options["seed"],
        method=name,
        trials=trials,
        fixed=names_in(options["overrides"]),
        ranges=ranges,
        split=options["split"],
        split_seed=options["split_seed"],
        device=options["device"],
        threads=options["threads"],
    )

    def human() -> None:
        from sgfd.jobs.search import values_in_words

        print_figures(found.result.quality)
        values = values_in_words(found.chosen)
        if replace(settings, **found.chosen) == settings:
            values = f"none better than the start, {values}"
        click.echo(f"tuned         {counted(found.trials, 'trial')}: {values}")
        recall, of_start = (
            "none" if x is None else f"{x:.4f}" for x in (found.recall, found.start_recall)
        )
        click.echo(f"held-out      Recall@20 {recall}, of the start {of_start}")
        click.echo(f"feature set   {found.result.artifact}")

    present(found.to_json(), as_json, human)


def _folder_name(given: str | None, usual: str, options: dict[str, Any]) -> str:
    """The search's folder: one of its own for each seed and split, where no name is given."""
    split = "" if options["split"] == "given" else f"-{options['split']}"
    return plain_name(f"{usual}-seed{options['seed']}{split}" if given is None else given, "--name")


def _ranges(
    settings: type[Any],
    declared: dict[str, "Range"],
    bounds: tuple[str, ...],
    others: Collection[str] = (),
) -> dict[str, "Range"]:
    """The ranges that are declared, with other bounds, and those of other settings, where `--range`
    gives some."""
    from sgfd.settings import Range

    ranges = dict(declared)
    known = {name: Range(0, 1) for name in others} | ranges
    for text in bounds:
        name, _, ends = text.partition("=")
        if name not in known and name in {field.name for field in fields(settings)}:
            searched = " or ".join(sorted(known)) or "none"
            raise click.UsageError(
                f"--range {name}: is not searched, but fixed by --set; choose {searched}"
            )
        before = choose(name, known, "--range")
        try:
            low, high = (float(end) for end in ends.split(":"))
        except ValueError:
            raise click.UsageError(f"--range {text}: write --range NAME=LOW:HIGH") from None
        ranges[name] = replace(before, low=low, high=high)
        if why := _wrong(settings, name, ranges[name]):
            raise click.UsageError(f"--range {text}: {why}; see --help for what it takes")
    return ranges


def _within(settings: Any, ranges: dict[str, "Range"]) -> Any:
    """The settings to start from, at the nearer end of a range where one lies outside."""
    values = {name: getattr(settings, name) for name in ranges}
    ends = {name: min(max(values[name], at.low), at.high) for name, at in ranges.items()}
    return replace(settings, **{name: type(values[name])(end) for name, end in ends.items()})


def _wrong(settings: type[Any], name: str, where: "Range") -> str | None:
    """What is wrong with a range, if anything."""
    from pydantic import ValidationError

    if not where.low < where.high:
        return "the low end is not below the high end"
    if where.log and where.low <= 0:
        return "it is searched by logarithm, which needs a low end above 0"
    try:
        for end in (where.low, where.high):
            settings(**{name: end})
    except ValidationError as error:
        return error.errors()[0]["msg"].lower()
    return None
