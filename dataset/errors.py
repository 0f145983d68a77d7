"""The one kind of error that a data set raises on purpose."""

from pathlib import Path


class DatasetError(Exception):
    """A person can act on this: what is wrong, where, and what to do about it."""

    def __init__(self, where: str | Path, what: str, remedy: str) -> None:
        super().__init__(" ".join(f"{where}: {what}; {remedy}".split()))
        self.where = str(where)
        self.what = what
        self.remedy = remedy
