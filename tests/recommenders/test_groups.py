"""Groups part the items and the users; their metrics agree with ranx on the group's relevance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgfd.recommenders import ItemSets
from sgfd.recommenders.evaluation import (
    group_metrics,
    item_groups,
    known_means,
    per_user_metrics,
    user_group_means,
    user_groups,
)

CUTOFFS = (5, 20)


@st.composite
def trainings(draw):
    n_users, n_items = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    pairs = draw(
        st.lists(st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1)), max_size=60)
    )
    user, item = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return ItemSets.from_pairs(user, item, n_users, n_items)


def by_counts(counts):
    """Training sets of as many users as needed, with these interactions an item."""
    item = np.repeat(np.arange(len(counts)), counts)
    user = np.concatenate([np.arange(count) for count in counts])
    return ItemSets.from_pairs(user, item, max(counts), len(counts))


@given(trainings())
def test_every_item_and_every_user_is_in_one_group(train):
    for groups, size in (
        (item_groups(train), train.n_items),
        (user_groups(train), train.n_users),
    ):
        np.testing.assert_array_equal(sum(g.astype(int) for g in groups.values()), np.ones(size))


@given(trainings())
def test_popular_items_are_the_fewest_that_hold_half(train):
    counts = np.bincount(train.items, minlength=train.n_items)
    groups = item_groups(train)
    popular, half = counts[groups["popular"]], counts.sum() / 2
    np.testing.assert_array_equal(groups["cold"], counts == 0)
    assert popular.sum() >= half
    if len(popular):
        assert popular.sum() - popular.min() < half
        assert popular.min() >= counts[groups["rare"]].max(initial=0)


@given(trainings(), st.randoms())
def test_groups_do_not_depend_on_the_order_of_users(train, random):
    order = np.array(random.sample(range(train.n_users), train.n_users))
    shuffled = train.take(order)
    for name, members in item_groups(train).items():
        np.testing.assert_array_equal(item_groups(shuffled)[name], members)
    for name, members in user_groups(train).items():
        np.testing.assert_array_equal(user_groups(shuffled)[name], members[order])


def test_equally_popular_items_are_taken_in_their_order():
    groups = item_groups(by_counts([2, 4, 0, 2, 2, 2]))  # 12 in all: items 1 and 0 hold 6
    assert np.flatnonzero(groups["popular"]).tolist() == [0, 1]
    assert np.flatnonzero(groups["rare"]).tolist() == [3, 4, 5]
    assert np.flatnonzero(groups["cold"]).tolist() == [2]


def test_users_are_parted_at_the_median_of_those_with_items():
    sizes = [0, 0, 0, 1, 3, 3, 9]  # median of 1, 3, 3, 9 is 3
    user = np.repeat(np.arange(7), sizes)
    item = np.concatenate([np.arange(size) for size in sizes])
    groups = user_groups(ItemSets.from_pairs(user, item, 7, 10))
    assert np.flatnonzero(groups["many"]).tolist() == [6]
    assert np.flatnonzero(groups["few"]).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.fixture
def ranking(rng):
    """Lists (V, 20) with gaps, held-out items of some users, and groups of items."""
    n_users, n_items = 150, 90
    lists = np.argsort(rng.random((n_users, n_items)), axis=1)[:, :20]
    lists[::7, 12:] = -1
    held_out = ItemSets.from_pairs(
        rng.integers(0, n_users, 900), rng.integers(0, n_items, 900), n_users, n_items
    )
    popularity = (rng.random(2000) ** 2 * 70).astype(np.int64)  # items 70 and on stay cold
    groups = item_groups(ItemSets.from_pairs(np.arange(2000) % 150, popularity, n_users, n_items))
    assert all(members.sum() > 5 for members in groups.values())
    return lists, held_out, groups


def test_group_metrics_agree_with_ranx_on_the_groups_relevance(ranking):
    ranx = pytest.importorskip("ranx")
    lists, held_out, groups = ranking
    ours = group_metrics(lists, held_out, groups, CUTOFFS)
    assert set(ours) == {
        f"{m}@{k} {g}" for m in ("recall", "ndcg") for k in CUTOFFS for g in groups
    }
    names = [f"{metric}@{k}" for metric in ("recall", "ndcg") for k in CUTOFFS]
    for group, members in groups.items():
        relevant = [[i for i in held_out.of(user) if members[i]] for user in range(len(lists))]
        judged = [user for user, items in enumerate(relevant) if items]
        qrels = {f"u{u:04d}": {f"i{i}": 1 for i in relevant[u]} for u in judged}
        run = {
            f"u{u:04d}": {f"i{i}": 99.0 - rank for rank, i in enumerate(lists[u]) if i >= 0}
            for u in judged
        }
        theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), names, return_mean=False)
        assert 0 < len(judged) < len(lists)
        for name in names:
            expected = np.full(len(lists), np.nan)
            expected[judged] = theirs[name]
            np.testing.assert_allclose(ours[f"{name} {group}"], expected, rtol=0, atol=1e-9)


def test_a_group_of_all_items_has_the_metrics_of_all(ranking):
    lists, held_out, _ = ranking
    judged = np.flatnonzero(held_out.sizes)
    lists, held_out = lists[judged], held_out.take(judged)
    within = group_metrics(lists, held_out, {"all": np.ones(90, dtype=bool)}, CUTOFFS)
    everywhere = per_user_metrics(lists, held_out, CUTOFFS)
    for name, values in within.items():
        np.testing.assert_array_equal(values, everywhere[name.removesuffix(" all")])


def test_means_leave_out_the_users_and_groups_without_a_value():
    per_user = {"recall@20": np.array([0.5, np.nan, 1.0, 0.0]), "ndcg@20": np.full(4, np.nan)}
    assert known_means(per_user) == {"recall@20": 0.5}
    few = np.array([True, True, False, False])
    groups = {"few": few, "many": ~few, "none": np.zeros(4, dtype=bool)}
    means = user_group_means(per_user, groups)
    assert means == {"recall@20 few": 0.5, "recall@20 many": 0.5}


def test_group_means_agree_with_pandas(ranking):
    pd = pytest.importorskip("pandas")
    lists, held_out, groups = ranking
    per_user = group_metrics(lists, held_out, groups, CUTOFFS)
    many = held_out.sizes > 6
    means = user_group_means(per_user, {"few": ~many, "many": many})
    expected = pd.DataFrame(per_user).groupby(np.where(many, "many", "few")).mean()
    for name, value in means.items():
        metric, _, group = name.rpartition(" ")
        assert value == pytest.approx(expected.loc[group, metric], abs=1e-12)
    assert len(means) == expected.size
