"""Interrupted, killed and diverging: nothing half-done is loadable, the same call goes on."""

import signal
from dataclasses import asdict

import pytest
import torch

from sgfd.dataset import load_dataset
from sgfd.distill import DistillError, distill
from sgfd.distill import sgfd as training
from sgfd.featureset import FeatureSetError, load, verify

DISTILL = """
import os, signal, sys
from pathlib import Path
from sgfd.dataset import load_dataset
from sgfd.distill import SGFDSettings, distill
{before}
distill(load_dataset("sample"), Path(sys.argv[1]), SGFDSettings(**{settings}), threads=1)
"""

KILL_IN_TRAINING = """
from sgfd.jobs import WorkFolder
save, saves = WorkFolder.save, []
def save_and_die(self, tensors, state):
    save(self, tensors, state)
    saves.append(state)
    if len(saves) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
WorkFolder.save = save_and_die
"""

KILL_IN_EXPORT = """
from sgfd.distill import stage
from sgfd.featureset import FeatureSetWriter
stage.EXPORT_ROWS = 64
append, blocks = FeatureSetWriter.append, []
def append_and_die(self, block):
    append(self, block)
    blocks.append(block)
    if len(blocks) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
FeatureSetWriter.append = append_and_die
"""


@pytest.mark.parametrize("before", [KILL_IN_TRAINING, KILL_IN_EXPORT], ids=["training", "export"])
def test_a_killed_one_leaves_nothing_loadable_and_goes_on_to_the_same_bytes(
    before, quick, sample_features, run_in, tmp_path, same_bytes
):
    target, settings = tmp_path / "sample", asdict(quick) | {"checkpoint_seconds": 0}

    def run(code):
        return run_in(tmp_path, target, code=DISTILL.format(before=code, settings=settings))

    assert run(before).code == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".sample.partial"]
    for folder in (target, tmp_path / ".sample.partial", tmp_path / ".sample.partial" / "result"):
        with pytest.raises(FeatureSetError):
            load(folder)
    again = run("")
    assert again.code == 0, again.err
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]
    assert verify(target) == []
    assert same_bytes(target, sample_features.artifact)


@pytest.mark.parametrize("reads", [1, 2, 3, 9, 44, 45])
def test_an_interrupted_one_goes_on_to_the_same_bytes(
    reads, quick, sample_features, tmp_path, interrupt_at, same_bytes
):
    """Ctrl-C at a batch, at the held-out items (every third read), at the last of all (45)."""
    interrupt_at(training.ItemReader, reads)
    with pytest.raises(KeyboardInterrupt):
        distill(load_dataset("sample"), tmp_path / "sample", quick, threads=1)
    assert [path.name for path in tmp_path.iterdir()] == [".sample.partial"]
    resumed = distill(load_dataset("sample"), tmp_path / "sample", quick, threads=1)
    assert same_bytes(resumed.artifact, sample_features.artifact)


def test_what_another_seed_left_is_not_gone_on_with(
    quick, sample_features, tmp_path, monkeypatch, same_bytes
):
    with monkeypatch.context() as patch:
        read = training.ItemReader.read

        def interrupt(self, index):
            signal.raise_signal(signal.SIGINT)
            return read(self, index)

        patch.setattr(training.ItemReader, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            distill(load_dataset("sample"), tmp_path / "sample", quick, seed=5, threads=1)
    made = distill(load_dataset("sample"), tmp_path / "sample", quick, threads=1)
    assert same_bytes(made.artifact, sample_features.artifact)


def test_a_loss_that_is_not_finite_stops_with_the_setting_to_change(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "feature_loss", lambda t, s: (t * torch.nan).sum())
    message = r"epoch 1, step 1: the loss is no longer .* learning_rate"
    with pytest.raises(DistillError, match=message):
        distill(load_dataset("sample"), tmp_path / "out", quick, threads=1)
    assert list(tmp_path.iterdir()) == []
