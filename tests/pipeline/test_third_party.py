"""A backbone of another package: installed for real, trained through the command line."""

import os
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


def test_it_is_listed_trained_judged_and_asked(installed, run_fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(installed))
    assert "Settings of meanvector" in run_fresh(tmp_path, "train", "--help").out
    arguments = ("--backbone", "meanvector", "--dataset", "sample", *QUICK)
    trained = run_fresh(tmp_path, "train", *arguments, "--json")
    assert trained.code == 0, trained.err
    assert trained.json()["metrics"]["test"]["recall@20"] > 0.15  # most popular: 0.14
    again = run_fresh(tmp_path, "evaluate", "--json").json()
    assert again["metrics"] == trained.json()["metrics"]
    assert len(run_fresh(tmp_path, "recommend", "--user", "u1", "--json").json()["items"]) == 10


def test_it_passes_the_battery(installed):
    code = (
        "from sgfd.recommenders import find_backbone\n"
        "from sgfd.recommenders.battery import BATTERY\n"
        "for check in BATTERY: check(find_backbone('meanvector'))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(installed)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_package_that_is_gone_is_named(installed, run_fresh, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(installed))
    (installed / "example_backbone.py").rename(installed / "gone.py")
    try:
        done = run_fresh(tmp_path, "train", "--backbone", "meanvector", "--dataset", "sample")
    finally:
        (installed / "gone.py").rename(installed / "example_backbone.py")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "backbone meanvector: can't be imported from example_backbone:MeanVector" in done.err
