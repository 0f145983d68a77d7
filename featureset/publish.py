"""Putting files and folders in place as a whole or not at all."""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sgfd.featureset.errors import FeatureSetError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
LOCK = "lock"  # the file by which a process has a folder
MOST_ATTEMPTS = 100  # to lock a folder that others make and remove meanwhile
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old or the new content, whatever happens."""
    with allowed_in(path.parent):
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    _sync(path.parent)


@contextlib.contextmanager
def allowed_in(folder: Path) -> Iterator[None]:
    """Begin to write in a folder.

    Raises:
        FeatureSetError: we may not.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FORBIDDEN:
            raise unwritable(folder, error) from None
        raise


def unwritable(folder: Path, error: OSError) -> FeatureSetError:
    return FeatureSetError(
        folder, f"can't be written ({error.strerror})", "choose another folder, or have it allowed"
    )


def publish_folder(source: Path, target: Path, overwrite: bool = False) -> None:
    """Make `source` the folder `target` by one rename, after all its files are on disk.

    An existing target is exchanged for the new one in a single step of the file system, then
    deleted, so that a reader finds the old whole or the new whole.

    Raises:
        FeatureSetError: the target exists and `overwrite` is false.
    """
    for path in (*source.rglob("*"), source):
        _sync(path)
    if target.exists():
        if not overwrite:
            raise FeatureSetError(target, "exists already", "choose another name or --overwrite")
        _exchange(source, target)
        shutil.rmtree(source)
    else:
        source.rename(target)
    _sync(target.parent)


def try_lock(path: Path) -> int | None:
    """Lock a file, made if need be: its descriptor, to be closed; None where another holds it.

    A process that is killed lets go by itself.

    Raises:
        OSError: the file can't be opened.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def lock_folder(folder: Path) -> int | None:
    """Make a folder and lock the file `LOCK` in it, as `try_lock` does.

    Its holder may remove the folder before it lets go.

    Raises:
        OSError: the folder can't be written.
    """
    attempts = 0
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = try_lock(folder / LOCK)
        except (FileExistsError, FileNotFoundError):
            attempts += 1
            if attempts == MOST_ATTEMPTS:
                raise  # it can't be made at all
            continue  # its holder removed the folder between two of our calls, mkdir's own included
        if lock is None or _is_at(lock, folder / LOCK):
            return lock
        os.close(lock)


def remove_locked(folder: Path) -> None:
    """Remove a folder that we hold by `lock_folder`; what can't be removed stays.

    Its lock goes last: from then on another process may have the folder, and what is in it.
    """
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK:
                entry.unlink()
        (folder / LOCK).unlink()
        folder.rmdir()


@contextlib.contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """The folder `.NAME.partial` beside a folder to be, while no other process has it.

    Whoever was killed left what he had in it, to be gone on with or removed.

    Raises:
        FeatureSetError: another process has it, or it can't be made.
    """
    partial = target.with_name(f".{target.name}.partial")
    try:
        if partial.is_symlink():
            partial.unlink()
        lock = lock_folder(partial)
    except OSError as error:
        raise unwritable(target.parent, error) from None
    if lock is None:
        raise FeatureSetError(
            target, "another process is writing it at this moment", "wait for it to end"
        )
    try:
        _drop_links(partial)
        yield partial
    finally:
        os.close(lock)


def _drop_links(partial: Path) -> None:
    """Leave in it what a process of ours left: plain files, and folders of such.

    Whoever else may write there could have put links, by which we would write elsewhere.
    """
    for pattern, may_be_folder in (("*", True), ("*/*", False)):
        for path in list(partial.glob(pattern)):
            state = path.lstat()
            if stat.S_ISDIR(state.st_mode):
                if not may_be_folder:
                    shutil.rmtree(path)
            elif path != partial / LOCK and (not stat.S_ISREG(state.st_mode) or state.st_nlink > 1):
                path.unlink()


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at its path (its holder may have removed it)."""
    with contextlib.suppress(FileNotFoundError):
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    return False


def _exchange(first: Path, second: Path) -> None:
    """Swap two folders atomically where the system can, else by three renames."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    paths = os.fsencode(first), os.fsencode(second)
    if renameat2 is None or renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE):
        aside = second.with_name(f".{second.name}.replaced-{os.getpid()}")
        second.rename(aside)
        try:
            first.rename(second)
        except OSError:
            aside.rename(second)
            raise
        aside.rename(first)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
