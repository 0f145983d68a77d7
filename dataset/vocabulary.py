"""Ids: strings outside, dense integers inside, and the way between the two."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class Vocabulary:
    """The ids of n things; the index of an id is its place.

    Attributes:
        ids: object (n,) of distinct strings.

    Raises:
        ValueError: an id occurs twice.
    """

    def __init__(self, ids: Sequence[str] | NDArray[np.object_]) -> None:
        self.ids: NDArray[np.object_] = np.asarray(ids, dtype=object)
        if not self._positions.is_unique:
            twice = self._positions[self._positions.duplicated()][0]
            raise ValueError(f"id {twice!r} occurs twice")

    def __len__(self) -> int:
        return len(self.ids)

    def id(self, index: int) -> str:
        """The id at a place."""
        return str(self.ids[index])

    def index(self, ids: Sequence[str] | NDArray[np.object_]) -> NDArray[np.int64]:
        """The place of each id, int64 (k,), -1 where it is unknown."""
        wanted = np.asarray(ids, dtype=object)
        return self._positions.get_indexer(pd.Index(wanted, dtype=object)).astype(np.int64)

    @cached_property
    def _positions(self) -> "pd.Index[str]":
        return pd.Index(self.ids, dtype=object)
