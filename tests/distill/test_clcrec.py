"""CLCRec: its loss against the plain formula, what it gains, that it goes on."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sgfd.dataset import DatasetError, load_dataset
from sgfd.distill import CLCRecSettings, DistillError, distill
from sgfd.distill.clcrec import CLCRec, InteractionBatch, InteractionReader
from sgfd.featureset import load, verify

QUICK = CLCRecSettings(dimension=16, hidden_width=32, epochs=4, negatives=64)


def test_loss_is_that_of_the_formula(rng):
    settings = replace(QUICK, dimension=3, temperature=0.5, content_share=0.0)
    torch.manual_seed(0)
    model = CLCRec(5, 4, 6, settings).double()
    u, items = torch.from_numpy(rng.normal(size=(4, 5))), torch.tensor([0, 2, 3, 5])
    excluded = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)
    batch = InteractionBatch(torch.tensor([1, 3]), items, u, torch.tensor([0, 2]), excluded)
    p = model.users.weight.detach().numpy()[[1, 3]]
    z = model.items.weight.detach().numpy()[items.numpy()]
    f = model.encoder(u).detach().numpy()
    user_item, aligned = [], []
    for k, own in enumerate((0, 2)):
        allowed = ~excluded[k].numpy()
        g = np.exp(z @ p[k] / 0.5)
        user_item.append(-np.log(g[own] / g[allowed].sum()))
        cosine = f @ z[own] / np.linalg.norm(f, axis=1) / np.linalg.norm(z[own])
        c = np.exp(cosine / 0.5)
        aligned.append(-np.log(c[own] / c[allowed].sum()))
    parts = {name: part.item() for name, part in model.loss(batch).items()}
    assert parts["user_item"] == pytest.approx(0.5 * np.mean(user_item))
    assert parts["content_embedding"] == pytest.approx(0.5 * np.mean(aligned))
    penalty = ((p**2).sum() + (z[[0, 2]] ** 2).sum()) / 2
    assert parts["regularization"] == pytest.approx(1e-3 * penalty)


def test_users_meet_items_by_their_content_too(rng):
    torch.manual_seed(0)
    model = CLCRec(5, 4, 6, replace(QUICK, dimension=3, content_share=1.0))
    u = torch.from_numpy(rng.normal(size=(4, 5))).float()
    batch = InteractionBatch(
        torch.tensor([1, 3]),
        torch.tensor([0, 2, 3, 5]),
        u,
        torch.tensor([0, 2]),
        torch.zeros(2, 4, dtype=torch.bool),
    )
    model.loss(batch)["user_item"].backward()
    assert model.encoder[0].weight.grad.abs().sum() > 0
    assert model.items.weight.grad is None or model.items.weight.grad.abs().sum() == 0


@pytest.fixture(scope="module")
def made_set(tmp_path_factory):
    target = tmp_path_factory.mktemp("sets") / "sample"
    return distill(load_dataset("sample"), target, QUICK, method="clcrec", threads=1)


def test_the_set_is_whole_and_says_what_it_saw(made_set):
    assert verify(made_set.artifact) == []
    manifest = load(made_set.artifact).manifest
    assert manifest.interactions.split == "given" and manifest.student is None
    assert set(made_set.quality["held_out_recall@20"]) == {"generic", "encoder_at_its_best_epoch"}
    assert 1 <= made_set.quality["trained_epochs"] <= QUICK.epochs


def test_a_training_part_of_nothing_is_refused(tmp_path):
    sample = load_dataset("sample")
    timed = {
        part: replace(pairs, timestamp=np.zeros(len(pairs), np.int64))
        for part, pairs in (
            ("train", sample.interactions.train),
            ("test", sample.interactions.test),
        )
    }
    at_once = replace(sample, interactions=replace(sample.interactions, **timed))
    with pytest.raises(DatasetError, match="too many of one time, for split temporal"):
        distill(at_once, tmp_path / "x", method="clcrec", split="temporal", threads=1)
    nothing = sample.interactions.train.take(np.zeros(len(sample.interactions.train), bool))
    untrained = replace(sample, interactions=replace(sample.interactions, train=nothing))
    with pytest.raises(DistillError, match="has no training interactions, and method clcrec"):
        distill(untrained, tmp_path / "x", method="clcrec", threads=1)
    assert list(tmp_path.iterdir()) == []


def test_threads_add_in_one_order(tmp_path):
    settings = replace(QUICK, epochs=3, held_out_share=0)
    one, same = (
        distill(load_dataset("sample"), tmp_path / name, settings, method="clcrec", threads=4)
        for name in ("one", "same")
    )
    rows = [(made.artifact / "fused.npy").read_bytes() for made in (one, same)]
    assert rows[0] == rows[1]


def test_negatives_are_drawn_items_that_the_user_did_not_have(monkeypatch, tmp_path):
    seen, read = [], InteractionReader.read

    def watched(self, batch):
        made = read(self, batch)
        seen.append((self, batch, made))
        return made

    monkeypatch.setattr(InteractionReader, "read", watched)
    settings = replace(QUICK, epochs=1, held_out_share=0)
    distill(load_dataset("sample"), tmp_path / "x", settings, method="clcrec", threads=1)
    reader, batch, made = seen[0]
    known = reader.pairs.items
    for k, place in enumerate(batch[:50]):
        user = int(made.users[k])
        had = reader.pairs.matrix[[user]].indices
        allowed = known[made.items[~made.excluded[k]].numpy()]
        own = reader.pairs.matrix.indices[place]
        assert known[int(made.items[made.positive[k]])] == own
        assert own in allowed and not np.isin(np.setdiff1d(allowed, [own]), had).any()


@pytest.mark.parametrize("reads", [2, 12])
def test_an_interrupted_one_goes_on_to_the_same_bytes(reads, made_set, tmp_path, interrupt_at):
    interrupt_at(InteractionReader, reads)
    where = tmp_path / "sample"

    def run():
        return distill(load_dataset("sample"), where, QUICK, method="clcrec", threads=1)

    with pytest.raises(KeyboardInterrupt):
        run()
    resumed = run()
    assert resumed.quality == made_set.quality
    one, other = resumed.artifact / "fused.npy", made_set.artifact / "fused.npy"
    assert one.read_bytes() == other.read_bytes()
