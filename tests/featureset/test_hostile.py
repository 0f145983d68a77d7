"""What a reader must refuse: each hostile set is one line of FeatureSetError, nothing else."""

import base64
import json
import mmap
import os
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from sgfd.featureset import FeatureSetError, load, pages, verification, verify
from tests.featureset.footer import varint


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


def save_a_header_alone(path):
    """Of 10^15 rows, and five of them."""
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**15, 4)}
        np.lib.format.write_array_header_1_0(file, header)
        np.zeros((5, 4), "f4").tofile(file)


def save_twice(path):
    table = pq.read_table(path)
    ids = pa.array(["a", "a", "c", "d", "e"])
    pq.write_table(table.set_column(0, "item_id", ids), path)


def save_latin_1(path):
    table = pq.read_table(path)
    ids = pa.array([b"a", b"b", b"\xe7", b"d", b"e"]).view(pa.string())
    pq.write_table(table.set_column(0, "item_id", ids), path)


def as_pipe(name):
    """A reader of it would wait for a writer for ever."""

    def attack(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return attack


def as_device(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to("/dev/zero")


def link_manifest_out(folder):
    target = folder.parent / "elsewhere.json"
    (folder / "manifest.json").rename(target)
    (folder / "manifest.json").symlink_to(target)


def nested(levels):
    value = {}
    for _ in range(levels):
        value = {"in": value}
    return value


def infinite(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"fidelity": 0.5', '"fidelity": 1e999'))


def save_repeated(column, text, rows=5, **options):
    """A small file of a table where a column has one text in all of its rows."""

    def write(path):
        values = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text])
        table = pq.read_table(path) if rows == 5 else pa.table({column: values})
        table = table.set_column(table.schema.get_field_index(column), column, values)
        pq.write_table(table, path, compression="zstd", store_schema=False, **options)

    return lambda folder: replace(folder, "features.parquet", write)


def save_forged(path):
    """A page of 200 MB in a small file, of whose column the file's end says that it has 100."""
    texts = pa.array(["x" * 2 * 10**8, "a", "b", "c", "d"])
    pq.write_table(pa.table({"item_id": texts}), path, compression="zstd", use_dictionary=False)
    size = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size
    told = varint(size)
    path.write_bytes(path.read_bytes().replace(told, varint(100, len(told))))
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 100


def guide(**fields):
    use = {"protocol": "honest", "split": "given", "split_seed": 0, "pairs": 1, "sha256": "0" * 64}
    return lambda manifest: manifest.update(interactions=use | fields)


def with_student(name, value):
    """One number of a student's tensor is another."""

    def attack(folder):
        tensors = load_file(folder / "student.safetensors")
        tensors[name].flat[0] = value
        replace(folder, "student.safetensors", lambda p: save_file(tensors, p))

    return attack


def derived(manifest, kept, added):
    origin = manifest["dataset"]
    return {
        "name": "old",
        "manifest_sha256": "0" * 64,
        "kept": kept,
        "added": added,
        "catalogue": origin,
        "trained_on": origin,
    }


HOSTILE = {
    "a modality called as a column": (
        lambda f: edit(f, lambda m: m["modalities"][1].update(name="label")),
        "no modality can be called label, which is a column of features.parquet",
    ),
    "made at no time": (
        lambda f: edit(f, lambda m: m.update(created="hello")),
        "created: Value error, 'hello' is no time in UTC",
    ),
    "made on no day": (
        lambda f: edit(f, lambda m: m.update(created="2026-02-30T00:00:00Z")),
        "created: Value error, ",
    ),
    "nested widths beyond the dimension": (
        lambda f: edit(f, lambda m: m["modalities"][0].update(nested=[2, 64])),
        "nested widths do not ascend to its dimension",
    ),
    "nested widths in no order": (
        lambda f: edit(f, lambda m: m["modalities"][0].update(nested=[2, 1])),
        "nested widths do not ascend to its dimension",
    ),
    "a default twice": (
        lambda f: edit(f, lambda m: m.update(default_modalities=["image", "image"])),
        "name a modality twice",
    ),
    "labels without names": (
        lambda f: edit(f, lambda m: m["labels"].update(count=3)),
        "3 labels have 2 names",
    ),
    "rows from nowhere": (
        lambda f: edit(f, lambda m: m.update(derived_from=derived(m, kept=3, added=1))),
        "kept and added rows are not all of the items",
    ),
    "no folder": (lambda f: f.rename(f.with_name("gone")), "there is no such folder"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "it has no manifest.json"),
    "garbage": (lambda f: (f / "manifest.json").write_bytes(b"\xff{"), "is no JSON"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), "format_version is missing"),
    "nothing in it": (
        lambda f: (f / "manifest.json").write_text("{}"),
        "is no manifest: format_version is missing",
    ),
    "a name that is a path": (
        lambda f: edit(f, lambda m: m.update(name="x/../../esc/evil")),
        "name: Value error, 'x/../../esc/evil' is no plain name",
    ),
    "a name of two lines": (
        lambda f: edit(f, lambda m: m.update(name="x\ny")),
        "name: Value error, 'x\\ny' is no plain name",
    ),
    "a name too long for what is called after it": (
        lambda f: edit(f, lambda m: m.update(name="ü" * 76)),
        "is no plain name; give 1 to 150 bytes",
    ),
    "a name that chains addresses": (
        lambda f: edit(f, lambda m: m.update(name="x::y")),
        "'x::y' is no plain name",
    ),
    "half a letter": (
        lambda f: edit(f, lambda m: m["quality"].update(fidelity="\ud800")),
        "holds text that is no Unicode",
    ),
    "half a letter for a setting's name": (
        lambda f: edit(f, lambda m: m["settings"].update({"\udfff": 1})),
        "holds text that is no Unicode",
    ),
    "a seed that no generator takes": (
        lambda f: edit(f, guide(split_seed=-1)),
        "interactions.split_seed: Input should be greater than or equal to 0",
    ),
    "no modality": (
        lambda f: edit(f, lambda m: m.update(modalities=[])),
        "modalities: List should have at least 1 item",
    ),
    "a student that isn't finite": (
        with_student("image.weight", np.nan),
        "image.weight is not finite, or divides by 0",
    ),
    "a student that divides by 0": (
        with_student("text.scale", 0),
        "text.scale is not finite, or divides by 0",
    ),
    "a name that looks like a version": (
        lambda f: edit(f, lambda m: m.update(name="office@0123456789abcdef")),
        "is no plain name",
    ),
    "a data set's name that moves the cursor": (
        lambda f: edit(f, lambda m: m["dataset"].update(name="\x1b[2J")),
        "dataset.name: String should match pattern",
    ),
    "a file's name that moves the cursor": (
        lambda f: edit(f, lambda m: m["files"].update({"\x1b[2J": m["files"]["text.npy"]})),
        r"files.\x1b[2J",
    ),
    "a figure that is no number": (
        lambda f: edit(f, lambda m: m["quality"].update(fidelity=float("nan"))),
        "NaN is no finite number",
    ),
    "an infinite figure": (
        lambda f: edit(f, lambda m: m["quality"].update(fidelity=float("inf"))),
        "Infinity is no finite number",
    ),
    "a figure beyond all numbers": (infinite, "1e999 is no finite number"),
    "figures too deep to show": (
        lambda f: edit(f, lambda m: m.update(quality=nested(300))),
        "nests deeper than 32",
    ),
    "a pipe for a manifest": (as_pipe("manifest.json"), "manifest.json: is no regular file"),
    "a device for a manifest": (as_device, "is a link that leads out"),
    "a manifest elsewhere": (link_manifest_out, "is a link that leads out of the folder"),
    "a manifest without end": (
        lambda f: os.truncate(f / "manifest.json", 2**40),
        "has more than 16777216 bytes",
    ),
    "a pipe for a file": (as_pipe("image.npy"), "image.npy: is no regular file"),
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
    "a header of 10^15 rows": (
        lambda f: replace(f, "image.npy", save_a_header_alone),
        "is no plain .npy file",
    ),
    "more keys than a manifest holds": (
        lambda f: edit(f, lambda m: m.update({f"key{n}": 0 for n in range(1_100_000)})),
        "has more than 16777216 bytes",
    ),
    "another type": (lambda f: replace(f, "image.npy", save_float64), "is float64 (5, 4), not"),
    "another shape": (
        lambda f: edit(f, lambda m: m["modalities"][0].update(dimension=5)),
        "not float32 (5, 5)",
    ),
    "a sum of itself": (
        lambda f: edit(f, lambda m: m["modalities"][0].update(parts=["image"])),
        "image is a sum of image, itself one",
    ),
    "a student of another norm": (
        lambda f: edit(f, lambda m: m["student"].update(normalised=not m["student"]["normalised"])),
        "the student and image differ in `normalised`",
    ),
    "ids twice": (lambda f: replace(f, "features.parquet", save_twice), "ids are not unique"),
    "ids that are no UTF-8": (
        lambda f: replace(f, "features.parquet", save_latin_1),
        "can't be read (",
    ),
    "no Parquet": (
        lambda f: replace(f, "features.parquet", lambda p: p.write_bytes(b"PAR1")),
        "can't be read",
    ),
    "no safetensors": (
        lambda f: replace(f, "student.safetensors", lambda p: p.write_bytes(b"\x00" * 9)),
        "is no safetensors file",
    ),
}


# Never given up: what was read into it may be freed after the test, which would crash without it.
COUNTING = pa.proxy_memory_pool(pa.default_memory_pool())

BOMBS = {
    "more rows than items": (save_repeated("item_id", "a", 10**6), "has 1000000 rows, not 5"),
    "a long id": (
        save_repeated("item_id", "x" * 10**8, use_dictionary=False),
        "columns unfold into",
    ),
    "a page that the file's end hides": (
        lambda f: replace(f, "features.parquet", save_forged),
        "columns unfold into",
    ),
    "a long label, again and again": (
        save_repeated("label", "x" * 3 * 10**7),
        "columns unfold into",
    ),
}


def save_long_lists(path):
    """Lists of 10 million numbers, which the file says are of 4."""
    table = pq.read_table(path)
    said = {"ARROW:schema": base64.b64encode(table.schema.serialize().to_pybytes())}
    numbers, ends = pa.array(np.zeros(5 * 10**7, "f4")), pa.array(range(0, 6 * 10**7, 10**7))
    lists = pa.ListArray.from_arrays(ends.cast(pa.int32()), numbers)
    place = table.schema.get_field_index("image")
    table = table.set_column(place, "image", lists).replace_schema_metadata(None)
    with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(said)


def test_lists_that_are_longer_than_they_say_are_refused_before_they_are_read(feature_set):
    replace(feature_set, "features.parquet", save_long_lists)
    assert (feature_set / "features.parquet").stat().st_size < 10**5
    (problem,) = verify(feature_set)
    assert "image has 50000000 numbers, not 20" in problem


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_that_unfolds_is_refused_before_it_does(feature_set, kind):
    attack, what = BOMBS[kind]
    attack(feature_set)
    assert (feature_set / "features.parquet").stat().st_size < 10**5
    usual = pa.default_memory_pool()
    pa.set_memory_pool(COUNTING)
    try:
        with pytest.raises(FeatureSetError, match=what):
            open_all(feature_set)
        assert [problem for problem in verify(feature_set) if what in problem]
    finally:
        pa.set_memory_pool(usual)
    assert COUNTING.max_memory() < 10**8


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
    assert str(error.value).isprintable()
    assert verify(feature_set) != []


def encoding_of(manifest, kind):
    return next(m["encoding"] for m in manifest["modalities"] if m["name"] == f"fused_{kind}")


def with_tensors(change):
    """Rewrites the encodings' tensors."""

    def attack(folder):
        path = folder / "encodings.safetensors"
        tensors = load_file(path)
        change(tensors)
        replace(folder, path.name, lambda p: save_file(tensors, p))

    return attack


def with_encoding(of_kind, **fields):
    return lambda f: edit(f, lambda m: encoding_of(m, of_kind).update(fields))


def save_neighbours(**columns):
    def attack(folder):
        table = pq.read_table(folder / "neighbours.parquet")
        for name, values in columns.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, values(table[name]))
        replace(folder, "neighbours.parquet", lambda p: pq.write_table(table, p))

    return attack


HOSTILE_COMPRESSED = {
    "of an unknown modality": (
        with_encoding("int8", of="image"),
        "fused_int8 is made of image, which is no modality",
    ),
    "of a compressed one": (
        with_encoding("int8", of="fused_float16"),
        "fused_int8 is made of fused_float16, which",
    ),
    "of another width": (
        lambda f: edit(f, lambda m: m["modalities"][2].update(dimension=9)),
        "fused_int8 is not as wide as fused",
    ),
    "an unknown kind": (with_encoding("int8", kind="int4"), "modalities.2.encoding.kind: Input"),
    "no file of tensors": (with_encoding("pq", file=None), "of fused_pq names no file"),
    "a file out of the folder": (with_encoding("pq", file="../x"), "should match pattern"),
    "a file without a record": (with_encoding("pq", file="x"), "no record of the file x"),
    "more columns than numbers": (with_encoding("int8", columns=11), "not one column a dim"),
    "another kind's type": (with_encoding("int8", kind="float16"), "is int8 (300, 10), not float1"),
    "another number of codes": (with_encoding("pq", columns=4), "is uint8 (300, 3), not uint8"),
    "no tensors": (
        lambda f: replace(f, "encodings.safetensors", lambda p: p.write_bytes(b"\x00" * 9)),
        "is no safetensors file",
    ),
    "tensors cut short": (
        lambda f: (f / "encodings.safetensors").write_bytes(b"x"),
        "has 1 bytes, not",
    ),
    "scales missing": (
        with_tensors(lambda t: t.pop("fused_int8.scale")),
        "fused_int8: scale is missing",
    ),
    "scales that are no numbers": (
        with_tensors(lambda t: t["fused_int8.scale"].fill(np.nan)),
        "fused_int8: scale is not finite",
    ),
    "scales of another type": (
        with_tensors(lambda t: t.update({"fused_int8.scale": np.ones(10)})),
        "scale is float64 (10,), not float32 (10,)",
    ),
    "codebooks of another shape": (
        with_tensors(lambda t: t.update({"fused_pq.codebooks": np.ones((3, 9, 4), "f4")})),
        "codebooks is float32 (3, 9, 4), not float32 (3, 256, any)",
    ),
    "codebooks too narrow": (
        with_tensors(lambda t: t.update({"fused_pq.codebooks": np.ones((3, 256, 3), "f4")})),
        "are too few for 10 columns",
    ),
    "presence missing": (
        with_tensors(lambda t: t.pop("fused.present")),
        "present is missing",
    ),
    "presence of other items": (
        with_tensors(lambda t: t.update({"fused.present": np.ones(299, bool)})),
        "present is bool (299,), not bool (300,)",
    ),
    "neighbours by an unknown modality": (
        lambda f: edit(f, lambda m: m["neighbours"].update(modalities=["image"])),
        "no modality is called image",
    ),
    "neighbours by nothing": (
        lambda f: edit(f, lambda m: m["neighbours"].update(modalities=[])),
        "neighbours.modalities: List should have at least 1 item",
    ),
    "neighbours without a record": (
        lambda f: edit(f, lambda m: m["files"].pop("neighbours.parquet")),
        "no record of the file neighbours.parquet",
    ),
    "neighbours of another type": (
        save_neighbours(similarity=lambda column: column.cast(pa.float64())),
        "column similarity is double, not float",
    ),
    "neighbours by numbers": (
        save_neighbours(item_id=lambda column: pa.array(range(len(column)))),
        "column item_id is int64, not string",
    ),
    "more neighbours than asked for": (
        lambda f: edit(f, lambda m: m["neighbours"].update(k=2)),
        "has 1188 rows, not 600",
    ),
    "no Parquet of neighbours": (
        lambda f: replace(f, "neighbours.parquet", lambda p: p.write_bytes(b"PAR1")),
        "neighbours.parquet: can't be read",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE_COMPRESSED)
def test_hostile_encodings_and_neighbours_are_refused_in_one_line(compressed_set, kind):
    attack, what = HOSTILE_COMPRESSED[kind]
    attack(compressed_set)
    with pytest.raises(FeatureSetError) as error:
        load(compressed_set).neighbours()
    assert what in str(error.value)
    assert "\n" not in str(error.value)
    assert verify(compressed_set) != []


def save_rows(name, change):
    def attack(folder):
        rows = np.load(folder / f"{name}.npy")
        change(rows)
        replace(folder, f"{name}.npy", lambda p: np.save(p, rows))

    return attack


def upside_down(column):
    """The 4 neighbours of every item, the last one first."""
    return pa.array(column.to_numpy().reshape(-1, 4)[:, ::-1].reshape(-1))


def lacking_in_both(folder):
    """Item 5 lacks its float16 row in the .npy and in the table, but not the float32 one."""
    save_rows("fused_float16", lambda q: q[5].fill(np.nan))(folder)
    table = pq.read_table(folder / "features.parquet")
    place, rows = table.schema.get_field_index("fused_float16"), table["fused_float16"].to_pylist()
    rows[5] = None
    table = table.set_column(place, table.field(place), pa.array(rows, table.field(place).type))
    replace(folder, "features.parquet", lambda p: pq.write_table(table, p))


DISAGREEING = {
    "lacking where the source is not": (
        lacking_in_both,
        "fused_float16.npy: other items lack it than what it is of",
    ),
    "other codes": (save_rows("fused_pq", lambda q: q.__iadd__(1)), "column fused_pq is not"),
    "a number more": (save_rows("fused_float16", lambda q: q[3].fill(1)), "fused_float16 is not"),
    "lacking elsewhere": (
        with_tensors(lambda t: t["fused.present"].__setitem__(5, False)),
        "column fused_int8 is not",
    ),
    "an item as its own neighbour": (
        lambda f: save_neighbours(
            neighbour_id=lambda c: pq.read_table(f / "neighbours.parquet")["item_id"]
        )(f),
        "a neighbour is no other item with a row",
    ),
    "a stranger as neighbour": (
        save_neighbours(neighbour_id=lambda c: pa.array(["nobody"] * len(c))),
        "a neighbour is no other item with a row",
    ),
    "neighbours upside down": (
        save_neighbours(neighbour_id=upside_down, similarity=upside_down),
        "neighbours are not in descending order",
    ),
    "other similarities": (
        save_neighbours(similarity=lambda c: pa.array(c.to_numpy() * np.float32(0.99))),
        "a similarity is not that of the rows",
    ),
    "items in another order": (
        save_neighbours(item_id=lambda c: c[::-1]),
        "not 4 rows of every item that has one",
    ),
}


@pytest.mark.parametrize("kind", DISAGREEING)
def test_verify_finds_files_that_disagree(compressed_set, kind):
    attack, what = DISAGREEING[kind]
    assert verify(compressed_set) == []
    attack(compressed_set)
    problems = verify(compressed_set)
    assert len(problems) == 1 and what in problems[0]


def save_both(change):
    """Other rows of `fused`, in the .npy and in the table alike."""

    def attack(folder):
        save_rows("fused", change)(folder)
        rows = np.load(folder / "fused.npy")
        table = pq.read_table(folder / "features.parquet")
        place = table.schema.get_field_index("fused")
        values = [None if np.isnan(row).all() else row for row in rows]
        column = pa.array(values, table.field(place).type)
        table = table.set_column(place, table.field(place), column)
        replace(folder, "features.parquet", lambda p: pq.write_table(table, p))

    return attack


def as_plain(folder):
    """Without what is made of `fused` or from it."""

    def change(manifest):
        manifest["modalities"] = manifest["modalities"][:1]
        manifest["neighbours"] = None
        for name in {*manifest["files"]} - {"features.parquet", "fused.npy", "README.md"}:
            del manifest["files"][name]
            (folder / name).unlink()

    edit(folder, change)


NOT_AS_STATED = {
    "longer rows": (lambda rows: rows.__imul__(1.01), "row 0 has norm 1.01, and the manifest says"),
    "one longer row": (lambda rows: rows[299 - 1].fill(1), "row 298 has norm 3.162"),
    "an infinite number": (lambda rows: rows[5].fill(np.inf), "row 5 is not finite"),
    "a row lost": (lambda rows: rows[6].fill(np.nan), "296 of 300 items have it"),
}


@pytest.mark.parametrize("kind", NOT_AS_STATED)
def test_verify_finds_rows_that_are_not_as_the_manifest_says(compressed_set, kind):
    change, what = NOT_AS_STATED[kind]
    as_plain(compressed_set)
    assert verify(compressed_set) == []
    save_both(change)(compressed_set)
    (problem,) = verify(compressed_set)
    assert what in problem


MISLABELLED = {
    "a name that no item's label is": (
        lambda m: m["labels"].update(names=["Desks", "Ink"]),
        "the manifest knows no label 'Pens'",
    ),
    "another share": (
        lambda m: m["labels"].update(coverage=1.0),
        "2 of 5 items have no label, and the manifest says 0.0%",
    ),
    "nothing told": (lambda m: m.update(labels=None), "the manifest knows no label 'Desks'"),
}


@pytest.mark.parametrize("kind", MISLABELLED)
def test_verify_finds_labels_that_are_not_as_the_manifest_says(feature_set, kind):
    change, what = MISLABELLED[kind]
    assert verify(feature_set) == []
    edit(feature_set, change)
    (problem,) = verify(feature_set)
    assert what in problem


def test_a_row_of_zeros_has_no_norm_to_check(compressed_set):
    as_plain(compressed_set)
    save_both(lambda rows: rows[5].fill(0))(compressed_set)
    assert verify(compressed_set) == []


def test_a_million_keys_of_a_newer_version_are_passed_over(feature_set):
    edit(feature_set, lambda m: m.update({f"key{n}": 0 for n in range(10**6)}))
    assert (feature_set / "manifest.json").stat().st_size > 15 * 10**6
    assert verify(feature_set) == []


def test_a_newer_minor_version_with_more_fields_is_read(feature_set):
    edit(feature_set, lambda m: m.update(format_version="1.7", mood="good"))
    assert load(feature_set).manifest.format_version == "1.7"


def decode_all(folder):
    opened = load(folder)
    for rows in opened.modalities.values():
        np.asarray(rows)
    opened.neighbours()


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_mangled_file_of_encodings_or_neighbours_is_refused_or_read(compressed_set, data):
    names = ["manifest.json", "encodings.safetensors", "fused_pq.npy", "neighbours.parquet"]
    path = compressed_set / data.draw(st.sampled_from(names))
    manifest, whole = (compressed_set / "manifest.json").read_bytes(), path.read_bytes()
    at, cut = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 60))
    mangled = whole[:at] + data.draw(st.binary(max_size=cut)) + whole[at + cut :]
    try:
        if path.name == "manifest.json":
            path.write_bytes(mangled)
        else:
            replace(compressed_set, path.name, lambda p: p.write_bytes(mangled))
        decode_all(compressed_set)
        verify(compressed_set)
    except FeatureSetError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(whole)
        (compressed_set / "manifest.json").write_bytes(manifest)


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


def structs(levels):
    """Heads of structs in one another."""
    return bytes([0x1C] * levels)


FORGED_HEADS = {
    "a list of 10^18": (b"\x19\xf3" + varint(10**18 // 2), "has a list that leads out of it"),
    "structs without end": (structs(5_000), "nests too deep"),
    "a text that leads out": (b"\x18" + varint(10**9), "leads out of the file"),
}


@pytest.mark.parametrize("kind", FORGED_HEADS)
def test_a_forged_page_head_is_refused_at_once(kind, tmp_path):
    head, what = FORGED_HEADS[kind]
    path = tmp_path / "forged"
    path.write_bytes(head + bytes(100))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begun = time.perf_counter()
        with pytest.raises(ValueError, match=what):
            pages.page_head(content, 0, len(content))
        assert time.perf_counter() - begun < 10


def test_interrupted_verifying_hashes_no_further(feature_set, monkeypatch):
    """Ctrl-C while the rows are looked at: the other thread lets go of its files."""
    hashed, updates = threading.Event(), []

    class Slow:
        def update(self, block):
            updates.append(len(block))
            hashed.set()
            time.sleep(0.3)

        def hexdigest(self):
            return ""

    def interrupted(*_):
        assert hashed.wait(10)
        raise KeyboardInterrupt

    opened = load(feature_set)
    monkeypatch.setattr(verification, "load", lambda path: opened)
    monkeypatch.setattr(verification, "HASHED_BYTES", 16)  # ten blocks and more of each file
    monkeypatch.setattr(verification.hashlib, "sha256", Slow)
    monkeypatch.setattr(verification, "_check_contents", interrupted)
    with pytest.raises(KeyboardInterrupt):
        verify(feature_set)
    assert len(updates) < 10


def test_an_address_is_no_folder_and_is_pulled_first():
    with pytest.raises(FeatureSetError, match="pull it first: `pipeline features pull ADDRESS`"):
        load("s3://bucket/office")
