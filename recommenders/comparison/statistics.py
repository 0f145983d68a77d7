"""Whether a feature set is better than another: paired differences over users and seeds."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

from sgfd.jobs import JobError
from sgfd.recommenders.comparison.results import CellResult, Comparison
from sgfd.recommenders.evaluation import CUTOFFS

Values = NDArray[np.float64]
Verdict = Literal["better", "worse", "not shown"]

SIGNIFICANT = 0.05
ROUNDING = 1e-9  # a deviation that is smaller, relative to the mean, is none
FEW = 12  # users with a difference, below which the t-test rejects too often
SMALLEST_P = 1e-300  # that is searched for; a smaller one may be no double

_AT = f"@({'|'.join(map(str, CUTOFFS))})"
_OF_A_USER = re.compile(
    rf"(recall|precision|hit_rate|ndcg|map|mrr|paper_ndcg|novelty|diversity_.+){_AT}"
    rf"|(recall|ndcg){_AT} (cold|rare|popular)"
)


@dataclass(frozen=True)
class Difference:
    """A mean paired difference, its confidence interval and its two-sided p-value."""

    mean: float
    low: float
    high: float
    p_value: float
    n_seeds: int
    n_users: int


def paired_difference(differences: Values, confidence: float = 0.95) -> Difference:
    """The mean of d[s, u], with users and seeds both a sample, crossed.

    Analysis of variance of two crossed random factors without replication has mean squares

        MS_users = S var_u(mean_s d)    MS_seeds = U var_s(mean_u d)    MS_rest of what is left

    and the variance of the mean is estimated by (MS_users + MS_seeds - MS_rest) / (S U), as for
    readings of cases by readers (Dorfman, Berbaum, Metz, 1992), but by no less than either of the
    first two alone. The critical value is Cochran's (1964): the mean of those with U - 1 and S - 1
    degrees of freedom, weighted by users' and seeds' share of that variance, all of MS_seeds
    counted. Where few seeds vary much it is large; Satterthwaite's would err to the other side.
    With one seed it is the paired t-test over users, which says nothing of other seeds.

    Where all users have the same difference, which hits and misses of a few often have, that says
    nothing of how much users vary. p is then that of the two-sided sign test over users, 2^(1 - U);
    the interval is unbounded unless that is below 5 %. Nor is a mean of many users normal of whom
    fewer than FEW differ at all: p is then no less than that of the sign test over these.

    Args:
        differences: float64 (S, U). Users with a nan are left out. With fewer than two users
            nothing can be shown: p is 1, the interval unbounded.
    """
    d = differences[:, ~np.isnan(differences).any(axis=0)]
    n_seeds, n_users = d.shape
    if n_users < 2 or n_seeds < 1:
        mean = float(d.mean()) if d.size else 0.0
        return Difference(mean, -np.inf, np.inf, 1.0, n_seeds, n_users)
    mean = float(d.mean())
    of_users, of_seeds = d.mean(axis=0), d.mean(axis=1)
    ms_users, ms_seeds, ms_rest = n_seeds * of_users.var(ddof=1), 0.0, 0.0
    if n_seeds > 1:
        rest = d - of_users - of_seeds[:, None] + mean
        ms_seeds = n_users * of_seeds.var(ddof=1)
        ms_rest = np.square(rest).sum() / ((n_users - 1) * (n_seeds - 1))
    total = max(ms_users + ms_seeds - ms_rest, ms_users, ms_seeds)
    if total <= (ROUNDING * mean) ** 2:  # nothing varies
        p_value = 2.0 ** (1 - n_users) if mean else 1.0
        half = np.inf if mean and p_value >= SIGNIFICANT else 0.0
        return Difference(mean, mean - half, mean + half, p_value, n_seeds, n_users)
    error = float(np.sqrt(total / (n_seeds * n_users)))
    by_seeds = ms_seeds / total
    weights = np.array([1 - by_seeds, by_seeds])
    degrees = np.array([n_users - 1, max(n_seeds - 1, 1)])
    weights, degrees = weights[weights > 0], degrees[weights > 0]

    def critical(p: float) -> float:
        """Of a two-sided test at p: that of each t distribution, by its share."""
        return float(weights @ stats.t.isf(p / 2, degrees))

    half = error * critical(1 - confidence)
    reached = abs(mean) / error
    least, most = sorted(float(2 * stats.t.sf(reached, d)) for d in (degrees[0], degrees[-1]))
    p_value = least
    if most > max(least, 1e-12):  # p lies between the two, of which the lesser may be 0
        bounds = max(least * 0.99, SMALLEST_P), min(1.0, most * 1.01)
        if critical(bounds[0]) > reached:
            p_value = brentq(lambda p: critical(p) - reached, *bounds)
    if 0 < (n := np.count_nonzero(of_users)) < min(FEW, n_users):
        p_value = max(p_value, stats.binomtest(int((of_users > 0).sum()), n).pvalue)
    return Difference(mean, mean - half, mean + half, p_value, n_seeds, n_users)


def holm(p_values: Sequence[float]) -> Values:
    """p-values corrected for their number by Holm's step-down method (1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(stepped, 1)
    return corrected


def verdict(difference: Difference, corrected_p: float, trained: bool) -> Verdict:
    """What is shown, at 5 %: nothing by one training each, which says nothing of other seeds."""
    if corrected_p >= SIGNIFICANT or (trained and difference.n_seeds < 2):
        return "not shown"
    return "better" if difference.mean > 0 else "worse"


@dataclass(frozen=True)
class Contrast:
    """One feature set held against the baseline, for one backbone, protocol, part and metric.

    Attributes:
        trained: whether the backbone is, so that its figures vary with the seed.
        baseline_mean: the metric's mean on the baseline, over the seeds that both have.
        corrected_p: among all contrasts of the same metric, protocol and part.
    """

    protocol: str
    part: str
    backbone: str
    features: str
    baseline: str
    metric: str
    trained: bool
    baseline_mean: float
    difference: Difference
    corrected_p: float

    @property
    def verdict(self) -> Verdict:
        return verdict(self.difference, self.corrected_p, self.trained)

    @property
    def sentence(self) -> str:
        """All of it in words."""
        difference, names = self.difference, (self.features, self.baseline)
        by = " by the paper's protocol" if self.protocol == "paper" else ""
        by += " among cold items alone" if self.part == "test_among_cold" else ""
        opening = (
            "{}: no difference between {} and {} is shown".format(self.backbone, *names)
            if self.verdict == "not shown"
            else "{} recommends {} on {} than on {}".format(self.backbone, self.verdict, *names)
        ) + by
        if difference.n_users < 2:
            return f"{opening}: fewer than two users are judged."
        relative = ""
        if self.baseline_mean > 0:
            relative = f" ({difference.mean / self.baseline_mean:+.1%})"
        text = (
            f"{opening}: {self.metric} {difference.mean:+.4f}{relative}, uncorrected 95 % interval "
            f"{interval_text(difference)}, p {p_text(self.corrected_p)} after Holm's correction."
        )
        if self.trained and difference.n_seeds == 1:
            text += " One seed alone shows nothing: how much seeds vary is unknown."
        return text

    def to_json(self) -> dict[str, Any]:
        """Plain values; an unbounded interval is None."""
        row = {**asdict(self), **asdict(self.difference)}
        del row["difference"]
        row |= {"verdict": self.verdict, "sentence": self.sentence}
        return {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in row.items()
        }


# Of `Contrast.to_json`.
CONTRAST_COLUMNS = [
    *(each.name for each in fields(Contrast) if each.name != "difference"),
    *(each.name for each in fields(Difference)),
    *("verdict", "sentence"),
]


def interval_text(difference: Difference) -> str:
    if not np.isfinite([difference.low, difference.high]).all():
        return "unbounded"
    return f"{difference.low:+.4f} to {difference.high:+.4f}"


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def check_metrics(metrics: Sequence[str]) -> None:
    """Whether each is a figure of every user, in which feature sets can be paired.

    Raises:
        JobError: one is not.
    """
    for metric in metrics:
        if not _OF_A_USER.fullmatch(metric):
            raise JobError(
                f"metric {metric!r}",
                "is no figure of each user",
                "choose such as recall@20, ndcg@10, map@50, recall@20 cold or novelty@20",
            )


def contrasts(comparison: Comparison, metrics: Sequence[str]) -> list[Contrast]:
    """Every feature set against the baseline on each part that is reported, wherever both have
    finished seeds in common.

    Raises:
        JobError: a run's figures by user can't be read.
    """
    check_metrics(metrics)
    readers = {part: UserFigures(metrics, part) for part in comparison.parts}
    return [
        contrast
        for protocol in comparison.protocols
        for part, read in readers.items()
        for metric in metrics
        for contrast in _family(comparison, read, protocol, metric)
    ]


def _family(
    comparison: Comparison, read: "UserFigures", protocol: str, metric: str
) -> Iterator[Contrast]:
    """The contrasts whose p-values are corrected together."""
    compared: list[tuple[str, str, str]] = []  # backbone, features, baseline
    means: list[float] = []
    differences: list[Difference] = []
    for backbone in comparison.backbones:
        baseline = _baseline_of(comparison, protocol, backbone)
        base = comparison.of(protocol, backbone, baseline)
        for features in comparison.features:
            own = comparison.of(protocol, backbone, features.label)
            if features.label == baseline or not _common_seeds(own, base):
                continue
            a, b = read.paired(own, base, metric)
            compared.append((backbone, features.label, baseline))
            answered = ~np.isnan(a - b).any(axis=0)  # the users that the difference is of
            means.append(float(np.mean(b[:, answered])) if answered.any() else np.nan)
            differences.append(paired_difference(a - b))
    corrected = holm([difference.p_value for difference in differences]).tolist()
    for names, mean, difference, p in zip(compared, means, differences, corrected, strict=True):
        trained = any(result.epochs for result in comparison.of(protocol, names[0], names[1]))
        yield Contrast(protocol, read.part, *names, metric, trained, mean, difference, p)


class UserFigures:
    """Per-user metrics of runs, each file read once."""

    def __init__(self, metrics: Sequence[str], part: str) -> None:
        self._metrics, self.part = list(metrics), part
        self._tables: dict[str, pd.DataFrame] = {}

    def paired(
        self, own: list[CellResult], base: list[CellResult], metric: str
    ) -> tuple[Values, Values]:
        """(S, U) of both, for the seeds and the users that both have."""
        seeds = _common_seeds(own, base)
        tables = [
            [self._table(result)[metric] for result in results if result.cell.seed in seeds]
            for results in (own, base)
        ]
        users = tables[0][0].index
        if any(not table.index.equals(users) for side in tables for table in side):
            for table in (table for side in tables for table in side):
                users = users.intersection(table.index, sort=False)
            tables = [[table.reindex(users) for table in side] for side in tables]
        a, b = (np.stack([table.to_numpy(np.float64) for table in side]) for side in tables)
        return a, b

    def _table(self, result: CellResult) -> pd.DataFrame:
        key = str(result.run)
        if key not in self._tables:
            assert result.run is not None
            path = result.run / "per_user.parquet"
            try:
                rows = pd.read_parquet(
                    path,
                    columns=["user_id", *self._metrics],
                    filters=[("part", "==", self.part)],
                )
            except (OSError, ValueError) as error:  # pyarrow's are among them
                raise JobError(
                    path,
                    f"can't be read ({type(error).__name__})",
                    "delete that run; the same command trains it again",
                ) from None
            self._tables[key] = rows.set_index("user_id")
        return self._tables[key]


def _common_seeds(own: list[CellResult], base: list[CellResult]) -> set[int]:
    return {result.cell.seed for result in own} & {result.cell.seed for result in base}


def _baseline_of(comparison: Comparison, protocol: str, backbone: str) -> str:
    """The comparison's baseline; for a backbone that is never trained on it, its first features."""
    cells = (result.cell for result in comparison.results)
    labels = [c.features for c in cells if (c.protocol, c.backbone) == (protocol, backbone)]
    return comparison.baseline if comparison.baseline in labels else labels[0]
