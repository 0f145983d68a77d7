"""A full disk, told of in one line whoever runs into it."""

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from sgfd.jobs.errors import JobError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# numpy (of a short write), safetensors (Rust) and pyarrow say it in words alone.
_WORDS = re.compile(
    r"\d+ requested and \d+ written|(os error|\[errno) ({})\b".format("|".join(map(str, _FULL)))
)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error says that there is no room: on the disk, in a quota, in a file's limit."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return not isinstance(error, JobError) and _WORDS.search(str(error)) is not None


@contextlib.contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Write in a folder.

    Raises:
        JobError: there is no room left.
    """
    try:
        yield
    except Exception as error:
        if disk_is_full(error):
            raise no_room(folder) from error
        raise


def no_room(folder: Path) -> JobError:
    return JobError(
        folder,
        "can't be written: the disk is full, or a quota or limit reached",
        "make room and run the same command again; what is finished stays",
    )
