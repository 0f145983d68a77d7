"""Killed at any point of writing or appending, there is the old feature set or the new, whole."""

import shutil

import numpy as np
import pandas as pd
import pytest

from sgfd.dataset import load_dataset
from sgfd.distill import distill, embed
from sgfd.featureset import load, verify

KILLS = [4, pytest.param(50, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts") / "set"
    return distill(load_dataset("sample"), folder, method="interaction-metric").artifact


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Nine items, eight of them new."""
    folder = tmp_path_factory.mktemp("data") / "more"
    folder.mkdir()
    sample, rng = load_dataset("sample").catalog, np.random.default_rng(0)
    ids = [str(sample.items.ids[0]), *(f"new {i}" for i in range(8))]
    pd.DataFrame({"item_id": ids}).to_parquet(folder / "items.parquet")
    for name, feature in sample.features.items():
        rows = rng.normal(size=(9, feature.dimension)).astype(np.float32)
        np.save(folder / f"{name}.npy", rows)
    return folder


def checked(old, target, sizes, redo):
    def check(code):
        if code is None:
            for place in target.parent.iterdir():
                shutil.rmtree(place)
            shutil.copytree(old, target)
            return
        assert verify(target) == []
        assert load(target).n_items in sizes
        redo()
        assert verify(target) == []
        assert load(target).n_items == sizes[1]
        assert [path.name for path in target.parent.iterdir()] == [target.name]

    return check


@pytest.mark.parametrize("kills", KILLS)
def test_a_new_set_in_the_place_of_an_old_one(kills, old, killed_everywhere, tmp_path):
    target = tmp_path / "artifacts" / "set"
    target.parent.mkdir()
    act = f"""
from pathlib import Path
from sgfd.dataset import load_dataset
from sgfd.distill import distill
distill(load_dataset("sample"), Path({str(target)!r}), method="pca", overwrite=True, neighbours=3)
"""

    def redo():
        distill(load_dataset("sample"), target, method="pca", overwrite=True, neighbours=3)
        assert load(target).manifest.method == "pca"

    killed_everywhere(kills, tmp_path, act, checked(old, target, (300, 300), redo))


@pytest.mark.parametrize("kills", KILLS)
def test_items_that_are_appended(kills, old, catalogue, killed_everywhere, tmp_path):
    target = tmp_path / "artifacts" / "set"
    target.parent.mkdir()
    act = f"""
from pathlib import Path
from sgfd.dataset import load_dataset
from sgfd.distill import embed
from sgfd.featureset import load
target = Path({str(target)!r})
embed(load(target), load_dataset({str(catalogue)!r}), target, append=True, overwrite=True)
"""

    def redo():
        embed(load(target), load_dataset(str(catalogue)), target, append=True, overwrite=True)

    killed_everywhere(kills, tmp_path, act, checked(old, target, (300, 308), redo))
