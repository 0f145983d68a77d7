"""Items as points of a plane: where their directions spread most."""

import numpy as np
from numpy.typing import NDArray

from sgfd.featureset.neighbours import CosineRows, Matrix

FITTED_ROWS = 20_000  # at most, spread evenly over the items; a plane needs no more
SMALL = 64  # rows or columns of which all axes are found at once


def plane(rows: CosineRows) -> NDArray[np.float32]:
    """The first two principal components of the rows whose inner products are cosines.

    Deterministic: the plane is fitted to evenly spread items, and of each axis the direction is
    chosen in which its largest coordinate is positive.

    Returns:
        float32 (k, 2), a row for each of `rows.items`.
    """
    items = rows.items
    points = np.zeros((len(items), 2), dtype=np.float32)
    if len(items) < 2:
        return points
    fitted = rows.read(items[:: -(-len(items) // FITTED_ROWS)])
    mean = fitted.mean(axis=0)
    axes = _axes(fitted - mean)
    for start in range(0, len(items), rows.block_rows):
        part = slice(start, start + rows.block_rows)
        points[part, : axes.shape[1]] = (rows.read(items[part]) - mean) @ axes
    return points


def _axes(centred: Matrix) -> Matrix:
    """The directions (d, 2) of the largest variance, or the only one (1, 1)."""
    if min(centred.shape) <= SMALL:
        directions = np.linalg.svd(centred, full_matrices=False)[2][:2]
    else:
        from scipy.sparse.linalg import svds

        start = np.ones(min(centred.shape))
        directions = svds(centred, 2, v0=start, return_singular_vectors="vh")[2][::-1]
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    axes: Matrix = (directions * signs[:, None]).T
    return axes
