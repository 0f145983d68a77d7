"""Settings of every method of stage one, and SGFD's presets. Light to import: no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from sgfd.settings import CHECKED, Count, NotNegative, Positive, Range, Share

# Settings of the training loop, which every trained method has.
LearningRate = Annotated[
    float, Field(gt=0, description="Step size of Adam."), Range(1e-4, 1e-2, log=True)
]
BatchSize = Annotated[int, Field(ge=1, description="Items a step.")]
Epochs = Annotated[int, Field(ge=1, description="At most so many passes over the items.")]
Patience = Annotated[
    int,
    Field(
        ge=1,
        description="Stop after so many epochs without a better loss on the held-out items.",
    ),
]
HeldOutShare = Annotated[
    float,
    Field(
        ge=0,
        le=0.5,
        description="Share of the items that stop the training and measure the result.",
    ),
]
CheckpointSeconds = Annotated[
    float,
    Field(
        ge=0,
        description="Least time between two checkpoints, in seconds; "
        "it does not change the result.",
    ),
]

# Settings of the closed form, which is a method of its own and the start of another.
FusedDimension = Annotated[
    int,
    Field(ge=1, description="Width of the features; at most the sum of the generic widths."),
]
Ridge = Annotated[
    float,
    Field(gt=0, description="Penalty lambda of both regressions; a row of content has norm 1."),
    Range(0.3, 30, log=True),
]
Strength = Annotated[  # no range: that of the content, to which it is a ratio, is enough
    float,
    Field(ge=0, description="Weight of predicted co-interaction in the inner products."),
]
Content = Annotated[
    float,
    Field(gt=0, description="Weight of the content's own inner products."),
    Range(0.03, 3, log=True),
]


MeasuredShare = Annotated[
    float,
    Field(
        ge=0,
        le=0.5,
        description="Share of the items that a fit of its own leaves out, to measure.",
    ),
]


@dataclass(frozen=True, config=CHECKED)
class SGFDSettings:
    """Settings of semantic-guided feature distillation (Liu et al., ACM MM 2023)."""

    dimension: Count = 128
    """Width of the distilled features."""
    ce_weight: Annotated[NotNegative, Range(0.01, 1, log=True)] = 1.0
    """Weight of the semantic losses, the cross-entropies with the labels."""
    kd_weight: Annotated[Positive, Range(0.01, 1, log=True)] = 1.0
    """Weight of the distillation losses, response-based and feature-based."""
    temperature: Annotated[Positive, Range(1, 100, log=True)] = 10.0
    """Temperature that softens both distributions of the response-based loss."""
    response_loss: Literal["l1", "kl"] = "l1"
    """Distance of the distributions: mean absolute difference, or Hinton's KL times T^2."""
    teacher_activation: Literal["leaky_relu", "none"] = "leaky_relu"
    """Between the teacher's layers; none is the form of the authors' code."""
    logit_scale: Positive = 16.0
    """What the classifiers' cosines are multiplied by at first; it is learnt."""
    learning_rate: LearningRate = 3e-3
    batch_size: BatchSize = 256
    epochs: Epochs = 300
    patience: Patience = 20
    held_out_share: HeldOutShare = 0.1
    checkpoint_seconds: CheckpointSeconds = 15.0


@dataclass(frozen=True, config=CHECKED)
class InteractionMetricSettings:
    """Settings of the closed form: content that predicts co-interaction, by ridge regression."""

    dimension: FusedDimension = 128
    ridge: Ridge = 3.0
    strength: Strength = 10.0
    content: Content = 0.3
    held_out_share: MeasuredShare = 0.1


@dataclass(frozen=True, config=CHECKED)
class SGFDPlusSettings:
    """Settings of the student that starts at the closed form and is guided by interactions."""

    dimension: FusedDimension = 128
    ridge: Ridge = 3.0
    strength: Strength = 10.0
    content: Content = 0.3
    interaction_weight: NotNegative = 1.0  # no range: Adam heeds but ratios, those of the next two
    """Weight of the contrastive loss from users' histories to their other items."""
    structure_weight: Annotated[NotNegative, Range(0, 10)] = 0.0
    """Weight of the loss that holds cosines to those of the content."""
    semantic_weight: Annotated[NotNegative, Range(0, 0.5)] = 0.0
    """Weight of the labels' cross-entropy."""
    input_normalised: bool = True
    """Whether the student reads each modality at unit norm, or as it is standardised."""
    nested: bool = True
    """Whether leading columns (16, 32, ...) are trained to work by themselves."""
    temperature: Annotated[Positive, Range(0.05, 1, log=True)] = 0.2
    """Temperature of the contrastive loss."""
    debias: Literal["auto", "on", "off"] = "auto"
    """Whether popularity is left to the loss, for the vectors not to tell it; auto: where without
    it items held out are found less than by generic features, and with it more than without."""
    dropout: Annotated[Share, Range(0, 0.8)] = 0.4
    """Share of the content's entries that are left out in training."""
    modality_dropout: Annotated[Share, Range(0, 0.6)] = 0.3
    """Share of the items with several modalities that train with one of them alone."""
    candidates: Count = 2048
    """Items that a step's histories are held against, at least; all where there are fewer."""
    history: Annotated[int, Field(ge=2)] = 50
    """Items of a user that a step looks at, at most; half of them are his history."""
    logit_scale: Positive = 16.0
    """What the label classifier's cosines are multiplied by at first; it is learnt."""
    learning_rate: LearningRate = 1e-3
    batch_size: Annotated[int, Field(ge=1, description="Users a step.")] = 512
    epochs: Annotated[int, Field(ge=1, description="Passes over the users."), Range(5, 30)] = 15
    held_out_share: MeasuredShare = 0.1
    checkpoint_seconds: CheckpointSeconds = 15.0


@dataclass(frozen=True, config=CHECKED)
class RawSettings:
    """The generic features as they are: nothing to set."""


@dataclass(frozen=True, config=CHECKED)
class StandardSettings:
    """Every column to mean 0 and standard deviation 1: nothing to set."""


@dataclass(frozen=True, config=CHECKED)
class PCASettings:
    """Settings of principal component analysis."""

    dimension: Count = 128
    """Number of components; at most as many as there are directions with variance."""
    standardise: bool = True
    """Whether columns get standard deviation 1 first; their mean is always subtracted."""
    whiten: bool = False
    """Whether every component is scaled to variance 1."""
    normalise: bool = False
    """Whether rows are scaled to unit norm."""


@dataclass(frozen=True, config=CHECKED)
class RandomSettings:
    """Settings of the Gaussian random projection of standardised columns."""

    dimension: Count = 128
    """Width of the projection."""
    normalise: bool = False
    """Whether rows are scaled to unit norm."""


@dataclass(frozen=True, config=CHECKED)
class LabelSettings:
    """The category of each item, one-hot: nothing to set."""


@dataclass(frozen=True, config=CHECKED)
class AutoencoderSettings:
    """Settings of the autoencoder, whose encoder has the form of SGFD's student."""

    dimension: Count = 128
    """Width of the code."""
    normalise: bool = True
    """Whether codes are scaled to unit norm, as SGFD's student does."""
    decoder_width: Count = 512
    """Width of the decoder's hidden layer."""
    learning_rate: LearningRate = 1e-3
    batch_size: BatchSize = 256
    epochs: Epochs = 500
    patience: Patience = 20
    held_out_share: HeldOutShare = 0.1
    checkpoint_seconds: CheckpointSeconds = 15.0


@dataclass(frozen=True, config=CHECKED)
class CLCRecSettings:
    """Settings of CLCRec (Wei et al., ACM MM 2021): content aligned to collaborative embeddings."""

    dimension: Count = 128
    """Width of the embeddings and of the features."""
    hidden_width: Count = 256
    """Width of the encoder's hidden layer."""
    alignment_weight: Annotated[float, Field(ge=0, le=1), Range(0.1, 0.9)] = 0.5
    """Weight of the contrast of content and item embedding (lambda); the rest is of users."""
    content_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the items that users meet as their encoded content (rho)."""
    temperature: Annotated[Positive, Range(0.05, 2, log=True)] = 0.2
    """Temperature of both contrasts."""
    negatives: Count = 512
    """Items that a step's interactions are held against."""
    regularization: Annotated[NotNegative, Range(1e-5, 0.1, log=True)] = 1e-3
    """Weight of the squared embeddings (eta)."""
    learning_rate: LearningRate = 1e-3
    batch_size: Annotated[int, Field(ge=1, description="Interactions a step.")] = 1024
    epochs: Annotated[
        int, Field(ge=1, description="At most so many passes over the interactions.")
    ] = 100
    patience: Annotated[
        int,
        Field(ge=1, description="Stop after so many epochs that find held-out items no better."),
    ] = 10
    held_out_share: HeldOutShare = 0.1
    checkpoint_seconds: CheckpointSeconds = 15.0


@dataclass(frozen=True, config=CHECKED)
class RQVAESettings:
    """Settings of RQ-VAE, the maker of semantic ids (TIGER, Rajput et al., NeurIPS 2023)."""

    feature: Literal["reconstruction", "code"] = "reconstruction"
    """What is made: what the decoder rebuilds from an item's codes, or the sum of the codes."""
    latent_width: Count = 32
    """Width of the codes."""
    levels: Count = 3
    """Codes an item."""
    codes: Count = 256
    """Codes to choose from, at each level."""
    commitment: NotNegative = 0.25
    """Weight that draws the encoder to the codes (beta)."""
    learning_rate: LearningRate = 1e-3
    batch_size: BatchSize = 256
    epochs: Epochs = 500
    patience: Patience = 20
    held_out_share: HeldOutShare = 0.1
    checkpoint_seconds: CheckpointSeconds = 15.0


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
