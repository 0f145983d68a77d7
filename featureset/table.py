"""A Parquet file of a feature set, no column of which is read that unfolds into absurdly more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sgfd.featureset.errors import GET_AGAIN, FeatureSetError
from sgfd.featureset.pages import unfolded_bytes
from sgfd.featureset.parquet_end import parquet_end

UNFOLDED_BYTES = 2**26  # that columns may take in memory, however small their file is
UNFOLDED_SHARE = 64  # and times their file's bytes: a text that is repeated is stored once

_TEXT_ROWS = 2**20  # of a chunk of texts, which holds 2 GiB at most


class Table:
    """An opened file; its end is read once, however many columns are.

    Attributes:
        path: where it lies. file: as pyarrow has opened it. end: what its end says.

    Raises:
        FeatureSetError: it is no Parquet file, or its end is mangled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Not mapped: pages that were read once would stay in memory.
            self.file = pq.ParquetFile(path, pre_buffer=False)
            self.end = parquet_end(path, self.file.schema)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._unreadable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def read(self, wanted: pa.Schema, most_rows: int) -> pa.Table:
        """Columns of these types.

        1 kB can repeat one text of a megabyte a million times: texts are read as places in their
        dictionary, and what they take by themselves is counted before it is taken.

        Raises:
            FeatureSetError: they are missing, of other types, have more rows, or unfold into
                absurdly more than the file.
        """
        names = wanted.names
        texts = [field.name for field in wanted if field.type == pa.string()]
        if self.end.rows > most_rows:
            what = f"has {self.end.rows} rows, not {most_rows}"
            raise FeatureSetError(self.path, what, GET_AGAIN)
        try:
            if self.unfold_absurdly(names):
                raise self._unfolds()
            # Without pq.read_table, whose first call imports all of pyarrow.dataset: 0.25 s.
            with pq.ParquetFile(
                self.path, metadata=self.file.metadata, read_dictionary=texts
            ) as file:
                table = file.read(columns=names).select(names)
            for place, name in enumerate(names):
                if table[name].type == pa.dictionary(pa.int32(), pa.string()):
                    table = table.set_column(place, name, self._decoded(table[name]))
            table.validate(full=True)  # a string may be no UTF-8
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise self._unreadable(error) from None
        for field in wanted:
            if (kind := table[field.name].type) != field.type:
                what = f"column {field.name} is {kind}, not {field.type}"
                raise FeatureSetError(self.path, what, GET_AGAIN)
        return table

    def unfold_absurdly(self, names: Sequence[str]) -> bool:
        """Whether columns take more memory than any honest file of this size.

        Raises:
            ValueError: the file's end and its pages do not agree.
        """
        places = self.end.places(names)
        said = sum(
            group.columns[place].unfolded_bytes for group in self.end.groups for place in places
        )
        # A number or the place of a text repeats for nothing in the file, and takes 4 bytes here.
        said += 4 * self.end.rows * len(places)
        return max(said, unfolded_bytes(self.path, self.end, names)) > self._room

    @property
    def _room(self) -> int:
        """Bytes that what is read of it may take."""
        return UNFOLDED_BYTES + UNFOLDED_SHARE * self.path.stat().st_size

    def _decoded(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """A column of texts that was read as places in a dictionary."""
        pieces, room = [], self._room
        for chunk in column.chunks:
            for start in range(0, len(chunk), _TEXT_ROWS):
                piece = chunk[start : start + _TEXT_ROWS]
                lengths = pc.take(pc.binary_length(piece.dictionary), piece.indices)
                room -= pc.sum(lengths).as_py() or 0
                if room < 0:
                    raise self._unfolds()
                pieces.append(piece.cast(pa.string()))
        return pa.chunked_array(pieces, pa.string())

    def _unfolds(self) -> FeatureSetError:
        return FeatureSetError(
            self.path, "its columns unfold into absurdly more than the file", GET_AGAIN
        )

    def _unreadable(self, error: Exception) -> FeatureSetError:
        return FeatureSetError(self.path, f"can't be read ({error})", GET_AGAIN)


def read_texts(table: Table, names: Sequence[str], rows: int) -> pa.Table:
    """The columns item_id or label of a feature set's table.

    Raises:
        FeatureSetError: they can't be read, there is not one text a row, or an id twice.
    """
    found = table.read(pa.schema([(name, pa.string()) for name in names]), rows)
    if len(found) != rows:
        raise FeatureSetError(table.path, f"{len(found)} rows for {rows} items", GET_AGAIN)
    if "item_id" in names:
        ids = found["item_id"]
        if ids.null_count or len(pc.unique(ids)) != rows:
            raise FeatureSetError(table.path, "item ids are not unique", GET_AGAIN)
    return found
