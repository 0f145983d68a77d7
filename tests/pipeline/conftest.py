"""The real command line, in processes of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Done:
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


PIPELINE = (str(Path(sys.executable).with_name("pipeline")),)

# A process that has imported everything, where nothing has been computed yet, and forks one for
# each command that it reads: to import torch anew would take most of a test's time.
FORKER = """
import json, os, sys
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does, before OpenMP loads
import sgfd.distill, sgfd.recommenders.comparison
from sgfd.pipeline import main
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(asked["folder"])
        for number, name in enumerate((os.devnull, asked["out"], asked["err"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        sys.argv = ["pipeline", *asked["arguments"]]
        main()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def environment():
    return {k: v for k, v in os.environ.items() if k != "PIPELINE_DATA"}


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


@pytest.fixture(scope="session")
def run_in(tmp_path_factory) -> Callable[..., Done]:
    """Run `pipeline ...` in a folder: the same, forked from a process that has imported it."""
    printed = tmp_path_factory.mktemp("printed")
    with subprocess.Popen(
        [sys.executable, "-c", FORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as forker:

        def run(folder: Path, *arguments: str) -> Done:
            out, err = printed / "out", printed / "err"
            for path in (out, err):
                path.write_bytes(b"")
            asked = {"folder": str(folder), "arguments": [str(each) for each in arguments]}
            asked |= {"out": str(out), "err": str(err)}
            forker.stdin.write(json.dumps(asked) + "\n")
            forker.stdin.flush()
            code = int(forker.stdout.readline())
            return Done(code, out.read_text(), err.read_text())

        yield run
        forker.stdin.close()


@pytest.fixture
def pipeline(run_in, tmp_path) -> Callable[..., Done]:
    """Run `pipeline ...` in the test's own, empty folder."""
    return lambda *arguments: run_in(tmp_path, *arguments)


@pytest.fixture
def command() -> tuple[str, ...]:
    return PIPELINE
