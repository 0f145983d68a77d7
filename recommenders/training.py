"""The training loop: epochs over the training interactions, early stopping, checkpoints."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch, UnusableSettingsError
from sgfd.recommenders.evaluation import NotFiniteError
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.optimizer import Adam
from sgfd.recommenders.sampling import EpochBatches

logger = logging.getLogger("sgfd")

AFTER_A_STEP = ("weights", "scores")  # what a step may break that its own loss does not show


class DivergenceError(UnusableSettingsError):
    """The loss, or what it led to, is not finite."""


@dataclass
class TrainingState:
    """Where training stands; with the tensors of a checkpoint, all that a resumed run needs.

    Attributes:
        epoch: epochs done. step: batches done of the epoch at hand.
        sums: the parts of the loss, summed over the epoch's batches so far.
        best, best_epoch: highest score so far, and after how many epochs; without scores the
            last epoch is the best.
        seconds: time spent on training and on the scores that stop it, or on a closed form.
        history: one row an epoch.
        diverged: what is not finite, where something is: training then never goes on.
        threads: numbers of threads that it was trained by, one after the other.
    """

    epoch: int
    step: int
    sums: dict[str, float] = field(default_factory=dict)
    best: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    diverged: str = ""
    threads: list[int] = field(default_factory=list)


def fit(
    backbone: Backbone,
    inputs: Inputs,
    settings: BackboneSettings,
    seed: int,
    work: WorkFolder | Checkpoint,
    score: Callable[[Backbone], float] | None,
    watch: Callable[[TrainingState], None] | None = None,
) -> TrainingState:
    """Train until `score` has not risen for `patience` epochs; leave the best weights in place.

    Resumes from the checkpoint in `work` where there is one, to the same result.

    Args:
        score: the higher, the better; None to train for all `epochs` and keep the last weights.
        watch: told of the state after each epoch; what it raises ends the training.

    Raises:
        DivergenceError: the loss or a score is not finite, now or in the run that left the
            checkpoint; the best weights stay in it.
        KeyboardInterrupt: the user stopped it; the checkpoint is written.
    """
    optimizer = Adam(backbone.parameters(), settings.learning_rate)
    state, best = TrainingState(epoch=0, step=0), _copy(backbone)
    if saved := work.restore():
        tensors, record = saved
        with of_this_work(work.path):
            state, best = TrainingState(**record), subset(tensors, "best.")
            backbone.load_state_dict(best)  # where they don't fit, now and not at the end
            unpack(tensors, backbone, optimizer)
        if state.diverged:
            raise _divergence(state, settings, work)
        logger.info("training goes on from epoch %d, batch %d", state.epoch + 1, state.step)
        if watch is not None and state.history and not state.step:
            watch(state)  # stopped while that epoch was scored, before it was told of

    if (threads := torch.get_num_threads()) not in state.threads:
        state.threads.append(threads)

    def checkpoint() -> None:
        state.seconds = spent + time.perf_counter() - start
        best_weights = {f"best.{name}": tensor for name, tensor in best.items()}
        work.save(pack(backbone, optimizer) | best_weights, asdict(state))

    def diverge(what: str) -> DivergenceError:
        state.diverged = what
        checkpoint()
        return _divergence(state, settings, work)

    start, spent, last = time.perf_counter(), state.seconds, time.monotonic()
    with deferred_interrupt() as interrupt, progress(settings.epochs, "training") as advance:
        advance(state.epoch)
        while state.epoch < settings.epochs and (
            score is None or state.epoch - state.best_epoch < settings.patience
        ):
            backbone.train()
            batches = EpochBatches(
                inputs, settings.batch_size, backbone.negatives, seed, state.epoch
            )
            backbone.begin_epoch(_epoch_generator(seed, state.epoch))
            for batch in batches.start_at(state.step):
                of_batch = take_step(backbone, batch, optimizer)
                state.step += 1
                if broken := [name for name, x in of_batch.items() if not math.isfinite(x)]:
                    raise diverge(", ".join(broken))
                for name, value in of_batch.items():
                    state.sums[name] = state.sums.get(name, 0.0) + value
                if interrupt.requested or time.monotonic() - last > settings.checkpoint_seconds:
                    checkpoint()
                    last = time.monotonic()
                if interrupt.requested:
                    raise KeyboardInterrupt
            losses = {name: total / len(batches) for name, total in state.sums.items()}
            # The loss is that before a step: the last one of an epoch shows in the weights alone.
            if not all(weights.isfinite().all() for weights in backbone.parameters()):
                raise diverge("weights")
            state.epoch, state.step, state.sums = state.epoch + 1, 0, {}
            if score is None:
                state.best_epoch, best = state.epoch, _copy(backbone)
                state.history.append({"epoch": state.epoch, **losses})
                advance(1)
                continue
            try:
                reached = score(backbone)
            except NotFiniteError:
                raise diverge("scores") from None
            if reached > state.best:
                state.best, state.best_epoch, best = reached, state.epoch, _copy(backbone)
            state.history.append({"epoch": state.epoch, "recall@20": reached, **losses})
            advance(1, best=f"{state.best:.4f}", epoch=state.best_epoch)
            if interrupt.requested:  # while it scored: before a search could end the training
                checkpoint()
                raise KeyboardInterrupt
            if watch is not None:
                watch(state)
    state.seconds = spent + time.perf_counter() - start
    backbone.load_state_dict(best)
    return state


def take_step(backbone: Backbone, batch: Batch, optimizer: Adam) -> dict[str, float]:
    """One step of the optimiser on a batch; the parts of the loss before it."""
    optimizer.zero_grad()
    parts = backbone.loss(batch)
    # Each part is a root of its own: no node that joins them.
    torch.autograd.backward([value for value in parts.values() if value.requires_grad])
    optimizer.step()
    with torch.no_grad():
        backbone.after_step()
    # Read together: a GPU is waited for once.
    return dict(zip(parts, torch.stack([p.detach() for p in parts.values()]).tolist(), strict=True))


def _copy(backbone: Backbone) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in backbone.state_dict().items()}


def _epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The same for each epoch of a seed, however often training was resumed."""
    (state,) = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _divergence(
    state: TrainingState, settings: BackboneSettings, work: WorkFolder | Checkpoint
) -> DivergenceError:
    """What is not finite, where, and which settings weigh it."""
    known = asdict(settings)
    parts = [part.replace(" ", "_") for part in state.diverged.split(", ")]
    named = [name for part in parts for name in (f"{part}_weight", part) if known.get(name)]
    lower = " or ".join(f"{name} (it is {known[name]:g})" for name in ("learning_rate", *named))
    best = ""
    if state.best_epoch and isinstance(work, WorkFolder):
        best = f"; the best weights, of epoch {state.best_epoch}, are kept as best.* in {work.path}"
    what = f"the loss is no longer finite ({state.diverged})"
    if state.diverged in AFTER_A_STEP:
        what = f"the {state.diverged} are no longer finite"
    return DivergenceError(
        f"epoch {state.epoch + 1}, step {state.step}" if state.step else f"epoch {state.epoch}",
        what,
        f"lower {lower}{best}",
    )
