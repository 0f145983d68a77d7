"""The heads of a Parquet file's pages: what they hold, and what it unfolds to.

A reader makes room for each page by the page's own head, whatever the file's end says of its
column, and goes on to the next by it (parquet.thrift: PageHeader).
"""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

from sgfd.featureset.parquet_end import ColumnPart, ParquetEnd
from sgfd.featureset.thrift import Bytes, Struct, number

_UNFOLDED, STORED = 2, 3  # fields of a head: bytes of the page in memory and in the file
DATA, _DATA_V2 = 5, 8  # fields of a head: the head of a data page, of either version
VALUES = 1  # field of that: how many values


def page_head(content: Bytes, at: int, end: int) -> Struct:
    """The head of the page that begins at `at`, in a column that ends at `end`.

    Raises:
        ValueError: it is none.
    """
    return Struct(content, at, end, "a page's head")


def unfolded_bytes(path: Path, file: ParquetEnd, columns: Sequence[str]) -> int:
    """Bytes in memory of the compressed pages of some columns (top level), by the pages' heads.

    Raises:
        ValueError: a head is none, or leads out of its column; the pages are not of the values and
            rows that the file's end says; columns lie in one another, or in another file.
    """
    places = file.places(columns)
    total = stored = 0
    with (
        path.open("rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        for group in file.groups:
            for place in places:
                column = group.columns[place]
                if column.elsewhere:
                    raise ValueError("a column lies in another file")
                stored += column.stored_bytes
                if stored > len(content):
                    raise ValueError("its columns lie in one another")
                pages = list(_pages(content, column))
                values = sum(values for values, _ in pages)
                in_rows = file.schema.column(place).max_repetition_level == 0
                if values != column.values or (in_rows and values != group.rows):
                    raise ValueError("a column has other values than it says")
                if column.compressed:  # else a page is read as it lies there
                    total += sum(unfolded for _, unfolded in pages)
    return total


def _pages(content: mmap.mmap, column: ColumnPart) -> Iterator[tuple[int, int]]:
    """Of each page of a column: how many values of it, and its bytes in memory."""
    at, end = column.begin, column.end
    if not 0 <= at <= end <= len(content):
        raise ValueError("a column leads out of the file")
    while at < end:
        head = page_head(content, at, end)
        unfolded, stored = number(head.fields, _UNFOLDED), number(head.fields, STORED)
        if unfolded < 0 or stored < 0:
            raise ValueError("a page has no size")
        values = (number(head.fields, version, VALUES) for version in (DATA, _DATA_V2))
        yield max(0, *values), unfolded
        at = head.at + stored
