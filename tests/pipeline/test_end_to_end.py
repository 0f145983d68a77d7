"""Both stages through the real command line: on the sample, and on a real catalogue."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from sgfd.commands.inputs import read_ids
from sgfd.commands.output import print_figures, print_metrics
from sgfd.commands.runs import evaluate

RUN_FILES = {
    "run.json",
    "history.parquet",
    "per_user.parquet",
    "topk.parquet",
    "model.safetensors",
    "features.safetensors",
    "user_embeddings.npy",
    "item_embeddings.npy",
    "interactions.parquet",
    "users.parquet",
    "items.parquet",
}
TRAIN_KEYS = {
    "run",
    "backbone",
    "features",
    "dataset",
    "protocol",
    "seed",
    "epochs",
    "seconds",
    "peak_memory_bytes",
    "metrics",
}

QUICK = ("--set", "epochs=60", "--set", "batch_size=256")


@pytest.fixture(scope="module")
def sample(run_fresh, tmp_path_factory):
    """A folder with the sample's feature set and a run of BM3 on it."""
    folder = tmp_path_factory.mktemp("sample")
    made = run_fresh(folder, "distill", "--dataset", "sample", "--json")
    assert made.code == 0, made.err
    arguments = ("--backbone", "bm3", "--features", "artifacts/sample", *QUICK)
    trained = run_fresh(folder, "train", *arguments, "--json")
    assert trained.code == 0, trained.err
    return folder, made.json(), trained.json()


def test_distill_prints_one_object_and_writes_the_set(sample):
    folder, made, _ = sample
    assert {"artifact", "method", "seconds", "quality"} <= set(made)
    assert made["artifact"] == "artifacts/sample"
    assert (folder / "artifacts" / "sample" / "manifest.json").is_file()


def test_train_prints_one_object_and_writes_the_run(sample):
    folder, _, trained = sample
    assert set(trained) >= TRAIN_KEYS
    assert set(trained["seconds"]) == {"train", "evaluate"}
    assert {"recall@20", "ndcg@20", "map@10", "coverage@50", "paper_ndcg@20"} <= set(
        trained["metrics"]["test"]
    )
    assert {path.name for path in (folder / trained["run"]).iterdir()} == RUN_FILES
    record = json.loads((folder / trained["run"] / "run.json").read_text())
    assert len(record["features"]["manifest_sha256"]) == 64
    assert len(record["dataset"]["fingerprint"]) == 64
    assert record["settings"]["epochs"] == 60


def test_compressed_modalities_and_neighbours_are_made_shown_and_used(pipeline, tmp_path):
    extras = ("--compress", "int8", "--neighbours", "3", "--threads", "1", "--licence", "CC0-1.0")
    method = (
        "--method",
        "interaction-metric",
        "--set",
        "dimension=32",
        "--name",
        "small",
        "--licence",
        "CC0-1.0",
    )
    made = pipeline("distill", "--dataset", "sample", *method, *extras, "--json")
    assert made.code == 0, made.err
    assert made.json()["quality"]["fused_int8"]["bytes_an_item"] == 32
    shown = pipeline("features", "show", "small").out
    assert "licence       CC0-1.0" in shown
    assert "fused_int8    int8 of fused, 32 bytes an item" in shown
    assert "neighbours    3 an item, by fused" in shown
    table = pd.read_parquet(tmp_path / "artifacts" / "small" / "neighbours.parquet")
    assert set(table.item_id.value_counts()) == {3}
    content = ("--backbone", "content", "--features", "small", "--modalities", "fused_int8")
    trained = pipeline("train", *content, "--dim", "16", "--threads", "1", "--json")
    assert trained.code == 0, trained.err
    record = json.loads((tmp_path / trained.json()["run"] / "run.json").read_text())
    assert record["features"]["modalities"] == ["fused_int8"]


def test_evaluate_recomputes_the_same_numbers_from_the_run_alone(sample, run_in, tmp_path):
    folder, _, trained = sample
    shutil.copytree(folder / trained["run"], tmp_path / "moved")
    again = run_in(tmp_path, "evaluate", "moved", "--json").json()
    assert again["metrics"] == trained["metrics"]
    assert again["recorded"] == sorted(n for n in trained["metrics"]["test"] if "diversity" in n)
    assert again["agrees"] is True
    assert set(again) >= TRAIN_KEYS


def test_evaluate_adds_with_as_many_threads_as_the_training(sample, tmp_path, monkeypatch):
    folder, _, trained = sample
    shutil.copytree(folder / trained["run"], tmp_path / "moved")
    record = json.loads((tmp_path / "moved" / "run.json").read_text())
    (tmp_path / "moved" / "run.json").write_text(json.dumps(record | {"threads": [2, 3]}))
    asked = []
    monkeypatch.setattr("sgfd.jobs.use_threads", asked.append)
    done = CliRunner().invoke(evaluate, [str(tmp_path / "moved")])
    assert done.exit_code == 0, done.output
    assert asked == [3]


@pytest.mark.parametrize(
    ("metric", "moved", "code"),
    [("diversity_image@20", 1e-7, 0), ("diversity_image@20", 1e-3, 2), ("ndcg@20", 1e-12, 2)],
)
def test_evaluate_allows_diversity_its_rounding_alone(
    metric, moved, code, sample, run_in, tmp_path
):
    folder, _, trained = sample
    import shutil

    run = shutil.copytree(folder / trained["run"], tmp_path / "moved")
    record = json.loads((run / "run.json").read_text())
    record["metrics"]["test"][metric] += moved
    (run / "run.json").write_text(json.dumps(record))
    judged = run_in(tmp_path, "evaluate", "moved", "--dataset", "sample", "--json")
    assert judged.code == code, judged.err
    assert judged.json()["agrees"] == (code == 0)


def test_per_user_figures_average_to_the_metrics(sample):
    folder, _, trained = sample
    per_user = pd.read_parquet(folder / trained["run"] / "per_user.parquet")
    means = per_user[per_user["part"] == "test"].mean(numeric_only=True)
    of_lists = ("coverage", "gini", "pooled_recall")
    for name, value in trained["metrics"]["test"].items():
        if not name.startswith(of_lists) and not name.endswith((" few", " many")):
            assert means[name] == pytest.approx(value, abs=1e-12)


def test_top_k_holds_no_seen_item(sample):
    folder, _, trained = sample
    run = folder / trained["run"]
    pairs = pd.read_parquet(run / "interactions.parquet")
    users = pd.read_parquet(run / "users.parquet")["user_id"]
    items = pd.read_parquet(run / "items.parquet")["item_id"]
    seen = pairs[pairs["part"] != "test"]
    seen = set(zip(users[seen["user_index"]], items[seen["item_index"]], strict=True))
    lists = pd.read_parquet(run / "topk.parquet")
    shown = lists.explode("item_id")
    assert len(lists) == len(users)
    assert not seen & set(zip(shown["user_id"], shown["item_id"], strict=True))


def test_recommend_prints_titles_and_agrees_with_the_stored_list(sample, run_in):
    folder, _, trained = sample
    printed = run_in(folder, "recommend", "--user", "u1", "--k", "5")
    assert printed.code == 0
    assert [" no. " in line for line in printed.out.splitlines()] == [True] * 5
    rows = run_in(folder, "recommend", trained["run"], "--user", "u1", "--k", "5", "--json").json()
    stored = pd.read_parquet(folder / trained["run"] / "topk.parquet").set_index("user_id")
    assert [row["item_id"] for row in rows["items"]] == stored.loc["u1", "item_id"][:5].tolist()


def test_a_personal_model_beats_most_popular_on_what_is_planted(sample, run_in):
    folder, _, trained = sample
    floor = run_in(folder, "train", "--backbone", "popular", "--dataset", "sample", "--json").json()
    assert floor["features"] is None
    better = trained["metrics"]["test"]["recall@20"]
    assert better > 2 * floor["metrics"]["test"]["recall@20"]


def test_the_same_command_gives_the_same_numbers_in_a_run_of_its_own(sample, run_in):
    folder, _, trained = sample
    arguments = ("--backbone", "bm3", "--features", "sample", *QUICK, "--json")
    again = run_in(folder, "train", *arguments).json()
    assert again["run"] != trained["run"]
    assert again["metrics"] == trained["metrics"]
    for file in ("user_embeddings.npy", "item_embeddings.npy"):
        one, other = (np.load(folder / run["run"] / file) for run in (trained, again))
        np.testing.assert_array_equal(one, other)


def test_the_paper_protocol_says_what_it_is(sample, run_in):
    folder, *_ = sample
    arguments = ("--backbone", "bpr", "--dataset", "sample", "--set", "epochs=3")
    done = run_in(folder, "train", *arguments, "--protocol", "paper", "--json")
    assert "chooses the model on TEST" in done.err
    assert done.json()["metrics"]["valid"] == {}
    assert done.json()["metrics"]["test"]["paper_ndcg@20"] > 0


def test_data_and_features_are_shown_and_verified(sample, run_in):
    folder, *_ = sample
    assert "sample" in run_in(folder, "data", "list").out
    sets = run_in(folder, "data", "list", "--json").json()["datasets"]
    assert {"name": "sample", "layout": "sample"} in sets
    assert run_in(folder, "data", "show", "sample", "--json").json()["users"] == 600
    assert run_in(folder, "data", "check", "sample").code == 0
    assert "112-d -> 112-d" in run_in(folder, "features", "show", "sample").out
    assert run_in(folder, "features", "verify", "artifacts/sample").code == 0
    (folder / "artifacts" / "sample" / "text.npy").touch()
    content = (folder / "artifacts" / "sample" / "text.npy").read_bytes()
    (folder / "artifacts" / "sample" / "text.npy").write_bytes(content[:-1] + b"\x01")
    assert run_in(folder, "features", "verify", "artifacts/sample").code == 2
    (folder / "artifacts" / "sample" / "text.npy").write_bytes(content)


def test_a_data_set_without_a_test_part_is_trained_on_and_runs_are_found(pipeline, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    ids = [f"i{i}" for i in range(30)]
    pd.DataFrame({"item_id": ids}).to_parquet(folder / "items.parquet")
    pairs = pd.DataFrame({"user_id": ["a", "(new)", "c"] * 20, "item_id": (ids * 2)[:60]})
    pairs = pairs.drop_duplicates().assign(split="train")
    pairs.to_parquet(folder / "interactions.parquet")
    train = ("train", "--dataset", "./shop", "--backbone", "popular", "--name", "r", "--refit")
    done = pipeline(*train)
    assert done.code == 0, done.err
    (tmp_path / "r").mkdir()  # a folder of that name that is no run
    assert pipeline("evaluate", "r").code == 0
    ask = ("recommend", "--run", "r", "--items", "i0", "--k", "50", "--json")
    listed = {row["item_id"] for row in pipeline(*ask).json()["items"]}
    assert listed == set(ids) - {"i0"}  # and not what the user called (new) lacks


def test_options_of_features_are_told_of_where_there_are_none(pipeline):
    what = ("train", "--backbone", "bpr", "--dataset", "sample", "--set", "epochs=1")
    done = pipeline(*what, "--dim", "16", "--feature-scale", "unit")
    assert done.code == 0
    assert "--feature-scale and --dim: without effect, as there are no features" in done.err
    assert "without effect" not in pipeline(*what).err
    what = ("train", "--backbone", "bm3", *what[3:], "--set", "embedding_dim=8")
    done = pipeline(*what, "--set", "contrast_weight=3")
    assert "contrast_weight: without effect, as there are no features" in done.err


def test_an_id_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path):
    (tmp_path / "users.txt").write_bytes("\ufeffu\u2028 1\r\nu2\r\n\r\n".encode())
    assert read_ids(tmp_path / "users.txt") == ["u\u2028 1", "u2"]


def test_help_answers_at_once_and_lists_the_settings(pipeline):
    shown = pipeline("train", "--help").out
    assert "Settings of bm3" in shown
    assert "contrast_weight" in shown
    assert "Weight of the modality losses" in shown
    assert "temperature" in pipeline("distill", "--help").out
    assert "Names for --backbone:\n  bm3, " in shown
    rows = shown[shown.index("Settings of") :]
    assert "\n  patience" in rows and not re.search(r"\n  [a-z_]+ +\[default", rows)
    alone = pipeline("train", "--backbone", "ease", "--help").out
    assert re.findall("Settings of ([a-z0-9]+)", alone) == ["ease"]
    assert "content_weight" in alone and "batch_size" not in alone


def test_figures_that_could_not_be_measured_are_left_out(capsys):
    print_figures({"alignment": {"generic": None, "made": None}, "a": None, "b": 1.0})
    assert capsys.readouterr().out.split() == ["b", "1.0000"]


def test_a_cutoff_at_which_nothing_was_measured_is_a_dash(capsys):
    print_metrics({"test": {"recall@10": 0.5, "recall@20": 0.6, "diversity_audio@20": 0.1}})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["recall", "0.5000", "0.6000"], ["diversity_audio", "-", "0.1000"]]


@pytest.mark.parametrize("module", ["pipeline", "featureset", "jobs"])
def test_it_starts_without_heavy_imports(module):
    """So that `features list | show | verify | pull` answer at once, where torch takes seconds."""
    heavy = "('torch', 'faiss', 'pandas')"
    code = f"import sys, sgfd.{module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_office_from_catalogue_to_recommendation(shared_data, pipeline, tmp_path):
    office = str(shared_data / "office")
    quick = ("--set", "epochs=15")
    made = pipeline("distill", "--dataset", office, "--preset", "office", *quick, "--json")
    assert made.code == 0, made.err
    quality = made.json()["quality"]
    assert quality["title"]["student_accuracy"] > 0.6 > 3 * quality["majority_accuracy"]
    arguments = ("--features", "artifacts/office-sgfd", "--data-root", str(shared_data))
    small = ("--set", "batch_size=512")
    trained = pipeline("train", "--backbone", "bm3", *arguments, *quick, *small, "--json")
    assert trained.code == 0, trained.err
    floor = pipeline("train", "--backbone", "popular", *arguments, "--json").json()
    recall = trained.json()["metrics"]["test"]["recall@20"]
    assert recall > 1.2 * floor["metrics"]["test"]["recall@20"] > 0.06
    rows = pipeline("recommend", trained.json()["run"], "--user", "A2TM9WEZ2CIXH2", "--json").json()
    assert len(rows["items"]) == 10
    assert all(row["title"] for row in rows["items"])
