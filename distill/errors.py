"""The error of stage one that a person can act on."""

from sgfd.jobs import JobError


class DistillError(JobError):
    """A catalogue that can't be distilled, or a training that can't go on."""
