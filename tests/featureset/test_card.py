"""The card, its picture and the Croissant file: true, readable by others, safe to show."""

import hashlib
import io
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sgfd.featureset import load, verify
from sgfd.featureset.picture import COLOURS, OTHER, drawn_of, map_of

HOSTILE = "a|b](http://x) <img src=x> `code` **bold**"


@pytest.fixture
def described(make_rows_set, tmp_path):
    """Two clusters, each of a label; one item without a row, one without a label."""
    rng = np.random.default_rng(0)
    rows = rng.normal(scale=0.1, size=(60, 5)).astype(np.float32)
    rows[:30, 0] += 1
    rows[30:, 1] += 1
    rows[7] = np.nan
    labels = np.array(["Pens"] * 30 + [HOSTILE] * 30, dtype=object)
    labels[8] = None
    figures = {
        "held_out_items": 12,
        "image": {"neighbour_agreement": {"generic": 0.25, "made": 0.5}, "neighbours_kept": 0.75},
    }
    folder = tmp_path / "made"
    make_rows_set(
        folder, {"image": rows}, labels, licence="CC-BY-4.0", contact=HOSTILE, quality=figures
    )
    return folder


def test_every_file_is_in_the_manifest(described):
    assert verify(described) == []
    assert {"map.png", "croissant.json", "README.md"} <= load(described).manifest.files.keys()


def test_each_way_of_reading_runs(described, monkeypatch):
    monkeypatch.chdir(described)
    blocks = re.findall(r"```python\n(.*?)```", (described / "README.md").read_text(), re.DOTALL)
    found = []
    for block in blocks:
        assert len([line for line in block.splitlines() if line]) <= 4
        space = {}
        exec(block, space)
        found.append(space)
    with_pandas, with_numpy, with_torch, with_us = found
    rows = np.load(described / "image.npy")
    assert with_pandas["rows"].index.tolist() == [f"item {i}" for i in range(60) if i != 7]
    np.testing.assert_array_equal(np.stack(with_pandas["rows"]), np.delete(rows, 7, axis=0))
    assert (~with_numpy["present"]).nonzero()[0].tolist() == [7]
    looked_up = with_torch["embedding"](torch.tensor([3, 7]))
    np.testing.assert_array_equal(looked_up.numpy(), [rows[3], np.zeros(5)])
    assert with_us["item_ids"][7] == "item 7"


def test_it_has_figures_limits_terms_and_no_markup_from_data(described):
    card = (described / "README.md").read_text()
    assert "| | generic | this set |" in card
    assert "| image, neighbour agreement | 0.2500 | 0.5000 |" in card
    assert "- image, neighbours kept: 0.7500" in card
    assert "- held out items: 12" in card
    assert "1.7% of the items lack `image`" in card
    assert "Licence: CC-BY-4.0." in card
    assert HOSTILE not in card
    assert "<img" not in re.sub(r"\\<", "", card)
    assert "![Map of the items, a dot each](map.png)" in card
    assert "🟩" not in card  # two labels, two colours
    assert "🟦 a\\|b\\]" in card
    assert "🟧 Pens (29)" in card


def test_what_is_not_said_is_said_to_be_missing(feature_set):
    card = (feature_set / "README.md").read_text()
    assert "No licence is stated" in card
    assert "No contact is stated" in card


def test_the_picture_shows_each_label_where_its_items_are(described):
    image = np.asarray(Image.open(described / "map.png").convert("RGB"))
    assert image.shape == (450, 720, 3)
    assert len((described / "map.png").read_bytes()) < 50_000
    centres = []
    for colour in list(COLOURS.values())[:2]:
        here = (image == colour).all(axis=2)
        assert here.any()
        centres.append(np.argwhere(here).mean(axis=0))
    assert np.abs(centres[0] - centres[1]).max() > 200
    assert (image == OTHER).all(axis=2).any()


def test_of_many_items_few_are_drawn_and_of_too_few_none(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(9000, 3)).astype(np.float32)
    drawn = drawn_of(9000)
    picture = map_of([rows[drawn]], drawn, pa.nulls(9000, pa.string()))
    assert picture.dots == len(drawn) == 2500
    assert [drawn[0], drawn[-1]] == [0, 8999]
    assert picture.legend == []
    assert Image.open(io.BytesIO(picture.png)).size == (720, 450)
    labels = pa.nulls(9, pa.string())
    assert map_of([rows[:2]], drawn_of(2), labels[:2]) is None
    assert map_of([np.full((9, 3), np.nan, dtype=np.float32)], drawn_of(9), labels) is None
    same = map_of([np.ones((9, 3), dtype=np.float32)], drawn_of(9), labels)
    assert same.dots == 9


@pytest.mark.filterwarnings("ignore")  # of what mlcroissant itself uses
def test_croissant_reads_the_table(described, make_compressed, tmp_path):
    mlcroissant = pytest.importorskip("mlcroissant", reason="mlcroissant is not installed")
    read = mlcroissant.Dataset(described / "croissant.json")
    assert not read.metadata.ctx.issues.errors
    records = list(read.records("items"))
    table = pq.read_table(described / "features.parquet").to_pylist()
    assert len(records) == len(table)
    for record, row in zip(records, table, strict=True):
        assert record["items/item_index"] == row["item_index"]
        assert record["items/item_id"].decode() == row["item_id"]
    np.testing.assert_array_equal(records[3]["items/image"], table[3]["image"])

    make_compressed(tmp_path / "compressed")
    other = mlcroissant.Dataset(tmp_path / "compressed" / "croissant.json")
    pairs = pd.DataFrame(other.records("neighbours"))
    expected = pd.read_parquet(tmp_path / "compressed" / "neighbours.parquet")
    assert pairs["neighbours/item_id"].str.decode("utf-8").tolist() == expected["item_id"].tolist()
    assert pairs["neighbours/similarity"].tolist() == pytest.approx(expected["similarity"].tolist())


def test_croissant_tells_every_file_by_its_sha256(described):
    described_files = json.loads((described / "croissant.json").read_text())["distribution"]
    files = {each["@id"]: each for each in described_files}
    assert files.keys() == load(described).manifest.files.keys() - {"croissant.json"}
    for name, each in files.items():
        content = (described / name).read_bytes()
        assert each["sha256"] == hashlib.sha256(content).hexdigest()
        assert each["contentSize"] == f"{len(content)} B"


def test_distill_takes_licence_and_contact(pipeline, tmp_path):
    raw = ("distill", "--dataset", "sample", "--method", "raw")
    done = pipeline(*raw, "--licence", "MIT", "--contact", "data@example.org")
    assert done.code == 0, done.err
    manifest = load(tmp_path / "artifacts" / "sample-raw").manifest
    assert (manifest.licence, manifest.contact) == ("MIT", "data@example.org")
    done = pipeline(*raw, "--name", "other", "--licence", "two\nlines")
    assert done.code == 2
    assert "is not one line" in done.err
    assert not (tmp_path / "artifacts" / "other").exists()


def test_a_modality_that_is_no_name_in_python_is_read_all_the_same(make_rows_set, tmp_path):
    make_rows_set(tmp_path / "made", {"3d": np.eye(4, dtype=np.float32)})
    card = (tmp_path / "made" / "README.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        compile(block, "card", "exec")
