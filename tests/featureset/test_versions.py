"""Names with versions: what a reference means, and that a version is what its name says."""

import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sgfd.featureset import (
    FeatureSetError,
    inventory,
    lineage,
    load,
    lock_folder,
    push,
    reading,
    verify,
    version_of,
)
from sgfd.featureset.publish import _exchange
from sgfd.featureset.sharing import in_silence

inventory_module = sys.modules["sgfd.featureset.inventory"]


@pytest.fixture
def root(tmp_path, make):
    """Sets `office` (at work) and its two versions, the second of which is the latest."""
    root = tmp_path / "artifacts"
    root.mkdir()
    for seed in range(2):
        make(root / "office", seed, overwrite=True)
        push(load(root / "office"), str(root / "office"))
    return root


def test_a_version_stays_when_the_set_at_work_is_replaced(root, make):
    second = load(root / "office@latest")
    assert second.manifest.seed == 1
    assert second.path.name == f"office@{version_of(second.manifest_sha256)}"
    make(root / "office", 2, overwrite=True)
    assert load(root / "office").manifest.seed == 2
    assert load(root / "office@latest").manifest_sha256 == second.manifest_sha256
    assert not any(verify(path) for path in root.glob("office@[0-9a-f]*"))


def test_a_version_is_named_by_16_digits_or_by_all(root):
    digest = load(root / "office@latest").manifest_sha256
    for digits in (16, 40, 64):
        assert load(root / f"office@{digest[:digits]}").manifest_sha256 == digest
    assert load(root / f"office@{digest[:16]}").label == f"office@{digest[:16]}"
    assert load(root / "office").label == "office"


def test_a_version_goes_by_the_name_it_was_published_under(root):
    done = push(load(root / "office"), str(root / "desk"))
    opened = load(root / "desk@latest")
    assert (opened.manifest.name, opened.label) == ("desk", f"desk@{done.version}")
    assert load(root / opened.label).manifest_sha256 == done.manifest_sha256


def test_a_pointer_that_is_a_pipe_is_refused(root):
    (root / "office@latest").unlink()
    os.mkfifo(root / "office@latest")
    with pytest.raises(FeatureSetError, match="office@latest: is no regular file"):
        load(root / "office@latest")


def test_a_bare_name_is_the_latest_version_where_nothing_is_at_work(root):
    shutil.rmtree(root / "office")
    assert load(root / "office").manifest.seed == 1


def test_an_old_version_can_be_made_the_latest_again(root):
    first = next(path for path in root.glob("office@[0-9a-f]*") if load(path).manifest.seed == 0)
    done = push(load(first), str(root / "office"))
    assert (done.new, done.latest) == (False, True)
    assert load(root / "office@latest").path == first


WRONG = {
    "office@": "names no version",
    "office@newest": "names no version",
    "office@3f2a": "16 to 64 digits",
    "office@../../etc": "no such folder",
    "desk@latest": "desk has no latest version",
    f"office@{'0' * 16}": "there is no such folder",
}


@pytest.mark.parametrize("reference", WRONG)
def test_a_wrong_reference_is_refused_in_one_line(root, reference):
    with pytest.raises(FeatureSetError) as error:
        load(root / reference)
    assert WRONG[reference] in str(error.value)
    assert "\n" not in str(error.value)


def test_a_longer_digest_than_the_folder_bears_counts_too(root):
    digest = load(root / "office@latest").manifest_sha256
    other = digest[:16] + ("1" if digest[16] == "0" else "0") * 48
    with pytest.raises(FeatureSetError, match="it was changed or swapped"):
        load(root / f"office@{other}")


def test_swapped_versions_are_refused(root, tmp_path):
    first, second = sorted(root.glob("office@[0-9a-f]*"))
    for source, target in ((first, "x"), (second, first.name), (tmp_path / "x", second.name)):
        source.rename((tmp_path if target == "x" else root) / target)
    for path in (first, second, root / "office@latest"):
        with pytest.raises(FeatureSetError, match="it was changed or swapped"):
            load(path)
        assert "it was changed or swapped" in verify(path)[0]
    entries, problems = inventory(root)
    assert [each.label for each in entries] == ["office"]
    assert len(problems) == 2


@pytest.mark.parametrize(
    "content", [b"", b"../../etc/passwd\n", b"\xff" * 64, b"a" * 65, b"A" * 64]
)
def test_a_pointer_to_anything_else_is_refused(root, content):
    (root / "office@latest").write_bytes(content)
    with pytest.raises(FeatureSetError, match="is no sha256 of a manifest"):
        load(root / "office@latest")


def test_a_folder_that_its_holders_remove_can_be_locked_at_any_moment(tmp_path):
    folder, wrong, locked = tmp_path / ".office@latest.partial", [], []

    def write():
        for _ in range(400):
            try:
                lock = lock_folder(folder)
            except OSError as error:
                wrong.append(error)
                continue
            if lock is not None:
                locked.append(lock)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)

    threads = [threading.Thread(target=write) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert locked
    assert not wrong


def test_a_file_in_the_place_of_a_folder_is_told_at_last(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        lock_folder(tmp_path / "file")


def test_of_several_writers_one_wins_and_the_others_are_told(tmp_path, make):
    """All have read what the latest version is before any of them moves it."""
    place = tmp_path / "shared" / "office"
    place.parent.mkdir()
    sets = []
    for seed in range(5):
        make(tmp_path / f"set{seed}", seed)
        sets.append(load(tmp_path / f"set{seed}"))
    meet, ended = threading.Barrier(len(sets)), []

    def write(opened):
        def progress(total, label):
            meet.wait()
            return in_silence(total, label)

        try:
            ended.append(push(opened, str(place), progress=progress))
        except FeatureSetError as error:
            ended.append(error)

    threads = [threading.Thread(target=write, args=(opened,)) for opened in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [each for each in ended if isinstance(each, FeatureSetError)]
    (winner,) = (each for each in ended if not isinstance(each, FeatureSetError))
    assert len(told) == 4
    assert all("by another writer meanwhile" in str(error) for error in told)
    assert load(f"{place}@latest").manifest_sha256 == winner.manifest_sha256
    assert not any(verify(path) for path in place.parent.glob("office@[0-9a-f]*"))
    assert not list(place.parent.glob(".*"))


def test_a_reader_sees_a_whole_version_while_latest_moves(tmp_path, make):
    root, wrong, stop = tmp_path / "artifacts", [], threading.Event()
    root.mkdir()
    looks = 0
    expected = {seed: make(tmp_path / f"set{seed}", seed)["text"] for seed in range(2)}
    push(load(tmp_path / "set0"), str(root / "office"))

    def read():
        nonlocal looks
        while not stop.is_set():
            try:
                opened = load(root / "office@latest")
            except Exception as error:
                wrong.append(error)
                break
            if not (opened.modalities["text"] == expected[opened.manifest.seed]).all():
                wrong.append(opened.path)
            looks += 1

    reader = threading.Thread(target=read)
    reader.start()
    for round_ in range(20):
        push(load(tmp_path / f"set{(round_ + 1) % 2}"), str(root / "office"))
    stop.set()
    reader.join()
    assert wrong == []
    assert looks


def test_a_file_that_vanishes_with_its_set_is_looked_for_in_the_next(tmp_path, make, monkeypatch):
    make(tmp_path / "office", 0)
    real = reading.FeatureSet

    def vanishing(path):
        monkeypatch.setattr(reading, "FeatureSet", real)
        make(tmp_path / "office", 1, overwrite=True)
        raise FileNotFoundError(path / "text.npy")

    monkeypatch.setattr(reading, "FeatureSet", vanishing)
    assert load(tmp_path / "office").manifest.seed == 1


def test_rows_of_one_set_are_never_read_with_the_ids_of_another(tmp_path, make):
    make(tmp_path / "office", 0)
    opened = load(tmp_path / "office")
    make(tmp_path / "office", 1, overwrite=True)
    for read in (lambda: opened.item_ids, lambda: opened.align(np.array(["x"]))):
        with pytest.raises(FeatureSetError, match="was replaced meanwhile"):
            read()
    (tmp_path / "office" / "features.parquet").unlink()  # which alone would be called a broken set
    with pytest.raises(FeatureSetError, match="was replaced meanwhile"):
        _ = opened.labels


def test_a_folder_that_can_not_be_exchanged_stays(tmp_path):
    (tmp_path / "good").mkdir()
    with pytest.raises(FileNotFoundError):
        _exchange(tmp_path / "missing", tmp_path / "good")
    assert [path.name for path in tmp_path.iterdir()] == ["good"]


def test_the_inventory_tells_versions_from_what_is_at_work(root, tmp_path):
    (root / "notes").mkdir()
    (root / "broken").mkdir()
    (root / "broken" / "manifest.json").write_text("{}")
    entries, problems = inventory(root)
    states = [(each.label, each.published, each.latest) for each in entries]
    latest = load(root / "office@latest").path.name
    names = [path.parent.name for path in root.glob("*/image.npy")]
    assert sorted(states) == sorted((name, "@" in name, name == latest) for name in names)
    assert len(problems) == 1 and "broken" in problems[0]
    assert inventory(tmp_path / "nowhere") == ([], [])


def test_lineage_of_a_set_that_stage_one_made(root):
    found = lineage(load(root / "office"), root)
    assert found["derived_from"] is None
    assert found["derived"] == []
    assert found["set"]["dataset"]["name"] == "tiny"


def test_lineage_of_many_generations_with_copies_takes_no_longer(monkeypatch):
    """A weekly `embed --append`, published: two folders of each set hold the same manifest."""
    made = [
        SimpleNamespace(
            label=f"s{week}-{copy}",
            manifest_sha256=str(week),
            manifest=SimpleNamespace(
                derived_from=SimpleNamespace(manifest_sha256=str(week - 1)) if week else None
            ),
        )
        for week in range(60)
        for copy in range(3)
    ]
    monkeypatch.setattr(inventory_module, "inventory", lambda root: (made, []))
    monkeypatch.setattr(inventory_module, "_described", lambda opened: None)
    first = SimpleNamespace(manifest_sha256="0", manifest=made[0].manifest)
    found = inventory_module.lineage(first, Path())["derived"]
    assert found == sorted(f"s{week}-{copy}" for week in range(1, 60) for copy in range(3))


def test_a_folder_that_may_not_be_read_is_named_and_hides_no_other(root, monkeypatch):
    locked = root / "lost+found"
    locked.mkdir()
    is_file = Path.is_file

    def refused(path, *options, **more):
        if path.parent == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path, *options, **more)

    before, _ = inventory(root)
    monkeypatch.setattr(Path, "is_file", refused)
    entries, problems = inventory(root)
    assert entries == before
    assert problems == [f"{locked}: can't be read (Permission denied); allow it"]
