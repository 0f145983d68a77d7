"""Progress of long work: a bar on standard error, only where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[..., None]

_shown: "Progress | None" = None  # the bars at hand; those of inner work stand below the outer one
_hidden = False  # whether another process draws on this terminal


def hide_progress() -> None:
    """No bars from now on."""
    global _hidden
    _hidden = True


@contextmanager
def progress(total: int, label: str) -> Iterator[Advance]:
    """Yield `advance(steps, **figures)`; the figures stand at the end of the bar.

    Where standard error is no terminal, nothing is drawn and rich is never imported.
    """
    global _shown
    if _hidden or not sys.stderr.isatty():
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
    with ExitStack() as stack:
        if _shown is None:
            bars = Progress(*columns, console=Console(stderr=True), transient=True)
            _shown = stack.enter_context(bars)
            stack.callback(_forget)
        bar = _shown
        task = bar.add_task(label, total=total, figures="")
        stack.callback(bar.remove_task, task)

        def advance(steps: int = 1, **figures: object) -> None:
            text = "  ".join(f"{name} {value}" for name, value in figures.items())
            bar.update(task, advance=steps, figures=text)

        yield advance


def _forget() -> None:
    global _shown
    _shown = None
