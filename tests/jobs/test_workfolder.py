"""Work folders: resumed where they fit, never mistaken for a result, never shared."""

import logging
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from sgfd.featureset import lock_folder, remove_locked
from sgfd.jobs import JobError, WorkFolder, pack, unpack


def build(work):
    (work.result / "file").write_text("whole")
    return work.publish()


def test_the_result_appears_by_one_rename_and_nothing_is_left(tmp_path):
    with WorkFolder(tmp_path / "out", {"seed": 1}) as work:
        assert not (tmp_path / "out").exists()
        build(work)
    assert (tmp_path / "out" / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_existing_target_is_refused_before_any_work(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(JobError, match="exists already"), WorkFolder(tmp_path / "out", {}):
        pytest.fail("the work began")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_can_not_be_made_is_not_waited_for():
    nowhere = Path("/proc/nope/out")  # where Linux says that the parent is missing, ever again
    with pytest.raises(JobError, match="can't be written"), WorkFolder(nowhere, {}):
        pytest.fail("the work began")


def test_a_link_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "real").mkdir()
    for name, to in (("link", "real"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(tmp_path / to)
        with pytest.raises(JobError, match="is a link; name the folder itself"):
            WorkFolder(tmp_path / name, {}, overwrite=True).__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "link", "real"]


def test_overwriting_exchanges_the_old_for_the_new(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with WorkFolder(tmp_path / "out", {}, overwrite=True) as work:
        build(work)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_without_a_checkpoint_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), WorkFolder(tmp_path / "out", {}):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_same_work_goes_on_from_its_checkpoint_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="sgfd")
    with pytest.raises(KeyboardInterrupt), WorkFolder(tmp_path / "out", {"seed": 1}) as work:
        work.save({"x": torch.arange(3)}, {"epoch": 4})
        raise KeyboardInterrupt
    with WorkFolder(tmp_path / "out", {"seed": 1}) as work:
        tensors, state = work.restore()
        assert tensors["x"].tolist() == [0, 1, 2]
        assert state == {"epoch": 4}
        build(work)
    assert "resuming unfinished work" in caplog.text


def test_other_work_starts_over_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="sgfd")
    with pytest.raises(KeyboardInterrupt), WorkFolder(tmp_path / "out", {"seed": 1}) as work:
        work.save({"x": torch.zeros(1)}, {})
        raise KeyboardInterrupt
    with WorkFolder(tmp_path / "out", {"seed": 2}) as work:
        assert work.restore() is None
    assert "had other inputs or settings: starting over" in caplog.text


def test_what_can_not_be_told_to_be_the_same_work_starts_over(tmp_path):
    with pytest.raises(KeyboardInterrupt), WorkFolder(tmp_path / "out", {"seed": 1}) as work:
        work.save({"x": torch.zeros(1)}, {})
        raise KeyboardInterrupt
    (tmp_path / ".out.partial" / "identity.json").write_bytes(b"\xff\xfe")
    with WorkFolder(tmp_path / "out", {"seed": 1}) as work:
        assert work.restore() is None


def test_a_mangled_checkpoint_is_refused_in_one_line(tmp_path):
    with pytest.raises(KeyboardInterrupt), WorkFolder(tmp_path / "out", {}) as work:
        work.save({"x": torch.zeros(1)}, {})
        raise KeyboardInterrupt
    path = tmp_path / ".out.partial" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with WorkFolder(tmp_path / "out", {}) as work, pytest.raises(JobError, match="delete it"):
        work.restore()


def _hold(target, ready):
    with WorkFolder(target, {}):
        ready.set()
        time.sleep(60)


def test_two_processes_never_work_on_one_target_and_a_killed_one_lets_go(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "out", ready))
    process.start()
    try:
        assert ready.wait(60)
        with pytest.raises(JobError, match="another process"), WorkFolder(tmp_path / "out", {}):
            pytest.fail("two at work")
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with WorkFolder(tmp_path / "out", {}) as work:
        build(work)


def test_a_packed_optimiser_goes_on_as_if_it_had_not_stopped():
    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, torch.optim.Adam(model.parameters(), 0.1)

    def step(model, optimizer):
        loss = torch.nn.functional.dropout(model(torch.ones(4, 3))).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    whole = fresh()
    for _ in range(6):
        step(*whole)
    first = fresh()
    for _ in range(3):
        step(*first)
    saved = {name: tensor.clone() for name, tensor in pack(*first).items()}
    torch.manual_seed(99)
    second = fresh()
    unpack(saved, *second)
    for _ in range(3):
        step(*second)
    torch.testing.assert_close(second[0].weight, whole[0].weight, rtol=0, atol=0)


def test_who_ends_takes_nothing_from_who_begins(tmp_path, monkeypatch):
    """Another process has the folder as soon as its lock is gone."""
    folder, unlink, others = tmp_path / ".out.partial", Path.unlink, []
    own = lock_folder(folder)
    (folder / "result").mkdir()
    (folder / "result" / "file").touch()
    (folder / "identity.json").touch()

    def then_another_begins(path):
        unlink(path)
        if path.name == "lock":
            others.append(lock_folder(folder))
            (folder / "identity.json").write_text("the other's")

    monkeypatch.setattr(Path, "unlink", then_another_begins)
    remove_locked(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["identity.json", "lock"]
    assert (folder / "identity.json").read_text() == "the other's"
    monkeypatch.undo()
    remove_locked(folder)
    assert list(tmp_path.iterdir()) == []
    for lock in (own, *others):
        os.close(lock)
