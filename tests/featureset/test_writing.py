"""A feature set's writer that is given up."""

import gc
import sys

import numpy as np
import pytest

from sgfd.featureset import FeatureSetWriter

ROWS = np.ones((4_096, 64), dtype=np.float32)


@pytest.fixture
def unheard(monkeypatch):
    """Errors that reached nobody: Python prints them, with their trace."""
    found = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: found.append(lost.exc_value))
    yield found
    gc.collect()


def write_and_fail(folder, error: type[BaseException]) -> None:
    ids = [f"i{row}" for row in range(2 * len(ROWS))]
    with FeatureSetWriter(folder, ids, [None] * len(ids), {"image": ROWS.shape[1]}) as writer:
        writer.append({"image": ROWS})
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_one_that_is_given_up_says_nothing_more(tmp_path, unheard, error):
    with pytest.raises(error):
        write_and_fail(tmp_path, error)
    gc.collect()
    assert unheard == []
