"""Compressed modalities as inputs: decoded in blocks, scaled and cut like any other."""

import numpy as np
import pytest

from sgfd.dataset import load_dataset
from sgfd.distill import InteractionMetricSettings, distill
from sgfd.featureset import CompressedRows, load
from sgfd.recommenders import inputs, similar, train
from sgfd.recommenders.inputs import aligned_features


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    target = tmp_path_factory.mktemp("sets") / "sample"
    settings = InteractionMetricSettings(dimension=32)
    made = distill(
        load_dataset("sample"), target, settings, threads=1, compress=["float16", "int8", "pq"]
    )
    return load(made.artifact)


@pytest.mark.parametrize("name", ["fused_float16", "fused_int8", "fused_pq"])
@pytest.mark.parametrize("dimension", [None, 16])
def test_rows_are_aligned_and_decoded_block_by_block(features, name, dimension, monkeypatch):
    most, decode = [], CompressedRows.__getitem__

    def spied(self, index):
        rows = decode(self, index)
        most.append(len(rows))
        return rows

    rows = np.arange(features.n_items)[::-1].copy()
    rows[[2, 5]] = -1
    decoded = np.asarray(features.modalities[name])[rows]
    expected = decoded[:, :dimension].copy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    expected[[2, 5]] = 0
    monkeypatch.setattr(CompressedRows, "__getitem__", spied)
    monkeypatch.setattr(inputs, "BLOCK_ROWS", 50)
    aligned = aligned_features(features, rows, "stored", [name], dimension=dimension)[name]
    assert max(most) <= 50
    np.testing.assert_allclose(aligned.values.numpy(), np.nan_to_num(expected), atol=1e-6)
    np.testing.assert_array_equal(aligned.present.numpy(), ~np.isnan(decoded[:, 0]) & (rows >= 0))


def test_they_are_used_when_named_alone(features):
    rows = np.arange(features.n_items)
    assert list(aligned_features(features, rows)) == ["fused"]


def test_a_run_is_trained_and_asked_like_any_other(features, tmp_path):
    sample = load_dataset("sample")
    figures = {}
    for name in ("fused", "fused_int8"):
        run = train(sample, "content", features, modalities=[name], runs_root=tmp_path, name=name)
        assert run.record["features"]["modalities"] == [name]
        figures[name] = run.metrics["test"]["recall@20"]
    assert figures["fused_int8"] == pytest.approx(figures["fused"], rel=0.05)
    assert len(similar(run, "i7", 5)) == 5
