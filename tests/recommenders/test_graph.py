"""The graph product equals the dense formula and an independent library's layer."""

import numpy as np
import pytest
import torch

from sgfd.recommenders import edges
from sgfd.recommenders.graph import BipartiteGraph


def test_one_round_is_the_dense_product(small_inputs, dense_graph):
    x = torch.randn(small_inputs.n_users + small_inputs.n_items, 4)
    users, items = BipartiteGraph(small_inputs).product(
        x[: small_inputs.n_users], x[small_inputs.n_users :]
    )
    torch.testing.assert_close(torch.cat([users, items]), dense_graph @ x)


def test_one_round_is_torch_geometric_s_light_graph_convolution(small_inputs):
    nn = pytest.importorskip("torch_geometric.nn")
    n_users = small_inputs.n_users
    x = torch.randn(n_users + small_inputs.n_items, 4)
    edges = torch.stack([small_inputs.users, small_inputs.items + n_users])
    expected = nn.LGConv()(x, torch.cat([edges, edges.flip(0)], dim=1))
    users, items = BipartiteGraph(small_inputs).product(x[:n_users], x[n_users:])
    torch.testing.assert_close(torch.cat([users, items]), expected)


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_the_mean_of_rounds_and_its_gradient_are_those_of_dense_powers(
    small_inputs, dense_graph, rounds
):
    n_users = small_inputs.n_users
    x = torch.randn(n_users + small_inputs.n_items, 4, requires_grad=True)
    weight = torch.randn_like(x)
    powers = [x]
    for _ in range(rounds):
        powers.append(dense_graph @ powers[-1])
    expected = torch.stack(powers).mean(dim=0)
    users, items = BipartiteGraph(small_inputs).mean_of_rounds(x[:n_users], x[n_users:], rounds)
    got = torch.cat([users, items])
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(
        torch.autograd.grad((got * weight).sum(), x),
        torch.autograd.grad((expected * weight).sum(), x),
    )


def test_an_item_without_interactions_receives_nothing(small_inputs):
    _, items = BipartiteGraph(small_inputs).product(
        torch.ones(small_inputs.n_users, 2), torch.ones(small_inputs.n_items, 2)
    )
    assert (items[8] == 0).all()


@pytest.mark.parametrize("dots", [edges.edge_dots, edges._gathered_dots])
def test_dots_of_edges_are_those_of_their_rows(dots):
    generator = torch.Generator().manual_seed(0)
    keys = torch.randperm(90 * 70, generator=generator)[:3000]
    targets, sources = keys // 70, keys % 70
    graph = edges.Edges(targets, sources, 90, 70)
    assert (graph.targets * 70 + graph.sources == keys.sort().values).all()
    x, y = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (90, 70))
    expected = np.einsum("ed,ed->e", x[graph.targets].numpy(), y[graph.sources])
    np.testing.assert_allclose(dots(graph, x, y).numpy(), expected, rtol=1e-12)


def test_the_softmax_of_edges_has_the_gradient_of_finite_differences():
    graph = edges.Edges(torch.tensor([0, 0, 2, 2, 2]), torch.tensor([1, 2, 0, 1, 2]), 4, 3)
    there = torch.tensor([True, True, True, False, True])
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: graph.softmax(x, there), logits)
    share = graph.softmax(logits, there).detach()
    expected = torch.cat([logits[:2].softmax(0), logits[[2, 4]].softmax(0)]).detach()
    torch.testing.assert_close(share[[0, 1, 2, 4]], expected)
    assert share[3] == 0


def test_an_exchange_over_edges_is_the_dense_product_both_ways():
    targets, sources = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([1, 2, 0, 1, 2])
    graph = edges.Edges(targets, sources, 4, 3)
    weight = graph.normalized(torch.rand(5, dtype=torch.float64) + 0.1)
    dense = torch.zeros(4, 3, dtype=torch.float64)
    dense[graph.targets, graph.sources] = weight
    x, y = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (4, 3))
    for got, expected in zip(graph.exchange(x, y, weight), (dense @ y, dense.T @ x), strict=True):
        torch.testing.assert_close(got, expected)
    assert torch.autograd.gradcheck(lambda x, y: graph.exchange(x, y, weight), (x, y))


def test_normalized_weights_are_divided_by_the_roots_of_their_nodes_sums():
    graph = edges.Edges(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 2)
    got = graph.normalized(torch.tensor([1.0, 3.0, 2.0]))
    torch.testing.assert_close(got, torch.tensor([1 / 2, 3 / 20**0.5, 2 / 10**0.5]))
