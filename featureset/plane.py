"""Items as points of a plane: where their directions spread most."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sgfd.featureset.neighbours import CosineRows, Matrix

FITTED_ROWS = 2_000  # at most, spread evenly: on Office their plane has 99 % of the best's spread
SMALL = 64  # rows or columns of which all axes are found at once
NARROW = 1024  # columns whose products with one another are quickly made
SPARE, MOST_ROUNDS, SETTLED = 14, 4, 1e-4  # of the search for two axes, to be drawn


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
    every = -(-len(items) // FITTED_ROWS)
    few = len(items) <= rows.block_rows
    read = rows.read_single(items if few else items[::every])  # far finer than a dot
    fitted = read[::every] if few else read
    mean = fitted.mean(axis=0)
    axes = _axes(fitted - mean)
    if few:
        points[:, : axes.shape[1]] = (read - mean) @ axes
        return points
    for start in range(0, len(items), rows.block_rows):
        part = slice(start, start + rows.block_rows)
        points[part, : axes.shape[1]] = (rows.read_single(items[part]) - mean) @ axes
    return points


def _axes(centred: NDArray[np.float32]) -> NDArray[np.float32]:
    """The directions (d, 2) of the largest variance, or the only one (1, 1)."""
    rows, d = centred.shape
    if min(rows, d) <= SMALL:
        directions = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[2][:2]
    elif d <= min(rows, NARROW):
        products = (centred.T @ centred).astype(np.float64)
        directions = _leading(lambda basis: products @ basis, d)
    else:
        directions = _leading(lambda basis: _twice(centred, basis), d)
    largest = np.abs(directions).argmax(axis=1)
    signs = np.where(directions[np.arange(len(directions)), largest] < 0, -1, 1)
    return (directions * signs[:, None]).T.astype(np.float32)


def _twice(centred: NDArray[np.float32], basis: Matrix) -> Matrix:
    image = centred.T @ (centred @ basis.astype(np.float32))
    return image.astype(np.float64)


def _leading(times: Callable[[Matrix], Matrix], d: int) -> Matrix:
    """The two leading eigenvectors (2, d) of a symmetric matrix, by subspace iteration.

    From a seeded start, two products a round, which the orthonormal basis between them bears. To
    find all of thousands takes long, and ARPACK, which finds few, fails on rows that are all alike.
    Where many directions spread alike, those found after `MOST_ROUNDS` are as good as any.

    Args:
        times: the matrix times columns (d, k).
    """
    basis = times(np.random.default_rng(0).normal(size=(d, 2 + SPARE)))
    found = np.zeros(2)
    for _ in range(MOST_ROUNDS):
        basis, _ = np.linalg.qr(basis)
        image = times(basis)
        values, inner = np.linalg.eigh(basis.T @ image)
        directions: Matrix = (basis @ inner[:, :-3:-1]).T
        if np.allclose(values[-2:], found, rtol=SETTLED, atol=0):
            break
        found, basis = values[-2:], times(image)
    return directions
