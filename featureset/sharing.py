"""Feature sets between teams: pushed to a folder, an object store or a data hub, pulled from them
or from a web server.

A place `URL/NAME` holds the same names as a folder of feature sets (`versions`): `NAME@VERSION` and
`NAME@latest`. What makes that safe for readers:

- a version's files come first, its manifest last, `NAME@latest` after that: what a reader finds is
  whole, and a writer who was killed leaves nothing that passes for a set;
- a version is named by its manifest's sha256 and never written over by anything else, so two
  writers cannot mix; `NAME@latest` is moved only from what it was when the writer began;
- no server is believed: what is read is counted and hashed, and lands by one rename.

fsspec does the talking: whatever it knows can be pulled from, and pushed to if it can be written.
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.manifest import MANIFEST, SIGNATURE, FileRecord, Manifest
from sgfd.featureset.publish import lock_folder, publish_folder, write_file
from sgfd.featureset.reading import FeatureSet, folder_state, parse_manifest
from sgfd.featureset.signature import SIGNATURE_BYTES, check_signature
from sgfd.featureset.verification import changed_files, verify
from sgfd.featureset.versions import (
    LATEST,
    POINTER_BYTES,
    move_latest,
    moved_meanwhile,
    parse_pointer,
    read_latest,
    split_version,
    version_of,
    versioned,
)

MANIFEST_BYTES = 2**26  # more than any manifest has: a server could send on for ever
BLOCK_BYTES = 2**20
PART_BYTES = 2**23  # of one request to an object store
MOST_PARTS = 10_000  # of one object, in S3
TRIES = 3  # that brought nothing new, before a transfer is given up

_HTTP = ("http", "https")
_S3 = ("s3", "s3a")
_HUB = "hf"  # whose versions are its own revisions: NAME@REVISION
_OBJECT_STORES = (*_S3, "gs", "gcs", "abfs", "abfss", "az", "adl", _HUB)  # they know no folders
_CREDENTIALS = re.compile(r"//[^/\s@]*@")

Advance = Callable[[int], None]
Progress = Callable[[int, str], AbstractContextManager[Advance]]


@contextlib.contextmanager
def in_silence(total: int, label: str) -> Iterator[Advance]:
    """No progress is shown."""
    yield lambda steps: None


@dataclass(frozen=True)
class Shared:
    """What a push or a pull came to.

    Attributes:
        name, version, manifest_sha256: of the set.
        where: its folder or URL now.
        new: whether it was not there before.
        latest: whether it is the latest version of its name there now.
    """

    name: str
    version: str
    manifest_sha256: str
    where: str
    new: bool
    latest: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def push(
    opened: FeatureSet, url: str, *, plain: bool = False, progress: Progress = in_silence
) -> Shared:
    """Publish a feature set as a version of the name at the end of a URL, and as its latest.

    A push that was interrupted goes on where it was. A version that is there already is only made
    the latest.

    Args:
        opened: the set; all that `verify` checks must hold.
        url: `PLACE/NAME`, a folder's path or a URL that fsspec can write.
        plain: put the files at the URL itself, as data hubs want them, without a version; what is
            there is never replaced.
        progress: of bytes, as `progress(total, label)`.

    Raises:
        FeatureSetError: the set is not sound; the place can't be written, holds a name that
            differs in case alone or, where `plain`, something else; another writer made another
            version the latest meanwhile.
    """
    place = _place(url)
    if place.version is not None:
        raise FeatureSetError(place.shown, "names a version", "leave it out: the set decides it")
    if place.protocol in _HTTP:
        raise FeatureSetError(
            place.shown, "can only be read", "push to a folder or an object store (s3://...)"
        )
    for problem in verify(opened.path):
        raise FeatureSetError(opened.path, f"is not sound ({problem})", "push a sound one")
    digest = opened.manifest_sha256
    plain = plain or place.protocol == _HUB
    if place.protocol != _HUB:  # whose names are its own affair
        _refuse_twin(place)
    before = None if plain else place.latest()
    folder = place.folder(place.name if plain else versioned(place.name, digest))
    if place.root is None:
        new = _upload(opened, folder, plain, progress)
    else:
        source = _Folder.local(opened.path)
        target = place.root / folder.name
        new = _land(source, _Content.of(opened), target, "pushing", progress)
    if before is not None:
        place.move_latest(before, digest)
    return Shared(place.name, version_of(digest), digest, folder.shown, new, not plain)


def pull(
    url: str,
    root: Path,
    *,
    name: str | None = None,
    key: Path | None = None,
    progress: Progress = in_silence,
) -> Shared:
    """Fetch a feature set into a folder of sets, whole or not at all.

    A pull that was interrupted goes on where it was. Every byte is checked against the manifest,
    the manifest against the version, and where a key is given, the signature comes first.

    Args:
        url: `PLACE/NAME` for its latest version, which becomes the latest under the root too, or
            for a set that lies there itself; `PLACE/NAME@VERSION` for just that one.
        root: where `NAME@VERSION` is put.
        name: another name than the URL's.
        key: a file of public SSH keys; only a set that one of them signed is taken.
        progress: of bytes, as `progress(total, label)`.

    Raises:
        FeatureSetError: there is none, it can't be read, it is not what its manifest or its name
            says or not signed by the key, there is no room for it, or another process is fetching
            it.
    """
    place = _place(url)
    name = name or place.name
    wanted = place.version
    if wanted in (None, LATEST) and place.protocol != _HUB:
        newest = place.latest().digest
        if newest is None and wanted == LATEST:
            raise FeatureSetError(place.shown, "has no latest version", "check the address")
        wanted = newest
    folder = place.folder(place.name if wanted is None else versioned(place.name, wanted))
    content = _Content.fetch(folder)
    if wanted is not None and not content.digest.startswith(wanted):
        raise FeatureSetError(
            folder.at(MANIFEST),
            f"is not that of version {version_of(wanted)}: it was changed or swapped",
            "ask whoever published it",
        )
    if key is not None:
        check_signature(folder.at(SIGNATURE), content.manifest_bytes, content.signature, key)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(root, error) from None
    _refuse_twin(_place(str(root / name)))
    before = read_latest(root, name)
    target = root / versioned(name, content.digest)
    new = _land(folder, content, target, "pulling", progress)
    latest = place.version in (None, LATEST)
    if latest:
        move_latest(root, name, before, content.digest)
    return Shared(name, version_of(content.digest), content.digest, str(target), new, latest)


@dataclass(frozen=True)
class _Pointer:
    """What `NAME@latest` holds, and by what an object store knows that it still does."""

    digest: str | None
    etag: str | None = None


@dataclass(frozen=True)
class _Place:
    """`PARENT/NAME[@VERSION]`: `root` is the parent where that is a folder of this machine."""

    protocol: str
    fs: Any
    parent: str
    shown_parent: str
    name: str
    version: str | None
    root: Path | None

    @property
    def shown(self) -> str:
        return self.folder(self.name).shown

    def folder(self, name: str) -> "_Folder":
        shown = f"{self.shown_parent}/{name}" if self.root is None else str(self.root / name)
        return _Folder(self.protocol, self.fs, f"{self.parent}/{name}", shown)

    def names(self) -> list[str]:
        """What lies beside it."""
        if self.root is not None:
            return os.listdir(self.root) if self.root.is_dir() else []  # noqa: PTH208
        with _talking(self.shown_parent):
            try:
                listed = self.fs.ls(self.parent, detail=False, refresh=True)
            except FileNotFoundError:
                return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in listed]

    def latest(self) -> _Pointer:
        if self.root is not None:
            return _Pointer(read_latest(self.root, self.name))
        parent = _Folder(self.protocol, self.fs, self.parent, self.shown_parent)
        name = f"{self.name}@{LATEST}"
        # Asked for first: where the pointer moves between the two, its tag is an old one.
        etag = (parent.info(name) or {}).get("ETag") if self.protocol in _S3 else None
        content = parent.read_or_none(name, POINTER_BYTES)
        if content is None:
            return _Pointer(None)
        return _Pointer(parse_pointer(parent.at(name), content), etag)

    def move_latest(self, before: _Pointer, digest: str) -> None:
        """Compare and swap, in one step where the place can: a folder of this machine, S3."""
        if self.root is not None:
            move_latest(self.root, self.name, before.digest, digest)
            return
        newest = self.latest().digest
        if newest == before.digest != digest:
            path = f"{self.parent}/{self.name}@{LATEST}"
            condition: dict[str, str] = {}
            if self.protocol in _S3:
                condition = {"IfMatch": before.etag} if before.etag else {"mode": "create"}
            with _talking(f"{self.shown}@{LATEST}"), contextlib.suppress(FileExistsError):
                try:
                    self.fs.pipe_file(path, f"{digest}\n".encode(), **condition)
                except OSError as error:
                    if "condition" not in str(error):  # the one that was not met
                        raise
            newest = self.latest().digest
        if newest != digest:
            raise moved_meanwhile(self.shown, newest, digest)


@dataclass(frozen=True)
class _Folder:
    """A folder of files at a place; `shown` is its address without secrets."""

    protocol: str
    fs: Any
    path: str
    shown: str

    @classmethod
    def local(cls, path: Path) -> "_Folder":
        import fsspec

        return cls("file", fsspec.filesystem("file"), str(path.absolute()), str(path))

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def at(self, name: str) -> str:
        return f"{self.shown}/{name}"

    def info(self, name: str) -> dict[str, Any] | None:
        """What the place says of a file, as it is now; None where there is none."""
        with _talking(self.at(name)):
            self.fs.invalidate_cache()
            try:
                found: dict[str, Any] = self.fs.info(f"{self.path}/{name}")
            except FileNotFoundError:
                return None
            return found

    def read_or_none(self, name: str, limit: int) -> bytes | None:
        """A small file's content; None where there is none."""
        with _talking(self.at(name)):
            try:
                with self._stream(name, 0) as (file, _):
                    content = bytearray()
                    while block := file.read(min(BLOCK_BYTES, limit + 1 - len(content))):
                        content += block
            except Exception as error:
                # A web server that keeps its list of files to itself forbids what is not there.
                if isinstance(error, FileNotFoundError) or getattr(error, "status", 0) == 403:
                    return None
                raise
        if len(content) > limit:
            raise FeatureSetError(
                self.at(name), f"has more than {limit} bytes", "ask whoever published it"
            )
        return bytes(content)

    def receive(self, name: str, size: int, path: Path, advance: Advance) -> None:
        """Bring a file to `size` bytes, from where it ends now. A broken connection is taken up.

        Raises:
            FeatureSetError: no more comes, and it is too short.
        """
        have = most = path.stat().st_size if path.exists() else 0
        tries = 0
        while have < size:
            why = "no more comes"
            # What came before a connection broke may be lost with it: then a part is asked for.
            stop = have + (size - have >> 2 * tries) + 1 if tries else None
            with path.open("ab") as file:
                try:
                    for start, block in self._blocks(name, have, stop):
                        if start < have:  # the server gives no part of a file: it begins again
                            file.truncate(start)
                            advance(start - have)
                        have = start + file.write(block[: size - start])
                        advance(have - start)
                        if have == size:
                            return
                except _BrokenOffError as error:
                    why = str(error)
            tries = 0 if have > most else tries + 1
            most = max(most, have)
            if tries == TRIES:
                raise FeatureSetError(
                    self.at(name),
                    f"ends after {have} of {size} bytes ({why})",
                    "run the command again, or ask whoever published it",
                )
            time.sleep(0.2 * tries)

    def _blocks(
        self, name: str, offset: int, stop: int | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Where each block stands, and its bytes; from the start if there is no other way.

        A web server is asked for no more than what is before `stop`.
        """
        try:
            with self._stream(name, offset, stop) as (stream, start):
                while block := stream.read(BLOCK_BYTES):
                    yield start, block
                    start += len(block)
        except FeatureSetError:
            raise
        except Exception as error:  # whatever a library raises when a connection breaks
            raise _BrokenOffError(_reason(error)) from None

    @contextlib.contextmanager
    def _stream(self, name: str, offset: int, stop: int | None = None) -> Iterator[tuple[Any, int]]:
        """A file of bytes, and where in the whole it begins: at `offset`, or at 0."""
        path = f"{self.path}/{name}"
        if self.protocol in _HTTP:
            # One request, read as far as we want to: a server's word about sizes is not needed.
            headers = {"Accept-Encoding": "identity"}
            if offset or stop:
                headers["Range"] = f"bytes={offset}-{stop - 1 if stop else ''}"
            with self.fs.open(path, "rb", block_size=0, size=1, headers=headers) as file:
                yield file, offset if file.r.status == 206 else 0
            return
        folder = Path(self.path)
        if self.protocol == "file" and (folder / name).resolve().parent != folder.resolve():
            raise FeatureSetError(
                self.at(name), "is a link that leads out of the folder", "put the file itself there"
            )
        self.fs.invalidate_cache()  # what was known of it may be of an earlier one
        with self.fs.open(path, "rb", block_size=PART_BYTES) as file:
            file.seek(offset)
            yield file, offset

    def holds(self, name: str, record: FileRecord, trusted: bool) -> bool | None:
        """Whether a file is there as recorded, by its size alone where `trusted`; None: no file."""
        found = self.info(name)
        if found is None:
            return None
        if found.get("size") != record.bytes:
            return False
        if trusted:
            return True
        digest = hashlib.sha256()
        with _talking(self.at(name)):
            for _, block in self._blocks(name, 0):
                digest.update(block)
        return digest.hexdigest() == record.sha256

    def put(self, name: str, source: Path | bytes, replace: bool) -> None:
        """Upload a file, or what is to be in it.

        Raises:
            FeatureSetError: it can't be, another writer's is there and may not be replaced, or the
                place holds another number of bytes afterwards.
        """
        sent = len(source) if isinstance(source, bytes) else source.stat().st_size
        options: dict[str, Any] = {}
        if self.protocol in _S3:
            # Several parts are in memory at once: by themselves they would be of 50 MB.
            options["chunksize"] = max(PART_BYTES, -(-sent // MOST_PARTS))
            options["mode"] = "overwrite" if replace else "create"
        with _talking(self.at(name)):
            try:
                if self.protocol not in _OBJECT_STORES:
                    self.fs.makedirs(self.path, exist_ok=True)
                path = f"{self.path}/{name}"
                if isinstance(source, bytes):
                    self.fs.pipe_file(path, source, **options)
                else:
                    self.fs.put_file(str(source), path, **options)
            except FileExistsError:
                raise _taken(self) from None
        size = (self.info(name) or {}).get("size")
        if size != sent:
            raise FeatureSetError(
                self.at(name),
                f"has {size} bytes after {sent} were written",
                "run the command again, or choose another place",
            )


@dataclass(frozen=True)
class _Content:
    """A set's manifest, read and as bytes, and its signature where there is one."""

    manifest_bytes: bytes
    manifest: Manifest
    signature: bytes | None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.manifest_bytes).hexdigest()

    @classmethod
    def of(cls, opened: FeatureSet) -> "_Content":
        content = cls.fetch(_Folder.local(opened.path))
        if content.digest != opened.manifest_sha256:
            raise _replaced(opened)
        return content

    @classmethod
    def fetch(cls, folder: _Folder) -> "_Content":
        content = folder.read_or_none(MANIFEST, MANIFEST_BYTES)
        if content is None:
            raise FeatureSetError(
                folder.shown,
                f"is no feature set: it has no {MANIFEST}",
                "check the address and your rights",
            )
        manifest = parse_manifest(folder.at(MANIFEST), content)
        return cls(content, manifest, folder.read_or_none(SIGNATURE, SIGNATURE_BYTES))


def _land(source: _Folder, content: _Content, target: Path, label: str, progress: Progress) -> bool:
    """Put a set's files in a folder of this machine by one rename; false if it is there already."""
    partial = target.with_name(f".{target.name}.partial")
    if target.is_symlink():
        raise FeatureSetError(target, "is a link", "remove it")
    try:
        lock = lock_folder(partial)
    except OSError as error:
        raise _unwritable(target.parent, error) from None
    if lock is None:
        raise FeatureSetError(
            target, "another process is writing it at this moment", "wait for it to end"
        )
    try:
        if target.exists():
            _check_same(target, content)
            if content.signature is not None:  # it may have been signed since
                write_file(target / SIGNATURE, content.signature)
            shutil.rmtree(partial)
            return False
        result = partial / "result"
        result.mkdir(exist_ok=True)
        _receive_all(source, content.manifest, result, label, progress)
        write_file(result / MANIFEST, content.manifest_bytes)
        if content.signature is not None:
            write_file(result / SIGNATURE, content.signature)
        known = {MANIFEST, SIGNATURE, *content.manifest.files}
        for entry in result.iterdir():
            if entry.name not in known:  # of another set, whose push was given up
                entry.unlink()
            else:
                entry.chmod(0o444)
        FeatureSet(result)  # of the shapes that the manifest says, before anybody sees it
        publish_folder(result, target)
        shutil.rmtree(partial)
        return True
    finally:
        os.close(lock)


def _receive_all(
    source: _Folder, manifest: Manifest, result: Path, label: str, progress: Progress
) -> None:
    total = sum(record.bytes for record in manifest.files.values())
    there = sum(entry.stat().st_size for entry in result.iterdir())
    if total - there > (free := shutil.disk_usage(result).free):
        raise FeatureSetError(
            result.parent.parent, f"has room for {free} of {total - there} bytes", "make room"
        )
    with progress(total, label) as advance:
        for name, record in manifest.files.items():
            _receive_whole(source, name, record, result / name, advance)


def _receive_whole(
    source: _Folder, name: str, record: FileRecord, path: Path, advance: Advance
) -> None:
    """A file as the manifest has it, of which an earlier, interrupted process may have left a part.

    Raises:
        FeatureSetError: what comes is something else.
    """
    begun = path.stat().st_size if path.exists() else 0
    if begun > record.bytes:
        path.unlink()
        begun = 0
    advance(begun)
    while True:
        path.touch()
        source.receive(name, record.bytes, path, advance)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == record.sha256:
                return
        path.unlink()
        advance(-record.bytes)
        if not begun:
            raise FeatureSetError(
                source.at(name),
                "sha256 is not the manifest's: it was changed on the way or where it lies",
                "ask whoever published it",
            )
        begun = 0  # the part may have been of something else: once more from the start


def _upload(opened: FeatureSet, folder: _Folder, plain: bool, progress: Progress) -> bool:
    """Put a set's files at a place, the manifest last; false if it was there already."""
    content, state = _Content.of(opened), folder_state(opened.path)
    there = folder.read_or_none(MANIFEST, MANIFEST_BYTES)
    if there not in (None, content.manifest_bytes):
        raise _taken(folder)
    files = content.manifest.files
    with progress(sum(record.bytes for record in files.values()), "pushing") as advance:
        for name, record in files.items():
            held = folder.holds(name, record, trusted=there is not None)
            if held is False and plain and there is None:
                raise _taken(folder)
            if not held:
                folder.put(name, opened.path / name, replace=not plain)
            advance(record.bytes)
    if folder_state(opened.path) != state:
        raise _replaced(opened)  # the files may be of two sets, and get no manifest
    signature = content.signature
    if signature is not None and signature != folder.read_or_none(SIGNATURE, SIGNATURE_BYTES):
        folder.put(SIGNATURE, signature, replace=True)
    if there is None:
        folder.put(MANIFEST, content.manifest_bytes, replace=not plain)
    return there is None


def _check_same(target: Path, content: _Content) -> None:
    """Whether what is there is what would be put there."""
    there = FeatureSet(target)
    if there.manifest_sha256 != content.digest:
        raise FeatureSetError(target, "holds another feature set", "choose another name")
    for name in changed_files(there):
        raise FeatureSetError(
            target / name, "sha256 is not the manifest's", "remove the folder and try again"
        )


def _place(url: str) -> _Place:
    """What a URL or a folder's path names.

    Raises:
        FeatureSetError: it names nothing that fsspec knows, or no set in it.
    """
    import fsspec

    protocol = url.partition("://")[0].lower() if "://" in url else "file"
    protocol = "file" if protocol == "local" else protocol
    path, root, shown = url, None, _without_secrets(url)
    if protocol == "file":
        folder = Path(url.partition("://")[2] if "://" in url else url)
        folder = folder if folder.name not in ("", "..") else folder.resolve()
        path, root = str(folder.absolute()), folder.parent
    if "::" in url or (protocol in _HTTP and ("?" in url or "#" in url)):
        raise FeatureSetError(shown, "is no plain address", "write PROTOCOL://PLACE/NAME")
    try:
        fs, path = fsspec.url_to_fs(path, **_patience(protocol))
        if root is None and "file" in fs.protocol:  # x:// is a drive to fsspec
            raise ValueError(f"protocol not known: {protocol}")
    except ImportError:
        tested = protocol in (*_HTTP, *_S3)
        needed = "'sgfd[share]'" if tested else f"the package that fsspec needs for {protocol}"
        raise FeatureSetError(
            shown, f"{protocol} needs another package", f"pip install {needed}"
        ) from None
    except ValueError as error:
        raise FeatureSetError(
            shown, f"can't be used ({_reason(error)})", "give a folder, s3://... or https://..."
        ) from None
    parent, _, last = str(path).rstrip("/").rpartition("/")
    if not parent or parent.endswith("/"):
        raise FeatureSetError(shown, "names no feature set", "write the place and then /NAME")
    name, version = (last.partition("@")[0], None) if protocol == _HUB else split_version(last)
    if not name or name.startswith(".") or not name.isprintable():
        raise FeatureSetError(shown, f"{name!r} is no name of a feature set", "choose another")
    shown_parent = shown.rstrip("/").rpartition("/")[0] if root is None else str(root)
    return _Place(protocol, fs, parent, shown_parent, name, version, root)


def _patience(protocol: str) -> dict[str, Any]:
    """How long a web server may keep silent; a transfer as a whole may take any time."""
    if protocol not in _HTTP:
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(None, sock_connect=30, sock_read=60)}}


def _refuse_twin(place: _Place) -> None:
    """Refuse a name that differs from one that is there in case alone: many disks hold but one.

    Raises:
        FeatureSetError: there is one.
    """
    for found in place.names():
        other = found.partition("@")[0]
        if other != place.name and other.casefold() == place.name.casefold():
            raise FeatureSetError(
                place.shown, f"{other} is there, which differs in case alone", "choose that name"
            )


class _BrokenOffError(Exception):
    """No more can be read just now."""


@contextlib.contextmanager
def _talking(where: str) -> Iterator[None]:
    """What a library raises while it talks to a server becomes one line."""
    try:
        yield
    except FeatureSetError:
        raise
    except Exception as error:
        raise FeatureSetError(
            where,
            f"can't be read or written ({_reason(error)})",
            "check the address, the network and your rights",
        ) from None


def _reason(error: Exception) -> str:
    text = _CREDENTIALS.sub("//", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _replaced(opened: FeatureSet) -> FeatureSetError:
    return FeatureSetError(opened.path, "was replaced meanwhile", "run the command again")


def _taken(folder: _Folder) -> FeatureSetError:
    return FeatureSetError(
        folder.shown, "holds another feature set, or a part of one", "choose another URL"
    )


def _unwritable(folder: Path, error: OSError) -> FeatureSetError:
    return FeatureSetError(
        folder, f"can't be written ({error.strerror})", "choose another folder, or have it allowed"
    )


def _without_secrets(url: str) -> str:
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
