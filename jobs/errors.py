"""The one kind of error that a long computation raises on purpose."""

import operator
from pathlib import Path
from typing import SupportsIndex

MOST_SEED = 2**31 - 1


class JobError(Exception):
    """A person can act on this: what is wrong, where, and what to do about it."""

    def __init__(self, where: str | Path, what: str, remedy: str) -> None:
        super().__init__(f"{where}: {what}; {remedy}")
        self.where = str(where)
        self.what = what
        self.remedy = remedy


def of_kind(name: str, value: object, kind: type, how: str) -> None:
    """Check that a caller gave the thing itself, not its name or path.

    Args:
        how: what to do, such as `give featureset.load(...)`.

    Raises:
        JobError: it is of another kind.
    """
    if not isinstance(value, kind):
        raise JobError(f"{name} {value!r}", f"is no {kind.__name__}", how)


def whole_number(name: str, value: SupportsIndex, least: int = 0, most: int | None = None) -> int:
    """A whole number that a caller gave, numpy's kinds included, as Python's own.

    Raises:
        JobError: it is none, or out of its range.
    """
    allowed = f"give a whole number from {least}{'' if most is None else f' to {most}'}"
    try:
        number = operator.index(value)
    except TypeError:
        raise JobError(f"{name} {value!r}", "is no whole number", allowed) from None
    if number < least or (most is not None and number > most):
        raise JobError(f"{name} {number}", "is out of range", allowed)
    return number
