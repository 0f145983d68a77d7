"""Which interactions train, choose and judge."""

from dataclasses import replace

import numpy as np
import pytest

from sgfd.dataset import Pairs, load_dataset
from sgfd.jobs import JobError
from sgfd.recommenders.protocols import split_interactions

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
