"""Writing a feature set as a stream of blocks, so that its size never matters."""

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import save

from sgfd.featureset.card import card
from sgfd.featureset.compression import Compressed, Rows, open_compressed
from sgfd.featureset.croissant import croissant
from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.manifest import (
    CARD,
    CROISSANT,
    ENCODINGS,
    MANIFEST,
    MANIFEST_BYTES,
    MAP,
    NEIGHBOURS,
    STUDENT,
    TABLE,
    FileRecord,
    Manifest,
)
from sgfd.featureset.neighbours import NEIGHBOUR_SCHEMA, NeighbourBlock
from sgfd.featureset.picture import Picture, drawn_of, map_of

Block = dict[str, NDArray[Any]]
T = TypeVar("T")

BLOCKS_AHEAD = 2  # that wait to be written
PAGE_BYTES = 2**18  # of the table; `PlainLists` makes a page of each size itself
PAGES_AHEAD = 64  # encoded and to be written: 16 MiB
NUMBERS_AT_ONCE = 2**16  # that pyarrow encodes: by its own 1,024 a list takes half as long again


@dataclass(frozen=True)
class _Column:
    """How a modality is stored: numbers an item, their type, and the modality whose rows of NaN
    say which items lack it."""

    width: int
    kind: np.dtype[Any]
    of: str

    @property
    def arrow(self) -> pa.DataType:
        # An item lacks all or nothing, so that no reader need look whether each number is there.
        number = pa.field("element", pa.from_numpy_dtype(self.kind), nullable=False)
        return pa.list_(number, self.width)


class FeatureSetWriter:
    """Builds a feature set in `folder`; what is there before `finish` is no feature set yet.

    Each file is hashed while it is written. The .npy files are written by a thread of their own,
    the Parquet table by two (one encodes), so that the caller computes the next block meanwhile;
    short queues bound the memory.

    Args:
        folder: an existing, empty folder.
        item_ids: ids of the n items, in the order of the rows to come.
        labels: label name of each item, None where it has none.
        dimensions: width of each modality.
        compressed: compressed modalities by name, encoded from the rows that are appended.
    """

    def __init__(
        self,
        folder: Path,
        item_ids: Sequence[str] | NDArray[np.object_],
        labels: Sequence[str | None] | NDArray[np.object_],
        dimensions: dict[str, int],
        compressed: Mapping[str, Compressed] | None = None,
    ) -> None:
        self.folder = folder
        self._ids = np.asarray(item_ids, dtype=object)
        self._labels = pa.array(labels, pa.string())
        self._compressed = dict(compressed or {})
        columns = {
            name: _Column(width, np.dtype("<f4"), name) for name, width in dimensions.items()
        } | {
            name: _Column(each.codec.columns, each.codec.stored_type, each.of)
            for name, each in self._compressed.items()
        }
        self._arrays = {
            name: _NpyFile(folder / f"{name}.npy", (len(item_ids), column.width), column.kind)
            for name, column in columns.items()
        }
        self._table = _Table(folder / TABLE, self._ids, self._labels, columns)
        self._present: dict[str, list[NDArray[np.bool_]]] = {}
        self._row = 0
        self._drawn = drawn_of(len(item_ids))
        self._drawn_rows = {
            name: np.empty((len(self._drawn), width), dtype=np.float32)
            for name, width in dimensions.items()
        }
        self._to_arrays = _Worker(self._write_arrays, BLOCKS_AHEAD)
        self._to_table = _Worker(self._table.write, BLOCKS_AHEAD)
        self._files: dict[str, FileRecord] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            for worker in (self._to_arrays, self._to_table):
                worker.abandon()
            self._table.abandon()

    def append(self, block: Block) -> None:
        """Take the next b rows: float32 (b, d) of every modality, a row of NaN where lacking.

        A compressed modality is encoded here, unless it is among them as it is stored, (b, c). The
        arrays must not be changed afterwards.

        Raises:
            FeatureSetError: a compressed modality can't hold them.
        """
        for of in {each.of for each in self._compressed.values()}:
            self._present.setdefault(of, []).append(~np.isnan(block[of][:, 0]))
        encoded = {
            name: each.encode(block[each.of])
            for name, each in self._compressed.items()
            if name not in block
        }
        for worker in (self._to_arrays, self._to_table):
            worker.put(block | encoded)
        self._keep_drawn(block)

    def add_student(self, tensors: dict[str, NDArray[np.float32]]) -> None:
        """Write the student: `{modality}.weight` (d, D), `.bias` (d), `.mean` (D), `.scale` (D)."""
        self._add(STUDENT, save(tensors))

    def complete_rows(self, manifest: Manifest) -> dict[str, Rows]:
        """Close the .npy files, now that all rows are appended, and open them as a reader does.

        The table, which takes longer, may still be written meanwhile.

        Returns:
            By modality of the manifest, memory map or `CompressedRows`.
        """
        self._to_arrays.join()
        for name, array in self._arrays.items():
            if (file := f"{name}.npy") not in self._files:
                self._files[file] = array.close()
        tensors = self._encoding_tensors()
        rows: dict[str, Rows] = {}
        for modality in manifest.modalities:
            stored = np.load(self.folder / modality.file, mmap_mode="r", allow_pickle=False)
            encoded = modality.encoding is not None
            rows[modality.name] = open_compressed(modality, stored, tensors) if encoded else stored
        return rows

    def add_neighbours(self, blocks: Iterable[NeighbourBlock]) -> None:
        """Write `neighbours.parquet`, block by block."""
        file = _HashedFile(self.folder / NEIGHBOURS)
        with pq.ParquetWriter(
            pa.PythonFile(_Sink(file.write), mode="w"), NEIGHBOUR_SCHEMA
        ) as writer:
            for block in blocks:
                writer.write_batch(block.table(self._ids))
        self._files[NEIGHBOURS] = file.close()

    def finish(self, manifest: Manifest) -> Manifest:
        """Complete the files, write the map, the card and what data hubs read, and last of all the
        manifest with its records.

        Raises:
            FeatureSetError: the manifest is larger than a reader takes.
        """
        picture = self._picture(manifest)  # while the last blocks are written
        if picture is not None:
            self._add(MAP, picture.png)
        self.complete_rows(manifest)
        if tensors := self._encoding_tensors():
            self._add(ENCODINGS, save(tensors))
        self._to_table.join()
        self._files[TABLE] = self._table.close()
        self._add(CARD, card(manifest, picture).encode())
        self._add(CROISSANT, croissant(manifest, self._files))
        whole = Manifest.model_validate(
            manifest.model_dump() | {"files": dict(sorted(self._files.items()))}
        )
        content = (whole.model_dump_json(indent=2) + "\n").encode()
        if len(content) > MANIFEST_BYTES:
            raise FeatureSetError(
                self.folder / MANIFEST,
                f"would have {len(content):,} bytes, and no reader takes more than "
                f"{MANIFEST_BYTES:,}",
                "give fewer labels, or shorter names",
            )
        (self.folder / MANIFEST).write_bytes(content)
        return whole

    def _keep_drawn(self, block: Block) -> None:
        """Keep those of the next rows that the map shows."""
        rows = len(next(iter(block.values()))) if block else len(self._ids)
        first, last = np.searchsorted(self._drawn, [self._row, self._row + rows])
        for name, kept in self._drawn_rows.items():
            kept[first:last] = block[name][self._drawn[first:last] - self._row]
        self._row += rows

    def _picture(self, manifest: Manifest) -> Picture | None:
        """The map of the items by the usual modalities, a compressed one by what it is of."""
        plain = [
            self._compressed[name].of if name in self._compressed else name
            for name in manifest.usual_modalities
        ]
        return map_of([self._drawn_rows[name] for name in plain], self._drawn, self._labels)

    def _encoding_tensors(self) -> dict[str, NDArray[Any]]:
        """What decoding needs beside the stored rows, as `Encoding` names it."""
        tensors: dict[str, NDArray[Any]] = {}
        for name, each in self._compressed.items():
            if parts := each.codec.tensors():
                tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
                tensors[f"{each.of}.present"] = np.concatenate(self._present[each.of])
        return tensors

    def _write_arrays(self, block: Block) -> None:
        for name, array in self._arrays.items():
            array.write(block[name])

    def _add(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)
        self._files[name] = FileRecord(
            sha256=hashlib.sha256(content).hexdigest(), bytes=len(content)
        )


class _HashedFile:
    """A file that is hashed as it is written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, content: Any) -> int:
        view = memoryview(content).cast("B")
        self._hash.update(view)
        done = 0
        while done < len(view):
            done += self._file.write(view[done:])
        self._bytes += len(view)
        return len(view)

    def close(self) -> FileRecord:
        self._file.close()
        return FileRecord(sha256=self._hash.hexdigest(), bytes=self._bytes)


class _NpyFile:
    """A .npy file of a shape and type known beforehand."""

    def __init__(self, path: Path, shape: tuple[int, int], kind: np.dtype[Any]) -> None:
        self._file = _HashedFile(path)
        self._missing, self._kind = shape[0], kind
        header = {"descr": kind.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, rows: NDArray[Any]) -> None:
        self._missing -= len(rows)
        self._file.write(np.ascontiguousarray(rows, dtype=self._kind))

    def close(self) -> FileRecord:
        record = self._file.close()
        if self._missing:
            raise ValueError(f"{self._missing} rows are missing")
        return record


class _Table:
    """`features.parquet`: one row an item, one fixed-size list column a modality."""

    def __init__(
        self,
        path: Path,
        item_ids: NDArray[np.object_],
        labels: pa.StringArray,
        columns: dict[str, _Column],
    ) -> None:
        self._ids = pa.array(item_ids, pa.string())
        self._labels = labels
        self._columns = columns
        self._row = 0
        fields = [("item_id", pa.string()), ("item_index", pa.int64()), ("label", pa.string())]
        fields += [(name, column.arrow) for name, column in columns.items()]
        self._schema = pa.schema(fields)
        self._file = _HashedFile(path)
        self._to_file = _Worker(self._file.write, PAGES_AHEAD)
        self._sink = _Sink(self._to_file.put)
        # Real-valued vectors neither compress nor repeat: plain pages are fastest to read too.
        # Bytes are stored as 4 each, but for the places of a dictionary of at most 256.
        bytewide = [name for name, column in columns.items() if column.kind.itemsize == 1]
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),
            self._schema,
            compression="none",
            use_dictionary=["label", *(f"{name}.list.element" for name in bytewide)],
            write_statistics=["item_id", "item_index"],
            write_batch_size=NUMBERS_AT_ONCE,
            data_page_size=PAGE_BYTES,
        )

    def write(self, block: Block) -> None:
        rows = len(next(iter(block.values()))) if block else len(self._ids)
        part = slice(self._row, self._row + rows)
        columns = [self._ids[part], pa.array(np.arange(part.start, part.stop)), self._labels[part]]
        columns += [
            _vectors(block[name], column, np.isnan(block[column.of][:, 0]))
            for name, column in self._columns.items()
        ]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema), row_group_size=rows)
        self._row += rows

    def close(self) -> FileRecord:
        self._writer.close()
        self._to_file.join()
        return self._file.close()

    def abandon(self) -> None:
        self._sink.take = None
        self._to_file.abandon()


class _Sink:
    """What pyarrow asks of a Python file. What it writes may wait: bytes of their own, as a rule.

    Attributes:
        take: gets them; None when they are lost: a writer that was given up ends its file as it
            is deleted, where an error would have nobody to go to.
    """

    closed = False

    def __init__(self, take: Callable[[bytes], object]) -> None:
        self.take: Callable[[bytes], object] | None = take
        self._bytes = 0

    def write(self, content: bytes | pa.Buffer) -> int:
        content = bytes(content)  # which copies a buffer alone, that pyarrow may use again
        if self.take is not None:
            self.take(content)
        self._bytes += len(content)
        return len(content)

    def tell(self) -> int:
        return self._bytes

    def flush(self) -> None: ...


def _vectors(rows: NDArray[Any], column: _Column, lacking: NDArray[np.bool_]) -> pa.Array:
    """Stored rows (b, c) as fixed-size lists, null where lacking."""
    values = pa.array(np.ascontiguousarray(rows, dtype=column.kind).reshape(-1))
    mask = pa.array(lacking) if lacking.any() else None
    return pa.FixedSizeListArray.from_arrays(values, type=column.arrow, mask=mask)


class _Worker(Generic[T]):
    """A thread that does one thing to each piece, in order; its error reaches the caller.

    Args:
        ahead: how many pieces may wait.
    """

    def __init__(self, work: Callable[[T], object], ahead: int) -> None:
        self._work = work
        self._queue: queue.Queue[T | None] = queue.Queue(maxsize=ahead)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, piece: T) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(piece)

    def join(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        self._error = self._error or RuntimeError("writing was given up")
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (piece := self._queue.get()) is not None:
            if self._error is None:  # after an error, only empty the queue
                try:
                    self._work(piece)
                except BaseException as error:
                    self._error = error
