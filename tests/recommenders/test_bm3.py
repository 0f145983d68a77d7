"""BM3 is the model of its paper: against a dense implementation of the formulas."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from sgfd.recommenders.backbone import Batch
from sgfd.recommenders.backbones.bm3 import BM3, BM3Settings, MaskPool, cosines, rows_and_norm
from sgfd.recommenders.inputs import ModalityFeatures


def dense_loss(model, inputs, graph, batch, settings):
    """The formulas of the docstring, item by item, with dropout 0 (targets are the vectors)."""
    layers = [torch.cat([model.users.weight, model.items.weight])]
    for _ in range(settings.layers):
        layers.append(graph @ layers[-1])
    h = torch.stack(layers).mean(dim=0)
    users, items = h[: inputs.n_users], h[inputs.n_users :] + model.items.weight

    def cos(a, b):
        return (a * b).sum() / (a.norm() * b.norm())

    p, n = model.predictor, len(batch.users)
    pairs = list(zip(batch.users.tolist(), batch.items.tolist(), strict=True))
    parts = {
        "interaction": sum(
            2 - cos(p(users[u]), items[i].detach()) - cos(p(items[i]), users[u].detach())
            for u, i in pairs
        )
        / n,
        "regularization": settings.regularization
        * (users.square().sum().sqrt() + items.square().sum().sqrt())
        / inputs.n_items,
    }
    for projection, (name, modality) in zip(
        model.projections, inputs.features.items(), strict=True
    ):
        present = [i for _, i in pairs if modality.present[i]]
        content = {i: projection(modality.values[i]) for i in present}
        weight = settings.contrast_weight / len(present)
        parts[f"{name} alignment"] = weight * sum(
            1 - cos(p(content[i]), items[i].detach()) for i in present
        )
        parts[f"{name} masking"] = weight * sum(
            1 - cos(p(content[i]), content[i].detach()) for i in present
        )
        if settings.item_weight:
            parts[f"{name} item"] = (
                settings.item_weight
                * sum(1 - cos(p(items[i]), content[i].detach()) for i in present)
                / len(present)
            )
    return parts


@pytest.fixture
def batch(small_inputs):
    return Batch(small_inputs.users[:20], small_inputs.items[:20], torch.empty(20, 0).long())


@pytest.mark.parametrize(("layers", "item_weight"), [(1, 0.0), (1, 0.3), (2, 0.0), (3, 0.3)])
def test_loss_and_gradients_are_those_of_the_formulas(
    small_inputs, dense_graph, batch, layers, item_weight
):
    settings = BM3Settings(embedding_dim=6, layers=layers, dropout=0.0, item_weight=item_weight)
    model = BM3(small_inputs, settings)
    got = model.loss(batch)
    expected = dense_loss(model, small_inputs, dense_graph, batch, settings)
    assert set(got) == set(expected)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], msg=lambda m, n=name: f"{n}: {m}")
    parameters = list(model.parameters())
    ours = torch.autograd.grad(sum(got.values()), parameters)
    theirs = torch.autograd.grad(sum(expected.values()), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("item_weight", [0.0, 0.3])
def test_items_learn_from_their_content_where_they_are_let(small_inputs, batch, item_weight):
    model = BM3(small_inputs, BM3Settings(embedding_dim=6, item_weight=item_weight))
    content = [loss for name, loss in model.loss(batch).items() if name.split()[0] == "image"]
    assert len(content) == 2 + bool(item_weight)
    (gradient,) = torch.autograd.grad(sum(content), [model.items.weight], allow_unused=True)
    assert (gradient is not None and bool(gradient.any())) == bool(item_weight)


def test_score_is_the_product_of_predicted_vectors(small_inputs):
    model = BM3(small_inputs, BM3Settings(embedding_dim=6))
    users, items = model.embeddings()
    h_users, h_items = model.propagate()
    expected = model.predictor(h_users) @ model.predictor(h_items).T
    torch.testing.assert_close(users @ items.T, expected)


def test_gradients_reach_every_parameter(small_inputs, batch):
    model = BM3(small_inputs, BM3Settings(embedding_dim=6))
    sum(model.loss(batch).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_an_item_that_lacks_a_modality_adds_nothing_to_its_losses(small_inputs, batch):
    model = BM3(small_inputs, BM3Settings(embedding_dim=6, dropout=0.0))
    before = model.loss(batch)["text alignment"]
    text = small_inputs.features["text"]
    wild = torch.where(text.present[:, None], text.values, torch.full_like(text.values, 1e6))
    model.features = {**small_inputs.features, "text": ModalityFeatures(wild, text.present)}
    torch.testing.assert_close(model.loss(batch)["text alignment"], before)


def test_without_features_only_the_interaction_is_learnt(small_inputs, batch):
    model = BM3(replace(small_inputs, features={}), BM3Settings(embedding_dim=6))
    assert set(model.loss(batch)) == {"interaction", "regularization"}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_a_share_of_a_target_s_entries_is_dropped(share):
    drop = MaskPool(share, 64, torch.device("cpu"))
    one, other = (drop(torch.ones(2000, 64)) for _ in range(2))
    assert set(one.unique().tolist()) <= {0.0, 1.0}
    assert abs((one == 0).float().mean().item() - share) < 0.01
    assert (share == 0) == torch.equal(one, other)


def test_cosines_are_torch_s_with_their_gradient():
    online = [torch.randn(7, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    target = [torch.randn(7, 5, dtype=torch.float64) for _ in range(3)]
    pairs = ((0, 1), (1, 0), (2, 1), (2, 2))
    expected = [functional.cosine_similarity(online[a], target[b]) for a, b in pairs]
    torch.testing.assert_close(list(cosines(online, target, pairs)), expected)
    assert torch.autograd.gradcheck(lambda *x: cosines(list(x), target, pairs), online)


def test_rows_and_norm_have_the_gradient_of_both():
    table = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 2, 2, 5])
    rows, norm = rows_and_norm(table, index)
    torch.testing.assert_close(rows, table[index])
    torch.testing.assert_close(norm, table.square().sum().sqrt())
    assert torch.autograd.gradcheck(lambda x: rows_and_norm(x, index), table)


def test_a_target_that_is_dropped_whole_gives_no_nan():
    online = torch.randn(2, 3, requires_grad=True)
    cosines([online], [torch.zeros(2, 3)], ((0, 0),))[0].sum().backward()
    assert torch.isfinite(online.grad).all()
