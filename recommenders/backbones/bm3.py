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
        user, user_norm = rows_and_norm(users, batch.users)  # (B, d), scalar
        item, item_norm = rows_and_norm(items, batch.items)
        content = [
            projection(modality.values.index_select(0, batch.items))
            for projection, modality in zip(self.projections, self.features.values(), strict=True)
        ]
        # All views in one table, (2 + M, B, d): few large operations instead of many small ones.
        online = torch.cat([user, item, *content])
        views = (2 + len(content), *user.shape)
        predicted = self.predictor(online).view(views)
        target = drop(online.detach(), self.settings.dropout).view(views)
        modalities = range(2, 2 + len(content))
        alignment, masking = [(m, 1) for m in modalities], [(m, m) for m in modalities]
        pairs = ((0, 1), (1, 0), *alignment, *masking)
        cos = dict(zip(pairs, cosines(predicted, target, pairs), strict=True))  # (B,) each

        parts = {"interaction": 2 - cos[0, 1].mean() - cos[1, 0].mean()}
        for m, (name, modality) in zip(modalities, self.features.items(), strict=True):
            present = modality.present[batch.items].float()
            weight = self.settings.contrast_weight * present / present.sum().clamp(min=1)
            parts[f"{name} alignment"] = weight @ (1 - cos[m, 1])
            parts[f"{name} masking"] = weight @ (1 - cos[m, m])
        parts["regularization"] = (
            self.settings.regularization * (user_norm + item_norm) / len(items)
        )
        return parts

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """p(h) of users (U, d) and items (I, d)."""
        users, items = self.propagate()
        return self.predictor(users), self.predictor(items)


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


def cosines(online: Tensor, target: Tensor, pairs: tuple[tuple[int, int], ...]) -> list[Tensor]:
    """Cosines, row by row, of views online[a] with views target[b], for each pair (a, b).

    Args:
        online: (V, B, d). target: (V, B, d), taken without gradient.

    Returns:
        (B,) for each pair.
    """
    return list(_Cosines.apply(online, target, pairs).unbind())  # type: ignore[no-untyped-call]


def rows_and_norm(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows of a table (n, d), and the Frobenius norm of the whole of it."""
    pair: tuple[Tensor, Tensor] = _RowsAndNorm.apply(table, index)  # type: ignore[no-untyped-call]
    return pair


class _Cosines(torch.autograd.Function):
    """With unit vectors a of online and t of target: d cos / d online = (t - cos a) / |online|.

    In closed form, because the chain of small operations that autograd would keep takes as
    long as the linear layers do.
    """

    @staticmethod
    def forward(
        ctx: Any, online: Tensor, target: Tensor, pairs: tuple[tuple[int, int], ...]
    ) -> Tensor:
        inverse = torch.linalg.vector_norm(online, dim=2).clamp_(min=EPSILON).reciprocal_()
        target_inverse = torch.linalg.vector_norm(target, dim=2).clamp_(min=EPSILON).reciprocal_()
        cos = torch.stack([torch.linalg.vecdot(online[a], target[b]) for a, b in pairs])
        first, second = ([pair[side] for pair in pairs] for side in (0, 1))
        scale = inverse[first] * target_inverse[second]
        cos *= scale
        ctx.save_for_backward(online, target, inverse, scale, cos)
        ctx.pairs = pairs
        return cos

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        online, target, inverse, scale, cos = ctx.saved_tensors
        (weight,) = gradients
        first = torch.tensor([a for a, _ in ctx.pairs], device=cos.device)
        along = torch.zeros_like(inverse).index_add_(0, first, weight * cos)
        gradient = online * (along * inverse.square()).neg_().unsqueeze(2)
        for (a, b), across in zip(ctx.pairs, weight * scale, strict=True):
            gradient[a].addcmul_(target[b], across.unsqueeze(1))
        return gradient, None, None


class _RowsAndNorm(torch.autograd.Function):
    """d|x| / dx = x / |x|; the gradients of rows and norm are summed in one table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(table)
        ctx.save_for_backward(table, index, norm)
        return table.index_select(0, index), norm

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        table, index, norm = ctx.saved_tensors
        rows, of_norm = gradients
        gradient: Tensor = table * (of_norm / norm.clamp(min=EPSILON))
        return gradient.index_add_(0, index, rows), None
