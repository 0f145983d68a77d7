"""How far a distillation could go: feature sets guided by the answers themselves.

    python benchmarks/ceiling.py --dataset ../shared/data/office

Whole items are held out, and ranked among themselves by nearest neighbour (`content`), the mean of
`--splits` splits. Beside the generic features (`standard`) and what training interactions alone
give (`interaction-metric`, which takes no time), three oracles that saw ALL interactions, those
of the held-out items included:

    oracle linear map       the same closed form: one linear layer on the content
    oracle student          `sgfd-plus`, trained: one linear layer on the content
    oracle vectors          no content at all: 128 leading left singular vectors of the normalised
                            interactions, times the singular values

The first two bound what guidance can do for a linear student; what is between them and the third is
not in the content, or not in a linear map of it. `a half` and `a quarter` of the users guide the
closed form as well, to show what more interactions are worth.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds

from sgfd import featureset
from sgfd.dataset import (
    Dataset,
    Feature,
    Interactions,
    ItemCatalog,
    Pairs,
    divide,
    load_dataset,
)
from sgfd.distill import SGFDPlusSettings, distill
from sgfd.recommenders import train

WIDTH = 128
OF_METHOD = {"sgfd-plus": SGFDPlusSettings(held_out_share=0)}  # its own figures are not asked for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--splits", type=int, default=5)
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        everything = with_all_pairs(dataset)
        oracles = {
            "oracle linear map": (everything, "interaction-metric"),
            "oracle student": (everything, "sgfd-plus"),
            "oracle vectors": (with_vectors(everything), "raw"),
        }
        distill(dataset, place / "standard", method="standard")
        for name, (seen, method) in oracles.items():
            settings = OF_METHOD.get(method)
            distill(seen, place / name, settings, method=method, protocol="paper")
        rows: dict[str, list[tuple[float, float]]] = {}
        for split in range(options.splits):
            guided = place / f"guided{split}"
            parts = {"split": "cold-items", "split_seed": split}
            distill(dataset, guided, method="interaction-metric", **parts)
            sets = {"standard": place / "standard", "interaction-metric": guided}
            assert dataset.interactions is not None
            train_part = divide(dataset.interactions, "honest", "cold-items", split).train
            for name, one_of in (("a half of the users", 2), ("a quarter", 4)):
                some = train_part.take(train_part.user % one_of == 0)
                sets[name] = place / f"{name}{split}"
                seen = with_pairs(dataset, some)
                distill(seen, sets[name], method="interaction-metric", protocol="paper")
            for name, path in (sets | {name: place / name for name in oracles}).items():
                features = featureset.load(path)
                run = train(
                    dataset,
                    "content",
                    features,
                    trust_features=True,
                    runs_root=place / "runs",
                    name=f"{name}{split}",
                    **parts,
                )
                judged = run.metrics["test_among_cold"]
                rows.setdefault(name, []).append((judged["recall@20"], judged["ndcg@20"]))
    print(f"\n{dataset.name}, {options.splits} splits, cold items among themselves")
    base = np.mean(rows["standard"], axis=0)
    for name, figures in rows.items():
        recall, ndcg = np.mean(figures, axis=0)
        print(f"{name:20}{recall:.4f} / {ndcg:.4f}  {recall / base[0] - 1:+.1%}")


def with_all_pairs(dataset: Dataset) -> Dataset:
    """The data set with every interaction in training."""
    known = dataset.interactions
    assert known is not None
    parts = [part for part in (known.train, known.valid, known.test) if part is not None]
    user, item = (np.concatenate([getattr(p, name) for p in parts]) for name in ("user", "item"))
    return with_pairs(dataset, Pairs(user, item))


def with_pairs(dataset: Dataset, pairs: Pairs) -> Dataset:
    """The data set with these training interactions, and no others."""
    known = dataset.interactions
    assert known is not None
    nothing = pairs.take(np.arange(0))
    interactions = Interactions(known.users, known.items, pairs, None, nothing)
    return replace(dataset, interactions=interactions)


def with_vectors(dataset: Dataset) -> Dataset:
    """The data set whose only modality is made of its interactions."""
    known, catalog = dataset.interactions, dataset.catalog
    assert known is not None and catalog is not None
    ones = np.ones(len(known.train))
    pairs = csr_array((ones, (known.train.item, known.train.user)))
    items, users = (np.maximum(pairs.sum(axis=axis), 1) ** -0.5 for axis in (1, 0))
    left, values, _ = svds(diags_array(items) @ pairs @ diags_array(users), WIDTH, rng=0)
    vectors = np.zeros((catalog.n_items, WIDTH), dtype=np.float32)
    vectors[: len(left)] = left * values
    place = {identity: row for row, identity in enumerate(known.items.ids)}
    rows = vectors[[place.get(identity, -1) for identity in catalog.items.ids]]
    features = {"interactions": Feature.from_array("interactions", rows)}
    return replace(dataset, catalog=ItemCatalog(catalog.items, features))


if __name__ == "__main__":
    main()
