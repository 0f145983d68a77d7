"""Progress of long work: a bar where standard error is a terminal, else a line now and then."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[..., None]

logger = logging.getLogger("sgfd")

LINE_EVERY = 60.0  # seconds between two lines of what is no terminal, such as a nightly job's log

_shown: "Progress | None" = None  # the bars at hand; those of inner work stand below the outer one
_hidden = False  # whether another process draws on this terminal


def hide_progress() -> None:
    """No bars and no lines from now on."""
    global _hidden
    _hidden = True


@contextmanager
def progress(total: int, label: str) -> Iterator[Advance]:
    """Yield `advance(steps, **figures)`; the figures stand at the end of the bar.

    Where standard error is no terminal, nothing is drawn and rich is never imported: a line a
    minute, at the log's level INFO, says how far the work is.
    """
    global _shown
    if _hidden:
        yield lambda steps=1, **figures: None
        return
    if sys.stderr is None or not sys.stderr.isatty():
        yield _lines(total, label)
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
            bar.update(task, advance=steps, figures=_in_words(figures))

        yield advance


def _lines(total: int, label: str) -> Advance:
    done, said = 0, time.monotonic()

    def advance(steps: int = 1, **figures: object) -> None:
        nonlocal done, said
        done += steps
        if time.monotonic() - said >= LINE_EVERY:
            said = time.monotonic()
            logger.info("%s  %d of %d  %s", label, done, total, _in_words(figures))

    return advance


def _in_words(figures: dict[str, object]) -> str:
    return "  ".join(f"{name} {value}" for name, value in figures.items())


def _forget() -> None:
    global _shown
    _shown = None
