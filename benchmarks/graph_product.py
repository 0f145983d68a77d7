"""The normalised graph product: embedding_bag against torch's CSR product (and torch-sparse).

    python benchmarks/graph_product.py

Office's shape and a larger one; forward and backward through one round, the median of the repeats.
"""

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from sgfd.jobs import use_threads
from sgfd.recommenders.graph import BipartiteGraph
from sgfd.recommenders.inputs import Inputs, make_inputs
from sgfd.recommenders.item_sets import ItemSets

SHAPES = ((4_874, 2_406, 37_027, 128), (100_000, 50_000, 2_000_000, 64))


def main() -> None:
    warnings.filterwarnings("ignore", message="Sparse")
    print(f"threads {use_threads(None)}; milliseconds of one round, forward and backward")
    for n_users, n_items, n, d in SHAPES:
        inputs = random_graph(n_users, n_items, n)
        users = torch.randn(n_users, d, requires_grad=True)
        items = torch.randn(n_items, d, requires_grad=True)
        graph = BipartiteGraph(inputs)
        ours = median(lambda g=graph, u=users, i=items: backward(*g.mean_of_rounds(u, i, 1)))
        print(f"{n_users} x {n_items}, {len(inputs.users)} edges, width {d}")
        print(f"  embedding_bag {ours:9.2f}")
        for name, product in alternatives(inputs).items():
            both = torch.cat([users, items]).detach().requires_grad_()
            other = median(lambda p=product, b=both: backward((b + p(b)) / 2))
            print(f"  {name:13} {other:9.2f}   {other / ours:5.1f} times as long")


def random_graph(n_users: int, n_items: int, n: int) -> Inputs:
    rng = np.random.default_rng(0)
    user = rng.integers(0, n_users, n)
    item = (n_items * rng.random(n) ** 2).astype(np.int64)  # some items are far more popular
    return make_inputs(ItemSets.from_pairs(user, item, n_users, n_items), {}, torch.device("cpu"))


def alternatives(inputs: Inputs) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """The same product by torch's CSR matrix and, where it is installed, by torch-sparse."""
    size = inputs.n_users + inputs.n_items
    left = torch.cat([inputs.users, inputs.items + inputs.n_users])
    right = torch.cat([inputs.items + inputs.n_users, inputs.users])
    degree = torch.bincount(left, minlength=size).float()
    weight = (degree[left] * degree[right]).rsqrt()
    csr = torch.sparse_coo_tensor(torch.stack([left, right]), weight, (size, size)).to_sparse_csr()

    class Symmetric(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return csr @ x

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
            return csr @ gradient

    found: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"torch CSR": Symmetric.apply}
    try:
        from torch_sparse import SparseTensor
    except ImportError:
        return found
    matrix = SparseTensor(row=left, col=right, value=weight, sparse_sizes=(size, size))
    return found | {"torch-sparse": lambda x: matrix @ x}


def backward(*outputs: torch.Tensor) -> None:
    torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])


def median(work: Callable[[], object], repeats: int = 15) -> float:
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[3:]))


if __name__ == "__main__":
    main()
