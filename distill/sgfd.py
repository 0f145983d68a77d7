"""SGFD: the model put together, and the loop that trains it."""

import logging
import time
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sgfd.dataset import Feature, ItemCatalog
from sgfd.distill.errors import DistillError
from sgfd.distill.losses import feature_loss, response_loss, semantic_loss
from sgfd.distill.networks import Fusion, ModalityNetworks
from sgfd.distill.settings import SGFDSettings
from sgfd.distill.streaming import Standardisation
from sgfd.jobs import WorkFolder, deferred_interrupt, pack, progress, subset, unpack

logger = logging.getLogger("sgfd")


@dataclass(frozen=True)
class ItemBatch:
    """b items: standardised rows (b, D) by modality, which of them are there, labels (b,)."""

    rows: dict[str, Tensor]
    present: dict[str, Tensor]
    labels: Tensor


class SGFD(nn.Module):
    """Teacher, student and classifier of every modality, and the fusion of the teachers."""

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

    def student_errors(self, batch: ItemBatch) -> Tensor:
        """The students' cross-entropies: by modality, their sum and the items in it, (M, 2).

        No part of the training: on held-out items it tells how good the networks are that will
        be exported.
        """
        errors = []
        for name, networks in self.modalities().items():
            here = batch.present[name] & (batch.labels >= 0)
            logits = networks.classifier(networks.student(batch.rows[name][here]))
            error = functional.cross_entropy(logits, batch.labels[here], reduction="sum")
            errors.append(torch.stack([error, here.sum()]))
        return torch.stack(errors).double()


PARTS = ("semantic", "fusion", "response", "feature")


class ItemReader:
    """Batches of items, read from the memory maps as they are needed."""

    def __init__(
        self,
        catalog: ItemCatalog,
        standardisation: dict[str, Standardisation],
        device: torch.device,
    ) -> None:
        assert catalog.labels is not None
        self.features: dict[str, Feature] = catalog.features
        self._labels = torch.from_numpy(catalog.labels)
        self._device = device
        self._standardisation = {
            name: (torch.from_numpy(s.mean).to(device), torch.from_numpy(s.scale).to(device))
            for name, s in standardisation.items()
        }

    def read(self, index: NDArray[np.int64]) -> ItemBatch:
        """The items of `index` (b,); rows of a lacking modality are 0 and not `present`."""
        rows, present = {}, {}
        for name, feature in self.features.items():
            mean, scale = self._standardisation[name]
            generic = torch.from_numpy(feature.rows(index)).to(self._device)
            present[name] = ~generic[:, 0].isnan()
            rows[name] = torch.nan_to_num((generic - mean) / scale)
        return ItemBatch(rows, present, self._labels[index].to(self._device))


@dataclass
class TrainingState:
    """Where training stands; with the tensors of a checkpoint, all that a resumed run needs.

    Attributes:
        epoch: epochs done. step: batches done of the epoch at hand.
        total: the loss, summed over the epoch's batches so far.
        best, best_epoch: lowest held-out loss, and after how many epochs.
    """

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    best: float = float("inf")
    best_epoch: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON has no infinity."""
        return asdict(self) | {"best": self.best if np.isfinite(self.best) else None}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "TrainingState":
        best = float("inf") if record["best"] is None else record["best"]
        return cls(**(record | {"best": best}))


def fit(
    model: SGFD,
    reader: ItemReader,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    seed: int,
    work: WorkFolder,
) -> TrainingState:
    """Train on the items `train` until the held-out items get no better; keep the best weights.

    Resumes from the checkpoint in `work` where there is one, to the same result. Where nothing
    labelled is held out (tiny catalogues), the training loss decides.

    Raises:
        DistillError: the loss is not finite.
        KeyboardInterrupt: the user stopped it; the checkpoint is written.
    """
    settings = model.settings
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)
    state, best = TrainingState(), _copy(model)
    if saved := work.restore():
        tensors, record = saved
        unpack(tensors, model, optimizer)
        state, best = TrainingState.from_json(record), subset(tensors, "best.")
        logger.info("distillation goes on from epoch %d, batch %d", state.epoch + 1, state.step)

    def checkpoint() -> None:
        best_weights = {f"best.{name}": tensor for name, tensor in best.items()}
        work.save(pack(model, optimizer) | best_weights, state.to_json())

    last = time.monotonic()
    with deferred_interrupt() as interrupt, progress(settings.epochs, "distilling") as advance:
        advance(state.epoch)
        while state.epoch < settings.epochs and state.epoch - state.best_epoch < settings.patience:
            model.train()
            order = np.random.default_rng([seed, state.epoch]).permutation(train)
            batches = np.split(
                order, np.arange(settings.batch_size, len(order), settings.batch_size)
            )
            for batch in batches[state.step :]:
                loss = torch.stack(list(model.loss(reader.read(batch)).values())).sum()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                state.step, state.total = state.step + 1, state.total + loss.item()
                if not np.isfinite(state.total):
                    raise DistillError(
                        f"epoch {state.epoch + 1}, step {state.step}",
                        "the loss is no longer finite",
                        f"lower learning_rate (it is {settings.learning_rate:g})",
                    )
                if interrupt.requested or time.monotonic() - last > settings.checkpoint_seconds:
                    checkpoint()
                    last = time.monotonic()
                if interrupt.requested:
                    raise KeyboardInterrupt
            trained = state.total / len(batches)
            state.epoch, state.step, state.total = state.epoch + 1, 0, 0.0
            reached = _held_out_loss(model, reader, held_out) if len(held_out) else trained
            if reached < state.best:
                state.best, state.best_epoch, best = reached, state.epoch, _copy(model)
            advance(1, loss=f"{trained:.4f}", held_out=f"{reached:.4f}", best=state.best_epoch)
        if interrupt.requested:  # while the held-out items were looked at for the last time
            checkpoint()
            raise KeyboardInterrupt
    model.load_state_dict(best)
    return state


def _held_out_loss(model: SGFD, reader: ItemReader, held_out: NDArray[np.int64]) -> float:
    """Cross-entropy of the students: over labelled items first, then over modalities."""
    model.eval()
    size = model.settings.batch_size
    with torch.inference_mode():
        blocks = [held_out[start : start + size] for start in range(0, len(held_out), size)]
        sums = torch.stack([model.student_errors(reader.read(block)) for block in blocks]).sum(0)
    known = sums[sums[:, 1] > 0]
    return (known[:, 0] / known[:, 1]).mean().item()


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
