"""The closed form at scale: is it linear in items and interactions, and how much memory it takes.

    python benchmarks/closed_form.py --items 1000000 --interactions 20000000

Random float32 features are memory-mapped from a file; statistics, the map and nothing else are
computed, first on a quarter of items and interactions, then on all, each in a process of its own.
`private` is the peak memory that the process can't give back (anonymous pages), as told by Linux;
`resident` has also the pages of the mapped file, which the system drops when it needs them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from sgfd.dataset import Feature
from sgfd.distill import InteractionMetricSettings
from sgfd.distill.fused import FusedRows
from sgfd.distill.interaction_metric import metric_weight
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.streaming import column_statistics
from sgfd.jobs import keep_freed_memory, peak_memory_bytes, use_threads

ROWS = 20_000  # written at a time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--interactions", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--file", type=Path, help="measure on this (a child's work)")
    options = parser.parse_args()
    if options.file:
        print(json.dumps(measure(options)))
        return
    print(f"{'items':>10}{'pairs':>12}{'seconds':>9}{'cpu s':>8}{'private':>10}{'resident':>10}")
    for part in (4, 1):
        sizes = {
            "items": options.items // part,
            "users": options.users // part,
            "interactions": options.interactions // part,
        }
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "x.npy"
            write_features(file, sizes["items"], options.width)
            arguments = [f"--{name}={size}" for name, size in sizes.items()]
            threads = [f"--threads={options.threads}"] if options.threads else []
            command = [sys.executable, __file__, *arguments, *threads, f"--file={file}"]
            row = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        print(
            f"{sizes['items']:>10,}{sizes['interactions']:>12,}{row['seconds']:>9.1f}"
            f"{row['cpu']:>8.1f}{row['private'] / 2**30:>6.2f} GiB"
            f"{row['resident'] / 2**30:>6.2f} GiB",
            flush=True,
        )


def write_features(file: Path, items: int, width: int) -> None:
    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(file, "w+", np.float32, (items, width))
    for start in range(0, items, ROWS):
        block = rng.standard_normal((min(ROWS, items - start), width), dtype=np.float32)
        rows[start : start + len(block)] = block
    rows.flush()


def measure(options: argparse.Namespace) -> dict[str, float]:
    use_threads(options.threads)
    keep_freed_memory()
    rng = np.random.default_rng(1)
    user = rng.integers(0, options.users, options.interactions)
    item = (options.items * rng.random(options.interactions) ** 2).astype(np.int64)
    pairs = TrainingPairs.of(user, item, options.users, options.items)
    del user, item
    feature = Feature.from_npy("x", options.file)
    private = PrivateMemory()
    start, cpu = time.perf_counter(), time.process_time()
    columns = {"x": column_statistics(feature)}
    rows = FusedRows({"x": feature}, columns, torch.device("cpu"))
    weight = metric_weight(rows, pairs, InteractionMetricSettings())
    assert weight.shape == (128, feature.dimension)
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "private": private.stop(),
        "resident": peak_memory_bytes(),
    }


class PrivateMemory:
    """Watches the process's anonymous memory, ten times a second."""

    def __init__(self) -> None:
        self._peak, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The peak, in bytes."""
        self._done.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            (line,) = (line for line in status.splitlines() if line.startswith("RssAnon"))
            self._peak = max(self._peak, int(line.split()[1]) * 1024)
            if self._done.wait(0.1):
                return


if __name__ == "__main__":
    main()
