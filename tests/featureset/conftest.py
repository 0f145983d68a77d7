"""A small feature set, made as stage one makes one."""

from pathlib import Path

import numpy as np
import pytest

from sgfd.featureset import (
    DatasetOrigin,
    FeatureSetWriter,
    Fingerprints,
    Labels,
    Manifest,
    Modality,
    Producer,
    Student,
    now,
    publish_folder,
)

DIMENSIONS = {"image": 4, "text": 3}
SOURCES = {"image": 6, "text": 5}
IDS = np.array(["a", "b", "ç", "d,e", "f"], dtype=object)
LABELS = np.array(["Pens", None, "Desks", "Pens", None], dtype=object)


def student(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors = {}
    for name, d in DIMENSIONS.items():
        source = SOURCES[name]
        tensors[f"{name}.weight"] = rng.normal(size=(d, source)).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(size=d).astype(np.float32)
        tensors[f"{name}.mean"] = rng.normal(size=source).astype(np.float32)
        tensors[f"{name}.scale"] = np.ones(source, dtype=np.float32)
    return tensors


def make_feature_set(target: Path, seed: int = 0, overwrite: bool = False) -> dict[str, np.ndarray]:
    """Write a set to `target`; returns its features. Item 2 lacks its image."""
    rng = np.random.default_rng(seed)
    values = {
        name: rng.normal(size=(len(IDS), d)).astype(np.float32) for name, d in DIMENSIONS.items()
    }
    values["image"][2] = np.nan
    manifest = Manifest(
        name=target.name,
        created=now(),
        producer=Producer(name="sgfd", version="0"),
        method="sgfd",
        settings={"dimension": 4},
        seed=seed,
        dataset=DatasetOrigin(
            name="tiny", n_items=len(IDS), fingerprints=Fingerprints(catalogue="0" * 64)
        ),
        modalities=[
            Modality(
                name=name,
                file=f"{name}.npy",
                source_dimension=SOURCES[name],
                dimension=d,
                normalised=True,
                coverage=float((~np.isnan(values[name][:, 0])).mean()),
            )
            for name, d in DIMENSIONS.items()
        ],
        labels=Labels(count=2, names=["Desks", "Pens"], coverage=0.6),
        student=Student(negative_slope=0.01, normalised=True),
        quality={"text": {"fidelity": 0.5}},
    )
    folder = target.parent / f".{target.name}.new"
    folder.mkdir()
    with FeatureSetWriter(folder, IDS, LABELS, DIMENSIONS) as writer:
        for start in range(0, len(IDS), 2):
            writer.append({name: rows[start : start + 2] for name, rows in values.items()})
        writer.add_student(student(rng))
        writer.finish(manifest)
    publish_folder(folder, target, overwrite)
    return values


@pytest.fixture
def feature_set(tmp_path: Path) -> Path:
    make_feature_set(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def make() -> object:
    return make_feature_set
