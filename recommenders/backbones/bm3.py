"""BM3: bootstrapped multi-modal recommendation, a backbone that needs no negatives.

Zhou, Zhou, Liu, Zeng, Miao, Wang, You, Jiang: Bootstrap Latent Representations for Multi-modal
Recommendation, WWW 2023, arXiv 2207.05969. Equation numbers refer to that paper.
"""

from typing import Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from sgfd.recommenders.backbone import (
    CHECKED,
    Backbone,
    BackboneSettings,
    Batch,
    Count,
    NotNegative,
    Share,
)
from sgfd.recommenders.graph import BipartiteGraph
from sgfd.recommenders.inputs import Inputs

EPSILON = 1e-8  # least norm that a vector is divided by


@dataclass(frozen=True, config=CHECKED)
class BM3Settings(BackboneSettings):
    """Settings of BM3; the grid of the paper's section 4.1.4 is in the descriptions."""

    patience: Count = 50
    """Stop after so many epochs without a better Recall@20, which rises slowly and with noise."""
    embedding_dim: Count = 128
    """Width of user and item vectors."""
    layers: Count = 1
    """Rounds of propagation on the user-item graph (1 or 2 in the paper)."""
    dropout: Share = 0.5
    """Share of a target's entries that are dropped (0.3 or 0.5 in the paper)."""
    contrast_weight: NotNegative = 2.0
    """Weight of the modality losses (the authors' cl_weight)."""
    regularization: NotNegative = 0.1
    """Weight of the norms of users and items (0.1, 0.01 or 0.001 in the paper)."""


class BM3(Backbone):
    """Two views of each node, one of them perturbed by dropout and without gradient.

    With h the propagated vectors, p a linear predictor and t(x) = dropout(x) without gradient:

        interaction   2 - cos(p(h_u), t(h_i)) - cos(p(h_i), t(h_u))
        alignment_m   1 - cos(p(v_im), t(h_i))        v_im = W_m z_im
        masking_m     1 - cos(p(v_im), t(v_im))
        score(u, i) = p(h_u) . p(h_i)

    Without features only the interaction loss remains. An item that lacks a modality takes no
    part in that modality's losses.
    """

    Settings: ClassVar[type[BackboneSettings]] = BM3Settings

    def __init__(self, inputs: Inputs, settings: BM3Settings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        d = settings.embedding_dim
        self.graph = BipartiteGraph(inputs)
        self.features = inputs.features
        self.users = nn.Embedding(inputs.n_users, d)
        self.items = nn.Embedding(inputs.n_items, d)
        self.predictor = nn.Linear(d, d)
        self.projections = nn.ModuleList(  # in the order of the features: any name will do
            nn.Linear(modality.dimension, d) for modality in inputs.features.values()
        )
        for embedding in (self.users, self.items):
            nn.init.xavier_uniform_(embedding.weight)
        for linear in (self.predictor, *self.projections):
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_normal_(linear.weight)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Mean over the rounds of D^-1/2 A D^-1/2 x, round 0 included: users (U, d), items (I, d).

        Items also add their own embedding (the residual connection of eq. 5).
        """
        users, items = self.graph.mean_of_rounds(
            self.users.weight, self.items.weight, self.settings.layers
        )
        return users, items + self.items.weight

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Interaction loss (eq. 9, 10), modality losses (eq. 11, 12), regularisation (eq. 14)."""
        users, items = self.propagate()
        user = users.index_select(0, batch.users)  # (B, d)
        item = items.index_select(0, batch.items)  # (B, d)
        item_target = self._target(item)
        parts = {
            "interaction": cosine_distance(self.predictor(user), item_target).mean()
            + cosine_distance(self.predictor(item), self._target(user)).mean()
        }
        for projection, (name, modality) in zip(
            self.projections, self.features.items(), strict=True
        ):
            content = projection(modality.values.index_select(0, batch.items))
            predicted = self.predictor(content)
            present = modality.present[batch.items].float()
            weight = self.settings.contrast_weight * present / present.sum().clamp(min=1)
            parts[f"{name} alignment"] = weight @ cosine_distance(predicted, item_target)
            parts[f"{name} masking"] = weight @ cosine_distance(predicted, self._target(content))
        parts["regularization"] = (
            self.settings.regularization * (norm(users) + norm(items)) / len(items)
        )
        return parts

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """p(h) of users (U, d) and items (I, d)."""
        users, items = self.propagate()
        return self.predictor(users), self.predictor(items)

    def _target(self, online: Tensor) -> Tensor:
        return drop(online.detach(), self.settings.dropout)


def drop(x: Tensor, share: float) -> Tensor:
    """`x` (B, d) with a random share of its entries at 0; the others are not rescaled.

    Targets are only ever compared by their direction, which no scale changes. A byte of
    randomness an entry (the share is met to 1/256) costs a tenth of torch's dropout on a CPU.
    """
    if share == 0:
        return x
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None)
    drawn = words.view(torch.uint8)[: x.numel()].view(x.shape)
    kept = torch.ge(drawn, round(256 * share), out=torch.empty_like(x))  # 0 or 1
    return kept.mul_(x)


def cosine_distance(online: Tensor, target: Tensor) -> Tensor:
    """1 - cos of each row of online (B, d) with a target (B, d) that has no gradient: (B,)."""
    distance: Tensor = _CosineDistance.apply(online, target)  # type: ignore[no-untyped-call]
    return distance


def norm(x: Tensor) -> Tensor:
    """The Frobenius norm of `x`, a scalar."""
    value: Tensor = _Norm.apply(x)  # type: ignore[no-untyped-call]
    return value


class _CosineDistance(torch.autograd.Function):
    """With unit vectors a of online and t of target: d(1 - a.t)/d online = (cos a - t) / |online|.

    In closed form, because the chain of small operations that autograd would keep takes as
    long as the linear layers do.
    """

    @staticmethod
    def forward(ctx: Any, online: Tensor, target: Tensor) -> Tensor:
        inverse = torch.linalg.vector_norm(online, dim=1).clamp(min=EPSILON).reciprocal()
        target_inverse = torch.linalg.vector_norm(target, dim=1).clamp(min=EPSILON).reciprocal()
        cos = torch.linalg.vecdot(online, target) * inverse * target_inverse
        ctx.save_for_backward(online, target, inverse, target_inverse, cos)
        distance: Tensor = 1 - cos
        return distance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        online, target, inverse, target_inverse, cos = ctx.saved_tensors
        along = gradients[0] * cos * inverse * inverse
        across = -gradients[0] * inverse * target_inverse
        return (online * along[:, None]).addcmul_(target, across[:, None]), None


class _Norm(torch.autograd.Function):
    """d|x| / dx = x / |x|, in one operation on the whole table."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        value: Tensor = torch.linalg.vector_norm(x)
        ctx.save_for_backward(x, value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        x, value = ctx.saved_tensors
        gradient: Tensor = x * (gradients[0] / value.clamp(min=EPSILON))
        return gradient
