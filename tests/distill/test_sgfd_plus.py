"""The guided student: its objective against plain formulas, what it gains, that it goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from sgfd.dataset import Feature, Interactions, ItemCatalog, Pairs, Vocabulary, load_dataset
from sgfd.distill import InteractionMetricSettings, SGFDPlusSettings, distill
from sgfd.distill import sgfd_plus as plus
from sgfd.distill.objective import Interaction, Structure
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.sgfd_plus import Profiles, SGFDPlus
from sgfd.featureset import load, verify

QUICK = SGFDPlusSettings(dimension=16, epochs=5, batch_size=128)


@pytest.fixture(scope="module")
def guided(tmp_path_factory):
    target = tmp_path_factory.mktemp("sets") / "sample"
    return distill(load_dataset("sample"), target, QUICK, threads=1)


def test_interaction_loss_is_that_of_the_formula(rng):
    z = rng.normal(size=(5, 3))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    history = np.array([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]])
    targets = np.array([[0, 0, 1, 0, 0], [1, 0, 0, 0, 1]])
    losses = []
    for h, t in zip(history, targets, strict=True):
        p = z[h == 1].sum(axis=0)
        p /= np.linalg.norm(p)
        e = {c: np.exp(p @ z[c] / 0.2) for c in np.flatnonzero(h == 0)}
        losses.append(-np.mean([np.log(e[c] / sum(e.values())) for c in np.flatnonzero(t)]))
    found = interaction_loss(z, history, targets, 0.2)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-9)


def interaction_loss(z, history, targets, temperature, degrees=None):
    """Of dense (b, c) matrices of 0 and 1."""
    z, history, targets = (torch.as_tensor(x) for x in (z, history, targets))
    where = [x.nonzero().T for x in (history, targets)]
    return Interaction(temperature)([z], *where, targets.sum(dim=1).double(), degrees)


def test_without_popularity_it_is_that_of_adjusted_logits(rng):
    z = functional.normalize(torch.from_numpy(rng.normal(size=(5, 3))), dim=1).requires_grad_()
    history = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]])
    targets = torch.tensor([[0, 0, 1, 0, 1], [1, 0, 0, 0, 0]])
    degrees = torch.tensor([3.0, 1.0, 9.0, 2.0, 4.0], dtype=torch.double)
    profile = functional.normalize(history.double() @ z, dim=1)
    scores = (profile @ z.T / 0.2 + degrees.log()).masked_fill(history > 0, -torch.inf)
    log_p = scores.log_softmax(dim=1)
    first = (log_p[0, 2] / 3 + log_p[0, 4] / 2) / (1 / 3 + 1 / 2)  # 9^-1/2 and 4^-1/2
    plain = -(first + log_p[1, 0]) / 2
    ours = interaction_loss(z, history, targets, 0.2, degrees)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-9)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def steep():
    """Content tells who likes what, and a few items are taken by all kinds of users."""
    rng = np.random.default_rng(0)
    kind, centres = rng.integers(0, 20, 400), rng.normal(size=(20, 64))
    content = centres[kind] + rng.normal(size=(400, 64)) * 2
    popularity = 1 / (rng.permutation(400) + 1.0)
    users = []
    for _ in range(800):
        p = popularity * np.where(np.isin(kind, rng.choice(20, 2, replace=False)), 10, 1)
        users.append(rng.choice(400, 8, replace=False, p=p / p.sum()))
    pairs = Pairs(np.repeat(np.arange(800), 8), np.concatenate(users).astype(np.int64))
    nothing = pairs.take(np.zeros(len(pairs), dtype=bool))
    items = Vocabulary([f"i{number}" for number in range(400)])
    people = Vocabulary([f"u{number}" for number in range(800)])
    return replace(
        load_dataset("sample"),
        catalog=ItemCatalog(items, {"x": Feature.from_array("x", content.astype(np.float32))}),
        interactions=Interactions(people, items, pairs, nothing, None),
    )


def test_popularity_is_left_to_the_loss_where_it_does_harm(steep, tmp_path, caplog):
    caplog.set_level("INFO", "sgfd")
    settings = SGFDPlusSettings(
        dimension=16, epochs=10, batch_size=64, learning_rate=1e-2, held_out_share=0.3
    )
    made = {
        debias: distill(steep, tmp_path / debias, replace(settings, debias=debias), threads=1)
        for debias in ("off", "on", "auto")
    }
    rows = {debias: load(each.artifact).modalities["x"] for debias, each in made.items()}
    recall = {debias: each.quality["held_out_recall@20"] for debias, each in made.items()}
    assert recall["on"]["student"] > recall["off"]["student"] + 0.02
    assert "popularity is left to the loss" in caplog.text
    np.testing.assert_array_equal(rows["auto"], rows["on"])
    assert made["auto"].quality["debiased"] is True and "debiased" not in made["off"].quality
    assert recall["auto"] == recall["on"]


def test_popularity_stays_where_it_does_no_harm(guided, tmp_path):
    off = distill(load_dataset("sample"), tmp_path / "x", replace(QUICK, debias="off"), threads=1)
    assert "debiased" not in guided.quality
    for name in ("fused.npy", "student.safetensors"):
        assert (off.artifact / name).read_bytes() == (guided.artifact / name).read_bytes()


@pytest.mark.parametrize("temperature", [0.2, 1e-3])  # whose powers alone would overflow
def test_interaction_loss_has_the_gradient_of_the_formula(rng, temperature):
    z = torch.from_numpy(rng.normal(size=(6, 4))).requires_grad_()
    history = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]])
    targets = torch.tensor([[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0]])

    def plainly(z):
        profile = functional.normalize(history.double() @ z, dim=1)
        scores = (profile @ z.T / temperature).masked_fill(history > 0, -torch.inf)
        found = scores.log_softmax(dim=1).masked_fill(targets == 0, 0).sum(dim=1)
        return -(found / targets.sum(dim=1)).mean()

    ours, plain = interaction_loss(z, history, targets, temperature), plainly(z)
    assert ours.item() == pytest.approx(plain.item(), rel=1e-9)
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (ours, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradcheck(
        lambda z: interaction_loss(z, history, targets, max(temperature, 0.2)), [z]
    )


def test_structure_loss_is_zero_for_the_same_cosines_alone(rng):
    u = functional.normalize(torch.from_numpy(rng.normal(size=(6, 4))), dim=1)
    turned = u @ torch.from_numpy(np.linalg.qr(rng.normal(size=(4, 4)))[0])
    assert float(Structure()(turned, u)) == pytest.approx(0, abs=1e-12)
    other = functional.normalize(torch.from_numpy(rng.normal(size=(6, 2))), dim=1)
    assert float(Structure()(other, u)) == pytest.approx(
        ((other @ other.T - u @ u.T) ** 2).mean().item()
    )


def test_modality_dropout_leaves_whole_modalities(rng):
    settings = SGFDPlusSettings(dimension=2, modality_dropout=0.99)
    model = SGFDPlus(torch.ones(2, 5), [3, 2], 0, settings).train()
    rows = torch.from_numpy(rng.normal(size=(200, 5))).float()
    rows[:50, 3:] = 0  # items with the first modality alone
    rows = functional.normalize(rows, dim=1)
    left = model._with_one_modality(rows)
    there = torch.stack([(left[:, :3] != 0).any(1), (left[:, 3:] != 0).any(1)], dim=1)
    assert there.any(dim=1).all()  # nobody is left without
    assert there[50:].float().mean() == pytest.approx(0.5, abs=0.1)
    np.testing.assert_allclose(left.norm(dim=1).numpy(), 1, atol=1e-5)
    assert torch.equal(model.eval()._with_one_modality(rows), rows)


@pytest.mark.parametrize("one_by_one", [0, 10**6])
def test_a_share_of_the_entries_is_left_out_at_random(one_by_one, rng, monkeypatch):
    monkeypatch.setattr(plus, "ONE_BY_ONE", one_by_one)
    rows = torch.from_numpy(rng.uniform(1, 2, size=(400, 50))).float()

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return plus.with_entries_left_out(rows, 0.4)

    left, again, other = drawn(0), drawn(0), drawn(1)
    gone = left == 0
    assert gone.float().mean() == pytest.approx(0.4, abs=0.02)
    assert gone.float().mean(dim=0).std() == pytest.approx(np.sqrt(0.24 / 400), rel=0.3)
    assert gone.float().mean(dim=1).std() == pytest.approx(np.sqrt(0.24 / 50), rel=0.3)
    assert torch.equal(left, again) and not torch.equal(left, other)
    factor = (left / rows)[~gone]
    torch.testing.assert_close(factor, factor[:1].expand_as(factor))
    torch.testing.assert_close(plus.with_entries_left_out(rows, 0.0), rows)


def test_pairs_of_some_items_and_of_the_others_are_all_pairs(rng):
    user, item = (rng.random((20, 15)) < 0.3).nonzero()
    pairs = TrainingPairs.of(user, item, 20, 15)
    some = np.array([1, 4, 7])
    left, taken = pairs.without(some), pairs.only(some)
    assert len(left) + len(taken) == len(pairs) == len(user)
    assert not np.isin(left.items, some).any() and np.isin(taken.items, some).all()
    blocks = [block for _, block in pairs.blocks(17)]
    assert sum(block.shape[0] for block in blocks) == 20
    assert sum(block.nnz for block in blocks) == len(pairs)


def test_the_set_is_whole_and_says_what_it_gains(guided):
    assert verify(guided.artifact) == []
    recall = guided.quality["held_out_recall@20"]
    # The sample's features tell more than its interactions do: nothing is lost, at least.
    assert recall["student"] >= recall["closed_form"] * 0.98
    assert load(guided.artifact).manifest.modalities[0].nested == [16]


def test_the_card_says_what_guided_it_and_how_new_items_are_embedded(guided):
    card = (guided.artifact / "README.md").read_text()
    use = load(guided.artifact).manifest.interactions
    assert f"{use.pairs} training interactions guided it: those of split `given`, seed 0" in card
    assert "embeds new items: `W unit((x - mean) / scale) + b`, to unit norm." in card
    assert "`fused` sums them, before the norm, over those of image, text that an item" in card
    assert "- held out recall@20: share of a user's items among the 20 nearest" in card
    assert "- fidelity: mean cosine of student and teacher" in card


def test_fidelity_is_the_cosine_of_the_student_and_where_it_starts(guided, tmp_path):
    settings = InteractionMetricSettings(dimension=16)
    start = distill(load_dataset("sample"), tmp_path / "start", settings, threads=1)
    for name in ("fused", "image", "text"):
        rows = [np.load(made.artifact / f"{name}.npy") for made in (guided, start)]
        cosines = np.nansum(rows[0] * rows[1], axis=1)[~np.isnan(rows[0][:, 0])]
        fidelity = guided.quality[name]["fidelity"]
        assert fidelity == pytest.approx(cosines.mean(), abs=1e-5)
        assert 0 < fidelity < 1


def test_guidance_finds_what_content_hides(made, rng, tmp_path):
    """Two features tell groups apart, 60 are noise: generic cosines drown, guided ones do not."""
    n, users, each = 480, 800, 4
    group = rng.integers(0, 8, n)
    angle = group * np.pi / 4
    content = rng.normal(size=(n, 62))
    content[:, 0], content[:, 1] = 6 * np.cos(angle), 6 * np.sin(angle)
    dataset = made(None, n, image=content.astype(np.float32))
    taste = rng.integers(0, 8, users)
    member = np.stack([rng.choice(np.flatnonzero(group == t), each, replace=False) for t in taste])
    user, item = np.repeat(np.arange(users), each), member.reshape(-1)
    result = distill(
        interacted(dataset, user, item),
        tmp_path / "x",
        SGFDPlusSettings(dimension=8, epochs=20, held_out_share=0.2),
        threads=1,
    )
    recall = result.quality["held_out_recall@20"]
    assert recall["student"] > 1.5 * recall["generic"]


@pytest.mark.parametrize("input_normalised", [True, False])
def test_a_reader_embeds_new_items_as_the_set_was_made(input_normalised, tmp_path):
    settings = replace(QUICK, epochs=1, input_normalised=input_normalised, held_out_share=0)
    dataset = load_dataset("sample")
    made = load(distill(dataset, tmp_path / "x", settings, threads=1).artifact)
    assert made.manifest.student.input_normalised == input_normalised
    index = np.arange(dataset.catalog.n_items)
    generic = {name: f.rows(index) for name, f in dataset.catalog.features.items()}
    np.testing.assert_allclose(made.embed("fused", generic), made.modalities["fused"], atol=2e-5)
    for name, rows in generic.items():
        np.testing.assert_allclose(made.embed(name, rows), made.modalities[name], atol=2e-5)


def test_without_any_weight_the_closed_form_is_what_is_kept(tmp_path):
    start = distill(
        load_dataset("sample"),
        tmp_path / "start",
        InteractionMetricSettings(dimension=16),
        threads=1,
    )
    settings = replace(QUICK, interaction_weight=0, held_out_share=0)
    kept = distill(load_dataset("sample"), tmp_path / "kept", settings, threads=1)
    rows = [np.load(made.artifact / "fused.npy") for made in (start, kept)]
    np.testing.assert_allclose(*rows, atol=1e-5)


def test_twice_the_same_is_the_same_bytes(guided, tmp_path, same_bytes):
    again = distill(load_dataset("sample"), tmp_path / "again", QUICK, threads=1)
    assert same_bytes(guided.artifact, again.artifact)


def test_without_interactions_it_says_so_and_keeps_the_content(made, rng, tmp_path, caplog):
    values = rng.normal(size=(12, 6)).astype(np.float32)
    result = distill(made(None, image=values), tmp_path / "x", SGFDPlusSettings(dimension=6))
    assert "guides the student" in caplog.text
    z = np.load(result.artifact / "image.npy")
    x = (values - values.mean(axis=0)) / values.std(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(z @ z.T, x @ x.T, atol=1e-4)


WEIGHED = replace(QUICK, epochs=1, structure_weight=0.5, semantic_weight=0.5)


@pytest.mark.parametrize(
    ("labels", "guided", "said"),
    [
        ([0, 1] * 6, True, None),
        (None, True, "semantic_weight: without effect, as no item has a label"),
        ([-1] * 12, True, "semantic_weight: without effect, as no item has a label"),
        ([0, 1] * 6, False, "structure_weight and semantic_weight: without effect, as nothing"),
    ],
)
def test_weights_that_can_not_act_are_named(labels, guided, said, made, rng, tmp_path, caplog):
    values = rng.normal(size=(12, 20)).astype(np.float32)
    dataset = interacted(made(labels, image=values), [0, 0, 1, 1], [0, 1, 2, 3])
    if not guided:
        dataset = replace(dataset, interactions=None)
    distill(dataset, tmp_path / "x", WEIGHED, threads=1)
    messages = [record.getMessage() for record in caplog.records]
    assert [text for text in messages if "without effect" in text] == [
        text for text in messages if said and text.startswith(said)
    ]
    assert ("without effect" in caplog.text) == (said is not None)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", range(4))
def test_two_items_are_enough(seed, made, tmp_path):
    """All that tells them apart is one direction, which the map may be orthogonal to."""
    rng = np.random.default_rng(seed)
    values = {name: rng.normal(size=(2, 8)).astype(np.float32) for name in ("image", "text")}
    dataset = interacted(made(None, n=2, **values), [0, 0, 1, 1, 2, 2], [0, 1] * 3)
    result = distill(dataset, tmp_path / "x", QUICK, threads=1)
    rows = np.load(result.artifact / "fused.npy")
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_labels_that_guided_it_are_not_asked_for(made, rng, tmp_path):
    """All labels did, so that no item is left that could tell how well others' are met."""
    values = rng.normal(size=(12, 20)).astype(np.float32)
    dataset = interacted(made([0, 1] * 6, image=values), [0, 0, 1, 1], [0, 1, 2, 3])
    for weight, told in ((0.0, True), (0.5, False)):
        settings = replace(WEIGHED, semantic_weight=weight)
        result = distill(dataset, tmp_path / f"{weight}", settings, threads=1)
        assert ("neighbour_agreement" in result.quality["image"]) == told
        assert ("majority_accuracy" in result.quality) == told


@pytest.mark.parametrize("kind", [SGFDPlusSettings, InteractionMetricSettings])
def test_a_size_that_content_does_not_have_is_told_of(kind, made, rng, tmp_path, caplog):
    values = rng.normal(size=(12, 6)).astype(np.float32)
    dataset = interacted(made(None, image=values), [0, 0, 1, 1], [0, 1, 2, 3])
    result = distill(dataset, tmp_path / "x", kind(dimension=9), threads=1)
    assert "have 6 columns together, so the dimension is 6, not 9" in caplog.text
    assert np.load(result.artifact / "image.npy").shape == (12, 6)


def interacted(dataset, user, item):
    """The data set with these training interactions."""
    nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    users = Vocabulary([f"u{k}" for k in range(max(user) + 1)])
    pairs = Pairs(np.array(user), np.array(item))
    return replace(
        dataset, interactions=Interactions(users, dataset.catalog.items, pairs, nothing, nothing)
    )


@pytest.fixture
def without_content(made, rng):
    """Two users of items without any feature, the second one of an item that has them, too."""
    values = rng.normal(size=(12, 6)).astype(np.float32)
    values[:4] = np.nan
    return interacted(made(None, image=values), [0, 0, 1, 1, 1], [0, 1, 2, 3, 5])


@pytest.mark.filterwarnings("error")
def test_where_no_user_has_two_items_with_content_it_falls_back(without_content, tmp_path, caplog):
    guided = distill(without_content, tmp_path / "a", SGFDPlusSettings(dimension=6), threads=1)
    assert "no user with 2 training items that have features guides the student" in caplog.text
    free = replace(without_content, interactions=None)
    other = distill(free, tmp_path / "b", SGFDPlusSettings(dimension=6), threads=1)
    rows = [np.load(result.artifact / "image.npy") for result in (guided, other)]
    np.testing.assert_array_equal(*rows)


@pytest.mark.filterwarnings("error")
def test_left_without_content_it_measures_nothing_and_is_guided(made, rng, tmp_path):
    """Both items that have content and a user are held out."""
    values = rng.normal(size=(12, 6)).astype(np.float32)
    values[:4] = np.nan
    dataset = interacted(made(None, image=values), [0, 0, 1, 1, 0, 0], [0, 1, 2, 3, 5, 6])
    settings = replace(QUICK, dimension=6, epochs=1, held_out_share=0.5)
    result = distill(dataset, tmp_path / "x", settings, seed=1, threads=1)
    assert "held_out_recall@20" not in result.quality
    assert np.isfinite(np.load(result.artifact / "image.npy")[4:]).all()


@pytest.mark.filterwarnings("error")
def test_items_that_are_all_alike_break_nothing(made, tmp_path):
    dataset = interacted(made(None, image=np.ones((12, 6), np.float32)), [0, 0, 1], [0, 1, 2])
    result = distill(dataset, tmp_path / "x", replace(QUICK, dimension=6, epochs=1), threads=1)
    assert not np.load(result.artifact / "image.npy").any()


@pytest.mark.parametrize("reads", [1, 8, 30])
def test_an_interrupted_one_goes_on_to_the_same_bytes(
    reads, guided, tmp_path, interrupt_at, same_bytes
):
    """Ctrl-C while the epochs are chosen, and while all items train (the last of them)."""
    interrupt_at(Profiles, reads)
    with pytest.raises(KeyboardInterrupt):
        distill(load_dataset("sample"), tmp_path / "sample", QUICK, threads=1)
    resumed = distill(load_dataset("sample"), tmp_path / "sample", QUICK, threads=1)
    assert same_bytes(resumed.artifact, guided.artifact)
    assert resumed.quality == guided.quality
