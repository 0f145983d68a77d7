"""Modalities together: one row an item from all that it has, and one linear student over it.

The row of item i puts its standardised modalities side by side, each at unit norm, zeros where
one is lacking, and has unit norm as a whole: u_i = [unit(x_i1), ..., unit(x_iM)] / sqrt(number of
modalities that i has). Without these norms it is [x_i1 / sqrt(D_1), ...] / sqrt(M).

The student is one linear layer without bias, y_i = W u_i = sum_m W_m u_im, z_i = y_i / |y_i|. So
each modality has a student of its own, W_m, in the same space, and an item that lacks some still
gets the sum over those that it has.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sgfd.dataset import Feature
from sgfd.distill.maker import Made, MadeModality
from sgfd.distill.streaming import BLOCK_VALUES, Standardisation
from sgfd.featureset import Student as StudentRecord

FUSED = "fused"

Indices = NDArray[np.int64]


class FusedRows:
    """Reads u_i, float32 (k, D) with D the sum of the widths, from the memory maps."""

    def __init__(
        self,
        features: dict[str, Feature],
        standardisation: dict[str, Standardisation],
        device: torch.device,
        normalised: bool = True,
    ) -> None:
        self.features, self.device, self.normalised = features, device, normalised
        self._columns = [
            (torch.from_numpy(s.mean).to(device), torch.from_numpy(s.scale).to(device))
            for s in (standardisation[name] for name in features)
        ]
        self.widths = [feature.dimension for feature in features.values()]

    def with_columns_as_they_are(self) -> "FusedRows":
        """The same of features that are not standardised, each at unit norm."""
        columns = {
            name: Standardisation(np.zeros(d, np.float32), np.ones(d, np.float32))
            for name, d in zip(self.features, self.widths, strict=True)
        }
        return FusedRows(self.features, columns, self.device)

    @property
    def width(self) -> int:
        return sum(self.widths)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which items have any modality, bool (n,)."""
        present: NDArray[np.bool_] = np.any([f.present for f in self.features.values()], axis=0)
        return present

    @property
    def block_rows(self) -> int:
        """Rows of a block whose copies stay small."""
        return max(1, BLOCK_VALUES // self.width)

    def read(self, index: Indices) -> Tensor:
        """The rows of some items, (k, D) on the device; zeros for an item without any modality."""
        return self.join([feature.rows(index) for feature in self.features.values()])

    def blocks(self, index: Indices) -> Iterator[Tensor]:
        """The rows of some items, block by block."""
        for start in range(0, len(index), self.block_rows):
            yield self.read(index[start : start + self.block_rows])

    def read_all(self, index: Indices, then: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The rows of some items, (k, D), or what `then` makes of each block of them, (k, d)."""
        made = (block if then is None else then(block) for block in self.blocks(index))
        return torch.cat(list(made))

    def join(self, blocks: list[NDArray[np.float32]]) -> Tensor:
        """Generic rows (k, D_m) of every modality as u, (k, D)."""
        parts = [
            torch.nan_to_num((torch.from_numpy(block).to(self.device) - mean) / scale, nan=0.0)
            for block, (mean, scale) in zip(blocks, self._columns, strict=True)
        ]
        if self.normalised:
            parts = [functional.normalize(part, dim=1) for part in parts]
            return functional.normalize(torch.cat(parts, dim=1), dim=1)
        return torch.cat(parts, dim=1) / torch.from_numpy(self.part_scales()).to(self.device)

    def part_scales(self) -> NDArray[np.float32]:
        """What the columns are divided by in place of a norm, float32 (D,): sqrt(M D_m)."""
        scales = np.sqrt(np.array(self.widths, dtype=np.float32) * len(self.widths))
        return np.repeat(scales, self.widths)


class FusedEmbedder:
    """Generic rows of every modality (b, D_m) to what a network makes of u, (b, d) at unit norm or
    as it comes; NaN where all lack."""

    def __init__(
        self, reader: FusedRows, network: Callable[[Tensor], Tensor], normalised: bool
    ) -> None:
        self._reader, self._network, self._normalised = reader, network, normalised

    @torch.inference_mode()
    def __call__(self, *blocks: NDArray[np.float32]) -> NDArray[np.float32]:
        embedded = self._network(self._reader.join(list(blocks)))
        if self._normalised:
            embedded = functional.normalize(embedded, dim=1)
        rows: NDArray[np.float32] = embedded.cpu().numpy()
        rows[np.all([np.isnan(block[:, 0]) for block in blocks], axis=0)] = np.nan
        return rows


def linear_map(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows (b, D) to W u, (b, d), for W (d, D)."""
    transposed = weight.detach().T.contiguous()
    return lambda rows: rows @ transposed.to(rows.device)


def made_by_fused_student(
    rows: FusedRows,
    standardisation: dict[str, Standardisation],
    weight: Tensor,
    nested: tuple[int, ...],
) -> Made:
    """What the student W (d, D) makes: `fused`, and each modality by its part of W alone.

    Args:
        nested: numbers of leading columns that work by themselves.
    """
    modalities, start, features = {}, 0, rows.features
    plain = weight.detach().cpu().numpy()
    if not rows.normalised:
        plain = plain / rows.part_scales()
    if len(features) > 1:
        modalities[FUSED] = MadeModality(
            sources=tuple(features.values()),
            dimension=len(weight),
            normalised=True,
            embed=FusedEmbedder(rows, linear_map(weight), normalised=True),
            nested=nested,
        )
    for name, feature in features.items():
        stop = start + feature.dimension
        own = {name: standardisation[name]}
        part_rows = FusedRows({name: feature}, own, rows.device, rows.normalised)
        modalities[name] = MadeModality(
            sources=(feature,),
            dimension=len(weight),
            normalised=True,
            embed=FusedEmbedder(part_rows, linear_map(weight[:, start:stop]), normalised=True),
            student={
                "weight": np.ascontiguousarray(plain[:, start:stop]),
                "bias": np.zeros(len(weight), dtype=np.float32),
                "mean": own[name].mean,
                "scale": own[name].scale,
            },
            nested=nested,
        )
        start = stop
    record = StudentRecord(negative_slope=1.0, normalised=True, input_normalised=rows.normalised)
    return Made(modalities, record, default=(FUSED,) if FUSED in modalities else ())


def nested_widths(dimension: int) -> tuple[int, ...]:
    """Powers of 2 from 16 to below d, and d itself."""
    powers = (2**k for k in range(4, max(4, math.ceil(math.log2(dimension)))))
    return (*powers, dimension)


def made_by_network(
    features: dict[str, Feature],
    rows: FusedRows,
    network: Callable[[Tensor], Tensor],
    dimension: int,
) -> Made:
    """What a network of the fused rows makes, (b, D) to (b, d) as they come: one modality, for
    which there is no student that a reader could apply."""
    name = FUSED if len(features) > 1 else next(iter(features))
    embed = FusedEmbedder(rows, network, normalised=False)
    return Made({name: MadeModality(tuple(features.values()), dimension, False, embed)})
