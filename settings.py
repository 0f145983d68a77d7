"""What settings classes of both stages are made of. Light to import: no torch."""

from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field

CHECKED = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=10**9)]  # more is a slip of the pen


@dataclass(frozen=True)
class Range:
    """Where `pipeline tune` searches a setting, declared in the setting's annotation:

        layers: Annotated[Count, Range(1, 4)] = 2

    Attributes:
        low, high: both included; the setting's default lies between them.
        log: searched evenly in the logarithm.
        features: it matters only where there are features, and is searched only there.
    """

    low: float
    high: float
    log: bool = False
    features: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', by logarithm' if self.log else ''}"


def numbers_of(settings: type[Any]) -> list[str]:
    """The settings that are plain numbers: what a search can be given a range of."""
    return [name for name, hint in get_type_hints(settings).items() if hint in (int, float)]


def ranges_of(settings: type[Any]) -> dict[str, Range]:
    """The ranges that a settings class declares, by setting."""
    return {
        name: mark
        for name, hint in get_type_hints(settings, include_extras=True).items()
        for mark in getattr(hint, "__metadata__", ())
        if isinstance(mark, Range)
    }
