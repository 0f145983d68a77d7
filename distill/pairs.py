"""The training interactions that may guide stage one, by item of the catalogue."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class TrainingPairs:
    """Who interacted with which items in training: a sparse matrix A of users and items.

    Attributes:
        matrix: float32 (U, n) of ones; columns are the catalogue's items.
    """

    matrix: csr_array

    @classmethod
    def of(cls, user: Indices, item: Indices, n_users: int, n_items: int) -> "TrainingPairs":
        """From n pairs, int64 (n,) each; a pair that is there twice counts once."""
        ones = np.ones(len(user), dtype=np.float32)
        matrix = csr_array((ones, (user, item)), shape=(n_users, n_items))
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return cls(matrix)

    def __len__(self) -> int:
        return int(self.matrix.nnz)

    @cached_property
    def item_degrees(self) -> Indices:
        """In how many users' histories each item is, int64 (n,)."""
        return np.bincount(self.matrix.indices, minlength=self.matrix.shape[1]).astype(np.int64)

    @cached_property
    def user_degrees(self) -> Indices:
        """How many items each user has, int64 (U,)."""
        degrees: Indices = np.diff(self.matrix.indptr).astype(np.int64)
        return degrees

    @cached_property
    def items(self) -> Indices:
        """The items that have interactions, ascending."""
        return np.flatnonzero(self.item_degrees)

    def without(self, items: Indices) -> "TrainingPairs":
        """The pairs of all other items."""
        keep = np.ones(self.matrix.shape[1], dtype=np.float32)
        keep[items] = 0
        left = csr_array(self.matrix.multiply(keep[None, :]))
        left.eliminate_zeros()
        return TrainingPairs(left)

    def only(self, items: Indices) -> "TrainingPairs":
        """The pairs of these items alone."""
        other = np.ones(self.matrix.shape[1], dtype=bool)
        other[items] = False
        return self.without(np.flatnonzero(other))

    def users_with(self, least: int, among: NDArray[np.bool_] | None = None) -> Indices:
        """The users who have at least so many items (of `among`, (n,), where given), ascending."""
        counts = self.user_degrees if among is None else self.matrix @ among.astype(np.float32)
        return np.flatnonzero(counts >= least)

    def blocks(self, most_pairs: int) -> Iterator["tuple[Indices, csr_array]"]:
        """All users in blocks of about so many pairs: their items and the matrix of just these."""
        start, offsets = 0, self.matrix.indptr
        while start < len(offsets) - 1:
            stop = int(np.searchsorted(offsets, offsets[start] + most_pairs, side="right")) - 1
            stop = max(stop, start + 1)
            yield narrowed(self.matrix[start:stop])
            start = stop


def narrowed(matrix: csr_array) -> "tuple[Indices, csr_array]":
    """The columns that have entries, ascending, and the matrix of these columns alone."""
    items, place = np.unique(matrix.indices, return_inverse=True)
    shape = (matrix.shape[0], len(items))
    return items.astype(np.int64), csr_array((matrix.data, place, matrix.indptr), shape=shape)
