"""Fixtures that several folders of tests share, the command line's own processes among them."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

# As the command line does, and before anything loads OpenMP.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

ALL_CORES = os.sched_getaffinity(0)


def keep_to_a_share_of_the_cores(worker: int, workers: int) -> None:
    """Several test processes at a time, and all that they start, each have cores of their own.

    Training takes all the cores that it may use. Two that each take both wait for one another at
    every step.
    """
    cores = sorted(ALL_CORES)
    os.sched_setaffinity(0, cores[worker % workers :: workers] or cores)


if "PYTEST_XDIST_WORKER" in os.environ:  # before anything counts the cores
    keep_to_a_share_of_the_cores(
        int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")),
        int(os.environ["PYTEST_XDIST_WORKER_COUNT"]),
    )

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside a checkout; tests that need it skip without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets (../shared/data) are not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """A headless Chromium that playwright drives."""
    playwright = pytest.importorskip("playwright.sync_api")
    if (program := shutil.which("chromium")) is None:
        pytest.skip("chromium is not installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program, args=quiet)
        yield chromium
        chromium.close()


@pytest.fixture
def all_cores() -> Iterator[None]:
    """For tests that several processes or threads at work are a part of."""
    share = os.sched_getaffinity(0)
    os.sched_setaffinity(0, ALL_CORES)
    yield
    os.sched_setaffinity(0, share)


# A process that has imported everything, where nothing has been computed yet, and forks one for
# each program that it reads: to import torch anew would take most of a test's time.
FORKER = """
import atexit, json, os, signal, sys, traceback
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does, before OpenMP loads
import sgfd.distill, sgfd.recommenders.comparison, sgfd.pipeline
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.sched_setaffinity(0, asked["cores"])
        os.chdir(asked["folder"])
        for number, name in enumerate((os.devnull, asked["out"], asked["err"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        sys.argv = ["pipeline", *asked["arguments"]]
        ended = 0
        try:
            exec(asked["code"], {"__name__": "__main__"})
        except SystemExit as end:
            ended = end.code or 0
        except BaseException:
            traceback.print_exc()
            ended = 1
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(ended)  # to take down all that was imported would take a second
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
COMMAND = "from sgfd.pipeline import main; main()"


@dataclass
class Done:
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


@dataclass
class Started:
    """A forked process at work."""

    pid: int
    out: Path
    err: Path
    forker: subprocess.Popen
    code: int | None = None

    def ended(self) -> bool:
        return not Path(f"/proc/{self.pid}").exists()

    def wait(self, seconds: float | None = None) -> Done:
        end = time.monotonic() + (seconds or 0)
        while seconds and not self.ended():
            assert time.monotonic() < end, "it does not end"
            time.sleep(0.01)
        if self.code is None:
            self.code = int(self.forker.stdout.readline())
        return Done(self.code, self.out.read_text(), self.err.read_text())


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "PIPELINE_DATA"}


@pytest.fixture(scope="session")
def start_in(tmp_path_factory) -> Iterator[Callable[..., Started]]:
    """Start `pipeline ...`, or other code, in a folder: forked from a process that imported it."""
    printed = tmp_path_factory.mktemp("printed")
    with subprocess.Popen(
        [sys.executable, "-c", FORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as forker:
        last: list[Started] = []

        def end_last() -> None:
            """A test that failed may have left its process at work."""
            for started in last:
                if started.code is None:
                    if not started.ended():
                        os.kill(started.pid, signal.SIGKILL)
                    started.wait()
            last.clear()

        def start(folder: Path, *arguments: object, code: str = COMMAND) -> Started:
            end_last()
            out, err = printed / "out", printed / "err"
            for path in (out, err):
                path.write_bytes(b"")
            asked = {"folder": str(folder), "arguments": [str(each) for each in arguments]}
            asked |= {"code": code, "cores": sorted(os.sched_getaffinity(0))}
            asked |= {"out": str(out), "err": str(err)}
            forker.stdin.write(json.dumps(asked) + "\n")
            forker.stdin.flush()
            last.append(Started(int(forker.stdout.readline()), out, err, forker))
            return last[0]

        yield start
        end_last()
        forker.stdin.close()


@pytest.fixture(scope="session")
def run_in(start_in) -> Callable[..., Done]:
    """Run `pipeline ...`, or other code, in a folder to its end."""
    return lambda *arguments, **options: start_in(*arguments, **options).wait()


# A process that kills itself at its n-th touch of the disk or the network.
KILLED = """
import os, signal, sys
touches, at = 0, {at}
def hook(event, arguments):
    global touches
    if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod",
                 "os.truncate", "shutil.rmtree", "socket.connect", "os.listdir"):
        touches += 1
        if touches == at:
            os.kill(os.getpid(), signal.SIGKILL)
import aiohttp, fsspec, asyncio, tempfile, ctypes, pandas
sys.addaudithook(hook)
{act}
print(touches)
"""


@pytest.fixture(scope="session")
def killed_everywhere(start_in) -> Callable[..., None]:
    """Do something in processes of which each is killed at another point.

    The touches of a whole one are counted; others are killed at a sample of `kills` of them.
    `check` is called with None before each, and with its exit code after it.
    """

    def kill(kills: int, folder: Path, act: str, check: Callable[[int | None], None]) -> None:
        check(None)
        done = start_in(folder, code=KILLED.format(at=-1, act=act)).wait()
        assert done.code == 0, done.err
        touches = int(done.out.split()[-1])
        assert touches > 12
        for at in sorted(random.Random(kills).sample(range(1, touches + 1), min(kills, touches))):
            check(None)
            done = start_in(folder, code=KILLED.format(at=at, act=act)).wait()
            assert done.code in (0, -signal.SIGKILL), done.err  # caches may save it some touches
            check(done.code)

    return kill


@pytest.fixture
def pipeline(run_in, tmp_path) -> Callable[..., Done]:
    """Run `pipeline ...` in the test's own, empty folder."""
    return lambda *arguments: run_in(tmp_path, *arguments)


PIPELINE = (str(Path(sys.executable).with_name("pipeline")),)


@pytest.fixture(scope="session")
def run_fresh() -> Callable[..., Done]:
    """Run `pipeline ...` in a folder, from the installed program and the present environment."""

    def run(folder: Path, *arguments: str) -> Done:
        done = subprocess.run(
            (*PIPELINE, *map(str, arguments)),
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment(),
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def command() -> tuple[str, ...]:
    return PIPELINE
