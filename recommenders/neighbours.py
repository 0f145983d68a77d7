"""Frozen item-item graphs: each item's nearest others by feature."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sgfd.recommenders.evaluation import top_k
from sgfd.recommenders.graph import Bags, bag_product
from sgfd.recommenders.inputs import Inputs, ModalityFeatures
from sgfd.recommenders.item_sets import ItemSets


class ItemGraph:
    """A sparse item-item matrix S (I, I), multiplied with tables of items in either direction."""

    def __init__(self, rows: Tensor, columns: Tensor, weight: Tensor, n_items: int) -> None:
        self._forward = Bags(rows, columns, weight, n_items)
        self._transposed = Bags(columns, rows, weight, n_items)

    def __matmul__(self, items: Tensor) -> Tensor:
        """S x for x (I, d), differentiable in x."""
        return bag_product(items, self._forward, self._transposed)


def nearest_edges(
    modality: ModalityFeatures, inputs: Inputs, k: int, itself: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Each item's k nearest others by the cosine of one modality, exact.

    Only items with training interactions are anybody's neighbours: the vectors of the others
    never learn what they stand for. Items that lack the modality have no neighbours and are
    nobody's, nor are those whose row is 0: they are as far from each as from any other.

    Args:
        itself: an item may be among its own k.

    Returns:
        Items (E,), their neighbours (E,) and the cosines (E,).
    """
    warm = torch.bincount(inputs.items, minlength=inputs.n_items) > 0
    somewhere = modality.present & modality.values.any(dim=1)
    asking = torch.nonzero(somewhere).flatten().cpu().numpy()
    answering = torch.nonzero(somewhere & warm).flatten().cpu().numpy()
    unit = functional.normalize(modality.values, dim=1).cpu().numpy()
    place = np.full(inputs.n_items, -1)
    place[answering] = np.arange(len(answering))
    own = place[asking]
    asks = np.flatnonzero(own >= 0) if not itself else np.empty(0, np.int64)
    left_out = ItemSets.from_pairs(asks, own[asks], len(asking), max(len(answering), 1))
    found = np.full((len(asking), k), -1)
    cosines = np.zeros((len(asking), k), dtype=np.float32)
    if len(answering):
        found, cosines = top_k(unit[asking], unit[answering], k, left_out)
    row, column = np.nonzero(found >= 0)
    edges = asking[row], answering[found[row, column]], cosines[row, column]
    items, neighbours, weight = (torch.from_numpy(np.asarray(part)) for part in edges)
    device = inputs.device
    return items.to(device), neighbours.to(device), weight.to(device)


def mean_of_nearest(modalities: Sequence[ModalityFeatures], inputs: Inputs, k: int) -> ItemGraph:
    """S = mean over the modalities of S_m, S_m x the mean of x over each item's k nearest.

    FREEDOM, eq. 2 to 5: neighbours weigh the same, 1/k.
    """
    rows, columns, weights = [], [], []
    for modality in modalities:
        items, neighbours, _ = nearest_edges(modality, inputs, k)
        degree = torch.bincount(items, minlength=inputs.n_items).float() * len(modalities)
        rows.append(items)
        columns.append(neighbours)
        weights.append(1 / degree[items])
    return ItemGraph(torch.cat(rows), torch.cat(columns), torch.cat(weights), inputs.n_items)


def affinity_of_nearest(modality: ModalityFeatures, inputs: Inputs, k: int) -> ItemGraph:
    """S = D^-1/2 A D^-1/2, A each item's k largest cosines, its own 1 among them, D A's row sums.

    MGCN's item-item view. A cosine below 0 counts 0, for a sum must not be below it.
    """
    items, neighbours, cosines = nearest_edges(modality, inputs, k, itself=True)
    return normalised_graph(items, neighbours, cosines.clamp_min(0.0), inputs.n_items)


def normalised_graph(rows: Tensor, columns: Tensor, weight: Tensor, n_items: int) -> ItemGraph:
    """D^-1/2 W D^-1/2 of edges (E,) with weights of 0 or more, D the sums of W's rows."""
    degree = weight.new_zeros(n_items).index_add(0, rows, weight)
    scale = degree.clamp(min=1e-12).rsqrt()
    return ItemGraph(rows, columns, weight * scale[rows] * scale[columns], n_items)
