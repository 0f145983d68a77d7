"""DGCF: a graph for each of several intents, found by routing.

Wang, Jin, Zhang, He, Xu, Chua: Disentangled Graph Collaborative Filtering, SIGIR 2020, arXiv
2007.01764. Equation numbers refer to that paper.
"""

from itertools import combinations
from typing import Annotated, ClassVar

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
    Range,
)
from sgfd.recommenders.edges import Edges
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import ranking_loss, squared_norm


@dataclass(frozen=True, config=CHECKED)
class DGCFSettings(BackboneSettings):
    """Settings of DGCF; defaults of the paper's section 4.1.3."""

    embedding_dim: Count = 64
    """Width of the vectors, the intents' chunks together; rounded up to a multiple of them."""
    intents: Annotated[Count, Range(1, 8, log=True)] = 4
    """Chunks of a vector, one an intent (K)."""
    iterations: Count = 2
    """Rounds of routing in each layer (T)."""
    layers: Annotated[Count, Range(1, 3)] = 1
    """Layers of propagation (L)."""
    independence_weight: Annotated[NotNegative, Range(1e-3, 1.0, log=True)] = 1e-2
    """Weight of the distance correlation between the intents (lambda_1 of eq. 16)."""
    independence_rows: Count = 128
    """Users and items of the batch, each, on which that correlation is measured."""
    regularization: Annotated[NotNegative, Range(1e-5, 1e-1, log=True)] = 1e-3
    """Weight of the squared layer-0 vectors of the batch (lambda_2 of eq. 16)."""


class DGCF(Backbone):
    """score(u, i) = e_u . e_i, e the sum of the layers 0..L (eq. 12, 13).

    In a layer each intent k has logits S_k, at first 1, on the edges. T times (eq. 5 to 10):

        p_k = softmax over k of S_k;  L_k(u, i) = p_k(u, i) / sqrt(D_k(u) D_k(i)), D_k sums of p_k
        e_ku = sum_i L_k(u, i) x_ki, e_ki = sum_u L_k(u, i) x_ku, x the layer's input
        S_k(u, i) += e_ku . tanh(x_ki)

    and e_k is the layer's output. Loss: BPR + independence_weight * mean over pairs of intents of
    the distance correlation of their chunks (eq. 14 to 16) + L2.

    The routing coefficients are constants to the gradient: they are assignments, as in
    capsule networks, and the vectors learn through the sums that they weigh. The paper's model
    has no features: they are left out.
    """

    Settings: ClassVar[type[BackboneSettings]] = DGCFSettings
    uses_features: ClassVar[bool] = False
    negatives = 1

    def __init__(self, inputs: Inputs, settings: DGCFSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.chunk = -(-settings.embedding_dim // settings.intents)
        self.to_users = Edges(inputs.users, inputs.items, inputs.n_users, inputs.n_items)
        self.to_items = Edges(inputs.items, inputs.users, inputs.n_items, inputs.n_users)
        self.users = nn.Embedding(inputs.n_users, self.chunk * settings.intents)
        self.items = nn.Embedding(inputs.n_items, self.chunk * settings.intents)
        nn.init.xavier_uniform_(self.users.weight)
        nn.init.xavier_uniform_(self.items.weight)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """BPR, independence of the intents, L2 (eq. 14 to 16)."""
        users, items = self.embeddings()
        user, negatives = users.index_select(0, batch.users), batch.negatives[:, 0]
        item = items.index_select(0, batch.items)
        others = (user * items.index_select(0, negatives)).sum(dim=1)
        rows = self.settings.independence_rows
        sample = torch.cat([user[:rows], item[:rows]])
        ego = self.users(batch.users), self.items(batch.items), self.items(negatives)
        return {
            "ranking": ranking_loss((user * item).sum(dim=1), others[:, None]),
            "independence": self.settings.independence_weight
            * dependence(list(torch.split(sample, self.chunk, dim=1))),
            "regularization": self.settings.regularization * squared_norm(*ego),
        }

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Sums of the layers: users (U, d), items (I, d)."""
        users, items = self.users.weight, self.items.weight
        user_sum, item_sum = users, items
        for _ in range(self.settings.layers):
            users, items = self._layer(users, items)
            user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum, item_sum

    def _layer(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """One layer of routing and propagation."""
        x_users = [chunk.contiguous() for chunk in torch.split(users, self.chunk, dim=1)]
        x_items = [chunk.contiguous() for chunk in torch.split(items, self.chunk, dim=1)]
        with torch.no_grad():
            weights = self._route(x_users, x_items)
        near_users, near_items = [], []
        for weight, user, item in zip(weights, x_users, x_items, strict=True):
            near_users.append(self.to_users.sum(weight, item))
            near_items.append(self.to_items.sum(weight[self.to_items.order], user))
        return torch.cat(near_users, dim=1), torch.cat(near_items, dim=1)

    def _route(self, users: list[Tensor], items: list[Tensor]) -> list[Tensor]:
        """L_k of each edge (E,) after T rounds; edges in the order of `to_users`."""
        edges = self.to_users
        logits = torch.ones(len(users), len(edges.targets), device=users[0].device)
        tangents = [torch.tanh(item) for item in items]
        for round_ in range(self.settings.iterations):
            share = logits.softmax(dim=0)
            degrees = (
                share.new_zeros(len(share), edges.n_targets).index_add_(1, edges.targets, share),
                share.new_zeros(len(share), len(items[0])).index_add_(1, edges.sources, share),
            )
            weights = (
                share
                * (
                    degrees[0].index_select(1, edges.targets)
                    * degrees[1].index_select(1, edges.sources)
                ).rsqrt()
            )
            if round_ + 1 < self.settings.iterations:
                for k, (weight, item) in enumerate(zip(weights, items, strict=True)):
                    logits[k] += edges.dots(edges.sum(weight, item), tangents[k])
        return list(weights)


def dependence(chunks: list[Tensor]) -> Tensor:
    """Mean distance correlation of all pairs of chunks (n, c), a scalar in [0, 1]; 0 for one.

    Szekely, Rizzo, Bakirov: Measuring and testing dependence by correlation of distances, Annals
    of Statistics 2007.
    """
    centred = [_centred_distances(chunk) for chunk in chunks]
    pairs = [_correlation(one, other) for one, other in combinations(centred, 2)]
    return torch.stack(pairs).mean() if pairs else chunks[0].sum() * 0


def _centred_distances(rows: Tensor) -> Tensor:
    squares = rows.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * rows @ rows.T).clamp(min=1e-8).sqrt()
    means = distances.mean(dim=0)
    centred: Tensor = distances - means - means[:, None] + means.mean()
    return centred


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    covariance = (one * other).mean().clamp(min=0)
    variances = one.square().mean() * other.square().mean()
    return (covariance / variances.clamp(min=1e-24).sqrt() + 1e-12).sqrt()
