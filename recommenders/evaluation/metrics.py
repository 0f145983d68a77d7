"""Ranking metrics of top-K lists, per user; all candidates, never sampled.

Notation: a user has held-out items G, |G| >= 1, and a list of items at ranks 1..K; hit_r is 1
where the item at rank r is in G. Users without held-out items have no metric.
"""

import numpy as np
from numpy.typing import NDArray

from sgfd.recommenders.evaluation.beyond_accuracy import gini
from sgfd.recommenders.item_sets import Indices, ItemSets

CUTOFFS = (10, 20, 50)

Values = NDArray[np.float64]


def per_user_metrics(
    lists: Indices, held_out: ItemSets, cutoffs: tuple[int, ...] = CUTOFFS
) -> dict[str, Values]:
    """Metrics of each user, as float64 (U,) under names such as `recall@20`.

    Args:
        lists: int64 (U, K), best first, -1 where a list is shorter; K >= max(cutoffs).
        held_out: the U users' relevant items, none of them empty.
    """
    hits = held_out.contains(lists)
    relevant = held_out.sizes.astype(np.float64)
    metrics: dict[str, Values] = {}
    for k in cutoffs:
        found = hits[:, :k]
        metrics |= {
            f"recall@{k}": recall(found, relevant),
            f"precision@{k}": precision(found),
            f"hit_rate@{k}": hit_rate(found),
            f"ndcg@{k}": ndcg(found, relevant),
            f"map@{k}": average_precision(found, relevant),
            f"mrr@{k}": reciprocal_rank(found),
            f"paper_ndcg@{k}": paper_ndcg(found),
        }
    return metrics


def recall(hits: NDArray[np.bool_], relevant: Values) -> Values:
    """sum_r hit_r / |G|."""
    return np.asarray(hits.sum(axis=1) / relevant)


def precision(hits: NDArray[np.bool_]) -> Values:
    """sum_r hit_r / K."""
    return np.asarray(hits.mean(axis=1))


def hit_rate(hits: NDArray[np.bool_]) -> Values:
    """1 where at least one item is a hit."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


def ndcg(hits: NDArray[np.bool_], relevant: Values) -> Values:
    """DCG over the best possible DCG, that of min(|G|, K) hits (Jarvelin, Kekalainen 2002)."""
    return _dcg(hits) / _ideal_dcg(np.minimum(relevant, hits.shape[1]), hits.shape[1])


def average_precision(hits: NDArray[np.bool_], relevant: Values) -> Values:
    """sum_r hit_r * precision@r / |G| (as trec_eval's map_cut)."""
    rank = np.arange(1, hits.shape[1] + 1)
    return np.asarray((hits * np.cumsum(hits, axis=1) / rank).sum(axis=1) / relevant)


def reciprocal_rank(hits: NDArray[np.bool_]) -> Values:
    """1 / rank of the first hit, 0 without one."""
    return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)


def paper_ndcg(hits: NDArray[np.bool_]) -> Values:
    """DCG over the ideal of the hits that were found, as SGFD's published code divides.

    NOT the standard NDCG: a single hit at rank 1 of ten relevant items scores 1. For comparison
    with that paper's table alone.
    """
    found = hits.sum(axis=1)
    return np.where(found > 0, _dcg(hits) / _ideal_dcg(np.maximum(found, 1), hits.shape[1]), 0.0)


def pooled_recall(recalls: Values, relevant: Values) -> float:
    """All users' hits over all users' relevant items, as one of SGFD's published programs reports.

    It is the mean of `recall` weighted by |G|: users with many held-out items count for more.
    """
    return float(recalls @ relevant / relevant.sum())


def catalogue_coverage(lists: Indices, n_items: int) -> float:
    """Share of the catalogue that stands in at least one of the lists (U, K)."""
    shown = np.bincount(lists[lists >= 0], minlength=n_items)
    return float(np.count_nonzero(shown) / n_items)


def average(
    lists: Indices,
    metrics: dict[str, Values],
    held_out: ItemSets,
    cutoffs: tuple[int, ...] = CUTOFFS,
) -> dict[str, float]:
    """Means over the users, and what only all lists together have, at each cutoff.

    That is `pooled_recall`, the `coverage` of the catalogue, and the `gini` of its items' places.
    Arguments as for `per_user_metrics`, whose result `metrics` is.
    """
    means = {name: float(values.mean()) for name, values in metrics.items()}
    relevant = held_out.sizes.astype(np.float64)
    for k in cutoffs:
        means |= {
            f"pooled_recall@{k}": pooled_recall(metrics[f"recall@{k}"], relevant),
            f"coverage@{k}": catalogue_coverage(lists[:, :k], held_out.n_items),
            f"gini@{k}": gini(lists[:, :k], held_out.n_items),
        }
    return means


def _dcg(hits: NDArray[np.bool_]) -> Values:
    return hits @ _discounts(hits.shape[1])


def _ideal_dcg(count: Values, k: int) -> Values:
    return np.cumsum(_discounts(k))[count.astype(np.int64) - 1]


def _discounts(k: int) -> Values:
    return 1.0 / np.log2(np.arange(2, k + 2))
