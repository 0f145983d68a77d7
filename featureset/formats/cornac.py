"""Cornac (https://cornac.preferred.ai): what a `FeatureModality` is made from.

`{modality}.npy`, float32 (n, d), and `item_ids.json`, the ids in the order of its rows:

    FeatureModality(features=np.load("image.npy"), ids=json.load(open("item_ids.json")))

Cornac needs a row for every item that it trains on. One that lacks a modality gets the mean of the
others.
"""

import json
from pathlib import Path

from sgfd.featureset.formats.rows import ExportedRows


def write_cornac(rows: ExportedRows, folder: Path) -> None:
    for name in rows.names:
        rows.write_npy(name, folder / f"{name}.npy", filled=True)
    text = json.dumps(rows.item_ids, ensure_ascii=False)
    (folder / "item_ids.json").write_text(text, "utf-8")
