"""VBPR: matrix factorisation whose items also have a factor made from their features.

He, McAuley: VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback, AAAI 2016,
arXiv 1510.01784. Equation numbers refer to that paper.
"""

from typing import Annotated, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch, LearningRate
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import ranking_loss, squared_norm
from sgfd.recommenders.rows import rows_of
from sgfd.settings import CHECKED, Count, NotNegative, Range


@dataclass(frozen=True, config=CHECKED)
class VBPRSettings(BackboneSettings):
    """Settings of VBPR; the paper's two factors have 10 entries each, ours 64, as is usual now.

    Step and penalty are chosen on the validation part of a real data set.
    """

    learning_rate: LearningRate = 5e-3
    """Step size of Adam."""
    latent_dim: Count = 64
    """Width of the latent factors gamma."""
    content_dim: Count = 64
    """Width of the factors theta that meet the features."""
    regularization: Annotated[NotNegative, Range(1e-4, 1.0, log=True)] = 6e-2
    """Twice the weight of the squared factors and biases of the batch (lambda of eq. 7): in BPR the
    same number is the weight itself."""


class VBPR(Backbone):
    """score(u, i) = gamma_u . gamma_i + theta_u . (E f_i) + beta_i + beta' . f_i (eq. 4).

    f_i are the features of all modalities side by side, 0 where an item lacks one, divided by the
    root of their number D, so that they have norm 1 where their entries' mean square is 1. Without
    features what remains is BPR. The bias of the user and the global one rank nothing, so they
    are left out.
    """

    Settings: ClassVar[type[BackboneSettings]] = VBPRSettings
    scores_new_items: ClassVar[bool] = True
    negatives = 1

    content: Tensor

    def __init__(self, inputs: Inputs, settings: VBPRSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        content = inputs.side_by_side()
        width = content.shape[1]
        # Rows of norm about 1, at the scale that features come in. A step of Adam moves E f_i by as
        # much as |f_i|_1: at norm sqrt(D) the features are learnt by heart before a factor moves.
        self.register_buffer("content", content / max(width, 1) ** 0.5, persistent=False)
        self.users = nn.Embedding(inputs.n_users, settings.latent_dim)
        self.items = nn.Embedding(inputs.n_items, settings.latent_dim)
        self.bias = nn.Embedding(inputs.n_items, 1)
        self.content_users = nn.Embedding(inputs.n_users, settings.content_dim) if width else None
        self.projection = nn.Linear(width, settings.content_dim, bias=False) if width else None
        self.content_bias = nn.Linear(width, 1, bias=False) if width else None
        for table in (self.users, self.items, self.content_users):
            if table is not None:
                nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.bias.weight)
        if self.content_bias is not None:
            nn.init.zeros_(self.content_bias.weight)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """BPR-Opt and L2 (eq. 7). The penalty is on E f_i, the factor that E makes, not on E."""
        user, items = self._users(batch.users), self._items(batch.candidates)
        # The constant 1 among a user's entries adds a constant, and no gradient.
        penalty = squared_norm(user, items)
        return {
            "ranking": ranking_loss(user, items),
            "regularization": self.settings.regularization * penalty,
        }

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """[gamma_u, 1, theta_u] and [gamma_i, beta_i + beta' . f_i, E f_i]."""
        device = self.users.weight.device
        users, items = self.users.num_embeddings, self.items.num_embeddings
        return (
            self._users(torch.arange(users, device=device)),
            self._items(torch.arange(items, device=device)),
        )

    def _users(self, users: Tensor) -> Tensor:
        gamma = rows_of(self.users.weight, users)
        parts = [gamma, gamma.new_ones(len(gamma), 1)]
        if self.content_users is not None:
            parts.append(rows_of(self.content_users.weight, users))
        return torch.cat(parts, dim=1)

    def _items(self, items: Tensor) -> Tensor:
        gamma, bias = rows_of(self.items.weight, items), rows_of(self.bias.weight, items)
        if self.projection is None or self.content_bias is None:
            return torch.cat([gamma, bias], dim=1)
        content = self.content.index_select(0, items)
        bias = bias + self.content_bias(content)
        return torch.cat([gamma, bias, self.projection(content)], dim=1)
