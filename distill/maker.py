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
from sgfd.distill.streaming import Embedder, Standardisation, column_statistics
from sgfd.featureset import Student as StudentRecord
from sgfd.jobs import WorkFolder

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Task:
    """What a maker is given.

    Attributes:
        catalog: the items; it has the features and labels that the method needs.
        seed: of all that is drawn at random.
        device: where to compute.
        work: keeps the checkpoints of a maker that trains for long.
    """

    catalog: ItemCatalog
    seed: int
    device: torch.device
    work: WorkFolder

    @cached_property
    def standardisation(self) -> dict[str, Standardisation]:
        """Column statistics by modality, by one pass over each when they are first needed."""
        return {name: column_statistics(f) for name, f in self.catalog.features.items()}

    def hold_out(self, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items to train on, and items held out, at random; an item without any modality is
        neither. The same share and seed hold out the same items, whatever the method."""
        features = self.catalog.features.values()
        present = np.stack([feature.present for feature in features]).any(axis=0)
        items = np.random.default_rng([self.seed, 1]).permutation(np.flatnonzero(present))
        count = int(share * len(items))
        return np.sort(items[count:]), np.sort(items[:count])


@dataclass(frozen=True)
class MadeModality:
    """How one modality's rows are made.

    Attributes:
        source: the generic rows, (n, D).
        dimension: width d of the rows that are made.
        normalised: whether these are unit vectors.
        embed: a block of generic rows (b, D) to (b, d), both float32; a row of NaN stays one.
        student: `weight` (d, D), `bias` (d), `mean` (D), `scale` (D) where `embed` is linear.
    """

    source: Feature
    dimension: int
    normalised: bool
    embed: Embed
    student: dict[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """What a maker gives.

    Attributes:
        modalities: by name.
        student: how the students embed a new item; None without students.
        quality: figures for the manifest, all of them optional.
    """

    modalities: dict[str, MadeModality]
    student: StudentRecord | None = None
    quality: dict[str, Any] = field(default_factory=dict)


def made_by_students(
    features: dict[str, Feature],
    students: dict[str, Student],
    standardisation: dict[str, Standardisation],
    device: torch.device,
) -> Made:
    """What linear students make, which all end in the same way (slope, unit norm or not)."""
    modalities = {
        name: MadeModality(
            source=features[name],
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
