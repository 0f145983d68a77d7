"""Passes over a modality that hold one block at a time: statistics, and the student's export."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from sgfd.dataset import Feature
from sgfd.distill.networks import Student
from sgfd.jobs import progress

BLOCK_VALUES = 2**22  # of one block in the statistics, whose double copies are 32 MiB each
FOLDED_OFFSET = 4.0  # means of so many standard deviations can still be folded in float32


@dataclass(frozen=True)
class Standardisation:
    """Mean and standard deviation of each column over the items that have it, float32 (D,)."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]


def column_statistics(feature: Feature, block_rows: int | None = None) -> Standardisation:
    """Statistics of a modality by one pass, in double precision.

    Blocks are joined by the update of Chan, Golub and LeVeque (1979), which subtracts means from
    means and never a square from a square: a large offset costs no digits. Constant columns (up
    to the rounding of float32) get scale 1. Rows that outlie all others have no part in it.
    """
    count = 0
    mean = np.zeros(feature.dimension)
    squares = np.zeros(feature.dimension)  # sum of squared differences from the mean
    for stored in _ordinary_blocks(feature, block_rows):
        block = stored.astype(np.float64)
        if not len(block):
            continue
        block_mean = block.mean(axis=0)
        block -= block_mean
        delta, total = block_mean - mean, count + len(block)
        squares += np.einsum("bd,bd->d", block, block)
        squares += np.square(delta) * (count * len(block) / total)
        mean += delta * (len(block) / total)
        count = total
    deviation = np.sqrt(squares / max(count, 1))
    noise = np.maximum(1e-8 * np.abs(mean), np.finfo(np.float32).tiny)
    scale = np.where(deviation > noise, deviation, 1.0)
    return Standardisation(mean.astype(np.float32), scale.astype(np.float32))


def _ordinary_blocks(
    feature: Feature, block_rows: int | None = None
) -> Iterator[NDArray[np.float32]]:
    """The rows that are there, without those that outlie all others, block by block."""
    ordinary = feature.present.copy()
    ordinary[feature.outlying] = False
    for start, stored in feature.blocks(block_rows or max(1, BLOCK_VALUES // feature.dimension)):
        yield stored[ordinary[start : start + len(stored)]]


class Standardiser:
    """(x - mean) / scale of generic rows (b, D), float32; a row of NaN stays one."""

    def __init__(self, standardisation: Standardisation) -> None:
        self._mean, self._scale = standardisation.mean, standardisation.scale

    def __call__(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = np.subtract(block, self._mean)
        rows /= self._scale
        return rows


@dataclass(frozen=True)
class Covariance:
    """Mean (D,) and covariance (D, D) of the standardised columns, double."""

    mean: torch.Tensor
    matrix: torch.Tensor


def covariance(feature: Feature, columns: Standardisation, device: torch.device) -> Covariance:
    """Covariance of (x - columns.mean) / columns.scale by one pass, in double precision.

    1/n sum_i x_i x_i^T - m m^T with the mean m of the standardised rows. As m is next to 0 (the
    rounding of the mean in float32), the difference costs no digits. Of the same rows as the
    statistics of the columns.
    """
    mean = torch.from_numpy(columns.mean).to(device).double()
    scale = torch.from_numpy(columns.scale).to(device).double()
    count, sums, products = 0, torch.zeros_like(mean), torch.diag(torch.zeros_like(mean))
    with progress(int(feature.present.sum()), f"covariance of {feature.name}") as advance:
        for block in _ordinary_blocks(feature):
            rows = torch.from_numpy(block).to(device).double()
            rows = (rows - mean) / scale
            sums += rows.sum(dim=0)
            products.addmm_(rows.T, rows)
            count += len(rows)
            advance(len(block))
    sums /= max(count, 1)
    return Covariance(sums, products / max(count, 1) - torch.outer(sums, sums))


def has_unit_rows(feature: Feature) -> bool:
    """Whether the rows that are there are unit vectors, up to 1e-4.

    One pass, which ends at the first block where they are not.
    """
    for _, stored in feature.blocks(max(1, BLOCK_VALUES // feature.dimension)):
        block = stored[~np.isnan(stored[:, 0])]
        if (np.abs(np.einsum("bd,bd->b", block, block) - 1) > 2e-4).any():
            return False
    return True


class Embedder:
    """A trained student as one product a block: standardisation is folded into its layer.

    W ((x - mean) / scale) + b = (W / scale) x + (b - (W / scale) mean). Where a mean is many
    standard deviations from 0, the right side is a small difference of large numbers and loses
    its digits in float32; there the mean is subtracted from the rows first.
    """

    def __init__(
        self, student: Student, standardisation: Standardisation, device: torch.device
    ) -> None:
        mean = torch.from_numpy(standardisation.mean).double()
        scale = torch.from_numpy(standardisation.scale).double()
        self._negative_slope, self._normalised = student.negative_slope, student.normalised
        weight = student.linear.weight.detach().cpu().double() / scale
        bias = student.linear.bias.detach().cpu().double()
        self._offset: torch.Tensor | None = None
        if bool((mean.abs() > FOLDED_OFFSET * scale).any()):
            self._offset = mean.float().to(device)
        else:
            bias -= weight @ mean
        self._weight = weight.float().T.contiguous().to(device)
        self._bias = bias.float().to(device)

    @torch.inference_mode()
    def __call__(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Generic rows (b, D) to the student's (b, d); a row of NaN stays one."""
        rows = torch.from_numpy(block).to(self._weight.device)
        if self._offset is not None:
            rows = rows - self._offset
        embedded = torch.addmm(self._bias, rows, self._weight)
        functional.leaky_relu_(embedded, self._negative_slope)
        if self._normalised:
            embedded /= torch.linalg.vector_norm(embedded, dim=1, keepdim=True).clamp_(min=1e-12)
        result: NDArray[np.float32] = embedded.cpu().numpy()
        return result


@contextmanager
def a_core_for_writing() -> Iterator[None]:
    """Let torch use one thread less meanwhile, where it has two or more.

    The feature set is hashed and written by threads of its own. With none left for them, torch's
    threads wait for each other by spinning, which takes the time that the writing needs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads - 1))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
