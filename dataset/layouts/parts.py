"""What all layouts do alike: read tables, part the interactions, number the labels."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sgfd.dataset.catalog import Feature, ItemCatalog
from sgfd.dataset.distinct import are_among, distinct
from sgfd.dataset.errors import DatasetError
from sgfd.dataset.interactions import Indices, Interactions, Pairs
from sgfd.dataset.problems import Problems, places
from sgfd.dataset.splits import join
from sgfd.dataset.vocabulary import Vocabulary

_MOST_UNUSED = 1_000_000  # numbers of users or items that nobody bears, in a small table


@dataclass(frozen=True)
class FilePart:
    """A part of the interactions as it stands in a file.

    Attributes:
        place: int64 (n,), where each interaction stands, as a person counts it.
        word: what `place` counts, `line` or `row`.
    """

    file: Path
    pairs: Pairs
    place: Indices
    word: str

    def named(self, mask: NDArray[np.bool_]) -> str:
        return places(self.place[mask], 0, self.word)

    def take(self, mask: NDArray[np.bool_]) -> "FilePart":
        return FilePart(self.file, self.pairs.take(mask), self.place[mask], self.word)


def read_csv(
    path: Path, needed: tuple[str, ...], problems: Problems, separator: str = ","
) -> pd.DataFrame:
    """A CSV file as strings; the index is the line on which each row begins.

    Raises:
        DatasetError: it is empty, no UTF-8, no table, or lacks a needed column.
    """
    try:
        content = path.read_bytes()
        header = content.decode("utf-8").partition("\n")[0]  # all of it: errors tell the place
        if other := separator not in header and next((s for s in ";\t,|" if s in header), None):
            raise DatasetError(
                path,
                f"line 1 has {other!r} between its columns, not {separator!r}",
                f"write {separator!r} between them",
            )
        names = next(
            csv.reader([header.removeprefix("\ufeff").rstrip("\r")], delimiter=separator), []
        )
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise DatasetError(
                path, f"line 1 has two columns {twice}", "leave one of the two, or rename it"
            )
        frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(path, f"line {line} is not UTF-8", "save the file as UTF-8") from None
    except pd.errors.EmptyDataError:
        raise DatasetError(path, "is empty", f"give the columns {', '.join(needed)}") from None
    except (pd.errors.ParserError, csv.Error, ValueError, OSError) as error:
        reason = " ".join(str(error).removeprefix("Error tokenizing data. C error: ").split())
        if found := re.fullmatch(r"Expected (\d+) fields in line (\d+), saw (\d+)", reason):
            records = _records(content, separator)
            line = next((line for line, n in records if n > int(found[1])), int(found[2]))
            raise DatasetError(
                path,
                f"line {line} has {found[3]} fields, not {found[1]}",
                f"put what holds {separator!r} in quotes",
            ) from None
        raise DatasetError(path, f"is no table ({reason})", "save it as CSV") from None
    if not isinstance(frame.index, pd.RangeIndex):  # pandas took the first field for a name
        line, count = next(iter(_records(content, separator)[1:]), (2, "more"))
        raise DatasetError(
            path,
            f"line {line} has {count} fields, line 1 names {len(frame.columns)}",
            f"name every column in line 1, or put what holds {separator!r} in quotes",
        )
    if missing := [name for name in needed if name not in frame.columns]:
        raise DatasetError(
            path,
            f"line 1 has no column {missing[0]} (it has {', '.join(map(str, frame.columns))})",
            f"give the columns {', '.join(needed)}",
        )
    if frame.empty and "itemID" in needed:
        problems.warning(path, "has no rows", "add some, or remove the file")
    frame.index = pd.Index(_lines(content, separator, len(frame)))
    return frame


def _records(content: bytes, separator: str) -> list[tuple[int, int]]:
    """The line on which each row begins, the header's too, and how many fields it has.

    A quoted field may run over several lines, and pandas passes over blank ones.
    """
    reader = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), delimiter=separator)
    records, end = [], 0
    try:
        for fields in reader:
            if len(fields) > 1 or "".join(fields).strip():
                records.append((end + 1, len(fields)))
            end = reader.line_num
    except csv.Error:  # at what pandas may take all the same
        pass
    return records


def _lines(content: bytes, separator: str, n_rows: int) -> Indices:
    """The line on which each row below the header begins, int64 (n_rows,)."""
    simple = np.arange(2, n_rows + 2)
    if content.count(b"\n") + (not content.endswith(b"\n")) == n_rows + 1:
        return simple
    records = _records(content, separator)[1:]
    return np.array([line for line, _ in records]) if len(records) == n_rows > 0 else simple


def warn_of_lacking_parts(path: Path, parts: dict[str, FilePart], problems: Problems) -> None:
    """Tell of a file that says of every row which part it is in, where no row is in one."""
    if parts and "train" not in parts:
        problems.warning(path, "has no row of train: no recommender can learn", "add some")
    elif set(parts) == {"train"}:
        problems.warning(
            path,
            "has no row of test: nothing judges a recommender",
            "add some, or have a test part made: --split random",
        )


def warn_of_unread(folder: Path, tables: dict[str, str], problems: Problems) -> None:
    """Tell of tables in another format than the layout's, where its own file is missing.

    Args:
        tables: the file that is read, by what the others are called before the first dot.
    """
    for file in sorted(folder.iterdir()):
        read = tables.get(file.name.partition(".")[0])
        if read and not (folder / read).exists() and file.is_file():
            problems.warning(file, "is not read", f"save it as {read}")


def warn_of_ratings(path: Path, columns: Iterable[str], problems: Problems) -> None:
    for column in columns:
        if column.lower() in ("rating", "ratings"):
            problems.warning(
                path,
                f"column {column} is not read: every row counts as an interaction",
                "leave out the rows of items that were not liked, and the column",
            )


def is_named(column: str) -> bool:
    """Whether a column has a name; pandas writes its index without, and calls it so."""
    return bool(column.strip()) and not re.fullmatch(r"Unnamed: \d+", column)


def lines_of(frame: pd.DataFrame, mask: NDArray[np.bool_]) -> str:
    """Name the lines of some rows of a CSV file."""
    return places(frame.index.to_numpy()[mask], 0, "line")


def integers(frame: pd.DataFrame, column: str, path: Path) -> Indices:
    """A column of whole numbers, int64 (n,).

    Raises:
        DatasetError: an entry is none; its line is named.
    """
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(values) | (values != np.floor(values)) | (np.abs(values) > 2**53)
    if wrong.any():
        first = frame[column].iloc[int(np.flatnonzero(wrong)[0])]
        raise DatasetError(
            path,
            f"{lines_of(frame, wrong)}: {column} {first!r} is no whole number",
            "give integers",
        )
    return values.astype(np.int64)


def indices(frame: pd.DataFrame, column: str, path: Path) -> Indices:
    """A column that numbers users or items from 0, int64 (n,).

    Raises:
        DatasetError: an entry is no whole number, or so large that most numbers are nobody's
            (every number up to the largest takes memory).
    """
    values = integers(frame, column, path)
    if (wrong := values > _MOST_UNUSED + 10 * len(values)).any():
        raise DatasetError(
            path,
            f"{lines_of(frame, wrong)}: {column} {values[wrong][0]} in a table of "
            f"{len(values)} rows",
            f"number {column} from 0 without gaps",
        )
    return values


def times(tables: dict[Path, pd.DataFrame]) -> dict[Path, Indices]:
    """Column `timestamp` of each table, int64 (n,), in one unit; of none where one has it not.

    Numbers, or dates as ISO 8601 has them.

    Raises:
        DatasetError: an entry is neither; its line is named.
    """
    if not tables or any("timestamp" not in frame.columns for frame in tables.values()):
        return {}
    every = pd.concat([frame["timestamp"] for frame in tables.values()], ignore_index=True)
    ends = np.cumsum([len(frame) for frame in tables.values()])
    values, wrong = _as_times(every)
    for (path, frame), part in zip(tables.items(), np.split(wrong, ends[:-1]), strict=True):
        if part.any():
            raise DatasetError(
                path,
                f"{lines_of(frame, part)}: timestamp {frame['timestamp'][part].iloc[0]!r} is no "
                "time",
                "give every row a number (of seconds, say) or a date such as 2014-05-31",
            )
    return dict(zip(tables, np.split(values, ends[:-1]), strict=True))


def _as_times(column: "pd.Series[str]") -> tuple[Indices, NDArray[np.bool_]]:
    """Times as whole numbers, and which entries are none."""
    try:
        whole = column.to_numpy(dtype=object).astype(np.int64)  # of 19 digits too
        return whole, np.zeros(len(whole), dtype=bool)
    except (ValueError, OverflowError):
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(values).any():
        return in_order(np.nan_to_num(values)), ~np.isfinite(values)
    dates = pd.to_datetime(column, format="ISO8601", utc=True, errors="coerce")
    when = dates.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    return when.astype(np.int64), dates.isna().to_numpy()


def in_order(values: NDArray[np.float64]) -> Indices:
    """Finite times as they are where all are whole, else their ranks, equal for equal."""
    if (values == np.floor(values)).all() and (np.abs(values) < 2**63).all():
        return values.astype(np.int64)
    rank: Indices = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return rank


def check_numbers(
    frame: pd.DataFrame, column: str, path: Path, size: int, counted: str, problems: Problems
) -> None:
    """Refuse numbers of items that have no row, and warn of one that stands there twice.

    Args:
        size: items there are, by the file `counted`.
    """
    numbers = integers(frame, column, path)
    if (wrong := (numbers < 0) | (numbers >= size)).any():
        problems.error(
            path,
            f"{lines_of(frame, wrong)}: {column} {numbers[wrong][0]} is out of range 0..{size - 1} "
            f"({counted})",
            "number the items from 0, in the order of that file's rows",
        )
    if (twice := pd.Series(numbers).duplicated().to_numpy()).any():
        problems.warning(
            path,
            f"{lines_of(frame, twice)}: {column} {numbers[twice][0]} stands there before",
            "give every item one line (its last one counts)",
        )


def in_range(part: FilePart, n_items: int | None, problems: Problems) -> FilePart:
    """Refuse item indices out of 0..n_items-1 and negative user indices."""
    item, user = part.pairs.item, part.pairs.user
    high = np.iinfo(np.int64).max if n_items is None else n_items
    wrong_item, wrong_user = (item < 0) | (item >= high), user < 0
    if wrong_item.any():
        problems.error(
            part.file,
            f"{part.named(wrong_item)}: item {item[wrong_item][0]} is out of range"
            + (f" 0..{n_items - 1}" if n_items is not None else ": negative"),
            "renumber the items or add their features",
        )
    if wrong_user.any():
        problems.error(
            part.file,
            f"{part.named(wrong_user)}: user {user[wrong_user][0]} is negative",
            "number the users from 0",
        )
    return part.take(~wrong_item & ~wrong_user)


def make_interactions(
    parts: dict[str, FilePart], users: Vocabulary, items: Vocabulary, problems: Problems
) -> Interactions:
    """Interactions without repetition: a pair stays where it stands first, train before test.

    Its time is the earliest at which it stands anywhere: a split by time divides the parts anew.
    """
    n_items = max(len(items), 1)
    parts = _at_their_earliest(parts, n_items)
    known = np.empty(0, dtype=np.int64)
    clean: dict[str, Pairs] = {}
    for name, part in parts.items():
        keys = part.pairs.user * n_items + part.pairs.item
        first = earliest_of_each(part.pairs, n_items)
        if not first.all():
            problems.warning(
                part.file,
                f"{part.named(~first)}: {(~first).sum()} pairs stand twice in {name}",
                "remove the repetitions (they are left out)",
            )
        before = are_among(keys, known)
        if (before & first).any():
            problems.warning(
                part.file,
                f"{part.named(before & first)}: {(before & first).sum()} pairs of {name} are "
                f"also in {' or '.join(clean)}",
                f"remove them from {name} (they are left out: a seen item is never recommended)",
            )
        clean[name] = part.pairs.take(first & ~before)
        known = np.concatenate([known, keys])
    _warn_of_unknown_users(parts, clean, users, problems)
    empty = Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    return Interactions(
        users, items, clean.get("train", empty), clean.get("valid"), clean.get("test", empty)
    )


def earliest_of_each(pairs: Pairs, n_items: int) -> NDArray[np.bool_]:
    """The first row of each pair, by time and then by place, bool (n,)."""
    keys = pairs.user * n_items + pairs.item
    when = np.zeros(len(keys)) if pairs.timestamp is None else pairs.timestamp
    order = np.lexsort((when, keys))
    first = np.zeros(len(keys), dtype=bool)
    first[order[np.diff(keys[order], prepend=-1) != 0]] = True
    return first


def _at_their_earliest(parts: dict[str, FilePart], n_items: int) -> dict[str, FilePart]:
    """Every pair with the earliest of its timestamps, where there are any."""
    every = join(*(part.pairs for part in parts.values()))
    if every.timestamp is None:
        return parts
    keys = every.user * n_items + every.item
    by_time = np.lexsort((every.timestamp, keys))
    pairs, first = np.unique(keys[by_time], return_index=True)
    earliest = every.timestamp[by_time][first]

    def timed(part: FilePart) -> FilePart:
        user, item = part.pairs.user, part.pairs.item
        when = earliest[np.searchsorted(pairs, user * n_items + item)]
        return replace(part, pairs=Pairs(user, item, when))

    return {name: timed(part) for name, part in parts.items()}


def make_catalog(
    where: Path,
    items: Vocabulary,
    features: dict[str, Feature],
    labels: tuple[NDArray[np.int64], tuple[str, ...]] | None,
    titles: NDArray[np.object_] | None,
) -> ItemCatalog:
    """A catalogue of at least one item.

    Raises:
        DatasetError: there is none.
    """
    if not len(items):
        raise DatasetError(where, "has no items", "add some")
    numbers, names = labels or (None, ())
    return ItemCatalog(items, features, numbers, names, titles)


def add_feature(features: dict[str, Feature], feature: Feature, problems: Problems) -> None:
    """Add one by its name; a second of that name is refused (upper and lower case are one)."""
    if other := features.get(feature.name):
        problems.error(
            feature.source,
            f"is modality {feature.name}, and so is {other.source}",
            "leave one of the two, or rename it",
        )
    features[feature.name] = feature


def same_rows(
    features: dict[str, Feature], n_items: int, counted: str, problems: Problems
) -> dict[str, Feature]:
    """Refuse features whose number of rows is not that of the items."""
    for feature in features.values():
        if feature.shape[0] != n_items:
            problems.error(
                feature.source,
                f"has {feature.shape[0]} rows for {n_items} items ({counted})",
                "give one row an item, in the order of the items",
            )
    return {name: f for name, f in features.items() if f.shape[0] == n_items}


def number_labels(
    values: NDArray[np.object_] | NDArray[np.int64],
    lacking: NDArray[np.bool_],
    names: dict[int, str] | None = None,
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Any label values as 0..C-1, -1 where lacking; `names` may rename whole numbers."""
    found, place = np.unique(values[~lacking], return_inverse=True)
    labels = np.full(len(values), -1, dtype=np.int64)
    labels[~lacking] = place
    return labels, tuple((names or {}).get(value, str(value)) for value in found.tolist())


def unique_names(names: list[str], path: Path, word: str = "row", first: int = 0) -> Vocabulary:
    """A vocabulary of ids as a file gives them.

    Raises:
        DatasetError: an id is empty or occurs twice; its place is named.
    """
    ids = pd.Series(names, dtype=object)
    for wrong, what in ((ids == "", "the id is empty"), (ids.duplicated(), "the id occurs twice")):
        if wrong.any():
            mask = wrong.to_numpy()
            raise DatasetError(
                path,
                f"{places(mask, first, word)}: {what} ({ids[mask].iloc[0]!r})",
                "give every one its own id",
            )
    return Vocabulary(ids.to_numpy())


def vocabulary_of(
    tables: dict[Path, pd.DataFrame], number: str, name: str, size: int
) -> Vocabulary:
    """Outside ids by inside numbers, from every table that has both; else the number itself.

    Raises:
        DatasetError: a number has two ids, or an id two numbers.
    """
    ids = np.array([str(i) for i in range(size)], dtype=object)
    named = [
        pd.DataFrame(
            {"number": integers(frame, number, path), "id": frame[name], "file": str(path)}
        ).assign(line=frame.index)
        for path, frame in tables.items()
        if {number, name} <= set(frame.columns)
    ]
    if not named:
        return Vocabulary(ids)
    every = pd.concat(named, ignore_index=True)
    every = every[(every["id"] != "") & every["number"].between(0, size - 1)]
    pairs = every.drop_duplicates(["number", "id"])
    for column, other in (("number", "id"), ("id", "number")):
        if (twice := pairs.duplicated(column)).any():
            row = pairs[twice].iloc[0]
            raise DatasetError(
                row["file"],
                f"line {row['line']}: {number} {row['number']} and {name} {row['id']!r} "
                f"contradict an earlier line (one {column} with two values of {other})",
                f"give every {number} one {name}",
            )
    ids[pairs["number"].to_numpy()] = pairs["id"].to_numpy(dtype=object)
    try:
        return Vocabulary(ids)
    except ValueError as error:
        raise DatasetError(
            next(iter(tables)), f"{name}: {error}", f"give every {number} its own {name}"
        ) from None


def _warn_of_unknown_users(
    parts: dict[str, FilePart], clean: dict[str, Pairs], users: Vocabulary, problems: Problems
) -> None:
    if "test" not in parts or "train" not in parts:
        return
    trained = np.zeros(len(users), dtype=bool)
    trained[clean["train"].user] = True
    test = parts["test"]
    unknown = ~trained[test.pairs.user]
    if unknown.any():
        count = len(distinct(test.pairs.user[unknown]))
        problems.warning(
            test.file,
            f"{test.named(unknown)}: {count} users of test have no training item",
            "move some of their items to train (they are judged all the same)",
        )
