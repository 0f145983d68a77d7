"""Small data sets on disk, one of each layout, all of them good; tests break them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def features(n: int, d: int) -> np.ndarray:
    values = np.random.default_rng(n * d).normal(size=(n, d)).astype(np.float32)
    values[1] = np.nan
    return values


@pytest.fixture
def sgfd_folder(tmp_path: Path) -> Path:
    """5 items, 3 users; item 1 lacks both modalities, item 4 is unlabelled."""
    folder = tmp_path / "small"
    folder.mkdir()
    train = [(0, 0), (1, 0), (2, 1), (3, 1), (0, 2)]
    test = [(2, 0), (4, 1)]
    for name, pairs in (("train", train), ("test", test)):
        rows = [(i, u, f"B{i}", f"R{u}") for i, u in pairs]
        frame = pd.DataFrame(rows, columns=["itemID", "userID", "asin", "reviewerID"])
        frame.to_csv(folder / f"{name}.csv", index=False)
    np.save(folder / "FeatureImage_normal.npy", features(5, 4))
    np.save(folder / "FeatureText_bert_normal.npy", features(5, 3))
    np.save(folder / "MetaData_normal.npy", np.array([7, 7, 3, 3, -1]))
    (folder / "labels.csv").write_text("label,name\n3,Pens\n7,Desks\n")
    (folder / "items.csv").write_text(
        "itemID,asin,title\n" + "".join(f'{i},B{i},"Item, {i}"\n' for i in range(5))
    )
    return folder


@pytest.fixture
def native_folder(tmp_path: Path) -> Path:
    """4 items with a text column and an image file, 3 users, parts given."""
    folder = tmp_path / "plain"
    folder.mkdir()
    text = [None if i == 2 else [float(i), 1.0] for i in range(4)]
    items = pa.table(
        {
            "item_id": ["a", "b", "c", "d"],
            "title": ["A", None, "C", "D"],
            "category": ["x", "y", None, "x"],
            "text": pa.array(text, pa.list_(pa.float32(), 2)),
        }
    )
    pq.write_table(items, folder / "items.parquet")
    np.save(folder / "image.npy", features(4, 3))
    write_interactions(folder)
    return folder


def write_interactions(folder: Path, **changes: object) -> None:
    columns = {
        "user_id": ["u", "u", "v", "v", "w", "w"],
        "item_id": ["a", "b", "a", "c", "b", "d"],
        "timestamp": pa.array([1, 2, 3, 4, 5, 6], pa.timestamp("us")),
        "split": ["train", "test", "train", "test", "train", "valid"],
    } | changes
    table = pa.table({name: column for name, column in columns.items() if column is not None})
    pq.write_table(table, folder / "interactions.parquet")


@pytest.fixture
def mmrec_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "baby"
    folder.mkdir()
    (folder / "baby.inter").write_text(
        "userID\titemID\tx_label\n0\t0\t0\n0\t1\t2\n1\t2\t0\n1\t0\t1\n"
    )
    np.save(folder / "image_feat.npy", features(3, 4))
    np.save(folder / "text_feat.npy", features(3, 2))
    return folder
