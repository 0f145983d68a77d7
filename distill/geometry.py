"""How the made vectors lie beside the generic ones, which any method can be asked."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sgfd.distill.held_out import at_most
from sgfd.distill.maker import Embed, Made, MadeModality, Task
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.quality import generic_rows, mean_or_none

MOST_ITEMS = 2000
NEIGHBOURS = 10

Indices = NDArray[np.int64]


def geometry(task: Task, made: Made) -> dict[str, dict[str, Any]]:
    """Figures by modality, on at most 2,000 items, of unit vectors; `generic` beside `made`.

    - `neighbours_kept`: share of an item's 10 nearest by generic features, among these items, that
      are among its 10 nearest by those that were made;
    - `effective_rank`: exp of the entropy of the singular values' shares (Roy and Vetterli, 2007);
    - `uniformity`: log mean exp(-2 |z_i - z_j|^2) over pairs of items, lower is more spread out;
    - `alignment`: mean |z_i - z_j|^2 over pairs of items that a user had both of in training,
      where the method saw interactions (both: Wang and Isola, ICML 2020).

    A modality that is not made of generic features (the one-hot label) has none, and nor has one
    that fewer than 3 items have.
    """
    return {
        name: figures
        for name, modality in made.modalities.items()
        if all(source.name in task.catalog.features for source in modality.sources)
        and (figures := _figures(modality, task))
    }


@torch.inference_mode()
def _figures(modality: MadeModality, task: Task) -> dict[str, Any]:
    items = at_most(np.flatnonzero(modality.present), MOST_ITEMS)
    if len(items) < 3:
        return {}
    kinds: dict[str, Embed] = {"generic": generic_rows(modality, task), "made": modality.embed}
    rows = {kind: _unit_rows(modality, embed, items) for kind, embed in kinds.items()}
    cosines = {kind: z @ z.T for kind, z in rows.items()}
    figures: dict[str, Any] = {
        "neighbours_kept": neighbours_kept(cosines["generic"], cosines["made"]),
        "effective_rank": {kind: effective_rank(z) for kind, z in rows.items()},
        "uniformity": {kind: uniformity(of) for kind, of in cosines.items()},
    }
    if task.pairs is not None:
        together = _had_together(task.pairs, items)
        figures["alignment"] = {
            kind: mean_or_none(2 - 2 * of[together]) for kind, of in cosines.items()
        }
    return figures


def neighbours_kept(generic: Tensor, made: Tensor) -> float:
    """Share of the 10 nearest by the cosines (n, n) `generic` that are so by `made`, too."""
    count = min(NEIGHBOURS, len(generic) - 1)
    near = []
    for cosines in (generic, made):
        others = cosines.clone().fill_diagonal_(-torch.inf)
        near.append(torch.zeros_like(others).scatter_(1, others.topk(count, dim=1).indices, 1))
    return float((near[0] * near[1]).sum() / near[0].sum())


def effective_rank(rows: Tensor) -> float:
    """exp(-sum_k p_k log p_k) with p_k = s_k / sum s of the singular values of rows (n, d)."""
    wide = rows.double()
    gram = wide.T @ wide if wide.shape[1] < len(wide) else wide @ wide.T
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    share = values / values.sum().clamp(min=1e-300)
    return float(torch.exp(-torch.special.xlogy(share, share).sum()))


def uniformity(cosines: Tensor) -> float:
    """log mean over i != j of exp(-2 |z_i - z_j|^2), of the cosines (n, n) of unit rows."""
    n = len(cosines)
    potential = torch.exp(4 * cosines.double() - 4)
    return float(torch.log((potential.sum() - potential.diagonal().sum()) / (n * (n - 1))))


def _had_together(pairs: TrainingPairs, items: Indices) -> Tensor:
    """Which of these items a user had together, bool (k, k), False on the diagonal."""
    of_items = pairs.matrix[:, items]
    together = torch.from_numpy((of_items.T @ of_items).toarray() > 0)
    return together.fill_diagonal_(False)


def _unit_rows(modality: MadeModality, embed: Embed, items: Indices) -> Tensor:
    rows = embed(*(source.rows(items) for source in modality.sources))
    return functional.normalize(torch.from_numpy(np.nan_to_num(rows)), dim=1)
