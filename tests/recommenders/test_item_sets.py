"""Sets of items by user: laws that hold for any pairs."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfd.recommenders import ItemSets


@st.composite
def sets(draw):
    n_users, n_items = draw(st.integers(1, 8)), draw(st.integers(1, 12))
    pairs = draw(
        st.lists(st.tuples(st.integers(0, n_users - 1), st.integers(0, n_items - 1)), max_size=60)
    )
    user, item = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return ItemSets.from_pairs(user, item, n_users, n_items), set(pairs)


@given(sets())
def test_sets_hold_exactly_the_pairs(example):
    found, pairs = example
    assert {(u, int(i)) for u in range(found.n_users) for i in found.of(u)} == pairs


@given(sets())
def test_contains_agrees_with_the_pairs(example):
    found, pairs = example
    every = np.tile(np.arange(-1, found.n_items), (found.n_users, 1))
    expected = [[(u, i) in pairs for i in every[0]] for u in range(found.n_users)]
    np.testing.assert_array_equal(found.contains(every), expected)


@given(sets(), st.randoms())
def test_taking_users_keeps_their_sets(example, random):
    found, _ = example
    users = np.array([random.randrange(found.n_users) for _ in range(5)])
    taken = found.take(users)
    for row, user in enumerate(users):
        np.testing.assert_array_equal(taken.of(row), found.of(user))


@given(sets(), sets())
def test_merging_is_the_union(first, second):
    (a, a_pairs), (b, b_pairs) = first, second
    n_users, n_items = max(a.n_users, b.n_users), max(a.n_items, b.n_items)

    def widen(pairs):
        user, item = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
        return ItemSets.from_pairs(user, item, n_users, n_items)

    merged = widen(a_pairs).merge(widen(b_pairs))
    np.testing.assert_array_equal(merged.keys, widen(a_pairs | b_pairs).keys)


@settings(deadline=None)
@given(sets(), st.integers(0, 2**32))
def test_sampled_negatives_are_outside_the_set_wherever_one_exists(example, seed):
    found, pairs = example
    users = np.repeat(np.arange(found.n_users), 20)
    rows = found.sample_outside(users, 2, np.random.default_rng(seed))
    places = np.random.default_rng(seed).permutation(len(users))
    shuffled = found.sample_outside(users[places], 2, np.random.default_rng(seed), places)
    again = found.sample_outside(users[places], 2, np.random.default_rng(seed))
    np.testing.assert_array_equal(shuffled, again)
    users, drawn = users.repeat(2), rows.flatten()
    assert ((drawn >= 0) & (drawn < found.n_items)).all()
    full = found.sizes[users] == found.n_items
    inside = np.array([(u, i) in pairs for u, i in zip(users, drawn, strict=True)])
    assert not inside[~full].any()


def test_negatives_are_uniform_over_the_items_outside(rng):
    found = ItemSets.from_pairs(np.zeros(3, np.int64), np.array([0, 4, 5]), 1, 10)
    counts = np.bincount(
        found.sample_outside(np.zeros(35_000, np.int64), 2, rng).flatten(), minlength=10
    )
    assert counts[[0, 4, 5]].sum() == 0
    expected = np.full(7, 10_000)
    chi_square = (np.square(counts[[1, 2, 3, 6, 7, 8, 9]] - expected) / expected).sum()
    assert chi_square < 22.5  # 0.1 % tail of chi-square with 6 degrees of freedom
