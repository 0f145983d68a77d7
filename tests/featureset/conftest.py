"""A small feature set, made as stage one makes one."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgfd.featureset import (
    CODECS,
    KINDS,
    Compressed,
    CosineRows,
    DatasetOrigin,
    FeatureSetWriter,
    Fingerprints,
    Labels,
    Manifest,
    Modality,
    Neighbours,
    Producer,
    Student,
    compression_loss,
    nearest,
    now,
    publish_folder,
)

DIMENSIONS = {"image": 4, "text": 3}
SOURCES = {"image": 6, "text": 5}
IDS = np.array(["a", "b", "ç", "d,e", "f"], dtype=object)
LABELS = np.array(["Pens", None, "Desks", "Pens", None], dtype=object)


def student(rng: np.random.Generator) -> dict[str, np.ndarray]:
    tensors = {}
    for name, d in DIMENSIONS.items():
        source = SOURCES[name]
        tensors[f"{name}.weight"] = rng.normal(size=(d, source)).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(size=d).astype(np.float32)
        tensors[f"{name}.mean"] = rng.normal(size=source).astype(np.float32)
        tensors[f"{name}.scale"] = np.ones(source, dtype=np.float32)
    return tensors


def make_feature_set(target: Path, seed: int = 0, overwrite: bool = False) -> dict[str, np.ndarray]:
    """Write a set to `target`; returns its features. Item 2 lacks its image."""
    rng = np.random.default_rng(seed)
    values = {
        name: rng.normal(size=(len(IDS), d)).astype(np.float32) for name, d in DIMENSIONS.items()
    }
    for rows in values.values():
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    values["image"][2] = np.nan
    manifest = Manifest(
        name=target.name,
        created=now(),
        producer=Producer(name="sgfd", version="0"),
        method="sgfd",
        settings={"dimension": 4},
        seed=seed,
        dataset=DatasetOrigin(
            name="tiny", n_items=len(IDS), fingerprints=Fingerprints(catalogue="0" * 64)
        ),
        modalities=[
            Modality(
                name=name,
                file=f"{name}.npy",
                source_dimension=SOURCES[name],
                dimension=d,
                normalised=True,
                coverage=float((~np.isnan(values[name][:, 0])).mean()),
            )
            for name, d in DIMENSIONS.items()
        ],
        labels=Labels(count=2, names=["Desks", "Pens"], coverage=0.6),
        student=Student(negative_slope=0.01, normalised=True),
        quality={"text": {"fidelity": 0.5}},
    )
    folder = target.parent / f".{target.name}.new"
    folder.mkdir()
    with FeatureSetWriter(folder, IDS, LABELS, DIMENSIONS) as writer:
        for start in range(0, len(IDS), 2):
            writer.append({name: rows[start : start + 2] for name, rows in values.items()})
        writer.add_student(student(rng))
        writer.finish(manifest)
    publish_folder(folder, target, overwrite)
    return values


@pytest.fixture
def feature_set(tmp_path: Path) -> Path:
    make_feature_set(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def make() -> object:
    return make_feature_set


class Source:
    """Rows that a codec is fitted to."""

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.dimension = values, values.shape[1]
        self.present = ~np.isnan(values[:, 0])

    def block(self, start: int, stop: int) -> np.ndarray:
        return self.values[start:stop]

    def rows(self, index: np.ndarray) -> np.ndarray:
        return self.values[index]


@pytest.fixture(scope="session")
def source() -> type[Source]:
    return Source


def unit_rows() -> np.ndarray:
    """Of 300 items, float32 (300, 10); items 3, 7 and 299 lack theirs."""
    rows = np.random.default_rng(0).normal(size=(300, 10)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[[3, 7, 299]] = np.nan
    return rows


def make_compressed_set(target: Path, rows: np.ndarray | None = None, block: int = 64) -> None:
    """Rows `fused` in every kind of encoding, and their 4 nearest others; unit rows where None."""
    normalised = rows is None
    rows = unit_rows() if rows is None else rows
    n, d = rows.shape
    fused = Modality(
        name="fused",
        file="fused.npy",
        source_dimension=d,
        dimension=d,
        normalised=normalised,
        coverage=float((~np.isnan(rows[:, 0])).mean()),
    )
    compressed = {
        f"fused_{kind}": Compressed("fused", CODECS[kind].fit(Source(rows), 0)) for kind in KINDS
    }
    manifest = Manifest(
        name=target.name,
        created=now(),
        producer=Producer(name="sgfd", version="0"),
        method="sgfd-plus",
        settings={},
        seed=0,
        dataset=DatasetOrigin(
            name="tiny", n_items=n, fingerprints=Fingerprints(catalogue="0" * 64)
        ),
        modalities=[fused, *(each.described(name, fused) for name, each in compressed.items())],
        neighbours=Neighbours(k=4, modalities=["fused"]),
    )
    ids = [f"item {number}" for number in range(n)]
    target.mkdir()
    with FeatureSetWriter(target, ids, [None] * n, {"fused": d}, compressed) as writer:
        for start in range(0, n, block):
            writer.append({"fused": rows[start : start + block]})
        opened = writer.complete_rows(manifest)
        quality = compression_loss(manifest.modalities, opened, 0)
        writer.add_neighbours(nearest(CosineRows([opened["fused"]]), 4))
        writer.finish(manifest.model_copy(update={"quality": quality}))


@pytest.fixture
def compressed_set(tmp_path: Path) -> Path:
    make_compressed_set(tmp_path / "compressed")
    return tmp_path / "compressed"


@pytest.fixture
def make_compressed() -> Callable[..., None]:
    return make_compressed_set


def reached(process: subprocess.Popen, port: int) -> None:
    """Wait until a server of a process takes connections."""
    for _ in range(600):
        assert process.poll() is None, "the server has ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    pytest.fail("the server does not start")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """The environment in which s3:// is a server of another process, with S3's own protocol."""
    for module in ("s3fs", "moto", "flask", "flask_cors"):
        pytest.importorskip(module)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            reached(process, port)
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        finally:
            process.kill()


@dataclass
class Bucket:
    """A bucket of the test's own. `environment` makes s3:// mean its server."""

    name: str
    environment: dict[str, str]
    client: Any

    @property
    def url(self) -> str:
        return f"s3://{self.name}/sets/office"

    def listing(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(each["Key"] for each in found)

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def write(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)


@pytest.fixture
def bucket(s3_server, monkeypatch) -> Iterator[Bucket]:
    import boto3
    import s3fs

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket = Bucket(f"b{time.monotonic_ns()}", s3_server, boto3.client("s3"))
    bucket.client.create_bucket(Bucket=bucket.name)
    yield bucket
    s3fs.S3FileSystem.clear_instance_cache()


@dataclass
class Web:
    """A web server that gives `folder`; `log` are its requests so far."""

    folder: Path
    address: str
    file: Path

    @property
    def log(self) -> list[str]:
        return self.file.read_text().splitlines()


@pytest.fixture
def web(tmp_path_factory) -> Iterator[Web]:
    pytest.importorskip("aiohttp")
    folder, log = tmp_path_factory.mktemp("served"), tmp_path_factory.mktemp("log") / "log"
    server = [sys.executable, str(Path(__file__).with_name("web_server.py")), folder, log]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline())
            yield Web(folder, f"http://127.0.0.1:{port}", log)
        finally:
            process.kill()


def make_set_of_rows(
    target: Path,
    rows: dict[str, np.ndarray],
    labels: np.ndarray | None = None,
    ids: list[str] | None = None,
    **described: object,
) -> None:
    """Rows as they are; `described` are further fields of the manifest."""
    n = len(next(iter(rows.values())))
    ids = ids or [f"item {number}" for number in range(n)]
    labels = np.full(n, None, dtype=object) if labels is None else labels
    names = sorted({label for label in labels if label is not None})
    fields = {
        "name": target.name,
        "created": now(),
        "producer": Producer(name="sgfd", version="0"),
        "method": "raw",
        "settings": {},
        "seed": 0,
        "dataset": DatasetOrigin(
            name="tiny", n_items=n, fingerprints=Fingerprints(catalogue="0" * 64)
        ),
        "modalities": [
            Modality(
                name=name,
                file=f"{name}.npy",
                source_dimension=values.shape[1],
                dimension=values.shape[1],
                normalised=False,
                coverage=float((~np.isnan(values[:, 0])).mean()),
            )
            for name, values in rows.items()
        ],
        "labels": Labels(
            count=len(names),
            names=names,
            coverage=sum(label is not None for label in labels) / max(n, 1),
        )
        if names
        else None,
    }
    target.mkdir(parents=True)
    widths = {name: values.shape[1] for name, values in rows.items()}
    with FeatureSetWriter(target, ids, labels, widths) as writer:
        writer.append(rows)
        writer.finish(Manifest(**fields | described))


@pytest.fixture
def make_rows_set() -> Callable[..., None]:
    return make_set_of_rows
