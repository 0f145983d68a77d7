"""Nearest neighbours: exact, in a stated order, in any blocks."""

import numpy as np
import pandas as pd
import pytest

from sgfd.featureset import FeatureSetError, load, nearest, neighbours, verify
from sgfd.featureset.neighbours import CosineRows


def brute_force(modalities, k):
    """By item with a row, its k nearest others and their cosines, in double precision."""
    units = []
    for rows in modalities:
        rows = rows.astype(np.float64)
        units.append(np.nan_to_num(rows / np.linalg.norm(rows, axis=1, keepdims=True)))
    cosines = (sum(u @ u.T for u in units) / len(units)).astype(np.float32)
    here = np.flatnonzero(~np.all([np.isnan(rows[:, 0]) for rows in modalities], axis=0))
    found = {}
    for item in here:
        others = here[here != item]
        order = np.lexsort((others, -cosines[item, others]))[:k]
        found[item] = others[order].tolist(), cosines[item, others[order]]
    return found


def agree(modalities, k):
    expected, seen = brute_force(modalities, k), []
    for block in nearest(CosineRows(modalities), k):
        for item, others, cosines in zip(
            block.items, block.neighbours, block.similarity, strict=True
        ):
            seen.append(item)
            np.testing.assert_allclose(cosines, expected[item][1], atol=2e-7)
            assert others.tolist() == expected[item][0]
    assert seen == list(expected)


@pytest.fixture
def rows(rng):
    """Whole numbers, whose cosines tie often; two rows are lacking and one is 0."""
    rows = rng.integers(-2, 3, size=(400, 5)).astype(np.float32)
    rows[[4, 399]] = np.nan
    rows[11] = 0
    return rows


def powers_of_two(rng, n):
    """Rows of norm 2, whose cosines are exact in any order of addition."""
    signs = rng.choice(np.array([-1, 1], dtype=np.float32), size=(n, 4))
    signs[n // 2] = np.nan
    return signs


@pytest.mark.parametrize("k", [1, 10, 500])
def test_it_is_brute_force_in_double_precision(rng, k):
    values = rng.normal(size=(300, 16)).astype(np.float32)
    values[[0, 17]] = np.nan
    agree([values], min(k, 297))


def test_ties_go_to_the_lower_row_however_many_there_are(rng):
    """16 kinds of rows: each item ties with some 25 others, more than are asked for."""
    agree([powers_of_two(rng, 400)], 5)


def test_candidates_rounded_otherwise_change_nothing(rng, monkeypatch):
    """As far as single precision may be off, and with ties the other way round."""

    def contrary(rows, vectors, depth):
        scores = vectors @ rows.read(rows.items).T
        scores += rng.uniform(-1, 1, scores.shape) * rows.width * 2.0**-24
        best = np.lexsort((np.broadcast_to(-rows.items, scores.shape), -scores), axis=1)
        best = best[:, :depth]
        return np.take_along_axis(scores, best, axis=1).astype(np.float32), rows.items[best]

    monkeypatch.setattr(neighbours, "_candidates", contrary)
    agree([powers_of_two(rng, 400)], 5)


def test_several_modalities_count_by_the_mean_of_their_cosines(rng):
    agree([powers_of_two(rng, 100), rng.normal(size=(100, 8)).astype(np.float32)], 7)


def test_the_blocks_do_not_matter(rows, monkeypatch):
    def all_of(k):
        blocks = list(nearest(CosineRows([rows]), k))
        return [np.concatenate([getattr(b, name) for b in blocks]) for name in vars(blocks[0])]

    whole = all_of(6)
    monkeypatch.setattr(neighbours, "BLOCK_VALUES", 5 * 37)
    monkeypatch.setattr(neighbours, "RESULTS", 500)
    for before, now in zip(whole, all_of(6), strict=True):
        np.testing.assert_array_equal(before, now)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_items_have_as_many_neighbours_as_there_are_others(n):
    blocks = list(nearest(CosineRows([np.eye(n, 4, dtype=np.float32)]), 5))
    assert [block.neighbours.shape for block in blocks] == ([(n, n - 1)] if n > 1 else [])


def test_the_table_is_read_by_pandas_alone(compressed_set):
    table = pd.read_parquet(compressed_set / "neighbours.parquet")
    assert table.dtypes.astype(str)["similarity"] == "float32"
    ids = pd.read_parquet(compressed_set / "features.parquet", columns=["item_id"]).item_id
    expected = brute_force([np.load(compressed_set / "fused.npy")], 4)
    assert table.item_id.tolist() == ids.iloc[np.repeat(list(expected), 4)].tolist()
    assert table.neighbour_id.tolist() == [
        ids[other] for others, _ in expected.values() for other in others
    ]
    pd.testing.assert_frame_equal(load(compressed_set).neighbours().to_pandas(), table)
    record = load(compressed_set).manifest.neighbours
    assert (record.k, record.modalities) == (4, ["fused"])
    assert (
        'nearest = pd.read_parquet("neighbours.parquet")'
        in (compressed_set / "README.md").read_text()
    )


def test_a_set_without_says_so(feature_set):
    with pytest.raises(FeatureSetError, match="holds no neighbours; make it with"):
        load(feature_set).neighbours()
    assert verify(feature_set) == []
