"""The command line: parse, call, print. Everything it does, the packages do for Python as well."""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import ValidationError

    from sgfd.dataset import Dataset
    from sgfd.featureset import FeatureSet
    from sgfd.recommenders import Run

PRESET_NAMES = "office, clothing or toys-games (also with -bm3, -grcn, -maml)"


class SettingsHelp(click.Command):
    """A command whose help ends with the settings that `--set` takes."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, settings in _settings_classes(self.name or ""):
            with formatter.section(f"Settings of {title} (--set NAME=VALUE)"):
                formatter.write_dl(_settings_rows(settings))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="sgfd", prog_name="pipeline")
def cli() -> None:
    """Distil an item catalogue once; train any recommender on the frozen features."""


def main() -> None:
    """Entry point: one line on standard error and exit code 2 for whatever a user can mend."""
    # OpenMP's threads spin while they wait. Beside another busy process that makes a step 20 times
    # as long; not to spin at all doubles it on a quiet machine. So they spin a little.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("sgfd").setLevel(logging.INFO)
    try:
        # As click's own main, which would print an empty line before an interrupt reaches us.
        with cli.make_context("pipeline", sys.argv[1:]) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as finished:
        code = finished.exit_code
    except click.ClickException as error:
        code = _fail(error.format_message())
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command goes on from the last checkpoint", err=True)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if "PIPELINE_DEBUG" in os.environ:
            raise
        code = _fail(_one_line(error))
        if not hasattr(error, "remedy") and not isinstance(error, OSError):
            click.echo("this is a bug: PIPELINE_DEBUG=1 shows where", err=True)
            code = 1
    sys.exit(code)


# ---------------------------------------------------------------- shared options

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
data_root_option = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder of the data sets [default: $PIPELINE_DATA, else ./data].",
)
artifacts_root_option = click.option(
    "--artifacts-root",
    type=click.Path(path_type=Path),
    default=Path("artifacts"),
    show_default=True,
    help="Folder of the feature sets.",
)
runs_root_option = click.option(
    "--runs-root",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder of the runs.",
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable."
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="Threads of torch and FAISS [default: all cores]."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing result.")


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The run a command reads: RUN or --run, else the newest one."""
    command = click.argument("run_argument", metavar="[RUN]", required=False)(command)
    command = click.option("--run", "run_option", help="A run: folder or name [default: newest].")(
        command
    )
    return runs_root_option(json_option(command))


# ---------------------------------------------------------------- data


@cli.group()
def data() -> None:
    """Look at data sets and check them."""


@data.command("list")
@data_root_option
@json_option
def data_list(data_root: Path | None, as_json: bool) -> None:
    """List the data sets that can be named."""
    from sgfd.dataset import list_datasets

    rows = [{"name": name, "layout": layout} for name, layout in list_datasets(data_root)]
    _present(rows, as_json, lambda: _table(rows))


@data.command("show")
@click.argument("dataset")
@data_root_option
@json_option
def data_show(dataset: str, data_root: Path | None, as_json: bool) -> None:
    """Show what a data set holds: users, items, interactions, modalities, labels."""
    from sgfd.dataset import load_dataset

    loaded = load_dataset(dataset, data_root)
    catalog, interactions = loaded.catalog, loaded.interactions
    shown: dict[str, Any] = {"dataset": loaded.name, "layout": loaded.layout}
    if interactions is not None:
        parts = {part: getattr(interactions, part) for part in ("train", "valid", "test")}
        shown |= {
            "users": interactions.n_users,
            "items": interactions.n_items,
            "interactions": {part: 0 if p is None else len(p) for part, p in parts.items()},
        }
    if catalog is not None:
        shown["items"] = catalog.n_items
        shown["modalities"] = [
            {"name": name, "dimension": feature.dimension, "coverage": round(feature.coverage, 4)}
            for name, feature in catalog.features.items()
        ]
        if catalog.labels is not None:
            shown["labels"] = {
                "count": len(catalog.label_names),
                "unlabelled": int((catalog.labels < 0).sum()),
            }
    shown["warnings"] = [_problem_line(problem) for problem in loaded.warnings]

    def human() -> None:
        for key in ("dataset", "layout", "users", "items"):
            if key in shown:
                click.echo(f"{key:<14}{shown[key]}")
        for part, count in shown.get("interactions", {}).items():
            click.echo(f"{part:<14}{count} interactions")
        for row in shown.get("modalities", []):
            click.echo(
                f"{row['name']:<14}{row['dimension']}-d, {row['coverage']:.1%} of the items have it"
            )
        if "labels" in shown:
            labels = shown["labels"]
            click.echo(f"labels        {labels['count']}, {labels['unlabelled']} items unlabelled")
        for line in shown["warnings"]:
            click.echo(f"warning: {line}", err=True)

    _present(shown, as_json, human)


@data.command("check")
@click.argument("dataset")
@data_root_option
@json_option
def data_check(dataset: str, data_root: Path | None, as_json: bool) -> int:
    """Name every problem of a data set: where it is and what to do. Exit code 2 if any."""
    from sgfd.dataset import check_dataset

    problems = check_dataset(dataset, data_root)
    rows = [
        {"severity": p.severity, "where": p.where, "what": p.what, "remedy": p.remedy}
        for p in problems
    ]

    def human() -> None:
        for problem in problems:
            click.echo(f"{problem.severity}: {_problem_line(problem)}", err=True)
        click.echo(f"{dataset}: " + (f"{len(problems)} problems" if problems else "no problems"))

    _present({"dataset": dataset, "problems": rows}, as_json, human)
    return 2 if problems else 0


# ---------------------------------------------------------------- stage one


@cli.command(cls=SettingsHelp)
@click.option("--dataset", required=True, help="A data set: name, folder, or sample.")
@click.option("--name", help="Name of the feature set [default: the data set's].")
@click.option("--preset", help=f"The paper's weights and temperature: {PRESET_NAMES}.")
@set_option
@seed_option
@device_option
@threads_option
@overwrite_option
@data_root_option
@artifacts_root_option
@json_option
def distill(
    dataset: str,
    name: str | None,
    preset: str | None,
    overrides: tuple[str, ...],
    seed: int,
    device: str,
    threads: int | None,
    overwrite: bool,
    data_root: Path | None,
    artifacts_root: Path,
    as_json: bool,
) -> None:
    """Stage one: turn a catalogue's generic features and labels into a feature set."""
    from sgfd.distill import PRESETS, SGFDSettings

    base = _choose(preset, PRESETS, "--preset") if preset else {}
    settings = _settings(SGFDSettings, overrides, base)
    from sgfd.distill import distill as run_stage_one

    loaded = _load(dataset, data_root)
    target = artifacts_root / _plain_name(name or loaded.name, "--name")
    result = run_stage_one(
        loaded, target, settings, seed, device=device, threads=threads, overwrite=overwrite
    )

    def human() -> None:
        _figures(result.quality)
        click.echo(f"feature set   {result.artifact}  ({result.seconds:.1f} s)")

    _present(result.to_json(), as_json, human)


@cli.group()
def features() -> None:
    """Look at feature sets and verify them."""


@features.command("show")
@click.argument("features")
@artifacts_root_option
@json_option
def features_show(features: str, artifacts_root: Path, as_json: bool) -> None:
    """Show a feature set's manifest: what it is, from what, how made, how good."""
    manifest = _open_features(features, artifacts_root).manifest

    def human() -> None:
        click.echo(f"name          {manifest.name}  ({manifest.method}, seed {manifest.seed})")
        click.echo(f"created       {manifest.created} by {manifest.producer.name}")
        click.echo(f"dataset       {manifest.dataset.name}, {manifest.dataset.n_items} items")
        for modality in manifest.modalities:
            click.echo(
                f"{modality.name:<14}{modality.source_dimension}-d -> {modality.dimension}-d, "
                f"{modality.coverage:.1%} of the items have it"
            )
        _figures(manifest.quality)

    _present(manifest.model_dump(mode="json"), as_json, human)


@features.command("verify")
@click.argument("features")
@artifacts_root_option
@json_option
def features_verify(features: str, artifacts_root: Path, as_json: bool) -> int:
    """Check a feature set's files against its manifest and each other. Exit code 2 if not whole."""
    from sgfd.featureset import verify

    path = _features_path(features, artifacts_root)
    problems = verify(path)

    def human() -> None:
        for problem in problems:
            click.echo(problem, err=True)
        click.echo(
            f"{path}: " + (f"{len(problems)} problems" if problems else "whole and unchanged")
        )

    _present({"artifact": str(path), "problems": problems}, as_json, human)
    return 2 if problems else 0


# ---------------------------------------------------------------- stage two


@cli.command(cls=SettingsHelp)
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

    settings = _settings(find_backbone(backbone).Settings, overrides)
    from sgfd import recommenders

    feature_set = None
    if features not in (None, "none"):
        feature_set = _open_features(features, artifacts_root)
    if dataset is None:
        if feature_set is None:
            raise click.UsageError("without --features, --dataset says what to train on; add it")
        dataset = feature_set.manifest.dataset.name
    run = recommenders.train(
        _load(dataset, data_root),
        backbone,
        feature_set,
        settings,
        name=_plain_name(name, "--name") if name else None,
        **options,
    )
    _present(_run_summary(run), as_json, lambda: _print_run(run))


@cli.command()
@run_options
def evaluate(
    run_argument: str | None, run_option: str | None, runs_root: Path, as_json: bool
) -> int:
    """Measure a run again, from its folder alone. Exit code 2 if its own figures differ."""
    import time

    run = _open_run(run_argument or run_option, runs_root)
    start = time.perf_counter()
    metrics = {"valid": run.judge("valid").metrics, "test": run.judge("test").metrics}
    summary = _run_summary(run)
    summary["seconds"]["evaluate"] = time.perf_counter() - start
    summary["metrics"] = metrics
    summary["agrees"] = metrics == run.metrics

    def human() -> None:
        _metrics_table(metrics)
        click.echo(
            f"run           {run.folder}: these are "
            + ("the run's own figures" if summary["agrees"] else "NOT the figures in run.json")
        )

    _present(summary, as_json, human)
    return 0 if summary["agrees"] else 2


@cli.command()
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
    run = _open_run(run_argument or run_option, runs_root)
    rows = run.recommend(user, k)

    def human() -> None:
        for row in rows:
            click.echo(f"{row['rank']:>3}  {row['item_id']:<14}{row['title'] or ''}")

    result = {"run": str(run.folder), "user": user, "items": rows}
    _present(result, as_json, human)


# ---------------------------------------------------------------- finding inputs


def _load(reference: str, data_root: Path | None) -> "Dataset":
    """A data set; what the loader had to repair is said on standard error."""
    from sgfd.dataset import load_dataset

    loaded = load_dataset(reference, data_root)
    for problem in loaded.warnings:
        click.echo(f"warning: {_problem_line(problem)}", err=True)
    return loaded


def _features_path(reference: str, artifacts_root: Path) -> Path:
    """A feature set by its name under the artifacts' root, or by folder."""
    named = artifacts_root / reference
    return named if reference and named.is_dir() else Path(reference)


def _open_features(reference: str | None, artifacts_root: Path) -> "FeatureSet":
    from sgfd.featureset import load

    return load(_features_path(reference or "", artifacts_root))


def _open_run(reference: str | None, runs_root: Path) -> "Run":
    """A run by folder or by its name under the runs' root; the newest one where none is named."""
    from sgfd.recommenders import load_run

    if reference is None:
        records = sorted(runs_root.glob("[!.]*/run.json"), key=lambda path: path.stat().st_mtime)
        if not records:
            raise click.UsageError(
                f"{runs_root}: there is no run; train one, or name it with --run"
            )
        return load_run(records[-1].parent)
    path = Path(reference)
    return load_run(path if path.is_dir() else runs_root / reference)


def _plain_name(name: str, option: str) -> str:
    if name in ("", ".", "..") or "/" in name or name.startswith("."):
        raise click.UsageError(f"{option}: {name!r} is no plain folder name; leave out / and dots")
    return name


# ---------------------------------------------------------------- settings


def _settings(
    settings: Callable[..., Any], overrides: tuple[str, ...], base: dict[str, Any] | None = None
) -> Any:
    """A settings object from a preset and `--set name=value` pairs, checked before data is read."""
    from dataclasses import fields

    from pydantic import ValidationError

    known = {field.name: None for field in fields(settings)}  # type: ignore[arg-type]
    values = dict(base or {})
    for pair in overrides:
        name, separator, value = pair.partition("=")
        if not separator:
            raise click.UsageError(f"--set {pair}: no value; write --set NAME=VALUE")
        _choose(name, known, "--set")
        values[name] = value
    try:
        return settings(**values)
    except ValidationError as error:
        raise click.UsageError(_validation_line(error)) from None


def _choose(name: str, known: dict[str, Any], option: str) -> Any:
    import difflib

    if name not in known:
        near = difflib.get_close_matches(name, known, cutoff=0.5) or sorted(known)
        raise click.UsageError(f"{option} {name}: unknown; choose {' or '.join(near)}")
    return known[name]


def _validation_line(error: "ValidationError") -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "settings"
    return f"--set {name}={first['input']}: {first['msg'].lower()}; see --help for what it takes"


def _settings_classes(command: str) -> list[tuple[str, Any]]:
    if command == "distill":
        from sgfd.distill.settings import SGFDSettings

        return [("sgfd", SGFDSettings)]
    from sgfd.recommenders import BACKBONES, find_backbone

    return [(name, find_backbone(name).Settings) for name in BACKBONES]


def _settings_rows(settings: Any) -> list[tuple[str, str]]:
    from pydantic import TypeAdapter

    schema = TypeAdapter(settings).json_schema()["properties"]
    return [
        (name, f"{field.get('description', '')}  [default: {field['default']}]")
        for name, field in schema.items()
    ]


# ---------------------------------------------------------------- printing


def _present(result: Any, as_json: bool, human: Callable[[], None]) -> None:
    if as_json:
        click.echo(json.dumps(result, allow_nan=False))
    else:
        human()


def _run_summary(run: "Run") -> dict[str, Any]:
    record = run.record
    kept = ("backbone", "protocol", "seed", "epochs", "seconds", "peak_memory_bytes", "metrics")
    features = record["features"]
    return {
        "run": str(run.folder),
        "features": features["name"] if features else None,
        "dataset": record["dataset"]["name"],
        **{key: record[key] for key in kept},
    }


def _print_run(run: "Run") -> None:
    record = run.record
    _metrics_table(run.metrics)
    click.echo(
        f"chosen on     {record['chosen_on']}, epoch {record['best_epoch']} of {record['epochs']}"
    )
    seconds = record["seconds"]
    click.echo(
        f"time          {seconds['train']:.1f} s training, {seconds['evaluate']:.1f} s judging"
    )
    click.echo(f"run           {run.folder}")


def _metrics_table(metrics: dict[str, dict[str, float]]) -> None:
    names = list(dict.fromkeys(name for part in metrics.values() for name in part))
    cutoffs = list(dict.fromkeys(name.partition("@")[2] for name in names))
    for part, figures in metrics.items():
        if figures:
            click.echo(f"{part:<14}" + "".join(f"{'@' + k:>9}" for k in cutoffs))
            for metric in dict.fromkeys(name.partition("@")[0] for name in names):
                row = "".join(f"{figures[f'{metric}@{k}']:>9.4f}" for k in cutoffs)
                click.echo(f"  {metric:<12}{row}")


def _figures(figures: dict[str, Any], indent: str = "") -> None:
    for name, value in figures.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{name.replace('_', ' ')}")
            _figures(value, indent + "  ")
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else value
            click.echo(f"{indent}{name.replace('_', ' '):<32}{shown}")


def _table(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        click.echo("".join(f"{value!s:<24}" for value in row.values()).rstrip())


def _problem_line(problem: Any) -> str:
    return f"{problem.where}: {problem.what}; {problem.remedy}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if hasattr(error, "remedy") else f"{type(error).__name__}: {text}"


def _fail(message: str) -> int:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    return 2


if __name__ == "__main__":
    main()
