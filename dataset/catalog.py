"""The items of a data set: ids, generic features as memory maps, labels, titles."""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset.errors import DatasetError
from sgfd.dataset.problems import places
from sgfd.dataset.vocabulary import Vocabulary

BLOCK_ROWS = 8192
OUTLYING = 100  # times as long as the median row
_MODALITY_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,99}")
_TAKEN_NAMES = ("item_id", "item_index", "label")  # columns that a feature set's table has anyway


def is_modality_name(name: str) -> bool:
    """Whether a feature set can call a modality so."""
    return _MODALITY_NAME.fullmatch(name) is not None and name not in _TAKEN_NAMES


Opener = Callable[[], "StoredRows"]


@dataclass(frozen=True)
class StoredRows:
    """A matrix that lies as plain rows in a file (or, for made-up data, in memory)."""

    file: Path | IO[bytes] | None
    offset: int
    dtype: "np.dtype[Any]"
    shape: tuple[int, int]
    array: NDArray[Any] | None = None

    def window(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start..stop, mapped alone: what was mapped before is given back to the system.

        Mapped copy-on-write: libraries that want writable memory take it, the file stays as it is.
        """
        if self.array is not None:
            return self.array[start:stop]
        assert self.file is not None
        width = self.shape[1] * self.dtype.itemsize
        shape, offset = (stop - start, self.shape[1]), self.offset + start * width
        return np.memmap(self.file, self.dtype, "c", offset, shape)


class Feature:
    """One modality's generic features of all items.

    A row of NaN is an item that lacks the modality. Rows are read from the file when they are
    asked for; nothing ever holds the whole matrix.

    Args:
        name: of the modality. source: where it comes from, for messages.
        shape: (n_items, D). dtype: as stored.
        opener: gives the stored rows when they are first needed.
    """

    def __init__(
        self,
        name: str,
        source: str,
        shape: tuple[int, int],
        dtype: "np.dtype[Any]",
        opener: Opener,
    ) -> None:
        self.name, self.source, self.shape, self.dtype = name, source, shape, dtype
        self._opener = opener

    @classmethod
    def from_array(cls, name: str, array: NDArray[Any]) -> "Feature":
        """A feature in memory, for made-up data."""
        rows = StoredRows(None, 0, array.dtype, (array.shape[0], array.shape[1]), array)
        return cls(name, f"modality {name}", rows.shape, array.dtype, lambda: rows)

    @classmethod
    def from_npy(cls, name: str, path: Path) -> "Feature":
        """A feature in a .npy file, mapped and never unpickled.

        Raises:
            DatasetError: the file is missing, truncated, of objects, or no matrix of numbers.
        """
        stored = open_npy(path)
        if stored.ndim != 2 or stored.shape[1] == 0:
            raise DatasetError(
                path, f"has shape {stored.shape}", "save a matrix with one row an item"
            )
        shape = (stored.shape[0], stored.shape[1])
        if isinstance(stored, np.memmap) and stored.flags.c_contiguous:
            rows = StoredRows(path, stored.offset, stored.dtype, shape)
        else:  # column-major: no window of rows can be mapped alone
            rows = StoredRows(None, 0, stored.dtype, shape, stored)
        return cls(name, str(path), shape, stored.dtype, lambda: rows)

    @property
    def dimension(self) -> int:
        return self.shape[1]

    @property
    def values(self) -> NDArray[Any]:
        """The whole matrix (n_items, D) as a memory map, as stored."""
        return self._map

    def rows(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Some items' rows, float32 (k, D)."""
        return np.asarray(self._map[index], dtype=np.float32)

    def gather(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Some items' rows, float32 (k, D), from a map of their own: memory stays that of k."""
        first, end = (int(index.min()), int(index.max()) + 1) if len(index) else (0, 0)
        if first == end:
            return np.empty((0, self.dimension), dtype=np.float32)
        return np.array(self._rows.window(first, end)[index - first], dtype=np.float32)

    @property
    def usable_as_stored(self) -> bool:
        """Whether torch can compute with what `window` gives: without a copy, by rows, without a
        warning that it is read-only."""
        array = self._rows.array
        as_stored = array is None or (array.flags.c_contiguous and array.flags.writeable)
        return as_stored and self.dtype in (np.float32, np.float64)

    def window(self, start: int, stop: int) -> NDArray[Any]:
        """Rows start..stop as stored, in a map of their own."""
        return self._rows.window(start, stop)

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start..stop as float32, from a map of their own, so that memory stays flat."""
        rows = self._rows.window(start, min(stop, self.shape[0]))
        with np.errstate(over="ignore"):  # what is infinite then is told of where it is checked
            return rows if rows.dtype == np.float32 else rows.astype(np.float32)

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The whole feature as a stream of (first row, block)."""
        for start in range(0, self.shape[0], rows):
            yield start, self.block(start, start + rows)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """Which items have the modality, bool (n_items,), by one pass over the file.

        Raises:
            DatasetError: a row is NaN in part, or infinite.
        """
        return ~np.isnan(self._squared_norms)

    @cached_property
    def outlying(self) -> NDArray[np.int64]:
        """Rows over 100 times as long as the median of those that are not 0, ascending.

        One such row can outweigh all others in a column's variance. Where there are more than two,
        and more than one in a hundred, that is how the rows are; so it is with a single column,
        which may hold prices or counts: then none is named.

        Raises:
            DatasetError: a row is NaN in part, or infinite.
        """
        norms = np.sqrt(self._squared_norms)
        some = norms[norms > 0]
        rows = np.flatnonzero(norms > OUTLYING * np.median(some)) if len(some) else np.arange(0)
        few = self.dimension > 1 and len(rows) <= max(2, len(some) // 100)
        return rows if few else np.arange(0)

    @cached_property
    def _squared_norms(self) -> NDArray[np.float32]:
        """Of each row, (n_items,), NaN where it is lacking."""
        norms = np.empty(self.shape[0], dtype=np.float32)
        for start, block in self.blocks():
            rows = norms[start : start + len(block)]
            # A sum is finite unless an entry is not (or the sum overflows: then look closer).
            with np.errstate(over="ignore", invalid="ignore"):
                np.einsum("bd,bd->b", block, block, out=rows)
            odd = np.flatnonzero(~np.isfinite(rows))
            self._refuse_broken(start + odd, block[odd])
            rows[odd] = np.where(np.isnan(block[odd, 0]), np.nan, np.inf)
        return norms

    def oddities(self) -> Iterator[tuple[str, str]]:
        """What can be used and is hardly meant, and what to do.

        Raises:
            DatasetError: a row is NaN in part, or infinite.
        """
        count, only = int(self.present.sum()), self._only_row()
        if not count:
            yield "no item has it", "export it again, or remove it"
        elif only is not None and not only.any():
            yield "holds no number but 0", "export it again, or remove it"
        elif only is not None and count > 1:
            yield "has one row, again and again", "export it again, or remove it"
        if len(rows := self.outlying):
            verb = "are" if len(rows) > 1 else "is"
            yield (
                f"{places(rows, 0)} {verb} over {OUTLYING} times as long as the median row, and "
                "left out of the columns' mean and scale where they are taken",
                "correct what is wrong there, or make it all NaN (the item lacks it)",
            )

    def _only_row(self) -> NDArray[np.float32] | None:
        """The row of all items that have one (1, D); None where two differ, or there is none."""
        first = None
        for start, block in self.blocks():
            there = block[self.present[start : start + len(block)]]
            if first is None and len(there):
                first = there[:1].copy()
            if first is not None and (there != first).any():
                return None
        return first

    def broken_rows(self) -> dict[str, list[int]]:
        """All rows that `present` would refuse: `NaN in part` and `infinite`."""
        broken: dict[str, list[int]] = {"NaN in part": [], "infinite": []}
        for start, block in self.blocks():
            infinite, in_part = _broken(block)
            broken["NaN in part"] += (np.flatnonzero(in_part) + start).tolist()
            broken["infinite"] += (np.flatnonzero(infinite) + start).tolist()
        return broken

    @property
    def coverage(self) -> float:
        """Share of the items that have the modality."""
        return float(self.present.mean()) if len(self.present) else 0.0

    def _refuse_broken(self, index: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        infinite, in_part = _broken(values)
        if infinite.any():
            row = index[infinite.argmax()]
            raise DatasetError(self.source, f"row {row} is infinite", "give finite numbers")
        if in_part.any():
            raise DatasetError(
                self.source,
                f"row {index[in_part.argmax()]} is NaN in part",
                "make the row all NaN or all numbers",
            )

    @cached_property
    def _rows(self) -> StoredRows:
        return self._opener()

    @cached_property
    def _map(self) -> NDArray[Any]:
        return self._rows.window(0, self.shape[0])


def _broken(rows: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows are infinite, and which are NaN in part, bool (b,) each."""
    nan = np.isnan(rows)
    return np.asarray(np.isinf(rows).any(axis=1)), np.asarray(nan.any(axis=1) & ~nan.all(axis=1))


@dataclass(frozen=True)
class ItemCatalog:
    """The items and what is known of them.

    Attributes:
        items: their ids.
        features: generic features by modality.
        labels: int64 (n,), a place in `label_names`, -1 where unlabelled; None without labels.
        titles: object (n,) of str or None; None where the data set has no titles.
    """

    items: Vocabulary
    features: dict[str, Feature] = field(default_factory=dict)
    labels: NDArray[np.int64] | None = None
    label_names: tuple[str, ...] = ()
    titles: NDArray[np.object_] | None = None

    @property
    def n_items(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        """sha256 of the ids and of every feature's numbers, streamed."""
        digest = hashlib.sha256("\0".join(self.items.ids).encode())
        for name, feature in sorted(self.features.items()):
            digest.update(f"\0{name} {feature.shape} ".encode())
            for _, block in feature.blocks():
                digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()

    def labels_fingerprint(self) -> str | None:
        """sha256 of the labels; None where there are none."""
        if self.labels is None:
            return None
        digest = hashlib.sha256("\0".join(self.label_names).encode())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def open_npy(path: Path) -> NDArray[Any]:
    """Map a .npy file of numbers, copy-on-write as `StoredRows.window` does.

    Raises:
        DatasetError: it is missing, empty, truncated, of objects (never unpickled) or of text.
    """
    try:
        if path.stat().st_size == 0:
            raise DatasetError(path, "is empty", "export the array again")
        array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    except OSError as error:
        raise DatasetError(
            path, f"can't be read ({error.strerror or error})", "export it again"
        ) from None
    except DatasetError:
        raise
    except Exception as error:  # a mangled header raises whatever numpy's parser happens to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "object" in reason.lower() or "pickle" in reason.lower():
            raise DatasetError(
                path,
                "holds Python objects (or is no .npy file), which are never unpickled",
                "save it as plain numbers: np.save(path, array.astype('float32'))",
            ) from None
        raise DatasetError(
            path, f"is truncated or no .npy file ({reason})", "export it again"
        ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise DatasetError(path, "holds no numbers", "save features as float32, labels as integers")
    return array


def temporary_rows(blocks: Iterator[NDArray[np.float32]], shape: tuple[int, int]) -> StoredRows:
    """Spool blocks of rows into a nameless temporary file that can be mapped."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as its map)
    for block in blocks:
        file.write(np.ascontiguousarray(block, dtype=np.float32).data)
    file.flush()
    return StoredRows(file, 0, np.dtype(np.float32), shape)
