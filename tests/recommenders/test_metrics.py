"""Metrics agree with ranx and trec_eval, independent of us, and with cases worked by hand."""

import numpy as np
import pytest

from sgfd.recommenders import ItemSets, top_k
from sgfd.recommenders.evaluation import average, per_user_metrics, pooled_recall
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
TREC_NAMES = {
    "recall": "recall",
    "precision": "P",
    "hit_rate": "success",
    "ndcg": "ndcg_cut",
    "map": "map_cut",
}


def as_trec(lists, held_out):
    """Relevant items and scored lists by user, as both libraries take them."""
    users = [f"u{user:06d}" for user in range(len(lists))]  # sorted, as ranx gives them back
    qrels = {u: {f"i{i}": 1 for i in held_out.of(row)} for row, u in enumerate(users)}
    run = {
        # An empty list can't be given to them: an item that nobody holds stands in for it.
        u: {f"i{i}": float(len(row) - rank) for rank, i in enumerate(row) if i >= 0}
        or {"none": 1.0}
        for u, row in zip(users, lists, strict=True)
    }
    return qrels, run


def by_ranx(lists, held_out):
    """The same metrics by ranx, per user (U,)."""
    ranx = pytest.importorskip("ranx")
    qrels, run = as_trec(lists, held_out)
    names = {f"{n}@{k}": f"{theirs}@{k}" for n, theirs in RANX_NAMES.items() for k in CUTOFFS}
    results = ranx.evaluate(
        ranx.Qrels(qrels),
        ranx.Run(run),
        list(names.values()),
        return_mean=False,
        make_comparable=True,
    )
    return {ours: np.asarray(results[theirs]) for ours, theirs in names.items()}


def by_trec_eval(lists, held_out):
    """The same metrics by NIST's trec_eval, per user (U,)."""
    pytrec_eval = pytest.importorskip("pytrec_eval")
    metrics = {}
    for k in CUTOFFS:
        qrels, run = as_trec(lists[:, :k], held_out)  # cut, since recip_rank has no cutoff
        measures = {f"{theirs}.{k}" for theirs in TREC_NAMES.values()} | {"recip_rank"}
        found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
        names = {n: f"{theirs}_{k}" for n, theirs in TREC_NAMES.items()} | {"mrr": "recip_rank"}
        for ours, theirs in names.items():
            metrics[f"{ours}@{k}"] = np.array([found[user][theirs] for user in qrels])
    return metrics


def assert_agrees(lists, held_out, judge):
    ours, theirs = per_user_metrics(lists, held_out), judge(lists, held_out)
    assert set(theirs) == {name for name in ours if not name.startswith("paper")}
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=1e-9, err_msg=name)


both_judges = pytest.mark.parametrize("judge", [by_ranx, by_trec_eval])


@both_judges
def test_random_rankings_agree(rng, judge):
    n_users, n_items = 300, 120
    lists = np.argsort(rng.random((n_users, n_items)), axis=1)[:, :50]
    lists[::7, 30:] = -1  # short lists
    lists[5] = -1
    user = np.concatenate([np.arange(n_users), rng.integers(0, n_users, 6000)])
    item = rng.integers(0, n_items, len(user))
    assert_agrees(lists, ItemSets.from_pairs(user, item, n_users, n_items), judge)


@both_judges
def test_rankings_of_a_trained_run_agree(sample_run: Run, judge):
    for part in ("valid", "test"):
        held_out = sample_run.split.held_out(part)
        judged = np.flatnonzero(held_out.sizes)
        seen = sample_run.split.seen_before(part).take(judged)
        lists, _ = top_k(sample_run.user_embeddings[judged], sample_run.item_embeddings, 50, seen)
        assert_agrees(lists, held_out.take(judged), judge)


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


def averaged(lists, held_out, cutoffs):
    return average(lists, per_user_metrics(lists, held_out, cutoffs), held_out, cutoffs)


def test_coverage_counts_distinct_items():
    held_out = ItemSets.from_pairs(np.array([0, 1]), np.array([1, 1]), 2, 8)
    metrics = averaged(np.array([[0, 1], [1, -1]]), held_out, (1, 2))
    assert metrics["coverage@1"] == 2 / 8
    assert metrics["coverage@2"] == 2 / 8


def test_pooled_recall_weighs_users_by_their_held_out_items():
    lists = np.array([[3, 1], [0, 2]])
    held_out = ItemSets.from_pairs(np.array([0, 1, 1, 1]), np.array([1, 0, 2, 3]), 2, 4)
    metrics = averaged(lists, held_out, (1, 2))
    assert metrics["recall@2"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-12)
    assert metrics["pooled_recall@1"] == 1 / 4
    assert metrics["pooled_recall@2"] == 3 / 4


def test_pooled_recall_is_trec_evals_over_all_users(rng):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    lists = np.argsort(rng.random((80, 40)), axis=1)[:, :20]
    user = np.concatenate([np.arange(80), rng.integers(0, 80, 400)])
    held_out = ItemSets.from_pairs(user, rng.integers(0, 40, len(user)), 80, 40)
    qrels, run = as_trec(lists, held_out)
    found = pytrec_eval.RelevanceEvaluator(qrels, {"num_rel_ret", "num_rel"}).evaluate(run)
    hits, relevant = (sum(f[n] for f in found.values()) for n in ("num_rel_ret", "num_rel"))
    sizes = held_out.sizes.astype(float)
    ours = pooled_recall(per_user_metrics(lists, held_out, (20,))["recall@20"], sizes)
    assert ours == pytest.approx(hits / relevant, abs=1e-12)
