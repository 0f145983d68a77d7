"""Writing a feature set as a stream of blocks, so that its size never matters."""

import hashlib
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import save

from sgfd.featureset.card import card
from sgfd.featureset.manifest import CARD, MANIFEST, STUDENT, TABLE, FileRecord, Manifest

Block = dict[str, NDArray[np.float32]]


class FeatureSetWriter:
    """Builds a feature set in `folder`; what is there before `finish` is no feature set yet.

    Each file is hashed while it is written. The .npy files and the Parquet table are written by
    two threads of their own, so that the caller computes the next block meanwhile; a short queue
    bounds the memory.

    Args:
        folder: an existing, empty folder.
        item_ids: ids of the n items, in the order of the rows to come.
        labels: label name of each item, None where it has none.
        dimensions: width of each modality.
    """

    def __init__(
        self,
        folder: Path,
        item_ids: Sequence[str] | NDArray[np.object_],
        labels: Sequence[str | None] | NDArray[np.object_],
        dimensions: dict[str, int],
    ) -> None:
        self.folder = folder
        self._dimensions = dimensions
        self._arrays = {
            name: _NpyFile(folder / f"{name}.npy", (len(item_ids), d))
            for name, d in dimensions.items()
        }
        self._table = _Table(folder / TABLE, item_ids, labels, dimensions)
        self._workers = [_Worker(self._write_arrays), _Worker(self._table.write)]
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
            for worker in self._workers:
                worker.abandon()

    def append(self, block: Block) -> None:
        """Take the next b rows: float32 (b, d) of every modality, a row of NaN where lacking.

        The arrays must not be changed afterwards.
        """
        for worker in self._workers:
            worker.put(block)

    def add_student(self, tensors: dict[str, NDArray[np.float32]]) -> None:
        """Write the student: `{modality}.weight` (d, D), `.bias` (d), `.mean` (D), `.scale` (D)."""
        self._add(STUDENT, save(tensors))

    def finish(self, manifest: Manifest) -> Manifest:
        """Complete the files, write the card and, last of all, the manifest with its records."""
        for worker in self._workers:
            worker.join()
        for name, array in self._arrays.items():
            self._files[f"{name}.npy"] = array.close()
        self._files[TABLE] = self._table.close()
        self._add(CARD, card(manifest).encode())
        whole = Manifest.model_validate(
            manifest.model_dump() | {"files": dict(sorted(self._files.items()))}
        )
        text = whole.model_dump_json(indent=2) + "\n"
        (self.folder / MANIFEST).write_bytes(text.encode())
        return whole

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

    # What pyarrow asks of a Python file.
    closed = False

    def tell(self) -> int:
        return self._bytes

    def flush(self) -> None: ...

    def close(self) -> FileRecord:
        self._file.close()
        return FileRecord(sha256=self._hash.hexdigest(), bytes=self._bytes)


class _NpyFile:
    """A float32 .npy file of a shape known beforehand."""

    def __init__(self, path: Path, shape: tuple[int, int]) -> None:
        self._file = _HashedFile(path)
        self._missing = shape[0]
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)

    def write(self, rows: NDArray[np.float32]) -> None:
        self._missing -= len(rows)
        self._file.write(np.ascontiguousarray(rows, dtype="<f4"))

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
        item_ids: Sequence[str] | NDArray[np.object_],
        labels: Sequence[str | None] | NDArray[np.object_],
        dimensions: dict[str, int],
    ) -> None:
        self._ids = pa.array(item_ids, pa.string())
        self._labels = pa.array(labels, pa.string())
        self._dimensions = dimensions
        self._row = 0
        fields = [("item_id", pa.string()), ("item_index", pa.int64()), ("label", pa.string())]
        fields += [(name, pa.list_(pa.float32(), d)) for name, d in dimensions.items()]
        self._schema = pa.schema(fields)
        self._file = _HashedFile(path)
        # Real-valued vectors neither compress nor repeat: plain pages are fastest to read too.
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._file, mode="w"),
            self._schema,
            compression="none",
            use_dictionary=["label"],
            write_statistics=["item_id", "item_index"],
        )

    def write(self, block: Block) -> None:
        rows = len(next(iter(block.values()))) if block else len(self._ids)
        part = slice(self._row, self._row + rows)
        columns = [self._ids[part], pa.array(np.arange(part.start, part.stop)), self._labels[part]]
        columns += [_vectors(block[name], d) for name, d in self._dimensions.items()]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema), row_group_size=rows)
        self._row += rows

    def close(self) -> FileRecord:
        self._writer.close()
        return self._file.close()


def _vectors(rows: NDArray[np.float32], d: int) -> pa.Array:
    """float32 (b, d) as fixed-size lists, null where a row is NaN."""
    lacking = np.isnan(rows[:, 0])
    values = pa.array(np.ascontiguousarray(rows, dtype="<f4").reshape(-1))
    mask = pa.array(lacking) if lacking.any() else None
    return pa.FixedSizeListArray.from_arrays(values, d, mask=mask)


class _Worker:
    """A thread that does one thing to each block, in order; its error reaches the caller."""

    def __init__(self, work: Callable[[Block], None]) -> None:
        self._work = work
        self._queue: queue.Queue[Block | None] = queue.Queue(maxsize=2)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, block: Block) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(block)

    def join(self) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        self._error = self._error or RuntimeError("writing was given up")
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            if self._error is None:  # after an error, only empty the queue
                try:
                    self._work(block)
                except BaseException as error:
                    self._error = error
