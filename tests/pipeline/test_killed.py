"""Killed, interrupted and half-done: nothing passes for a result, the next run goes on."""

import signal
import subprocess
import time

import pytest

DISTILL = ("distill", "--dataset", "sample", "--set", "checkpoint_seconds=0")
TRAIN = (
    "train",
    *("--backbone", "bm3", "--dataset", "sample", "--name", "run"),
    *("--set", "epochs=12", "--set", "checkpoint_seconds=0"),
)
STAGES = {
    "one": (DISTILL, "artifacts", "sample", "features.parquet", "distillation goes on"),
    "two": (TRAIN, "runs", "run", "user_embeddings.npy", "training goes on"),
}


def start(command, folder, arguments):
    return subprocess.Popen(
        (*command, *arguments),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(path, process):
    for _ in range(6000):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail(f"{path} never came")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_stage_goes_on_to_the_same_result(
    stage, how, command, pipeline, run_in, tmp_path, tmp_path_factory
):
    arguments, root, name, file, message = STAGES[stage]
    process = start(command, tmp_path, arguments)
    wait_for(tmp_path / root / f".{name}.partial" / "checkpoint.safetensors", process)
    time.sleep(0.3)
    process.send_signal(how)
    _, errors = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    if how == signal.SIGINT:
        assert errors.count("\n") == 1
        assert "goes on from the last checkpoint" in errors
    assert not (tmp_path / root / name).exists()

    resumed = pipeline(*arguments)
    assert resumed.code == 0, resumed.err
    assert "resuming unfinished work" in resumed.err
    assert message in resumed.err
    assert [path.name for path in (tmp_path / root).iterdir()] == [name]

    whole = tmp_path_factory.mktemp("whole")
    assert run_in(whole, *arguments).code == 0
    assert (whole / root / name / file).read_bytes() == (tmp_path / root / name / file).read_bytes()


def test_a_process_killed_in_the_export_leaves_no_feature_set(
    command, pipeline, run_in, tmp_path, tmp_path_factory
):
    """The export is made to wait before its last block, and is killed there."""
    import os
    import sys

    code = (
        "import time\n"
        "from sgfd.featureset import FeatureSetWriter as W\n"
        "W.finish = lambda self, manifest: (print('exporting', flush=True), time.sleep(60))\n"
        f"import sys; sys.argv = ['pipeline', *{DISTILL[:3]!r}]\n"
        "from sgfd.pipeline import main; main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "exporting\n"
    assert (tmp_path / "artifacts" / ".sample.partial" / "result" / "image.npy").exists()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert pipeline("features", "verify", "sample").code == 2
    half = "artifacts/.sample.partial/result"
    assert pipeline("features", "verify", half).code == 2

    again = pipeline(*DISTILL[:3])
    assert again.code == 0, again.err
    assert "unfinished work on artifacts/sample has no checkpoint: starting over" in again.err
    assert [path.name for path in (tmp_path / "artifacts").iterdir()] == ["sample"]
    assert pipeline("features", "verify", "sample").code == 0


def test_a_half_copied_run_is_refused(pipeline, tmp_path):
    assert pipeline(*TRAIN).code == 0
    for file in ("run.json", "items.parquet", "user_embeddings.npy"):
        path = tmp_path / "runs" / "run" / file
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        done = pipeline("evaluate", "run")
        assert (done.code, done.err.count("\n")) == (2, 1), done
        path.unlink()
        done = pipeline("evaluate", "run")
        assert done.code == 2
        assert f"is not a run: {file} is missing" in done.err
        path.write_bytes(content)
    assert pipeline("evaluate", "run").code == 0
