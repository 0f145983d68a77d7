"""Whether a feature set is whole, unchanged and in agreement with itself."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sgfd.featureset.compression import BLOCK_ROWS, BLOCK_VALUES, release_pages
from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.manifest import MANIFEST, SIGNATURE
from sgfd.featureset.neighbours import CosineRows
from sgfd.featureset.reading import FeatureSet, load
from sgfd.featureset.table_check import check_table

HASHED_BYTES = 2**22  # at a time
ROUNDING = 1e-6  # of a similarity, on another machine
OTHER_ROW = 1e-3  # difference, as a share of a row's norm, that no rounding explains
SMALL_ROW = 1e-2  # norm below which the difference counts as if it were this: a row of rounding


class GenericFeature(Protocol):
    """Generic features of n items, a row of NaN where an item lacks them."""

    @property
    def dimension(self) -> int: ...

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """The rows start..stop, float32 (b, D)."""


@dataclass(frozen=True)
class Catalogue:
    """What a set was made from.

    Attributes:
        fingerprint: sha256 by which a manifest names it.
        item_ids: object (n,). features: generic features by modality.
    """

    name: str
    fingerprint: str
    item_ids: NDArray[np.object_]
    features: Mapping[str, GenericFeature]


def verify(path: str | Path, catalogue: Catalogue | None = None) -> list[str]:
    """All that is wrong with a feature set; an empty list means that it is good.

    Checks the sha256 of every file, stray files, the Parquet columns against the .npy files
    (numbers, and nulls against NaN rows), the item index, that rows are finite, have the norm and
    the coverage that the manifest says, the student's shapes, that compressed modalities lack what
    those lack that they are of, and the neighbours against the rows.

    Args:
        catalogue: what the set was made from: the student must give its rows again.
    """
    try:
        opened = load(path)
    except FeatureSetError as error:
        return [str(error)]
    with _hashing(opened) as hashed:
        problems = _check_contents(opened, catalogue)
        changed = hashed()
    if changed:  # what the files say is not what was made: no use in telling of that
        return [
            f"{opened.path / name}: sha256 is not the manifest's; get the file again"
            for name in changed
        ]
    return _check_stray_files(opened) + problems


def _check_contents(opened: FeatureSet, catalogue: Catalogue | None) -> list[str]:
    problems = []
    try:
        if opened.manifest.student is not None:
            opened.student()
        problems += check_table(opened)
        if opened.manifest.neighbours is not None:
            problems += _check_neighbours(opened)
        if catalogue is not None:
            problems += _check_student(opened, catalogue)
    except FeatureSetError as error:
        problems.append(str(error))
    return problems


def changed_files(opened: FeatureSet) -> list[str]:
    """Names of the files that are not those that were written, by their sha256."""
    with _hashing(opened) as hashed:
        return hashed()


def refuse_changed(opened: FeatureSet) -> None:
    """Whether every file is the one that was written, by its sha256.

    Raises:
        FeatureSetError: one is not.
    """
    for name in changed_files(opened):
        raise FeatureSetError(
            opened.path / name, "sha256 is not the manifest's", "get the file again"
        )


@contextmanager
def _hashing(opened: FeatureSet) -> Iterator[Callable[[], list[str]]]:
    """Hash the files in another thread meanwhile; to be called for the names of changed ones, when
    the caller hashes what is left, too.

    One thread: a second would take the caller's core, whose work is as long.
    Where an error or Ctrl-C ends the work inside, hashing ends soon, too.
    """
    records = opened.manifest.files
    left = deque(sorted(records, key=lambda name: -records[name].bytes))
    changed: set[str] = set()
    given_up = threading.Event()

    def work() -> None:
        while not given_up.is_set():
            try:
                name = left.popleft()
            except IndexError:  # none is left
                return
            if _is_changed(opened, given_up, name):
                changed.add(name)

    def found() -> list[str]:
        work()
        other.result()
        return sorted(changed)

    with ThreadPoolExecutor(1) as pool:  # hashing lets go of the interpreter
        other = pool.submit(work)
        try:
            yield found
        except BaseException:
            given_up.set()
            raise


def _is_changed(opened: FeatureSet, given_up: threading.Event, name: str) -> bool:
    digest, path = hashlib.sha256(), opened.path / name
    # Mapped, in few pieces: each copy, and each return to the interpreter, which the caller has,
    # costs more than a piece's pages.
    content = np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
    for start in range(0, len(content), HASHED_BYTES):
        if given_up.is_set():
            break
        digest.update(content[start : start + HASHED_BYTES].data)
        release_pages(content)
    return digest.hexdigest() != opened.manifest.files[name].sha256


def _check_stray_files(opened: FeatureSet) -> list[str]:
    known = {MANIFEST, SIGNATURE, *opened.manifest.files}
    return [
        f"{entry}: is not in the manifest; remove it"
        for entry in sorted(opened.path.iterdir())
        if entry.name not in known
    ]


def _check_student(opened: FeatureSet, catalogue: Catalogue) -> list[str]:
    """Whether the student gives the rows of the items of a catalogue again."""
    manifest = opened.manifest
    if manifest.student is None:
        return [f"{opened.path}: has no student to make its rows again; leave out the catalogue"]
    rows = opened.align(catalogue.item_ids, min_coverage=0).rows
    made_of_it = _made_from(opened, catalogue, rows)
    if made_of_it is None:
        return [
            f"{opened.path}: was not made from the catalogue {catalogue.name} as it is now "
            "(another fingerprint); give the one that the manifest names"
        ]
    for layer in manifest.layers:
        feature = catalogue.features.get(layer.name)
        if feature is not None and feature.dimension != layer.source_dimension:
            return [
                f"{opened.path}: {layer.name} was made from {layer.source_dimension} columns, and "
                f"the catalogue has {feature.dimension}; make the set again"
            ]
    widest = max([1, *(layer.source_dimension for layer in manifest.layers)])
    step = max(1, min(BLOCK_ROWS, BLOCK_VALUES // widest))
    for start in range(0, len(rows), step):
        mine = start + np.flatnonzero(made_of_it[start : start + step])
        generic = {
            layer.name: np.full((len(mine), layer.source_dimension), np.nan, np.float32)
            if (feature := catalogue.features.get(layer.name)) is None
            else feature.block(start, min(start + step, len(rows)))[mine - start]
            for layer in manifest.layers
        }
        for modality in manifest.plain:
            given = generic if modality.parts else generic[modality.name]
            made = opened.embed(modality.name, given)
            published = np.asarray(opened.modalities[modality.name][rows[mine]])
            other = other_rows(made, published)
            if other.any():
                item = catalogue.item_ids[mine[other][0]]
                return [
                    f"{opened.path / modality.file}: the student gives another row for item "
                    f"{item!r} of {catalogue.name}; make the set again"
                ]
    return []


def other_rows(made: NDArray[np.float32], stored: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which of the rows (b, d) that a student made are not those that are stored, bool (b,)."""
    off = np.linalg.norm(np.nan_to_num(made - stored), axis=1)
    norms = np.linalg.norm(np.nan_to_num(stored), axis=1)
    other = off > OTHER_ROW * np.maximum(norms, SMALL_ROW)
    return np.asarray(other | (np.isnan(stored[:, 0]) != np.isnan(made[:, 0])))


def _made_from(
    opened: FeatureSet, catalogue: Catalogue, rows: NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    """Which of a catalogue's items have a row that was made from it; None where it is another.

    Of a set that came from another one by its student, the first rows are those of the catalogue
    that stage one had, and the others those of the catalogue that was embedded.
    """
    manifest, derived = opened.manifest, opened.manifest.derived_from
    if manifest.dataset.fingerprints.catalogue == catalogue.fingerprint:
        return rows >= 0
    if derived and derived.catalogue.fingerprints.catalogue == catalogue.fingerprint:
        return rows >= derived.kept
    if derived and derived.trained_on.fingerprints.catalogue == catalogue.fingerprint:
        return (rows >= 0) & (rows < derived.kept)
    return None


def _check_neighbours(opened: FeatureSet) -> list[str]:
    """Whether neighbours are other items, in their order, as similar as their rows."""
    record = opened.manifest.neighbours
    assert record is not None
    where = opened.path / record.file
    table = opened.neighbours()
    rows = CosineRows([opened.modalities[name] for name in record.modalities])
    ids = pa.array(opened.item_ids, pa.string())
    item, neighbour = (
        pc.index_in(table[name], ids).combine_chunks().fill_null(-1).to_numpy()
        for name in ("item_id", "neighbour_id")
    )
    similarity = table["similarity"].to_numpy()
    each = min(record.k, max(len(rows.items) - 1, 0))
    if not np.array_equal(item, np.repeat(rows.items, each)):
        return [f"{where}: not {each} rows of every item that has one; make the set again"]
    if not np.isin(neighbour, rows.items).all() or (neighbour == item).any():
        return [f"{where}: a neighbour is no other item with a row; make the set again"]
    if not each:
        return []
    found, similarity = neighbour.reshape(-1, each), similarity.reshape(-1, each)
    step = max(1, BLOCK_VALUES // (each * rows.width))
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        order = np.lexsort((found[part], -similarity[part]), axis=1)
        cosines = rows.cosines(rows.read(rows.items[part]), found[part])
        if not (order == np.arange(each)).all():
            return [f"{where}: neighbours are not in descending order; make the set again"]
        if not (np.abs(cosines - similarity[part]) <= ROUNDING).all():
            return [f"{where}: a similarity is not that of the rows; make the set again"]
    return []
