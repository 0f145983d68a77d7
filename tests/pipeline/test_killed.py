"""Killed, interrupted and half-done: nothing passes for a result, the next run goes on."""

import os
import signal
import subprocess
import time
from pathlib import Path

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


EXPORTS = """
import time
from sgfd.featureset import FeatureSetWriter
from sgfd.pipeline import main
FeatureSetWriter.finish = lambda *_: (print("exporting", flush=True), time.sleep(60))
main()
"""


def wait_for(came, process):
    for _ in range(6000):
        if came():
            return
        assert not process.ended(), process.wait()
        time.sleep(0.01)
    pytest.fail("what is waited for never came")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_stage_goes_on_to_the_same_result(
    stage, how, start_in, pipeline, run_in, all_cores, tmp_path, tmp_path_factory
):
    arguments, root, name, file, message = STAGES[stage]
    process = start_in(tmp_path, *arguments)
    wait_for((tmp_path / root / f".{name}.partial" / "checkpoint.safetensors").exists, process)
    time.sleep(0.3)
    os.kill(process.pid, how)
    done = process.wait()
    assert done.code == (130 if how == signal.SIGINT else -signal.SIGKILL)
    if how == signal.SIGINT:
        assert done.err.count("\n") == 1
        assert "goes on from the last checkpoint" in done.err
    assert not (tmp_path / root / name).exists()

    resumed = pipeline(*arguments)
    assert resumed.code == 0, resumed.err
    assert "resuming unfinished work" in resumed.err
    assert message in resumed.err
    assert [path.name for path in (tmp_path / root).iterdir()] == [name]

    whole = tmp_path_factory.mktemp("whole")
    assert run_in(whole, *arguments).code == 0
    assert (whole / root / name / file).read_bytes() == (tmp_path / root / name / file).read_bytes()


def test_a_process_killed_in_the_export_leaves_no_feature_set(start_in, pipeline, tmp_path):
    """The export is made to wait before its last block, and is killed there."""
    process = start_in(tmp_path, *DISTILL[:3], code=EXPORTS)
    wait_for(lambda: process.out.read_text() == "exporting\n", process)
    assert (tmp_path / "artifacts" / ".sample.partial" / "result" / "image.npy").exists()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
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


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.0])
def test_ctrl_c_reaches_a_comparison_whose_server_still_imports(seconds, command, tmp_path):
    """A terminal sends it to all processes of the command, not to the first alone."""
    arguments = ("--dataset", "sample", "--backbones", "bm3", "--features", "none", "--jobs", "1")
    with subprocess.Popen(
        (*command, "compare", *arguments),
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

        def has_server():
            try:
                return any(
                    b"forkserver" in Path(f"/proc/{child}/cmdline").read_bytes()
                    for child in children.read_text().split()
                )
            except OSError:
                return False

        for _ in range(6000):
            if has_server():
                break
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        err = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted; the same command goes on")
