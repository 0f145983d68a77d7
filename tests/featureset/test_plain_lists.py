"""Bytes that are taken for rows are those that a reader makes these rows of."""

import contextlib
import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgfd.featureset import load, plain_lists, verify
from sgfd.featureset import table_check as checking
from sgfd.featureset.parquet_end import parquet_end
from sgfd.featureset.plain_lists import KINDS_OF_PAGE, PlainLists

WIDTH, ITEMS = 5, 300


def file_of(path, rows, lacking=None, inside=False, **options):
    """One column of lists; small pages, so that there are several."""
    kind = pa.list_(pa.field("element", pa.from_numpy_dtype(rows.dtype), nullable=inside), WIDTH)
    mask = None if lacking is None else pa.array(lacking)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=kind, mask=mask)
    table = pa.table([column], schema=pa.schema([pa.field("image", kind)]))
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pages = {"write_batch_size": 40 * WIDTH, "data_page_size": 60 * WIDTH * rows.itemsize}
    pq.write_table(table, path, **(plain | pages | options))


def lies(path, rows):
    file = pq.ParquetFile(path)
    content = np.fromfile(path, dtype=np.uint8)
    end = parquet_end(path, file.schema)
    return PlainLists(content).hold(
        end.schema.column(0),
        end.groups[0].columns[0],
        file.schema_arrow.field("image"),
        rows,
    )


def made(seed=0, kind="<f4"):
    return np.random.default_rng(seed).normal(size=(ITEMS, WIDTH)).astype(kind)


@pytest.mark.parametrize("kind", ["<f4", "<f2", "<f8"])
@pytest.mark.parametrize("inside", [False, True])
def test_rows_that_lie_there_are_found(tmp_path, kind, inside):
    rows = made(kind=kind)
    file_of(tmp_path / "t.parquet", rows, inside=inside)
    assert lies(tmp_path / "t.parquet", rows)
    assert not lies(tmp_path / "t.parquet", made(seed=1, kind=kind))
    assert not lies(tmp_path / "t.parquet", rows[:-1])
    assert not lies(tmp_path / "t.parquet", np.concatenate([rows, rows[:1]]))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy"},
        {"use_dictionary": True},
        {"write_statistics": True},
        {"data_page_version": "2.0"},
        {"column_encoding": {"image.list.element": "BYTE_STREAM_SPLIT"}},
    ],
)
def test_what_is_written_otherwise_is_left_to_the_reader(tmp_path, options):
    rows = made()
    file_of(tmp_path / "t.parquet", rows, **options)
    assert not lies(tmp_path / "t.parquet", rows)


def test_a_null_is_no_row(tmp_path):
    rows, lacking = made(), np.arange(ITEMS) == 17
    file_of(tmp_path / "t.parquet", rows, lacking)
    assert not lies(tmp_path / "t.parquet", rows)
    assert not lies(tmp_path / "t.parquet", rows[~lacking])


@pytest.fixture(scope="module")
def lying(tmp_path_factory):
    """A file, its rows, and where its column lies."""
    path, rows = tmp_path_factory.mktemp("plain") / "t.parquet", made()
    file_of(path, rows, inside=True)  # more levels, of which more may be wrong
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    begin = column.data_page_offset
    return path, rows, (begin, begin + column.total_compressed_size)


@given(data=st.data())
def test_no_other_byte_passes(lying, data):
    """Whatever byte of the column is another one, it is not what these rows are written as."""
    path, rows, (begin, end) = lying
    at = data.draw(st.integers(begin, end - 1))
    by = data.draw(st.integers(1, 255))
    content = bytearray(path.read_bytes())
    content[at] ^= by
    changed = path.with_name("changed.parquet")
    changed.write_bytes(content)
    with contextlib.suppress(ValueError):  # no head of a page
        assert not lies(changed, rows)


def test_levels_of_another_schema_and_bytes_of_another_file_do_not_pass(tmp_path):
    """Where a number may be null, the same levels mean that it is."""
    rows = made()
    file_of(tmp_path / "none.parquet", rows)
    file_of(tmp_path / "may.parquet", rows, inside=True)
    content = np.fromfile(tmp_path / "none.parquet", dtype=np.uint8)
    never, may = (pq.ParquetFile(tmp_path / f"{name}.parquet") for name in ("none", "may"))
    column = parquet_end(tmp_path / "none.parquet", never.schema).groups[0].columns[0]
    field = never.schema_arrow.field("image")
    plain = PlainLists(content)
    assert plain.hold(never.metadata.schema.column(0), column, field, rows)
    elsewhere = dataclasses.replace(column, elsewhere=True)
    assert not plain.hold(never.metadata.schema.column(0), elsewhere, field, rows)
    assert not plain.hold(may.metadata.schema.column(0), column, field, rows)


@pytest.mark.parametrize("kind", ["u1", "<i2"])
def test_numbers_that_are_stored_wider_are_left_to_the_reader(tmp_path, kind):
    """Of codes, each in four bytes, zeros could pass for what comes before a page's numbers."""
    rows = np.zeros((ITEMS, WIDTH), kind)
    file_of(tmp_path / "t.parquet", rows)
    assert not lies(tmp_path / "t.parquet", rows)


def test_of_many_kinds_of_pages_few_are_looked_at(tmp_path, monkeypatch):
    """Each kind takes a page of pyarrow's own to compare; to read them all is faster then."""
    rows = made()
    kind = pa.list_(pa.field("element", pa.float32(), nullable=False), WIDTH)
    schema = pa.schema([pa.field("image", kind)])
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    asked, real = [], plain_lists._start_of_page
    monkeypatch.setattr(plain_lists, "_start_of_page", lambda *a: asked.append(a) or real(*a))
    at = 0
    with pq.ParquetWriter(tmp_path / "t.parquet", schema, **plain) as writer:
        for length in range(1, 24):
            part = pa.array(rows[at : at + length].reshape(-1))
            lists = pa.FixedSizeListArray.from_arrays(part, type=kind)
            writer.write_table(pa.table([lists], schema=schema))
            at += length
    file = pq.ParquetFile(tmp_path / "t.parquet")
    content, at = PlainLists(np.fromfile(tmp_path / "t.parquet", dtype=np.uint8)), 0
    end = parquet_end(tmp_path / "t.parquet", file.schema)
    for number, group in enumerate(end.groups):
        given = (end.schema.column(0), group.columns[0], schema.field("image"))
        found = content.hold(*given, rows[at : at + group.rows])
        assert found == (number < KINDS_OF_PAGE)
        at += group.rows
    assert len(asked) == KINDS_OF_PAGE


def test_verify_reads_no_list_that_lies_plain(make_rows_set, tmp_path, monkeypatch):
    """The short way is taken where it may be, and says the same of a damaged set as the long."""
    rng = np.random.default_rng(0)
    lacking = rng.normal(size=(50, 3)).astype(np.float32)
    lacking[7] = np.nan
    rows = {"image": rng.normal(size=(50, 4)).astype(np.float32), "text": lacking}
    make_rows_set(
        tmp_path / "set", rows, np.full(50, "a", dtype=object), [f"i{n}" for n in range(50)]
    )
    known, real = [], PlainLists.hold

    def noted(self, *given):
        known.append((given[2].name, real(self, *given)))
        return known[-1][1]

    monkeypatch.setattr(PlainLists, "hold", noted)
    assert verify(tmp_path / "set") == []
    assert sorted(known) == [("image", True), ("text", False)]
    stored = np.load(tmp_path / "set/image.npy", mmap_mode="r+")
    stored[3, 2] += 1
    stored.flush()
    short = checking.check_table(load(tmp_path / "set"))
    monkeypatch.setattr(PlainLists, "hold", lambda *_: False)
    assert checking.check_table(load(tmp_path / "set")) == short
    assert "column image is not image.npy (rows 0 to 49)" in short[0]
