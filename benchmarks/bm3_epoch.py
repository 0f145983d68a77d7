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
from sgfd.jobs import use_threads
from sgfd.recommenders.backbones.bm3 import BM3, BM3Settings
from sgfd.recommenders.inputs import ModalityFeatures, make_inputs
from sgfd.recommenders.protocols import split_interactions
from sgfd.recommenders.sampling import EpochBatches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    threads = use_threads(options.threads)
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
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate, fused=True)

    def epoch(number: int) -> None:
        for batch in EpochBatches(inputs, settings.batch_size, 0, 0, number).start_at(0):
            values = torch.stack(list(model.loss(batch).values()))
            optimizer.zero_grad()
            values.sum().backward()
            optimizer.step()

    epoch(0)
    whole = median(lambda: epoch(1), options.epochs)
    steps = len(EpochBatches(inputs, settings.batch_size, 0, 0, 1))
    rows = min(settings.batch_size, len(inputs.users))
    users, items = model.users.weight.detach(), model.items.weight.detach()
    graph = steps * 2 * median(lambda: model.graph.mean_of_rounds(users, items, settings.layers))
    linear = steps * linear_seconds(model, rows, len(features))
    step = steps * median(optimizer.step)
    print(f"{dataset.name}, {steps} steps of {rows}, {len(features)} modalities, {threads} threads")
    print(f"one epoch      {whole:.3f} s")
    rest = whole - graph - linear - step
    for name, seconds in (
        ("graph product", graph),
        ("linear layers", linear),
        ("optimiser", step),
        ("elsewhere", rest),
    ):
        print(f"  {name:14}{seconds:.3f} s  {seconds / whole:6.1%}")


def linear_seconds(model: BM3, rows: int, modalities: int) -> float:
    """Forward and backward of a step's linear layers: the predictor on all views, and each
    modality's projection (whose input needs no gradient)."""
    d = model.settings.embedding_dim
    x = torch.randn((2 + modalities) * rows, d, requires_grad=True)
    gradient = torch.randn_like(x)
    seconds = median(lambda: model.predictor(x).backward(gradient))
    if modalities:
        projection = model.projections[0]
        z = torch.randn(rows, projection.in_features)
        seconds += modalities * median(lambda: projection(z).backward(gradient[:rows]))
    return seconds


def median(work: Callable[[], object], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))


if __name__ == "__main__":
    main()
