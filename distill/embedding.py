"""Stage one's second half: items that it never saw, by a feature set's student alone.

Nothing is trained and no statistic is taken anew: standardisation is the student's. Rows are
streamed block by block, those of the old set too, and the result is written and published as
stage one's is.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset import Dataset, Feature, ItemCatalog, distinct
from sgfd.distill.errors import DistillError
from sgfd.distill.stage import (
    EXPORT_ROWS,
    EXPORT_VALUES,
    check_label_names,
    check_target,
    label_of_each,
    with_extras,
)
from sgfd.featureset import (
    FORMAT_VERSION,
    MANIFEST,
    STUDENT,
    Compressed,
    CompressedRows,
    DatasetOrigin,
    Derivation,
    FeatureSet,
    FeatureSetWriter,
    Fingerprints,
    Labels,
    Manifest,
    Neighbours,
    Producer,
    load,
    now,
    other_rows,
    refuse_changed,
)
from sgfd.jobs import WorkFolder, of_kind, progress

logger = logging.getLogger("sgfd")

Block = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class EmbedResult:
    """What was made of a catalogue.

    Attributes:
        artifact: the folder of the new set.
        kept: rows of the old set in it.
        added: rows that the student made.
        known: items of the catalogue that the old set has too.
        changed: those of them whose features give another row than the old one.
    """

    artifact: Path
    kept: int
    added: int
    known: int
    changed: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"artifact": str(self.artifact)}


def embed(
    features: FeatureSet,
    dataset: Dataset,
    target: str | Path,
    *,
    append: bool = False,
    modalities: Sequence[str] | None = None,
    overwrite: bool = False,
) -> EmbedResult:
    """Make a feature set of a catalogue's items by the student of another set.

    An item that lacks a modality gets a row of NaN in it; where a modality is the sum of parts,
    those that the item has make it. Compressed modalities are encoded by the old set's own scales
    and codebooks; numbers far beyond an int8's scale are cut off, and a warning says of how many
    rows. A table of neighbours is made again over all rows, since a new item may be
    nearer to an old one than its neighbours so far: that takes time that grows with the square of
    the number of items, as it does in stage one.

    Args:
        features: the set whose student is applied.
        dataset: the items; it needs no interactions, and they are not looked at.
        target: folder of the new set; the old one's own, to be replaced, will do.
        append: begin with the rows of the old set, bit for bit. Items that it has are not made
            again: they keep their rows and labels. Without, all of the catalogue's items are made.
        modalities: take these of the student's modalities from the catalogue, and the others as
            lacking; it must have all of them where None.
        overwrite: replace an existing feature set.

    Raises:
        FeatureSetError: the old set has no student or a file that is not the manifest's, or
            float16 can't hold a new row.
        DistillError: the catalogue is empty, lacks a modality, has one of another width, or more
            labels than a manifest can name; the target is no place for a feature set; the old set
            was replaced meanwhile.
        DatasetError: a feature file is broken.
        JobError: the target exists, or another process is making it.
        KeyboardInterrupt: interrupted; nothing is left.
    """
    start = time.perf_counter()
    of_kind("features", features, FeatureSet, "give featureset.load(...)")
    of_kind("dataset", dataset, Dataset, "give dataset.load_dataset(...)")
    target = Path(target)
    features.student()  # refused at once where there is none
    check_target(target, dataset, overwrite)
    refuse_inside(features, target)
    catalog = _checked_catalog(dataset)
    sources = _sources(features, dataset.name, catalog, modalities)
    refuse_changed(features)
    plan = _Plan(features, dataset.name, catalog, sources, append)
    if plan.label_record is not None:
        check_label_names(f"data set {dataset.name}", plan.label_record.names)
    identity = {
        "derived_from": plan.derivation.model_dump(),
        "modalities": sorted(sources),
    }
    with WorkFolder(target, identity, overwrite, marker=MANIFEST) as work:
        changed = _write(plan, work.result, target.name)
        if load(features.path).manifest_sha256 != features.manifest_sha256:
            raise DistillError(features.path, "was replaced meanwhile", "run the command again")
        artifact = work.publish()
    return EmbedResult(
        artifact=artifact,
        kept=plan.kept,
        added=plan.derivation.added,
        known=int((plan.places >= 0).sum()),
        changed=changed,
        seconds=time.perf_counter() - start,
    )


@dataclass(frozen=True)
class _Plan:
    """Which rows the new set gets: those of the old set where `append`, then the fresh items'.

    Attributes:
        sources: the generic features of the student's layers, by modality; those that the
            catalogue shall lack are not among them.
    """

    features: FeatureSet
    catalogue_name: str
    catalog: ItemCatalog
    sources: dict[str, Feature]
    append: bool

    @property
    def kept(self) -> int:
        return self.features.n_items if self.append else 0

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """The old set's row of each item of the catalogue, -1 where it has none."""
        return self.features.align(self.catalog.items.ids, min_coverage=0).rows

    @cached_property
    def fresh(self) -> NDArray[np.bool_]:
        """Which items of the catalogue get a row."""
        return self.places < 0 if self.append else np.ones(self.catalog.n_items, dtype=bool)

    @cached_property
    def ids(self) -> NDArray[np.object_]:
        """Of all rows."""
        ids = self.catalog.items.ids[self.fresh]
        return np.concatenate([self.features.item_ids, ids]) if self.append else ids

    @cached_property
    def labels(self) -> NDArray[np.object_]:
        """Label name of each row, None where it has none."""
        labels = label_of_each(self.catalog)[self.fresh]
        return np.concatenate([self.features.labels, labels]) if self.append else labels

    @cached_property
    def label_record(self) -> Labels | None:
        """The old set's label names, where its rows are kept, and after them those that are new."""
        before = self.features.manifest.labels if self.append else None
        if before is None and self.catalog.labels is None:
            return None
        names = dict.fromkeys(before.names if before else ())
        if self.catalog.labels is not None:
            used = distinct(self.catalog.labels[self.fresh])
            names |= dict.fromkeys(self.catalog.label_names[place] for place in used[used >= 0])
        labelled = sum(label is not None for label in self.labels)
        return Labels(count=len(names), names=list(names), coverage=labelled / len(self.labels))

    @cached_property
    def derivation(self) -> Derivation:
        old = self.features.manifest
        return Derivation(
            name=old.name,
            manifest_sha256=self.features.manifest_sha256,
            kept=self.kept,
            added=int(self.fresh.sum()),
            catalogue=DatasetOrigin(
                name=self.catalogue_name,
                n_items=self.catalog.n_items,
                fingerprints=Fingerprints(
                    catalogue=self.catalog.fingerprint(), labels=self.catalog.labels_fingerprint()
                ),
            ),
            trained_on=old.derived_from.trained_on if old.derived_from else old.dataset,
        )

    @property
    def compressed(self) -> dict[str, Compressed]:
        """The old set's compressed modalities, with their own scales and codebooks."""
        found = {}
        for modality in self.features.manifest.modalities:
            rows = self.features.modalities[modality.name]
            if modality.encoding is not None and isinstance(rows, CompressedRows):
                found[modality.name] = Compressed(modality.encoding.of, rows.codec)
        return found

    def kept_blocks(self) -> Iterator[Block]:
        """The old set's rows as they are stored."""
        for start, stop in self._steps(self.kept):
            yield self.features.stored_block(start, stop)

    def made_blocks(self) -> Iterator[tuple[slice, Block]]:
        """Which items of the catalogue, and the rows of the plain modalities that they get.

        Raises:
            DistillError: features are so large that float32 can't hold what they give.
        """
        layers = {layer.name: layer.source_dimension for layer in self.features.manifest.layers}
        for start, stop in self._steps(self.catalog.n_items):
            generic = {
                name: self.sources[name].block(start, stop)
                if name in self.sources
                else np.full((stop - start, width), np.nan, dtype=np.float32)
                for name, width in layers.items()
            }
            try:
                with np.errstate(over="raise"):
                    made = {
                        modality.name: self.features.embed(
                            modality.name, generic if modality.parts else generic[modality.name]
                        )
                        for modality in self.features.manifest.plain
                    }
            except FloatingPointError:
                raise DistillError(
                    f"data set {self.catalogue_name}",
                    f"rows {start} to {stop - 1}: features are too large to be embedded",
                    "give features of the same kind as the set was made from",
                ) from None
            yield slice(start, stop), made

    def _steps(self, n: int) -> Iterator[tuple[int, int]]:
        """Rows 0..n in blocks of which no copy is large, of generic rows neither."""
        widest = max(m.source_dimension for m in self.features.manifest.layers)
        widest = max(widest, *(m.dimension for m in self.features.manifest.modalities))
        step = max(1, min(EXPORT_ROWS, EXPORT_VALUES // widest))
        for start in range(0, n, step):
            yield start, min(start + step, n)


def _write(plan: _Plan, folder: Path, name: str) -> int:
    """Write the new set, called `name`, to `folder`; how many known items have other features."""
    old = plan.features.manifest
    there = {modality.name: 0 for modality in old.plain}
    dimensions = {modality.name: modality.dimension for modality in old.plain}
    changed, cut_off = 0, dict.fromkeys(plan.compressed, 0)
    with (
        FeatureSetWriter(folder, plan.ids, plan.labels, dimensions, plan.compressed) as writer,
        progress(plan.kept + plan.catalog.n_items, "embedding") as advance,
    ):

        def write(block: Block) -> None:
            for modality in there:
                there[modality] += int((~np.isnan(block[modality][:, 0])).sum())
            writer.append(block)

        for block in plan.kept_blocks():
            write(block)
            advance(len(block[old.plain[0].name]))
        for part, made in plan.made_blocks():
            changed += _count_changed(plan, part, made)
            fresh = plan.fresh[part]
            if fresh.any():
                new = {modality: rows[fresh] for modality, rows in made.items()}
                for modality, each in plan.compressed.items():
                    cut_off[modality] += int(each.codec.cut_off(new[each.of]).sum())
                write(new)
            advance(len(fresh))
        writer.add_student(plan.features.student())
        wanted = old.neighbours and Neighbours(
            k=old.neighbours.k, modalities=old.neighbours.modalities
        )
        writer.finish(with_extras(writer, _manifest(plan, name, there), wanted))
    for modality, rows in cut_off.items():
        if rows:
            logger.warning(
                "%s: %d of %d new rows hold much larger numbers than its scales can; they are cut "
                "off there, and whole in %s",
                modality,
                rows,
                plan.derivation.added,
                plan.compressed[modality].of,
            )
    return changed


def _count_changed(plan: _Plan, part: slice, made: Block) -> int:
    """How many of these items have an old row that is not the one that their features give."""
    known = np.flatnonzero(plan.places[part] >= 0)
    places = plan.places[part][known]
    changed = np.zeros(len(known), dtype=bool)
    for name, rows in made.items():
        changed |= other_rows(rows[known], plan.features.modalities[name][places])
    return int(changed.sum())


def _manifest(plan: _Plan, name: str, there: dict[str, int]) -> Manifest:
    """That of the old set, but for what is of other rows now: `there` have each modality."""
    old, derivation = plan.features.manifest, plan.derivation
    assert old.student is not None
    added = derivation.catalogue
    origin = DatasetOrigin(
        name=added.name,
        n_items=len(plan.ids),
        fingerprints=added.fingerprints.model_copy(
            update={"interactions": old.dataset.fingerprints.interactions}
        ),
    )
    if plan.append:
        joined = old.dataset.fingerprints.join(added.fingerprints)
        origin = origin.model_copy(update={"name": old.dataset.name, "fingerprints": joined})
    described = {
        modality.name: modality.model_copy(
            update={
                "file": f"{modality.name}.npy",
                "coverage": there[modality.name] / len(plan.ids),
            }
        )
        for modality in old.plain
    }
    described |= {
        modality: each.described(modality, described[each.of])
        for modality, each in plan.compressed.items()
    }
    return old.model_copy(
        update={
            "format_version": FORMAT_VERSION,
            "name": name,
            "created": now(),
            "producer": Producer(name="sgfd", version=version("sgfd")),
            "dataset": origin,
            "modalities": list(described.values()),
            "labels": plan.label_record,
            "student": old.student.model_copy(update={"file": STUDENT}),
            "neighbours": None,
            "derived_from": derivation,
            "files": {},
        }
    )


def _checked_catalog(dataset: Dataset) -> ItemCatalog:
    catalog = dataset.catalog
    if catalog is None or not catalog.n_items:
        raise DistillError(
            f"data set {dataset.name}", "has no items to embed", "give a catalogue of some"
        )
    return catalog


def _sources(
    features: FeatureSet, name: str, catalog: ItemCatalog, wanted: Sequence[str] | None
) -> dict[str, Feature]:
    """The generic features of the student's layers, checked, by modality.

    Raises:
        DistillError: the catalogue lacks one, or its width is another.
        DatasetError: a row is NaN in part, or infinite.
    """
    layers = {layer.name: layer.source_dimension for layer in features.manifest.layers}
    known = " and ".join(layers)
    for modality in wanted or ():
        if modality not in layers:
            raise DistillError(
                features.path, f"its student has no layer for {modality!r}", f"choose from {known}"
            )
    where = f"data set {name}"
    if not layers.keys() & catalog.features.keys():
        has = " and ".join(catalog.features) or "none"
        raise DistillError(
            where,
            f"has none of the modalities that the student of {features.path} embeds ({known}): "
            f"it has {has}",
            "give the features that the set was made from, or rename them",
        )
    sources = {}
    for modality, width in layers.items():
        if wanted is not None and modality not in wanted:
            continue
        feature = catalog.features.get(modality)
        if feature is None:
            there = ",".join(name for name in layers if name in catalog.features)
            raise DistillError(
                where,
                f"has no modality {modality}, which the student of {features.path} embeds",
                f"add it, or take it as lacking: --modalities {there}",
            )
        if feature.dimension != width:
            raise DistillError(
                feature.source,
                f"has {feature.dimension} columns, and {modality} of {features.path} was made from "
                f"{width}",
                "give features of the same kind",
            )
        _ = feature.present  # refuses a broken row before anything is written
        sources[modality] = feature
    return sources


def refuse_inside(features: FeatureSet, target: Path) -> None:
    """Check that a result isn't put among the files of a feature set.

    Raises:
        DistillError: it would be.
    """
    if features.path.resolve() in target.resolve().parents:
        raise DistillError(
            target, f"lies inside the feature set {features.path}", "choose another --out"
        )
