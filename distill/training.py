"""The training loop of stage one: epochs over the items, early stopping, checkpoints."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgfd.distill.batches import ItemBatch, ItemReader
from sgfd.distill.errors import DistillError
from sgfd.distill.settings import (
    AutoencoderSettings,
    CLCRecSettings,
    RQVAESettings,
    SGFDPlusSettings,
    SGFDSettings,
)
from sgfd.jobs import (
    Checkpoint,
    WorkFolder,
    deferred_interrupt,
    of_this_work,
    pack,
    progress,
    subset,
    unpack,
)

logger = logging.getLogger("sgfd")


class Trainable(nn.Module, ABC):
    """What the loop can train."""

    settings: SGFDSettings | AutoencoderSettings | SGFDPlusSettings | CLCRecSettings | RQVAESettings

    @abstractmethod
    def loss(self, batch: Any) -> dict[str, Tensor]:
        """The weighted parts of the loss on what `Examples.read` gives, scalars; the loop lowers
        their sum."""


class Examples(Protocol):
    """What a training goes over, batch by batch."""

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """The epoch's batches, the same whenever they are asked for."""

    def read(self, batch: NDArray[np.int64]) -> Any:
        """What the model's loss takes."""


class ItemNetworks(Trainable):
    """Networks for M modalities, trained on items, with a held-out error."""

    settings: SGFDSettings | AutoencoderSettings

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

    epoch: int
    step: int
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
    examples: Examples,
    held_out_loss: Callable[[], float] | None,
    work: WorkFolder | Checkpoint,
    *,
    patience: int | None,
) -> TrainingState:
    """Train for the settings' epochs, or until the held-out loss gets no better.

    Resumes from the checkpoint in `work` where there is one, to the same result. Where nothing
    is held out (tiny catalogues), the training loss decides.

    Args:
        held_out_loss: of the model as it stands.
        patience: stop after so many epochs without a better loss, and keep the best weights;
            None to train for all epochs and keep the last.

    Raises:
        DistillError: the loss is not finite.
        KeyboardInterrupt: the user stopped it; the checkpoint is written.
    """
    settings = model.settings
    optimizer = torch.optim.Adam(model.parameters(), settings.learning_rate)
    state, best = TrainingState(epoch=0, step=0), _copy(model)
    if saved := work.restore():
        tensors, record = saved
        with of_this_work(work.path):
            state, best = TrainingState.from_json(record), subset(tensors, "best.")
            model.load_state_dict(best)  # where they don't fit, now and not at the end
            unpack(tensors, model, optimizer)
        logger.info("distillation goes on from epoch %d, batch %d", state.epoch + 1, state.step)

    def checkpoint() -> None:
        best_weights = {f"best.{name}": tensor for name, tensor in best.items()}
        work.save(pack(model, optimizer) | best_weights, state.to_json())

    def goes_on() -> bool:
        patient = patience is None or state.epoch - state.best_epoch < patience
        return state.epoch < settings.epochs and patient

    last = time.monotonic()
    with deferred_interrupt() as interrupt, progress(settings.epochs, "distilling") as advance:
        advance(state.epoch)
        while goes_on():
            model.train()
            batches = examples.batches(state.epoch)
            for batch in batches[state.step :]:
                loss = torch.stack(list(model.loss(examples.read(batch)).values())).sum()
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
            trained = state.total / max(len(batches), 1)
            state.epoch, state.step, state.total = state.epoch + 1, 0, 0.0
            model.eval()
            reached = trained if held_out_loss is None else held_out_loss()
            if reached < state.best or patience is None:
                state.best, state.best_epoch, best = reached, state.epoch, _copy(model)
            advance(1, loss=f"{trained:.4f}", held_out=f"{reached:.4f}", best=state.best_epoch)
        if interrupt.requested:  # while the held-out items were looked at for the last time
            checkpoint()
            raise KeyboardInterrupt
    model.load_state_dict(best)
    return state


def fit_items(
    model: ItemNetworks,
    reader: ItemReader,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
    seed: int,
    work: WorkFolder,
) -> TrainingState:
    """`fit` on the items `train`; stopped by the error on those of `held_out`, if any."""

    def held_out_loss() -> float:
        """Mean error: over items first, then over the modalities that any of them has."""
        sums = held_out_errors(model, reader, held_out)
        known = sums[sums[:, 1] > 0]
        return (known[:, 0] / known[:, 1]).mean().item()

    examples = Items(reader, train, model.settings.batch_size, seed)
    stop = held_out_loss if len(held_out) else None
    return fit(model, examples, stop, work, patience=model.settings.patience)


def shuffled(
    index: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """The entries in an order of the epoch's own, in batches."""
    order = np.random.default_rng([seed, epoch]).permutation(index)
    return np.split(order, np.arange(batch_size, len(order), batch_size))


class RowReader(Protocol):
    """Reads items from the memory maps."""

    def read(self, index: NDArray[np.int64]) -> Any:
        """What the model's loss takes of these items."""


@dataclass(frozen=True)
class Items:
    """Items in random order, b at a time."""

    reader: RowReader
    items: NDArray[np.int64]
    batch_size: int
    seed: int

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        return shuffled(self.items, self.batch_size, self.seed, epoch)

    def read(self, batch: NDArray[np.int64]) -> Any:
        return self.reader.read(batch)


def held_out_errors(model: ItemNetworks, reader: ItemReader, held_out: NDArray[np.int64]) -> Tensor:
    """The model's errors, summed over one or more held-out items: (M, 2) as a batch's."""
    model.eval()
    size = model.settings.batch_size
    with torch.inference_mode():
        blocks = [held_out[start : start + size] for start in range(0, len(held_out), size)]
        return torch.stack([model.held_out_errors(reader.read(block)) for block in blocks]).sum(0)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
