"""NGCF: propagation with weights and the product of neighbours.

Wang, He, Wang, Feng, Chua: Neural Graph Collaborative Filtering, SIGIR 2019, arXiv 1905.08108.
Equation numbers refer to that paper.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.graph import BipartiteGraph
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import ranking_loss, squared_norm
from sgfd.recommenders.rows import rows_of, unit_rows
from sgfd.settings import CHECKED, Count, NotNegative, Range, Share

NEGATIVE_SLOPE = 0.2  # of LeakyReLU in the authors' code


@dataclass(frozen=True, config=CHECKED)
class NGCFSettings(BackboneSettings):
    """Settings of NGCF; defaults of the paper's section 4.2.3, which searches the others."""

    batch_size: Count = 1024
    """Training interactions a step."""
    patience: Count = 50
    """Stop after so many epochs without a better Recall@20."""
    embedding_dim: Count = 64
    """Width of the vectors, and of every layer."""
    layers: Annotated[Count, Range(1, 4)] = 3
    """Rounds of propagation (L)."""
    message_dropout: Annotated[Share, Range(0.0, 0.5)] = 0.1
    """Share of a layer's output entries dropped in training."""
    regularization: Annotated[NotNegative, Range(1e-6, 1e-2, log=True)] = 1e-4
    """Weight of the squared round-0 vectors of the batch (lambda of eq. 11)."""


class NGCF(Backbone):
    """score(u, i) = e_u . e_i, e the vectors of all rounds side by side (eq. 9, 10).

        E(l+1) = LeakyReLU((A + I) E(l) W1 + b1 + (A E(l)) * E(l) W2 + b2)   (eq. 7)

    The rounds after the first enter e as unit vectors, as in the authors' code; the paper does
    not say so, and without it early rounds drown the later ones. A = D^-1/2 A D^-1/2 of the
    user-item graph, W1 and W2 (d, d) of each round. The paper's model has no features: they
    are left out.
    """

    Settings: ClassVar[type[BackboneSettings]] = NGCFSettings
    uses_features: ClassVar[bool] = False
    negatives = 1

    def __init__(self, inputs: Inputs, settings: NGCFSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        d = settings.embedding_dim
        self.graph = BipartiteGraph(inputs)
        self.users = nn.Embedding(inputs.n_users, d)
        self.items = nn.Embedding(inputs.n_items, d)
        self.sums = nn.ModuleList(nn.Linear(d, d) for _ in range(settings.layers))
        self.products = nn.ModuleList(nn.Linear(d, d) for _ in range(settings.layers))
        nn.init.xavier_uniform_(self.users.weight)
        nn.init.xavier_uniform_(self.items.weight)
        for linear in (*self.sums, *self.products):
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """BPR on the vectors of all rounds, L2 on those of round 0 (eq. 11)."""
        # Only the batch's rows of each round are put side by side.
        candidates = batch.candidates
        rounds = self._rounds()
        user = _side_by_side([rows_of(users, batch.users) for users, _ in rounds])
        item = _side_by_side([rows_of(items, candidates) for _, items in rounds])
        ego = rows_of(self.users.weight, batch.users), rows_of(self.items.weight, candidates)
        return {
            "ranking": ranking_loss(user, item),
            "regularization": self.settings.regularization * squared_norm(*ego),
        }

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all rounds side by side: users (U, (L + 1) d), items (I, (L + 1) d)."""
        users, items = zip(*self._rounds(), strict=True)
        return _side_by_side(users), _side_by_side(items)

    def _rounds(self) -> list[tuple[Tensor, Tensor]]:
        """E(0) to E(L), of users (U, d) and items (I, d) each (eq. 7)."""
        users, items = self.users.weight, self.items.weight
        rounds = [(users, items)]
        for to_sum, to_product in zip(self.sums, self.products, strict=True):
            near = self.graph.users_from(items), self.graph.items_from(users)
            users, items = (
                functional.dropout(
                    functional.leaky_relu(
                        to_sum(around + own) + to_product(around * own), NEGATIVE_SLOPE
                    ),
                    self.settings.message_dropout,
                    self.training,
                )
                for around, own in zip(near, (users, items), strict=True)
            )
            rounds.append((users, items))
        return rounds


def _side_by_side(rounds: Sequence[Tensor]) -> Tensor:
    """The first round as it is, the others as unit vectors."""
    first, *others = rounds
    return torch.cat([first, *map(unit_rows, others)], dim=1)
