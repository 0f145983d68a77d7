"""Attention on the edges of a graph: dots, softmax and weighted sums that all have gradients."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Edges:
    """E directed edges from sources to targets, grouped by target.

    Attributes:
        targets, sources: int64 (E,), ascending by target.
        order: int64 (E,), the place of each in the lists that were given.
    """

    def __init__(self, targets: Tensor, sources: Tensor, n_targets: int) -> None:
        self.order = torch.argsort(targets, stable=True)
        self.targets, self.sources = targets[self.order], sources[self.order]
        self.n_targets = n_targets
        sizes = torch.bincount(targets, minlength=n_targets)
        self.offsets = torch.cumsum(sizes, dim=0) - sizes
        # Grouped by source, for the gradient of the sum.
        self._by_source = torch.argsort(self.sources, stable=True)
        self._source_targets = self.targets[self._by_source]

    def dots(self, targets: Tensor, sources: Tensor) -> Tensor:
        """x_target . y_source of every edge, (E,), for x (n_targets, d) and y (n_sources, d)."""
        dots: Tensor = _Dots.apply(targets, sources, self)  # type: ignore[no-untyped-call]
        return dots

    def softmax(self, logits: Tensor, there: Tensor) -> Tensor:
        """Softmax over the edges of each target that are there, 0 for the others: (E,)."""
        logits = logits.masked_fill(~there, -torch.inf)
        highest = logits.new_full((self.n_targets,), -torch.inf).scatter_reduce(
            0, self.targets, logits.detach(), "amax"
        )
        highest = highest.masked_fill(highest.isinf(), 0)
        powers = (logits - highest.index_select(0, self.targets)).exp()
        total = powers.new_zeros(self.n_targets).index_add(0, self.targets, powers)
        return powers / total.clamp(min=1e-12).index_select(0, self.targets)

    def sum(self, weight: Tensor, sources: Tensor) -> Tensor:
        """sum over its edges of weight_e y_source for each target: (n_targets, d)."""
        total: Tensor = _Sum.apply(weight, sources, self)  # type: ignore[no-untyped-call]
        return total

    def weighted(self, weight: Tensor, sources: Tensor) -> Tensor:
        """`sum`, outside autograd."""
        return functional.embedding_bag(
            self.sources, sources, self.offsets, mode="sum", per_sample_weights=weight
        )

    def transposed(self, weight: Tensor, targets: Tensor, n_sources: int) -> Tensor:
        """sum over its edges of weight_e x_target for each source: (n_sources, d)."""
        sizes = torch.bincount(self.sources, minlength=n_sources)
        return functional.embedding_bag(
            self._source_targets,
            targets,
            torch.cumsum(sizes, dim=0) - sizes,
            mode="sum",
            per_sample_weights=weight[self._by_source],
        )


def edge_dots(edges: Edges, targets: Tensor, sources: Tensor) -> Tensor:
    """x_target . y_source of every edge, in slices that stay in the cache."""
    dots = targets.new_empty(len(edges.targets))
    for start in range(0, len(dots), _SLICE):
        part = slice(start, start + _SLICE)
        x = targets.index_select(0, edges.targets[part])
        dots[part] = x.mul_(sources.index_select(0, edges.sources[part])).sum(dim=1)
    return dots


_SLICE = 8192


class _Dots(torch.autograd.Function):
    """d/dx_t = sum of g_e y_s over the target's edges, d/dy_s likewise over the source's."""

    @staticmethod
    def forward(ctx: Any, targets: Tensor, sources: Tensor, edges: Edges) -> Tensor:
        ctx.save_for_backward(targets, sources)
        ctx.edges = edges
        return edge_dots(edges, targets, sources)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        targets, sources = ctx.saved_tensors
        weight = gradients[0].contiguous()
        return (
            ctx.edges.weighted(weight, sources),
            ctx.edges.transposed(weight, targets, len(sources)),
            None,
        )


class _Sum(torch.autograd.Function):
    """d/dweight_e = g_target . y_source, d/dy_s = sum of weight_e g_target over its edges."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, sources: Tensor, edges: Edges) -> Tensor:
        ctx.save_for_backward(weight, sources)
        ctx.edges = edges
        return edges.weighted(weight, sources)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        weight, sources = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        return (
            edge_dots(ctx.edges, gradient, sources),
            ctx.edges.transposed(weight, gradient, len(sources)),
            None,
        )
