"""The documentation's examples run, and it names every command and its options' defaults."""

import re
import shlex
import subprocess
from pathlib import Path

import click
import pytest

from sgfd.pipeline import cli
from sgfd.recommenders import find_backbone

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


REMEMBERED = ("import ", "from ", "rng = ", "folder = ", "items = ")  # for the blocks that follow
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def quick(arguments):
    """Arguments as a user types them; a short training will do here."""
    if arguments[1] == "compare":
        names = arguments[arguments.index("--backbones") + 1].split(",")
        trained = [name for name in names if find_backbone(name).trained]
        return [*arguments, *(x for name in trained for x in ("--set", f"{name}.epochs=2"))]
    return [*arguments, "--set", "epochs=3"] if "--backbone" in arguments else arguments


def test_the_examples_of_the_readme_run_in_their_order(run_in, all_cores, tmp_path):
    shell = [
        shlex.split(line.removeprefix("$ ").partition("#")[0])
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith("$ pipeline")
    ]
    assert len(shell) == 25
    for arguments in shell:
        done = run_in(tmp_path, *quick(arguments)[1:])
        assert done.code == 0, (arguments, done.err)
    for code in blocks("python"):
        short = code.replace('"bm3", features)', '"popular", features)')
        done = run_in(tmp_path, code=short)
        assert done.code == 0, done.err


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_from_top_to_bottom(run_in, all_cores, tmp_path, tutorial):
    """The Python blocks share their names, as in one sitting."""
    text = tutorial.read_text()
    written: list[str] = []
    for language, block in re.findall(r"```(python|console)\n(.*?)```", text, flags=re.DOTALL):
        if language == "python":
            block = block.replace('"vbpr", features)', '"popular", features)')
            done = run_in(tmp_path, code="\n".join([*written, block]))
            assert done.code == 0, done.err
            written += [line for line in block.splitlines() if line.startswith(REMEMBERED)]
            continue
        for line in block.splitlines():
            arguments = shlex.split(line.removeprefix("$ "))
            if arguments[0] != "pipeline":
                subprocess.run(arguments, cwd=tmp_path, check=True)
                continue
            done = run_in(tmp_path, *quick(arguments)[1:])
            assert done.code == 0, (arguments, done.err)
    assert "$ pipeline" in text
    assert text.count("```python") >= 1


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
        "features publish",
        "features list",
        "features push",
        "features pull",
        "features diff",
        "features lineage",
        "features sign",
        "features embed",
        "features export-onnx",
        "features explore",
        "features export",
        "features import",
    ],
)
def test_every_command_is_in_the_readme(command):
    assert f"pipeline {command}" in README


def commands(group, name="pipeline"):
    yield name, group
    for part in getattr(group, "commands", {}).values():
        yield from commands(part, f"{name} {part.name}")


@pytest.mark.parametrize(("name", "command"), list(commands(cli)))
def test_help_leaves_nothing_out(name, command):
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert [each.opts for each in options if not each.help] == []
    if isinstance(command, click.Group):
        shown = command.get_help(click.Context(command, info_name=name, terminal_width=78))
        assert "..." not in shown.partition("Commands:")[2]


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
