"""Sets of whole numbers, against Python's own."""

import pytest

from sgfd.dataset import are_among, distinct


@pytest.mark.parametrize(("n", "top"), [(0, 5), (1, 5), (1000, 30), (1000, 2**60)])
def test_they_are_those_of_python(rng, n, top):
    values, known = rng.integers(-3, top, n), rng.integers(-3, top, n // 2)
    assert distinct(values).tolist() == sorted(set(values.tolist()))
    expected = [value in set(known.tolist()) for value in values.tolist()]
    assert are_among(values, known).tolist() == expected
    assert are_among(known, values[: n // 3]).dtype == bool
