"""GRCN: a user-item graph refined by what its users prefer in each modality.

Wei, Wang, Nie, He, Chua: Graph-Refined Convolutional Network for Multimedia Recommendation with
Implicit Feedback, MM 2020, arXiv 2008.10294.
"""

from typing import Annotated, Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.edges import Edges
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import ranking_loss, squared_norm
from sgfd.recommenders.rows import rows_of, unit_rows
from sgfd.settings import CHECKED, Count, NotNegative, Range


@dataclass(frozen=True, config=CHECKED)
class GRCNSettings(BackboneSettings):
    """Settings of GRCN as SGFD's authors run it, but for `prune`, which they leave off."""

    batch_size: Count = 1024
    """Training interactions a step."""
    embedding_dim: Count = 128
    """Width of the id vectors and of each modality's."""
    routing_rounds: Annotated[Count, Range(1, 4, features=True)] = 3
    """Rounds in which a user's preference learns from the contents of his items (R)."""
    layers: Annotated[Count, Range(1, 4)] = 2
    """Rounds of convolution on the refined graph."""
    prune: bool = True
    """Whether edges of negative weight are cut (ReLU)."""
    weight_decay: Annotated[NotNegative, Range(1e-5, 1e-1, log=True)] = 1e-3
    """Weight of the mean square of the batch's id embeddings and preferences."""


class GRCN(Backbone):
    """score(u, i) = r_u . r_i, r the id vectors and every modality's, side by side.

        content      c_im = unit(LeakyReLU(W_m z_im)); preference rho_um a unit vector, learnt
        routing      R times: rho_um = unit(rho_um + sum_i softmax_i(rho_um . c_im) c_im)
        modality     x = rho above c; for each directed edge alpha = softmax over the target's edges
                     of x_target . x_source; r_m = x + sum alpha x_source
        refining     weight_e = relu(max_m alpha_em * confidence of e's source in m)
        id vectors   unit vectors v; v + v1 + v2, each round the weighted sum of the one before
        loss         BPR with one negative + weight_decay * mean squares

    Confidences start uniform in 0..1, in the published code near 0 and half of them negative. The
    mean squares of users', items' and negatives' id vectors weigh the same, there users' twice.

    An item that lacks a modality has no edges there. Without features all edges of a target weigh
    the same: 1 / its number of edges.
    """

    Settings: ClassVar[type[BackboneSettings]] = GRCNSettings
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "office": {"learning_rate": 1e-3, "weight_decay": 1e-3},
        "clothing": {"learning_rate": 1e-4, "weight_decay": 1e-3},
        "toys-games": {"learning_rate": 1e-4, "weight_decay": 1e-3},
    }
    scores_new_items: ClassVar[bool] = True
    negatives = 1

    def __init__(self, inputs: Inputs, settings: GRCNSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        d = settings.embedding_dim
        self.n_users = inputs.n_users
        self.features = list(inputs.features.values())
        self.to_users = Edges(inputs.users, inputs.items, inputs.n_users, inputs.n_items)
        self.to_items = Edges(inputs.items, inputs.users, inputs.n_items, inputs.n_users)
        self.users = nn.Embedding(inputs.n_users, d)
        self.items = nn.Embedding(inputs.n_items, d)
        self.preferences = nn.ModuleList(nn.Embedding(inputs.n_users, d) for _ in self.features)
        self.projections = nn.ModuleList(nn.Linear(m.dimension, d) for m in self.features)
        count = max(1, len(self.features))
        self.user_confidence = nn.Parameter(torch.rand(inputs.n_users, count))
        self.item_confidence = nn.Parameter(torch.rand(inputs.n_items, count))
        for table in (self.users, self.items, *self.preferences):
            assert isinstance(table, nn.Embedding)
            nn.init.xavier_normal_(table.weight)
        for linear in self.projections:
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_normal_(linear.weight)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """BPR, and the mean squares of the batch's id embeddings and preferences."""
        candidates = batch.candidates
        users, items = zip(*self._parts(), strict=True)
        user = torch.cat([rows_of(part, batch.users) for part in users], dim=1)
        item = torch.cat([rows_of(part, candidates) for part in items], dim=1)
        ids = rows_of(self.users.weight, batch.users), rows_of(self.items.weight, candidates)
        decay = squared_norm(*ids) / 3  # the mean of users, items and negatives
        for preference in self.preferences:
            assert isinstance(preference, nn.Embedding)
            decay = decay + squared_norm(rows_of(preference.weight, batch.users))
        decay = decay * 2 / self.settings.embedding_dim
        return {
            "ranking": ranking_loss(user, item),
            "weight decay": self.settings.weight_decay * decay,
        }

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Id vectors and modality vectors side by side: (U, (1 + M) d) and (I, (1 + M) d)."""
        users, items = zip(*self._parts(), strict=True)
        return torch.cat(users, dim=1), torch.cat(items, dim=1)

    def _parts(self) -> list[tuple[Tensor, Tensor]]:
        """Vectors of users (U, d) and items (I, d): ids first, then each modality."""
        modalities, to_users, to_items = [], [], []
        for number in range(len(self.features)):
            vectors, (alpha_users, alpha_items) = self._modality(number)
            modalities.append(vectors)
            # The source's confidence: of an edge to a user it is the item's, and the reverse.
            to_users.append(
                alpha_users * self._confidence(self.item_confidence, number, self.to_users)
            )
            to_items.append(
                alpha_items * self._confidence(self.user_confidence, number, self.to_items)
            )
        ids = self._id_vectors(
            self._refined(to_users, self.to_users, self.item_confidence),
            self._refined(to_items, self.to_items, self.user_confidence),
        )
        return [ids, *modalities]

    def _modality(self, number: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Vectors of users and items in a modality, and alpha of the edges to each."""
        modality, projection = self.features[number], self.projections[number]
        content = unit_rows(functional.leaky_relu(projection(modality.values)))
        content = content * modality.present[:, None]
        table = self.preferences[number]
        assert isinstance(table, nn.Embedding)
        preference = unit_rows(table.weight)
        there = modality.present.index_select(0, self.to_users.sources)
        for _ in range(self.settings.routing_rounds):
            alpha = self.to_users.softmax(self.to_users.dots(preference, content), there)
            preference = unit_rows(preference + self.to_users.sum(alpha, content))
        alpha_users = self.to_users.softmax(self.to_users.dots(preference, content), there)
        there = modality.present.index_select(0, self.to_items.targets)
        alpha_items = self.to_items.softmax(self.to_items.dots(content, preference), there)
        vectors = (
            preference + self.to_users.sum(alpha_users, content),
            content + self.to_items.sum(alpha_items, preference),
        )
        return vectors, (alpha_users, alpha_items)

    def _confidence(self, confidence: Tensor, number: int, edges: Edges) -> Tensor:
        return confidence[:, number].index_select(0, edges.sources)

    def _refined(self, weights: list[Tensor], edges: Edges, confidence: Tensor) -> Tensor:
        """The weight of each edge (E,)."""
        if weights:
            weight = torch.stack(weights).max(dim=0).values
        else:
            everyone = torch.ones_like(edges.sources, dtype=torch.bool)
            alpha = edges.softmax(torch.zeros(len(everyone), device=confidence.device), everyone)
            weight = alpha * self._confidence(confidence, 0, edges)
        return functional.relu(weight) if self.settings.prune else weight

    def _id_vectors(self, to_users: Tensor, to_items: Tensor) -> tuple[Tensor, Tensor]:
        users = unit_rows(self.users.weight)
        items = unit_rows(self.items.weight)
        user_sum, item_sum = users, items
        for _ in range(self.settings.layers):
            users, items = self.to_users.sum(to_users, items), self.to_items.sum(to_items, users)
            user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum, item_sum
