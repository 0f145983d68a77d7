"""Exact top-K by FAISS, with seen items left out and ties in the order of the items."""

from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from sgfd.jobs import JobError
from sgfd.recommenders.item_sets import Indices, ItemSets

Similarity = Literal["inner_product", "l2"]
Scores = NDArray[np.float32]

_BLOCK = 4096  # users a search; FAISS's own block of queries

# Lists this long are kept in FAISS's reservoirs, not heaps (by default from 100 on): faster here.
faiss.cvar.distance_compute_min_k_reservoir = 20


def top_k(
    users: Scores,
    items: Scores,
    k: int,
    seen: ItemSets,
    similarity: Similarity = "inner_product",
) -> tuple[Indices, Scores]:
    """The k best unseen items of every user, best first, ties by item index.

    Seen items are not scored down but left out: a user with s seen items is searched s deeper
    and they are struck from the list. Users are searched in the order of s, so that
    a block is no deeper than it must be.

    Args:
        users: float32 (U, d).
        items: float32 (I, d).
        k: length of the lists; shorter ones are padded with item -1 and score -inf.
        seen: the items that each of the U users may not be recommended.
        similarity: `inner_product`, or `l2` (the score is minus the squared distance).

    Returns:
        Items int64 (U, k) and scores float32 (U, k).

    Raises:
        JobError: an embedding is not finite.
    """
    for name, table in (("user", users), ("item", items)):
        if not np.isfinite(table).all():
            row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
            raise JobError(
                f"{name} embedding {row}",
                "is not finite",
                "lower the learning rate and train again",
            )
    index = _index(items, similarity)
    best = np.full((len(users), k), -1, dtype=np.int64)
    scores = np.full((len(users), k), -np.inf, dtype=np.float32)
    order = np.argsort(seen.sizes, kind="stable")
    for block in _blocks(order, seen.sizes, k):
        best[block], scores[block] = _search(
            index, np.ascontiguousarray(users[block], dtype=np.float32), k, seen.take(block)
        )
    return best, scores


def _index(items: Scores, similarity: Similarity) -> "faiss.Index":
    d = items.shape[1]
    index = faiss.IndexFlatIP(d) if similarity == "inner_product" else faiss.IndexFlatL2(d)
    index.add(np.ascontiguousarray(items, dtype=np.float32))
    return index


def _blocks(order: Indices, sizes: Indices, k: int) -> list[Indices]:
    """Cut the users into blocks whose deepest search is at most a fifth deeper than its least."""
    blocks, start = [], 0
    depth = sizes[order] + k
    while start < len(order):
        end = int(np.searchsorted(depth, depth[start] * 1.2, side="right"))
        end = min(max(end, start + 1), start + _BLOCK)
        blocks.append(order[start:end])
        start = end
    return blocks


def _search(index: "faiss.Index", users: Scores, k: int, seen: ItemSets) -> tuple[Indices, Scores]:
    """Top-k of one block of users, all of them searched to the same depth."""
    # One more than needed shows whether the list was cut among equal scores.
    depth = min(index.ntotal, k + int(seen.sizes.max(initial=0)) + 1)
    items, scores = _ranked(index, users, depth)
    best, best_scores = _first_unseen(items, scores, k, seen)
    if depth < index.ntotal:
        cut = np.flatnonzero(best_scores[:, -1] <= scores[:, -1])
        if len(cut):  # items left out by FAISS tie with the last one kept: look at all of them
            best[cut], best_scores[cut] = _search_all(index, users[cut], k, seen.take(cut))
    return best, best_scores


def _search_all(
    index: "faiss.Index", users: Scores, k: int, seen: ItemSets
) -> tuple[Indices, Scores]:
    """Top-k of users whose list was cut among ties, from the ranking of the whole catalogue."""
    best = np.empty((len(users), k), dtype=np.int64)
    best_scores = np.empty((len(users), k), dtype=np.float32)
    rows = max(1, 4_000_000 // index.ntotal)  # bounds the ranked table
    for start in range(0, len(users), rows):
        part = np.arange(start, min(start + rows, len(users)))
        items, scores = _ranked(index, users[part], index.ntotal)
        best[part], best_scores[part] = _first_unseen(items, scores, k, seen.take(part))
    return best, best_scores


def _ranked(index: "faiss.Index", users: Scores, depth: int) -> tuple[Indices, Scores]:
    """FAISS's `depth` nearest, larger scores first, equal scores by item index."""
    scores, items = index.search(users, depth)
    if index.metric_type == faiss.METRIC_L2:
        scores = -scores
    tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
    if len(tied):
        order = np.lexsort((items[tied], -scores[tied]), axis=1)
        items[tied] = np.take_along_axis(items[tied], order, axis=1)
        scores[tied] = np.take_along_axis(scores[tied], order, axis=1)
    return items, scores


def _first_unseen(items: Indices, scores: Scores, k: int, seen: ItemSets) -> tuple[Indices, Scores]:
    """The first k entries of each ranked row that are not seen, padded with -1 and -inf."""
    best = np.full((len(items), k), -1, dtype=np.int64)
    best_scores = np.full((len(items), k), -np.inf, dtype=np.float32)
    width = min(k, items.shape[1])
    best[:, :width], best_scores[:, :width] = items[:, :width], scores[:, :width]
    is_seen = seen.contains(items)
    mixed = np.flatnonzero(is_seen[:, :k].any(axis=1))  # the others' lists are right already
    unseen = ~is_seen[mixed]
    place = np.cumsum(unseen, axis=1, dtype=np.int32) - 1
    row, column = np.nonzero(unseen & (place < k))
    target, source = (mixed[row], place[row, column]), (mixed[row], column)
    best[mixed], best_scores[mixed] = -1, -np.inf
    best[target], best_scores[target] = items[source], scores[source]
    return best, best_scores
