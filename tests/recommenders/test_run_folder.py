"""A run on disk is whole, or it is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from sgfd.dataset import load_dataset
from sgfd.jobs import JobError
from sgfd.recommenders import load_run, recommend, train, write_recommendations

SAMPLE = load_dataset("sample")


@pytest.fixture
def copy(sample_run, tmp_path):
    return shutil.copytree(sample_run.folder, tmp_path / "run")


def test_judging_again_gives_the_same_figures(sample_run):
    opened = load_run(sample_run.folder)
    for part in ("valid", "test"):
        again = opened.judge(part, SAMPLE.catalog.features)
        assert again.metrics == sample_run.metrics[part]


@pytest.mark.parametrize("part", ["train", "tset", "test_among_cold"])
def test_a_part_that_does_not_judge_is_named(part, sample_run):
    with pytest.raises(JobError, match=f"part '{part}': is none .* take one of valid, test$"):
        sample_run.judge(part)


def test_a_recommendation_is_the_best_unseen_by_brute_force(sample_run):
    scores = sample_run.user_embeddings @ sample_run.item_embeddings.T
    user = 7
    seen = sample_run.split.seen_before("test").of(user)
    scores[user, seen] = -np.inf
    rows = recommend(sample_run, str(sample_run.names.users[user]), k=10)
    expected = sample_run.names.items[np.argsort(-scores[user], kind="stable")[:10]]
    assert [row["item_id"] for row in rows] == expected.tolist()
    assert [row["rank"] for row in rows] == list(range(1, 11))


def test_for_use_test_items_are_left_out_too(sample_run, tmp_path):
    test = sample_run.split.test
    user = int(np.flatnonzero(test.sizes)[0])
    own = set(sample_run.names.items[test.of(user)])
    name = str(sample_run.names.users[user])
    every = recommend(sample_run, name, k=300)
    kept = recommend(sample_run, name, k=300, leave_out_test=True)
    assert own and [row["item_id"] for row in kept] == [
        row["item_id"] for row in every if row["item_id"] not in own
    ]
    path = write_recommendations(sample_run, tmp_path / "x.parquet", k=300, leave_out_test=True)
    listed = pd.read_parquet(path).set_index("user_id").loc[name, "item_id"]
    assert list(listed) == [row["item_id"] for row in kept]
    with pytest.raises(JobError, match=r"x.csv: is written as Parquet; end its name in .parquet"):
        write_recommendations(sample_run, tmp_path / "x.csv")


def test_more_than_there_is_gives_all_that_is_unseen(sample_run):
    seen = sample_run.split.seen_before("test").of(0)
    rows = recommend(sample_run, str(sample_run.names.users[0]), k=10_000)
    assert len(rows) == 300 - len(seen)


def test_whoever_can_enter_the_folder_can_read_its_files(sample_run):
    modes = {file.name: file.stat().st_mode & 0o444 for file in sample_run.folder.iterdir()}
    assert set(modes.values()) == {0o444}, modes


def test_runs_without_a_name_pile_up_or_are_overwritten(tmp_path):
    def run(**options):
        return train(load_dataset("sample"), "popular", runs_root=tmp_path, **options).folder.name

    first = run()
    assert run() == f"{first}-2"
    assert run(overwrite=True) == first


def test_what_is_no_run_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(JobError, match=r"has no run\.json, and only a folder that has one is"):
        train(load_dataset("sample"), "popular", runs_root=tmp_path, name="mine", overwrite=True)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_what_is_printed_of_it_is_a_line(sample_run):
    assert repr(sample_run).startswith(f"<Run {sample_run.folder}: bm3, recall@20 0.")
    assert repr(load_dataset("sample")) == "<Dataset sample: 300 items, 600 users>"


def test_an_unknown_format_is_refused(copy):
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(JobError, match="run format 99 is unknown"):
        load_run(copy)


def test_weights_of_another_model_are_refused(copy):
    path = copy / "model.safetensors"
    weights = {name: tensor[..., :-1].contiguous() for name, tensor in load_file(path).items()}
    save_file(weights, path)
    with pytest.raises(
        JobError, match=r"model.safetensors: is of no such \w+; train the run again"
    ):
        load_run(copy).model  # noqa: B018 (rebuilt when it is asked for)


def test_embeddings_of_other_users_are_refused(copy):
    np.save(copy / "user_embeddings.npy", np.zeros((3, 32), np.float32))
    with pytest.raises(JobError, match="number of embeddings"):
        load_run(copy)


ITEMS = "item_embeddings.npy"
DAMAGE = {
    "an empty file": lambda f: (f / ITEMS).write_bytes(b""),
    "one dimension": lambda f: np.save(f / ITEMS, np.zeros(300, np.float32)),
    "another width": lambda f: np.save(f / ITEMS, np.load(f / ITEMS)[:, :-1]),
    "doubles": lambda f: np.save(f / ITEMS, np.load(f / ITEMS).astype(np.float64)),
    "a record that nests": lambda f: (f / "run.json").write_text("[" * 10**5),
    "a record that is a list": lambda f: (f / "run.json").write_text("[]"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_files_are_refused_in_a_line(copy, kind):
    DAMAGE[kind](copy)
    with pytest.raises(JobError, match=r"^[^\n]*the run can't be read \([^\n]+\); train it again$"):
        load_run(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("similarity", None),
        ("metrics", None),
        ("metrics", {"test": "good"}),
        ("features", "demo"),
        ("features", {"name": "demo", "manifest_sha256": "0"}),
        ("dataset", "sample"),
        ("seconds", None),
        ("threads", "all"),
        ("seed", 0.5),
    ],
)
def test_a_record_of_another_shape_is_refused_by_the_name_of_its_field(copy, field, value):
    record = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(record | {field: value}))
    with pytest.raises(JobError, match=rf"can't be read \(run.json, {field}[^\n]+; train it again"):
        load_run(copy)


def test_embeddings_are_never_unpickled(copy):
    np.save(copy / "user_embeddings.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(JobError, match="can't be read"):
        load_run(copy)


def test_groups_of_items_and_users_are_measured_and_measured_again_the_same(sample_run):
    test = sample_run.metrics["test"]
    assert {"recall@20 rare", "recall@20 popular", "recall@20 few", "novelty@20"} <= set(test)
    few, many = (test[f"recall@20 {group}"] for group in ("few", "many"))
    assert min(few, many) <= test["recall@20"] <= max(few, many)
    assert sample_run.judge("test", SAMPLE.catalog.features).metrics == test


def test_diversity_is_measured_where_the_generic_features_are(sample_run):
    test = sample_run.metrics["test"]
    alone = sample_run.judge("test").metrics
    assert set(test) - set(alone) == {
        f"diversity_{modality}@{k}" for modality in ("image", "text") for k in (10, 20, 50)
    }
    assert not any(name.startswith("diversity") for name in sample_run.metrics["valid"])
    assert all(0.3 < test[name] < 1.2 for name in test if name.startswith("diversity"))
    per_user = pd.read_parquet(sample_run.folder / "per_user.parquet").query("part == 'test'")
    assert per_user["diversity_text@20"].mean() == pytest.approx(test["diversity_text@20"])
    with pytest.raises(JobError, match=r"is not what .* was made on; give sample"):
        sample_run.generic_features(replace(SAMPLE, interactions=None))


def test_settings_of_another_version_are_refused_in_one_line(copy):
    record = json.loads((copy / "run.json").read_text())
    record["settings"]["of_old"] = 1
    (copy / "run.json").write_text(json.dumps(record))
    with pytest.raises(JobError, match=r"holds settings that \w+ does not take \(of_old\)"):
        _ = load_run(copy).model
