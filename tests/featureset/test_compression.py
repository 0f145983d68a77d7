"""Compressed modalities: what is stored, what it is read as, and that others can read it too."""

import json
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load_file

from sgfd.featureset import KINDS, FeatureSetError, load, verify
from sgfd.featureset.compression import CODECS, Compressed, CompressedRows, Int8, ProductQuantiser

LACKING = [3, 7, 299]  # items of `compressed_set` that lack the modality


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def second_reader(folder: Path, name: str) -> np.ndarray:
    """A compressed modality from the Parquet file, by the format's description alone."""
    modalities = {m["name"]: m for m in json.loads((folder / "manifest.json").read_text())["modalities"]}  # fmt: skip  # noqa: E501
    encoding, d = modalities[name]["encoding"], modalities[name]["dimension"]
    column = pd.read_parquet(folder / "features.parquet")[name]
    there = column.notna().to_numpy()
    q = np.stack(column[there])
    if encoding["kind"] == "float16":
        x = q.astype(np.float32)
    elif encoding["kind"] == "int8":
        x = q * load_file(folder / encoding["file"])[f"{name}.scale"]
    else:
        books = load_file(folder / encoding["file"])[f"{name}.codebooks"]
        x = np.hstack([books[m][q[:, m].astype(int)] for m in range(q.shape[1])])[:, :d]
    rows = np.full((len(column), d), np.nan)
    rows[there] = unit(x) if modalities[name]["normalised"] else x
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_reader_decodes_the_same_rows(compressed_set, kind):
    opened = load(compressed_set)
    np.testing.assert_allclose(
        np.asarray(opened.modalities[f"fused_{kind}"]),
        second_reader(compressed_set, f"fused_{kind}"),
        atol=1e-6,
    )


def test_float16_is_numpy_s(compressed_set):
    rows = np.load(compressed_set / "fused.npy")
    stored = np.load(compressed_set / "fused_float16.npy")
    np.testing.assert_array_equal(stored, rows.astype(np.float16))
    decoded = load(compressed_set).modalities["fused_float16"][0:300]
    np.testing.assert_allclose(decoded, unit(stored.astype(np.float64)), atol=1e-6)


def test_int8_is_the_nearest_of_127_steps_of_the_largest_entry(compressed_set):
    rows = np.load(compressed_set / "fused.npy").astype(np.float64)
    stored = np.load(compressed_set / "fused_int8.npy")
    scale = np.nanmax(np.abs(rows), axis=0) / 127
    np.testing.assert_allclose(
        load_file(compressed_set / "encodings.safetensors")["fused_int8.scale"], scale, rtol=1e-6
    )
    there = np.setdiff1d(np.arange(300), LACKING)
    np.testing.assert_array_equal(stored[there], np.rint(rows[there] / scale))
    np.testing.assert_array_equal(np.abs(stored).max(axis=0), 127)
    decoded = load(compressed_set).modalities["fused_int8"][there]
    np.testing.assert_allclose(decoded, unit(stored[there] * scale), atol=1e-6)


def test_product_quantisation_is_faiss_s(compressed_set):
    there = np.setdiff1d(np.arange(300), LACKING)
    rows = np.pad(np.load(compressed_set / "fused.npy")[there], ((0, 0), (0, 2)))
    oracle = faiss.ProductQuantizer(12, 3, 8)  # 10 columns and two of 0
    oracle.cp.seed = 0
    oracle.train(rows)
    codes = oracle.compute_codes(rows)
    np.testing.assert_array_equal(np.load(compressed_set / "fused_pq.npy")[there], codes)
    decoded = load(compressed_set).modalities["fused_pq"][there]
    np.testing.assert_allclose(decoded, unit(oracle.decode(codes)[:, :10]), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lacking_stays_lacking(compressed_set, kind):
    opened, name = load(compressed_set), f"fused_{kind}"
    decoded = opened.modalities[name][:]
    assert np.flatnonzero(np.isnan(decoded).all(axis=1)).tolist() == LACKING
    assert np.isnan(decoded).any(axis=1).sum() == len(LACKING)
    assert np.flatnonzero(~opened.present(name)).tolist() == LACKING
    column = pd.read_parquet(compressed_set / "features.parquet")[name]
    assert np.flatnonzero(column.isna()).tolist() == LACKING


@pytest.mark.parametrize(("kind", "size"), [("float16", 20), ("int8", 10), ("pq", 3)])
def test_rows_are_decoded_from_the_memory_map_when_they_are_asked_for(compressed_set, kind, size):
    opened = load(compressed_set)
    rows = opened.modalities[f"fused_{kind}"]
    assert isinstance(rows, CompressedRows) and isinstance(rows.stored, np.memmap)
    assert rows.stored.itemsize * rows.stored.shape[1] == size
    assert (rows.shape, len(rows), rows.dtype) == ((300, 10), 300, np.float32)
    whole, some = np.asarray(rows), np.array([5, 3, 5, 0])
    np.testing.assert_array_equal(rows[2:9], whole[2:9])
    np.testing.assert_array_equal(rows[some], whole[some])
    np.testing.assert_array_equal(rows[opened.present("fused")], whole[opened.present("fused")])
    with pytest.raises(TypeError, match="rows are chosen by a slice"):
        rows[:, 0]


def test_the_manifest_tells_what_it_is_and_the_set_is_whole(compressed_set):
    manifest = load(compressed_set).manifest
    assert manifest.format_version == "1.4"
    described = {m.name: m.encoding for m in manifest.modalities}
    assert described.pop("fused") is None
    assert {name: (e.kind, e.of, e.columns, e.file) for name, e in described.items()} == {
        "fused_float16": ("float16", "fused", 10, None),
        "fused_int8": ("int8", "fused", 10, "encodings.safetensors"),
        "fused_pq": ("pq", "fused", 3, "encodings.safetensors"),
    }
    assert "encodings.safetensors" in manifest.files
    assert verify(compressed_set) == []


def test_the_card_shows_what_is_lost_and_how_to_decode(compressed_set):
    quality = load(compressed_set).manifest.quality["fused_int8"]
    assert quality["bytes_an_item"] == 10
    assert 0.999 < quality["mean_cosine"] < 1
    assert 0.9 < quality["neighbours_kept@10"] <= 1
    card = (compressed_set / "README.md").read_text()
    kept = f"{quality['neighbours_kept@10']:.4f}"
    assert f"| fused_int8 | fused | 10 | {quality['mean_cosine']:.4f} | {kept} |" in card
    assert "x = q * `fused_int8.scale`, to unit norm; lacking where `fused.present`" in card


def test_compressed_ones_are_used_when_they_are_named_alone(compressed_set):
    opened = load(compressed_set)
    assert opened.manifest.default_modalities == []
    assert opened.chosen_modalities() == ["fused"]
    assert opened.chosen_modalities(["fused_pq"]) == ["fused_pq"]


def test_parquet_columns_are_of_the_stored_type(compressed_set):
    schema = pq.read_schema(compressed_set / "features.parquet")
    assert {kind: str(schema.field(f"fused_{kind}").type) for kind in KINDS} == {
        "float16": "fixed_size_list<element: halffloat not null>[10]",
        "int8": "fixed_size_list<element: int8 not null>[10]",
        "pq": "fixed_size_list<element: uint8 not null>[3]",
    }


def test_a_byte_takes_a_byte_in_the_parquet_file_too(rng, make_compressed, tmp_path):
    rows = rng.normal(size=(2048, 8)).astype(np.float32)
    make_compressed(tmp_path / "large", rows, block=2048)
    group = pq.ParquetFile(tmp_path / "large" / "features.parquet").metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    sizes = {c.path_in_schema: c.total_compressed_size for c in columns}
    # and a quarter more at most for the bits that say where a list begins
    assert sizes["fused_int8.list.element"] < 1.3 * rows.size
    assert sizes["fused_pq.list.element"] < 1.5 * rows.size / 4


@pytest.mark.parametrize("n", [1, 2, 255, 256])
def test_product_quantisation_of_few_items_loses_nothing_and_says_nothing(n, rng, source, capfd):
    rows = rng.normal(size=(n, 7)).astype(np.float32)
    codec = ProductQuantiser.fit(source(rows), 0)
    np.testing.assert_array_equal(codec.decode(codec.encode(rows)), rows)
    assert capfd.readouterr() == ("", "")


@settings(deadline=None, max_examples=50)
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=8),
        elements=st.floats(-(2.0**40), 2.0**40, width=32),
    )
)
def test_int8_is_off_by_half_a_step_at_most(source, rows):
    codec = Int8.fit(source(rows), 0)
    error = np.abs(codec.decode(codec.encode(rows)).astype(np.float64) - rows)
    assert (error <= codec.scale * (0.5 + 1e-4)).all()


def test_a_scale_is_that_of_all_blocks(rng, source, monkeypatch):
    from sgfd.featureset import compression

    rows = rng.normal(size=(50, 4)).astype(np.float32)
    rows[[0, 49]] = np.nan
    whole = Int8.fit(source(rows), 0).scale
    monkeypatch.setattr(compression, "BLOCK_VALUES", 12)
    np.testing.assert_array_equal(Int8.fit(source(rows), 0).scale, whole)


def test_float16_refuses_what_it_cannot_hold(source):
    rows = np.array([[1, 7e4]], dtype=np.float32)
    compressed = Compressed("price", CODECS["float16"].fit(source(rows), 0))
    with pytest.raises(FeatureSetError, match="can't hold 70000; leave it out"):
        compressed.encode(rows)


def test_a_reader_of_format_1_1_refuses_it_loudly(compressed_set):
    """It passes over `encoding`, which it does not know."""
    path = compressed_set / "manifest.json"
    manifest = json.loads(path.read_text())
    for modality in manifest["modalities"]:
        del modality["encoding"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(FeatureSetError, match=r"fused_float16.npy: is float16 .*, not float32"):
        load(compressed_set)


def test_two_writings_are_the_same_bytes(compressed_set, make_compressed, tmp_path):
    make_compressed(tmp_path / "again")
    for path in compressed_set.iterdir():
        if path.name not in ("manifest.json", "README.md", "croissant.json"):
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_int8_says_which_rows_it_cuts_off(rng, source):
    codec = Int8.fit(source(rng.normal(size=(50, 4)).astype(np.float32)), 0)
    most = codec.scale * np.float32(127)
    barely = most * np.array([1, 1, -1.1, 1], np.float32)
    beyond = most * np.array([1, 1, -2, 1], np.float32)
    rows = np.stack([most, barely, beyond, np.full(4, np.nan, np.float32)])
    assert codec.cut_off(rows).tolist() == [False, False, True, False]
    for row, least in zip(rows[1:3], (0.995, 0), strict=True):
        kept = codec.decode(codec.encode(row[None]))[0]
        cosine = kept @ row / np.linalg.norm(kept) / np.linalg.norm(row)
        assert least < cosine < (1 if least else 0.995)


@pytest.mark.parametrize(("d", "codes", "width"), [(12, 2, 8), (6, 3, 2), (7, 2, 4)])
def test_codebooks_of_any_width_that_the_format_allows_encode(d, codes, width, rng):
    codebooks = rng.normal(size=(codes, 256, width)).astype(np.float32)
    codebooks[-1, :, width - (codes * width - d) :] = 0  # columns that fill the last code
    codec = ProductQuantiser(codebooks, d)
    stored = rng.integers(0, 256, (5, codes), dtype=np.uint8)
    rows = codec.decode(stored)
    np.testing.assert_array_equal(codec.decode(codec.encode(rows)), rows)


@pytest.mark.filterwarnings("error")
def test_rows_that_are_not_finite_are_decoded_without_a_warning():
    """`verify` says so in a line; numpy's warning would be a second, of a place in our code."""
    stored = np.full((2, 4), np.inf, dtype=np.float16)
    rows = CompressedRows(stored, CODECS["float16"].from_tensors({}, 4, 4), 4, normalised=True)
    assert np.isnan(rows[:]).all()
