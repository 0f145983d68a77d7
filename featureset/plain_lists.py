"""Whether a column of a Parquet file lies there as pyarrow writes given rows, seen by its bytes."""

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sgfd.featureset.pages import DATA, STORED, VALUES, Head

MOST_BYTES = 2**24  # of a page; ours have far less
KINDS_OF_PAGE = 32  # whose starts are kept: by type and number of lists


def lies_plain(
    content: NDArray[np.uint8],
    described: pq.ColumnSchema,
    column: pq.ColumnChunkMetaData,
    field: pa.Field,
    rows: NDArray[Any],
) -> bool:
    """Whether a column of fixed-size lists holds rows (n, c), none of them null.

    True is certain: byte by byte, each page is what pyarrow writes, which is three times as fast
    as to read it. False says nothing: it may be nulls, another writer, or other numbers.

    Args:
        content: the file, mapped.
        described: the column by the file's schema. field: the same by Arrow's.
        column: a row group's part of it.

    Raises:
        ValueError: the head of a page is none.
    """
    begin, end = column.data_page_offset, column.data_page_offset + column.total_compressed_size
    if (
        column.compression != "UNCOMPRESSED"
        or column.has_dictionary_page
        or column.num_values != rows.size
        or not 0 <= begin <= end <= len(content)
    ):
        return False
    done, at = 0, begin
    while at < end:
        head = Head(content, at, end)
        lists, rest = divmod(head.number(DATA, VALUES), field.type.list_size)
        page = content[at : head.at + max(head.number(STORED), 0)]
        if lists < 1 or rest or lists * rows[:1].nbytes > len(page) or len(page) > MOST_BYTES:
            return False
        levels, start = _start_of_page(field, lists)
        if levels != (described.max_definition_level, described.max_repetition_level):
            return False
        numbers = rows[done : done + lists]
        if page[: len(start)].tobytes() != start or not _same(page[len(start) :], numbers):
            return False
        done, at = done + lists, at + len(page)
    return done == len(rows) and at == end


def _same(page: NDArray[np.uint8], numbers: NDArray[Any]) -> bool:
    return bool(pa.py_buffer(page).equals(pa.py_buffer(numbers.reshape(-1))))


@lru_cache(KINDS_OF_PAGE)
def _start_of_page(field: pa.Field, lists: int) -> tuple[tuple[int, int], bytes]:
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
