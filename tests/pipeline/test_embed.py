"""`pipeline features embed` and `export-onnx`: from new items to lists, refused, killed."""

import json
import shutil
import signal

import numpy as np
import pandas as pd
import pytest

from sgfd.dataset import load_dataset

IDS = ["i7", *(f"new {i}" for i in range(1, 9))]


@pytest.fixture(scope="module")
def made(run_in, tmp_path_factory):
    """A folder with a set of the sample, one without student, and two catalogues of new items."""
    folder = tmp_path_factory.mktemp("embed")
    method = ("--method", "interaction-metric", "--set", "dimension=16", "--name", "old")
    for arguments in (method, ("--method", "raw", "--name", "raw")):
        assert run_in(folder, "distill", "--dataset", "sample", *arguments).code == 0
    rng = np.random.default_rng(3)
    features = load_dataset("sample").catalog.features
    native, published = folder / "native", folder / "published"
    native.mkdir()
    published.mkdir()
    pd.DataFrame({"item_id": IDS, "category": ["Rugs", "Tents", None] * 3}).to_parquet(
        native / "items.parquet"
    )
    for name, feature in features.items():
        rows = rng.normal(size=(9, feature.dimension)).astype(np.float32)
        rows[4] = np.nan
        np.save(native / f"{name}.npy", rows)
        np.save(published / f"Feature{name.title()}_normal.npy", rows)
    return folder


EMBED = ("features", "embed", "--features", "old", "--catalogue")


def test_from_new_items_to_lists(here, pipeline):
    done = pipeline(*EMBED, "native", "--out", "both", "--append", "--json")
    assert done.code == 0, done.err
    assert done.json() == {
        "artifact": "artifacts/both",
        "kept": 300,
        "added": 8,
        "known": 1,
        "changed": 1,
        "seconds": done.json()["seconds"],
    }
    assert pipeline("features", "verify", "both").code == 0
    shown = pipeline("features", "show", "both").out
    assert "derived from  old: 300 rows kept, 8 items of native added by its student" in shown
    figures = []
    for features in ("old", "both"):
        arguments = ("train", "--backbone", "content", "--features", features, "--name", features)
        trained = pipeline(*arguments, "--threads", "1", "--json")
        assert trained.code == 0, trained.err
        figures.append(trained.json()["metrics"])
    assert figures[0] == figures[1]  # the same items have the same rows
    listed = ("recommend", "old", "--user", "u1", "--new-items", "both", "--k", "308", "--json")
    rows = pipeline(*listed).json()["items"]
    assert set(IDS[1:4]) <= {row["item_id"] for row in rows}
    near = ("similar", "old", "--item", IDS[1], "--new-items", "both", "--k", "307", "--json")
    rows = pipeline(*near).json()["items"]
    listed = {row["item_id"] for row in rows}
    assert {*IDS[2:4], "i7"} <= listed
    assert IDS[1] not in listed


def test_any_layout_will_do_and_what_happened_is_said(here, pipeline):
    done = pipeline(*EMBED, "published", "--out", "sets/fresh")
    assert done.code == 0, done.err
    assert "added         9 items" in done.out
    table = pd.read_parquet(here / "sets" / "fresh" / "features.parquet")
    assert table.item_id.tolist() == [str(i) for i in range(9)]
    again = pipeline(*EMBED, "native", "--out", "old", "--append", "--overwrite")
    assert again.code == 0, again.err
    assert "kept          300 rows of old" in again.out
    assert "known before  1 items of the catalogue: they keep their rows" in again.out
    assert "of which      1 have other features than the old set's rows" in again.out


def test_onnx_files_are_named(here, pipeline):
    done = pipeline("features", "export-onnx", "old", "--out", "onnx", "--json")
    assert done.code == 0, done.err
    files = {name: f"onnx/{name}.onnx" for name in ("fused", "image", "text")}
    assert done.json() == {"folder": "onnx", "files": files}
    assert sorted(path.name for path in (here / "onnx").iterdir()) == sorted(
        f"{name}.onnx" for name in files
    )


ONNX = ("features", "export-onnx", "old", "--out")
BAD = {
    "no student": (
        ("features", "embed", "--features", "raw", "--catalogue", "native", "--out", "x"),
        "has no student",
    ),
    "no set": (
        ("features", "embed", "--features", "none", "--catalogue", "native", "--out", "x"),
        "none: is no feature set",
    ),
    "no catalogue": ((*EMBED, "nowhere", "--out", "x"), "data set 'nowhere': is not in"),
    "an empty catalogue": ((*EMBED, "empty", "--out", "x"), "has no items"),
    "a missing modality": ((*EMBED, "no_text", "--out", "x"), "has no modality text"),
    "another width": ((*EMBED, "narrow", "--out", "x"), "has 5 columns, and image of"),
    "no common modality": ((*EMBED, "audio", "--out", "x"), "has none of the modalities"),
    "an unknown modality": (
        (*EMBED, "native", "--out", "x", "--modalities", "fused"),
        "choose from image and text",
    ),
    "it exists": ((*EMBED, "native", "--out", "old"), "exists already; choose another name or add"),
    "the catalogue itself": (
        (*EMBED, "native", "--out", "./native", "--overwrite"),
        "holds the data set",
    ),
    "another folder": ((*EMBED, "native", "--out", "./", "--overwrite"), "no plain folder name"),
    "no feature set": (
        (*EMBED, "native", "--out", "./audio", "--overwrite"),
        "has no manifest.json, and only a folder that has one is replaced",
    ),
    "a name of dots": ((*EMBED, "native", "--out", ".."), "no plain folder name"),
    "a path of dots": ((*EMBED, "native", "--out", "x/.."), "no plain folder name"),
    "an empty name": ((*EMBED, "native", "--out", ""), "no plain folder name"),
    "two lines": ((*EMBED, "native", "--out", "a\nb"), "no plain folder name"),
    "under a file": ((*EMBED, "native", "--out", "native/items.parquet/x"), "can't be written"),
    "in the set": ((*EMBED, "native", "--out", "artifacts/old/x"), "lies inside the feature set"),
    "a name that is too long": ((*EMBED, "native", "--out", "x" * 300), "give 1 to 150 bytes"),
    "ONNX without a student": (("features", "export-onnx", "raw", "--out", "x"), "has no student"),
    "ONNX that exists": ((*ONNX, "native"), "exists already"),
    "ONNX over other files": ((*ONNX, "native", "--overwrite"), "holds other files than .onnx"),
    "ONNX in dots": ((*ONNX, "x/.."), "no plain folder name"),
}


def test_bad_input_is_refused_in_one_line_and_nothing_is_written(here, pipeline):
    for name in ("empty", "no_text", "narrow", "audio"):
        shutil.copytree(here / "native", here / name)
    for name in ("image", "text"):
        (here / "empty" / f"{name}.npy").unlink()
    pd.DataFrame({"item_id": pd.Series([], dtype=str)}).to_parquet(here / "empty/items.parquet")
    (here / "no_text" / "text.npy").unlink()
    np.save(here / "narrow" / "image.npy", np.ones((9, 5), np.float32))
    (here / "audio" / "image.npy").rename(here / "audio" / "audio.npy")
    (here / "audio" / "text.npy").unlink()
    before = sorted(here.rglob("*"))
    for kind, (arguments, what) in BAD.items():
        done = pipeline(*arguments)
        assert done.code == 2, (kind, done)
        assert what in done.err, (kind, done)
        assert (done.err.count("\n"), done.out) == (1, ""), (kind, done)
        assert sorted(here.rglob("*")) == before, kind


KILLED = """
import os, signal
from sgfd.featureset import FeatureSetWriter
from sgfd.pipeline import main
FeatureSetWriter.finish = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


def test_a_killed_append_leaves_the_old_set_and_is_done_by_the_same_command(here, run_in, pipeline):
    arguments = (*EMBED, "native", "--out", "old", "--append", "--overwrite")
    manifest = (here / "artifacts" / "old" / "manifest.json").read_bytes()
    killed = run_in(here, *arguments, code=KILLED)
    assert killed.code == -signal.SIGKILL
    assert (here / "artifacts" / "old" / "manifest.json").read_bytes() == manifest
    assert pipeline("features", "verify", "old").code == 0
    half = "artifacts/.old.partial/result"
    assert pipeline("features", "verify", half).code == 2
    assert pipeline(*arguments).code == 0
    assert sorted(path.name for path in (here / "artifacts").iterdir()) == ["old", "raw"]
    record = json.loads((here / "artifacts" / "old" / "manifest.json").read_text())
    assert (record["derived_from"]["kept"], record["derived_from"]["added"]) == (300, 8)
    assert pipeline("features", "verify", "old").code == 0
