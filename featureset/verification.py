"""Whether a feature set is whole, unchanged and in agreement with itself."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sgfd.featureset.compression import BLOCK_ROWS, BLOCK_VALUES, CompressedRows
from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.manifest import MANIFEST, SIGNATURE, TABLE, Modality
from sgfd.featureset.neighbours import CosineRows
from sgfd.featureset.pages import unfolded_bytes
from sgfd.featureset.reading import FeatureSet, load, room_to_unfold

HASHED_BYTES = 2**18  # at a time
CACHED_VALUES = 2**19  # of a block of rows that is looked at several times: 2 MiB
ROUNDING = 1e-6  # of a similarity, on another machine
NOT_UNIT = 1e-3  # distance of a norm from 1 that no rounding explains
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
    with _hashing(opened, 1) as hashed:  # the checks want a core of their own
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
        with ThreadPoolExecutor(1) as pool:  # texts take a quarter of the time of the rows
            texts = pool.submit(_check_texts, opened)
            of_rows = _check_rows(opened)
            problems += texts.result() + of_rows
        if opened.manifest.neighbours is not None:
            problems += _check_neighbours(opened)
        if catalogue is not None:
            problems += _check_student(opened, catalogue)
    except FeatureSetError as error:
        problems.append(str(error))
    return problems


def changed_files(opened: FeatureSet) -> list[str]:
    """Names of the files that are not those that were written, by their sha256."""
    with _hashing(opened, 2) as hashed:
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
def _hashing(opened: FeatureSet, at_once: int) -> Iterator[Callable[[], list[str]]]:
    """Hash the files meanwhile, so many at once; to be called for the names of changed ones.

    Where an error or Ctrl-C ends the work inside, hashing ends soon, too.
    """
    given_up = threading.Event()
    with ThreadPoolExecutor(at_once) as pool:  # hashing lets go of the interpreter
        names = list(opened.manifest.files)
        changed = pool.map(partial(_is_changed, opened, given_up), names)
        try:
            yield lambda: [name for name, other in zip(names, changed, strict=True) if other]
        except BaseException:
            given_up.set()
            raise


def _is_changed(opened: FeatureSet, given_up: threading.Event, name: str) -> bool:
    digest, block = hashlib.sha256(), memoryview(bytearray(HASHED_BYTES))
    with (opened.path / name).open("rb", buffering=0) as file:
        while not given_up.is_set() and (read := file.readinto(block)):
            digest.update(block[:read])
    return digest.hexdigest() != opened.manifest.files[name].sha256


def _check_stray_files(opened: FeatureSet) -> list[str]:
    known = {MANIFEST, SIGNATURE, *opened.manifest.files}
    return [
        f"{entry}: is not in the manifest; remove it"
        for entry in sorted(opened.path.iterdir())
        if entry.name not in known
    ]


def _check_rows(opened: FeatureSet) -> list[str]:
    """Compare the table with the .npy files and both with the manifest, in one pass of blocks."""
    where = opened.path / TABLE
    columns = {"item_index": pa.int64(), "label": pa.string()} | {
        m.name: pa.list_(pa.from_numpy_dtype(m.stored_type), m.stored_columns)
        for m in opened.manifest.modalities
    }
    widest = max([1, *(m.dimension for m in opened.manifest.modalities)])
    step = max(1, min(BLOCK_ROWS, CACHED_VALUES // widest))
    present = dict.fromkeys(opened.modalities, 0)
    row = 0
    try:
        # Not mapped: pages that were read once would stay in memory.
        file = pq.ParquetFile(where, pre_buffer=False)
        schema = file.schema_arrow
        for name, kind in columns.items():
            if name not in schema.names or not _is(schema.field(name).type, kind):
                return [f"{where}: column {name} is missing or not {kind}; make the set again"]
        if unfolded_bytes(where, file.metadata, list(columns)) > room_to_unfold(where):
            return [f"{where}: its pages unfold into absurdly more than the file; get it again"]
        for modality in opened.manifest.modalities:
            most, found = opened.n_items * modality.stored_columns, _count(file, modality.name)
            if found > most:  # a list of whatever length would be read before it is refused
                return [f"{where}: {modality.name} has {found} numbers, not {most}; get it again"]
        numbers = [name for name in columns if name != "label"]  # texts are read by themselves
        # Threads of its own cost it half as much again: the files are hashed meanwhile.
        for batch in file.iter_batches(step, columns=numbers, use_threads=False):
            index = batch.column("item_index").to_numpy(zero_copy_only=False)
            if not np.array_equal(index, np.arange(row, row + len(batch))):
                return [f"{where}: item_index is not 0, 1, 2, ... at row {row}; make the set again"]
            stored = opened.stored_views(row, row + len(batch))
            lacking: dict[str, NDArray[np.bool_]] = {}
            for modality in opened.manifest.modalities:
                name = modality.name
                rows = opened.modalities[name]
                compressed = isinstance(rows, CompressedRows)
                block = rows[row : row + len(batch)] if compressed else stored[name]
                lacking[name], problem = _check_block(modality, block, row)
                if problem:
                    return [f"{opened.path / modality.file}: {problem}; make the set again"]
                present[name] += int((~lacking[name]).sum())
                if not _same(batch.column(name), stored[name], lacking[name]):
                    return [
                        f"{where}: column {name} is not {modality.file} "
                        f"(rows {row} to {row + len(batch) - 1}); make the set again"
                    ]
            for modality in opened.manifest.modalities:
                encoding = modality.encoding
                if encoding and not np.array_equal(lacking[modality.name], lacking[encoding.of]):
                    return [
                        f"{opened.path / modality.file}: other items lack it than what it is of "
                        f"(rows {row} to {row + len(batch) - 1}); make the set again"
                    ]
            row += len(batch)
            opened.release_pages()
    except (pa.ArrowException, OSError, ValueError) as error:
        return [f"{where}: can't be read ({' '.join(str(error).split())}); get the file again"]
    return [
        f"{opened.path / modality.file}: {present[modality.name]} of {row} items have it, and the "
        f"manifest says {modality.coverage:.1%}; make the set again"
        for modality in opened.manifest.modalities
        if row and abs(present[modality.name] / row - modality.coverage) > ROUNDING
    ]


def _check_texts(opened: FeatureSet) -> list[str]:
    """Whether no id is there twice, and the labels are those of which the manifest tells."""
    opened.check_items()
    record, where = opened.manifest.labels, opened.path / TABLE
    counts = opened.label_counts()
    unlabelled = counts.pop(None, 0)
    share = sum(counts.values()) / max(opened.n_items, 1)
    if unknown := set(counts) - set(record.names if record else ()):
        label = min(str(label) for label in unknown)
        return [f"{where}: the manifest knows no label {label[:40]!r}; make the set again"]
    if record and opened.n_items and abs(share - record.coverage) > ROUNDING:
        return [
            f"{where}: {unlabelled} of {opened.n_items} items have no label, and the manifest says "
            f"{1 - record.coverage:.1%}; make the set again"
        ]
    return []


def _count(file: pq.ParquetFile, name: str) -> int:
    """How many numbers a column of lists has, by what the file says of itself."""
    groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
    return sum(
        column.num_values
        for group in groups
        for column in map(group.column, range(group.num_columns))
        if column.path_in_schema.partition(".")[0] == name
    )


def _is(found: pa.DataType, kind: pa.DataType) -> bool:
    """Whether a column has a type; the numbers of a list may be declared to be there or not."""
    if pa.types.is_fixed_size_list(kind) and pa.types.is_fixed_size_list(found):
        return bool(found.list_size == kind.list_size and found.value_type == kind.value_type)
    return bool(found == kind)


def _check_block(
    modality: Modality, block: NDArray[np.float32], first: int
) -> tuple[NDArray[np.bool_], str | None]:
    """Which rows of a block are lacking, and what is wrong with the others, if anything is."""
    squares = np.einsum("ij,ij->i", block, block)
    odd = np.flatnonzero(~np.isfinite(squares))  # NaN, infinite, or too large for float32
    lacking = np.zeros(len(block), dtype=bool)
    lacking[odd] = np.isnan(block[odd]).all(axis=1)
    broken = odd[~lacking[odd] & ~np.isfinite(block[odd]).all(axis=1)]
    if len(broken):
        return lacking, f"row {first + broken[0]} is not finite"
    if modality.normalised:
        # A row of zeros has no direction, and stays one.
        norms = np.sqrt(squares, where=~lacking, out=np.zeros_like(squares))
        off = np.flatnonzero(~lacking & (norms > 0) & ~(np.abs(norms - 1) <= NOT_UNIT))
        if len(off):
            return lacking, (
                f"row {first + off[0]} has norm {norms[off[0]]:.4g}, and the manifest says "
                "unit vectors"
            )
    return lacking, None


def _same(column: pa.Array, stored: NDArray[Any], lacking: NDArray[np.bool_]) -> bool:
    """Whether a column of the table has the stored rows (b, c), and null where they are lacking."""
    if len(stored) != len(column):
        return False
    null = column.is_null().to_numpy(zero_copy_only=False)
    if not np.array_equal(null, lacking):
        return False
    values = column.drop_null().flatten() if lacking.any() else column.flatten()
    there = (stored[~lacking] if lacking.any() else stored).reshape(-1)
    numbers = values.to_numpy(zero_copy_only=False)
    same_bytes = pa.py_buffer(numbers).equals(pa.py_buffer(there))
    return bool(same_bytes) or np.array_equal(numbers, there)  # 0 is -0


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
