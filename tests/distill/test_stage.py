"""Stage one as a whole: what it exports, that it repeats itself, what it refuses."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from sgfd.dataset import DatasetError, load_dataset
from sgfd.distill import DistillError, PCASettings, SGFDSettings, distill, stage
from sgfd.distill.maker import MadeModality
from sgfd.distill.methods import METHODS
from sgfd.featureset import load, verify
from sgfd.jobs import JobError


def test_the_student_alone_reproduces_the_published_rows(sample_features):
    features, source = load(sample_features.artifact), load_dataset("sample").catalog
    for name, published in features.modalities.items():
        embedded = features.embed(name, source.features[name].values)
        np.testing.assert_allclose(embedded, published, atol=1e-5)
        np.testing.assert_array_equal(
            np.isnan(published).all(axis=1), ~source.features[name].present
        )


def test_rows_are_reproduced_from_columns_with_large_offsets_too(made, rng, quick, tmp_path):
    image = rng.normal(size=(60, 8)).astype(np.float32)
    image[:, 1] = image[:, 1] * 5 + 2000  # a year
    image[:, 2] = 1e6  # constant
    image[:, 3] = image[:, 3] * 1e5 + 3e7  # a price in a small currency
    image[:, 4] *= 1e-12
    image[:, 5] = 0
    image[7] = np.nan
    features = load(
        distill(made([0, 1] * 30, 60, image=image), tmp_path / "x", quick, threads=1).artifact
    )
    np.testing.assert_allclose(features.embed("image", image), features.modalities["image"], atol=1e-5)  # fmt: skip  # noqa: E501
    assert np.isnan(features.modalities["image"]).all(axis=1).nonzero()[0].tolist() == [7]


@pytest.mark.parametrize("name", stage.FIGURES)
def test_no_modality_is_called_as_a_figure(made, rng, tmp_path, name):
    dataset = made([0, 1] * 20, 40, **{name: rng.normal(size=(40, 4)).astype(np.float32)})
    with pytest.raises(DistillError, match=f"the modality's name '{name}' is that of a figure"):
        distill(dataset, tmp_path / "x", method="standard", threads=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", ["autoencoder", "sgfd", "rq-vae", "pca", "standard"])
def test_a_row_of_another_scale_changes_the_others_little_or_nothing(made, rng, tmp_path, method):
    settings = METHODS[method].settings
    quick = {"epochs": 3} if "epochs" in settings.__dataclass_fields__ else {}
    image = rng.normal(size=(60, 8)).astype(np.float32)
    spoilt = image.copy()
    spoilt[7] *= 1e25
    image[7] = np.nan
    rows = [
        load(
            distill(
                made([0, 1] * 30, 60, image=x), tmp_path / k, settings(**quick), threads=1
            ).artifact
        ).modalities["image"]
        for k, x in (("without", image), ("with", spoilt))
    ]
    others = np.arange(60) != 7
    np.testing.assert_allclose(rows[1][others], rows[0][others], atol=1e-5)


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


def test_twice_the_same_is_the_same_bytes(sample_features, quick, tmp_path, same_bytes):
    again = distill(load_dataset("sample"), tmp_path / "sample", quick, threads=1)
    assert same_bytes(sample_features.artifact, again.artifact)
    assert sample_features.quality == again.quality
    other = distill(load_dataset("sample"), tmp_path / "other", quick, seed=1, threads=1)
    assert not same_bytes(sample_features.artifact, other.artifact)


def test_the_manifest_tells_what_was_done(sample_features, quick):
    manifest = load(sample_features.artifact).manifest
    assert (manifest.method, manifest.seed) == ("sgfd", 0)
    assert SGFDSettings(**manifest.settings) == quick
    assert manifest.quality == sample_features.quality
    assert manifest.student.negative_slope == 0.01
    assert sample_features.to_json()["artifact"] == str(sample_features.artifact)
    assert set(sample_features.to_json()) == {"artifact", "method", "seconds", "quality"}


def test_what_is_planted_is_found(tmp_path):
    quality = distill(load_dataset("sample"), tmp_path / "sample", method="sgfd", threads=1).quality
    for name in ("image", "text"):
        figures = quality[name]
        assert figures["student_accuracy"] > 0.9 > quality["majority_accuracy"] + 0.4
        agreement = figures["neighbour_agreement"]
        assert agreement["student"] >= agreement["generic"]
        assert figures["fidelity"] > 0.5


def test_labels_are_found_in_noise_where_generic_neighbours_are_lost(made, rng, tmp_path):
    """Five labels in 2 of 100 dimensions: cosine sees noise, the labels guide the teacher."""
    labels = rng.integers(5, size=600)
    image = rng.normal(size=(600, 100)).astype(np.float32)
    angle = labels * 2 * np.pi / 5
    image[:, :2] = 4 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + image[:, :2] / 4
    settings = SGFDSettings(dimension=16, epochs=100, learning_rate=1e-2)
    quality = distill(made(labels, 600, image=image), tmp_path / "x", settings, threads=1).quality
    agreement = quality["image"]["neighbour_agreement"]
    assert agreement["student"] > agreement["generic"] + 0.2
    assert quality["image"]["student_accuracy"] > quality["majority_accuracy"] + 0.4


@pytest.mark.parametrize("other", [{"response_loss": "kl"}, {"teacher_activation": "none"}])
def test_the_other_forms_of_the_method_work_too(other, tmp_path):
    settings = SGFDSettings(dimension=16, epochs=60, learning_rate=1e-2, **other)
    quality = distill(load_dataset("sample"), tmp_path / "sample", settings, threads=1).quality
    assert quality["image"]["student_accuracy"] > 0.8


def test_a_real_catalogue_with_what_it_lacks(shared_data, tmp_path):
    """Office: 597 items without a description, 97 without a label, 58 labels."""
    settings = SGFDSettings(epochs=10)
    quality = distill(
        load_dataset(shared_data / "office"), tmp_path / "x", settings, threads=1
    ).quality
    assert quality["majority_accuracy"] < 0.2
    for name, floor in (("title", 0.7), ("description", 0.6)):
        assert quality[name]["student_accuracy"] > floor
        assert quality[name]["fidelity"] > 0.8


@pytest.mark.parametrize(
    ("labels", "features", "what"),
    [
        (None, {"image": np.ones((12, 3), np.float32)}, "no labelled item"),
        ([-1] * 12, {"image": np.ones((12, 3), np.float32)}, "no labelled item"),
        ([0] * 12, {}, "no item features"),
        ([0] * 12, {"image": np.full((12, 3), np.nan, np.float32)}, "no item has the modality"),
        ([0] * 12, {"im-age": np.ones((12, 3), np.float32)}, "can't call a modality 'im-age'"),
        ([0] * 12, {"label": np.ones((12, 3), np.float32)}, "can't call a modality 'label'"),
    ],
)
def test_a_catalogue_that_cannot_be_distilled_is_refused(labels, features, what, made, tmp_path):
    with pytest.raises(DistillError, match=what) as refusal:
        distill(made(labels, **features), tmp_path / "out", method="sgfd", threads=1)
    assert refusal.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("method", "said"), [("pca", True), ("interaction-metric", False)])
def test_a_split_that_a_method_does_not_see_is_told_of(method, said, tmp_path, caplog):
    caplog.set_level("INFO", "sgfd")
    distill(load_dataset("sample"), tmp_path / "x", method=method, split="cold-items", threads=1)
    assert (f"split cold-items makes no difference: method {method}" in caplog.text) == said


def test_a_protocol_and_a_seed_of_the_parts_that_a_method_does_not_see_are_told_of(
    tmp_path, caplog
):
    caplog.set_level("INFO", "sgfd")
    asked = {"protocol": "paper", "split_seed": np.int64(5), "seed": np.int64(3)}
    distill(load_dataset("sample"), str(tmp_path / "x"), method="random", threads=1, **asked)
    for said in ("split_seed 5", "protocol paper"):
        assert f"{said} makes no difference: method random sees no interaction" in caplog.text
    for wrong in (-1, 2**64, 1.5):
        with pytest.raises(JobError, match=r"seed .*; give a whole number from 0"):
            distill(load_dataset("sample"), tmp_path / "y", method="random", seed=wrong)
    assert not (tmp_path / "y").exists()


def test_no_block_of_the_export_is_wide(made, rng, tmp_path, monkeypatch):
    read, block = [], MadeModality.block

    def noting(self, start, stop):
        read.append(stop - start)
        return block(self, start, stop)

    monkeypatch.setattr(stage, "EXPORT_VALUES", 64)
    monkeypatch.setattr(MadeModality, "block", noting)
    wide = rng.normal(size=(12, 16)).astype(np.float32)
    settings = PCASettings(dimension=2)
    distill(made(None, image=wide), tmp_path / "x", settings, method="pca", threads=1)
    assert read == [4, 4, 4]


@pytest.mark.parametrize("method", ["sgfd-plus", "rq-vae"])
def test_a_modality_called_as_what_is_made_of_all_is_refused(method, made, rng, tmp_path):
    rows = rng.normal(size=(12, 3)).astype(np.float32)
    with pytest.raises(DistillError, match=f"'fused' is that of what method {method} makes"):
        distill(made(None, fused=rows, text=rows), tmp_path / "x", method=method, threads=1)
    assert list(tmp_path.iterdir()) == []
    alone = distill(made(None, fused=rows), tmp_path / "x", method=method, threads=1)
    beside = distill(made(None, fused=rows, text=rows), tmp_path / "y", method="pca", threads=1)
    names = [set(load(each.artifact).modalities) for each in (alone, beside)]
    assert names == [{"fused"}, {"fused", "text"}]


@pytest.mark.parametrize("name", ["a@b", ".hidden", "two\nlines"])
def test_a_folder_whose_name_no_set_can_have_is_refused_at_once(made, rng, quick, tmp_path, name):
    dataset = made([0, 1] * 6, image=rng.normal(size=(12, 3)).astype(np.float32))
    with pytest.raises(DistillError, match="is no name of a feature set"):
        distill(dataset, tmp_path / name, quick, threads=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"split": "cold_items"}, {"protocol": "honset"}])
@pytest.mark.parametrize("method", ["interaction-metric", "pca"])
def test_a_division_that_there_is_not_is_refused(method, wrong, tmp_path):
    with pytest.raises(DatasetError, match="is unknown; choose"):
        distill(load_dataset("sample"), tmp_path / "set", method=method, **wrong)


def test_an_existing_target_is_refused_and_replaced_on_demand(made, rng, quick, tmp_path):
    dataset = made([0, 1] * 6, image=rng.normal(size=(12, 3)).astype(np.float32))
    first = distill(dataset, tmp_path / "x", quick, threads=1)
    with pytest.raises(JobError, match="exists already"):
        distill(dataset, tmp_path / "x", quick, seed=1, threads=1)
    distill(dataset, tmp_path / "x", quick, seed=1, overwrite=True, threads=1)
    assert load(first.artifact).manifest.seed == 1
    (tmp_path / "empty").mkdir()
    distill(dataset, tmp_path / "empty", quick, overwrite=True, threads=1)


def test_what_is_no_feature_set_is_never_replaced(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    pd.DataFrame({"item_id": ["a", "b"]}).to_parquet(data / "items.parquet")
    np.save(data / "image.npy", np.eye(2, dtype=np.float32))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    targets = {"data": "holds the data set", "mine": "has no manifest.json", "file": "has no man"}
    for name, what in targets.items():
        with pytest.raises(JobError, match=what):
            distill(load_dataset(data), tmp_path / name, method="raw", overwrite=True)
    assert sorted(tmp_path.rglob("*")) == before


def test_labels_that_no_manifest_could_name_are_refused(made, rng, monkeypatch, tmp_path):
    monkeypatch.setattr("sgfd.distill.stage.MOST_IN_LABELS", 30)
    dataset = made([0, 1, 2, 3], image=rng.normal(size=(4, 3)).astype(np.float32))
    with pytest.raises(DistillError, match=r"has \d labels, more than a manifest can name"):
        distill(dataset, tmp_path / "x", method="raw")


@pytest.mark.parametrize("n", [1, 2, 3, 12])
def test_tiny_catalogues_and_constant_columns_work(n, made, rng, quick, tmp_path):
    image = rng.normal(size=(n, 3)).astype(np.float32)
    image[:, 1] = 7
    result = distill(made([0] * n, n, image=image), tmp_path / "out", quick, threads=1)
    assert np.isfinite(load(result.artifact).modalities["image"]).all()


def test_without_held_out_items_the_figures_are_empty(made, rng, tmp_path):
    image = rng.normal(size=(12, 3)).astype(np.float32)
    settings = SGFDSettings(dimension=4, epochs=3, held_out_share=0)
    quality = distill(made([0, 1] * 6, image=image), tmp_path / "x", settings, threads=1).quality
    assert quality["held_out_items"] == 0
    assert quality["majority_accuracy"] is None
    assert quality["image"]["student_accuracy"] is None
    assert quality["image"]["fidelity"] is None
    assert set(quality["image"]["neighbour_agreement"].values()) == {None}


def test_a_modality_may_be_called_anything_that_a_file_can(made, rng, quick, tmp_path):
    rows = rng.normal(size=(12, 3)).astype(np.float32)
    dataset = made([0, 1] * 6, type=rows, keys=rows, training=rows, forward=rows)
    names = load(distill(dataset, tmp_path / "x", quick, threads=1).artifact).modalities
    assert set(names) == {"type", "keys", "training", "forward"}


def test_torch_is_not_needed_for_the_settings():
    code = "import sys, sgfd.distill; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
