"""Whether features saw, when they were made, what a run holds out."""

import logging
from typing import Literal, cast

import numpy as np

from sgfd.dataset import Interactions, Protocol, Split, are_among, divide, pairs_fingerprint
from sgfd.featureset import FeatureSet, InteractionsUse
from sgfd.jobs import JobError
from sgfd.recommenders.item_sets import ItemSets
from sgfd.recommenders.protocols import SplitSets

logger = logging.getLogger("sgfd")

Saw = Literal["nothing", "train", "unproven"]


def what_features_saw(
    features: FeatureSet, interactions: Interactions, sets: SplitSets, trust: bool = False
) -> Saw:
    """Divide the interactions as the features' maker did, and look for pairs held out here.

    Args:
        trust: go on where nothing can be told, as with features guided by another data set's
            interactions.

    Returns:
        `nothing` for features made without interactions; `train` for those that saw none of the
        pairs that this run holds out; `unproven` where they are trusted.

    Raises:
        JobError: they saw such pairs, or it can't be told.
    """
    use = features.manifest.interactions
    known = features.manifest.dataset.fingerprints.interactions
    if not features.manifest.is_guided:
        return "nothing"
    if use is None or known != interactions.fingerprint():
        return _unproven(features, "are not this data set's", trust)
    seen = _seen(use, interactions)
    if seen is None:
        return _unproven(features, "can't be made again from its manifest", trust)
    held_out = np.concatenate([sets.valid.keys, sets.test.keys])
    if leaked := int(are_among(held_out, seen.keys).sum()):
        raise JobError(
            features.path,
            f"was distilled with {leaked:,} of the {len(held_out):,} pairs held out here "
            f"(it saw the training part of split {use.split}, seed {use.split_seed}, "
            f"protocol {use.protocol})",
            "distil again with the --split, --split-seed and --protocol of this run",
        )
    return "train"


def _seen(use: InteractionsUse, interactions: Interactions) -> ItemSets | None:
    """The pairs that guided the features; None where the division gives others now."""
    train = divide(
        interactions, cast(Protocol, use.protocol), cast(Split, use.split), use.split_seed
    ).train
    if pairs_fingerprint(train) != use.sha256:
        return None
    return ItemSets.from_pairs(train.user, train.item, interactions.n_users, interactions.n_items)


def _unproven(features: FeatureSet, why: str, trust: bool) -> Saw:
    if not trust:
        raise JobError(
            features.path,
            f"was distilled with interactions that {why}; whether it saw pairs held out here "
            "can't be told",
            "distil again from this data set, or add --trust-features, which the run records",
        )
    logger.warning("%s may have seen pairs that are held out here: it is trusted", features.path)
    return "unproven"
