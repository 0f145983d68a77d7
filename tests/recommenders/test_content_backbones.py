"""Backbones that score by features or filter graphs, against dense formulas."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from sgfd.jobs import JobError
from sgfd.recommenders.backbone import BackboneSettings, Batch
from sgfd.recommenders.backbones.content import ContentNeighbours
from sgfd.recommenders.backbones.ease import EASE, EASESettings, item_weights
from sgfd.recommenders.backbones.freedom import FREEDOM, FREEDOMSettings, prune
from sgfd.recommenders.backbones.graphfilter import GraphFilter, GraphFilterSettings
from sgfd.recommenders.backbones.lightgcn import LightGCN, LightGCNSettings
from sgfd.recommenders.backbones.mgcn import MGCN, MGCNSettings
from sgfd.recommenders.backbones.vbpr import VBPR, VBPRSettings
from sgfd.recommenders.neighbours import nearest_edges


@pytest.fixture
def inputs(small_inputs):
    """The small inputs; items that lack text have zeros there, as real inputs do."""
    text = small_inputs.features["text"]
    masked = replace(text, values=text.values * text.present[:, None])
    return replace(small_inputs, features={**small_inputs.features, "text": masked})


@pytest.fixture
def batch(inputs):
    negatives = torch.randint(0, inputs.n_items, (20, 1))
    return Batch(inputs.users[:20], inputs.items[:20], negatives)


def nearest_by_hand(modality, inputs, k, itself=False):
    """For each item its k nearest warm items as (place, cosine), by a loop."""
    warm = {int(i) for i in inputs.items}
    found = {}
    for i in range(inputs.n_items):
        asked = warm if itself else warm - {i}
        others = [j for j in asked if modality.present[i] and modality.present[j]]
        cosines = [
            functional.cosine_similarity(modality.values[i], modality.values[j], dim=0).item()
            for j in others
        ]
        order = np.argsort([-c for c in cosines], kind="stable")[:k]
        found[i] = [(others[o], cosines[o]) for o in order]
    return found


def mean_matrix(modality, inputs, k):
    matrix = torch.zeros(inputs.n_items, inputs.n_items)
    for i, near in nearest_by_hand(modality, inputs, k).items():
        for j, _ in near:
            matrix[i, j] = 1 / len(near)
    return matrix


def affinity_matrix(modality, inputs, k):
    """D^-1/2 A D^-1/2 of the cosines above 0 of each item's k nearest, its own among them."""
    affinity = torch.zeros(inputs.n_items, inputs.n_items)
    for i, near in nearest_by_hand(modality, inputs, k, itself=True).items():
        for j, cosine in near:
            affinity[i, j] = max(cosine, 0.0)
    degree = affinity.sum(dim=1)
    root = torch.diag(torch.where(degree > 0, degree, torch.inf) ** -0.5)
    return root @ affinity @ root


def rounds(graph, users, items, count):
    """Mean of rounds 0..count of the dense graph."""
    layers = [torch.cat([users, items])]
    for _ in range(count):
        layers.append(graph @ layers[-1])
    mean = torch.stack(layers).mean(dim=0)
    return mean[: len(users)], mean[len(users) :]


def ranking_by_hand(users, items, batch):
    total = 0.0
    for u, i, j in zip(batch.users, batch.items, batch.negatives[:, 0], strict=True):
        margin = users[u] @ items[i] - users[u] @ items[j]
        total = total + torch.log1p(torch.exp(-margin)) / len(batch.users)
    return total


def halved_squares(tables, batch):
    return sum(table.square().sum() for table in tables) / (2 * len(batch.users))


def assert_same(model, got, expected):
    assert set(got) == set(expected)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], msg=lambda m, n=name: f"{n}: {m}")
    parameters = list(model.parameters())
    ours = torch.autograd.grad(sum(got.values()), parameters, retain_graph=True)
    theirs = torch.autograd.grad(sum(expected.values()), parameters)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_lightgcn_is_its_formula(inputs, batch, dense_graph):
    model = LightGCN(inputs, LightGCNSettings(embedding_dim=5, layers=3, regularization=0.1))
    users, items = rounds(dense_graph, model.users.weight, model.items.weight, 3)
    ego = (
        model.users.weight[batch.users],
        model.items.weight[batch.items],
        model.items.weight[batch.negatives[:, 0]],
    )
    expected = {
        "ranking": ranking_by_hand(users, items, batch),
        "regularization": 0.1 * halved_squares(ego, batch),
    }
    assert_same(model, model.loss(batch), expected)


@pytest.mark.parametrize("with_features", [True, False])
def test_vbpr_is_its_formula(inputs, batch, with_features):
    inputs = inputs if with_features else replace(inputs, features={})
    model = VBPR(inputs, VBPRSettings(latent_dim=3, content_dim=4, regularization=0.2))
    torch.nn.init.normal_(model.bias.weight)
    content = torch.cat(
        [inputs.users.new_empty(9, 0).float()] + [m.values for m in inputs.features.values()], dim=1
    )
    content = content / max(content.shape[1], 1) ** 0.5
    scores = model.users.weight @ model.items.weight.T + model.bias.weight.T
    if with_features:
        torch.nn.init.normal_(model.content_bias.weight)
        scores = (
            model.users.weight @ model.items.weight.T
            + model.content_users.weight @ (content @ model.projection.weight.T).T
            + (model.bias.weight + content @ model.content_bias.weight.T).T
        )
    users, items = model.embeddings()
    torch.testing.assert_close(users @ items.T, scores)
    ranking = 0.0
    for u, i, j in zip(batch.users, batch.items, batch.negatives[:, 0], strict=True):
        ranking = ranking + torch.log1p(torch.exp(scores[u, j] - scores[u, i])) / 20
    bias, drawn = model.bias.weight, [model.users.weight[batch.users]]
    places = (batch.items, batch.negatives[:, 0])
    drawn += [model.items.weight[place] for place in places]
    if with_features:
        bias = bias + content @ model.content_bias.weight.T
        drawn.append(model.content_users.weight[batch.users])
        drawn += [(content @ model.projection.weight.T)[place] for place in places]
    drawn += [bias[place] for place in places]
    squares = sum(rows.square().sum() for rows in drawn) + 20  # of the ones that meet the biases
    expected = {"ranking": ranking, "regularization": 0.2 * squares / (2 * 20)}
    assert_same(model, model.loss(batch), expected)


@pytest.mark.parametrize("with_features", [True, False])
def test_freedom_is_its_formula(inputs, batch, dense_graph, with_features):
    inputs = inputs if with_features else replace(inputs, features={})
    settings = FREEDOMSettings(
        embedding_dim=4, layers=2, item_layers=2, neighbours=2, pruned=0.0, content_weight=0.3
    )
    model = FREEDOM(inputs, settings)
    model.begin_epoch(torch.Generator().manual_seed(0))
    users, items = rounds(dense_graph, model.users.weight, model.items.weight, 2)
    expected = {}
    if with_features:
        matrices = [mean_matrix(m, inputs, 2) for m in inputs.features.values()]
        joined = sum(matrices) / len(matrices)
        items = items + joined @ joined @ model.items.weight
        for projection, (name, m) in zip(model.projections, inputs.features.items(), strict=True):
            content = projection(m.values)
            expected[f"{name} ranking"] = 0.3 * ranking_by_hand(users, content, batch)
    expected["ranking"] = ranking_by_hand(users, items, batch)
    assert_same(model, model.loss(batch), expected)


def test_a_row_of_zeros_is_near_to_nobody(inputs):
    """Its cosine with each is 0: to be joined to the first items would be by their order."""
    image = inputs.features["image"]
    values = image.values.clone()
    values[:2] = 0
    zeros = replace(image, values=values)
    lacking = replace(image, present=image.present & values.any(dim=1))
    assert image.present[:2].any() and lacking.present.any()
    for got, expected in zip(
        nearest_edges(zeros, inputs, 3), nearest_edges(lacking, inputs, 3), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_freedom_prunes_popular_edges_more_often(inputs):
    kept = torch.zeros(len(inputs.users))
    for seed in range(600):
        edges = prune(inputs, 0.5, torch.Generator().manual_seed(seed))
        assert len(edges) == round(0.5 * len(inputs.users)) == len(set(edges.tolist()))
        kept[edges] += 1
    degree = (
        torch.bincount(inputs.users)[inputs.users] * torch.bincount(inputs.items)[inputs.items]
    ).float()
    correlation = torch.corrcoef(torch.stack([kept, degree.rsqrt()]))[0, 1]
    assert correlation > 0.9


def test_mgcn_is_its_formula(inputs, batch, dense_graph):
    settings = MGCNSettings(embedding_dim=4, neighbours=2, contrast_weight=0.5, regularization=0.1)
    model = MGCN(inputs, settings)
    x = model.items.weight
    behaviour = rounds(dense_graph, model.users.weight, x, 2)
    item_parts, user_parts = [], []
    for m, inward, gate in zip(inputs.features.values(), model.inward, model.gates, strict=True):
        purified = x * torch.sigmoid(gate(inward(m.values))) * m.present[:, None]
        item_parts.append(affinity_matrix(m, inputs, 2) @ purified)
        user_parts.append(dense_graph[:12, 12:] @ item_parts[-1])

    def fuse(e, parts):
        scores = torch.stack([model.query(part) for part in parts])
        weight = scores.exp() / scores.exp().sum(dim=0)
        shared = sum(w * part for w, part in zip(weight, parts, strict=True))
        special = [
            (part - shared) * torch.sigmoid(p(e))
            for part, p in zip(parts, model.preferences, strict=True)
        ]
        return shared + sum(special) / len(parts)

    content = fuse(behaviour[0], user_parts), fuse(behaviour[1], item_parts)
    users, items = behaviour[0] + content[0], behaviour[1] + content[1]

    def contrast(one, other):
        total = 0.0
        for row in range(len(one)):
            similar = functional.cosine_similarity(one[row][None], other) / 0.2
            total = total - (similar[row] - torch.logsumexp(similar, dim=0)) / len(one)
        return total

    ego = (
        model.users.weight[batch.users],
        x[batch.items],
        x[batch.negatives[:, 0]],
    )
    expected = {
        "ranking": ranking_by_hand(users, items, batch),
        "regularization": 0.1 * halved_squares(ego, batch),
        "contrast": 0.5
        * (
            contrast(behaviour[0][batch.users], content[0][batch.users])
            + contrast(behaviour[1][batch.items], content[1][batch.items])
        ),
    }
    assert_same(model, model.loss(batch), expected)


@pytest.mark.parametrize("with_features", [True, False])
def test_the_graph_filter_is_its_dense_matrix(inputs, with_features):
    inputs = inputs if with_features else replace(inputs, features={})
    settings = GraphFilterSettings(
        user_exponent=0.8,
        item_exponent=0.7,
        low_pass_dim=3,
        low_pass_weight=0.4,
        neighbours=2,
        content_weight=0.7,
    )
    seen = torch.zeros(12, 9, dtype=torch.float64)
    seen[inputs.users, inputs.items] = 1
    user_degree, item_degree = seen.sum(1).clamp(min=1), seen.sum(0).clamp(min=1)
    there = (item_degree**-0.7)[:, None]
    together = there * (seen.T @ (user_degree**-0.8).diag() @ seen) * item_degree**-0.3
    v = torch.linalg.svd(seen / user_degree.sqrt()[:, None] / item_degree.sqrt()).Vh[:3].T
    low_pass = there * (v @ v.T) * item_degree**0.7
    content = torch.zeros(9, 9, dtype=torch.float64)
    for m in inputs.features.values():
        w = torch.zeros(9, 9, dtype=torch.float64)
        for i, near in nearest_by_hand(m, inputs, 2).items():
            for j, cosine in near:
                w[i, j] = w[j, i] = max(cosine, 0)
        scale = w.sum(1).clamp(min=1e-12).rsqrt()
        content += scale[:, None] * w * scale / 2
    matrix = torch.zeros(9, 9, dtype=torch.float64)
    for part, weight in ((together, 1.0), (low_pass, 0.4), (content, 0.7)):
        size = (seen @ part).square().mean().sqrt()
        matrix += weight * part / size if size > 0 else 0
    model = GraphFilter(inputs, settings)
    got = model.rescore(torch.arange(12), torch.arange(9))
    torch.testing.assert_close(got.double(), seen @ matrix, rtol=1e-3, atol=1e-4)


def test_content_is_the_mean_of_a_user_s_items(inputs):
    users, items = ContentNeighbours(inputs, BackboneSettings()).embeddings()
    units = [functional.normalize(m.values, dim=1) for m in inputs.features.values()]
    whole = functional.normalize(torch.cat(units, dim=1), dim=1)
    torch.testing.assert_close(items, whole)
    for u in range(inputs.n_users):
        own = inputs.items[inputs.users == u]
        expected = whole[own].mean(dim=0) if len(own) else torch.zeros(8)
        torch.testing.assert_close(users[u], expected)


@pytest.mark.parametrize("with_features", [True, False])
def test_ease_solves_each_item_s_ridge_regression(inputs, with_features, monkeypatch):
    """Column j of B regresses item j on the others: solved here one by one, without it."""
    monkeypatch.setattr("sgfd.recommenders.backbones.ease.BLOCK_ITEMS", 4)
    inputs = inputs if with_features else replace(inputs, features={})
    seen = torch.zeros(12, 9, dtype=torch.float64)
    seen[inputs.users, inputs.items] = 1
    moments = seen.T @ (seen.sum(1).clamp(min=1) ** -0.7).diag() @ seen
    moments /= moments.diagonal()[seen.sum(0) > 0].mean()
    for m in inputs.features.values():
        for i in range(9):
            for j in range(9):
                cosine = functional.cosine_similarity(m.values[i], m.values[j], dim=0).item()
                moments[i, j] += 0.6 * max(cosine, 0) ** 1.5 / 2
    expected = torch.zeros(9, 9, dtype=torch.float64)
    for j in range(9):
        rest = [i for i in range(9) if i != j]
        ridge = moments[rest][:, rest] + 3.0 * torch.eye(8)
        expected[rest, j] = torch.linalg.solve(ridge, moments[rest, j])
    settings = EASESettings(
        user_exponent=0.7, regularization=3.0, content_weight=0.6, kernel_degree=1.5
    )
    model = EASE(inputs, settings)
    got = model.rescore(torch.arange(12), torch.arange(9)).double()
    torch.testing.assert_close(got, seen @ expected, rtol=1e-4, atol=1e-5)
    users, items = (vectors.double() for vectors in model.embeddings())
    torch.testing.assert_close(users @ items.T, seen @ expected, rtol=1e-4, atol=1e-5)


def test_ease_without_features_is_cornac_s(inputs):
    cornac = pytest.importorskip("cornac")
    seen = inputs.seen
    triples = [(u, i, 1.0) for u in range(seen.n_users) for i in seen.of(u)]
    data = cornac.data.Dataset.from_uir(triples)
    mean_degree = len(triples) / len({i for _, i, _ in triples})
    theirs = cornac.models.EASE(lamb=2.0 * mean_degree, posB=False, verbose=False).fit(data)
    model = EASE(replace(inputs, features={}), EASESettings(user_exponent=0.0, regularization=2.0))
    for user, row in data.uid_map.items():
        scores = model.rescore(torch.tensor([user]), torch.tensor(list(data.iid_map))).numpy()
        np.testing.assert_allclose(scores, theirs.score(row), rtol=1e-4, atol=1e-6)


def test_ease_says_what_it_cannot_do(inputs, monkeypatch):
    with pytest.raises(JobError, match=r"no solution.*raise regularization"):
        item_weights(-torch.eye(3))
    monkeypatch.setattr("sgfd.recommenders.backbones.ease.usable_memory", lambda: 900)
    with pytest.raises(JobError, match=r"9 items need 1.*e-06 GiB.*take graphfilter"):
        EASE(inputs, EASESettings())
