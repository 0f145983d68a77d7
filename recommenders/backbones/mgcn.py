"""MGCN: features purified by behaviour, fused by what the user's behaviour prefers.

Yu, Tan, Lu, Bao: Multi-View Graph Convolutional Network for Multimedia Recommendation, MM 2023,
arXiv 2308.03588. The parts are named as there.
"""

from typing import Annotated, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.graph import BipartiteGraph
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import own_among_others, ranking_loss, squared_norm
from sgfd.recommenders.neighbours import affinity_of_nearest
from sgfd.recommenders.rows import rows_of, unit_rows
from sgfd.settings import CHECKED, Count, NotNegative, Positive, Range


@dataclass(frozen=True, config=CHECKED)
class MGCNSettings(BackboneSettings):
    """Settings of MGCN; defaults of the paper's section 5.1.4."""

    embedding_dim: Count = 64
    """Width of user and item vectors."""
    layers: Annotated[Count, Range(1, 4)] = 2
    """Rounds of propagation on the user-item graph."""
    neighbours: Count = 10
    """Nearest items by feature that each item is joined to, itself among them."""
    contrast_weight: Annotated[NotNegative, Range(1e-3, 1.0, log=True, features=True)] = 1e-2
    """Weight of the contrast of behaviour and content (lambda_C)."""
    temperature: Annotated[Positive, Range(0.1, 1.0, log=True, features=True)] = 0.2
    """Temperature of that contrast (tau)."""
    regularization: Annotated[NotNegative, Range(1e-6, 1e-2, log=True)] = 1e-4
    """Weight of the squared embeddings of the batch (lambda_E)."""


class MGCN(Backbone):
    """score(u, i) = (e_u + c_u) . (e_i + c_i), e by behaviour and c by content.

        purifier   p_im = x_i * sigmoid(V_m (W_m z_im)), x the item's embedding
        behaviour  e = mean of rounds 0..layers of x on the user-item graph
        content    c_im = sum of S_ij p_jm over the nearest j, i itself among them, S their cosines
                   normalised by both degrees; users: their items' c, normalised as in the
                   user-item graph
        fuser      shared c_s = sum_m softmax_m(q . tanh(Q c_m)) c_m; what is special to m,
                   c_m - c_s, counts by the preference sigmoid(P_m e):
                   c = c_s + mean_m (c_m - c_s) * sigmoid(P_m e)
        loss       BPR + contrast_weight * InfoNCE(e, c) on users and on items + L2

    An item that lacks a modality has c_m of its neighbours by none: 0. With one modality c is c_m,
    without features what remains is LightGCN with two rounds.
    """

    Settings: ClassVar[type[BackboneSettings]] = MGCNSettings
    scores_new_items: ClassVar[bool] = True
    negatives = 1

    def __init__(self, inputs: Inputs, settings: MGCNSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        d = settings.embedding_dim
        self.features = list(inputs.features.values())
        self.graph = BipartiteGraph(inputs)
        self.item_graphs = [
            affinity_of_nearest(m, inputs, settings.neighbours) for m in self.features
        ]
        self.users = nn.Embedding(inputs.n_users, d)
        self.items = nn.Embedding(inputs.n_items, d)
        nn.init.xavier_uniform_(self.users.weight)
        nn.init.xavier_uniform_(self.items.weight)
        self.inward = nn.ModuleList(nn.Linear(m.dimension, d) for m in self.features)
        self.gates = nn.ModuleList(nn.Linear(d, d) for _ in self.features)
        if len(self.features) > 1:  # of one modality all is shared, and nothing special
            self.preferences = nn.ModuleList(nn.Linear(d, d) for _ in self.features)
            self.query = nn.Sequential(nn.Linear(d, d), nn.Tanh(), nn.Linear(d, 1, bias=False))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """BPR, the contrast of the two views of the batch's users and items, L2."""
        behaviour, content = self.views()
        users, items = (b + c for b, c in zip(behaviour, content, strict=True))
        candidates = batch.candidates
        user, item = rows_of(users, batch.users), rows_of(items, candidates)
        ego = rows_of(self.users.weight, batch.users), rows_of(self.items.weight, candidates)
        parts = {
            "ranking": ranking_loss(user, item),
            "regularization": self.settings.regularization * squared_norm(*ego),
        }
        if self.features:
            views = zip(behaviour, content, (batch.users, batch.items), strict=True)
            two = [
                contrast(rows_of(e, r), rows_of(c, r), self.settings.temperature)
                for e, c, r in views
            ]
            parts["contrast"] = self.settings.contrast_weight * (two[0] + two[1])
        return parts

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """e + c of the users (U, d) and the items (I, d)."""
        behaviour, content = self.views()
        return behaviour[0] + content[0], behaviour[1] + content[1]

    def views(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Behaviour e and content c, each of users (U, d) and items (I, d)."""
        behaviour = self.graph.mean_of_rounds(
            self.users.weight, self.items.weight, self.settings.layers
        )
        if not self.features:
            return behaviour, (behaviour[0].new_zeros(()), behaviour[0].new_zeros(()))
        items = [
            graph @ purified
            for graph, purified in zip(self.item_graphs, self._purified(), strict=True)
        ]
        users = [self.graph.users_from(part) for part in items]
        return behaviour, (self._fuse(behaviour[0], users), self._fuse(behaviour[1], items))

    def _purified(self) -> list[Tensor]:
        """p_m of each modality (I, d); 0 where an item lacks it."""
        return [
            self.items.weight * torch.sigmoid(gate(inward(m.values))) * m.present[:, None]
            for inward, gate, m in zip(self.inward, self.gates, self.features, strict=True)
        ]

    def _fuse(self, behaviour: Tensor, parts: list[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        weight = torch.stack([self.query(part) for part in parts]).softmax(dim=0)  # (M, n, 1)
        shared = (weight * torch.stack(parts)).sum(dim=0)
        special = [
            (part - shared) * torch.sigmoid(preference(behaviour))
            for part, preference in zip(parts, self.preferences, strict=True)
        ]
        return shared + torch.stack(special).mean(dim=0)


def contrast(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """InfoNCE of rows (B, d) that belong together, the other rows of the batch as negatives."""
    return own_among_others(unit_rows(one) / temperature, unit_rows(other))
