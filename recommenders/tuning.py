"""Searching the settings of a backbone on valid, with a stated budget of trials.

    NAME/
      tuning.json             what is searched: inputs, ranges, seed; another search is refused
      trials.jsonl            one line a finished trial, in their order
      trial-N.safetensors     where the trial at work stands
      run/                    the run of the chosen settings: test is judged there alone

What a trial tries follows from its number and those before it (`jobs/search.py`).
"""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from sgfd.dataset import Dataset
from sgfd.featureset import FeatureSet
from sgfd.jobs import MOST_SEED, Checkpoint, JobError, locked, whole_number
from sgfd.jobs.search import (
    Trial,
    chosen,
    propose,
    remember,
    run_trials,
    searched,
)
from sgfd.memory import is_out_of_memory
from sgfd.recommenders.backbone import BackboneSettings, UnusableSettingsError
from sgfd.recommenders.learning import chosen_by, learn
from sgfd.recommenders.preparation import Prepared, prepare, settings_of
from sgfd.recommenders.run import make_run
from sgfd.recommenders.run_folder import RECORD, REFIT, Run, load_run
from sgfd.recommenders.training import TrainingState
from sgfd.settings import Range

logger = logging.getLogger("sgfd")

FORMAT = 1
UNFIT = UnusableSettingsError, ValidationError  # what settings that can't be trained end with


@dataclass(frozen=True)
class Search:
    """What is searched, and from where.

    Attributes:
        start: the settings of trial 0, and of whatever isn't searched.
        space: where each setting is searched.
        fixed: settings with a range that are not searched, because their value was given.
    """

    prepared: Prepared
    start: BackboneSettings
    space: dict[str, Range]
    fixed: tuple[str, ...]
    trials: int
    seed: int

    def identity(self) -> dict[str, Any]:
        """What the trials of one folder have in common; their number may change."""
        space = {name: asdict(where) for name, where in self.space.items()}
        identity = self.prepared.record(self.start, self.seed)
        loaded: dict[str, Any] = json.loads(
            json.dumps(identity | {"search": FORMAT, "space": space})
        )
        return loaded

    def summary(self, done: Sequence[Trial]) -> dict[str, Any]:
        """What the record of a run says of the search that chose its settings."""
        best = chosen(done)
        states = [trial.state for trial in done]
        return {
            "trials": self.trials,
            "complete": states.count("complete"),
            "pruned": states.count("pruned"),
            "failed": states.count("failed"),
            "seed": self.seed,
            "searched": {name: asdict(where) for name, where in self.space.items()},
            "fixed": list(self.fixed),
            "chosen_trial": best.number,
            "chosen": best.values,
            "valid_recall@20": best.recall,
            "start_valid_recall@20": done[0].recall,
            "seconds": sum(trial.seconds for trial in done),
        }


def tune(
    dataset: Dataset,
    backbone: str,
    features: FeatureSet | None = None,
    settings: BackboneSettings | None = None,
    *,
    folder: Path,
    trials: int = 20,
    seed: int = 0,
    fixed: Collection[str] = (),
    ranges: Mapping[str, Range] | None = None,
    refit: bool = False,
    **inputs: Any,
) -> Run:
    """Search a backbone's settings on valid, then train the best ones and judge test, once.

    Args:
        settings: where the search starts; the backbone's defaults where None.
        folder: of the search; the run is in it.
        trials: settings tried, the start included. seed: of the search and of every training.
        fixed: names of settings that stay as they are.
        ranges: in place of those that the backbone declares.
        refit, inputs: as `train` takes them, without the protocol, which is honest.

    Raises:
        JobError, DatasetError, FeatureSetError: an input is wrong, or not that of the trials in
            `folder`; nothing is written.
        JobError: every trial failed; or test was judged already after another number of trials.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    search = plan_search(
        prepare(dataset, backbone, features, **inputs), settings, trials, seed, fixed, ranges
    )
    with locked(folder, "tunes"):
        remember(search.identity(), folder)
        if (folder / "run" / RECORD).exists():
            return _judged(folder, trials, refit)
        done = run_search(search, folder)
        best = replace(search.start, **chosen(done).values)
        # The choice is made: from here on, and only now, test may be looked at.
        tuning = search.summary(done) | {"models_judged_on_test": 2 if refit else 1}
        return make_run(search.prepared, best, seed, folder / "run", refit=refit, tuning=tuning)


def tuned_settings(search: Search, folder: Path) -> tuple[BackboneSettings, dict[str, Any]]:
    """The best settings that a search in `folder` finds, and its summary; test is left alone.

    Raises:
        JobError: the trials in `folder` are of another search, or every trial failed.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    with locked(folder, "tunes"):
        remember(search.identity(), folder)
        done = run_search(search, folder)
    return replace(search.start, **chosen(done).values), search.summary(done)


def plan_search(
    prepared: Prepared,
    settings: BackboneSettings | None,
    trials: int,
    seed: int,
    fixed: Collection[str] = (),
    ranges: Mapping[str, Range] | None = None,
) -> Search:
    """A search over the ranges that the backbone declares, or those given.

    Raises:
        JobError: there is nothing to search, or no trial to search with; the protocol chooses on
            test; the start lies outside a range.
    """
    backbone = prepared.origins["backbone"]
    start = settings_of(prepared.kind, settings)
    seed = whole_number("seed", seed, most=MOST_SEED)
    if prepared.sets.chosen_on != "valid":
        raise JobError("tuning", "chooses on valid, and protocol paper has none", "choose honest")
    declared = prepared.kind.ranges() if ranges is None else dict(ranges)
    if not prepared.features:
        declared = {name: where for name, where in declared.items() if not where.features}
    space = searched(start, declared, fixed, trials, f"backbone {backbone}", "train it")
    kept = tuple(name for name in declared if name in fixed)
    return Search(prepared, start, space, kept, trials, seed)


def run_search(search: Search, folder: Path) -> list[Trial]:
    """The trials of a search: those in `folder`, then those that it lacks."""

    def tidy() -> None:
        for checkpoint in folder.glob("trial-*.safetensors"):
            checkpoint.unlink()

    return run_trials(folder, search.trials, lambda done: _try(search, done, folder), tidy, "valid")


class _Pruned(Exception):  # noqa: N818 (an end of a trial, no error)
    """The trial at work is below the median."""


def _try(search: Search, done: Sequence[Trial], folder: Path) -> Trial:
    """The next trial, from its checkpoint where there is one."""
    number, start = len(done), time.perf_counter()
    proposal = propose(search.start, search.space, search.seed, done)
    values, scores = proposal.params, list[float]()

    def watch(state: TrainingState) -> None:
        for row in state.history[len(scores) :]:  # after a resume several at once
            scores.append(row["recall@20"])
            proposal.report(row["recall@20"], row["epoch"])
        if proposal.should_prune():
            raise _Pruned

    def ended(
        state: Literal["complete", "pruned", "failed"],
        recall: float | None,
        error: Exception | None = None,
    ) -> Trial:
        said = " ".join(str(error).split()) if error else None
        return Trial(number, state, values, recall, time.perf_counter() - start, scores, said)

    prepared = search.prepared.without_test()
    checkpoint = Checkpoint(folder / f"trial-{number}.safetensors")
    try:
        settings = replace(search.start, **values)
        model, state = learn(prepared, settings, search.seed, checkpoint, watch=watch)
    except _Pruned:
        return ended("pruned", max(scores))
    except Exception as error:
        if not (isinstance(error, UNFIT) or is_out_of_memory(error)):
            raise
        return ended("failed", None, error)
    recall = state.best if prepared.kind.trained else chosen_by(model, prepared.sets)
    return ended("complete", recall)


def _judged(folder: Path, trials: int, refit: bool) -> Run:
    """The run of a search that is over.

    Raises:
        JobError: it is not what is asked for, and test is not judged a second time.
    """
    run = load_run(folder / "run")
    before = run.record["tuning"]["trials"]
    if before != trials or refit != (REFIT in run.record):
        how = f"after {before} trials, {'with' if REFIT in run.record else 'without'} a refit"
        raise JobError(
            folder,
            f"test was judged {how}, and is judged once",
            "choose another --name for another budget, or ask for the same",
        )
    return run
