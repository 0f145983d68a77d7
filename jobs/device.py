"""Where a computation runs: device, threads, seeds, and how much memory it took."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from sgfd.jobs.errors import JobError
from sgfd.jobs.limits import usable_cores

if TYPE_CHECKING:
    import torch

MOST_THREADS = 1024  # far more, and OpenMP ends the process without a word

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def use_device(name: str) -> torch.device:
    """The device called `name`: `cpu`, `cuda`, or `auto` for the GPU where there is one.

    On a GPU, too, a seed is to give one result: torch is told to add in one order, which is
    slower, and warns where it can't.

    Raises:
        JobError: there is no such device, or `cuda` is asked for and this machine has none.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise JobError(f"device {name!r}", "is unknown", "choose auto, cpu or cuda")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise JobError("--device cuda", "no CUDA device is available", "use --device cpu or auto")
    if name == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device(name)


def use_threads(threads: int | None) -> int:
    """Give torch, FAISS and numpy's BLAS as many threads (default: the cores we may use).

    Raises:
        JobError: it is less than one, or more than a process can have.
    """
    import faiss
    import torch

    if threads is not None and threads < 1:
        raise JobError(f"threads {threads}", "is too few", "give 1 or more")
    if threads is not None and threads > MOST_THREADS:
        raise JobError(f"threads {threads}", "are too many", f"give {MOST_THREADS} at most")
    count = threads or usable_cores()
    torch.set_num_threads(count)
    faiss.omp_set_num_threads(count)
    threadpool_limits(count, user_api="blas")
    return count


def keep_freed_memory() -> None:
    """Let the C library keep freed blocks for the next ones of that size.

    A training step frees and takes the same blocks again. Given back to the system in between,
    they come as new pages each time, which took a fifth of BM3's epoch, and more than half of
    MAML's with 100,000 users, whose tables' gradients are 50 MB. Where the library has no such
    switch (outside glibc) nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # a block that is mapped is always given back
        mallopt(_M_TRIM_THRESHOLD, 2**30)


def seed_everything(seed: int) -> None:
    """Seed torch (all devices) and numpy's legacy generator."""
    import torch

    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (third parties' backbones may draw from it)


def peak_memory_bytes(device: torch.device | None = None) -> int:
    """Peak resident memory of this process, plus the peak on the GPU where one is used.

    On Linux by what the kernel says of the program that runs: `ru_maxrss` begins with the peak of
    the process that started it.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
            peak = int(found[1]) * 1024
    if device is not None and device.type == "cuda":
        import torch

        peak += torch.cuda.max_memory_allocated(device)
    return peak
