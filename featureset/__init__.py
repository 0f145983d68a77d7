"""The contract between the stages: what a feature set is on disk.

from sgfd import featureset

office = featureset.load("artifacts/office")
office.modalities["title"]         # memory map, float32 (n_items, 128)
office.item_ids                    # the id of each row
"""

from sgfd.featureset.compression import CODECS, Compressed, CompressedRows, Rows
from sgfd.featureset.difference import Difference, ModalityDifference, diff
from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.inventory import Entry, inventory, lineage
from sgfd.featureset.loss import compression_loss
from sgfd.featureset.manifest import (
    FORMAT_VERSION,
    KINDS,
    MANIFEST,
    STUDENT,
    DatasetOrigin,
    Derivation,
    Encoding,
    EncodingKind,
    Fingerprints,
    InteractionsUse,
    Labels,
    Manifest,
    Modality,
    Neighbours,
    Producer,
    Student,
    is_name,
    now,
)
from sgfd.featureset.neighbours import CosineRows, nearest
from sgfd.featureset.publish import (
    lock_folder,
    partial_folder,
    publish_folder,
    remove_locked,
    try_lock,
    write_file,
)
from sgfd.featureset.reading import MIN_COVERAGE, Alignment, FeatureSet, load
from sgfd.featureset.sharing import Shared, inventory_at, pull, push
from sgfd.featureset.signature import check_signature_of, sign
from sgfd.featureset.verification import Catalogue, other_rows, refuse_changed, verify
from sgfd.featureset.versions import version_of, versioned
from sgfd.featureset.writing import FeatureSetWriter

__all__ = [
    "CODECS",
    "FORMAT_VERSION",
    "KINDS",
    "MANIFEST",
    "MIN_COVERAGE",
    "STUDENT",
    "Alignment",
    "Catalogue",
    "Compressed",
    "CompressedRows",
    "CosineRows",
    "DatasetOrigin",
    "Derivation",
    "Difference",
    "Encoding",
    "EncodingKind",
    "Entry",
    "FeatureSet",
    "FeatureSetError",
    "FeatureSetWriter",
    "Fingerprints",
    "InteractionsUse",
    "Labels",
    "Manifest",
    "Modality",
    "ModalityDifference",
    "Neighbours",
    "Producer",
    "Rows",
    "Shared",
    "Student",
    "check_signature_of",
    "compression_loss",
    "diff",
    "inventory",
    "inventory_at",
    "is_name",
    "lineage",
    "load",
    "lock_folder",
    "nearest",
    "now",
    "other_rows",
    "partial_folder",
    "publish_folder",
    "pull",
    "push",
    "refuse_changed",
    "remove_locked",
    "sign",
    "try_lock",
    "verify",
    "version_of",
    "versioned",
    "write_file",
]
