"""The grid: what it holds, that it goes on after any end, and that it never mixes inputs."""

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sgfd import featureset
from sgfd.dataset import load_dataset
from sgfd.distill import distill
from sgfd.featureset import FeatureSetError
from sgfd.jobs import JobError, locked
from sgfd.recommenders import find_backbone
from sgfd.recommenders.comparison import ComparedFeatures, Comparison, compare, contrasts, running
from sgfd.recommenders.comparison.grid import Grid, compared, label_features
from sgfd.recommenders.comparison.processes import Task, run_processes
from sgfd.recommenders.comparison.running import duration, name_of, plan, run_grid
from sgfd.recommenders.comparison.summary import split_words
from sgfd.recommenders.run_folder import load_run

SAMPLE = load_dataset("sample")


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    for method in ("pca", "random"):
        distill(SAMPLE, folder / method, method=method)
    return folder


def grid_of(features=(), seeds=1, protocols=("honest",), options=None, **settings):
    settings = settings or {"popular": {}, "bpr": {"epochs": 2}}
    return Grid(
        dataset=SAMPLE,
        reference="sample",
        data_root=None,
        features=label_features([None, *(featureset.load(path) for path in features)]),
        settings={name: find_backbone(name).Settings(**own) for name, own in settings.items()},
        seeds=seeds,
        protocols=protocols,
        options=options or {},
    )


def names(grid):
    return [name_of(cell) for cell in grid.cells()]


def test_the_cells_are_those_that_make_sense(features):
    grid = grid_of([features / "pca"], 2, popular={}, bm3={}, content={})
    assert names(grid)[:4] == [
        "honest-popular-none-seed0",
        "honest-bm3-none-seed0",
        "honest-bm3-pca-seed0",
        "honest-content-pca-seed0",
    ]
    assert len(grid.cells()) == 8


def test_under_cold_items_cells_are_those_that_can_answer(features):
    asked = {"popular": {}, "bm3": {}, "vbpr": {}, "content": {}}
    grid = grid_of([features / "pca"], options={"split": "cold-items"}, **asked)
    assert names(grid) == ["honest-vbpr-pca-seed0", "honest-content-pca-seed0"]
    assert [each.what for each in grid.unanswered()] == ["popular", "bm3", "vbpr without features"]
    assert grid_of([features / "pca"], **asked).unanswered() == ()
    with pytest.raises(JobError, match="nothing to compare; bm3 scores items by id"):
        grid_of(options={"split": "cold-items"}, bm3={})


def test_the_split_and_the_judged_users_are_what_a_comparison_is_about(tmp_path):
    by_last = {"split": "leave-one-out", "judge_users": ["u2", "u1"]}
    run_grid(grid_of(options=by_last, popular={}), tmp_path, jobs=1)
    assert "u2" not in (tmp_path / "comparison.json").read_text()
    same = {"split": "leave-one-out", "judge_users": ["u1", "u2", "u1"]}
    (result,) = run_grid(grid_of(options=same, popular={}), tmp_path, jobs=1)
    assert load_run(result.run).record["judge_users"]["count"] == 2
    for other in ({}, {"split": "leave-one-out"}, {**by_last, "judge_users": ["u1"]}):
        with pytest.raises(JobError, match=r"other inputs \(judge_users "):
            run_grid(grid_of(options=other, popular={}), tmp_path, jobs=1)
    with pytest.raises(JobError, match="'nobody': is not among"):
        run_grid(grid_of(options={"judge_users": ["nobody"]}, popular={}), tmp_path / "b", jobs=1)
    assert not (tmp_path / "b").exists()


def test_named_users_without_a_test_item_are_not_said_to_be_judged():
    test = SAMPLE.interactions.test
    few = replace(SAMPLE.interactions, test=test.take(test.user < 2))
    named = grid_of(options={"judge_users": ["u1", "u2", "u3", "u1"]}, popular={})
    for grid, number in (
        (named, "3"),
        (replace(named, dataset=replace(SAMPLE, interactions=few)), "2 of 3"),
    ):
        words = split_words(compared(grid, [], "", "none"))
        assert words == f"Test judges {number} named users alone."


def test_what_is_done_is_not_done_again_and_more_is_added(tmp_path):
    run_grid(grid_of(), tmp_path, jobs=2)
    record = tmp_path / "runs" / "honest-bpr-none-seed0" / "run.json"
    before = record.stat().st_mtime_ns
    assert plan(grid_of(), tmp_path, 1)["done"] == 2
    results = run_grid(grid_of(seeds=2), tmp_path, jobs=2)
    assert record.stat().st_mtime_ns == before
    assert [result.error for result in results] == [None] * 4
    assert {result.cell.seed for result in results} == {0, 1}


def test_a_cell_is_the_run_that_train_makes(tmp_path):
    from sgfd.recommenders import train

    (result,) = run_grid(grid_of(bpr={"epochs": 3}), tmp_path / "compared", jobs=1)
    settings = find_backbone("bpr").Settings(epochs=3)
    alone = train(SAMPLE, "bpr", settings=settings, runs_root=tmp_path, threads=1)
    assert result.metrics == alone.metrics


def test_a_failed_cell_is_noted_and_the_others_go_on(tmp_path):
    grid = grid_of(bpr={"epochs": 5, "learning_rate": 1e30}, popular={})
    broken, fine = run_grid(grid, tmp_path, jobs=2)
    assert "no longer finite" in broken.error
    assert fine.error is None
    assert "Traceback" in (tmp_path / "failed" / "honest-bpr-none-seed0.txt").read_text()


def test_an_option_that_changed_is_named_with_both_its_values(tmp_path):
    run_grid(grid_of(popular={}), tmp_path, jobs=1)
    other = grid_of(options={"device": "cpu", "split_seed": 3}, popular={})
    said = r"other inputs \(device not given, now cpu, split_seed not given, now 3\)"
    with pytest.raises(JobError, match=said):
        plan(other, tmp_path, 1)


def test_the_order_of_fixed_settings_changes_nothing(tmp_path):
    def fixing(*names):
        grid = grid_of(bpr={"epochs": 1, "embedding_dim": 8})
        return replace(grid, tune=1, fixed={"bpr": names})

    plan_of = {}
    for names in (("epochs", "embedding_dim"), ("embedding_dim", "epochs", "epochs")):
        plan_of[names] = fixing(*names).identity()["settings"]
    assert len({json.dumps(settings) for settings in plan_of.values()}) == 1


def test_a_changed_feature_set_is_refused_not_mixed(tmp_path, features):
    path = tmp_path / "artifacts" / "pca"
    distill(SAMPLE, path, method="pca")
    run_grid(grid_of([path], vbpr={"epochs": 1}), tmp_path / "c", jobs=1)
    distill(SAMPLE, path, method="pca", seed=1, overwrite=True)
    with pytest.raises(JobError, match=r"other inputs \(features of pca\)"):
        run_grid(grid_of([path], vbpr={"epochs": 1}), tmp_path / "c", jobs=1)


def test_rows_that_changed_under_their_manifest_are_refused_not_mixed(tmp_path, monkeypatch):
    """Of the same size, so that opening the set finds nothing."""
    path = tmp_path / "artifacts" / "pca"
    distill(SAMPLE, path, method="pca")
    grid = grid_of([path], vbpr={"epochs": 1})
    run_grid(grid, tmp_path / "c", jobs=1)
    np.save(path / "image.npy", np.load(path / "image.npy")[::-1])
    more = grid_of([path], seeds=2, vbpr={"epochs": 1})
    with pytest.raises(FeatureSetError, match=r"image.npy: sha256 is not the manifest's"):
        run_grid(more, tmp_path / "c", jobs=1)
    # While cells are at work: each looks for itself.
    monkeypatch.setattr(running, "refuse_changed", lambda features: None)
    errors = [r.error for r in run_grid(more, tmp_path / "c", jobs=1) if r.cell.features == "pca"]
    assert errors[0] is None and "sha256 is not the manifest's" in errors[1]


def test_other_settings_and_figures_are_refused_before_any_cell_is_run(tmp_path):
    with pytest.raises(JobError, match="BPRSettings are not of VBPR"):
        replace(grid_of(), settings={"vbpr": find_backbone("bpr").Settings()})
    with pytest.raises(JobError, match="metric 'recall@7'"):
        compare(grid_of(), tmp_path / "c", metrics=("recall@7",))
    with pytest.raises(JobError, match="jobs 0: is out of range"):
        compare(grid_of(), tmp_path / "c", jobs=0)
    assert not (tmp_path / "c").exists()


def test_changed_settings_are_refused_not_mixed(tmp_path):
    run_grid(grid_of(bpr={"epochs": 1}), tmp_path, jobs=1)
    with pytest.raises(JobError, match="settings of bpr"):
        run_grid(grid_of(bpr={"epochs": 2}), tmp_path, jobs=1)


def test_a_set_that_is_called_like_a_backbone_is_not_taken_for_its_runs(tmp_path, features):
    path = shutil.copytree(features / "pca", tmp_path / "my-bpr-set")
    edit_name(path)
    asked = {"vbpr": {"epochs": 1}, "bpr": {"epochs": 1}}
    run_grid(grid_of([path], **asked), tmp_path / "c", jobs=1)
    shutil.rmtree(tmp_path / "c" / "runs" / "honest-bpr-none-seed0")
    again = run_grid(grid_of([path], **asked | {"bpr": {"epochs": 2}}), tmp_path / "c", jobs=1)
    assert [result.error for result in again] == [None] * 3


def edit_name(path):
    """A copy's manifest names it as its folder is called."""
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "pca"', f'"name": "{path.name}"'))


def test_settings_may_change_while_nothing_was_made_with_them(tmp_path):
    broken, _ = run_grid(grid_of(bpr={"learning_rate": 1e30}, popular={}), tmp_path, jobs=1)
    assert broken.error is not None
    mended = run_grid(grid_of(bpr={"epochs": 1}, popular={}), tmp_path, jobs=1)
    assert [result.error for result in mended] == [None, None]


def test_data_that_change_under_a_grid_are_refused_not_mixed(tmp_path):
    grid = grid_of(popular={}, bpr={"epochs": 1})
    (kept,) = run_grid(grid_of(popular={}), tmp_path, jobs=1)
    changed = replace(SAMPLE, interactions=with_one_pair_moved(SAMPLE.interactions))
    # The grid was planned on data that are no longer there when its cells are run.
    results = run_grid(replace(grid, dataset=changed), tmp_path / "b", jobs=1)
    assert all("changed while the comparison ran" in result.error for result in results)
    with pytest.raises(JobError, match="other inputs"):
        run_grid(replace(grid, dataset=changed), tmp_path, jobs=1)
    # A run that was put there.
    record = json.loads((kept.run / "run.json").read_text())
    record["dataset"]["fingerprint"] = "0" * 64
    (kept.run / "run.json").write_text(json.dumps(record))
    with pytest.raises(JobError, match="delete that run"):
        run_grid(grid, tmp_path, jobs=1)


def test_data_without_a_test_part_are_refused_before_any_cell_is_run(tmp_path):
    grid = grid_of(popular={})
    alone = replace(SAMPLE.interactions, test=SAMPLE.interactions.test.take(slice(0)))
    untested = replace(grid, dataset=replace(SAMPLE, interactions=alone))
    for start in (plan, run_grid):
        with pytest.raises(JobError, match="no test part to compare on"):
            start(untested, tmp_path / "c", jobs=1)
    assert not (tmp_path / "c").exists()


def with_one_pair_moved(interactions):
    """The same with the first pair of train moved to test."""
    train, test = interactions.train, interactions.test
    kept = replace(train, user=train.user[1:], item=train.item[1:])
    more = replace(
        test,
        user=np.append(test.user, train.user[0]),
        item=np.append(test.item, train.item[0]),
    )
    return replace(interactions, train=kept, test=more)


def test_timestamps_that_changed_are_refused_where_they_make_the_parts(tmp_path):
    by_last = grid_of(options={"split": "leave-one-out"}, popular={})
    run_grid(by_last, tmp_path, jobs=1)
    interactions = SAMPLE.interactions
    timed = {
        part: replace(pairs, timestamp=np.arange(len(pairs)))
        for part, pairs in (("train", interactions.train), ("test", interactions.test))
    }
    changed = replace(by_last, dataset=replace(SAMPLE, interactions=replace(interactions, **timed)))
    assert changed.fingerprint == by_last.fingerprint
    with pytest.raises(JobError, match=r"other inputs \(parts\)"):
        plan(changed, tmp_path, 1)
    # A comparison of an earlier version did not record its parts; its cells did.
    identity, record = (
        tmp_path / n for n in ("comparison.json", f"runs/{names(by_last)[0]}/run.json")
    )
    leave_out("parts", identity)
    with pytest.raises(JobError, match="seed0: was trained on other inputs"):
        run_grid(changed, tmp_path, jobs=1)
    assert "parts" not in json.loads(identity.read_text())
    leave_out("parts_sha256", record)
    assert plan(by_last, tmp_path, 1)["done"] == 1


def leave_out(key, path):
    text = json.loads(path.read_text())
    del text[key]
    path.write_text(json.dumps(text))


def test_a_changed_catalogue_is_refused(tmp_path):
    run_grid(grid_of(popular={}), tmp_path, jobs=1)
    labels = (SAMPLE.catalog.labels + 1) % 2
    changed = replace(SAMPLE, catalog=replace(SAMPLE.catalog, labels=labels))
    with pytest.raises(JobError, match=r"other inputs \(catalogue\)"):
        plan(replace(grid_of(popular={}), dataset=changed), tmp_path, 1)


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        ("comparison.json", "comparison.json: can't be read"),
        ("runs/honest-popular-none-seed0/run.json", "delete that run"),
        ("runs/honest-popular-none-seed0/per_user.parquet", "per_user.parquet: can't be read"),
    ],
)
def test_a_broken_file_is_told_of_in_one_line(tmp_path, broken, match):
    grid = grid_of(popular={}, bpr={"epochs": 1})
    compare(grid, tmp_path)
    (tmp_path / broken).write_bytes(b"{")
    with pytest.raises(JobError, match=match):
        results = run_grid(grid, tmp_path, jobs=1)
        pair = [replace(result, cell=replace(result.cell, backbone="bpr")) for result in results]
        pair[0] = replace(pair[0], cell=replace(pair[0].cell, features="pca"))
        contrasts(comparison_of(pair), ["recall@20"])


def comparison_of(results):
    features = tuple(ComparedFeatures(n, n, {}, 0, None) for n in ("none", "pca"))
    return Comparison("sample", "0", "", "", features, "none", tuple(results))


def test_what_no_cell_could_do_is_refused_before_any_is_run(features):
    share = "is no share; give one from 0 to 1"
    for options, match in (
        ({"dimension": 7}, "7"),
        ({"min_coverage": 1.1}, share),
        ({"min_coverage": float("nan")}, share),
    ):
        with pytest.raises((JobError, featureset.FeatureSetError), match=match):
            grid_of([features / "pca"], options=options)
    with pytest.raises(JobError, match="goes with protocol honest"):
        replace(grid_of(protocols=("paper",)), refit=True)
    called_none = replace_name(featureset.load(features / "pca"), "none")
    with pytest.raises(JobError, match="means without features"):
        label_features([called_none])


def test_features_that_hide_what_guided_them_are_refused_before_any_cell_is_run(features):
    opened = featureset.load(features / "pca")
    dataset, known = opened.manifest.dataset, SAMPLE.interactions.fingerprint()
    guided = dataset.fingerprints.model_copy(update={"interactions": known})
    dataset = dataset.model_copy(update={"fingerprints": guided})
    opened.manifest = opened.manifest.model_copy(update={"dataset": dataset})
    with pytest.raises(JobError, match=r"pca: was distilled with interactions that"):
        replace(grid_of([features / "pca"], content={}), features={"pca": opened})


def replace_name(opened, name):
    opened.manifest = opened.manifest.model_copy(update={"name": name})
    return opened


def test_leading_columns_are_described_not_the_whole_set(features):
    opened = featureset.load(features / "pca")
    nested = [m.model_copy(update={"nested": (4,)}) for m in opened.manifest.modalities]
    opened.manifest = opened.manifest.model_copy(update={"modalities": nested})
    grid = replace(grid_of([features / "pca"], content={}), features={"pca": opened})
    narrow = replace(grid, options={"dimension": 4})
    whole, first = (compared(each, [], "", "pca").features[0] for each in (grid, narrow))
    files = {m.dimension: opened.manifest.files[m.file].bytes for m in nested}
    assert set(whole.dimensions.values()) == set(files)
    assert set(first.dimensions.values()) == {4}
    assert whole.bytes == sum(files.values())
    assert first.bytes == sum(size * 4 // width for width, size in files.items())
    assert (whole.method, first.method) == ("pca", "pca, the first 4 columns")


def test_two_comparisons_never_share_a_folder(tmp_path):
    with locked(tmp_path, "compares"), pytest.raises(JobError, match="another process compares"):
        run_grid(grid_of(), tmp_path, jobs=1)


def test_two_feature_sets_of_one_name_are_refused(features):
    with pytest.raises(JobError, match="is there twice"):
        grid_of([features / "pca", features / "pca"])


def test_two_folders_of_one_name_are_told_apart_by_another(features, tmp_path):
    shutil.copytree(features / "pca", tmp_path / "old")
    with pytest.raises(JobError, match=r"pca,.*old: are two folders of one name, pca") as refused:
        grid_of([features / "pca", tmp_path / "old"])
    assert f"publish {tmp_path / 'old'} --name" in refused.value.remedy
    featureset.push(featureset.load(tmp_path / "old"), str(tmp_path / "before"))
    assert len(grid_of([features / "pca", tmp_path / "before@latest"]).features) == 3


SLOW_GRID = f"""
import sys, logging, signal
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_grid import grid_of, run_grid
signal.signal(signal.SIGINT, getattr(signal, sys.argv[3]))
logging.basicConfig(stream=sys.stderr, level="INFO", format="%(message)s")
grid = grid_of(bm3={{"epochs": int(sys.argv[2]), "patience": 10_000, "checkpoint_seconds": 0}})
for result in run_grid(grid, Path(sys.argv[1]), jobs=1):
    print(result.error)
"""


@pytest.fixture
def start(start_in, tmp_path):
    """Starts a comparison of one cell in the folder `c`."""

    def run(epochs, sigint="default_int_handler"):
        return start_in(tmp_path, tmp_path / "c", epochs, sigint, code=SLOW_GRID)

    return run


def wait_for(path, seconds=60.0):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.05)


def worker_on(folder):
    """The process that holds the lock of a run at work."""
    lock = (folder / "lock").resolve()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if lock in [link.readlink() for link in (process / "fd").iterdir()]:
                return int(process.name)
    raise AssertionError("nobody is at work")


def is_alive(process):
    """Whether it runs; one that ended may be listed until whoever inherited it looks."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    return "State:\tZ" not in status


def test_a_killed_cell_is_told_of_and_the_next_call_goes_on_from_its_checkpoint(start, tmp_path):
    at_work = tmp_path / "c" / "runs" / ".honest-bm3-none-seed0.partial"
    process = start(30)
    wait_for(at_work / "checkpoint.safetensors")
    os.kill(worker_on(at_work), signal.SIGKILL)
    assert "ended by SIGKILL" in process.wait(60).out
    assert (at_work / "checkpoint.safetensors").exists()
    done = start(30).wait(200)
    assert done.out.strip() == "None", done.err


@pytest.mark.parametrize("sigint", ["default_int_handler", "SIG_IGN"], ids=["shell", "background"])
def test_interrupted_it_waits_for_checkpoints(start, tmp_path, sigint):
    """In the background of a script, where the shell has SIGINT ignored, too."""
    at_work = tmp_path / "c" / "runs" / ".honest-bm3-none-seed0.partial"
    process = start(100_000, sigint)
    wait_for(at_work / "checkpoint.safetensors")
    os.kill(process.pid, signal.SIGINT)
    process.wait(60)
    with pytest.raises(AssertionError, match="nobody"):
        worker_on(at_work)
    assert (at_work / "checkpoint.safetensors").exists()


def test_a_killed_comparison_takes_its_cells_with_it(start, tmp_path):
    at_work = tmp_path / "c" / "runs" / ".honest-bm3-none-seed0.partial"
    process = start(100_000)
    wait_for(at_work / "checkpoint.safetensors")
    worker = worker_on(at_work)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    end = time.monotonic() + 30
    while is_alive(worker):
        assert time.monotonic() < end, "the cell goes on alone"
        time.sleep(0.1)
    assert json.loads((tmp_path / "c" / "comparison.json").read_text())["format"] == 1


def test_an_error_longer_than_a_pipe_holds_is_told(tmp_path):
    task = Task(
        "sample",
        None,
        SAMPLE.interactions.fingerprint(),
        "popular",
        find_backbone("popular").Settings(),
        None,
        None,
        {"runs_root": tmp_path, "name": "x", "threads": 1, "judge_users": ["u" * 100_000]},
        tmp_path,
    )
    ((name, error),) = run_processes({"cell": task}, 1)
    assert name == "cell"
    assert "uuu" in error
    assert 100 < len(error) < 10_000


def test_times_are_told_in_words():
    assert [duration(seconds) for seconds in (3, 99, 300, 12_600)] == [
        "3 s",
        "99 s",
        "5 min",
        "3.5 h",
    ]
