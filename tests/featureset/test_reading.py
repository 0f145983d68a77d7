"""What is written is read back; a third party needs pandas or numpy alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgfd.featureset import FeatureSetError, load, verify

IDS = ["a", "b", "ç", "d,e", "f"]

THIRD_PARTY = """
import json, sys
import numpy as np, pandas as pd

folder = sys.argv[1]
table = pd.read_parquet(f"{folder}/features.parquet")
image = np.load(f"{folder}/image.npy", allow_pickle=False)
ours = [name for name in sys.modules if name.partition(".")[0] == "sgfd"]
print(json.dumps({
    "ids": table.item_id.tolist(),
    "index": table.item_index.tolist(),
    "labels": [None if pd.isna(label) else label for label in table.label],
    "lacking": table.image.isna().tolist(),
    "nan": np.isnan(image).all(axis=1).tolist(),
    "same": np.array_equal(np.stack(table.image.dropna()), image[table.image.notna()]),
    "dtype": str(image.dtype),
    "ours": ours,
}))
"""


def test_a_third_party_reads_it_with_pandas_and_numpy_alone(feature_set, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", THIRD_PARTY, str(feature_set)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert json.loads(done.stdout) == {
        "ids": IDS,
        "index": [0, 1, 2, 3, 4],
        "labels": ["Pens", None, "Desks", "Pens", None],
        "lacking": [False, False, True, False, False],
        "nan": [False, False, True, False, False],
        "same": True,
        "dtype": "float32",
        "ours": [],
    }


def test_what_was_written_is_read_back(tmp_path, make):
    values = make(tmp_path / "tiny")
    opened = load(tmp_path / "tiny")
    assert opened.item_ids.tolist() == IDS
    assert opened.labels.tolist() == ["Pens", None, "Desks", "Pens", None]
    assert opened.present("image").tolist() == [True, True, False, True, True]
    for name, rows in values.items():
        assert isinstance(opened.modalities[name], np.memmap)
        np.testing.assert_array_equal(opened.modalities[name], rows)
    assert verify(tmp_path / "tiny") == []


def test_two_writings_are_the_same_bytes(tmp_path, make):
    for name in ("one", "two"):
        make(tmp_path / name)
    for file in ("features.parquet", "image.npy", "text.npy", "student.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_card_has_a_yaml_head_and_names_the_modalities(feature_set):
    card = (feature_set / "README.md").read_text()
    assert card.startswith("---\npretty_name:")
    assert "| image | 6 | 4 | 80.0% | unit |" in card


def test_the_student_embeds_new_items(feature_set, rng):
    opened = load(feature_set)
    x = rng.normal(size=(7, 6)).astype(np.float32)
    tensors = opened.student()
    hidden = (x - tensors["image.mean"]) @ tensors["image.weight"].T + tensors["image.bias"]
    hidden = np.maximum(hidden, 0.01 * hidden)
    expected = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    np.testing.assert_allclose(opened.embed("image", x), expected, atol=1e-6)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([*IDS, "x", "y", ""]), unique=True, min_size=1))
def test_alignment_follows_ids_not_positions(feature_set, wanted):
    opened = load(feature_set)
    alignment = opened.align(np.array(wanted, dtype=object), min_coverage=0)
    for item, row in zip(wanted, alignment.rows, strict=True):
        assert (opened.item_ids[row] == item) if row >= 0 else item not in IDS
    assert alignment.coverage == pytest.approx(sum(i in IDS for i in wanted) / len(wanted))


def test_too_few_known_items_are_refused_with_their_share(feature_set):
    with pytest.raises(FeatureSetError, match=r"no row for 1 of 3 items \(33.3%: 'x'\)"):
        load(feature_set).align(np.array(["a", "x", "f"], dtype=object))


def test_verify_finds_a_flipped_bit(feature_set):
    path = feature_set / "text.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert load(feature_set).manifest.name == "tiny"  # sizes agree: only verify reads it all
    assert verify(feature_set) == [
        f"{path}: sha256 is not the manifest's; get the file again",
    ]


def test_verify_finds_a_flipped_bit_in_any_file(make_compressed, tmp_path, rng):
    make_compressed(tmp_path / "set")
    for name, record in load(tmp_path / "set").manifest.files.items():
        path = tmp_path / "set" / name
        whole = path.read_bytes()
        for at in (0, record.bytes - 1, *rng.integers(0, record.bytes, 4)):
            content = bytearray(whole)
            content[at] ^= 1 << rng.integers(8)
            path.write_bytes(content)
            problems = verify(tmp_path / "set")
            assert problems and all(str(path) in problem for problem in problems), (name, at)
        path.write_bytes(whole)
    assert verify(tmp_path / "set") == []


def test_verify_finds_a_stray_file(feature_set):
    (feature_set / "users.csv").write_text("secret")
    assert verify(feature_set) == [
        f"{feature_set / 'users.csv'}: is not in the manifest; remove it"
    ]


def test_ids_in_other_normal_forms_are_other_items(make_rows_set, tmp_path):
    """A shop that has both has two items; which it means is not for a reader to guess."""
    ids = [
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "cafe\N{COMBINING ACUTE ACCENT}",
        "CAFE",
        "cafe",
    ]
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    make_rows_set(tmp_path / "set", {"image": rows}, ids=ids)
    assert verify(tmp_path / "set") == []
    opened = load(tmp_path / "set")
    assert opened.item_ids.tolist() == ids
    order = [1, 0, 3, 2]
    found = opened.align(opened.item_ids[order]).rows
    assert found.tolist() == order
