"""Which interactions train, choose and judge."""

from dataclasses import replace

import numpy as np
import pytest

from sgfd.dataset import DatasetError, Pairs, load_dataset
from sgfd.jobs import JobError
from sgfd.recommenders.protocols import split_interactions, users_to_judge

SAMPLE = load_dataset("sample").interactions


def pairs_of(sets):
    return set(sets.keys.tolist())


def test_honest_divides_train_and_leaves_test_alone():
    split = split_interactions(SAMPLE, "honest")
    train, valid, test = (pairs_of(split.held_out(part)) for part in ("train", "valid", "test"))
    assert split.chosen_on == "valid"
    assert not train & valid and not (train | valid) & test
    assert len(train) + len(valid) == len(SAMPLE.train)
    assert len(test) == len(SAMPLE.test)
    assert 0.08 < len(valid) / len(SAMPLE.train) < 0.12


def test_a_valid_part_of_the_data_s_own_is_used_as_it_is():
    own = Pairs(SAMPLE.train.user[:50], SAMPLE.train.item[:50])
    rest = Pairs(SAMPLE.train.user[50:], SAMPLE.train.item[50:])
    split = split_interactions(replace(SAMPLE, train=rest, valid=own), "honest")
    assert pairs_of(split.valid) == set((own.user * SAMPLE.n_items + own.item).tolist())


def test_paper_trains_on_all_that_is_not_test_and_chooses_on_test():
    own = Pairs(SAMPLE.train.user[:50], SAMPLE.train.item[:50])
    rest = Pairs(SAMPLE.train.user[50:], SAMPLE.train.item[50:])
    split = split_interactions(replace(SAMPLE, train=rest, valid=own), "paper")
    assert split.chosen_on == "test"
    assert len(split.train.items) == len(SAMPLE.train)
    assert len(split.valid.items) == 0


def test_what_was_seen_grows_with_the_part_that_judges():
    split = split_interactions(SAMPLE, "honest")
    assert pairs_of(split.seen_before("valid")) == pairs_of(split.train)
    assert pairs_of(split.seen_before("test")) == pairs_of(split.train) | pairs_of(split.valid)


def test_another_split_seed_gives_another_valid_part():
    one, same, other = (split_interactions(SAMPLE, "honest", seed) for seed in (1, 1, 2))
    assert pairs_of(one.valid) == pairs_of(same.valid) != pairs_of(other.valid)


NOTHING = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.mark.parametrize(
    ("change", "protocol", "what"),
    [
        ({"train": NOTHING}, "honest", "none to train on"),
        ({"test": NOTHING}, "paper", "none to choose the model on"),
        (
            {"train": Pairs(np.array([0, 1]), np.array([2, 2]))},
            "honest",
            "none to choose the model on",
        ),
    ],
)
def test_too_few_interactions_are_refused(change, protocol, what):
    with pytest.raises(JobError, match=what):
        split_interactions(replace(SAMPLE, **change), protocol)


TIMED = replace(
    SAMPLE,
    train=replace(SAMPLE.train, timestamp=np.arange(len(SAMPLE.train)) // 1000),
    test=replace(SAMPLE.test, timestamp=np.arange(len(SAMPLE.test)) // 1000),
)


@pytest.mark.parametrize("name", ["random", "cold-items", "temporal", "leave-one-out"])
def test_another_split_divides_all_interactions_anew(name):
    split = split_interactions(TIMED, "honest", split=name)
    train, valid, test = (pairs_of(sets) for sets in split.parts().values())
    assert len(train) + len(valid) + len(test) == len(SAMPLE.train) + len(SAMPLE.test)
    assert not train & valid and not (train | valid) & test
    assert (split.chosen_on, split.split) == ("valid", name)
    again = split_interactions(TIMED, "honest", split=name)
    assert split.fingerprint() == again.fingerprint()
    other = split_interactions(TIMED, "honest", 1, name)
    assert (split.fingerprint() == other.fingerprint()) == (name == "temporal")


def test_cold_items_are_listed_among_all_and_among_themselves():
    split = split_interactions(SAMPLE, "honest", split="cold-items")
    assert split.judged_parts() == ("valid", "test", "test_among_cold")
    assert split.candidates("test") is None
    cold, chosen = split.candidates("test_among_cold"), split.candidates("valid")
    assert set(cold) == set(split.test.items) and set(chosen) == set(split.valid.items)
    assert not set(cold) & set(split.train.items)
    assert pairs_of(split.held_out("test_among_cold")) == pairs_of(split.test)
    given = split_interactions(SAMPLE, "honest")
    assert given.judged_parts() == ("valid", "test")
    assert given.candidates("valid") is None


def test_users_to_judge_are_judged_on_test_alone():
    some = users_to_judge(["u7", "u3", "u7"], SAMPLE)
    split = split_interactions(SAMPLE, "honest", judged=some)
    judged = np.flatnonzero(split.to_judge("test").sizes)
    assert [SAMPLE.users.id(user) for user in judged] == ["u3", "u7"]
    for user in judged:
        assert split.to_judge("test").of(user).tolist() == split.test.of(user).tolist()
    assert pairs_of(split.to_judge("valid")) == pairs_of(split.valid)


@pytest.mark.parametrize(
    ("ids", "what"), [(["u1", "x", "y"], "user to judge 'x'"), ([], "none is named")]
)
def test_unknown_users_to_judge_are_refused(ids, what):
    with pytest.raises(JobError, match=what):
        users_to_judge(ids, SAMPLE)


@pytest.mark.parametrize(
    ("protocol", "split", "what"),
    [
        ("honest", "temporal", "have no timestamps"),
        ("paper", "cold-items", "not on split cold-items"),
        ("paper", "leave-one-out", "not on split leave-one-out"),
        ("paper", "random", "not on split random"),
    ],
)
def test_splits_that_make_no_sense_are_refused(protocol, split, what):
    with pytest.raises(DatasetError, match=what):
        split_interactions(SAMPLE, protocol, split=split)


def test_nobody_to_judge_is_refused():
    nobody = np.zeros(SAMPLE.n_users, dtype=bool)
    with pytest.raises(JobError, match="none has a held-out item"):
        split_interactions(SAMPLE, "honest", judged=nobody)
