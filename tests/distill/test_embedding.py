"""New items by a set's student: as by hand, appended bit for bit, streamed, whole or not at all."""

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from sgfd.dataset import Dataset, DatasetError, Feature, ItemCatalog, Vocabulary, load_dataset
from sgfd.distill import (
    DistillError,
    InteractionMetricSettings,
    PCASettings,
    RandomSettings,
    distill,
    embed,
    embedding,
)
from sgfd.featureset import KINDS, FeatureSet, FeatureSetError, FeatureSetWriter, load, verify
from sgfd.jobs import JobError

FUSED = InteractionMetricSettings(dimension=16)
PARTS = ("image", "text")


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> FeatureSet:
    """The sample's set, guided by interactions: `fused`, compressed in every way, neighbours."""
    target = tmp_path_factory.mktemp("sets") / "old"
    extras = {"compress": KINDS, "neighbours": 3}
    return load(distill(load_dataset("sample"), target, FUSED, threads=1, **extras).artifact)


@pytest.fixture(scope="module")
def generic() -> dict[str, np.ndarray]:
    """Generic features of 12 items: item 3 lacks its image, item 4 its text, item 5 both; item 0
    is the sample's i7 and item 1 its i8 with other features."""
    rng, sample = np.random.default_rng(1), load_dataset("sample").catalog.features
    values = {n: rng.normal(size=(12, sample[n].dimension)).astype(np.float32) for n in PARTS}
    for name, lacking in (("image", [3, 5]), ("text", [4, 5])):
        values[name][0] = sample[name].values[6]
        values[name][lacking] = np.nan
    return values


IDS = ["i7", "i8", *(f"new {i}" for i in range(2, 12))]
LABELS = np.array([0, 1, 0, -1, 1, 1, 0, 0, 0, 0, 0, 0])
NAMES = ("Rugs", "Tents")  # of which the sample has the first


@pytest.fixture
def catalogue() -> Callable[..., Dataset]:
    def make(values: dict[str, np.ndarray], ids=None, labels=LABELS) -> Dataset:
        features = {name: Feature.from_array(name, rows) for name, rows in values.items()}
        ids = IDS if ids is None else ids
        names = () if labels is None else NAMES
        items = ItemCatalog(Vocabulary(ids), features, labels, names)
        return Dataset("spring", "native", None, items, None)

    return make


def by_hand(folder: Path, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of a set with `fused`, in double precision, from its tensors and its formula alone."""
    tensors = load_file(folder / "student.safetensors")
    sums, rows = 0, {}
    for name, x in values.items():
        part = {
            k: tensors[f"{name}.{k}"].astype(float) for k in ("weight", "bias", "mean", "scale")
        }
        u = (x - part["mean"]) / part["scale"]
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        y = u @ part["weight"].T + part["bias"]
        rows[name] = y / np.linalg.norm(y, axis=1, keepdims=True)
        sums = sums + np.nan_to_num(y)
    with np.errstate(invalid="ignore"):
        rows["fused"] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return rows


def stacked(column: pd.Series, width: int) -> np.ndarray:
    """A Parquet column of vectors as a matrix, NaN where null."""
    return np.stack([np.full(width, np.nan) if each is None else each for each in column])


def test_new_items_alone_are_as_by_hand_for_a_second_reader(old, generic, catalogue, tmp_path):
    made = embed(old, catalogue(generic), tmp_path / "new")
    assert (made.kept, made.added, made.known, made.changed) == (0, 12, 2, 1)
    table = pd.read_parquet(made.artifact / "features.parquet")
    assert table.item_id.tolist() == IDS
    assert table.item_index.tolist() == list(range(12))
    assert table.label.iloc[[0, 1]].tolist() == ["Rugs", "Tents"] and pd.isna(table.label[3])
    for name, expected in by_hand(old.path, generic).items():
        stored = np.load(made.artifact / f"{name}.npy")
        np.testing.assert_allclose(stored, expected, atol=1e-5)
        np.testing.assert_array_equal(stacked(table[name], 16), stored)
    lacking = {name: np.flatnonzero(table[name].isna()).tolist() for name in (*PARTS, "fused")}
    assert lacking == {"image": [3, 5], "text": [4, 5], "fused": [5]}
    assert verify(made.artifact) == []
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_items_of_stage_one_get_their_rows_again(old, tmp_path):
    again = load(embed(old, load_dataset("sample"), tmp_path / "again").artifact)
    for name in old.manifest.plain_modalities:
        np.testing.assert_allclose(again.modalities[name], old.modalities[name], atol=1e-5)
    assert again.labels.tolist() == old.labels.tolist()


def test_appended_rows_stand_after_the_old_ones_which_are_kept_bit_for_bit(
    old, generic, catalogue, tmp_path
):
    made = embed(old, catalogue(generic), tmp_path / "both", append=True)
    assert (made.kept, made.added, made.known, made.changed) == (300, 10, 2, 1)
    assert verify(made.artifact) == []
    before, after = (pq.read_table(f / "features.parquet") for f in (old.path, made.artifact))
    assert after.schema == before.schema
    assert after.slice(0, 300).equals(before)
    assert after["item_id"].to_pylist()[300:] == IDS[2:]
    assert after["label"].to_pylist()[300:] == ["Rugs", None, "Tents", "Tents", *["Rugs"] * 6]
    for modality in old.manifest.modalities:  # those of codes too
        first, rows = (np.load(f / modality.file) for f in (old.path, made.artifact))
        assert rows[:300].tobytes() == first.tobytes(), modality.name
    new = {name: rows[2:] for name, rows in generic.items()}
    for name, expected in by_hand(old.path, new).items():
        np.testing.assert_allclose(
            np.load(made.artifact / f"{name}.npy")[300:], expected, atol=1e-5
        )
    student = "student.safetensors"
    assert (made.artifact / student).read_bytes() == (old.path / student).read_bytes()


def test_compressed_modalities_are_encoded_by_the_old_scales_and_codebooks(
    old, generic, catalogue, tmp_path
):
    made = load(embed(old, catalogue(generic), tmp_path / "both", append=True).artifact)
    before, after = (load_file(s.path / "encodings.safetensors") for s in (old, made))
    for name in ("fused_int8.scale", "fused_pq.codebooks"):
        np.testing.assert_array_equal(after[name], before[name])
    assert after["fused.present"].tolist() == [*before["fused.present"], *[True] * 3, False, *[True] * 6]  # fmt: skip  # noqa: E501
    there = made.present("fused")
    there[:300] = False
    rows = np.load(made.path / "fused.npy")[there]
    codes = np.clip(np.rint(rows / before["fused_int8.scale"]), -127, 127)
    np.testing.assert_array_equal(np.load(made.path / "fused_int8.npy")[there], codes)
    halves = np.load(made.path / "fused_float16.npy")[there]
    np.testing.assert_array_equal(halves, rows.astype(np.float16))
    books = before["fused_pq.codebooks"]  # (4, 256, 4)
    distances = ((rows.reshape(-1, 4, 1, 4) - books) ** 2).sum(axis=3)
    np.testing.assert_array_equal(np.load(made.path / "fused_pq.npy")[there], distances.argmin(2))
    kept = made.manifest.quality["fused_int8"]["mean_cosine"]
    assert kept != old.manifest.quality["fused_int8"]["mean_cosine"]  # measured again, on all rows


def test_neighbours_are_found_again_among_old_and_new(old, generic, catalogue, tmp_path):
    made = load(embed(old, catalogue(generic), tmp_path / "both", append=True).artifact)
    rows = np.nan_to_num(np.load(made.path / "fused.npy").astype(float))
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -2)
    table = pd.read_parquet(made.path / "neighbours.parquet")
    there = np.flatnonzero(made.present("fused"))
    assert len(table) == 3 * len(there)
    best = -np.sort(-cosines[there], axis=1)[:, :3]
    np.testing.assert_allclose(table.similarity.to_numpy().reshape(-1, 3), best, atol=1e-6)
    assert set(table.neighbour_id) & set(IDS[2:])
    assert made.manifest.neighbours == old.manifest.neighbours


def sha256(*lines: str) -> str:
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def test_the_manifest_tells_what_it_was_made_from(old, generic, catalogue, tmp_path):
    new = catalogue(generic)
    alone = load(embed(old, new, tmp_path / "new").artifact).manifest
    both = load(embed(old, new, tmp_path / "both", append=True).artifact).manifest
    old_sha256 = hashlib.sha256((old.path / "manifest.json").read_bytes()).hexdigest()
    mine = {"catalogue": new.catalog.fingerprint(), "labels": new.catalog.labels_fingerprint()}
    for manifest, kept, added in ((alone, 0, 12), (both, 300, 10)):
        origin = manifest.derived_from
        assert (origin.name, origin.manifest_sha256) == ("old", old_sha256)
        assert (origin.kept, origin.added) == (kept, added)
        assert (origin.catalogue.name, origin.catalogue.n_items) == ("spring", 12)
        assert origin.catalogue.fingerprints.model_dump() == {**mine, "interactions": None}
        assert origin.trained_on == old.manifest.dataset
        for same in ("method", "settings", "seed", "interactions", "student", "default_modalities"):
            assert getattr(manifest, same) == getattr(old.manifest, same), same
        assert manifest.quality["fused"] == old.manifest.quality["fused"]
    before = old.manifest.dataset
    assert (alone.dataset.name, alone.dataset.n_items) == ("spring", 12)
    assert (both.dataset.name, both.dataset.n_items) == ("sample", 310)
    assert alone.dataset.fingerprints.model_dump() == {
        **mine,
        "interactions": before.fingerprints.interactions,
    }
    assert both.dataset.fingerprints.model_dump() == {
        "catalogue": sha256(before.fingerprints.catalogue, mine["catalogue"]),
        "labels": sha256(before.fingerprints.labels, mine["labels"]),
        "interactions": before.fingerprints.interactions,
    }
    assert alone.labels.model_dump() == {
        "count": 2,
        "names": ["Rugs", "Tents"],
        "coverage": 11 / 12,
    }
    assert both.labels.names == [*old.manifest.labels.names, "Tents"]
    labelled = sum(label is not None for label in old.labels) + 9
    assert both.labels.coverage == labelled / 310
    coverage = {m.name: m.coverage for m in alone.modalities}
    assert coverage["image"] == 10 / 12
    assert coverage["fused"] == coverage["fused_pq"] == 11 / 12
    card = (tmp_path / "both" / "README.md").read_text()
    assert "The first 300 rows are those of `old`, the other 10 were made" in card


def test_a_second_append_goes_on_from_the_first(old, generic, catalogue, tmp_path):
    first = {name: rows[:6] for name, rows in generic.items()}
    one = embed(old, catalogue(first, IDS[:6], LABELS[:6]), tmp_path / "set", append=True)
    two = embed(
        load(one.artifact), catalogue(generic), tmp_path / "set", append=True, overwrite=True
    )
    assert (two.kept, two.added, two.known) == (304, 6, 6)
    once = embed(old, catalogue(generic), tmp_path / "once", append=True)
    assert verify(two.artifact) == []
    for name in ("fused", "image"):
        rows = [np.load(made.artifact / f"{name}.npy") for made in (two, once)]
        np.testing.assert_allclose(*rows, atol=1e-6)
    assert load(two.artifact).manifest.derived_from.trained_on == old.manifest.dataset
    assert sorted(path.name for path in tmp_path.iterdir()) == ["once", "set"]


def test_nothing_new_is_the_old_rows_and_no_label_goes_lost(old, generic, catalogue, tmp_path):
    known = {name: rows[:2] for name, rows in generic.items()}
    made = embed(old, catalogue(known, IDS[:2], None), tmp_path / "same", append=True)
    assert (made.kept, made.added, made.changed) == (300, 0, 1)
    opened = load(made.artifact)
    assert opened.manifest.labels == old.manifest.labels
    assert opened.manifest.dataset.fingerprints.labels == sha256(
        old.manifest.dataset.fingerprints.labels
    )
    assert (made.artifact / "fused.npy").read_bytes() == (old.path / "fused.npy").read_bytes()


def test_a_modality_that_the_catalogue_has_not_can_be_taken_as_lacking(
    old, generic, catalogue, tmp_path
):
    text = {"text": generic["text"]}
    with pytest.raises(
        DistillError, match=r"has no modality image.* as lacking: --modalities text"
    ):
        embed(old, catalogue(text), tmp_path / "new")
    made = load(embed(old, catalogue(text), tmp_path / "new", modalities=["text"]).artifact)
    assert not made.present("image").any()
    expected = by_hand(old.path, {**generic, "image": np.full_like(generic["image"], np.nan)})
    np.testing.assert_allclose(made.modalities["fused"], expected["fused"], atol=1e-5)
    np.testing.assert_allclose(made.modalities["fused"], made.modalities["text"], atol=1e-6)


@pytest.mark.parametrize("append", [False, True])
def test_blocks_of_any_size_give_the_same_and_none_is_larger(
    append, old, generic, catalogue, tmp_path, monkeypatch
):
    whole = embed(old, catalogue(generic), tmp_path / "whole", append=append)
    sizes, appended = [], FeatureSetWriter.append

    def measured(self, block):
        sizes.append(len(block["fused"]))
        appended(self, block)

    monkeypatch.setattr(FeatureSetWriter, "append", measured)
    monkeypatch.setattr(embedding, "EXPORT_VALUES", 5 * 112)  # fused is made from 64 + 48 columns
    blocks = embed(old, catalogue(generic), tmp_path / "blocks", append=append)
    assert max(sizes) <= 8 and sum(sizes) == 12 - 2 * append + 300 * append
    for name in ("fused", "image", "text"):
        rows = [np.load(made.artifact / f"{name}.npy") for made in (whole, blocks)]
        np.testing.assert_allclose(*rows, atol=1e-6)
    assert verify(blocks.artifact) == []


def test_memory_does_not_grow_with_the_items(tmp_path, made, rng, monkeypatch):
    rows = rng.normal(size=(12, 512)).astype(np.float32)
    small = distill(made(None, image=rows), tmp_path / "old", PCASettings(dimension=8), threads=1)
    monkeypatch.setattr(embedding, "EXPORT_ROWS", 128)
    peaks = []
    for n in (512, 4096):
        np.save(tmp_path / "image.npy", rng.normal(size=(n, 512)).astype(np.float32))
        items = Vocabulary([f"new {i}" for i in range(n)])
        image = Feature.from_npy("image", tmp_path / "image.npy")
        catalog = ItemCatalog(items, {"image": image})
        tracemalloc.start()
        embed(
            load(small.artifact), Dataset("x", "native", None, catalog, None), tmp_path / f"set {n}"
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 3584 * 512 * 4 / 10  # a tenth of the features that are more


def test_a_set_without_parts_and_with_leaky_relu_is_applied_too(tmp_path, made, rng):
    values = {n: rng.normal(size=(12, d)).astype(np.float32) for n, d in (("a", 6), ("b", 5))}
    settings = RandomSettings(dimension=4, normalise=True)
    result = distill(made(None, **values), tmp_path / "old", settings, threads=1)
    manifest = json.loads((result.artifact / "manifest.json").read_text())
    manifest["student"]["negative_slope"] = 0.01  # as SGFD's has, which takes long to train
    (result.artifact / "manifest.json").write_text(json.dumps(manifest))
    again = load(embed(load(result.artifact), made(None, **values), tmp_path / "x").artifact)
    tensors = load_file(result.artifact / "student.safetensors")
    for name, x in values.items():
        part = [tensors[f"{name}.{k}"] for k in ("weight", "bias", "mean", "scale")]
        y = ((x - part[2]) / part[3]) @ part[0].T + part[1]
        y = np.where(y < 0, 0.01 * y, y)
        expected = y / np.linalg.norm(y, axis=1, keepdims=True)
        np.testing.assert_allclose(again.modalities[name], expected, atol=1e-5)


def without(values, name):
    return {key: rows for key, rows in values.items() if key != name}


BAD = {
    "another width": (
        lambda v: v | {"image": v["image"][:, :5]},
        {},
        "has 5 columns, and image of",
    ),
    "no common modality": (lambda v: {"audio": v["image"]}, {}, "has none of the modalities that"),
    "no features": (lambda v: {}, {}, "it has none; give the features"),
    "a missing modality": (lambda v: without(v, "text"), {}, "has no modality text, which"),
    "an unknown modality": (
        lambda v: v,
        {"modalities": ["fused"]},
        "no layer for 'fused'; choose from image and text",
    ),
    "too large": (lambda v: v | {"image": v["image"] * 1e37}, {}, "features are too large to be"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_embedded_is_refused_and_nothing_is_left(
    kind, old, generic, catalogue, tmp_path
):
    change, options, what = BAD[kind]
    with pytest.raises(DistillError, match=what):
        embed(old, catalogue(change(generic)), tmp_path / "x" / "new", **options)
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "x"])


def test_broken_or_no_rows_are_refused(old, generic, catalogue, tmp_path):
    part = {name: rows.copy() for name, rows in generic.items()}
    part["text"][7, 3] = np.nan
    with pytest.raises(DatasetError, match="row 7 is NaN in part"):
        embed(old, catalogue(part), tmp_path / "new")
    for nobody in (catalogue({}, [], None), Dataset("no catalogue", "native", None, None, None)):
        with pytest.raises(DistillError, match="has no items to embed"):
            embed(old, nobody, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_set_without_a_student_or_with_a_changed_file_is_refused(
    generic, catalogue, tmp_path, made, rng
):
    values = rng.normal(size=(12, 3)).astype(np.float32)
    raw = distill(made(None, image=values), tmp_path / "raw", method="raw", threads=1)
    with pytest.raises(FeatureSetError, match="has no student"):
        embed(load(raw.artifact), catalogue(generic), tmp_path / "new")
    pca = distill(made(None, image=values), tmp_path / "pca", PCASettings(dimension=2), threads=1)
    file = pca.artifact / "image.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(FeatureSetError, match=r"image.npy: sha256 is not the manifest's"):
        embed(load(pca.artifact), made(None, image=values), tmp_path / "new", append=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pca", "raw"]


def test_rows_of_rounding_alone_are_no_other_rows(tmp_path):
    """A constant modality standardises to 0, and what is made of it is rounding."""
    folder = tmp_path / "data"
    folder.mkdir()
    pd.DataFrame({"item_id": IDS}).to_parquet(folder / "items.parquet")
    rows = np.full((len(IDS), 6), 2.1, np.float32)
    np.save(folder / "image.npy", rows)
    made = load(distill(load_dataset(folder), tmp_path / "set", method="random").artifact)
    assert embed(made, load_dataset(folder), tmp_path / "again").changed == 0


def test_a_target_that_holds_something_else_is_left_alone(old, generic, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    pd.DataFrame({"item_id": IDS}).to_parquet(folder / "items.parquet")
    for name, rows in generic.items():
        np.save(folder / f"{name}.npy", rows)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "link").symlink_to(old.path)
    data, before = load_dataset(folder), sorted(tmp_path.rglob("*"))
    targets = {
        "mine": "has no manifest.json, and only a folder that has one is replaced",
        "data": "holds the data set",
        ".": "holds the data set",
        "link": "is a link",
    }
    for name, what in targets.items():
        with pytest.raises(JobError, match=what):
            embed(old, data, tmp_path / name, overwrite=True)
    with pytest.raises(DistillError, match="lies inside the feature set"):
        embed(old, data, old.path / "new")
    with pytest.raises(JobError, match="exists already; choose another name or add --overwrite"):
        embed(old, data, tmp_path / "mine")
    assert sorted(tmp_path.rglob("*")) == before
    assert verify(old.path) == []


@pytest.mark.parametrize("step", ["append", "add_neighbours", "finish"])
def test_one_that_is_interrupted_leaves_the_old_set_whole(
    step, old, generic, catalogue, tmp_path, monkeypatch
):
    made = embed(old, catalogue(generic), tmp_path / "set", append=True)
    before = (made.artifact / "manifest.json").read_bytes()

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(FeatureSetWriter, step, stop)
    with pytest.raises(KeyboardInterrupt):
        embed(load(made.artifact), catalogue(generic), made.artifact, append=True, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert (made.artifact / "manifest.json").read_bytes() == before
    assert verify(made.artifact) == []


def test_a_set_that_is_replaced_meanwhile_is_not_overwritten(
    old, generic, catalogue, tmp_path, monkeypatch
):
    """Two appends to one set: the later one would drop the rows of the other."""
    made = embed(old, catalogue(generic), tmp_path / "set", append=True)
    opened = load(made.artifact)
    manifest = json.loads((made.artifact / "manifest.json").read_text())
    write = embedding._write

    def then_replaced(*arguments):
        written = write(*arguments)
        (made.artifact / "manifest.json").write_text(
            json.dumps(manifest | {"created": "2030-01-01T00:00:00Z"})
        )
        return written

    monkeypatch.setattr(embedding, "_write", then_replaced)
    with pytest.raises(DistillError, match="was replaced meanwhile; run the command again"):
        embed(opened, catalogue(generic), made.artifact, append=True, overwrite=True)
    assert load(made.artifact).manifest.created == "2030-01-01T00:00:00Z"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_rows_beyond_the_scales_of_int8_are_told_of(generic, catalogue, tmp_path, caplog):
    made = distill(
        load_dataset("sample"), tmp_path / "old", PCASettings(dimension=8), compress=["int8"]
    )
    larger = {name: rows.copy() for name, rows in generic.items()}
    larger["image"][[2, 6]] *= 1_000
    embed(load(made.artifact), catalogue(larger), tmp_path / "new")
    assert "image_int8: 2 of 12 new rows hold much larger numbers than its" in caplog.text
    assert "text_int8" not in caplog.text


def test_more_labels_than_a_manifest_names_are_refused_first(
    old, generic, catalogue, tmp_path, monkeypatch
):
    monkeypatch.setattr("sgfd.distill.stage.MOST_IN_LABELS", 10)
    with pytest.raises(DistillError, match="has 2 labels, more than a manifest can name"):
        embed(old, catalogue(generic), tmp_path / "new")
    monkeypatch.undo()
    monkeypatch.setattr("sgfd.featureset.writing.MANIFEST_BYTES", 300)
    with pytest.raises(FeatureSetError, match="and no reader takes more than 300"):
        embed(old, catalogue(generic), tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
