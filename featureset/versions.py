"""Names with versions: `office@3f2a9c10b7d41e05` is a feature set that never changes.

    artifacts/office/                     a feature set at work, which may be replaced
    artifacts/office@3f2a9c10b7d41e05/    one that was published: named by its manifest's sha256
    artifacts/office@latest               a line of text: the sha256 of the newest one's manifest

The manifest holds the sha256 of every other file, so the version stands for all bytes. The same
names are used in a folder, in an object store and behind a web server.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.publish import lock_folder, remove_locked, write_file

LATEST = "latest"
VERSION_DIGITS = 16  # of a manifest's sha256, in a folder's name
POINTER_BYTES = 65  # 64 digits and the end of the line

_REFERENCE = re.compile(rf"(.+)@({LATEST}|[0-9a-f]{{{VERSION_DIGITS},64}})")
_DIGEST = re.compile(rb"[0-9a-f]{64}\n?")
_LOCK_SECONDS = 10


def version_of(manifest_sha256: str) -> str:
    """The version of a set, as it stands in names."""
    return manifest_sha256[:VERSION_DIGITS]


def versioned(name: str, manifest_sha256: str) -> str:
    """The name of a version, which is that of its folder."""
    return f"{name}@{version_of(manifest_sha256)}"


def split_version(reference: str) -> tuple[str, str | None]:
    """Name and version (`latest`, or 16 to 64 digits) of a reference; None where it has none.

    Raises:
        FeatureSetError: there is an @ in it, and no version behind that.
    """
    if "@" not in reference:
        return reference, None
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise FeatureSetError(
            reference,
            "names no version",
            f"write NAME@{LATEST}, or NAME@ and {VERSION_DIGITS} to 64 digits of the version",
        )
    return match[1], match[2]


def find(path: Path) -> tuple[Path, str | None]:
    """The folder that `ROOT/NAME`, `ROOT/NAME@VERSION` or `ROOT/NAME@latest` means.

    Returns:
        The folder, and how its manifest's sha256 must begin, None where it may be any. `ROOT/NAME`
        is the latest version where there is no such folder.

    Raises:
        FeatureSetError: there is no latest version, or none can be meant.
    """
    if "@" not in path.name:
        if path.is_dir() or not (path.parent / f"{path.name}@{LATEST}").is_file():
            return path, None
        name, version = path.name, LATEST
    elif path.is_dir() and _REFERENCE.fullmatch(path.name) is None:
        return path, None  # a folder of somebody's own
    else:
        name, found = split_version(path.name)
        assert found is not None
        version = found
    if version == LATEST:
        newest = read_latest(path.parent, name)
        if newest is None:
            raise FeatureSetError(
                path, f"{name} has no latest version", "publish it: `pipeline features publish`"
            )
        version = newest
    return path.parent / versioned(name, version), version


def read_latest(root: Path, name: str) -> str | None:
    """sha256 of the latest version's manifest; None where no version was published.

    Raises:
        FeatureSetError: the pointer is none.
    """
    pointer = root / f"{name}@{LATEST}"
    if pointer.exists() and not pointer.is_file():  # such as a pipe, on which we would wait
        raise FeatureSetError(pointer, "is no regular file", "remove it")
    try:
        with pointer.open("rb") as file:
            return parse_pointer(str(pointer), file.read(POINTER_BYTES + 1))
    except FileNotFoundError:
        return None


def parse_pointer(where: str, content: bytes) -> str:
    """The digest that a pointer holds.

    Raises:
        FeatureSetError: it holds something else.
    """
    if _DIGEST.fullmatch(content) is None:
        raise FeatureSetError(
            where, "is no sha256 of a manifest", "remove it and publish a version again"
        )
    return content.decode().strip()


def move_latest(root: Path, name: str, expected: str | None, manifest_sha256: str) -> None:
    """Make a version the latest one, if what was the latest before still is.

    Raises:
        FeatureSetError: another one was made the latest meanwhile.
    """
    with _held(root / f".{name}@{LATEST}.partial") as held:
        if (newest := read_latest(root, name)) not in (expected, manifest_sha256):
            raise moved_meanwhile(root / name, newest, manifest_sha256)
        if newest != manifest_sha256:
            write_file(held / LATEST, f"{manifest_sha256}\n".encode())
            (held / LATEST).replace(root / f"{name}@{LATEST}")


def moved_meanwhile(where: str | Path, newest: str | None, manifest_sha256: str) -> FeatureSetError:
    """What the second of two writers is told."""
    other = "nothing" if newest is None else version_of(newest)
    return FeatureSetError(
        f"{where}@{LATEST}",
        f"was moved to {other} by another writer meanwhile; version "
        f"{version_of(manifest_sha256)} is there, and not the latest",
        "run the command again to make it the latest",
    )


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[Path]:
    """Hold a folder for the moment that it takes to compare and write; then it is gone."""
    end = time.monotonic() + _LOCK_SECONDS
    while (lock := lock_folder(folder)) is None:
        if time.monotonic() > end:
            raise FeatureSetError(folder, "is held by another process", "end it, and try again")
        time.sleep(0.01)
    try:
        yield folder
    finally:
        remove_locked(folder)
        os.close(lock)
