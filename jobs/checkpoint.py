"""The state of a training run as plain tensors, so that a checkpoint needs no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import SafetensorError, safe_open

from sgfd.featureset import write_file
from sgfd.jobs.errors import JobError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Optimizer(Protocol):
    """What is saved of an optimiser; those of `torch.optim` have it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None: ...


class Checkpoint:
    """A file of tensors, with the rest of a computation's state as JSON in its metadata."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the checkpoint by this one, as a whole or not at all."""
        from safetensors.torch import save

        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_file(self.path, save(plain, metadata={"state": json.dumps(state)}))

    def restore(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last one: its tensors (on the CPU) and its state; None if there is none.

        Raises:
            JobError: it can't be read.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return tensors, json.loads(file.metadata()["state"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise JobError(
                self.path,
                f"the checkpoint can't be read ({error})",
                "delete it and run again",
            ) from None


def pack(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Everything that a resumed run needs: weights, optimiser moments, random generators.

    Returns:
        Tensors named `model.*`, `optimizer.<parameter>.<moment>` and `random.*`.
    """
    import torch

    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    tensors["random.cpu"] = torch.get_rng_state()
    if _on_gpu():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


@contextmanager
def of_this_work(path: Path) -> Iterator[None]:
    """What a checkpoint holds is put back inside; what doesn't fit is refused in one line.

    Raises:
        JobError: it is a checkpoint, but of something else.
    """
    try:
        yield
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise JobError(
            path, f"the checkpoint is of another work ({reason})", "delete it and run again"
        ) from None


def unpack(tensors: dict[str, Tensor], model: nn.Module, optimizer: Optimizer) -> None:
    """Put back what `pack` took, into a model and an optimiser built the same way."""
    import torch

    model.load_state_dict(subset(tensors, "model."))
    state = optimizer.state_dict()
    for key, value in subset(tensors, "optimizer.").items():
        index, name = key.split(".", 1)
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and _on_gpu():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def subset(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _on_gpu() -> bool:
    """Whether this process computes there; to ask for a generator's state would begin it."""
    import torch

    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
