"""Feature sets between teams: pushed to a folder, an object store or a data hub, pulled from them
or from a web server.

A place `URL/NAME` holds the same names as a folder of feature sets (`versions`): `NAME@VERSION` and
`NAME@latest`. What makes that safe for readers:

- a version's files come first, its manifest last, `NAME@latest` after that: what a reader finds is
  whole, and a writer who was killed leaves nothing that passes for a set;
- a version is named by its manifest's sha256 and never written over by anything else, so two
  writers cannot mix; `NAME@latest` is moved only from what it was when the writer began;
- no server is believed: what is read is counted and hashed, and lands by one rename.

What talks to folders and servers is in `places`.
"""

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.inventory import Entry, in_order, inventory
from sgfd.featureset.manifest import (
    MANIFEST,
    MANIFEST_BYTES,
    SIGNATURE,
    FileRecord,
    Manifest,
    is_name,
)
from sgfd.featureset.places import HTTP, HUB, Advance, Folder, place_at, refuse_twin, taken
from sgfd.featureset.publish import (
    partial_folder,
    publish_folder,
    remove_locked,
    unwritable,
    write_file,
)
from sgfd.featureset.reading import FeatureSet, folder_state, parse_manifest
from sgfd.featureset.signature import check_signature, signature_in
from sgfd.featureset.verification import changed_files, verify
from sgfd.featureset.versions import (
    LATEST,
    move_latest,
    read_latest,
    split_version,
    version_of,
    versioned,
)

logger = logging.getLogger("sgfd")

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
    opened: FeatureSet,
    url: str,
    *,
    plain: bool = False,
    replace_signature: bool = False,
    progress: Progress = in_silence,
) -> Shared:
    """Publish a feature set as a version of the name at the end of a URL, and as its latest.

    A push that was interrupted goes on where it was. A version that is there already is only made
    the latest; a signature that it has there stays.

    Args:
        opened: the set; all that `verify` checks must hold.
        url: `PLACE/NAME`, a folder's path or a URL that fsspec can write; `PLACE/` for the set's
            own name there.
        plain: put the files at the URL itself, as data hubs want them, without a version; what is
            there is never replaced.
        replace_signature: put the set's signature in the place of another one of that version.
        progress: of bytes, as `progress(total, label)`.

    Raises:
        FeatureSetError: the set is not sound; the place can't be written, holds a name that
            differs in case alone or, where `plain`, something else; another writer made another
            version the latest meanwhile.
    """
    if url.endswith("/") and not plain and not url.startswith(f"{HUB}://"):
        url += opened.folder_name
    place = place_at(url)
    if place.version is not None:
        raise FeatureSetError(place.shown, "names a version", "leave it out: the set decides it")
    if place.protocol in HTTP:
        raise FeatureSetError(
            place.shown, "can only be read", "push to a folder or an object store (s3://...)"
        )
    own = opened.path.resolve()
    if place.root is not None and own in (root := place.root.resolve(), *root.parents):
        raise FeatureSetError(place.shown, f"lies inside {opened.path}", "choose another place")
    for problem in verify(opened.path):
        raise FeatureSetError(opened.path, f"is not sound ({problem})", "push a sound one")
    digest = opened.manifest_sha256
    plain = plain or place.protocol == HUB
    if place.protocol != HUB:  # whose names are its own affair
        refuse_twin(place)
    before = None if plain else place.latest()
    folder = place.folder(place.name if plain else versioned(place.name, digest))
    if place.root is None:
        new = _upload(opened, folder, plain, replace_signature, progress)
    else:
        source = Folder.local(opened.path)
        target = place.root / folder.name
        new = _land(source, _Content.of(opened), target, "pushing", replace_signature, progress)
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
    the manifest against the version, and where a key is given, the signature comes first. Without
    a key, no signature takes the place of another one.

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
    place = place_at(url)
    name = name or place.name
    wanted = place.version
    if wanted in (None, LATEST) and place.protocol != HUB:
        newest = place.latest().digest
        if newest is None and wanted == LATEST:
            raise FeatureSetError(place.shown, "has no latest version", "check the address")
        wanted = newest
    folder = place.folder(place.name if wanted is None else versioned(place.name, wanted))
    content = _Content.fetch(folder)
    if wanted is not None and not content.digest.startswith(wanted):
        raise _swapped(folder, wanted)
    if key is not None:
        check_signature(folder.at(SIGNATURE), content.manifest_bytes, content.signature, key)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(root, error) from None
    refuse_twin(place_at(str(root / name)))
    before = read_latest(root, name)
    target = root / versioned(name, content.digest)
    new = _land(folder, content, target, "pulling", key is not None, progress)
    latest = place.version in (None, LATEST)
    if latest:
        move_latest(root, name, before, content.digest)
    return Shared(name, version_of(content.digest), content.digest, str(target), new, latest)


def inventory_at(url: str, progress: Progress = in_silence) -> tuple[list[Entry], list[str]]:
    """The sets at a place, by name and by the time they were made, and what is wrong with others.

    Only manifests are read. Of a web server, what its page of the folder links to is what there is.

    Args:
        url: a folder's path, or a URL that fsspec can list.

    Raises:
        FeatureSetError: there is no such place, or it gives no list.
    """
    place = place_at(f"{url.rstrip('/')}/{MANIFEST}")
    names = place.names(folders=True)
    if names is None:
        raise FeatureSetError(place.shown_parent, "is not there", "check the address")
    if place.root is not None:
        return inventory(place.root)
    latest: dict[str, str | None] = {}
    entries, problems = [], []
    folders = sorted(
        name
        for name in set(names)
        if is_name(name.partition("@")[0]) and not name.endswith(f"@{LATEST}")
    )
    with progress(len(folders), "reading manifests") as advance:
        for folder in map(place.folder, folders):
            advance(1)
            try:
                content = folder.read_or_none(MANIFEST, MANIFEST_BYTES)
                if content is None:
                    continue
                manifest = parse_manifest(folder.at(MANIFEST), content)
                name, version = split_version(folder.name)
                digest = hashlib.sha256(content).hexdigest()
                if version is not None and not digest.startswith(version):
                    raise _swapped(folder, version)
                if name not in latest:
                    latest[name] = replace(place, name=name).latest().digest
            except FeatureSetError as error:
                problems.append(str(error))
            else:
                is_latest = version is not None and latest[name] == digest
                entries.append(
                    Entry(folder.shown, name, version is not None, is_latest, manifest, digest)
                )
    return in_order(entries), problems


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
        content = cls.fetch(Folder.local(opened.path))
        if content.digest != opened.manifest_sha256:
            raise _replaced(opened)
        return content

    @classmethod
    def fetch(cls, folder: Folder) -> "_Content":
        content = folder.read_or_none(MANIFEST, MANIFEST_BYTES)
        if content is None:
            raise FeatureSetError(
                folder.shown,
                f"is no feature set: it has no {MANIFEST}",
                "check the address and your rights",
            )
        manifest = parse_manifest(folder.at(MANIFEST), content)
        return cls(content, manifest, signature_in(folder))


def _land(
    source: Folder,
    content: _Content,
    target: Path,
    label: str,
    replace_signature: bool,
    progress: Progress,
) -> bool:
    """Put a set's files in a folder of this machine by one rename; false if it is there already."""
    if target.is_symlink():
        raise FeatureSetError(target, "is a link", "remove it")
    with partial_folder(target) as partial:
        if target.exists():
            remove_locked(partial)  # whatever is there now, nothing more comes
            _check_same(target, content)
            there = Folder.local(target)
            signature = _signature_to_put(content.signature, there, replace_signature)
            if signature is not None:
                write_file(target / SIGNATURE, signature)
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
        remove_locked(partial)
        return True


def _receive_all(
    source: Folder, manifest: Manifest, result: Path, label: str, progress: Progress
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
    source: Folder, name: str, record: FileRecord, path: Path, advance: Advance
) -> None:
    """A file as the manifest has it, of which an earlier, interrupted process may have left a part.

    Raises:
        FeatureSetError: what comes is something else.
    """
    begun = 0
    if path.exists():
        begun = path.stat().st_size
        path.chmod(0o644)  # it may be a whole, shorter file of a push that was given up
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


def _upload(
    opened: FeatureSet, folder: Folder, plain: bool, replace_signature: bool, progress: Progress
) -> bool:
    """Put a set's files at a place, the manifest last; false if it was there already."""
    content, state = _Content.of(opened), folder_state(opened.path)
    there = folder.read_or_none(MANIFEST, MANIFEST_BYTES)
    if there not in (None, content.manifest_bytes):
        raise taken(folder)
    files = content.manifest.files
    with progress(sum(record.bytes for record in files.values()), "pushing") as advance:
        for name, record in files.items():
            held = folder.holds(name, record, trusted=there is not None)
            if held is False and plain and there is None:
                raise taken(folder)
            if not held:
                folder.put(name, opened.path / name, replace=not plain)
            advance(record.bytes)
    if folder_state(opened.path) != state:
        raise _replaced(opened)  # the files may be of two sets, and get no manifest
    # Without a manifest there is no set yet, and what lies there is of a push that was given up.
    may_replace = replace_signature or there is None
    signature = _signature_to_put(content.signature, folder, may_replace)
    if signature is not None:
        folder.put(SIGNATURE, signature, replace=True)
    if there is None:
        folder.put(MANIFEST, content.manifest_bytes, replace=not plain)
    return there is None


def _signature_to_put(signature: bytes | None, there: Folder, may_replace: bool) -> bytes | None:
    """The signature that the set lacks where it is, if any. Anybody can make one, so that another
    one that is there stays, which is said, unless it may be replaced."""
    if signature is None:
        return None
    before = signature_in(there)
    if before not in (None, signature) and not may_replace:
        logger.warning(
            "%s: is signed otherwise, and that stays; to replace it, push with "
            "--replace-signature, or pull with --require-signature",
            there.shown,
        )
        return None
    return None if before == signature else signature


def _check_same(target: Path, content: _Content) -> None:
    """Whether what is there is what would be put there."""
    there = FeatureSet(target)
    if there.manifest_sha256 != content.digest:
        raise FeatureSetError(target, "holds another feature set", "choose another name")
    for name in changed_files(there):
        raise FeatureSetError(
            target / name, "sha256 is not the manifest's", "remove the folder and try again"
        )


def _swapped(folder: Folder, version: str) -> FeatureSetError:
    return FeatureSetError(
        folder.at(MANIFEST),
        f"is not that of version {version_of(version)}: it was changed or swapped",
        "ask whoever published it",
    )


def _replaced(opened: FeatureSet) -> FeatureSetError:
    return FeatureSetError(opened.path, "was replaced meanwhile", "run the command again")
