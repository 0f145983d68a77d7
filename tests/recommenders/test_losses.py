"""The shared losses against autograd on their plain formulas."""

import pytest
import torch
from torch.nn import functional

from sgfd.recommenders.losses import bpr_opt, ranking_loss, squared_norm


def rows(n):
    return torch.randn(n, 3, dtype=torch.float64, requires_grad=True)


def test_the_ranking_loss_and_its_gradient_are_those_of_the_formula():
    users, items = rows(6), rows(12)
    margin = (users * (items[:6] - items[6:])).sum(dim=1)
    torch.testing.assert_close(ranking_loss(users, items), -functional.logsigmoid(margin).mean())
    assert torch.autograd.gradcheck(ranking_loss, (users, items))


def test_the_ranking_loss_is_finite_where_a_pair_is_far_the_wrong_way():
    users, items = torch.full((1, 1), 1e4), torch.tensor([[0.0], [1.0]])
    torch.testing.assert_close(ranking_loss(users, items), torch.tensor(1e4))


@pytest.mark.parametrize("biased", [True, False])
def test_bpr_opt_is_its_two_parts_and_has_their_gradient(biased):
    users, items = rows(6), rows(12)
    biases = torch.randn(12, 1, dtype=torch.float64)
    items = torch.cat([items, biases], dim=1).detach().requires_grad_() if biased else items
    meeting = functional.pad(users, (0, 1), value=1.0) if biased else users
    ranking, penalty = bpr_opt(users, items, 0.3)
    torch.testing.assert_close(ranking, ranking_loss(meeting, items))
    torch.testing.assert_close(penalty, 0.3 * squared_norm(users, items))
    assert torch.autograd.gradcheck(lambda u, i: bpr_opt(u, i, 0.3), (users, items))


def test_the_squared_norm_is_per_interaction_and_has_its_gradient():
    tables = rows(4), rows(8)
    expected = sum(table.square().sum() for table in tables) / 8
    torch.testing.assert_close(squared_norm(*tables), expected)
    assert torch.autograd.gradcheck(squared_norm, tables)
