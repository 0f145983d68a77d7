"""A made-up comparison of any size, with failures and with names that need escaping."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sgfd.recommenders.comparison import Cell, CellResult, ComparedFeatures, Comparison

ODD = '<b>&"x"|'


@pytest.fixture(scope="session")
def fake_comparison(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Comparison]:
    def make(backbones=2, features=3, seeds=2, users=30, protocols=("honest", "paper")):
        folder: Path = tmp_path_factory.mktemp("comparison")
        rng = np.random.default_rng(0)
        labels = ["none", *(f"set{i}" for i in range(1, features - 1)), ODD][:features]
        ids = [f"u{i}" for i in range(users)]
        results = []
        for seed in range(seeds):
            for protocol in protocols:
                for b in range(backbones):
                    for f, label in enumerate(labels):
                        cell = Cell(protocol, f"backbone{b}", label, seed)
                        if (b, f) == (1, 1):
                            results.append(CellResult(cell, {}, error=f"it broke {ODD}"))
                            continue
                        values = np.clip(0.1 + 0.02 * f + 0.1 * rng.random((users, 2)), 0, 1)
                        run = folder / f"{protocol}{b}-{f}-{seed}"
                        run.mkdir()
                        names = ["recall@20", "ndcg@20"]
                        frame = pd.DataFrame(values, columns=names)
                        frame.assign(part="test", user_id=ids).to_parquet(run / "per_user.parquet")
                        test = dict(zip(names, values.mean(axis=0).tolist(), strict=True))
                        metrics = {"valid": test, "test": {**test, "paper_ndcg@20": 0.3}}
                        results.append(CellResult(cell, metrics, run, 1.5, 2**28, 10))
        return Comparison(
            "fake",
            "0" * 64,
            "pipeline compare --dataset fake",
            "a machine",
            tuple(ComparedFeatures(label, "pca", {"image": 8}, 10**6, None) for label in labels),
            "none",
            tuple(results),
        )

    return make
