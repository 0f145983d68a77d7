"""Stage two from top to bottom: a dataset, a backbone and perhaps a feature set make a run."""

import hashlib
import json
import logging
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset import Dataset
from sgfd.featureset import FeatureSet
from sgfd.jobs import (
    JobError,
    WorkFolder,
    keep_freed_memory,
    peak_memory_bytes,
    seed_everything,
    use_device,
    use_threads,
)
from sgfd.recommenders.backbone import Backbone, BackboneSettings
from sgfd.recommenders.backbones import backbone_places, find_backbone
from sgfd.recommenders.evaluation import judge
from sgfd.recommenders.inputs import FeatureScale, aligned_features, make_inputs
from sgfd.recommenders.newcomers import KnownItems
from sgfd.recommenders.protocols import (
    Protocol,
    Split,
    SplitSets,
    split_interactions,
    users_to_judge,
)
from sgfd.recommenders.ranking import rank_by_model, rank_by_shortlist, vectors_of
from sgfd.recommenders.run_folder import (
    NARROWED_FORMAT,
    RUN_FORMAT,
    Names,
    Run,
    load_run,
    write_record,
    write_run,
)
from sgfd.recommenders.training import TrainingState, fit

logger = logging.getLogger("sgfd")


def train(
    dataset: Dataset,
    backbone: str = "bm3",
    features: FeatureSet | None = None,
    settings: BackboneSettings | None = None,
    *,
    protocol: Protocol = "honest",
    split: Split = "given",
    judge_users: Sequence[str] | None = None,
    seed: int = 0,
    split_seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    min_coverage: float = 0.95,
    feature_scale: FeatureScale = "entry",
    modalities: Sequence[str] | None = None,
    runs_root: Path = Path("runs"),
    name: str | None = None,
    overwrite: bool = False,
) -> Run:
    """Train a backbone on a dataset's interactions and frozen features, judge it, write the run.

    Args:
        settings: an instance of the backbone's `Settings`; its defaults where None.
        protocol: `honest` (model chosen on valid) or `paper` (chosen on test, to compare only).
        split: `given` (the data set's own parts), `cold-items`, `temporal` or `leave-one-out`;
            `split_interactions` says what they are. Under all but `given` the items without
            training interactions are new ones to a backbone that scores by features.
        judge_users: ids of the users whom test judges; all where None. Valid judges all.
        seed: of the weights, the batches and the dropout. split_seed: of the parts.
        min_coverage: least share of the dataset's items that the feature set must know.
        feature_scale: `entry` (mean square of a modality's entries is 1), `unit` or `stored`.
        modalities: those of the feature set to use; all where None.
        name: of the run folder under `runs_root`; made from the inputs where None.
        overwrite: replace a finished run of the same given name.

    Raises:
        JobError, DatasetError, FeatureSetError: an input is wrong; nothing is written.
        KeyboardInterrupt: interrupted; the same call goes on from the checkpoint.
    """
    kind = find_backbone(backbone)
    settings = settings or kind.Settings()
    for option, value, known in (
        ("protocol", protocol, get_args(Protocol)),
        ("split", split, get_args(Split)),
        ("feature_scale", feature_scale, get_args(FeatureScale)),
    ):
        if value not in known:
            raise JobError(f"{option} {value!r}", "is unknown", f"choose {' or '.join(known)}")
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
        if features is not None:
            refuse_made_with_interactions(features, split)
    judged = None if judge_users is None else users_to_judge(judge_users, interactions)
    sets = split_interactions(interactions, protocol, split_seed, split, judged)
    if protocol == "paper":
        logger.warning("protocol paper chooses the model on TEST: its figures are for comparison")
    aligned, used = {}, None
    if features is not None:
        alignment = features.align(interactions.items.ids, min_coverage)
        aligned = aligned_features(features, alignment.rows, feature_scale, modalities)
        used = {
            "name": features.manifest.name,
            "manifest_sha256": features.manifest_sha256,
            "coverage": alignment.coverage,
            "modalities": list(aligned),
            "scale": feature_scale,
            "factors": {name: modality.factor for name, modality in aligned.items()},
        }
    record: dict[str, Any] = {
        "format": RUN_FORMAT,
        "backbone": backbone,
        "features": used,
        "dataset": {"name": dataset.name, "fingerprint": interactions.fingerprint()},
        "protocol": protocol,
        "chosen_on": sets.chosen_on,
        "similarity": kind.similarity,
        "seed": seed,
        "split_seed": split_seed,
        "settings": asdict(settings),
        "device": torch_device.type,
    }
    record |= _narrowed(sets, interactions.users.ids)
    target = _target(Path(runs_root), name, record)
    with WorkFolder(target, record, overwrite) as work:
        seed_everything(seed)
        record["split"] = split
        inputs, state = make_inputs(sets.train, aligned, torch_device), TrainingState()
        if kind.trained and split != "given" and kind.scores_new_items and aligned:
            growing = KnownItems(kind, inputs, settings)
            state = fit(
                growing.learner,
                growing.inputs,
                settings,
                seed,
                work,
                lambda _: _recall(growing.with_new(), sets),
            )
            model = growing.with_new()
        else:
            model = kind(inputs, settings).to(torch_device)
            if kind.trained:
                state = fit(model, inputs, settings, seed, work, lambda m: _recall(m, sets))
        start = time.perf_counter()
        record["metrics"] = write_run(
            work.result,
            record,
            vectors_of(model),
            model.state_dict(),
            state.history,
            sets,
            aligned,
            _names(dataset),
            dataset.catalog.features if dataset.catalog else {},
        )
        record["epochs"] = state.epoch
        record["best_epoch"] = state.best_epoch
        record["seconds"] = {"train": state.seconds, "evaluate": time.perf_counter() - start}
        record["peak_memory_bytes"] = peak_memory_bytes(torch_device)
        record["versions"] = _versions()
        write_record(work.result, record)
        return load_run(work.publish())


def refuse_made_with_interactions(features: FeatureSet, split: Split) -> None:
    """Refuse features that may know what a split other than the data set's own holds out.

    Raises:
        JobError: they were made with interactions.
    """
    if features.manifest.dataset.fingerprints.interactions is not None:
        raise JobError(
            features.path,
            f"was made with interactions, among which may be those that split {split} holds out",
            "give features made without, or choose split given",
        )


def _refuse_split(split: Split, backbone: str, features: FeatureSet | None) -> None:
    """Refuse a backbone that can't answer under a split other than the data set's own.

    Raises:
        JobError: it knows no cold items.
    """
    kind = find_backbone(backbone)
    if split == "cold-items" and not kind.scores_new_items:
        able = [name for name in backbone_places() if find_backbone(name).scores_new_items]
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


def _recall(model: Backbone, split: SplitSets) -> float:
    """Recall@20 on the part that the protocol chooses the model on."""
    part = split.chosen_on
    rank = (
        rank_by_model(model)
        if model.shortlist is None
        else rank_by_shortlist(model, model.shortlist)
    )
    candidates = split.candidates(part)
    judgement = judge(
        rank, split.seen_before(part), split.held_out(part), (20,), candidates=candidates
    )
    return judgement.metrics["recall@20"]


def _names(dataset: Dataset) -> Names:
    interactions, catalog = dataset.interactions, dataset.catalog
    assert interactions is not None
    titles = labels = np.full(interactions.n_items, None, dtype=object)
    if catalog is not None and catalog.titles is not None:
        titles = catalog.titles
    if catalog is not None and catalog.labels is not None:
        labels = np.array([*catalog.label_names, None], dtype=object)[catalog.labels]
    return Names(interactions.users.ids, interactions.items.ids, titles, labels)


def _target(runs_root: Path, name: str | None, record: dict[str, Any]) -> Path:
    """The run's folder: the given name, or one of its inputs that no finished run has."""
    if name is not None:
        return runs_root / name
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:8]
    features = record["features"]["name"] if record["features"] else "no-features"
    parts = (record["dataset"]["name"], record["backbone"], features, f"seed{record['seed']}")
    base, number = "-".join((*parts, digest)), 1
    target = runs_root / base
    while target.exists():
        number += 1
        target = runs_root / f"{base}-{number}"
    return target


def _versions() -> dict[str, str]:
    packages = ("sgfd", "torch", "faiss-cpu", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
