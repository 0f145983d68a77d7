"""CML: users and items as points, liked ones near.

Hsieh, Yang, Cui, Lin, Belongie, Estrin: Collaborative Metric Learning, WWW 2017. Equation numbers
refer to that paper.
"""

from typing import Annotated, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import covariance_penalty, warp_hinge
from sgfd.recommenders.rows import into_unit_ball
from sgfd.settings import CHECKED, Count, NotNegative, Positive, Range, Share


@dataclass(frozen=True, config=CHECKED)
class CMLSettings(BackboneSettings):
    """Settings of CML; the paper's section 4.1 searches most of them."""

    embedding_dim: Count = 100
    """Width of the points."""
    margin: Annotated[Positive, Range(0.1, 2.0)] = 1.0
    """How much farther than a liked item any other must be, in squared distance (m of eq. 1)."""
    sampled: Count = 10
    """Negatives of each interaction, of which the nearest counts (U of section 3.3)."""
    covariance_weight: Annotated[NotNegative, Range(0.1, 100.0, log=True)] = 1.0
    """Weight of the penalty on correlated dimensions (lambda_c)."""
    content_weight: Annotated[NotNegative, Range(1e-2, 10.0, log=True, features=True)] = 1.0
    """Weight of the feature loss (lambda_f)."""
    hidden_dim: Count = 256
    """Width of the feature projection's hidden layer."""
    dropout: Annotated[Share, Range(0.0, 0.5, features=True)] = 0.1
    """Share of the hidden entries that are dropped."""


class CML(Backbone):
    """score(u, i) = -||u - i||^2, all points in the unit ball (eq. 5).

        metric      w_ui max(0, margin + ||u - i||^2 - min_j ||u - j||^2), w_ui = log(1 + rank),
                    rank = share of the sampled negatives that violate the margin * I (eq. 1 to 4)
        features    ||f(z_i) - i||^2, f an MLP on the features side by side (section 3.4)
        covariance  (||C||_F^2 - ||diag C||^2) / rows of the points' covariance C (eq. 7)

    Without features, or for an item that lacks them all, there is no feature loss.
    """

    Settings: ClassVar[type[BackboneSettings]] = CMLSettings
    similarity = "l2"

    content: Tensor
    has_content: Tensor

    def __init__(self, inputs: Inputs, settings: CMLSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.negatives = settings.sampled
        d = settings.embedding_dim
        self.users = nn.Embedding(inputs.n_users, d)
        self.items = nn.Embedding(inputs.n_items, d)
        nn.init.normal_(self.users.weight, std=1 / d)
        nn.init.normal_(self.items.weight, std=1 / d)
        self.register_buffer("content", inputs.side_by_side(), persistent=False)
        self.register_buffer("has_content", inputs.has_features(), persistent=False)
        self.projection = None
        if inputs.features:
            self.projection = nn.Sequential(
                nn.Linear(self.content.shape[1], settings.hidden_dim),
                nn.ReLU(),
                nn.Dropout(settings.dropout),
                nn.Linear(settings.hidden_dim, d),
            )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Metric, feature and covariance loss."""
        user, item = self.users(batch.users), self.items(batch.items)
        liked = (user - item).square().sum(dim=1)
        others = (user[:, None] - self.items(batch.negatives)).square().sum(dim=2)  # (B, W)
        n_items = self.items.num_embeddings
        parts = {"metric": warp_hinge(liked, others, self.settings.margin, n_items)}
        if self.projection is not None:
            distance = (self.projection(self.content[batch.items]) - item).square().sum(dim=1)
            there = self.has_content[batch.items].float()
            parts["features"] = self.settings.content_weight * (
                (distance * there).sum() / there.sum().clamp(min=1)
            )
        parts["covariance"] = self.settings.covariance_weight * covariance_penalty(
            torch.cat([user, item])
        )
        return parts

    def after_step(self) -> None:
        """Back into the unit ball (eq. 5)."""
        into_unit_ball(self.users.weight, self.items.weight)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The points of users (U, d) and items (I, d)."""
        return self.users.weight, self.items.weight
