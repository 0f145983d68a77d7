"""The other backbones of SGFD's table, against loops written from their formulas."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from sgfd.recommenders.backbone import Batch
from sgfd.recommenders.backbones import maml
from sgfd.recommenders.backbones.cml import CML, CMLSettings
from sgfd.recommenders.backbones.dgcf import DGCF, DGCFSettings, dependence
from sgfd.recommenders.backbones.grcn import GRCN, GRCNSettings
from sgfd.recommenders.backbones.maml import MAML, MAMLSettings
from sgfd.recommenders.backbones.neumf import NeuMF, NeuMFSettings
from sgfd.recommenders.backbones.ngcf import NGCF, NGCFSettings


@pytest.fixture
def inputs(small_inputs):
    torch.manual_seed(1)
    text = small_inputs.features["text"]
    masked = replace(text, values=text.values * text.present[:, None])
    return replace(small_inputs, features={**small_inputs.features, "text": masked})


def make_batch(inputs, negatives):
    drawn = torch.randint(0, inputs.n_items, (20, negatives))
    return Batch(inputs.users[:20], inputs.items[:20], drawn)


def pairs_of(batch):
    return zip(batch.users, batch.items, batch.negatives, strict=True)


def bpr(users, items, batch):
    margins = [users[u] @ items[i] - users[u] @ items[j[0]] for u, i, j in pairs_of(batch)]
    return sum(torch.log1p(torch.exp(-m)) for m in margins) / len(margins)


def assert_same(model, got, expected):
    assert set(got) == set(expected)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], msg=lambda m, n=name: f"{n}: {m}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    ours = torch.autograd.grad(sum(got.values()), parameters, retain_graph=True)
    theirs = torch.autograd.grad(sum(expected.values()), parameters, allow_unused=True)
    for mine, other in zip(ours, theirs, strict=True):
        other = torch.zeros_like(mine) if other is None else other
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_ngcf_is_its_formula(inputs, dense_graph):
    batch = make_batch(inputs, 1)
    settings = NGCFSettings(embedding_dim=4, layers=2, message_dropout=0.0, regularization=0.1)
    model = NGCF(inputs, settings)
    e = torch.cat([model.users.weight, model.items.weight])
    layers = [e]
    for sums, products in zip(model.sums, model.products, strict=True):
        e = functional.leaky_relu(
            (dense_graph + torch.eye(21)) @ e @ sums.weight.T
            + sums.bias
            + (dense_graph @ e * e) @ products.weight.T
            + products.bias,
            0.2,
        )
        layers.append(e / e.square().sum(dim=1, keepdim=True).sqrt())
    whole = torch.cat(layers, dim=1)
    ego = [
        model.users.weight[u].square().sum()
        + model.items.weight[i].square().sum()
        + model.items.weight[j[0]].square().sum()
        for u, i, j in pairs_of(batch)
    ]
    expected = {
        "ranking": bpr(whole[:12], whole[12:], batch),
        "regularization": 0.1 * sum(ego) / 40,
    }
    assert_same(model, model.loss(batch), expected)


def hinge(liked, others, margin, n_items):
    violating = sum(1.0 for other in others if margin + liked - other > 0) / len(others)
    return np.log(1 + violating * n_items) * max(margin + liked - min(others), liked * 0)


def covariance(points):
    centred = points - points.mean(dim=0)
    matrix = torch.zeros(points.shape[1], points.shape[1])
    for row in centred:
        matrix = matrix + torch.outer(row, row) / len(points)
    return (matrix.square().sum() - torch.diag(matrix).square().sum()) / len(points)


@pytest.mark.parametrize("with_features", [True, False])
def test_cml_is_its_formula(inputs, with_features):
    inputs = inputs if with_features else replace(inputs, features={})
    batch = make_batch(inputs, 3)
    settings = CMLSettings(
        embedding_dim=4, sampled=3, covariance_weight=0.7, content_weight=0.3, dropout=0.0
    )
    model = CML(inputs, settings)
    for table in (model.users, model.items):
        torch.nn.init.normal_(table.weight, std=0.5)
    user, item = model.users.weight, model.items.weight

    def apart(u, i):
        return (user[u] - item[i]).square().sum()

    metric = [hinge(apart(u, i), [apart(u, j) for j in js], 1.0, 9) for u, i, js in pairs_of(batch)]
    points = torch.cat([user[batch.users], item[batch.items]])
    expected = {"metric": sum(metric) / 20, "covariance": 0.7 * covariance(points)}
    if with_features:
        content = torch.cat([m.values for m in inputs.features.values()], dim=1)
        found = model.projection(content)
        there = [i for i in batch.items if any(m.present[i] for m in inputs.features.values())]
        expected["features"] = (
            0.3 * sum((found[i] - item[i]).square().sum() for i in there) / len(there)
        )
    assert_same(model, model.loss(batch), expected)


def test_points_stay_in_the_unit_ball(inputs):
    for model in (CML(inputs, CMLSettings()), MAML(inputs, MAMLSettings())):
        with torch.no_grad():
            model.users.weight *= 1000
            before = model.items.weight.clone()
            model.after_step()
        assert model.users.weight.norm(dim=1).max() <= 1 + 1e-5
        inside = before.norm(dim=1) <= 1
        torch.testing.assert_close(model.items.weight[inside], before[inside])


def test_neumf_is_its_formula(inputs):
    batch = make_batch(inputs, 2)
    model = NeuMF(inputs, NeuMFSettings(factors=3, layers=2, sampled=2, regularization=0.1))
    for table in (model.users, model.items):
        torch.nn.init.normal_(table.weight)

    def logit(u, i):
        user, item = model.users.weight[u], model.items.weight[i]
        deep = torch.cat([user[3:], item[3:]])
        for layer in model.hidden:
            deep = functional.relu(layer(deep))
        return model.output(torch.cat([user[:3] * item[:3], deep]))[0]

    entropy, squares = 0.0, 0.0
    for u, i, js in pairs_of(batch):
        for place, k in enumerate([i, *js]):
            p = torch.sigmoid(logit(u, k))
            entropy = entropy - torch.log(p if place == 0 else 1 - p) / 60
            squares = squares + model.items.weight[k].square().sum() / 20
        squares = squares + model.users.weight[u].square().sum() / 20
    expected = {"classification": entropy, "regularization": 0.1 * squares}
    assert_same(model, model.loss(batch), expected)
    got = model.rescore(torch.arange(12), torch.arange(9))
    table = torch.stack([torch.stack([logit(u, i) for i in range(9)]) for u in range(12)])
    torch.testing.assert_close(got, table)


@pytest.mark.parametrize("with_features", [True, False])
def test_maml_is_its_formula(inputs, with_features, monkeypatch):
    inputs = inputs if with_features else replace(inputs, features={})
    batch = make_batch(inputs, 3)
    d = 4
    model = MAML(inputs, MAMLSettings(embedding_dim=d, sampled=3, dropout=0.0))
    torch.nn.init.normal_(model.users.weight, std=0.4)
    torch.nn.init.normal_(model.items.weight, std=0.4)
    there = torch.zeros(9, dtype=torch.bool)
    for m in inputs.features.values():
        there |= m.present
    if with_features:
        content = functional.normalize(
            torch.cat([m.values for m in inputs.features.values()], dim=1), dim=1
        )

    def projected(i):
        f = content[i]
        for at, width in enumerate((256, 128, 128)):  # each with LeakyReLU and dropout
            f = functional.leaky_relu(model.projection[at](f))
            assert f.shape == (width,)
        f = model.projection[3](f)
        return f / f.norm().clamp(min=1)

    def distance(u, i):
        user, item = model.users.weight[u], model.items.weight[i]
        views = [user, item]
        if with_features:
            views.append(projected(i) if there[i] else torch.zeros(d))
        x = torch.cat(views)
        hidden = torch.tanh(model.inward(x / x.norm()))
        weight = d * functional.relu(model.outward(hidden)).softmax(dim=0)
        return (weight * (user - item)).square().sum()

    metric = [
        hinge(distance(u, i), [distance(u, j) for j in js], 1.0, 9) for u, i, js in pairs_of(batch)
    ]
    points = torch.cat([model.users.weight[batch.users], model.items.weight[batch.items]])
    decayed = sum(
        w for layer in (model.inward, model.outward) for w in layer.weight.reshape(-1) ** 2
    )
    expected = {
        "metric": sum(metric) / 20,
        "covariance": 5.0 * covariance(points),
        "attention weight decay": 100.0 / 2 * decayed / 20,
    }
    if with_features:
        chosen = [k for _, i, js in pairs_of(batch) for k in (i, *js) if there[k]]
        apart = [(model.items.weight[k] - projected(k)).square().sum() for k in chosen]
        expected["features"] = sum(apart) / len(apart)
    assert_same(model, model.loss(batch), expected)
    table = torch.stack([torch.stack([distance(u, i) for i in range(9)]) for u in range(12)])
    for pairs in (1, 4, 20, 1_000):  # some of a user's items, or some users, at once
        monkeypatch.setattr(maml, "PAIRS_A_SLICE", pairs)
        got = model.rescore(torch.arange(12), torch.arange(9))
        torch.testing.assert_close(got, -table, rtol=1e-4, atol=1e-5)


def test_mamls_distance_has_the_gradient_of_finite_differences():
    torch.manual_seed(0)
    shapes = ((3, 2, 6), (3, 2), (3, 2, 4), (6,), (4, 6), (4,))
    first, squares, *rest = (torch.randn(*shape, dtype=torch.float64) for shape in shapes)
    arguments = [x.requires_grad_() for x in (first, 0.1 + squares.square(), *rest)]
    assert torch.autograd.gradcheck(maml.attentive_distance, arguments)
    nowhere = arguments[0].detach() * 0, arguments[1].detach() * 0, *arguments[2:]
    assert torch.isfinite(maml.attentive_distance(*nowhere)).all()


def test_mamls_attention_can_be_left_as_it_starts(inputs):
    model = MAML(inputs, MAMLSettings(embedding_dim=4, sampled=3, train_attention=False))
    torch.nn.init.normal_(model.users.weight, std=0.4)
    torch.stack(list(model.loss(make_batch(inputs, 3)).values())).sum().backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    networks = {f"projection.{at}.{part}" for at in range(4) for part in ("weight", "bias")}
    assert reached == {"users.weight", "items.weight"} | networks


def edges_of(inputs):
    return list(zip(inputs.users.tolist(), inputs.items.tolist(), strict=True))


@pytest.mark.parametrize("with_features", [True, False])
def test_grcn_is_its_formula(inputs, with_features):
    inputs = inputs if with_features else replace(inputs, features={})
    batch = make_batch(inputs, 1)
    model = GRCN(inputs, GRCNSettings(embedding_dim=4, weight_decay=0.1))
    with torch.no_grad():
        model.user_confidence -= 0.4
    edges = edges_of(inputs)

    def softmax(edges, logit, target):
        """By edge: share among the edges of the same target."""
        return {
            e: torch.exp(logit[e])
            / sum(torch.exp(logit[o]) for o in edges if target(o) == target(e))
            for e in edges
        }

    def of_user(e):
        return e[0]

    def of_item(e):
        return e[1]

    users, items, to_users, to_items = [], [], {e: [] for e in edges}, {e: [] for e in edges}
    for number, m in enumerate(inputs.features.values()):
        mine = [e for e in edges if m.present[e[1]]]
        raw = functional.leaky_relu(model.projections[number](m.values))
        c = [raw[i] / raw[i].norm() if m.present[i] else torch.zeros(4) for i in range(9)]
        table = model.preferences[number].weight
        rho = [table[u] / table[u].norm() for u in range(12)]
        for _ in range(3):
            alpha = softmax(mine, {e: rho[e[0]] @ c[e[1]] for e in mine}, of_user)
            moved = [
                rho[u] + sum((alpha[e] * c[e[1]] for e in mine if e[0] == u), torch.zeros(4))
                for u in range(12)
            ]
            rho = [x / x.norm() for x in moved]
        logit = {e: rho[e[0]] @ c[e[1]] for e in mine}
        alpha_u, alpha_i = softmax(mine, logit, of_user), softmax(mine, logit, of_item)
        users.append(
            torch.stack(
                [
                    rho[u] + sum((alpha_u[e] * c[e[1]] for e in mine if e[0] == u), torch.zeros(4))
                    for u in range(12)
                ]
            )
        )
        items.append(
            torch.stack(
                [
                    c[i] + sum((alpha_i[e] * rho[e[0]] for e in mine if e[1] == i), torch.zeros(4))
                    for i in range(9)
                ]
            )
        )
        for e in edges:
            zero = torch.zeros(())
            to_users[e].append(alpha_u.get(e, zero) * model.item_confidence[e[1], number])
            to_items[e].append(alpha_i.get(e, zero) * model.user_confidence[e[0], number])
    if not with_features:
        for e in edges:
            near_u = sum(1 for o in edges if o[0] == e[0])
            near_i = sum(1 for o in edges if o[1] == e[1])
            to_users[e].append(model.item_confidence[e[1], 0] / near_u)
            to_items[e].append(model.user_confidence[e[0], 0] / near_i)
    w_users = {e: torch.relu(torch.stack(to_users[e]).max()) for e in edges}
    w_items = {e: torch.relu(torch.stack(to_items[e]).max()) for e in edges}
    v_users = [x / x.norm() for x in model.users.weight]
    v_items = [x / x.norm() for x in model.items.weight]
    sum_users, sum_items = v_users, v_items
    for _ in range(2):
        next_users = [
            sum((w_users[e] * v_items[e[1]] for e in edges if e[0] == u), torch.zeros(4))
            for u in range(12)
        ]
        next_items = [
            sum((w_items[e] * v_users[e[0]] for e in edges if e[1] == i), torch.zeros(4))
            for i in range(9)
        ]
        v_users, v_items = next_users, next_items
        sum_users = [a + b for a, b in zip(sum_users, v_users, strict=True)]
        sum_items = [a + b for a, b in zip(sum_items, v_items, strict=True)]
    all_users = torch.cat([torch.stack(sum_users), *users], dim=1)
    all_items = torch.cat([torch.stack(sum_items), *items], dim=1)
    got_users, got_items = model.embeddings()
    torch.testing.assert_close(got_users, all_users)
    torch.testing.assert_close(got_items, all_items)
    ids = [
        model.users.weight[batch.users],
        model.items.weight[batch.items],
        model.items.weight[batch.negatives[:, 0]],
    ]
    decay = sum(rows.square().mean() for rows in ids) / 3
    for preference in model.preferences:
        decay = decay + preference.weight[batch.users].square().mean()
    expected = {"ranking": bpr(all_users, all_items, batch), "weight decay": 0.1 * decay}
    assert_same(model, model.loss(batch), expected)


def test_dgcf_is_its_formula(inputs):
    batch = make_batch(inputs, 1)
    model = DGCF(
        inputs,
        DGCFSettings(
            embedding_dim=6,
            intents=3,
            iterations=3,
            layers=2,
            independence_weight=0.5,
            independence_rows=7,
            regularization=0.1,
        ),
    )
    for table in (model.users, model.items):  # far enough apart that no distance is near 0
        torch.nn.init.normal_(table.weight)
    edges = edges_of(inputs)

    def layer(users, items):
        logits = {e: torch.ones(3) for e in edges}
        for _ in range(3):
            p = {e: logits[e].softmax(dim=0).detach() for e in edges}
            near_users = [[torch.zeros(2) for _ in range(12)] for _ in range(3)]
            near_items = [[torch.zeros(2) for _ in range(9)] for _ in range(3)]
            for k in range(3):
                for u, i in edges:
                    degree_u = sum(p[e][k] for e in edges if e[0] == u)
                    degree_i = sum(p[e][k] for e in edges if e[1] == i)
                    weight = p[u, i][k] / torch.sqrt(degree_u * degree_i)
                    near_users[k][u] = near_users[k][u] + weight * items[i, 2 * k : 2 * k + 2]
                    near_items[k][i] = near_items[k][i] + weight * users[u, 2 * k : 2 * k + 2]
            for u, i in edges:
                logits[u, i] = logits[u, i] + torch.stack(
                    [near_users[k][u] @ torch.tanh(items[i, 2 * k : 2 * k + 2]) for k in range(3)]
                )
        return (
            torch.cat([torch.stack(near_users[k]) for k in range(3)], dim=1),
            torch.cat([torch.stack(near_items[k]) for k in range(3)], dim=1),
        )

    users, items = model.users.weight, model.items.weight
    sum_users, sum_items = users, items
    for _ in range(2):
        users, items = layer(users, items)
        sum_users, sum_items = sum_users + users, sum_items + items
    got_users, got_items = model.embeddings()
    torch.testing.assert_close(got_users, sum_users)
    torch.testing.assert_close(got_items, sum_items)
    rows = torch.cat([sum_users[batch.users[:7]], sum_items[batch.items[:7]]])
    chunks = [rows[:, 2 * k : 2 * k + 2] for k in range(3)]
    alike = [distance_correlation(chunks[a], chunks[b]) for a in range(3) for b in range(a + 1, 3)]
    ego = (
        model.users.weight[batch.users],
        model.items.weight[batch.items],
        model.items.weight[batch.negatives[:, 0]],
    )
    expected = {
        "ranking": bpr(sum_users, sum_items, batch),
        "independence": 0.5 * sum(alike) / 3,
        "regularization": 0.1 * sum(x.square().sum() for x in ego) / (2 * len(batch.users)),
    }
    assert_same(model, model.loss(batch), expected)


def distance_correlation(x, y):
    """Of rows (n, c) and (n, d), each a sample, by its definition."""

    def centred(rows):
        squares = (rows[:, None] - rows[None]).square().sum(dim=2)
        differ = (squares > 0).float()  # the root of 0 has no gradient
        apart = (squares + 1 - differ).sqrt() * differ
        return apart - apart.mean(0) - apart.mean(1)[:, None] + apart.mean()

    a, b = centred(x), centred(y)
    return ((a * b).mean() / ((a * a).mean() * (b * b).mean()).sqrt()).sqrt()


def test_distance_correlation_by_its_definition(rng):
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(30, 3))
    y[:, 0] += x[:, 0] ** 2

    def centred(rows):
        a = np.linalg.norm(rows[:, None] - rows[None], axis=2)
        return a - a.mean(0) - a.mean(1)[:, None] + a.mean()

    a, b = centred(x), centred(y)
    expected = np.sqrt((a * b).mean() / np.sqrt((a * a).mean() * (b * b).mean()))
    x = np.pad(x, ((0, 0), (0, 1)))  # as wide as y, the distances what they were
    chunks = torch.from_numpy(np.stack([x, y])).float()
    assert dependence(chunks).item() == pytest.approx(expected, abs=1e-3)
    assert dependence(torch.stack([chunks[0], chunks[0] * 3])).item() == pytest.approx(1, abs=1e-3)
    assert dependence(chunks[:1]).item() == 0
