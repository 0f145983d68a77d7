"""FREEDOM: a frozen item-item graph by feature, a user-item graph without its noisy edges.

Zhou, Shen: A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal
Recommendation, MM 2023, arXiv 2211.06924. Equation numbers refer to that paper.
"""

from dataclasses import replace
from typing import Annotated, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.graph import BipartiteGraph
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import ranking_loss
from sgfd.recommenders.neighbours import mean_of_nearest
from sgfd.recommenders.rows import rows_of
from sgfd.settings import CHECKED, Count, NotNegative, Range, Share


@dataclass(frozen=True, config=CHECKED)
class FREEDOMSettings(BackboneSettings):
    """Settings of FREEDOM; defaults of the paper's section 4.1.4."""

    embedding_dim: Annotated[Count, Range(32, 256, log=True)] = 64
    """Width of user and item vectors."""
    layers: Annotated[Count, Range(1, 4)] = 2
    """Rounds of propagation on the user-item graph."""
    item_layers: Count = 1
    """Rounds of propagation on the item-item graph."""
    neighbours: Annotated[Count, Range(5, 30, log=True, features=True)] = 10
    """Nearest items by feature that each item is joined to (k of eq. 2)."""
    pruned: Annotated[Share, Range(0.5, 0.95)] = 0.8
    """Share of the training interactions left out of the graph of an epoch (rho)."""
    content_weight: Annotated[NotNegative, Range(1e-5, 1e-1, log=True, features=True)] = 1e-3
    """Weight of the ranking losses by feature (lambda of eq. 15)."""


class FREEDOM(Backbone):
    """score(u, i) = e_u . (e_i + h_i).

        S      mean over the modalities of the k-nearest graphs, frozen (eq. 1 to 5)
        h      S^item_layers x, x the items' embeddings (eq. 9)
        e      mean of rounds 0..layers on the user-item graph (eq. 10, 11), of which an epoch
               keeps edges drawn with probability 1/sqrt(d_u d_i), popular ones less often (eq. 7)
        loss   BPR on the score + content_weight * sum_m BPR on e_u . (W_m z_im) (eq. 13 to 15)

    Modalities weigh the same (the paper tunes a weight of two). W_m has no bias: it would add the
    same to both items of a pair, and rank nothing. Without features there is no item-item graph.
    Items without training interactions are nobody's neighbours, and no item is its own (in the
    authors' code each is its first).
    """

    Settings: ClassVar[type[BackboneSettings]] = FREEDOMSettings
    scores_new_items: ClassVar[bool] = True
    negatives = 1

    def __init__(self, inputs: Inputs, settings: FREEDOMSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.inputs = inputs
        self.whole_graph = BipartiteGraph(inputs)
        self.epoch_graph = self.whole_graph
        modalities = list(inputs.features.values())
        self.item_graph = (
            mean_of_nearest(modalities, inputs, settings.neighbours) if modalities else None
        )
        self.users = nn.Embedding(inputs.n_users, settings.embedding_dim)
        self.items = nn.Embedding(inputs.n_items, settings.embedding_dim)
        self.projections = nn.ModuleList(  # in the order of the features: any name will do
            nn.Linear(modality.dimension, settings.embedding_dim, bias=False)
            for modality in modalities
        )
        nn.init.xavier_uniform_(self.users.weight)
        nn.init.xavier_uniform_(self.items.weight)

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Draw the epoch's edges, without replacement (eq. 7), and normalise what is left."""
        edges = prune(self.inputs, self.settings.pruned, generator)
        self.epoch_graph = BipartiteGraph(
            replace(self.inputs, users=self.inputs.users[edges], items=self.inputs.items[edges])
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Ranking losses by score and by each modality (eq. 13 to 15)."""
        users, items = self.embeddings()
        candidates = batch.candidates
        user = rows_of(users, batch.users)
        parts = {"ranking": ranking_loss(user, rows_of(items, candidates))}
        for projection, (name, modality) in zip(
            self.projections, self.inputs.features.items(), strict=True
        ):
            content = projection(modality.values.index_select(0, candidates))
            parts[f"{name} ranking"] = self.settings.content_weight * ranking_loss(user, content)
        return parts

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """e of the users (U, d), e + h of the items (I, d)."""
        graph = self.epoch_graph if self.training else self.whole_graph
        users, items = graph.mean_of_rounds(
            self.users.weight, self.items.weight, self.settings.layers
        )
        if self.item_graph is not None:
            near = self.items.weight
            for _ in range(self.settings.item_layers):
                near = self.item_graph @ near
            items = items + near
        return users, items


def prune(inputs: Inputs, share: float, generator: torch.Generator) -> Tensor:
    """Places of the training interactions that stay, drawn without replacement, ascending.

    With probability proportional to 1/sqrt(d_u d_i) (eq. 7), by the largest of log p + Gumbel
    noise, which is the same as drawing one after the other.
    """
    users, items = inputs.users.cpu(), inputs.items.cpu()
    degrees = torch.bincount(users)[users].double() * torch.bincount(items)[items]
    uniform = torch.rand(len(users), generator=generator, dtype=torch.float64)
    gumbel = -torch.log(-torch.log(uniform.clamp(min=1e-300)))
    kept = max(1, round((1 - share) * len(users)))
    chosen = torch.topk(gumbel - 0.5 * degrees.log(), kept).indices
    return torch.sort(chosen).values.to(inputs.device)
