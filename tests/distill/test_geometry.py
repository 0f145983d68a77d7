"""Figures of the vectors themselves, against brute force and cases that can be told by hand."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch.nn import functional

from sgfd.dataset import load_dataset
from sgfd.distill import SGFDPlusSettings, distill
from sgfd.distill.geometry import effective_rank, neighbours_kept, uniformity


@pytest.fixture
def unit(rng):
    return functional.normalize(torch.from_numpy(rng.normal(size=(40, 5))), dim=1)


def test_effective_rank_counts_directions(unit):
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    assert effective_rank(torch.ones(7, 3)) == pytest.approx(1)
    assert effective_rank(torch.zeros(7, 3)) == pytest.approx(1)
    values = np.linalg.svd(unit.numpy(), compute_uv=False)
    share = values / values.sum()
    assert effective_rank(unit) == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_uniformity_is_that_of_all_pairs(unit):
    expected = np.log(np.exp(-2 * pdist(unit.numpy(), "sqeuclidean")).mean())
    assert uniformity(unit @ unit.T) == pytest.approx(expected)


def test_neighbours_kept_is_the_share_of_common_ones(unit, rng):
    other = functional.normalize(torch.from_numpy(rng.normal(size=(40, 5))), dim=1)
    shares = []
    for i in range(40):
        near = []
        for z in (unit.numpy(), other.numpy()):
            cosines = z @ z[i]
            cosines[i] = -np.inf
            near.append(set(np.argsort(-cosines)[:10]))
        shares.append(len(near[0] & near[1]) / 10)
    kept = neighbours_kept(unit @ unit.T, other @ other.T)
    assert kept == pytest.approx(np.mean(shares))
    assert neighbours_kept(unit @ unit.T, unit @ unit.T) == 1


def test_what_changes_nothing_keeps_every_neighbour(made, rng, tmp_path):
    image = rng.normal(size=(50, 6)).astype(np.float32)
    figures = distill(made(None, 50, image=image), tmp_path / "x", method="standard").quality
    assert figures["image"]["neighbours_kept"] == 1
    assert figures["image"]["effective_rank"]["generic"] == pytest.approx(
        figures["image"]["effective_rank"]["made"]
    )
    assert "alignment" not in figures["image"]


def test_guided_vectors_bring_together_what_users_had_together(tmp_path):
    settings = SGFDPlusSettings(dimension=16, epochs=2, held_out_share=0)
    figures = distill(load_dataset("sample"), tmp_path / "x", settings, threads=1).quality["fused"]
    assert figures["alignment"]["made"] < figures["alignment"]["generic"]
    assert set(figures) >= {"neighbours_kept", "effective_rank", "uniformity"}
