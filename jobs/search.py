"""Searching settings by seeded trials: what is tried next, and the trials kept on disk.

    FOLDER/
      tuning.json     what is searched: inputs, ranges, seed; another search is refused
      trials.jsonl    one line a finished trial, in their order

What a trial tries follows from the seed, its number and the trials before it: Optuna's sampler is
seeded anew for each, and looks at a study that is built from `trials.jsonl`. So a search that was
killed goes on to the very trials that it would have had. Optuna's own storages would keep the same
in a database, or in a journal whose snapshots are unpickled, and neither keeps the sampler's random
state, on which a resumed search depends.
"""

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import TypeAdapter

from sgfd.featureset import write_file
from sgfd.jobs.errors import JobError
from sgfd.jobs.progress import progress
from sgfd.settings import Range

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger("sgfd")

RANDOM_TRIALS = 5  # so many at first, before what they found guides the next (TPE)
PRUNED_AFTER = 4  # complete trials, whose median is what others are held against
WARM_UP = 10  # epochs that every trial has, however it starts


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Attributes:
        number: from 0, the trial of the settings that the search starts from.
        state: `complete`, `pruned` (stopped, being below the median), or `failed`.
        values: of the settings searched.
        recall: Recall@20 by which it is judged, of the best epoch; None where it failed.
        scores: the same after each epoch; empty where nothing is trained.
        error: one line, where it failed.
    """

    number: int
    state: Literal["complete", "pruned", "failed"]
    values: dict[str, Any]
    recall: float | None
    seconds: float
    scores: list[float] = field(default_factory=list)
    error: str | None = None


_TRIAL = TypeAdapter(Trial)


def searched(
    start: Any,
    declared: Mapping[str, Range],
    fixed: Collection[str],
    trials: int,
    what: str,
    instead: str,
) -> dict[str, Range]:
    """The ranges to search: those declared, without what is fixed.

    Args:
        start: the settings of the first trial. what, instead: what they are of and what to do
            where nothing is searched, for messages.

    Raises:
        JobError: nothing is left to search, or no trial to search with, or the start lies outside
            a range.
    """
    if trials < 1:
        raise JobError(f"{trials} trials", "find nothing", "give one or more")
    space = {name: where for name, where in declared.items() if name not in fixed}
    if not space:
        why = "all of its ranges are fixed" if declared else "its settings declare no range"
        raise JobError(what, f"has nothing to tune: {why}", instead)
    for name, where in space.items():
        value = getattr(start, name)
        if value not in where:
            raise JobError(
                f"setting {name}",
                f"starts at {value:g}, outside its range ({where})",
                f"fix it by --set {name}=VALUE, or give another --range",
            )
    return space


def run_trials(
    folder: Path,
    trials: int,
    attempt: Callable[[list[Trial]], Trial],
    tidy: Callable[[], None],
    judged_on: str,
) -> list[Trial]:
    """The finished trials in a search's folder, then those that it lacks.

    Args:
        attempt: makes the next trial, given those before it.
        tidy: removes what a trial left to go on from, once it is written down.
        judged_on: what Recall@20 is of, for messages.

    Raises:
        JobError: the trials in the folder can't be read.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    done = read_trials(folder)[:trials]
    if done and len(done) < trials:
        logger.info("the search goes on after %d of %d trials", len(done), trials)
    with progress(trials, "tuning") as advance:
        advance(len(done))
        while len(done) < trials:
            trial = attempt(done)
            done.append(trial)
            _write_trials(done, folder)
            tidy()
            advance(1)
            _say(trial, done, trials, judged_on)
    return done


def read_trials(folder: Path) -> list[Trial]:
    """The finished trials in a search's folder.

    Raises:
        JobError: their file can't be read.
    """
    path = folder / "trials.jsonl"
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [_trial(line) for line in lines]
    except ValueError as error:
        raise JobError(
            path, f"can't be read ({error})", "delete the folder, or choose another --name"
        ) from None


def _trial(line: str) -> Trial:
    trial = _TRIAL.validate_json(line)
    if (trial.recall is None) != (trial.state == "failed"):
        raise ValueError(f"trial {trial.number}, {trial.state}, has the recall {trial.recall}")
    return trial


def _write_trials(done: Sequence[Trial], folder: Path) -> None:
    """Replace the file of the finished trials."""
    lines = [json.dumps(asdict(trial), allow_nan=False) for trial in done]
    write_file(folder / "trials.jsonl", ("\n".join(lines) + "\n").encode())


def chosen(done: Sequence[Trial]) -> Trial:
    """The best complete trial, the first of equals.

    Raises:
        JobError: there is none.
    """
    complete = [trial for trial in done if trial.state == "complete"]
    if not complete:
        errors = [trial.error for trial in done if trial.error]
        raise JobError(
            f"all {len(done)} trials", f"failed (the last: {errors[-1]})", "give other ranges"
        )
    return max(complete, key=lambda trial: (trial.recall or 0.0, -trial.number))


def remember(identity: dict[str, Any], folder: Path) -> None:
    """Write what is searched, or hold it against what was searched here before.

    Raises:
        JobError: something changed, named in the message; nothing is written.
    """
    path = folder / "tuning.json"
    if path.exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise JobError(
                path, "can't be read", "choose another --name, or delete the folder to search anew"
            ) from None
        names = sorted(before.keys() | identity.keys())
        if changed := [name for name in names if before.get(name) != identity.get(name)]:
            raise JobError(
                folder,
                f"its trials were made with other inputs ({', '.join(changed)})",
                "choose another --name, or delete the folder to search anew",
            )
    write_file(path, (json.dumps(identity, indent=2) + "\n").encode())


def propose(
    start: Any, space: Mapping[str, Range], seed: int, done: Sequence[Trial]
) -> "optuna.Trial":
    """What to try after the trials done: the start first, then as Optuna's TPE suggests.

    Bergstra, Bardenet, Bengio, Kégl: Algorithms for Hyper-Parameter Optimization, NIPS 2011.
    """
    import optuna  # here, because a command that tunes nothing need not wait for it

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    states = {
        "complete": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    kinds: dict[str, optuna.distributions.BaseDistribution] = {}
    for name, where in space.items():
        if isinstance(getattr(start, name), int):
            low, high = int(where.low), int(where.high)
            kinds[name] = optuna.distributions.IntDistribution(low, high, log=where.log)
        else:
            kinds[name] = optuna.distributions.FloatDistribution(
                where.low, where.high, log=where.log
            )
    (own_seed,) = np.random.SeedSequence([seed, len(done)]).generate_state(1)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=RANDOM_TRIALS, seed=int(own_seed)),
        pruner=optuna.pruners.MedianPruner(PRUNED_AFTER, WARM_UP),
    )
    for trial in done:
        study.add_trial(
            optuna.trial.create_trial(
                state=states[trial.state],
                value=trial.recall,
                params=trial.values,
                distributions=kinds,
                intermediate_values=dict(enumerate(trial.scores, start=1)),
            )
        )
    if not done:
        study.enqueue_trial({name: getattr(start, name) for name in kinds})
    return study.ask(kinds)


def values_in_words(values: Mapping[str, float]) -> str:
    """Settings such as `learning_rate 0.0021, layers 2`."""
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def _say(trial: Trial, done: Sequence[Trial], total: int, judged_on: str) -> None:
    """One line on a finished trial."""
    place, words = f"[{trial.number + 1}/{total}]", values_in_words(trial.values)
    if trial.state == "failed":
        logger.warning("%s failed (%s): %s", place, words, trial.error)
        return
    best = max(t.recall or 0.0 for t in done if t.state != "failed")
    state = "pruned at" if trial.state == "pruned" else f"{judged_on} recall@20"
    logger.info("%s %s %.4f, best %.4f: %s", place, state, trial.recall, best, words)
