"""Stage one as a whole: what it exports, that it repeats itself, what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sgfd.dataset import Dataset, Feature, ItemCatalog, Vocabulary, load_dataset
from sgfd.distill import SGFDSettings, distill
from sgfd.distill.streaming import column_statistics
from sgfd.featureset import load, verify
from sgfd.jobs import JobError

QUICK = SGFDSettings(dimension=16, epochs=15, patience=15)
FILES = ("features.parquet", "image.npy", "text.npy", "student.safetensors")


@pytest.fixture(scope="module")
def sample_features(tmp_path_factory):
    return distill(load_dataset("sample"), tmp_path_factory.mktemp("sets") / "sample", QUICK)


def catalog(labels, n=12, **features):
    labels = None if labels is None else np.asarray(labels)
    names = () if labels is None else tuple(str(i) for i in range(labels.max(initial=-1) + 1))
    made = {name: Feature.from_array(name, values) for name, values in features.items()}
    items = ItemCatalog(Vocabulary([str(i) for i in range(n)]), made, labels, names)
    return Dataset("made", "native", None, items, None)


def test_the_student_alone_reproduces_the_published_rows(sample_features):
    features, source = load(sample_features.artifact), load_dataset("sample").catalog
    for name, published in features.modalities.items():
        embedded = features.embed(name, source.features[name].values)
        np.testing.assert_allclose(embedded, published, atol=1e-5)
        np.testing.assert_array_equal(
            np.isnan(published).all(axis=1), ~source.features[name].present
        )


def test_published_rows_are_unit_vectors(sample_features):
    for rows in load(sample_features.artifact).modalities.values():
        norms = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(norms[~np.isnan(norms)], 1, atol=1e-5)


def test_the_set_is_whole_and_holds_no_user(sample_features):
    assert verify(sample_features.artifact) == []
    manifest = load(sample_features.artifact).manifest
    assert manifest.dataset.fingerprints.interactions is None
    content = b"".join(p.read_bytes() for p in sample_features.artifact.iterdir())
    users = load_dataset("sample").interactions.users.ids
    assert not any(f'"{user}"'.encode() in content for user in users)


def test_twice_the_same_is_the_same_bytes(sample_features, tmp_path):
    again = distill(load_dataset("sample"), tmp_path / "sample", QUICK)
    for file in FILES:
        assert (sample_features.artifact / file).read_bytes() == (
            again.artifact / file
        ).read_bytes()
    assert sample_features.quality == again.quality
    other = distill(load_dataset("sample"), tmp_path / "other", QUICK, seed=1)
    assert (other.artifact / "image.npy").read_bytes() != (
        again.artifact / "image.npy"
    ).read_bytes()


def test_what_is_planted_is_found(tmp_path):
    quality = distill(load_dataset("sample"), tmp_path / "sample").quality
    for name in ("image", "text"):
        figures = quality[name]
        assert figures["student_accuracy"] > 0.9 > quality["majority_accuracy"] + 0.4
        agreement = figures["neighbour_agreement"]
        assert agreement["student"] >= agreement["generic"]
        assert figures["fidelity"] > 0.5


def test_an_interrupted_stage_goes_on_to_the_same_bytes(sample_features, tmp_path, monkeypatch):
    from sgfd.distill import sgfd as training

    read, reads = training.ItemReader.read, []

    def interrupt_once(self, index):
        reads.append(len(index))
        if len(reads) == 9:
            import signal

            signal.raise_signal(signal.SIGINT)
        return read(self, index)

    monkeypatch.setattr(training.ItemReader, "read", interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        distill(load_dataset("sample"), tmp_path / "sample", QUICK)
    assert not (tmp_path / "sample").exists()
    resumed = distill(load_dataset("sample"), tmp_path / "sample", QUICK)
    for file in FILES:
        assert (sample_features.artifact / file).read_bytes() == (
            resumed.artifact / file
        ).read_bytes()


@pytest.mark.parametrize(
    ("made", "what"),
    [
        (catalog(None, image=np.ones((12, 3), np.float32)), "no labelled item"),
        (catalog([-1] * 12, image=np.ones((12, 3), np.float32)), "no labelled item"),
        (catalog([0] * 12), "no item features"),
        (catalog([0] * 12, image=np.full((12, 3), np.nan, np.float32)), "no item has the modality"),
    ],
)
def test_a_catalogue_that_cannot_be_distilled_is_refused(made, what, tmp_path):
    with pytest.raises(JobError, match=what):
        distill(made, tmp_path / "out", QUICK)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_tiny_catalogues_and_constant_columns_work(n, tmp_path, rng):
    image = rng.normal(size=(n, 3)).astype(np.float32)
    image[:, 1] = 7
    result = distill(catalog([0] * n, n, image=image), tmp_path / "out", QUICK)
    assert np.isfinite(load(result.artifact).modalities["image"]).all()


def test_a_loss_that_is_not_finite_stops_with_the_setting_to_change(tmp_path, monkeypatch):
    from sgfd.distill import sgfd as training

    monkeypatch.setattr(training, "feature_loss", lambda t, s: (t * torch.nan).sum())
    with pytest.raises(JobError, match=r"epoch 1, step 1: the loss is no longer .* learning_rate"):
        distill(load_dataset("sample"), tmp_path / "out", QUICK)
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([0, 1e3, -1e6]))
def test_streamed_statistics_are_those_of_the_whole_matrix(seed, block_rows, offset):
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=(57, 4)) + offset).astype(np.float32)
    values[rng.random(57) < 0.2] = np.nan
    got = column_statistics(Feature.from_array("x", values), block_rows)
    present = values[~np.isnan(values[:, 0])].astype(np.float64)
    np.testing.assert_allclose(got.mean, present.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got.scale, present.std(axis=0), rtol=1e-5)


def test_torch_is_not_needed_for_the_settings():
    import subprocess
    import sys

    code = "import sys, sgfd.distill; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert torch.__version__
