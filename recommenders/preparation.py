"""What a training is given, checked before anything is written."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from sgfd.dataset import Dataset, Feature, Protocol, Split, check_division
from sgfd.featureset import MIN_COVERAGE, FeatureSet
from sgfd.jobs import (
    JobError,
    keep_freed_memory,
    of_kind,
    use_device,
    use_threads,
    whole_number,
)
from sgfd.recommenders.backbone import Backbone, BackboneSettings
from sgfd.recommenders.backbones import find_backbone, usable_backbones
from sgfd.recommenders.inputs import FeatureScale, ModalityFeatures, aligned_features
from sgfd.recommenders.protocols import (
    SplitSets,
    split_interactions,
    users_to_judge,
)
from sgfd.recommenders.provenance import Saw, what_features_saw
from sgfd.recommenders.run_folder import NARROWED_FORMAT, RUN_FORMAT, Names

logger = logging.getLogger("sgfd")


@dataclass(frozen=True)
class Prepared:
    """A backbone and its inputs: all of a training but the settings and the seed.

    Attributes:
        features: aligned to the data set's items, by modality; empty where there are none.
        generic: the catalogue's generic features, of which diversity is measured.
        saw: what of the interactions the features were made with.
        origins: what a run's record says of all this.
    """

    kind: type[Backbone]
    sets: SplitSets
    features: dict[str, ModalityFeatures]
    generic: Mapping[str, Feature]
    saw: Saw
    device: torch.device
    names: Names
    origins: dict[str, Any]

    def record(self, settings: BackboneSettings, seed: int) -> dict[str, Any]:
        """What `run.json` says of a training before it begins."""
        return {**self.origins, "seed": seed, "settings": asdict(settings)}

    def on_train_and_valid(self) -> Self:
        """The same with valid as a part of train, and none to choose a model on."""
        merged, none = self.sets.seen_before("test"), self.sets.valid.emptied()
        return replace(self, sets=replace(self.sets, train=merged, valid=none))

    def without_test(self) -> Self:
        """The same with nothing to test on."""
        return replace(self, sets=replace(self.sets, test=self.sets.test.emptied()))


def settings_of(kind: type[Backbone], given: BackboneSettings | None) -> BackboneSettings:
    """Those given, or the backbone's defaults.

    Raises:
        JobError: they are another backbone's.
    """
    if given is None:
        return kind.Settings()
    if not isinstance(given, kind.Settings):
        name, wanted = type(given).__name__, kind.Settings.__name__
        raise JobError("settings", f"{name} are not of {kind.__name__}", f"give {wanted}")
    return given


def prepare(
    dataset: Dataset,
    backbone: str,
    features: FeatureSet | None = None,
    *,
    protocol: Protocol = "honest",
    split: Split = "given",
    judge_users: Sequence[str] | None = None,
    split_seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    min_coverage: float = MIN_COVERAGE,
    feature_scale: FeatureScale = "entry",
    modalities: Sequence[str] | None = None,
    dimension: int | None = None,
    trust_features: bool = False,
) -> Prepared:
    """Check and read what `train` is given; its arguments are explained there.

    Raises:
        JobError, DatasetError, FeatureSetError: an input is wrong.
    """
    of_kind("dataset", dataset, Dataset, "give dataset.load_dataset(...)")
    if features is not None:
        of_kind("features", features, FeatureSet, "give featureset.load(...)")
    kind = find_backbone(backbone)
    check_division(protocol, split)
    if feature_scale not in get_args(FeatureScale):
        raise JobError(
            f"feature_scale {feature_scale!r}",
            "is unknown",
            f"choose {' or '.join(get_args(FeatureScale))}",
        )
    split_seed = whole_number("split_seed", split_seed)
    if dimension is not None:
        dimension = whole_number("dimension", dimension, least=1)
    interactions = dataset.interactions
    if interactions is None:
        raise JobError(
            f"dataset {dataset.name}", "has no interactions", "add some: stage two trains on them"
        )
    torch_device = use_device(device)
    use_threads(threads)
    keep_freed_memory()
    if features is not None and not kind.uses_features:
        logger.warning("%s takes no features: they are left out", backbone)
        features = None
    if features is None and kind.needs_features:
        raise JobError(
            f"backbone {backbone}", "scores by features alone", "give a feature set: --features"
        )
    if split != "given":
        _refuse_split(split, backbone, features)
    judged = None if judge_users is None else users_to_judge(judge_users, interactions)
    sets = split_interactions(interactions, protocol, split_seed, split, judged)
    if protocol == "paper":
        logger.warning("protocol paper chooses the model on TEST: its figures are for comparison")
    aligned, used = {}, None
    saw: Saw = "nothing"
    if features is not None:
        alignment = features.align(interactions.items.ids, min_coverage)
        saw = what_features_saw(features, interactions, sets, trust_features)
        aligned = aligned_features(
            features, alignment.rows, feature_scale, modalities, dimension=dimension
        )
        used = {
            "name": features.manifest.name,
            "manifest_sha256": features.manifest_sha256,
            "student_sha256": features.manifest.student_sha256,
            "coverage": alignment.coverage,
            "modalities": list(aligned),
            "scale": feature_scale,
            "factors": {name: modality.factor for name, modality in aligned.items()},
        }
        if dimension is not None:
            used["dimension"] = dimension
        if saw != "nothing":
            used["saw"] = saw
    origins = {
        "format": RUN_FORMAT,
        "backbone": backbone,
        "features": used,
        "dataset": {"name": dataset.name, "fingerprint": interactions.fingerprint()},
        "protocol": protocol,
        "chosen_on": sets.chosen_on,
        "similarity": kind.similarity,
        "split_seed": split_seed,
        "device": torch_device.type,
    }
    origins |= _narrowed(sets, interactions.users.ids)
    generic = dataset.catalog.features if dataset.catalog else {}
    return Prepared(kind, sets, aligned, generic, saw, torch_device, _names(dataset), origins)


def _refuse_split(split: Split, backbone: str, features: FeatureSet | None) -> None:
    """Refuse a backbone that can't answer under a split other than the data set's own.

    Raises:
        JobError: it knows no cold items.
    """
    kind = find_backbone(backbone)
    if split == "cold-items" and not kind.scores_new_items:
        able = [name for name, kind in usable_backbones().items() if kind.scores_new_items]
        raise JobError(
            f"backbone {backbone}",
            "scores items by id and can't score those of split cold-items",
            f"choose {' or '.join(able)}",
        )
    if split == "cold-items" and features is None:
        raise JobError(
            f"backbone {backbone}",
            "scores the items of split cold-items by features alone",
            "give a feature set: --features",
        )


def _narrowed(sets: SplitSets, user_ids: NDArray[np.object_]) -> dict[str, Any]:
    """What the record says more where not all is judged on the data set's own parts.

    Nothing where it is, so that such runs bear the names that they always did.
    """
    more: dict[str, Any] = {}
    if sets.split != "given":
        more |= {"split": sets.split, "parts_sha256": sets.fingerprint()}
    if sets.judged is not None:
        ids = "\0".join(user_ids[sets.judged])
        digest = hashlib.sha256(ids.encode()).hexdigest()
        more["judge_users"] = {"count": int(sets.judged.sum()), "sha256": digest}
    if sets.split == "cold-items" or sets.judged is not None:
        more["format"] = NARROWED_FORMAT
    return more


def _names(dataset: Dataset) -> Names:
    interactions, catalog = dataset.interactions, dataset.catalog
    assert interactions is not None
    titles = labels = np.full(interactions.n_items, None, dtype=object)
    if catalog is not None and catalog.titles is not None:
        titles = catalog.titles
    if catalog is not None and catalog.labels is not None:
        labels = np.array([*catalog.label_names, None], dtype=object)[catalog.labels]
    return Names(interactions.users.ids, interactions.items.ids, titles, labels)
