"""Writing a feature set for another tool: the folder, its record, and which tools there are."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.formats.arrow import write_hf_datasets, write_lance
from sgfd.featureset.formats.cornac import write_cornac
from sgfd.featureset.formats.faiss import write_faiss
from sgfd.featureset.formats.mmrec import write_mmrec
from sgfd.featureset.formats.plain import write_numpy, write_safetensors
from sgfd.featureset.formats.recbole import write_recbole
from sgfd.featureset.formats.rows import Advance, ExportedRows
from sgfd.featureset.publish import partial_folder, publish_folder, remove_locked
from sgfd.featureset.reading import FeatureSet

RECORD = "export.json"  # what was exported; only a folder with one is ever replaced

FORMATS: dict[str, Callable[[ExportedRows, Path], None]] = {
    "mmrec": write_mmrec,
    "recbole": write_recbole,
    "cornac": write_cornac,
    "numpy": write_numpy,
    "safetensors": write_safetensors,
    "hf-datasets": write_hf_datasets,
    "lance": write_lance,
    "faiss": write_faiss,
}


def export(
    features: FeatureSet,
    target: Path,
    kind: str,
    modalities: Sequence[str] | None = None,
    overwrite: bool = False,
    advance: Advance | None = None,
) -> list[str]:
    """Write a feature set as another tool reads it, into a folder that appears as a whole.

    Rows are streamed; compressed modalities are written decoded, in float32.

    Args:
        target: the folder to be.
        kind: a name in `FORMATS`; each says in its file what it writes.
        modalities: those that the set names for a reader who names none, where None.
        overwrite: replace a folder that an export made.
        advance: told of how many rows are done, of each modality.

    Returns:
        Names of the files, in the folder.

    Raises:
        FeatureSetError: there is no such format or modality, the target exists or is no place for
            it, an id can't be written in this format, or its package is not installed.
    """
    if kind not in FORMATS:
        raise FeatureSetError(f"format {kind!r}", "is unknown", f"choose {' or '.join(FORMATS)}")
    if target.name in ("", ".."):
        target = target.resolve()
    names = features.chosen_modalities(modalities)
    rows = ExportedRows(features, names, advance)
    _check_target(target, features, overwrite)
    with partial_folder(target) as partial:
        folder = partial / "result"
        try:
            shutil.rmtree(folder, ignore_errors=True)  # of an export that was killed
            folder.mkdir()
            FORMATS[kind](rows, folder)
            record = {
                "format": kind,
                "feature_set": features.manifest.name,
                "manifest_sha256": features.manifest_sha256,
                "modalities": rows.names,
                "guided": features.manifest.is_guided,
            }
            (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
            publish_folder(folder, target, overwrite)
        finally:
            remove_locked(partial)
    return files


def refuse_guided_export(folder: Path) -> None:
    """Refuse to read back what was exported from a set that interactions guided.

    The other tool's files say nothing of them, so that `train` could not see a leak.

    Raises:
        FeatureSetError: the folder is such an export.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        name = record["feature_set"] if record["guided"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return  # another's folder, or an export that says nothing of it
    if name is not None:
        raise FeatureSetError(
            folder,
            "is an export of a feature set that interactions guided, and does not say by which",
            f"use the set itself, {name}",
        )


def _check_target(target: Path, features: FeatureSet, overwrite: bool) -> None:
    remedy = "choose another folder"
    if target.is_symlink():
        raise FeatureSetError(target, "is a link", "name the folder itself")
    if target.exists():
        if not overwrite:
            raise FeatureSetError(target, "exists already", f"{remedy}, or add --overwrite")
        if not (target / RECORD).is_file():
            raise FeatureSetError(target, "is no export, and only such a one is replaced", remedy)
    place, own = target.resolve(), features.path.resolve()
    if own in (place, *place.parents):
        raise FeatureSetError(target, f"lies inside the feature set {features.path}", remedy)
