"""The manifest: what a feature set is, from what, how made, how good, and which files it has."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

FORMAT_VERSION = "1.0"
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


class Modality(_Part):
    """One modality: its generic width, its distilled width, the share of items that have it."""

    name: ModalityName
    file: FileName
    source_dimension: Width
    dimension: Width
    normalised: bool
    coverage: Coverage


class Labels(_Part):
    """The items' labels: how many kinds, their names, the share of items with one."""

    count: Size
    names: list[str]
    coverage: Coverage


class Student(_Part):
    """How the student embeds a new item: leaky_relu(W ((x - mean) / scale) + b).

    A negative slope of 1 leaves leaky_relu out; rows get unit norm where `normalised`.
    """

    file: FileName = STUDENT
    negative_slope: float
    normalised: bool


class FileRecord(_Part):
    """What a file must be."""

    sha256: Digest
    bytes: Size


class Manifest(_Part):
    """Everything about a feature set but the numbers themselves (format version 1)."""

    format_version: str = FORMAT_VERSION
    name: str
    created: str
    producer: Producer
    method: str
    settings: dict[str, Any]
    seed: int
    dataset: DatasetOrigin
    modalities: list[Modality]
    labels: Labels | None = None
    student: Student | None = None
    quality: dict[str, Any] = {}
    files: dict[FileName, FileRecord] = {}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [modality.name for modality in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError("two modalities have one name")
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
