"""Means and deviations over the seeds, for every way to show a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sgfd.jobs.search import values_in_words
from sgfd.recommenders.comparison.results import Cell, CellResult, Comparison
from sgfd.recommenders.comparison.statistics import Contrast, p_text
from sgfd.recommenders.evaluation import DIVERSITY

ALSO_ASKED = "ndcg@20"  # beside what the sentences are about

# Further tables, each of the metrics that the cells have.
FURTHER = {
    "By group of items": ("recall@20 cold", "recall@20 rare", "recall@20 popular"),
    "By group of users": ("recall@20 few", "recall@20 many"),
    "Beyond accuracy": ("coverage@20", "gini@20", "novelty@20"),
}
HOW_SHOWN = (
    "Intervals are of each difference alone; what is shown goes by p after Holm's correction for "
    "all differences of one metric, protocol and part: an interval may leave out 0 and nothing be "
    "shown. By one seed nothing is shown of a backbone that is trained. Where all users differ "
    "alike, p is that of a sign test over them, and no less where few differ at all."
)
HOW_REFIT = (
    "The model trained anew on train and valid together, for the epochs that were chosen on valid. "
    "It has seen more than the honest protocol's models, and is compared with none of them. The "
    "feature sets are the same: interactions that guided one were those of train alone."
)
NOTHING_COMPARED = (
    "Nothing is held against anything: it takes two feature sets, or none and one, and a backbone "
    "that uses them."
)
MEANINGS = (
    "none: trained without features.",
    "recall@k: the share of a user's test items that is among the k items listed for him.",
    "ndcg@k: hits weighted by 1 / log2(1 + place), 1 for the best possible list.",
    "paper_ndcg@k: the same with the hits that were found in place of all test items, so that one "
    "hit at the top is 1. pooled_recall@k: all users' hits over all users' test items.",
    "cold, rare, popular: that metric on test items without a training interaction; on the fewest "
    "items that hold half of all training interactions (popular); on those between (rare).",
    "few, many: users with at most, with more than the median number of training items.",
    "coverage@k: the share of all items that is in somebody's list. gini@k: 0 where all items are "
    "listed alike, near 1 where one takes every place. novelty@k: mean of -log2 of the share of "
    "users who had a listed item in training. diversity: mean of 1 - cosine of the generic "
    "features of two items of a list.",
)
HOW_TUNED = (
    "Searched on valid alone, with the same number of trials for each, from one seed; the settings "
    "that it starts from are the first trial. The trainings of all seeds have what was chosen: the "
    "intervals are of users and seeds, with this one search and this one copy of each feature set."
)
TUNING_HEAD = (
    "backbone",
    "features",
    "trials",
    "pruned",
    "failed",
    "valid recall@20 at first",
    "as chosen",
    "chosen",
)
PART_WORDS = {
    "test": "test: cold items among all items",
    "test_among_cold": "test_among_cold: the same items among cold ones alone",
}
PROTOCOL_METRICS = ("recall@20", "ndcg@20", "paper_ndcg@20", "pooled_recall@20")


@dataclass(frozen=True)
class Value:
    """A metric of one row: of each seed, and together."""

    seeds: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.seeds))

    @property
    def text(self) -> str:
        """`0.1234 ± 0.0012`, the deviation with n - 1; none for one seed."""
        if not self.seeds:
            return "-"
        if len(self.seeds) == 1:
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ± {np.std(self.seeds, ddof=1):.4f}"


@dataclass(frozen=True)
class Row:
    """A backbone on a feature set: how many seeds are done and failed, and their figures."""

    backbone: str
    features: str
    seeds: int
    failed: int
    values: dict[str, Value]
    epochs: float
    train_seconds: float
    peak_memory_bytes: int

    def figure(self, metric: str) -> str:
        """As it stands in a table: `failed` without a finished seed, `-` if not measured."""
        return self.values[metric].text if self.seeds else "failed"


def rows_of(
    comparison: Comparison, protocol: str, metrics: Sequence[str], part: str = "test"
) -> list[Row]:
    """Every backbone on every feature set that it was trained on, in the order asked for."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for backbone in comparison.backbones:
        for features in comparison.features:
            groups[backbone, features.label] = []
    for result in comparison.results:
        if result.cell.protocol == protocol:
            groups[result.cell.backbone, result.cell.features].append(result)
    return [
        _row(backbone, features, results, metrics, part)
        for (backbone, features), results in groups.items()
        if results
    ]


def how_made(comparison: Comparison) -> str:
    """How many trainings there are, by how many threads each, on what device and machine."""
    done = [result for result in comparison.results if result.error is None]
    counts = sorted({count for result in done for count in result.threads})
    by = f" of {' or '.join(map(str, counts))} thread{'s' * (counts != [1])} each" if counts else ""
    devices = sorted({result.device for result in done})
    on = "" if set(devices) <= {"cpu"} else f" on {' or '.join(devices)}"
    failed = len(comparison.results) - len(done)
    return f"{len(done)} trainings{by}{on}, {failed} failed; {comparison.machine}."


def measured(comparison: Comparison, metrics: Sequence[str], part: str = "test") -> list[str]:
    """Those of the metrics that some cell has on a part."""
    there = {name for r in comparison.results for name in r.metrics.get(part, {})}
    return [metric for metric in metrics if metric in there]


def further(comparison: Comparison) -> dict[str, list[str]]:
    """Metrics of the further tables, by heading; none without a metric.

    Diversity is beyond accuracy, by the generic features of every modality that there is.
    """
    found = {heading: measured(comparison, metrics) for heading, metrics in FURTHER.items()}
    there = {name for r in comparison.results for name in r.metrics.get("test", {})}
    found["Beyond accuracy"] += sorted(
        name for name in there if name.startswith(DIVERSITY) and name.endswith("@20")
    )
    return {heading: metrics for heading, metrics in found.items() if metrics}


def described(comparison: Comparison, part: str) -> str:
    """A part in words; `test` alone where there is no other."""
    return PART_WORDS[part] if len(comparison.parts) > 1 else part


def split_words(comparison: Comparison) -> str:
    """How the parts were made and who is judged; empty on the data set's own, of everybody."""
    words = f"Split {comparison.split}." if comparison.split != "given" else ""
    judged, named = comparison.judged_users, comparison.named_users
    if judged is not None:
        number = f"{judged}" if judged == named else f"{judged} of {named}"
        words += f" Test judges {number} named users alone."
    return words.strip()


def answers(comparison: Comparison, contrasts: Sequence[Contrast], metric: str) -> list[Contrast]:
    """What the report says first: the honest protocol's contrasts, where it was run."""
    protocols = comparison.protocols
    answering = "honest" if "honest" in protocols else next(iter(protocols), "")
    return [c for c in contrasts if (c.protocol, c.metric) == (answering, metric)]


def in_words(contrast: Contrast, contrasts: Sequence[Contrast]) -> str:
    """Its sentence, and what `ALSO_ASKED` says of the same two where that is something else."""

    def asked(of: Contrast) -> tuple[str, ...]:
        return of.protocol, of.part, of.backbone, of.features, of.baseline

    also = [
        f" By {other.metric} it is {other.verdict}: {other.difference.mean:+.4f}, "
        f"p {p_text(other.corrected_p)}."
        for other in contrasts
        if other.metric == ALSO_ASKED
        and asked(other) == asked(contrast)
        and other.verdict != contrast.verdict
    ]
    return contrast.sentence + "".join(also)


def further_words(comparison: Comparison) -> list[str]:
    """What is said after the contrasts: what can't answer, what failed, and where nothing could be
    held against anything, had no training failed, that.
    """
    words = [f"{each.what} {each.why}." for each in comparison.unanswered]
    words += [f"{cell_name(r.cell)} failed: {r.error}" for r in comparison.failed()]
    labels: dict[tuple[str, str], set[str]] = {}
    for cell in (result.cell for result in comparison.results):
        labels.setdefault((cell.protocol, cell.backbone), set()).add(cell.features)
    if all(len(own) < 2 for own in labels.values()):
        words.append(NOTHING_COMPARED)
    return words


def cell_name(cell: Cell) -> str:
    return f"{cell.backbone} on {cell.features} ({cell.protocol}, seed {cell.seed})"


def _row(
    backbone: str, features: str, results: list[CellResult], metrics: Sequence[str], part: str
) -> Row:
    done = [result for result in results if result.error is None]
    tests = [result.metrics.get(part, {}) for result in done]
    return Row(
        backbone,
        features,
        len(done),
        len(results) - len(done),
        {metric: Value(tuple(t[metric] for t in tests if metric in t)) for metric in metrics},
        float(np.mean([result.epochs for result in done])) if done else 0.0,
        float(np.mean([result.train_seconds for result in done])) if done else 0.0,
        max((result.peak_memory_bytes for result in done), default=0),
    )


def refitted(comparison: Comparison) -> Comparison:
    """The comparison of the refits alone, with their figures; without cells where none."""
    results = [replace(r, metrics=r.refit) for r in comparison.results if r.refit]
    return replace(comparison, results=tuple(results))


def tuning_rows(comparison: Comparison) -> list[list[str]]:
    """How the settings of each backbone on each feature set were searched; see TUNING_HEAD."""
    searched = {
        (r.cell.backbone, r.cell.features): r.tuning for r in comparison.results if r.tuning
    }
    return [
        [
            *pair,
            str(found["trials"]),
            str(found["pruned"]),
            str(found["failed"]),
            "-" if (start := found["start_valid_recall@20"]) is None else f"{start:.4f}",
            f"{found['valid_recall@20']:.4f}",
            values_in_words(found["chosen"]),
        ]
        for pair, found in searched.items()
    ]


def protocol_rows(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Each metric by the honest and by the paper's protocol, side by side: head and rows."""
    metrics = measured(comparison, PROTOCOL_METRICS)
    by = {
        protocol: {
            (row.backbone, row.features): row for row in rows_of(comparison, protocol, metrics)
        }
        for protocol in ("honest", "paper")
    }
    rows = [
        [*key, *(by[p][key].figure(m) for m in metrics for p in by)]
        for key in by["honest"]
        if key in by["paper"]
    ]
    return [f"{metric} {protocol}" for metric in metrics for protocol in by], rows
