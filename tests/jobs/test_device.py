"""What is measured of a process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from sgfd.jobs import JobError, use_threads

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


@pytest.fixture
def as_before():
    yield
    use_threads(None)


def test_more_threads_than_a_process_can_have_are_refused():
    with pytest.raises(JobError, match="threads 3000: are too many; give 1024 at most"):
        use_threads(3000)


def test_one_option_sets_the_threads_of_all_that_compute(as_before):
    for threads in (1, 3):
        use_threads(threads)
        assert torch.get_num_threads() == threads
        blas = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
        assert blas
        assert set(blas) == {threads}
