"""The card's picture: a small map of the items, coloured by label."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from sgfd.featureset.neighbours import CosineRows
from sgfd.featureset.plane import plane

MOST_DOTS = 2_500  # of more items as many are drawn, spread evenly
WIDTH, HEIGHT = 720, 450
FINER = 2  # dots are drawn in so many times as many pixels: what they cover of one is its shade
MARGIN, RADIUS = 12, 2.5

# A square of text for each colour, so that a legend can stand in any Markdown.
COLOURS = {
    "\N{LARGE BLUE SQUARE}": (0x2F, 0x6F, 0xD0),
    "\N{LARGE ORANGE SQUARE}": (0xF0, 0x8C, 0x2E),
    "\N{LARGE GREEN SQUARE}": (0x3C, 0x9A, 0x4F),
    "\N{LARGE RED SQUARE}": (0xD0, 0x39, 0x2F),
    "\N{LARGE PURPLE SQUARE}": (0x8A, 0x5C, 0xC2),
    "\N{LARGE BROWN SQUARE}": (0x8B, 0x5A, 0x36),
    "\N{LARGE YELLOW SQUARE}": (0xD9, 0xAE, 0x06),
}
OTHER = (0xC4, 0xCA, 0xD2)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A map of the items.

    Attributes:
        png: the file.
        dots: items that are drawn.
        legend: square, label and number of items (all of them) of each colour.
    """

    png: bytes
    dots: int
    legend: list[tuple[str, str, int]]


def drawn_of(n: int) -> NDArray[np.int64]:
    """Which of n items are drawn, ascending."""
    return np.linspace(0, n - 1, min(n, MOST_DOTS)).round().astype(np.int64)


def map_of(
    modalities: Sequence[NDArray[np.float32]],
    drawn: NDArray[np.int64],
    labels: pa.StringArray,
) -> Picture | None:
    """Draw items by the first two principal components of their unit rows.

    Args:
        modalities: rows (k, d) of each, of the k items that are drawn.
        drawn: which items these are.
        labels: label name or null of all n items; the most frequent ones get a colour.

    Returns:
        None where fewer than 3 items have a row.
    """
    if not modalities:
        return None
    rows = CosineRows(modalities)
    if len(rows.items) < 3:
        return None
    counted = labels.drop_null().value_counts().to_pylist()
    most = sorted((-each["counts"], each["values"]) for each in counted)
    legend = [(square, label, -n) for square, (n, label) in zip(COLOURS, most, strict=False)]
    coloured = pa.array([label for _, label, _ in legend], pa.string())
    place = pc.index_in(labels.take(pa.array(drawn[rows.items])), coloured, skip_nulls=True)
    colours = place.fill_null(len(COLOURS)).to_numpy(zero_copy_only=False).astype(np.uint8)
    # Small products: BLAS's further threads would spin between them, on the cores of those that
    # write the set meanwhile.
    with _blas().limit(limits=1, user_api="blas"):
        points = plane(rows)
    return Picture(_png(_dots(points, colours)), len(rows.items), legend)


@cache
def _blas() -> ThreadpoolController:
    """To look the libraries up takes longer than the products."""
    return ThreadpoolController()


def _dots(points: NDArray[np.float32], colours: Pixels) -> Pixels:
    """Points (k, 2) as dots of a picture (HEIGHT, WIDTH), both axes at one scale.

    Args:
        colours: (k,), the place of each point's colour in COLOURS, or the one after the last.

    Returns:
        Places in the palette: 0 is paper, then FINER^2 shades of each colour.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    scale = float((room / np.maximum(high - low, 1e-12)).min())
    centred = (points - (low + high) / 2) * np.array([scale, -scale])
    middle = np.rint((centred + np.array([WIDTH, HEIGHT]) / 2) * FINER).astype(np.int64)
    other = len(COLOURS)
    paper = other + 1
    order = np.argsort(colours != other, kind="stable")  # what has a colour lies on what has none
    place, colour = (middle[:, 1] * WIDTH * FINER + middle[:, 0])[order], colours[order]
    canvas = np.full(HEIGHT * FINER * WIDTH * FINER, paper, dtype=np.uint8)
    reach = int(RADIUS * FINER)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if down**2 + right**2 <= (RADIUS * FINER) ** 2:
                canvas[place + down * WIDTH * FINER + right] = colour
    fine = canvas.reshape(HEIGHT, FINER, WIDTH, FINER)
    covered, colour = np.zeros((HEIGHT, WIDTH), np.uint8), np.full((HEIGHT, WIDTH), paper, np.uint8)
    for down in range(FINER):
        for right in range(FINER):
            covered += fine[:, down, :, right] != paper
            np.minimum(colour, fine[:, down, :, right], out=colour)
    return np.where(covered, colour * FINER**2 + covered, 0).astype(np.uint8)


def _palette() -> bytes:
    """Red, green and blue of paper, and of each colour with more and more of it."""
    shades = [
        [round(255 + (part - 255) * share / FINER**2) for part in colour]
        for colour in (*COLOURS.values(), OTHER)
        for share in range(1, FINER**2 + 1)
    ]
    return bytes([255, 255, 255, *(part for shade in shades for part in shade)])


def _png(pixels: Pixels) -> bytes:
    """Pixels (h, w) as PNG (ISO/IEC 15948): signature, header, palette, deflated rows, end."""
    height, width = pixels.shape
    lines = np.zeros((height, 1 + width), dtype=np.uint8)  # each begins with its filter, 0
    lines[:, 1:] = pixels
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 2)
    chunks = {b"IHDR": header, b"PLTE": _palette(), b"IDAT": body, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
    )
