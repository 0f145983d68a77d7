"""Progress of long work: a bar on standard error, only where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[..., None]


@contextmanager
def progress(total: int, label: str) -> Iterator[Advance]:
    """Yield `advance(steps, **figures)`; the figures stand at the end of the bar.

    Where standard error is no terminal, nothing is drawn and rich is never imported.
    """
    if not sys.stderr.isatty():
        yield lambda steps=1, **figures: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, figures="")

        def advance(steps: int = 1, **figures: object) -> None:
            text = "  ".join(f"{name} {value}" for name, value in figures.items())
            bar.update(task, advance=steps, figures=text)

        yield advance
