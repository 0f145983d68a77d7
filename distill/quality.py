"""How well features tell items of one label from the others."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sgfd.dataset import Feature
from sgfd.distill.fused import FusedRows
from sgfd.distill.maker import Embed, Made, MadeModality, Task
from sgfd.distill.streaming import Standardiser

MOST_QUERIES = 2000
BLOCK = 4096
# SGFD's default share: with the same seed, both are measured on the same items.
UNTAUGHT_SHARE = 0.1

Indices = NDArray[np.int64]
LabelledRows = Callable[[Indices], tuple[Tensor, Tensor]]


def measure(
    task: Task,
    made: Made,
    held_out: Indices | None = None,
    figures: dict[str, dict[str, Any]] | None = None,
    labels_taught: bool = False,
) -> dict[str, Any]:
    """Figures for the manifest; None where no item can tell one. None at all where none are wanted.

    - `majority_accuracy`: of the most frequent label, the floor;
    - by modality, on at most 2,000 held-out labelled items: `neighbour_agreement`, how often the
      nearest other labelled item has the same label, by the cosine of generic (standardised)
      features and of those that were made.

    A catalogue without labels has none of these, and neither has a method that the labels of all
    items taught: it would be asked what it was told.

    Args:
        held_out: the items to measure on; those that SGFD would hold out where None.
        figures: the method's own, by modality.
        labels_taught: whether the labels of all items guided the method.
    """
    if not task.measured:
        return {}
    by_modality = {name: dict(own) for name, own in (figures or {}).items()}
    labels = task.catalog.labels
    if labels_taught or labels is None or not (labels >= 0).any():
        return by_modality
    if held_out is None:
        _, held_out = task.hold_out(UNTAUGHT_SHARE)
    queries, others = labelled_queries(labels, held_out)
    for name, modality in made.modalities.items():
        kinds: dict[str, Embed] = {
            "generic": generic_rows(modality, task),
            "made": modality.embed,
        }
        by_modality.setdefault(name, {})["neighbour_agreement"] = {
            kind: neighbour_agreement(
                _labelled_rows(modality.sources, embed, labels, task.device), queries, others
            )
            for kind, embed in kinds.items()
        }
    return {
        "held_out_items": len(held_out),
        "majority_accuracy": majority_accuracy(labels, queries, others),
        **by_modality,
    }


def labelled_queries(labels: Indices, held_out: Indices) -> tuple[Indices, Indices]:
    """At most 2,000 labelled items of `held_out`, and all labelled items but these."""
    queries = held_out[labels[held_out] >= 0]
    if len(queries) > MOST_QUERIES:  # at random: a catalogue may be sorted by label
        queries = np.random.default_rng(0).choice(queries, MOST_QUERIES, replace=False)
    other = labels >= 0
    other[queries] = False
    return queries, np.flatnonzero(other)


@torch.inference_mode()
def neighbour_agreement(rows_of: LabelledRows, queries: Indices, others: Indices) -> float | None:
    """Share of the queries whose nearest other item (cosine) has their label, in blocks.

    `rows_of` gives the unit rows (k, d) and labels (k,) of those items that have the modality.
    """
    wanted, labels = rows_of(queries)
    best = wanted.new_full((len(wanted),), -torch.inf)
    found = torch.full_like(labels, -1)
    for start in range(0, len(others), BLOCK):
        rows, row_labels = rows_of(others[start : start + BLOCK])
        if len(rows) and len(wanted):
            score, nearest = (wanted @ rows.T).max(dim=1)
            closer = score > best
            best = torch.where(closer, score, best)
            found = torch.where(closer, row_labels[nearest], found)
    return mean_or_none(found == labels) if len(others) else None


def majority_accuracy(labels: Indices, queries: Indices, others: Indices) -> float | None:
    """Accuracy, on both, of the label that is most frequent among the others: among few queries
    there may be none of it."""
    if not len(queries) or not len(others):
        return None
    both = labels[np.concatenate([queries, others])]
    return float((both == np.bincount(labels[others]).argmax()).mean())


def mean_or_none(values: Tensor) -> float | None:
    return float(values.float().mean()) if len(values) else None


def generic_rows(modality: MadeModality, task: Task) -> Embed:
    """What the features are held against: the standardised rows that they were made of; those of
    several modalities side by side, each at unit norm."""
    columns = {source.name: task.standardisation[source.name] for source in modality.sources}
    if len(modality.sources) == 1:
        return Standardiser(columns[modality.sources[0].name])
    rows = FusedRows({source.name: source for source in modality.sources}, columns, task.device)

    def side_by_side(*blocks: NDArray[np.float32]) -> NDArray[np.float32]:
        joined: NDArray[np.float32] = rows.join(list(blocks)).cpu().numpy()
        joined[~joined.any(axis=1)] = np.nan
        return joined

    return side_by_side


def _labelled_rows(
    sources: tuple[Feature, ...], embed: Embed, labels: Indices, device: torch.device
) -> LabelledRows:
    def rows_of(index: Indices) -> tuple[Tensor, Tensor]:
        rows = torch.from_numpy(embed(*(source.rows(index) for source in sources))).to(device)
        here = ~rows[:, 0].isnan()
        label_of = torch.from_numpy(labels[index]).to(device)
        return functional.normalize(rows[here], dim=1), label_of[here]

    return rows_of
