"""Settings for a comparison: each backbone on each feature set is tuned with the same budget.

    NAME/tunings/BACKBONE-FEATURES/   trials as `pipeline tune` keeps them, and chosen.json

The search looks at valid alone, once for all seeds and protocols. What takes no tuning keeps the
settings that it was given.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sgfd.dataset import Dataset
from sgfd.featureset import FeatureSet, write_file
from sgfd.jobs import JobError, progress
from sgfd.jobs.search import values_in_words
from sgfd.recommenders.backbone import BackboneSettings
from sgfd.recommenders.backbones import find_backbone
from sgfd.recommenders.preparation import prepare
from sgfd.recommenders.tuning import plan_search, tuned_settings

logger = logging.getLogger("sgfd")

SEED = 0  # of every search and its trainings
Pair = tuple[str, str]  # backbone, label of the features


@dataclass(frozen=True)
class Tuned:
    """Settings that a search chose, and what a run's record says of the search."""

    settings: BackboneSettings
    summary: dict[str, Any]


def name_of_search(pair: Pair) -> str:
    return f"{pair[0]}-{pair[1]}"


def to_tune(pairs: list[Pair], folder: Path) -> list[Pair]:
    """Those of the pairs whose search isn't over."""
    return [pair for pair in pairs if not _chosen(pair, folder).exists()]


def read_tuned(pairs: list[Pair], folder: Path) -> dict[Pair, Tuned]:
    """What the searches that are over chose.

    Raises:
        JobError: a choice can't be read.
    """
    found = {}
    for pair in pairs:
        if (path := _chosen(pair, folder)).exists():
            try:
                text = json.loads(path.read_text(encoding="utf-8"))
                settings = find_backbone(pair[0]).Settings(**text["settings"])
                found[pair] = Tuned(settings, text["summary"])
            except (ValueError, KeyError, TypeError) as error:  # pydantic's is a ValueError
                raise JobError(
                    path,
                    f"can't be read ({type(error).__name__})",
                    "delete it; the same command goes on from the trials",
                ) from None
    return found


def search_one(
    dataset: Dataset,
    backbone: str,
    features: FeatureSet | None,
    settings: BackboneSettings,
    trials: int,
    fixed: tuple[str, ...],
    folder: Path,
    **inputs: Any,
) -> None:
    """Search, and leave what was chosen as `chosen.json` in `folder`.

    Raises:
        JobError: an input is wrong, or every trial failed.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    prepared = prepare(dataset, backbone, features, **inputs)
    search = plan_search(prepared, settings, trials, SEED, fixed)
    chosen, summary = tuned_settings(search, folder)
    text = json.dumps({"settings": asdict(chosen), "summary": summary}, indent=2)
    write_file(folder / "chosen.json", (text + "\n").encode())


def await_searches(
    pairs: list[Pair],
    folder: Path,
    run: Callable[[list[Pair]], Iterator[tuple[str, str | None]]],
) -> dict[Pair, str]:
    """Make the searches that `folder` lacks, by `run`; the errors of those that failed."""
    missing = to_tune(pairs, folder)
    by_name = {name_of_search(pair): pair for pair in missing}
    errors = {}
    with progress(len(missing), "tuning") as advance:
        for number, (name, error) in enumerate(run(missing), start=1):
            advance(1)
            pair = by_name[name]
            place, what = f"[{number}/{len(missing)}]", f"{pair[0]} on {pair[1]}"
            found = read_tuned([pair], folder).get(pair)
            if error is not None or found is None:
                errors[pair] = f"its tuning failed: {error or 'it left no choice'}"
                logger.error("%s %s: %s", place, what, errors[pair])
            else:
                recall, words = (
                    found.summary["valid_recall@20"],
                    values_in_words(found.summary["chosen"]),
                )
                logger.info("%s tuned %s: %.4f on valid, %s", place, what, recall, words)
    return errors


def _chosen(pair: Pair, folder: Path) -> Path:
    return folder / "tunings" / name_of_search(pair) / "chosen.json"
