"""The refit: trained anew on train and valid, judged on test, never mixed with the choice."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sgfd import featureset
from sgfd.dataset import load_dataset
from sgfd.distill import distill
from sgfd.jobs import JobError, seed_everything
from sgfd.recommenders import load_run, train
from sgfd.recommenders.backbones.bpr import BPR, BPRSettings
from sgfd.recommenders.inputs import make_inputs
from sgfd.recommenders.sampling import EpochBatches

SAMPLE = load_dataset("sample")
SETTINGS = BPRSettings(epochs=12, patience=2, embedding_dim=8, learning_rate=0.3)


def refitted(folder, **options):
    return train(SAMPLE, "bpr", settings=SETTINGS, runs_root=folder, refit=True, **options)


def by_hand(sets, epochs, seed=0):
    """Embeddings of a plain loop over so many epochs of train and valid."""
    seed_everything(seed)
    inputs = make_inputs(sets.train.merge(sets.valid), {}, torch.device("cpu"))
    model = BPR(inputs, SETTINGS)
    optimizer = torch.optim.Adam(model.parameters(), SETTINGS.learning_rate, fused=True)
    for epoch in range(epochs):
        for batch in EpochBatches(inputs, SETTINGS.batch_size, 1, seed, epoch).start_at(0):
            optimizer.zero_grad()
            torch.stack(list(model.loss(batch).values())).sum().backward()
            optimizer.step()
    users, items = model.embeddings()
    return users.detach().numpy(), items.detach().numpy()


def test_it_is_a_training_on_train_and_valid_for_the_chosen_epochs(tmp_path):
    run = refitted(tmp_path)
    assert run.record["best_epoch"] < run.record["epochs"]
    users, items = by_hand(run.split, run.record["best_epoch"])
    np.testing.assert_array_equal(run.refit.user_embeddings, users)
    np.testing.assert_array_equal(run.refit.item_embeddings, items)


def test_it_stands_beside_the_run_and_changes_nothing_of_it(tmp_path):
    run, alone = refitted(tmp_path, name="both"), train(SAMPLE, "bpr", settings=SETTINGS)
    assert run.metrics == alone.metrics
    assert "refit" not in alone.record and alone.refit is None
    said = run.record["refit"]
    assert (said["trained_on"], said["epochs"]) == ("train and valid", run.record["best_epoch"])
    assert list(said["metrics"]) == ["test"]
    assert said["metrics"]["test"] == run.refit.metrics["test"] != run.metrics["test"]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_it_is_a_run_like_any_other_in_which_valid_has_been_seen(tmp_path):
    run = refitted(tmp_path)
    again = load_run(run.folder / "refit")
    assert again.judge("test", SAMPLE.catalog.features).metrics == again.metrics["test"]
    assert not len(again.split.valid.items)
    assert len(again.split.train.items) == len(run.split.train.items) + len(run.split.valid.items)
    user = int(np.flatnonzero(run.split.valid.sizes)[0])
    lists, _ = again.rank(np.array([user]), 300, again.split.seen_before("test").take([user]))
    assert not set(run.split.valid.of(user)) & set(lists[0])


def test_without_training_it_is_the_model_of_all_that_is_not_test(tmp_path):
    run = train(SAMPLE, "graphfilter", runs_root=tmp_path, refit=True)
    whole = train(SAMPLE, "graphfilter", runs_root=tmp_path, protocol="paper")
    assert run.record["refit"]["epochs"] == 0
    assert run.record["refit"]["metrics"]["test"] == whole.metrics["test"]


def test_stopped_in_the_middle_it_goes_on_to_the_same_figures(tmp_path, monkeypatch):
    whole = refitted(tmp_path, name="whole")
    begun = []

    def stop(self, generator):
        begun.append(1)
        if len(begun) == whole.record["epochs"] + 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(BPR, "begin_epoch", stop)
    settings = replace(SETTINGS, checkpoint_seconds=0.0)

    def stopped():
        return train(
            SAMPLE, "bpr", settings=settings, runs_root=tmp_path, refit=True, name="stopped"
        )

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (tmp_path / ".stopped.partial" / "refit.safetensors").exists()
    before = len(begun)
    run = stopped()
    assert len(begun) - before <= whole.record["best_epoch"]  # and the first part has one
    assert run.metrics == whole.metrics
    assert run.refit.metrics == whole.refit.metrics


def test_the_paper_s_protocol_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(JobError, match="trains on valid already"):
        refitted(tmp_path, protocol="paper")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def pca(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts") / "pca"
    distill(SAMPLE, folder, method="pca")
    return featureset.load(folder)


def test_valid_s_cold_items_are_warm_in_it_and_test_s_stay_cold(tmp_path, pca):
    run = train(SAMPLE, "graphfilter", pca, split="cold-items", runs_root=tmp_path, refit=True)
    warm = set(run.refit.split.train.items)
    assert set(run.split.valid.items) <= warm
    assert not set(run.split.test.items) & warm
    assert set(run.record["refit"]["metrics"]) == {"test", "test_among_cold"}


def test_features_made_with_interactions_are_told_of_as_not_made_again(tmp_path, pca, caplog):
    def saw(features):
        run = train(SAMPLE, "graphfilter", features, runs_root=tmp_path, refit=True)
        assert run.refit.record["features_saw"] == run.record["refit"]["features_saw"]
        return run.record["refit"]["features_saw"]

    assert saw(pca) == "nothing"
    assert "not made again" not in caplog.text
    guided = tmp_path / "guided"
    distill(SAMPLE, guided, method="interaction-metric")
    assert saw(featureset.load(guided)) == "train"
    assert "not made again" in caplog.text
