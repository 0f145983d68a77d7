"""Exports are opened by the tools they are for, where these are installed."""

import csv
import json
import os
import resource
import subprocess

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from sgfd.featureset import FeatureSetError, InteractionsUse, load
from sgfd.featureset.formats import FORMATS, export, refuse_guided_export
from sgfd.featureset.publish import partial_folder
from sgfd.jobs import JobError, room_in

LACKING = 7
LIMIT = 1000  # bytes: between items.csv and either index
IDS = [f"B{number:03}" for number in range(40)]


@pytest.fixture
def opened(make_rows_set, tmp_path):
    """40 items with an image and a text; item 7 lacks its image."""
    rng = np.random.default_rng(0)
    image = rng.normal(1, 1, size=(40, 6)).astype(np.float32)
    image[LACKING] = np.nan
    rows = {"image": image, "text": rng.normal(size=(40, 4)).astype(np.float32)}
    labels = np.array(["Pens", "Ink, red", None, 'a "b"'] * 10, dtype=object)
    make_rows_set(tmp_path / "set", rows, labels, IDS)
    return load(tmp_path / "set")


def exported(opened, kind):
    target = opened.path.parent / "out"
    export(opened, target, kind)
    return target


def filled(rows):
    """As a tool gets them that knows of no lacking rows."""
    return np.where(np.isnan(rows), np.nanmean(rows, axis=0, dtype=np.float64), rows)


def write_interactions(path, columns, separator="\t"):
    """Eight users, each with ten of the 40 items, so that every item occurs."""
    pairs = [(f"u{user}", IDS[(5 * user + step) % 40]) for user in range(8) for step in range(10)]
    pd.DataFrame(pairs, columns=columns).to_csv(path, sep=separator, index=False)
    return pairs


def test_numpy(opened):
    folder = exported(opened, "numpy")
    for name, rows in opened.modalities.items():
        np.testing.assert_array_equal(np.load(folder / f"{name}.npy", allow_pickle=False), rows)
    assert np.load(folder / "item_ids.npy", allow_pickle=False).tolist() == IDS


def test_safetensors(opened):
    folder = exported(opened, "safetensors")
    tensors = load_file(folder / "features.safetensors")
    assert tensors.keys() == {"image", "text"}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, opened.modalities[name])
    items = pd.read_csv(folder / "items.csv", dtype=str, keep_default_na=False)
    assert items["item_id"].tolist() == IDS
    assert items["label"].tolist() == [label or "" for label in opened.labels]


def test_labels_are_no_formulas_in_a_spreadsheet_and_ids_stay_as_they_are(make_rows_set, tmp_path):
    labels = ["=1+1", "+1", "-1", "@A1", "\t=1", "\r=1", "1-1", "Pens", None]
    ids = ["-rose", "=1", *"cdefghi"]
    rows = {"image": np.eye(9, dtype=np.float32)}
    make_rows_set(tmp_path / "set", rows, np.array(labels, dtype=object), ids)
    folder = exported(load(tmp_path / "set"), "safetensors")
    with (folder / "items.csv").open(newline="", encoding="utf-8") as file:
        items = list(csv.DictReader(file))
    assert [item["item_id"] for item in items] == ids
    assert [item["label"] for item in items] == [
        *(f"'{each}" for each in labels[:6]),
        *labels[6:8],
        "",
    ]


def test_an_index_that_finds_no_room_is_one_line_and_leaves_nothing(opened):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        with pytest.raises(JobError, match="the disk is full"), room_in(opened.path):
            exported(opened, "faiss")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in opened.path.parent.iterdir()] == ["set"]


def test_faiss(opened):
    import faiss

    folder = exported(opened, "faiss")
    index = faiss.read_index(str(folder / "image.faiss"))
    assert index.ntotal == 39
    rows = np.array(opened.modalities["image"])
    there = np.delete(np.arange(40), LACKING)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines, found = index.search(unit[there], 2)
    expected = unit[there] @ unit[there].T
    np.fill_diagonal(expected, -2)
    assert found[:, 0].tolist() == there.tolist()
    assert found[:, 1].tolist() == there[expected.argmax(axis=1)].tolist()
    np.testing.assert_allclose(cosines[:, 1], expected.max(axis=1), atol=1e-6)


def test_cornac_trains_on_it(opened, tmp_path):
    cornac = pytest.importorskip("cornac", reason="cornac is not installed")
    from cornac.data import Dataset, ImageModality

    folder = exported(opened, "cornac")
    ids = json.loads((folder / "item_ids.json").read_text())
    features = np.load(folder / "image.npy", allow_pickle=False)
    modality = ImageModality(features=features, ids=ids)
    pairs = write_interactions(tmp_path / "x.csv", ["user", "item"])
    data = Dataset.build([(user, item, 1.0) for user, item in pairs], seed=0)
    data.add_modalities(item_image=modality)
    modality.build(id_map=data.iid_map)
    expected = filled(opened.modalities["image"])
    for row, item in enumerate(IDS):
        number = data.iid_map[item]
        np.testing.assert_allclose(data.item_image.features[number], expected[row], rtol=1e-6)
    model = cornac.models.VBPR(k=2, k2=2, n_epochs=1, use_gpu=False, verbose=False, seed=0)
    assert np.isfinite(model.fit(data).score(0)).all()


def read_as_mmrec(folder, config):
    """The features as MMRec's `GeneralRecommender` loads them, unpickling left out."""
    places = ("vision_feature_file", "text_feature_file")
    return [np.load(folder / config[place], allow_pickle=False) for place in places]


def test_mmrec(opened):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    folder = exported(opened, "mmrec")
    config = yaml.safe_load((folder / "tiny.yaml").read_text())
    assert config["field_separator"] == "\t"
    assert config["inter_file_name"] == "tiny.inter"
    image, text = read_as_mmrec(folder, config)
    np.testing.assert_allclose(image, filled(opened.modalities["image"]), rtol=1e-6)
    np.testing.assert_array_equal(text, opened.modalities["text"])
    # As MMRec's own notebooks read the mapping.
    mapping = pd.read_csv(folder / "i_id_mapping.csv", sep=config["field_separator"])
    assert dict(zip(mapping["item_id"], mapping["itemID"], strict=True)) == {
        item: row for row, item in enumerate(IDS)
    }


@pytest.mark.parametrize(
    ("names", "vision", "text"),
    [
        (["fused"], "fused", None),
        (["text"], None, "text"),
        (["text", "fused"], "fused", "text"),
        (["title", "audio"], "title", "audio"),
    ],
)
def test_mmrec_gives_every_modality_a_place(make_rows_set, tmp_path, names, vision, text):
    make_rows_set(tmp_path / "set", {name: np.eye(3, dtype=np.float32) for name in names})
    export(load(tmp_path / "set"), tmp_path / "out", "mmrec")
    lines = (tmp_path / "out" / "tiny.yaml").read_text().splitlines()
    placed = {line.split("_feature")[0]: line.split('"')[1] for line in lines if "_feature" in line}
    wanted = {"vision": vision, "text": text}
    assert placed == {place: f"{name}_feat.npy" for place, name in wanted.items() if name}


@pytest.mark.parametrize(("kind", "name"), [("numpy", "item_ids"), ("recbole", "inter")])
def test_no_modality_takes_the_place_of_another_file(make_rows_set, tmp_path, kind, name):
    make_rows_set(tmp_path / "set", {name: np.eye(3, dtype=np.float32)})
    with pytest.raises(
        FeatureSetError, match=f"another file that is called as the modality {name}"
    ):
        export(load(tmp_path / "set"), tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def read_recbole(folder, name):
    """An atomic file as RecBole's documentation describes it: typed heads, tabs, spaces."""
    head, *lines = (folder / f"tiny.{name}").read_text(encoding="utf-8").split("\n")[:-1]
    assert head == f"{name}_id:token\t{name}_emb:float_seq"
    cells = [line.split("\t") for line in lines]
    return {item: np.array(row.split(" "), dtype=np.float32) for item, row in cells}


def test_recbole_by_its_documentation(opened):
    folder = exported(opened, "recbole")
    for name, rows in opened.modalities.items():
        read = read_recbole(folder, name)
        assert list(read) == [item for item, row in zip(IDS, rows, strict=True) if row[0] == row[0]]
        for item, row in read.items():
            np.testing.assert_array_equal(row, rows[IDS.index(item)])


IN_RECBOLE = """
import sys, numpy as np, torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import BPR
from recbole.trainer import Trainer

class OnFeatures(BPR):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        rows = torch.as_tensor(dataset.get_preload_weight("text_id"), dtype=torch.float32)
        self.item_embedding = torch.nn.Embedding.from_pretrained(rows)

folder = sys.argv[1]
config = Config(
    model="BPR",
    dataset="tiny",
    config_file_list=[f"{folder}/tiny/features.yaml"],
    config_dict={"data_path": folder, "embedding_size": 4, "epochs": 1, "seed": 0},
)
data = create_dataset(config)
found = {name: data.get_preload_weight(f"{name}_id") for name in ("image", "text")}
model = OnFeatures(config, data)
before = model.user_embedding.weight.detach().numpy().copy()
train, _, _ = data_preparation(config, data)
Trainer(config, model).fit(train, saved=False, verbose=False)
found |= {"before": before, "after": model.user_embedding.weight.detach().numpy()}
np.savez(f"{folder}/found.npz", ids=data.id2token("item_id", range(data.item_num)), **found)
"""


def test_recbole_trains_on_it(opened, tmp_path):
    """RecBole 1.2.1 needs numpy 1, and this project numpy 2: it has an environment of its own,
    whose interpreter RECBOLE_PYTHON names."""
    python = os.environ.get("RECBOLE_PYTHON")
    if python is None:
        pytest.skip("RECBOLE_PYTHON names no interpreter with RecBole")
    exported(opened, "recbole").rename(tmp_path / "tiny")
    write_interactions(tmp_path / "tiny" / "tiny.inter", ["user_id:token", "item_id:token"])
    script = [python, "-c", IN_RECBOLE, str(tmp_path)]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz", allow_pickle=False)
    number = {item: place for place, item in enumerate(found["ids"])}
    for name, rows in opened.modalities.items():
        weights = found[name][[number[item] for item in IDS]]
        np.testing.assert_allclose(weights, np.nan_to_num(rows), rtol=1e-6)
    assert np.isfinite(found["after"]).all()
    assert (found["after"][1:] != found["before"][1:]).any(axis=1).all()  # user 0 is nobody


def check_table(read, opened):
    """Columns of Python values against the set."""
    assert read["item_id"] == IDS
    assert read["label"] == opened.labels.tolist()
    for name, rows in opened.modalities.items():
        for row, values in zip(rows, read[name], strict=True):
            if values is None:
                assert np.isnan(row).all()
            else:
                np.testing.assert_array_equal(np.array(values, dtype=np.float32), row)


def test_parquet_of_hf_datasets(opened):
    folder = exported(opened, "hf-datasets")
    table = pd.read_parquet(folder / "data" / "train-00000-of-00001.parquet")
    read = {name: table[name].tolist() for name in table}
    read["label"] = [None if label != label else label for label in read["label"]]
    check_table(read, opened)


def test_datasets_opens_it(opened, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    read = datasets.load_dataset(
        str(exported(opened, "hf-datasets")), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert read.features["image"].length == 6
    check_table({name: list(read[name]) for name in read.column_names}, opened)


def test_lance_opens_it(opened):
    lance = pytest.importorskip("lance", reason="pylance is not installed")
    folder = exported(opened, "lance")
    table = lance.dataset(str(folder / "features.lance")).to_table()
    check_table({name: table[name].to_pylist() for name in table.column_names}, opened)
    nearest = lance.dataset(str(folder / "features.lance")).to_table(
        nearest={"column": "text", "q": np.array(opened.modalities["text"][3]), "k": 1}
    )
    assert nearest["item_id"].to_pylist() == [IDS[3]]


def test_without_pylance_it_says_how_to_get_it(opened, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lance", None)
    with pytest.raises(FeatureSetError, match=r"pylance: is not installed; pip install"):
        exported(opened, "lance")
    assert sorted(path.name for path in opened.path.parent.iterdir()) == ["set"]


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "lance"])
def test_every_format_takes_compressed_modalities_decoded(kind, make_compressed, tmp_path):
    make_compressed(tmp_path / "set")
    opened, done = load(tmp_path / "set"), []
    files = export(opened, tmp_path / "out", kind, ["fused_int8"], advance=done.append)
    assert sum(done) == 300
    assert "export.json" in files
    if kind in ("numpy", "cornac"):
        rows = np.load(tmp_path / "out" / "fused_int8.npy")
        there = opened.present("fused_int8")
        np.testing.assert_array_equal(
            rows[there], np.asarray(opened.modalities["fused_int8"])[there]
        )


def test_only_an_export_is_replaced(opened, tmp_path):
    folder = exported(opened, "numpy")
    with pytest.raises(FeatureSetError, match="exists already"):
        export(opened, folder, "faiss")
    export(opened, folder, "faiss", overwrite=True)
    assert not (folder / "image.npy").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis").write_text("mine")
    with pytest.raises(FeatureSetError, match="is no export"):
        export(opened, mine, "faiss", overwrite=True)
    with pytest.raises(FeatureSetError, match="lies inside the feature set"):
        export(opened, opened.path / "out", "faiss")
    with pytest.raises(FeatureSetError, match="has no modality 'audio'"):
        export(opened, tmp_path / "new", "faiss", ["audio"])
    assert (mine / "thesis").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out", "set"]


def test_what_a_killed_export_left_goes_with_the_next(opened, tmp_path):
    left = tmp_path / ".out.partial" / "result"
    left.mkdir(parents=True)
    (left / "half").write_text("of another")
    folder = exported(opened, "numpy")
    assert not (folder / "half").exists() and not left.parent.exists()
    with partial_folder(tmp_path / "new") as partial:
        with pytest.raises(FeatureSetError, match="another process is writing it at this moment"):
            export(opened, tmp_path / "new", "numpy")
        assert partial.exists()


def test_a_modality_that_is_named_twice_is_written_once(opened, tmp_path):
    export(opened, tmp_path / "out", "safetensors", ["image", "text", "image"])
    assert set(load_file(tmp_path / "out" / "features.safetensors")) >= {"image", "text"}
    export(opened, tmp_path / "table", "hf-datasets", ["image", "image"])
    (table,) = (tmp_path / "table").rglob("*.parquet")
    assert list(pd.read_parquet(table).columns).count("image") == 1


@pytest.mark.parametrize("kind", ["mmrec", "recbole"])
def test_an_id_that_would_break_a_line_is_refused(make_rows_set, tmp_path, kind):
    make_rows_set(tmp_path / "set", {"image": np.eye(2, dtype=np.float32)}, ids=["a", "b\tc"])
    with pytest.raises(FeatureSetError, match=r"row 1: .* can't read the id 'b\\tc'"):
        export(load(tmp_path / "set"), tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


def test_a_data_sets_name_never_leads_out_of_the_folder(make_rows_set, tmp_path):
    rows = {"image": np.eye(2, dtype=np.float32)}
    make_rows_set(tmp_path / "set", rows)
    manifest = tmp_path / "set" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "tiny"', '"name": "../../x"'))
    for kind in ("mmrec", "recbole"):
        export(load(tmp_path / "set"), tmp_path / "deep" / "er" / kind, kind)
    assert not list(tmp_path.glob("x*"))
    assert not list(tmp_path.glob("deep/x*"))


def test_the_command_exports_and_refuses_in_one_line(pipeline, tmp_path):
    assert pipeline("distill", "--dataset", "sample", "--method", "raw").code == 0
    command = ("features", "export", "sample-raw", "--format")
    done = pipeline(*command, "mmrec", "--out", "out", "--json")
    assert done.code == 0, done.err
    assert set(done.json()["files"]) == {path.name for path in (tmp_path / "out").iterdir()}
    for arguments, said in {
        ("mmrek", "--out", "other"): "choose mmrec",
        ("mmrec", "--out", "out"): "exists already",
        ("faiss", "--out", "other", "--modalities", "x"): "has no modality 'x'",
    }.items():
        done = pipeline(*command, *arguments)
        assert (done.code, said in done.err) == (2, True), done.err
    assert not (tmp_path / "other").exists()
    text = pipeline("features", "export", "--help").out
    assert all(kind in text for kind in FORMATS)


def test_what_interactions_guided_is_not_read_back(opened, tmp_path):
    refuse_guided_export(tmp_path)  # nobody's export
    refuse_guided_export(exported(opened, "numpy"))
    use = InteractionsUse(protocol="honest", split="given", split_seed=0, pairs=3, sha256="0" * 64)
    opened.manifest = opened.manifest.model_copy(update={"interactions": use})
    export(opened, tmp_path / "guided", "mmrec")
    with pytest.raises(FeatureSetError, match="that interactions guided"):
        refuse_guided_export(tmp_path / "guided")
