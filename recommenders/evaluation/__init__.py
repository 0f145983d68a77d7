"""How good a ranking is: exact top-K, and metrics over it."""

from sgfd.recommenders.evaluation.judge import Judgement, judge
from sgfd.recommenders.evaluation.metrics import (
    CUTOFFS,
    average,
    catalogue_coverage,
    per_user_metrics,
)
from sgfd.recommenders.evaluation.topk import Similarity, top_k

__all__ = [
    "CUTOFFS",
    "Judgement",
    "Similarity",
    "average",
    "catalogue_coverage",
    "judge",
    "per_user_metrics",
    "top_k",
]
