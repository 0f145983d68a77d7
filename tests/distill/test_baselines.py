"""The makers that SGFD is compared with, and the battery that every maker passes."""

import logging
from dataclasses import fields

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from sgfd.commands.distill import distill as command
from sgfd.dataset import Feature, load_dataset
from sgfd.distill import (
    METHODS,
    AutoencoderSettings,
    DistillError,
    PCASettings,
    RandomSettings,
    RQVAESettings,
    SGFDPlusSettings,
    SGFDSettings,
    distill,
    stage,
)
from sgfd.distill.streaming import column_statistics, covariance, has_unit_rows
from sgfd.featureset import FeatureSetError, load, verify

QUICK = {
    "sgfd": SGFDSettings(dimension=6, epochs=3),
    "sgfd-plus": SGFDPlusSettings(dimension=6),
    "pca": PCASettings(dimension=6),
    "random": RandomSettings(dimension=6),
    "autoencoder": AutoencoderSettings(dimension=6, decoder_width=8, epochs=3),
    "rq-vae": RQVAESettings(latent_width=6, codes=8, epochs=3),
}
WITHOUT_LABELS = [  # those that need interactions have tests of their own
    name
    for name, method in METHODS.items()
    if not (method.needs_labels or method.needs_interactions)
]
WITH_STUDENT = ["sgfd-plus", "sgfd", "pca", "random", "autoencoder"]

every_method = pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if not method.needs_interactions]
)


@pytest.fixture
def gappy(made, rng):
    """60 items: images of unlike scale that three lack, texts that one lacks, two unlabelled."""
    image = (rng.normal(size=(60, 9)) * np.arange(1, 10) + 50).astype(np.float32)
    text = rng.normal(size=(60, 7)).astype(np.float32)
    image[[4, 17, 59]], text[4] = np.nan, np.nan
    labels = rng.integers(3, size=60)
    labels[[0, 17]] = -1
    return made(labels, 60, image=image, text=text)


@pytest.fixture
def make(tmp_path):
    """Makes a feature set and opens it."""

    def run(dataset, method, settings=None, name="set", seed=0):
        settings = settings or QUICK.get(method)
        result = distill(dataset, tmp_path / name, settings, seed, method=method, threads=1)
        return load(result.artifact)

    return run


def present_in(dataset, method):
    catalog = dataset.catalog
    if method == "label":
        return {"category": catalog.labels >= 0}
    present = {name: feature.present for name, feature in catalog.features.items()}
    if method == "sgfd-plus":
        present["fused"] = np.any(list(present.values()), axis=0)
    if method == "rq-vae":
        return {"fused": np.any(list(present.values()), axis=0)}
    return present


@every_method
def test_the_set_is_whole_and_lacks_what_the_items_lack(method, gappy, make):
    features = make(gappy, method)
    assert verify(features.path) == []
    assert features.manifest.method == method
    expected = present_in(gappy, method)
    assert set(features.modalities) == set(expected)
    for modality in features.manifest.modalities:
        rows, here = features.modalities[modality.name], expected[modality.name]
        np.testing.assert_array_equal(np.isnan(rows).any(axis=1), ~here)
        np.testing.assert_array_equal(np.isnan(rows).all(axis=1), ~here)
        assert modality.coverage == here.mean()
        norms = np.linalg.norm(rows[here], axis=1)
        assert modality.normalised == np.allclose(norms, 1, atol=1e-4)


@every_method
def test_twice_the_same_is_the_same_bytes(method, gappy, make):
    one, other = make(gappy, method, name="one"), make(gappy, method, name="other")
    dated = {"README.md", "croissant.json"}
    names = one.manifest.files.keys() - dated
    assert names == other.manifest.files.keys() - dated
    for name in names:
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name
    assert one.manifest.quality == other.manifest.quality
    if method in ("sgfd", "random", "autoencoder"):
        seeded = make(gappy, method, name="seeded", seed=1)
        assert not np.array_equal(seeded.modalities["text"], one.modalities["text"])


@every_method
def test_the_student_reproduces_the_rows_where_there_is_one(method, gappy, make):
    features = make(gappy, method)
    if method not in WITH_STUDENT:
        assert features.manifest.student is None
        assert "has no student" in (features.path / "README.md").read_text()
        with pytest.raises(FeatureSetError, match="has no student"):
            features.embed(next(iter(features.modalities)), np.ones((1, 9), np.float32))
        return
    for name, feature in gappy.catalog.features.items():
        embedded = features.embed(name, feature.values)
        np.testing.assert_allclose(embedded, features.modalities[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", WITHOUT_LABELS)
def test_a_catalogue_without_labels_will_do(method, made, rng, make):
    image = rng.normal(size=(40, 5)).astype(np.float32)
    for name, labels in (("none", None), ("unlabelled", [-1] * 40)):
        features = make(made(labels, 40, image=image), method, name=name)
        assert verify(features.path) == []
        assert set(features.labels) == {None}
        assert "neighbour_agreement" not in features.manifest.quality.get("image", {})


@every_method
@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_catalogues_and_constant_columns_work(method, n, made, rng, make):
    image = rng.normal(size=(n, 3)).astype(np.float32)
    image[:, 1] = 7
    features = make(made([0] * n, n, image=image), method)
    assert verify(features.path) == []
    assert all(np.isfinite(rows).all() for rows in features.modalities.values())


@every_method
def test_nothing_but_constants_works_too(method, made, make):
    features = make(made([0, 1] * 6, image=np.full((12, 3), 0.1, np.float32)), method)
    assert all(np.isfinite(rows).all() for rows in features.modalities.values())


@every_method
def test_rows_do_not_depend_on_the_blocks_of_the_export(method, gappy, make, monkeypatch):
    whole = make(gappy, method, name="whole")
    monkeypatch.setattr(stage, "EXPORT_VALUES", 40)  # some rows a block, less where it is wider
    parts = make(gappy, method, name="parts")
    for name, rows in whole.modalities.items():
        np.testing.assert_allclose(parts.modalities[name], rows, rtol=1e-5, atol=1e-6)
    assert verify(parts.path) == []


@every_method
def test_every_setting_says_what_it_is_and_is_in_the_manifest(method, gappy, make):
    kind = METHODS[method].settings
    schema = TypeAdapter(kind).json_schema().get("properties", {})
    assert set(schema) == {field.name for field in fields(kind)}
    assert all(entry["description"].endswith(".") for entry in schema.values())
    expected = QUICK.get(method) or kind()
    assert kind(**make(gappy, method).manifest.settings) == expected


@pytest.mark.parametrize("method", WITHOUT_LABELS)
def test_all_are_measured_on_the_items_that_sgfd_holds_out(method, gappy, make):
    sgfd, other = make(gappy, "sgfd", name="sgfd").manifest.quality, make(gappy, method)
    figures = other.manifest.quality
    for key in ("held_out_items", "majority_accuracy"):
        assert figures[key] == sgfd[key]
    for name in other.modalities:
        agreement = figures[name]["neighbour_agreement"]
        assert (
            name == "fused" or agreement["generic"] == sgfd[name]["neighbour_agreement"]["generic"]
        )
        assert 0 <= agreement["made"] <= 1
        if method == "standard":
            assert agreement["made"] == agreement["generic"]


# ---------------------------------------------------------------------------------- raw, standard


def test_raw_is_the_source(gappy, make):
    features = make(gappy, "raw")
    for name, feature in gappy.catalog.features.items():
        np.testing.assert_array_equal(features.modalities[name], feature.values)
    assert [m.source_dimension for m in features.manifest.modalities] == [9, 7]


def test_raw_of_doubles_is_their_float32(made, rng, make):
    image = rng.normal(size=(12, 3))
    features = make(made(None, 12, image=image), "raw")
    np.testing.assert_array_equal(features.modalities["image"], image.astype(np.float32))


@pytest.mark.parametrize(("spoilt", "unit"), [(None, True), (0, False), (11, False)])
def test_raw_is_called_normalised_only_if_every_row_is(spoilt, unit, made, rng, make):
    image = rng.normal(size=(12, 5)).astype(np.float32)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    image[3] = np.nan
    if spoilt is not None:
        image[spoilt] *= 1.01
    (modality,) = make(made(None, 12, image=image), "raw").manifest.modalities
    assert modality.normalised is unit


def test_unit_rows_are_looked_for_in_every_block(rng, monkeypatch):
    monkeypatch.setattr("sgfd.distill.streaming.BLOCK_VALUES", 8)
    rows = np.eye(4, dtype=np.float32)[rng.integers(4, size=9)]
    assert has_unit_rows(Feature.from_array("x", rows))
    rows[8] *= 2
    assert not has_unit_rows(Feature.from_array("x", rows))


def test_standard_is_numpy_s(gappy, make):
    features = make(gappy, "standard")
    for name, feature in gappy.catalog.features.items():
        values = feature.values[feature.present].astype(np.float64)
        expected = (values - values.mean(axis=0)) / values.std(axis=0)
        got = features.modalities[name][feature.present]
        np.testing.assert_allclose(got, expected, atol=2e-5)


# -------------------------------------------------------------------------------------------- pca


def by_svd(values, standardise, d):
    """Components (d, D), scores (n, d), variances (D,) by numpy's SVD of the whole matrix."""
    x = values.astype(np.float64)
    x = x - x.mean(axis=0)
    if standardise:
        x /= x.std(axis=0)
    _, singular, directions = np.linalg.svd(x, full_matrices=False)
    signs = np.sign(directions[np.arange(len(directions)), np.abs(directions).argmax(axis=1)])
    directions = (directions * signs[:, None])[:d]
    return directions, x @ directions.T, singular**2 / len(x)


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("whiten", [True, False])
def test_pca_is_the_svd_of_the_whole_matrix(standardise, whiten, gappy, make):
    features = make(gappy, "pca", PCASettings(dimension=4, standardise=standardise, whiten=whiten))
    for name, feature in gappy.catalog.features.items():
        values = feature.values[feature.present]
        _, scores, variances = by_svd(values, standardise, 4)
        if whiten:
            scores /= np.sqrt(variances[:4])
        got = features.modalities[name][feature.present]
        np.testing.assert_allclose(got, scores, rtol=1e-4, atol=1e-4)
        explained = features.manifest.quality[name]["explained_variance"]
        assert explained == pytest.approx(variances[:4].sum() / variances.sum(), rel=1e-5)


def test_what_pca_keeps_rebuilds_the_rows_as_well_as_it_says(gappy, make):
    features = make(gappy, "pca", PCASettings(dimension=4))
    tensors = features.student()
    for name, feature in gappy.catalog.features.items():
        values = feature.values[feature.present]
        x = (values - tensors[f"{name}.mean"]) / tensors[f"{name}.scale"]
        rebuilt = features.modalities[name][feature.present] @ tensors[f"{name}.weight"]
        error = np.square(x - rebuilt).sum() / np.square(x).sum()
        explained = features.manifest.quality[name]["explained_variance"]
        assert error == pytest.approx(1 - explained, rel=1e-3)


def test_all_components_rebuild_the_rows_exactly(gappy, make):
    features = make(gappy, "pca", PCASettings(dimension=7))
    tensors, text = features.student(), gappy.catalog.features["text"]
    rebuilt = features.modalities["text"] @ tensors["text.weight"]
    rebuilt = rebuilt * tensors["text.scale"] + tensors["text.mean"]
    np.testing.assert_allclose(rebuilt, text.values, atol=1e-5)
    assert features.manifest.quality["text"]["explained_variance"] == pytest.approx(1)


def test_pca_is_exact_from_columns_with_large_offsets(made, rng, make):
    image = rng.normal(size=(500, 5)) @ rng.normal(size=(5, 5))
    image = (image * [1, 5, 1e5, 1e-12, 1] + [0, 2000, 3e7, 0, 1e6]).astype(np.float32)
    features = make(made(None, 500, image=image), "pca", PCASettings(dimension=5))
    _, scores, _ = by_svd(image, True, 5)
    np.testing.assert_allclose(features.modalities["image"], scores, rtol=1e-3, atol=1e-3)
    embedded = features.embed("image", image)
    np.testing.assert_allclose(embedded, features.modalities["image"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("n", "width", "kept"), [(5, 9, 4), (40, 3, 3), (1, 9, 1), (40, 9, 6)], ids=str
)
def test_a_dimension_beyond_the_variance_is_lowered_with_a_warning(
    n, width, kept, made, rng, make, caplog
):
    image = rng.normal(size=(n, width)).astype(np.float32)
    with caplog.at_level(logging.WARNING, "sgfd"):
        features = make(made(None, n, image=image), "pca", PCASettings(dimension=6))
    assert features.manifest.modalities[0].dimension == kept
    warnings = [record.getMessage() for record in caplog.records]
    if kept == 6:
        assert warnings == []
    else:
        (line,) = warnings
        assert (
            line.startswith(f"modality image: has {kept if n > 1 else 0} directions")
            and f"dimension is {kept}, not 6" in line
        )


@pytest.mark.parametrize("constant", [1, 0.1, 1e6 / 3, -1e-9])
def test_whitening_leaves_directions_without_variance_alone(constant, made, make):
    image = np.full((999, 3), constant, np.float32)
    features = make(made(None, 999, image=image), "pca", PCASettings(whiten=True))
    assert features.modalities["image"].shape == (999, 1)
    assert np.ptp(features.modalities["image"]) == 0
    assert features.manifest.quality["image"]["explained_variance"] is None


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), values=st.integers(4, 250), offset=st.sampled_from([0, 1, 1e4]))
def test_the_streamed_covariance_is_that_of_the_whole_matrix(seed, values, offset):
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(57, 4)) + offset).astype(np.float32)
    rows[rng.random(57) < 0.2] = np.nan
    feature = Feature.from_array("x", rows)
    statistics = column_statistics(feature)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgfd.distill.streaming.BLOCK_VALUES", values)
        got = covariance(feature, statistics, torch.device("cpu"))
    there = rows[feature.present].astype(np.float64)
    there = (there - statistics.mean) / statistics.scale
    np.testing.assert_allclose(got.mean, there.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(got.matrix, np.cov(there.T, bias=True), atol=1e-9)


# ------------------------------------------------------------------------------- random and label


def test_random_keeps_inner_products_in_expectation(made, rng, make):
    image = rng.normal(size=(30, 40)).astype(np.float32)
    dataset = made(None, 30, image=image)
    x = (image - image.mean(axis=0)) / image.std(axis=0)
    products = [
        rows @ rows.T
        for seed in range(40)
        for rows in [
            make(dataset, "random", RandomSettings(dimension=50), str(seed), seed).modalities[
                "image"
            ]
        ]
    ]
    # var <Rx, Ry> = (|x|^2 |y|^2 + <x, y>^2) / d; 40 seeds, and 5 standard errors for 900 pairs
    norms = np.square(x).sum(axis=1)
    error = np.sqrt((np.outer(norms, norms) + (x @ x.T) ** 2) / 50 / 40)
    assert (np.abs(np.mean(products, axis=0) - x @ x.T) < 5 * error).all()


def test_random_entries_are_normal_with_variance_one_over_d(made, rng, make):
    image = rng.normal(size=(20, 300)).astype(np.float32)
    dataset = made(None, 20, image=image, text=image)
    tensors = make(dataset, "random", RandomSettings(dimension=100)).student()
    weight = tensors["image.weight"] * 10
    assert abs(weight.mean()) < 0.03 and abs(weight.std() - 1) < 0.02
    assert abs((np.abs(weight) < 1).mean() - 0.683) < 0.01
    assert not np.array_equal(tensors["text.weight"], tensors["image.weight"])


def test_a_modality_s_projection_does_not_depend_on_the_others(gappy, made, make):
    text = gappy.catalog.features["text"].values
    alone = make(made(None, 60, text=text), "random", name="alone").modalities["text"]
    np.testing.assert_array_equal(make(gappy, "random").modalities["text"], alone)


def test_label_is_one_hot_and_needs_no_features(made, make):
    features = make(made([2, 0, -1, 2], 4), "label")
    expected = np.array([[0, 0, 1], [1, 0, 0], [np.nan] * 3, [0, 0, 1]], np.float32)
    np.testing.assert_array_equal(features.modalities["category"], expected)
    assert verify(features.path) == []
    assert features.labels.tolist() == ["2", "0", None, "2"]


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("method", "settings", "labels", "what"),
    [
        ("pcaa", None, None, "method 'pcaa': is unknown; choose sgfd-plus or sgfd"),
        ("pca", SGFDSettings(), None, "does not take SGFDSettings; give it PCASettings"),
        ("label", None, None, "no labelled item, and method label"),
        ("label", None, [-1] * 12, "no labelled item, and method label"),
        ("sgfd", None, None, "choose a --method that needs none"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(
    method, settings, labels, what, made, rng, tmp_path
):
    dataset = made(labels, image=rng.normal(size=(12, 3)).astype(np.float32))
    with pytest.raises(DistillError, match=what) as refusal:
        distill(dataset, tmp_path / "out", settings, method=method, threads=1)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("method", WITHOUT_LABELS)
def test_a_catalogue_without_features_is_refused(method, made, tmp_path):
    with pytest.raises(DistillError, match="no item features"):
        distill(made([0] * 12), tmp_path / "out", method=method, threads=1)


# --------------------------------------------------------------------------- on the command line


def run(*arguments):
    return CliRunner().invoke(command, ["--dataset", "sample", *arguments])


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--method", "pcs"), "--method pcs: unknown; choose pca"),
        (("--method", "pca", "--preset", "office"), "--preset: is of sgfd, not of pca; leave it"),
        (("--method", "raw", "--set", "dimension=3"), "--set dimension: unknown; there is none"),
        (("--method", "pca", "--set", "epochs=3"), "--set epochs: unknown; choose dimension or"),
        (("--method", "random", "--set", "dimension=0"), "--set dimension=0: input should"),
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_written(arguments, what, tmp_path):
    done = run(*arguments, "--artifacts-root", str(tmp_path))
    assert done.exit_code == 2
    assert what in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_methods_and_their_settings():
    shown = run("--help").output
    methods = shown.partition("--method")[2].partition("--name")[0]
    for name, method in METHODS.items():
        assert name in methods
        assert (f"Settings of {name} (" in shown) == bool(fields(method.settings))


def test_a_method_s_set_has_a_name_of_its_own(tmp_path):
    done = run(
        *("--method", "pca", "--set", "dimension=8", "--set", "whiten=true"),
        *("--threads", "1", "--artifacts-root", str(tmp_path)),
    )
    assert done.exit_code == 0, done.output
    features = load(tmp_path / "sample-pca")
    assert features.manifest.settings["whiten"] is True
    assert "explained variance" in done.output
    image = load_dataset("sample").catalog.features["image"]
    rows = features.modalities["image"][image.present]
    np.testing.assert_allclose(np.cov(rows.T, bias=True), np.eye(8), atol=1e-3)
