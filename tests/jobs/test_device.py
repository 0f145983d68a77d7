"""What is measured of a process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CHILD = (
    "from sgfd.jobs import peak_memory_bytes as peak; print(peak()); b'1' * 10**9; print(peak())"
)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says it")
def test_peak_memory_is_of_the_process_alone():
    np.ones(10**8)  # 800 MB, which a child's `ru_maxrss` would begin with
    done = subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert before < 7e8
    assert after - before > 9e8
