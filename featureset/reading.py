"""Opening a feature set: checked, memory-mapped, aligned to a data set's items."""

import contextlib
import hashlib
import json
import math
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

from sgfd.featureset.compression import (
    CompressedRows,
    Rows,
    open_compressed,
    present_in,
    release_pages,
)
from sgfd.featureset.errors import GET_AGAIN, FeatureSetError
from sgfd.featureset.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    MANIFEST_BYTES,
    MANIFEST_DEPTH,
    TABLE,
    Manifest,
    Modality,
)
from sgfd.featureset.neighbours import NEIGHBOUR_SCHEMA
from sgfd.featureset.places import is_address
from sgfd.featureset.table import Table, read_texts
from sgfd.featureset.versions import find, version_of, versioned

MIN_COVERAGE = 0.95  # least share of a catalogue's items that a set must know


@dataclass(frozen=True)
class Alignment:
    """Where a data set's items stand in a feature set.

    Attributes:
        rows: int64 (n,), the set's row of each item, -1 where it has none.
        coverage: share of the items that have a row.
    """

    rows: NDArray[np.int64]
    coverage: float


class FeatureSet:
    """An opened feature set; `load` makes one.

    Attributes:
        path: its folder.
        manifest: what it is.
        manifest_sha256: what identifies it.
        modalities: by name, read-only memory map float32 (n, d), NaN rows where an item lacks it;
            a compressed one as `CompressedRows`, of which `[start:stop]` or `[indices]` decodes
            these rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = _read_manifest(path)
        self.manifest = parse_manifest(path / MANIFEST, content)
        self.manifest_sha256 = hashlib.sha256(content).hexdigest()
        name = path.name.partition("@")[0]
        if path.name == versioned(name, self.manifest_sha256):
            # It may have been published by another name than it was made by: only this one finds
            # it again.
            self.manifest = self.manifest.model_copy(update={"name": name})
        for name, record in self.manifest.files.items():
            _check_size(path, name, record.bytes)
        tensors = self._encoding_tensors()
        self.modalities = {m.name: self._open(m, tensors) for m in self.manifest.modalities}

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {rows.shape[1]}-d" for name, rows in self.modalities.items())
        return f"<FeatureSet {self.label}: {self.n_items:,} items, {shapes}>"

    @property
    def n_items(self) -> int:
        return self.manifest.dataset.n_items

    @property
    def label(self) -> str:
        """Its name; of a published version, with the version."""
        is_version = self.path.name.endswith(f"@{version_of(self.manifest_sha256)}")
        return self.path.name if is_version else self.manifest.name

    @property
    def folder_name(self) -> str:
        """How its folder is called where it was opened, without a version."""
        path = self.path if self.path.name not in ("", "..") else self.path.resolve()
        return path.name.partition("@")[0]

    @cached_property
    def item_ids(self) -> NDArray[np.object_]:
        """Ids of the n items, in the order of the rows."""
        return self._texts("item_id")

    @cached_property
    def labels(self) -> NDArray[np.object_]:
        """Label name of each item, None where it has none."""
        return self._texts("label")

    def _texts(self, name: str) -> NDArray[np.object_]:
        with self._not_replaced(), Table(self.path / TABLE) as table:
            column = read_texts(table, [name], self.n_items)[name]
        return np.array(column.to_pylist(), dtype=object)

    @contextlib.contextmanager
    def _not_replaced(self) -> Iterator[None]:
        """Read more from the folder; refused, however that ends, if another set is in it by then.

        The rows are those that were mapped when it was opened.
        """
        try:
            yield
        finally:
            if hashlib.sha256(_read_manifest(self.path)).hexdigest() != self.manifest_sha256:
                raise FeatureSetError(self.path, "was replaced meanwhile", "run the command again")

    def present(self, modality: str) -> NDArray[np.bool_]:
        """Which items have the modality, bool (n,)."""
        return present_in(self.modalities[modality])

    def stored_block(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Copies of the rows start..stop of every modality as they are stored, (b, c) each."""
        block = {name: np.array(rows) for name, rows in self.stored_views(start, stop).items()}
        self.release_pages()
        return block

    def stored_views(self, start: int, stop: int) -> dict[str, NDArray[Any]]:
        """The rows start..stop of every modality as they are stored, (b, c) each, mapped."""
        return {name: stored[start:stop] for name, stored in self._stored.items()}

    def release_pages(self) -> None:
        """Give the pages that were read back to the system.

        After each block of a pass over all rows, no more than one stays in memory.
        """
        for stored in self._stored.values():
            release_pages(stored)

    @property
    def _stored(self) -> dict[str, NDArray[Any]]:
        return {
            name: rows.stored if isinstance(rows, CompressedRows) else rows
            for name, rows in self.modalities.items()
        }

    def neighbours(self) -> pa.Table:
        """Every item's nearest others, as `Neighbours` of the manifest describes them.

        Returns:
            Columns item_id, neighbour_id (string) and similarity (float32), one row a pair;
            `.to_pandas()` makes a data frame of it.

        Raises:
            FeatureSetError: the set holds none, or they can't be read.
        """
        record = self.manifest.neighbours
        if record is None:
            raise FeatureSetError(
                self.path, "holds no neighbours", "make it with `pipeline distill --neighbours K`"
            )
        most_rows = self.n_items * min(record.k, self.n_items)
        with self._not_replaced(), Table(self.path / record.file) as table:
            return table.read(NEIGHBOUR_SCHEMA, most_rows)

    def student(self) -> dict[str, NDArray[np.float32]]:
        """The student's tensors: `{modality}.weight | bias | mean | scale`.

        Raises:
            FeatureSetError: there is no student, or its file is not what the manifest says.
        """
        return dict(self._student_tensors)

    @cached_property
    def _student_tensors(self) -> dict[str, NDArray[np.float32]]:
        if self.manifest.student is None:
            raise FeatureSetError(self.path, "has no student", "choose one made by distillation")
        path = self.path / self.manifest.student.file
        with self._not_replaced():
            tensors = _read_tensors(path)
        for modality in self.manifest.layers:
            d, source = modality.dimension, modality.source_dimension
            shapes = {"weight": (d, source), "bias": (d,), "mean": (source,), "scale": (source,)}
            for part, shape in shapes.items():
                tensor = tensors.get(f"{modality.name}.{part}")
                if tensor is None or tensor.shape != shape or tensor.dtype != np.float32:
                    raise FeatureSetError(
                        path, f"{modality.name}.{part} is not float32 {shape}", GET_AGAIN
                    )
                if not np.isfinite(tensor).all() or (part == "scale" and not tensor.all()):
                    what = "is not finite, or divides by 0"
                    raise FeatureSetError(path, f"{modality.name}.{part} {what}", GET_AGAIN)
        return tensors

    def embed(
        self, modality: str, generic: NDArray[Any] | dict[str, NDArray[Any]]
    ) -> NDArray[np.float32]:
        """Embed new items by the student alone.

        Args:
            modality: one of the set's; a compressed one gets the rows of the one that it is of.
            generic: (b, D), the same generic features as the set was made from; by name for a
                modality that has several parts. An item lacks those whose row is NaN.

        Returns:
            float32 (b, d): leaky_relu(W ((x - mean) / scale) + b), summed over the parts, each
            row to unit norm where the manifest says so; NaN for an item that lacks all.
        """
        tensors, student = self._student_tensors, self.manifest.student
        assert student is not None
        described = self._described(modality)
        if described.encoding is not None:
            described = self._described(described.encoding.of)
        blocks = generic if isinstance(generic, dict) else {described.name: generic}
        outputs, lacking = [], []
        for name in described.parts or [described.name]:
            weight, bias, mean, scale = (
                tensors[f"{name}.{part}"] for part in ("weight", "bias", "mean", "scale")
            )
            x = (np.asarray(blocks[name], dtype=np.float32) - mean) / scale
            lacking.append(np.isnan(x[:, 0]))
            x = np.nan_to_num(x)
            if student.input_normalised:
                x = _unit(x)
            x = x @ weight.T + bias
            x = np.where(x < 0, np.float32(student.negative_slope) * x, x)
            outputs.append(np.where(lacking[-1][:, None], np.float32(0), x))
        rows = np.asarray(np.sum(outputs, axis=0), dtype=np.float32)
        rows = _unit(rows) if student.normalised else rows
        rows[np.all(lacking, axis=0)] = np.nan
        return rows

    def chosen_modalities(self, wanted: Sequence[str] | None = None) -> list[str]:
        """The modalities asked for, each once; where none is, those that the maker recommends,
        else all that are not compressed.

        Raises:
            FeatureSetError: the set has no such modality, or none is named.
        """
        if wanted is None:
            return self.manifest.usual_modalities
        if not len(wanted):
            raise FeatureSetError(
                self.path,
                "none of its modalities is named",
                f"choose from {', '.join(self.modalities)}",
            )
        for name in wanted:
            self._described(name)
        return list(dict.fromkeys(wanted))

    def check_width(self, modality: str, width: int) -> None:
        """Whether the first `width` columns of a modality may stand for all.

        Raises:
            FeatureSetError: they may not.
        """
        described = self._described(modality)
        widths = sorted({*described.nested, described.dimension})
        if width not in widths:
            raise FeatureSetError(
                self.path,
                f"the first {width} columns of {modality} do not work by themselves",
                f"choose {' or '.join(str(known) for known in widths)}",
            )

    def _described(self, modality: str) -> Modality:
        for described in self.manifest.modalities:
            if described.name == modality:
                return described
        raise FeatureSetError(
            self.path,
            f"has no modality {modality!r}",
            f"choose {' or '.join(self.modalities)}",
        )

    def align(self, item_ids: NDArray[np.object_], min_coverage: float = MIN_COVERAGE) -> Alignment:
        """Find the rows of a data set's items, whatever their number and order.

        Raises:
            FeatureSetError: fewer than `min_coverage` of the items have a row, or that is no share.
        """
        if not 0 <= min_coverage <= 1:
            what = f"min_coverage {min_coverage}"
            raise FeatureSetError(what, "is no share", "give one from 0 to 1")
        import pandas as pd

        rows = pd.Index(self.item_ids).get_indexer(pd.Index(item_ids)).astype(np.int64)
        missing = np.flatnonzero(rows < 0)
        coverage = 1 - len(missing) / len(rows) if len(rows) else 1.0
        if coverage < min_coverage:
            first = ", ".join(repr(str(item_ids[i])) for i in missing[:3])
            raise FeatureSetError(
                self.path,
                f"has no row for {len(missing)} of {len(rows)} items ({1 - coverage:.1%}: {first})",
                f"choose the set of this data set, or lower --min-coverage ({min_coverage:g})",
            )
        return Alignment(rows, coverage)

    def _encoding_tensors(self) -> dict[str, dict[str, NDArray[Any]]]:
        """Tensors of the encodings' files, by file."""
        encodings = [m.encoding for m in self.manifest.modalities if m.encoding is not None]
        files = {encoding.file for encoding in encodings if encoding.file is not None}
        return {file: _read_tensors(self.path / file) for file in files}

    def _open(self, modality: Modality, tensors: dict[str, dict[str, NDArray[Any]]]) -> Rows:
        path = self.path / modality.file
        try:
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a mangled header raises whatever numpy's parser happens to
            raise FeatureSetError(path, f"is no plain .npy file ({error})", GET_AGAIN) from None
        kind, expected = modality.stored_type, (self.n_items, modality.stored_columns)
        if not isinstance(rows, np.memmap):  # a .npz, whatever its name
            raise FeatureSetError(path, "is no plain .npy file", GET_AGAIN)
        if not rows.flags.c_contiguous:
            raise FeatureSetError(path, "is stored by columns, not by rows", GET_AGAIN)
        if rows.dtype != kind or rows.shape != expected:
            raise FeatureSetError(
                path, f"is {rows.dtype} {rows.shape}, not {kind} {expected}", GET_AGAIN
            )
        encoding = modality.encoding
        if encoding is None:
            plain: NDArray[np.float32] = rows
            return plain
        try:
            return open_compressed(modality, rows, tensors.get(encoding.file or "", {}))
        except ValueError as error:
            raise FeatureSetError(
                self.path / (encoding.file or ""), f"{modality.name}: {error}", GET_AGAIN
            ) from None


def load(path: str | Path) -> FeatureSet:
    """Open a feature set: the schema and all sizes are checked, `verify` checks the rest.

    Args:
        path: its folder; `ROOT/NAME@latest` and `ROOT/NAME@VERSION` are versions of a name, whose
            `path` is then the folder of exactly that version.

    Raises:
        FeatureSetError: there is none, it is of an unknown format, its files are not those that
            the manifest names, or it is not the version that its name says.
    """
    path, version = find(Path(path))
    opened = _load_folder(path)
    if version is not None and not opened.manifest_sha256.startswith(version):
        raise FeatureSetError(
            path / MANIFEST,
            f"is not that of version {version}: it was changed or swapped",
            "get that version again",
        )
    return opened


def _load_folder(path: Path) -> FeatureSet:
    while True:
        before = folder_state(path)
        try:
            opened, error = FeatureSet(path), None
        except (FeatureSetError, OSError) as failure:  # a file may vanish as it is opened
            opened, error = None, failure
        if folder_state(path) != before:
            continue  # another set was put in its place meanwhile: look at that one
        if opened is None:
            assert error is not None
            raise error
        return opened


def folder_state(path: Path) -> tuple[bytes, int, int]:
    """What changes when another set is put in a folder's place, be its manifest the same."""
    content, folder = _read_manifest(path), path.stat()
    return content, folder.st_ino, folder.st_ctime_ns


def _read_manifest(path: Path) -> bytes:
    file = path / MANIFEST
    try:
        size = file.stat().st_size
        _check_kind(path, MANIFEST)
        if size > MANIFEST_BYTES:
            raise FeatureSetError(file, f"has more than {MANIFEST_BYTES} bytes", GET_AGAIN)
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        what = "there is no such folder" if not path.exists() else f"it has no {MANIFEST}"
        how = "make one with `pipeline distill`"
        if is_address(str(path)):
            how = "pull it first: `pipeline features pull ADDRESS`"
        elif "@" in path.name:
            how = "see `pipeline features list`, or pull it"
        raise FeatureSetError(path, f"is no feature set: {what}", how) from None
    except OSError as error:
        raise FeatureSetError(path, f"can't be read ({error.strerror})", "allow it") from None


def parse_manifest(where: str | Path, content: bytes) -> Manifest:
    """The manifest that a file holds.

    Raises:
        FeatureSetError: it holds none that this program can read.
    """
    try:
        plain = json.loads(content, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise FeatureSetError(where, f"is no JSON ({error})", GET_AGAIN) from None
    if not isinstance(plain, dict) or "format_version" not in plain:
        raise FeatureSetError(where, "is no manifest: format_version is missing", GET_AGAIN)
    version = str(plain["format_version"])
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise FeatureSetError(
            where,
            f"format version {version} is unknown (this program reads {FORMAT_VERSION})",
            "use a newer program",
        )
    try:
        json.dumps(plain, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a letter, as "\ud800" is
        raise FeatureSetError(where, "holds text that is no Unicode", GET_AGAIN) from None
    if _is_deeper(plain, MANIFEST_DEPTH):
        raise FeatureSetError(where, f"nests deeper than {MANIFEST_DEPTH}", GET_AGAIN)
    try:
        manifest = Manifest.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise FeatureSetError(where, f"{place}: {first['msg']}", GET_AGAIN) from None
    if not manifest.files:
        raise FeatureSetError(where, "files: it names none", GET_AGAIN)
    return manifest


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are in one another more than so many times."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and (
        levels == 0 or any(_is_deeper(each, levels - 1) for each in value)
    )


def _check_size(folder: Path, name: str, expected: int) -> None:
    path = folder / name
    if not path.exists():
        raise FeatureSetError(path, "is missing", GET_AGAIN)
    _check_kind(folder, name)
    if (size := path.stat().st_size) != expected:
        raise FeatureSetError(path, f"has {size} bytes, not {expected}", GET_AGAIN)


def _check_kind(folder: Path, name: str) -> None:
    """Refuse what a reader would wait for or read on in for ever, and what lies elsewhere."""
    path = folder / name
    if path.is_symlink() and folder.resolve() not in path.resolve().parents:
        raise FeatureSetError(path, "is a link that leads out of the folder", GET_AGAIN)
    if not stat.S_ISREG(path.stat().st_mode):
        raise FeatureSetError(path, "is no regular file", GET_AGAIN)


def _read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    try:
        return load_tensors(path.read_bytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise FeatureSetError(path, f"is no safetensors file ({error})", GET_AGAIN) from None


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(norms, np.float32(1e-12))
    return unit
