"""Attention on the edges of a graph: dots, softmax and weighted sums that all have gradients."""

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Edges:
    """E directed edges from sources to targets, grouped by target.

    Attributes:
        targets, sources: int64 (E,), ascending by target, then by source.
    """

    def __init__(self, targets: Tensor, sources: Tensor, n_targets: int, n_sources: int) -> None:
        by_source = torch.argsort(sources, stable=True)
        order = by_source[torch.argsort(targets[by_source], stable=True)]
        self.targets, self.sources = targets[order], sources[order]
        self.n_targets, self.n_sources = n_targets, n_sources
        self.starts = _starts(self.targets, n_targets)
        # Grouped by source, for the gradient of the sum.
        self._by_source = torch.argsort(self.sources, stable=True)
        self._source_targets = self.targets[self._by_source]
        self._source_starts = _starts(self.sources, n_sources)

    def dots(self, targets: Tensor, sources: Tensor) -> Tensor:
        """x_target . y_source of every edge, (E,), for x (n_targets, d) and y (n_sources, d)."""
        dots: Tensor = _Dots.apply(targets, sources, self)  # type: ignore[no-untyped-call]
        return dots

    def softmax(self, logits: Tensor, there: Tensor) -> Tensor:
        """Softmax over the edges of each target that are there, 0 for the others: (E,)."""
        share: Tensor = _Softmax.apply(logits, there, self)  # type: ignore[no-untyped-call]
        return share

    def sum(self, weight: Tensor, sources: Tensor) -> Tensor:
        """sum over its edges of weight_e y_source for each target: (n_targets, d)."""
        total: Tensor = _Sum.apply(weight, sources, self)  # type: ignore[no-untyped-call]
        return total

    def exchange(self, targets: Tensor, sources: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """W y for each target and W' x for each source, W = `weight` (E,), x = `targets`
        (n_targets, d), y = `sources` (n_sources, d); differentiable in x and y."""
        received: tuple[Tensor, Tensor] = _Exchange.apply(  # type: ignore[no-untyped-call]
            targets, sources, weight, self
        )
        return received

    def total(self, values: Tensor) -> Tensor:
        """Sum of the values (E,) of each target's edges: (n_targets,)."""
        return values.new_zeros(self.n_targets).index_add_(0, self.targets, values)

    def normalized(self, weight: Tensor) -> Tensor:
        """w_e / sqrt(D_target D_source), D the sums of the weights of a node's edges: (E,)."""
        of_sources = weight.new_zeros(self.n_sources).index_add_(0, self.sources, weight)
        of_targets = self.total(weight).index_select(0, self.targets)
        return (of_targets * of_sources.index_select(0, self.sources)).rsqrt_().mul_(weight)

    def weighted(self, weight: Tensor, sources: Tensor) -> Tensor:
        """`sum`, outside autograd."""
        return functional.embedding_bag(
            self.sources, sources, self.starts[:-1], mode="sum", per_sample_weights=weight
        )

    def transposed(self, weight: Tensor, targets: Tensor) -> Tensor:
        """sum over its edges of weight_e x_target for each source: (n_sources, d)."""
        return functional.embedding_bag(
            self._source_targets,
            targets,
            self._source_starts[:-1],
            mode="sum",
            per_sample_weights=weight[self._by_source],
        )


def _starts(groups: Tensor, n_groups: int) -> Tensor:
    """Where each group begins in ascending `groups`, and where the last one ends: (n_groups + 1)"""
    sizes = torch.bincount(groups, minlength=n_groups)
    return functional.pad(torch.cumsum(sizes, dim=0), (1, 0))


def edge_dots(edges: Edges, targets: Tensor, sources: Tensor) -> Tensor:
    """x_target . y_source of every edge, (E,).

    On a CPU torch's product that is sampled at the edges is eight times as fast as gathering
    their rows; it comes with MKL, so not with every build.
    """
    if targets.is_cuda or torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return _sampled_dots(edges, targets, sources)
    return _gathered_dots(edges, targets, sources)


def _sampled_dots(edges: Edges, targets: Tensor, sources: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        pattern = torch.sparse_csr_tensor(
            edges.starts,
            edges.sources,
            targets.new_zeros(len(edges.targets)),
            (edges.n_targets, edges.n_sources),
            check_invariants=False,
        )
        dots: Tensor = torch.sparse.sampled_addmm(pattern, targets, sources.T, beta=0.0).values()
    return dots


def _gathered_dots(edges: Edges, targets: Tensor, sources: Tensor) -> Tensor:
    """In slices that stay in the cache."""
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
            ctx.edges.transposed(weight, targets),
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
            ctx.edges.transposed(weight, gradient),
            None,
        )


class _Exchange(torch.autograd.Function):
    """The matrix that has W and W' beside its diagonal is symmetric: its own backward pass."""

    @staticmethod
    def forward(
        ctx: Any, targets: Tensor, sources: Tensor, weight: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight)
        ctx.edges = edges
        return edges.weighted(weight, sources), edges.transposed(weight, targets)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        targets, sources = (gradient.contiguous() for gradient in gradients)
        return (
            ctx.edges.weighted(weight, sources),
            ctx.edges.transposed(weight, targets),
            None,
            None,
        )


class _Softmax(torch.autograd.Function):
    """d/dlogit_e = p_e (g_e - sum of p g over the target's edges)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, there: Tensor, edges: Edges) -> Tensor:
        logits = logits.masked_fill(~there, -torch.inf)
        highest = logits.new_full((edges.n_targets,), -torch.inf)
        highest.scatter_reduce_(0, edges.targets, logits, "amax")
        highest.masked_fill_(highest.isinf(), 0)  # no edge at all
        powers = logits.sub_(highest.index_select(0, edges.targets)).exp_()
        total = edges.total(powers).clamp_(min=1e-12)
        share = powers.div_(total.index_select(0, edges.targets))
        ctx.save_for_backward(share)
        ctx.edges = edges
        return share

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (share,) = ctx.saved_tensors
        weighted = share * gradients[0]
        total = ctx.edges.total(weighted).index_select(0, ctx.edges.targets)
        return weighted.addcmul_(share, total, value=-1), None, None
