"""The makers that train nothing: what a distillation must prove itself against.

Each is a function of the task and its settings, see `maker.py`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgfd.dataset import Feature
from sgfd.distill.maker import Made, MadeModality, Task, made_by_students
from sgfd.distill.networks import Student
from sgfd.distill.quality import measure
from sgfd.distill.settings import (
    LabelSettings,
    PCASettings,
    RandomSettings,
    RawSettings,
    StandardSettings,
)
from sgfd.distill.streaming import Covariance, Standardiser, covariance, has_unit_rows

logger = logging.getLogger("sgfd")

CATEGORY = "category"
ROUNDING = 1e-12  # share of the largest variance that is below what float32 features can tell


def raw(task: Task, settings: RawSettings) -> Made:
    """The generic features as they are, in float32."""
    made = Made(
        {
            name: MadeModality((feature,), feature.dimension, has_unit_rows(feature), _unchanged)
            for name, feature in task.catalog.features.items()
        }
    )
    return replace(made, quality=measure(task, made))


def standard(task: Task, settings: StandardSettings) -> Made:
    """(x - mean) / standard deviation of every column, over the items that have the modality."""
    made = Made(
        {
            name: MadeModality(
                (feature,), feature.dimension, False, Standardiser(task.standardisation[name])
            )
            for name, feature in task.catalog.features.items()
        }
    )
    return replace(made, quality=measure(task, made))


def pca(task: Task, settings: PCASettings) -> Made:
    """The first principal components of every modality, exact: V^T (x - mean) / scale.

    V (D, d) are the eigenvectors of the columns' covariance with the largest eigenvalues, each
    with its largest entry positive (Jolliffe: Principal Component Analysis, 2002). The covariance
    takes D x D doubles, however many items there are.

    A modality with fewer directions of variance than the dimension asked for gets as many columns
    as it has directions, and the log says so. `explained_variance` is the share kept.
    """
    students, columns, figures = {}, dict(task.standardisation), {}
    for name, feature in task.catalog.features.items():
        if not settings.standardise:
            columns[name] = replace(columns[name], scale=np.ones_like(columns[name].scale))
        components = _principal_components(
            covariance(feature, columns[name], task.device), settings.dimension
        )
        if len(components.variances) < settings.dimension:
            logger.warning(
                "modality %s: has %d directions with variance, so its dimension is %d, not %d",
                name,
                components.with_variance,
                len(components.variances),
                settings.dimension,
            )
        students[name] = _projection(
            components.whitening() if settings.whiten else components.directions,
            components.mean,
            settings.normalise,
        )
        figures[name] = {"explained_variance": components.explained}
    made = made_by_students(task.catalog.features, students, columns, task.device)
    return replace(made, quality=measure(task, made, figures=figures))


def random(task: Task, settings: RandomSettings) -> Made:
    """Gaussian random projection R x of standardised columns, with entries of R (d, D) N(0, 1/d).

    It keeps inner products in expectation, E <R x, R y> = <x, y> (Johnson and Lindenstrauss, 1984;
    Dasgupta and Gupta, 2003). R follows from the seed and the modality's name alone.
    """
    students = {}
    for name, feature in task.catalog.features.items():
        generator = np.random.default_rng([task.seed, *name.encode()])
        entries = generator.standard_normal((settings.dimension, feature.dimension))
        students[name] = _projection(
            torch.from_numpy(entries / np.sqrt(settings.dimension)),
            torch.zeros(feature.dimension, dtype=torch.float64),
            settings.normalise,
        )
    made = made_by_students(task.catalog.features, students, task.standardisation, task.device)
    return replace(made, quality=measure(task, made))


def label(task: Task, settings: LabelSettings) -> Made:
    """The modality `category`: the one-hot label, (n, C); an unlabelled item lacks it.

    Its source is one column, the label's place in the catalogue's label names.
    """
    labels = task.catalog.labels
    assert labels is not None
    places = np.where(labels >= 0, labels, np.nan).astype(np.float32)[:, None]
    source = Feature.from_array(CATEGORY, places)
    width = len(task.catalog.label_names)
    return Made({CATEGORY: MadeModality((source,), width, True, _one_hot(width))})


def _unchanged(block: NDArray[np.float32]) -> NDArray[np.float32]:
    return block


def _one_hot(width: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    def embed(block: NDArray[np.float32]) -> NDArray[np.float32]:
        here = np.flatnonzero(~np.isnan(block[:, 0]))
        rows = np.full((len(block), width), np.nan, dtype=np.float32)
        rows[here] = 0
        rows[here, block[here, 0].astype(np.int64)] = 1
        return rows

    return embed


def _projection(weight: Tensor, mean: Tensor, normalised: bool) -> Student:
    """x -> weight (x - mean) of standardised x: weight (d, D), mean (D,), both double."""
    student = Student(weight.shape[1], weight.shape[0], negative_slope=1.0, normalised=normalised)
    with torch.no_grad():
        student.linear.weight.copy_(weight)
        student.linear.bias.copy_(-weight @ mean)
    return student


@dataclass(frozen=True)
class _PrincipalComponents:
    """The k components of the largest variances: directions (k, D), variances (k,), mean (D,).

    Attributes:
        with_variance: number of all directions with variance.
        explained: share of the variance that the k components keep; None where there is none.
    """

    directions: Tensor
    variances: Tensor
    mean: Tensor
    with_variance: int
    explained: float | None

    def whitening(self) -> Tensor:
        """The directions, each divided by the standard deviation along it."""
        deviation = torch.where(self.variances > 0, self.variances.sqrt(), 1.0)
        return self.directions / deviation[:, None]


def _principal_components(columns: Covariance, most: int) -> _PrincipalComponents:
    variances, vectors = torch.linalg.eigh(columns.matrix.cpu())  # ascending
    variances, directions = variances.flip(0), vectors.T.flip(0)
    mean = columns.mean.cpu()
    noise = ROUNDING * (float(variances[0]) + float(mean.square().max()))
    variances = torch.where(variances > noise, variances, 0.0)
    with_variance = int((variances > 0).sum())
    kept = max(1, min(most, with_variance))
    largest = directions.abs().argmax(dim=1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    total = float(variances.sum())
    return _PrincipalComponents(
        directions[:kept],
        variances[:kept],
        mean,
        with_variance,
        float(variances[:kept].sum()) / total if total > 0 else None,
    )
