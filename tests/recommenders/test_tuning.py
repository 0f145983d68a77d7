"""The search: decided by its seed, blind to test, resumable, and the same budget for all."""

import json
import signal
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from sgfd.dataset import Dataset, Interactions, Pairs, Vocabulary
from sgfd.jobs import JobError, locked
from sgfd.jobs.search import chosen, read_trials
from sgfd.recommenders import Range, find_backbone, learning, load_run, tune, tuning
from sgfd.recommenders.backbones.bpr import BPR
from sgfd.recommenders.learning import chosen_by
from sgfd.recommenders.preparation import prepare
from sgfd.recommenders.tuning import plan_search, run_search, tuned_settings

USERS, ITEMS, GROUPS = 40, 120, 4


def made_up(test_seed=0):
    """Users who like the items of their group: 9 train, 4 are valid, one or another is test."""
    rng = np.random.default_rng(0)
    group = np.arange(USERS) % GROUPS
    own = np.argsort(rng.random((USERS, ITEMS // GROUPS)), axis=1) * GROUPS + group[:, None]
    last = np.random.default_rng(test_seed).integers(13, 15, USERS)
    user = np.arange(USERS)

    def pairs(items):
        return Pairs(np.repeat(user, items.shape[1]), items.ravel())

    names = (
        Vocabulary([f"{kind}{n}" for n in range(m)]) for kind, m in (("u", USERS), ("i", ITEMS))
    )
    test = own[user, last][:, None]
    parts = pairs(own[:, :9]), pairs(own[:, 9:13]), pairs(test)
    return Dataset("made-up", "none", None, None, Interactions(*names, *parts))


DATA = made_up()
START = find_backbone("bpr").Settings(
    epochs=18, patience=18, embedding_dim=4, batch_size=512, learning_rate=0.05
)
TRIALS = 8
RANGES = {"learning_rate": Range(1e-3, 1.0, log=True), "regularization": Range(1e-4, 1.0, log=True)}


def search_of(dataset=DATA, trials=TRIALS, seed=0, backbone="bpr", start=START, **options):
    options = {"ranges": RANGES if backbone == "bpr" else None} | options
    return plan_search(prepare(dataset, backbone), start, trials, seed, **options)


def searched(folder, **options):
    folder.mkdir(exist_ok=True)
    return untimed(run_search(search_of(**options), folder))


def untimed(trials):
    return [replace(trial, seconds=0.0) for trial in trials]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted search."""
    return searched(tmp_path_factory.mktemp("whole"))


def test_the_seed_decides_every_trial(whole, tmp_path):
    assert searched(tmp_path / "same") == whole
    other = searched(tmp_path / "other", seed=1, trials=3)
    assert other[0].values == whole[0].values
    assert other[1].values != whole[1].values


def test_the_first_trial_is_the_start_so_that_the_choice_is_never_below_it(whole):
    assert whole[0].values == {"learning_rate": 0.05, "regularization": 0.03}
    assert chosen(whole).recall >= whole[0].recall
    space = search_of().space
    assert all(value in space[name] for trial in whole for name, value in trial.values.items())


def test_trials_below_the_median_are_pruned_and_never_chosen(whole):
    pruned = [trial for trial in whole if trial.state == "pruned"]
    assert pruned
    assert all(10 <= len(trial.scores) < 18 for trial in pruned)
    assert chosen(whole).state == "complete"
    assert len([trial for trial in whole if trial.state == "complete"]) >= 4


@pytest.mark.parametrize("done", [1, 6])
def test_after_any_trial_it_goes_on_to_the_same(whole, tmp_path, done):
    searched(tmp_path, trials=done)
    assert len(read_trials(tmp_path)) == done
    assert searched(tmp_path) == whole


def test_a_trial_that_was_stopped_goes_on_from_its_checkpoint(whole, tmp_path, monkeypatch):
    """Stopped in the midst of the trial that is pruned first."""
    epochs = sum(len(trial.scores) for trial in whole)
    victim = next(trial for trial in whole if trial.state == "pruned").number
    before = sum(len(trial.scores) for trial in whole[:victim])
    begun = []

    def stop(self, generator):
        begun.append(1)
        if len(begun) == before + 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(BPR, "begin_epoch", stop)
    start = replace(START, checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path, start=start)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == [f"trial-{victim}.safetensors"]
    assert searched(tmp_path, start=start) == whole
    assert len(begun) <= epochs + 2
    assert not list(tmp_path.glob("*.safetensors"))


def test_ctrl_c_while_the_score_is_taken_that_prunes_changes_no_trial(whole, tmp_path, monkeypatch):
    victim = next(trial for trial in whole if trial.state == "pruned").number
    last = sum(len(trial.scores) for trial in whole[: victim + 1])
    scored = []

    def score(model, sets):
        scored.append(chosen_by(model, sets))
        if len(scored) == last:
            signal.raise_signal(signal.SIGINT)
        return scored[-1]

    monkeypatch.setattr(learning, "chosen_by", score)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path)
    assert searched(tmp_path) == whole


def test_test_is_not_touched_by_the_search(whole, tmp_path):
    """Another test part changes no trial, though it changes the figures of test."""
    assert searched(tmp_path / "other", dataset=made_up(test_seed=1)) == whole
    prepared = search_of().prepared
    assert len(prepared.sets.test.items) and not len(prepared.without_test().sets.test.items)


def test_it_ends_with_a_run_of_the_chosen_settings_that_tells_of_the_search(whole, tmp_path):
    run = tune(
        DATA, "bpr", settings=START, folder=tmp_path / "t", trials=TRIALS, ranges=RANGES, refit=True
    )
    best, tuning = chosen(whole), run.record["tuning"]
    assert tuning["chosen"] == best.values
    assert {name: run.record["settings"][name] for name in best.values} == best.values
    assert tuning["valid_recall@20"] == best.recall == run.metrics["valid"]["recall@20"]
    assert tuning["start_valid_recall@20"] == whole[0].recall
    assert (tuning["trials"], tuning["seed"], tuning["models_judged_on_test"]) == (TRIALS, 0, 2)
    assert sum(tuning[state] for state in ("complete", "pruned", "failed")) == TRIALS
    assert "test" in run.record["refit"]["metrics"] and run.refit is not None
    assert load_run(tmp_path / "t" / "run").record == run.record


def test_asked_again_it_gives_the_same_run_and_judges_test_for_no_other_budget(tmp_path):
    run = tune(DATA, "bpr", settings=START, folder=tmp_path, trials=2, ranges=RANGES)
    written = (run.folder / "run.json").stat().st_mtime_ns
    again = tune(DATA, "bpr", settings=START, folder=tmp_path, trials=2, ranges=RANGES)
    assert (again.folder / "run.json").stat().st_mtime_ns == written
    for other in ({"trials": 3}, {"trials": 2, "refit": True}):
        with pytest.raises(JobError, match="test was judged after 2 trials, without a refit"):
            tune(DATA, "bpr", settings=START, folder=tmp_path, ranges=RANGES, **other)


def test_a_setting_that_diverges_is_a_failed_trial_not_the_end(tmp_path):
    wild = {"learning_rate": Range(1e-3, 1e30, log=True)}
    trials = searched(tmp_path, ranges=wild, trials=6)
    failed = [trial for trial in trials if trial.state == "failed"]
    assert failed and chosen(trials).state == "complete"
    assert "no longer finite" in failed[0].error
    assert read_trials(tmp_path)[failed[0].number].recall is None


def test_settings_that_have_no_solution_are_a_failed_trial_too(tmp_path):
    """The co-interactions are singular, and to rounding a little less than that."""
    tiny = {"regularization": Range(1e-12, 1e-2, log=True)}
    start = find_backbone("ease").Settings(regularization=1e-2)
    trials = searched(tmp_path, backbone="ease", start=start, ranges=tiny, trials=6)
    failed = [trial for trial in trials if trial.state == "failed"]
    assert failed and chosen(trials).state == "complete"
    assert "no solution; raise regularization or kernel_degree, or lower content" in failed[0].error


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
    ids=["numpy", "torch"],
)
def test_a_trial_that_finds_no_memory_is_a_failed_trial(tmp_path, monkeypatch, error):
    learnt = tuning.learn

    def learn(prepared, settings, *rest, **options):
        if settings.learning_rate != START.learning_rate:
            raise error
        return learnt(prepared, settings, *rest, **options)

    monkeypatch.setattr(tuning, "learn", learn)
    assert [trial.state for trial in searched(tmp_path, trials=3)] == ["complete"] + 2 * ["failed"]
    monkeypatch.setattr(tuning, "learn", Mock(side_effect=RuntimeError("another")))
    (tmp_path / "other").mkdir()
    with pytest.raises(RuntimeError, match="another"):
        searched(tmp_path / "other", trials=1)


def test_where_every_trial_fails_it_says_why(tmp_path):
    broken = replace(START, learning_rate=1e30)
    wild = {"learning_rate": Range(1e29, 1e31, log=True)}
    with pytest.raises(JobError, match=r"all 2 trials: failed .*no longer finite"):
        tune(DATA, "bpr", settings=broken, folder=tmp_path, ranges=wild, trials=2)
    assert not (tmp_path / "run").exists()


def test_without_training_the_settings_are_searched_too(tmp_path):
    search = search_of(backbone="graphfilter", start=None, trials=3)
    assert set(search.space) == {"user_exponent", "item_exponent", "low_pass_dim"} | {
        "low_pass_weight"
    }  # those of features have no part where there are none
    _, summary = tuned_settings(search, tmp_path)
    assert (summary["complete"], summary["pruned"]) == (3, 0)
    assert all(isinstance(t.values["low_pass_dim"], int) for t in read_trials(tmp_path))


def test_what_is_fixed_is_not_searched(tmp_path):
    search = search_of(fixed=("regularization", "epochs"), trials=2)
    assert (list(search.space), search.fixed) == (["learning_rate"], ("regularization",))
    settings, summary = tuned_settings(search, tmp_path)
    assert settings.regularization == START.regularization
    assert summary["fixed"] == ["regularization"]


BAD = {
    "no trial": ({"trials": 0}, "0 trials: find nothing"),
    "nothing declared": ({"backbone": "popular", "start": None}, "declare no range; train it"),
    "all fixed": ({"fixed": ("learning_rate", "regularization")}, "ranges are fixed"),
    "another's settings": ({"backbone": "vbpr"}, "BPRSettings are not of VBPR; give VBPRSettings"),
    "no seed": ({"seed": -1}, "seed -1: is out of range; give a whole number from 0"),
    "start outside": ({"start": replace(START, learning_rate=2.0)}, "starts at 2, outside"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_can_not_be_searched_is_refused(kind):
    options, what = BAD[kind]
    with pytest.raises(JobError, match=what):
        search_of(**options)


def test_the_paper_s_protocol_is_refused():
    with pytest.raises(JobError, match="chooses on valid"):
        plan_search(prepare(DATA, "bpr", protocol="paper"), START, 2, 0)


def test_changed_inputs_are_refused_not_mixed(tmp_path):
    tuned_settings(search_of(trials=1), tmp_path)
    other = replace(START, epochs=4)
    for change, name in (
        ({"start": other}, "settings"),
        ({"seed": 1}, "seed"),
        ({"dataset": made_up(1)}, "dataset"),
        ({"fixed": ("regularization",)}, "space"),
    ):
        with pytest.raises(JobError, match=rf"other inputs \({name}\)"):
            tuned_settings(search_of(**{"trials": 1} | change), tmp_path)
    tuned_settings(search_of(trials=2), tmp_path)  # more trials go on, as long as test is unseen


def test_two_searches_never_share_a_folder(tmp_path):
    with locked(tmp_path, "tunes"), pytest.raises(JobError, match="another process tunes in it"):
        tuned_settings(search_of(trials=1), tmp_path)


TRIAL = {"number": 0, "state": "complete", "values": {}, "recall": 0.1, "seconds": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        json.dumps({"number": 0}),
        *(
            json.dumps(TRIAL | wrong)
            for wrong in (
                {"recall": None},
                {"recall": "high"},
                {"state": "ended"},
                {"state": "failed"},
                {"scores": None},
                {"values": []},
            )
        ),
    ],
)
def test_a_mangled_file_of_trials_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "trials.jsonl").write_text(text)
    with pytest.raises(JobError, match=r"trials.jsonl: can't be read"):
        read_trials(tmp_path)
