"""Backbones on several feature sets, over seeds: the grid, its statistics, its report."""

from collections.abc import Sequence
from pathlib import Path

from sgfd.jobs import room_in, whole_number
from sgfd.recommenders.comparison.grid import (
    Grid,
    baseline_of,
    compared,
    label_features,
    protocols_of,
)
from sgfd.recommenders.comparison.report import write_report
from sgfd.recommenders.comparison.results import Cell, CellResult, ComparedFeatures, Comparison
from sgfd.recommenders.comparison.running import name_of, plan, ran_grid, run_grid
from sgfd.recommenders.comparison.statistics import Contrast, check_metrics, contrasts
from sgfd.recommenders.comparison.summary import in_words

__all__ = [
    "Cell",
    "CellResult",
    "ComparedFeatures",
    "Comparison",
    "Contrast",
    "Grid",
    "baseline_of",
    "compare",
    "contrasts",
    "in_words",
    "label_features",
    "name_of",
    "plan",
    "protocols_of",
    "run_grid",
    "write_report",
]


def compare(
    grid: Grid,
    folder: Path,
    jobs: int = 1,
    threads: int | None = None,
    *,
    command: str = "",
    baseline: str | None = None,
    metrics: Sequence[str] = ("recall@20", "ndcg@20"),
) -> tuple[Comparison, list[Contrast]]:
    """Run what is missing of a grid in `folder`, hold the feature sets against the baseline on
    each metric, and write the report.

    Raises:
        JobError: an input is wrong, changed under a half-done grid, or the folder is in use; the
            disk is full.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    held_against = baseline_of(grid, baseline)
    jobs = whole_number("jobs", jobs, least=1)
    check_metrics(metrics)
    with room_in(folder), ran_grid(grid, folder, jobs, threads) as results:
        found = compared(grid, results, command, held_against)
        differences = contrasts(found, metrics)
        write_report(found, differences, folder)
    return found, differences
