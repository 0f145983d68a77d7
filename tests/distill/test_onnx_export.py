"""The student as ONNX, run by onnxruntime: what the feature set and torch make of the same rows."""

import builtins
import json

import numpy as np
import pytest
import torch
from torch.nn import functional

from sgfd.dataset import load_dataset
from sgfd.distill import (
    DistillError,
    InteractionMetricSettings,
    PCASettings,
    RandomSettings,
    distill,
    export_onnx,
)
from sgfd.featureset import FeatureSetError, load
from sgfd.jobs import JobError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

# A set, and what is then changed in its student's record: SGFD's takes long to train.
SETTINGS = {
    "fused": (InteractionMetricSettings(dimension=16), {}),
    "fused leaky ReLU": (InteractionMetricSettings(dimension=16), {"negative_slope": 0.01}),
    "inputs of no norm": (InteractionMetricSettings(dimension=16), {"input_normalised": False}),
    "no norm": (PCASettings(dimension=8), {}),
    "leaky ReLU": (RandomSettings(dimension=8, normalise=True), {"negative_slope": 0.01}),
}


@pytest.fixture(scope="module", params=SETTINGS)
def exported(request, tmp_path_factory):
    """A set of the sample, and a session of each of its ONNX files."""
    settings, change = SETTINGS[request.param]
    folder = tmp_path_factory.mktemp("onnx")
    made = distill(load_dataset("sample"), folder / "set", settings, threads=1, compress=["int8"])
    path = made.artifact / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["student"] |= change
    path.write_text(json.dumps(manifest))
    features = load(made.artifact)
    files = export_onnx(features, folder / "onnx")
    sessions = {name: onnxruntime.InferenceSession(file) for name, file in files.items()}
    return features, files, sessions


@pytest.fixture(scope="module")
def generic():
    """Rows of 9 items that stage one never saw; 3 lacks its image, 4 its text, 5 both."""
    rng, sample = np.random.default_rng(2), load_dataset("sample").catalog.features
    values = {
        n: (2 * rng.normal(size=(9, f.dimension))).astype(np.float32) for n, f in sample.items()
    }
    values["image"][[3, 5]] = np.nan
    values["text"][[4, 5]] = np.nan
    return values


def by_torch(features, values):
    """Each modality's rows and, where there are two or more, `fused`, from torch's functions."""
    student, tensors = features.manifest.student, features.student()
    rows, total = {}, 0
    for name, x in values.items():
        part = {
            k: torch.from_numpy(tensors[f"{name}.{k}"]) for k in ("weight", "bias", "mean", "scale")
        }
        x = (torch.from_numpy(x) - part["mean"]) / part["scale"]
        x = functional.normalize(x, dim=1) if student.input_normalised else x
        y = functional.linear(x, part["weight"], part["bias"])
        y = functional.leaky_relu(y, student.negative_slope)
        rows[name] = functional.normalize(y, dim=1) if student.normalised else y
        total = total + torch.nan_to_num(y)
    lacking = np.all([np.isnan(x[:, 0]) for x in values.values()], axis=0)
    rows["fused"] = functional.normalize(total, dim=1)
    rows["fused"][torch.from_numpy(lacking)] = torch.nan
    return {name: each.numpy() for name, each in rows.items()}


def test_onnxruntime_gives_what_the_set_and_torch_give(exported, generic):
    features, _, sessions = exported
    expected = by_torch(features, generic)
    assert set(sessions) == set(features.manifest.plain_modalities)
    for name, session in sessions.items():
        parts = {f"x_{part}": generic[part] for part in generic} if name == "fused" else None
        (z,) = session.run(["z"], parts or {"x": generic[name]})
        assert z.dtype == np.float32
        np.testing.assert_allclose(z, expected[name], atol=1e-5, rtol=1e-5)
        embedded = features.embed(name, generic if parts else generic[name])
        np.testing.assert_allclose(z, embedded, atol=1e-5, rtol=1e-5)


def test_files_tell_what_they_are_and_take_any_batch(exported, generic):
    features, files, sessions = exported
    source = {layer.name: layer.source_dimension for layer in features.manifest.layers}
    for name, session in sessions.items():
        onnx.checker.check_model(onnx.load(files[name]), full_check=True)
        shapes = {each.name: each.shape for each in session.get_inputs()}
        one = {"x": ["batch", source.get(name)]}
        parts = {f"x_{part}": ["batch", width] for part, width in source.items()}
        assert shapes == (parts if name == "fused" else one)
        properties = session.get_modelmeta().custom_metadata_map
        assert properties["manifest_sha256"] == features.manifest_sha256
        assert properties["modality"] == name
    image = generic["image"][:3]
    (many,) = sessions["image"].run(["z"], {"x": image})
    (one,) = sessions["image"].run(["z"], {"x": image[:1]})
    np.testing.assert_allclose(one, many[:1], atol=1e-6)


def test_twice_the_same_is_the_same_bytes_and_only_such_files_are_replaced(exported, tmp_path):
    features, files, _ = exported
    again = export_onnx(features, tmp_path / "x")
    with pytest.raises(JobError, match="exists already"):
        export_onnx(features, tmp_path / "x")
    export_onnx(features, tmp_path / "x", overwrite=True)
    for name, file in files.items():
        assert again[name].read_bytes() == file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    (tmp_path / "x" / "mine").touch()
    with pytest.raises(DistillError, match=r"holds other files than \.onnx"):
        export_onnx(features, tmp_path / "x", overwrite=True)
    with pytest.raises(DistillError, match="lies inside the feature set"):
        export_onnx(features, features.path / "onnx")


def test_without_the_package_it_says_what_to_install(exported, tmp_path, monkeypatch):
    real = builtins.__import__

    def no_onnx(name, *arguments):
        if name == "onnx":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", no_onnx)
    with pytest.raises(DistillError, match=r"is not installed; pip install 'sgfd\[onnx\]'"):
        export_onnx(exported[0], tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_set_without_a_student_is_refused(made, rng, tmp_path):
    values = rng.normal(size=(12, 3)).astype(np.float32)
    raw = distill(made(None, image=values), tmp_path / "raw", method="raw", threads=1)
    with pytest.raises(FeatureSetError, match="has no student"):
        export_onnx(load(raw.artifact), tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
