"""What else was tried for known items: variants of EASE, the best of all here, beside EASE itself.

    python benchmarks/ease_variants.py --dataset ../shared/data/office

Judged on the valid parts of `--splits` random splits, with `sgfd-plus` made anew on the training
part of each; their test parts are not looked at. p-values, against EASE as it is, are of the
corrected resampled t-test over the splits (see `ablation.py`), not corrected for their number.

With G = A' D^-a A / g the co-interactions, K the kernel of the features and r_u a user's training
items, EASE is r_u B, B = I - P diag(P)^-1, P = (G + content_weight K + regularization I)^-1 (see
`recommenders/backbones/ease.py`). A variant has another K, another penalty, or adds something to
r_u B, of a quarter of its size by the root of the mean square of the scores; it has the one size
that is named, and all else as EASE has it: none is tuned.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from ablation import resampled_p_value
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds
from torch.nn import functional

from sgfd import featureset
from sgfd.dataset import Pairs, divide, load_dataset
from sgfd.distill import SGFDPlusSettings, distill
from sgfd.jobs import use_threads
from sgfd.recommenders.backbones.ease import EASESettings, item_weights
from sgfd.recommenders.comparison.statistics import p_text

CUTOFF = 20
ADDED = 0.25
NEIGHBOURS = 10
WIDE = 256
SETTINGS = EASESettings()

Matrix = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    use_threads(options.threads)
    dataset = load_dataset(options.dataset)
    interactions = dataset.interactions
    assert interactions is not None
    shape = (interactions.n_users, interactions.n_items)
    recalls: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        distill(dataset, Path(folder) / "generic", method="standard")
        for split in range(options.splits):
            cosines = {"generic": cosines_of(Path(folder) / "generic", interactions.items.ids)}
            for width in (SGFDPlusSettings().dimension, WIDE):
                place = Path(folder) / f"{width}-{split}"
                settings = SGFDPlusSettings(dimension=width, held_out_share=0)
                distill(
                    dataset, place, settings, method="sgfd-plus", split="random", split_seed=split
                )
                cosines[str(width)] = cosines_of(place, interactions.items.ids)
            parts = divide(interactions, "honest", "random", split)
            train, valid = matrix(parts.train, shape), matrix(parts.valid, shape)
            for name, scores in variants(train, cosines):
                recalls.setdefault(name, []).append(recall(scores, train, valid))
    print(f"\n{dataset.name}: Recall@{CUTOFF} on valid, mean of {options.splits} random splits\n")
    print("| | Recall@20 | against EASE as it is |\n| --- | --- | --- |")
    base = np.array(recalls["as it is"])
    valid_to_training = len(parts.valid) / len(parts.train)
    for name, figures in recalls.items():
        one, text = np.array(figures), ""
        if name != "as it is":
            p = resampled_p_value(one - base, valid_to_training)
            text = f"{one.mean() / base.mean() - 1:+.1%} (p {p_text(p)})"
        print(f"| {name} | {one.mean():.4f} | {text} |")


def variants(a: csr_array, cosines: dict[str, Matrix]) -> Iterator[tuple[str, Matrix]]:
    """By name, the scores (U, I).

    Args:
        a: training interactions (U, I).
        cosines: of the items by each of M modalities (M, I, I), for each feature set.
    """
    distilled = cosines[str(SGFDPlusSettings().dimension)]
    own, g, k = distilled.mean(axis=0), co_interactions(a), kernel(distilled)
    plain = ease(g, k)
    scores = a @ plain
    yield "as it is", scores
    yield "no features", a @ ease(g, np.zeros_like(k))
    yield "generic features", a @ ease(g, kernel(cosines["generic"]))
    yield "256 columns", a @ ease(g, kernel(cosines[str(WIDE)]))
    yield (
        "distilled and generic features, half each",
        a @ ease(g, (k + kernel(cosines["generic"])) / 2),
    )
    yield "Gaussian kernel, scale 0.5", a @ ease(g, np.exp((own - 1) / 0.5**2))
    yield "kernel of the 10 nearest alone", a @ ease(g, nearest(own, k) + np.eye(len(k)))
    for share in (0.1, 0.3):
        yield f"dropout of {share:g}, in closed form (EDLAE)", a @ ease(g, k, dropout=share)
    reproduced = g + SETTINGS.content_weight * k
    yield "no zero diagonal", a @ np.linalg.solve(penalised(g, k), reproduced)
    yield "popularity^-0.2 of what is scored", scores * popularity(a) ** -0.2
    yield "popularity^0.2 of what is scored", scores * popularity(a) ** 0.2
    yield "popularity^-0.2 of the history", (a @ diags_array(popularity(a) ** -0.2)) @ plain
    added = {
        "two steps (B B)": scores @ plain,
        "the 64 smoothest patterns": smooth(a, 64),
        "the 10 nearest by feature": a @ nearest(own, own),
        "users alike": users_alike(a),
    }
    for name, other in added.items():
        yield f"with {name}", scores + ADDED * size(scores) / size(other) * other
    weights = [ease(co_interactions(a, power), k) for power in (0.2, 1.0)]
    yield "mean of user exponents 0.2 and 1", a @ (sum(weights) / 2)


def ease(g: Matrix, k: Matrix, dropout: float = 0.0) -> Matrix:
    """B (I, I). Dropout adds p / (1 - p) diag(G) to the penalty (Steck, NeurIPS 2020, eq. 5)."""
    equations = penalised(g, k) + np.diag(dropout / (1 - dropout) * np.diagonal(g))
    return item_weights(torch.from_numpy(equations)).numpy()


def penalised(g: Matrix, k: Matrix) -> Matrix:
    equations: Matrix = g + SETTINGS.content_weight * k + SETTINGS.regularization * np.eye(len(g))
    return equations


def co_interactions(a: csr_array, power: float = SETTINGS.user_exponent) -> Matrix:
    """G (I, I), its mean diagonal over the items with interactions 1."""
    degrees = np.maximum(a.sum(axis=1), 1)
    g: Matrix = (a.T @ (diags_array(degrees**-power) @ a)).toarray()
    own = np.diagonal(g)
    return g / own[own > 0].mean()


def kernel(cosines: Matrix) -> Matrix:
    alike: Matrix = (np.maximum(cosines, 0) ** SETTINGS.kernel_degree).mean(axis=0)
    return alike


def nearest(cosines: Matrix, values: Matrix) -> Matrix:
    """The values (I, I) of each item's nearest others, either's of the other, 0 elsewhere."""
    others = cosines - 2 * np.eye(len(cosines))
    least = np.partition(others, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS]
    near = others >= least[:, None]
    kept: Matrix = np.where(near | near.T, values, 0.0)
    return kept


def popularity(a: csr_array) -> Matrix:
    degrees: Matrix = np.maximum(a.sum(axis=0), 1)
    return degrees


def smooth(a: csr_array, rank: int) -> Matrix:
    """The histories through the ideal low-pass filter of GF-CF, normalised by degree."""
    users, items = np.maximum(a.sum(axis=1), 1) ** -0.5, popularity(a) ** -0.5
    _, _, patterns = svds(diags_array(users) @ a @ diags_array(items), rank, rng=0)
    scores: Matrix = ((a @ diags_array(items)) @ patterns.T) @ patterns / items
    return scores


def users_alike(a: csr_array) -> Matrix:
    """What users with like histories have: cosines times their items."""
    unit = diags_array(np.maximum(a.sum(axis=1), 1) ** -0.5) @ a
    return (unit @ (unit.T @ a)).toarray()


def size(scores: Matrix) -> float:
    return float(np.sqrt(np.square(scores).mean()))


def recall(scores: Matrix, train: csr_array, wanted: csr_array) -> float:
    """Recall@20 over the items that are not in training, mean over the users who want any."""
    users = np.flatnonzero(wanted.sum(axis=1) > 0)
    unseen = np.where(train[users].toarray() > 0, -np.inf, scores[users])
    best = np.argpartition(-unseen, CUTOFF, axis=1)[:, :CUTOFF]
    liked = wanted[users].toarray()
    hits = np.take_along_axis(liked, best, axis=1).sum(axis=1)
    return float((hits / liked.sum(axis=1)).mean())


def cosines_of(path: Path, ids: NDArray[np.object_]) -> Matrix:
    """Cosines (M, I, I) of a data set's items by each modality; 0 where one is lacking."""
    features = featureset.load(path)
    rows = features.align(ids).rows
    found = []
    for name in features.manifest.usual_modalities:
        stored = np.nan_to_num(features.modalities[name][np.maximum(rows, 0)])
        stored[rows < 0] = 0
        unit = functional.normalize(torch.from_numpy(stored).double(), dim=1).numpy()
        found.append(unit @ unit.T)
    return np.stack(found)


def matrix(pairs: Pairs, shape: tuple[int, int]) -> csr_array:
    a = csr_array((np.ones(len(pairs)), (pairs.user, pairs.item)), shape=shape)
    a.data[:] = 1
    return a


if __name__ == "__main__":
    main()
