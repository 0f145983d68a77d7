"""What is printed: a short result for people, or one JSON object for machines."""

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sgfd.recommenders import Run

# Control characters, ends of lines and what turns the direction of writing.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printed(text: str) -> str:
    """Text from data as it can be shown on one line of a terminal, whatever is in it."""
    return _UNSEEN.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def counted(number: int, what: str) -> str:
    """`1 problem`, `2 problems`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def present(result: Any, as_json: bool, human: Callable[[], None]) -> None:
    if as_json:
        click.echo(json.dumps(result, allow_nan=False))
    else:
        human()


def run_summary(run: "Run") -> dict[str, Any]:
    from sgfd.featureset import version_of

    record = run.record
    kept = ("backbone", "protocol", "seed", "epochs", "seconds", "peak_memory_bytes", "metrics")
    features = record["features"]
    return {
        "run": str(run.folder),
        "features": features["name"] if features else None,
        "features_version": version_of(features["manifest_sha256"]) if features else None,
        "dataset": record["dataset"]["name"],
        "split": run.split.split,
        **{key: record[key] for key in kept},
        **{key: record[key] for key in ("tuning", "refit") if key in record},
    }


def print_run(run: "Run") -> None:
    from sgfd.featureset import versioned
    from sgfd.jobs.search import values_in_words

    record = run.record
    print_metrics(run.metrics)
    if "tuning" in record:
        tuning = record["tuning"]
        counts = f"{tuning['pruned']} pruned, {tuning['failed']} failed"
        values = values_in_words(tuning["chosen"])
        if tuning.get("chosen_trial") == 0:
            values = f"none better than the start, {values}"
        click.echo(
            f"tuned         {counted(tuning['trials'], 'trial')} on valid ({counts}): {values}"
        )
    if record["epochs"]:
        epochs = f"epoch {record['best_epoch']} of {record['epochs']}"
        click.echo(f"chosen on     {record['chosen_on']}, {epochs}")
    print_refit(record)
    if (used := record["features"]) is not None:
        click.echo(f"features      {versioned(used['name'], used['manifest_sha256'])}")
    seconds = record["seconds"]
    click.echo(
        f"time          {seconds['train']:.1f} s training, {seconds['evaluate']:.1f} s judging"
    )
    click.echo(f"run           {run.folder}")


def print_refit(record: dict[str, Any]) -> None:
    """The test figures of the model trained on train and valid together, under their own name."""
    if "refit" in record:
        refit = record["refit"]
        epochs = f", {refit['epochs']} epochs" if refit["epochs"] else ""
        click.echo(f"refit on {refit['trained_on']}{epochs}:")
        print_metrics({f"refit, {part}": m for part, m in refit["metrics"].items()})
        if refit.get("features_saw") == "train":
            click.echo("  its features were made with train alone, and not made again")


def print_metrics(metrics: dict[str, dict[str, float]]) -> None:
    """A table a part, of the metrics of everybody; those by group are in the run's folder."""
    width = max([20, *map(len, metrics)])
    for part, figures in metrics.items():
        names = [name for name in figures if " " not in name]
        cutoffs = list(dict.fromkeys(name.partition("@")[2] for name in names))
        if figures:
            click.echo(f"{part:<{width}}" + "".join(f"{'@' + k:>9}" for k in cutoffs))
            for metric in dict.fromkeys(name.partition("@")[0] for name in names):
                measured = (figures.get(f"{metric}@{k}") for k in cutoffs)
                row = "".join(f"{'-':>9}" if x is None else f"{x:>9.4f}" for x in measured)
                click.echo(f"  {metric:<{width - 2}}{row}")


def print_items(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        click.echo(f"{row['rank']:>3}  {printed(row['item_id']):<14}{printed(row['title'] or '')}")


def print_figures(figures: dict[str, Any], indent: str = "") -> None:
    for name, value in figures.items():
        if isinstance(value, dict):
            if any(each is not None for each in value.values()):
                click.echo(f"{indent}{printed(name.replace('_', ' '))}")
                print_figures(value, indent + "  ")
        elif value is not None:  # as it is where nothing could be measured
            shown = f"{value:.4f}" if isinstance(value, float) else printed(str(value))
            click.echo(f"{indent}{printed(name.replace('_', ' ')):<32}{shown}")


def print_table(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        click.echo("".join(f"{value!s:<24}" for value in row.values()).rstrip())


def problem_line(problem: Any) -> str:
    return f"{problem.where}: {problem.what}; {problem.remedy}"
