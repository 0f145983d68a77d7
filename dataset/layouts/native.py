"""The project's own layout: `items.parquet`, `interactions.parquet`, `<modality>.npy`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sgfd.dataset.catalog import Feature, ItemCatalog, temporary_rows
from sgfd.dataset.errors import DatasetError
from sgfd.dataset.interactions import Interactions, Pairs
from sgfd.dataset.layouts.parts import (
    FilePart,
    add_feature,
    earliest_of_each,
    in_order,
    make_catalog,
    make_interactions,
    number_labels,
    same_rows,
    unique_names,
    warn_of_lacking_parts,
    warn_of_ratings,
    warn_of_unread,
)
from sgfd.dataset.problems import Problems, places
from sgfd.dataset.splits import hold_out_last
from sgfd.dataset.vocabulary import Vocabulary

ITEMS, INTERACTIONS = "items.parquet", "interactions.parquet"
PARTS = ("train", "valid", "test")
_LABELS = ("category", "label")
_LISTS = (
    pa.types.is_fixed_size_list,
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
_TABLES = {"items": ITEMS, **dict.fromkeys(("interactions", *PARTS), INTERACTIONS)}


def is_native(folder: Path) -> bool:
    return (folder / ITEMS).is_file() or (folder / INTERACTIONS).is_file()


def read_native(folder: Path, problems: Problems) -> tuple[ItemCatalog | None, Interactions | None]:
    """Read the items with their features and labels, and the interactions with their parts.

    Raises:
        DatasetError: with a strict `problems`, at the first error.
    """
    warn_of_unread(folder, _TABLES, problems)
    catalog, items = None, None
    if (folder / ITEMS).exists():
        catalog = problems.attempt(_read_items, folder, problems)
        if catalog is None:
            return None, None
        items = catalog.items
    else:
        for file in sorted(folder.glob("*.npy")):
            problems.warning(
                file,
                f"is not read without {ITEMS}",
                "add that, with a column item_id that names the items of its rows",
            )
    interactions = None
    if (folder / INTERACTIONS).exists():
        interactions = problems.attempt(_read_interactions, folder / INTERACTIONS, items, problems)
    return catalog, interactions


def _read_items(folder: Path, problems: Problems) -> ItemCatalog:
    path = folder / ITEMS
    schema = _open(path).schema_arrow
    if "item_id" not in schema.names:
        raise DatasetError(path, "has no column item_id", "add it, one string an item")
    items = unique_names(_ids(path, "item_id"), path)
    titles = None
    if "title" in schema.names:
        titles = problems.attempt(_texts, path, "title", schema.field("title").type)
    labels = None
    if column := next((name for name in _LABELS if name in schema.names), None):
        labels = problems.attempt(_labels, path, column, schema.field(column).type)
    features: dict[str, Feature] = {}
    for field in schema:
        if any(is_one(field.type) for is_one in _LISTS):
            name = field.name
            if not _may_be_vectors(field.type):
                problems.warning(path, f"column {name} is not read: {field.type}", "leave it out")
                continue
            feature = problems.attempt(_column_feature, path, name, field.type, len(items))
            if feature is not None:
                add_feature(features, feature, problems)
    for file in sorted([*folder.glob("*.npz"), *folder.glob("*.pt")]):
        problems.warning(file, "is not read", f"save the array as {file.stem}.npy")
    for file in sorted(folder.glob("*.npy")):
        feature = problems.attempt(Feature.from_npy, file.stem.lower(), file)
        if feature is not None:
            add_feature(features, feature, problems)
    features = same_rows(features, len(items), ITEMS, problems)
    return make_catalog(folder, items, features, labels, titles)


def _read_interactions(path: Path, items: Vocabulary | None, problems: Problems) -> Interactions:
    schema = _open(path).schema_arrow
    for name in ("user_id", "item_id"):
        if name not in schema.names:
            raise DatasetError(
                path, f"has no column {name} (it has {', '.join(schema.names)})", "add it"
            )
    warn_of_ratings(path, schema.names, problems)
    user_ids, item_ids = _ids(path, "user_id"), _ids(path, "item_id")
    if not user_ids:
        problems.warning(path, "has no rows", "add some, or remove the file")
    user, names = pd.factorize(np.array(user_ids, dtype=object))
    users = Vocabulary(np.asarray(names, dtype=object))
    if items is None:
        items = Vocabulary(pd.unique(np.array(item_ids, dtype=object)))
    item = items.index(np.array(item_ids, dtype=object))
    timestamp = None
    if "timestamp" in schema.names:
        timestamp = _times(path, schema.field("timestamp").type)
    whole = FilePart(
        path, Pairs(user.astype(np.int64), item, timestamp), np.arange(len(item)), "row"
    )
    if (unknown := item < 0).any():
        problems.error(
            path,
            f"{whole.named(unknown)}: item {item_ids[int(np.flatnonzero(unknown)[0])]!r} is out of "
            f"range: it is not in {ITEMS}",
            "add the item or remove the row",
        )
    if "split" in schema.names:
        split = _splits(path, schema.field("split").type)
        parts = {
            name: whole.take((split == name) & ~unknown) for name in PARTS if (split == name).any()
        }
        warn_of_lacking_parts(path, parts, problems)
    else:
        parts = _made_split(whole.take(~unknown), len(users), len(items), problems)
    return make_interactions(parts, users, items, problems)


def _made_split(
    whole: FilePart, n_users: int, n_items: int, problems: Problems
) -> dict[str, FilePart]:
    when = "at random (seed 0)" if whole.pairs.timestamp is None else "by time"
    problems.warning(
        whole.file,
        "has no column split",
        f"add it (train, valid, test); the last 20 % of each user, {when}, are taken as test where "
        "no other split is asked for",
    )
    again = ~earliest_of_each(whole.pairs, n_items)
    if again.any():  # a repetition held out would be a pair of train, and be left out
        problems.warning(
            whole.file,
            f"{whole.named(again)}: {again.sum()} pairs stand there before",
            "remove the repetitions (the earliest counts)",
        )
        whole = whole.take(~again)
    pairs = whole.pairs
    numbered = Pairs(pairs.user, np.arange(len(pairs)), pairs.timestamp)
    _, test = hold_out_last(numbered, n_users)
    held_out = np.zeros(len(pairs), dtype=bool)
    held_out[test.item] = True
    return {"train": whole.take(~held_out), "test": whole.take(held_out)}


def _open(path: Path) -> pq.ParquetFile:
    try:
        if path.stat().st_size == 0:
            raise DatasetError(path, "is empty", "export it again")
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            path, f"is truncated or no Parquet ({reason})", "export it again"
        ) from None
    names = file.schema_arrow.names
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DatasetError(path, f"has two columns {twice}", "leave one of the two, or rename it")
    return file


def _column(path: Path, name: str) -> pa.ChunkedArray:
    try:
        return pq.read_table(path, columns=[name], partitioning=None)[name]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(
            path, f"column {name} can't be read ({reason})", "export it again"
        ) from None


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    """Whether a column holds strings, or nothing at all, as pandas writes a column of None."""
    kind = _plain(kind)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
    )


def _may_be_vectors(kind: pa.DataType) -> bool:
    """Whether a list holds features, stored as they should be or not; and not tags or codes."""
    whole = pa.types.is_integer(kind.value_type) and pa.types.is_fixed_size_list(kind)
    return bool(whole or pa.types.is_floating(kind.value_type))


def _wrong_type(path: Path, name: str, kind: pa.DataType, wanted: str) -> DatasetError:
    return DatasetError(path, f"column {name} is {kind}, not {wanted}", f"store it as {wanted}")


def _ids(path: Path, name: str) -> list[str]:
    """A column of ids; whole numbers become strings."""
    column = _column(path, name)
    if not _is_text(column.type) and not pa.types.is_integer(_plain(column.type)):
        raise _wrong_type(path, name, column.type, "string")
    if column.null_count:
        mask = column.is_null().to_numpy(zero_copy_only=False)
        raise DatasetError(path, f"{places(mask, 0)}: {name} is null", "give every row an id")
    texts = column.cast(pa.string())
    empty = pc.equal(pc.binary_length(texts), 0).to_numpy()
    if empty.any():
        raise DatasetError(path, f"{places(empty, 0)}: {name} is empty", "give every row an id")
    return _python(path, name, texts)


def _texts(path: Path, name: str, kind: pa.DataType) -> NDArray[np.object_]:
    if not _is_text(kind):
        raise _wrong_type(path, name, kind, "string")
    return np.array(_python(path, name, _column(path, name).cast(pa.string())), dtype=object)


def _python(path: Path, name: str, column: pa.ChunkedArray) -> list[Any]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        raise DatasetError(path, f"column {name} is not UTF-8", "store it as UTF-8") from None


def _labels(path: Path, name: str, kind: pa.DataType) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    if pa.types.is_integer(_plain(kind)):
        column = _column(path, name).cast(_plain(kind))
        numbers = column.fill_null(0).to_numpy()
        lacking = column.is_null().to_numpy() | (numbers == -1)
        return number_labels(numbers, lacking)
    values = _texts(path, name, kind)
    lacking = np.array([value in (None, "") for value in values], dtype=bool)  # of no items too
    return number_labels(values, lacking)


def _times(path: Path, kind: pa.DataType) -> NDArray[np.int64]:
    """Timestamps as whole numbers, in the unit of the column; only their order counts."""
    column = _column(path, "timestamp")
    if column.null_count:
        mask = column.is_null().to_numpy(zero_copy_only=False)
        raise DatasetError(path, f"{places(mask, 0)}: timestamp is null", "give every row a time")
    try:
        if pa.types.is_floating(kind):
            return _whole(np.asarray(column.to_numpy(), dtype=np.float64), path)
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("s"))
        if pa.types.is_timestamp(column.type) or pa.types.is_integer(column.type):
            return np.asarray(column.cast(pa.int64()).to_numpy())
    except pa.ArrowException:
        pass
    raise _wrong_type(path, "timestamp", kind, "timestamp")


def _whole(values: NDArray[np.float64], path: Path) -> NDArray[np.int64]:
    """Floating timestamps as whole numbers in their order."""
    if not (finite := np.isfinite(values)).all():
        raise DatasetError(
            path, f"{places(~finite, 0)}: timestamp is not finite", "give every row a time"
        )
    return in_order(values)


def _splits(path: Path, kind: pa.DataType) -> NDArray[np.object_]:
    split = _texts(path, "split", kind)
    if (wrong := ~np.isin(split.astype(str), PARTS)).any():
        first = split[int(np.flatnonzero(wrong)[0])]
        raise DatasetError(
            path, f"{places(wrong, 0)}: split is {first!r}", "give train, valid or test"
        )
    return split


def _column_feature(path: Path, name: str, kind: pa.DataType, n_items: int) -> Feature:
    """A column of vectors, spooled into a file that can be mapped when it is first needed."""
    if not pa.types.is_fixed_size_list(kind):
        wanted = "a fixed-size list of float32"
        raise DatasetError(
            path,
            f"column {name} is {kind}, not {wanted}",
            f"store it as {wanted}, save it as {name}.npy, or leave it out",
        )
    shape = (n_items, kind.list_size)

    def blocks() -> Iterator[NDArray[np.float32]]:
        try:
            # Not a whole row group at a time, which may be all rows.
            file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
            for batch in file.iter_batches(columns=[name], batch_size=1024):
                yield _vectors(batch.column(0), kind.list_size)
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise DatasetError(
                path, f"column {name} can't be read ({reason})", "export it again"
            ) from None

    return Feature(
        name.lower(),
        f"{path} column {name}",
        shape,
        np.dtype(np.float32),
        lambda: temporary_rows(blocks(), shape),
    )


def _vectors(column: pa.Array, d: int) -> NDArray[np.float32]:
    """Fixed-size lists as rows, NaN where null (a null number is NaN too)."""
    rows = np.full((len(column), d), np.nan, dtype=np.float32)
    lacking = column.is_null().to_numpy(zero_copy_only=False)
    flat = column.drop_null().flatten().cast(pa.float32())
    rows[~lacking] = flat.to_numpy(zero_copy_only=False).reshape(-1, d)
    return rows
