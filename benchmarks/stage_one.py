"""Cost of each loss of stage one: time of an epoch, against that of the paper's losses, and memory.

    python benchmarks/stage_one.py --dataset ../shared/data/office
    python benchmarks/stage_one.py --items 23000 --users 39000 --width 5120 --epochs 1

An epoch of `sgfd` goes over the items, one of `sgfd-plus` over the users. Every variant is a
process of its own; they take turns, and the ratio is that of the medians.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sgfd.dataset import Dataset, divide, load_dataset
from sgfd.distill import SGFDPlusSettings, SGFDSettings
from sgfd.distill.batches import ItemReader
from sgfd.distill.fused import FusedRows
from sgfd.distill.interaction_metric import unit_scale_weight
from sgfd.distill.maker import Task
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.sgfd import SGFD
from sgfd.distill.sgfd_plus import Profiles, SGFDPlus
from sgfd.distill.training import Trainable, shuffled
from sgfd.jobs import keep_freed_memory, peak_memory_bytes, use_threads

VARIANTS: dict[str, dict[str, Any]] = {
    "sgfd": {},
    "sgfd-plus": {},
    "not nested": {"nested": False},
    "with structure": {"structure_weight": 1.0},
    "with semantic": {"semantic_weight": 0.1},
    "structure alone": {"interaction_weight": 0.0, "structure_weight": 1.0},
    "512 candidates": {"candidates": 512},
    "1,024 users": {"batch_size": 1024},
    "2,048 users": {"batch_size": 2048},
    "2,048, not nested": {"batch_size": 2048, "nested": False},
    "and no dropout": {
        "batch_size": 2048,
        "nested": False,
        "dropout": 0.0,
        "modality_dropout": 0.0,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--items", type=int, help="make a data set up, of so many items")
    parser.add_argument("--users", type=int, default=10_000, help="of what is made up")
    parser.add_argument("--width", type=int, default=768, help="columns of what is made up")
    parser.add_argument("--epochs", type=int, default=3, help="to time, after one to warm up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--one", choices=VARIANTS, help="measure this alone (a child's work)")
    options = parser.parse_args()
    threads = use_threads(options.threads)
    keep_freed_memory()
    if options.one:
        print(json.dumps(measure(options.one, load_dataset(options.dataset), options.epochs)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.items:
            options.dataset = folder
            write_made_up(Path(folder), options.items, options.users, options.width)
        compare(options, threads)


def compare(options: argparse.Namespace, threads: int) -> None:
    """Time every variant in processes of their own, and print the table."""
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    peak = dict.fromkeys(VARIANTS, 0)
    for _ in range(options.rounds):
        for name in VARIANTS:
            command = [sys.executable, __file__, "--dataset", options.dataset, "--one", name]
            command += ["--epochs", str(options.epochs), "--threads", str(threads)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            row = json.loads(done.stdout)
            seconds[name].append(row["seconds"])
            peak[name] = max(peak[name], row["peak"])
    floor = float(np.median(seconds["sgfd"]))
    made_up = f"{options.items} items, {options.users} users, {options.width} columns"
    print(f"{made_up if options.items else options.dataset}, {threads} threads")
    print(f"{'':18}{'s/epoch':>9}{'to sgfd':>9}{'peak MB':>9}")
    for name, times in seconds.items():
        median = float(np.median(times))
        print(f"{name:18}{median:>9.3f}{median / floor:>9.2f}{peak[name] / 2**20:>9,.0f}")


def write_made_up(folder: Path, items: int, users: int, width: int) -> None:
    """Random features in two modalities, about 4 to 1, 20 categories, 6 random items a user."""
    random = np.random.default_rng(0)
    text = max(1, width // 5)
    for name, columns in (("image", width - text), ("text", text)):
        np.save(folder / f"{name}.npy", random.random((items, columns), dtype=np.float32))
    ids = [str(item) for item in range(items)]
    category = [f"category {n}" for n in random.integers(20, size=items)]
    pd.DataFrame({"item_id": ids, "category": category}).to_parquet(folder / "items.parquet")
    drawn = random.integers(items, size=6 * users)
    pairs = pd.DataFrame({"user_id": np.arange(6 * users) // 6, "item_id": drawn}).astype(str)
    pairs["split"] = np.resize(["train", "train", "train", "train", "valid", "test"], len(pairs))
    pairs.drop_duplicates(["user_id", "item_id"]).to_parquet(folder / "interactions.parquet")


def measure(name: str, dataset: Dataset, epochs: int) -> dict[str, float]:
    epoch = paper_epoch(dataset) if name == "sgfd" else plus_epoch(dataset, VARIANTS[name])
    times = []
    for number in range(epochs + 1):
        start = time.perf_counter()
        epoch(number)
        times.append(time.perf_counter() - start)
    return {"seconds": float(np.median(times[1:])), "peak": peak_memory_bytes()}


def paper_epoch(dataset: Dataset) -> Callable[[int], None]:
    task, settings = task_of(dataset), SGFDSettings()
    reader = ItemReader(task.catalog, task.standardisation, task.device)
    widths = {name: feature.dimension for name, feature in task.catalog.features.items()}
    model = SGFD(widths, len(task.catalog.label_names), settings)
    items, size = np.arange(task.catalog.n_items), settings.batch_size
    return steps(model, lambda number: shuffled(items, size, 0, number), reader.read)


def plus_epoch(dataset: Dataset, changes: dict[str, Any]) -> Callable[[int], None]:
    task, settings = task_of(dataset), SGFDPlusSettings(**changes)
    catalog = task.catalog
    assert dataset.interactions is not None
    train = divide(dataset.interactions, "honest", "given", 0).train
    pairs = TrainingPairs.of(train.user, train.item, dataset.interactions.n_users, catalog.n_items)
    rows = FusedRows(catalog.features, task.standardisation, task.device)
    start = unit_scale_weight(rows, pairs, settings)
    model = SGFDPlus(start, rows.widths, len(catalog.label_names), settings)
    labels = np.full(catalog.n_items, -1) if catalog.labels is None else catalog.labels
    profiles = Profiles(rows, pairs, torch.from_numpy(labels), settings, 0, task.device)
    return steps(model, profiles.batches, profiles.read)


def task_of(dataset: Dataset) -> Task:
    assert dataset.catalog is not None
    return Task(dataset.catalog, 0, torch.device("cpu"), work=None)  # type: ignore[arg-type]


def steps(
    model: Trainable, batches: Callable[[int], list[Any]], read: Callable[[Any], Any]
) -> Callable[[int], None]:
    optimizer = torch.optim.Adam(model.parameters(), model.settings.learning_rate)
    model.train()

    def epoch(number: int) -> None:
        for batch in batches(number):
            loss = torch.stack(list(model.loss(read(batch)).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return epoch


if __name__ == "__main__":
    main()
