"""A Parquet file's end as a tree that can be changed: structs are lists of [field, type, value].

Thrift's compact protocol, as parquet.thrift's FileMetaData is written by it.
"""

_INTEGERS, _BYTE, _DOUBLE, _TEXT, _LISTS, _STRUCT = (4, 5, 6), 3, 7, 8, (9, 10), 12
ROW_GROUPS, GROUP_ROWS, COLUMNS, METADATA = 4, 3, 1, 3
CODEC, VALUES, UNCOMPRESSED, COMPRESSED, DATA_PAGE, DICTIONARY_PAGE = 4, 5, 6, 7, 9, 11
STATISTICS, SIZE_STATISTICS = 12, 16


class _Reader:
    def __init__(self, content):
        self.content, self.at = content, 0

    def unsigned(self):
        value = shift = 0
        while True:
            byte = self.content[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def integer(self):
        value = self.unsigned()
        return (value >> 1) ^ -(value & 1)

    def bytes(self, length):
        self.at += length
        return self.content[self.at - length : self.at]

    def value(self, kind):
        if kind in _INTEGERS:
            return self.integer()
        if kind in (_BYTE, _DOUBLE):
            return self.bytes(1 if kind == _BYTE else 8)
        if kind == _TEXT:
            return self.bytes(self.unsigned())
        if kind == _STRUCT:
            return self.struct()
        length, inside = divmod(self.bytes(1)[0], 16)
        length = self.unsigned() if length == 15 else length
        if inside in (1, 2):
            return [inside, [self.bytes(1) for _ in range(length)]]
        return [inside, [self.value(inside) for _ in range(length)]]

    def struct(self):
        fields, field = [], 0
        while head := self.bytes(1)[0]:
            delta, kind = divmod(head, 16)
            field = field + delta if delta else self.integer()
            fields.append([field, kind, None if kind in (1, 2) else self.value(kind)])
        return fields


def _unsigned(value, length=1):
    parts = []
    while value or len(parts) < length:
        parts.append(value & 127)
        value >>= 7
    return bytes([*(part | 128 for part in parts[:-1]), parts[-1]])


def varint(value, length=1):
    """A whole number as Thrift writes it, in at least so many bytes."""
    return _unsigned(value << 1 ^ value >> 63, length)


def _value(kind, value):
    if kind in _INTEGERS:
        return varint(value)
    if kind in (_BYTE, _DOUBLE):
        return value
    if kind == _TEXT:
        return _unsigned(len(value)) + value
    if kind == _STRUCT:
        return written(value)
    inside, values = value
    short = len(values) < 15
    head = bytes([min(len(values), 15) << 4 | inside]) + (b"" if short else _unsigned(len(values)))
    each = values if inside in (1, 2) else [_value(inside, one) for one in values]
    return head + b"".join(each)


def written(struct):
    out, before = b"", 0
    for field, kind, value in struct:
        delta = field - before
        out += bytes([delta << 4 | kind]) if 0 < delta < 16 else bytes([kind]) + varint(field)
        out += b"" if kind in (1, 2) else _value(kind, value)
        before = field
    return out + b"\0"


def get(struct, field):
    return next(value for number, _, value in struct if number == field)


def put(struct, field, value):
    next(each for each in struct if each[0] == field)[2] = value


def drop(struct, *fields):
    struct[:] = [each for each in struct if each[0] not in fields]


def groups(end):
    return get(end, ROW_GROUPS)[1]


def column(group, place):
    """A column's metadata, by its place."""
    return get(get(group, COLUMNS)[1][place], METADATA)


def change(path, how):
    """Let `how` change a file's end; the bytes that it returns, if any, are put before it."""
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    body, end = content[: -8 - length], _Reader(content[-8 - length : -8]).struct()
    body += how(end, len(body)) or b""
    end = written(end)
    path.write_bytes(body + end + len(end).to_bytes(4, "little") + b"PAR1")
