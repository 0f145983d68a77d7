"""The documentation's examples run, and it names every command and its options' defaults."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_examples_of_the_readme_run_in_their_order(run_in, all_cores, tmp_path):
    shell = [
        shlex.split(line.removeprefix("$ ").partition("#")[0])
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ pipeline")
    ]
    assert len(shell) == 17
    for arguments in shell:
        if "--backbone" in arguments:  # shown as a user types it; here a short run will do
            arguments += ["--set", "epochs=3"]
        if arguments[1] == "compare":
            arguments += ["--set", "bpr.epochs=2", "--set", "vbpr.epochs=2"]
        done = run_in(tmp_path, *arguments[1:])
        assert done.code == 0, (arguments, done.err)
    for code in blocks("python"):
        short = code.replace('"bm3", features)', '"popular", features)')
        done = run_in(tmp_path, code=short)
        assert done.code == 0, done.err


@pytest.mark.parametrize(
    "command",
    [
        "distill",
        "train",
        "evaluate",
        "recommend",
        "similar",
        "tune",
        "compare",
        "data check",
        "features verify",
        "features embed",
        "features export-onnx",
        "features explore",
        "features export",
        "features import",
    ],
)
def test_every_command_is_in_the_readme(command):
    assert f"pipeline {command}" in README


def test_make_runs_what_the_readme_says():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(
        r"(?:`|\$ )make (\w+)", README + (ROOT / "CONTRIBUTING.md").read_text()
    ):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_nothing_shipped_can_unpickle():
    folders = ("commands", "dataset", "featureset", "jobs", "distill", "recommenders")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    code = "\n".join(path.read_text() for path in (*files, ROOT / "pipeline.py"))
    unsafe = r"allow_pickle=True|^\s*import pickle|torch\.load\(|read_pickle"
    assert re.search(unsafe, code, re.MULTILINE) is None
