"""The training loop of stage one: epochs over the items, early stopping, checkpoints."""

import logging
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgfd.distill.batches import ItemBatch, ItemReader
from sgfd.distill.errors import DistillError
from sgfd.distill.settings import AutoencoderSettings, SGFDSettings
from sgfd.jobs import WorkFolder, deferred_interrupt, pack, progress, subset, unpack

logger = logging.getLogger("sgfd")


class Trainable(nn.Module, ABC):
    """What the loop can train: networks for M modalities, with a loss and a held-out error."""

    settings: SGFDSettings | AutoencoderSettings

    @abstractmethod
    def loss(self, batch: ItemBatch) -> dict[str, Tensor]:
        """The weighted parts of the loss, scalars; the loop lowers their sum."""

    @abstractmethod
    def held_out_errors(self, batch: ItemBatch) -> Tensor:
        """By modality, the sum of the items' errors and how many items are in it, (M, 2) double.

        No part of the training: on held-out items it tells how good the networks are that will
        be exported.
        """


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
    model: Trainable,
    reader: ItemReader,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    seed: int,
    work: WorkFolder,
) -> TrainingState:
    """Train on the items `train` until the held-out items get no better; keep the best weights.

    Resumes from the checkpoint in `work` where there is one, to the same result. Where nothing
    is held out (tiny catalogues), the training loss decides.

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


def held_out_errors(model: Trainable, reader: ItemReader, held_out: NDArray[np.int64]) -> Tensor:
    """The model's errors, summed over one or more held-out items: (M, 2) as a batch's."""
    model.eval()
    size = model.settings.batch_size
    with torch.inference_mode():
        blocks = [held_out[start : start + size] for start in range(0, len(held_out), size)]
        return torch.stack([model.held_out_errors(reader.read(block)) for block in blocks]).sum(0)


def _held_out_loss(model: Trainable, reader: ItemReader, held_out: NDArray[np.int64]) -> float:
    """Mean error: over items first, then over the modalities that any of them has."""
    sums = held_out_errors(model, reader, held_out)
    known = sums[sums[:, 1] > 0]
    return (known[:, 0] / known[:, 1]).mean().item()


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
