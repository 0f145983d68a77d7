"""Laws of the id mapping and of the splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgfd.dataset import Pairs, Vocabulary, hold_out_last, honest_split


@given(st.lists(st.text(), unique=True), st.lists(st.text()))
def test_index_and_id_are_inverse(ids, others):
    vocabulary = Vocabulary(ids)
    np.testing.assert_array_equal(vocabulary.index(ids), np.arange(len(ids)))
    assert [vocabulary.id(i) for i in range(len(ids))] == ids
    expected = [ids.index(other) if other in ids else -1 for other in others]
    assert vocabulary.index(others).tolist() == expected


def test_an_id_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match="'a' occurs twice"):
        Vocabulary(["a", "b", "a"])


@st.composite
def interactions(draw):
    n_users = draw(st.integers(1, 12))
    sizes = draw(st.lists(st.integers(0, 40), min_size=n_users, max_size=n_users))
    user = np.repeat(np.arange(n_users), sizes)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(user))
    return Pairs(user[order], np.arange(len(user)), order.astype(np.int64)), n_users


@given(interactions(), st.integers(0, 5))
def test_the_honest_split_gives_each_user_its_share(example, seed):
    pairs, n_users = example
    train, valid = honest_split(pairs, n_users, seed=seed)
    assert sorted([*train.item, *valid.item]) == pairs.item.tolist()
    owner = dict(zip(pairs.item.tolist(), pairs.user.tolist(), strict=True))
    assert all(owner[i] == u for i, u in zip(valid.item, valid.user, strict=True))
    for user, size in enumerate(np.bincount(pairs.user, minlength=n_users)):
        expected = max(1, int(0.1 * size + 0.5)) if size >= 3 else 0
        assert (valid.user == user).sum() == expected


@given(interactions())
def test_a_split_is_the_same_for_the_same_seed(example):
    pairs, n_users = example
    first, again = honest_split(pairs, n_users, seed=3), honest_split(pairs, n_users, seed=3)
    np.testing.assert_array_equal(first[1].item, again[1].item)


@given(interactions())
def test_the_last_held_out_are_later_than_all_that_is_left(example):
    pairs, n_users = example
    train, test = hold_out_last(pairs, n_users)
    for user in range(n_users):
        left, held = train.timestamp[train.user == user], test.timestamp[test.user == user]
        size = len(left) + len(held)
        assert len(held) == min(int(0.2 * size + 0.5), max(size - 1, 0))
        if len(held):
            assert held.min() > left.max()
