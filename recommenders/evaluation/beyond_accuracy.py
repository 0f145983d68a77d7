"""What lists are like, whether or not they hit: how concentrated, how novel, how diverse.

Lists are int64 (V, K), best first, -1 where one is shorter; cut them to judge another K.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sgfd.recommenders.item_sets import Indices, ItemSets

_FEATURE_CELLS = 8_000_000  # of the float64 feature rows of a block of users


def gini(lists: Indices, n_items: int) -> float:
    """Gini coefficient of how often each of the n catalogue items is listed.

    With counts x_1 <= ... <= x_n: sum_i (2i - n - 1) x_i / (n sum_i x_i), half the mean absolute
    difference over the mean (Gini 1912). 0 where all are listed alike, and where nothing is
    listed; 1 - 1/n where one item takes every place. Shani and Gunawardana (Recommender Systems
    Handbook, 2011) divide by n - 1 in place of n.
    """
    counts = np.sort(np.bincount(lists[lists >= 0], minlength=n_items))
    total = int(counts.sum())
    if not total:
        return 0.0
    rank = np.arange(1, n_items + 1)
    return int(((2 * rank - n_items - 1) * counts).sum()) / (n_items * total)


def item_popularity(train: ItemSets) -> NDArray[np.float64]:
    """Share of the users who interacted with each item in training, float64 (I,).

    An item without interactions counts as half of one, so that its share is never 0.
    """
    counts = np.bincount(train.items, minlength=train.n_items)
    return np.maximum(counts, 0.5) / max(train.n_users, 1)


def novelty(lists: Indices, popularity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean self-information -log2 p(i) of each list's items, in bits, float64 (V,).

    "MSI" of Vargas and Castells (RecSys 2011), without discount by rank. NaN for an empty list.

    Args:
        popularity: float64 (I,), all above 0: the share p(i) of users, by `item_popularity`.
    """
    listed = lists >= 0
    information = np.where(listed, -np.log2(popularity)[lists], 0.0).sum(axis=1)
    length = listed.sum(axis=1)
    return np.where(length > 0, information / np.maximum(length, 1), np.nan)


def intra_list_diversity(lists: Indices, features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of 1 - cosine over all pairs of each list's items, float64 (V,).

    Ziegler et al. (WWW 2005), Vargas and Castells (RecSys 2011), without discount by rank. The
    cosines of n unit vectors with sum s add up to (|s|^2 - n) / 2 over their pairs, so no pair is
    ever formed. Items without features (a row with NaN, or of zeros) are left out; NaN where
    fewer than two are left.

    Args:
        features: (I, D), maybe a memory map: a block of users' rows is read at a time.
    """
    diversity = np.empty(len(lists))
    block = max(1, _FEATURE_CELLS // max(1, lists.shape[1] * features.shape[1]))
    for start in range(0, len(lists), block):
        diversity[start : start + block] = _block_diversity(lists[start : start + block], features)
    return diversity


def _block_diversity(lists: Indices, features: NDArray[np.floating]) -> NDArray[np.float64]:
    items, place = np.unique(lists[lists >= 0], return_inverse=True)
    rows = np.asarray(features[items], dtype=np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    known = np.isfinite(norm) & (norm > 0)
    unit = np.divide(rows, norm, out=np.zeros_like(rows), where=known)
    ends = np.concatenate([[0], np.cumsum((lists >= 0).sum(axis=1))])
    holds = csr_array((np.ones(len(place)), place, ends), shape=(len(lists), len(items)))
    n = holds @ known[:, 0].astype(np.float64)
    squared = np.square(holds @ unit).sum(axis=1)
    similarity = np.divide(squared - n, n * (n - 1), out=np.full(len(n), np.nan), where=n > 1)
    return np.asarray(1.0 - similarity)
