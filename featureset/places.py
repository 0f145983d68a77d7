"""Where feature sets are shared: folders, object stores, data hubs, web servers.

fsspec does the talking: whatever it knows can be read, and written to where it can be written. No
server is believed: what is read is counted, and `sharing` hashes it.
"""

import contextlib
import hashlib
import html
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.manifest import NAME_RULE, FileRecord, is_name
from sgfd.featureset.versions import (
    LATEST,
    POINTER_BYTES,
    move_latest,
    moved_meanwhile,
    parse_pointer,
    read_latest,
    split_version,
)

BLOCK_BYTES = 2**20
PAGE_BYTES = 2**24  # of a web server's list of a folder
PART_BYTES = 2**23  # of one request to an object store
MOST_PARTS = 10_000  # of one object, in S3
TRIES = 3  # that brought nothing new, before a transfer is given up

BUSY = (408, 425, 429, 500, 502, 503, 504)  # what a server says that may soon be another

HTTP = ("http", "https")
S3 = ("s3", "s3a")
HUB = "hf"  # whose versions are its own revisions: NAME@REVISION
_OBJECT_STORES = (*S3, "gs", "gcs", "abfs", "abfss", "az", "adl", HUB)  # they know no folders
# One that ends at the next < or > is looked for in a time that grows with the page alone.
_LINK = re.compile(r"""<a\s[^<>]*?href\s*=\s*["']([^"'<>?#]+)""", re.IGNORECASE)
_CREDENTIALS = re.compile(r"//[^/\s@]*@")

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Pointer:
    """What `NAME@latest` holds, and by what an object store knows that it still does."""

    digest: str | None
    etag: str | None = None


@dataclass(frozen=True)
class Place:
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

    def folder(self, name: str) -> "Folder":
        shown = f"{self.shown_parent}/{name}" if self.root is None else str(self.root / name)
        return Folder(self.protocol, self.fs, f"{self.parent}/{self._in_path(name)}", shown)

    def _in_path(self, name: str) -> str:
        """A name as it is written in an address: that of a web server escapes many a sign."""
        return quote(name, safe="@") if self.protocol in HTTP else name

    def names(self, folders: bool = False) -> list[str] | None:
        """What lies in the parent, the place's own names too; None where there is no such place.

        Args:
            folders: leave out what is known to be a file; a web server doesn't say.
        """
        if self.root is not None:
            return os.listdir(self.root) if self.root.is_dir() else None  # noqa: PTH208
        if self.protocol in HTTP:
            page = Folder(self.protocol, self.fs, self.parent, self.shown_parent)
            with talking(self.shown_parent):
                try:
                    return _linked_names(page.read("", PAGE_BYTES), f"{self.parent}/")
                except FileNotFoundError:
                    return None
        with talking(self.shown_parent):
            try:
                listed = self.fs.ls(self.parent, detail=True, refresh=True)
            except FileNotFoundError:
                return None
        return [
            str(each["name"]).rstrip("/").rpartition("/")[2]
            for each in listed
            if not folders or each["type"] != "file"
        ]

    def latest(self) -> Pointer:
        if self.root is not None:
            return Pointer(read_latest(self.root, self.name))
        parent = Folder(self.protocol, self.fs, self.parent, self.shown_parent)
        name = f"{self._in_path(self.name)}@{LATEST}"
        # Asked for first: where the pointer moves between the two, its tag is an old one.
        etag = (parent.info(name) or {}).get("ETag") if self.protocol in S3 else None
        content = parent.read_or_none(name, POINTER_BYTES)
        if content is None:
            return Pointer(None)
        return Pointer(parse_pointer(parent.at(name), content), etag)

    def move_latest(self, before: Pointer, digest: str) -> None:
        """Compare and swap, in one step where the place can: a folder of this machine, S3."""
        if self.root is not None:
            move_latest(self.root, self.name, before.digest, digest)
            return
        newest = self.latest().digest
        if newest == before.digest != digest:
            path = f"{self.parent}/{self.name}@{LATEST}"
            condition: dict[str, str] = {}
            if self.protocol in S3:
                condition = {"IfMatch": before.etag} if before.etag else {"mode": "create"}
            with talking(f"{self.shown}@{LATEST}"), contextlib.suppress(FileExistsError):
                try:
                    self.fs.pipe_file(path, f"{digest}\n".encode(), **condition)
                except OSError as error:
                    if "condition" not in str(error):  # the one that was not met
                        raise
            newest = self.latest().digest
        if newest != digest:
            raise moved_meanwhile(self.shown, newest, digest)


@dataclass(frozen=True)
class Folder:
    """A folder of files at a place; `shown` is its address without secrets."""

    protocol: str
    fs: Any
    path: str
    shown: str

    @classmethod
    def local(cls, path: Path) -> "Folder":
        import fsspec

        return cls("file", fsspec.filesystem("file"), str(path.absolute()), str(path))

    @property
    def name(self) -> str:
        name = self.path.rpartition("/")[2]
        return unquote(name) if self.protocol in HTTP else name

    def at(self, name: str) -> str:
        return f"{self.shown}/{name}"

    def info(self, name: str) -> dict[str, Any] | None:
        """What the place says of a file, as it is now; None where there is none."""
        with talking(self.at(name)):
            self.fs.invalidate_cache()
            try:
                found: dict[str, Any] = self.fs.info(f"{self.path}/{name}")
            except FileNotFoundError:
                return None
            return found

    def read_or_none(self, name: str, limit: int, head: bytes = b"") -> bytes | None:
        """A small file's content; None where there is none, or none that begins with the head. A
        busy server is asked again."""
        with talking(self.at(name)):
            for tries in range(1, TRIES + 1):
                try:
                    content = self.read(name, limit, head)
                    return content if content.startswith(head) else None
                except Exception as error:
                    status = getattr(error, "status", 0)
                    # A web server that keeps its list of files to itself forbids what is not there.
                    if isinstance(error, FileNotFoundError) or status == 403:
                        return None
                    if tries == TRIES or status not in BUSY:
                        raise
                time.sleep(0.2 * tries)
        raise AssertionError  # the last try returned or raised

    def read(self, name: str, limit: int, head: bytes = b"") -> bytes:
        """A small file's content, or a part of it that does not begin with the head; what its
        library raises comes through."""
        content = bytearray()
        with self._stream(name, 0) as (file, _):
            while block := file.read(min(BLOCK_BYTES, limit + 1 - len(content))):
                content += block
                if len(content) >= len(head) and not content.startswith(head):
                    return bytes(content)
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
        if self.protocol in HTTP:
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
        if self.protocol == "file" and (folder / name).exists() and not (folder / name).is_file():
            raise FeatureSetError(self.at(name), "is no regular file", "put a file there")
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
        with talking(self.at(name)):
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
        if self.protocol in S3:
            # Several parts are in memory at once: by themselves they would be of 50 MB.
            options["chunksize"] = max(PART_BYTES, -(-sent // MOST_PARTS))
            options["mode"] = "overwrite" if replace else "create"
        with talking(self.at(name)):
            try:
                if self.protocol not in _OBJECT_STORES:
                    self.fs.makedirs(self.path, exist_ok=True)
                path = f"{self.path}/{name}"
                if isinstance(source, bytes):
                    self.fs.pipe_file(path, source, **options)
                else:
                    self.fs.put_file(str(source), path, **options)
            except FileExistsError:
                raise taken(self) from None
        size = (self.info(name) or {}).get("size")
        if size != sent:
            raise FeatureSetError(
                self.at(name),
                f"has {size} bytes after {sent} were written",
                "run the command again, or choose another place",
            )


def is_address(reference: str) -> bool:
    """Whether it begins as an address does; a path has one slash of the two."""
    return re.match(r"[a-z][a-z0-9]+:/", reference) is not None


def place_at(url: str) -> Place:
    """What a URL or a folder's path names.

    Raises:
        FeatureSetError: it names nothing that fsspec knows, or no set in it.
    """
    import fsspec

    if not url:  # which a path takes for the folder that we are in
        raise FeatureSetError("the address", "is empty", "write PLACE/NAME")
    protocol = url.partition("://")[0].lower() if "://" in url else "file"
    protocol = "file" if protocol == "local" else protocol
    path, root, shown = url, None, _without_secrets(url)
    if protocol == "file":
        folder = Path(_path_of(url) if "://" in url else url)
        folder = folder if folder.name not in ("", "..") else folder.resolve()
        path, root = str(folder.absolute()), folder.parent
    if protocol == "file" and "://" not in url and is_address(url):
        raise FeatureSetError(shown, "is no address", "write PROTOCOL://PLACE/NAME, or a folder")
    if (
        "::" in url
        or "::" in path
        or "\0" in path
        or (protocol in HTTP and ("?" in url or "#" in url))
    ):
        raise FeatureSetError(shown, "is no plain address", "write PROTOCOL://PLACE/NAME")
    try:
        fs, path = fsspec.url_to_fs(path, **_patience(protocol))
        if root is None and "file" in fs.protocol:  # x:// is a drive to fsspec
            raise ValueError(f"protocol not known: {protocol}")
    except ImportError:
        tested = protocol in (*HTTP, *S3)
        needed = "'sgfd[share]'" if tested else f"the package that fsspec needs for {protocol}"
        raise FeatureSetError(
            shown, f"{protocol} needs another package", f"pip install {needed}"
        ) from None
    except ValueError as error:
        raise FeatureSetError(
            shown, f"can't be used ({_reason(error)})", "give a folder, s3://... or https://..."
        ) from None
    except Exception as error:  # some libraries connect at once, and raise whatever comes
        raise _no_talking(shown, error) from None
    parent, _, last = str(path).rstrip("/").rpartition("/")
    last = unquote(last) if protocol in HTTP else last
    if not parent or parent.endswith("/"):
        raise FeatureSetError(shown, "names no feature set", "write the place and then /NAME")
    name, version = (last.partition("@")[0], None) if protocol == HUB else split_version(last)
    if not is_name(name):
        raise FeatureSetError(shown, f"{name!r} is no name of a feature set", NAME_RULE)
    shown_parent = shown.rstrip("/").rpartition("/")[0] if root is None else str(root)
    return Place(protocol, fs, parent, shown_parent, name, version, root)


def _path_of(url: str) -> str:
    """What `file://` names (RFC 8089): of this host, and escaped as addresses are."""
    path = url.partition("://")[2]
    path = path.removeprefix("localhost") if path.startswith("localhost/") else path
    return unquote(path, errors="surrogateescape")


def _linked_names(page: bytes, address: str) -> list[str]:
    """What lies directly in a folder, by the links of a web server's page of it."""
    names = set()
    for link in _LINK.findall(page.decode(errors="replace")):
        with contextlib.suppress(ValueError):  # no address at all
            target = urljoin(address, html.unescape(link))
            below = target.removeprefix(address).rstrip("/")
            if target.startswith(address) and below and "/" not in below:
                names.add(unquote(below))
    return sorted(names)


def _patience(protocol: str) -> dict[str, Any]:
    """How long a web server may keep silent; a transfer as a whole may take any time."""
    if protocol not in HTTP:
        return {}
    from aiohttp import ClientTimeout

    return {"client_kwargs": {"timeout": ClientTimeout(None, sock_connect=30, sock_read=60)}}


def refuse_twin(place: Place) -> None:
    """Refuse a name that differs from one that is there in case alone: many disks hold but one.

    Raises:
        FeatureSetError: there is one.
    """
    for found in place.names() or ():
        other = found.partition("@")[0]
        if other != place.name and other.casefold() == place.name.casefold():
            raise FeatureSetError(
                place.shown, f"{other} is there, which differs in case alone", "choose that name"
            )


class _BrokenOffError(Exception):
    """No more can be read just now."""


@contextlib.contextmanager
def talking(where: str) -> Iterator[None]:
    """What a library raises while it talks to a server becomes one line."""
    try:
        yield
    except FeatureSetError:
        raise
    except Exception as error:
        raise _no_talking(where, error) from None


def _no_talking(where: str, error: Exception) -> FeatureSetError:
    return FeatureSetError(
        where,
        f"can't be read or written ({_reason(error)})",
        "check the address, the network and your rights",
    )


def _reason(error: Exception) -> str:
    text = _CREDENTIALS.sub("//", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def taken(folder: Folder) -> FeatureSetError:
    return FeatureSetError(
        folder.shown, "holds another feature set, or a part of one", "choose another URL"
    )


def _without_secrets(url: str) -> str:
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
