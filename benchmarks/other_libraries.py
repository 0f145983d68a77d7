"""LightGCN and BPR against lenskit's, cornac's and implicit's: same data, dimension and epochs.

    pip install lenskit==2025.8.1 cornac==3.0.1 implicit==0.7.3 dgl==1.1.3
    python benchmarks/other_libraries.py --dataset ../shared/data/office

In an environment of its own: the other libraries are no dependency of this project, and cornac's
LightGCN needs dgl. A library that is not installed is left out, and said to be. All are trained
on the honest training part, and every list is judged by the same code, which the tests hold
against a library of metrics. Every contender has its own default settings but for the learning
rate: so few epochs suit some rates better, and each gets the one of `RATES` that is best on
valid. Seconds are those of the training alone, medians over the seeds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
import torch

from sgfd.dataset import load_dataset
from sgfd.jobs import WorkFolder, keep_freed_memory, seed_everything, use_threads
from sgfd.recommenders import find_backbone, judge
from sgfd.recommenders.evaluation import Scores
from sgfd.recommenders.inputs import make_inputs
from sgfd.recommenders.protocols import SplitSets, split_interactions
from sgfd.recommenders.ranking import rank_by_vectors, vectors_of
from sgfd.recommenders.training import fit

RATES = (0.001, 0.005, 0.02, 0.1)
Vectors = tuple[Scores, Scores]
Train = Callable[[SplitSets, int, int, int, float], Vectors]  # width, epochs, seed, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", help="lightgcn or bpr")
    options = parser.parse_args()
    threads = use_threads(options.threads)
    keep_freed_memory()
    dataset = load_dataset(options.dataset)
    split = split_interactions(dataset.interactions, "honest")
    print(
        f"{dataset.name}, width {options.dimension}, {options.epochs} epochs, {threads} threads, "
        f"seeds 0..{options.seeds - 1}"
    )
    print(f"{'':20}{'rate':>7}{'recall@20':>18}{'ndcg@20':>18}{'seconds':>9}")
    for name, train in contenders(threads).items():
        if options.only and options.only not in name:
            continue
        library = name.partition("(")[2].rstrip(")")
        if library and find_spec(library) is None:
            print(f"{name:20}{library} is not installed: left out")
            continue
        work = options.dimension, options.epochs
        reached = {
            rate: recall(split, "valid", train(split, *work, 0, rate))["recall@20"]
            for rate in RATES
        }
        chosen = max(reached, key=reached.__getitem__)
        figures = []
        for seed in range(options.seeds):
            start = time.perf_counter()
            vectors = train(split, *work, seed, chosen)
            seconds = time.perf_counter() - start
            found = recall(split, "test", vectors)
            figures.append((found["recall@20"], found["ndcg@20"], seconds))
        table = np.array(figures)
        deviation = table.std(axis=0, ddof=1) if len(table) > 1 else np.zeros(3)
        print(
            f"{name:20}{chosen:>7g}"
            + "".join(f"{table[:, c].mean():>9.4f} ± {deviation[c]:.4f}" for c in (0, 1))
            + f"{np.median(table[:, 2]):>9.2f}",
            flush=True,
        )


def contenders(threads: int) -> dict[str, Train]:
    def ours(name: str) -> Train:
        return lambda split, *work: train_ours(name, split, *work)

    return {
        "lightgcn": ours("lightgcn"),
        "lightgcn (lenskit)": lambda *work: of_lenskit("lightgcn", *work),
        "lightgcn (cornac)": lightgcn_of_cornac,
        "bpr": ours("bpr"),
        "bpr (lenskit)": lambda *work: of_lenskit("bpr", *work),
        "bpr (cornac)": lambda *work: bpr_of_cornac(*work, threads=threads),
        "bpr (implicit)": lambda *work: bpr_of_implicit(*work, threads=threads),
    }


def recall(split: SplitSets, part: str, vectors: Vectors) -> dict[str, float]:
    rank = rank_by_vectors(*vectors, "inner_product")
    return judge(rank, split.seen_before(part), split.held_out(part)).metrics


def train_ours(
    name: str, split: SplitSets, width: int, epochs: int, seed: int, rate: float
) -> Vectors:
    kind = find_backbone(name)
    settings = replace(
        kind.Settings(), embedding_dim=width, epochs=epochs, patience=epochs, learning_rate=rate
    )
    inputs = make_inputs(split.train, {}, torch.device("cpu"))
    seed_everything(seed)
    model = kind(inputs, settings)
    with tempfile.TemporaryDirectory() as folder, WorkFolder(Path(folder) / "run", {}) as work:
        rising = count()  # the last epoch is the one that is kept, as in the other libraries
        fit(model, inputs, settings, seed, work, lambda _: float(next(rising)))
    return vectors_of(model)


def of_lenskit(
    preset: str, split: SplitSets, width: int, epochs: int, seed: int, rate: float
) -> Vectors:
    """Its flexible matrix factorisation, in torch."""
    import pandas as pd
    from lenskit.data import from_interactions_df
    from lenskit.flexmf import FlexMFImplicitScorer
    from lenskit.training import TrainingOptions

    user, item = pairs(split)
    data = from_interactions_df(pd.DataFrame({"user_id": user, "item_id": item}))
    scorer = FlexMFImplicitScorer(
        preset=preset,
        embedding_size=width,
        epochs=epochs,
        learning_rate=rate,
        batch_size=2048,
    )
    scorer.train(data, TrainingOptions(rng=seed, device="cpu"))
    model = scorer.model
    if model.layers:
        users, items = (
            rounds.sum(dim=0).detach().numpy() * model._layer_scale
            for rounds in (model.u_layers, model.i_layers)
        )
    else:
        users, items = (table.weight.detach().numpy() for table in (model.u_embed, model.i_embed))
    # Users and items without training interactions are not known to it.
    vectors = []
    for known, rows, n in (
        (data.users, users, split.train.n_users),
        (data.items, items, split.train.n_items),
    ):
        table = np.zeros((n, width), np.float32)
        table[known.ids()] = rows
        vectors.append(table)
    return vectors[0], vectors[1]


def lightgcn_of_cornac(
    split: SplitSets, width: int, epochs: int, seed: int, rate: float
) -> Vectors:
    from cornac.models import LightGCN

    model = LightGCN(
        emb_size=width, num_epochs=epochs, learning_rate=rate, batch_size=2048, seed=seed
    )
    model.fit(cornac_data(split))
    return model.U, model.V


def bpr_of_cornac(
    split: SplitSets, width: int, epochs: int, seed: int, rate: float, threads: int
) -> Vectors:
    from cornac.models import BPR

    # With several threads its result is not the same twice.
    model = BPR(k=width, max_iter=epochs, learning_rate=rate, num_threads=threads, seed=seed)
    model.fit(cornac_data(split))
    ones = np.ones((len(model.u_factors), 1), np.float32)
    items = np.hstack([model.i_factors, model.i_biases[:, None]])
    return np.hstack([model.u_factors, ones]), items.astype(np.float32)


def cornac_data(split: SplitSets) -> object:
    """The training part with its indices kept as they are."""
    from cornac.data import Dataset

    user, item = pairs(split)
    n_users, n_items = split.train.n_users, split.train.n_items
    return Dataset(
        n_users,
        n_items,
        {u: u for u in range(n_users)},
        {i: i for i in range(n_items)},
        (user, item, np.ones(len(user), np.float32)),
    )


def bpr_of_implicit(
    split: SplitSets, width: int, epochs: int, seed: int, rate: float, threads: int
) -> Vectors:
    from implicit.bpr import BayesianPersonalizedRanking
    from scipy.sparse import csr_matrix

    user, item = pairs(split)
    table = csr_matrix(
        (np.ones(len(user), np.float32), (user, item)),
        shape=(split.train.n_users, split.train.n_items),
    )
    model = BayesianPersonalizedRanking(
        factors=width,
        learning_rate=rate,
        iterations=epochs,
        num_threads=threads,
        random_state=seed,
        use_gpu=False,
    )
    model.fit(table, show_progress=False)
    return np.asarray(model.user_factors), np.asarray(model.item_factors)


def pairs(split: SplitSets) -> tuple[np.ndarray, np.ndarray]:
    return np.divmod(split.train.keys, split.train.n_items)


if __name__ == "__main__":
    main()
