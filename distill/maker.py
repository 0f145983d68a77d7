"""What a maker of feature sets is given, and what it gives.

A maker is a function of a task and its method's settings: it fits itself to the catalogue and
gives, for every modality, what turns generic rows into the rows of the feature set. Reading,
writing and publishing are the business of `stage.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sgfd.dataset import Feature, ItemCatalog
from sgfd.distill.networks import Student
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.streaming import BLOCK_VALUES, Embedder, Standardisation, column_statistics
from sgfd.featureset import Student as StudentRecord
from sgfd.jobs import WorkFolder

Rows = NDArray[np.float32]
Embed = Callable[..., Rows]


@dataclass(frozen=True)
class Task:
    """What a maker is given.

    Attributes:
        catalog: the items; it has the features and labels that the method needs.
        seed: of all that is drawn at random.
        device: where to compute.
        work: keeps the checkpoints of a maker that trains for long.
        pairs: training interactions, for the methods that they may guide; None without.
        measured: whether figures for the manifest are wanted, beside the rows.
    """

    catalog: ItemCatalog
    seed: int
    device: torch.device
    work: WorkFolder
    pairs: TrainingPairs | None = None
    measured: bool = True

    @cached_property
    def standardisation(self) -> dict[str, Standardisation]:
        """Column statistics by modality, by one pass over each when they are first needed."""
        return {name: column_statistics(f) for name, f in self.catalog.features.items()}

    def hold_out(self, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items to train on, and items held out, at random; an item without any modality is
        neither, nor is one with a row that outlies all others, which would be all that a loss
        sees. The same share and seed hold out the same items, whatever the method."""
        features = self.catalog.features.values()
        usable = np.asarray(np.stack([feature.present for feature in features]).any(axis=0))
        for feature in features:
            usable[feature.outlying] = False
        items = np.random.default_rng([self.seed, 1]).permutation(np.flatnonzero(usable))
        count = int(share * len(items))
        return np.sort(items[count:]), np.sort(items[:count])


@dataclass(frozen=True)
class MadeModality:
    """How one modality's rows are made.

    Attributes:
        sources: the generic features that it is made of, one or more, (n, D_m) each.
        dimension: width d of the rows that are made.
        normalised: whether these are unit vectors.
        embed: a block of generic rows (b, D_m) of every source to (b, d), all float32; a row
            that no source has is NaN.
        student: `weight` (d, D), `bias` (d), `mean` (D), `scale` (D) where `embed` is linear.
        nested: numbers of leading columns that work by themselves; none where all are needed.
    """

    sources: tuple[Feature, ...]
    dimension: int
    normalised: bool
    embed: Embed
    student: dict[str, Rows] = field(default_factory=dict)
    nested: tuple[int, ...] = ()

    @property
    def source_dimension(self) -> int:
        return sum(source.dimension for source in self.sources)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which items have a source, bool (n,)."""
        present: NDArray[np.bool_] = np.any([source.present for source in self.sources], axis=0)
        return present

    @property
    def coverage(self) -> float:
        """Share of the items that have a source."""
        if len(self.sources) == 1:
            return self.sources[0].coverage
        return float(self.present.mean())

    def block(self, start: int, stop: int) -> Rows:
        """The made rows start..stop."""
        return self.embed(*(source.block(start, stop) for source in self.sources))

    def rows(self, index: NDArray[np.int64]) -> Rows:
        """The made rows of some items, from blocks of generic rows of which none is large."""
        step = max(1, BLOCK_VALUES // self.source_dimension)
        blocks = [
            self.embed(*(source.rows(index[start : start + step]) for source in self.sources))
            for start in range(0, len(index) or 1, step)
        ]
        return np.concatenate(blocks)


@dataclass(frozen=True)
class Made:
    """What a maker gives.

    Attributes:
        modalities: by name.
        student: how the students embed a new item; None without students.
        quality: figures for the manifest, all of them optional.
        default: the modalities that a reader takes who names none; all where empty.
    """

    modalities: dict[str, MadeModality]
    student: StudentRecord | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    default: tuple[str, ...] = ()


def made_by_students(
    features: dict[str, Feature],
    students: dict[str, Student],
    standardisation: dict[str, Standardisation],
    device: torch.device,
) -> Made:
    """What linear students make, which all end in the same way (slope, unit norm or not)."""
    modalities = {
        name: MadeModality(
            sources=(features[name],),
            dimension=student.linear.out_features,
            normalised=student.normalised,
            embed=Embedder(student, standardisation[name], device),
            student=_student_tensors(student, standardisation[name]),
        )
        for name, student in students.items()
    }
    one = next(iter(students.values()))
    return Made(
        modalities, StudentRecord(negative_slope=one.negative_slope, normalised=one.normalised)
    )


def _student_tensors(
    student: Student, standardisation: Standardisation
) -> dict[str, NDArray[np.float32]]:
    return {
        "weight": student.linear.weight.detach().cpu().numpy(),
        "bias": student.linear.bias.detach().cpu().numpy(),
        "mean": standardisation.mean,
        "scale": standardisation.scale,
    }
