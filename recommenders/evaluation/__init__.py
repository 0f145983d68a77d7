"""How good a ranking is: exact top-K, and metrics over it."""

from sgfd.recommenders.evaluation.beyond_accuracy import (
    DIVERSITY,
    DIVERSITY_ERROR,
    diversities,
    gini,
    intra_list_diversity,
    item_popularity,
    novelty,
)
from sgfd.recommenders.evaluation.groups import (
    Groups,
    group_metrics,
    item_groups,
    known_means,
    user_group_means,
    user_groups,
)
from sgfd.recommenders.evaluation.judge import Judgement, Rank, judge
from sgfd.recommenders.evaluation.metrics import (
    CUTOFFS,
    average,
    catalogue_coverage,
    per_user_metrics,
    pooled_recall,
)
from sgfd.recommenders.evaluation.topk import (
    NotFiniteError,
    Scores,
    Similarity,
    first_unseen,
    top_k,
    top_k_by_score,
)

__all__ = [
    "CUTOFFS",
    "DIVERSITY",
    "DIVERSITY_ERROR",
    "Groups",
    "Judgement",
    "NotFiniteError",
    "Rank",
    "Scores",
    "Similarity",
    "average",
    "catalogue_coverage",
    "diversities",
    "first_unseen",
    "gini",
    "group_metrics",
    "intra_list_diversity",
    "item_groups",
    "item_popularity",
    "judge",
    "known_means",
    "novelty",
    "per_user_metrics",
    "pooled_recall",
    "top_k",
    "top_k_by_score",
    "user_group_means",
    "user_groups",
]
