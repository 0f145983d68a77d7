"""Which interactions train, which choose the model, which judge it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset import Interactions, Pairs, Protocol, Split, distinct, divide
from sgfd.jobs import JobError
from sgfd.recommenders.item_sets import Indices, ItemSets

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
            return distinct(self.held_out(part).items)
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
    """The sets of `sgfd.dataset.divide`, which says what splits and protocols are.

    Args:
        judged: bool (U,), the users whom test judges; all where None.

    Raises:
        JobError: no interaction is left to train on or to choose the model on.
        DatasetError: the interactions can't be divided so.
    """
    parts = divide(interactions, protocol, split, split_seed)

    def sets(pairs: Pairs) -> ItemSets:
        return ItemSets.from_pairs(
            pairs.user, pairs.item, interactions.n_users, interactions.n_items
        )

    chosen_on: Literal["valid", "test"] = "test" if protocol == "paper" else "valid"
    divided = SplitSets(
        sets(parts.train), sets(parts.valid), sets(parts.test), chosen_on, split, judged
    )
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
    if isinstance(user_ids, str):
        raise JobError(f"users to judge {user_ids!r}", "is one text", "give a list of ids")
    user_ids = list(user_ids)
    if not user_ids:
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
