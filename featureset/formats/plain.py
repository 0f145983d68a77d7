"""Plain arrays: numpy and safetensors.

numpy: `{modality}.npy`, float32 (n, d), NaN where lacking, and `item_ids.npy`, Unicode (n,).

safetensors: `features.safetensors`, a tensor a modality, float32 (n, d), NaN where lacking, and
`items.csv` with item_index, item_id and label.
"""

import json
from pathlib import Path

import numpy as np

from sgfd.featureset.formats.rows import ExportedRows


def write_numpy(rows: ExportedRows, folder: Path) -> None:
    rows.refuse_names(("item_ids",), "numpy")
    for name in rows.names:
        rows.write_npy(name, folder / f"{name}.npy")
    np.save(folder / "item_ids.npy", np.array(rows.item_ids, dtype=str), allow_pickle=False)


def write_safetensors(rows: ExportedRows, folder: Path) -> None:
    """The format's own header, then the rows as they come: nothing is held in memory."""
    header: dict[str, object] = {
        "__metadata__": {
            "feature_set": rows.features.manifest.name,
            "manifest_sha256": rows.features.manifest_sha256,
        }
    }
    end = 0
    for name in rows.names:
        start, shape = end, [rows.n_items, rows.width(name)]
        end = start + 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "features.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in rows.names:
            for _, block in rows.blocks(name):
                file.write(block.astype("<f4", copy=False).data)
    rows.write_items(folder / "items.csv")
