"""Compressed modalities: float32 rows in fewer bytes, and back.

The manifest's `Encoding` says how each kind is read. Here are the kinds as codecs, which are fitted
to the rows, encode and decode them, and the rows of a compressed modality, decoded as they are
asked for.
"""

import mmap
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.manifest import (
    ENCODINGS,
    STORED_TYPES,
    Encoding,
    EncodingKind,
    Modality,
)

BLOCK_ROWS = 8192  # of a fit, at most: they may be made from far wider generic rows
BLOCK_VALUES = 2**22  # of one block of rows: 16 MiB
CUT_OFF = 0.1  # of a row's length that int8 may leave out: the cosine is still 0.995
SUBVECTOR = 4  # columns that one code of product quantisation stands for
CENTROIDS = 256  # of a code of 8 bits
TRAINING_ROWS = 256 * CENTROIDS  # more than these FAISS does not use either

Floats = NDArray[np.float32]
Codes = NDArray[Any]


class RowSource(Protocol):
    """Float32 rows (n, d) that a codec is fitted to, NaN where an item lacks the modality."""

    @property
    def dimension(self) -> int: ...

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which items have the modality, bool (n,)."""

    def block(self, start: int, stop: int) -> Floats:
        """The rows start..stop."""

    def rows(self, index: NDArray[np.int64]) -> Floats:
        """The rows of some items."""


class Codec(ABC):
    """One kind of encoding, fitted to a modality's rows; a row that is lacking never gets here."""

    kind: ClassVar[EncodingKind]
    lacking: ClassVar[float] = 0  # what is stored where there is no row

    @classmethod
    @abstractmethod
    def fit(cls, source: RowSource, seed: int) -> Self:
        """The codec that loses little of these rows."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, parts: Mapping[str, Codes], columns: int, dimension: int) -> Self:
        """The codec of tensors by name.

        Raises:
            ValueError: one is missing, or not what the format says.
        """

    @property
    @abstractmethod
    def columns(self) -> int:
        """Numbers c that are stored an item."""

    @property
    def stored_type(self) -> np.dtype[Any]:
        """Type of these numbers."""
        return STORED_TYPES[self.kind]

    @abstractmethod
    def encode(self, rows: Floats) -> Codes:
        """Rows (b, d) as they are stored, (b, c)."""

    @abstractmethod
    def decode(self, codes: Codes) -> Floats:
        """Stored rows (b, c) as float32 (b, d)."""

    def cut_off(self, rows: Floats) -> NDArray[np.bool_]:
        """Which rows (b, d) hold numbers so large that what is stored lacks over a tenth of the
        row's length, bool (b,)."""
        return np.zeros(len(rows), dtype=bool)

    def tensors(self) -> dict[str, Codes]:
        """By name, what decoding needs beside the stored rows."""
        return {}


@dataclass(frozen=True)
class Float16(Codec):
    """Half precision: 11 significant bits, at most 65,504."""

    dimension: int
    kind: ClassVar[EncodingKind] = "float16"
    lacking: ClassVar[float] = np.nan

    @classmethod
    def fit(cls, source: RowSource, seed: int) -> Self:
        return cls(source.dimension)

    @classmethod
    def from_tensors(cls, parts: Mapping[str, Codes], columns: int, dimension: int) -> Self:
        return cls(dimension)

    @property
    def columns(self) -> int:
        return self.dimension

    def encode(self, rows: Floats) -> Codes:
        largest = float(np.abs(rows).max(initial=0))
        if largest > float(np.finfo(np.float16).max):
            raise FeatureSetError(
                "float16",
                f"can't hold {largest:g}",
                "leave it out, or standardise the features (--method standard) without rows that "
                "are far longer than the others",
            )
        return rows.astype("<f2")

    def decode(self, codes: Codes) -> Floats:
        return codes.astype(np.float32)


@dataclass(frozen=True)
class Int8(Codec):
    """Whole numbers from -127 to 127 times a scale a column, float32 (d,): its largest entry / 127.

    A scale a row loses about as much where columns are alike, up to 2.3 times as much where they
    are not (1 - cosine, `sgfd-plus` on MovieLens 100K), and would take 4 bytes an item.
    """

    scale: Floats
    kind: ClassVar[EncodingKind] = "int8"

    @classmethod
    def fit(cls, source: RowSource, seed: int) -> Self:
        largest = np.zeros(source.dimension, dtype=np.float32)
        step = max(1, min(BLOCK_ROWS, BLOCK_VALUES // source.dimension))
        for start in range(0, len(source.present), step):
            rows = source.block(start, min(start + step, len(source.present)))
            largest = np.fmax(largest, np.fmax.reduce(np.abs(rows), axis=0))  # passes over NaN
        scale = largest / np.float32(127)
        return cls(np.where(scale > 0, scale, np.float32(1)))

    @classmethod
    def from_tensors(cls, parts: Mapping[str, Codes], columns: int, dimension: int) -> Self:
        return cls(_checked(parts, "scale", np.dtype(np.float32), (dimension,)))

    @property
    def columns(self) -> int:
        return len(self.scale)

    def encode(self, rows: Floats) -> Codes:
        codes: Codes = np.clip(np.rint(rows / self.scale), -127, 127).astype(np.int8)
        return codes

    def cut_off(self, rows: Floats) -> NDArray[np.bool_]:
        beyond = np.maximum(np.abs(rows) - 127 * self.scale, 0)
        lost, whole = (np.linalg.norm(part, axis=1) for part in (beyond, rows))
        return np.asarray(lost > CUT_OFF * whole)

    def decode(self, codes: Codes) -> Floats:
        return np.multiply(codes, self.scale, dtype=np.float32)

    def tensors(self) -> dict[str, Codes]:
        return {"scale": self.scale}


@dataclass(frozen=True)
class ProductQuantiser(Codec):
    """Product quantisation (Jegou, Douze and Schmid, 2011): a code of 8 bits for every 4 columns.

    Each code is the place of the nearest of 256 centroids, codebooks float32 (c, 256, w), which
    FAISS trains by k-means. Where 4 does not divide the dimension, columns of 0 fill the last.
    """

    codebooks: Floats
    dimension: int
    kind: ClassVar[EncodingKind] = "pq"

    @classmethod
    def fit(cls, source: RowSource, seed: int) -> Self:
        import faiss

        items = np.flatnonzero(source.present)
        if len(items) > TRAINING_ROWS:
            chosen = np.random.default_rng(seed).choice(items, TRAINING_ROWS, replace=False)
            items = np.sort(chosen)
        parts = [
            source.rows(items[start : start + BLOCK_ROWS])
            for start in range(0, len(items), BLOCK_ROWS)
        ]
        joined = np.concatenate(parts)
        rows = _filled(joined, joined.shape[1] + -joined.shape[1] % SUBVECTOR)
        # FAISS needs as many rows as centroids; repeated ones give each row a centroid of its own.
        if len(rows) < CENTROIDS:
            rows = np.resize(rows, (CENTROIDS, rows.shape[1]))
        columns = rows.shape[1] // SUBVECTOR
        quantiser = faiss.ProductQuantizer(rows.shape[1], columns, 8)
        quantiser.cp.seed = seed
        quantiser.cp.min_points_per_centroid = 1  # say nothing where there are few
        quantiser.train(rows)
        centroids = faiss.vector_to_array(quantiser.centroids)
        return cls(centroids.reshape(columns, CENTROIDS, SUBVECTOR), source.dimension)

    @classmethod
    def from_tensors(cls, parts: Mapping[str, Codes], columns: int, dimension: int) -> Self:
        codebooks = _checked(parts, "codebooks", np.dtype(np.float32), (columns, CENTROIDS, None))
        if columns * codebooks.shape[2] < dimension:
            raise ValueError(f"codebooks of {codebooks.shape} are too few for {dimension} columns")
        return cls(codebooks, dimension)

    @property
    def columns(self) -> int:
        return len(self.codebooks)

    def encode(self, rows: Floats) -> Codes:
        import faiss

        columns, _, width = self.codebooks.shape
        quantiser = faiss.ProductQuantizer(columns * width, columns, 8)
        faiss.copy_array_to_vector(self.codebooks.reshape(-1), quantiser.centroids)
        codes: Codes = quantiser.compute_codes(_filled(rows, columns * width))
        return codes

    def decode(self, codes: Codes) -> Floats:
        vectors = self.codebooks[np.arange(self.columns), codes]
        return vectors.reshape(len(codes), -1)[:, : self.dimension]

    def tensors(self) -> dict[str, Codes]:
        return {"codebooks": self.codebooks}


CODECS: dict[EncodingKind, type[Codec]] = {
    codec.kind: codec for codec in (Float16, Int8, ProductQuantiser)
}


@dataclass(frozen=True)
class Compressed:
    """A compressed modality to be written: what it is of, and its fitted codec."""

    of: str
    codec: Codec

    def described(self, name: str, source: Modality) -> Modality:
        """Its record, from that of the modality that it is of."""
        file = ENCODINGS if self.codec.tensors() else None
        encoding = Encoding(kind=self.codec.kind, of=self.of, columns=self.codec.columns, file=file)
        own = {"name": name, "file": f"{name}.npy", "parts": [], "encoding": encoding}
        return source.model_copy(update=own)

    def encode(self, rows: Floats) -> Codes:
        """Rows (b, d), NaN where lacking, as they are stored, (b, c)."""
        lacking = np.isnan(rows[:, 0])
        codes = self.codec.encode(np.where(lacking[:, None], np.float32(0), rows))
        codes[lacking] = self.codec.lacking
        return codes


class CompressedRows:
    """The rows of a compressed modality, float32 (n, d), decoded as they are asked for.

    `rows[start:stop]` and `rows[indices]` decode these rows alone, `np.asarray(rows)` all of them;
    NaN where an item lacks the modality.

    Attributes:
        stored: what is decoded, a memory map (n, c).
        codec: what decodes it, and encodes more rows alike.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(
        self,
        stored: Codes,
        codec: Codec,
        dimension: int,
        normalised: bool,
        present: NDArray[np.bool_] | None = None,
    ) -> None:
        self.stored = stored
        self.shape = (len(stored), dimension)
        self.codec, self._normalised, self._present = codec, normalised, present

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: slice | NDArray[Any]) -> Floats:
        if not isinstance(index, slice | np.ndarray):
            raise TypeError("rows are chosen by a slice or an array of indices")
        rows = self.codec.decode(np.asarray(self.stored[index]))
        if self._normalised:
            with np.errstate(over="ignore", invalid="ignore"):  # `verify` finds what is not finite
                norms = np.linalg.norm(rows, axis=1, keepdims=True)
                rows /= np.maximum(norms, np.float32(1e-12))
        if self._present is not None:
            rows[~self._present[index]] = np.nan
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("decoded rows are always a copy")
        return self[:].astype(dtype or self.dtype, copy=False)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which items have the modality, bool (n,)."""
        return ~np.isnan(self.stored[:, 0]) if self._present is None else self._present


Rows = Floats | CompressedRows


class LazyRows(Protocol):
    """Float32 rows (n, d) that are made as they are asked for, NaN where an item has none."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which items have one, bool (n,)."""

    def __getitem__(self, items: NDArray[np.int64], /) -> Floats: ...


def present_in(rows: Rows | LazyRows) -> NDArray[np.bool_]:
    """Which items have a modality, bool (n,)."""
    return ~np.isnan(rows[:, 0]) if isinstance(rows, np.ndarray) else rows.present


def release_pages(rows: NDArray[Any]) -> None:
    """Give the pages of a mapped array that were read back to the system, so that a pass over it
    holds no more than it read since. Nothing happens to other arrays."""
    pages: Any = rows.base
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def open_compressed(
    modality: Modality, stored: Codes, tensors: Mapping[str, Codes]
) -> CompressedRows:
    """The rows of a modality with an encoding, from its stored rows and the file of tensors.

    Raises:
        ValueError: a tensor is missing, or not what the format says.
    """
    encoding = modality.encoding
    assert encoding is not None
    prefix = f"{modality.name}."
    parts = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    codec = CODECS[encoding.kind].from_tensors(parts, encoding.columns, modality.dimension)
    present = None
    if encoding.file is not None:
        of = {"present": tensors.get(f"{encoding.of}.present")}
        present = _checked(of, "present", np.dtype(np.bool_), (len(stored),))
    return CompressedRows(stored, codec, modality.dimension, modality.normalised, present)


def _checked(
    parts: Mapping[str, Codes | None], name: str, kind: np.dtype[Any], shape: tuple[int | None, ...]
) -> Codes:
    """A tensor of this type and shape; None stands for any length."""
    tensor = parts.get(name)
    if tensor is None:
        raise ValueError(f"{name} is missing")
    fits = tensor.ndim == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != kind or not fits:
        wanted = str(shape).replace("None", "any")
        raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, not {kind} {wanted}")
    if not np.isfinite(tensor).all():
        raise ValueError(f"{name} is not finite")
    return tensor


def _filled(rows: Floats, columns: int) -> Floats:
    """Rows with columns of 0 behind them, up to so many."""
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, columns - rows.shape[1]))))
