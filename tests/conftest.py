"""Fixtures that several folders of tests share."""

import os
from pathlib import Path

import numpy as np
import pytest

# As the command line does, and before anything loads OpenMP.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside a checkout; tests that need it skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets (../shared/data) are not beside this checkout")
    return SHARED_DATA
