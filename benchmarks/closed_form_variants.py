"""What else was tried for new items: variants of the closed form, beside the closed form itself.

    python benchmarks/closed_form_variants.py --dataset ../shared/data/office

A fifth of the items of the TRAINING part is held out with its interactions, `--splits` times, and
found again among itself by nearest neighbour: nothing of valid or test is looked at. Every variant
gives 128 columns. p-values, against the closed form, are of the corrected resampled t-test over the
splits (see `ablation.py`), not corrected for their number.

Every variant is of one form. With U the generic rows of `distill/fused.py`, C the co-interactions
of `distill/interaction_metric.py` and S the items' inner products by content, those of the vectors
follow

    strength T C T' + content S,   T = F (F'F + ridge I)^-1 F',

T the smoother that predicts from content what is known of the known items, F = U in the closed
form; the leading directions of these products over the catalogue, whose content is all known, are
the columns. A variant has another C, T or S.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import scipy.linalg
import torch
from ablation import resampled_p_value
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import svds

from sgfd.dataset import ItemCatalog, divide, load_dataset
from sgfd.distill import InteractionMetricSettings
from sgfd.distill.fused import FusedRows, linear_map
from sgfd.distill.held_out import HeldOutItems, hold_items_out
from sgfd.distill.interaction_metric import metric_weight
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.streaming import column_statistics
from sgfd.jobs import use_threads
from sgfd.recommenders.comparison.statistics import p_text

HELD_OUT = 0.2
SETTINGS = InteractionMetricSettings()
KERNEL_RIDGE = 0.3

Matrix = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--splits", type=int, default=6)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    use_threads(options.threads)
    dataset = load_dataset(options.dataset)
    catalog, interactions = dataset.catalog, dataset.interactions
    assert catalog is not None and interactions is not None
    columns = {name: column_statistics(feature) for name, feature in catalog.features.items()}
    rows = FusedRows(catalog.features, columns, torch.device("cpu"))
    train = divide(interactions).train
    shape = (interactions.n_users, catalog.n_items)
    pairs = TrainingPairs.of(train.user, train.item, *shape)
    recalls: dict[str, list[float]] = {}
    for split in range(options.splits):
        held_out = hold_items_out(pairs, HELD_OUT, split)
        judge, known = HeldOutItems.of(pairs, held_out), pairs.without(held_out)
        assert judge is not None, "no user has items on both sides"
        for name, vectors in variants(rows, known, catalog):
            recalls.setdefault(name, []).append(judge.recall(vectors))
    print(f"{dataset.name}, {options.splits} splits of the training part\n")
    print("| | Recall@20 | against generic | against the closed form |\n| --- | --- | --- | --- |")
    generic, closed, *_ = figures = [np.array(one) for one in recalls.values()]
    for name, one in zip(recalls, figures, strict=True):
        others = [
            "" if one is other else f"{one.mean() / other.mean() - 1:+.1%}"
            for other in (generic, closed)
        ]
        if others[1]:
            share = HELD_OUT / (1 - HELD_OUT)
            others[1] += f" (p {p_text(resampled_p_value(one - closed, share))})"
        print(f"| {name} | {one.mean():.4f} |", " | ".join(others), "|", flush=True)


Vectors = Callable[[NDArray[np.int64]], torch.Tensor]


def variants(
    rows: FusedRows, known: TrainingPairs, catalog: ItemCatalog
) -> Iterator[tuple[str, Vectors]]:
    """By name, what reads the vectors (k, d) of items; the generic ones and the closed form first.

    Args:
        known: the pairs of the items that are not held out.
    """
    yield "generic", rows.read_all
    weight = metric_weight(rows, known, SETTINGS)
    yield "closed form", lambda index: rows.read_all(index, then=linear_map(weight))
    items = np.arange(catalog.n_items)
    u = rows.read_all(items).numpy().astype(np.float64)
    seen = known.items
    c, linear = co_interactions(known), smoother(u, seen, SETTINGS.ridge)

    def of(c: Matrix, smooth: Matrix = linear, content: Matrix = u) -> Vectors:
        return table(leading_directions(c[np.ix_(seen, seen)], smooth, content))

    def of_content(content: Matrix) -> Vectors:
        return of(c, smoother(content, seen, SETTINGS.ridge), content)

    for power in (0.0, 0.25):
        yield f"C's items by degree^-{power:g}, not -0.5", of(co_interactions(known, power))
    for power in (0.5, 2.0):
        yield f"C's users by degree^-{power:g}, not -1", of(co_interactions(known, 0.5, power))
    for rank in (32, 128):
        yield f"C of rank {rank}", of(co_interactions(known, rank=rank))
    twice = c @ c
    yield "C and 0.3 C C, of C's norm", of(c + 0.3 * twice * norm(c) / norm(twice))
    weights = np.sqrt(known.item_degrees[seen])
    by_degree = smoother(u, seen, SETTINGS.ridge, weights / weights.mean())
    yield "ridge that heeds an item by degree^0.5", of(c, by_degree)
    if len(rows.widths) == 2 and not all(f.present.all() for f in catalog.features.values()):
        filled = lacking_predicted(u, rows.widths[0])
        yield "a lacking modality predicted from the other", of_content(filled)
    own = unit(u @ weight.numpy().T)
    yield "one more column: popularity, predicted", table(with_popularity(own, u, known))
    if catalog.labels is not None:
        yield "labels beside the content", of_content(with_labels(u, catalog.labels))
    for scale in (0.7, 1.0):
        kernel = np.exp((u @ u.T - 1) / scale**2)
        among = kernel[np.ix_(seen, seen)] + KERNEL_RIDGE * np.eye(len(seen))
        smooth = scipy.linalg.solve(among, kernel[seen], assume_a="pos").T
        yield f"Gaussian kernel, scale {scale:g}", of(c, smooth)
    for name, read, size in (
        ("the content", u, 1024),
        ("the content", u, 2048),
        ("the closed form", own, 1024),
    ):
        waves = random_waves(read, size)
        yield f"{size} random waves of {name}", of(c, smoother(waves, seen, KERNEL_RIDGE))


def co_interactions(
    pairs: TrainingPairs, item_power: float = 0.5, user_power: float = 1.0, rank: int = 0
) -> Matrix:
    """C (n, n), with other powers of the degrees, or of the leading singular vectors alone.

    c_ij = sum_u w_u a_ui a_uj / (|a_i| |a_j|)^(2 item_power), w_u = degree^-user_power, scaled so
    that its removed diagonal has mean 1 over the items.
    """
    users = np.maximum(pairs.user_degrees, 1.0) ** -user_power
    squares = pairs.matrix.T @ users  # |a_i|^2
    items = np.maximum(squares, squares[squares > 0].min()) ** -item_power
    scaled = csr_array(diags_array(np.sqrt(users)) @ pairs.matrix @ diags_array(items))
    if rank:
        _, values, right = svds(scaled, rank, rng=0)
        half = right * values[:, None]
    else:
        half = scaled.toarray()
    c: Matrix = half.T @ half
    own = np.diagonal(c)
    c /= own[own > 0].mean()
    if not rank:  # a diagonal of its own is what a low rank leaves out
        np.fill_diagonal(c, 0)
    return c


def smoother(
    features: Matrix, seen: NDArray[np.int64], ridge: float, weights: Matrix | None = None
) -> Matrix:
    """T (n, s) = F (F'DF + ridge I)^-1 F'D over the known items, D their weights."""
    known = features[seen].T if weights is None else features[seen].T * weights
    gram = known @ features[seen] + ridge * np.eye(features.shape[1])
    smooth: Matrix = features @ scipy.linalg.solve(gram, known, assume_a="pos")
    return smooth


def leading_directions(c: Matrix, smooth: Matrix, content: Matrix) -> Matrix:
    """Vectors (n, d) whose inner products are the best of rank d."""
    products = SETTINGS.strength * (smooth @ c) @ smooth.T + SETTINGS.content * content @ content.T
    n = len(products)
    leading = [n - min(SETTINGS.dimension, n), n - 1]
    values, directions = scipy.linalg.eigh(products, subset_by_index=leading)
    vectors: Matrix = directions * np.sqrt(np.maximum(values, 0))
    return vectors


def lacking_predicted(u: Matrix, width: int) -> Matrix:
    """Rows of two modalities where one that lacks is what ridge regression makes of the other."""
    parts = [unit(u[:, :width]), unit(u[:, width:])]
    there = [part.any(axis=1) for part in parts]
    both = there[0] & there[1]
    for (x, y), lacks in zip((parts, parts[::-1]), (~there[1], ~there[0]), strict=True):
        gram = x[both].T @ x[both] + SETTINGS.ridge * np.eye(x.shape[1])
        rows = np.flatnonzero(lacks & x.any(axis=1))
        y[rows] = unit(x[rows] @ scipy.linalg.solve(gram, x[both].T @ y[both], assume_a="pos"))
    return unit(np.hstack(parts))


def with_popularity(vectors: Matrix, u: Matrix, known: TrainingPairs) -> Matrix:
    """The vectors, and 0.1 exp(p), p the log degree that content predicts."""
    seen = known.items
    wanted = np.log1p(known.item_degrees[seen])
    wanted = (wanted - wanted.mean()) / wanted.std()
    gram = u[seen].T @ u[seen] + 10 * SETTINGS.ridge * np.eye(u.shape[1])
    predicted = u @ scipy.linalg.solve(gram, u[seen].T @ wanted, assume_a="pos")
    return np.column_stack([vectors, 0.1 * np.exp(predicted)])


def with_labels(u: Matrix, labels: NDArray[np.int64]) -> Matrix:
    """Rows beside their labels, one-hot, centred, at half the length."""
    one_hot = np.eye(labels.max() + 1)[labels] * (labels >= 0)[:, None]
    return unit(np.hstack([u, 0.5 * unit(one_hot - one_hot.mean(axis=0))]))


def random_waves(x: Matrix, size: int) -> Matrix:
    """Random Fourier features of the Gaussian kernel of scale 1 (Rahimi, Recht, NIPS 2007)."""
    phases = x @ np.random.default_rng(0).standard_normal((x.shape[1], size // 2))
    return np.hstack([np.cos(phases), np.sin(phases)]) / np.sqrt(size / 2)


def norm(matrix: Matrix) -> float:
    return float(np.linalg.norm(matrix))


def unit(x: Matrix) -> Matrix:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    rows: Matrix = x / np.where(length > 0, length, 1)
    return rows


def table(vectors: Matrix) -> Vectors:
    rows = torch.from_numpy(vectors).float()
    return lambda index: rows[index]


if __name__ == "__main__":
    main()
