"""RecBole (https://recbole.io): atomic files to lay beside a data set's `.inter`.

`DATASET.{modality}`: ids and rows of the items that have the modality, with a space between the
numbers; RecBole itself takes zeros for the others. `features.yaml`: the configuration that loads
them, after which `dataset.get_preload_weight("{modality}_id")` is the matrix, row = RecBole's own
number of the item.
"""

import json
from pathlib import Path

import numpy as np

from sgfd.featureset.formats.rows import ExportedRows

ATOMIC = ("inter", "user", "item", "kg", "link", "net")  # RecBole's own files of a data set


def write_recbole(rows: ExportedRows, folder: Path) -> None:
    rows.refuse_names(ATOMIC, "RecBole")
    ids = rows.tab_separated_ids("RecBole")
    for name in rows.names:
        with (folder / f"{rows.dataset_name}.{name}").open("w", encoding="utf-8") as file:
            file.write(f"{name}_id:token\t{name}_emb:float_seq\n")
            for start, block in rows.blocks(name):
                for row in np.flatnonzero(~np.isnan(block[:, 0])):
                    numbers = " ".join(map(str, block[row]))
                    file.write(f"{ids[start + row]}\t{numbers}\n")
    settings = {
        "additional_feat_suffix": rows.names,
        "load_col": {
            "inter": ["user_id", "item_id"],
            **{name: [f"{name}_id", f"{name}_emb"] for name in rows.names},
        },
        "alias_of_item_id": [f"{name}_id" for name in rows.names],
        "preload_weight": {f"{name}_id": f"{name}_emb" for name in rows.names},
    }
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
    (folder / "features.yaml").write_text(text, "utf-8")
