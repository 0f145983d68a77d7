"""Whether a column of a Parquet file lies there as pyarrow writes given rows, seen by its bytes."""

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sgfd.featureset.pages import DATA, STORED, VALUES, page_head
from sgfd.featureset.parquet_end import ColumnPart
from sgfd.featureset.thrift import number

MOST_BYTES = 2**24  # of a page; ours have far less
HEAD_BYTES = 256  # of a page; those of ours have 21
NAME = ""  # of a column is nothing that its pages tell
KINDS_OF_PAGE = 16  # by type and number of lists, of which pyarrow's own are made to compare
_BYTES = {"INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8}  # of a number, plainly encoded

_Levels = tuple[int, int]


class PlainLists:
    """Compares columns of fixed-size lists with rows, byte by byte, in less time than to read them.

    Args:
        content: the file's bytes, mapped.
    """

    def __init__(self, content: NDArray[np.uint8]) -> None:
        self._content = content.view(np.ndarray)  # a slice of a map takes ten times as long
        self._starts: dict[tuple[pa.Field, int], tuple[_Levels, bytes]] = {}

    def hold(
        self,
        described: pq.ColumnSchema,
        column: ColumnPart,
        field: pa.Field,
        rows: NDArray[Any],
    ) -> bool:
        """Whether a column's part of a row group holds rows (n, c), none of them null.

        True is certain: each page, head and all, is what pyarrow writes for these rows. False says
        nothing: it may be nulls, another writer, or other numbers.

        Args:
            described: the column by the file's schema. field: the same by Arrow's.
        """
        begin, end = column.begin, column.end
        physical = described.physical_type
        if (
            (_BYTES.get(physical) or described.length) != rows.itemsize
            or column.kind != physical
            or column.elsewhere
            or column.compressed
            or column.has_dictionary
            or column.values != rows.size
            or not 0 <= begin <= end <= len(self._content)
        ):
            return False
        done, at = 0, begin
        while at < end:
            first = self._content[at : min(at + HEAD_BYTES, end)].tobytes()
            try:
                head = page_head(first, 0, len(first))
            except ValueError:
                return False
            lists, rest = divmod(number(head.fields, DATA, VALUES), field.type.list_size)
            page = self._content[at : at + head.at + max(number(head.fields, STORED), 0)]
            if not 0 < lists <= len(rows) - done or rest or len(page) > MOST_BYTES:
                return False
            numbers = rows[done : done + lists]
            known = self._start(field.with_name(NAME), lists, len(page) - numbers.nbytes)
            if known is None:
                return False
            levels, start = known
            if levels != (described.max_definition_level, described.max_repetition_level):
                return False
            if page[: len(start)].tobytes() != start or not _same(page[len(start) :], numbers):
                return False
            done, at = done + lists, at + len(page)
        return done == len(rows) and at == end

    def _start(self, field: pa.Field, lists: int, room: int) -> tuple[_Levels, bytes] | None:
        """`_start_of_page`, where it takes the room that is there and is one of few kinds."""
        found = self._starts.get((field, lists))
        if found is None:
            if room <= 0 or len(self._starts) == KINDS_OF_PAGE:
                return None
            found = self._starts[field, lists] = _start_of_page(field, lists)
        return found if len(found[1]) == room else None


def _same(page: NDArray[np.uint8], numbers: NDArray[Any]) -> bool:
    return bool(pa.py_buffer(page).equals(pa.py_buffer(numbers.reshape(-1))))


@lru_cache(KINDS_OF_PAGE)
def _start_of_page(field: pa.Field, lists: int) -> tuple[_Levels, bytes]:
    """The levels of a column, and what pyarrow writes before the numbers of a page of so many of
    its lists, none of them null: the head, and where lists begin."""
    kind = field.type
    zeros = np.zeros(lists * kind.list_size, kind.value_type.to_pandas_dtype())
    whole = pa.FixedSizeListArray.from_arrays(pa.array(zeros, kind.value_type), type=kind)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        pa.schema([field]),
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_batch_size=len(zeros),
        data_page_size=2 * MOST_BYTES,
    ) as writer:
        writer.write_batch(pa.record_batch([whole], schema=writer.schema), row_group_size=lists)
    content = sink.getvalue()
    metadata = pq.read_metadata(pa.BufferReader(content))
    described, column = metadata.schema.column(0), metadata.row_group(0).column(0)
    begin, stop = column.data_page_offset, column.total_compressed_size - zeros.nbytes
    levels = described.max_definition_level, described.max_repetition_level
    return levels, content[begin : begin + stop].to_pybytes()
