"""A full disk: one line, nothing half-written, and with room the same command goes on.

A limit on the size of files stands for the disk: it needs no privilege, and the system refuses to
write in the same way (EFBIG in place of ENOSPC).
"""

import resource
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from sgfd.dataset import load_dataset
from sgfd.distill import PCASettings, distill
from sgfd.featureset import verify
from sgfd.jobs import JobError
from sgfd.recommenders import find_backbone, train, write_recommendations

SAMPLE = load_dataset("sample")
FULL = "the disk is full"
LIMIT = 140_000  # between the files of popular and those of bpr
LIMITED = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))
from sgfd.pipeline import main
main()
"""


@contextmanager
def files_up_to(size):
    """Let no file of this process grow above a size in bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def trained(root, **options):
    settings = find_backbone("bpr").Settings(epochs=2, embedding_dim=16, checkpoint_seconds=0)
    return train(SAMPLE, "bpr", settings=settings, runs_root=root, **options)


def test_output_that_finds_no_room_is_one_line(command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, "data", "list"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: the output: can't be read or written (No space left")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("size", [200, 10_000, 30_000, 60_000, 100_000])
def test_a_training_ends_in_one_line_wherever_it_strikes(tmp_path, size):
    """In the first record, a checkpoint, an array, a tensor file, a table."""
    before = trained(tmp_path, name="before")
    with files_up_to(size), pytest.raises(JobError, match=FULL):
        trained(tmp_path, name="run")
    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["before"]
    assert not list(tmp_path.glob(".run.partial/result"))
    assert trained(tmp_path, name="run").metrics == before.metrics
    assert names(tmp_path) == ["before", "run"]


def test_overwriting_on_a_full_disk_keeps_what_was_there(tmp_path):
    before = trained(tmp_path, name="run")
    with files_up_to(60_000), pytest.raises(JobError, match=FULL):
        trained(tmp_path, name="run", overwrite=True, seed=1)
    assert (before.folder / "run.json").exists()
    assert before.judge("test").metrics["recall@20"] == before.metrics["test"]["recall@20"]


@pytest.mark.parametrize("size", [0, 3, 5_000])
def test_lists_that_find_no_room_keep_those_before(tmp_path, size):
    run = trained(tmp_path, name="run")
    path = write_recommendations(run, tmp_path / "lists.parquet", 20)
    before = path.read_bytes()
    with files_up_to(size), pytest.raises(JobError, match=FULL):
        write_recommendations(run, path, 20, overwrite=True)
    assert (path.read_bytes(), names(tmp_path)) == (before, ["lists.parquet", "run"])


@pytest.mark.parametrize("size", [200, 30_000, 70_000])
def test_a_distillation_ends_in_one_line_wherever_it_strikes(tmp_path, size):
    with files_up_to(size), pytest.raises(JobError, match=FULL):
        distill(SAMPLE, tmp_path / "pca", method="pca")
    assert names(tmp_path) == []
    verify(distill(SAMPLE, tmp_path / "pca", method="pca").artifact)


def test_neighbours_that_find_no_room_leave_nothing(tmp_path):
    def distilled():
        settings = PCASettings(dimension=2)
        return distill(SAMPLE, tmp_path / "pca", settings, compress=["int8"], neighbours=200)

    with files_up_to(100_000), pytest.raises(JobError, match=FULL):
        distilled()
    assert names(tmp_path) == []
    made = distilled().artifact
    sizes = {path.name: path.stat().st_size for path in made.iterdir()}
    assert [name for name, size in sizes.items() if size > 100_000] == ["neighbours.parquet"]
    assert verify(made) == []


def test_a_comparison_tells_of_the_cells_that_found_no_room_and_goes_on_later(
    run_in, all_cores, tmp_path
):
    arguments = ("compare", "--dataset", "sample", "--backbones", "popular,bpr", "--features")
    arguments += ("none", "--seeds", "1", "--set", "bpr.epochs=2")
    limited = run_in(tmp_path, *arguments, code=LIMITED)
    assert limited.code == 1, limited.err
    assert FULL in limited.err and "Traceback" not in limited.err
    runs = tmp_path / "comparisons" / "sample" / "runs"
    assert names(runs) == ["honest-popular-none-seed0"]
    again = run_in(tmp_path, *arguments)
    assert again.code == 0, again.err
    assert "cells: 1 of 2 done" in again.err
    assert names(runs) == ["honest-bpr-none-seed0", "honest-popular-none-seed0"]
