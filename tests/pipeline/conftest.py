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


@pytest.fixture(scope="session")
def run_in() -> Callable[..., Done]:
    """Run `pipeline ...` in a folder."""

    def run(folder: Path, *arguments: str) -> Done:
        environment = {k: v for k, v in os.environ.items() if k != "PIPELINE_DATA"}
        done = subprocess.run(
            (*PIPELINE, *map(str, arguments)),
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def pipeline(run_in, tmp_path) -> Callable[..., Done]:
    """Run `pipeline ...` in the test's own, empty folder."""
    return lambda *arguments: run_in(tmp_path, *arguments)


@pytest.fixture
def command() -> tuple[str, ...]:
    return PIPELINE
