"""Recommending to those, and of that, which came after the training."""

import fcntl

import numpy as np
import pandas as pd
import pytest
import torch

from sgfd import featureset, recommenders
from sgfd.dataset import load_dataset
from sgfd.distill import InteractionMetricSettings, SGFDSettings, distill, embed
from sgfd.featureset import FeatureSetError
from sgfd.jobs import JobError
from sgfd.recommenders import find_backbone


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts") / "sample"
    return featureset.load(distill(load_dataset("sample"), folder, SGFDSettings(epochs=5)).artifact)


@pytest.fixture(scope="module")
def train(features, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")

    def run(name, **settings):
        chosen = find_backbone(name).Settings(**settings)
        data = load_dataset("sample")
        return recommenders.train(data, name, features, chosen, runs_root=root)

    return run


@pytest.mark.parametrize("name", ["bpr", "lightgcn", "graphfilter", "content", "vbpr"])
def test_a_new_user_is_served_as_well_as_one_who_was_there(train, name):
    run = train(name, **({} if name in ("graphfilter", "content") else {"epochs": 60}))
    shared, found, found_before = [], [], []
    for user in range(0, 600, 30):
        own = {str(run.names.items[i]) for i in run.split.train.of(user)}
        test = {str(run.names.items[i]) for i in run.split.test.of(user)}
        twin = recommenders.with_new_user(run, sorted(own))
        new = {row["item_id"] for row in recommenders.recommend(twin, "(new)", 20)}
        rows = recommenders.recommend(run, str(run.names.users[user]), 20)
        old = {row["item_id"] for row in rows}
        assert not new & own
        shared.append(len(new & old) / 20)
        found.append(len(new & test) / len(test))
        found_before.append(len(old & test) / len(test))
    assert np.mean(shared) > 0.45
    assert np.mean(found) > 0.8 * np.mean(found_before)
    assert len(run.names.users) == 600  # the folder's run is as it was


def test_a_new_user_without_items_or_with_unknown_ones_is_refused(train):
    run = train("popular")
    with pytest.raises(JobError, match="has no items"):
        recommenders.with_new_user(run, [])
    with pytest.raises(JobError, match="items 'i7': are one text, not several ids; give a list"):
        recommenders.with_new_user(run, "i7")
    with pytest.raises(JobError, match="item 'i9999'"):
        recommenders.with_new_user(run, ["i1", "i9999"])
    with pytest.raises(JobError, match="'u1': is a user of"):
        recommenders.with_new_user(run, ["i1"], "u1")


def test_a_list_is_no_longer_than_there_are_items(train, tmp_path):
    run = train("bpr", epochs=1)
    for k in (10**9, 10**21):
        assert len(recommenders.recommend(run, "u1", k)) < 300
        assert len(recommenders.similar(run, "i7", k)) == 299
        recommenders.write_recommendations(run, tmp_path / "all.parquet", k, overwrite=True)
    for ask in (recommenders.recommend, recommenders.similar):
        with pytest.raises(JobError, match="k 0: is out of range; give a whole number from 1"):
            ask(run, "u1" if ask is recommenders.recommend else "i7", 0)


def test_lists_are_not_written_through_a_planted_link(train, tmp_path):
    victim, partial = tmp_path / "victim", tmp_path / ".all.parquet.partial"
    victim.write_text("mine")
    partial.mkdir()
    (partial / "all.parquet").symlink_to(victim)
    recommenders.write_recommendations(train("bpr", epochs=1), tmp_path / "all.parquet")
    assert victim.read_text() == "mine" and not (tmp_path / "all.parquet").is_symlink()


def test_numbers_and_lists_of_numpy_are_taken_and_others_refused(features, tmp_path):
    def train(**options):
        settings = find_backbone("vbpr").Settings(epochs=1)
        data, root = load_dataset("sample"), tmp_path / "runs"
        return recommenders.train(data, "vbpr", features, settings, runs_root=root, **options)

    run = train(seed=np.int64(1), split_seed=np.int32(0))
    assert run.record["seed"] == 1
    assert len(recommenders.recommend(run, "u1", np.int64(3))) == 3
    assert len(recommenders.similar(run, "i7", np.int64(3))) == 3
    recommenders.write_recommendations(run, tmp_path / "all.parquet", np.int16(3))
    basket = recommenders.with_new_user(run, np.array(["i1", "i7"], dtype=object))
    assert len(recommenders.recommend(basket, "(new)", 3)) == 3
    with pytest.raises(JobError, match=r"k 2.5: is no whole number; give a whole number from 1"):
        recommenders.recommend(run, "u1", 2.5)
    for wrong in ({"seed": -1}, {"seed": 2**40}, {"split_seed": -1}, {"seed": 1.5}):
        with pytest.raises(JobError, match=r"seed .*; give a whole number from 0"):
            train(**wrong)
    with pytest.raises(JobError, match="users to judge 'u1': is one text"):
        train(judge_users="u1")
    with pytest.raises(JobError, match="name '': is no plain folder name"):
        train(name="")
    with pytest.raises(FeatureSetError, match="none of its modalities is named"):
        train(modalities=[])
    assert len(list((tmp_path / "runs").iterdir())) == 1


class Renamed(featureset.FeatureSet):
    """A feature set whose last items have new ids, as if they were new."""

    def __init__(self, features, new):
        self._features = features
        self.item_ids = features.item_ids.copy()
        self.item_ids[-new:] = [f"new {i}" for i in range(new)]

    def __getattr__(self, name):
        return getattr(self._features, name)

    def align(self, ids, min_coverage):
        rows = pd.Index(self.item_ids).get_indexer(pd.Index(ids)).astype(np.int64)
        return featureset.Alignment(rows, float((rows >= 0).mean()))


@pytest.mark.parametrize("name", ["content", "graphfilter", "vbpr", "freedom", "mgcn"])
def test_a_new_item_is_recommended_where_an_old_one_like_it_is(train, features, name):
    run = train(name, **({} if name in ("graphfilter", "content") else {"epochs": 30}))
    extended = recommenders.with_new_items(run, Renamed(features, 40))
    assert extended.names.items[-40:].tolist() == [f"new {i}" for i in range(40)]
    everybody = np.arange(200)
    nothing_seen = extended.split.seen_before("test").take(everybody)
    fresh = np.arange(300, 340)
    lists, scores = extended.rank(everybody, 40, nothing_seen, fresh)
    table = np.zeros((200, 40))
    np.put_along_axis(table, lists - 300, scores, axis=1)
    if name == "content":  # an exact twin scores as its original does
        original = run.user_embeddings[:200] @ run.item_embeddings[260:].T
        np.testing.assert_allclose(table, original, atol=1e-5)
    # A new item is liked by those who like the old item of which it is the twin.
    wanted = run.split.test.take(everybody)
    liked = np.zeros((200, 300), dtype=bool)
    liked[np.repeat(everybody, wanted.sizes), wanted.items] = True
    liked = liked[:, 260:]
    ranks = table.argsort(axis=1).argsort(axis=1)
    present = np.isfinite(table)
    assert ranks[liked & present].mean() > 25  # of 0..39; chance is 19.5


@pytest.mark.parametrize(
    "name", ["content", "graphfilter", "ease", "vbpr", "freedom", "mgcn", "grcn"]
)
def test_a_new_user_and_new_items_come_in_either_order(train, features, name):
    untrained = ("graphfilter", "content", "ease")
    run = train(name, **({} if name in untrained else {"epochs": 2}))
    new, basket = Renamed(features, 20), ["i7", "i21"]
    one = recommenders.with_new_user(recommenders.with_new_items(run, new), basket)
    other = recommenders.with_new_items(recommenders.with_new_user(run, basket), new)
    lists = [recommenders.recommend(each, "(new)", 400) for each in (one, other)]
    for rows in lists:
        assert len(rows) == 320 - len(basket)
        assert {f"new {i}" for i in range(20)} <= {row["item_id"] for row in rows}
    bought = recommenders.with_new_user(recommenders.with_new_items(run, new), ["new 1", "i21"])
    assert "new 1" not in {row["item_id"] for row in recommenders.recommend(bought, "(new)", 400)}


def test_what_has_no_neighbours_is_said(train, features):
    with pytest.raises(JobError, match="popular has no vector"):
        recommenders.similar(train("popular"), "i7")
    extended = recommenders.with_new_items(train("graphfilter"), Renamed(features, 5))
    with pytest.raises(JobError, match="graphfilter has no vector"):
        recommenders.similar(extended, "new 1")


def test_a_run_on_leading_columns_takes_new_items_by_the_same_columns(tmp_path):
    settings = InteractionMetricSettings(dimension=24)
    made = distill(load_dataset("sample"), tmp_path / "x", settings, threads=1)
    features = featureset.load(made.artifact)
    run = recommenders.train(
        load_dataset("sample"), "content", features, dimension=16, runs_root=tmp_path
    )
    extended = recommenders.with_new_items(run, Renamed(features, 10))
    np.testing.assert_allclose(extended.item_embeddings[300:], run.item_embeddings[290:], atol=1e-5)


def test_backbones_by_id_and_other_features_are_refused(train, features, tmp_path):
    with pytest.raises(JobError, match="can't score new items"):
        recommenders.with_new_items(train("bpr", epochs=1), features)
    other = distill(load_dataset("sample"), tmp_path / "other", SGFDSettings(epochs=1), seed=7)
    with pytest.raises(JobError, match="are not those that"):
        recommenders.with_new_items(train("content"), featureset.load(other.artifact))


def test_items_that_share_none_must_be_of_the_same_student(tmp_path):
    """Their rows alone can't tell: they are compared with nothing."""
    old = tmp_path / "old"
    new = tmp_path / "new"
    random = np.random.default_rng(0)
    for folder, ids in ((old, [f"i{i}" for i in range(40)]), (new, ["n1", "n2", "n3"])):
        folder.mkdir()
        pd.DataFrame({"item_id": ids}).to_parquet(folder / "items.parquet")
        rows = random.normal(size=(len(ids), 6)).astype(np.float32)
        rows[:1] = np.nan  # the first item of each lacks it
        np.save(folder / "image.npy", rows)
    pairs = pd.DataFrame({"user_id": ["a", "b"] * 10, "item_id": [f"i{i}" for i in range(20)]})
    pairs.assign(split=["train", "train", "train", "test"] * 5).to_parquet(
        old / "interactions.parquet"
    )
    sets = {}
    for seed in (0, 1):
        made = distill(load_dataset(old), tmp_path / f"s{seed}", method="random", seed=seed)
        sets[seed] = featureset.load(made.artifact)
        embed(sets[seed], load_dataset(new), tmp_path / f"new{seed}")
    options = {"runs_root": tmp_path, "min_coverage": 0.9}
    run = recommenders.train(load_dataset(old), "content", sets[0], **options)
    extended = recommenders.with_new_items(run, featureset.load(tmp_path / "new0"))
    assert extended.names.items[-3:].tolist() == ["n1", "n2", "n3"]
    with pytest.raises(JobError, match=r"shares no item .* embed the new items by s0"):
        recommenders.with_new_items(run, featureset.load(tmp_path / "new1"))
    # What `diff` promises holds: another set of the same student, several steps away.
    embed(sets[0], load_dataset(old), tmp_path / "again")
    embed(featureset.load(tmp_path / "again"), load_dataset(new), tmp_path / "farther")
    farther = featureset.load(tmp_path / "farther")
    assert featureset.diff(sets[0], farther).serves
    assert recommenders.with_new_items(run, farther).names.items[-1] == "n3"
    assert not featureset.diff(sets[0], featureset.load(tmp_path / "new1")).serves
    # An item that lacked the features in training, and has them now, is no other feature.
    late = np.load(old / "image.npy")
    late[0] = 1
    np.save(old / "image.npy", late)
    embed(sets[0], load_dataset(old), tmp_path / "late")
    recommenders.with_new_items(run, featureset.load(tmp_path / "late"))


def test_new_items_by_the_same_student_come_with_old_ones_that_changed(tmp_path, features, train):
    """What an old item was made from may have changed since: it keeps its row of the run."""
    sample = load_dataset("sample")
    rows = {name: np.array(f.block(0, 300)) for name, f in sample.catalog.features.items()}
    rows["image"][7] += 1
    folder = tmp_path / "later"
    folder.mkdir()
    ids = [*sample.catalog.items.ids[:299], "brand-new"]
    pd.DataFrame({"item_id": ids}).to_parquet(folder / "items.parquet")
    for name, values in rows.items():
        np.save(folder / f"{name}.npy", values)
    embed(features, load_dataset(folder), tmp_path / "embedded")
    run = train("content")
    extended = recommenders.with_new_items(run, featureset.load(tmp_path / "embedded"))
    assert extended.names.items[-1] == "brand-new"
    np.testing.assert_array_equal(extended.item_embeddings[:300], run.item_embeddings)


def test_similar_items_are_the_nearest_by_cosine(train):
    run = train("bpr", epochs=5)
    rows = recommenders.similar(run, "i7", 5)
    vectors = torch.nn.functional.normalize(torch.from_numpy(np.array(run.item_embeddings)), dim=1)
    cosines = vectors @ vectors[6]
    cosines[6] = -2
    expected = [f"i{int(i) + 1}" for i in cosines.topk(5).indices]
    assert [row["item_id"] for row in rows] == expected


def test_a_label_filters_the_lists(train):
    run = train("popular")
    rows = recommenders.recommend(run, "u1", 10, label="Rugs")
    assert len(rows) == 10
    assert {run.names.labels[run.item_index(row["item_id"])] for row in rows} == {"Rugs"}
    everything = recommenders.recommend(run, "u1", 300)
    rugs = [
        row["item_id"]
        for row in everything
        if run.names.labels[run.item_index(row["item_id"])] == "Rugs"
    ]
    assert [row["item_id"] for row in rows] == rugs[:10]
    with pytest.raises(JobError, match="choose 'Rugs'"):
        recommenders.recommend(run, "u1", 10, label="Rug")


def test_lists_for_everybody_are_those_of_each(train, tmp_path, monkeypatch):
    monkeypatch.setattr(recommenders.run_folder, "USERS_A_BLOCK", 128)
    run = train("bpr", epochs=5)
    path = recommenders.write_recommendations(run, tmp_path / "all.parquet", 7)
    table = pd.read_parquet(path).set_index("user_id")
    assert len(table) == 600
    for user in ("u1", "u300", "u600"):
        rows = recommenders.recommend(run, user, 7)
        assert table.loc[user, "item_id"].tolist() == [row["item_id"] for row in rows]
    with pytest.raises(JobError, match="exists already"):
        recommenders.write_recommendations(run, path)
    recommenders.write_recommendations(run, path, 3, overwrite=True)
    assert pd.read_parquet(path)["item_id"].map(len).eq(3).all()
    pairs = pd.DataFrame({"user_id": ["u"], "item_id": ["i"]})
    for other, save in (
        ("pairs.parquet", pairs.to_parquet),
        ("notes.parquet", lambda to: to.write_text("mine")),
    ):
        save(tmp_path / other)
        before = (tmp_path / other).read_bytes()
        with pytest.raises(JobError, match="exists already, and holds no such lists"):
            recommenders.write_recommendations(run, tmp_path / other, overwrite=True)
        assert (tmp_path / other).read_bytes() == before
        (tmp_path / other).unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["all.parquet"]
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    with pytest.raises(JobError, match="holds no such lists; choose another name"):
        recommenders.write_recommendations(run, folder, overwrite=True)
    folder.rmdir()
    # What a killed process left is written over; one at work is left alone.
    left = tmp_path / ".all.parquet.partial"
    left.mkdir()
    (left / "all.parquet").write_text("half")
    with (left / "lock").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(FeatureSetError, match="another process is writing it at this moment"):
            recommenders.write_recommendations(run, path, overwrite=True)
    recommenders.write_recommendations(run, path, 3, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["all.parquet"]


@pytest.mark.parametrize("scale", ["entry", "unit", "stored"])
def test_features_come_on_the_stated_scale(features, scale):
    from sgfd.recommenders.inputs import aligned_features

    for modality in aligned_features(features, np.arange(300), scale).values():
        squares = modality.values[modality.present].square().sum(dim=1)
        expected = {"entry": modality.dimension, "unit": 1.0, "stored": 1.0}[scale]
        torch.testing.assert_close(squares.mean().item(), float(expected), rtol=1e-4, atol=1e-4)
        assert (modality.values[~modality.present] == 0).all()
