"""Metrics agree with cornac's, by rankings that a run has left on disk.

Where cornac defines otherwise, the test says how and sets its figure against what ours should be:

- its MRR has no cutoff and refuses a list without a hit, which counts 0 for us: it is given the
  list cut at K, where there is a hit;
- its MAP has no cutoff, and is the mean over those relevant items that are in the list. Over a
  ranking of all items that is all of them, and it is our MAP. Given a list cut at K it is ours
  times |G| over the number of hits: trec_eval, ranx and we count relevant items below K as 0.

Recall, Precision (over K, however short the list), hit ratio and NDCG are the same.
"""

import numpy as np
import pandas as pd
import pytest

from sgfd.dataset import load_dataset
from sgfd.recommenders import ItemSets, train
from sgfd.recommenders.evaluation import per_user_metrics

CUTOFFS = (10, 20, 50)
cornac = pytest.importorskip("cornac.metrics")
SAME = {
    "recall": cornac.Recall,
    "precision": cornac.Precision,
    "hit_rate": cornac.HitRatio,
    "ndcg": cornac.NDCG,
}


def by_cornac(lists, held_out, k):
    """Its metrics at one cutoff, float64 (U,); MRR and MAP nan where it has none."""
    judges = {name: kind(k=k) for name, kind in SAME.items()}
    found = {f"{name}@{k}": np.full(len(lists), np.nan) for name in (*judges, "mrr", "map")}
    for user, row in enumerate(lists):
        relevant, ranked = held_out.of(user), row[:k][row[:k] >= 0]
        for name, judge in judges.items():
            found[f"{name}@{k}"][user] = judge.compute(gt_pos=relevant, pd_rank=ranked)
        if np.isin(ranked, relevant).any():
            scores = -np.arange(len(ranked), dtype=float)
            given = {"gt_pos": relevant, "pd_rank": ranked}
            given |= {"item_indices": ranked, "pd_scores": scores}
            found[f"mrr@{k}"][user] = cornac.MRR().compute(**given)
            found[f"map@{k}"][user] = cornac.MAP().compute(**given)
    return found


def assert_agrees(lists, held_out, cutoffs=CUTOFFS):
    ours = per_user_metrics(lists, held_out, cutoffs)
    for k in cutoffs:
        theirs = by_cornac(lists, held_out, k)
        hits = held_out.contains(lists[:, :k]).sum(axis=1)
        theirs[f"map@{k}"] *= hits / held_out.sizes
        for name, expected in theirs.items():
            assert np.isnan(expected).sum() in (0, (hits == 0).sum())
            np.testing.assert_allclose(ours[name], np.nan_to_num(expected), atol=1e-12)


def rankings(run):
    """The lists of a run's file, of the users with test items, as another program reads them."""
    table = pd.read_parquet(run.folder / "topk.parquet", columns=["item_index"])
    judged = np.flatnonzero(run.split.test.sizes)
    lists = np.full((len(judged), 50), -1)
    for place, items in enumerate(table["item_index"].to_numpy()[judged]):
        lists[place, : len(items)] = items
    return lists, run.split.test.take(judged)


def test_rankings_of_a_trained_run_agree(sample_run):
    assert_agrees(*rankings(sample_run))


def test_random_rankings_of_all_items_and_short_ones_agree(rng):
    n_users, n_items = 100, 60
    lists = np.argsort(rng.random((n_users, n_items)), axis=1)
    user = np.concatenate([np.arange(n_users), rng.integers(0, n_users, 900)])
    held_out = ItemSets.from_pairs(user, rng.integers(0, n_items, len(user)), n_users, n_items)
    assert_agrees(lists, held_out, (10, n_items))
    whole = per_user_metrics(lists, held_out, (n_items,))[f"map@{n_items}"]
    np.testing.assert_allclose(whole, by_cornac(lists, held_out, n_items)[f"map@{n_items}"])
    lists[::7, 8:], lists[5] = -1, -1
    assert_agrees(lists, held_out, (10, n_items))


@pytest.mark.slow
def test_rankings_of_real_users_agree(shared_data, tmp_path):
    assert_agrees(
        *rankings(train(load_dataset(shared_data / "office"), "graphfilter", runs_root=tmp_path))
    )
