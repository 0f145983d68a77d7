"""Stage one from top to bottom: a catalogue becomes a feature set, by any method."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset import (
    Dataset,
    Interactions,
    ItemCatalog,
    Protocol,
    Split,
    Vocabulary,
    check_division,
    divide,
    is_modality_name,
    pairs_fingerprint,
)
from sgfd.distill.errors import DistillError
from sgfd.distill.fused import FUSED
from sgfd.distill.geometry import geometry
from sgfd.distill.maker import Made, Task
from sgfd.distill.methods import DEFAULT_METHOD, METHODS, Method
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.streaming import a_core_for_writing
from sgfd.featureset import (
    CODECS,
    KINDS,
    MANIFEST,
    Compressed,
    CosineRows,
    DatasetOrigin,
    EncodingKind,
    FeatureSetWriter,
    Fingerprints,
    InteractionsUse,
    Labels,
    Manifest,
    Modality,
    Neighbours,
    Producer,
    compression_loss,
    is_name,
    nearest,
    now,
)
from sgfd.featureset.formats import refuse_guided_export
from sgfd.featureset.manifest import MANIFEST_BYTES, NAME_RULE
from sgfd.jobs import (
    MOST_SEED,
    WorkFolder,
    keep_freed_memory,
    of_kind,
    progress,
    refuse_existing,
    seed_everything,
    use_device,
    use_threads,
    whole_number,
)

logger = logging.getLogger("sgfd")

# What `quality` holds beside the modalities' figures, which stand there by the modality's name.
FIGURES = (
    "held_out_items",
    "majority_accuracy",
    "trained_epochs",
    "reconstruction_error",
    "codes_used",
    "unique_ids",
    "debiased",
    "tuned_on_held_out_and_valid",
)
EXPORT_ROWS = 8192
MOST_IN_LABELS = MANIFEST_BYTES // 2  # bytes; the manifest holds more than the labels' names
BESIDE_LABEL = 10  # bytes of a line of the manifest around a label's name
EXPORT_VALUES = 2**23  # of one modality in a block, generic or made, at most: 32 MiB


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
    target: str | Path,
    settings: Any = None,
    seed: int = 0,
    *,
    method: str | None = None,
    protocol: Protocol = "honest",
    split: Split = "given",
    split_seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    compress: Sequence[EncodingKind] = (),
    neighbours: int | None = None,
    licence: str | None = None,
    contact: str | None = None,
    figures: Mapping[str, Any] | None = None,
) -> DistillResult:
    """Make a feature set from a catalogue: fit the method's maker, stream every item through it.

    Args:
        target: folder of the feature set to be.
        settings: of the method's own class, e.g. SGFDSettings; its defaults where None.
        method: a name in `METHODS`; where None that of the settings' class, else the default.
        protocol, split, split_seed: as of `train`: a method that interactions guide sees the
            training part of this division and nothing else.
        overwrite: replace an existing one.
        compress: kinds of encoding, `float16`, `int8` or `pq`: the modalities for a reader who
            names none get a compressed one of each kind beside them, such as `fused_int8`.
        neighbours: write so many nearest others of every item, by the cosine of these modalities.
        licence, contact: what the card says of them, a line each; the licence best as an SPDX
            identifier.
        figures: of how the settings were found, for the manifest's `quality`.

    Raises:
        DistillError: there is no such method or encoding, the licence or contact is no line, the
            data set lacks what it needs (features, labels, interactions), or training diverged.
        FeatureSetError: an encoding can't hold the features; the data set was exported from a
            feature set that interactions guided.
        JobError: the target exists, or another process is making it.
        DatasetError: a feature file is broken, or the interactions can't be divided so.
        KeyboardInterrupt: interrupted; the same call goes on from the checkpoint.
    """
    start = time.perf_counter()
    target = Path(target)
    seed = whole_number("seed", seed, most=MOST_SEED)
    split_seed = whole_number("split_seed", split_seed)
    check_division(protocol, split)
    method, known_method, settings = method_and_settings(method, settings)
    _check_extras(compress, neighbours)
    _check_lines(licence=licence, contact=contact)
    of_kind("dataset", dataset, Dataset, "give dataset.load_dataset(...)")
    if not dataset.name.isprintable():
        raise DistillError(
            f"dataset {dataset.name!r}", "has a control sign in its name", "rename its folder"
        )
    check_target(target, dataset, overwrite)
    if dataset.path is not None:
        refuse_guided_export(dataset.path)
    catalog = usable_catalog(dataset, method, known_method)
    _check_compressed_names(catalog, compress)
    if not known_method.uses_interactions:
        said = "%s %s makes no difference: method %s sees no interaction"
        if split != "given":
            logger.info(said, "split", split, method)
        if split_seed != 0:
            logger.info(said, "split_seed", split_seed, method)
        if protocol != "honest":
            logger.info(said, "protocol", protocol, method)
    pairs, use = None, None
    if known_method.uses_interactions and dataset.interactions is not None:
        pairs, use = _training_pairs(dataset.interactions, catalog, protocol, split, split_seed)
    torch_device = use_device(device)
    use_threads(threads)
    keep_freed_memory()
    origin = DatasetOrigin(
        name=dataset.name,
        n_items=catalog.n_items,
        fingerprints=Fingerprints(
            catalogue=catalog.fingerprint(),
            labels=catalog.labels_fingerprint(),
            interactions=dataset.interactions.fingerprint()
            if use and dataset.interactions
            else None,
        ),
    )
    identity = {
        "method": method,
        "dataset": origin.model_dump(),
        "interactions": use.model_dump() if use else None,
        "settings": asdict(settings),
        "seed": seed,
        "device": torch_device.type,
        "producer": version("sgfd"),
    }
    with WorkFolder(target, identity, overwrite, marker=MANIFEST) as work:
        seed_everything(seed)
        task = Task(catalog, seed, torch_device, work, pairs)
        made = known_method.make(task, settings)
        quality = dict(figures or {}) | made.quality
        for name, measured in geometry(task, made).items():
            quality[name] = quality.get(name, {}) | measured
        manifest = Manifest(
            name=target.name,
            created=now(),
            producer=Producer(name="sgfd", version=version("sgfd")),
            method=method,
            settings=asdict(settings),
            seed=seed,
            dataset=origin,
            interactions=use,
            modalities=[_described(name, made) for name in made.modalities],
            default_modalities=list(made.default),
            labels=_label_record(catalog),
            student=made.student,
            licence=licence,
            contact=contact,
            quality=quality,
        )
        whole = export(work.result, catalog, made, manifest, compress, neighbours)
        artifact = work.publish()
    return DistillResult(artifact, method, time.perf_counter() - start, whole.quality)


def export(
    folder: Path,
    catalog: ItemCatalog,
    made: Made,
    manifest: Manifest,
    compress: Sequence[EncodingKind] = (),
    neighbours: int | None = None,
) -> Manifest:
    """Stream every item through what was made into `folder`, block by block.

    Returns:
        The manifest, with the compressed modalities and what they lose, and the files.
    """
    dimensions = {name: modality.dimension for name, modality in made.modalities.items()}
    widths = [source.dimension for each in made.modalities.values() for source in each.sources]
    rows = max(1, min(EXPORT_ROWS, EXPORT_VALUES // max(*widths, *dimensions.values())))
    compressed = _fitted(made, manifest, compress)
    described = {modality.name: modality for modality in manifest.modalities}
    manifest = manifest.model_copy(
        update={
            "modalities": manifest.modalities
            + [each.described(name, described[each.of]) for name, each in compressed.items()]
        }
    )
    labels = label_of_each(catalog)
    with (
        a_core_for_writing(),
        FeatureSetWriter(folder, catalog.items.ids, labels, dimensions, compressed) as writer,
        progress(catalog.n_items, "exporting") as advance,
    ):
        for start in range(0, catalog.n_items, rows):
            stop = min(start + rows, catalog.n_items)
            writer.append(
                {name: modality.block(start, stop) for name, modality in made.modalities.items()}
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
        wanted = None
        if neighbours:
            wanted = Neighbours(k=neighbours, modalities=manifest.usual_modalities)
        return writer.finish(with_extras(writer, manifest, wanted))


def _fitted(
    made: Made, manifest: Manifest, compress: Sequence[EncodingKind]
) -> dict[str, Compressed]:
    """A compressed modality of each kind beside those for a reader who names none."""
    return {
        f"{name}_{kind}": Compressed(name, CODECS[kind].fit(made.modalities[name], manifest.seed))
        for name in manifest.usual_modalities
        for kind in dict.fromkeys(compress)
    }


def with_extras(
    writer: FeatureSetWriter, manifest: Manifest, neighbours: Neighbours | None
) -> Manifest:
    """Write the neighbours, once all rows are; the manifest with them and with what compression
    loses."""
    if neighbours is None and all(m.encoding is None for m in manifest.modalities):
        return manifest
    rows = writer.complete_rows(manifest)
    lost = compression_loss(manifest.modalities, rows, manifest.seed)
    if neighbours is not None:
        cosine_rows = CosineRows([rows[name] for name in neighbours.modalities])
        with progress(len(cosine_rows.items), "neighbours") as advance:
            writer.add_neighbours(nearest(cosine_rows, neighbours.k, advance=advance))
    return manifest.model_copy(
        update={"quality": manifest.quality | lost, "neighbours": neighbours}
    )


def _described(name: str, made: Made) -> Modality:
    """The record of a modality that was made."""
    modality = made.modalities[name]
    has_parts = made.student is not None and not modality.student
    return Modality(
        name=name,
        file=f"{name}.npy",
        source_dimension=modality.source_dimension,
        dimension=modality.dimension,
        normalised=modality.normalised,
        coverage=modality.coverage,
        parts=[source.name for source in modality.sources] if has_parts else [],
        nested=list(modality.nested),
    )


def _check_extras(compress: Sequence[str], neighbours: int | None) -> None:
    for kind in compress:
        if kind not in KINDS:
            raise DistillError(f"compress {kind!r}", "is unknown", f"choose {' or '.join(KINDS)}")
    if neighbours is not None and neighbours < 1:
        raise DistillError(f"neighbours {neighbours}", "are too few", "ask for 1 or more")


def check_target(target: Path, dataset: Dataset, overwrite: bool) -> None:
    """Check that a feature set may be put there, before hours are spent on it.

    Raises:
        DistillError: it can't be called as its folder, or the data set lies in there.
        JobError: there is something that may not be replaced.
    """
    if not is_name(target.name):
        raise DistillError(target, "is no name of a feature set", NAME_RULE)
    if dataset.path is not None:
        place, where = target.resolve(), dataset.path.resolve()
        if place in (where, *where.parents):
            raise DistillError(target, f"holds the data set {dataset.path}", "choose another name")
    refuse_existing(target, overwrite, MANIFEST)


def _check_lines(**lines: str | None) -> None:
    for name, line in lines.items():
        if line is not None and not (0 < len(line) <= 200 and line.isprintable()):
            raise DistillError(
                f"{name} {line[:40]!r}",
                "is not one line of 1 to 200 characters",
                "give such a line, or leave it out",
            )


def method_and_settings(name: str | None, settings: Any) -> tuple[str, Method, Any]:
    """A method by name or by its settings' class, and its settings, the defaults where None.

    Raises:
        DistillError: there is none, or the settings are of another.
    """
    if name is None:
        classes = {known: method.settings for known, method in METHODS.items()}
        name = next(
            (known for known, kind in classes.items() if type(settings) is kind), DEFAULT_METHOD
        )
    where = f"method {name!r}"
    if name not in METHODS:
        raise DistillError(where, "is unknown", f"choose {' or '.join(METHODS)}")
    kind = METHODS[name].settings
    if settings is None:
        return name, METHODS[name], kind()
    if type(settings) is not kind:
        raise DistillError(
            where, f"does not take {type(settings).__name__}", f"give it {kind.__name__}"
        )
    return name, METHODS[name], settings


def _training_pairs(
    interactions: Interactions,
    catalog: ItemCatalog,
    protocol: Protocol,
    split: Split,
    split_seed: int,
) -> tuple[TrainingPairs, InteractionsUse]:
    """The training part, and the record of what was seen."""
    train = divide(interactions, protocol, split, split_seed).train
    use = InteractionsUse(
        protocol=protocol,
        split=split,
        split_seed=split_seed,
        pairs=len(train),
        sha256=pairs_fingerprint(train),
    )
    return TrainingPairs.of(train.user, train.item, interactions.n_users, catalog.n_items), use


def usable_catalog(dataset: Dataset, name: str, method: Method) -> ItemCatalog:
    """The data set's items.

    Raises:
        DistillError: they lack what the method needs.
    """
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
    if method.needs_interactions and (
        dataset.interactions is None or not len(dataset.interactions.train)
    ):
        raise DistillError(
            where,
            f"has no training interactions, and method {name} is guided by them",
            "add interactions, or choose a --method that needs none",
        )
    if method.needs_features:
        _check_modalities(catalog)
    check_label_names(where, catalog.label_names)
    if method.fuses and len(catalog.features) > 1 and FUSED in catalog.features:
        raise DistillError(
            catalog.features[FUSED].source,
            f"the modality's name {FUSED!r} is that of what method {name} makes of all modalities",
            "name it otherwise",
        )
    return catalog


def check_label_names(where: str, names: Sequence[str]) -> None:
    """Whether a manifest has room for the names of labels.

    Raises:
        DistillError: it has not.
    """
    if sum(len(name.encode()) + BESIDE_LABEL for name in names) > MOST_IN_LABELS:
        raise DistillError(
            where,
            f"has {len(names):,} labels, more than a manifest can name",
            "give categories, not titles or ids, or none",
        )


def _check_modalities(catalog: ItemCatalog) -> None:
    for name, feature in catalog.features.items():
        if not is_modality_name(name):
            raise DistillError(
                feature.source,
                f"a feature set can't call a modality {name!r}",
                "name it in lower-case letters, digits and _",
            )
        if name in FIGURES:
            raise DistillError(
                feature.source,
                f"the modality's name {name!r} is that of a figure",
                "name it otherwise",
            )
        if not feature.present.any():
            raise DistillError(
                feature.source, f"no item has the modality {name}", "remove the file"
            )
        for what, remedy in feature.oddities():
            logger.warning("%s: %s; %s", feature.source, what, remedy)


def _check_compressed_names(catalog: ItemCatalog, compress: Sequence[str]) -> None:
    """Refuse a modality whose name a compressed one could take, or can't be made longer."""
    for name, feature in catalog.features.items():
        for kind in compress:
            longer = f"{name}_{kind}"
            if name.endswith(f"_{kind}") or not is_modality_name(longer):
                raise DistillError(
                    feature.source,
                    f"the modality's name {name!r} leaves none for its compressed one",
                    f"name it otherwise, or leave {kind} out of the compression",
                )


def _label_record(catalog: ItemCatalog) -> Labels | None:
    if catalog.labels is None:
        return None
    return Labels(
        count=len(catalog.label_names),
        names=list(catalog.label_names),
        coverage=float((catalog.labels >= 0).mean()),
    )


def label_of_each(catalog: ItemCatalog) -> NDArray[np.object_]:
    """Label name of each item, None where unlabelled."""
    if catalog.labels is None:
        return np.full(catalog.n_items, None, dtype=object)
    names = np.array([*catalog.label_names, None], dtype=object)
    return names[catalog.labels]
