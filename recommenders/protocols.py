"""Which interactions train, which choose the model, which judge it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset import (
    Interactions,
    Pairs,
    cold_items_split,
    honest_split,
    join,
    leave_one_out_split,
    temporal_split,
)
from sgfd.jobs import JobError
from sgfd.recommenders.item_sets import Indices, ItemSets

Protocol = Literal["honest", "paper"]
Split = Literal["given", "cold-items", "temporal", "leave-one-out"]
JudgedPart = Literal["valid", "test", "test_among_cold"]


@dataclass(frozen=True)
class SplitSets:
    """The items of each user in each part of the data.

    Attributes:
        chosen_on: the part whose Recall@20 stops the training: `valid` or `test`.
        split: how the parts were made; under `cold-items` it says who may be listed, too.
        judged: bool (U,), the users that test judges; all where None. Valid judges all.
    """

    train: ItemSets
    valid: ItemSets
    test: ItemSets
    chosen_on: Literal["valid", "test"]
    split: Split = "given"
    judged: NDArray[np.bool_] | None = None

    def parts(self) -> dict[str, ItemSets]:
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def judged_parts(self) -> tuple[JudgedPart, ...]:
        """What a run is judged on; cold items both among all items and among themselves."""
        cold: tuple[JudgedPart, ...] = ("test_among_cold",) if self.split == "cold-items" else ()
        return ("valid", "test", *cold)

    def held_out(self, part: str) -> ItemSets:
        return self.test if part == "test_among_cold" else self.parts()[part]

    def to_judge(self, part: JudgedPart) -> ItemSets:
        """The held-out items of the users that `part` judges, none of the others."""
        held_out = self.held_out(part)
        if self.judged is None or part == "valid":
            return held_out
        keys = held_out.keys[np.repeat(self.judged, held_out.sizes)]
        user, item = np.divmod(keys, max(held_out.n_items, 1))
        return ItemSets.from_pairs(user, item, held_out.n_users, held_out.n_items)

    def seen_before(self, part: str) -> ItemSets:
        """What may not be recommended when `part` judges: for test, train and valid."""
        return self.train.merge(self.valid) if part.startswith("test") else self.train

    def candidates(self, part: str) -> Indices | None:
        """The items that may be listed when `part` judges, ascending; all where None.

        Under `cold-items` valid lists its own items alone: they are cold as those of test are,
        and would otherwise have to stand against all that the model has seen.
        """
        if part == "test_among_cold" or (part == "valid" and self.split == "cold-items"):
            return np.unique(self.held_out(part).items)
        return None

    def fingerprint(self) -> str:
        """sha256 of every pair, part by part."""
        digest = hashlib.sha256()
        for name, sets in self.parts().items():
            digest.update(name.encode())
            digest.update(sets.keys.tobytes())
        return digest.hexdigest()


def split_interactions(
    interactions: Interactions,
    protocol: Protocol,
    split_seed: int = 0,
    split: Split = "given",
    judged: NDArray[np.bool_] | None = None,
) -> SplitSets:
    """Divide the interactions as the split and the protocol say.

    Split `given` takes the data set's own parts. Protocol `honest`: the model is chosen on its
    valid part or, where it has none, on 10 % of each user's training items (users with 3 or
    more); test is touched once. `paper`: trained on all that is not test and chosen on test, as
    SGFD's published code does.

    The other splits divide all interactions anew, under protocol `honest` alone:

    - `cold-items`: a fifth of the items is test as a whole, a tenth of the others valid.
    - `temporal`: cut in time for all users at once; the last 20 % are test, the 10 % before
      valid. All users with held-out items are judged, as by LensKit's `split_global_time` where
      it is not told to filter them: one who comes after the cut has an empty history, as he
      would have had then, and to a model by id his vector is untrained.
    - `leave-one-out`: each user's last interaction is test, the one before valid.

    Args:
        judged: bool (U,), the users whom test judges; all where None.

    Raises:
        JobError: no interaction is left to train on or to choose the model on; the split needs
            timestamps that are not there; it makes no sense under the protocol.
    """
    if split == "given":
        train, valid, test = _given_parts(interactions, protocol, split_seed)
    else:
        train, valid, test = _new_parts(interactions, protocol, split_seed, split)

    def sets(pairs: Pairs | None) -> ItemSets:
        user, item = (pairs.user, pairs.item) if pairs else (np.empty(0, np.int64),) * 2
        return ItemSets.from_pairs(user, item, interactions.n_users, interactions.n_items)

    chosen_on: Literal["valid", "test"] = "test" if protocol == "paper" else "valid"
    divided = SplitSets(sets(train), sets(valid), sets(test), chosen_on, split, judged)
    if not len(divided.train.items):
        raise JobError("interactions", "there is none to train on", "give a train part")
    if not len(divided.held_out(chosen_on).items):
        raise JobError(
            "interactions",
            f"there is none to choose the model on (protocol {protocol}, {chosen_on})",
            "give a valid part, or users with 3 or more training items",
        )
    if judged is not None and not len(divided.to_judge("test").items):
        raise JobError("users to judge", "none has a held-out item in test", "name others")
    return divided


def users_to_judge(user_ids: Sequence[str], interactions: Interactions) -> NDArray[np.bool_]:
    """Whether each user is among those named, bool (U,).

    Raises:
        JobError: one is unknown (the first is named), or none is named.
    """
    if not len(user_ids):
        raise JobError("users to judge", "none is named", "name at least one")
    places = interactions.users.index(user_ids)
    if (unknown := places < 0).any():
        raise JobError(
            f"user to judge {user_ids[int(np.flatnonzero(unknown)[0])]!r}",
            f"is not among the {interactions.n_users} users of the data set",
            f"give ids such as {interactions.users.id(0)!r}",
        )
    judged = np.zeros(interactions.n_users, dtype=bool)
    judged[places] = True
    return judged


def _given_parts(
    interactions: Interactions, protocol: Protocol, seed: int
) -> tuple[Pairs, Pairs | None, Pairs]:
    train, valid, test = interactions.train, interactions.valid, interactions.test
    if protocol == "paper":
        return join(train, valid), None, test
    if valid is None or not len(valid):
        train, valid = honest_split(train, interactions.n_users, seed=seed)
    return train, valid, test


def _new_parts(
    interactions: Interactions, protocol: Protocol, seed: int, split: Split
) -> tuple[Pairs, Pairs, Pairs]:
    if protocol == "paper":
        raise JobError(
            "protocol paper",
            f"is that of published code on the data set's own parts, not on split {split}",
            "choose protocol honest, or split given",
        )
    whole = join(interactions.train, interactions.valid, interactions.test)
    if split == "cold-items":
        return cold_items_split(whole, seed=seed)
    if split == "leave-one-out":
        return leave_one_out_split(whole, interactions.n_users, seed)
    if whole.timestamp is None:
        raise JobError(
            "interactions",
            "have no timestamps, and split temporal cuts by time",
            "add a column timestamp (native layout), or choose another split",
        )
    return temporal_split(whole)
