"""Recall and NDCG of backbones without features and on feature sets of several makers.

    python benchmarks/recommendation.py ../shared/data/office ../shared/data/ml100k
    python benchmarks/recommendation.py sample --backbones all --features none,raw,sgfd --jobs 2

    python benchmarks/recommendation.py sample --backbones all --epochs 3 --seeds 1  # cost alone

Honest protocol, defaults, the same validation part for all seeds; test figures, mean and standard
deviation over the seeds. Each feature set is made once, with seed 0. Every training is a process
of its own, so that its peak memory is its own; `--jobs` run at a time and share the cores. With
`--out` each result is kept in a file of JSON lines, and what is there is not run again.
"""

import argparse
import json
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from sgfd import featureset
from sgfd.dataset import load_dataset
from sgfd.distill import distill
from sgfd.jobs import use_threads
from sgfd.recommenders import backbone_places, find_backbone, train

Cell = tuple[str, str, str, int]  # data set, backbone, maker of the features, seed
Results = dict[Cell, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+", help="folders or names of data sets")
    parser.add_argument("--backbones", default="popular,bpr,bm3", help="with commas, or all")
    parser.add_argument("--features", default="none,sgfd", help="makers of feature sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="at most; fewer than all tell cost alone")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--out", type=Path, help="file of results, gone on with if it is there")
    options = parser.parse_args()
    everything = options.backbones == "all"
    names = list(backbone_places()) if everything else options.backbones.split(",")
    makers = options.features.split(",")
    results = read(options.out) if options.out else {}
    cells = list(grid(options.datasets, names, makers, options.seeds))
    threads = max(1, use_threads(None) // options.jobs)
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(
            options.jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1
        ) as pool,
    ):
        missing = [cell for cell in cells if cell not in results]
        for reference, maker in dict.fromkeys((cell[0], cell[2]) for cell in missing):
            if maker != "none":
                artifact = place(folder, reference, maker)
                distill(load_dataset(reference), artifact, method=maker)
        runs = {pool.submit(run, cell, folder, threads, options.epochs): cell for cell in missing}
        for done in as_completed(runs):
            results[runs[done]] = done.result()
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps([*runs[done], done.result()]) + "\n")
    print(f"{options.jobs} at a time with {threads} threads each")
    for reference in options.datasets:
        show(reference, {cell: results[cell] for cell in cells if cell[0] == reference})


def grid(datasets: list[str], names: list[str], makers: list[str], seeds: int) -> Iterator[Cell]:
    """Every cell that makes sense, a seed after the other, so that a first answer comes early."""
    for seed in range(seeds):
        for reference in datasets:
            for name in names:
                kind = find_backbone(name)
                for maker in makers:
                    if not kind.needs_features if maker == "none" else kind.uses_features:
                        yield reference, name, maker, seed


def place(folder: str, reference: str, maker: str) -> Path:
    return Path(folder) / Path(reference).name / maker


def run(cell: Cell, folder: str, threads: int, epochs: int | None) -> dict[str, Any]:
    """Train one cell; what of its record the table needs."""
    reference, name, maker, seed = cell
    kind = find_backbone(name)
    settings = kind.Settings(epochs=epochs) if epochs and kind.trained else kind.Settings()
    features = None if maker == "none" else featureset.load(place(folder, reference, maker))
    with tempfile.TemporaryDirectory(dir=folder) as runs:
        trained = train(
            load_dataset(reference),
            name,
            features,
            settings,
            seed=seed,
            threads=threads,
            runs_root=Path(runs),
        )
        record = trained.record
        return {
            "recall@20": trained.metrics["test"]["recall@20"],
            "ndcg@20": trained.metrics["test"]["ndcg@20"],
            "epochs": record["epochs"],
            "train": record["seconds"]["train"],
            "evaluate": record["seconds"]["evaluate"],
            "peak": record["peak_memory_bytes"],
        }


def read(file: Path) -> Results:
    if not file.exists():
        return {}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {tuple(row[:4]): row[4] for row in rows}


def show(reference: str, results: Results) -> None:
    print(f"\n{Path(reference).name}")
    print(
        f"{'':12}{'features':10}{'seeds':>5}{'recall@20':>18}{'ndcg@20':>18}{'epochs':>8}"
        f"{'s/epoch':>9}{'s':>8}{'judging s':>10}{'peak MB':>9}"
    )
    for name, maker in dict.fromkeys(cell[1:3] for cell in results):
        runs = [result for cell, result in results.items() if cell[1:3] == (name, maker)]
        cells = []
        for metric in ("recall@20", "ndcg@20"):
            values = [one[metric] for one in runs]
            deviation = np.std(values, ddof=1) if len(values) > 1 else 0
            cells.append(f"{np.mean(values):.4f} ± {deviation:.4f}")
        epochs, seconds, judging = (
            np.mean([one[key] for one in runs]) for key in ("epochs", "train", "evaluate")
        )
        peak = max(one["peak"] for one in runs) / 2**20
        print(
            f"{name:12}{maker:10}{len(runs):>5}{cells[0]:>18}{cells[1]:>18}{epochs:>8.0f}"
            f"{seconds / max(epochs, 1):>9.3f}{seconds:>8.1f}{judging:>10.2f}{peak:>9,.0f}"
        )


if __name__ == "__main__":
    main()
