"""A comparison whose settings are tuned: one budget for all, and figures that are never mixed."""

import csv
import json

import pytest

from sgfd import featureset
from sgfd.dataset import load_dataset
from sgfd.distill import distill
from sgfd.jobs import JobError
from sgfd.recommenders import find_backbone, load_run
from sgfd.recommenders.comparison import Grid, compare, label_features, plan, run_grid

SAMPLE = load_dataset("sample")
OWN = {"bpr": {"epochs": 2}, "vbpr": {"epochs": 2}, "popular": {}}
TRIALS = 3


def grid_of(features=(), seeds=2, protocols=("honest",), own=OWN, **options):
    return Grid(
        dataset=SAMPLE,
        reference="sample",
        data_root=None,
        features=label_features([None, *(featureset.load(path) for path in features)]),
        settings={name: find_backbone(name).Settings(**values) for name, values in own.items()},
        seeds=seeds,
        protocols=protocols,
        options={},
        **{"tune": TRIALS} | options,
    )


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A tuned and refitted comparison of three backbones on two feature sets, and its folder."""
    folder = tmp_path_factory.mktemp("compared")
    distill(SAMPLE, folder / "pca", method="pca")
    grid = grid_of([folder / "pca"], refit=True, fixed={"vbpr": ("learning_rate",)})
    assert plan(grid, folder / "c", 2)["trials"] == 3 * TRIALS
    found, _ = compare(grid, folder / "c", 2)
    assert plan(grid, folder / "c", 2)["trials"] == 0
    return found, folder / "c"


def test_every_backbone_has_the_same_budget_on_every_feature_set(tuned):
    _, folder = tuned
    searches = {path.name: path / "trials.jsonl" for path in (folder / "tunings").iterdir()}
    assert set(searches) == {"bpr-none", "vbpr-none", "vbpr-pca"}  # popular has nothing to tune
    assert all(len(path.read_text().splitlines()) == TRIALS for path in searches.values())


def test_all_seeds_are_trained_with_what_was_chosen_on_valid(tuned):
    found, folder = tuned
    for result in found.results:
        record = load_run(result.run).record
        if result.cell.backbone == "popular":
            assert "tuning" not in record
            continue
        name = f"{result.cell.backbone}-{result.cell.features}"
        chosen = json.loads((folder / "tunings" / name / "chosen.json").read_text())
        assert record["settings"] == chosen["settings"]
        assert record["tuning"] == chosen["summary"] == result.tuning
    vbpr = next(r.tuning for r in found.results if r.cell.backbone == "vbpr")
    assert (list(vbpr["chosen"]), vbpr["fixed"]) == (["regularization"], ["learning_rate"])


def test_the_refits_stand_in_a_table_of_their_own(tuned):
    found, folder = tuned
    assert all(r.refit and r.refit["test"] != r.metrics["test"] for r in found.results)
    text = (folder / "report.md").read_text()
    figures, _, rest = text.partition("## Refit on train and valid")
    refit, _, searched = rest.partition("## Settings searched")
    one = [r for r in found.results if (r.cell.backbone, r.cell.features) == ("bpr", "none")]
    again = f"{sum(r.refit['test']['recall@20'] for r in one) / 2:.4f}"
    plain = f"{sum(r.metrics['test']['recall@20'] for r in one) / 2:.4f}"
    assert again in refit and plain not in refit and plain in figures
    assert "regularization" in searched
    page = (folder / "report.html").read_text()
    assert "Refit on train and valid" in page and "Settings searched" in page


def test_the_table_of_cells_has_trials_choice_and_refit(tuned):
    found, folder = tuned
    with (folder / "cells.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, result in zip(rows, found.results, strict=True):
        assert float(row["refit test recall@20"]) == result.refit["test"]["recall@20"]
        assert float(row["test recall@20"]) == result.metrics["test"]["recall@20"]
        trials, chosen = row["trials"], row["chosen"]
        if result.tuning:
            assert (int(trials), json.loads(chosen)) == (TRIALS, result.tuning["chosen"])
        else:
            assert (trials, chosen) == ("", "")


def test_a_failed_search_is_told_of_in_the_place_of_its_cells(tmp_path):
    broken = grid_of(
        own={"bpr": {"epochs": 5, "learning_rate": 1e30}, "popular": {}},
        seeds=1,
        tune=1,
        fixed={"bpr": ("learning_rate",)},
    )
    bpr, popular = run_grid(broken, tmp_path, jobs=2)
    assert "its tuning failed: all 1 trials" in bpr.error
    assert popular.error is None


def test_another_budget_is_refused_not_mixed(tuned):
    _, folder = tuned
    with pytest.raises(JobError, match=r"other inputs \(tune 3, now 4, "):
        run_grid(grid_of(tune=TRIALS + 1, refit=True), folder, jobs=1)
