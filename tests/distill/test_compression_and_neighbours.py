"""Stage one with compressed modalities and neighbours: made, measured, refused, stopped."""

import signal
import subprocess
import sys

import numpy as np
import pytest

from sgfd.dataset import load_dataset
from sgfd.distill import (
    DistillError,
    InteractionMetricSettings,
    PCASettings,
    RawSettings,
    distill,
)
from sgfd.featureset import KINDS, FeatureSetError, FeatureSetWriter, load, verify

FUSED = InteractionMetricSettings(dimension=32)
EXTRAS = {"compress": KINDS, "neighbours": 5}


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    target = tmp_path_factory.mktemp("sets") / "sample"
    return distill(load_dataset("sample"), target, FUSED, threads=1, **EXTRAS)


def test_the_default_modality_is_compressed_and_its_neighbours_are_found(compressed):
    opened = load(compressed.artifact)
    assert list(opened.modalities)[-3:] == ["fused_float16", "fused_int8", "fused_pq"]
    assert opened.chosen_modalities() == ["fused"]
    assert opened.manifest.neighbours.modalities == ["fused"]
    assert opened.neighbours().num_rows == 5 * opened.present("fused").sum()
    assert verify(compressed.artifact) == []
    described = {modality.name: modality for modality in opened.manifest.modalities}
    assert described["fused_pq"].nested == described["fused"].nested == [16, 32]


def test_what_it_loses_is_measured(compressed):
    """Against all neighbours in double precision: the sample has fewer items than are drawn."""
    opened = load(compressed.artifact)
    assert opened.manifest.quality == compressed.quality
    there = opened.present("fused")
    original = np.asarray(opened.modalities["fused"], dtype=np.float64)[there]
    nearest = []
    for name, size in (("fused", 128), ("fused_float16", 64), ("fused_int8", 32), ("fused_pq", 8)):
        rows = np.asarray(opened.modalities[name], dtype=np.float64)[there]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, -2)
        nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, :10])
        if name == "fused":
            continue
        figures = compressed.quality[name]
        assert figures["bytes_an_item"] == size
        assert figures["mean_cosine"] == pytest.approx((rows * original).sum(axis=1).mean(), 1e-6)
        kept = [len(set(a) & set(b)) / 10 for a, b in zip(nearest[0], nearest[-1], strict=True)]
        assert figures["neighbours_kept@10"] == pytest.approx(np.mean(kept), abs=1e-3)


def test_the_rest_is_as_without(compressed, tmp_path):
    plain = distill(load_dataset("sample"), tmp_path / "sample", FUSED, threads=1)
    assert {path.name for path in compressed.artifact.iterdir()} - {
        path.name for path in plain.artifact.iterdir()
    } == {"encodings.safetensors", "neighbours.parquet", *(f"fused_{kind}.npy" for kind in KINDS)}
    for name in ("fused.npy", "image.npy", "student.safetensors"):
        assert (plain.artifact / name).read_bytes() == (compressed.artifact / name).read_bytes()


def test_twice_the_same_is_the_same_bytes_whatever_the_threads(compressed, tmp_path):
    settings = InteractionMetricSettings(dimension=32)
    again = distill(load_dataset("sample"), tmp_path / "x", settings, threads=2, **EXTRAS)
    plain = [(result.artifact / "fused.npy").read_bytes() for result in (compressed, again)]
    assert plain[0] == plain[1]
    for path in compressed.artifact.iterdir():
        if path.name not in ("manifest.json", "README.md", "croissant.json"):
            assert path.read_bytes() == (again.artifact / path.name).read_bytes(), path.name


def test_where_no_modality_is_the_default_all_are_compressed(tmp_path):
    made = distill(
        load_dataset("sample"), tmp_path / "x", PCASettings(dimension=6), **EXTRAS, threads=1
    )
    opened = load(made.artifact)
    assert opened.chosen_modalities() == ["image", "text"]
    assert set(opened.modalities) == {"image", "text"} | {
        f"{name}_{kind}" for name in ("image", "text") for kind in KINDS
    }
    assert opened.manifest.neighbours.modalities == ["image", "text"]
    assert verify(made.artifact) == []


def test_new_items_get_the_rows_of_the_modality_that_is_compressed(compressed):
    opened, source = load(compressed.artifact), load_dataset("sample").catalog
    blocks = {name: feature.values[:9] for name, feature in source.features.items()}
    np.testing.assert_array_equal(opened.embed("fused_int8", blocks), opened.embed("fused", blocks))


@pytest.mark.parametrize("n", [1, 2, 12])
def test_tiny_catalogues_work(n, made, rng, tmp_path):
    image = rng.normal(size=(n, 3)).astype(np.float32)
    image[1:2] = np.nan
    result = distill(made(None, n, image=image), tmp_path / "x", RawSettings(), **EXTRAS)
    assert verify(result.artifact) == []
    opened = load(result.artifact)
    np.testing.assert_allclose(opened.modalities["image_pq"][:], image, atol=1e-6)
    assert opened.neighbours().num_rows == {1: 0, 2: 0, 12: 55}[n]


@pytest.mark.parametrize(
    ("extra", "what"),
    [
        ({"compress": ("int8", "zip")}, "compress 'zip': is unknown; choose float16 or int8 or pq"),
        ({"neighbours": 0}, "neighbours 0: are too few"),
    ],
)
def test_what_is_unknown_is_refused_before_anything_is_read(extra, what, tmp_path):
    with pytest.raises(DistillError, match=what):
        distill(None, tmp_path / "x", **extra)


def test_names_that_would_meet_are_refused(made, rng, tmp_path):
    rows = rng.normal(size=(12, 3)).astype(np.float32)
    dataset = made(None, image=rows, image_int8=rows)
    with pytest.raises(DistillError, match="'image_int8' leaves none for its compressed one"):
        distill(dataset, tmp_path / "x", RawSettings(), compress=["int8"])
    assert list(tmp_path.iterdir()) == []
    distill(dataset, tmp_path / "x", RawSettings(), compress=["pq"])


def test_what_float16_cannot_hold_is_refused_and_nothing_is_left(made, tmp_path):
    prices = np.full((12, 2), 1e5, dtype=np.float32)
    with pytest.raises(FeatureSetError, match="float16: can't hold 100000; leave it out"):
        distill(made(None, price=prices), tmp_path / "x", RawSettings(), compress=["float16"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["complete_rows", "add_neighbours", "_encoding_tensors"])
def test_one_that_is_stopped_leaves_nothing(step, tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureSetWriter, step, stop)
    with pytest.raises(KeyboardInterrupt):
        distill(load_dataset("sample"), tmp_path / "x", PCASettings(dimension=4), **EXTRAS)
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from sgfd.dataset import load_dataset
from sgfd.distill import PCASettings, distill
from sgfd.featureset import neighbours
table = neighbours.NeighbourBlock.table
def die(self, ids):
    os.kill(os.getpid(), signal.SIGKILL)
neighbours.NeighbourBlock.table = die
distill(load_dataset("sample"), Path(sys.argv[1]), PCASettings(dimension=4), compress=["pq"],
        neighbours=5)
"""


def test_a_killed_one_leaves_nothing_loadable_and_is_made_by_the_same_call(tmp_path):
    target = tmp_path / "x"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".x.partial"]
    with pytest.raises(FeatureSetError):
        load(tmp_path / ".x.partial" / "result")
    distill(load_dataset("sample"), target, PCASettings(dimension=4), compress=["pq"], neighbours=5)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert verify(target) == []
