"""Where the time of one epoch of BM3 goes: graph product, linear layers, optimiser, elsewhere.

    python benchmarks/bm3_epoch.py --dataset ../shared/data/office

The parts are timed alone, with the shapes and the number of calls that an epoch has, and set
against whole epochs in the same run; elsewhere is the rest. Features are random vectors of the
distilled width with the data set's gaps, which cost what real ones do.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from sgfd.dataset import load_dataset
from sgfd.jobs import keep_freed_memory, use_threads
from sgfd.recommenders.backbones.bm3 import BM3, BM3Settings
from sgfd.recommenders.inputs import ModalityFeatures, make_inputs
from sgfd.recommenders.optimizer import Adam
from sgfd.recommenders.protocols import split_interactions
from sgfd.recommenders.sampling import EpochBatches
from sgfd.recommenders.training import take_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    threads = use_threads(options.threads)
    keep_freed_memory()
    dataset = load_dataset(options.dataset)
    split = split_interactions(dataset.interactions, "honest")
    torch.manual_seed(0)
    features = {
        name: ModalityFeatures(
            torch.randn(feature.shape[0], 128) * torch.from_numpy(feature.present)[:, None],
            torch.from_numpy(feature.present),
        )
        for name, feature in (dataset.catalog.features if dataset.catalog else {}).items()
    }
    inputs = make_inputs(split.train, features, torch.device("cpu"))
    settings = BM3Settings()
    model = BM3(inputs, settings)
    optimizer = Adam(model.parameters(), settings.learning_rate)

    def epoch(number: int) -> None:
        for batch in EpochBatches(inputs, settings.batch_size, 0, 0, number).start_at(0):
            take_step(model, batch, optimizer)

    users, items = model.users.weight.detach(), model.items.weight.detach()
    steps = len(EpochBatches(inputs, settings.batch_size, 0, 0, 1))
    rows = min(settings.batch_size, len(inputs.users))
    linear = linear_layers(model, rows, len(features))
    kinds: dict[str, Callable[[], object]] = {
        "graph product": lambda: [
            model.graph.mean_of_rounds(users, items, settings.layers) for _ in range(2 * steps)
        ],
        "linear layers": lambda: [linear() for _ in range(steps)],
        "optimiser": lambda: [optimizer.step() for _ in range(steps)],
    }
    epoch(0)
    rounds = []
    for number in range(options.epochs):  # in turns: a busy spell meets them all
        whole = seconds(lambda n=number: epoch(n))
        parts = {name: seconds(work) for name, work in kinds.items()}
        rounds.append({"one epoch": whole, **parts, "elsewhere": whole - sum(parts.values())})
    print(f"{dataset.name}, {steps} steps of {rows}, {len(features)} modalities, {threads} threads")
    for name in rounds[0]:
        times = [r[name] for r in rounds]
        shares = [r[name] / r["one epoch"] for r in rounds]
        print(f"{name:14}{np.median(times):.3f} s  {np.median(shares):6.1%}")


def linear_layers(model: BM3, rows: int, modalities: int) -> Callable[[], None]:
    """Forward and backward of a step's linear layers: the predictor on all views, and each
    modality's projection (whose input needs no gradient)."""
    d = model.settings.embedding_dim
    views = [torch.randn(rows, d, requires_grad=True) for _ in range(2 + modalities)]
    gradient = torch.randn(rows, d)
    z = [torch.randn(rows, projection.in_features) for projection in model.projections]

    def work() -> None:
        for view in views:
            model.predictor(view).backward(gradient)
        for projection, content in zip(model.projections, z, strict=True):
            projection(content).backward(gradient)

    return work


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
