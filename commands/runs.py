"""`pipeline train | evaluate | recommend | similar`: stage two."""

from pathlib import Path
from typing import Any

import click

from sgfd.commands.inputs import load, open_features, open_run, plain_name
from sgfd.commands.options import (
    artifacts_root_option,
    data_root_option,
    device_option,
    json_option,
    k_option,
    label_option,
    overwrite_option,
    refit_option,
    run_options,
    runs_root_option,
    seed_option,
    set_option,
    threads_option,
)
from sgfd.commands.output import (
    present,
    print_items,
    print_metrics,
    print_refit,
    print_run,
    run_summary,
)
from sgfd.commands.settings import SettingsHelp, read_settings


@click.command(cls=SettingsHelp)
@click.option("--backbone", required=True, help="The recommender; its settings are below.")
@click.option("--preset", help="The authors' published settings: office, clothing or toys-games.")
@click.option("--features", help="A feature set: folder or name; none to train without.")
@click.option("--dataset", help="A data set: name, folder, or sample [default: the features'].")
@click.option(
    "--protocol",
    type=click.Choice(["honest", "paper"]),
    default="honest",
    show_default=True,
    help="Choose the model on valid, or on test as the paper does (to compare only).",
)
@click.option(
    "--split",
    type=click.Choice(["given", "cold-items", "temporal", "leave-one-out"]),
    default="given",
    show_default=True,
    help="The data set's own parts; whole items, the last in time or a user's last as test.",
)
@click.option(
    "--judge-users",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text file with a user id a line: test judges these alone.",
)
@set_option
@seed_option
@click.option("--split-seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--feature-scale",
    type=click.Choice(["entry", "unit", "stored"]),
    default="entry",
    show_default=True,
    help="Features with mean squared entry 1, as unit vectors, or as they are stored.",
)
@click.option("--modalities", help="Those of the feature set to use, with commas between [all].")
@click.option("--min-coverage", type=click.FloatRange(0, 1), default=0.95, show_default=True)
@refit_option
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
    preset: str | None,
    features: str | None,
    modalities: str | None,
    dataset: str | None,
    judge_users: Path | None,
    overrides: tuple[str, ...],
    data_root: Path | None,
    artifacts_root: Path,
    name: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Stage two: train a backbone on frozen features and judge it by exact top-K."""
    from sgfd import recommenders

    kind = recommenders.find_backbone(backbone)
    base = recommenders.find_preset(kind, preset) if preset else None
    settings = read_settings(kind.Settings, overrides, base)

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
        modalities=modalities.split(",") if modalities else None,
        judge_users=_read_ids(judge_users) if judge_users else None,
        **options,
    )
    present(run_summary(run), as_json, lambda: print_run(run))


def _read_ids(path: Path) -> list[str]:
    """The ids of a text file, one a line; empty lines are none."""
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line]
    except UnicodeDecodeError:
        raise click.UsageError(f"{path}: is not UTF-8; save it as UTF-8") from None


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
        tested = {part: run.refit.judge(part).metrics for part in run.refit.split.judged_parts()}
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
