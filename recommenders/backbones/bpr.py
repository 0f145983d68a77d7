"""BPR: matrix factorisation on ranked pairs. The floor that uses no features.

Rendle, Freudenthaler, Gantner, Schmidt-Thieme: BPR: Bayesian Personalized Ranking from Implicit
Feedback, UAI 2009.
"""

from typing import Annotated, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch, LearningRate
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import bpr_opt
from sgfd.recommenders.rows import rows_of
from sgfd.settings import CHECKED, Count, NotNegative, Range


@dataclass(frozen=True, config=CHECKED)
class BPRSettings(BackboneSettings):
    """Settings of BPR; step and penalty chosen on the validation part of two data sets."""

    learning_rate: LearningRate = 5e-3
    """Step size of Adam."""
    embedding_dim: Count = 64
    """Width of user and item vectors."""
    regularization: Annotated[NotNegative, Range(1e-4, 1.0, log=True)] = 3e-2
    """Weight of the squared vectors of the batch, not of their halves (lambda of eq. BPR-Opt)."""


class BPR(Backbone):
    """score(u, i) = p_u . q_i + b_i; loss = -ln sigmoid(score(u, i) - score(u, j)) + L2.

    The bias is the last entry of an item's row: one look-up and one gradient for both.
    """

    Settings: ClassVar[type[BackboneSettings]] = BPRSettings
    uses_features: ClassVar[bool] = False
    negatives = 1

    def __init__(self, inputs: Inputs, settings: BPRSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.users = nn.Embedding(inputs.n_users, settings.embedding_dim)
        self.items = nn.Embedding(inputs.n_items, settings.embedding_dim + 1)
        with torch.no_grad():
            nn.init.normal_(self.users.weight, std=0.1)
            nn.init.normal_(self.items.weight, std=0.1)[:, -1] = 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """-ln sigmoid(x_ui - x_uj) and the L2 penalty, means over the batch."""
        user = rows_of(self.users.weight, batch.users)  # (B, d)
        items = rows_of(self.items.weight, batch.candidates)  # (2 B, d + 1)
        ranking, penalty = bpr_opt(user, items, 2 * self.settings.regularization)
        return {"ranking": ranking, "regularization": penalty}

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """[p_u, 1] (U, d + 1) and [q_i, b_i] (I, d + 1)."""
        users = self.users.weight
        return torch.cat([users, users.new_ones(len(users), 1)], dim=1), self.items.weight
