"""`pipeline compare` through the real command line."""

import json

QUICK = ("--set", "vbpr.epochs=2", "--set", "bpr.epochs=2", "--seeds", "2", "--jobs", "2")


def test_one_command_from_feature_sets_to_an_answer_in_words(pipeline, tmp_path):
    assert pipeline("distill", "--dataset", "sample", "--method", "pca").code == 0
    what = ("--dataset", "sample", "--backbones", "vbpr,bpr", "--features", "none,sample-pca")
    planned = pipeline("compare", *what, *QUICK, "--plan", "--json").json()
    assert (planned["cells"], planned["done"]) == (6, 0)
    assert not (tmp_path / "comparisons").exists()

    done = pipeline("compare", *what, *QUICK, "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert (found["cells"], found["failed"]) == (6, 0)
    folder = tmp_path / found["comparison"]
    sentence = found["contrasts"][0]["sentence"]
    assert "vbpr" in sentence and "sample-pca" in sentence
    assert sentence in (folder / "report.md").read_text()
    assert {"report.html", "cells.csv", "contrasts.csv"} <= {path.name for path in folder.iterdir()}

    again = pipeline("compare", *what, *QUICK)
    assert again.code == 0
    assert sentence in again.out
    assert "6 cells, 6 of them done" in again.err


def test_the_plan_counts_the_trials_of_tuning(pipeline):
    what = ("--dataset", "sample", "--backbones", "bpr,popular", "--features", "none")
    planned = pipeline("compare", *what, *QUICK[2:], "--tune", "3", "--plan", "--json").json()
    assert (planned["cells"], planned["trials"]) == (4, 3)


def test_a_failed_cell_makes_exit_code_1_and_is_tried_again(pipeline, tmp_path):
    what = ("compare", "--dataset", "sample", "--backbones", "bpr,popular", "--features", "none")
    broken = ("--set", "bpr.learning_rate=1e30", "--seeds", "1")
    done = pipeline(*what, *broken)
    assert done.code == 1
    assert "no longer finite" in done.err
    assert "failed" in (tmp_path / "comparisons" / "sample" / "report.md").read_text()
    assert pipeline(*what, *broken).code == 1


def test_its_runs_are_runs_like_any_other(pipeline, tmp_path):
    what = ("--dataset", "sample", "--backbones", "bpr", "--features", "none", "--seeds", "1")
    assert pipeline("compare", *what, "--set", "bpr.epochs=2").code == 0
    run = tmp_path / "comparisons" / "sample" / "runs" / "honest-bpr-none-seed0"
    assert json.loads((run / "run.json").read_text())["settings"]["epochs"] == 2
    assert pipeline("evaluate", str(run)).code == 0
