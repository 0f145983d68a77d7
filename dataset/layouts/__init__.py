"""One reader a layout; a folder's files say which one it is, never its name."""

from collections.abc import Callable
from pathlib import Path

from sgfd.dataset.catalog import ItemCatalog
from sgfd.dataset.interactions import Interactions
from sgfd.dataset.layouts.ducho import is_ducho, read_ducho
from sgfd.dataset.layouts.mmrec import is_mmrec, read_mmrec
from sgfd.dataset.layouts.native import is_native, read_native
from sgfd.dataset.layouts.sgfd import is_sgfd, read_sgfd
from sgfd.dataset.problems import Problems

Contents = tuple[ItemCatalog | None, Interactions | None]
Reader = Callable[[Path, Problems], Contents]

LAYOUTS: dict[str, tuple[Callable[[Path], bool], Reader]] = {
    "native": (is_native, read_native),
    "sgfd": (is_sgfd, read_sgfd),
    "mmrec": (is_mmrec, read_mmrec),
    "ducho": (is_ducho, read_ducho),
}


def recognise(folder: Path) -> str | None:
    """The layout of a folder, None where its files are of none."""
    return next((name for name, (is_one, _) in LAYOUTS.items() if is_one(folder)), None)
