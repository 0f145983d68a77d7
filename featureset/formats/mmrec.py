"""MMRec (https://github.com/enoche/MMRec): files to lay beside a data set's `.inter`.

`{modality}_feat.npy`, float32 (n, d), row = itemID; `i_id_mapping.csv`, item_id and itemID, parted
by tabs; `DATASET.yaml`, a configuration for `src/configs/dataset` that names them. MMRec takes two:
what is called `image` or `text` has a place of its own, another modality gets what is left.

An item that lacks a modality gets the mean of the others, as MMRec's graphs divide by norms.
"""

import json
from pathlib import Path

from sgfd.featureset.formats.rows import ExportedRows

PLACES = {"vision_feature_file": "image", "text_feature_file": "text"}


def write_mmrec(rows: ExportedRows, folder: Path) -> None:
    ids = rows.tab_separated_ids("MMRec")
    for name in rows.names:
        rows.write_npy(name, folder / f"{name}_feat.npy", filled=True)
    lines = [f"{item}\t{row}\n" for row, item in enumerate(ids)]
    (folder / "i_id_mapping.csv").write_text("item_id\titemID\n" + "".join(lines), "utf-8")
    dataset = rows.dataset_name
    settings = {
        "USER_ID_FIELD": "userID",
        "ITEM_ID_FIELD": "itemID",
        "filter_out_cod_start_users": True,
        "inter_file_name": f"{dataset}.inter",
        **_placed(rows.names),
        "field_separator": "\t",
    }
    # JSON's scalars are YAML's, whatever characters a name has.
    text = "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
    (folder / f"{dataset}.yaml").write_text(text, "utf-8")


def _placed(names: list[str]) -> dict[str, str]:
    """Which file MMRec shall take for images, and which for texts."""
    placed = {place: usual for place, usual in PLACES.items() if usual in names}
    free = [place for place in PLACES if place not in placed]
    others = [name for name in names if name not in placed.values()]
    placed |= dict(zip(free, others, strict=False))
    return {place: f"{placed[place]}_feat.npy" for place in PLACES if place in placed}
