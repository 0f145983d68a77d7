"""What a comparison found: one result a cell of the grid, ready for statistics and the report."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sgfd.dataset import Protocol, Split

NO_FEATURES = "none"


@dataclass(frozen=True, order=True)
class Cell:
    """One training of the grid.

    Attributes:
        protocol: `honest` or `paper`.
        backbone: its name.
        features: label of the feature set, `none` without.
        seed: of weights, batches and dropout.
    """

    protocol: Protocol
    backbone: str
    features: str
    seed: int


@dataclass(frozen=True)
class CellResult:
    """A finished cell, or one that failed.

    Attributes:
        metrics: by part (`valid`, `test`, under split cold-items `test_among_cold`) and name
            such as `recall@20`.
        run: the run's folder; its `per_user.parquet` has columns part, user_id and one a metric.
        train_seconds: of the training. peak_memory_bytes: of the cell's own process.
        epochs: that the training took, 0 without one.
        refit: metrics by part of the model trained on train and valid; empty without one.
        refit_seconds: that its training took. judge_seconds: that all judging took.
        threads: how many it was trained by, one after the other, which the last digits of a result
            depend on; none where its record does not say.
        device: `cpu` or `cuda`, likewise.
        tuning: how its settings were searched; None where they were not.
        error: one line, where the cell failed; everything else is empty then.
    """

    cell: Cell
    metrics: dict[str, dict[str, float]]
    run: Path | None = None
    train_seconds: float = 0.0
    peak_memory_bytes: int = 0
    epochs: int = 0
    refit: dict[str, dict[str, float]] = field(default_factory=dict)
    tuning: dict[str, Any] | None = None
    error: str | None = None
    refit_seconds: float = 0.0
    judge_seconds: float = 0.0
    threads: tuple[int, ...] = ()
    device: str = "cpu"


@dataclass(frozen=True)
class Unanswered:
    """What was asked for and makes no sense under the split: no cell, and no failure.

    Attributes:
        what: a backbone, or one on a label of the features. why: `scores items by id: ...`.
    """

    what: str
    why: str


@dataclass(frozen=True)
class ComparedFeatures:
    """A feature set of the grid: how it is called in the report, and what it costs to hold.

    Attributes:
        label: unique in the comparison.
        method: how it was made, such as `sgfd` or `pca`, and the leading columns that are used
            where others are not; `none` without features.
        dimensions: width of each modality, as it is trained on.
        bytes: of their files, or of those columns' share.
        manifest_sha256: None without features.
    """

    label: str
    method: str
    dimensions: dict[str, int]
    bytes: int
    manifest_sha256: str | None


@dataclass(frozen=True)
class Comparison:
    """All cells of a grid over backbones, feature sets, seeds and protocols.

    Attributes:
        dataset: its name. fingerprint: of its interactions.
        command: what makes this comparison again.
        machine: processor, cores and memory, in words.
        features: in the order given. baseline: label of those that the others are held against.
        results: one of every cell, failed ones included, in the grid's order.
        split: how the parts were made.
        judged_users: how many test judges alone, of so many named_users; None for all.
        unanswered: what was asked for and can't answer under the split.
    """

    dataset: str
    fingerprint: str
    command: str
    machine: str
    features: tuple[ComparedFeatures, ...]
    baseline: str
    results: tuple[CellResult, ...]
    split: Split = "given"
    judged_users: int | None = None
    named_users: int | None = None
    unanswered: tuple[Unanswered, ...] = ()

    @property
    def parts(self) -> list[str]:
        """What is reported: test and, under cold-items, its items among themselves."""
        found = {part for result in self.results for part in result.metrics}
        return ["test", *(["test_among_cold"] if "test_among_cold" in found else [])]

    @property
    def backbones(self) -> list[str]:
        return list(dict.fromkeys(result.cell.backbone for result in self.results))

    @property
    def protocols(self) -> list[str]:
        return list(dict.fromkeys(result.cell.protocol for result in self.results))

    def of(self, protocol: str, backbone: str, features: str) -> list[CellResult]:
        """The finished seeds of one backbone on one feature set, by seed."""
        found = [
            result
            for result in self.results
            if result.error is None
            and (result.cell.protocol, result.cell.backbone, result.cell.features)
            == (protocol, backbone, features)
        ]
        return sorted(found, key=lambda result: result.cell.seed)

    def failed(self) -> list[CellResult]:
        return [result for result in self.results if result.error is not None]
