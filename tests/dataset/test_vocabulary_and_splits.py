"""Laws of the id mapping and of the splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from sgfd.dataset import (
    DatasetError,
    Interactions,
    Pairs,
    Vocabulary,
    cold_items_split,
    divide,
    hold_out_last,
    honest_split,
    join,
    leave_one_out_split,
    load_dataset,
    random_split,
    temporal_split,
)
from sgfd.dataset.parts import _say_that_chance_chooses


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


@st.composite
def shared_items(draw):
    """Pairs of few users and items, without repetition, at few times, in any order."""
    n_users, n_items = draw(st.integers(1, 8)), draw(st.integers(1, 15))
    cells = draw(st.lists(st.integers(0, n_users * n_items - 1), unique=True))
    user, item = np.divmod(np.array(cells, dtype=np.int64), n_items)
    times = draw(st.lists(st.integers(-3, 9), min_size=len(cells), max_size=len(cells)))
    return Pairs(user, item, np.array(times, dtype=np.int64)), n_users


def rows(*parts):
    """What is in the parts, in one order."""
    whole = join(*parts)
    times = whole.timestamp if len(whole) else whole.user
    return sorted(np.stack([whole.user, whole.item, times], axis=1).tolist())


@given(shared_items(), st.integers(0, 3))
def test_every_split_s_parts_are_disjoint_and_together_everything(example, seed):
    pairs, n_users = example
    for parts in (
        cold_items_split(pairs, seed=seed),
        temporal_split(pairs),
        leave_one_out_split(pairs, n_users, seed),
        random_split(pairs, n_users, seed=seed),
    ):
        assert rows(*parts) == rows(pairs)


@given(shared_items(), st.integers(0, 3))
def test_a_cold_item_is_in_one_part_alone(example, seed):
    pairs, _ = example
    train, valid, test = (set(part.item.tolist()) for part in cold_items_split(pairs, seed=seed))
    n_items = len(np.unique(pairs.item))
    assert not train & valid and not (train | valid) & test
    assert len(test) == int(0.2 * n_items + 0.5)
    assert len(valid) == int(0.1 * (n_items - len(test)) + 0.5)


@given(shared_items())
def test_what_trains_is_earlier_than_all_that_is_held_out(example):
    pairs, _ = example
    train, valid, test = temporal_split(pairs)
    for early, late in ((train, valid), (train, test), (valid, test)):
        if len(early) and len(late):
            assert early.timestamp.max() < late.timestamp.min()
    assert len(test) >= int(0.2 * len(pairs) + 0.5)


def test_a_cut_in_time_without_ties_gives_the_shares():
    pairs = Pairs(np.zeros(50, np.int64), np.arange(50), np.arange(50)[::-1])
    assert [len(part) for part in temporal_split(pairs)] == [35, 5, 10]
    with pytest.raises(ValueError, match="no timestamps"):
        temporal_split(Pairs(pairs.user, pairs.item))


@pytest.mark.parametrize("years", [1, 2])
def test_times_that_are_too_coarse_to_cut_are_told_of(years):
    user, item = np.divmod(np.arange(40), 8)
    pairs = Pairs(user, item, item % years)
    names = (Vocabulary([f"{k}{n}" for n in range(8)]) for k in "ui")
    nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))
    interactions = Interactions(*names, pairs, nothing, nothing)
    with pytest.raises(DatasetError, match=r"too many of one time.*valid.*give finer timestamps"):
        divide(interactions, split="temporal")


@given(shared_items(), st.integers(0, 3), st.booleans())
def test_leave_one_out_takes_each_user_s_last_and_the_one_before(example, seed, timed):
    pairs, n_users = example
    if not timed:
        pairs = Pairs(pairs.user, pairs.item)
    train, valid, test = leave_one_out_split(pairs, n_users, seed)
    for user, size in enumerate(np.bincount(pairs.user, minlength=n_users)):
        of_user = [part.user == user for part in (train, valid, test)]
        held_out = int(size >= 3)
        assert [int(own.sum()) for own in of_user] == [size - 2 * held_out, held_out, held_out]
        if held_out and timed:
            first, second, third = (
                part.timestamp[own] for part, own in zip((train, valid, test), of_user, strict=True)
            )
            assert first.max() <= second.min() <= third.min()


@given(shared_items(), st.integers(0, 3))
def test_a_random_split_takes_a_fifth_of_each_user_and_a_tenth_of_the_rest(example, seed):
    pairs, n_users = example
    train, valid, test = random_split(pairs, n_users, seed=seed)
    for user, size in enumerate(np.bincount(pairs.user, minlength=n_users)):
        tested = max(1, int(0.2 * size + 0.5)) if size >= 3 else 0
        chosen = max(1, int(0.1 * (size - tested) + 0.5)) if size - tested >= 3 else 0
        found = [int((part.user == user).sum()) for part in (train, valid, test)]
        assert found == [size - tested - chosen, chosen, tested]


def test_a_random_split_prefers_no_place_in_the_file():
    n_users, each = 2000, 10
    user, item = np.divmod(np.arange(n_users * each), each)
    train, valid, test = random_split(Pairs(user, item), n_users)
    for part, share in ((train, 0.7), (valid, 0.1), (test, 0.2)):
        expected = np.full(each, n_users * share)
        assert chisquare(np.bincount(part.item, minlength=each), expected).pvalue > 1e-3


def test_equal_times_are_parted_by_the_seed_and_not_by_their_order():
    pairs = Pairs(np.zeros(40, np.int64), np.arange(40), np.zeros(40, np.int64))
    last = {leave_one_out_split(pairs, 1, seed)[2].item.item() for seed in range(20)}
    assert len(last) > 10


def test_parts_are_joined_with_their_times_where_all_have_them():
    one, two = np.array([1]), np.array([2])
    timed, bare = Pairs(one, one, two), Pairs(two, two)
    nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    assert join(timed, None, timed, nothing).timestamp.tolist() == [2, 2]
    assert join(timed, bare).timestamp is None
    assert len(join(None, nothing)) == 0


def test_leave_one_out_says_once_that_without_times_chance_chooses(sgfd_folder, caplog):
    _say_that_chance_chooses.cache_clear()
    interactions = load_dataset(sgfd_folder).interactions
    for _ in range(2):
        divide(interactions, split="leave-one-out")
    assert caplog.text.count("have no timestamps: split leave-one-out takes one of each user") == 1
