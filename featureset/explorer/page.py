"""The page itself: one file, no network, readable on a phone, usable from the keyboard."""

import base64
import json
import zlib
from collections.abc import Callable
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from sgfd.featureset.explorer.contents import Contents, Norms, SourceItems, contents
from sgfd.featureset.manifest import Manifest
from sgfd.featureset.reading import FeatureSet

BINS, BIN_WIDTH, BIN_HEIGHT = 24, 5, 28  # of a histogram
ALIKE = 1e-4  # a spread of norms, as a share of them, that is but rounding

_TITLE = "Feature set "


def explorer_page(
    features: FeatureSet,
    catalogue: SourceItems | None = None,
    neighbours: int = 10,
    advance: Callable[[int], None] | None = None,
) -> str:
    """HTML to look around in a feature set: search, neighbours side by side, a map, norms.

    Whatever comes from data is either escaped or in the packed contents, which the page only ever
    shows as text. Of more than `MOST_ITEMS` items, as many are shown, and the page says so.

    Args:
        catalogue: titles and generic features, where there are any.
        neighbours: of an item.
        advance: told of how many items are done, of distilled features and then of generic ones.

    Raises:
        FeatureSetError: the set has no modality, or its table can't be read.
    """
    found = contents(features, catalogue or SourceItems(), neighbours, advance)
    text = json.dumps(found.packed, ensure_ascii=False, separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 6)).decode()
    manifest = features.manifest
    return Template(_part("page.html")).substitute(
        title=escape(f"{_TITLE}{manifest.name}"),
        summary=escape(_summary(manifest)),
        notes="".join(f"<li>{escape(note)}</li>" for note in _notes(found)),
        norms=_norm_table(found.norms),
        style=_part("page.css"),
        script=_part("page.js"),
        packed=packed,
    )


def is_page(path: Path) -> bool:
    """Whether a file begins as a page of ours does."""
    head = _part("page.html").partition("$title")[0] + _TITLE
    with path.open("rb") as file:
        return file.read(len(head.encode())) == head.encode()


def _part(name: str) -> str:
    return (files("sgfd.featureset.explorer") / name).read_text(encoding="utf-8")


def _summary(manifest: Manifest) -> str:
    return (
        f"{manifest.dataset.n_items:,} items of {manifest.dataset.name}, made by "
        f"{manifest.method} on {manifest.created[:10]}"
    )


def _notes(found: Contents) -> list[str]:
    """What neighbours mean here, and what is left out."""
    by = {kind: " and ".join(names) for kind, names in found.modalities.items()}
    notes = [f"Nearest by distilled features: cosine of {by['distilled']}."]
    if "generic" in by:
        notes.append(f"Nearest by generic features: cosine of {by['generic']}, standardised.")
    else:
        notes.append("Generic features are not here: make the page with --dataset to see them.")
    if found.packed["titles"] is None:
        notes.append("Titles are not here: items go by their ids.")
    if found.shown < found.of:
        notes.append(
            f"Left out: {found.of - found.shown:,} of {found.of:,} items. The {found.shown:,} "
            "here are spread evenly over the set, and neighbours are the nearest among these."
        )
    return notes


def _norm_table(norms: list[Norms]) -> str:
    rows = []
    for each in norms:
        there = each.values[~np.isnan(each.values)].astype(np.float64)
        cells = [each.kind, each.modality, f"{each.width:,}"]
        cells.append(f"{len(there) / max(1, len(each.values)):.1%}")
        if len(there):
            spread = np.quantile(there, [0, 0.5, 1])
            cells += [f"{value:.3g}" for value in spread]
        else:
            cells += ["none"] * 3
        drawn = _histogram(there)
        words, figures = cells[:2], cells[2:]
        rows.append(
            "<tr>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in words)
            + "".join(f'<td class="n">{escape(cell)}</td>' for cell in figures)
            + f"<td>{drawn}</td></tr>"
        )
    return "".join(rows)


def _histogram(values: np.ndarray) -> str:
    if not len(values):
        return ""
    if np.ptp(values) <= ALIKE * values.max():
        return "all alike"
    counts, edges = np.histogram(values, BINS)
    tallest = counts.max()
    bars = "".join(
        f'<rect x="{i * BIN_WIDTH}" y="{BIN_HEIGHT - h}" width="{BIN_WIDTH - 1}" height="{h}"/>'
        for i, count in enumerate(counts)
        if (h := -(-int(count) * BIN_HEIGHT // int(tallest)))
    )
    name = f"norms from {edges[0]:.3g} to {edges[-1]:.3g}"
    return (
        f'<svg class="bars" width="{BINS * BIN_WIDTH}" height="{BIN_HEIGHT}" role="img" '
        f'aria-label="{name}"><title>{name}</title>{bars}</svg>'
    )
