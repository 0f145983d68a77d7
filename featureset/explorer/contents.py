"""What the page knows of each item, in few bytes: neighbours, places on a map, norms."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sgfd.featureset.compression import Rows
from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.neighbours import CosineRows, nearest
from sgfd.featureset.picked import PickedRows
from sgfd.featureset.plane import plane
from sgfd.featureset.reading import FeatureSet

MOST_ITEMS = 100_000  # of a page; of more, as many are taken, spread evenly
MOST_PAIRS = 1_000_000  # items times neighbours, of one kind of features
LONGEST = 120  # characters of a title
NOWHERE = 65_535  # on the map

Indices = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Generic:
    """A modality's generic features, from which the distilled ones were made.

    Attributes:
        rows: (m, D), as a catalogue stores them, NaN where an item lacks the modality.
        places: int64 (n,), the row of each of the set's items, -1 where the catalogue has none.
        mean, scale: float32 (D,); neighbours are found by (x - mean) / scale.
    """

    rows: Rows
    places: Indices
    mean: Floats
    scale: Floats


@dataclass(frozen=True)
class SourceItems:
    """What is known of a set's items beside the set.

    Attributes:
        titles: object (n,) of str or None, in the order of the set's rows; None without titles.
        generic: by modality.
    """

    titles: NDArray[np.object_] | None = None
    generic: Mapping[str, Generic] = field(default_factory=dict)


@dataclass(frozen=True)
class Norms:
    """Of one modality's rows as they are stored: float64 (k,), NaN where an item lacks it."""

    kind: str
    modality: str
    width: int
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Contents:
    """What the page holds.

    Attributes:
        shown, of: how many items are on the page, and how many the set has.
        neighbours: how many an item, at most.
        modalities: by kind of features, `distilled` and `generic`, those that are compared.
        norms: of each modality.
        packed: the rest, which JSON can hold; arrays are little-endian bytes in base64.
    """

    shown: int
    of: int
    neighbours: int
    modalities: dict[str, list[str]]
    norms: list[Norms]
    packed: dict[str, Any]


def contents(
    features: FeatureSet,
    catalogue: SourceItems,
    neighbours: int,
    advance: Callable[[int], None] | None = None,
) -> Contents:
    """Find neighbours and draw maps, by distilled and, where the catalogue has some, by generic
    features: exact among the items on the page.

    Args:
        neighbours: of an item; fewer where the page would become too large.
        advance: told of how many items are done, of each kind of features.

    Raises:
        FeatureSetError: the set has no modality, a row is infinite, or its table can't be read.
    """
    n = features.n_items
    places = np.arange(n, dtype=np.int64)
    if n > MOST_ITEMS:
        places = places[np.linspace(0, n - 1, MOST_ITEMS).round().astype(np.int64)]
    neighbours = min(neighbours, max(1, MOST_PAIRS // max(1, len(places))))
    names = features.manifest.usual_modalities
    if not names:
        raise FeatureSetError(features.path, "has no modality to look at", "choose another set")
    kinds = {"distilled": {name: PickedRows(features.modalities[name], places) for name in names}}
    stored = {
        "distilled": {
            name: PickedRows(features.modalities[name], places)
            for name in features.manifest.plain_modalities
        }
    }
    if catalogue.generic:
        kinds["generic"] = {
            name: PickedRows(each.rows, each.places[places], each.mean, each.scale)
            for name, each in catalogue.generic.items()
        }
        stored["generic"] = {
            name: PickedRows(each.rows, each.places[places])
            for name, each in catalogue.generic.items()
        }
    for name, rows in stored["distilled"].items():
        if (infinite := np.isinf(rows.norms)).any():
            raise FeatureSetError(
                features.path,
                f"{name}: row {places[infinite.argmax()]} is not finite",
                "make the set again",
            )
    labels, label_names = _numbered(features.labels[places])
    norms = [
        Norms(kind, name, rows.shape[1], rows.norms)
        for kind, by_name in stored.items()
        for name, rows in by_name.items()
    ]
    titles = catalogue.titles
    packed = {
        "ids": features.item_ids[places].tolist(),
        "titles": None if titles is None else [_short(title) for title in titles[places]],
        "labels": label_names,
        "labelOf": _base64(labels, "<i4"),
        "neighbours": neighbours,
        "kinds": [
            {"name": kind, **_compared(list(rows.values()), neighbours, advance)}
            for kind, rows in kinds.items()
        ],
        "norms": [
            {"kind": each.kind, "modality": each.modality, "values": _base64(each.values, "<f4")}
            for each in norms
        ],
    }
    return Contents(
        shown=len(places),
        of=n,
        neighbours=neighbours,
        modalities={kind: list(rows) for kind, rows in kinds.items()},
        norms=norms,
        packed=packed,
    )


def _compared(
    modalities: list[PickedRows], k: int, advance: Callable[[int], None] | None
) -> dict[str, str]:
    """Neighbours (n, k) with -1 where there is none, hundredths of their cosines, and places."""
    rows = CosineRows(modalities)
    n = modalities[0].shape[0]
    near = np.full((n, k), -1, dtype=np.int32)
    cosines = np.zeros((n, k), dtype=np.int8)
    for block in nearest(rows, k, advance=advance):
        found = block.neighbours.shape[1]
        near[block.items, :found] = block.neighbours
        cosines[block.items, :found] = np.rint(block.similarity * 100)
    points = np.full((n, 2), NOWHERE, dtype=np.uint16)
    points[rows.items] = _on_a_grid(plane(rows))
    return {
        "near": _base64(near, "<i4"),
        "cosines": _base64(cosines, "|i1"),
        "points": _base64(points, "<u2"),
    }


def _on_a_grid(points: Floats) -> NDArray[np.uint16]:
    """Points (k, 2) as whole numbers below `NOWHERE`, both axes at one scale."""
    if not len(points):
        return np.empty((0, 2), dtype=np.uint16)
    low = points.min(axis=0)
    extent = float((points.max(axis=0) - low).max()) or 1.0
    grid: NDArray[np.uint16] = np.rint((points - low) * ((NOWHERE - 1) / extent)).astype(np.uint16)
    return grid


def _numbered(labels: NDArray[np.object_]) -> tuple[NDArray[np.int32], list[str]]:
    """A number an item, -1 where it has no label, and the names, the most frequent first."""
    there = np.array([label is not None for label in labels], dtype=bool)
    numbers = np.full(len(labels), -1, dtype=np.int32)
    # Not np.unique: its array would give every label the room of the longest one.
    place, names = pd.factorize(labels[there])
    count = np.bincount(place, minlength=len(names))
    order = sorted(range(len(names)), key=lambda k: (-count[k], names[k]))
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order))
    numbers[there] = rank[place]
    return numbers, [names[k] for k in order]


def _short(title: str | None) -> str | None:
    if title is None or len(title) <= LONGEST:
        return title
    return title[: LONGEST - 1] + "…"


def _base64(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()
