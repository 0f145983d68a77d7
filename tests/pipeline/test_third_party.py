"""A backbone of another package: installed for real, trained through the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "example_backbone"

QUICK = ("--set", "epochs=60", "--set", "learning_rate=0.01", "--set", "batch_size=256")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the example package, as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "package"
    subprocess.run(["cp", "-r", PACKAGE, source], check=True)  # pip builds in the source folder
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps")
    subprocess.run([*pip, "--target", folder, source], check=True)
    return folder


@pytest.fixture(scope="module")
def run_beside(installed, run_in):
    """Run `pipeline ...`, or other code, where the package is on Python's path."""

    def run(folder, *arguments, code="from sgfd.pipeline import main; main()"):
        there = f"import sys; sys.path.insert(0, {str(installed)!r})"
        return run_in(folder, *arguments, code=f"{there}\n{code}")

    return run


def test_it_is_listed_trained_judged_and_asked(
    installed, run_beside, run_fresh, tmp_path, monkeypatch
):
    assert "Settings of meanvector" in run_beside(tmp_path, "train", "--help").out
    monkeypatch.setenv("PYTHONPATH", str(installed))
    arguments = ("--backbone", "meanvector", "--dataset", "sample", *QUICK)
    trained = run_fresh(tmp_path, "train", *arguments, "--json")
    assert trained.code == 0, trained.err
    assert trained.json()["metrics"]["test"]["recall@20"] > 0.15  # most popular: 0.14
    again = run_beside(tmp_path, "evaluate", "--json").json()
    assert again["metrics"] == trained.json()["metrics"]
    assert len(run_beside(tmp_path, "recommend", "--user", "u1", "--json").json()["items"]) == 10


def test_it_passes_the_battery(run_beside, tmp_path):
    code = (
        "from sgfd.recommenders import find_backbone\n"
        "from sgfd.recommenders.battery import BATTERY\n"
        "for check in BATTERY: check(find_backbone('meanvector'))\n"
    )
    done = run_beside(tmp_path, code=code)
    assert done.code == 0, done.err


def test_a_package_that_is_gone_is_named(installed, run_beside, tmp_path):
    (installed / "example_backbone.py").rename(installed / "gone.py")
    try:
        done = run_beside(tmp_path, "train", "--backbone", "meanvector", "--dataset", "sample")
        helped = run_beside(tmp_path, "train", "--help")
    finally:
        (installed / "gone.py").rename(installed / "example_backbone.py")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "backbone meanvector: can't be imported from example_backbone:MeanVector" in done.err
    assert helped.code == 0 and "Settings of bpr" in helped.out  # the others are still there


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("from typing", "raise RuntimeError('no\\nsuch card')\nfrom typing", "no such card"),
        ("@dataclass(frozen=True, config=CHECKED)\n", "", "nothing checks its"),
    ],
)
def test_a_package_that_is_broken_is_told_of_in_one_line(
    installed, run_beside, tmp_path, before, after, said
):
    module = installed / "example_backbone.py"
    whole = module.read_text()
    assert before in whole
    module.write_text(whole.replace(before, after, 1))
    try:
        done = run_beside(tmp_path, "train", "--backbone", "meanvector", "--dataset", "sample")
    finally:
        module.write_text(whole)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err
