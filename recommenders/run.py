"""Stage two from top to bottom: a dataset, a backbone and perhaps a feature set make a run."""

import hashlib
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sgfd.dataset import Dataset, Protocol, Split
from sgfd.featureset import MIN_COVERAGE, FeatureSet
from sgfd.jobs import MOST_SEED, JobError, WorkFolder, peak_memory_bytes, whole_number
from sgfd.recommenders.backbone import Backbone, BackboneSettings
from sgfd.recommenders.inputs import FeatureScale
from sgfd.recommenders.learning import learn
from sgfd.recommenders.preparation import Prepared, prepare, settings_of
from sgfd.recommenders.ranking import vectors_of
from sgfd.recommenders.run_folder import RECORD, REFIT, Run, load_run, write_record, write_run
from sgfd.recommenders.training import TrainingState

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
    min_coverage: float = MIN_COVERAGE,
    feature_scale: FeatureScale = "entry",
    modalities: Sequence[str] | None = None,
    dimension: int | None = None,
    trust_features: bool = False,
    refit: bool = False,
    tuning: Mapping[str, Any] | None = None,
    runs_root: Path = Path("runs"),
    name: str | None = None,
    overwrite: bool = False,
) -> Run:
    """Train a backbone on a dataset's interactions and frozen features, judge it, write the run.

    Args:
        settings: an instance of the backbone's `Settings`; its defaults where None.
        protocol: `honest` (model chosen on valid) or `paper` (chosen on test, to compare only).
        split: `given` (the data set's own parts), `random`, `cold-items`, `temporal` or
            `leave-one-out`; `split_interactions` says what they are. Under all but `given` the
            items without training interactions are new ones to a backbone that scores by features.
        judge_users: ids of the users whom test judges; all where None. Valid judges all.
        seed: of the weights, the batches and the dropout. split_seed: of the parts.
        min_coverage: least share of the dataset's items that the feature set must know.
        feature_scale: `entry` (mean square of a modality's entries is 1), `unit` or `stored`.
        modalities: those of the feature set to use; where None those that it recommends.
        dimension: use so many leading columns of each alone, of a set that is made for it.
        trust_features: use features that were guided by other interactions, of which nobody can
            tell whether they saw what is held out here; the record says so.
        refit: once the model is chosen, train anew on train and valid together for as many
            epochs, and judge that on test as well: the run in the folder `refit` of this one.
        tuning: what the record says of a search that chose the settings.
        name: of the run folder under `runs_root`; made from the inputs where None.
        overwrite: replace a finished run of the same name, given or made.

    Raises:
        JobError, DatasetError, FeatureSetError: an input is wrong; nothing is written.
        KeyboardInterrupt: interrupted; the same call goes on from the checkpoint.
    """
    if refit and protocol == "paper":
        raise JobError(
            "refit",
            "protocol paper chooses on test and trains on valid already",
            "choose protocol honest, or leave the refit out",
        )
    seed = whole_number("seed", seed, most=MOST_SEED)
    prepared = prepare(
        dataset,
        backbone,
        features,
        protocol=protocol,
        split=split,
        judge_users=judge_users,
        split_seed=split_seed,
        device=device,
        threads=threads,
        min_coverage=min_coverage,
        feature_scale=feature_scale,
        modalities=modalities,
        dimension=dimension,
        trust_features=trust_features,
    )
    settings = settings_of(prepared.kind, settings)
    target = _target(Path(runs_root), name, overwrite, prepared.record(settings, seed))
    return make_run(prepared, settings, seed, target, overwrite, refit=refit, tuning=tuning)


def make_run(
    prepared: Prepared,
    settings: BackboneSettings,
    seed: int,
    target: Path,
    overwrite: bool = False,
    *,
    refit: bool = False,
    tuning: Mapping[str, Any] | None = None,
) -> Run:
    """Train on prepared inputs, judge, and write the run to `target`; see `train`."""
    record = prepared.record(settings, seed)
    identity = record | {"producer": version("sgfd")}
    with WorkFolder(target, identity, overwrite, marker=RECORD) as work:
        model, state = learn(prepared, settings, seed, work)
        found = _write(work.result, record, prepared, model, state)
        if tuning is not None:
            found["tuning"] = dict(tuning)
        if refit:
            found["refit"] = _refit(work, record, prepared, settings, state.best_epoch)
        write_record(work.result, found)
        return load_run(work.publish())


def _write(
    folder: Path,
    record: dict[str, Any],
    prepared: Prepared,
    model: Backbone,
    state: TrainingState,
) -> dict[str, Any]:
    """Judge a model and write all of its run but `run.json`; what that has to say."""
    start = time.perf_counter()
    metrics = write_run(
        folder,
        record,
        vectors_of(model),
        model,
        state.history,
        prepared.sets,
        prepared.features,
        prepared.names,
        prepared.generic,
    )
    return {
        **record,
        "split": prepared.sets.split,
        "metrics": metrics,
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "seconds": {"train": state.seconds, "evaluate": time.perf_counter() - start},
        "peak_memory_bytes": peak_memory_bytes(prepared.device),
        "threads": state.threads or [torch.get_num_threads()],
        "versions": _versions(),
    }


def _refit(
    work: WorkFolder,
    record: dict[str, Any],
    prepared: Prepared,
    settings: BackboneSettings,
    epochs: int,
) -> dict[str, Any]:
    """Train anew on train and valid for so many epochs, write that as a run inside the run.

    The features are those of the choice. Where they were made with interactions, valid was no
    part of these, and both records say so: they are not made again.

    Returns:
        What the outer run says of it.
    """
    if prepared.saw != "nothing":
        logger.warning(
            "refit: the features saw interactions of train at most and are not made again"
        )
    whole = prepared.on_train_and_valid()
    model, state = learn(whole, settings, record["seed"], work.stage(REFIT), epochs=epochs)
    folder = work.result / REFIT
    folder.mkdir()
    found = _write(folder, record, whole, model, state)
    found["trained_on"] = "train and valid"
    if prepared.features:
        found["features_saw"] = prepared.saw
    write_record(folder, found)
    kept = ("trained_on", "features_saw", "epochs", "seconds", "metrics")
    said = {key: found[key] for key in kept if key in found}
    said["metrics"] = {part: figures for part, figures in said["metrics"].items() if figures}
    return said


def _target(runs_root: Path, name: str | None, overwrite: bool, record: dict[str, Any]) -> Path:
    """The run's folder: the given name, or one of its inputs that no finished run has, if none is
    to be overwritten.

    Raises:
        JobError: the name is none of a folder in `runs_root`.
    """
    if name is not None:
        plain = name == Path(name).name and not name.startswith(".") and name.isprintable()
        if not (name and plain):
            raise JobError(
                f"name {name!r}", "is no plain folder name", "leave out / and leading dots"
            )
        return runs_root / name
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:8]
    features = record["features"]["name"] if record["features"] else "no-features"
    parts = (record["dataset"]["name"], record["backbone"], features, f"seed{record['seed']}")
    base, number = "-".join((*parts, digest)), 1
    target = runs_root / base
    while target.exists() and not overwrite:
        number += 1
        target = runs_root / f"{base}-{number}"
    return target


def _versions() -> dict[str, str]:
    packages = ("sgfd", "torch", "faiss-cpu", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
