"""Exact top-K, with seen items left out and ties in the order of the items."""

from collections.abc import Callable
from typing import Literal

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgfd.jobs import JobError
from sgfd.recommenders.item_sets import Indices, ItemSets

Similarity = Literal["inner_product", "l2"]
Scores = NDArray[np.float32]

# The best items of some users' rows to a depth: items (b, depth) and scores, best first.
Search = Callable[[Indices, int], tuple[Indices, Scores]]

_BLOCK = 4096  # users a search; FAISS's own block of queries
_SCORE_CELLS = 4_000_000  # of a block's table of scores

# Lists this long are kept in FAISS's reservoirs, not heaps (by default from 100 on): faster here.
faiss.cvar.distance_compute_min_k_reservoir = 20


class NotFiniteError(JobError):
    """A model's vectors or scores are not finite."""


def top_k(
    users: Scores,
    items: Scores,
    k: int,
    seen: ItemSets,
    similarity: Similarity = "inner_product",
) -> tuple[Indices, Scores]:
    """The k best unseen items of every user by FAISS, best first, ties by item index.

    Args:
        users: float32 (U, d).
        items: float32 (I, d).
        k: length of the lists; shorter ones are padded with item -1 and score -inf.
        seen: the items that each of the U users may not be recommended.
        similarity: `inner_product`, or `l2` (the score is minus the squared distance).

    Returns:
        Items int64 (U, k) and scores float32 (U, k).

    Raises:
        NotFiniteError: an embedding is not finite.
    """
    for name, table in (("user", users), ("item", items)):
        if not np.isfinite(table).all():
            row = int(np.flatnonzero(~np.isfinite(table).all(axis=1))[0])
            raise NotFiniteError(
                f"{name} embedding {row}",
                "is not finite",
                "lower the learning rate and train again",
            )
    index = _index(items, similarity)

    def search(rows: Indices, depth: int) -> tuple[Indices, Scores]:
        scores, found = index.search(np.ascontiguousarray(users[rows], dtype=np.float32), depth)
        return found, -scores if similarity == "l2" else scores

    return _top_unseen(search, len(items), k, seen, _BLOCK)


def top_k_by_score(
    score: Callable[[Indices], Tensor], n_items: int, k: int, seen: ItemSets
) -> tuple[Indices, Scores]:
    """The k best unseen items of every user by any score, best first, ties by item index.

    Args:
        score: gives the scores (b, I) of some users' rows (b,) with all items; it is called for
            few users at a time, so that no matrix of all users by all items ever exists.
        k, seen, and what is returned: as for `top_k`.

    Raises:
        NotFiniteError: a score is not finite.
    """

    def search(rows: Indices, depth: int) -> tuple[Indices, Scores]:
        scores = score(rows)
        if not torch.isfinite(scores).all():
            raise NotFiniteError(
                "scores", "are not finite", "lower the learning rate and train again"
            )
        best, found = torch.topk(scores.float(), depth, dim=1)
        return found.cpu().numpy(), best.cpu().numpy()

    block = max(1, min(_BLOCK, _SCORE_CELLS // max(1, n_items)))
    return _top_unseen(search, n_items, k, seen, block)


def _index(items: Scores, similarity: Similarity) -> "faiss.Index":
    d = items.shape[1]
    index = faiss.IndexFlatIP(d) if similarity == "inner_product" else faiss.IndexFlatL2(d)
    index.add(np.ascontiguousarray(items, dtype=np.float32))
    return index


def _top_unseen(
    search: Search, n_items: int, k: int, seen: ItemSets, most: int
) -> tuple[Indices, Scores]:
    """Top-k of all users, searched in blocks of at most `most` of them.

    Seen items are not scored down but left out: a user with s seen items is searched s deeper
    and they are struck from the list. Users are searched in the order of s, so that
    a block is no deeper than it must be.
    """
    best = np.full((seen.n_users, k), -1, dtype=np.int64)
    scores = np.full((seen.n_users, k), -np.inf, dtype=np.float32)
    order = np.argsort(seen.sizes, kind="stable")
    for block in _blocks(order, seen.sizes, k, most):
        best[block], scores[block] = _search_block(search, n_items, block, k, seen.take(block))
    return best, scores


def _blocks(order: Indices, sizes: Indices, k: int, most: int) -> list[Indices]:
    """Cut the users into blocks whose deepest search is at most a fifth deeper than its least."""
    blocks, start = [], 0
    depth = sizes[order] + k
    while start < len(order):
        end = int(np.searchsorted(depth, depth[start] * 1.2, side="right"))
        end = min(max(end, start + 1), start + most)
        blocks.append(order[start:end])
        start = end
    return blocks


def _search_block(
    search: Search, n_items: int, users: Indices, k: int, seen: ItemSets
) -> tuple[Indices, Scores]:
    """Top-k of one block of users, all of them searched to the same depth."""
    # One more than needed shows whether the list was cut among equal scores.
    depth = min(n_items, k + int(seen.sizes.max(initial=0)) + 1)
    items, scores = _ordered(*search(users, depth))
    best, best_scores = first_unseen(items, scores, k, seen)
    if depth < n_items:
        cut = np.flatnonzero(best_scores[:, -1] <= scores[:, -1])
        if len(cut):  # items left out of the list tie with the last one kept: look at all of them
            rows = max(1, _SCORE_CELLS // n_items)  # bounds the ranked table
            for start in range(0, len(cut), rows):
                part = cut[start : start + rows]
                best[part], best_scores[part] = first_unseen(
                    *_ordered(*search(users[part], n_items)), k, seen.take(part)
                )
    return best, best_scores


def _ordered(items: Indices, scores: Scores) -> tuple[Indices, Scores]:
    """Ranked lists whose equal scores stand in the order of the items."""
    tied = np.flatnonzero((scores[:, 1:] == scores[:, :-1]).any(axis=1))
    if len(tied):
        order = np.lexsort((items[tied], -scores[tied]), axis=1)
        items[tied] = np.take_along_axis(items[tied], order, axis=1)
        scores[tied] = np.take_along_axis(scores[tied], order, axis=1)
    return items, scores


def first_unseen(items: Indices, scores: Scores, k: int, seen: ItemSets) -> tuple[Indices, Scores]:
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
