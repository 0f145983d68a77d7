"""Every backbone: time of an epoch, peak memory, and how much of the time is spent outside kernels.

    python benchmarks/backbones.py --dataset ../shared/data/office
    python benchmarks/backbones.py --users 100000 --items 50000 --interactions 2000000

Features are random vectors of the distilled width. Each backbone runs in a process of its own.
`outside` is the share of an epoch that is spent outside tensor kernels: sampling, and what the same
number of steps takes where there is next to nothing to compute (two users, two items, vectors of
width 4, the same operations). All times
are medians, of steps and of the samplings of several epochs: a first one meets cold caches, and
where other work runs beside it a mean tells of that work. The steps are those of the training.
Of a backbone that is not trained it is the time in which it is built.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle
from typing import NamedTuple

import numpy as np
import torch

from sgfd.dataset import load_dataset
from sgfd.jobs import keep_freed_memory, peak_memory_bytes, use_threads
from sgfd.recommenders import ItemSets, backbone_places, find_backbone
from sgfd.recommenders.inputs import Inputs, ModalityFeatures, make_inputs
from sgfd.recommenders.optimizer import Adam
from sgfd.recommenders.protocols import split_interactions
from sgfd.recommenders.sampling import EpochBatches
from sgfd.recommenders.training import take_step

WIDTH = 128
# Settings that say how much an operation computes, not how many operations there are.
WIDTHS = ("embedding_dim", "factors", "latent_dim", "content_dim", "hidden_dim")
EPOCHS = 5  # whose preparing and sampling are timed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", help="with commas between [all]")
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--users", type=int)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--interactions", type=int, default=2_000_000)
    parser.add_argument("--modalities", type=int, default=2)
    parser.add_argument(
        "--steps", type=int, default=60, help="how many to time: an epoch is scaled from them"
    )
    parser.add_argument("--one", help="measure this alone (a child's work)")
    options = parser.parse_args()
    use_threads(None)
    keep_freed_memory()
    if options.one:
        print(json.dumps(measure(options.one, make(options), options.steps)))
        return
    names = options.backbones.split(",") if options.backbones else list(backbone_places())
    print(f"{'':12}{'s/epoch':>9}{'pairs/s':>10}{'peak MB':>9}{'outside':>9}")
    for name in names:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name:12}failed: {done.stderr.strip().splitlines()[-1:]}")
            continue
        row = json.loads(done.stdout)
        print(
            f"{name:12}{row['epoch']:>9.3f}{row['pairs']:>10,.0f}{row['peak'] / 2**20:>9,.0f}"
            + (f"{row['outside']:>9.0%}" if "outside" in row else f"{'-':>9}"),
            flush=True,
        )


def make(options: argparse.Namespace) -> Inputs:
    if options.users is None:
        dataset = load_dataset(options.dataset)
        seen = split_interactions(dataset.interactions, "honest").train
    else:
        rng = np.random.default_rng(0)
        user = rng.integers(0, options.users, options.interactions)
        item = (options.items * rng.random(options.interactions) ** 2).astype(np.int64)
        seen = ItemSets.from_pairs(user, item, options.users, options.items)
    present = torch.ones(seen.n_items, dtype=torch.bool)
    features = {
        f"modality_{number}": ModalityFeatures(torch.randn(seen.n_items, WIDTH), present)
        for number in range(options.modalities)
    }
    return make_inputs(seen, features, torch.device("cpu"))


class Times(NamedTuple):
    """Seconds of an epoch's parts, and how many steps it has."""

    preparing: float
    sampling: float
    step: float
    steps: int


def measure(name: str, inputs: Inputs, steps: int) -> dict[str, float]:
    kind = find_backbone(name)
    if not kind.trained:
        built = median(lambda _: kind(inputs, kind.Settings()), 1)
        return {"epoch": built, "pairs": len(inputs.users) / built, "peak": peak_memory_bytes()}
    fields = kind.Settings.__dataclass_fields__
    narrow = dict.fromkeys([width for width in WIDTHS if width in fields], 4)
    overhead = time_parts(name, nothing_to_compute(inputs), 100, narrow).step
    times = time_parts(name, inputs, steps, {})
    epoch = times.preparing + times.sampling + times.steps * times.step
    return {
        "epoch": epoch,
        "pairs": len(inputs.users) / epoch,
        "peak": peak_memory_bytes(),
        "outside": (times.sampling + times.steps * overhead) / epoch,
    }


def nothing_to_compute(inputs: Inputs) -> Inputs:
    """Two users with an item each, features of width 4: one batch."""
    each = np.arange(2)
    features = {
        name: ModalityFeatures(modality.values[:2, :4].contiguous(), modality.present[:2])
        for name, modality in inputs.features.items()
    }
    return make_inputs(ItemSets.from_pairs(each, each, 2, 2), features, torch.device("cpu"))


def time_parts(name: str, inputs: Inputs, steps: int, changed: dict[str, int]) -> Times:
    kind = find_backbone(name)
    torch.manual_seed(0)
    settings = kind.Settings(**changed)
    model = kind(inputs, settings)
    optimizer = Adam(model.parameters(), settings.learning_rate)
    model.train()

    def batches_of(epoch: int) -> EpochBatches:
        return EpochBatches(inputs, settings.batch_size, model.negatives, 0, epoch)

    preparing = median(
        lambda epoch: model.begin_epoch(torch.Generator().manual_seed(epoch)), EPOCHS
    )
    sampling = median(batches_of, EPOCHS)
    batches = batches_of(0)
    endless = cycle(list(batches.start_at(0)))
    step = median(lambda _: take_step(model, next(endless), optimizer), steps)
    return Times(preparing, sampling, step, len(batches))


def median(work: Callable[[int], object], repeats: int) -> float:
    """Seconds of the work, the median of the repeats but for the first two."""
    times = []
    for number in range(repeats + 2):
        start = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))


if __name__ == "__main__":
    main()
