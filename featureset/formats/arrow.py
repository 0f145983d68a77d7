"""Tables in Arrow: Hugging Face's datasets, and Lance (LanceDB).

One row an item: item_id, item_index, label (null where it has none) and a column a modality, a list
of float32 of one length, null where the item lacks it.

hf-datasets: `data/train-00000-of-00001.parquet`, which `datasets.load_dataset(folder)` opens.

lance: `features.lance`, which `lance.dataset` opens, and `lancedb.connect(folder)` as the table
`features`; needs the package pylance.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.formats.rows import ExportedRows


def write_hf_datasets(rows: ExportedRows, folder: Path) -> None:
    (folder / "data").mkdir()
    file = folder / "data" / "train-00000-of-00001.parquet"
    with pq.ParquetWriter(file, _schema(rows), compression="none") as writer:
        for batch in _batches(rows):
            writer.write_batch(batch)


def write_lance(rows: ExportedRows, folder: Path) -> None:
    """The table, as a stream of record batches.

    Raises:
        FeatureSetError: pylance is not installed.
    """
    try:
        import lance
    except ImportError:
        raise FeatureSetError(
            "the package pylance", "is not installed", "pip install 'sgfd[lance]'"
        ) from None
    reader = pa.RecordBatchReader.from_batches(_schema(rows), _batches(rows))
    lance.write_dataset(reader, str(folder / "features.lance"))


def _schema(rows: ExportedRows) -> pa.Schema:
    plain = [("item_id", pa.string()), ("item_index", pa.int64()), ("label", pa.string())]
    vectors = [(name, pa.list_(pa.float32(), rows.width(name))) for name in rows.names]
    return pa.schema(plain + vectors)


def _batches(rows: ExportedRows) -> Iterator[pa.RecordBatch]:
    """Blocks of all modalities, as many rows as the widest one gives at a time."""
    schema, ids, labels = _schema(rows), rows.item_ids, rows.features.labels
    widest = max(rows.names, key=rows.width)
    for start, block in rows.blocks(widest):
        part = slice(start, start + len(block))
        columns = [
            pa.array(ids[part], pa.string()),
            pa.array(np.arange(part.start, part.stop)),
            pa.array(labels[part], pa.string()),
        ]
        for name in rows.names:
            values = block if name == widest else rows.read(name, part)
            lacking = pa.array(np.isnan(values[:, 0]))
            flat = pa.array(values.reshape(-1))
            columns.append(pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=lacking))
        yield pa.record_batch(columns, schema=schema)
