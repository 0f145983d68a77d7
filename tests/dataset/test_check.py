"""`check` names every kind of problem: the file, the row, what to do. Loading agrees with it."""

from shutil import copy

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgfd.dataset import DatasetError, check_dataset, join, load_dataset, temporal_split


def append(folder, file, line):
    with (folder / file).open("a") as opened:
        opened.write(line + "\n")


def resave(folder, file, change):
    values = np.load(folder / file)
    np.save(folder / file, change(values))


def resave_csv(folder, file, old, new, times=1):
    path = folder / file
    path.write_text(path.read_text().replace(old, new, times))


def break_text(folder):
    values = np.load(folder / "FeatureText_bert_normal.npy")
    values[3, 1] = np.nan
    np.save(folder / "FeatureText_bert_normal.npy", values)


def make_infinite(folder):
    values = np.load(folder / "FeatureImage_normal.npy")
    values[[0, 2], 0] = np.inf
    np.save(folder / "FeatureImage_normal.npy", values)


def truncate(folder):
    path = folder / "FeatureImage_normal.npy"
    path.write_bytes(path.read_bytes()[:-7])


def not_utf8(folder):
    path = folder / "train.csv"
    path.write_bytes(path.read_bytes() + b"1,2,B1,\xff\xfe\n")


# what is done to the folder: the severity, the file, the place or figure, and the remedy named
BROKEN = {
    "item out of range": (lambda f: append(f, "train.csv", "9,1,B9,R1"), "error", "train.csv", "line 7: item 9 is out of range 0..4", "renumber"),
    "a huge gap": (lambda f: append(f, "train.csv", f"0,{10**12},B0,R9"), "error", "train.csv", "line 7: userID 1000000000000 in a table of 6 rows", "without gaps"),
    "negative user": (lambda f: append(f, "test.csv", "1,-1,B1,R9"), "error", "test.csv", "line 4: user -1 is negative", "from 0"),
    "no number": (lambda f: append(f, "train.csv", "x,1,B1,R1"), "error", "train.csv", "line 7: itemID 'x' is no whole number", "integers"),
    "twice in train": (lambda f: append(f, "train.csv", "0,0,B0,R0"), "warning", "train.csv", "line 7: 1 pairs stand twice in train", "remove"),
    "in train and test": (lambda f: append(f, "test.csv", "0,0,B0,R0"), "warning", "test.csv", "line 4: 1 pairs of test are also in train", "remove"),
    "user of test unknown": (lambda f: append(f, "test.csv", "1,3,B1,R3"), "warning", "test.csv", "line 4: 1 users of test have no training item", "train"),
    "wrong row count": (lambda f: resave(f, "FeatureText_bert_normal.npy", lambda v: v[:4]), "error", "FeatureText_bert_normal.npy", "has 4 rows for 5 items", "one row an item"),
    "NaN in part": (break_text, "error", "FeatureText_bert_normal.npy", "row 3 is NaN in part", "all NaN"),
    "infinite": (make_infinite, "error", "FeatureImage_normal.npy", "rows 0, 2 are infinite", "finite"),
    "labels of the wrong length": (lambda f: resave(f, "MetaData_normal.npy", lambda v: v[:3]), "error", "MetaData_normal.npy", "has shape (3,) for 5 items", "one label an item"),
    "not UTF-8": (not_utf8, "error", "train.csv", "line 7 is not UTF-8", "UTF-8"),
    "empty CSV": (lambda f: (f / "test.csv").write_text(""), "error", "test.csv", "is empty", "itemID, userID"),
    "empty npy": (lambda f: (f / "FeatureImage_normal.npy").write_bytes(b""), "error", "FeatureImage_normal.npy", "is empty", "again"),
    "truncated npy": (truncate, "error", "FeatureImage_normal.npy", "truncated", "again"),
    "objects": (lambda f: np.save(f / "FeatureImage_normal.npy", np.array([{}] * 5), allow_pickle=True), "error", "FeatureImage_normal.npy", "never unpickled", "float32"),
    "a field too many": (lambda f: append(f, "train.csv", "0,0,B0,R0,5"), "error", "train.csv", "line 7 has 5 fields, not 4", "quotes"),
    "a field too many in every line": (lambda f: resave_csv(f, "test.csv", "itemID,userID,asin", "itemID,userID"), "error", "test.csv", "line 2 has 4 fields, line 1 names 3", "name every column"),
    "another separator": (lambda f: resave_csv(f, "test.csv", ",", ";", -1), "error", "test.csv", "line 1 has ';' between its columns, not ','", "write ','"),
    "column missing": (lambda f: resave_csv(f, "test.csv", "userID", "user"), "error", "test.csv", "line 1 has no column userID", "itemID, userID"),
    "below a field of two lines": (lambda f: append(f, "items.csv", '4,B4,"Item\n4"\n\nx,B5,'), "error", "items.csv", "line 10: itemID 'x' is no whole number", "integers"),
    "a field too many below a field of two lines": (lambda f: append(f, "items.csv", '4,B4,"Item\n4"\n4,B4,Item, 4'), "error", "items.csv", "line 9 has 4 fields, not 3", "quotes"),
    "items from 1": (lambda f: (f / "items.csv").write_text("itemID,title\n" + "".join(f"{i},t\n" for i in range(1, 6))), "error", "items.csv", "line 6: itemID 5 is out of range 0..4 (FeatureImage_normal.npy)", "from 0"),
    "an item twice": (lambda f: append(f, "items.csv", "4,B4,Another"), "warning", "items.csv", "line 7: itemID 4 stands there before", "one line"),
    "no time": (lambda f: [resave_csv(f, n, "itemID,userID,asin,reviewerID", "itemID,userID,asin,timestamp") for n in ("train.csv", "test.csv")], "error", "train.csv", "lines 2, 3, 4 and 2 more: timestamp 'R0' is no time", "2014-05-31"),
    "times of one part": (lambda f: resave_csv(f, "train.csv", "reviewerID", "timestamp"), "warning", "test.csv", "has no column timestamp, and train.csv has one", "every part"),
    "a header too long": (lambda f: (f / "train.csv").write_text("itemID," + "x" * 200_000 + "\n"), "error", "train.csv", "is no table (field larger than field limit", "CSV"),
    "a column twice": (lambda f: resave_csv(f, "train.csv", "itemID,userID,asin", "itemID,userID,itemID"), "error", "train.csv", "line 1 has two columns itemID", "leave one"),
    "a label beyond counting": (lambda f: resave(f, "MetaData_normal.npy", lambda v: np.where(v == 3, 1e300, v)), "error", "MetaData_normal.npy", "rows 2, 3: no number of a label", "from 0"),
    "nothing to judge by": (lambda f: (f / "test.csv").unlink(), "warning", "train.csv", "has no test.csv beside it", "--split random"),
    "two ids for an item": (lambda f: append(f, "train.csv", "1,1,B7,R1"), "error", "train.csv", "line 7: itemID 1 and asin 'B7' contradict", "one asin"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_each_problem_of_the_sgfd_layout_is_named(sgfd_folder, kind):
    break_it, severity, file, what, remedy = BROKEN[kind]
    assert check_dataset(sgfd_folder) == []
    break_it(sgfd_folder)
    problems = [p for p in check_dataset(sgfd_folder) if file in p.where and what in p.what]
    assert len(problems) == 1, check_dataset(sgfd_folder)
    assert problems[0].severity == severity
    assert remedy in problems[0].remedy
    if severity == "error":
        with pytest.raises(DatasetError) as error:
            dataset = load_dataset(sgfd_folder)
            for feature in dataset.catalog.features.values():
                assert feature.present.any()  # numbers are looked at when they are first needed
        assert "\n" not in str(error.value)
        assert file in str(error.value)


def test_check_goes_on_after_an_error(sgfd_folder):
    for kind in ("item out of range", "NaN in part", "empty npy", "labels of the wrong length"):
        BROKEN[kind][0](sgfd_folder)
    assert {problem.where.rsplit("/", 1)[-1] for problem in check_dataset(sgfd_folder)} == {
        "train.csv",
        "FeatureText_bert_normal.npy",
        "FeatureImage_normal.npy",
        "MetaData_normal.npy",
    }


def test_repetitions_are_left_out_when_loading(sgfd_folder):
    append(sgfd_folder, "train.csv", "0,0,B0,R0")
    append(sgfd_folder, "test.csv", "1,0,B1,R0")
    dataset = load_dataset(sgfd_folder)
    assert len(dataset.interactions.train) == 5
    assert len(dataset.interactions.test) == 2
    assert [problem.severity for problem in dataset.warnings] == ["warning", "warning"]


def test_a_repeated_pair_has_its_earliest_time(native_folder):
    """Whatever the order of the file, and in whichever part it stands: splits by time use it."""
    columns = {
        "user_id": ["u", "u", "u", "v", "v"],
        "item_id": ["a", "b", "a", "c", "c"],
        "timestamp": [9, 5, 1, 8, 2],
        "split": ["train", "train", "train", "train", "test"],
    }
    pq.write_table(pa.table(columns), native_folder / "interactions.parquet")
    interactions = load_dataset(native_folder).interactions
    assert interactions.train.item.tolist() == [0, 1, 2]
    assert interactions.train.timestamp.tolist() == [1, 5, 2]
    whole = join(interactions.train, interactions.valid, interactions.test)
    assert temporal_split(whole)[2].item.tolist() == [1]


NATIVE = {
    "an empty id": ({"user_id": ["u", "", "v", "w", "w", ""]}, "rows 1, 5: user_id is empty"),
    "user_id of floats": ({"user_id": [1.5] * 6}, "column user_id is double, not string"),
    "timestamp of text": ({"timestamp": ["now"] * 6}, "column timestamp is string, not timestamp"),
    "timestamp not finite": ({"timestamp": [1.5, np.nan, 2, np.inf, 3, 4]}, "rows 1, 3: timestamp is not finite"),
    "split of numbers": ({"split": [1] * 6}, "column split is int64, not string"),
    "unknown split": ({"split": ["train"] * 5 + ["dev"]}, "row 5: split is 'dev'"),
    "id null": ({"user_id": ["u", None] * 3}, "rows 1, 3, 5: user_id is null"),
    "unknown item": ({"item_id": ["a"] * 5 + ["z"]}, "row 5: item 'z' is out of range"),
    "column missing": ({"item_id": None}, "has no column item_id"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NATIVE)
def test_each_problem_of_native_interactions_is_named(native_folder, kind):
    changes, what = NATIVE[kind]
    table = pq.read_table(native_folder / "interactions.parquet")
    for name, values in changes.items():
        place = table.schema.get_field_index(name)
        table = table.remove_column(place)
        if values is not None:
            table = table.append_column(name, pa.array(values))
    pq.write_table(table, native_folder / "interactions.parquet")
    errors = [p for p in check_dataset(native_folder) if p.severity == "error"]
    assert [what in p.what and p.where.endswith("interactions.parquet") for p in errors] == [True]
    with pytest.raises(DatasetError):
        load_dataset(native_folder)


@pytest.mark.parametrize(("label", "what"), [("2", "has no row of train"), ("0", "no row of test")])
def test_a_single_part_of_mmrec_is_told_of(mmrec_folder, label, what):
    head, *rows = (mmrec_folder / "baby.inter").read_text().splitlines()
    place = head.split("\t").index("x_label")
    fields = [row.split("\t") for row in rows]
    lines = ["\t".join([*row[:place], label, *row[place + 1 :]]) for row in fields]
    (mmrec_folder / "baby.inter").write_text("\n".join([head, *lines]) + "\n")
    assert [p.severity for p in check_dataset(mmrec_folder) if what in p.what] == ["warning"]


@pytest.mark.parametrize(
    ("part", "what"),
    [("test", "has no row of train: no recommender"), ("train", "has no row of test: nothing")],
)
def test_a_single_part_is_told_of(native_folder, part, what):
    path = native_folder / "interactions.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("split")
    pq.write_table(table.set_column(place, "split", pa.array([part] * len(table))), path)
    assert [p.severity for p in check_dataset(native_folder) if what in p.what] == ["warning"]


ITEM_COLUMNS = {
    "ragged vectors": (pa.array([[1.0], [1.0, 2.0], None, [3.0]]), "text", "column text is list<"),
    "vectors of polars": (pa.array([[1.0]] * 4, pa.large_list(pa.float32())), "text", "column text is large_list<"),
    "views of vectors": (pa.array([[1.0]] * 4, pa.list_view(pa.float32())), "text", "column text is list_view<"),
    "large views of vectors": (pa.array([[1.0]] * 4, pa.large_list_view(pa.float32())), "text", "column text is large_list_view<"),
    "title of numbers": (pa.array([1, 2, 3, 4]), "title", "column title is int64, not string"),
    "category of floats": (pa.array([1.5] * 4), "category", "column category is double"),
    "an id twice": (pa.array(["a", "b", "a", "d"]), "item_id", "row 2: the id occurs twice ('a')"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ITEM_COLUMNS)
def test_each_wrong_column_of_native_items_is_named(native_folder, kind):
    values, name, what = ITEM_COLUMNS[kind]
    path = native_folder / "items.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index(name)
    pq.write_table(table.set_column(place, name, values), path)
    errors = [p for p in check_dataset(native_folder) if p.severity == "error"]
    assert [what in p.what and p.where == str(path) for p in errors] == [True]


@pytest.mark.parametrize(
    "values",
    [[["a"]] * 4, [["a", "b"], [], None, ["c"]], [[1, 2], [3], [], [4]]],
    ids=["one tag", "tags", "codes"],
)
def test_lists_that_are_no_vectors_are_passed_over(native_folder, values):
    change_items(native_folder, lambda table: table.append_column("tags", pa.array(values)))
    (problem,) = check_dataset(native_folder)
    assert (problem.severity, "column tags is not read: list<" in problem.what) == ("warning", True)
    assert set(load_dataset(native_folder).catalog.features) == {"image", "text"}


CLASHES = {
    "two columns": ("native", lambda f: change_items(f, lambda t: t.append_column("Text", t["text"])), "items.parquet column Text: is modality text, and so is"),
    "two columns alike": ("native", lambda f: change_items(f, lambda t: t.append_column("text", t["text"])), "items.parquet: has two columns text"),
    "a column and a file": ("native", lambda f: copy(f / "image.npy", f / "text.npy"), "text.npy: is modality text, and so is"),
    "two files": ("native", lambda f: copy(f / "image.npy", f / "Image.npy"), "image.npy: is modality image, and so is"),
    "two files of SGFD": ("sgfd", lambda f: copy(f / "FeatureImage_normal.npy", f / "Featureimage_normal.npy"), "Featureimage_normal.npy: is modality image, and so is"),
    "two files of MMRec": ("mmrec", lambda f: copy(f / "image_feat.npy", f / "Image_feat.npy"), "image_feat.npy: is modality image, and so is"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CLASHES)
def test_two_modalities_of_one_name_are_refused(request, kind):
    layout, spoil, line = CLASHES[kind]
    folder = request.getfixturevalue(f"{layout}_folder")
    spoil(folder)
    errors = [f"{p.where}: {p.what}" for p in check_dataset(folder) if p.severity == "error"]
    assert [line in each for each in errors] == [True], errors


MMREC = {
    "part unknown": (lambda f: append(f, "baby.inter", "0\t2\t7"), "baby.inter", "line 6: x_label 7"),
    "no number": (lambda f: append(f, "baby.inter", "a\t2\t0"), "baby.inter", "line 6: userID 'a'"),
    "out of range": (lambda f: append(f, "baby.inter", "0\t3\t0"), "baby.inter", "line 6: item 3 is out"),
    "huge gap": (lambda f: append(f, "baby.inter", f"{10**12}\t2\t0"), "baby.inter", "line 6: userID 1000"),
    "a field too many": (lambda f: resave_csv(f, "baby.inter", "\tx_label", ""), "baby.inter", "line 2 has 3 fields, line 1 names 2"),
    "column missing": (lambda f: (f / "baby.inter").write_text("userID\titemID\n0\t0\n"), "baby.inter", "x_label"),
    "empty": (lambda f: (f / "baby.inter").write_bytes(b""), "baby.inter", "is empty"),
    "row count": (lambda f: resave(f, "text_feat.npy", lambda v: v[:2]), "text_feat.npy", "has 2 rows for 3"),
    "labels of floats": (lambda f: np.save(f / "labels.npy", np.ones(3)), "labels.npy", "is float64 (3,) for 3"),
}  # fmt: skip


def test_items_with_labels_of_which_there_are_none_are_named(tmp_path):
    columns = {"item_id": pa.array([], pa.string()), "category": pa.array([], pa.string())}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    (problem,) = check_dataset(tmp_path)
    assert "has no items" in problem.what


@pytest.mark.parametrize("kind", MMREC)
def test_each_problem_of_the_mmrec_layout_is_named(mmrec_folder, kind):
    spoil, file, what = MMREC[kind]
    spoil(mmrec_folder)
    errors = [p for p in check_dataset(mmrec_folder) if p.severity == "error"]
    assert [what in p.what and p.where.endswith(file) for p in errors] == [True], errors
    with pytest.raises(DatasetError):
        load_dataset(mmrec_folder)


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_garbage_in_any_file_is_a_data_set_error_and_nothing_else(
    sgfd_folder, native_folder, mmrec_folder, data
):
    folder = data.draw(st.sampled_from([sgfd_folder, native_folder, mmrec_folder]))
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    path.write_bytes(
        whole[:at]
        + data.draw(st.binary(max_size=12))
        + whole[at + data.draw(st.integers(0, 200)) :]
    )
    try:
        dataset = load_dataset(folder)
        for feature in dataset.catalog.features.values() if dataset.catalog else ():
            feature.coverage  # noqa: B018 (reads every row)
    except DatasetError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(whole)


def test_ids_that_look_the_same_are_told_of(native_folder):
    table = pq.read_table(native_folder / "items.parquet")
    ids = pa.array(["caf\u00e9", "b", "cafe\u0301", "d"])
    pq.write_table(table.set_column(0, "item_id", ids), native_folder / "items.parquet")
    users = ["\u00fc", "\u00fc", "v", "v", "u\u0308", "w"]
    items = ["caf\u00e9", "b", "caf\u00e9", "cafe\u0301", "b", "d"]
    path = native_folder / "interactions.parquet"
    table = pq.read_table(path).set_column(0, "user_id", pa.array(users))
    pq.write_table(table.set_column(1, "item_id", pa.array(items)), path)
    found = check_dataset(native_folder)
    assert [problem.severity for problem in found] == ["warning", "warning"]
    assert "two items are called" in found[0].what and r"'cafe\u0301'" in found[0].what
    assert "two users are called" in found[1].what
    assert len(load_dataset(native_folder).catalog.items) == 4


def change_table(path, change):
    pq.write_table(change(pq.read_table(path)), path)


def change_items(folder, change):
    change_table(folder / "items.parquet", change)


def change_interactions(folder, change):
    change_table(folder / "interactions.parquet", change)


SILENT = {
    "a compressed CSV": ("sgfd", lambda f: (f / "train.csv").rename(f / "train.csv.gz"), "train.csv.gz: is not read; save it as train.csv"),
    "a CSV for Parquet": ("native", lambda f: (f / "interactions.parquet").rename(f / "interactions.csv"), "interactions.csv: is not read; save it as interactions.parquet"),
    "a name that stage one refuses": ("native", lambda f: (f / "image.npy").rename(f / "My Image.npy"), "no feature set can call a modality 'my image'"),
    "arrays of another kind": ("native", lambda f: copy(f / "image.npy", f / "sound.npz"), "sound.npz: is not read; save the array as sound.npy"),
    "features without a modality": ("sgfd", lambda f: copy(f / "FeatureImage_normal.npy", f / "Feature-Sound_normal.npy"), "Feature-Sound_normal.npy: is not read; call it FeatureText_normal.npy"),
    "a label's second name": ("sgfd", lambda f: append(f, "labels.csv", "3,Ink"), "labels.csv: line 4: the label has a name already; give"),
    "one name of two labels": ("sgfd", lambda f: append(f, "labels.csv", "8,Pens"), "labels.csv: line 4: another label has the name; give"),
    "a label without a name": ("sgfd", lambda f: append(f, "labels.csv", "8"), "labels.csv: line 4: the name is empty (the label is called by its number); give"),
    "no interaction": ("native", lambda f: change_interactions(f, lambda t: t.slice(0, 0)), "interactions.parquet: has no rows"),
    "nothing but zeros": ("native", lambda f: resave(f, "image.npy", np.zeros_like), "image.npy: holds no number but 0"),
    "no item has it": ("native", lambda f: resave(f, "image.npy", lambda x: np.full(x.shape, np.nan, np.float32)), "image.npy: no item has it; export it again"),
    "one row of zeros": ("native", lambda f: resave(f, "image.npy", lambda x: np.where(np.arange(len(x))[:, None] == 0, 0, np.nan).astype(np.float32)), "image.npy: holds no number but 0"),
    "one row for all": ("native", lambda f: resave(f, "image.npy", lambda x: np.broadcast_to(x[:1], x.shape)), "image.npy: has one row, again and again"),
    "a row of another scale": ("native", lambda f: resave(f, "image.npy", lambda x: np.concatenate([x[:1] * 1e6 + 1e6, x[1:]])), "image.npy: row 0 is over 100 times as long as the median row, and left out of"),
    "ratings": ("native", lambda f: change_interactions(f, lambda t: t.append_column("rating", pa.array([5] * 6))), "column rating is not read: every row counts"),
    "ratings in a CSV": ("sgfd", lambda f: resave_csv(f, "train.csv", "asin", "Rating"), "column Rating is not read"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SILENT)
def test_what_a_reader_passes_over_is_told_of(request, kind):
    layout, spoil, line = SILENT[kind]
    folder = request.getfixturevalue(f"{layout}_folder")
    spoil(folder)
    found = [f"{p.severity} {p.where}: {p.what}; {p.remedy}" for p in check_dataset(folder)]
    assert sum(line in each and each.startswith("warning ") for each in found) == 1, found
    load_dataset(folder)


def test_a_file_is_no_data_set(native_folder):
    with pytest.raises(DatasetError, match=r"items\.parquet: is a file; give the folder"):
        check_dataset(native_folder / "items.parquet")
