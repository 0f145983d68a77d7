"""SGFD: the model put together, what it makes, and how good that is."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sgfd.dataset import distinct
from sgfd.distill.batches import ItemBatch, ItemReader
from sgfd.distill.losses import feature_loss, response_loss, semantic_loss
from sgfd.distill.maker import Made, Task, made_by_students
from sgfd.distill.networks import Fusion, ModalityNetworks
from sgfd.distill.quality import (
    Indices,
    LabelledRows,
    labelled_queries,
    majority_accuracy,
    mean_or_none,
    neighbour_agreement,
)
from sgfd.distill.settings import SGFDSettings
from sgfd.distill.training import ItemNetworks, fit_items

PARTS = ("semantic", "fusion", "response", "feature")


def sgfd(task: Task, settings: SGFDSettings) -> Made:
    """Train teacher and student on the items and their labels; make the student's features."""
    catalog = task.catalog
    reader = ItemReader(catalog, task.standardisation, task.device)
    widths = {name: feature.dimension for name, feature in catalog.features.items()}
    model = SGFD(widths, len(catalog.label_names), settings).to(task.device)
    train, held_out = _hold_out(task, settings.held_out_share)
    fit_items(model, reader, train, held_out, task.seed, task.work)
    students = {name: networks.student for name, networks in model.modalities().items()}
    made = made_by_students(catalog.features, students, task.standardisation, task.device)
    if not task.measured:
        return made
    return replace(made, quality=_measure(model, reader, task, held_out))


class SGFD(ItemNetworks):
    """Teacher, student and classifier of every modality, and the fusion of the teachers."""

    settings: SGFDSettings

    def __init__(self, widths: dict[str, int], n_labels: int, settings: SGFDSettings) -> None:
        super().__init__()
        self.settings = settings
        self.names = tuple(widths)
        self.networks = nn.ModuleList(
            ModalityNetworks(width, n_labels, settings) for width in widths.values()
        )
        self.fusion = Fusion(len(widths), settings.dimension, n_labels, settings.logit_scale)

    def modalities(self) -> dict[str, ModalityNetworks]:
        """The networks by modality (any name will do, which an nn.ModuleDict does not allow)."""
        return dict(zip(self.names, cast(list[ModalityNetworks], self.networks), strict=True))

    def loss(self, batch: ItemBatch) -> dict[str, Tensor]:
        """The weighted parts of the total loss; modalities are averaged.

        total = ce_weight (semantic + fusion) + kd_weight (response + feature). An item without a
        modality takes no part in that modality's losses.
        """
        settings, share = self.settings, 1 / len(self.names)
        parts = {name: batch.labels.new_zeros((), dtype=torch.float32) for name in PARTS}
        taught = []
        for name, networks in self.modalities().items():
            here = batch.present[name]
            rows, labels = batch.rows[name][here], batch.labels[here]
            t, s = networks.teacher(rows), networks.student(rows)
            t_logits, s_logits = networks.classifier(t), networks.classifier(s)
            parts["semantic"] += share * semantic_loss(t_logits, labels)
            if len(rows):
                parts["response"] += share * response_loss(
                    t_logits, s_logits, settings.temperature, settings.response_loss
                )
                parts["feature"] += share * feature_loss(t, s)
            taught.append(t.new_zeros(len(here), settings.dimension).index_put((here,), t))
        any_present = torch.stack(list(batch.present.values())).any(dim=0)
        labels = torch.where(any_present, batch.labels, -1)
        parts["fusion"] += semantic_loss(self.fusion(torch.cat(taught, dim=1)), labels)
        weights = {
            "semantic": settings.ce_weight,
            "fusion": settings.ce_weight,
            "response": settings.kd_weight,
            "feature": settings.kd_weight,
        }
        return {name: weights[name] * part for name, part in parts.items()}

    def held_out_errors(self, batch: ItemBatch) -> Tensor:
        """The students' cross-entropies: by modality, their sum and the items in it, (M, 2)."""
        errors = []
        for name, networks in self.modalities().items():
            here = batch.present[name] & (batch.labels >= 0)
            logits = networks.classifier(networks.student(batch.rows[name][here]))
            error = functional.cross_entropy(logits, batch.labels[here], reduction="sum")
            errors.append(torch.stack([error, here.sum()]))
        return torch.stack(errors).double()


def _hold_out(task: Task, share: float) -> tuple[Indices, Indices]:
    """The task's split; all items train where one side of it would have no labelled item."""
    labels = task.catalog.labels
    assert labels is not None
    train, held_out = task.hold_out(share)
    if not (labels[train] >= 0).any() or not (labels[held_out] >= 0).any():
        return distinct(np.concatenate([train, held_out])), np.empty(0, dtype=np.int64)
    return train, held_out


def _measure(model: SGFD, reader: ItemReader, task: Task, held_out: Indices) -> dict[str, Any]:
    """Figures for the manifest; a figure is None where no item can tell it.

    - `majority_accuracy`: of the most frequent label, the floor;
    - by modality, on at most 2,000 held-out labelled items: `teacher_accuracy`, `student_accuracy`;
      `fidelity`, the mean cosine of student and teacher; `neighbour_agreement`, how often the
      nearest other labelled item has the same label, by the cosine of generic (standardised),
      teacher and student features.
    """
    labels = task.catalog.labels
    assert labels is not None
    model.eval()
    queries, others = labelled_queries(labels, held_out)
    figures: dict[str, Any] = {
        "held_out_items": len(held_out),
        "majority_accuracy": majority_accuracy(labels, queries, others),
    }
    with torch.inference_mode():
        for name in task.catalog.features:
            figures[name] = _measure_modality(model, reader, name, queries, others)
    return figures


def _measure_modality(
    model: SGFD, reader: ItemReader, name: str, queries: Indices, others: Indices
) -> dict[str, Any]:
    networks = model.modalities()[name]

    def rows_with(network: Callable[[Tensor], Tensor]) -> LabelledRows:
        def rows_of(index: Indices) -> tuple[Tensor, Tensor]:
            batch = reader.read(index)
            here = batch.present[name]
            return functional.normalize(network(batch.rows[name][here]), dim=1), batch.labels[here]

        return rows_of

    t, labels = rows_with(networks.teacher)(queries)
    s, _ = rows_with(networks.student)(queries)
    kinds: dict[str, Callable[[Tensor], Tensor]] = {
        "generic": lambda x: x,
        "teacher": networks.teacher,
        "student": networks.student,
    }
    return {
        "teacher_accuracy": mean_or_none(networks.classifier(t).argmax(dim=1) == labels),
        "student_accuracy": mean_or_none(networks.classifier(s).argmax(dim=1) == labels),
        "fidelity": mean_or_none((t * s).sum(dim=1)),
        "neighbour_agreement": {
            kind: neighbour_agreement(rows_with(network), queries, others)
            for kind, network in kinds.items()
        },
    }
