"""The page to look around in: what it holds is true, small and only ever text."""

import base64
import json
import re
import zlib

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist
from statsmodels.multivariate.pca import PCA

from sgfd.featureset import CosineRows, FeatureSetError, load
from sgfd.featureset.explorer import Generic, SourceItems, contents, explorer_page
from sgfd.featureset.plane import plane

HOSTILE = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1>"


def unpacked(page):
    """The packed contents of a page, its arrays decoded."""
    text = re.search(r'id="packed">([^<]*)</script>', page)[1]
    data = json.loads(zlib.decompress(base64.b64decode(text)))
    k = data["neighbours"]
    for kind in data["kinds"]:
        kind["near"] = numbers(kind["near"], "<i4").reshape(-1, k)
        kind["cosines"] = numbers(kind["cosines"], "i1").reshape(-1, k)
        kind["points"] = numbers(kind["points"], "<u2").reshape(-1, 2)
    for each in data["norms"]:
        each["values"] = numbers(each["values"], "<f4")
    data["labelOf"] = numbers(data["labelOf"], "<i4")
    return data


def numbers(text, kind):
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def nearest_by_scipy(rows, k):
    """Each item's k nearest others by cosine, and these cosines."""
    cosines = 1 - cdist(rows, rows, "cosine")
    np.fill_diagonal(cosines, -2)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosines, order, axis=1)


@pytest.fixture
def page_of(make_rows_set, tmp_path):
    """A set of 200 items, and its page beside generic features in another order."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 6)).astype(np.float32)
    rows[5] = np.nan
    labels = np.array(["Pens", "Ink", HOSTILE, None], dtype=object)[rng.integers(0, 4, 200)]
    make_rows_set(tmp_path / "made", {"image": rows}, labels=labels)
    order = rng.permutation(200)
    generic = rng.normal(3, 2, size=(200, 9)).astype(np.float32)
    catalogue = SourceItems(
        np.array([f"Thing {i} {HOSTILE}" for i in range(200)], dtype=object),
        {"image": Generic(generic[order], np.argsort(order), np.full(9, 3.0), np.full(9, 2.0))},
    )
    opened = load(tmp_path / "made")
    return opened, rows, generic, explorer_page(opened, catalogue, 7)


def test_neighbours_are_those_of_an_outside_judge(page_of):
    _, rows, generic, page = page_of
    distilled, beside = unpacked(page)["kinds"]
    here = np.delete(np.arange(200), 5)
    order, cosines = nearest_by_scipy(rows[here], 7)
    assert np.array_equal(distilled["near"][here], here[order])
    assert (distilled["near"][5] == -1).all()
    assert np.abs(distilled["cosines"][here] / 100 - cosines).max() <= 0.0051
    order, _ = nearest_by_scipy((generic - 3) / 2, 7)
    assert np.array_equal(beside["near"], order)


def test_labels_norms_and_ids_are_the_sets(page_of):
    opened, rows, generic, page = page_of
    data = unpacked(page)
    assert data["ids"] == opened.item_ids.tolist()
    names = [*data["labels"], None]
    assert [names[place] for place in data["labelOf"]] == opened.labels.tolist()
    counts = pd.Series(opened.labels).value_counts()
    assert [counts[name] for name in data["labels"]] == sorted(counts, reverse=True)
    for each, values in zip(data["norms"], (rows, generic), strict=True):
        expected = np.sqrt((values.astype(np.float64) ** 2).sum(axis=1))
        np.testing.assert_allclose(each["values"], expected, rtol=1e-6)


def test_the_map_is_the_plane_of_statsmodels(page_of):
    _, rows, _, page = page_of
    rows = np.delete(rows, 5, axis=0).astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = PCA(unit, 2, standardize=False, normalize=False).factors
    points = unpacked(page)["kinds"][0]["points"].astype(np.float64)
    assert (points[5] == 65535).all()
    points = np.delete(points, 5, axis=0)
    for axis in range(2):
        assert abs(np.corrcoef(points[:, axis], expected[:, axis])[0, 1]) > 0.999999
    scale = np.ptp(points, axis=0) / np.ptp(expected, axis=0)
    assert scale[0] == pytest.approx(scale[1], rel=1e-3)


@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (5, 1)])
def test_a_plane_of_little(shape):
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = plane(CosineRows([rows]))
    assert found.shape == (shape[0], 2)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("d", [90, 300])
def test_a_plane_of_many_columns_is_that_of_statsmodels(rng, d):
    spread = 1 / np.arange(1, d + 1) ** 0.3  # slow decay, as embeddings have
    rows = (rng.normal(size=(500, d)) * spread + rng.normal(size=d)).astype(np.float32)
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    expected = PCA(unit, 2, standardize=False, normalize=False).factors
    found = plane(CosineRows([rows]))
    for axis in range(2):
        assert abs(np.corrcoef(found[:, axis], expected[:, axis])[0, 1]) > 0.9999


def test_axes_are_orthonormal_where_many_directions_spread_alike(rng):
    rows = rng.normal(size=(1000, 200)).astype(np.float32)
    found = plane(CosineRows([rows]))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    spread = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False)
    along = np.linalg.svd(found, compute_uv=False)  # of a projection: below, axis by axis
    assert (along <= spread[:2] * 1.0001).all()
    assert (along > 0.9 * spread[:2]).all()


@pytest.mark.parametrize(
    "rows",
    [
        np.ones((200, 100)),
        np.eye(100)[[0, 1] * 100],  # one-hot, as the method `label` makes
        np.outer(np.linspace(1, 2, 100), np.eye(80)[0]),
        np.zeros((100, 100)),
        np.eye(200),
    ],
)
def test_a_plane_of_rows_that_are_much_alike(rows):
    assert np.isfinite(plane(CosineRows([rows.astype(np.float32)]))).all()


def test_what_comes_from_data_is_never_markup(page_of):
    assert HOSTILE not in page_of[-1]
    assert "window.hurt" not in page_of[-1]


def test_a_row_that_is_not_finite_is_named(make_rows_set, tmp_path, rng):
    make_rows_set(tmp_path / "made", {"image": rng.normal(size=(20, 6)).astype(np.float32)})
    rows = np.load(tmp_path / "made" / "image.npy", mmap_mode="r+")
    rows[4, 2] = np.inf
    rows.flush()
    with pytest.raises(FeatureSetError, match="image: row 4 is not finite"):
        explorer_page(load(tmp_path / "made"))


def test_norms_of_large_rows_are_numbers(make_rows_set, tmp_path, rng):
    rows = (1e30 * rng.normal(size=(20, 4))).astype(np.float32)
    make_rows_set(tmp_path / "made", {"image": rows})
    assert "norms from " in explorer_page(load(tmp_path / "made"))


def test_a_hostile_name_is_escaped(make_rows_set, tmp_path):
    rows = np.eye(3, dtype=np.float32)
    hostile = HOSTILE.replace("/", "")  # which no name may have
    make_rows_set(tmp_path / "made", {"image": rows}, name=hostile)
    page = explorer_page(load(tmp_path / "made"))
    assert hostile not in page
    assert "&lt;script&gt;" in page


def test_the_same_set_gives_the_same_page(page_of):
    opened = page_of[0]
    assert explorer_page(opened, None, 3) == explorer_page(opened, None, 3)


def test_of_too_many_items_an_even_part_is_shown_and_it_is_said(page_of, monkeypatch):
    opened, rows, *_ = page_of
    monkeypatch.setattr(contents, "MOST_ITEMS", 50)
    monkeypatch.setattr(contents, "MOST_PAIRS", 100)
    page = explorer_page(opened, None, 7)
    data = unpacked(page)
    picked = np.array([int(name.split()[1]) for name in data["ids"]])
    assert len(picked) == 50
    assert set(np.diff(picked)) <= {4, 5}
    assert data["neighbours"] == 2
    here = np.flatnonzero(picked != 5)
    order, _ = nearest_by_scipy(rows[picked[here]], 2)
    assert np.array_equal(data["kinds"][0]["near"][here], here[order])
    assert "Left out: 150 of 200 items" in page


def test_without_a_catalogue_items_go_by_id(page_of):
    data = unpacked(explorer_page(page_of[0]))
    assert data["titles"] is None
    assert [kind["name"] for kind in data["kinds"]] == ["distilled"]


def test_the_command_joins_a_catalogue_by_item_id(pipeline, tmp_path):
    assert pipeline("distill", "--dataset", "sample", "--method", "raw").code == 0
    done = pipeline("features", "explore", "sample-raw", "--dataset", "sample", "--json")
    assert done.code == 0, done.err
    page = (tmp_path / "sample-raw.html").read_text()
    data = unpacked(page)
    assert [kind["name"] for kind in data["kinds"]] == ["distilled", "generic"]
    assert done.json() == {
        "page": "sample-raw.html",
        "bytes": len(page.encode()),
        "items": len(data["ids"]),
        "of": len(data["ids"]),
    }
    # What is not standardised is at its own norm, on either side.
    for raw, generic in zip(data["norms"][:2], data["norms"][2:], strict=True):
        assert raw["modality"] == generic["modality"]
        np.testing.assert_allclose(raw["values"], generic["values"], rtol=1e-6)
    again = pipeline("features", "explore", "sample-raw")
    assert again.code == 2
    assert "exists already" in again.err
    over = ("features", "explore", "sample-raw", "--overwrite", "--out")
    assert pipeline(*over, "sample-raw.html").code == 0
    manifest = tmp_path / "artifacts" / "sample-raw" / "manifest.json"
    before = manifest.read_bytes()
    refused = pipeline(*over, manifest)
    assert (refused.code, "is no such page, and only one is replaced" in refused.err) == (2, True)
    assert manifest.read_bytes() == before
    away = pipeline("features", "explore", "sample-raw", "--out", "no/such/page.html")
    assert (away.code, "there is no folder no/such" in away.err) == (2, True)


def test_a_catalogue_of_other_items_is_refused(pipeline, tmp_path):
    assert pipeline("distill", "--dataset", "sample", "--method", "raw").code == 0
    other = tmp_path / "other"
    other.mkdir()
    pd.DataFrame({"item_id": ["x", "y"]}).to_parquet(other / "items.parquet")
    done = pipeline("features", "explore", "sample-raw", "--dataset", other)
    assert done.code == 2
    assert "has none of the items of artifacts/sample-raw" in done.err
    assert not (tmp_path / "sample-raw.html").exists()
