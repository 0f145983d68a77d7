"""How good a distillation is, on the items that it was not trained on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sgfd.dataset import ItemCatalog
from sgfd.distill.sgfd import SGFD, ItemReader

MOST_QUERIES = 2000
BLOCK = 4096

Embed = Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]


def measure(
    model: SGFD, reader: ItemReader, catalog: ItemCatalog, held_out: NDArray[np.int64]
) -> dict[str, Any]:
    """Figures for the manifest; a figure is None where no item can tell it.

    - `majority_accuracy`: of the most frequent label, the floor;
    - by modality, on at most 2,000 held-out labelled items: `teacher_accuracy`, `student_accuracy`;
      `fidelity`, the mean cosine of student and teacher; `neighbour_agreement`, how often the
      nearest other labelled item has the same label, by the cosine of generic (standardised),
      teacher and student features.
    """
    assert catalog.labels is not None
    model.eval()
    labelled = held_out[catalog.labels[held_out] >= 0]
    if len(labelled) > MOST_QUERIES:  # at random: a catalogue may be sorted by label
        labelled = np.random.default_rng(0).choice(labelled, MOST_QUERIES, replace=False)
    others = np.setdiff1d(np.flatnonzero(catalog.labels >= 0), labelled)
    figures: dict[str, Any] = {
        "held_out_items": len(held_out),
        "majority_accuracy": _majority(catalog.labels, labelled, others),
    }
    with torch.inference_mode():
        for name in catalog.features:
            figures[name] = _measure_modality(model, reader, name, labelled, others)
    return figures


def _measure_modality(
    model: SGFD,
    reader: ItemReader,
    name: str,
    queries: NDArray[np.int64],
    others: NDArray[np.int64],
) -> dict[str, Any]:
    networks = model.modalities()[name]

    def embed_with(network: Callable[[Tensor], Tensor]) -> Embed:
        def embed(index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
            batch = reader.read(index)
            here = batch.present[name]
            return functional.normalize(network(batch.rows[name][here]), dim=1), batch.labels[here]

        return embed

    t, labels = embed_with(networks.teacher)(queries)
    s, _ = embed_with(networks.student)(queries)
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "generic": lambda x: x,
        "teacher": networks.teacher,
        "student": networks.student,
    }
    return {
        "teacher_accuracy": _mean(networks.classifier(t).argmax(dim=1) == labels),
        "student_accuracy": _mean(networks.classifier(s).argmax(dim=1) == labels),
        "fidelity": _mean((t * s).sum(dim=1)),
        "neighbour_agreement": {
            kind: _neighbour_agreement(embed_with(network), queries, others)
            for kind, network in kinds.items()
        },
    }


def _neighbour_agreement(
    embed: Embed, queries: NDArray[np.int64], others: NDArray[np.int64]
) -> float | None:
    """Share of the queries whose nearest other item (cosine) has their label, in blocks."""
    wanted, labels = embed(queries)
    best = wanted.new_full((len(wanted),), -torch.inf)
    found = torch.full_like(labels, -1)
    for start in range(0, len(others), BLOCK):
        rows, row_labels = embed(others[start : start + BLOCK])
        if len(rows) and len(wanted):
            score, nearest = (wanted @ rows.T).max(dim=1)
            closer = score > best
            best = torch.where(closer, score, best)
            found = torch.where(closer, row_labels[nearest], found)
    return _mean(found == labels) if len(others) else None


def _majority(
    labels: NDArray[np.int64], queries: NDArray[np.int64], others: NDArray[np.int64]
) -> float | None:
    """Accuracy on the queries of the label that is most frequent among the others."""
    if not len(queries) or not len(others):
        return None
    return float((labels[queries] == np.bincount(labels[others]).argmax()).mean())


def _mean(values: Tensor) -> float | None:
    return float(values.float().mean()) if len(values) else None
