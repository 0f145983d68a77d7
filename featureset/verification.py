"""Whether a feature set is whole, unchanged and in agreement with itself."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sgfd.featureset.compression import BLOCK_VALUES, CompressedRows
from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.manifest import MANIFEST, SIGNATURE, TABLE, Modality
from sgfd.featureset.neighbours import CosineRows
from sgfd.featureset.reading import FeatureSet, load

ROUNDING = 1e-6  # of a similarity, on another machine


def verify(path: str | Path) -> list[str]:
    """All that is wrong with a feature set; an empty list means that it is good.

    Checks the sha256 of every file, stray files, the Parquet columns against the .npy files
    (numbers, and nulls against NaN rows), the item index, the student's shapes, that compressed
    modalities lack what those lack that they are of, and the neighbours against the rows.
    """
    try:
        opened = load(path)
    except FeatureSetError as error:
        return [str(error)]
    problems = [
        f"{opened.path / name}: sha256 is not the manifest's; get the file again"
        for name in changed_files(opened)
    ]
    if problems:
        return problems  # what the files say is not what was made: no use in comparing them
    problems += _check_stray_files(opened)
    try:
        if opened.manifest.student is not None:
            opened.student()
        if len(opened.item_ids) != opened.n_items:
            problems.append(f"{opened.path / TABLE}: not one row an item")
        problems += _check_table(opened)
        if opened.manifest.neighbours is not None:
            problems += _check_neighbours(opened)
    except FeatureSetError as error:
        problems.append(str(error))
    return problems


def changed_files(opened: FeatureSet) -> list[str]:
    """Names of the files that are not those that were written, by their sha256."""
    changed = []
    for name, record in opened.manifest.files.items():
        with (opened.path / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != record.sha256:
            changed.append(name)
    return changed


def _check_stray_files(opened: FeatureSet) -> list[str]:
    known = {MANIFEST, SIGNATURE, *opened.manifest.files}
    return [
        f"{entry}: is not in the manifest; remove it"
        for entry in sorted(opened.path.iterdir())
        if entry.name not in known
    ]


def _check_table(opened: FeatureSet) -> list[str]:
    """Compare the table with the .npy files batch by batch."""
    where = opened.path / TABLE
    columns = {"item_index": pa.int64(), "label": pa.string()} | {
        m.name: pa.list_(pa.from_numpy_dtype(m.stored_type), m.stored_columns)
        for m in opened.manifest.modalities
    }
    try:
        file = pq.ParquetFile(where)
        schema = file.schema_arrow
        for name, kind in columns.items():
            if name not in schema.names or schema.field(name).type != kind:
                return [f"{where}: column {name} is missing or not {kind}; make the set again"]
        row = 0
        for batch in file.iter_batches(columns=list(columns)):
            index = batch.column("item_index").to_numpy(zero_copy_only=False)
            if not np.array_equal(index, np.arange(row, row + len(batch))):
                return [f"{where}: item_index is not 0, 1, 2, ... at row {row}; make the set again"]
            for modality in opened.manifest.modalities:
                if not _agrees(opened, modality, batch.column(modality.name), row):
                    return [
                        f"{where}: column {modality.name} is not {modality.file} "
                        f"(rows {row} to {row + len(batch) - 1}); make the set again"
                    ]
                if not _lacks_as_its_source(opened, modality, slice(row, row + len(batch))):
                    return [
                        f"{opened.path / modality.file}: other items lack it than what it is of "
                        f"(rows {row} to {row + len(batch) - 1}); make the set again"
                    ]
            row += len(batch)
    except (pa.ArrowException, OSError) as error:
        return [f"{where}: can't be read ({' '.join(str(error).split())}); get the file again"]
    return []


def _agrees(opened: FeatureSet, modality: Modality, column: pa.Array, row: int) -> bool:
    part = slice(row, row + len(column))
    rows = opened.modalities[modality.name]
    stored = rows.stored[part] if isinstance(rows, CompressedRows) else rows[part]
    if len(stored) != len(column):
        return False
    nan = np.isnan(rows[part])
    lacking = nan.all(axis=1)
    if not np.array_equal(lacking, nan.any(axis=1)):
        return False
    null = column.is_null().to_numpy(zero_copy_only=False)
    values = column.drop_null().flatten().to_numpy(zero_copy_only=False)
    return np.array_equal(null, lacking) and np.array_equal(values, stored[~null].reshape(-1))


def _lacks_as_its_source(opened: FeatureSet, modality: Modality, part: slice) -> bool:
    """Whether a compressed modality lacks rows where the one that it is of does."""
    if modality.encoding is None:
        return True
    own, source = (
        np.isnan(opened.modalities[name][part][:, 0])
        for name in (modality.name, modality.encoding.of)
    )
    return np.array_equal(own, source)


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
