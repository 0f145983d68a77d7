"""DGCF: a graph for each of several intents, found by routing.

Wang, Jin, Zhang, He, Xu, Chua: Disentangled Graph Collaborative Filtering, SIGIR 2020, arXiv
2007.01764. Equation numbers refer to that paper.
"""

from typing import Annotated, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.edges import Edges
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import ranking_loss, squared_norm
from sgfd.recommenders.rows import rows_of
from sgfd.settings import CHECKED, Count, NotNegative, Range


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
    capsule networks, and the vectors learn through the sums that they weigh. The authors' code
    also brings both vectors of the last line to unit norm, which the paper does not say. DGCF has
    no features: they are left out.
    """

    Settings: ClassVar[type[BackboneSettings]] = DGCFSettings
    uses_features: ClassVar[bool] = False
    negatives = 1

    def __init__(self, inputs: Inputs, settings: DGCFSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.chunk = -(-settings.embedding_dim // settings.intents)
        # A copy of the graph for each intent, so that one operation serves them all.
        copies = torch.arange(settings.intents, device=inputs.device)[:, None]
        self.edges = Edges(
            (inputs.users + copies * inputs.n_users).flatten(),
            (inputs.items + copies * inputs.n_items).flatten(),
            inputs.n_users * settings.intents,
            inputs.n_items * settings.intents,
        )
        # Of the first round, where all logits are 1, in every step.
        self.uniform = self.edges.normalized(torch.ones_like(self.edges.targets).float())
        self.users = nn.Embedding(inputs.n_users, self.chunk * settings.intents)
        self.items = nn.Embedding(inputs.n_items, self.chunk * settings.intents)
        nn.init.xavier_uniform_(self.users.weight)
        nn.init.xavier_uniform_(self.items.weight)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """BPR, independence of the intents, L2 (eq. 14 to 16)."""
        users, items = self.embeddings()
        candidates, rows = batch.candidates, self.settings.independence_rows
        user, item = rows_of(users, batch.users), rows_of(items, candidates)
        sample = torch.cat([user[:rows], item[: min(rows, len(user))]])
        ego = rows_of(self.users.weight, batch.users), rows_of(self.items.weight, candidates)
        return {
            "ranking": ranking_loss(user, item),
            "independence": self.settings.independence_weight * dependence(self._by_intent(sample)),
            "regularization": self.settings.regularization * squared_norm(*ego),
        }

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Sums of the layers: users (U, d), items (I, d)."""
        users = self._by_intent(self.users.weight).reshape(-1, self.chunk)
        items = self._by_intent(self.items.weight).reshape(-1, self.chunk)
        user_sum, item_sum = users, items
        for _ in range(self.settings.layers):
            with torch.no_grad():
                weight = self._route(items)
            users, items = self.edges.exchange(users, items, weight)
            user_sum, item_sum = user_sum + users, item_sum + items
        return self._side_by_side(user_sum), self._side_by_side(item_sum)

    def _by_intent(self, rows: Tensor) -> Tensor:
        """The chunks (K, n, c) of rows (n, K c)."""
        return rows.view(len(rows), -1, self.chunk).transpose(0, 1)

    def _side_by_side(self, chunks: Tensor) -> Tensor:
        """Rows (n, K c) of chunks (K n, c)."""
        parts = chunks.view(self.settings.intents, -1, self.chunk)
        return parts.transpose(0, 1).reshape(parts.shape[1], -1)

    def _route(self, items: Tensor) -> Tensor:
        """L_k of the edges of each intent (K E,) after T rounds, x the items' chunks (K I, c)."""
        weight = self.uniform
        logits, tangents = torch.ones_like(weight), torch.tanh(items)
        for _ in range(self.settings.iterations - 1):
            logits += self.edges.dots(self.edges.weighted(weight, items), tangents)
            share = logits.view(self.settings.intents, -1).softmax(dim=0)
            weight = self.edges.normalized(share.flatten())
        return weight


def dependence(chunks: Tensor) -> Tensor:
    """Mean distance correlation of all pairs of chunks (K, n, c), in [0, 1]; 0 for one alone.

    Szekely, Rizzo, Bakirov: Measuring and testing dependence by correlation of distances, Annals
    of Statistics 2007.
    """
    pairs = len(chunks) * (len(chunks) - 1) // 2
    if not pairs:
        return chunks.sum() * 0
    centred = _centred_distances(chunks).flatten(start_dim=1)
    covariances = (centred @ centred.T) / centred.shape[1]  # (K, K)
    variances = covariances.diagonal()
    scale = (variances[:, None] * variances).clamp(min=1e-24).sqrt()
    correlations = (covariances.clamp(min=0) / scale + 1e-12).sqrt()
    return correlations.triu(diagonal=1).sum() / pairs


def _centred_distances(chunks: Tensor) -> Tensor:
    """Distances of each chunk's rows, less the means of row and column: (K, n, n)."""
    squares = chunks.square().sum(dim=2)
    apart = torch.baddbmm(squares[:, :, None] + squares[:, None], chunks, chunks.mT, alpha=-2)
    distances = apart.clamp(min=1e-8).sqrt()
    means = distances.mean(dim=1, keepdim=True)
    centred: Tensor = distances - means - means.mT + means.mean(dim=2, keepdim=True)
    return centred
