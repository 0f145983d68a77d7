"""How good a ranking is: exact top-K, and metrics over it."""

from sgfd.recommenders.evaluation.judge import Judgement, Rank, judge
from sgfd.recommenders.evaluation.metrics import (
    CUTOFFS,
    average,
    catalogue_coverage,
    per_user_metrics,
)
from sgfd.recommenders.evaluation.topk import Scores, Similarity, top_k, top_k_by_score

__all__ = [
    "CUTOFFS",
    "Judgement",
    "Rank",
    "Scores",
    "Similarity",
    "average",
    "catalogue_coverage",
    "judge",
    "per_user_metrics",
    "top_k",
    "top_k_by_score",
]
