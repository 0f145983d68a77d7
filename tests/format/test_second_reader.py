"""The format's description against the program: a reader of its own finds the same."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sgfd.dataset import load_dataset
from sgfd.distill import InteractionMetricSettings, RawSettings, SGFDSettings, distill
from sgfd.featureset import KINDS, FeatureSetError, load
from tests.format.second_reader import SecondReader

SETTINGS = {
    "sgfd": SGFDSettings(dimension=16, epochs=2),
    "interaction-metric": InteractionMetricSettings(dimension=30),
    "raw": RawSettings(),
}


@pytest.fixture(scope="module", params=SETTINGS)
def both(request, tmp_path_factory):
    """A set with every kind of encoding, opened by us and by the second reader."""
    target = tmp_path_factory.mktemp("sets") / request.param
    settings = SETTINGS[request.param]
    distill(load_dataset("sample"), target, settings, threads=1, compress=KINDS, neighbours=3)
    return load(target), SecondReader(target)


def test_it_finds_the_same_items_and_rows(both):
    ours, second = both
    assert second.ids == list(ours.item_ids)
    assert second.labels == list(ours.labels)
    assert list(second.modalities) == list(ours.modalities)
    assert len(second.modalities) >= 6
    for name, rows in ours.modalities.items():
        assert rows.dtype == second.rows(name).dtype == np.float32
        np.testing.assert_allclose(second.rows(name), np.asarray(rows), rtol=1e-6)
    assert np.isnan(second.rows("image")).any()


def test_its_student_gives_the_stored_rows(both):
    ours, second = both
    if ours.manifest.student is None:
        pytest.skip("no student: `raw` makes none")
    generic = {
        name: feature.values for name, feature in load_dataset("sample").catalog.features.items()
    }
    for modality in ours.manifest.plain:
        made = second.embed(modality.name, generic)
        np.testing.assert_allclose(made, ours.modalities[modality.name], rtol=1e-4, atol=1e-5)


def test_it_sees_a_flipped_bit(both, tmp_path):
    copy = shutil.copytree(both[0].path, tmp_path / "copy")
    file = copy / "image.npy"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(AssertionError, match=r"image\.npy was changed"):
        SecondReader(copy)


@pytest.mark.parametrize("name", ["../x", ".x", "x@latest", "x\ny", "", "x::y", "x" * 151])
def test_both_refuse_a_name_that_is_none(both, tmp_path, name):
    copy = shutil.copytree(both[0].path, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text()) | {"name": name}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FeatureSetError, match="is no plain name"):
        load(copy)
    with pytest.raises(AssertionError, match="no plain name"):
        SecondReader(copy)


@pytest.mark.parametrize("name", ["../x", ".x", "x y", "Image.npy", "x" * 201])
def test_both_refuse_a_file_that_may_not_be_called_so(both, tmp_path, name):
    copy = shutil.copytree(both[0].path, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["image.npy"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FeatureSetError):
        load(copy)
    with pytest.raises(AssertionError, match=r"a path|differ in case"):
        SecondReader(copy)


def test_it_is_a_page_that_runs_without_our_package(both):
    script = Path(__file__).with_name("second_reader.py").read_text()
    assert "sgfd" not in script
    asked = "\nimport sys\nprint(SecondReader(sys.argv[1]).manifest['name'])"
    done = subprocess.run(
        [sys.executable, "-I", "-c", script + asked, both[0].path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{both[0].manifest.name}\n"
    assert len(lines_of_code(script)) <= 60


def lines_of_code(script):
    """Numbers of the lines that are no docstring and not empty."""
    words = set()
    for node in ast.walk(ast.parse(script)):
        for field in ast.iter_child_nodes(node):
            if isinstance(field, ast.Expr) and isinstance(field.value, ast.Constant):
                words.update(range(field.lineno, field.end_lineno + 1))
    return {n for n, line in enumerate(script.splitlines(), 1) if line.strip()} - words
