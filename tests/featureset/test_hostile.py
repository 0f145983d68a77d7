"""What a reader must refuse: each hostile set is one line of FeatureSetError, nothing else."""

import json
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgfd.featureset import FeatureSetError, load, verify


def edit(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def replace(folder, name, write):
    """Another file under a name, with the manifest's size and digest made to fit."""
    import hashlib

    write(folder / name)
    content = (folder / name).read_bytes()
    record = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(folder, lambda m: m["files"].update({name: record}))


def escape(manifest):
    manifest["files"]["../secret.npy"] = manifest["files"]["image.npy"]
    manifest["modalities"][0]["file"] = "../secret.npy"


def link_out(folder):
    target = folder.parent / "secret.npy"
    (folder / "image.npy").rename(target)
    (folder / "image.npy").symlink_to(target)


def save_objects(path):
    np.save(path, np.array([[{}] * 4] * 5, dtype=object), allow_pickle=True)


def save_float64(path):
    np.save(path, np.zeros((5, 4)))


def save_twice(path):
    table = pq.read_table(path)
    ids = pa.array(["a", "a", "c", "d", "e"])
    pq.write_table(table.set_column(0, "item_id", ids), path)


HOSTILE = {
    "no folder": (lambda f: f.rename(f.with_name("gone")), "there is no such folder"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "it has no manifest.json"),
    "garbage": (lambda f: (f / "manifest.json").write_bytes(b"\xff{"), "is no JSON"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), "format version none"),
    "deep nesting": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "is no JSON"),
    "a newer major version": (
        lambda f: edit(f, lambda m: m.update(format_version="2.0")),
        "format version 2.0 is unknown",
    ),
    "no files": (lambda f: edit(f, lambda m: m.update(files={})), "files: it names none"),
    "a field missing": (lambda f: edit(f, lambda m: m.pop("seed")), "seed: Field required"),
    "out of the folder": (lambda f: edit(f, escape), "String should match pattern"),
    "a link out of it": (link_out, "is a link that leads out of the folder"),
    "a file missing": (lambda f: (f / "text.npy").unlink(), "is missing"),
    "a file cut short": (
        lambda f: (f / "text.npy").write_bytes((f / "text.npy").read_bytes()[:-1]),
        "bytes, not",
    ),
    "objects": (lambda f: replace(f, "image.npy", save_objects), "is no plain .npy file"),
    "another type": (lambda f: replace(f, "image.npy", save_float64), "is float64 (5, 4), not"),
    "another shape": (
        lambda f: edit(f, lambda m: m["modalities"][0].update(dimension=5)),
        "not float32 (5, 5)",
    ),
    "ids twice": (lambda f: replace(f, "features.parquet", save_twice), "ids are not unique"),
    "no Parquet": (
        lambda f: replace(f, "features.parquet", lambda p: p.write_bytes(b"PAR1")),
        "can't be read",
    ),
    "no safetensors": (
        lambda f: replace(f, "student.safetensors", lambda p: p.write_bytes(b"\x00" * 9)),
        "is no safetensors file",
    ),
}


def open_all(folder):
    opened = load(folder)
    opened.item_ids, opened.labels, opened.student()


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_is_refused_in_one_line(feature_set, kind):
    attack, what = HOSTILE[kind]
    open_all(feature_set)
    attack(feature_set)
    with pytest.raises(FeatureSetError) as error:
        open_all(feature_set)
    assert what in str(error.value)
    assert "\n" not in str(error.value)
    assert verify(feature_set) != []


def test_a_newer_minor_version_with_more_fields_is_read(feature_set):
    edit(feature_set, lambda m: m.update(format_version="1.7", mood="good"))
    assert load(feature_set).manifest.format_version == "1.7"


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_mangled_file_is_refused_or_read(feature_set, data):
    path = data.draw(st.sampled_from(sorted(feature_set.iterdir())))
    whole = path.read_bytes()
    at, cut = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 60))
    path.write_bytes(whole[:at] + data.draw(st.binary(max_size=cut)) + whole[at + cut :])
    try:
        open_all(feature_set)
        verify(feature_set)
    except FeatureSetError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(whole)


def test_an_existing_set_is_kept_unless_told_otherwise(feature_set, make):
    before = (feature_set / "manifest.json").read_bytes()
    with pytest.raises(FeatureSetError, match="exists already"):
        make(feature_set, seed=1)
    assert (feature_set / "manifest.json").read_bytes() == before


def test_a_reader_sees_the_old_or_the_new_set_never_a_mixture(tmp_path, make):
    target = tmp_path / "set"
    expected = {seed: make(tmp_path / f"model{seed}", seed)["text"] for seed in range(2)}
    make(target, seed=0)
    wrong, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            opened = load(target)
            if not np.array_equal(opened.modalities["text"], expected[opened.manifest.seed]):
                wrong.append(opened.manifest.seed)

    reader = threading.Thread(target=read)
    reader.start()
    for round_ in range(20):
        make(target, seed=(round_ + 1) % 2, overwrite=True)
    stop.set()
    reader.join()
    assert wrong == []
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
