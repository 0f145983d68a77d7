"""Stage one from top to bottom: a catalogue becomes a feature set."""

import logging
import re
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sgfd.dataset import Dataset, ItemCatalog
from sgfd.distill.errors import DistillError
from sgfd.distill.networks import NEGATIVE_SLOPE, Student
from sgfd.distill.quality import measure
from sgfd.distill.settings import SGFDSettings
from sgfd.distill.sgfd import SGFD, ItemReader, fit
from sgfd.distill.streaming import (
    Embedder,
    Standardisation,
    a_core_for_writing,
    column_statistics,
)
from sgfd.featureset import (
    DatasetOrigin,
    FeatureSetWriter,
    Fingerprints,
    Labels,
    Manifest,
    Modality,
    Producer,
    now,
)
from sgfd.featureset import Student as StudentRecord
from sgfd.jobs import (
    WorkFolder,
    keep_freed_memory,
    progress,
    seed_everything,
    use_device,
    use_threads,
)

logger = logging.getLogger("sgfd")

METHOD = "sgfd"
EXPORT_ROWS = 8192
MODALITY_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,99}")
TAKEN_NAMES = ("item_id", "item_index", "label")  # columns that a feature set's table has anyway


@dataclass(frozen=True)
class DistillResult:
    """What stage one made: the folder, how long it took, how good it is."""

    artifact: Path
    method: str
    seconds: float
    quality: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"artifact": str(self.artifact)}


def distill(
    dataset: Dataset,
    target: Path,
    settings: SGFDSettings | None = None,
    seed: int = 0,
    *,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
) -> DistillResult:
    """Train SGFD's teacher and student on a catalogue and write the student's features.

    Args:
        target: folder of the feature set to be.
        overwrite: replace an existing one.

    Raises:
        DistillError: the data set has no label or no modality to distil, or training diverged.
        JobError: the target exists, or another process is making it.
        DatasetError: a feature file is broken.
        KeyboardInterrupt: interrupted; the same call goes on from the checkpoint.
    """
    start = time.perf_counter()
    settings = settings or SGFDSettings()
    catalog = _usable_catalog(dataset)
    torch_device = use_device(device)
    use_threads(threads)
    keep_freed_memory()
    origin = DatasetOrigin(
        name=dataset.name,
        n_items=catalog.n_items,
        fingerprints=Fingerprints(
            catalogue=catalog.fingerprint(), labels=catalog.labels_fingerprint()
        ),
    )
    identity = {
        "method": METHOD,
        "dataset": origin.model_dump(),
        "settings": asdict(settings),
        "seed": seed,
        "device": torch_device.type,
    }
    with WorkFolder(target, identity, overwrite) as work:
        seed_everything(seed)
        standardisation = {name: column_statistics(f) for name, f in catalog.features.items()}
        reader = ItemReader(catalog, standardisation, torch_device)
        widths = {name: feature.dimension for name, feature in catalog.features.items()}
        model = SGFD(widths, len(catalog.label_names), settings).to(torch_device)
        train, held_out = _hold_out(catalog, settings.held_out_share, seed)
        fit(model, reader, train, held_out, seed, work)
        quality = measure(model, reader, catalog, held_out)
        manifest = Manifest(
            name=target.name,
            created=now(),
            producer=Producer(name="sgfd", version=version("sgfd")),
            method=METHOD,
            settings=asdict(settings),
            seed=seed,
            dataset=origin,
            modalities=[
                Modality(
                    name=name,
                    file=f"{name}.npy",
                    source_dimension=feature.dimension,
                    dimension=settings.dimension,
                    normalised=True,
                    coverage=feature.coverage,
                )
                for name, feature in catalog.features.items()
            ],
            labels=_label_record(catalog),
            student=StudentRecord(negative_slope=NEGATIVE_SLOPE, normalised=True),
            quality=quality,
        )
        students = {name: networks.student for name, networks in model.modalities().items()}
        export(work.result, catalog, students, standardisation, manifest, torch_device)
        artifact = work.publish()
    return DistillResult(artifact, METHOD, time.perf_counter() - start, quality)


def export(
    folder: Path,
    catalog: ItemCatalog,
    students: dict[str, Student],
    standardisation: dict[str, Standardisation],
    manifest: Manifest,
    device: torch.device,
) -> Manifest:
    """Stream every item through the students into `folder`, block by block."""
    dimensions = {modality.name: modality.dimension for modality in manifest.modalities}
    embedders = {
        name: Embedder(student, standardisation[name], device) for name, student in students.items()
    }
    with (
        a_core_for_writing(),
        FeatureSetWriter(folder, catalog.items.ids, _label_of_each(catalog), dimensions) as writer,
        progress(catalog.n_items, "exporting") as advance,
    ):
        for start in range(0, catalog.n_items, EXPORT_ROWS):
            stop = min(start + EXPORT_ROWS, catalog.n_items)
            writer.append(
                {
                    name: embed(catalog.features[name].block(start, stop))
                    for name, embed in embedders.items()
                }
            )
            advance(stop - start)
        tensors: dict[str, NDArray[np.float32]] = {}
        for name, student in students.items():
            tensors |= _student_tensors(name, student, standardisation[name])
        writer.add_student(tensors)
        return writer.finish(manifest)


def _usable_catalog(dataset: Dataset) -> ItemCatalog:
    catalog = dataset.catalog
    where = f"data set {dataset.name}"
    if catalog is None or not catalog.features:
        raise DistillError(
            where, "has no item features to distil", "add a modality, one row an item"
        )
    if catalog.labels is None or not (catalog.labels >= 0).any():
        raise DistillError(
            where, "has no labelled item, and labels guide the teacher", "add category labels"
        )
    for name, feature in catalog.features.items():
        if not MODALITY_NAME.fullmatch(name) or name in TAKEN_NAMES:
            raise DistillError(
                feature.source,
                f"a feature set can't call a modality {name!r}",
                "name it in lower-case letters, digits and _",
            )
        if not feature.present.any():
            raise DistillError(
                feature.source, f"no item has the modality {name}", "remove the file"
            )
    return catalog


def _hold_out(
    catalog: ItemCatalog, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Items to train on, and items held out, at random; items without any modality are neither."""
    present = np.stack([feature.present for feature in catalog.features.values()]).any(axis=0)
    items = np.random.default_rng([seed, 1]).permutation(np.flatnonzero(present))
    count = int(share * len(items))
    train, held_out = np.sort(items[count:]), np.sort(items[:count])
    assert catalog.labels is not None
    if not (catalog.labels[train] >= 0).any() or not (catalog.labels[held_out] >= 0).any():
        return np.sort(items), np.empty(0, dtype=np.int64)
    return train, held_out


def _label_record(catalog: ItemCatalog) -> Labels:
    assert catalog.labels is not None
    return Labels(
        count=len(catalog.label_names),
        names=list(catalog.label_names),
        coverage=float((catalog.labels >= 0).mean()),
    )


def _label_of_each(catalog: ItemCatalog) -> NDArray[np.object_]:
    """Label name of each item, None where unlabelled."""
    assert catalog.labels is not None
    names = np.array([*catalog.label_names, None], dtype=object)
    return names[catalog.labels]


def _student_tensors(
    name: str, student: Student, standardisation: Standardisation
) -> dict[str, NDArray[np.float32]]:
    return {
        f"{name}.weight": student.linear.weight.detach().cpu().numpy(),
        f"{name}.bias": student.linear.bias.detach().cpu().numpy(),
        f"{name}.mean": standardisation.mean,
        f"{name}.scale": standardisation.scale,
    }
