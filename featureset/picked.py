"""Some rows of a modality, read as they are asked for."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sgfd.featureset.compression import BLOCK_VALUES, Rows

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]


class PickedRows:
    """Rows of some items in an order of their own, float32 (k, d); NaN where there is none."""

    def __init__(
        self,
        rows: Rows,
        places: Indices,
        mean: Floats | None = None,
        scale: Floats | None = None,
    ) -> None:
        self._rows, self._places = rows, places
        self._mean, self._scale = mean, scale
        self.shape = (len(places), rows.shape[1])

    def __getitem__(self, items: Indices) -> Floats:
        places = self._places[items]
        if not len(self._rows):
            return np.full((len(places), self.shape[1]), np.nan, dtype=np.float32)
        rows = np.array(self._rows[np.maximum(places, 0)], dtype=np.float32)
        if self._mean is not None and self._scale is not None:
            rows -= self._mean
            rows /= self._scale
        rows[places < 0] = np.nan
        return rows

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """Of the items' rows, (k,), NaN where there is none."""
        norms = np.empty(len(self._places))  # of large rows they are beyond float32
        step = max(1, BLOCK_VALUES // self.shape[1])
        for start in range(0, len(norms), step):
            items = np.arange(start, min(start + step, len(norms)))
            norms[items] = np.linalg.norm(self[items].astype(np.float64), axis=1)
        return norms

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which items have a row, bool (k,)."""
        return ~np.isnan(self.norms)
