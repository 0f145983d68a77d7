"""A feature set's description in Croissant, which data hubs and loaders read.

MLCommons' format, version 1.1 (https://docs.mlcommons.org/croissant): what the files are, and what
the columns of the table hold.
"""

import json
from collections.abc import Mapping
from typing import Any

from sgfd.featureset.manifest import TABLE, FileRecord, Manifest, Modality

# The standard wants all of these, whatever a file uses.
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

KINDS = {
    ".parquet": "application/x-parquet",
    ".md": "text/markdown",
    ".png": "image/png",
    ".json": "application/json",
}
BINARY = "application/octet-stream"


def croissant(manifest: Manifest, files: Mapping[str, FileRecord]) -> bytes:
    """`croissant.json` of a set with these files, which it describes by their sha256."""
    described: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": manifest.name,
        "description": (
            f"Item embeddings of the data set {manifest.dataset.name} ({manifest.dataset.n_items} "
            f"items), made by {manifest.method}. No user and no interaction is in it."
        ),
        "datePublished": manifest.created,
        "license": manifest.licence,
        "creator": {"@type": "sc:Organization", "name": manifest.contact}
        if manifest.contact
        else None,
        "distribution": [_file(name, record) for name, record in sorted(files.items())],
        "recordSet": [_items(manifest.modalities)],
    }
    if manifest.neighbours is not None:
        described["recordSet"].append(_neighbours(manifest.neighbours.file))
    kept = {key: value for key, value in described.items() if value is not None}
    return (json.dumps(kept, indent=2, ensure_ascii=False) + "\n").encode()


def _file(name: str, record: FileRecord) -> dict[str, Any]:
    kind = next((kind for end, kind in KINDS.items() if name.endswith(end)), BINARY)
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{record.bytes} B",
        "encodingFormat": kind,
        "sha256": record.sha256,
    }


def _items(modalities: list[Modality]) -> dict[str, Any]:
    fields = [
        _field("items", TABLE, "item_id", "sc:Text", "The item's id."),
        _field("items", TABLE, "item_index", "sc:Integer", "Its row in every .npy file."),
        _field("items", TABLE, "label", "sc:Text", "Its label; null where it has none."),
    ]
    for modality in modalities:
        of = modality.encoding
        what = f"{of.kind} codes of {of.of}" if of else f"{modality.name} as it was distilled"
        number = "sc:Integer" if modality.stored_type.kind in "iu" else "sc:Float"
        field = _field("items", TABLE, modality.name, number, f"{what}; null where lacking.")
        fields.append(field | {"isArray": True, "arrayShape": f"{modality.stored_columns}"})
    return {
        "@type": "cr:RecordSet",
        "@id": "items",
        "name": "items",
        "description": "One row an item.",
        "key": {"@id": "items/item_id"},
        "field": fields,
    }


def _neighbours(file: str) -> dict[str, Any]:
    columns = {
        "item_id": ("sc:Text", "The item."),
        "neighbour_id": ("sc:Text", "One of its nearest others, the most similar first."),
        "similarity": ("sc:Float", "The cosine of their rows."),
    }
    return {
        "@type": "cr:RecordSet",
        "@id": "neighbours",
        "name": "neighbours",
        "description": "One row a pair of near items.",
        "field": [
            _field("neighbours", file, name, kind, text) for name, (kind, text) in columns.items()
        ],
    }


def _field(records: str, file: str, column: str, kind: str, text: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{records}/{column}",
        "name": column,
        "description": text,
        "dataType": kind,
        "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
    }
