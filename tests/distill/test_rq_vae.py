"""RQ-VAE: its loss against the plain formula, its codes, what it rebuilds."""

import numpy as np
import pytest
import torch

from sgfd.dataset import load_dataset
from sgfd.distill import RQVAESettings, distill
from sgfd.distill.rq_vae import RQVAE
from sgfd.distill.training import Items
from sgfd.featureset import load, verify

SMALL = RQVAESettings(latent_width=3, levels=2, codes=4, commitment=0.25)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = RQVAE(6, SMALL).double()
    with torch.no_grad():
        model.codebooks.normal_()
    return model


def test_loss_is_that_of_the_formula(model, rng):
    rows = torch.from_numpy(rng.normal(size=(5, 6)))
    z = model.encoder(rows).detach().numpy()
    books = model.codebooks.detach().numpy()
    quantising, total, residual = 0.0, np.zeros_like(z), z.copy()
    codes = []
    for book in books:
        distance = ((residual[:, None] - book[None]) ** 2).sum(axis=2)
        codes.append(distance.argmin(axis=1))
        quantising += 1.25 * distance.min(axis=1).mean()
        total += book[codes[-1]]
        residual -= book[codes[-1]]
    rebuilt = model.decoder(torch.from_numpy(total)).detach().numpy()
    parts = {name: part.item() for name, part in model.loss(rows).items()}
    assert parts["quantisation"] == pytest.approx(quantising)
    assert parts["reconstruction"] == pytest.approx(
        ((rebuilt - rows.numpy()) ** 2).sum(axis=1).mean()
    )
    np.testing.assert_array_equal(model.codes(rows).numpy(), np.stack(codes, axis=1))
    np.testing.assert_allclose(model.quantised(rows).detach().numpy(), total, atol=1e-12)


def test_threads_add_the_gradient_of_a_code_in_one_order():
    torch.manual_seed(0)
    model = RQVAE(32, RQVAESettings(latent_width=128, codes=16))
    rows, gradients = torch.randn(1024, 32), set()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(20):
            model.zero_grad()
            sum(model.loss(rows).values()).backward()
            gradients.add(model.codebooks.grad.numpy().tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(gradients) == 1


def test_gradients_reach_the_encoder_through_the_codes(model, rng):
    rows = torch.from_numpy(rng.normal(size=(5, 6)))
    model.loss(rows)["reconstruction"].backward()
    assert model.encoder[0].weight.grad.abs().sum() > 0
    assert model.codebooks.grad is None  # the decoder's gradient passes by them
    model.loss(rows)["quantisation"].backward()
    assert model.codebooks.grad.abs().sum() > 0


def test_codes_start_at_the_clusters_of_the_encoded_rows(model, rng):
    centres = rng.normal(size=(4, 6)) * 10
    rows = torch.from_numpy(np.repeat(centres, 20, axis=0)).float()
    model = model.float()
    model.start_codebooks(rows, seed=0)
    encoded = model.encoder(rows).detach()
    assert torch.cdist(encoded, model.codebooks[0].detach()).min(dim=1).values.max() < 1e-2
    model.start_codebooks(rows[:2], seed=0)  # fewer rows than codes
    assert torch.isfinite(model.codebooks).all()


@pytest.mark.parametrize("feature", ["reconstruction", "code"])
def test_items_of_few_kinds_get_their_kind_s_code(feature, made, rng, tmp_path):
    """Eight kinds of items, far apart: codes tell them apart, and rows are rebuilt by them."""
    kind = rng.integers(0, 8, 400)
    centres = rng.normal(size=(8, 24)) * 3
    image = (centres[kind] + 0.1 * rng.normal(size=(400, 24))).astype(np.float32)
    settings = RQVAESettings(
        feature=feature, latent_width=8, levels=2, codes=16, epochs=150, batch_size=64
    )
    result = distill(
        made(None, 400, image=image), tmp_path / "x", settings, method="rq-vae", threads=1
    )
    assert result.quality["reconstruction_error"] < 0.1
    features = load(result.artifact)
    assert features.modalities["image"].shape == (400, 24 if feature == "reconstruction" else 8)
    z = np.array(features.modalities["image"])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    cosines = z @ z.T
    np.fill_diagonal(cosines, -1)
    assert (kind[cosines.argmax(axis=1)] == kind).mean() > 0.95


def test_the_sample_s_set_is_whole_and_interrupted_it_is_the_same(tmp_path, interrupt_at):
    settings = RQVAESettings(latent_width=8, codes=16, epochs=3, batch_size=32)

    def run(name):
        return distill(load_dataset("sample"), tmp_path / name, settings, method="rq-vae")

    whole = run("whole")
    assert verify(whole.artifact) == []
    interrupt_at(Items, 7)
    with pytest.raises(KeyboardInterrupt):
        run("broken")
    again = run("broken")
    for file in ("fused.npy", "features.parquet"):
        assert (again.artifact / file).read_bytes() == (whole.artifact / file).read_bytes()
    assert again.quality == whole.quality
