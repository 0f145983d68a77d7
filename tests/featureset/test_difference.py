"""What changed between two sets, against a plain computation over pandas frames."""

import numpy as np
import pandas as pd
import pytest

from sgfd.featureset import (
    DatasetOrigin,
    FeatureSetError,
    FeatureSetWriter,
    Fingerprints,
    Manifest,
    Modality,
    Producer,
    diff,
    load,
    now,
)


def write(folder, ids, **rows):
    """A set without labels or student, of these rows by modality."""
    modalities = [
        Modality(
            name=name,
            file=f"{name}.npy",
            source_dimension=9,
            dimension=values.shape[1],
            normalised=False,
            coverage=float((~np.isnan(values[:, 0])).mean()) if len(values) else 1,
        )
        for name, values in rows.items()
    ]
    origin = DatasetOrigin(
        name="tiny", n_items=len(ids), fingerprints=Fingerprints(catalogue="0" * 64)
    )
    manifest = Manifest(
        name=folder.name,
        created=now(),
        producer=Producer(name="sgfd", version="0"),
        method="raw",
        settings={},
        seed=0,
        dataset=origin,
        modalities=modalities,
    )
    folder.mkdir()
    widths = {name: values.shape[1] for name, values in rows.items()}
    with FeatureSetWriter(folder, ids, [None] * len(ids), widths) as writer:
        writer.append({name: values.astype(np.float32) for name, values in rows.items()})
        writer.finish(manifest)
    return load(folder)


def frame(opened, name):
    return pd.DataFrame(np.asarray(opened.modalities[name], dtype=float), index=opened.item_ids)


@pytest.mark.parametrize("which", ["old", "new"])
def test_rows_that_are_not_finite_are_refused(rng, tmp_path, which):
    rows, ids = rng.normal(size=(20, 5)), [f"i{n}" for n in range(20)]
    old, new = (write(tmp_path / name, ids, text=rows) for name in ("old", "new"))
    np.load(tmp_path / which / "text.npy", mmap_mode="r+")[4, 3] = np.nan
    with pytest.raises(FeatureSetError, match=f"{which}/text.npy: has rows that are not finite"):
        diff(old, new)


def test_items_that_came_went_and_moved(rng, tmp_path):
    before = rng.normal(size=(2000, 5))
    before[[3, 10, 11]] = np.nan
    after = before[::-1].copy()  # another order
    ids = [f"i{number}" for number in range(2000)]
    moved = rng.choice(1500, 40, replace=False) + 100
    after[1999 - moved] = rng.normal(size=(40, 5))
    after[1999 - 10] = 1.0  # i10 has got a row
    after[1999 - 20] = np.nan  # i20 has lost it
    old = write(tmp_path / "old", ids, image=before)
    new = write(tmp_path / "new", ["n1", *ids[::-1][:-2], "n2"], image=after)  # i0, i1: out of line
    found = diff(old, new)

    left, right = frame(old, "image"), frame(new, "image")
    assert found.came == [item for item in right.index if item not in left.index]
    assert found.went == [item for item in left.index if item not in right.index] == ["i0", "i1"]
    both = left.dropna().index.intersection(right.dropna().index)
    a, b = left.loc[both].to_numpy(), right.loc[both].to_numpy()
    cosine = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    other = ~(a == b).all(axis=1)
    (image,) = found.modalities
    assert image.compared == len(both)
    assert image.unchanged == int((~other).sum())
    expected = dict(zip(both[other], cosine[other], strict=True))
    assert dict(image.moved) == pytest.approx(expected)
    assert [c for _, c in image.moved] == sorted(c for _, c in image.moved)
    assert image.mean_cosine == pytest.approx(cosine.mean())
    assert not found.serves and f"{len(expected)} of {len(both)} items have other" in found.why


IDS = list("abcd")


@pytest.mark.parametrize(
    ("change", "serves", "why"),
    [
        (lambda rows: {"image": rows, "text": rows}, True, "the 4 items of both have the same"),
        (lambda rows: {"image": rows * (1 + 1e-6)}, True, "the 4 items of both have the same"),
        (lambda rows: {"image": rows * 1.01}, False, "4 of 4 items have other image rows"),
        (lambda rows: {"image": rows[:, :2]}, False, "image has 2 columns, not 3"),
        (lambda rows: {"text": rows}, False, "image is not there any more"),
    ],
)
def test_whether_runs_can_be_served(rng, tmp_path, change, serves, why):
    rows = rng.normal(size=(4, 3))
    old = write(tmp_path / "old", IDS, image=rows)
    found = diff(old, write(tmp_path / "new", IDS, **change(rows)))
    assert (found.serves, why in found.why) == (serves, True), found.why


def test_an_item_that_has_lost_its_row_is_a_change(rng, tmp_path):
    rows = rng.normal(size=(4, 3))
    old = write(tmp_path / "old", IDS, image=rows)
    rows[1] = np.nan
    found = diff(old, write(tmp_path / "new", IDS, image=rows))
    assert (found.modalities[0].lost, found.modalities[0].moved, found.serves) == (1, [], False)


def test_without_an_item_in_common_and_without_student_nothing_is_promised(rng, tmp_path):
    rows = rng.normal(size=(4, 3))
    old = write(tmp_path / "old", IDS, image=rows)
    found = diff(old, write(tmp_path / "new", list("wxyz"), image=rows))
    assert not found.serves
    assert "nothing else shows" in found.why


def test_a_set_is_no_different_from_itself(compressed_set):
    found = diff(load(compressed_set), load(compressed_set))
    assert (found.came, found.went, found.serves) == ([], [], True)
    assert all(each.is_same and each.mean_cosine == 1 for each in found.modalities)
    assert len(found.modalities) == 4


def test_ids_are_shown_on_one_line_whatever_is_in_them(pipeline, tmp_path):
    write(tmp_path / "old", ["a"], image=np.ones((1, 2)))
    write(tmp_path / "new", ["a", "b\nc\x1b[2J"], image=np.ones((2, 2)))
    done = pipeline("features", "diff", "./old", "./new")
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == r"came          1 item: b\nc\x1b[2J"
