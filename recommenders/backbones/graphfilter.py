"""A training-free graph filter over co-interactions and feature neighbours.

In the line of GF-CF (Shen et al., CIKM 2021, arXiv 2108.07567) and of MM-GF (Roh et al.:
Training-free Graph Filtering via Multimodal Feature Refinement for Extremely Fast Multimodal
Recommendation, 2025, arXiv 2503.04406), in a plain linear form.
"""

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.graph import BipartiteGraph
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.neighbours import ItemGraph, nearest_edges, normalised_graph
from sgfd.settings import CHECKED, Count, NotNegative, Range, Share

POWERS = 8  # of R'R that sharpen the patterns
SCALE_USERS = 256  # whose scores set the parts' sizes


@dataclass(frozen=True, config=CHECKED)
class GraphFilterSettings(BackboneSettings):
    """Settings of the graph filter, chosen on the valid parts of Office and MovieLens 100K."""

    user_exponent: Annotated[NotNegative, Range(0.0, 1.0)] = 0.6
    """A user of n interactions weighs n^-user_exponent in the co-interactions (GF-CF: 1)."""
    item_exponent: Annotated[Share, Range(0.0, 0.95)] = 0.6
    """Share of an item's normalisation that is done where it is interacted with, the rest where
    it is recommended (alpha of MM-GF; GF-CF: 0.5)."""
    low_pass_dim: Annotated[Count, Range(16, 256, log=True)] = 64
    """Smoothest patterns of co-interaction that the ideal low-pass filter lets through."""
    low_pass_weight: Annotated[NotNegative, Range(0.0, 1.0)] = 0.3
    """Weight of the ideal low-pass filter (alpha of GF-CF)."""
    neighbours: Annotated[Count, Range(5, 50, log=True, features=True)] = 10
    """Nearest items by feature that each item is joined to, in each modality."""
    content_weight: Annotated[NotNegative, Range(0.0, 2.0, features=True)] = 0.3
    """Weight of the filter over feature neighbours, the mean over the modalities."""


class GraphFilter(Backbone):
    """score(u, .) = r_u P, r_u the user's training items as 0 and 1, P an item-item filter.

        P = G / |G| + low_pass_weight L / |L| + content_weight S / |S|
        G = D_I^-b A' D_U^-a A D_I^(b - 1)    A (U, I) the training interactions, a, b exponents
        L = D_I^-b V V' D_I^b                 V the first right singular vectors of
                                              D_U^-1/2 A D_I^-1/2
        S = mean over modalities of D^-1/2 W D^-1/2, W the cosines of each item's nearest others
            where positive, made symmetric

    and |X| the root of the mean square of the scores r_u X, so that the weights mean the same
    on every data set. With a = 1, b = 1/2 and no content this is GF-CF. P itself never exists: a
    block of users is sent through its sparse factors. Nothing is trained. Items that come later
    join S, so that the scores of the others move a little with them.
    """

    Settings: ClassVar[type[BackboneSettings]] = GraphFilterSettings
    scores_new_items: ClassVar[bool] = True
    trained: ClassVar[bool] = False

    patterns: Tensor
    scales: Tensor

    def __init__(self, inputs: Inputs, settings: GraphFilterSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.inputs = inputs
        self.graph = BipartiteGraph(inputs)
        self.user_degree, self.item_degree = (
            torch.bincount(index, minlength=n).clamp(min=1).float()[:, None]
            for index, n in ((inputs.users, inputs.n_users), (inputs.items, inputs.n_items))
        )
        self.content_graphs = [
            symmetric_graph(*nearest_edges(modality, inputs, settings.neighbours), inputs.n_items)
            for modality in inputs.features.values()
        ]
        patterns = smooth_patterns(self.graph, inputs.n_items, settings.low_pass_dim)
        self.register_buffer("patterns", patterns)
        self.register_buffer("scales", self._scales())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError("there is nothing to train")

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The low-pass part alone, as vectors: R V (U, q) and V (I, q), for neighbours."""
        users = self.graph.users_from(self.patterns)
        return users, self.patterns

    def rescore(self, users: Tensor, items: Tensor) -> Tensor:
        """Rows of r P for users (B,): (B, I) for all items (I,), (B, C) for items (B, C)."""
        weights = (1.0, self.settings.low_pass_weight, self.settings.content_weight)
        parts = self._parts(self._interactions_of(users))
        filtered = torch.zeros_like(parts[0])
        for part, weight, scale in zip(parts, weights, self.scales, strict=True):
            filtered += weight / scale * part
        scores = filtered.T
        return scores[:, items] if items.dim() == 1 else scores.gather(1, items)

    def _parts(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """G' s, L' s and S' s of signals s (I, B), (I, B) each."""
        a, b = self.settings.user_exponent, self.settings.item_exponent
        # The graph's product has exponents 1/2 on both sides: the rest is put beside it.
        users = self.graph.users_from(signal * self.item_degree ** (0.5 - b))
        together = self.graph.items_from(users * self.user_degree ** (1 - a))
        smooth = self.patterns @ (self.patterns.T @ (signal * self.item_degree**-b))
        content = torch.zeros_like(signal)
        for graph in self.content_graphs:
            content += (graph @ signal) / len(self.content_graphs)
        return together * self.item_degree ** (b - 0.5), smooth * self.item_degree**b, content

    def _scales(self) -> Tensor:
        """|G|, |L| and |S| over some users, from the first to the last, (3,); 1 for no scores."""
        n_users = self.inputs.n_users
        users = torch.arange(0, n_users, -(-n_users // SCALE_USERS))
        sizes = [part.square().mean().sqrt() for part in self._parts(self._interactions_of(users))]
        return torch.stack([torch.where(size > 0, size, torch.ones_like(size)) for size in sizes])

    def _interactions_of(self, users: Tensor) -> Tensor:
        """Training items of users (B,) as columns of 0 and 1, (I, B)."""
        sets = self.inputs.seen.take(users.cpu().numpy())
        column = torch.from_numpy(np.repeat(np.arange(sets.n_users), sets.sizes))
        signal = torch.zeros(sets.n_items, sets.n_users)
        signal[torch.from_numpy(sets.items), column] = 1
        return signal.to(self.inputs.device)


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
    return normalised_graph(rows, columns, larger, n_items)
