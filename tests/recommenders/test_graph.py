"""The graph product equals the dense formula and an independent library's layer."""

import pytest
import torch

from sgfd.recommenders.graph import BipartiteGraph


def test_one_round_is_the_dense_product(small_inputs, dense_graph):
    x = torch.randn(small_inputs.n_users + small_inputs.n_items, 4)
    users, items = BipartiteGraph(small_inputs).propagate(
        x[: small_inputs.n_users], x[small_inputs.n_users :]
    )
    torch.testing.assert_close(torch.cat([users, items]), dense_graph @ x)


def test_one_round_is_torch_geometric_s_light_graph_convolution(small_inputs):
    nn = pytest.importorskip("torch_geometric.nn")
    n_users = small_inputs.n_users
    x = torch.randn(n_users + small_inputs.n_items, 4)
    edges = torch.stack([small_inputs.users, small_inputs.items + n_users])
    expected = nn.LGConv()(x, torch.cat([edges, edges.flip(0)], dim=1))
    users, items = BipartiteGraph(small_inputs).propagate(x[:n_users], x[n_users:])
    torch.testing.assert_close(torch.cat([users, items]), expected)


def test_the_gradient_is_that_of_the_dense_product(small_inputs, dense_graph):
    x = torch.randn(small_inputs.n_users + small_inputs.n_items, 4, requires_grad=True)
    weight = torch.randn_like(x)
    users, items = BipartiteGraph(small_inputs).propagate(
        x[: small_inputs.n_users], x[small_inputs.n_users :]
    )
    (got,) = torch.autograd.grad((torch.cat([users, items]) * weight).sum(), x)
    (expected,) = torch.autograd.grad(((dense_graph @ x) * weight).sum(), x)
    torch.testing.assert_close(got, expected)


def test_an_item_without_interactions_receives_nothing(small_inputs):
    _, items = BipartiteGraph(small_inputs).propagate(
        torch.ones(small_inputs.n_users, 2), torch.ones(small_inputs.n_items, 2)
    )
    assert (items[8] == 0).all()
