"""What is wrong with a data set: raised at the first error, or collected for a check."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset.errors import DatasetError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """An error keeps a data set from being loaded; a warning says what the loader repairs."""

    where: str
    what: str
    remedy: str
    severity: Literal["error", "warning"]


@dataclass
class Problems:
    """Loading and checking read a data set by the same code, and differ only in this object.

    Attributes:
        strict: raise the first error (loading) or go on and collect (checking).
    """

    strict: bool = True
    found: list[Problem] = field(default_factory=list)

    def error(self, where: str | Path, what: str, remedy: str) -> None:
        """Raise, or note and go on."""
        if self.strict:
            raise DatasetError(where, what, remedy)
        self._note(Problem(str(where), what, remedy, "error"))

    def warning(self, where: str | Path, what: str, remedy: str) -> None:
        self._note(Problem(str(where), what, remedy, "warning"))

    def attempt(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The result of `read(...)`; None where it raised an error and errors are collected."""
        try:
            return read(*args, **kwargs)
        except DatasetError as error:
            self.error(error.where, error.what, error.remedy)
            return None

    def _note(self, problem: Problem) -> None:
        if problem not in self.found:  # two readers may stumble over one cell
            self.found.append(problem)


def places(rows: NDArray[np.bool_] | NDArray[np.int64], first: int, word: str = "row") -> str:
    """Name the first few of many offending rows: `row 17`, `rows 3, 9, 12 and 40 more`.

    Args:
        rows: a mask, or positions. first: the number of position 0 as a person counts it.
    """
    at = np.flatnonzero(rows) if rows.dtype == bool else rows
    shown = ", ".join(str(int(i) + first) for i in at[:3])
    more = f" and {len(at) - 3} more" if len(at) > 3 else ""
    return f"{word}{'s' if len(at) > 1 else ''} {shown}{more}"
