"""Stage one from top to bottom: a catalogue becomes a feature set, by any method."""

import re
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset import Dataset, ItemCatalog, Vocabulary
from sgfd.distill.errors import DistillError
from sgfd.distill.maker import Made, Task
from sgfd.distill.methods import METHODS, Method
from sgfd.distill.streaming import a_core_for_writing
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
from sgfd.jobs import (
    WorkFolder,
    keep_freed_memory,
    progress,
    seed_everything,
    use_device,
    use_threads,
)

EXPORT_ROWS = 8192
EXPORT_VALUES = 2**23  # of one modality in a block, at most: 32 MiB
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
    settings: Any = None,
    seed: int = 0,
    *,
    method: str = "sgfd",
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
) -> DistillResult:
    """Make a feature set from a catalogue: fit the method's maker, stream every item through it.

    Args:
        target: folder of the feature set to be.
        settings: of the method's own class, e.g. SGFDSettings; its defaults where None.
        method: a name in `METHODS`.
        overwrite: replace an existing one.

    Raises:
        DistillError: there is no such method, the data set lacks what it needs (features,
            labels), or training diverged.
        JobError: the target exists, or another process is making it.
        DatasetError: a feature file is broken.
        KeyboardInterrupt: interrupted; the same call goes on from the checkpoint.
    """
    start = time.perf_counter()
    known_method, settings = _method_and_settings(method, settings)
    catalog = _usable_catalog(dataset, method, known_method)
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
        "method": method,
        "dataset": origin.model_dump(),
        "settings": asdict(settings),
        "seed": seed,
        "device": torch_device.type,
    }
    with WorkFolder(target, identity, overwrite) as work:
        seed_everything(seed)
        made = known_method.make(Task(catalog, seed, torch_device, work), settings)
        manifest = Manifest(
            name=target.name,
            created=now(),
            producer=Producer(name="sgfd", version=version("sgfd")),
            method=method,
            settings=asdict(settings),
            seed=seed,
            dataset=origin,
            modalities=[
                Modality(
                    name=name,
                    file=f"{name}.npy",
                    source_dimension=modality.source.dimension,
                    dimension=modality.dimension,
                    normalised=modality.normalised,
                    coverage=modality.source.coverage,
                )
                for name, modality in made.modalities.items()
            ],
            labels=_label_record(catalog),
            student=made.student,
            quality=made.quality,
        )
        export(work.result, catalog, made, manifest)
        artifact = work.publish()
    return DistillResult(artifact, method, time.perf_counter() - start, made.quality)


def export(folder: Path, catalog: ItemCatalog, made: Made, manifest: Manifest) -> Manifest:
    """Stream every item through what was made into `folder`, block by block."""
    dimensions = {name: modality.dimension for name, modality in made.modalities.items()}
    rows = max(1, min(EXPORT_ROWS, EXPORT_VALUES // max(dimensions.values())))
    with (
        a_core_for_writing(),
        FeatureSetWriter(folder, catalog.items.ids, _label_of_each(catalog), dimensions) as writer,
        progress(catalog.n_items, "exporting") as advance,
    ):
        for start in range(0, catalog.n_items, rows):
            stop = min(start + rows, catalog.n_items)
            writer.append(
                {
                    name: modality.embed(modality.source.block(start, stop))
                    for name, modality in made.modalities.items()
                }
            )
            advance(stop - start)
        if made.student is not None:
            writer.add_student(
                {
                    f"{name}.{part}": tensor
                    for name, modality in made.modalities.items()
                    for part, tensor in modality.student.items()
                }
            )
        return writer.finish(manifest)


def _method_and_settings(name: str, settings: Any) -> tuple[Method, Any]:
    where = f"method {name!r}"
    if name not in METHODS:
        raise DistillError(where, "is unknown", f"choose {' or '.join(METHODS)}")
    kind = METHODS[name].settings
    if settings is None:
        return METHODS[name], kind()
    if not isinstance(settings, kind):
        raise DistillError(
            where, f"does not take {type(settings).__name__}", f"give it {kind.__name__}"
        )
    return METHODS[name], settings


def _usable_catalog(dataset: Dataset, name: str, method: Method) -> ItemCatalog:
    catalog = dataset.catalog or ItemCatalog(Vocabulary([]))
    where = f"data set {dataset.name}"
    if method.needs_features and not catalog.features:
        raise DistillError(
            where, "has no item features to distil", "add a modality, one row an item"
        )
    if method.needs_labels and (catalog.labels is None or not (catalog.labels >= 0).any()):
        raise DistillError(
            where,
            f"has no labelled item, and method {name} is guided by labels",
            "add category labels, or choose a --method that needs none",
        )
    if method.needs_features:
        _check_modalities(catalog)
    return catalog


def _check_modalities(catalog: ItemCatalog) -> None:
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


def _label_record(catalog: ItemCatalog) -> Labels | None:
    if catalog.labels is None:
        return None
    return Labels(
        count=len(catalog.label_names),
        names=list(catalog.label_names),
        coverage=float((catalog.labels >= 0).mean()),
    )


def _label_of_each(catalog: ItemCatalog) -> NDArray[np.object_]:
    """Label name of each item, None where unlabelled."""
    if catalog.labels is None:
        return np.full(catalog.n_items, None, dtype=object)
    names = np.array([*catalog.label_names, None], dtype=object)
    return names[catalog.labels]
