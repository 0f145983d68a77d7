"""Stage two from top to bottom: a dataset, a backbone and perhaps a feature set make a run."""

import hashlib
import json
import logging
import platform
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from sgfd.dataset import Dataset, ItemCatalog
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
from sgfd.recommenders.backbones import find_backbone
from sgfd.recommenders.evaluation import judge
from sgfd.recommenders.evaluation.topk import Scores
from sgfd.recommenders.inputs import aligned_features, make_inputs
from sgfd.recommenders.protocols import Protocol, SplitSets, split_interactions
from sgfd.recommenders.run_folder import RUN_FORMAT, Run, load_run, write_record, write_run
from sgfd.recommenders.training import TrainingState, fit

logger = logging.getLogger("sgfd")


def train(
    dataset: Dataset,
    backbone: str = "bm3",
    features: FeatureSet | None = None,
    settings: BackboneSettings | None = None,
    *,
    protocol: Protocol = "honest",
    seed: int = 0,
    split_seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    min_coverage: float = 0.95,
    runs_root: Path = Path("runs"),
    name: str | None = None,
    overwrite: bool = False,
) -> Run:
    """Train a backbone on a dataset's interactions and frozen features, judge it, write the run.

    Args:
        settings: an instance of the backbone's `Settings`; its defaults where None.
        protocol: `honest` (model chosen on valid) or `paper` (chosen on test, to compare only).
        seed: of the weights, the batches and the dropout. split_seed: of the valid part.
        min_coverage: least share of the dataset's items that the feature set must know.
        name: of the run folder under `runs_root`; made from the inputs where None.
        overwrite: replace a finished run of the same given name.

    Raises:
        JobError, DatasetError, FeatureSetError: an input is wrong; nothing is written.
        KeyboardInterrupt: interrupted; the same call goes on from the checkpoint.
    """
    kind = find_backbone(backbone)
    settings = settings or kind.Settings()
    if protocol not in get_args(Protocol):
        raise JobError(f"protocol {protocol!r}", "is unknown", "choose honest or paper")
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
    if protocol == "paper":
        logger.warning("protocol paper chooses the model on TEST: its figures are for comparison")
    split = split_interactions(interactions, protocol, split_seed)
    aligned, used = {}, None
    if features is not None:
        alignment = features.align(interactions.items.ids, min_coverage)
        aligned = aligned_features(features, alignment.rows)
        used = {
            "name": features.manifest.name,
            "manifest_sha256": features.manifest_sha256,
            "coverage": alignment.coverage,
        }
    record: dict[str, Any] = {
        "format": RUN_FORMAT,
        "backbone": backbone,
        "features": used,
        "dataset": {"name": dataset.name, "fingerprint": interactions.fingerprint()},
        "protocol": protocol,
        "chosen_on": split.chosen_on,
        "similarity": kind.similarity,
        "seed": seed,
        "split_seed": split_seed,
        "settings": asdict(settings),
        "device": torch_device.type,
    }
    target = _target(Path(runs_root), name, record)
    with WorkFolder(target, record, overwrite) as work:
        seed_everything(seed)
        inputs = make_inputs(split.train, aligned, torch_device)
        model = kind(inputs, settings).to(torch_device)
        state = TrainingState()
        if kind.trained:
            state = fit(model, inputs, settings, seed, work, lambda m: _recall(m, split))
        start = time.perf_counter()
        record["metrics"] = write_run(
            work.result,
            record,
            embeddings_of(model),
            model.state_dict(),
            state.history,
            split,
            (interactions.users.ids, interactions.items.ids, _titles(dataset)),
        )
        record["epochs"] = state.epoch
        record["best_epoch"] = state.best_epoch
        record["seconds"] = {"train": state.seconds, "evaluate": time.perf_counter() - start}
        record["peak_memory_bytes"] = peak_memory_bytes(torch_device)
        record["versions"] = _versions()
        write_record(work.result, record)
        return load_run(work.publish())


def embeddings_of(model: Backbone) -> tuple[Scores, Scores]:
    """User and item vectors of a backbone as float32 arrays on the host."""
    model.eval()
    with torch.inference_mode():
        users, items = model.embeddings()
    return users.float().cpu().numpy(), items.float().cpu().numpy()


def _recall(model: Backbone, split: SplitSets) -> float:
    """Recall@20 on the part that the protocol chooses the model on."""
    users, items = embeddings_of(model)
    held_out, seen = split.held_out(split.chosen_on), split.seen_before(split.chosen_on)
    return judge(users, items, model.similarity, seen, held_out, cutoffs=(20,)).metrics["recall@20"]


def _titles(dataset: Dataset) -> Any:
    catalog: ItemCatalog | None = dataset.catalog
    if catalog is not None and catalog.titles is not None:
        return catalog.titles
    assert dataset.interactions is not None
    return np.full(dataset.interactions.n_items, None, dtype=object)


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
