"""`pipeline train | evaluate | recommend | similar`: stage two."""

from pathlib import Path
from typing import Any

import click

from sgfd.commands.inputs import open_features, open_run, plain_name, training_inputs
from sgfd.commands.options import (
    artifacts_root_option,
    k_option,
    label_option,
    overwrite_option,
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


@click.command(cls=SettingsHelp)
@training_options
@click.option(
    "--protocol",
    type=click.Choice(["honest", "paper"]),
    default="honest",
    show_default=True,
    help="Choose the model on valid, or on test as the paper does (to compare only).",
)
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
        name=plain_name(name, "--name") if name else None,
        **told.options,
    )
    present(run_summary(run), as_json, lambda: print_run(run))


@click.command()
@run_options
def evaluate(
    run_argument: str | None, run_option: str | None, runs_root: Path, as_json: bool
) -> int:
    """Measure a run again, from its folder alone. Exit code 2 if its own figures differ."""
    import time

    run = open_run(run_argument or run_option, runs_root)
    start = time.perf_counter()
    metrics = {str(part): run.judge(part).metrics for part in run.split.judged_parts()}
    summary = run_summary(run)
    summary["seconds"]["evaluate"] = time.perf_counter() - start
    summary["metrics"] = metrics
    summary["agrees"] = _agrees(metrics, run.metrics)
    if run.refit is not None:
        tested = {
            str(part): run.refit.judge(part).metrics for part in run.refit.split.judged_parts()
        }
        summary["refit"]["metrics"] = {part: found for part, found in tested.items() if found}
        summary["agrees"] &= _agrees(tested, run.refit.metrics)

    def human() -> None:
        print_metrics(metrics)
        print_refit(summary)
        click.echo(
            f"run           {run.folder}: these are "
            + ("the run's own figures" if summary["agrees"] else "NOT the figures in run.json")
        )

    present(summary, as_json, human)
    return 0 if summary["agrees"] else 2


def _agrees(now: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> bool:
    """Whether all metrics of a record are those measured now; an early version has fewer."""
    return all(
        now[part].get(name) == value
        for part, figures in before.items()
        for name, value in figures.items()
    )


@click.command()
@click.option("--user", help="A user of the run, by id.")
@click.option("--items", help="A new user, by the ids of his items, with commas between.")
@click.option("--all", "everybody", is_flag=True, help="All users, as a Parquet file: --out.")
@click.option("--out", type=click.Path(path_type=Path), help="Where --all writes.")
@click.option("--new-items", help="A feature set whose new items may be listed too.")
@k_option
@label_option
@artifacts_root_option
@run_options
def recommend(
    user: str | None,
    items: str | None,
    everybody: bool,
    out: Path | None,
    new_items: str | None,
    k: int,
    label: str | None,
    artifacts_root: Path,
    run_argument: str | None,
    run_option: str | None,
    runs_root: Path,
    as_json: bool,
) -> None:
    """Recommend items that a user has not seen: to one, to a new one, or to all."""
    if (user is not None) + (items is not None) + everybody != 1:
        raise click.UsageError("whom to recommend to? give one of --user, --items and --all")
    if everybody != (out is not None):
        raise click.UsageError("--all and --out go together: give both or none")
    from sgfd import recommenders

    run = open_run(run_argument or run_option, runs_root)
    if new_items is not None:
        run = recommenders.with_new_items(run, open_features(new_items, artifacts_root))
    if out is not None:
        recommenders.write_recommendations(run, out, k, label)
        result = {"run": str(run.folder), "users": len(run.names.users), "file": str(out)}
        present(result, as_json, lambda: click.echo(f"lists         {out}"))
        return
    if items is not None:
        user = "(new)"
        ids = [item.strip() for item in items.split(",") if item.strip()]
        run = recommenders.with_new_user(run, ids, user)
    assert user is not None
    rows = recommenders.recommend(run, user, k, label)
    result = {"run": str(run.folder), "user": user, "items": rows}
    present(result, as_json, lambda: print_items(rows))


@click.command()
@click.option("--item", required=True, help="The item's id.")
@k_option
@label_option
@run_options
def similar(
    item: str,
    k: int,
    label: str | None,
    run_argument: str | None,
    run_option: str | None,
    runs_root: Path,
    as_json: bool,
) -> None:
    """List the items nearest to an item, by the vectors that a backbone learnt."""
    from sgfd import recommenders

    run = open_run(run_argument or run_option, runs_root)
    rows = recommenders.similar(run, item, k, label)
    result = {"run": str(run.folder), "item": item, "items": rows}
    present(result, as_json, lambda: print_items(rows))
