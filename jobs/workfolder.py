"""Where a long computation builds its result: locked, resumable, published by one rename.

Beside the target `NAME` lies `.NAME.partial/` while the work is going on:

    lock                     held (flock) by the process at work; a killed one lets go by itself
    identity.json            what is being computed: inputs, settings, seed
    checkpoint.safetensors   where the work stands
    NAME.safetensors         the same of a further stage called NAME
    result/                  the folder that will become NAME

A reader never looks in there, so a killed process leaves nothing that passes for a result.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sgfd.featureset import lock_folder, publish_folder, remove_locked, try_lock, write_file
from sgfd.jobs.checkpoint import Checkpoint
from sgfd.jobs.errors import JobError
from sgfd.jobs.full_disk import disk_is_full, no_room, room_in

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("sgfd")


@contextlib.contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder that is made bit by bit; a killed process lets go by itself.

    Args:
        doing: what another process does in it, such as `compares`.

    Raises:
        JobError: it can't be written, or another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = try_lock(folder / "lock")
    except OSError as error:
        raise JobError(folder, f"can't be written ({error.strerror})", "choose another") from None
    if lock is None:
        raise JobError(
            folder,
            f"another process {doing} in it at this moment",
            "wait for it to end, or choose another --name",
        )
    try:
        yield
    finally:
        os.close(lock)


def refuse_existing(target: Path, overwrite: bool, marker: str) -> None:
    """Check that a result may be put there, before any work.

    Args:
        marker: name or pattern of a file that a folder must hold, or nothing at all, to be
            replaced.

    Raises:
        JobError: there is something, and it may not be replaced; or a link, which a folder can't
            be exchanged for.
    """
    if target.exists() and not overwrite:
        raise JobError(target, "exists already", "choose another name or add --overwrite")
    if target.is_symlink():
        raise JobError(target, "is a link", "name the folder itself")
    replaceable = target.is_dir() and (any(target.glob(marker)) or not any(target.iterdir()))
    if target.exists() and not replaceable:
        raise JobError(
            target,
            f"has no {marker}, and only a folder that has one is replaced",
            "choose another name",
        )


class WorkFolder:
    """The work on one target folder; use it as a context manager.

    Args:
        target: the folder that the work will become.
        identity: JSON-serialisable description of the work. A left-over of the same identity
            is gone on with, one of another is thrown away; the log says which.
        overwrite: whether an existing target may be replaced.
        marker: name or pattern of a file that the result will hold; a folder without it is not
            replaced.

    Raises:
        JobError: the target exists and may not be replaced, another process is at work on it, or
            the disk becomes full while the work is going on.
    """

    def __init__(
        self, target: Path, identity: dict[str, Any], overwrite: bool = False, marker: str = "*"
    ) -> None:
        self.target = target
        self.overwrite = overwrite
        self.marker = marker
        self.folder = target.parent / f".{target.name}.partial"
        self.result = self.folder / "result"
        self._identity = json.dumps(identity, sort_keys=True)
        self._checkpoint = Checkpoint(self.folder / "checkpoint.safetensors")
        self._lock: int | None = None
        self._published = False

    def __enter__(self) -> Self:
        refuse_existing(self.target, self.overwrite, self.marker)
        self._lock = self._acquire()
        try:
            with room_in(self.target):
                self._take_over()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave()
        if error is not None and disk_is_full(error):
            raise no_room(self.target) from error

    def save(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the checkpoint by this one, as a whole or not at all."""
        self._checkpoint.save(tensors, state)

    def restore(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint: its tensors (on the CPU) and its state; None if there is none."""
        return self._checkpoint.restore()

    @property
    def path(self) -> Path:
        """The checkpoint's file."""
        return self._checkpoint.path

    def stage(self, name: str) -> Checkpoint:
        """The checkpoint of a further stage of the work, kept beside that of the first."""
        return Checkpoint(self.folder / f"{name}.safetensors")

    def publish(self) -> Path:
        """Make `result` the target by one rename and remove the rest of the work."""
        publish_folder(self.result, self.target, self.overwrite)
        self._published = True
        remove_locked(self.folder)  # from here on a folder of that name is another process's
        return self.target

    def _acquire(self) -> int:
        try:
            lock = lock_folder(self.folder)
        except OSError as error:
            raise JobError(
                self.folder, f"can't be written ({error.strerror})", "choose another folder"
            ) from None
        if lock is None:
            raise JobError(
                self.target,
                "another process is making it at this moment",
                "wait for it to end, or choose another name",
            )
        return lock

    def _checkpoints(self) -> list[Path]:
        return list(self.folder.glob("*.safetensors"))

    def _leave(self) -> None:
        """Let go of the folder; of unfinished work, a next run can use the checkpoints alone."""
        if not self._published:
            if self._checkpoints():
                shutil.rmtree(self.result, ignore_errors=True)
            else:
                remove_locked(self.folder)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_over(self) -> None:
        """Keep what an earlier, ended process left of the same work; clear anything else."""
        record = self.folder / "identity.json"
        left = record.read_bytes() if record.exists() else None
        identity = self._identity.encode()
        if left == identity and self._checkpoints():
            logger.info("resuming unfinished work on %s from its last checkpoint", self.target)
        else:
            if left is not None:
                why = "has no checkpoint" if left == identity else "had other inputs or settings"
                logger.info("unfinished work on %s %s: starting over", self.target, why)
            for checkpoint in self._checkpoints():
                checkpoint.unlink()
        shutil.rmtree(self.result, ignore_errors=True)
        self.result.mkdir()
        write_file(record, identity)
