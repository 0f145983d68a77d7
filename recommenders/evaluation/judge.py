"""Judging a ranking on held-out interactions: lists, metrics, per user and on average."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sgfd.dataset import Feature
from sgfd.recommenders.evaluation.beyond_accuracy import (
    diversities,
    item_popularity,
    novelty,
)
from sgfd.recommenders.evaluation.groups import (
    group_metrics,
    item_groups,
    known_means,
    user_group_means,
    user_groups,
)
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
    rank: Rank,
    seen: ItemSets,
    held_out: ItemSets,
    cutoffs: tuple[int, ...] = CUTOFFS,
    train: ItemSets | None = None,
    candidates: Indices | None = None,
    generic: Mapping[str, Feature] | None = None,
) -> Judgement:
    """Rank all unseen items for each user with held-out items and measure the lists.

    Args:
        train: where given, metrics by group of items and of users, and the lists' novelty, too.
        candidates: the items that may be listed, ascending, all where None. To the metrics they
            are the whole catalogue.
        generic: features of all items by modality; where given, the lists' diversity by each.
    """
    if candidates is not None:
        held_out = held_out.restrict(candidates)
    judged = np.flatnonzero(held_out.sizes)
    if not len(judged):
        return Judgement(judged, {}, {})
    lists, _ = rank(judged, max(cutoffs), seen.take(judged), candidates)
    diverse = diversities(lists, generic or {}, cutoffs)
    if candidates is not None:  # from here on items go by their place among the candidates
        lists = np.where(lists >= 0, np.searchsorted(candidates, lists), -1)
    relevant = held_out.take(judged)
    per_user = per_user_metrics(lists, relevant, cutoffs)
    metrics = average(lists, per_user, relevant, cutoffs)
    if train is not None:
        by_users = {name: members[judged] for name, members in user_groups(train).items()}
        own = {name: v for name, v in per_user.items() if name.startswith(("recall", "ndcg"))}
        metrics |= user_group_means(own, by_users)
        listed = train if candidates is None else train.restrict(candidates)
        popularity = item_popularity(listed)
        further = group_metrics(lists, relevant, item_groups(listed), cutoffs)
        further |= {f"novelty@{k}": novelty(lists[:, :k], popularity) for k in cutoffs}
        metrics |= known_means(further)
        per_user |= further
    return Judgement(judged, metrics | known_means(diverse), per_user | diverse)
