"""`pipeline train | evaluate | recommend`: stage two."""

from pathlib import Path
from typing import Any

import click

from sgfd.commands.inputs import load, open_features, open_run, plain_name
from sgfd.commands.options import (
    artifacts_root_option,
    data_root_option,
    device_option,
    json_option,
    overwrite_option,
    run_options,
    runs_root_option,
    seed_option,
    set_option,
    threads_option,
)
from sgfd.commands.output import present, print_metrics, print_run, run_summary
from sgfd.commands.settings import SettingsHelp, read_settings


@click.command(cls=SettingsHelp)
@click.option("--backbone", required=True, help="The recommender: bm3, bpr, popular.")
@click.option("--features", help="A feature set: folder or name; none to train without.")
@click.option("--dataset", help="A data set: name, folder, or sample [default: the features'].")
@click.option(
    "--protocol",
    type=click.Choice(["honest", "paper"]),
    default="honest",
    show_default=True,
    help="Choose the model on valid, or on test as the paper does (to compare only).",
)
@set_option
@seed_option
@click.option("--split-seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--min-coverage", type=click.FloatRange(0, 1), default=0.95, show_default=True)
@click.option("--name", help="Name of the run's folder [default: made from the inputs].")
@device_option
@threads_option
@overwrite_option
@data_root_option
@artifacts_root_option
@runs_root_option
@json_option
def train(
    backbone: str,
    features: str | None,
    dataset: str | None,
    overrides: tuple[str, ...],
    data_root: Path | None,
    artifacts_root: Path,
    name: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Stage two: train a backbone on frozen features and judge it by exact top-K."""
    from sgfd.recommenders import find_backbone

    settings = read_settings(find_backbone(backbone).Settings, overrides)
    from sgfd import recommenders

    feature_set = None
    if features not in (None, "none"):
        feature_set = open_features(features, artifacts_root)
    if dataset is None:
        if feature_set is None:
            raise click.UsageError("without --features, --dataset says what to train on; add it")
        dataset = feature_set.manifest.dataset.name
    run = recommenders.train(
        load(dataset, data_root),
        backbone,
        feature_set,
        settings,
        name=plain_name(name, "--name") if name else None,
        **options,
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
    metrics = {"valid": run.judge("valid").metrics, "test": run.judge("test").metrics}
    summary = run_summary(run)
    summary["seconds"]["evaluate"] = time.perf_counter() - start
    summary["metrics"] = metrics
    summary["agrees"] = metrics == run.metrics

    def human() -> None:
        print_metrics(metrics)
        click.echo(
            f"run           {run.folder}: these are "
            + ("the run's own figures" if summary["agrees"] else "NOT the figures in run.json")
        )

    present(summary, as_json, human)
    return 0 if summary["agrees"] else 2


@click.command()
@click.option("--user", required=True, help="The user's id.")
@click.option("--k", type=click.IntRange(1), default=10, show_default=True)
@run_options
def recommend(
    user: str,
    k: int,
    run_argument: str | None,
    run_option: str | None,
    runs_root: Path,
    as_json: bool,
) -> None:
    """Recommend items that a user has not seen."""
    run = open_run(run_argument or run_option, runs_root)
    rows = run.recommend(user, k)

    def human() -> None:
        for row in rows:
            click.echo(f"{row['rank']:>3}  {row['item_id']:<14}{row['title'] or ''}")

    result = {"run": str(run.folder), "user": user, "items": rows}
    present(result, as_json, human)
