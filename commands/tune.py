"""`pipeline tune`: the settings of a backbone, searched on valid."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgfd.commands.inputs import plain_name, training_inputs
from sgfd.commands.options import training_options
from sgfd.commands.output import present, print_run, run_summary
from sgfd.commands.settings import SettingsHelp, choose

if TYPE_CHECKING:
    from sgfd.recommenders import Backbone, Range


@click.command(cls=SettingsHelp)
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
    help="Search a setting elsewhere than its backbone says; repeatable.",
)
@click.option("--name", help="Name of the search's folder [default: made from the inputs].")
@click.option(
    "--tunings-root",
    type=click.Path(path_type=Path),
    default=Path("tunings"),
    show_default=True,
    help="Folder of the searches.",
)
def tune(
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
    from sgfd import recommenders

    ranges = _ranges(recommenders.find_backbone(options["backbone"]), bounds)
    told = training_inputs(options)
    made_from = told.features.manifest.name if told.features else "no-features"
    parts = (told.dataset.name, told.backbone, made_from, f"seed{options['seed']}")
    run = recommenders.tune(
        told.dataset,
        told.backbone,
        told.features,
        told.settings,
        folder=tunings_root / plain_name(name or "-".join(parts), "--name"),
        trials=trials,
        fixed=told.fixed,
        ranges=ranges,
        **told.options,
    )
    present(run_summary(run), as_json, lambda: print_run(run))


def _ranges(kind: "type[Backbone]", bounds: tuple[str, ...]) -> dict[str, "Range"]:
    """The ranges that a backbone declares, with other bounds where `--range` gives some."""
    ranges = kind.ranges()
    for text in bounds:
        name, _, ends = text.partition("=")
        declared = choose(name, ranges, "--range")
        try:
            low, high = (float(end) for end in ends.split(":"))
        except ValueError:
            raise click.UsageError(f"--range {text}: write --range NAME=LOW:HIGH") from None
        ranges[name] = replace(declared, low=low, high=high)
        if why := _wrong(kind, name, ranges[name]):
            raise click.UsageError(f"--range {text}: {why}; see --help for what it takes")
    return ranges


def _wrong(kind: "type[Backbone]", name: str, where: "Range") -> str | None:
    """What is wrong with a range, if anything."""
    from pydantic import ValidationError

    if not where.low < where.high:
        return "the low end is not below the high end"
    if where.log and where.low <= 0:
        return "it is searched by logarithm, which needs a low end above 0"
    try:
        for end in (where.low, where.high):
            kind.Settings(**{name: end})  # type: ignore[arg-type]
    except ValidationError as error:
        return error.errors()[0]["msg"].lower()
    return None
