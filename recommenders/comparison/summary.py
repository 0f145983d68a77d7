"""Means and deviations over the seeds, for every way to show a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sgfd.recommenders.comparison.results import CellResult, Comparison

PROTOCOL_METRICS = ("recall@20", "ndcg@20", "paper_ndcg@20", "pooled_recall@20")


@dataclass(frozen=True)
class Value:
    """A metric of one row: of each seed, and together."""

    seeds: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.seeds))

    @property
    def text(self) -> str:
        """`0.1234 ± 0.0012`, the deviation with n - 1; none for one seed."""
        if not self.seeds:
            return "-"
        if len(self.seeds) == 1:
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ± {np.std(self.seeds, ddof=1):.4f}"


@dataclass(frozen=True)
class Row:
    """A backbone on a feature set: how many seeds are done and failed, and their figures."""

    backbone: str
    features: str
    seeds: int
    failed: int
    values: dict[str, Value]
    epochs: float
    train_seconds: float
    peak_memory_bytes: int


def rows_of(comparison: Comparison, protocol: str, metrics: Sequence[str]) -> list[Row]:
    """Every backbone on every feature set that it was trained on, in the order asked for."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for backbone in comparison.backbones:
        for features in comparison.features:
            groups[backbone, features.label] = []
    for result in comparison.results:
        if result.cell.protocol == protocol:
            groups[result.cell.backbone, result.cell.features].append(result)
    return [
        _row(backbone, features, results, metrics)
        for (backbone, features), results in groups.items()
        if results
    ]


def _row(backbone: str, features: str, results: list[CellResult], metrics: Sequence[str]) -> Row:
    done = [result for result in results if result.error is None]
    tests = [result.metrics["test"] for result in done]
    return Row(
        backbone,
        features,
        len(done),
        len(results) - len(done),
        {metric: Value(tuple(t[metric] for t in tests if metric in t)) for metric in metrics},
        float(np.mean([result.epochs for result in done])) if done else 0.0,
        float(np.mean([result.train_seconds for result in done])) if done else 0.0,
        max((result.peak_memory_bytes for result in done), default=0),
    )


def protocol_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Each metric by the honest and by the paper's protocol, side by side: head and rows."""
    there = {name for r in comparison.results for name in r.metrics.get("test", {})}
    metrics = [metric for metric in PROTOCOL_METRICS if metric in there]
    by = {
        protocol: {
            (row.backbone, row.features): row for row in rows_of(comparison, protocol, metrics)
        }
        for protocol in ("honest", "paper")
    }
    rows = [
        [*key, *(by[p][key].values[m].text for m in metrics for p in by)]
        for key in by["honest"]
        if key in by["paper"]
    ]
    return [f"{metric} {protocol}" for metric in metrics for protocol in by], rows
