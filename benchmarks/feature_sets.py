"""A feature set's file work, against the plain floor of the same bytes.

    python benchmarks/feature_sets.py --items 10000 100000 1000000

A set of two modalities of 128 columns, from rows in memory. Each work in a process of its own: once
(`first`: what Python, pyarrow and the heap do once for a process is in it), then in turns with its
floor, the best of the repeats:

- `write`: all files, hashed, the manifest last; floor: numpy writes the same bytes, hashlib hashes
  them;
- `verify`: everything that `pipeline features verify` looks at; floor: hashlib hashes the files;
- `open`: the manifest, the sizes, the maps; no floor: it must not grow with the set;
- `align`: rows of all items in another order, by their ids; floor: pyarrow reads the ids, pandas
  indexes;
- `read`: every row of both modalities once; floor: pyarrow reads the table's columns.

`ratio` is a time over its floor's. `added` is how much resident memory came with the first time,
of the process's peak. What the student takes, against the bare matrix product, is in
`export_throughput.py`.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from sgfd.featureset import (
    DatasetOrigin,
    FeatureSetWriter,
    Fingerprints,
    Labels,
    Manifest,
    Modality,
    Producer,
    load,
    now,
    verify,
)
from sgfd.jobs import peak_memory_bytes

MODALITIES = ("image", "text")
WIDTH = 128
BLOCK = 16_384
PIECE = 2**24  # bytes that are hashed at a time
WORKS = ("write", "verify", "open", "align", "read")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", choices=WORKS, help="do this alone, in --folder (a child's work)")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.work:
        print(json.dumps(measure(options.work, options.folder, options.items[0], options.repeats)))
        return
    print(
        f"{'items':>9} {'':8}{'first':>9}{'seconds':>9}{'floor':>9}{'ratio':>7}{'peak MB':>9}"
        f"{'added MB':>10}"
    )
    for items in options.items:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "set"
            write(place, ids_of(items), labels_of(items), rows_of_a_block())
            for work in WORKS:
                show(items, work, child(work, place, items, options.repeats))


def child(work: str, place: Path, items: int, repeats: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--work", work, "--folder", str(place)]
    done = subprocess.run(
        [*command, "--items", str(items), "--repeats", str(repeats)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def show(items: int, work: str, found: dict[str, float]) -> None:
    seconds, floor = found["seconds"], found["floor"]
    peak, added = (found[key] / 2**20 for key in ("peak", "added"))
    ratio = f"{seconds / floor:.2f}" if floor else "-"
    print(
        f"{items:>9} {work:8}{found['first']:>9.4f}{seconds:>9.4f}{floor:>9.4f}{ratio:>7}"
        f"{peak:>9,.0f}{added:>9,.0f}",
        flush=True,
    )


def measure(work: str, place: Path, items: int, repeats: int) -> dict[str, float]:
    """Seconds of a work and of its floor, and the memory of the work, which comes first."""
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        copy, plain = Path(folder) / "copy", Path(folder) / "plain"
        ids, labels = ids_of(items), labels_of(items)
        rows, piece = rows_of_a_block(), np.random.default_rng(0).bytes(PIECE)
        wanted = np.random.default_rng(1).permutation(ids)
        works: dict[str, tuple[Callable[[], object], Callable[[], object] | None]] = {
            "write": (
                lambda: write(copy, ids, labels, rows),
                lambda: write_plainly(copy, plain, piece),
            ),
            "verify": (lambda: sound(place), lambda: hash_all(place)),
            "open": (lambda: load(place), None),
            "align": (
                lambda: load(place).align(wanted),
                lambda: index_plainly(place, wanted),
            ),
            "read": (lambda: read(place), lambda: read_plainly(place)),
        }
        ours, floor = works[work]
        before = peak_memory_bytes()
        first = timed(ours)
        peak = peak_memory_bytes()
        shutil.rmtree(copy, ignore_errors=True)
        seconds, floors = [], []
        for _ in range(repeats):
            seconds.append(timed(ours))
            floors.append(timed(floor) if floor else 0.0)
            for written in (copy, plain):
                shutil.rmtree(written, ignore_errors=True)
        return {
            "first": first,
            "seconds": min(seconds),
            "peak": peak,
            "added": peak - before,
            "floor": min(floors),
        }


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ids_of(items: int) -> np.ndarray:
    return np.array([f"B{i:09d}" for i in range(items)], dtype=object)


def rows_of_a_block() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((BLOCK, WIDTH), dtype=np.float32)


def labels_of(items: int) -> np.ndarray:
    return np.array(["a", "b", None], dtype=object)[np.arange(items) % 3]


def write(folder: Path, ids: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
    items = len(ids)
    folder.mkdir()
    manifest = Manifest(
        name="benchmark",
        labels=Labels(
            count=2, names=["a", "b"], coverage=1 - int((np.arange(items) % 3 == 2).sum()) / items
        ),
        created=now(),
        producer=Producer(name="sgfd", version="0"),
        method="raw",
        settings={},
        seed=0,
        dataset=DatasetOrigin(
            name="benchmark", n_items=items, fingerprints=Fingerprints(catalogue="0" * 64)
        ),
        modalities=[
            Modality(
                name=name,
                file=f"{name}.npy",
                source_dimension=WIDTH,
                dimension=WIDTH,
                normalised=False,
                coverage=1.0,
            )
            for name in MODALITIES
        ],
    )
    with FeatureSetWriter(folder, ids, labels, dict.fromkeys(MODALITIES, WIDTH)) as out:
        for start in range(0, items, BLOCK):
            out.append(dict.fromkeys(MODALITIES, rows[: items - start]))
        out.finish(manifest)


def write_plainly(copied: Path, folder: Path, content: bytes) -> None:
    """As many bytes in as many files, by numpy, and the sha256 of each."""
    folder.mkdir()
    block = np.frombuffer(content, dtype=np.uint8)
    for file in copied.iterdir():
        digest, left = hashlib.sha256(), file.stat().st_size
        with (folder / file.name).open("wb") as out:
            while left:
                piece = block[: min(left, PIECE)]
                piece.tofile(out)
                digest.update(piece)
                left -= len(piece)


def sound(folder: Path) -> None:
    if problems := verify(folder):
        raise AssertionError(problems)


def hash_all(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def index_plainly(folder: Path, wanted: np.ndarray) -> None:
    ids = pq.read_table(folder / "features.parquet", columns=["item_id"])["item_id"].to_pandas()
    pd.Index(ids).get_indexer(pd.Index(wanted))


def read(folder: Path) -> None:
    opened = load(folder)
    for start in range(0, opened.n_items, BLOCK):
        opened.stored_block(start, start + BLOCK)


def read_plainly(folder: Path) -> None:
    file = pq.ParquetFile(folder / "features.parquet")
    for _ in file.iter_batches(BLOCK, columns=list(MODALITIES)):
        pass


if __name__ == "__main__":
    main()
