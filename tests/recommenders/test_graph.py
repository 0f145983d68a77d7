"""The graph product equals the dense formula and an independent library's layer."""

import pytest
import torch

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
