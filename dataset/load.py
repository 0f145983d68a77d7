"""From a name or a path to a data set."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from sgfd.dataset.catalog import ItemCatalog
from sgfd.dataset.errors import DatasetError
from sgfd.dataset.interactions import Interactions
from sgfd.dataset.layouts import LAYOUTS, recognise
from sgfd.dataset.problems import Problem, Problems
from sgfd.dataset.sample import make_sample

SAMPLE = "sample"
SHOWN_NAMES = 8  # of data sets, where none is near what was asked for


@dataclass(frozen=True)
class Dataset:
    """A catalogue, interactions, or both over the same items.

    Attributes:
        warnings: what was wrong with the files and how it was repaired.
    """

    name: str
    layout: str
    path: Path | None
    catalog: ItemCatalog | None
    interactions: Interactions | None
    warnings: tuple[Problem, ...] = ()

    def __repr__(self) -> str:
        """A line: its arrays would fill pages."""
        parts = [f"{self.catalog.n_items:,} items"] if self.catalog else []
        if self.interactions is not None:
            parts.append(f"{self.interactions.n_users:,} users")
        if self.warnings:
            parts.append(f"{len(self.warnings)} warning{'s' * (len(self.warnings) > 1)}")
        return f"<Dataset {self.name}: {', '.join(parts)}>"


def load_dataset(reference: str | Path, data_root: Path | None = None) -> Dataset:
    """Load a data set by its name under the data root, by its folder, or the made-up `sample`.

    Raises:
        DatasetError: there is none, or its files are wrong; `check_dataset` names all that is.
    """
    if is_sample(reference, data_root):
        return Dataset(SAMPLE, "sample", None, *make_sample())
    folder = find_dataset(reference, data_root)
    return read_folder(folder, Problems(strict=True))


def is_sample(reference: str | Path, data_root: Path | None = None) -> bool:
    """Whether the made-up data set is meant.

    Raises:
        DatasetError: a data set of one's own has its name, so that either could be meant.
    """
    if str(reference) != SAMPLE:
        return False
    for folder in (find_data_root(data_root) / SAMPLE, Path(SAMPLE)):
        if folder.is_dir() and _recognise_readable(folder):
            raise DatasetError(
                folder,
                f"is called as the made-up data set, {SAMPLE}",
                f"write {Path().absolute() / folder}, or rename it",
            )
    return True


def read_folder(folder: Path, problems: Problems) -> Dataset:
    """Read a folder of any layout; `problems` raises or collects what is wrong."""
    layout = recognise(folder)
    if layout is None:
        raise DatasetError(
            folder,
            "has the files of no layout",
            "give train.csv, *.inter, items.parquet or interactions.parquet",
        )
    return _read(folder, layout, problems)


def read_layout(folder: Path, layout: str) -> Dataset:
    """Read a folder as one of a given layout, a name in `LAYOUTS`.

    Raises:
        DatasetError: it has not the files of this layout, or they are wrong.
    """
    if not LAYOUTS[layout][0](folder):
        what = f"has not the files of {layout}" if folder.is_dir() else "is no folder"
        raise DatasetError(folder, what, "name the folder that holds them")
    return _read(folder, layout, Problems(strict=True))


def _read(folder: Path, layout: str, problems: Problems) -> Dataset:
    catalog, interactions = LAYOUTS[layout][1](folder, problems)
    # A link is called as it is found again, not as what it points to.
    name = folder.name if folder.name not in ("", "..") else folder.resolve().name
    return Dataset(name, layout, folder, catalog, interactions, tuple(problems.found))


def find_dataset(reference: str | Path, data_root: Path | None = None) -> Path:
    """The folder of a data set.

    Raises:
        DatasetError: there is none of that name; the nearest names are in the message.
    """
    root = find_data_root(data_root)
    # `.` and `..` are said of where one is.
    is_place = str(reference).partition("/")[0] in (".", "..")
    for folder in (Path(reference),) if is_place else (root / reference, Path(reference)):
        if folder.is_dir():
            return folder
        if folder.is_file():
            raise DatasetError(folder, "is a file", "give the folder that holds it")
    known = [name for name, _ in list_datasets(data_root)]
    near = difflib.get_close_matches(str(reference), known, cutoff=0.5) or known[:SHOWN_NAMES]
    raise DatasetError(
        f"data set {str(reference)!r}",
        "is no folder" if is_place else f"is not in {root} and no folder",
        f"choose {' or '.join(near)}, or give --data-root",
    )


def find_data_root(data_root: Path | None = None) -> Path:
    """Where data sets lie: the given folder, else $PIPELINE_DATA, else ./data."""
    return Path(data_root or os.environ.get("PIPELINE_DATA") or "data")


def list_datasets(data_root: Path | None = None) -> list[tuple[str, str]]:
    """Name and layout of every data set that can be named."""
    root = find_data_root(data_root)
    folders = sorted(root.iterdir()) if root.is_dir() else []
    found = [(f.name, _recognise_readable(f)) for f in folders if f.is_dir()]
    return [(SAMPLE, "sample"), *((name, layout) for name, layout in found if layout)]


def _recognise_readable(folder: Path) -> str | None:
    """The layout of a folder; None of one that may not be read, such as a disk's `lost+found`."""
    try:
        return recognise(folder)
    except OSError:
        return None
