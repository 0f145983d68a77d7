"""FAISS (https://faiss.ai): an exact index a modality.

`{modality}.faiss`: unit rows of the items that have the modality, by inner product, which is the
cosine; what a search gives are item indices, and `items.csv` has their ids and labels.
"""

from pathlib import Path

import numpy as np

from sgfd.featureset.formats.rows import ExportedRows


def write_faiss(rows: ExportedRows, folder: Path) -> None:
    import faiss

    for name in rows.names:
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(rows.width(name)))
        for start, block in rows.blocks(name):
            there = np.flatnonzero(~np.isnan(block[:, 0]))
            unit = np.ascontiguousarray(block[there])
            faiss.normalize_L2(unit)
            index.add_with_ids(unit, (start + there).astype(np.int64))
        with (folder / f"{name}.faiss").open("wb") as file:
            # Of a file that it opens itself, faiss tells no errno, and of the last block nothing:
            # on a full disk an index would end in the middle.
            faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))  # type: ignore[attr-defined]
    rows.write_items(folder / "items.csv")
