"""A second reader of feature sets, written from docs/format.md alone, without our package.

SecondReader("artifacts/office").rows("fused")
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file


class SecondReader:
    """A feature set whose every file is what the manifest says: ids, labels and float32 rows."""

    def __init__(self, folder):
        self.folder = Path(folder)
        content = (self.folder / "manifest.json").read_bytes()
        self.manifest = json.loads(content)
        assert len(content) <= 2**24 and depth(self.manifest) <= 32, "too large, or too deep"
        assert self.manifest["format_version"].split(".")[0] == "1", "of another major version"
        name, files = self.manifest["name"], list(self.manifest["files"])
        assert re.fullmatch("[^./@][^/@]*", name) and name.isprintable(), "no plain name"
        assert "::" not in name and len(name.encode()) <= 150, "no plain name, or too long"
        assert all(re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{,199}", n) for n in files), "a path"
        assert len({n.lower() for n in files}) == len(files), "names that differ in case alone"
        for name, record in self.manifest["files"].items():
            assert not (self.folder / name).is_symlink(), f"{name} is a link"
            content = (self.folder / name).read_bytes()
            found = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            assert found == record, f"{name} was changed"
        table = pq.read_table(self.folder / "features.parquet")
        self.ids, self.labels = table["item_id"].to_pylist(), table["label"].to_pylist()
        self.modalities = {m["name"]: m for m in self.manifest["modalities"]}

    def rows(self, name):
        """Float32 (n, d) of a modality, compressed or not; NaN where an item lacks it."""
        modality = self.modalities[name]
        stored = np.load(self.folder / modality["file"], allow_pickle=False)
        if not (encoding := modality.get("encoding")):
            return stored
        rows, kind, width = stored.astype(np.float32), encoding["kind"], modality["dimension"]
        tensors = load_file(self.folder / encoding["file"]) if encoding["file"] else {}
        if kind == "int8":
            rows = rows * tensors[f"{name}.scale"]
        elif kind == "pq":
            books = zip(tensors[f"{name}.codebooks"], stored.T, strict=True)
            rows = np.hstack([book[code] for book, code in books])
        rows = unit(rows[:, :width]) if modality["normalised"] else rows[:, :width]
        if tensors:
            rows[~tensors[f"{encoding['of']}.present"]] = np.nan
        return rows

    def embed(self, name, generic):
        """Float32 (b, d) of new items from generic rows by modality, NaN where one is lacking."""
        student, modality = self.manifest["student"], self.modalities[name]
        tensors, total, lacks_all = load_file(self.folder / student["file"]), 0.0, True
        for part in modality["parts"] or [name]:
            t = {k: tensors[f"{part}.{k}"] for k in ("weight", "bias", "mean", "scale")}
            x = (generic[part] - t["mean"]) / t["scale"]
            lacking = np.isnan(x).any(axis=1, keepdims=True)
            y = (unit(x) if student.get("input_normalised") else x) @ t["weight"].T + t["bias"]
            y = np.where(y < 0, student["negative_slope"] * y, y)
            total, lacks_all = total + np.where(lacking, 0, y), lacks_all & lacking
        return np.where(lacks_all, np.nan, unit(total) if student["normalised"] else total)


def depth(value):
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth, inside), default=0) if isinstance(value, dict | list) else 0


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
