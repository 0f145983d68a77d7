"""What lists are like, whether or not they hit: how concentrated, how novel, how diverse.

Lists are int64 (V, K), best first, -1 where one is shorter; cut them to judge another K.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from sgfd.dataset import Feature, distinct
from sgfd.recommenders.item_sets import Indices, ItemSets

DIVERSITY = "diversity_"  # how the names of metrics begin that need the generic features
DIVERSITY_ERROR = 1e-6  # of a mean over lists, each of which is summed in single precision

_ROW_CELLS = 8_000_000  # of the feature rows of a block of users
_SUM_CELLS = 4_000_000  # of that block's sums


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


def intra_list_diversity(
    lists: Indices, features: Feature, cutoffs: tuple[int, ...]
) -> NDArray[np.float64]:
    """Mean of 1 - cosine over all pairs of each list's first k items, float64 (V, len(cutoffs)).

    Ziegler et al. (WWW 2005), Vargas and Castells (RecSys 2011), without discount by rank. The
    cosines of n unit vectors with sum s add up to (|s|^2 - n) / 2 over their pairs, so no pair is
    ever formed; s is summed in single precision, which leaves an error below 1e-5. Items without
    features (a row with NaN, or of zeros) are left out; NaN where fewer than two are left.

    Args:
        features: of the I items, (I, D). Rows of listed items alone are read, for a block of
            users at a time; where torch can't sum them as they lie in the file, of as many
            users as share few enough items.
        cutoffs: ascending, none above K.
    """
    lists = lists[:, : cutoffs[-1]]
    scale = _inverse_norms(features, distinct(lists[lists >= 0]))
    diversity = np.empty((len(lists), len(cutoffs)))
    most = max(1, _SUM_CELLS // features.dimension)  # users a block
    start, size = 0, most
    while start < len(lists):
        block = lists[start : start + size]
        items = distinct(block[block >= 0])
        copied = 0 if features.usable_as_stored else len(items) * features.dimension
        if copied > _ROW_CELLS and len(block) > 1:
            size = len(block) // 2
            continue
        diversity[start : start + size] = _of_block(block, items, features, scale, cutoffs)
        start, size = start + size, min(2 * size, most)
    return diversity


def diversities(
    lists: Indices, generic: Mapping[str, Feature], cutoffs: tuple[int, ...]
) -> dict[str, NDArray[np.float64]]:
    """`intra_list_diversity` by each modality's generic features, float64 (V,).

    Names are such as `diversity_image@20`. Generic features are the same whatever a model was
    trained on: one yardstick for all feature sets of a catalogue.
    """
    return {
        f"{DIVERSITY}{name}@{k}": values
        for name, features in generic.items()
        for k, values in zip(cutoffs, intra_list_diversity(lists, features, cutoffs).T, strict=True)
    }


def _inverse_norms(features: Feature, items: Indices) -> NDArray[np.float64]:
    """1 / |f_i| of some items, float64 (I,); 0 for the others and where that is no number."""
    scale = np.zeros(features.shape[0])
    rows = max(1, _ROW_CELLS // features.dimension)
    for start in range(0, len(items), rows):
        chosen = items[start : start + rows]
        norm = np.sqrt(_squares(features.gather(chosen)))
        known = np.isfinite(norm) & (norm > 0)
        scale[chosen[known]] = 1 / norm[known]
    return scale


def _of_block(
    lists: Indices,
    items: Indices,
    features: Feature,
    scale: NDArray[np.float64],
    cutoffs: tuple[int, ...],
) -> NDArray[np.float64]:
    """Diversity of lists (b, K) of these items, ascending, at each cutoff: (b, len(cutoffs))."""
    if not len(items):
        return np.full((len(lists), len(cutoffs)), np.nan)
    as_stored = features.usable_as_stored
    rows = torch.from_numpy(
        features.window(0, features.shape[0]) if as_stored else features.gather(items)
    )
    total, n = np.zeros((len(lists), features.dimension)), np.zeros(len(lists))
    columns = []
    for start, end in pairwise((0, *cutoffs)):
        # In order: the same items add up to the same digits, however ranked.
        part = np.sort(lists[:, start:end], axis=1)
        known = (part >= 0) & (scale[part] > 0)
        counts, listed = known.sum(axis=1), part[known]
        total += functional.embedding_bag(
            torch.from_numpy(listed if as_stored else np.searchsorted(items, listed)),
            rows,
            torch.from_numpy(np.cumsum(counts) - counts),
            mode="sum",
            per_sample_weights=torch.from_numpy(scale[listed]).to(rows.dtype),
        ).numpy()
        n += counts
        pairs = n * (n - 1)
        similarity = np.divide(_squares(total) - n, pairs, out=np.full(len(n), np.nan), where=n > 1)
        columns.append(1.0 - similarity)
    return np.stack(columns, axis=1)


def _squares(rows: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared lengths of rows (m, D), float64 (m,).

    Not by einsum, whose last digits change with where in memory the rows happen to lie: a run
    judged again must give the figures that it has.
    """
    return np.asarray(np.square(rows, dtype=np.float64).sum(axis=1))
