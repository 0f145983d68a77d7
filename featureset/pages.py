"""The heads of a Parquet file's pages: what they hold, and what it unfolds to.

A reader makes room for each page by the page's own head, whatever the file's end says of its
column, and goes on to the next by it. Heads are Thrift structs, by its compact protocol
(parquet.thrift: PageHeader).
"""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow.parquet as pq

_UNFOLDED, STORED = 2, 3  # fields of a head: bytes of the page in memory and in the file
DATA, _DATA_V2 = 5, 8  # fields of a head: the head of a data page, of either version
VALUES = 1  # field of that: how many values
_INTEGERS = (4, 5, 6)  # types of the compact protocol: 16, 32 and 64 bits
_FIXED = {1: 0, 2: 0, 3: 1, 7: 8}  # bytes of true, false, a byte, a double
MOST_FIELD = 8  # of a head that is kept, whatever others there are
MOST_DEPTH = 8  # of structs and lists in one another; a head that is none nests for ever
_BINARY, _LIST, _SET, _STRUCT = 8, 9, 10, 12


class Bytes(Protocol):
    """A file's bytes, mapped."""

    def __getitem__(self, place: int, /) -> int: ...


def unfolded_bytes(path: Path, metadata: pq.FileMetaData, columns: list[str]) -> int:
    """Bytes in memory of the compressed pages of some columns (top level), by the pages' heads.

    Raises:
        ValueError: a head is none, or leads out of its column; the pages are not of the values and
            rows that the file's end says; columns lie in one another, or in another file.
    """
    schema = metadata.schema
    places = [i for i in range(len(schema)) if schema.column(i).path.partition(".")[0] in columns]
    total = stored = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            if group.num_columns != len(schema):
                raise ValueError("a part of it lacks a column")
            for place in places:
                column = group.column(place)
                if column.file_path:
                    raise ValueError("a column lies in another file")
                stored += column.total_compressed_size
                if stored > len(content):
                    raise ValueError("its columns lie in one another")
                pages = list(_pages(content, column))
                values = sum(values for values, _ in pages)
                in_rows = schema.column(place).max_repetition_level == 0
                if values != column.num_values or (in_rows and values != group.num_rows):
                    raise ValueError("a column has other values than it says")
                if column.compression != "UNCOMPRESSED":  # else a page is read as it lies there
                    total += sum(unfolded for _, unfolded in pages)
    return total


def _pages(content: mmap.mmap, column: pq.ColumnChunkMetaData) -> Iterator[tuple[int, int]]:
    """Of each page of a column: how many values of it, and its bytes in memory."""
    at = column.data_page_offset
    if column.has_dictionary_page and column.dictionary_page_offset:
        at = min(at, column.dictionary_page_offset)
    end = at + column.total_compressed_size
    if not 0 <= at <= end <= len(content):
        raise ValueError("a column leads out of the file")
    while at < end:
        head = Head(content, at, end)
        unfolded, stored = head.number(_UNFOLDED), head.number(STORED)
        if unfolded < 0 or stored < 0:
            raise ValueError("a page has no size")
        values = max(head.number(DATA, VALUES), head.number(_DATA_V2, VALUES), 0)
        yield values, unfolded
        at = head.at + stored


class Head:
    """A Thrift struct, read from `at` on and before `end`; afterwards `at` is where it ends.

    Args:
        content: bytes, by their places in the file.

    Raises:
        ValueError: there is none.
    """

    def __init__(self, content: Bytes, at: int, end: int) -> None:
        self.content, self.at, self.end = content, at, end
        self._numbers = self._struct()

    def number(self, *fields: int) -> int:
        """An integer of the struct, or of a struct in it; -1 where there is none."""
        found: Any = self._numbers
        for field in fields:
            found = found.get(field) if isinstance(found, dict) else None
        return found if isinstance(found, int) else -1

    def _struct(self, depth: int = 0) -> dict[int, Any]:
        """The integers of a struct by field, and the structs in it; all else is passed over."""
        found: dict[int, Any] = {}
        field = 0
        while kind := self._byte():
            delta, kind = kind >> 4, kind & 15
            field = field + delta if delta else self._integer()
            if not 0 < field <= MOST_FIELD:
                self._pass_over(kind, depth + 1)
            elif kind in _INTEGERS:
                found[field] = self._integer()
            elif kind == _STRUCT and depth < MOST_DEPTH:
                found[field] = self._struct(depth + 1)
            else:
                self._pass_over(kind, depth + 1)
        return found

    def _pass_over(self, kind: int, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise ValueError("a page's head nests too deep")
        if kind in _INTEGERS:
            self._integer()
        elif kind in _FIXED:
            self.at += _FIXED[kind]
        elif kind == _BINARY:
            length = self._unsigned()  # moves `at` itself
            self.at += length
        elif kind == _STRUCT:
            self._struct(depth)
        elif kind in (_LIST, _SET):
            size, inside = divmod(self._byte(), 16)
            size = self._unsigned() if size == 15 else size
            if size > self.end - self.at:  # each takes a byte or more
                raise ValueError("a page's head has a list that leads out of it")
            for _ in range(size):
                self._pass_over(3 if inside in (1, 2) else inside, depth + 1)
        else:
            raise ValueError(f"a page's head has a field of type {kind}")

    def _byte(self) -> int:
        if not 0 <= self.at < self.end:
            raise ValueError("a page's head leads out of the file")
        self.at += 1
        return int(self.content[self.at - 1])

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError("a page's head has an endless number")

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
