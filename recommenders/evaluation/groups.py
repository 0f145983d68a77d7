"""Metrics by group: of items (cold, rare, popular) and of users (few, many training items)."""

import numpy as np
from numpy.typing import NDArray

from sgfd.recommenders.evaluation.metrics import CUTOFFS, Values, ndcg, recall
from sgfd.recommenders.item_sets import Indices, ItemSets

# Groups by name: whether an item (I,) or a user (U,) belongs.
Groups = dict[str, NDArray[np.bool_]]


def item_groups(train: ItemSets) -> Groups:
    """Every item in one of three groups by its training interactions, bool (I,) each.

    `cold` items have none. `popular` are the fewest items that hold at least half of all
    interactions: the most interacted with, ties by item index. `rare` are the others.
    """
    counts = np.bincount(train.items, minlength=train.n_items)
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]  # interactions of all items more popular
    popular = np.zeros(train.n_items, dtype=bool)
    popular[order] = 2 * before < len(train.items)
    cold = counts == 0
    return {"cold": cold, "rare": ~cold & ~popular, "popular": popular}


def user_groups(train: ItemSets) -> Groups:
    """Every user in one of two groups by his training items, bool (U,) each.

    `many` users have more than the median, `few` the others. The median is that of the users
    with at least one training item; those without any are `few`.
    """
    sizes = train.sizes
    many = sizes > np.median(sizes[sizes > 0]) if sizes.any() else np.zeros(len(sizes), dtype=bool)
    return {"few": ~many, "many": many}


def group_metrics(
    lists: Indices, held_out: ItemSets, groups: Groups, cutoffs: tuple[int, ...] = CUTOFFS
) -> dict[str, Values]:
    """Recall and NDCG of each item group, float64 (V,) under names such as `recall@20 cold`.

    Only the held-out items of the group are relevant; the lists stay those of all candidates, so
    that items of other groups take up ranks.

    Args:
        lists: int64 (V, K), best first, -1 where a list is shorter; K >= max(cutoffs).
        held_out: the V users' relevant items. Users without any of a group get NaN.
        groups: bool (I,) of each group of items.
    """
    hits = held_out.contains(lists)
    owner = np.repeat(np.arange(held_out.n_users), held_out.sizes)
    metrics: dict[str, Values] = {}
    for group, members in groups.items():
        held_by = owner[members[held_out.items]]
        count = np.bincount(held_by, minlength=held_out.n_users)
        judged = np.flatnonzero(count)
        relevant = count[judged].astype(np.float64)
        found = hits[judged] & members[lists[judged]]
        for k in cutoffs:
            for name, metric in (("recall", recall), ("ndcg", ndcg)):
                values = np.full(held_out.n_users, np.nan)
                values[judged] = metric(found[:, :k], relevant)
                metrics[f"{name}@{k} {group}"] = values
    return metrics


def known_means(per_user: dict[str, Values]) -> dict[str, float]:
    """Means of metrics (V,) over the users who have them (not NaN); left out where nobody has."""
    known = {name: values[~np.isnan(values)] for name, values in per_user.items()}
    return {name: float(values.mean()) for name, values in known.items() if len(values)}


def user_group_means(per_user: dict[str, Values], groups: Groups) -> dict[str, float]:
    """`known_means` of each group of users (V,), under names such as `recall@20 few`."""
    return {
        f"{name} {group}": mean
        for group, members in groups.items()
        for name, mean in known_means({n: v[members] for n, v in per_user.items()}).items()
    }
