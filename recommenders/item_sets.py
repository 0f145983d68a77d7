"""Each user's set of items (seen, held out), with bulk operations on it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from sgfd.dataset import distinct

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ItemSets:
    """For each of U users a sorted set of items, in compressed rows.

    Attributes:
        offsets: int64 (U + 1,); user u's items are `items[offsets[u]:offsets[u + 1]]`.
        items: int64 (n,), ascending within each user, without duplicates.
        n_items: number of items that could be in a set.
    """

    offsets: Indices
    items: Indices
    n_items: int

    @classmethod
    def from_pairs(cls, user: Indices, item: Indices, n_users: int, n_items: int) -> Self:
        """The sets of n (user, item) pairs in any order; duplicates count once."""
        keys = distinct(user.astype(np.int64) * n_items + item)
        owner, items = np.divmod(keys, n_items) if n_items else (keys, keys)
        offsets = np.zeros(n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(owner, minlength=n_users), out=offsets[1:])
        return cls(offsets, items, n_items)

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Indices:
        """Number of items of each user, int64 (U,)."""
        return np.diff(self.offsets)

    @property
    def keys(self) -> Indices:
        """`user * n_items + item` of every pair, ascending, int64 (n,)."""
        return np.repeat(np.arange(self.n_users), self.sizes) * self.n_items + self.items

    def of(self, user: int) -> Indices:
        """The items of one user, ascending."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def take(self, users: Indices) -> "ItemSets":
        """The sets of some users, renumbered 0..len(users)-1."""
        sizes = self.sizes[users]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        positions = np.repeat(self.offsets[users] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return ItemSets(offsets, self.items[positions], self.n_items)

    def emptied(self) -> "ItemSets":
        """As many users, with no items."""
        return ItemSets(np.zeros_like(self.offsets), self.items[:0], self.n_items)

    def restrict(self, candidates: Indices) -> "ItemSets":
        """The sets among some items (ascending), which are renumbered 0..len(candidates)-1."""
        place = np.full(self.n_items, -1, dtype=np.int64)
        place[candidates] = np.arange(len(candidates))
        places = place[self.items]
        before = np.concatenate([[0], np.cumsum(places >= 0)])
        return ItemSets(before[self.offsets], places[places >= 0], len(candidates))

    def merge(self, other: "ItemSets") -> "ItemSets":
        """The union, user by user."""
        if not len(other.items):
            return self
        keys = np.concatenate([self.keys, other.keys])
        user, item = np.divmod(keys, self.n_items) if self.n_items else (keys, keys)
        return ItemSets.from_pairs(user, item, self.n_users, self.n_items)

    def contains(self, items: Indices) -> NDArray[np.bool_]:
        """Whether items (U, k) are in their row's set, bool (U, k); -1 never is.

        Marks the sets in a table of rows x items, in slices of rows so that it stays small.
        """
        found = np.zeros(items.shape, dtype=bool)
        rows = max(1, _TABLE_CELLS // max(1, self.n_items))
        table = np.zeros((min(rows, len(items)), self.n_items + 1), dtype=bool)  # last: for -1
        for start in range(0, len(items), rows):
            part = items[start : start + rows]
            low, high = self.offsets[start], self.offsets[start + len(part)]
            owner = np.repeat(np.arange(len(part)), self.sizes[start : start + len(part)])
            cells = owner, self.items[low:high]
            table[cells] = True
            found[start : start + rows] = np.take_along_axis(table[: len(part)], part, axis=1)
            table[cells] = False
        return found

    def sample_outside(
        self,
        users: Indices,
        width: int,
        generator: np.random.Generator,
        places: Indices | None = None,
    ) -> Indices:
        """Uniform items outside its user's set for each entry of `users`, int64 (n, width).

        Exact, without rejection: with s_0 < s_1 < ... the user's items, the r-th item outside
        is r + #{j : s_j - j <= r}, found by one search over all users' sorted s_j - j. A user
        who has every item gets the last one.

        Args:
            places: where each entry stands once `users` is in ascending order, if known. It
                changes nothing but the time: searches in that order find in the cache what the
                one before has read, and take a fifth of it for millions of entries.
        """
        outside = np.maximum(self.n_items - self.sizes[users], 1)
        drawn = (generator.random((len(users), width)) * outside[:, None]).astype(np.int64)
        wanted = (users * self.n_items)[:, None] + drawn
        if places is None:
            below = _not_above(self._shifted, wanted)
        else:
            ascending = np.empty_like(wanted)
            ascending[places] = wanted
            below = _not_above(self._shifted, ascending).take(places, axis=0)
        drawn += below
        drawn -= self.offsets[users][:, None]
        return np.minimum(drawn, self.n_items - 1)

    @cached_property
    def _shifted(self) -> Indices:
        """`keys`, each less its rank among its user's items: ascending, int64 (n,)."""
        rank = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], self.sizes)
        return self.keys - rank


def _not_above(ascending: Indices, values: Indices) -> Indices:
    """How many entries of `ascending` (n,) are at most each of `values`, by all threads."""
    places = torch.searchsorted(torch.from_numpy(ascending), torch.from_numpy(values), right=True)
    found: Indices = places.numpy()
    return found


_TABLE_CELLS = 16_000_000  # bytes of the table that `contains` marks
