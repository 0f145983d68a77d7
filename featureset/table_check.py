"""Whether the table of a feature set says what its .npy files and its manifest say."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sgfd.featureset.compression import BLOCK_ROWS, CompressedRows, release_pages
from sgfd.featureset.manifest import TABLE, Modality
from sgfd.featureset.plain_lists import PlainLists
from sgfd.featureset.reading import FeatureSet
from sgfd.featureset.table import Table, read_texts

CACHED_VALUES = 2**19  # of a block of rows that is looked at several times: 2 MiB
READ_BYTES = 2**16  # at once, of a column of which one row is read
ROUNDING = 1e-6  # of a share
NOT_UNIT = 1e-3  # distance of a norm from 1 that no rounding explains


def check_table(opened: FeatureSet) -> list[str]:
    """Compare the table with the .npy files and both with the manifest.

    Raises:
        FeatureSetError: its texts can't be read.
    """
    with Table(opened.path / TABLE) as table:
        return check_texts(opened, table) + check_rows(opened, table)


def check_texts(opened: FeatureSet, table: Table) -> list[str]:
    """Whether no id is there twice, and the labels are those of which the manifest tells.

    Raises:
        FeatureSetError: an id is, or they can't be read.
    """
    record, where = opened.manifest.labels, table.path
    labels = read_texts(table, ["item_id", "label"], opened.n_items)["label"]
    share = (len(labels) - labels.null_count) / max(len(labels), 1)
    unknown = set(labels.unique().to_pylist()) - {None, *(record.names if record else ())}
    if unknown:
        return [f"{where}: the manifest knows no label {min(unknown)[:40]!r}; make the set again"]
    if record and len(labels) and abs(share - record.coverage) > ROUNDING:
        return [
            f"{where}: {labels.null_count} of {len(labels)} items have no label, and the manifest "
            f"says {1 - record.coverage:.1%}; make the set again"
        ]
    return []


def check_rows(opened: FeatureSet, table: Table) -> list[str]:
    """Whether the table's other columns are the .npy files, and these what the manifest says."""
    where, file = table.path, table.file
    widest = max([1, *(m.dimension for m in opened.manifest.modalities)])
    step = max(1, min(BLOCK_ROWS, CACHED_VALUES // widest))
    present = dict.fromkeys(opened.modalities, 0)
    row = 0
    try:
        if problem := _shape_problem(opened, table):
            return [f"{where}: {problem}"]
        alike = _lie_there(opened, table)
        read = [name for name in ("item_index", *opened.modalities) if name not in alike]
        if table.unfold_absurdly(read):
            return [f"{where}: its pages unfold into absurdly more than the file; get it again"]
        _read_a_page_each(table, sorted(alike))
        # All at once: where a part has more rows than it says, to read it alone would hide them.
        # Threads of its own cost it half as much again: the files are hashed meanwhile.
        for batch in file.iter_batches(step, columns=read, use_threads=False):
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
                if (
                    lacking[name].any()
                    if name in alike
                    else not _same(batch.column(name), stored[name], lacking[name])
                ):
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
        if row != opened.n_items:
            return [f"{where}: {row} rows for {opened.n_items} items; make the set again"]
    except (pa.ArrowException, OSError, ValueError) as error:
        return [f"{where}: can't be read ({' '.join(str(error).split())}); get the file again"]
    return [
        f"{opened.path / modality.file}: {present[modality.name]} of {row} items have it, and the "
        f"manifest says {modality.coverage:.1%}; make the set again"
        for modality in opened.manifest.modalities
        if row and abs(present[modality.name] / row - modality.coverage) > ROUNDING
    ]


def _shape_problem(opened: FeatureSet, table: Table) -> str | None:
    """What is wrong with the table before its rows are read, if anything is."""
    schema, end = table.file.schema_arrow, table.end
    columns = {"item_id": pa.string(), "item_index": pa.int64(), "label": pa.string()} | {
        m.name: pa.list_(pa.from_numpy_dtype(m.stored_type), m.stored_columns)
        for m in opened.manifest.modalities
    }
    for name, kind in columns.items():
        # To DuckDB a name is the same in capitals; a dot would be a column in a column.
        alike = [other for other in schema.names if other.partition(".")[0].lower() == name]
        if alike != [name] or not _is(schema.field(name).type, kind):
            return f"column {name} is missing, there twice or not {kind}; make the set again"
    if table.file.metadata.num_rows != opened.n_items:
        found = table.file.metadata.num_rows
        return f"{found} rows for {opened.n_items} items; make the set again"
    for modality in opened.manifest.modalities:
        (place,) = end.places([modality.name])
        for group in end.groups:
            # A list of whatever length would be read before it is refused.
            most, found = group.rows * modality.stored_columns, group.columns[place].values
            if not 0 <= found <= most:
                return f"{modality.name} has {found} numbers, not {most}; get it again"
    return None


def _lie_there(opened: FeatureSet, table: Table) -> set[str]:
    """The modalities whose rows lie in the file as they are stored, none null: none of their
    numbers need be read."""
    content = np.memmap(table.path, np.uint8, mode="r")
    plain, alike, row = PlainLists(content), set(opened.modalities), 0
    described, fields = table.end.schema, table.file.schema_arrow
    places = {name: table.end.places([name])[0] for name in alike}
    for group in table.end.groups:
        stored = opened.stored_views(row, row + group.rows)
        for name, place in places.items():
            if name in alike and not plain.hold(
                described.column(place), group.columns[place], fields.field(name), stored[name]
            ):
                alike.remove(name)
        release_pages(content)
        opened.release_pages()
        row += group.rows
    return alike


def _read_a_page_each(table: Table, names: list[str]) -> None:
    """Whether pyarrow reads what is not read in full: a page of each part of it."""
    file = pq.ParquetFile(
        table.path, metadata=table.file.metadata, pre_buffer=False, buffer_size=READ_BYTES
    )
    with file:
        for number in range(len(table.end.groups)):
            next(file.iter_batches(1, row_groups=[number], columns=names, use_threads=False), 0)


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
