"""The one kind of error that a feature set raises on purpose."""

from pathlib import Path

GET_AGAIN = "get it again from whoever made it"  # of a file that no one here can mend


class FeatureSetError(Exception):
    """A person can act on this: what is wrong, where, and what to do about it."""

    def __init__(self, where: str | Path, what: str, remedy: str) -> None:
        line = " ".join(f"{where}: {what}; {remedy}".split())
        # A hostile manifest's words may be among them: none of them moves a terminal's cursor.
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))
        self.where = str(where)
        self.what = what
        self.remedy = remedy
