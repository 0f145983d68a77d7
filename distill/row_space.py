"""Fused rows in as few columns as there are items, for what costs columns cubed."""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgfd.distill.fused import FusedRows


@dataclass(frozen=True)
class RowSpace:
    """u Q of the rows u, with the columns of Q orthonormal and n items' rows among what they span.

    Inner products of these items' rows are those of u, so what is solved for u Q is solved for u,
    with some more than n columns in place of D: of the directions that no item has a part in, which
    are all alike to what is solved, there are as many as could be among its d largest.

    Attributes:
        basis: Q, float32 on the device; None where the columns are taken as they are.
    """

    rows: FusedRows
    basis: Tensor | None

    @classmethod
    def of(cls, rows: FusedRows, items: NDArray[np.int64], dimension: int) -> "RowSpace":
        """Of these items and d further directions, where half of the columns are enough."""
        size = len(items) + dimension
        if not len(items) or 2 * size > rows.width:
            return cls(rows, None)
        spanning = np.random.default_rng(0).standard_normal((rows.width, size))
        spanning[:, : len(items)] = rows.read_all(items).T.cpu()
        basis, _ = scipy.linalg.qr(spanning, mode="economic", overwrite_a=True)
        return cls(rows, torch.from_numpy(basis).float().to(rows.device))

    @property
    def device(self) -> torch.device:
        return self.rows.device

    @property
    def width(self) -> int:
        return self.rows.width if self.basis is None else self.basis.shape[1]

    @property
    def block_rows(self) -> int:
        """Rows of a block whose copies stay small."""
        return self.rows.block_rows

    def read(self, index: NDArray[np.int64]) -> Tensor:
        """The rows of some items, (k, width) on the device."""
        block = self.rows.read(index)
        return block if self.basis is None else block @ self.basis

    def in_columns(self, weight: Tensor) -> Tensor:
        """A map (d, width) of these rows as one of u, (d, D)."""
        return weight if self.basis is None else weight @ self.basis.T.to(weight.device)
