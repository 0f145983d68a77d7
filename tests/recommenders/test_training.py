"""The loop: what stops it, what it keeps, what it does when the loss breaks."""

import numpy as np
import pandas as pd
import pytest
import torch

from sgfd.dataset import load_dataset
from sgfd.jobs import JobError
from sgfd.recommenders import train
from sgfd.recommenders.backbones.bm3 import BM3Settings
from sgfd.recommenders.backbones.bpr import BPRSettings
from sgfd.recommenders.sampling import EpochBatches

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
