"""What every format writes: some modalities' rows, block by block, and the items."""

import csv
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgfd.featureset.compression import BLOCK_VALUES
from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.reading import FeatureSet

Floats = NDArray[np.float32]
Advance = Callable[[int], None]


class ExportedRows:
    """A feature set's rows as float32, whatever they are stored as.

    Attributes:
        names: the modalities.
    """

    def __init__(
        self, features: FeatureSet, names: Sequence[str], advance: Advance | None = None
    ) -> None:
        self.features, self.names = features, list(names)
        self._advance = advance or (lambda rows: None)

    @property
    def n_items(self) -> int:
        return self.features.n_items

    @property
    def item_ids(self) -> list[str]:
        ids: list[str] = self.features.item_ids.tolist()
        return ids

    @property
    def dataset_name(self) -> str:
        """Of the data set, as a part of a file's name."""
        return re.sub(r"[^\w-]+", "-", self.features.manifest.dataset.name)

    def width(self, name: str) -> int:
        return int(self.features.modalities[name].shape[1])

    def read(self, name: str, part: slice) -> Floats:
        """A copy of some rows (b, d) of a modality, NaN where an item lacks it."""
        rows = np.array(self.features.modalities[name][part], dtype=np.float32)
        self._advance(len(rows))
        return rows

    def blocks(self, name: str) -> Iterator[tuple[int, Floats]]:
        """First row and rows (b, d) of all blocks of a modality."""
        for part in self._parts(name):
            yield part.start, self.read(name, part)

    def filled_blocks(self, name: str) -> Iterator[tuple[int, Floats]]:
        """As `blocks`, for a tool that knows of no lacking rows: there is the mean of the others,
        which lies where the average item does (zeros would have no cosine with anything)."""
        total, count = np.zeros(self.width(name)), 0
        for part in self._parts(name):
            block = np.asarray(self.features.modalities[name][part])
            there = block[~np.isnan(block[:, 0])]
            total += there.sum(axis=0, dtype=np.float64)
            count += len(there)
        mean = (total / max(count, 1)).astype(np.float32)
        for start, block in self.blocks(name):
            block[np.isnan(block[:, 0])] = mean
            yield start, block

    def _parts(self, name: str) -> Iterator[slice]:
        step = max(1, BLOCK_VALUES // self.width(name))
        for start in range(0, self.n_items, step):
            yield slice(start, min(start + step, self.n_items))

    def write_npy(self, name: str, path: Path, filled: bool = False) -> None:
        """A modality as a .npy file, float32 (n, d)."""
        with path.open("wb") as file:
            shape = (self.n_items, self.width(name))
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _, block in (self.filled_blocks if filled else self.blocks)(name):
                file.write(block.astype("<f4", copy=False).data)

    def write_items(self, path: Path) -> None:
        """CSV of item_index, item_id and label, empty where it has none.

        A label that a spreadsheet would take for a formula gets an apostrophe in front. Ids stay as
        they are: programs look items up by them, and many an id begins with a minus.
        """
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["item_index", "item_id", "label"])
            labels = map(_harmless, self.features.labels)
            table.writerows(zip(range(self.n_items), self.item_ids, labels, strict=True))

    def refuse_names(self, taken: Collection[str], tool: str) -> None:
        """Refuse a modality whose file would be another one's.

        Raises:
            FeatureSetError: there is one.
        """
        for name in self.names:
            if name in taken:
                raise FeatureSetError(
                    self.features.path,
                    f"{tool} has another file that is called as the modality {name}",
                    "choose another format, or other --modalities",
                )

    def tab_separated_ids(self, tool: str) -> list[str]:
        """The ids, for a file whose columns are parted by tabs and where nothing is quoted.

        Raises:
            FeatureSetError: an id can't be written so.
        """
        ids = self.item_ids
        for row, item in enumerate(ids):
            if not item or any(sign in item for sign in '\t\r\n"'):
                raise FeatureSetError(
                    self.features.path,
                    f"row {row}: {tool} can't read the id {item!r}",
                    "choose a format that takes any id, such as numpy",
                )
        return ids


def _harmless(label: str | None) -> str:
    return f"'{label}" if label and label[0] in "=+-@\t\r" else label or ""
