"""The manifest: what a feature set is, from what, how made, how good, and which files it has."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

FORMAT_VERSION = "1.1"
MANIFEST = "manifest.json"
TABLE = "features.parquet"
STUDENT = "student.safetensors"
CARD = "README.md"

FileName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)
]
ModalityName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=100)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Coverage = Annotated[float, Field(ge=0, le=1)]
Size = Annotated[int, Field(ge=0)]
Width = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    """A newer minor version may add fields: a reader passes over those it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Producer(_Part):
    """The program that made the set."""

    name: str
    version: str


class Fingerprints(_Part):
    """sha256 of the inputs; `interactions` is null where none was used."""

    catalogue: Digest
    labels: Digest | None = None
    interactions: Digest | None = None


class DatasetOrigin(_Part):
    """The data set that the features describe."""

    name: str
    n_items: Size
    fingerprints: Fingerprints


class InteractionsUse(_Part):
    """Which interactions guided the features: the training part of a division of the data set
    that `fingerprints.interactions` names. `sha256` is of these pairs."""

    protocol: str
    split: str
    split_seed: int
    pairs: Size
    sha256: Digest


class Modality(_Part):
    """One modality: its generic width, its distilled width, the share of items that have it.

    Where there is a student, `parts` are the modalities whose outputs it sums before the norm;
    empty for a modality with a linear layer of its own. `nested` are the numbers of leading
    columns that work by themselves (to unit norm where `normalised`).
    """

    name: ModalityName
    file: FileName
    source_dimension: Width
    dimension: Width
    normalised: bool
    coverage: Coverage
    parts: list[ModalityName] = []
    nested: list[Width] = []


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


class FileRecord(_Part):
    """What a file must be."""

    sha256: Digest
    bytes: Size


class Manifest(_Part):
    """Everything about a feature set but the numbers themselves (format version 1).

    `default_modalities` are for a reader who names none; all where it is empty.
    """

    format_version: str = FORMAT_VERSION
    name: str
    created: str
    producer: Producer
    method: str
    settings: dict[str, Any]
    seed: int
    dataset: DatasetOrigin
    interactions: InteractionsUse | None = None
    modalities: list[Modality]
    default_modalities: list[ModalityName] = []
    labels: Labels | None = None
    student: Student | None = None
    quality: dict[str, Any] = {}
    files: dict[FileName, FileRecord] = {}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError("two modalities have one name")
        named = [*self.default_modalities, *(part for m in self.modalities for part in m.parts)]
        if unknown := set(named) - set(names):
            raise ValueError(f"no modality is called {sorted(unknown)[0]}")
        if self.files:
            needed = {TABLE, *(modality.file for modality in self.modalities)}
            if self.student is not None:
                needed.add(self.student.file)
            if missing := needed - set(self.files):
                raise ValueError(f"no record of the file {sorted(missing)[0]}")
        return self


def now() -> str:
    """The time in UTC, to the second, as manifests give it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
