"""What a long computation needs: device, work folder, checkpoints, progress, Ctrl-C, a search.

torch is imported by those that use it, when they do: `pipeline features` needs none of it.
"""

from sgfd import openmp as _  # noqa: F401 (before torch)
from sgfd.jobs.checkpoint import Checkpoint, of_this_work, pack, subset, unpack
from sgfd.jobs.device import (
    keep_freed_memory,
    peak_memory_bytes,
    seed_everything,
    use_device,
    use_threads,
)
from sgfd.jobs.errors import MOST_SEED, JobError, of_kind, whole_number
from sgfd.jobs.full_disk import room_in
from sgfd.jobs.interrupt import Interrupt, deferred_interrupt
from sgfd.jobs.limits import usable_cores, usable_memory
from sgfd.jobs.progress import hide_progress, progress
from sgfd.jobs.workfolder import WorkFolder, locked, refuse_existing

__all__ = [
    "MOST_SEED",
    "Checkpoint",
    "Interrupt",
    "JobError",
    "WorkFolder",
    "deferred_interrupt",
    "hide_progress",
    "keep_freed_memory",
    "locked",
    "of_kind",
    "of_this_work",
    "pack",
    "peak_memory_bytes",
    "progress",
    "refuse_existing",
    "room_in",
    "seed_everything",
    "subset",
    "unpack",
    "usable_cores",
    "usable_memory",
    "use_device",
    "use_threads",
    "whole_number",
]
