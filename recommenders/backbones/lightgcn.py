"""LightGCN: nothing but propagation on the user-item graph.

He, Deng, Wang, Li, Zhang, Wang: LightGCN: Simplifying and Powering Graph Convolution Network for
Recommendation, SIGIR 2020, arXiv 2002.02126. Equation numbers refer to that paper.
"""

from typing import Annotated, ClassVar

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.graph import BipartiteGraph
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import ranking_loss, squared_norm
from sgfd.recommenders.rows import rows_of
from sgfd.settings import CHECKED, Count, NotNegative, Range


@dataclass(frozen=True, config=CHECKED)
class LightGCNSettings(BackboneSettings):
    """Settings of LightGCN; defaults of the paper's section 4.1.2, but for the batch: its code's
    2048 (the paper: 1024)."""

    patience: Count = 50
    """Stop after so many epochs without a better Recall@20 (50 in the paper, as in NGCF's)."""
    embedding_dim: Count = 64
    """Width of user and item vectors."""
    layers: Annotated[Count, Range(1, 4)] = 3
    """Rounds of propagation (1 to 4 in the paper)."""
    regularization: Annotated[NotNegative, Range(1e-6, 1e-2, log=True)] = 1e-4
    """Weight of the squared round-0 vectors of the batch (lambda of eq. 15)."""


class LightGCN(Backbone):
    """score(u, i) = e_u . e_i, e the mean of rounds 0..K of D^-1/2 A D^-1/2 (eq. 3 to 5).

    The paper's model has no features: they are left out.
    """

    Settings: ClassVar[type[BackboneSettings]] = LightGCNSettings
    uses_features: ClassVar[bool] = False
    negatives = 1

    def __init__(self, inputs: Inputs, settings: LightGCNSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.graph = BipartiteGraph(inputs)
        self.users = nn.Embedding(inputs.n_users, settings.embedding_dim)
        self.items = nn.Embedding(inputs.n_items, settings.embedding_dim)
        nn.init.xavier_uniform_(self.users.weight)
        nn.init.xavier_uniform_(self.items.weight)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """BPR on the propagated vectors, L2 on those of round 0 (eq. 15)."""
        users, items = self.embeddings()
        candidates = batch.candidates
        user, item = rows_of(users, batch.users), rows_of(items, candidates)
        ego = rows_of(self.users.weight, batch.users), rows_of(self.items.weight, candidates)
        return {
            "ranking": ranking_loss(user, item),
            "regularization": self.settings.regularization * squared_norm(*ego),
        }

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Propagated vectors of users (U, d) and items (I, d)."""
        return self.graph.mean_of_rounds(self.users.weight, self.items.weight, self.settings.layers)
