"""`pipeline tune` and `--refit` through the real command line."""

import json
import os
import signal
import subprocess
import time

import pytest

TUNE = ("tune", "--backbone", "bpr", "--dataset", "sample", "--trials", "4", "--name", "t")
QUICK = ("--set", "epochs=6", "--set", "checkpoint_seconds=0.2")


def trials_in(folder):
    lines = (folder / "tunings" / "t" / "trials.jsonl").read_text().splitlines()
    return [json.loads(line) | {"seconds": 0} for line in lines]


def test_killed_in_the_midst_it_goes_on_to_the_same_trials_and_run(
    start_in, pipeline, run_in, all_cores, tmp_path, tmp_path_factory
):
    process = start_in(tmp_path, *TUNE, *QUICK)
    trials = tmp_path / "tunings" / "t" / "trials.jsonl"
    while not trials.exists():
        assert not process.ended(), process.wait()
        time.sleep(0.01)
    time.sleep(0.2)  # in the midst of the second
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "tunings" / "t" / "run").exists()

    resumed = pipeline(*TUNE, *QUICK, "--json")
    assert resumed.code == 0, resumed.err
    assert "the search goes on after" in resumed.err
    whole = tmp_path_factory.mktemp("whole")
    straight = run_in(whole, *TUNE, *QUICK, "--json")
    assert trials_in(tmp_path) == trials_in(whole)
    assert resumed.json()["metrics"] == straight.json()["metrics"]
    assert resumed.json()["tuning"]["trials"] == 4


def test_refit_is_printed_beside_the_figures_and_checked_by_evaluate(pipeline, tmp_path):
    train = ("train", "--backbone", "graphfilter", "--dataset", "sample", "--name", "r", "--refit")
    done = pipeline(*train)
    assert done.code == 0, done.err
    assert "refit on train and valid" in done.out and "refit, test" in done.out
    checked = pipeline("evaluate", "r", "--json").json()
    assert checked["agrees"]
    assert checked["refit"]["metrics"]["test"] != checked["metrics"]["test"]
    assert pipeline("evaluate", "r/refit").code == 0
    assert pipeline("recommend", "--run", "r/refit", "--user", "u1").code == 0

    record = tmp_path / "runs" / "r" / "refit" / "run.json"
    changed = json.loads(record.read_text())
    changed["metrics"]["test"]["recall@20"] += 0.01
    record.write_text(json.dumps(changed))
    assert pipeline("evaluate", "r").code == 2


def test_it_says_that_nothing_was_better_than_the_start(pipeline):
    done = pipeline(*TUNE[:5], "--trials", "1", "--set", "epochs=1")
    assert "tuned         1 trial on valid (0 pruned, 0 failed): none better than the " in done.out


def test_a_range_may_lie_beside_the_default(pipeline):
    command = ("tune", "--backbone", "graphfilter", "--dataset", "sample", "--trials", "2")
    found = pipeline(*command, "--range", "low_pass_dim=100:200", "--json")
    assert found.code == 0, found.err
    assert 100 <= found.json()["tuning"]["chosen"]["low_pass_dim"] <= 200


def test_a_damaged_record_of_a_search_is_told_in_a_line(pipeline, tmp_path):
    command = ("tune", "--backbone", "graphfilter", "--dataset", "sample", "--trials", "1")
    assert pipeline(*command, "--name", "t").code == 0
    (tmp_path / "tunings" / "t" / "tuning.json").write_text("{")
    done = pipeline(*command, "--name", "t")
    assert done.code == 2 and "tuning.json: can't be read; choose another --name" in done.err


def test_help_says_where_a_setting_is_searched(pipeline):
    shown = " ".join(pipeline("tune", "--help").out.split())
    assert "tuned from 0.0001 to 0.01, by logarithm" in shown


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_again_and_again_it_ends_the_same(
    seed, command, run_in, tmp_path, tmp_path_factory, rng
):
    whole = tmp_path_factory.mktemp("whole")
    arguments = (*TUNE, *QUICK, "--seed", str(seed))
    assert run_in(whole, *arguments).code == 0
    for _ in range(6):
        process = subprocess.Popen(
            (*command, *arguments), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        time.sleep(float(rng.uniform(2, 8)))
        process.kill()
        process.communicate()
    assert run_in(tmp_path, *arguments).code == 0
    assert trials_in(tmp_path) == trials_in(whole)
