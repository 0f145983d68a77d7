"""Recall and NDCG of the floor and of BM3, without features and on a distilled set.

    python benchmarks/floor_and_bm3.py ../shared/data/office ../shared/data/ml100k

Honest protocol, defaults, the same validation part for all seeds; test figures, mean and standard
deviation over the seeds. The feature set is made once, with seed 0.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from sgfd import featureset
from sgfd.dataset import load_dataset
from sgfd.distill import distill
from sgfd.jobs import use_threads
from sgfd.recommenders import train

ROWS = (("popular", False), ("bpr", False), ("bm3", False), ("bm3", True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", help="folders or names of data sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    print(f"threads {use_threads(options.threads)}, seeds 0..{options.seeds - 1}")
    for reference in options.datasets:
        with tempfile.TemporaryDirectory() as folder:
            compare(reference, Path(folder), options.seeds, options.threads)


def compare(reference: str, folder: Path, seeds: int, threads: int | None) -> None:
    dataset = load_dataset(reference)
    made = distill(dataset, folder / "features", threads=threads)
    print(f"\n{dataset.name}: features made in {made.seconds:.1f} s")
    print(f"{'':24}{'recall@20':>18}{'ndcg@20':>18}{'epochs':>9}{'s/epoch':>9}{'s':>8}")
    for backbone, with_features in ROWS:
        runs = [
            train(
                dataset,
                backbone,
                featureset.load(made.artifact) if with_features else None,
                seed=seed,
                threads=threads,
                runs_root=folder / "runs",
            )
            for seed in range(seeds)
        ]
        figures = [run.metrics["test"] for run in runs]
        cells = [
            f"{np.mean(values):.4f} ± {np.std(values, ddof=1) if seeds > 1 else 0:.4f}"
            for values in ([f[name] for f in figures] for name in ("recall@20", "ndcg@20"))
        ]
        epochs = np.mean([run.record["epochs"] for run in runs])
        seconds = np.mean([run.record["seconds"]["train"] for run in runs])
        name = f"{backbone} {'on features' if with_features else 'without features'}"
        print(
            f"{name:24}{cells[0]:>18}{cells[1]:>18}{epochs:>9.0f}"
            f"{seconds / max(epochs, 1):>9.3f}{seconds:>8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
