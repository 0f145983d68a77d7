"""Some rows of a modality, read as they are asked for."""

import mmap
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfd.featureset.compression import BLOCK_VALUES, Rows

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]


READ_ROWS = 512  # of a map at a time: with each, the system maps what lies around it


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
        rows = np.empty((len(places), self.shape[1]), dtype=np.float32)
        for start in range(0, len(places), READ_ROWS):
            part = slice(start, start + READ_ROWS)
            rows[part] = self._rows[np.maximum(places[part], 0)]
            if isinstance(self._rows, np.ndarray):
                release_pages(self._rows)
        if self._mean is not None and self._scale is not None:
            rows -= self._mean
            rows /= self._scale
        rows[places < 0] = np.nan
        return rows

    @cached_property
    def norms(self) -> Floats:
        """Of the items' rows, (k,), NaN where there is none."""
        norms = np.empty(len(self._places), dtype=np.float32)
        step = max(1, BLOCK_VALUES // self.shape[1])
        for start in range(0, len(norms), step):
            items = np.arange(start, min(start + step, len(norms)))
            norms[items] = np.linalg.norm(self[items], axis=1)
        return norms

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which items have a row, bool (k,)."""
        return ~np.isnan(self.norms)


def release_pages(rows: NDArray[Any]) -> None:
    """Give the pages of a mapped array that were read back to the system; no more than they held
    at once then stays in memory. Nothing happens to other arrays."""
    pages: Any = rows.base
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
