"""Rows of a table: looked up so that training is quick and the same twice, or of length 1."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

EPSILON = 1e-12  # least length that a row is divided by


def rows_of(table: Tensor, index: Tensor) -> Tensor:
    """Rows (n, d) of a table (N, d), differentiable.

    On a CPU the gradient of `index_select` is that of `embedding`, to the last bit, in half the
    time. On a GPU it sums the rows in any order, so that two trainings would differ.
    """
    if table.is_cuda:
        return functional.embedding(index, table)
    return torch.index_select(table, 0, index)


def unit_rows(x: Tensor) -> Tensor:
    """x / |x|, row by row, of (n, d); a row of zeros stays one.

    What `torch.nn.functional.normalize` computes, with a backward pass of one sum and two
    products where that keeps six whole tables.
    """
    rows: Tensor = _UnitRows.apply(x)  # type: ignore[no-untyped-call]
    return rows


@torch.no_grad()
def into_unit_ball(*tables: Tensor) -> None:
    """Divide the rows of each (n, d) that are longer than 1 by their length, in place."""
    for table in tables:
        table /= torch.linalg.vector_norm(table, dim=1, keepdim=True).clamp(min=1)


class _UnitRows(torch.autograd.Function):
    """d/dx = (g - (g . u) u) / |x| with u = x / |x|."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_(min=EPSILON)
        inverse.reciprocal_()
        unit: Tensor = x * inverse
        ctx.save_for_backward(unit, inverse)
        return unit

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        unit, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(gradients[0], unit).unsqueeze(1)
        gradient: Tensor = torch.addcmul(gradients[0], unit, along, value=-1).mul_(inverse)
        return gradient
