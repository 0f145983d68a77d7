"""What MMRec's and Ducho's own programs write is read with its ids."""

import os

import numpy as np
import pandas as pd
import pytest

from sgfd.dataset import DatasetError, load_dataset, read_layout
from sgfd.featureset import load, verify
from sgfd.featureset.formats import export

IDS = ["B0001", "B0002", "B0003"]


@pytest.fixture
def mmrec(tmp_path):
    """Three items, as MMRec's notebooks leave them; pandas writes the mappings there, too."""
    folder = tmp_path / "baby"
    folder.mkdir()
    np.save(folder / "image_feat.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    np.save(folder / "text_feat.npy", np.eye(3, dtype=np.float32))
    pd.DataFrame({"asin": IDS, "itemID": [2, 0, 1]}).to_csv(
        folder / "i_id_mapping.csv", sep="\t", index=False
    )
    return folder


def by_number():
    return ["B0002", "B0003", "B0001"]


def test_mmrec_ids_are_those_of_the_mappings(mmrec):
    pd.DataFrame({"userID": [0, 1], "itemID": [2, 0], "x_label": [0, 2]}).to_csv(
        mmrec / "baby.inter", sep="\t", index=False
    )
    pd.DataFrame({"user_id": ["ann", "bob"], "userID": [1, 0]}).to_csv(
        mmrec / "u_id_mapping.csv", sep="\t", index=False
    )
    loaded = load_dataset(mmrec)
    assert loaded.layout == "mmrec"
    assert loaded.catalog.items.ids.tolist() == by_number()
    assert loaded.interactions.users.ids.tolist() == ["bob", "ann"]
    train = loaded.interactions.train
    assert loaded.catalog.items.ids[train.item].tolist() == ["B0001"]


def test_mmrec_without_interactions_or_mapping(mmrec):
    assert load_dataset(mmrec).interactions is None
    (mmrec / "i_id_mapping.csv").unlink()
    assert load_dataset(mmrec).catalog.items.ids.tolist() == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"asin": ["a", "b"], "itemID": [0, 0]}, "contradict"),
        ({"asin": ["a", "a"], "itemID": [0, 1]}, "contradict"),
        ({"asin": ["a"], "itemID": ["x"]}, "is no whole number"),
        ({"itemID": [0]}, "has no column but itemID"),
        ({"asin": ["a"], "item": [0]}, "has no column itemID"),
    ],
)
def test_a_mapping_that_says_nothing_clear_is_refused(mmrec, table, said):
    pd.DataFrame(table).to_csv(mmrec / "i_id_mapping.csv", sep="\t", index=False)
    with pytest.raises(DatasetError, match=said):
        load_dataset(mmrec)


def test_ids_that_a_mapping_leaves_out_are_told_of(mmrec):
    table = pd.DataFrame({"asin": ["a", "b"], "itemID": [2, 0]})
    table.to_csv(mmrec / "i_id_mapping.csv", sep="\t")  # with the index that pandas writes
    loaded = load_dataset(mmrec)
    assert loaded.catalog.items.ids.tolist() == ["b", "1", "a"]
    assert "1 of 3 have no asin: itemID 1" in loaded.warnings[0].what

    pd.DataFrame({"asin": list("abc"), "itemID": [1, 2, 3]}).to_csv(
        mmrec / "i_id_mapping.csv", sep="\t", index=False
    )
    with pytest.raises(DatasetError, match=r"line 4: itemID 3 is out of range 0\.\.2 \(image_feat"):
        load_dataset(mmrec)


def test_only_users_with_interactions_need_an_id(mmrec):
    (mmrec / "baby.inter").write_text("userID\titemID\tx_label\n1\t0\t0\n1\t1\t2\n3\t2\t0\n")
    users = pd.DataFrame({"user_id": ["ann", "bob", "cy"], "userID": [1, 2, 9]})
    users.to_csv(mmrec / "u_id_mapping.csv", sep="\t", index=False)
    loaded = load_dataset(mmrec)
    assert loaded.interactions.users.ids.tolist() == ["0", "ann", "bob", "3"]
    assert "1 of 2 have no user_id: userID 3" in loaded.warnings[0].what


def save(folder, output, items, model="torch/ResNet50/avgpool"):
    """As Ducho does: a file an item, an array of one row."""
    layer = folder / output / model
    layer.mkdir(parents=True, exist_ok=True)
    for name, row in items.items():
        np.save(layer / f"{name}.npy", np.asarray(row))


@pytest.fixture
def ducho(tmp_path):
    folder = tmp_path / "demo_office"
    images = {f"item{n}": np.full((1, 5), n, np.float32) for n in (10, 2, 1)}
    texts = {"item2": [0.5, 1.5], "item3": [2.5, 3.5]}
    save(folder, "visual_embeddings_32", images)
    model = "sentence_transformers/sentence-transformers/all-mpnet-base-v2/1"
    save(folder, "textual_embeddings_32", texts, model)
    return folder


def test_ducho_items_are_those_of_any_modality(ducho):
    loaded = load_dataset(ducho)
    assert (loaded.layout, loaded.interactions) == ("ducho", None)
    assert loaded.catalog.items.ids.tolist() == ["item1", "item2", "item3", "item10"]
    image, text = (loaded.catalog.features[name].block(0, 4) for name in ("image", "text"))
    nan = np.nan
    np.testing.assert_array_equal(image, np.array([[1], [2], [nan], [10]]).repeat(5, axis=1))
    np.testing.assert_array_equal(text, [[nan] * 2, [0.5, 1.5], [2.5, 3.5], [nan] * 2])


def test_a_file_whose_name_is_no_text_is_named(ducho):
    layer = next(ducho.glob("visual*/torch/*/*"))
    (layer / "item1.npy").rename(layer / os.fsdecode(b"\xff.npy"))
    with pytest.raises(DatasetError, match=r"the name of '\\udcff.npy' is no UTF-8; rename it"):
        load_dataset(ducho)


def test_several_models_of_one_modality_have_their_names(ducho):
    save(ducho, "visual_embeddings_32", {"item1": np.ones((1, 3))}, "transformers/openai/clip/1")
    save(ducho, "visual_embeddings_textual_embeddings_concat", {"item1": np.ones(2)})
    assert set(load_dataset(ducho).catalog.features) == {
        "image_resnet50_avgpool",
        "image_openai_clip_1",
        "text",
        "visual_embeddings_textual_embeddings_concat",
    }


def test_one_model_s_features_of_two_folders_or_backends_are_told_apart(ducho):
    save(ducho, "visual_embeddings_64", {"item1": np.ones(5)})
    save(ducho, "visual_embeddings_32", {"item1": np.ones(5)}, "tensorflow/ResNet50/avgpool")
    assert set(load_dataset(ducho).catalog.features) == {
        "visual_embeddings_32_torch_resnet50_avgpool",
        "visual_embeddings_32_tensorflow_resnet50_avgpool",
        "visual_embeddings_64_torch_resnet50_avgpool",
        "text",
    }
    save(ducho, "visual_embeddings_32", {"item1": np.ones(5)}, "torch/resnet50/avgpool")
    with pytest.raises(DatasetError, match=r"is modality visual_.*, and so is .*/ResNet50/avgpool"):
        load_dataset(ducho)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.ones((7, 7, 5)), r"item4.npy: has shape \(7, 7, 5\)"),
        (np.ones((2, 5)), r"item4.npy: has shape \(2, 5\)"),
        (np.ones((1, 6)), "item4.npy: has 6 numbers, and others of .* have 5"),
        (np.array([{}]), "never unpickled"),
    ],
)
def test_what_is_no_row_is_refused(ducho, values, said):
    save(ducho, "visual_embeddings_32", {"item4": values})
    with pytest.raises(DatasetError, match=said):
        _ = load_dataset(ducho).catalog.features["image"].present


def test_a_layout_that_is_not_there(tmp_path, ducho):
    with pytest.raises(DatasetError, match="has not the files of mmrec"):
        read_layout(ducho, "mmrec")
    with pytest.raises(DatasetError, match="is no folder"):
        read_layout(tmp_path / "x", "ducho")


def test_import_makes_a_set_of_the_features_as_they_are(pipeline, tmp_path, mmrec, ducho):
    done = pipeline("features", "import", ducho, "--format", "ducho", "--out", "office", "--json")
    assert done.code == 0, done.err
    made = load(tmp_path / "artifacts" / "office")
    assert verify(made.path) == []
    assert made.item_ids.tolist() == ["item1", "item2", "item3", "item10"]
    assert made.modalities["text"][1].tolist() == [0.5, 1.5]
    assert done.json()["artifact"] == "artifacts/office"

    done = pipeline("features", "import", mmrec, "--format", "mmrec", "--out", "baby")
    assert done.code == 0, done.err
    made = load(tmp_path / "artifacts" / "baby")
    assert made.item_ids.tolist() == by_number()
    for name, rows in made.modalities.items():
        np.testing.assert_array_equal(rows, np.load(mmrec / f"{name}_feat.npy"))

    # What was exported comes back as it was.
    export(made, tmp_path / "again", "mmrec")
    back = read_layout(tmp_path / "again", "mmrec").catalog
    assert back.items.ids.tolist() == by_number()
    np.testing.assert_array_equal(back.features["image"].block(0, 3), made.modalities["image"])

    done = pipeline("features", "import", ducho, "--format", "mmrec", "--out", "other")
    assert (done.code, "has not the files of mmrec" in done.err) == (2, True)
    assert not (tmp_path / "artifacts" / "other").exists()
