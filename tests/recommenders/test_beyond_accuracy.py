"""Concentration, novelty and diversity agree with their definitions, pair by pair."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from scipy.stats import entropy

from sgfd.dataset import Feature
from sgfd.recommenders import ItemSets
from sgfd.recommenders.evaluation import (
    beyond_accuracy,
    diversities,
    gini,
    intra_list_diversity,
    item_popularity,
    novelty,
)

N_ITEMS = 9


@st.composite
def listings(draw):
    """Lists of distinct items, padded with -1, int64 (V, 5)."""
    row = st.lists(st.integers(0, N_ITEMS - 1), max_size=5, unique=True)
    rows = draw(st.lists(row, min_size=1, max_size=8))
    return np.array([items + [-1] * (5 - len(items)) for items in rows], dtype=np.int64)


@pytest.fixture
def lists(rng):
    lists = np.argsort(rng.random((40, 30)), axis=1)[:, :12]
    lists[::5, 8:] = -1
    lists[7], lists[8, 1:] = -1, -1
    return lists


@pytest.fixture
def features(rng):
    features = rng.normal(size=(30, 6)).astype(np.float32)
    features[::6] = np.nan
    features[1, 2] = np.nan
    features[2] = 0
    return features


@given(listings())
def test_gini_is_half_the_mean_difference_over_the_mean(lists):
    counts = [int((lists == item).sum()) for item in range(N_ITEMS)]
    difference = np.mean([abs(a - b) for a in counts for b in counts])
    expected = difference / (2 * np.mean(counts)) if any(counts) else 0
    assert gini(lists, N_ITEMS) == pytest.approx(expected, abs=1e-12)


@given(listings())
def test_gini_is_one_less_twice_the_area_under_the_lorenz_curve(lists):
    shown = np.sort([(lists == item).sum() for item in range(N_ITEMS)])
    if shown.any():
        curve = np.concatenate([[0], np.cumsum(shown) / shown.sum()])
        area = np.trapezoid(curve, dx=1 / N_ITEMS)
        assert gini(lists, N_ITEMS) == pytest.approx(1 - 2 * area, abs=1e-12)


def test_gini_of_equal_and_of_extreme_lists():
    assert gini(np.array([[0, 1], [2, 3]]), 4) == 0
    assert gini(np.full((5, 1), 2), 4) == pytest.approx(3 / 4)
    assert gini(np.full((5, 1), -1), 4) == 0


@given(listings(), st.permutations(range(N_ITEMS)), st.randoms())
def test_no_measure_depends_on_the_order_of_users_or_items(lists, names, random):
    """Renaming items, reordering users and the items of a list changes nothing."""
    order = np.array(random.sample(range(len(lists)), len(lists)))
    turned = np.array([*names, -1])[lists][order][:, ::-1]
    generator = np.random.default_rng(0)
    popularity, features = generator.random(N_ITEMS) + 0.1, generator.normal(size=(N_ITEMS, 4))
    renamed = np.argsort(names)  # the old item at each new place
    assert gini(turned, N_ITEMS) == gini(lists, N_ITEMS)
    np.testing.assert_allclose(
        novelty(turned, popularity[renamed]), novelty(lists, popularity)[order], atol=1e-12
    )
    feature, turned_feature = (Feature.from_array("f", f) for f in (features, features[renamed]))
    np.testing.assert_allclose(
        intra_list_diversity(turned, turned_feature, (5,)),
        intra_list_diversity(lists, feature, (5,))[order],
        atol=1e-6,
    )


def test_popularity_is_the_share_of_users_and_never_zero():
    train = ItemSets.from_pairs(np.array([0, 1, 1]), np.array([0, 0, 2]), 4, 4)
    np.testing.assert_array_equal(item_popularity(train), [2 / 4, 0.5 / 4, 1 / 4, 0.5 / 4])


def test_novelty_is_the_mean_self_information(lists, rng):
    train = ItemSets.from_pairs(rng.integers(0, 50, 400), rng.integers(0, 25, 400), 50, 30)
    owners = [{u for u in range(50) if i in train.of(u)} for i in range(30)]
    shares = [max(len(owner), 0.5) / 50 for owner in owners]
    values = novelty(lists, item_popularity(train))
    for row, value in zip(lists, values, strict=True):
        listed = row[row >= 0]
        expected = np.mean([-np.log2(shares[i]) for i in listed]) if len(listed) else np.nan
        assert value == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_novelty_of_equally_likely_items_is_their_entropy():
    popularity = np.full(8, 1 / 8)
    expected = entropy(popularity, base=2)
    assert novelty(np.array([[3, 1, 7]]), popularity) == pytest.approx([expected])


@pytest.mark.parametrize("cells", [1, 50, 10**6])
@pytest.mark.parametrize("kind", ["<f4", "<f8", ">f8", "<f2", "<f4 by columns"])
def test_diversity_is_the_mean_over_all_pairs(lists, features, cells, kind, monkeypatch, tmp_path):
    monkeypatch.setattr(beyond_accuracy, "_ROW_CELLS", cells)
    monkeypatch.setattr(beyond_accuracy, "_SUM_CELLS", cells)
    features = features.astype(np.float16)  # so that all kinds hold the same numbers
    stored = features.astype(kind.removesuffix(" by columns"))
    if kind.endswith("by columns"):
        stored = np.asfortranarray(stored)
    np.save(tmp_path / "features.npy", stored)
    feature = Feature.from_npy("image", tmp_path / "features.npy")
    assert feature.usable_as_stored == (kind in ("<f4", "<f8"))
    values = intra_list_diversity(lists, feature, (3, 12))
    has = ~np.isnan(features).any(axis=1) & features.any(axis=1)
    for row, found in zip(lists, values, strict=True):
        for k, value in zip((3, 12), found, strict=True):
            vectors = features[[i for i in row[:k] if i >= 0 and has[i]]].astype(np.float64)
            distances = [cosine(a, b) for a, b in combinations(vectors, 2)]
            expected = np.mean(distances) if distances else np.nan
            assert value == pytest.approx(expected, abs=1e-5, nan_ok=True)
    assert np.isnan(values).sum() >= 4


def test_arrays_in_memory_are_used_as_they_are_where_torch_can(lists, features):
    locked = features.copy()
    locked.flags.writeable = False
    by_columns = np.asfortranarray(features)
    expected = intra_list_diversity(lists, Feature.from_array("image", features), (12,))
    for array, usable in ((features, True), (locked, False), (by_columns, False)):
        feature = Feature.from_array("image", array)
        assert feature.usable_as_stored == usable
        np.testing.assert_allclose(intra_list_diversity(lists, feature, (12,)), expected, atol=1e-6)


def test_diversity_reads_only_listed_items_in_blocks_that_fit(rng, monkeypatch):
    """Lists that share their items make one block; those that do not are halved until they fit."""
    monkeypatch.setattr(beyond_accuracy, "_ROW_CELLS", 10 * 4)
    feature = Feature.from_array("image", rng.normal(size=(1000, 4)).astype(np.float16))
    read = []
    gather = Feature.gather
    monkeypatch.setattr(Feature, "gather", lambda self, i: read.append(i) or gather(self, i))
    alike, apart = np.tile(np.arange(5), (64, 1)), np.arange(40).reshape(8, 5)
    below = np.arange(500, 572)[:, None]  # at places that no cutoff reaches
    intra_list_diversity(np.hstack([np.concatenate([alike, apart]), below]), feature, (5,))
    for_norms, for_sums = read[:4], read[4:]
    np.testing.assert_array_equal(np.concatenate(for_norms), np.arange(40))
    assert for_sums[0].tolist() == [0, 1, 2, 3, 4]
    assert max(map(len, read)) <= 10 and len(for_sums) < 12
    assert sorted(set(np.concatenate(read).tolist())) == list(range(40))


def test_diversity_is_the_same_to_the_last_digit_however_the_items_are_ranked(rng):
    """Nearly equal scores may change places when a run is judged again."""
    feature = Feature.from_array("image", rng.normal(size=(300, 33)))
    lists = np.argsort(rng.random((50, 300)), axis=1)[:, :20]
    one, other = (intra_list_diversity(each, feature, (20,)) for each in (lists, lists[:, ::-1]))
    np.testing.assert_array_equal(one, other)


def test_diversity_of_like_opposite_and_orthogonal_items():
    features = Feature.from_array("f", np.array([[1.0, 0], [5, 0], [0, 2], [-3, 0]]))
    found = intra_list_diversity(np.array([[0, 1], [0, 2], [0, 3]]), features, (2,))
    np.testing.assert_allclose(found[:, 0], [0, 1, 2], atol=1e-6)


def test_a_catalogue_s_diversity_is_known_without_items_that_lack_the_modality(lists, features):
    generic = {"image": Feature.from_array("image", features)}
    found = diversities(lists, generic, (3, 12))
    assert list(found) == ["diversity_image@3", "diversity_image@12"]
    without = np.where(np.isnan(features[lists]).any(axis=2), -1, lists)
    again = diversities(np.where(lists >= 0, without, -1), generic, (3, 12))
    np.testing.assert_allclose(found["diversity_image@12"], again["diversity_image@12"], atol=1e-6)
