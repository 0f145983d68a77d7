"""Recall and NDCG of backbones without features and on feature sets of several makers.

    python benchmarks/recommendation.py ../shared/data/office ../shared/data/ml100k
    python benchmarks/recommendation.py sample --backbones all --features none,raw,sgfd

Honest protocol, defaults, the same validation part for all seeds; test figures, mean and standard
deviation over the seeds. Each feature set is made once, with seed 0.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from sgfd import featureset
from sgfd.dataset import Dataset, load_dataset
from sgfd.distill import distill
from sgfd.jobs import use_threads
from sgfd.recommenders import Run, backbone_places, find_backbone, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", help="folders or names of data sets")
    parser.add_argument("--backbones", default="popular,bpr,bm3", help="with commas, or all")
    parser.add_argument("--features", default="none,sgfd", help="makers of feature sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    everything = options.backbones == "all"
    names = list(backbone_places()) if everything else options.backbones.split(",")
    print(f"threads {use_threads(options.threads)}, seeds 0..{options.seeds - 1}")
    for reference in options.datasets:
        with tempfile.TemporaryDirectory() as folder:
            compare(load_dataset(reference), names, options, Path(folder))


def compare(dataset: Dataset, names: list[str], options: argparse.Namespace, folder: Path) -> None:
    print(f"\n{dataset.name}")
    made = {}
    for method in options.features.split(","):
        if method != "none":
            result = distill(dataset, folder / method, method=method, threads=options.threads)
            made[method] = featureset.load(result.artifact)
            print(f"features by {method}: {result.seconds:.1f} s")
    print(
        f"{'':12}{'features':10}{'recall@20':>18}{'ndcg@20':>18}{'epochs':>8}{'s/epoch':>9}{'s':>8}"
        f"{'peak MB':>9}"
    )
    for name in names:
        kind = find_backbone(name)
        for method in options.features.split(","):
            if kind.needs_features if method == "none" else not kind.uses_features:
                continue
            runs = [
                train(
                    dataset,
                    name,
                    made.get(method),
                    seed=seed,
                    threads=options.threads,
                    runs_root=folder / "runs",
                )
                for seed in range(options.seeds)
            ]
            print(f"{name:12}{method:10}{row(runs)}", flush=True)


def row(runs: list[Run]) -> str:
    cells = []
    for name in ("recall@20", "ndcg@20"):
        values = [run.metrics["test"][name] for run in runs]
        deviation = np.std(values, ddof=1) if len(values) > 1 else 0
        cells.append(f"{np.mean(values):.4f} ± {deviation:.4f}")
    epochs = np.mean([run.record["epochs"] for run in runs])
    seconds = np.mean([run.record["seconds"]["train"] for run in runs])
    peak = max(run.record["peak_memory_bytes"] for run in runs) / 2**20
    return (
        f"{cells[0]:>18}{cells[1]:>18}{epochs:>8.0f}{seconds / max(epochs, 1):>9.3f}{seconds:>8.1f}"
        f"{peak:>9,.0f}"
    )


if __name__ == "__main__":
    main()
