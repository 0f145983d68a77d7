"""The autoencoder: what it learns, and that it stops and goes on as SGFD's training does."""

import signal
from dataclasses import asdict

import numpy as np
import pytest
import torch

from sgfd.dataset import load_dataset
from sgfd.distill import AutoencoderSettings, DistillError, distill
from sgfd.distill.autoencoder import Autoencoder
from sgfd.distill.batches import ItemBatch, ItemReader
from sgfd.featureset import FeatureSetError, load, verify

QUICK = AutoencoderSettings(
    dimension=16, decoder_width=32, epochs=6, patience=6, learning_rate=1e-2
)

KILLED = """
import os, signal, sys
from pathlib import Path
from sgfd.dataset import load_dataset
from sgfd.distill import AutoencoderSettings, distill
from sgfd.jobs import WorkFolder
save, saves = WorkFolder.save, []
def save_and_die(self, tensors, state):
    save(self, tensors, state)
    saves.append(state)
    if len(saves) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
WorkFolder.save = save_and_die
settings = AutoencoderSettings(**{settings})
distill(load_dataset("sample"), Path(sys.argv[1]), settings, method="autoencoder", threads=1)
"""


def make(target, settings=QUICK, **options):
    sample = load_dataset("sample")
    return distill(sample, target, settings, method="autoencoder", threads=1, **options)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The sample, made quickly and without a break."""
    return make(tmp_path_factory.mktemp("sets") / "sample")


def batch(n, image_present):
    torch.manual_seed(1)
    rows = {"image": torch.randn(n, 10), "text": torch.randn(n, 6)}
    present = {"image": torch.tensor(image_present), "text": torch.ones(n, dtype=torch.bool)}
    return ItemBatch(rows, present, torch.full((n,), -1))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Autoencoder({"image": 10, "text": 6}, AutoencoderSettings(dimension=4, decoder_width=5))


def rebuilt(model, name, x):
    """x (b, D) through encoder and decoder, by the formulas of the docstring in numpy."""
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    place = model.names.index(name)
    c = x @ weights[f"encoders.{place}.linear.weight"].T + weights[f"encoders.{place}.linear.bias"]
    c = np.maximum(c, 0.01 * c)
    if model.settings.normalise:
        c /= np.linalg.norm(c, axis=1, keepdims=True)
    h = c @ weights[f"decoders.{place}.0.weight"].T + weights[f"decoders.{place}.0.bias"]
    h = np.maximum(h, 0.01 * h)
    return h @ weights[f"decoders.{place}.2.weight"].T + weights[f"decoders.{place}.2.bias"]


@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_is_the_mean_squared_error_of_what_is_rebuilt(normalise):
    torch.manual_seed(0)
    chosen = AutoencoderSettings(dimension=4, decoder_width=5, normalise=normalise)
    model = Autoencoder({"image": 10, "text": 6}, chosen)
    items = batch(5, [True, False, True, True, False])
    errors = model.held_out_errors(items)
    for place, (name, loss) in enumerate(model.loss(items).items()):
        x = items.rows[name][items.present[name]].numpy()
        expected = np.square(rebuilt(model, name, x) - x).mean()
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert errors[place].tolist() == pytest.approx([expected * len(x), len(x)], rel=1e-5)


def test_a_lacking_modality_takes_no_part_whatever_its_row_holds(model):
    items, wild = (batch(3, [True, False, True]) for _ in range(2))
    wild.rows["image"][1] = torch.nan
    for name, loss in model.loss(items).items():
        torch.testing.assert_close(model.loss(wild)[name], loss)
    sum(model.loss(wild).values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_batch_without_a_modality_at_all_is_fine(model):
    sum(model.loss(batch(3, [False] * 3)).values()).backward()
    found = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in found)
    assert model.held_out_errors(batch(3, [False] * 3))[0].tolist() == [0, 0]


def test_gradients_reach_every_parameter(model):
    sum(model.loss(batch(3, [True] * 3)).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_what_lies_in_few_dimensions_is_rebuilt(made, rng, tmp_path):
    image = rng.normal(size=(600, 3)) @ rng.normal(size=(3, 40))
    settings = AutoencoderSettings(dimension=8, normalise=False, epochs=60, learning_rate=3e-3)
    dataset = made(None, 600, image=image.astype(np.float32))
    result = distill(dataset, tmp_path / "x", settings, method="autoencoder", threads=1)
    assert result.quality["image"]["reconstruction_error"] < 0.05
    assert set(result.quality) == {"image"}


def test_figures_of_the_held_out_items(unbroken):
    quality = unbroken.quality
    assert quality["held_out_items"] > 0
    for name in ("image", "text"):
        assert 0 < quality[name]["reconstruction_error"] < 1
        assert set(quality[name]["neighbour_agreement"]) == {"generic", "made"}


def test_without_held_out_items_the_figures_are_empty(made, rng, tmp_path):
    image = rng.normal(size=(12, 3)).astype(np.float32)
    settings = AutoencoderSettings(dimension=4, epochs=3, held_out_share=0)
    dataset = made([0, 1] * 6, image=image)
    quality = distill(dataset, tmp_path / "x", settings, method="autoencoder", threads=1).quality
    assert quality["held_out_items"] == 0
    assert quality["majority_accuracy"] is None
    assert quality["image"]["reconstruction_error"] is None
    assert quality["image"]["neighbour_agreement"] == {"generic": None, "made": None}


def test_new_items_are_embedded_by_the_encoder_alone(unbroken):
    features = load(unbroken.artifact)
    image = load_dataset("sample").catalog.features["image"]
    embedded = features.embed("image", image.values)
    np.testing.assert_allclose(embedded, features.modalities["image"], atol=1e-5)
    norms = np.linalg.norm(embedded[image.present], axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_a_killed_one_leaves_nothing_loadable_and_goes_on_to_the_same_bytes(
    unbroken, run_in, tmp_path, same_bytes
):
    target, settings = tmp_path / "sample", QUICK
    often = asdict(settings) | {"checkpoint_seconds": 0}
    code = KILLED.replace("{settings}", repr(often))
    done = run_in(tmp_path, target, code=code)
    assert done.code == -signal.SIGKILL, done.err
    assert [path.name for path in tmp_path.iterdir()] == [".sample.partial"]
    with pytest.raises(FeatureSetError):
        load(target)
    again = make(target, AutoencoderSettings(**often))
    assert verify(target) == []
    assert same_bytes(again.artifact, unbroken.artifact)


@pytest.mark.parametrize("reads", [1, 2, 3, 9, 17, 18])
def test_an_interrupted_one_goes_on_to_the_same_bytes(
    reads, unbroken, tmp_path, monkeypatch, same_bytes
):
    """Ctrl-C at a batch, at the held-out items (every third read), at the last of all (18)."""
    read, done = ItemReader.read, []

    def interrupt_once(self, index):
        done.append(len(index))
        if len(done) == reads:
            signal.raise_signal(signal.SIGINT)
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(ItemReader, "read", interrupt_once)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "sample")
    assert [path.name for path in tmp_path.iterdir()] == [".sample.partial"]
    resumed = make(tmp_path / "sample")
    assert same_bytes(resumed.artifact, unbroken.artifact)
    assert resumed.quality == unbroken.quality


def test_what_another_method_left_is_not_gone_on_with(
    unbroken, tmp_path, monkeypatch, same_bytes, quick
):
    read = ItemReader.read

    def interrupt(self, index):
        signal.raise_signal(signal.SIGINT)
        return read(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(ItemReader, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            distill(load_dataset("sample"), tmp_path / "sample", quick, threads=1)
    assert same_bytes(make(tmp_path / "sample").artifact, unbroken.artifact)


def test_a_loss_that_is_not_finite_stops_with_the_setting_to_change(tmp_path, monkeypatch):
    loss = Autoencoder.loss

    def broken(self, items):
        return {name: value * torch.nan for name, value in loss(self, items).items()}

    monkeypatch.setattr(Autoencoder, "loss", broken)
    with pytest.raises(DistillError, match=r"the loss is no longer .* learning_rate"):
        make(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
