"""Structs of Thrift's compact protocol, by which Parquet files tell of themselves."""

from typing import Any, Protocol

_INTEGERS = (4, 5, 6)  # types: 16, 32 and 64 bits
_FIXED = {1: 0, 2: 0, 3: 1, 7: 8}  # bytes of true, false, a byte, a double
_BINARY, _LIST, _SET, _STRUCT = 8, 9, 10, 12
MOST_FIELD = 11  # that is kept, whatever others there are
MOST_DEPTH = 8  # of structs and lists in one another; what is no struct nests for ever
THERE = ""  # in place of a text


class Bytes(Protocol):
    """A file's bytes, mapped."""

    def __getitem__(self, place: int, /) -> int: ...


def number(fields: dict[int, Any], *path: int) -> int:
    """An integer of a struct, or of a struct in it; -1 where there is none."""
    found: Any = fields
    for field in path:
        found = found.get(field) if isinstance(found, dict) else None
    return found if isinstance(found, int) else -1


class Struct:
    """A struct, read from `at` on and before `end`; afterwards `at` is where it ends.

    Args:
        content: bytes, by their places in the file.
        what: it is, for messages.
        with_lists: whether structs in lists, and that there is a text, are kept too.

    Attributes:
        fields: its integers, and the structs in it, by field.

    Raises:
        ValueError: there is none.
    """

    def __init__(
        self, content: Bytes, at: int, end: int, what: str, with_lists: bool = False
    ) -> None:
        self.content, self.at, self.end = content, at, end
        self._what, self._with_lists = what, with_lists
        self.fields = self._struct()

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
            elif kind == _LIST and self._with_lists and depth < MOST_DEPTH:
                found[field] = self._list(depth + 1)
            elif kind == _BINARY and self._with_lists:
                self._pass_over(kind, depth + 1)
                found[field] = THERE
            else:
                self._pass_over(kind, depth + 1)
        return found

    def _list(self, depth: int) -> list[dict[int, Any]]:
        """The structs of a list; of another's values none."""
        size, inside = self._length()
        if inside == _STRUCT:
            return [self._struct(depth) for _ in range(size)]
        for _ in range(size):
            self._pass_over(3 if inside in (1, 2) else inside, depth)
        return []

    def _length(self) -> tuple[int, int]:
        """Of a list, and the type of its values."""
        size, inside = divmod(self._byte(), 16)
        size = self._unsigned() if size == 15 else size
        if size > self.end - self.at:  # each takes a byte or more
            raise ValueError(f"{self._what} has a list that leads out of it")
        return size, inside

    def _pass_over(self, kind: int, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise ValueError(f"{self._what} nests too deep")
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
            size, inside = self._length()
            for _ in range(size):
                self._pass_over(3 if inside in (1, 2) else inside, depth + 1)
        else:
            raise ValueError(f"{self._what} has a field of type {kind}")

    def _byte(self) -> int:
        at = self.at
        if not 0 <= at < self.end:
            raise ValueError(f"{self._what} leads out of the file")
        self.at = at + 1
        return self.content[at]

    def _unsigned(self) -> int:
        value = self._byte()
        if value < 128:  # as most are
            return value
        value, shift = value & 127, 7
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise ValueError(f"{self._what} has an endless number")

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
