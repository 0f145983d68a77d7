"""The state of a training run as plain tensors, so that a checkpoint needs no pickle."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def pack(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Everything that a resumed run needs: weights, optimiser moments, random generators.

    Returns:
        Tensors named `model.*`, `optimizer.<parameter>.<moment>` and `random.*`.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return tensors


def unpack(tensors: dict[str, Tensor], model: nn.Module, optimizer: Optimizer) -> None:
    """Put back what `pack` took, into a model and an optimiser built the same way."""
    model.load_state_dict(subset(tensors, "model."))
    state = optimizer.state_dict()
    for key, value in subset(tensors, "optimizer.").items():
        index, name = key.split(".", 1)
        state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    torch.set_rng_state(tensors["random.cpu"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])


def subset(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
