"""What compressed modalities lose, for the manifest and the card."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfd.featureset.compression import Rows
from sgfd.featureset.manifest import Modality
from sgfd.featureset.neighbours import CosineRows, nearest

MOST_QUERIES = 1000  # items that are measured
NEIGHBOURS = 10


def compression_loss(
    modalities: list[Modality], rows: dict[str, Rows], seed: int
) -> dict[str, dict[str, Any]]:
    """By compressed modality, on at most 1,000 items drawn at random:

    - `mean_cosine` of the decoded and the original row;
    - `neighbours_kept@10`: share of the 10 items nearest to it by the original rows that are
      among the 10 nearest by the decoded ones, of all items;
    - `bytes_an_item` in its `.npy`.

    The first two are None where no item, or one, has the modality.
    """
    figures, originals = {}, {}
    for modality in modalities:
        if modality.encoding is None:
            continue
        of = modality.encoding.of
        original, decoded = CosineRows([rows[of]]), CosineRows([rows[modality.name]])
        items = original.items
        if len(items) > MOST_QUERIES:
            chosen = np.random.default_rng(seed).choice(items, MOST_QUERIES, replace=False)
            items = np.sort(chosen)
        if of not in originals:
            originals[of] = _neighbours(original, items)
        figures[modality.name] = {
            "mean_cosine": _mean_cosine(original, decoded, items),
            "neighbours_kept@10": _kept(originals[of], _neighbours(decoded, items)),
            "bytes_an_item": modality.bytes_an_item,
        }
    return figures


def _mean_cosine(
    original: CosineRows, decoded: CosineRows, items: NDArray[np.int64]
) -> float | None:
    if not len(items):
        return None
    cosines = np.einsum("id,id->i", original.read(items), decoded.read(items))
    return float(cosines.mean())


def _neighbours(rows: CosineRows, items: NDArray[np.int64]) -> list[set[int]]:
    return [set(found) for block in nearest(rows, NEIGHBOURS, items) for found in block.neighbours]


def _kept(original: list[set[int]], decoded: list[set[int]]) -> float | None:
    shares = [
        len(before & after) / len(before) for before, after in zip(original, decoded, strict=True)
    ]
    return float(np.mean(shares)) if shares else None
