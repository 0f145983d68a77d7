"""Searching the settings of a method of stage one, on held-out items.

    FOLDER/
      tuning.json, trials.jsonl   as `jobs/search.py` keeps them
      feature-set/                made with the settings that were chosen

What is looked at are the training interactions and the valid ones of items that a trial's makers
never saw interact: `FOLDS` times a share of the items is left out, the features are made without
their interactions, and users look for them by nearest neighbour. Test has no part in it.
"""

import json
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import normalize

from sgfd.dataset import (
    Dataset,
    ItemCatalog,
    Protocol,
    Split,
    divide,
    pairs_fingerprint,
)
from sgfd.distill.errors import DistillError
from sgfd.distill.held_out import HeldOutItems, hold_items_out
from sgfd.distill.maker import Made, Task
from sgfd.distill.methods import Method
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.stage import DistillResult, distill, method_and_settings, usable_catalog
from sgfd.featureset import FeatureSetError, load
from sgfd.featureset.formats import refuse_guided_export
from sgfd.jobs import (
    MOST_SEED,
    WorkFolder,
    keep_freed_memory,
    locked,
    seed_everything,
    use_device,
    use_threads,
    whole_number,
)
from sgfd.jobs.search import (
    Trial,
    chosen,
    propose,
    remember,
    run_trials,
    searched,
)
from sgfd.memory import is_out_of_memory
from sgfd.settings import Range, ranges_of

UNFIT = DistillError, ValidationError  # what settings that can't be trained end with
FOLDS = 3
HELD_OUT_SHARE = 0.2

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class TunedFeatures:
    """What a search found: the settings' values, their Recall@20 and that of the start, and the
    feature set that was made with them."""

    chosen: dict[str, Any]
    recall: float | None
    start_recall: float | None
    trials: int
    result: DistillResult

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"result": self.result.to_json()}


def tune(
    dataset: Dataset,
    folder: Path,
    settings: Any = None,
    seed: int = 0,
    *,
    method: str | None = None,
    trials: int = 20,
    fixed: Collection[str] = (),
    ranges: Mapping[str, Range] | None = None,
    protocol: Protocol = "honest",
    split: Split = "given",
    split_seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> TunedFeatures:
    """Search a method's settings, then make the feature set `folder/feature-set` with the best.

    Args:
        folder: of the search. settings: where it starts. trials: how many, the start included.
        fixed: names of settings that stay. ranges: in place of those that the settings declare.
        The others are those of `distill`.

    Raises:
        DistillError, DatasetError: as `distill` does; or there are no interactions to judge by.
        JobError: there is nothing to search, or `folder` holds another search.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    seed = whole_number("seed", seed, most=MOST_SEED)
    split_seed = whole_number("split_seed", split_seed)
    method, known, start = method_and_settings(method, settings)
    if dataset.path is not None:
        refuse_guided_export(dataset.path)
    catalog = usable_catalog(dataset, method, known)
    if dataset.interactions is None or protocol != "honest":
        raise DistillError(
            f"data set {dataset.name}",
            "can't be tuned on: features are judged by valid interactions",
            "add interactions, and choose protocol honest",
        )
    declared = ranges_of(type(start)) if ranges is None else ranges
    space = searched(start, declared, fixed, trials, f"method {method}", "distill with it")
    parts = divide(dataset.interactions, protocol, split, split_seed)
    shape = (dataset.interactions.n_users, catalog.n_items)
    train = TrainingPairs.of(parts.train.user, parts.train.item, *shape)
    judged = TrainingPairs.of(
        np.concatenate([parts.train.user, parts.valid.user]),
        np.concatenate([parts.train.item, parts.valid.item]),
        *shape,
    )
    torch_device = use_device(device)
    use_threads(threads)
    keep_freed_memory()
    search = _Search(known, start, catalog, train, judged, seed, torch_device, folder)
    identity = {
        "stage": "distill",
        "method": method,
        "settings": asdict(start),
        "space": {name: asdict(where) for name, where in space.items()},
        "catalogue": catalog.fingerprint(),
        "labels": catalog.labels_fingerprint(),
        "interactions": dataset.interactions.fingerprint(),
        "division": [protocol, split, split_seed],
        "parts": [pairs_fingerprint(parts.train), pairs_fingerprint(parts.valid)],
        "seed": seed,
        "device": torch_device.type,
    }
    with locked(folder, "tunes"):
        remember(identity, folder)
        done = run_trials(
            folder,
            trials,
            lambda done: search.trial(len(done), propose(start, space, seed, done).params),
            search.tidy,
            "held-out",
        )
        best = chosen(done)
        settings, target = replace(start, **best.values), folder / "feature-set"
        result = _made_before(target, settings) or distill(
            dataset,
            target,
            settings,
            seed,
            method=method,
            protocol=protocol,
            split=split,
            split_seed=split_seed,
            device=device,
            threads=threads,
            overwrite=True,
            figures={"tuned_on_held_out_and_valid": _told_of(done, best)},
        )
    return TunedFeatures(best.values, best.recall, done[0].recall, len(done), result)


def _told_of(done: list[Trial], best: Trial) -> dict[str, Any]:
    """What the manifest says of a search: whoever trains on the set learns what chose it."""
    return {"trials": len(done), "start_recall@20": done[0].recall, "recall@20": best.recall}


def _made_before(target: Path, settings: Any) -> DistillResult | None:
    """The feature set of a search that was over before, where more trials chose nothing else: made
    anew it would be another version, and what was trained on it would not go on."""
    try:
        manifest = load(target).manifest
    except FeatureSetError:
        return None
    same = manifest.settings == json.loads(json.dumps(asdict(settings)))
    if not same or manifest.producer.version != version("sgfd"):
        return None
    return DistillResult(target, manifest.method, 0.0, manifest.quality)


@dataclass(frozen=True)
class _Search:
    """What every trial has in common.

    Attributes:
        train: what makers may see. judged: what items are looked for by, valid included.
    """

    method: Method
    start: Any
    catalog: ItemCatalog
    train: TrainingPairs
    judged: TrainingPairs
    seed: int
    device: torch.device
    folder: Path

    def trial(self, number: int, values: dict[str, Any]) -> Trial:
        """The mean over the folds of Recall@20 among the items left out."""
        begun = time.perf_counter()
        try:
            settings = replace(self.start, **values)
            recalls = [self._fold(settings, fold) for fold in range(FOLDS)]
        except Exception as error:
            if not (isinstance(error, UNFIT) or is_out_of_memory(error)):
                raise
            said = " ".join(str(error).split())
            return Trial(number, "failed", values, None, time.perf_counter() - begun, [], said)
        recall = float(np.mean(recalls))
        return Trial(number, "complete", values, recall, time.perf_counter() - begun)

    def _fold(self, settings: Any, fold: int) -> float:
        held_out = hold_items_out(self.train, HELD_OUT_SHARE, self.seed + 1 + fold)
        judge = HeldOutItems.of(self.train, held_out, self.judged)
        if judge is None:
            raise DistillError(
                "tuning", "no user has items on both sides of a fold", "give more interactions"
            )
        left = self.train.without(held_out)
        identity = {"fold": fold, "settings": asdict(settings)}
        with WorkFolder(self.folder / f"fold-{fold}", identity) as work:
            seed_everything(self.seed)
            task = Task(self.catalog, self.seed, self.device, work, left, measured=False)
            made = self.method.make(task, settings)
            return judge.recall(lambda items: _side_by_side(made, items))

    def tidy(self) -> None:
        """Remove the folds' checkpoints."""
        for left in self.folder.glob(".fold-*.partial"):
            shutil.rmtree(left)


def _side_by_side(made: Made, items: Indices) -> Tensor:
    """Unit rows (k, d) of the modalities that a reader gets, side by side; zeros where lacking."""
    rows = [made.modalities[name].rows(items) for name in made.default or made.modalities]
    return torch.cat([normalize(torch.from_numpy(np.nan_to_num(r)), dim=1) for r in rows], dim=1)
