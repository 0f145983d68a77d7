"""A student over all modalities that starts at the closed form and is guided by interactions.

The start is `interaction_metric.py`'s linear map. From there the same map is trained so that the
mean of some of a user's training items is near his others (`objective.py`), at every nested
width, for a fixed number of epochs. A first training leaves a share of the items out, with their
interactions, to measure what new items get; where that is clearly less than by generic features, a
second one leaves popularity to the loss. The map that is kept is trained on all.
"""

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sgfd.dataset import distinct
from sgfd.distill.fused import FusedRows, made_by_fused_student, nested_widths
from sgfd.distill.geometry import MOST_ITEMS
from sgfd.distill.held_out import HeldOutTrial, at_most, guides
from sgfd.distill.interaction_metric import content_weight, say_if_clipped, unit_scale_weight
from sgfd.distill.maker import Made, Task
from sgfd.distill.objective import Interaction, Semantic, Structure
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.quality import measure
from sgfd.distill.settings import SGFDPlusSettings
from sgfd.distill.training import Trainable, fit, shuffled
from sgfd.jobs import Checkpoint, WorkFolder

logger = logging.getLogger("sgfd")

STRUCTURE_ITEMS = 256  # of a step, among which cosines are compared
HELD_BYTES = 2**28  # of rows read once, not at every step; twice that while they are read
ONE_BY_ONE = 4_000_000  # entries that torch's dropout may draw, one after the other on a CPU

Indices = NDArray[np.int64]


def sgfd_plus(task: Task, settings: SGFDPlusSettings) -> Made:
    """Train the student on all items."""
    columns = task.standardisation
    rows = FusedRows(task.catalog.features, columns, task.device, settings.input_normalised)
    pairs = task.pairs
    start: Tensor | None = None
    figures: dict[str, Any] = {}
    guided = pairs is not None and guides(rows, pairs)
    if task.measured:  # a search has many trials
        _say_what_has_no_effect(task, settings, guided)
    if pairs is None or not guided:
        logger.warning(
            "no user with 2 training items that have features guides the student: "
            "it keeps the generic features' inner products, as principal components do"
        )
        weight = content_weight(rows, np.flatnonzero(rows.present), settings.dimension)
    else:
        start, weight, figures = _guided(rows, pairs, task, settings)
    nested = nested_widths(len(weight)) if settings.nested else ()
    made = made_by_fused_student(rows, columns, weight, nested)
    by_modality = {}
    if task.measured:
        say_if_clipped(rows, settings.dimension)
        if start is not None:
            by_modality = _fidelity(made, made_by_fused_student(rows, columns, start, nested))
    taught = guided and settings.semantic_weight > 0
    quality = measure(task, made, figures=by_modality, labels_taught=taught)
    return replace(made, quality=quality | figures)


def _say_what_has_no_effect(task: Task, settings: SGFDPlusSettings, guided: bool) -> None:
    """Name the weights of losses that teach nothing here, which the manifest has all the same."""
    labels = task.catalog.labels
    labelled = labels is not None and bool((labels >= 0).any())
    idle = {
        "structure_weight": settings.structure_weight and not guided,
        "debias": settings.debias == "on" and not guided,
        "semantic_weight": settings.semantic_weight and not (guided and labelled),
    }
    if names := [name for name, has_none in idle.items() if has_none]:
        why = "no item has a label" if guided else "nothing is trained without such users"
        logger.warning("%s: without effect, as %s", " and ".join(names), why)


class SGFDPlus(Trainable):
    """The map W (d, D) from fused rows, and the objective that trains it."""

    settings: SGFDPlusSettings

    def __init__(
        self, start: Tensor, widths: list[int], n_labels: int, settings: SGFDPlusSettings
    ) -> None:
        super().__init__()
        self.settings, self.widths = settings, widths
        self.weight = nn.Parameter(start.clone())
        self.columns = nested_widths(len(start)) if settings.nested else (len(start),)
        self.interaction = Interaction(settings.temperature)
        self.structure = Structure()
        self.semantic = None
        if settings.semantic_weight and n_labels:
            self.semantic = Semantic(len(start), n_labels, settings.logit_scale)

    @property
    def has_loss(self) -> bool:
        """Whether any part of the objective has a weight; else the closed form is what is kept."""
        weights = (self.settings.interaction_weight, self.settings.structure_weight)
        return any(weights) or self.semantic is not None

    def forward(self, rows: Tensor) -> Tensor:
        """u (b, D) to y (b, d), of no norm yet."""
        return rows @ self.weight.T

    def loss(self, batch: "ProfileBatch") -> dict[str, Tensor]:
        """The weighted parts; the interaction loss is averaged over the nested widths."""
        settings = self.settings
        rows = self._with_one_modality(batch.rows)
        y = self(with_entries_left_out(rows, settings.dropout) if self.training else rows)
        parts = {}
        if settings.interaction_weight:
            nested = [functional.normalize(y[:, :k], dim=1) for k in self.columns]
            parts["interaction"] = settings.interaction_weight * self.interaction(
                nested, batch.history, batch.targets, batch.n_targets, batch.degrees
            )
        z = functional.normalize(y, dim=1)
        if settings.structure_weight:
            some = torch.randperm(len(z))[:STRUCTURE_ITEMS].to(z.device)
            parts["structure"] = settings.structure_weight * self.structure(
                z[some], functional.normalize(batch.rows[some], dim=1)
            )
        if self.semantic is not None:
            parts["semantic"] = settings.semantic_weight * self.semantic(z, batch.labels)
        return parts

    def _with_one_modality(self, rows: Tensor) -> Tensor:
        """Leave one modality, drawn at random from those that are there, to some items."""
        share = self.settings.modality_dropout
        if not self.training or not share or len(self.widths) < 2:
            return rows
        parts = torch.split(rows, self.widths, dim=1)
        there = torch.stack([torch.linalg.vector_norm(part, dim=1) > 0 for part in parts], dim=1)
        drawn = torch.rand(there.shape).to(rows.device).masked_fill(~there, -1)
        kept = functional.one_hot(drawn.argmax(dim=1), len(parts)).bool()
        kept |= (torch.rand(len(rows), 1) >= share).to(rows.device)
        left = [part * keep for part, keep in zip(parts, kept.T[:, :, None], strict=True)]
        joined = torch.cat(left, dim=1)
        return functional.normalize(joined, dim=1) if self.settings.input_normalised else joined


def with_entries_left_out(rows: Tensor, share: float) -> Tensor:
    """Dropout, up to a factor, which the norm of what the map makes takes out again.

    On a CPU torch takes 9 ns an entry for it, by one thread: with wide features most of a step.
    """
    if rows.device.type != "cpu" or rows.numel() <= ONE_BY_ONE or not share:
        return functional.dropout(rows, share)
    random = np.random.Generator(np.random.SFC64(int(torch.randint(2**62, ()))))
    drawn = random.integers(2**16, size=rows.shape, dtype=np.uint16)
    return rows * torch.from_numpy(drawn >= round(share * 2**16))


@dataclass(frozen=True)
class ProfileBatch:
    """b users and the c items that their histories are held against.

    Attributes:
        rows: u (c, D). labels: (c,), -1 where there is none.
        history, targets: int64 (2, n), a user's place above an item's; each user has one of both.
        n_targets: (b,), how many a user has.
        degrees: (c,), users of each item, where popularity is left to the loss.
    """

    rows: Tensor
    labels: Tensor
    history: Tensor
    targets: Tensor
    n_targets: Tensor
    degrees: Tensor | None = None


@dataclass(frozen=True)
class Profiles:
    """The users of a training, b at a time; each one's items are halved at random.

    Everything random follows torch's generator, which the checkpoints keep.
    """

    rows: FusedRows
    pairs: TrainingPairs
    labels: Tensor
    settings: SGFDPlusSettings
    seed: int
    device: torch.device

    def batches(self, epoch: int) -> list[Indices]:
        return shuffled(self.pairs.users_with(2), self.settings.batch_size, self.seed, epoch)

    def read(self, batch: Indices) -> ProfileBatch:
        random = np.random.default_rng(int(torch.randint(2**62, ())))
        user, item, place, count = self._drawn(batch, random)
        items = self._candidates(item, random)
        column = np.searchsorted(items, item)
        in_history = place < count[user] // 2

        there = np.stack([user, column])
        history, targets = there[:, in_history], there[:, ~in_history]
        n_targets = np.bincount(targets[0], minlength=len(batch)).astype(np.float32)
        labels = self.labels[torch.from_numpy(items)]
        parts = (labels, *map(torch.from_numpy, (history, targets, n_targets)))
        made = ProfileBatch(self._rows_of(items), *(part.to(self.device) for part in parts))
        if self.settings.debias != "on":
            return made
        degrees = torch.from_numpy(self.pairs.item_degrees[items]).float()
        return replace(made, degrees=degrees.to(self.device))

    def _rows_of(self, items: Indices) -> Tensor:
        if 4 * len(self.pairs.items) * self.rows.width > HELD_BYTES:
            return self.rows.read(items)
        place = np.searchsorted(self.pairs.items, items)
        return self._all_rows[torch.from_numpy(place).to(self.device)]

    @cached_property
    def _all_rows(self) -> Tensor:
        """The rows of all items with interactions, where they are few enough to be held."""
        return self.rows.read_all(self.pairs.items)

    def _drawn(
        self, batch: Indices, random: np.random.Generator
    ) -> tuple[Indices, Indices, Indices, Indices]:
        """The users' items in random order, at most `history` each: place of the user in the
        batch, item, place among the user's, and by user the number of items.

        A user's further items may stand among the others that his are told from; leaving them
        out moved what is found of held-out items by less than 1 % (MovieLens, three seeds).
        """
        chosen = self.pairs.matrix[batch]
        sizes = np.diff(chosen.indptr)
        user = np.repeat(np.arange(len(batch)), sizes)
        order = np.lexsort((random.random(len(user)), user))
        place = np.arange(len(user)) - chosen.indptr[user]
        keep = place < self.settings.history
        item = chosen.indices[order].astype(np.int64)
        return user[keep], item[keep], place[keep], np.minimum(sizes, self.settings.history)

    def _candidates(self, item: Indices, random: np.random.Generator) -> Indices:
        """The batch's items and others at random, ascending."""
        everything, most = self.pairs.items, self.settings.candidates
        if len(everything) <= most:
            return everything
        others = random.choice(everything, most, replace=False)
        return distinct(np.concatenate([item, others]))


def _guided(
    rows: FusedRows, pairs: TrainingPairs, task: Task, settings: SGFDPlusSettings
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The closed form and what training makes of it, (d, D), both of all items; and the figures
    of the same without some."""

    def closed_form_and_student(
        left: TrainingPairs, work: WorkFolder | Checkpoint, settings: SGFDPlusSettings
    ) -> tuple[Tensor, Tensor]:
        start = unit_scale_weight(rows, left, settings).to(task.device)
        return start, trained(start, rows, left, task, settings, work).weight.detach()

    figures: dict[str, Any] = {}
    trial = None
    if task.measured:
        trial = HeldOutTrial.of(rows, pairs, settings.held_out_share, task.seed)
    if trial is not None:
        start, weight = closed_form_and_student(trial.left, task.work, settings)
        trial.judge("closed_form", start)
        found = trial.judge("student", weight)
        learns = settings.interaction_weight > 0
        if settings.debias == "auto" and learns and trial.loses("student"):
            debiased = replace(settings, debias="on")
            _, other = closed_form_and_student(trial.left, task.work.stage("debiased"), debiased)
            if trial.judge("student", other) > found:
                logger.info(
                    "popularity is left to the loss (debias=on): without that, held-out items "
                    "are found less than by generic features"
                )
                settings, figures["debiased"] = debiased, True
            else:
                trial.judge("student", weight)
        figures |= trial.figures("student")
    return *closed_form_and_student(pairs, task.work.stage("all-items"), settings), figures


def _fidelity(made: Made, start: Made) -> dict[str, dict[str, Any]]:
    """By modality, the mean cosine of the student and the closed form, its teacher, on at most
    2,000 items: how far training went from there."""
    figures = {}
    for name, modality in made.modalities.items():
        items = at_most(np.flatnonzero(modality.present), MOST_ITEMS)
        cosines = np.sum(modality.rows(items) * start.modalities[name].rows(items), axis=1)
        figures[name] = {"fidelity": float(cosines.mean())}
    return figures


def trained(
    start: Tensor,
    rows: FusedRows,
    pairs: TrainingPairs,
    task: Task,
    settings: SGFDPlusSettings,
    work: WorkFolder | Checkpoint,
    kind: type[SGFDPlus] = SGFDPlus,
) -> SGFDPlus:
    """What training makes of the start (d, D)."""
    catalog = task.catalog
    torch.manual_seed(task.seed)
    model = kind(start, rows.widths, len(catalog.label_names), settings).to(task.device)
    if model.has_loss:
        labels = np.full(catalog.n_items, -1) if catalog.labels is None else catalog.labels
        profiles = Profiles(rows, pairs, torch.from_numpy(labels), settings, task.seed, task.device)
        fit(model, profiles, None, work, patience=None)
    return model
