"""What a Parquet file's end says of its row groups and columns (parquet.thrift: FileMetaData).

pyarrow's own `RowGroupMetaData.column` ends the process where that is mangled; what it reads of
columns through its readers is refused with an exception.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from sgfd.featureset.thrift import Struct, number

_TYPES = [
    "BOOLEAN",
    "INT32",
    "INT64",
    "INT96",
    "FLOAT",
    "DOUBLE",
    "BYTE_ARRAY",
    "FIXED_LEN_BYTE_ARRAY",
]
_ROW_GROUPS, _COLUMNS, _GROUP_ROWS, _FILE_PATH, _METADATA = 4, 1, 3, 1, 3
_TYPE, _CODEC, _VALUES, _UNFOLDED, _STORED, _DATA, _DICTIONARY = 1, 4, 5, 6, 7, 9, 11


@dataclass(frozen=True, slots=True)
class ColumnPart:
    """A row group's part of a column, which lies from `begin` to `end` in the file.

    Attributes:
        kind: physical type. values: how many. unfolded_bytes: of its pages in memory.
        elsewhere: whether it lies in another file.
    """

    kind: str
    compressed: bool
    has_dictionary: bool
    values: int
    unfolded_bytes: int
    begin: int
    end: int
    elsewhere: bool

    @property
    def stored_bytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows that lie together, and the columns in the order of the schema's."""

    rows: int
    columns: list[ColumnPart]


@dataclass(frozen=True)
class ParquetEnd:
    """Of a whole file."""

    schema: pq.ParquetSchema
    groups: list[RowGroup]

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    def places(self, names: Sequence[str]) -> list[int]:
        """Where the columns are whose name, up to a dot, is one of these."""
        paths = [self.schema.column(place).path for place in range(len(self.schema))]
        return [place for place, path in enumerate(paths) if path.partition(".")[0] in names]


def parquet_end(path: Path, schema: pq.ParquetSchema) -> ParquetEnd:
    """The end of a file that pyarrow has opened.

    Raises:
        ValueError: it is mangled.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        stop = len(content) - 8  # then its length and the magic bytes
        begin = stop - int.from_bytes(content[max(stop, 0) : stop + 4], "little")
        if begin < 0:
            raise ValueError("its end is longer than the file")
        end = Struct(content, begin, stop, "its end", with_lists=True).fields
    groups = [_group(each) for each in _list(end, _ROW_GROUPS)]
    if any(len(group.columns) != len(schema) for group in groups):
        raise ValueError("a part of it lacks a column")
    return ParquetEnd(schema, groups)


def _group(group: dict[int, Any]) -> RowGroup:
    return RowGroup(number(group, _GROUP_ROWS), [_part(each) for each in _list(group, _COLUMNS)])


def _part(column: dict[int, Any]) -> ColumnPart:
    told = column.get(_METADATA)
    if not isinstance(told, dict):
        raise ValueError("a part of it lacks a column")
    kind, begin = number(told, _TYPE), number(told, _DATA)
    dictionary = number(told, _DICTIONARY)
    begin = min(begin, dictionary) if dictionary > 0 else begin
    return ColumnPart(
        kind=_TYPES[kind] if 0 <= kind < len(_TYPES) else "",
        compressed=number(told, _CODEC) != 0,
        has_dictionary=dictionary > 0,
        values=number(told, _VALUES),
        unfolded_bytes=number(told, _UNFOLDED),
        begin=begin,
        end=begin + number(told, _STORED),
        elsewhere=_FILE_PATH in column,
    )


def _list(struct: dict[int, Any], field: int) -> list[dict[int, Any]]:
    found = struct.get(field)
    return found if isinstance(found, list) else []
