"""What Ducho extracts: `OUTPUT/BACKEND/MODEL/LAYER/ITEM.npy`, an item's features, (1, D) or (D,).

OUTPUT is what its configuration calls `output_path`, such as `visual_embeddings`; a MODEL may have
folders of its own, such as `openai/clip-vit-base-patch16`. There are no interactions in it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset.catalog import BLOCK_ROWS, Feature, ItemCatalog, open_npy, temporary_rows
from sgfd.dataset.errors import DatasetError
from sgfd.dataset.interactions import Interactions
from sgfd.dataset.layouts.parts import add_feature, make_catalog
from sgfd.dataset.problems import Problems
from sgfd.dataset.vocabulary import Vocabulary

BACKENDS = ("torch", "torchaudio", "tensorflow", "transformers", "sentence_transformers")
KINDS = {"visual": "image", "textual": "text", "audio": "audio"}  # by how OUTPUT begins


def is_ducho(folder: Path) -> bool:
    return any(path.is_dir() for backend in BACKENDS for path in folder.glob(f"*/{backend}"))


def read_ducho(folder: Path, problems: Problems) -> tuple[ItemCatalog | None, Interactions | None]:
    """Read every extraction as a modality; the items are those of any, by the names of the files.

    Raises:
        DatasetError: with a strict `problems`, at the first error.
    """
    files = {
        layer: {file.stem: file for file in layer.glob("*.npy")}
        for backend in BACKENDS
        for top in sorted(folder.glob(f"*/{backend}"))
        for layer in _layers(top)
    }
    for layer, by_item in files.items():
        for item in [item for item in by_item if not _is_text(item)]:
            name = ascii(by_item.pop(item).name)
            problems.error(layer, f"the name of {name} is no UTF-8", "rename it, or leave it out")
    if not any(files.values()):
        problems.error(folder, "holds no .npy file of an item", "extract the features again")
        return None, None
    ids = sorted({item for by_item in files.values() for item in by_item}, key=_as_people_count)
    items = Vocabulary(ids)
    features: dict[str, Feature] = {}
    for layer, name in _names(folder, list(files)).items():
        feature = problems.attempt(_feature, name, layer, files[layer], ids)
        if feature is not None:
            add_feature(features, feature, problems)
    return make_catalog(folder, items, features, None, None), None


def _is_text(name: str) -> bool:
    """Whether a file's name is UTF-8: what is not comes as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _layers(top: Path) -> list[Path]:
    """The folders below a backend's that hold items."""
    return sorted({file.parent for file in top.rglob("*.npy") if file.parent != top})


def _names(folder: Path, layers: list[Path]) -> dict[Path, str]:
    """A modality's name for each extraction: `image`, or `image_resnet50_avgpool` where there are
    several of images, or that of its whole path where they are by one model."""
    names = {}
    for layer in layers:
        output, backend, *model = layer.relative_to(folder).parts
        several = [kind for kind in KINDS if kind in output.lower()]
        one = len(several) == 1 and output.lower().startswith(several[0])
        kind = KINDS[several[0]] if one else _plain(output)
        path = _plain("_".join([output, backend, *model]))
        names[layer] = (kind, _plain("_".join([kind, *model])), path)
    every = Counter(name for of_layer in names.values() for name in set(of_layer))
    return {
        layer: next((name for name in of_layer if every[name] == 1), of_layer[-1])
        for layer, of_layer in names.items()
    }


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:100]


def _feature(name: str, layer: Path, files: dict[str, Path], ids: list[str]) -> Feature:
    """Of all items, spooled into a file that can be mapped when it is first needed."""
    width = _row(next(files[item] for item in ids if item in files)).size
    shape = (len(ids), width)

    def blocks() -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(ids), BLOCK_ROWS):
            part = ids[start : start + BLOCK_ROWS]
            rows = np.full((len(part), width), np.nan, dtype=np.float32)
            for place, item in enumerate(part):
                if item in files:
                    rows[place] = _row(files[item], width)
            yield rows

    return Feature(name, str(layer), shape, np.dtype("f4"), lambda: temporary_rows(blocks(), shape))


def _row(path: Path, width: int | None = None) -> NDArray[np.float32]:
    """The numbers of one item, (D,).

    Raises:
        DatasetError: the file holds no such row.
    """
    values = open_npy(path)
    if values.ndim not in (1, 2) or values.size != values.shape[-1] or not values.size:
        raise DatasetError(
            path, f"has shape {values.shape}", "extract a layer of one row an item, (1, D)"
        )
    if width is not None and values.size != width:
        raise DatasetError(
            path,
            f"has {values.size} numbers, and others of {path.parent} have {width}",
            "extract them all by one model",
        )
    return np.asarray(values, dtype=np.float32).reshape(-1)


def _as_people_count(name: str) -> list[tuple[int, str]]:
    """Sorts item2 before item10."""
    pieces = re.split(r"(\d+)", name)
    return [(int(piece), piece) if piece.isdecimal() else (-1, piece) for piece in pieces]
