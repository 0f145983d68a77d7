"""MMRec's layout: one tab-separated `.inter` file, `<modality>_feat.npy`, and which ids the numbers
stand for, where `i_id_mapping.csv` and `u_id_mapping.csv` say it.

A folder of features without interactions is one too."""

from pathlib import Path

import numpy as np

from sgfd.dataset.catalog import Feature, ItemCatalog, open_npy
from sgfd.dataset.distinct import distinct
from sgfd.dataset.errors import DatasetError
from sgfd.dataset.interactions import Indices, Interactions, Pairs
from sgfd.dataset.layouts.parts import (
    FilePart,
    add_feature,
    check_numbers,
    in_range,
    indices,
    integers,
    is_named,
    lines_of,
    make_catalog,
    make_interactions,
    number_labels,
    read_csv,
    same_rows,
    times,
    vocabulary_of,
    warn_of_lacking_parts,
    warn_of_ratings,
)
from sgfd.dataset.problems import Problems, places
from sgfd.dataset.vocabulary import Vocabulary

LABELS = "labels.npy"
ITEM_IDS, USER_IDS = "i_id_mapping.csv", "u_id_mapping.csv"
PARTS = ("train", "valid", "test")  # x_label 0, 1, 2


def is_mmrec(folder: Path) -> bool:
    return any(folder.glob("*.inter")) or any(folder.glob("*_feat.npy"))


def read_mmrec(folder: Path, problems: Problems) -> tuple[ItemCatalog | None, Interactions | None]:
    """Read userID, itemID, x_label (0 train, 1 valid, 2 test) and, where it is there, timestamp;
    features and `labels.npy`.

    Raises:
        DatasetError: with a strict `problems`, at the first error.
    """
    tables = sorted(folder.glob("*.inter"))
    if len(tables) > 1:
        problems.error(folder, f"has {len(tables)} .inter files", "leave one of them")
    features: dict[str, Feature] = {}
    for file in sorted(folder.glob("*_feat.npy")):
        name = file.name.removesuffix("_feat.npy").lower()
        feature = problems.attempt(Feature.from_npy, name, file)
        if feature is not None:
            add_feature(features, feature, problems)
    parts = problems.attempt(_read_parts, tables[0], problems) or {} if tables else {}
    if features:
        first = next(iter(features.values()))
        n_items, counted = first.shape[0], Path(first.source).name
    else:
        highest = max((int(p.pairs.item.max(initial=-1)) for p in parts.values()), default=-1)
        n_items, counted = highest + 1, "the largest itemID"
    features = same_rows(features, n_items, counted, problems)
    parts = {name: in_range(part, n_items, problems) for name, part in parts.items()}
    n_users = max((int(p.pairs.user.max(initial=-1)) + 1 for p in parts.values()), default=0)
    nobody = np.empty(0, dtype=np.int64)
    with_pairs = distinct(np.concatenate([nobody, *(part.pairs.user for part in parts.values())]))
    every, rows_of = np.arange(n_items), counted if features else None
    items = problems.attempt(
        _read_ids, folder / ITEM_IDS, "itemID", n_items, every, problems, rows_of
    )
    users = problems.attempt(_read_ids, folder / USER_IDS, "userID", n_users, with_pairs, problems)
    if items is None or users is None:
        return None, None
    labels = None
    if (folder / LABELS).exists():
        labels = problems.attempt(_read_labels, folder / LABELS, n_items)
    catalog = None
    if features or labels is not None:
        catalog = make_catalog(folder, items, features, labels, None)
    return catalog, make_interactions(parts, users, items, problems) if parts else None


def _read_parts(path: Path, problems: Problems) -> dict[str, FilePart]:
    frame = read_csv(path, ("userID", "itemID", "x_label"), problems, separator="\t")
    warn_of_ratings(path, frame.columns, problems)
    user, item = indices(frame, "userID", path), indices(frame, "itemID", path)
    kind = integers(frame, "x_label", path)
    if (wrong := (kind < 0) | (kind > 2)).any():
        raise DatasetError(
            path,
            f"{lines_of(frame, wrong)}: x_label {kind[wrong][0]}",
            "give 0 (train), 1 (valid) or 2 (test)",
        )
    pairs = Pairs(user, item, times({path: frame}).get(path))
    whole = FilePart(path, pairs, frame.index.to_numpy(), "line")
    parts = {name: whole.take(kind == i) for i, name in enumerate(PARTS) if (kind == i).any()}
    warn_of_lacking_parts(path, parts, problems)
    return parts


def _read_ids(
    path: Path,
    number: str,
    size: int,
    expected: Indices,
    problems: Problems,
    counted: str | None = None,
) -> Vocabulary:
    """Ids by number, where the file is there; a number that has none is its own id, of which a
    warning tells where it is `expected` to have one.

    Args:
        counted: the file whose rows the numbers are of, where there is one.
    """
    if not path.exists():
        return Vocabulary([str(i) for i in range(size)])
    frame = read_csv(path, (number,), problems, separator="\t")
    named = [column for column in frame.columns if column != number and is_named(column)]
    if not named:
        raise DatasetError(path, f"has no column but {number}", "add that of the ids")
    if counted is not None:
        check_numbers(frame, number, path, size, counted, problems)
    of_id = integers(frame, number, path)[frame[named[0]].to_numpy() != ""]
    if len(nameless := np.setdiff1d(expected, of_id)):
        problems.warning(
            path,
            f"{len(nameless)} of {len(expected)} have no {named[0]}: {places(nameless, 0, number)}",
            "add their lines (their number is their id)",
        )
    return vocabulary_of({path: frame}, number, named[0], size)


def _read_labels(path: Path, n_items: int) -> tuple[np.ndarray, tuple[str, ...]]:
    values = np.asarray(open_npy(path))
    if values.shape != (n_items,) or values.dtype.kind not in "iu":
        raise DatasetError(
            path,
            f"is {values.dtype} {values.shape} for {n_items} items",
            "give one whole number an item, -1 where unlabelled",
        )
    return number_labels(values.astype(np.int64), values < 0)
