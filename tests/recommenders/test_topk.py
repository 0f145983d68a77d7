"""Exact top-K: agrees with brute force, seen items and ties included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfd.jobs import JobError
from sgfd.recommenders import ItemSets, top_k
from sgfd.recommenders.ranking import rank_by_vectors, remembered


def brute_force(scores, k, seen):
    """Lists (U, k) by sorting every user's unseen items by (-score, index)."""
    lists = np.full((len(scores), k), -1)
    for user, row in enumerate(scores):
        unseen = np.setdiff1d(np.arange(len(row)), seen.of(user))
        best = unseen[np.lexsort((unseen, -row[unseen]))][:k]
        lists[user, : len(best)] = best
    return lists


def random_sets(rng, n_users, n_items, n):
    return ItemSets.from_pairs(
        rng.integers(0, n_users, n), rng.integers(0, n_items, n), n_users, n_items
    )


@st.composite
def problems(draw):
    """Small integer vectors: products are exact in float32 and full of ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_users, n_items = draw(st.integers(1, 40)), draw(st.integers(1, 60))
    d, k = draw(st.integers(1, 4)), draw(st.integers(1, 70))
    spread = draw(st.integers(0, 3))
    users = rng.integers(-spread, spread + 1, (n_users, d)).astype(np.float32)
    items = rng.integers(-spread, spread + 1, (n_items, d)).astype(np.float32)
    return users, items, k, random_sets(rng, n_users, n_items, draw(st.integers(0, 400)))


@settings(deadline=None)
@given(problems(), st.integers(0, 60))
def test_lists_that_are_read_off_longer_ones_are_those_of_a_ranking_anew(problem, further):
    users, items, most, seen = problem
    rng = np.random.default_rng(further)
    more = seen.merge(random_sets(rng, len(users), len(items), further))
    plain = rank_by_vectors(users, items, "inner_product")
    asked: list[int] = []

    def counted(*arguments):
        asked.append(len(arguments[0]))
        return plain(*arguments)

    short = remembered(counted, seen, most, int((more.sizes - seen.sizes).max()))
    some = rng.permutation(len(users))[: 1 + len(users) // 2]
    for unwanted in (seen, more):
        for k in (most, max(1, most // 2)):
            lists, scores = short(some, k, unwanted.take(some))
            expected = plain(some, k, unwanted.take(some))
            np.testing.assert_array_equal(lists, expected[0])
            np.testing.assert_array_equal(scores, expected[1])
    assert asked in ([len(users)], [len(some)] * 4)


@settings(deadline=None)
@given(problems())
def test_inner_product_lists_are_those_of_brute_force(problem):
    users, items, k, seen = problem
    lists, scores = top_k(users, items, k, seen)
    np.testing.assert_array_equal(lists, brute_force(users @ items.T, k, seen))
    rows = np.arange(len(users))[:, None]
    expected = np.where(lists >= 0, (users @ items.T)[rows, lists], -np.inf)
    np.testing.assert_array_equal(scores, expected)


@settings(deadline=None)
@given(problems())
def test_l2_lists_are_those_of_brute_force(problem):
    users, items, k, seen = problem
    lists, _ = top_k(users, items, k, seen, similarity="l2")
    distances = np.square(users[:, None] - items[None]).sum(axis=2)
    np.testing.assert_array_equal(lists, brute_force(-distances, k, seen))


@settings(deadline=None)
@given(problems())
def test_a_seen_item_is_never_recommended(problem):
    users, items, k, seen = problem
    lists, _ = top_k(users, items, k, seen)
    assert not seen.contains(lists).any()


def test_real_valued_lists_are_those_of_brute_force(rng):
    users = rng.normal(size=(500, 16)).astype(np.float32)
    items = rng.normal(size=(3000, 16)).astype(np.float32)
    seen = random_sets(rng, 500, 3000, 20_000)
    lists, scores = top_k(users, items, 50, seen)
    exact = users.astype(np.float64) @ items.T.astype(np.float64)
    expected = brute_force(exact, 50, seen)
    rows = np.arange(500)[:, None]
    # Two items closer than float32 can tell may change places; nothing else may differ.
    np.testing.assert_allclose(exact[rows, lists], exact[rows, expected], atol=1e-5)
    np.testing.assert_allclose(scores, exact[rows, expected], atol=1e-5)
    assert (lists == expected).mean() > 0.999


def test_users_with_equal_scores_everywhere_get_the_first_items():
    users, items = np.ones((3, 1), np.float32), np.ones((500, 1), np.float32)
    seen = ItemSets.from_pairs(np.array([1, 1]), np.array([0, 2]), 3, 500)
    lists, _ = top_k(users, items, 3, seen)
    np.testing.assert_array_equal(lists, [[0, 1, 2], [1, 3, 4], [0, 1, 2]])


def test_a_user_who_has_seen_everything_gets_an_empty_list():
    seen = ItemSets.from_pairs(np.array([0, 0]), np.array([0, 1]), 1, 2)
    lists, scores = top_k(np.ones((1, 2), np.float32), np.ones((2, 2), np.float32), 3, seen)
    np.testing.assert_array_equal(lists, [[-1, -1, -1]])
    assert np.isneginf(scores).all()


def test_embeddings_that_are_not_finite_are_refused():
    items = np.ones((3, 2), np.float32)
    items[1, 0] = np.nan
    empty = ItemSets.from_pairs(np.array([], np.int64), np.array([], np.int64), 1, 3)
    with pytest.raises(JobError, match="item embedding 1: is not finite"):
        top_k(np.ones((1, 2), np.float32), items, 2, empty)
