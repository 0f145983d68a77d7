"""Nearest other items by cosine, exact, in bounded memory; what the manifest calls neighbours."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sgfd.featureset.compression import BLOCK_VALUES, LazyRows, Rows, present_in

MOST_QUERIES = 8192  # of a block
SLACK = 16  # candidates that FAISS gives beyond those that are needed
RESULTS = 4_000_000  # candidates of a block, at most

NEIGHBOUR_SCHEMA = pa.schema(
    [("item_id", pa.string()), ("neighbour_id", pa.string()), ("similarity", pa.float32())]
)

Indices = NDArray[np.int64]
Matrix = NDArray[np.float64]
Number = TypeVar("Number", np.float32, np.float64)


class CosineRows:
    """Rows whose inner products are cosines: the mean over the modalities, if there are several.

    An item's row in each of the M modalities has unit norm, zeros where it lacks one; side by
    side, divided by sqrt(M), they are one row of D columns.

    Attributes:
        items: int64, the items that have any of the modalities, ascending.
        width: D.
    """

    def __init__(self, modalities: Sequence[Rows | LazyRows]) -> None:
        self._modalities = modalities
        self.items = np.flatnonzero(np.any([present_in(rows) for rows in modalities], axis=0))
        self.width: int = sum(rows.shape[1] for rows in modalities)

    @property
    def block_rows(self) -> int:
        """Rows of a block whose copies stay small."""
        return max(1, BLOCK_VALUES // self.width)

    def read(self, items: Indices) -> Matrix:
        """The rows of some items, double (k, D)."""
        return self._read(items, np.empty((len(items), self.width)))

    def read_single(self, items: Indices) -> NDArray[np.float32]:
        """The same in single precision, in half the time, where that is fine enough."""
        return self._read(items, np.empty((len(items), self.width), dtype=np.float32))

    def _read(self, items: Indices, joined: NDArray[Number]) -> NDArray[Number]:
        ends = np.cumsum([modality.shape[1] for modality in self._modalities])
        parts = np.split(joined, ends[:-1], axis=1)  # views
        for modality, rows in zip(self._modalities, parts, strict=True):
            rows[:] = modality[items]
            squares = np.einsum("ij,ij->i", rows, rows)
            rows[np.isnan(squares)] = 0
            lengths = np.sqrt(squares * len(self._modalities))
            rows /= np.where(squares > 0, lengths, 1)[:, None]
        return joined

    def cosines(self, vectors: Matrix, others: Indices) -> NDArray[np.float32]:
        """Of rows (b, D) with those of other items (b, k): the float32 next to it, (b, k).

        It does not depend on what else is computed, so that equal rows have equal cosines.
        """
        found = np.empty(others.shape, dtype=np.float32)
        step = max(1, BLOCK_VALUES // (others.shape[1] * self.width))
        for start in range(0, len(others), step):
            part = slice(start, start + step)
            rows = self.read(others[part].reshape(-1)).reshape(*others[part].shape, self.width)
            found[part] = np.einsum("bd,bkd->bk", vectors[part], rows)
        return found


@dataclass(frozen=True)
class NeighbourBlock:
    """Some items' nearest others: items (b,), neighbours (b, k) and float32 cosines (b, k).

    The most similar come first, ties in the order of the items.
    """

    items: Indices
    neighbours: Indices
    similarity: NDArray[np.float32]

    def table(self, ids: NDArray[np.object_]) -> pa.RecordBatch:
        """One row a pair, in the columns of `NEIGHBOUR_SCHEMA`."""
        item = np.repeat(self.items, self.neighbours.shape[1])
        columns = [
            pa.array(ids[item], pa.string()),
            pa.array(ids[self.neighbours.reshape(-1)], pa.string()),
            pa.array(self.similarity.reshape(-1)),
        ]
        return pa.record_batch(columns, schema=NEIGHBOUR_SCHEMA)


def nearest(
    rows: CosineRows,
    k: int,
    queries: Indices | None = None,
    advance: Callable[[int], None] | None = None,
) -> Iterator[NeighbourBlock]:
    """The k nearest others of some items (all that have a row where None), in blocks.

    Exact: FAISS finds candidates in single precision, which are then ordered by their cosines in
    double precision; where its rounding may hide one that belongs to them, it is asked for more.
    The time grows with the square of the number of items, and where very many rows are equal it
    takes several times as long.

    Args:
        k: fewer where there are fewer others.
        advance: told of how many items are done.
    """
    queries = rows.items if queries is None else queries
    k = min(k, len(rows.items) - 1)
    if k < 1:
        return
    depth = min(k + 1 + SLACK, len(rows.items))
    step = max(1, min(MOST_QUERIES, rows.block_rows, RESULTS // depth))
    for start in range(0, len(queries), step):
        items = queries[start : start + step]
        yield NeighbourBlock(items, *_nearest_of(rows, items, k, depth))
        if advance is not None:
            advance(len(items))


def _nearest_of(
    rows: CosineRows, items: Indices, k: int, depth: int
) -> tuple[Indices, NDArray[np.float32]]:
    """Neighbours (b, k) and their cosines, from `depth` candidates an item or more."""
    vectors = rows.read(items)
    scores, found = _candidates(rows, vectors, depth)
    cosines = rows.cosines(vectors, found)
    cosines[found == items[:, None]] = -np.inf  # no item is its own neighbour
    order = np.lexsort((found, -cosines), axis=1)[:, :k]
    best = np.take_along_axis(found, order, axis=1)
    similarity = np.take_along_axis(cosines, order, axis=1)
    everything = len(rows.items)
    if depth < everything:
        # A score's error is at most (D + a few) 2^-24 (Higham, 2002, eq. 3.5), rows having norm 1.
        error = (rows.width + 8) * 2.0**-24
        unsure = np.flatnonzero(similarity[:, -1] <= scores[:, -1] + error)
        deeper = min(4 * depth, everything)
        step = max(1, RESULTS // deeper)
        for start in range(0, len(unsure), step):
            part = unsure[start : start + step]
            best[part], similarity[part] = _nearest_of(rows, items[part], k, deeper)
    return best, similarity


def _candidates(
    rows: CosineRows, vectors: Matrix, depth: int
) -> tuple[NDArray[np.float32], Indices]:
    """FAISS's `depth` best items of each vector and their scores, (b, depth), best first."""
    import faiss

    queries = vectors.astype(np.float32)
    best = faiss.ResultHeap(len(queries), depth, keep_max=True)
    for start in range(0, len(rows.items), rows.block_rows):
        items = rows.items[start : start + rows.block_rows]
        others = rows.read(items).astype(np.float32)
        scores, place = faiss.knn(
            queries, others, min(depth, len(items)), metric=faiss.METRIC_INNER_PRODUCT
        )
        best.add_result(scores, items[place])
    best.finalize()
    return best.D, best.I
