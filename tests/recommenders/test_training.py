"""The loop: what stops it, what it keeps, what it does when the loss breaks."""

import os
import signal
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from sgfd import featureset
from sgfd.dataset import load_dataset
from sgfd.distill import distill
from sgfd.jobs import Checkpoint, JobError
from sgfd.recommenders import find_backbone, learning, train, training
from sgfd.recommenders.backbones.bm3 import BM3Settings
from sgfd.recommenders.backbones.bpr import BPRSettings
from sgfd.recommenders.learning import chosen_by
from sgfd.recommenders.sampling import EpochBatches
from sgfd.recommenders.training import DivergenceError

SAMPLE = load_dataset("sample")


def bpr(tmp_path, name="run", **settings):
    return train(SAMPLE, "bpr", settings=BPRSettings(**settings), runs_root=tmp_path, name=name)


def test_it_stops_after_patience_and_keeps_the_best_epoch(tmp_path):
    run = bpr(tmp_path, learning_rate=0.05, patience=3, epochs=200)
    history = pd.read_parquet(run.folder / "history.parquet")
    best = int(history["recall@20"].argmax()) + 1
    assert run.record["best_epoch"] == best
    assert run.record["epochs"] == len(history) == best + 3 < 200
    assert run.metrics["valid"]["recall@20"] == pytest.approx(history["recall@20"].max(), abs=1e-12)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_last_epoch_is_scored_is_not_lost(tmp_path, monkeypatch, number):
    settings = {"epochs": 2, "embedding_dim": 8}
    expected = bpr(tmp_path, name="whole", **settings)
    asked = []

    def interrupted(model, split):
        asked.append(1)
        if len(asked) == 2:
            os.kill(os.getpid(), number)
        return chosen_by(model, split)

    with monkeypatch.context() as patched:
        patched.setattr(learning, "chosen_by", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bpr(tmp_path, **settings)
    assert len(asked) == 2
    run = bpr(tmp_path, **settings)  # all that is left is to judge it
    assert run.metrics == expected.metrics


def test_the_numbers_of_threads_before_and_after_a_resume_are_recorded(tmp_path, monkeypatch):
    def train_by(threads):
        settings = BPRSettings(epochs=2, checkpoint_seconds=0)
        options = {"settings": settings, "runs_root": tmp_path, "name": "run"}
        return train(SAMPLE, "bpr", threads=threads, **options)

    with monkeypatch.context() as patched:
        patched.setattr(learning, "chosen_by", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_by(1)
    assert train_by(2).record["threads"] == [1, 2]


def test_the_loss_falls_on_planted_structure(tmp_path):
    losses = pd.read_parquet(bpr(tmp_path, epochs=40).folder / "history.parquet")["ranking"]
    assert losses.iloc[-1] < 0.8 * losses.iloc[0]


def test_the_seed_decides_everything(tmp_path):
    """With several threads too, however many cores there are."""
    options = {"settings": BM3Settings(epochs=2, embedding_dim=8), "threads": 2}
    vectors = [
        np.load(run.folder / "item_embeddings.npy")
        for seed in (1, 1, 2)
        for run in [train(SAMPLE, "bm3", seed=seed, runs_root=tmp_path, **options)]
    ]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[0], vectors[2])


def test_a_loss_that_is_not_finite_stops_the_run_and_publishes_nothing(tmp_path):
    with pytest.raises(JobError, match=r"epoch 1, step \d+: .*\(ranking.*lower learning_rate"):
        bpr(tmp_path, learning_rate=1e30, epochs=50)
    assert [path.name for path in tmp_path.iterdir()] == [".run.partial"]
    assert (tmp_path / ".run.partial" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("name", ["bpr", "lightgcn", "neumf", "ngcf"])
def test_what_an_epoch_s_only_step_breaks_is_a_divergence_too(tmp_path, name):
    settings = find_backbone(name).Settings(learning_rate=1e25, batch_size=10**5, epochs=5)
    with pytest.raises(DivergenceError, match=r"^epoch \d.* no longer finite.*lower learning_rate"):
        train(SAMPLE, name, settings=settings, runs_root=tmp_path, name="run")
    assert (tmp_path / ".run.partial" / "checkpoint.safetensors").exists()


def test_a_diverged_training_keeps_its_best_weights_and_never_goes_on(tmp_path, monkeypatch):
    step, taken = training.take_step, []

    def breaks_in_epoch_three(*given):
        taken.append(step(*given))
        return {"ranking": float("nan")} if len(taken) == 3 else taken[-1]

    monkeypatch.setattr(training, "take_step", breaks_in_epoch_three)
    said = []
    for _ in range(2):
        with pytest.raises(
            DivergenceError, match=r"^epoch 3, step 1: .* of epoch [12], are"
        ) as error:
            bpr(tmp_path, batch_size=10**5, epochs=5)
        said.append(str(error.value))
        assert len(taken) == 3
    assert said[0] == said[1]
    tensors, state = Checkpoint(tmp_path / ".run.partial" / "checkpoint.safetensors").restore()
    assert state["best_epoch"] in (1, 2)
    assert all(value.isfinite().all() for n, value in tensors.items() if n.startswith("best."))


def renamed(tensors, state):
    return {name.replace("model.", "other."): value for name, value in tensors.items()}, state


OTHER_STATES = {
    "no state": lambda tensors, _: (tensors, {}),
    "a list": lambda tensors, _: (tensors, [1, 2]),
    "an unknown field": lambda tensors, state: (tensors, state | {"mood": 1}),
    "no weights": renamed,
    "no best weights": lambda t, s: ({n: v for n, v in t.items() if "best" not in n}, s),
    "another shape": lambda t, s: (t | {"model.users.weight": torch.zeros(2, 2)}, s),
    "no generator": lambda t, s: ({n: v for n, v in t.items() if "random" not in n}, s),
    "another generator": lambda t, s: (t | {"random.cpu": torch.zeros(3, dtype=torch.uint8)}, s),
}


@pytest.mark.parametrize("kind", OTHER_STATES)
def test_a_checkpoint_of_something_else_is_refused_in_a_line(tmp_path, monkeypatch, kind):
    with monkeypatch.context() as patched:
        patched.setattr(learning, "chosen_by", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            bpr(tmp_path, epochs=2, checkpoint_seconds=0)
    checkpoint = Checkpoint(tmp_path / ".run.partial" / "checkpoint.safetensors")
    checkpoint.save(*OTHER_STATES[kind](*checkpoint.restore()))
    with pytest.raises(JobError, match=r"^[^\n]*is of another work \([^\n]*; delete it and run a"):
        bpr(tmp_path, epochs=2, checkpoint_seconds=0)


def test_features_that_are_not_finite_are_named_before_training(tmp_path):
    artifact = distill(SAMPLE, tmp_path / "pca", method="pca").artifact
    rows = np.load(artifact / "text.npy", mmap_mode="r+")
    for value in (np.inf, np.nan):
        rows[7, 1] = value
        rows.flush()
        with pytest.raises(featureset.FeatureSetError, match=r"pca: text: row 7 is not finite"):
            train(SAMPLE, "content", featureset.load(artifact), runs_root=tmp_path)


def test_the_setting_that_weighs_the_broken_part_is_named(tmp_path):
    features = featureset.load(distill(SAMPLE, tmp_path / "pca", method="pca").artifact)
    settings = find_backbone("mgcn").Settings(contrast_weight=1e39)
    with pytest.raises(DivergenceError, match=r"or contrast_weight \(it is 1e\+39\)"):
        train(SAMPLE, "mgcn", features, settings, runs_root=tmp_path)


@pytest.mark.parametrize("negatives", [0, 1, 3])
def test_an_epoch_holds_every_interaction_once_and_negatives_are_unseen(small_inputs, negatives):
    def batches(epoch, first=0):
        return list(EpochBatches(small_inputs, 7, negatives, 3, epoch).start_at(first))

    whole = batches(1)
    pairs = torch.cat([torch.stack([batch.users, batch.items]) for batch in whole], dim=1)
    expected = set(zip(small_inputs.users.tolist(), small_inputs.items.tolist(), strict=True))
    assert pairs.shape[1] == len(small_inputs.users)
    assert set(zip(*pairs.tolist(), strict=True)) == expected
    for batch in whole:
        assert batch.negatives.shape == (len(batch.users), negatives)
        for column in batch.negatives.T:
            assert not expected & set(zip(batch.users.tolist(), column.tolist(), strict=True))
    resumed = batches(1, first=2)
    assert [b.items.tolist() for b in resumed] == [b.items.tolist() for b in whole[2:]]
    assert [b.items.tolist() for b in batches(2)] != [b.items.tolist() for b in whole]
