"""Runs under splits other than the data set's own, from training to judging again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sgfd import featureset, recommenders
from sgfd.dataset import DatasetError, load_dataset
from sgfd.distill import distill
from sgfd.jobs import JobError
from sgfd.recommenders import backbone_places, find_backbone, judge, load_run
from sgfd.recommenders.inputs import make_inputs
from sgfd.recommenders.item_sets import ItemSets
from sgfd.recommenders.newcomers import KnownItems
from sgfd.recommenders.ranking import rank_by_vectors, vectors_of
from sgfd.recommenders.sampling import EpochBatches

SAMPLE = load_dataset("sample")
SCORE_NEW = [n for n in backbone_places() if find_backbone(n).scores_new_items]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts") / "sample"
    return featureset.load(distill(SAMPLE, folder, method="pca").artifact)


@pytest.fixture(scope="module")
def train(features, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")

    def run(backbone, split="given", features=features, dataset=SAMPLE, epochs=5, **options):
        kind = find_backbone(backbone)
        settings = kind.Settings(epochs=epochs) if kind.trained else kind.Settings()
        return recommenders.train(
            dataset, backbone, features, settings, split=split, runs_root=root, **options
        )

    return run


@pytest.mark.parametrize("name", ["content", "ease", "graphfilter", "vbpr"])
def test_cold_items_are_found_among_their_like_and_judged_again_the_same(train, name):
    run = train(name, "cold-items", epochs=30)
    opened = load_run(run.folder)
    generic = opened.generic_features(SAMPLE)
    again = {part: opened.judge(part, generic).metrics for part in opened.split.judged_parts()}
    assert again == run.metrics
    assert list(again) == ["valid", "test", "test_among_cold"]
    assert run.record["split"] == "cold-items"
    assert run.record["seconds"]["train"] > 0  # also of a closed form
    assert run.metrics["test_among_cold"]["recall@20"] > 0.45  # chance is 20 of 60
    assert run.metrics["test_among_cold"]["recall@20"] > run.metrics["test"]["recall@20"]


def test_the_lists_among_cold_items_are_those_of_brute_force(train):
    run = train("content", "cold-items")
    cold = np.unique(run.split.test.items)
    scores = run.user_embeddings @ run.item_embeddings[cold].T
    best = cold[np.argsort(-scores, axis=1, kind="stable")[:, :20]]
    hits = run.split.test.contains(best).sum(axis=1)
    users = run.split.test.sizes > 0
    expected = (hits[users] / run.split.test.sizes[users]).mean()
    assert run.metrics["test_among_cold"]["recall@20"] == pytest.approx(expected)


@pytest.mark.parametrize("name", [n for n in SCORE_NEW if find_backbone(n).trained])
def test_an_item_that_was_never_trained_scores_by_its_features_alone(small_inputs, name):
    features = {
        modality: replace(
            f,
            values=torch.cat([f.values, f.values[-1:]]),
            present=torch.cat([f.present, f.present[-1:]]),
        )
        for modality, f in small_inputs.features.items()
    }  # a tenth item, the twin of the ninth; neither was ever trained
    inputs = make_inputs(replace(small_inputs.seen, n_items=10), features, small_inputs.device)
    kind = find_backbone(name)
    growing = KnownItems(kind, inputs, kind.Settings())
    known = np.unique(inputs.seen.items)
    assert growing.inputs.n_items == len(known) == 8
    for batch in EpochBatches(growing.inputs, 16, growing.learner.negatives, 0, 0).start_at(0):
        assert batch.negatives.max() < 8
    of_learner, of_all = vectors_of(growing.learner), vectors_of(growing.with_new())
    np.testing.assert_allclose(of_all[0], of_learner[0], atol=1e-6)
    np.testing.assert_allclose(of_all[1][known], of_learner[1], atol=1e-6)
    np.testing.assert_allclose(of_all[1][8], of_all[1][9], atol=1e-6)
    with torch.no_grad():  # what the features say follows the learner as it trains
        for parameter in growing.learner.parameters():
            parameter.mul_(2)
    of_learner, of_all = vectors_of(growing.learner), vectors_of(growing.with_new())
    np.testing.assert_allclose(of_all[1][known], of_learner[1], atol=1e-6)


def test_candidates_are_the_whole_catalogue_to_the_metrics():
    generator = np.random.default_rng(0)
    users, items = generator.normal(size=(6, 4)), generator.normal(size=(20, 4))
    rank = rank_by_vectors(users.astype(np.float32), items.astype(np.float32), "inner_product")
    candidates = np.array([2, 3, 7, 11, 19])
    held_out = ItemSets.from_pairs(np.arange(6), candidates[np.arange(6) % 5], 6, 20)
    nothing = ItemSets.from_pairs(np.empty(0, np.int64), np.empty(0, np.int64), 6, 20)
    all_listed = judge(rank, nothing, held_out, (5,), candidates=candidates)
    assert all_listed.metrics["recall@5"] == 1
    assert all_listed.metrics["coverage@5"] == 1
    same = judge(rank, nothing, held_out, (5,), candidates=np.arange(20))
    assert same.metrics == judge(rank, nothing, held_out, (5,)).metrics


def timed(dataset, generator):
    """The data set with made-up times of its interactions."""
    interactions = dataset.interactions
    parts = {
        name: replace(pairs, timestamp=generator.integers(0, 10_000, len(pairs)))
        for name, pairs in (("train", interactions.train), ("test", interactions.test))
    }
    return replace(dataset, interactions=replace(interactions, **parts))


@pytest.mark.parametrize(("name", "split"), [("bpr", "leave-one-out"), ("vbpr", "temporal")])
def test_other_splits_run_and_are_judged_again_the_same(train, rng, name, split):
    dataset = timed(SAMPLE, rng)
    run = train(name, split, dataset=dataset)
    opened = load_run(run.folder)
    assert opened.split.split == split
    generic = opened.generic_features(dataset)
    again = {part: opened.judge(part, generic).metrics for part in opened.split.judged_parts()}
    assert again == run.metrics and list(again) == ["valid", "test"]


def test_users_to_judge_are_kept_in_the_run(train):
    some = train("popular", judge_users=["u3", "u40", "u5"])
    opened = load_run(some.folder)
    assert opened.record["judge_users"]["count"] == 3
    assert opened.judge("test").users.tolist() == [2, 4, 39]
    assert opened.judge("test", SAMPLE.catalog.features).metrics == some.metrics["test"]
    everybody = train("popular")
    assert some.metrics["valid"] == everybody.metrics["valid"]
    assert some.metrics["test"] != everybody.metrics["test"]
    grown = recommenders.with_new_user(opened, ["i1"])
    assert grown.judge("test").users.tolist() == [2, 4, 39]


def test_the_paper_s_protocol_chooses_on_the_users_that_it_judges(train):
    run = train("bpr", protocol="paper", judge_users=["u3", "u40", "u5"])
    history = pd.read_parquet(run.folder / "history.parquet")
    assert history["recall@20"].max() == run.metrics["test"]["recall@20"]


def test_a_run_of_an_earlier_version_opens_as_given(train, tmp_path):
    folder = shutil.copytree(train("popular").folder, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    assert record["format"] == 1
    assert record.pop("split") == "given"
    (folder / "run.json").write_text(json.dumps(record))
    opened = load_run(folder)
    assert opened.split.split == "given"
    assert opened.judge("test").metrics["recall@20"] == opened.metrics["test"]["recall@20"]


def test_readers_that_would_judge_otherwise_do_not_open_the_run(train):
    assert train("content", "cold-items").record["format"] == 2
    assert train("popular", judge_users=["u1"]).record["format"] == 2
    assert train("popular", "leave-one-out").record["format"] == 1


def test_backbones_that_can_not_score_cold_items_are_refused(train):
    with pytest.raises(JobError, match=r"bm3: scores items by id.*choose content or ease or"):
        train("bm3", "cold-items")
    with pytest.raises(JobError, match="by features alone; give a feature set"):
        train("vbpr", "cold-items", features=None)
    with pytest.raises(DatasetError, match="have no timestamps"):
        train("bpr", "temporal")
    with pytest.raises(DatasetError, match="split 'cold': is unknown; choose given or random or"):
        train("bpr", "cold")
    with pytest.raises(DatasetError, match="protocol 'honset': is unknown; choose honest or paper"):
        train("bpr", protocol="honset")


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ({"name": "../out"}, "is no plain folder name"),
        ({"name": "/tmp/out"}, "is no plain folder name"),
        ({"device": "gpu"}, "choose auto, cpu or cuda"),
        ({"threads": -3}, "give 1 or more"),
        ({"feature_scale": "units"}, "choose entry or unit or stored"),
    ],
)
def test_options_that_make_no_sense_are_refused(option, what, train):
    with pytest.raises(JobError, match=what):
        train("popular", **option)


def test_features_that_saw_what_is_held_out_are_refused(train, tmp_path):
    """Guided by one division of the interactions, they serve the runs that hold out none of it."""

    def guided(name, **division):
        distill(SAMPLE, tmp_path / name, method="interaction-metric", **division)
        return featureset.load(tmp_path / name)

    given, cold = guided("given"), guided("cold", split="cold-items")
    with pytest.raises(JobError, match=r"with [\d,]+ of the [\d,]+ pairs held out here .* --split"):
        train("content", "cold-items", features=given)
    with pytest.raises(JobError, match="pairs held out here"):
        train("content", features=cold)
    assert train("content", features=given).record["features"]["saw"] == "train"
    assert train("content", "cold-items", features=cold).metrics["test"]
    assert train("popular", "leave-one-out", features=given).metrics["test"]  # takes none


def test_features_guided_by_other_interactions_are_used_on_trust_alone(train, features, tmp_path):
    folder = shutil.copytree(features.path, tmp_path / "foreign")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["dataset"]["fingerprints"]["interactions"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    foreign = featureset.load(folder)
    with pytest.raises(JobError, match=r"can't be told; .*--trust-features"):
        train("content", features=foreign)
    trusted = train("content", features=foreign, trust_features=True)
    assert trusted.record["features"]["saw"] == "unproven"


def test_the_command_line_trains_and_judges_again(features, pipeline, tmp_path):
    (tmp_path / "ids.txt").write_text("u3\n\nu5\n")
    options = ("--split", "cold-items", "--judge-users", "ids.txt", "--dataset", "sample")
    arguments = ("train", "--backbone", "content", "--features", str(features.path), *options)
    done = pipeline(*arguments, "--json")
    assert done.code == 0, done.err
    trained = done.json()
    assert trained["split"] == "cold-items"
    done = pipeline("evaluate", "--dataset", "sample", "--json")
    assert done.code == 0, done.err
    judged = done.json()
    assert judged["agrees"] and judged["metrics"] == trained["metrics"]
    assert "test_among_cold" in judged["metrics"]
    assert "test_among_cold" in pipeline("evaluate").out

    (tmp_path / "ids.txt").write_text("u3\nnobody\n")
    done = pipeline(*arguments)
    assert done.code == 2 and "'nobody'" in done.err
    assert done.err.count("\n") == 1 and not done.out
