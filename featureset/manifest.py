"""The manifest: what a feature set is, from what, how made, how good, and which files it has."""

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

FORMAT_VERSION = "1.4"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
TABLE = "features.parquet"
STUDENT = "student.safetensors"
ENCODINGS = "encodings.safetensors"
NEIGHBOURS = "neighbours.parquet"
CARD = "README.md"
MAP = "map.png"
CROISSANT = "croissant.json"

MANIFEST_BYTES = 2**24  # more than any manifest has: a server could send on for ever
MANIFEST_DEPTH = 32  # of lists and objects in one another; pydantic writes no more than 255


TAKEN_NAMES = ("item_id", "item_index", "label")  # columns of the table beside the modalities
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")

NAME_BYTES = 150  # of a name: those of versions and runs, made of it, have to fit a file system
NAME_RULE = f"give 1 to {NAME_BYTES} bytes without /, @, ::, control signs and a leading dot"


def is_name(name: str) -> bool:
    """Whether a feature set can be called so: its runs and versions get folders of that name."""
    return (
        0 < len(name.encode(errors="replace")) <= NAME_BYTES
        and name.isprintable()
        and name[0] != "."
        and not any(sign in name for sign in ("/", "@", "::"))
    )


def _checked_modality(name: str) -> str:
    if name in TAKEN_NAMES:
        raise ValueError(f"no modality can be called {name}, which is a column of {TABLE}")
    return name


def _checked_time(text: str) -> str:
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is no time in UTC, as {now()}")
    datetime.fromisoformat(text)  # whose ValueError says what is wrong
    return text


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise ValueError(f"{name[:NAME_BYTES]!r} is no plain name; {NAME_RULE}")
    return name


SetName = Annotated[str, AfterValidator(_checked_name)]
FileName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
]
ModalityName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=100),
    AfterValidator(_checked_modality),
]
Time = Annotated[str, AfterValidator(_checked_time)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Coverage = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(ge=0)]
Width = Annotated[int, Field(ge=1)]
Printable = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
OneLine = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
EncodingKind = Literal["float16", "int8", "pq"]

KINDS: tuple[EncodingKind, ...] = get_args(EncodingKind)
STORED_TYPES: dict[EncodingKind, np.dtype[Any]] = {
    "float16": np.dtype("<f2"),
    "int8": np.dtype("|i1"),
    "pq": np.dtype("|u1"),
}


class _Part(BaseModel):
    """A newer minor version may add fields: a reader passes over those it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Producer(_Part):
    """The program that made the set."""

    name: Printable
    version: Printable


class Fingerprints(_Part):
    """sha256 of the inputs; `interactions` is null where none was used.

    Rows of several catalogues have none of one catalogue: `catalogue` and `labels` are then sha256
    of the catalogues' own, in hexadecimal, one a line in the order of the rows (`join`).
    """

    catalogue: Digest
    labels: Digest | None = None
    interactions: Digest | None = None

    def join(self, added: "Fingerprints") -> "Fingerprints":
        """Of rows from these inputs and, after them, from others; `interactions` stays."""
        labels = [each.labels for each in (self, added) if each.labels is not None]
        return Fingerprints(
            catalogue=_of_digests([self.catalogue, added.catalogue]),
            labels=_of_digests(labels) if labels else None,
            interactions=self.interactions,
        )


class DatasetOrigin(_Part):
    """The data set that the features describe."""

    name: Printable
    n_items: Size
    fingerprints: Fingerprints


class InteractionsUse(_Part):
    """Which interactions guided the features: the training part of a division of the data set
    that `fingerprints.interactions` names. `sha256` is of these pairs."""

    protocol: Printable
    split: Printable
    split_seed: Size
    pairs: Size
    sha256: Digest


class Encoding(_Part):
    """How the stored rows of a compressed modality are read as float32 (since format 1.2).

    The modality's `.npy` and its Parquet column hold c = `columns` numbers q an item, which stand
    for the d numbers x of the modality that it is `of`, by tensors of the safetensors file `file`:

    - `float16`: x = q, and the file is not needed. Type float16, c = d.
    - `int8`: x_j = scale_j q_j by `{name}.scale`, float32 (d,). Type int8, c = d.
    - `pq`, product quantisation: x is the first d numbers of the c vectors
      `{name}.codebooks`[m, q_m], m = 0 .. c - 1, side by side; codebooks are float32 (c, 256, w)
      with c w >= d. Type uint8.

    Where the modality is `normalised`, x is then scaled to unit norm. It is lacking where the
    modality `of` is: there the Parquet column is null, and in the `.npy` a row of float16 is NaN,
    while one of int8 and pq is 0 and stands for nothing: `{of}.present` in `file`, bool (n,), is
    false.
    """

    kind: EncodingKind
    of: ModalityName
    columns: Width
    file: FileName | None = None


class Modality(_Part):
    """One modality: its generic width, its distilled width, the share of items that have it.

    Where there is a student, `parts` are the modalities whose outputs it sums before the norm;
    empty for a modality with a linear layer of its own. `nested` are the numbers of leading
    columns that work by themselves (to unit norm where `normalised`). A modality without an
    `encoding` is stored as it is, in float32.
    """

    name: ModalityName
    file: FileName
    source_dimension: Width
    dimension: Width
    normalised: bool
    coverage: Coverage
    parts: list[ModalityName] = []
    nested: list[Width] = []
    encoding: Encoding | None = None

    @property
    def stored_type(self) -> np.dtype[Any]:
        """Type of the numbers in its `.npy`."""
        return STORED_TYPES[self.encoding.kind] if self.encoding else np.dtype("<f4")

    @property
    def stored_columns(self) -> int:
        """Numbers an item in its `.npy`."""
        return self.encoding.columns if self.encoding else self.dimension

    @property
    def bytes_an_item(self) -> int:
        """Of its `.npy`."""
        return self.stored_columns * self.stored_type.itemsize


class Labels(_Part):
    """The items' labels: how many kinds, their names, the share of items with one."""

    count: Size
    names: list[str]
    coverage: Coverage


class Student(_Part):
    """How the student embeds a new item: leaky_relu(W ((x - mean) / scale) + b).

    A negative slope of 1 leaves leaky_relu out; rows get unit norm where `normalised`, and
    (x - mean) / scale does first where `input_normalised`.
    """

    file: FileName = STUDENT
    negative_slope: float
    normalised: bool
    input_normalised: bool = False


class Neighbours(_Part):
    """Which `neighbours.parquet` is there (since format 1.2): the `k` nearest others of every item.

    Its columns are item_id and neighbour_id, strings, and similarity, float32: the mean over the
    `modalities` of the cosine of the two items' rows, 0 where one of them lacks the modality. An
    item's neighbours are together, the most similar first, ties in the order of the rows. Items
    that lack all of the modalities have no neighbours and are nobody's.
    """

    file: FileName = NEIGHBOURS
    k: Width
    modalities: Annotated[list[ModalityName], Field(min_length=1)]


class Derivation(_Part):
    """How a set came from another one by its student, without stage one (since format 1.3).

    The first `kept` rows are those of the set called `name`, whose manifest `manifest_sha256` is
    of; the other `added` ones its student made from the `catalogue`. `trained_on` is what stage
    one made the student from, and what the manifest's method, settings, seed, interactions and
    quality are of, but for the quality of compressed modalities, which is that of these rows.
    """

    name: SetName
    manifest_sha256: Digest
    kept: Size
    added: Size
    catalogue: DatasetOrigin
    trained_on: DatasetOrigin


class FileRecord(_Part):
    """What a file must be."""

    sha256: Digest
    bytes: Size


class Manifest(_Part):
    """Everything about a feature set but the numbers themselves (format version 1).

    `licence`, best an SPDX identifier, and `contact` are what its maker says (since format 1.4).
    `default_modalities` are for a reader who names none; all that are not compressed where it is
    empty. A reader of format 1.1 or before refuses a set with compressed modalities (their files
    are not float32) and reads any other of format 1.2 to 1.4.
    """

    format_version: Printable = FORMAT_VERSION
    name: SetName
    created: Time
    producer: Producer
    method: Printable
    settings: dict[str, Any]
    seed: int
    dataset: DatasetOrigin
    interactions: InteractionsUse | None = None
    modalities: Annotated[list[Modality], Field(min_length=1)]
    default_modalities: list[ModalityName] = []
    labels: Labels | None = None
    student: Student | None = None
    neighbours: Neighbours | None = None
    derived_from: Derivation | None = None
    licence: OneLine | None = None
    contact: OneLine | None = None
    quality: dict[str, Any] = {}
    files: dict[FileName, FileRecord] = {}

    @property
    def is_guided(self) -> bool:
        """Whether interactions took part in how the set was made, whether it says which or not."""
        return bool(self.interactions or self.dataset.fingerprints.interactions)

    @property
    def plain(self) -> list[Modality]:
        """The modalities that are stored as they are."""
        return [modality for modality in self.modalities if modality.encoding is None]

    @property
    def plain_modalities(self) -> list[str]:
        """Their names."""
        return [modality.name for modality in self.plain]

    @property
    def layers(self) -> list[Modality]:
        """The modalities for which a student has a linear layer of their own; what is neither
        compressed nor among them is a sum of what these layers give."""
        return [modality for modality in self.plain if not modality.parts]

    @property
    def student_sha256(self) -> str | None:
        """What identifies the student, its file and how it embeds; None without one."""
        if self.student is None:
            return None
        described = self.student.model_dump_json() + self.files[self.student.file].sha256
        return hashlib.sha256(described.encode()).hexdigest()

    @property
    def usual_modalities(self) -> list[str]:
        """Names of the modalities for a reader who names none."""
        return list(self.default_modalities) or self.plain_modalities

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError("two modalities have one name")
        for modality in self.modalities:
            widths = modality.nested
            if widths != sorted(set(widths)) or (widths and widths[-1] > modality.dimension):
                raise ValueError(f"{modality.name}: nested widths do not ascend to its dimension")
        if self.labels is not None and self.labels.count != len(self.labels.names):
            raise ValueError(f"{self.labels.count} labels have {len(self.labels.names)} names")
        came = self.derived_from
        if came is not None and came.kept + came.added != self.dataset.n_items:
            raise ValueError("kept and added rows are not all of the items")
        self._names_its_modalities(names)
        self._has_sound_encodings()
        folded = [name.casefold() for name in (MANIFEST, SIGNATURE, *self.files)]
        if len(set(folded)) != len(folded):
            raise ValueError("two files differ in case alone, or one is called as the manifest")
        if self.files and (missing := self._needed_files() - set(self.files)):
            raise ValueError(f"no record of the file {sorted(missing)[0]}")
        return self

    def _names_its_modalities(self, names: list[str]) -> None:
        """Whether all that stands for a modality is one, once, of the kind that it has to be."""
        for listed in (
            self.default_modalities,
            self.neighbours.modalities if self.neighbours else [],
            *(modality.parts for modality in self.modalities),
        ):
            if len(set(listed)) != len(listed):
                raise ValueError(f"{listed} name a modality twice")
        named = [*self.default_modalities, *(part for m in self.modalities for part in m.parts)]
        if self.neighbours is not None:
            named += self.neighbours.modalities
        if unknown := set(named) - set(names):
            raise ValueError(f"no modality is called {sorted(unknown)[0]}")
        layers = {modality.name for modality in self.layers}
        for modality in self.modalities:
            if without := set(modality.parts) - layers:
                raise ValueError(f"{modality.name} is a sum of {sorted(without)[0]}, itself one")
        for modality in self.plain:
            if self.student is not None and modality.normalised != self.student.normalised:
                raise ValueError(f"the student and {modality.name} differ in `normalised`")

    def _has_sound_encodings(self) -> None:
        plain = {m.name: m for m in self.modalities if m.encoding is None}
        for modality in self.modalities:
            if (encoding := modality.encoding) is None:
                continue
            source = plain.get(encoding.of)
            if source is None:
                raise ValueError(f"{modality.name} is made of {encoding.of}, which is no modality")
            if source.dimension != modality.dimension:
                raise ValueError(f"{modality.name} is not as wide as {encoding.of}")
            if encoding.kind != "float16" and encoding.file is None:
                raise ValueError(f"the encoding of {modality.name} names no file")
            if encoding.kind != "pq" and encoding.columns != modality.dimension:
                raise ValueError(f"{modality.name} has not one column a dimension")

    def _needed_files(self) -> set[str]:
        needed = {TABLE, *(modality.file for modality in self.modalities)}
        needed |= {m.encoding.file for m in self.modalities if m.encoding and m.encoding.file}
        if self.student is not None:
            needed.add(self.student.file)
        if self.neighbours is not None:
            needed.add(self.neighbours.file)
        return needed


def _of_digests(digests: list[str]) -> str:
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def now() -> str:
    """The time in UTC, to the second, as manifests give it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
