"""Passes over a modality that hold one block at a time: statistics, and the student's export."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from sgfd.dataset import Feature
from sgfd.distill.networks import NEGATIVE_SLOPE, Student


@dataclass(frozen=True)
class Standardisation:
    """Mean and standard deviation of each column over the items that have it, float32 (D,)."""

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]


def column_statistics(feature: Feature, block_rows: int = 8192) -> Standardisation:
    """Statistics of a modality by one pass, blocks joined as Chan, Golub and LeVeque (1979) do.

    Constant columns (and rounding noise) get scale 1.
    """
    count = 0
    mean = np.zeros(feature.dimension)
    squares = np.zeros(feature.dimension)  # sum of squared differences from the mean
    for _, stored in feature.blocks(block_rows):
        block = stored[~np.isnan(stored[:, 0])].astype(np.float64)
        if not len(block):
            continue
        block_mean = block.mean(axis=0)
        delta, total = block_mean - mean, count + len(block)
        squares += np.square(block - block_mean).sum(axis=0)
        squares += np.square(delta) * count * len(block) / total
        mean += delta * len(block) / total
        count = total
    deviation = np.sqrt(squares / max(count, 1))
    noise = 1e-8 * np.abs(mean)
    scale = np.where(deviation > noise, deviation, 1.0)
    return Standardisation(mean.astype(np.float32), scale.astype(np.float32))


class Embedder:
    """A trained student as one product a block: standardisation is folded into its layer."""

    def __init__(self, student: Student, standardisation: Standardisation, device: torch.device):
        linear = student.linear
        mean = torch.from_numpy(standardisation.mean).double()
        scale = torch.from_numpy(standardisation.scale).double()
        weight = linear.weight.detach().cpu().double() / scale
        bias = linear.bias.detach().cpu().double() - weight @ mean
        self._weight = weight.float().T.contiguous().to(device)
        self._bias = bias.float().to(device)

    def __call__(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Generic rows (b, D) to unit rows (b, d); a row of NaN stays one."""
        rows = torch.from_numpy(block).to(self._weight.device)
        with torch.inference_mode():
            embedded = torch.addmm(self._bias, rows, self._weight)
            functional.leaky_relu_(embedded, NEGATIVE_SLOPE)
            norm = torch.linalg.vector_norm(embedded, dim=1, keepdim=True)
            embedded /= norm.clamp_(min=1e-12)
        result: NDArray[np.float32] = embedded.cpu().numpy()
        return result
