"""Judging a ranking on held-out interactions: lists, metrics, per user and on average."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sgfd.recommenders.evaluation.metrics import CUTOFFS, Values, average, per_user_metrics
from sgfd.recommenders.evaluation.topk import Scores
from sgfd.recommenders.item_sets import Indices, ItemSets


class Rank(Protocol):
    """Ranked lists: the k best items of some users (b,), without those that they have seen.

    `seen` are the sets of these b users; `candidates`, ascending, are the items that may be
    listed (all where None). Gives items (b, k), -1 where a list is shorter, and scores (b, k).
    """

    def __call__(
        self, users: Indices, k: int, seen: ItemSets, candidates: Indices | None = None, /
    ) -> tuple[Indices, Scores]: ...


@dataclass(frozen=True)
class Judgement:
    """How well the lists of the users with held-out items did.

    Attributes:
        users: int64 (V,), the users judged.
        metrics: over these users, by `average`, such as `recall@20`; empty where nobody is judged.
        per_user: float64 (V,) of each metric.
    """

    users: Indices
    metrics: dict[str, float]
    per_user: dict[str, Values]


def judge(
    rank: Rank, seen: ItemSets, held_out: ItemSets, cutoffs: tuple[int, ...] = CUTOFFS
) -> Judgement:
    """Rank all unseen items for each user with held-out items and measure the lists."""
    judged = np.flatnonzero(held_out.sizes)
    if not len(judged):
        return Judgement(judged, {}, {})
    lists, _ = rank(judged, max(cutoffs), seen.take(judged))
    relevant = held_out.take(judged)
    per_user = per_user_metrics(lists, relevant, cutoffs)
    return Judgement(judged, average(lists, per_user, relevant, cutoffs), per_user)
