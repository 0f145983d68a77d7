"""Adam for the training loop: the kernel that torch's fused Adam calls, without its bookkeeping."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma, Ba, ICLR 2015) with the defaults of `torch.optim.Adam`, to the last bit.

    That class's `step` looks through groups, hooks and options each time: on a small data set it
    takes a tenth of a step of training. Its state has the form of that class's.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float) -> None:
        self._parameters = list(parameters)
        self._learning_rate = learning_rate
        n = len(self._parameters)
        self._steps = torch.zeros(n, device=self._parameters[0].device if n else None)
        self._state: list[dict[str, Tensor]] = [
            {
                "step": step,
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
            for parameter, step in zip(self._parameters, self._steps.unbind(), strict=True)
        ]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Update in place every parameter that has a gradient."""
        gradients, updated, state = [], [], []
        for parameter, moments in zip(self._parameters, self._state, strict=True):
            if parameter.grad is not None:
                gradients.append(parameter.grad)
                updated.append(parameter)
                state.append(moments)
        steps = [moments["step"] for moments in state]
        if len(steps) == len(self._steps):
            self._steps += 1
        else:
            torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            updated,
            gradients,
            [moments["exp_avg"] for moments in state],
            [moments["exp_avg_sq"] for moments in state],
            [],
            steps,
            lr=self._learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """The moments by the parameter's number, of those that were ever updated."""
        updated = {n: dict(moments) for n, moments in enumerate(self._state) if moments["step"]}
        return {"state": updated}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        for number, moments in saved["state"].items():
            for name, value in moments.items():
                self._state[number][name].copy_(value)
