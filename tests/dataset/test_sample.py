"""The sample is the same every time, and what is planted in it can be found again."""

import numpy as np
import pandas as pd
import pytest

from sgfd.dataset import DatasetError, check_dataset, load_dataset


def test_it_is_the_same_every_time():
    first, again = load_dataset("sample"), load_dataset("sample")
    assert first.catalog.fingerprint() == again.catalog.fingerprint()
    assert first.interactions.fingerprint() == again.interactions.fingerprint()
    assert check_dataset("sample") == []


@pytest.mark.parametrize("root", ["data", "."])
def test_a_folder_of_its_name_is_not_passed_over(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / root / "sample"
    folder.mkdir(parents=True)
    assert load_dataset("sample").layout == "sample"  # nothing that is a data set
    ids = pd.DataFrame({"user_id": ["u"] * 2, "item_id": ["a", "b"], "split": ["train", "test"]})
    ids.to_parquet(folder / "interactions.parquet")
    for look in (load_dataset, check_dataset):
        with pytest.raises(DatasetError, match="is called as the made-up data set, sample; write"):
            look("sample")
    assert load_dataset(folder).layout == "native"


def test_it_has_gaps_like_real_data():
    catalog = load_dataset("sample").catalog
    assert all(0.8 < feature.coverage < 1 for feature in catalog.features.values())
    assert 0 < (catalog.labels < 0).sum() < 30


def test_no_pair_is_in_both_parts():
    interactions = load_dataset("sample").interactions
    train, test = (
        set(zip(p.user.tolist(), p.item.tolist(), strict=True))
        for p in (interactions.train, interactions.test)
    )
    assert len(train) == len(interactions.train)
    assert not train & test


def test_users_keep_to_two_categories():
    dataset = load_dataset("sample")
    known = dataset.catalog.labels[dataset.interactions.train.item] >= 0
    user = dataset.interactions.train.user[known]
    label = dataset.catalog.labels[dataset.interactions.train.item][known]
    counts = np.zeros((dataset.interactions.n_users, 8))
    np.add.at(counts, (user, label), 1)
    two = np.sort(counts, axis=1)[:, -2:].sum() / counts.sum()
    assert two > 0.7
