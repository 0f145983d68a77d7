"""How well items are found that the training never saw, as if they were new."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

from sgfd.distill.fused import FusedRows, linear_map
from sgfd.distill.pairs import TrainingPairs, narrowed

logger = logging.getLogger("sgfd")

CUTOFF = 20
MOST_USERS = 2000
STANDARD_ERRORS = 2  # over the users, that a clear difference exceeds
MOST_CANDIDATES = 4096  # whose vectors, generic ones too, are held at a time

Indices = NDArray[np.int64]
Vectors = Callable[[Indices], Tensor]  # items (k,) to rows (k, d)


@dataclass(frozen=True)
class HeldOutItems:
    """Items kept from training with their interactions.

    Attributes:
        known: float32 (q, k), the queried users' training items among `known_items`.
        wanted: float32 (q, h), their held-out items among `items`.
    """

    known_items: Indices
    known: csr_array
    items: Indices
    wanted: csr_array

    @classmethod
    def of(
        cls, pairs: TrainingPairs, held_out: Indices, judged: TrainingPairs | None = None
    ) -> "HeldOutItems | None":
        """At most 2,000 users with training and held-out items; None where there is none.

        Args:
            judged: the pairs of the held-out items that are looked for; those of `pairs` where
                None.
        """
        train, rest = pairs.without(held_out), (judged or pairs).only(held_out)
        users = np.flatnonzero((train.user_degrees > 0) & (rest.user_degrees > 0))
        if not len(users):
            return None
        users = at_most(users, MOST_USERS)
        known_items, known = narrowed(train.matrix[users])
        return cls(known_items, known, rest.items, rest.matrix[users][:, rest.items])

    def recall(self, vectors: Vectors) -> float:
        """Recall@20 of nearest neighbour among the held-out items, mean over the users."""
        return float(self.recalls(vectors).mean())

    @torch.inference_mode()
    def recalls(self, vectors: Vectors) -> Tensor:
        """The same of each user, (q,).

        A user is the mean of his known items' vectors at unit norm; nearness is the cosine.
        """
        known = functional.normalize(vectors(self.known_items), dim=1).cpu().numpy()
        profiles = torch.from_numpy(self.known @ known)
        best = hits = torch.empty(len(profiles), 0)
        for start in range(0, len(self.items), MOST_CANDIDATES):
            block = slice(start, start + MOST_CANDIDATES)
            candidates = functional.normalize(vectors(self.items[block]), dim=1).cpu()
            best = torch.cat([best, profiles @ candidates.T], dim=1)
            hits = torch.cat([hits, torch.from_numpy(self.wanted[:, block].toarray())], dim=1)
            best, places = best.topk(min(CUTOFF, best.shape[1]), dim=1)
            hits = hits.gather(1, places)
        return hits.sum(dim=1) / torch.from_numpy(self.wanted.sum(axis=1))


class HeldOutTrial:
    """Maps that were fitted without a share of the items, and how well each finds these as if they
    were new.

    `held_out_recall@20` is that of nearest neighbour among the held-out items: by the generic
    features (fused), by the same with their columns as they are (`raw`), and by each map that is
    judged. No size is chosen by it, nor any weight: on so few items it differs more by chance.
    What `loses` by more than that may be made otherwise.

    Attributes:
        left: the pairs that are left, to fit to.
    """

    def __init__(self, rows: FusedRows, judge: HeldOutItems, left: TrainingPairs) -> None:
        self.left = left
        self._rows, self._judge = rows, judge
        self._recalls = {
            "generic": judge.recalls(rows.read_all),
            "raw": judge.recalls(rows.with_columns_as_they_are().read_all),
        }

    @classmethod
    def of(
        cls, rows: FusedRows, pairs: TrainingPairs, share: float, seed: int
    ) -> "HeldOutTrial | None":
        """None where no user has items on both sides, or nothing is left to guide."""
        held_out = hold_items_out(pairs, share, seed)
        judge, left = HeldOutItems.of(pairs, held_out), pairs.without(held_out)
        if judge is None or not guides(rows, left):
            return None
        return cls(rows, judge, left)

    def judge(self, kind: str, weight: Tensor) -> float:
        """Recall of a map (d, D), kept under a name, in place of what had that."""
        read = partial(self._rows.read_all, then=linear_map(weight))
        self._recalls[kind] = self._judge.recalls(read)
        return float(self._recalls[kind].mean())

    def loses(self, kind: str, to: str = "generic") -> bool:
        """Whether one finds clearly less than another, over the users."""
        lost = self._recalls[to] - self._recalls[kind]
        return bool(len(lost) > 1 and lost.mean() > STANDARD_ERRORS * lost.std() / len(lost) ** 0.5)

    def figures(self, made: str) -> dict[str, Any]:
        """For the manifest; a warning where what is made finds less than what it is made of."""
        means = {kind: float(recall.mean()) for kind, recall in self._recalls.items()}
        for kind, method in (("generic", "standard"), ("raw", "raw")):
            if self.loses(made, kind):
                logger.warning(
                    "new items are found less by this than by the features that it is made of: "
                    "recall@20 of held-out ones %.3f, by --method %s %.3f",
                    means[made],
                    method,
                    means[kind],
                )
        return {"held_out_recall@20": means}


def guides(rows: FusedRows, pairs: TrainingPairs) -> bool:
    """Whether any user had 2 items that have content: without, there is no co-interaction."""
    return len(pairs.users_with(2, rows.present)) > 0


def at_most(index: Indices, most: int) -> Indices:
    """All, or so many at random, ascending: what is measured on needs no more, and a catalogue may
    be sorted."""
    if len(index) <= most:
        return index
    return np.sort(np.random.default_rng(0).choice(index, most, replace=False))


def hold_items_out(pairs: TrainingPairs, share: float, seed: int) -> Indices:
    """A share of the items with interactions, at random, ascending; the seed and the share decide,
    so that methods are held against each other on the same items."""
    shuffled = np.random.default_rng([seed, 2]).permutation(pairs.items)
    return np.sort(shuffled[: int(share * len(shuffled))])
