"""How many cores and how much memory this process may use, in a container too."""

import os
import re
from collections.abc import Iterator
from math import ceil
from pathlib import Path

_OWN = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores that this process may run on, by its affinity and by its control groups' quota."""
    of_us = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(of_us(0)) if of_us else os.cpu_count() or 1
    return max(1, min([cores, *(ceil(quota) for quota in _quotas())]))


def usable_memory() -> int:
    """Bytes of the machine, or of the control groups that this process is in, if they have less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_memory_limits()])


def _quotas() -> Iterator[float]:
    """Cores' worth of time that the groups have: `--cpus` of Docker, `limits.cpu` of Kubernetes."""
    pairs = [_read(folder / "cpu.max").split() for folder in _folders("")]
    pairs += [
        [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
        for folder in _folders("cpu")
    ]
    for pair in pairs:
        quota, period = map(_number, (*pair, "", "")[:2])
        if quota and period:
            yield quota / period


def _memory_limits() -> Iterator[int]:
    """Bytes that the groups may take; where there is no limit, version 1 has a huge one."""
    limits = [_read(folder / "memory.max") for folder in _folders("")]
    limits += [_read(folder / "memory.limit_in_bytes") for folder in _folders("memory")]
    return (found for limit in limits if (found := _number(limit)))


def _number(text: str) -> int:
    """0 where it is none: `max`, -1 or nothing."""
    return int(text) if re.fullmatch("[0-9]{1,20}", text) else 0


def _folders(controller: str) -> Iterator[Path]:
    """The groups that we are in and those above them, of version 1's controller or, by the name
    "", of version 2. In a container they may be told by a path of the host that is not there."""
    root = _GROUPS / controller
    for line in _read(_OWN).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            own = Path(path.replace("\0", "").lstrip("/"))
            yield from (root / group for group in (own, *own.parents) if ".." not in group.parts)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
