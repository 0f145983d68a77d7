"""The floor: BPR against its formula, most popular against counting."""

import torch

from sgfd.recommenders.backbone import BackboneSettings, Batch
from sgfd.recommenders.backbones.bpr import BPR, BPRSettings
from sgfd.recommenders.backbones.popular import MostPopular


def test_bpr_s_loss_and_gradients_are_those_of_the_formula(small_inputs):
    torch.manual_seed(0)
    model = BPR(small_inputs, BPRSettings(embedding_dim=4, regularization=0.3))
    torch.nn.init.normal_(model.items.weight)
    users, items = small_inputs.users[:15], small_inputs.items[:15]
    negatives = torch.randint(0, small_inputs.n_items, (15,))
    p, q, b = model.users.weight, model.items.weight[:, :-1], model.items.weight[:, -1]
    ranking = squares = 0.0
    for u, i, j in zip(users.tolist(), items.tolist(), negatives.tolist(), strict=True):
        margin = p[u] @ q[i] + b[i] - p[u] @ q[j] - b[j]
        ranking = ranking - torch.log(1 / (1 + torch.exp(-margin))) / 15
        for vector in (p[u], q[i], q[j]):
            squares = squares + vector @ vector / 15
        squares = squares + (b[i] ** 2 + b[j] ** 2) / 15
    got = model.loss(Batch(users, items, negatives[:, None]))
    torch.testing.assert_close(got["ranking"], ranking)
    torch.testing.assert_close(got["regularization"], 0.3 * squares)
    ours = torch.autograd.grad(sum(got.values()), list(model.parameters()))
    theirs = torch.autograd.grad(ranking + 0.3 * squares, list(model.parameters()))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_bpr_s_vectors_give_its_score(small_inputs):
    model = BPR(small_inputs, BPRSettings(embedding_dim=4))
    torch.nn.init.normal_(model.items.weight)
    users, items = model.embeddings()
    factors, bias = model.items.weight[:, :-1], model.items.weight[:, -1]
    expected = model.users.weight @ factors.T + bias
    torch.testing.assert_close(users @ items.T, expected)


def test_most_popular_counts_training_interactions(small_inputs):
    users, items = MostPopular(small_inputs, BackboneSettings()).embeddings()
    counts = [(small_inputs.items == i).sum().item() for i in range(small_inputs.n_items)]
    assert (users @ items.T).tolist() == [counts] * small_inputs.n_users
