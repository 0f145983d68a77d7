"""Who interacted with what, in parts: train, perhaps valid, test."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset.vocabulary import Vocabulary

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Pairs:
    """n interactions: int64 (n,) each; timestamps in the data set's own unit."""

    user: Indices
    item: Indices
    timestamp: Indices | None = None

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: Indices | NDArray[np.bool_]) -> "Pairs":
        """Some of the interactions, by position or mask."""
        timestamp = None if self.timestamp is None else self.timestamp[rows]
        return Pairs(self.user[rows], self.item[rows], timestamp)


@dataclass(frozen=True)
class Interactions:
    """The interactions of a data set; no pair is in two parts or twice in one."""

    users: Vocabulary
    items: Vocabulary
    train: Pairs
    valid: Pairs | None
    test: Pairs

    @property
    def n_users(self) -> int:
        return len(self.users)

    @property
    def n_items(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        """sha256 of all ids and pairs, part by part."""
        digest = hashlib.sha256()
        for vocabulary in (self.users, self.items):
            digest.update("\0".join(vocabulary.ids).encode())
        for name, pairs in (("train", self.train), ("valid", self.valid), ("test", self.test)):
            digest.update(name.encode())
            if pairs is not None:
                digest.update(np.stack([pairs.user, pairs.item]).tobytes())
        return digest.hexdigest()
