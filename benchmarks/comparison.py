"""What a comparison costs beside its trainings, and how long statistics and report take.

    python benchmarks/comparison.py --epochs 100

`overhead`: one `pipeline compare` against the same cells by `pipeline train`, one after the other,
in the same run. `report`: made-up results of many backbones, feature sets, seeds and users.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from sgfd.recommenders.comparison import (
    Cell,
    CellResult,
    ComparedFeatures,
    Comparison,
    contrasts,
    write_report,
)

PIPELINE = str(Path(sys.executable).with_name("pipeline"))
BACKBONES = ("bm3", "bpr")
METRICS = ("recall@20", "ndcg@20")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--epochs", type=int, default=100, help="of each training")
    parser.add_argument("--seeds", type=int, default=2, help="of the trainings")
    parser.add_argument("--grid", type=int, nargs=4, default=[14, 6, 5, 5000], metavar="N",
                        help="backbones, feature sets, seeds and users of the report")  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overhead(options.dataset, options.epochs, options.seeds, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        report(*options.grid, Path(folder))


def overhead(dataset: str, epochs: int, seeds: int, folder: Path) -> None:
    sets = [f"epochs={epochs}", f"patience={epochs}"]

    def seconds(*arguments: str) -> float:
        start = time.perf_counter()
        subprocess.run([PIPELINE, *arguments], check=True, capture_output=True, cwd=folder)
        return time.perf_counter() - start

    alone = 0.0
    for backbone in BACKBONES:
        for seed in range(seeds):
            own = [word for pair in sets for word in ("--set", pair)]
            alone += seconds(
                "train", "--dataset", dataset, "--backbone", backbone, "--seed", str(seed), *own
            )
    own = [word for name in BACKBONES for pair in sets for word in ("--set", f"{name}.{pair}")]
    together = seconds(
        "compare", "--dataset", dataset, "--backbones", ",".join(BACKBONES), "--features", "none",
        "--seeds", str(seeds), "--jobs", "1", *own,
    )  # fmt: skip
    print(
        f"overhead  {dataset}, {len(BACKBONES) * seeds} cells of {epochs} epochs, one at a time: "
        f"alone {alone:.1f} s, compared {together:.1f} s, ratio {together / alone:.3f}"
    )


def report(n_backbones: int, n_features: int, n_seeds: int, n_users: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    users = pd.Series([f"u{i}" for i in range(n_users)])
    labels = ["none", *(f"features{i}" for i in range(1, n_features))]
    results = []
    for seed in range(n_seeds):
        for backbone in range(n_backbones):
            for label in labels:
                cell = Cell("honest", f"backbone{backbone}", label, seed)
                run = folder / f"{backbone}-{label}-{seed}"
                run.mkdir()
                frame = pd.DataFrame(rng.random((n_users, 2)), columns=list(METRICS))
                frame.assign(part="test", user_id=users).to_parquet(run / "per_user.parquet")
                metrics = {"test": dict(frame.mean())}
                results.append(CellResult(cell, metrics, run, 1.0, 2**28, 10))
    features = tuple(ComparedFeatures(label, "pca", {"image": 8}, 1, None) for label in labels)
    comparison = Comparison("made up", "0" * 64, "", "", features, "none", tuple(results))
    start = time.perf_counter()
    found = contrasts(comparison, METRICS)
    computed = time.perf_counter()
    write_report(comparison, found, folder)
    written = time.perf_counter()
    size = (folder / "report.html").stat().st_size
    print(
        f"report    {n_backbones} backbones x {n_features} feature sets x {n_seeds} seeds x "
        f"{n_users} users: statistics {computed - start:.1f} s, report "
        f"{written - computed:.2f} s, page {size / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    main()
