"""Trainings in processes of their own, so many at a time; one that dies takes no other with it."""

import contextlib
import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from sgfd import featureset
from sgfd.dataset import load_dataset
from sgfd.jobs import JobError, deferred_interrupt, hide_progress
from sgfd.recommenders.backbone import BackboneSettings
from sgfd.recommenders.comparison.tuned import search_one
from sgfd.recommenders.run import train

LOOK_EVERY = 0.2  # seconds between two looks for Ctrl-C
MOST_SAID = 4_000  # letters of an error that are told; a file has all
STOPPED = 130  # exit code of a process that wrote its checkpoint and stopped


@dataclass(frozen=True)
class Task:
    """One call of `train` or of a search, by what a new process needs to make it.

    Attributes:
        reference, data_root: of the data set; fingerprint is what its interactions must still be.
        features: folder of the feature set; manifest_sha256 is what it must still be.
        options: further arguments.
        failures: folder where a failed task leaves what it said.
        search: whether settings are searched; options then say `trials` and `folder`.
    """

    reference: str
    data_root: Path | None
    fingerprint: str
    backbone: str
    settings: BackboneSettings
    features: Path | None
    manifest_sha256: str | None
    options: dict[str, Any]
    failures: Path
    search: bool = False


def run_processes(tasks: dict[str, Task], jobs: int) -> Iterator[tuple[str, str | None]]:
    """Run tasks by name, `jobs` at a time; give the name of each as it ends, and its error.

    Processes are forked from a server that has imported everything already: one starts in a few
    hundredths of a second, and its peak memory is its own.

    Raises:
        KeyboardInterrupt: interrupted; the tasks at work were told to stop, which makes them
            write checkpoints, and were waited for.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    _start_server()
    waiting = iter(tasks.items())
    at_work: dict[int, tuple[str, ForkServerProcess, Connection]] = {}

    def start_next() -> None:
        for name, task in waiting:
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(task, send), name=name)
            process.start()
            send.close()
            at_work[process.sentinel] = name, process, receive
            return

    # Noted, not raised wherever it strikes: our caller's code would leave us waiting for no end.
    with deferred_interrupt() as interrupt:
        try:
            for _ in range(jobs):
                start_next()
            while at_work:
                for sentinel in wait(list(at_work), timeout=LOOK_EVERY):
                    assert isinstance(sentinel, int)
                    name, process, receive = at_work.pop(sentinel)
                    process.join()
                    error = _error_of(process, receive)
                    start_next()
                    yield name, error
                if interrupt.requested:
                    raise KeyboardInterrupt
        finally:
            for _, process, _ in at_work.values():
                process.terminate()
            for _, process, _ in at_work.values():
                process.join()


def _start_server() -> None:
    """Start the server that processes are forked from, so that Ctrl-C does not reach it.

    It ignores that only once it has imported everything, which takes seconds.

    Raises:
        JobError: its socket has no place.
    """
    resource_tracker.ensure_running()  # first: it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    except OSError as error:
        raise JobError(
            tempfile.gettempdir(),
            f"no process can be started by way of it ({error})",
            "set TMPDIR to a folder with a shorter path that you may write to",
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _error_of(process: ForkServerProcess, receive: Connection) -> str | None:
    with contextlib.suppress(EOFError, OSError):  # it ended without a word, or amidst one
        error: str | None = receive.recv()
        return error
    code = process.exitcode or 0
    if code < 0:
        return f"its process was ended by {signal.Signals(-code).name}; run again to go on"
    return f"its process ended with exit code {code}"


def _work(task: Task, send: Connection) -> None:
    """A child's work: train, and say how it ended."""
    os.setsid()  # Ctrl-C reaches the parent alone, which tells us to stop once
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    logging.getLogger("sgfd").setLevel(logging.ERROR)
    hide_progress()
    try:
        dataset = load_dataset(task.reference, task.data_root)
        if dataset.interactions is None or dataset.interactions.fingerprint() != task.fingerprint:
            raise JobError(
                f"dataset {dataset.name}",
                "changed while the comparison ran",
                "put it back as it was, or compare again, from the start",
            )
        features = featureset.load(task.features) if task.features else None
        if features is not None:
            if features.manifest_sha256 != task.manifest_sha256:
                raise JobError(
                    features.path,
                    "changed while the comparison ran",
                    "compare again, from the start",
                )
            featureset.refuse_changed(features)
        work = search_one if task.search else train
        work(dataset, task.backbone, features, task.settings, **task.options)
    except KeyboardInterrupt:
        os._exit(STOPPED)
    except Exception as error:
        line = " ".join(str(error).split())
        text = line if hasattr(error, "remedy") else f"{type(error).__name__}: {line}"
        # First, as on a full disk the file can't be written. It is read once we have ended, so
        # that it must fit the pipe.
        send.send(text[:MOST_SAID])
        said = task.failures / f"{multiprocessing.current_process().name}.txt"
        with contextlib.suppress(OSError):
            said.write_text(f"{text}\n\n{traceback.format_exc()}", encoding="utf-8")
    else:
        send.send(None)


def _stop_with_parent() -> None:
    """Stop as if told to, should the parent be killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
