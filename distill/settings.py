"""Settings of stage one, and the paper's values as presets. Light to import: no torch."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(
    frozen=True,
    config=ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False),
)
class SGFDSettings:
    """Settings of semantic-guided feature distillation (Liu et al., ACM MM 2023)."""

    dimension: Count = 128
    """Width of the distilled features."""
    ce_weight: NotNegative = 1.0
    """Weight of the semantic losses, the cross-entropies with the labels."""
    kd_weight: Positive = 1.0
    """Weight of the distillation losses, response-based and feature-based."""
    temperature: Positive = 10.0
    """Temperature that softens both distributions of the response-based loss."""
    response_loss: Literal["l1", "kl"] = "l1"
    """Distance of the distributions: mean absolute difference, or Hinton's KL times T^2."""
    teacher_activation: Literal["leaky_relu", "none"] = "leaky_relu"
    """Between the teacher's layers; none is the form of the authors' code."""
    logit_scale: Positive = 16.0
    """What the classifiers' cosines are multiplied by at first; it is learnt."""
    learning_rate: Positive = 3e-3
    """Step size of Adam."""
    batch_size: Count = 256
    """Items a step."""
    epochs: Count = 300
    """At most so many passes over the items."""
    patience: Count = 20
    """Stop after so many epochs without a better loss on the held-out items."""
    held_out_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the items that stop the training and measure the result."""
    checkpoint_seconds: NotNegative = 15.0
    """Least time between two checkpoints, in seconds; it does not change the result."""


# The authors' weights and temperature, by data set and backbone. Their learning rates belong to
# the recommender that they train along with the teacher, so they have no place here.
PRESETS: dict[str, dict[str, Any]] = {
    f"{dataset}-{backbone}": {"ce_weight": ce, "kd_weight": kd, "temperature": temperature}
    for dataset, backbone, ce, kd, temperature in (
        ("office", "bm3", 1e-1, 1e-2, 50),
        ("clothing", "bm3", 1e-2, 1e-1, 100),
        ("toys-games", "bm3", 1e-1, 1e-2, 5),
        ("office", "grcn", 1, 1, 100),
        ("clothing", "grcn", 1e-2, 1e-2, 100),
        ("toys-games", "grcn", 1e-1, 1, 10),
        ("office", "maml", 1, 1e-1, 10),
        ("clothing", "maml", 1e-1, 1e-1, 10),
        ("toys-games", "maml", 1e-2, 1e-1, 10),
    )
}
PRESETS |= {dataset: PRESETS[f"{dataset}-bm3"] for dataset in ("office", "clothing", "toys-games")}
