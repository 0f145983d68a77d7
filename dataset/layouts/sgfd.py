"""The layout that SGFD's authors published: CSV files with integer ids, one .npy a modality."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sgfd.dataset.catalog import Feature, ItemCatalog, open_npy
from sgfd.dataset.errors import DatasetError
from sgfd.dataset.interactions import Indices, Interactions, Pairs
from sgfd.dataset.layouts.parts import (
    FilePart,
    add_feature,
    check_numbers,
    in_range,
    indices,
    integers,
    lines_of,
    make_catalog,
    make_interactions,
    number_labels,
    read_csv,
    same_rows,
    times,
    vocabulary_of,
    warn_of_ratings,
    warn_of_unread,
)
from sgfd.dataset.problems import Problems, places

LABELS = "MetaData_normal.npy"
MOST_LABEL = 2**53  # beyond it a float is no certain number
_TABLES = {name: f"{name}.csv" for name in ("train", "valid", "test", "items")}
_FEATURE = re.compile(r"Feature([A-Za-z0-9]+)(?:_(.+))?_normal\.npy")


def is_sgfd(folder: Path) -> bool:
    return (folder / "train.csv").is_file() or any(folder.glob("Feature*_normal.npy"))


def read_sgfd(folder: Path, problems: Problems) -> tuple[ItemCatalog | None, Interactions | None]:
    """Read `train.csv`, `test.csv` (itemID, userID and, where they are there, asin, reviewerID and
    timestamp), `Feature<Modality>_normal.npy` and what else is there.

    Raises:
        DatasetError: with a strict `problems`, at the first error.
    """
    warn_of_unread(folder, _TABLES | {"interactions": "train.csv"}, problems)
    features = _read_features(folder, problems)
    described = _attempt_csv(folder / "items.csv", ("itemID",), problems)
    frames = {
        name: frame
        for name in ("train", "valid", "test")
        if (frame := _attempt_csv(folder / f"{name}.csv", ("itemID", "userID"), problems))
        is not None
    }
    for name, frame in frames.items():
        warn_of_ratings(folder / f"{name}.csv", frame.columns, problems)
    if "train" in frames and not {"valid", "test"} & set(frames):
        problems.warning(
            folder / "train.csv",
            "has no test.csv beside it: nothing judges a recommender",
            "add that, or have a test part made: --split random",
        )
    timed = {name for name, frame in frames.items() if "timestamp" in frame.columns}
    if timed and timed != set(frames):
        lacking = next(name for name in frames if name not in timed)
        problems.warning(
            folder / f"{lacking}.csv",
            f"has no column timestamp, and {min(timed)}.csv has one: times are not read",
            "add it to every part",
        )
    found = problems.attempt(times, {folder / f"{n}.csv": f for n, f in frames.items()}) or {}
    read = (problems.attempt(_part, folder / f"{n}.csv", f, found) for n, f in frames.items())
    parts = {name: part for name, part in zip(frames, read, strict=True) if part is not None}
    n_items, counted = _count_items(folder, features, described, parts)
    features = same_rows(features, n_items, counted, problems)
    if described is not None:
        problems.attempt(
            check_numbers, described, "itemID", folder / "items.csv", n_items, counted, problems
        )
    parts = {name: in_range(part, n_items, problems) for name, part in parts.items()}
    labels = problems.attempt(_read_labels, folder, n_items, counted, problems)
    tables = {folder / "items.csv": described} if described is not None else {}
    tables |= {folder / f"{name}.csv": frame for name, frame in frames.items()}
    items = problems.attempt(vocabulary_of, tables, "itemID", "asin", n_items)
    n_users = max((int(part.pairs.user.max(initial=-1)) + 1 for part in parts.values()), default=0)
    users = problems.attempt(vocabulary_of, tables, "userID", "reviewerID", n_users)
    if items is None or users is None:
        return None, None
    catalog = None
    if features or described is not None or labels is not None:
        titles = _titles(described, folder / "items.csv", n_items)
        catalog = make_catalog(folder, items, features, labels, titles)
    interactions = make_interactions(parts, users, items, problems) if parts else None
    return catalog, interactions


def _read_features(folder: Path, problems: Problems) -> dict[str, Feature]:
    """Modalities by name: FeatureImage_normal.npy is `image`, FeatureText_bert_normal.npy `text`.

    A suffix stays in the name only where two files are of one modality, signs in it as `_`.
    """
    found = []
    for path in sorted(folder.glob("Feature*_normal.npy")):
        if match := _FEATURE.fullmatch(path.name):
            found.append((match, path))
        else:
            problems.warning(path, "is not read", "call it FeatureText_normal.npy, or alike")
    kinds = [match[1].lower() for match, _ in found]
    features: dict[str, Feature] = {}
    for (match, path), kind in zip(found, kinds, strict=True):
        suffix = re.sub(r"\W", "_", (match[2] or "").lower())
        name = f"{kind}_{suffix}" if suffix and kinds.count(kind) > 1 else kind
        feature = problems.attempt(Feature.from_npy, name, path)
        if feature is not None:
            add_feature(features, feature, problems)
    return features


def _attempt_csv(path: Path, needed: tuple[str, ...], problems: Problems) -> pd.DataFrame | None:
    if not path.exists():
        return None
    return problems.attempt(read_csv, path, needed, problems)


def _part(path: Path, frame: pd.DataFrame, when: dict[Path, Indices]) -> FilePart:
    user, item = indices(frame, "userID", path), indices(frame, "itemID", path)
    return FilePart(path, Pairs(user, item, when.get(path)), frame.index.to_numpy(), "line")


def _count_items(
    folder: Path,
    features: dict[str, Feature],
    described: pd.DataFrame | None,
    parts: dict[str, FilePart],
) -> tuple[int, str]:
    """How many items there are, and which file says so: most of the features, else a table."""
    if features:
        sizes = [feature.shape[0] for feature in features.values()]
        n_items = max(sizes, key=sizes.count)
        source = next(f.source for f in features.values() if f.shape[0] == n_items)
        return n_items, Path(source).name
    if described is not None and len(described):
        return int(indices(described, "itemID", folder / "items.csv").max()) + 1, "items.csv"
    highest = max((int(part.pairs.item.max(initial=-1)) for part in parts.values()), default=-1)
    return highest + 1, "the largest itemID"


def _read_labels(
    folder: Path, n_items: int, counted: str, problems: Problems
) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
    path = folder / LABELS
    if not path.exists():
        return None
    values = np.asarray(open_npy(path))
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (n_items,):
        raise DatasetError(
            path,
            f"has shape {values.shape} for {n_items} items ({counted})",
            "give one label an item, in the order of the items",
        )
    lacking = ~np.isfinite(values) | (values < 0)
    numbers = np.where(lacking, -1, values)
    if (wrong := numbers > MOST_LABEL).any():
        raise DatasetError(
            path, f"{places(wrong, 0)}: no number of a label", "number the labels from 0 on"
        )
    if (wrong := numbers != np.floor(numbers)).any():
        raise DatasetError(path, f"{places(wrong, 0)}: no whole number", "give integer labels")
    return number_labels(numbers.astype(np.int64), lacking, _label_names(folder, problems))


def _label_names(folder: Path, problems: Problems) -> dict[int, str]:
    path = folder / "labels.csv"
    if not path.exists():
        return {}
    frame = read_csv(path, ("label", "name"), problems)
    number, empty = pd.Series(integers(frame, "label", path)), frame["name"].to_numpy() == ""
    for wrong, what in (
        (number.duplicated().to_numpy(), "the label has a name already"),
        (empty, "the name is empty (the label is called by its number)"),
        (frame["name"].duplicated().to_numpy() & ~empty, "another label has the name"),
    ):
        if wrong.any():
            remedy = "give every label one name of its own"
            problems.warning(path, f"{lines_of(frame, wrong)}: {what}", remedy)
    return dict(zip(number[~empty].tolist(), frame["name"][~empty], strict=True))


def _titles(described: pd.DataFrame | None, path: Path, n_items: int) -> NDArray[np.object_] | None:
    if described is None or "title" not in described.columns:
        return None
    titles = np.full(n_items, None, dtype=object)
    number = integers(described, "itemID", path)
    inside = (number >= 0) & (number < n_items) & (described["title"] != "").to_numpy()
    titles[number[inside]] = described["title"].to_numpy(dtype=object)[inside]
    return titles
