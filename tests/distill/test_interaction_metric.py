"""The closed form against its formula, written densely, and the rows that it is a map of."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sgfd.dataset import Interactions, Pairs, Vocabulary, load_dataset
from sgfd.distill import (
    DistillError,
    InteractionMetricSettings,
    SGFDPlusSettings,
    distill,
    interaction_metric,
)
from sgfd.distill.fused import FusedRows
from sgfd.distill.interaction_metric import content_weight, metric_weight
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.row_space import RowSpace
from sgfd.distill.streaming import column_statistics
from sgfd.featureset import load, verify

SETTINGS = InteractionMetricSettings(dimension=5)


@pytest.fixture
def catalog(made, rng):
    """Two modalities of 12 items, which some items lack."""
    image, text = rng.normal(size=(12, 6)), rng.normal(size=(12, 4)) + 3
    image[[2, 5]], text[[3, 5]] = np.nan, np.nan
    return made(None, image=image.astype(np.float32), text=text.astype(np.float32)).catalog


@pytest.fixture
def rows(catalog):
    columns = {name: column_statistics(f) for name, f in catalog.features.items()}
    return FusedRows(catalog.features, columns, torch.device("cpu"))


@pytest.fixture
def pairs(rng):
    """Of 9 users; the last two items have none, and one user has none."""
    matrix = rng.random((9, 12)) < 0.4
    matrix[:, 10:], matrix[4] = False, False
    user, item = matrix.nonzero()
    return TrainingPairs.of(user, item, 9, 12)


def dense_rows(catalog):
    parts = []
    for feature in catalog.features.values():
        x = feature.values.astype(np.float64)
        x = (x - np.nanmean(x, axis=0)) / np.nanstd(x, axis=0)
        parts.append(np.nan_to_num(x / np.linalg.norm(x, axis=1, keepdims=True)))
    whole = np.concatenate(parts, axis=1)
    return whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1e-12)


def test_rows_are_unit_modalities_side_by_side(catalog, rows):
    expected = dense_rows(catalog)
    np.testing.assert_allclose(rows.read(np.arange(12)).numpy(), expected, atol=1e-6)
    assert not expected[5].any()  # the item that lacks both


def test_the_map_is_that_of_the_formula(catalog, rows, pairs, monkeypatch):
    a = pairs.matrix.toarray().astype(np.float64)
    has = a.any(axis=0)
    w = 1 / np.maximum(a.sum(axis=1), 1)
    norms = np.sqrt((w[:, None] * a).sum(axis=0))[has]
    c = (a.T * w) @ a
    c = c[np.ix_(has, has)] / np.outer(norms, norms)
    np.fill_diagonal(c, 0)
    u = dense_rows(catalog)[has]
    h = np.linalg.solve(u.T @ u + 3 * np.eye(10), u.T)
    m = 10 * h @ c @ h.T + 0.3 * np.eye(10)
    values, vectors = np.linalg.eigh(m)
    best = vectors[:, ::-1][:, :5] * np.sqrt(values[::-1][:5])
    weight = metric_weight(rows, pairs, SETTINGS).double().numpy()
    np.testing.assert_allclose(weight.T @ weight, best @ best.T, atol=1e-5)
    monkeypatch.setattr(FusedRows, "block_rows", 3)  # in blocks, it is the same
    for in_cache, users in ((100, 1), (0, 4), (0, 100)):
        monkeypatch.setattr(interaction_metric, "IN_CACHE", in_cache)
        monkeypatch.setattr(interaction_metric, "USERS_A_PRODUCT", users)
        again = metric_weight(rows, pairs, SETTINGS).double().numpy()
        np.testing.assert_allclose(again, weight, atol=1e-5)


@pytest.fixture
def wide(made, rng):
    """Fused rows of 12 items with 40 columns, and pairs of 9 of them."""
    catalog = made(None, image=rng.normal(size=(12, 40)).astype(np.float32)).catalog
    columns = {"image": column_statistics(catalog.features["image"])}
    matrix = rng.random((9, 12)) < 0.5
    matrix[:, 9:], matrix[0, :9] = False, True
    pairs = TrainingPairs.of(*matrix.nonzero(), 9, 12)
    return FusedRows(catalog.features, columns, torch.device("cpu")), pairs


def test_more_columns_than_items_are_solved_in_the_space_of_the_rows(wide, monkeypatch):
    rows, pairs = wide
    settings = replace(SETTINGS, dimension=2)
    assert RowSpace.of(rows, pairs.items, 2).width == 11
    maps = metric_weight(rows, pairs, settings), content_weight(rows, pairs.items, 2)
    monkeypatch.setattr(RowSpace, "of", lambda rows, items, dimension: RowSpace(rows, None))
    dense = metric_weight(rows, pairs, settings), content_weight(rows, pairs.items, 2)
    for got, expected in zip(maps, dense, strict=True):
        assert (got.norm(dim=1) > settings.content**0.5 * 1.01).all()  # the items' own directions
        torch.testing.assert_close(got.T @ got, expected.T @ expected, atol=1e-5, rtol=0)


def test_beyond_what_items_tell_it_is_as_good_as_dense(wide, monkeypatch):
    """Directions that no item has a part in are all alike, and come before what is pushed apart."""
    rows, pairs = wide
    settings = replace(SETTINGS, dimension=8)
    weight, seen = metric_weight(rows, pairs, settings), rows.read(pairs.items)
    assert RowSpace.of(rows, pairs.items, 8).basis is not None
    monkeypatch.setattr(RowSpace, "of", lambda rows, items, dimension: RowSpace(rows, None))
    dense = metric_weight(rows, pairs, settings)
    norms, expected = weight.norm(dim=1), dense.norm(dim=1)
    torch.testing.assert_close(norms, expected, atol=1e-5, rtol=0)
    told = expected > settings.content**0.5 + 1e-3
    assert 0 < told.sum() < 8
    gram = [(seen @ each[told].T) @ (seen @ each[told].T).T for each in (weight, dense)]
    torch.testing.assert_close(*gram, atol=1e-5, rtol=0)


def test_a_map_may_be_wider_than_there_are_items(wide):
    rows, pairs = wide
    weight = metric_weight(rows, pairs, replace(SETTINGS, dimension=15))
    assert weight.shape == (15, 40) and weight.isfinite().all()
    assert (weight.norm(dim=1) > 0).sum() >= 9


def test_leading_columns_have_the_largest_part(rows, pairs):
    sizes = metric_weight(rows, pairs, SETTINGS).norm(dim=1)
    assert (sizes.diff() <= 1e-6).all()


def test_without_interactions_it_is_the_principal_directions(catalog, rows):
    there = np.array([i for i in range(12) if i != 5])
    weight = content_weight(rows, there, 10).double().numpy()
    u = dense_rows(catalog)[there]
    np.testing.assert_allclose(u @ weight.T @ weight @ u.T, u @ u.T, atol=1e-5)  # all are kept
    first = content_weight(rows, there, 1).double().numpy()[0]
    leading = np.linalg.svd(u)[2][0]
    assert abs(first @ leading) == pytest.approx(1, abs=1e-5)


def test_a_feature_set_of_it_is_whole_and_embeds_its_own_rows(tmp_path):
    dataset = load_dataset("sample")
    result = distill(dataset, tmp_path / "x", SETTINGS, threads=1)
    assert verify(result.artifact) == []
    features = load(result.artifact)
    generic = {name: f.values for name, f in dataset.catalog.features.items()}
    np.testing.assert_allclose(
        features.embed("fused", generic), features.modalities["fused"], atol=1e-5
    )
    for name, values in generic.items():
        np.testing.assert_allclose(
            features.embed(name, values), features.modalities[name], atol=1e-5
        )
    assert features.chosen_modalities() == ["fused"]


def test_it_says_how_well_held_out_items_are_found(tmp_path):
    """As `sgfd-plus` says of its start, on the same items; what is made is the same without."""
    sample = load_dataset("sample")
    measured = distill(sample, tmp_path / "a", SETTINGS, threads=1)
    recall = measured.quality["held_out_recall@20"]
    assert set(recall) == {"generic", "raw", "closed_form"}
    plus = SGFDPlusSettings(dimension=5, epochs=1)
    beside = distill(sample, tmp_path / "b", plus, threads=1).quality["held_out_recall@20"]
    assert recall["generic"] == beside["generic"]
    assert recall["closed_form"] == pytest.approx(beside["closed_form"])
    plain = distill(sample, tmp_path / "c", replace(SETTINGS, held_out_share=0), threads=1)
    assert "held_out_recall@20" not in plain.quality
    made = [(each.artifact / "fused.npy").read_bytes() for each in (measured, plain)]
    assert made[0] == made[1]


def test_it_warns_where_generic_features_find_more(tmp_path, caplog):
    """Two directions of five clusters' and noise's hundred can't tell the clusters."""
    sample = load_dataset("sample")
    distill(sample, tmp_path / "a", replace(SETTINGS, dimension=64), threads=1)
    assert "new items are found less" not in caplog.text
    recall = distill(sample, tmp_path / "b", replace(SETTINGS, dimension=2), threads=1).quality[
        "held_out_recall@20"
    ]
    assert recall["closed_form"] < recall["generic"] - 0.05
    said = (
        f"held-out ones {recall['closed_form']:.3f}, by --method standard {recall['generic']:.3f}"
    )
    assert said in caplog.text


def test_only_the_training_part_is_seen(tmp_path, monkeypatch):
    """Other test pairs change nothing; the manifest says which pairs were seen."""
    dataset = load_dataset("sample")
    first = load(distill(dataset, tmp_path / "a", SETTINGS, threads=1).artifact)
    interactions = dataset.interactions
    test = interactions.test
    object.__setattr__(test, "item", np.roll(test.item, 7))
    second = load(distill(dataset, tmp_path / "b", SETTINGS, threads=1).artifact)
    np.testing.assert_array_equal(first.modalities["fused"], second.modalities["fused"])
    assert first.manifest.interactions == second.manifest.interactions
    assert first.manifest.interactions.split == "given"
    fingerprints = [f.manifest.dataset.fingerprints.interactions for f in (first, second)]
    assert fingerprints[0] != fingerprints[1]


def test_interactions_of_items_without_content_are_refused(made, rng, tmp_path):
    values = rng.normal(size=(12, 6)).astype(np.float32)
    values[:4] = np.nan
    dataset = made(None, image=values)
    nothing = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    pairs = Pairs(np.array([0, 0, 0]), np.array([1, 2, 7]))
    interactions = Interactions(Vocabulary(["u"]), dataset.catalog.items, pairs, nothing, nothing)
    with pytest.raises(DistillError, match="no user with 2 items that have features"):
        distill(replace(dataset, interactions=interactions), tmp_path / "x", SETTINGS, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_a_catalogue_without_interactions_is_refused(made, rng, tmp_path):
    dataset = made(None, image=rng.normal(size=(12, 6)).astype(np.float32))
    with pytest.raises(DistillError, match="has no training interactions"):
        distill(dataset, tmp_path / "x", SETTINGS, threads=1)
