"""Metrics agree with ranx, an independent library, and with cases worked by hand."""

import numpy as np
import pytest

from sgfd.recommenders import ItemSets, top_k
from sgfd.recommenders.evaluation import average, per_user_metrics
from sgfd.recommenders.run_folder import Run

CUTOFFS = (10, 20, 50)
RANX_NAMES = {
    "recall": "recall",
    "precision": "precision",
    "hit_rate": "hit_rate",
    "ndcg": "ndcg",
    "map": "map",
    "mrr": "mrr",
}


def by_ranx(lists, held_out):
    """The same metrics by ranx, per user (U,)."""
    ranx = pytest.importorskip("ranx")
    users = [f"u{user}" for user in range(len(lists))]
    qrels = {u: {f"i{i}": 1 for i in held_out.of(row)} for row, u in enumerate(users)}
    run = {
        # An empty list can't be given to ranx: an item that nobody holds stands in for it.
        u: {f"i{i}": float(len(row) - rank) for rank, i in enumerate(row) if i >= 0}
        or {"none": 1.0}
        for u, row in zip(users, lists, strict=True)
    }
    names = [f"{theirs}@{k}" for theirs in RANX_NAMES.values() for k in CUTOFFS]
    results = ranx.evaluate(
        ranx.Qrels(qrels), ranx.Run(run), names, return_mean=False, make_comparable=True
    )
    return {name: np.asarray(values) for name, values in results.items()}


def assert_agrees_with_ranx(lists, held_out):
    ours, theirs = per_user_metrics(lists, held_out), by_ranx(lists, held_out)
    order = np.argsort([f"u{user}" for user in range(len(lists))])  # ranx sorts its users
    for mine, name in RANX_NAMES.items():
        for k in CUTOFFS:
            expected = np.empty(len(lists))
            expected[order] = theirs[f"{name}@{k}"]
            got = ours[f"{mine}@{k}"]
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9, err_msg=f"{mine}@{k}")


def test_random_rankings_agree_with_ranx(rng):
    n_users, n_items = 300, 120
    lists = np.argsort(rng.random((n_users, n_items)), axis=1)[:, :50]
    lists[::7, 30:] = -1  # short lists
    user = np.concatenate([np.arange(n_users), rng.integers(0, n_users, 6000)])
    item = rng.integers(0, n_items, len(user))
    assert_agrees_with_ranx(lists, ItemSets.from_pairs(user, item, n_users, n_items))


def test_rankings_of_a_trained_run_agree_with_ranx(sample_run: Run):
    for part in ("valid", "test"):
        held_out = sample_run.split.held_out(part)
        judged = np.flatnonzero(held_out.sizes)
        seen = sample_run.split.seen_before(part).take(judged)
        lists, _ = top_k(sample_run.user_embeddings[judged], sample_run.item_embeddings, 50, seen)
        assert_agrees_with_ranx(lists, held_out.take(judged))


def test_a_case_worked_by_hand():
    lists = np.array([[7, 3, 9, 1, -1]])
    held_out = ItemSets.from_pairs(np.zeros(3, np.int64), np.array([3, 1, 5]), 1, 10)
    metrics = {name: float(v[0]) for name, v in per_user_metrics(lists, held_out, (4,)).items()}
    dcg = 1 / np.log2(3) + 1 / np.log2(5)
    assert metrics == pytest.approx(
        {
            "recall@4": 2 / 3,
            "precision@4": 2 / 4,
            "hit_rate@4": 1.0,
            "ndcg@4": dcg / (1 + 1 / np.log2(3) + 1 / np.log2(4)),
            "map@4": (1 / 2 + 2 / 4) / 3,
            "mrr@4": 1 / 2,
            "paper_ndcg@4": dcg / (1 + 1 / np.log2(3)),
        },
        abs=1e-12,
    )


def test_no_hit_is_zero_everywhere():
    held_out = ItemSets.from_pairs(np.array([0]), np.array([1]), 1, 5)
    metrics = per_user_metrics(np.array([[0, 2]]), held_out, (2,))
    assert all(values[0] == 0 for values in metrics.values())


def test_coverage_counts_distinct_items():
    lists = np.array([[0, 1], [1, -1]])
    held_out = ItemSets.from_pairs(np.array([0, 1]), np.array([1, 1]), 2, 8)
    metrics = average(lists, per_user_metrics(lists, held_out, (1, 2)), 8, (1, 2))
    assert metrics["coverage@1"] == 2 / 8
    assert metrics["coverage@2"] == 2 / 8
