"""Inputs and runs that several tests of stage two share."""

import os

# ranx is compiled anew in every fresh environment, which takes minutes; interpreted it judges our
# small rankings in seconds. Before anything imports numba.
os.environ.setdefault("NUMBA_DISABLE_JIT", "1")

import numpy as np
import pytest
import torch

from sgfd.dataset import load_dataset
from sgfd.recommenders import ItemSets, Run, train
from sgfd.recommenders.backbones.bm3 import BM3Settings
from sgfd.recommenders.inputs import Inputs, ModalityFeatures, make_inputs


@pytest.fixture
def small_inputs(rng: np.random.Generator) -> Inputs:
    """12 users, 9 items (the last without interactions), two modalities with gaps."""
    user, item = rng.integers(0, 12, 50), rng.integers(0, 8, 50)
    features = {
        "image": ModalityFeatures(torch.randn(9, 5), torch.ones(9, dtype=torch.bool)),
        "text": ModalityFeatures(torch.randn(9, 3), torch.arange(9) % 3 > 0),
    }
    return make_inputs(ItemSets.from_pairs(user, item, 12, 9), features, torch.device("cpu"))


@pytest.fixture
def dense_graph(small_inputs: Inputs) -> torch.Tensor:
    """D^-1/2 A D^-1/2 of the small inputs as a dense matrix (U + I, U + I)."""
    inputs = small_inputs
    n = inputs.n_users + inputs.n_items
    adjacency = np.zeros((n, n))
    adjacency[inputs.users, inputs.n_users + inputs.items] = 1
    adjacency += adjacency.T
    degree = adjacency.sum(axis=1)
    scale = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0)
    return torch.tensor(scale[:, None] * adjacency * scale, dtype=torch.float32)


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """BM3 trained briefly on the sample, without features."""
    return train(
        load_dataset("sample"),
        "bm3",
        settings=BM3Settings(epochs=8, embedding_dim=32),
        runs_root=tmp_path_factory.mktemp("runs"),
    )
