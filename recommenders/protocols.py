"""Which interactions train, which choose the model, which judge it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sgfd.dataset import Interactions, Pairs, honest_split
from sgfd.jobs import JobError
from sgfd.recommenders.item_sets import ItemSets

Protocol = Literal["honest", "paper"]


@dataclass(frozen=True)
class SplitSets:
    """The items of each user in each part of the data.

    Attributes:
        chosen_on: the part whose Recall@20 stops the training: `valid` or `test`.
    """

    train: ItemSets
    valid: ItemSets
    test: ItemSets
    chosen_on: Literal["valid", "test"]

    def parts(self) -> dict[str, ItemSets]:
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def held_out(self, part: str) -> ItemSets:
        return self.parts()[part]

    def seen_before(self, part: str) -> ItemSets:
        """What may not be recommended when `part` judges: for test, train and valid."""
        return self.train.merge(self.valid) if part == "test" else self.train


def split_interactions(
    interactions: Interactions, protocol: Protocol, split_seed: int = 0
) -> SplitSets:
    """Divide the interactions as the protocol says.

    `honest`: the model is chosen on the dataset's own valid part or, where it has none, on 10 %
    of each user's training items (users with 3 or more); test is touched once. `paper`: trained
    on all that is not test and chosen on test, as SGFD's published code does.

    Raises:
        JobError: no interaction is left to train on or to choose the model on.
    """
    train, valid, test = interactions.train, interactions.valid, interactions.test
    if protocol == "paper":
        train, valid = _together(train, valid), None
    elif valid is None or not len(valid):
        train, valid = honest_split(train, interactions.n_users, seed=split_seed)

    def sets(pairs: Pairs | None) -> ItemSets:
        user, item = (pairs.user, pairs.item) if pairs else (np.empty(0, np.int64),) * 2
        return ItemSets.from_pairs(user, item, interactions.n_users, interactions.n_items)

    split = SplitSets(
        sets(train), sets(valid), sets(test), "test" if protocol == "paper" else "valid"
    )
    if not len(split.train.items):
        raise JobError("interactions", "there is none to train on", "give a train part")
    if not len(split.held_out(split.chosen_on).items):
        raise JobError(
            "interactions",
            f"there is none to choose the model on (protocol {protocol}, {split.chosen_on})",
            "give a valid part, or users with 3 or more training items",
        )
    return split


def _together(first: Pairs, second: Pairs | None) -> Pairs:
    if second is None:
        return first
    return Pairs(
        np.concatenate([first.user, second.user]), np.concatenate([first.item, second.item]), None
    )
