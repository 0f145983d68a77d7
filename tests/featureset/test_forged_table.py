"""Tables of which readers would make other rows than the .npy files hold, and `verify` says so.

Every size and sha256 of the manifest fits: a publisher may be the one who forged it.
"""

import copy
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgfd.featureset import FeatureSetError, load, verify
from tests.featureset import footer

N = 10
ROWS = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
OTHERS = np.concatenate([ROWS[:5], np.full((5, 4), 99, dtype=np.float32)])
ITEM_ID, ITEM_INDEX, LABEL, IMAGE = range(4)  # places of columns


def fit(folder):
    """Make the manifest's sizes and digests those of the files."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        content = (folder / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"sha256": digest, "bytes": len(content)}
    path.write_text(json.dumps(manifest))


@pytest.fixture
def two_groups(make_rows_set, tmp_path):
    """A good set of ten items, five a row group."""

    def made(name="set", rows=ROWS, **given):
        folder = tmp_path / name
        make_rows_set(folder, {"image": rows}, **given)
        table = pq.read_table(folder / "features.parquet")
        options = {"compression": "none", "use_dictionary": ["label"], "write_statistics": False}
        with pq.ParquetWriter(folder / "features.parquet", table.schema, **options) as writer:
            writer.write_table(table.slice(0, 5))
            writer.write_table(table.slice(5, 5))
        fit(folder)
        assert verify(folder) == []
        return folder

    return made


def forge(folder, how):
    footer.change(folder / "features.parquet", how)
    fit(folder)


def lengthened(group, place, content, at):
    """Let a column lie at the end of the file: these bytes, which it puts there."""
    described = footer.column(group, place)
    footer.put(described, footer.UNCOMPRESSED, len(content))
    footer.put(described, footer.COMPRESSED, len(content))
    footer.put(described, footer.DATA_PAGE, at)
    return content


def column_of(folder, place):
    """The bytes of a whole table's column."""
    column = pq.ParquetFile(folder / "features.parquet").metadata.row_group(0).column(place)
    begin = column.data_page_offset
    content = (folder / "features.parquet").read_bytes()
    return content[begin : begin + column.total_compressed_size]


def refused(folder, why):
    (problem,) = verify(folder)
    assert "features.parquet" in problem
    assert why in problem
    return True


def test_a_part_has_more_rows_than_it_says(two_groups, make_rows_set, tmp_path):
    """A reader of the whole file goes on in the first part: rows 5 to 9 are others to it."""
    folder = two_groups()
    make_rows_set(tmp_path / "others", {"image": OTHERS})
    ten = column_of(tmp_path / "others", IMAGE)
    forge(folder, lambda end, at: lengthened(footer.groups(end)[0], IMAGE, ten, at))
    read = pq.ParquetFile(folder / "features.parquet").read()["image"].to_pylist()
    assert np.array_equal(read, OTHERS)
    assert refused(folder, "other values than it says")


def test_ids_are_in_another_order_to_other_readers(two_groups, make_rows_set, tmp_path):
    folder = two_groups()
    ids = [f"item {number}" for number in (*range(5), *range(9, 4, -1))]
    make_rows_set(tmp_path / "others", {"image": ROWS}, ids=ids)
    ten = column_of(tmp_path / "others", ITEM_ID)
    forge(folder, lambda end, at: lengthened(footer.groups(end)[0], ITEM_ID, ten, at))
    with pytest.raises(FeatureSetError, match="other values than it says"):
        load(folder).item_ids  # noqa: B018
    assert refused(folder, "other values than it says")


@pytest.mark.parametrize("emptied", [[0, 1], [1]])
def test_a_part_whose_index_is_empty_is_looked_at_all_the_same(two_groups, emptied):
    folder = two_groups(rows=OTHERS)
    np.save(folder / "image.npy", ROWS)
    fit(folder)
    assert refused(folder, "column image is not image.npy")

    def empty(end, at):
        for number in emptied:
            described = footer.column(footer.groups(end)[number], ITEM_INDEX)
            for field in (footer.VALUES, footer.UNCOMPRESSED, footer.COMPRESSED):
                footer.put(described, field, 0)

    forge(folder, empty)
    assert refused(folder, "other values than it says")


def test_a_file_of_another_length_than_its_parts(two_groups):
    folder = two_groups()
    forge(folder, lambda end, at: footer.put(end, 3, N - 3))
    assert refused(folder, "7 rows for 10 items")


def without_rows(group, *kept):
    """A copy of a part, of 0 rows, in which all columns are empty but some."""
    empty = copy.deepcopy(group)
    footer.put(empty, footer.GROUP_ROWS, 0)
    for place in {ITEM_ID, ITEM_INDEX, LABEL, IMAGE} - {*kept}:
        described = footer.column(empty, place)
        for field in (footer.VALUES, footer.UNCOMPRESSED, footer.COMPRESSED):
            footer.put(described, field, 0)
        drops = (footer.STATISTICS, footer.SIZE_STATISTICS, footer.DICTIONARY_PAGE)
        footer.drop(described, *drops)
    return empty


@pytest.mark.parametrize("values", [10**9, 10**15])
def test_a_page_of_an_empty_part_takes_no_memory(two_groups, values):
    folder = two_groups()

    def add(end, at):
        empty = without_rows(footer.groups(end)[0])
        footer.groups(end).append(empty)
        head = footer.written([[1, 5, 0], [2, 5, 0], [3, 5, 0], [5, 12, [[1, 6, values]]]])
        return lengthened(empty, IMAGE, head, at)

    forge(folder, add)
    assert refused(folder, "other values than it says")


@pytest.mark.parametrize(("values", "what"), [(None, "numbers, not 0"), (0, "lie in one another")])
def test_columns_that_lie_in_one_another(two_groups, values, what):
    """Else a few bytes could be gone over as often as there are parts."""
    folder = two_groups(rows=np.tile(ROWS, 1000))

    def repeat(end, at):
        again = without_rows(footer.groups(end)[0], IMAGE)
        if values is not None:
            footer.put(footer.column(again, IMAGE), footer.VALUES, values)
        footer.groups(end).extend([again] * 50)

    forge(folder, repeat)
    assert refused(folder, what)


def test_a_part_that_lacks_a_column(two_groups):
    folder = two_groups()

    def drop(end, at):
        footer.get(footer.groups(end)[1], footer.COLUMNS)[1].pop()

    forge(folder, drop)
    assert refused(folder, "can't be read")


@pytest.mark.parametrize("what", ["codec", "histogram"])
def test_an_end_at_which_pyarrow_itself_would_end_the_process(two_groups, what):
    folder = two_groups()

    def mangle(end, at):
        described = footer.column(footer.groups(end)[0], IMAGE)
        if what == "codec":
            footer.put(described, footer.CODEC, 99)
        else:
            sizes = footer.get(described, footer.SIZE_STATISTICS)
            sizes[0][2][1].append(1)

    forge(folder, mangle)
    assert refused(folder, "can't be read")


@pytest.mark.parametrize("name", ["IMAGE", "image.x", "image"])
@pytest.mark.parametrize("first", [True, False])
def test_a_second_column_that_a_reader_could_take(two_groups, name, first):
    folder = two_groups()
    path = folder / "features.parquet"
    table = pq.read_table(path)
    others = pa.FixedSizeListArray.from_arrays(
        pa.array(OTHERS.reshape(-1)), type=table.schema.field("image").type
    )
    table = table.add_column(3 if first else 4, name, others)
    pq.write_table(table, path, compression="none", use_dictionary=False)
    fit(folder)
    assert refused(folder, "column image is missing, there twice or not")


@pytest.mark.parametrize("name", ["ITEM_ID", "Item_Index", "label.x"])
def test_ids_and_labels_are_there_once_too(two_groups, name):
    path = two_groups() / "features.parquet"
    table = pq.read_table(path)
    table = table.add_column(0, name, table.column(name.partition(".")[0].lower()))
    pq.write_table(table, path, compression="none", use_dictionary=["label"])
    fit(path.parent)
    assert refused(path.parent, "is missing, there twice or not")


@pytest.mark.parametrize("kind", ["npz", "by columns"])
def test_an_array_that_is_none_of_rows(two_groups, kind):
    folder = two_groups()
    with (folder / "image.npy").open("wb") as file:
        if kind == "npz":
            np.savez(file, image=ROWS)
        else:
            np.save(file, np.asfortranarray(ROWS))
    fit(folder)
    (problem,) = verify(folder)
    assert "image.npy: is" in problem
