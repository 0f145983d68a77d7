"""Searching the settings of a method of stage one: on held-out items, seeded, resumable."""

from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from sgfd.commands.tune import tune as command
from sgfd.dataset import load_dataset
from sgfd.distill import (
    DistillError,
    InteractionMetricSettings,
    PCASettings,
    SGFDPlusSettings,
    tuning,
)
from sgfd.distill.tuning import tune
from sgfd.featureset import FeatureSetError, load, verify
from sgfd.jobs import JobError
from sgfd.jobs.search import read_trials
from sgfd.settings import Range

START = InteractionMetricSettings(dimension=8)


def search(folder, trials=4, **options):
    return tune(load_dataset("sample"), folder, START, trials=trials, threads=1, **options)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tunings") / "t"
    return folder, search(folder)


def without_time(folder):
    return [replace(trial, seconds=0.0) for trial in read_trials(folder)]


def test_the_best_settings_make_the_feature_set(tuned):
    folder, found = tuned
    trials = read_trials(folder)
    assert [trial.state for trial in trials] == ["complete"] * 4
    assert found.recall == max(trial.recall for trial in trials) >= found.start_recall
    assert verify(found.result.artifact) == []
    manifest = load(found.result.artifact).manifest
    told = {"trials": 4, "start_recall@20": found.start_recall, "recall@20": found.recall}
    assert manifest.quality["tuned_on_held_out_and_valid"] == told
    assert "search that chose the settings" in (found.result.artifact / "README.md").read_text()
    settings = manifest.settings
    assert {name: settings[name] for name in found.chosen} == found.chosen
    assert list(folder.glob(".fold*")) == []


def test_a_search_that_is_over_leaves_its_feature_set_as_it_is(tuned):
    folder, found = tuned
    manifest = (found.result.artifact / "manifest.json").read_bytes()
    again = search(folder)
    assert (found.result.artifact / "manifest.json").read_bytes() == manifest
    assert again.result.artifact == found.result.artifact
    assert again.to_json()["result"]["quality"] == found.to_json()["result"]["quality"]
    (found.result.artifact / "fused.npy").write_bytes(b"broken")
    search(folder)  # what can't be opened is made anew
    assert verify(found.result.artifact) == []


def test_timestamps_that_make_other_parts_are_another_search(tmp_path):
    sample = load_dataset("sample")

    def at(times):
        interactions = sample.interactions
        parts = {
            name: replace(part, timestamp=times(np.arange(len(part))))
            for name, part in (("train", interactions.train), ("test", interactions.test))
        }
        return replace(sample, interactions=replace(interactions, **parts))

    options = {"trials": 1, "threads": 1, "split": "temporal", "seed": np.int64(0)}
    tune(at(lambda place: place), tmp_path / "t", START, **options)
    changed = at(lambda place: place[::-1])
    with pytest.raises(JobError, match="parts"):
        tune(changed, tmp_path / "t", START, **options)


def test_another_start_is_another_search(tmp_path):
    options = {"trials": 1, "threads": 1, "ranges": {"ridge": Range(0.5, 10)}}
    tune(load_dataset("sample"), tmp_path / "t", replace(START, ridge=1.0), **options)
    with pytest.raises(JobError, match=r"other inputs \(settings\)"):
        tune(load_dataset("sample"), tmp_path / "t", replace(START, ridge=5.0), **options)


def test_an_export_that_interactions_guided_is_refused_before_any_trial(tmp_path):
    dataset = replace(load_dataset("sample"), path=tmp_path)
    (tmp_path / "export.json").write_text('{"feature_set": "x", "guided": true}')
    with pytest.raises(FeatureSetError, match="that interactions guided"):
        tune(dataset, tmp_path / "t", START, trials=1, threads=1)
    assert not (tmp_path / "t").exists()


def test_killed_or_not_it_tries_the_same(tuned, tmp_path, monkeypatch):
    from sgfd.distill import tuning

    fold, calls = tuning._Search._fold, []

    def interrupted_once(self, settings, number):
        calls.append(number)
        if len(calls) == 5:  # in the second trial
            raise KeyboardInterrupt
        return fold(self, settings, number)

    monkeypatch.setattr(tuning._Search, "_fold", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "t")
    assert len(read_trials(tmp_path / "t")) == 1
    resumed = search(tmp_path / "t")
    assert without_time(tmp_path / "t") == without_time(tuned[0])
    assert resumed.chosen == tuned[1].chosen


def test_a_trial_that_finds_no_memory_is_a_failed_trial(tmp_path, monkeypatch):
    """On a CPU torch says so in words alone."""
    errors = iter([None, RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
    recall_of = tuning._Search._fold

    def fold(self, settings, number):
        if number == 0 and (error := next(errors)) is not None:
            raise error
        return recall_of(self, settings, number)

    monkeypatch.setattr(tuning._Search, "_fold", fold)
    search(tmp_path / "t", trials=3)
    states = [trial.state for trial in read_trials(tmp_path / "t")]
    assert states == ["complete", "failed", "failed"]


def test_test_interactions_change_nothing(tuned, tmp_path):
    """The search sees training and valid alone: with other test pairs it finds the same."""
    dataset = load_dataset("sample")
    interactions = dataset.interactions
    fewer = replace(
        interactions,
        test=replace(
            interactions.test, user=interactions.test.user[:3], item=interactions.test.item[:3]
        ),
    )
    tune(replace(dataset, interactions=fewer), tmp_path / "t", START, trials=4, threads=1)
    assert without_time(tmp_path / "t") == without_time(tuned[0])


def test_it_finds_a_width_that_tells_items_apart(tmp_path):
    found = tune(
        load_dataset("sample"),
        tmp_path / "t",
        PCASettings(dimension=1),
        method="pca",
        ranges={"dimension": Range(1, 24)},
        trials=5,
        threads=1,
    )
    assert found.chosen["dimension"] > 1 and found.recall > found.start_recall


def test_what_can_not_be_searched_is_refused(tmp_path):
    with pytest.raises(JobError, match="nothing to tune: its settings declare no range"):
        tune(load_dataset("sample"), tmp_path / "t", method="raw")
    with pytest.raises(JobError, match="0 trials: find nothing"):
        search(tmp_path / "t", trials=0)
    with pytest.raises(JobError, match="all of its ranges are fixed"):
        search(tmp_path / "t", fixed=("ridge", "content"))
    without = replace(load_dataset("sample"), interactions=None)
    with pytest.raises(DistillError, match="add interactions"):
        tune(without, tmp_path / "t", PCASettings(), ranges={"dimension": Range(2, 128)})
    assert not (tmp_path / "t").exists()


def test_a_trial_spends_no_time_on_figures_that_nobody_reads(tmp_path, monkeypatch):
    from sgfd.distill import sgfd_plus

    asked, of = [], sgfd_plus.HeldOutTrial.of
    monkeypatch.setattr(sgfd_plus.HeldOutTrial, "of", lambda *a: asked.append(1) or of(*a))
    settings = SGFDPlusSettings(dimension=8, epochs=1)
    ranges = {"dropout": Range(0, 0.5)}
    tune(load_dataset("sample"), tmp_path / "t", settings, trials=2, ranges=ranges, threads=1)
    assert len(asked) == 1  # of the feature set that is kept


def test_another_search_in_the_folder_is_refused(tuned):
    with pytest.raises(JobError, match="made with other inputs \\(seed\\)"):
        search(tuned[0], seed=1)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--refit",), "--refit: is of --stage train"),
        (("--backbone", "bpr"), "--backbone: is of --stage train"),
        (("--range", "temp=1:2"), "choose temperature"),
        (("--range", "temperature=2:1"), "the low end is not below the high end"),
        (("--range", "dimension=0:64"), "input should be greater than or equal to 1"),
        (("--range", "dimension=1.5:64"), "input should be a valid integer"),
        (("--range", "nested=0:1"), "--range nested: is not searched, but fixed by --set"),
        (("--method", "sgfdplus"), "choose sgfd-plus"),
        (("--set", "temperature=-1"), "--set temperature=-1"),
    ],
)
def test_a_wrong_command_line_is_refused_before_data_is_read(arguments, what, tmp_path):
    options = ("--stage", "distill", "--dataset", "nowhere", "--tunings-root", str(tmp_path))
    done = CliRunner().invoke(command, [*options, *arguments])
    assert done.exit_code == 2 and what in " ".join(done.output.split())
    assert list(tmp_path.iterdir()) == []


def test_a_size_is_searched_where_it_is_told_to(tmp_path):
    """It starts at the end next to the default; what is declared is searched as without."""
    options = ("--stage", "distill", "--dataset", "sample", "--method", "interaction-metric")
    options += ("--trials", "4", "--tunings-root", str(tmp_path))
    done = CliRunner().invoke(command, [*options, "--range", "dimension=4:16", "--name", "t"])
    assert done.exit_code == 0, done.output
    tried = [trial.values for trial in read_trials(tmp_path / "t")]
    assert tried[0] == {"ridge": 3.0, "content": 0.3, "dimension": 16}
    assert all(type(values["dimension"]) is int for values in tried)
    assert all(4 <= values["dimension"] <= 16 for values in tried)
    assert len({values["dimension"] for values in tried}) > 1


def test_the_weight_of_the_interactions_is_searched_where_it_is_told_to(tmp_path):
    options = ("--stage", "distill", "--dataset", "sample", "--trials", "2", "--name", "t")
    fixed = [f"--set={name}" for name in ("dimension=8", "epochs=1", "held_out_share=0")]
    options += ("--range", "interaction_weight=0:0.5", "--tunings-root", str(tmp_path))
    done = CliRunner().invoke(command, [*options, *fixed])
    assert done.exit_code == 0, done.output
    tried = [trial.values["interaction_weight"] for trial in read_trials(tmp_path / "t")]
    assert tried[0] == 0.5 > tried[1]


def test_the_command_line_does_it(tmp_path):
    options = ("--stage", "distill", "--dataset", "sample", "--method", "interaction-metric")
    done = CliRunner().invoke(
        command,
        [*options, "--set", "dimension=8", "--trials", "2", "--tunings-root", str(tmp_path)],
    )
    assert done.exit_code == 0, done.output
    assert "tuned         2 trials: none better than the start, ridge" in done.output
    (made,) = tmp_path.glob("*/feature-set")
    assert np.load(made / "fused.npy").shape[1] == 8


def test_each_split_has_a_folder_of_its_own(tmp_path):
    options = ("--stage", "distill", "--dataset", "sample", "--method", "interaction-metric")
    options += ("--set", "dimension=8", "--trials", "1", "--tunings-root", str(tmp_path))
    for split in ("given", "cold-items"):
        done = CliRunner().invoke(command, [*options, "--split", split])
        assert done.exit_code == 0, done.output
    names = {folder.name for folder in tmp_path.iterdir()}
    assert names == {f"sample-interaction-metric-seed0{end}" for end in ("", "-cold-items")}
