"""Each layout loads as it is, and real data sets do."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sgfd.dataset import DatasetError, list_datasets, load, load_dataset


def test_sgfd_layout_keeps_string_ids_labels_titles_and_gaps(sgfd_folder):
    dataset = load_dataset(sgfd_folder)
    catalog, interactions = dataset.catalog, dataset.interactions
    assert (dataset.name, dataset.layout, dataset.warnings) == ("small", "sgfd", ())
    assert catalog.items.ids.tolist() == ["B0", "B1", "B2", "B3", "B4"]
    assert interactions.users.ids.tolist() == ["R0", "R1", "R2"]
    assert interactions.items is catalog.items
    assert catalog.label_names == ("Pens", "Desks")
    assert catalog.labels.tolist() == [1, 1, 0, 0, -1]
    assert catalog.titles[3] == "Item, 3"
    assert {name: f.shape for name, f in catalog.features.items()} == {
        "image": (5, 4),
        "text": (5, 3),
    }
    assert catalog.features["image"].present.tolist() == [True, False, True, True, True]
    assert interactions.valid is None
    assert (len(interactions.train), len(interactions.test)) == (5, 2)


def test_native_layout_reads_columns_files_and_parts(native_folder):
    dataset = load_dataset(native_folder)
    catalog, interactions = dataset.catalog, dataset.interactions
    assert catalog.items.ids.tolist() == ["a", "b", "c", "d"]
    assert catalog.titles.tolist() == ["A", None, "C", "D"]
    assert catalog.labels.tolist() == [0, 1, -1, 0]
    text = catalog.features["text"]
    np.testing.assert_array_equal(text.rows(np.array([3, 0])), [[3, 1], [0, 1]])
    assert text.present.tolist() == [True, True, False, True]
    assert isinstance(text.values, np.memmap)
    assert interactions.users.ids.tolist() == ["u", "v", "w"]
    assert interactions.train.item.tolist() == [0, 0, 1]
    assert interactions.valid.item.tolist() == [3]
    assert interactions.train.timestamp.tolist() == [1, 3, 5]


def test_mmrec_layout_reads_parts_by_label(mmrec_folder):
    dataset = load_dataset(mmrec_folder)
    assert dataset.layout == "mmrec"
    assert set(dataset.catalog.features) == {"image", "text"}
    assert dataset.interactions.train.item.tolist() == [0, 2]
    assert dataset.interactions.valid.item.tolist() == [0]
    assert dataset.interactions.test.item.tolist() == [1]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["1399420800", "4", "3", "1600000000000000001"], [1399420800, 4, 3, 16 * 10**17 + 1]),
        (["0.5", "2.5", "0.25", "2.5"], [1, 2, 0, 2]),
        (
            ["1970-01-02", "1970-01-01T00:00:01", "1970-01-01", "1970-01-01T00:00:00+00:00"],
            [86_400_000_000, 1_000_000, 0, 0],
        ),
    ],
    ids=["whole", "fractions", "dates"],
)
def test_times_of_mmrec_and_sgfd_are_read(mmrec_folder, sgfd_folder, times, expected):
    rows = ["0\t0\t5\t{}\t0", "0\t1\t4\t{}\t2", "1\t2\t5\t{}\t0", "1\t0\t3\t{}\t1"]
    lines = [row.format(time) for row, time in zip(rows, times, strict=True)]
    text = "\n".join(["userID\titemID\trating\ttimestamp\tx_label", *lines]) + "\n"
    (mmrec_folder / "baby.inter").write_text(text)
    loaded = load_dataset(mmrec_folder)
    parts = loaded.interactions
    found = [part.timestamp.tolist() for part in (parts.train, parts.valid, parts.test)]
    assert found == [[expected[0], expected[2]], [expected[3]], [expected[1]]]
    assert "column rating is not read" in loaded.warnings[0].what

    for name, part in (("train", lines[:2]), ("test", lines[2:])):
        rows = [",".join(line.split("\t")[:4]) for line in part]
        (sgfd_folder / f"{name}.csv").write_text(
            "\n".join(["userID,itemID,rating,timestamp", *rows])
        )
    parts = load_dataset(sgfd_folder).interactions
    assert [p.timestamp.tolist() for p in (parts.train, parts.test)] == [expected[:2], expected[2:]]


def test_a_model_s_name_in_a_file_s_may_have_signs(sgfd_folder):
    file = sgfd_folder / "FeatureText_all-MiniLM-L6.v2_normal.npy"
    (sgfd_folder / "FeatureText_bert_normal.npy").rename(file)
    assert set(load_dataset(sgfd_folder).catalog.features) == {"image", "text"}
    np.save(sgfd_folder / "FeatureText_bert_normal.npy", np.load(file))
    named = {"image", "text_all_minilm_l6_v2", "text_bert"}
    assert set(load_dataset(sgfd_folder).catalog.features) == named


def test_a_catalogue_without_interactions_loads(sgfd_folder):
    for name in ("train", "test"):
        (sgfd_folder / f"{name}.csv").unlink()
    dataset = load_dataset(sgfd_folder)
    assert dataset.interactions is None
    assert dataset.catalog.n_items == 5


def test_interactions_alone_load(sgfd_folder):
    for file in (*sgfd_folder.glob("*.npy"), sgfd_folder / "items.csv", sgfd_folder / "labels.csv"):
        file.unlink()
    dataset = load_dataset(sgfd_folder)
    assert dataset.catalog is None
    assert dataset.interactions.items.ids.tolist() == ["B0", "B1", "B2", "B3", "B4"]


def test_features_are_read_from_the_file_when_they_are_asked_for(sgfd_folder):
    feature = load_dataset(sgfd_folder).catalog.features["image"]
    assert isinstance(feature.values, np.memmap)
    assert isinstance(feature.block(0, 2), np.memmap)
    whole = np.concatenate([block for _, block in feature.blocks(2)])
    np.testing.assert_array_equal(whole, np.load(sgfd_folder / "FeatureImage_normal.npy"))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_numbers_become_float32(sgfd_folder, dtype, order):
    values = np.asarray(np.arange(20).reshape(5, 4), dtype=dtype, order=order)
    np.save(sgfd_folder / "FeatureImage_normal.npy", values)
    feature = load_dataset(sgfd_folder).catalog.features["image"]
    assert feature.block(1, 3).dtype == np.float32
    assert feature.block(1, 3).flags.writeable  # torch warns of what is not
    np.testing.assert_array_equal(feature.block(1, 3), values[1:3])
    np.testing.assert_array_equal(feature.rows(np.array([4])), values[4:])


def test_fingerprints_follow_the_content(sgfd_folder):
    def fingerprints():
        dataset = load_dataset(sgfd_folder)
        catalog, interactions = dataset.catalog, dataset.interactions
        return catalog.fingerprint(), catalog.labels_fingerprint(), interactions.fingerprint()

    before = fingerprints()
    assert fingerprints() == before
    values = np.load(sgfd_folder / "FeatureImage_normal.npy")
    values[0, 0] += 1
    np.save(sgfd_folder / "FeatureImage_normal.npy", values)
    np.save(sgfd_folder / "MetaData_normal.npy", np.array([7, 7, 3, 3, 3]))
    after = fingerprints()
    assert [new == old for new, old in zip(after, before, strict=True)] == [False, False, True]


def test_a_data_set_is_called_by_its_folder_also_a_link(tmp_path, sgfd_folder, monkeypatch):
    link = tmp_path / "data" / "linked"
    link.parent.mkdir()
    link.symlink_to(sgfd_folder)
    assert load_dataset("linked", link.parent).name == "linked"
    (sgfd_folder / "below").mkdir()
    monkeypatch.chdir(sgfd_folder / "below")
    assert load_dataset("..").name == "small"
    monkeypatch.chdir(sgfd_folder)
    assert load_dataset(".").name == "small"


def test_an_unknown_name_is_answered_with_near_ones(tmp_path, sgfd_folder):
    assert list_datasets(tmp_path) == [("sample", "sample"), ("small", "sgfd")]
    with pytest.raises(DatasetError, match="choose small"):
        load_dataset("smal", tmp_path)


def test_office_loads_as_it_is(shared_data):
    office = load_dataset(shared_data / "office")
    catalog, interactions = office.catalog, office.interactions
    assert (interactions.n_users, catalog.n_items, office.warnings) == (4874, 2406, ())
    assert (len(interactions.train), len(interactions.test)) == (37027, 15930)
    lacking = {name: int((~f.present).sum()) for name, f in catalog.features.items()}
    assert lacking == {"title": 3, "description": 597}
    assert (len(catalog.label_names), int((catalog.labels < 0).sum())) == (58, 97)
    first = pd.read_csv(shared_data / "office" / "train.csv").iloc[0]
    assert catalog.items.id(first.itemID) == first.asin
    assert interactions.users.id(first.userID) == first.reviewerID


def test_ml100k_loads_as_it_is(shared_data):
    movies = load_dataset(shared_data / "ml100k")
    catalog, interactions = movies.catalog, movies.interactions
    assert (interactions.n_users, catalog.n_items, movies.warnings) == (938, 1008, ())
    assert len(interactions.train) + len(interactions.test) == 54413
    assert {name: int((~f.present).sum()) for name, f in catalog.features.items()} == {
        "image": 30,
        "text": 38,
    }
    assert (len(catalog.label_names), int((catalog.labels < 0).sum())) == (17, 1)


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        (pa.array([-5, None, -1, 7]), [0, -1, -1, 1], ("-5", "7")),
        (pa.array([2**64 - 1, 0, None, 0], pa.uint64()), [1, 0, -1, 0], ("0", f"{2**64 - 1}")),
        (pa.array([3, None, -1, 3], pa.int8()).dictionary_encode(), [0, -1, -1, 0], ("3",)),
    ],
)
def test_any_whole_number_is_a_category_but_minus_one(native_folder, values, labels, names):
    path = native_folder / "items.parquet"
    table = pq.read_table(path).drop_columns(["category"])
    pq.write_table(table.append_column("category", values), path)
    catalog = load_dataset(native_folder).catalog
    assert (catalog.labels.tolist(), catalog.label_names) == (labels, names)


def test_columns_of_nothing_lack_for_every_item(native_folder):
    path = native_folder / "items.parquet"
    pd.read_parquet(path, columns=["item_id"]).assign(title=None, category=None).to_parquet(path)
    (native_folder / "interactions.parquet").unlink()
    catalog = load_dataset(native_folder).catalog
    assert catalog.titles.tolist() == [None] * 4
    assert (catalog.labels.tolist(), catalog.label_names) == ([-1] * 4, ())


@pytest.mark.parametrize(
    ("times", "whole"),
    [
        ([0.5, 0.25, 0.5, 0.75, 1.0, 0.0], [2, 1, 2, 3, 4, 0]),
        ([6e18, 5.0, 1e30, -2.0, 0.0, 1.0], [4, 3, 5, 0, 1, 2]),
        ([60.0, 30.0, 0.0, -1.0, 90.0, 9.0], [60, 30, 0, -1, 90, 9]),
    ],
)
def test_fractions_of_a_time_keep_their_order(native_folder, times, whole):
    path = native_folder / "interactions.parquet"
    table = pq.read_table(path).drop_columns(["timestamp", "split"])
    split = pa.array(["train"] * 6)
    table = table.append_column("timestamp", pa.array(times)).append_column("split", split)
    pq.write_table(table, path)
    assert load_dataset(native_folder).interactions.train.timestamp.tolist() == whole


def test_without_split_the_last_of_each_user_are_the_test(native_folder):
    table = pa.table(
        {
            "user_id": ["u"] * 4 + ["v"],
            "item_id": ["a", "b", "c", "d", "a"],
            "timestamp": pa.array([4, 3, 2, 1, 9], pa.int64()),
        }
    )
    pq.write_table(table, native_folder / "interactions.parquet")
    dataset = load_dataset(native_folder)
    assert dataset.interactions.test.item.tolist() == [0]
    assert dataset.interactions.users.ids[dataset.interactions.test.user].tolist() == ["u"]
    assert [problem.what for problem in dataset.warnings] == ["has no column split"]


@pytest.mark.parametrize("timed", [True, False])
def test_without_split_a_repeated_pair_is_one_and_held_out_at_its_first_time(native_folder, timed):
    events = {"user_id": ["u"] * 6, "item_id": ["a", "b", "c", "a", "d", "d"]}
    if timed:
        events["timestamp"] = pa.array([1, 2, 3, 5, 4, 6], pa.int64())
    pq.write_table(pa.table(events), native_folder / "interactions.parquet")
    dataset = load_dataset(native_folder)
    parts = dataset.interactions
    assert sorted([*parts.train.item, *parts.test.item]) == [0, 1, 2, 3]
    assert len(parts.test) == 1
    if timed:
        assert (parts.test.item.tolist(), parts.test.timestamp.tolist()) == ([3], [4])
    assert "rows 3, 5: 2 pairs stand there before" in " ".join(p.what for p in dataset.warnings)


def test_a_folder_that_may_not_be_read_hides_no_other(tmp_path, sgfd_folder, monkeypatch):
    (sgfd_folder.parent / "lost+found").mkdir()

    def refused(folder):
        if folder.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(folder))
        return recognise(folder)

    recognise = load.recognise
    monkeypatch.setattr(load, "recognise", refused)
    assert ("small", "sgfd") in list_datasets(sgfd_folder.parent)
    with pytest.raises(DatasetError, match="choose small"):
        load_dataset("smal", sgfd_folder.parent)


def test_a_point_is_where_one_is_whatever_the_data_root(sgfd_folder, monkeypatch):
    monkeypatch.chdir(sgfd_folder)
    monkeypatch.setenv("PIPELINE_DATA", str(sgfd_folder.parent))
    for here in (".", "../small"):
        assert load_dataset(here).name == "small"


def test_features_that_nothing_names_are_told_of(native_folder):
    np.save(native_folder / "image.npy", np.ones((4, 2), np.float32))
    (native_folder / "items.parquet").unlink()
    warnings = load_dataset(native_folder).warnings
    told = [each.where for each in warnings if each.what == "is not read without items.parquet"]
    assert told == sorted(map(str, native_folder.glob("*.npy")))
