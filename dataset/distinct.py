"""Sets of whole numbers, by sorting.

`np.unique` puts whole numbers into a hash table (numpy 2.3 and later), and `np.isin` too where they
lie far apart, as keys of pairs do: fifty to a hundred times slower than to sort them.
"""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def distinct(values: Indices) -> Indices:
    """The values (n,) once each, ascending."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


def are_among(values: Indices, known: Indices) -> NDArray[np.bool_]:
    """Which of the values (n,) are known ones, bool (n,)."""
    if not len(known):
        return np.zeros(len(values), dtype=bool)
    ordered = np.sort(known)
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return np.asarray(ordered[place] == values)
