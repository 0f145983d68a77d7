"""Which interactions train, which choose a model, which judge it: one division for both stages."""

import hashlib
import logging
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np

from sgfd.dataset.errors import DatasetError
from sgfd.dataset.interactions import Interactions, Pairs
from sgfd.dataset.splits import (
    cold_items_split,
    honest_split,
    join,
    leave_one_out_split,
    random_split,
    temporal_split,
)

logger = logging.getLogger("sgfd")

Protocol = Literal["honest", "paper"]
Split = Literal["given", "random", "cold-items", "temporal", "leave-one-out"]


@dataclass(frozen=True)
class Parts:
    """The interactions of a data set, divided; under protocol `paper` nothing is valid."""

    train: Pairs
    valid: Pairs
    test: Pairs


def divide(
    interactions: Interactions,
    protocol: Protocol = "honest",
    split: Split = "given",
    split_seed: int = 0,
) -> Parts:
    """Divide the interactions as the split and the protocol say.

    Split `given` takes the data set's own parts. Protocol `honest`: the model is chosen on its
    valid part or, where it has none, on 10 % of each user's training items (users with 3 or
    more); test is touched once. `paper`: trained on all that is not test and chosen on test, as
    SGFD's published code does.

    The other splits divide all interactions anew, under protocol `honest` alone:

    - `random`: a fifth of each user's interactions is test, a tenth of his others valid (users
      with 3 or more).
    - `cold-items`: a fifth of the items is test as a whole, a tenth of the others valid.
    - `temporal`: cut in time for all users at once; the last 20 % are test, the 10 % before
      valid. All users with held-out items are judged, as by LensKit's `split_global_time` where
      it is not told to filter them: one who comes after the cut has an empty history, as he
      would have had then, and to a model by id his vector is untrained.
    - `leave-one-out`: each user's last interaction is test, the one before valid; without
      timestamps two at random, and a warning says so.

    Raises:
        DatasetError: split or protocol is unknown; the split needs timestamps that are not
            there, or finer ones, or makes no sense under the protocol.
    """
    check_division(protocol, split)
    nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    if split == "given":
        train, valid, test = interactions.train, interactions.valid, interactions.test
        if protocol == "paper":
            return Parts(join(train, valid), nothing, test)
        if valid is None or not len(valid):
            train, valid = honest_split(train, interactions.n_users, seed=split_seed)
        return Parts(train, valid, test)
    if protocol == "paper":
        raise DatasetError(
            "protocol paper",
            f"is that of published code on the data set's own parts, not on split {split}",
            "choose protocol honest, or split given",
        )
    whole = join(interactions.train, interactions.valid, interactions.test)
    if split == "random":
        return Parts(*random_split(whole, interactions.n_users, seed=split_seed))
    if split == "cold-items":
        return Parts(*cold_items_split(whole, seed=split_seed))
    if split == "leave-one-out":
        if whole.timestamp is None:
            _say_that_chance_chooses()
        return Parts(*leave_one_out_split(whole, interactions.n_users, split_seed))
    if whole.timestamp is None:
        raise DatasetError(
            "interactions",
            "have no timestamps, and split temporal cuts by time",
            "add a column timestamp, or choose another split",
        )
    parts = temporal_split(whole)
    if not all(len(part) for part in parts):
        sizes = ", ".join(
            f"{n} {len(p)}" for n, p in zip(("train", "valid", "test"), parts, strict=True)
        )
        raise DatasetError(
            "interactions",
            f"are too few, or too many of one time, for split temporal ({sizes})",
            "give finer timestamps, or choose another split",
        )
    return Parts(*parts)


@cache  # once, however many parts are made
def _say_that_chance_chooses() -> None:
    logger.warning(
        "the interactions have no timestamps: split leave-one-out takes one of each user at random"
    )


def check_division(protocol: str, split: str) -> None:
    """Whether there is such a protocol and such a split.

    Raises:
        DatasetError: there is not.
    """
    for option, value, known in (
        ("protocol", protocol, get_args(Protocol)),
        ("split", split, get_args(Split)),
    ):
        if value not in known:
            raise DatasetError(f"{option} {value!r}", "is unknown", f"choose {' or '.join(known)}")


def pairs_fingerprint(pairs: Pairs) -> str:
    """sha256 of the pairs, whatever their order."""
    order = np.lexsort((pairs.item, pairs.user))
    return hashlib.sha256(np.stack([pairs.user[order], pairs.item[order]]).tobytes()).hexdigest()
