"""The user-item graph and its normalised product, the one costly step of graph backbones."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sgfd.recommenders.inputs import Inputs


class BipartiteGraph:
    """D^-1/2 A D^-1/2 of the user-item graph (LightGCN, He et al. 2020, eq. 3).

    A has one block R (U, I) of training interactions and its transpose, so a product with A is
    one with each; called A below, normalised. A weighted sum over neighbours is what
    `embedding_bag` computes; on a CPU it is several times faster than torch's CSR product
    (`benchmarks/graph_product.py`).
    """

    def __init__(self, inputs: Inputs) -> None:
        users, items = inputs.users, inputs.items
        user_degree = torch.bincount(users, minlength=inputs.n_users)
        item_degree = torch.bincount(items, minlength=inputs.n_items)
        weight = (user_degree[users] * item_degree[items]).float().rsqrt()
        self._to_users = Bags(users, items, weight, inputs.n_users)
        self._to_items = Bags(items, users, weight, inputs.n_items)
        self.device = inputs.device

    def mean_of_rounds(self, users: Tensor, items: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
        """(x + A x + ... + A^rounds x) / (rounds + 1) for x = users (U, d) above items (I, d)."""
        mean: tuple[Tensor, Tensor] = _MeanOfRounds.apply(  # type: ignore[no-untyped-call]
            users, items, self, rounds
        )
        return mean

    def product(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """A x, outside autograd: users (U, d) from their items, items (I, d) from their users."""
        return self._to_users @ items, self._to_items @ users

    def users_from(self, items: Tensor) -> Tensor:
        """The users' part of A x, (U, d) from items (I, d), differentiable."""
        return bag_product(items, self._to_users, self._to_items)

    def items_from(self, users: Tensor) -> Tensor:
        """The items' part of A x, (I, d) from users (U, d), differentiable."""
        return bag_product(users, self._to_items, self._to_users)


def bag_product(x: Tensor, bags: "Bags", transposed: "Bags") -> Tensor:
    """The matrix of `bags` times x, differentiable in x by the transposed matrix."""
    product: Tensor = _BagProduct.apply(x, bags, transposed)  # type: ignore[no-untyped-call]
    return product


class Bags:
    """Edges grouped by target: where each target's sources start, the sources, the weights."""

    def __init__(self, targets: Tensor, sources: Tensor, weight: Tensor, n_targets: int) -> None:
        order = torch.argsort(targets, stable=True)
        sizes = torch.bincount(targets, minlength=n_targets)
        self.offsets = torch.cumsum(sizes, dim=0) - sizes
        self.sources = sources[order]
        self.weight = weight[order]

    def __matmul__(self, values: Tensor) -> Tensor:
        return functional.embedding_bag(
            self.sources, values, self.offsets, mode="sum", per_sample_weights=self.weight
        )


class _BagProduct(torch.autograd.Function):
    """The gradient of M x is M' times that of the product."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bags: Bags, transposed: Bags) -> Tensor:
        ctx.transposed = transposed
        return bags @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed @ gradients[0].contiguous(), None, None


class _MeanOfRounds(torch.autograd.Function):
    """A polynomial of the symmetric A is symmetric, so it is its own backward pass."""

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, graph: BipartiteGraph, rounds: int
    ) -> tuple[Tensor, Tensor]:
        ctx.graph, ctx.rounds = graph, rounds
        return _mean_of_rounds(users, items, graph, rounds)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        users, items = (gradient.contiguous() for gradient in gradients)
        return *_mean_of_rounds(users, items, ctx.graph, ctx.rounds), None, None


def _mean_of_rounds(
    users: Tensor, items: Tensor, graph: BipartiteGraph, rounds: int
) -> tuple[Tensor, Tensor]:
    """By Horner's rule, x + A (x + A (x + ...)), in place: no table but the result's is kept."""
    if rounds == 0:
        return users.clone(), items.clone()
    user_sum, item_sum = users, items
    for _ in range(rounds):
        user_sum, item_sum = graph.product(user_sum, item_sum)
        user_sum += users
        item_sum += items
    return user_sum.div_(rounds + 1), item_sum.div_(rounds + 1)
