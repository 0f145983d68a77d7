"""A training-free graph filter over co-interactions and feature neighbours.

In the line of GF-CF (Shen et al., CIKM 2021, arXiv 2108.07567) and of MM-GF (Roh et al.:
Training-free Graph Filtering via Multimodal Feature Refinement for Extremely Fast Multimodal
Recommendation, 2025, arXiv 2503.04406), in a plain linear form.
"""

from typing import ClassVar

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from sgfd.recommenders.backbone import (
    CHECKED,
    Backbone,
    BackboneSettings,
    Batch,
    Count,
    NotNegative,
)
from sgfd.recommenders.graph import BipartiteGraph
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.neighbours import ItemGraph, nearest_edges

POWERS = 8  # of R'R that sharpen the patterns


@dataclass(frozen=True, config=CHECKED)
class GraphFilterSettings(BackboneSettings):
    """Settings of the graph filter."""

    low_pass_dim: Count = 64
    """Smoothest patterns of co-interaction that the ideal low-pass filter lets through."""
    low_pass_weight: NotNegative = 0.3
    """Weight of the ideal low-pass filter (alpha of GF-CF)."""
    neighbours: Count = 30
    """Nearest items by feature that each item is joined to, in each modality."""
    content_weight: NotNegative = 1.0
    """Weight of the filter over feature neighbours, the mean over the modalities."""


class GraphFilter(Backbone):
    """score(u, .) = r_u P, r_u the user's training items as 0 and 1, P an item-item filter.

        R = D_U^-1/2 A D_I^-1/2   (U, I), A the training interactions
        P = R'R + low_pass_weight * D_I^-1/2 V V' D_I^1/2 + content_weight * mean_m S_m

    V are the first right singular vectors of R; S_m = D^-1/2 W D^-1/2 of modality m, W the
    cosines of each item's nearest others where positive, made symmetric. P itself never exists:
    a block of users is sent through its sparse factors. Nothing is trained.
    """

    Settings: ClassVar[type[BackboneSettings]] = GraphFilterSettings
    scores_new_items: ClassVar[bool] = True
    trained: ClassVar[bool] = False

    patterns: Tensor

    def __init__(self, inputs: Inputs, settings: GraphFilterSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.inputs = inputs
        self.graph = BipartiteGraph(inputs)
        degree = torch.bincount(inputs.items, minlength=inputs.n_items).float()
        self.root = degree.sqrt()[:, None]
        self.content_graphs = [
            symmetric_graph(*nearest_edges(modality, inputs, settings.neighbours), inputs.n_items)
            for modality in inputs.features.values()
        ]
        patterns = smooth_patterns(self.graph, inputs.n_items, settings.low_pass_dim)
        self.register_buffer("patterns", patterns)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError("there is nothing to train")

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The low-pass part alone, as vectors: R V (U, q) and V (I, q), for neighbours."""
        users = self.graph.users_from(self.patterns)
        return users, self.patterns

    def rescore(self, users: Tensor, items: Tensor) -> Tensor:
        """Rows of r P for users (B,): (B, I) for all items (I,), (B, C) for items (B, C)."""
        signal = self._interactions_of(users)  # (I, B)
        filtered = self.graph.items_from(self.graph.users_from(signal))
        smooth = self.patterns @ (self.patterns.T @ (signal / self.root.clamp(min=1)))
        filtered += self.settings.low_pass_weight * self.root * smooth
        for graph in self.content_graphs:
            weight = self.settings.content_weight / len(self.content_graphs)
            filtered += weight * (graph @ signal)
        scores = filtered.T
        return scores[:, items] if items.dim() == 1 else scores.gather(1, items)

    def _interactions_of(self, users: Tensor) -> Tensor:
        """Training items of users (B,) as columns of 0 and 1, (I, B)."""
        sets = self.inputs.seen.take(users.cpu().numpy())
        column = torch.from_numpy(np.repeat(np.arange(sets.n_users), sets.sizes))
        signal = torch.zeros(sets.n_items, sets.n_users)
        signal[torch.from_numpy(sets.items), column] = 1
        return signal.to(users.device)


def smooth_patterns(graph: BipartiteGraph, n_items: int, count: int) -> Tensor:
    """First right singular vectors of R, (I, count or fewer), from a fixed random start.

    By subspace iteration with twice as many vectors (Halko, Martinsson, Tropp, 2011, alg. 4.4).
    """
    start = torch.randn(
        n_items, min(2 * count, n_items), generator=torch.Generator().manual_seed(0)
    )
    basis = torch.linalg.qr(start.to(graph.device)).Q
    for _ in range(POWERS):
        basis = torch.linalg.qr(graph.items_from(graph.users_from(basis))).Q
    rotation = torch.linalg.svd(graph.users_from(basis), full_matrices=False).Vh
    patterns: Tensor = (basis @ rotation.T)[:, :count].contiguous()
    return patterns


def symmetric_graph(items: Tensor, neighbours: Tensor, cosines: Tensor, n_items: int) -> ItemGraph:
    """D^-1/2 W D^-1/2, W the larger of the positive cosines of (i, j) and (j, i)."""
    rows, columns = torch.cat([items, neighbours]), torch.cat([neighbours, items])
    keys, place = torch.unique(rows * n_items + columns, return_inverse=True)
    weight = functional.relu(torch.cat([cosines, cosines]))
    larger = torch.zeros(len(keys), device=items.device).scatter_reduce(0, place, weight, "amax")
    rows, columns = keys // n_items, keys % n_items
    degree = torch.zeros(n_items, device=items.device).index_add_(0, rows, larger)
    scale = degree.clamp(min=1e-12).rsqrt()
    return ItemGraph(rows, columns, larger * scale[rows] * scale[columns], n_items)
