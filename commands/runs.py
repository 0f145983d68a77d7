"""`pipeline train | evaluate | recommend | similar`: stage two."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sgfd.commands.inputs import load, open_features, open_run, plain_name, training_inputs
from sgfd.commands.options import (
    NAMES,
    artifacts_root_option,
    data_root_option,
    k_option,
    label_option,
    overwrite_option,
    protocol_option,
    run_options,
    runs_root_option,
    training_options,
)
from sgfd.commands.output import (
    present,
    print_items,
    print_metrics,
    print_refit,
    print_run,
    run_summary,
)
from sgfd.commands.settings import SettingsHelp

if TYPE_CHECKING:
    from sgfd.dataset import Feature
    from sgfd.recommenders import Run


@click.command(
    cls=SettingsHelp, short_help="Stage two: train a backbone on frozen features; judge it."
)
@click.option(
    "--backbone",
    is_eager=True,  # so that --help after it knows it
    help="The recommender: a name below; with --help, its settings alone.  [required]",
)
@training_options
@protocol_option
@click.option("--name", help="Name of the run's folder [default: made from the inputs].")
@overwrite_option
@runs_root_option
def train(name: str | None, as_json: bool, **options: Any) -> None:
    """Stage two: train a backbone on frozen features and judge it by exact top-K."""
    from sgfd import recommenders

    told = training_inputs(options)
    run = recommenders.train(
        told.dataset,
        told.backbone,
        told.features,
        told.settings,
        name=None if name is None else plain_name(name, "--name"),
        **told.options,
    )
    present(run_summary(run), as_json, lambda: print_run(run))


@click.command()
@click.option("--dataset", help="The run's data set: measure diversity, too, by its features.")
@data_root_option
@run_options
def evaluate(
    dataset: str | None,
    data_root: Path | None,
    run_argument: str | None,
    run_option: str | None,
    runs_root: Path,
    as_json: bool,
) -> int:
    """Measure a run again, from its folder alone. Exit code 2 if its own figures differ.

    Diversity alone needs the generic features, which no run holds: it is measured where --dataset
    gives them, and otherwise stays what was recorded.
    """
    import time

    from sgfd.jobs import use_threads

    run = open_run(run_argument, run_option, runs_root)
    if threads := run.record.get("threads"):
        # Others add in another order, by which two items of a list may change places.
        use_threads(threads[-1])
    generic = run.generic_features(load(dataset, data_root)) if dataset else None
    start = time.perf_counter()
    metrics = _measured(run, generic)
    summary = run_summary(run)
    summary["seconds"]["evaluate"] = time.perf_counter() - start
    summary["metrics"] = metrics
    summary["recorded"] = sorted(
        {name for part in metrics for name in metrics[part] if _is_recorded(name, generic)}
    )
    summary["agrees"] = _agrees(summary["metrics"], run.metrics)
    if run.refit is not None:
        tested = _measured(run.refit, generic)
        summary["refit"]["metrics"] = {part: found for part, found in tested.items() if found}
        summary["agrees"] &= _agrees(summary["refit"]["metrics"], run.refit.metrics)

    def human() -> None:
        print_metrics(summary["metrics"])
        if summary["recorded"]:
            click.echo("diversity     is as the run recorded it; --dataset measures it again")
        print_refit(summary)
        click.echo(
            f"run           {run.folder}: these are "
            + ("the run's own figures" if summary["agrees"] else "NOT the figures in run.json")
        )

    present(summary, as_json, human)
    return 0 if summary["agrees"] else 2


def _measured(run: "Run", generic: "dict[str, Feature] | None") -> dict[str, dict[str, float]]:
    """All metrics of a run; diversity, without the generic features, as they were recorded."""
    return {
        str(part): run.judge(part, generic).metrics
        | {
            name: value
            for name, value in run.metrics.get(part, {}).items()
            if _is_recorded(name, generic)
        }
        for part in run.split.judged_parts()
    }


def _is_recorded(name: str, generic: "dict[str, Feature] | None") -> bool:
    from sgfd.recommenders.evaluation import DIVERSITY

    return generic is None and name.startswith(DIVERSITY)


def _agrees(now: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> bool:
    """Whether all metrics of a record are those measured now; an early version has fewer.

    Diversity, which sums in single precision, may differ by its error: versions add up in another
    order.
    """
    from sgfd.recommenders.evaluation import DIVERSITY, DIVERSITY_ERROR

    def same(name: str, value: float, again: float | None) -> bool:
        if again is None or not name.startswith(DIVERSITY):
            return again == value
        return abs(again - value) <= DIVERSITY_ERROR

    return all(
        same(name, value, now[part].get(name))
        for part, figures in before.items()
        for name, value in figures.items()
    )


new_items_option = click.option(
    "--new-items", help="A feature set whose new items may be asked about and listed, too."
)


@click.command(short_help="Recommend items that a user has not seen.")
@click.option("--user", help="A user of the run, by id.")
@click.option(
    "--items",
    type=NAMES,
    help="A new user, by the ids of his items, with commas between; one that holds a comma in "
    "double quotes.",
)
@click.option("--all", "everybody", is_flag=True, help="All users, as a Parquet file: --out.")
@click.option("--out", type=click.Path(path_type=Path), help="Where --all writes.")
@new_items_option
@click.option(
    "--leave-out-test",
    is_flag=True,
    help="Leave out a user's test items, too: for lists to put to use. Without it, those of his "
    "train and valid alone, as test judges.",
)
@k_option
@label_option
@overwrite_option
@artifacts_root_option
@run_options
def recommend(
    user: str | None,
    items: list[str] | None,
    everybody: bool,
    out: Path | None,
    new_items: str | None,
    leave_out_test: bool,
    k: int,
    label: str | None,
    overwrite: bool,
    artifacts_root: Path,
    run_argument: str | None,
    run_option: str | None,
    runs_root: Path,
    as_json: bool,
) -> None:
    """Recommend items that a user has not seen: to one, to a new one, or to all."""
    if (user is not None) + (items is not None) + everybody != 1:
        raise click.UsageError("whom to recommend to? give just one of --user, --items and --all")
    if everybody and out is None:
        raise click.UsageError("--all: where to? give --out LISTS.parquet")
    if out is not None and not everybody:
        raise click.UsageError("--out is where --all writes; leave it out")
    if leave_out_test and items is not None:
        raise click.UsageError(
            "--leave-out-test is of users of the run: a new one has no test items"
        )
    if out is not None and out.suffix != ".parquet":  # before the run is read
        raise click.UsageError(f"--out {out}: is written as Parquet; end its name in .parquet")
    from sgfd import recommenders

    run = _with_new_items(open_run(run_argument, run_option, runs_root), new_items, artifacts_root)
    if out is not None:
        recommenders.write_recommendations(
            run, out, k, label, overwrite, leave_out_test=leave_out_test
        )
        result = {"run": str(run.folder), "users": len(run.names.users), "file": str(out)}
        present(result, as_json, lambda: click.echo(f"lists         {out}"))
        return
    if items is not None:
        user = "(new)"
        while user in run.names.users:
            user = f"({user})"
        run = recommenders.with_new_user(run, items, user)
    assert user is not None
    rows = recommenders.recommend(run, user, k, label, leave_out_test=leave_out_test)
    result = {"run": str(run.folder), "user": user, "items": rows}
    present(result, as_json, lambda: print_items(rows))


@click.command(short_help="List the items nearest to an item.")
@click.option("--item", required=True, help="The item's id.")
@new_items_option
@k_option
@label_option
@artifacts_root_option
@run_options
def similar(
    item: str,
    new_items: str | None,
    k: int,
    label: str | None,
    artifacts_root: Path,
    run_argument: str | None,
    run_option: str | None,
    runs_root: Path,
    as_json: bool,
) -> None:
    """List the items nearest to an item, by the vectors that a backbone learnt."""
    from sgfd import recommenders

    run = _with_new_items(open_run(run_argument, run_option, runs_root), new_items, artifacts_root)
    rows = recommenders.similar(run, item, k, label)
    result = {"run": str(run.folder), "item": item, "items": rows}
    present(result, as_json, lambda: print_items(rows))


def _with_new_items(run: "Run", features: str | None, artifacts_root: Path) -> "Run":
    from sgfd import recommenders

    if features is None:
        return run
    return recommenders.with_new_items(run, open_features(features, artifacts_root))
