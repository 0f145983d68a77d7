"""`pipeline compare` through the real command line."""

import json
import re

import pytest

from sgfd.commands.compare import without_places

pytestmark = pytest.mark.usefixtures("all_cores")  # several trainings at a time

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
    assert "cells: 6 of 6 done" in again.err


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
    assert pipeline("compare", *what, "--set", "bpr.epochs=2", "--threads", "1").code == 0
    run = tmp_path / "comparisons" / "sample" / "runs" / "honest-bpr-none-seed0"
    record = json.loads((run / "run.json").read_text())
    assert (record["settings"]["epochs"], record["threads"]) == (2, [1])
    assert "1 trainings of 1 thread each, " in (run.parents[1] / "report.md").read_text()
    assert pipeline("evaluate", str(run)).code == 0


def test_under_cold_items_only_those_that_can_answer_do(pipeline, tmp_path):
    assert pipeline("distill", "--dataset", "sample", "--method", "pca").code == 0
    what = ("compare", "--dataset", "sample", "--backbones", "bpr,vbpr,content")
    features = ("--features", f"{tmp_path / 'artifacts' / 'sample-pca'},none")
    split = ("--split", "cold-items", "--seeds", "1", "--set", "vbpr.epochs=2")
    planned = pipeline(*what, *features, *split, "--plan")
    silent = ["bpr scores items by id: can't answer"]
    silent += ["vbpr without features scores new items by features: can't answer"]
    assert [line for line in planned.out.splitlines() if "can't" in line] == silent

    (tmp_path / "users.txt").write_text("".join(f"u{i}\n" for i in range(1, 400)))
    judged = ("--judge-users", "users.txt", "--name", "some")
    done = pipeline(*what, *features, *split, *judged, "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert (found["cells"], found["failed"]) == (2, 0)
    assert [f"{each['what']} {each['why']}" for each in found["unanswered"]] == silent
    folder = tmp_path / found["comparison"]
    text, page = ((folder / name).read_text() for name in ("report.md", "report.html"))
    assert all(line in text for line in silent)
    for words in ("test: cold items among all items", "test_among_cold: the same items among"):
        assert words in text and words in page
    assert re.search("Split cold-items. Test judges 3.. of 399 named users alone.", text)
    assert "diversity_image@20" in text
    assert str(tmp_path) not in text + page
    assert "test_among_cold recall@20" in (folder / "cells.csv").read_text()

    (tmp_path / "users.txt").write_text("u1\nu2\n")
    mixed = pipeline(*what, *features, *split, *judged)
    assert (mixed.code, mixed.err.count("\n")) == (2, 1)
    assert "its cells were made with other inputs (judge_users " in mixed.err


def test_no_backbone_is_refused_in_one_line(pipeline):
    done = pipeline("compare", "--dataset", "sample", "--backbones", ",", "--features", "none")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "'--backbones': ',' names none" in done.err


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("--dataset sample --seeds 2", "--dataset sample --seeds 2"),
        ("--dataset /srv/data/office --jobs 2", "--dataset office --jobs 2"),
        ("--features none,/srv/x/raw,pca", "--features none,raw,pca"),
        ("--data-root /srv/data --plan", "--plan"),
        ("--artifacts-root=/srv/a --plan", "--plan"),
        ("--dataset=../data/office", "--dataset=../data/office"),
        ("--data-root HERE/data --name x", "--data-root data --name x"),
        ("--judge-users HERE/in/users.txt", "--judge-users in/users.txt"),
    ],
)
def test_a_recorded_command_names_no_folder_of_the_machine(given, kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = given.replace("HERE", str(tmp_path)).split()
    assert without_places(arguments) == kept.split()
