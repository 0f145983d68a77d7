"""Items as points of a plane: where their directions spread most."""

import numpy as np
from numpy.typing import NDArray

from sgfd.featureset.neighbours import CosineRows

FITTED_ROWS = 20_000  # at most, spread evenly over the items; a plane needs no more


def plane(rows: CosineRows) -> NDArray[np.float32]:
    """The first two principal components of the rows whose inner products are cosines.

    Deterministic: the plane is fitted to evenly spread items, and of each axis the direction is
    chosen in which its largest coordinate is positive.

    Returns:
        float32 (k, 2), a row for each of `rows.items`.
    """
    items = rows.items
    if not len(items):
        return np.empty((0, 2), dtype=np.float32)
    fitted = rows.read(items[:: -(-len(items) // FITTED_ROWS)])
    mean = fitted.mean(axis=0)
    fitted -= mean
    _, axes = np.linalg.eigh(fitted.T @ fitted)
    axes = axes[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    points = np.zeros((len(items), 2), dtype=np.float32)  # of one column there is but one axis
    for start in range(0, len(items), rows.block_rows):
        part = slice(start, start + rows.block_rows)
        points[part, : axes.shape[1]] = (rows.read(items[part]) - mean) @ axes
    return points
