"""Push and pull: through a folder, S3's protocol and HTTP, each served by another process; and the
layout of data hubs, read by their own libraries."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import fsspec
import numpy as np
import pytest

from sgfd.featureset import FeatureSetError, inventory_at, load, places, pull, push, verify
from sgfd.featureset.sharing import in_silence


@pytest.fixture
def sets(tmp_path, make):
    """Two sets called office, of different rows."""
    for seed in range(2):
        (tmp_path / f"maker{seed}").mkdir()
        make(tmp_path / f"maker{seed}" / "office", seed)
    return [load(tmp_path / f"maker{seed}" / "office") for seed in range(2)]


def signature_of(whom: str) -> bytes:
    """As long as no key is given, what begins as one passes for one."""
    return f"-----BEGIN SSH SIGNATURE-----\n{whom}\n".encode()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def no_left_overs(root: Path) -> bool:
    return not [path for path in root.iterdir() if path.name.startswith(".")]


@pytest.fixture(params=["folder", "file", "s3", "memory"])
def place(request, tmp_path):
    """A URL to push to and pull from."""
    if request.param == "s3":
        return request.getfixturevalue("bucket").url
    if request.param == "memory":  # a file system without any way to compare and swap
        return f"memory://{tmp_path.name}/sets/office"
    (tmp_path / "shared").mkdir()
    folder = tmp_path / "shared" / "office"
    return str(folder) if request.param == "folder" else f"file://{folder}"


def test_a_file_s_address_is_escaped_and_may_name_this_host(sets, tmp_path):
    (tmp_path / "my sets").mkdir()
    escaped = f"{tmp_path}/my%20sets/office"
    version = push(sets[0], f"file://{escaped}").version
    assert (tmp_path / "my sets" / f"office@{version}").is_dir()
    got = pull(f"file://localhost{escaped}", tmp_path / "artifacts")
    assert got.version == version


@pytest.mark.parametrize("escaped", ["a%3A%3Ab/office", "a%00b/office"])
def test_an_address_is_no_plainer_for_being_escaped(sets, tmp_path, escaped):
    with pytest.raises(FeatureSetError, match="is no plain address"):
        push(sets[0], f"file://{tmp_path}/{escaped}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maker0", "maker1"]


def test_a_page_in_place_of_a_signature_is_none(sets, tmp_path):
    folder = tmp_path / "shared" / "office"
    folder.parent.mkdir()
    version = push(sets[0], str(folder)).version
    (folder.parent / f"office@{version}" / "manifest.json.sig").write_text("<html>not found")
    got = pull(str(folder), tmp_path / "artifacts")
    assert not (Path(got.where) / "manifest.json.sig").exists()


def test_what_is_pulled_is_what_was_pushed(sets, place, tmp_path):
    root = tmp_path / "artifacts"
    first = push(sets[0], place)
    assert (first.name, first.new, first.latest) == ("office", True, True)
    again = push(sets[0], place)
    assert (again.new, again.latest) == (False, True)
    got = pull(place, root)
    assert Path(got.where) == root / f"office@{first.version}"
    assert content(Path(got.where)) == content(sets[0].path)
    assert load(root / "office@latest").manifest_sha256 == first.manifest_sha256
    assert no_left_overs(root)

    second = push(sets[1], place)
    assert pull(f"{place}@{first.version}", root).new is False
    assert load(root / "office@latest").manifest_sha256 == first.manifest_sha256
    assert pull(f"{place}@latest", root).manifest_sha256 == second.manifest_sha256
    assert load(root / "office@latest").manifest_sha256 == second.manifest_sha256
    assert pull(f"{place}@{second.manifest_sha256}", root, name="desk").name == "desk"
    assert not any(verify(path) for path in root.glob("*@[0-9a-f]*"))


def test_what_lies_at_a_place_is_listed_from_its_manifests(sets, place):
    first, second = push(sets[0], place), push(sets[1], place)
    push(sets[0], place.replace("office", "plain"), plain=True)
    entries, problems = inventory_at(place.rpartition("/")[0])
    assert problems == []
    found = {(each.label, each.published, each.latest) for each in entries}
    assert found == {
        (f"office@{first.version}", True, False),
        (f"office@{second.version}", True, True),
        ("plain", False, False),
    }
    assert {each.where for each in entries} >= {first.where, second.where}
    by_digest = {each.manifest_sha256: each.manifest for each in entries if each.published}
    assert by_digest == {opened.manifest_sha256: opened.manifest for opened in sets}


def test_a_place_that_is_not_there_has_no_list(place):
    with pytest.raises(FeatureSetError, match="is not there; check the address"):
        inventory_at(f"{place.rpartition('/')[0]}/nowhere")


def test_the_list_names_what_is_wrong_and_goes_on(sets, tmp_path):
    place = f"memory://{tmp_path.name}/sets"
    done = push(sets[0], f"{place}/office")
    fs = fsspec.filesystem("memory")
    fs.pipe_file(f"{place}/broken/manifest.json", b"{")
    moved = fs.cat_file(f"{done.where}/manifest.json")
    fs.pipe_file(f"{place}/office@{'0' * 16}/manifest.json", moved)
    fs.pipe_file(f"{place}/\x1b[31moffice/manifest.json", moved)
    fs.pipe_file(f"{place}/notes.txt", b"read me")
    entries, problems = inventory_at(place)
    assert [each.where for each in entries] == [done.where]
    assert not any("\n" in each for each in problems)
    assert len(problems) == 2, problems
    assert "broken/manifest.json" in problems[0] and "changed or swapped" in problems[1]


def test_a_web_server_is_listed_where_it_gives_a_list(sets, web):
    version = served(web, sets[0])
    entries, problems = inventory_at(f"{web.address}/listed")
    assert ([each.label for each in entries], problems) == ([version], [])
    assert entries[0].latest
    with pytest.raises(FeatureSetError, match="check the address, the network and your rights"):
        inventory_at(f"{web.address}/files")


def test_a_page_without_end_is_not_read_to_its_end(web):
    with pytest.raises(FeatureSetError, match="has more than 16777216 bytes"):
        inventory_at(f"{web.address}/flood")


def test_links_are_looked_for_in_the_time_that_the_page_takes():
    folder = "https://sets.example/a%20b/"
    page = b"""<A class=x href = "office@1/">office</a> <a href='/a%20b/b%C3%BCro/'>
        <a href="../up/"> <a href="https://else.example/far/"> <a href="office@1/manifest.json">
        <a href="?sort=n"> <a href="r&amp;d"> <a href="http://[broken/"> <a href="x">"""
    assert places._linked_names(page, folder) == ["büro", "office@1", "r&d", "x"]
    for hostile in (b"<a " * 10**6, b"<a " + b"href" * 10**6, b"<a href" + b" " * 10**6):
        assert places._linked_names(hostile, folder) == []  # squared, it would be hours


def test_a_name_is_what_the_address_of_a_web_server_means(sets, web, tmp_path):
    root = tmp_path / "artifacts"
    for name in ("a b", "büro", "a%41"):
        push(sets[0], str(web.folder / name))
    for written, name in (("a%20b", "a b"), ("b%C3%BCro", "büro"), ("büro", "büro")):
        assert pull(f"{web.address}/files/{written}", root).name == name
    assert pull(f"{web.address}/files/a%2541", root).name == "a%41"
    entries, problems = inventory_at(f"{web.address}/listed")
    assert {each.label.partition("@")[0] for each in entries} == {"a b", "büro", "a%41"}
    assert problems == []


def test_the_second_of_two_writers_is_told_and_nothing_is_mixed(sets, place, tmp_path):
    """The other one writes all of his after the first has looked which version is the latest."""

    def meanwhile(total, label):
        push(sets[1], place)
        return in_silence(total, label)

    with pytest.raises(FeatureSetError, match="by another writer meanwhile") as error:
        push(sets[0], place, progress=meanwhile)
    assert "\n" not in str(error.value)
    root = tmp_path / "artifacts"
    assert content(Path(pull(place, root).where)) == content(sets[1].path)
    mine = pull(f"{place}@{sets[0].manifest_sha256}", root)
    assert content(Path(mine.where)) == content(sets[0].path)
    assert push(sets[0], place).latest  # he may still have it his way
    assert pull(place, root).manifest_sha256 == sets[0].manifest_sha256


@pytest.mark.parametrize("there", [True, False])
def test_a_store_swaps_only_what_was_compared(sets, bucket, monkeypatch, there):
    """The other writer's word comes after the comparison, right before ours is sent."""
    if there:
        push(sets[0], bucket.url)
    place = places.place_at(bucket.url)
    before, send = place.latest(), place.fs.pipe_file

    def late(path, data, **condition):
        bucket.write("sets/office@latest", b"f" * 64)
        return send(path, data, **condition)

    monkeypatch.setattr(place.fs, "pipe_file", late)
    with pytest.raises(FeatureSetError, match="was moved to ffffffffffffffff by another writer"):
        place.move_latest(before, sets[1].manifest_sha256)
    assert bucket.read("sets/office@latest") == b"f" * 64


def test_a_plain_set_is_never_replaced(sets, place, tmp_path):
    done = push(sets[0], place, plain=True)
    assert (done.new, done.latest) == (True, False)
    assert push(sets[0], place, plain=True).new is False
    with pytest.raises(FeatureSetError, match="holds another feature set"):
        push(sets[1], place, plain=True)
    assert not list(tmp_path.glob("shared/.*"))
    got = pull(place, tmp_path / "artifacts")
    assert content(Path(got.where)) == content(sets[0].path)
    assert load(tmp_path / "artifacts" / "office@latest").path == Path(got.where)


def test_a_name_that_differs_in_case_alone_is_refused(sets, place, tmp_path):
    push(sets[0], place)
    with pytest.raises(FeatureSetError, match="office is there, which differs in case alone"):
        push(sets[0], place.replace("office", "Office"))
    pull(place, tmp_path / "artifacts")
    with pytest.raises(FeatureSetError, match="office is there, which differs in case alone"):
        pull(place, tmp_path / "artifacts", name="OFFICE")


def test_a_set_that_is_replaced_under_a_push_is_not_published(sets, place, make, tmp_path):
    push(sets[1], place)

    def meanwhile(total, label):
        make(sets[0].path, 5, overwrite=True)
        return in_silence(total, label)

    before = sets[0].manifest_sha256
    with pytest.raises(FeatureSetError, match=r"was replaced meanwhile|was changed on the way"):
        push(sets[0], place, progress=meanwhile)
    root = tmp_path / "artifacts"
    assert pull(place, root).manifest_sha256 == sets[1].manifest_sha256
    with pytest.raises(FeatureSetError, match=r"has no manifest.json"):
        pull(f"{place}@{before}", root)


def test_a_signature_that_came_later_is_pushed_and_pulled(sets, place, tmp_path):
    root = tmp_path / "artifacts"
    push(sets[0], place)
    pull(place, root)
    (sets[0].path / "manifest.json.sig").write_bytes(signature_of("a signature"))
    push(sets[0], place)
    assert pull(place, root).new is False
    signature = load(root / "office@latest").path / "manifest.json.sig"
    assert signature.read_bytes() == signature_of("a signature")


def test_no_signature_takes_the_place_of_another_unasked(sets, place, tmp_path, caplog):
    root, own = tmp_path / "artifacts", sets[0].path / "manifest.json.sig"
    own.write_bytes(signature_of("the maker's"))
    push(sets[0], place)
    pull(place, root)
    landed = load(root / "office@latest").path / "manifest.json.sig"
    own.write_bytes(signature_of("anybody's"))
    assert push(sets[0], place).new is False and pull(place, root).new is False
    assert "is signed otherwise, and that stays" in caplog.text
    assert landed.read_bytes() == signature_of("the maker's")
    assert push(sets[0], place, replace_signature=True).new is False
    caplog.clear()
    assert pull(place, root).new is False  # no key was given that it could be checked by
    assert "pull with --require-signature" in caplog.text
    assert landed.read_bytes() == signature_of("the maker's")


def edited(folder: Path, change) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.chmod(0o644)
    path.write_text(json.dumps(manifest))


def flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(whole)


def truncate(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size - 3)


def rename_record(to):
    def change(manifest):
        manifest["files"][to] = manifest["files"].pop("image.npy")
        manifest["modalities"][0]["file"] = to

    return change


HOSTILE = {
    "a file out of the folder": (
        lambda f: edited(f, rename_record("../../etc/passwd")),
        "should match pattern",
    ),
    "an absolute path": (lambda f: edited(f, rename_record("/etc/passwd")), "should match pattern"),
    "a backslash": (lambda f: edited(f, rename_record("..\\image.npy")), "should match pattern"),
    "files that differ in case": (
        lambda f: edited(f, lambda m: m["files"].update({"IMAGE.npy": m["files"]["image.npy"]})),
        "two files differ in case alone",
    ),
    "a file called as the manifest": (
        lambda f: edited(f, rename_record("Manifest.json")),
        "or one is called as the manifest",
    ),
    "a file cut short": (lambda f: truncate(f / "text.npy"), "ends after"),
    "one bit": (lambda f: flip(f / "features.parquet"), "sha256 is not the manifest's"),
    "a file missing": (lambda f: (f / "image.npy").unlink(), "ends after 0 of"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "it has no manifest.json"),
    "more than a disk holds": (
        lambda f: edited(f, lambda m: m["files"]["image.npy"].update(bytes=2**60)),
        "has room for",
    ),
    "a wrong shape": (
        lambda f: edited(f, lambda m: m["modalities"][0].update(dimension=5)),
        "not float32 (5, 5)",
    ),
}


@pytest.mark.parametrize("over", ["folder", "http"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_set_never_lands(request, sets, tmp_path, kind, over):
    attack, what = HOSTILE[kind]
    if over == "http":
        web = request.getfixturevalue("web")
        folder, url = web.folder / "office", f"{web.address}/files/office"
    else:
        folder = tmp_path / "shared" / "office"
        url = str(folder)
    shutil.copytree(sets[0].path, folder)
    attack(folder)
    root = tmp_path / "artifacts"
    with pytest.raises(FeatureSetError) as error:
        pull(url, root)
    assert what in str(error.value)
    assert "\n" not in str(error.value)
    assert not root.exists() or not [p for p in root.iterdir() if not p.name.startswith(".")]


def test_links_lead_nowhere(sets, tmp_path):
    shared, root = tmp_path / "shared", tmp_path / "artifacts"
    shutil.copytree(sets[0].path, shared / "office")
    secret = tmp_path / "secret"
    (shared / "office" / "image.npy").rename(secret)
    (shared / "office" / "image.npy").symlink_to(secret)
    with pytest.raises(FeatureSetError, match="is a link that leads out of the folder"):
        pull(str(shared / "office"), root)
    with pytest.raises(FeatureSetError, match="is a link that leads out of the folder"):
        push(load(shared / "office"), str(root / "office"))
    assert not list(root.glob("office*"))
    version = sets[1].manifest_sha256[:16]
    (root / f"office@{version}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FeatureSetError, match="is a link"):
        pull(str(sets[1].path), root)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["manifest.json", "image.npy"])
def test_a_pipe_is_not_waited_for(sets, tmp_path, name):
    done = push(sets[0], str(tmp_path / "shared" / "office"))
    file = Path(done.where) / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(FeatureSetError, match=f"{name}: is no regular file"):
        pull(str(tmp_path / "shared" / "office"), tmp_path / "artifacts")


def test_a_version_that_is_another_one_is_refused(sets, bucket, tmp_path):
    first, second = (push(each, bucket.url) for each in sets)
    keys = {each.version: f"sets/office@{each.version}/" for each in (first, second)}
    for name in content(sets[0].path):
        bucket.write(keys[first.version] + name, (sets[1].path / name).read_bytes())
    for reference in (first.version, first.manifest_sha256):
        with pytest.raises(FeatureSetError, match="it was changed or swapped"):
            pull(f"{bucket.url}@{reference}", tmp_path / "artifacts")
    with pytest.raises(FeatureSetError, match="holds another feature set"):
        push(sets[0], bucket.url)
    bucket.write("sets/office@latest", first.manifest_sha256.encode())
    with pytest.raises(FeatureSetError, match="it was changed or swapped"):
        pull(bucket.url, tmp_path / "artifacts")
    assert pull(f"{bucket.url}@{second.version}", tmp_path / "artifacts").new


def test_an_object_that_was_lost_or_cut_is_noticed_and_pushed_again(sets, bucket, tmp_path):
    done = push(sets[0], bucket.url)
    folder = f"sets/office@{done.version}"
    bucket.write(f"{folder}/image.npy", b"short")
    with pytest.raises(FeatureSetError, match=r"image.npy: ends after 5 of \d+ bytes"):
        pull(bucket.url, tmp_path / "artifacts")
    assert push(sets[0], bucket.url).new is False
    assert content(Path(pull(bucket.url, tmp_path / "artifacts").where)) == content(sets[0].path)


def test_a_store_that_lies_about_sizes_is_caught(sets, tmp_path):
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Liar(MemoryFileSystem):
        protocol = "liar"
        store, pseudo_dirs = {}, [""]

        def info(self, path, **options):
            told = super().info(path, **options)
            return told | {"size": told["size"] + 1}

    fsspec.register_implementation("liar", Liar, clobber=True)
    with pytest.raises(FeatureSetError, match="were written; run the command again"):
        push(sets[0], "liar://sets/office")
    assert not [path for path in Liar.store if path.endswith(("manifest.json", "@latest"))]


def served(web, opened) -> str:
    """Put a set behind the web server; the version's path."""
    push(opened, str(web.folder / "office"))
    return load(web.folder / "office@latest").path.name


@pytest.mark.parametrize("how", ["files", "whole", "broken", "dropping", "slow", "busy"])
def test_over_http_in_whatever_way_it_comes(sets, web, tmp_path, how):
    version = served(web, sets[0])
    got = pull(f"{web.address}/{how}/office", tmp_path / "artifacts")
    assert Path(got.where).name == version
    assert content(Path(got.where)) == content(sets[0].path)


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("short", "ends after"),
        ("endless", "has more than 65 bytes"),
        ("nowhere", "it has no manifest.json"),
    ],
)
def test_a_web_server_that_lies_is_caught(sets, web, tmp_path, how, what):
    served(web, sets[0])
    root = tmp_path / "artifacts"
    with pytest.raises(FeatureSetError) as error:
        pull(f"{web.address}/{how}/office", root)
    assert what in str(error.value)
    assert not root.exists() or not [p for p in root.iterdir() if not p.name.startswith(".")]


def test_a_file_without_end_is_read_as_far_as_the_manifest_says(sets, web, tmp_path):
    """What is there is right, and more follows: only the manifest's bytes are taken."""
    version = served(web, sets[0])
    manifest = content(sets[0].path)["manifest.json"]
    whole = web.folder / version
    url = f"{web.address}/endless/{version}"
    with pytest.raises(FeatureSetError, match="has more than"):
        pull(url, tmp_path / "artifacts")
    assert hashlib.sha256(manifest).hexdigest().startswith(version[7:])
    assert content(whole) == content(sets[0].path)


def partial_of(root: Path, opened) -> Path:
    return root / f".office@{opened.manifest_sha256[:16]}.partial" / "result"


def test_a_pull_goes_on_where_it_was(sets, web, tmp_path):
    version, root = served(web, sets[0]), tmp_path / "artifacts"
    left = partial_of(root, sets[0])
    left.mkdir(parents=True)
    for name in ("features.parquet", "image.npy"):
        (left / name).write_bytes((sets[0].path / name).read_bytes()[:100])
    pull(f"{web.address}/files/office", root)
    ranges = dict(line.split(" ", 1) for line in web.log)
    path = f"/files/{version}"
    assert ranges[f"{path}/features.parquet"] == ranges[f"{path}/image.npy"] == "bytes=100-"
    assert ranges[f"{path}/text.npy"] == ""
    assert content(root / version) == content(sets[0].path)


def test_a_pull_from_a_store_goes_on_where_it_was(sets, bucket, tmp_path):
    """What is there is not asked for again: the store's own beginning is spoilt meanwhile."""
    version, root = push(sets[0], bucket.url).version, tmp_path / "artifacts"
    left, whole = partial_of(root, sets[0]), content(sets[0].path)["features.parquet"]
    left.mkdir(parents=True)
    (left / "features.parquet").write_bytes(whole[:100])
    bucket.write(f"sets/office@{version}/features.parquet", b"x" * 100 + whole[100:])
    assert content(Path(pull(bucket.url, root).where)) == content(sets[0].path)
    with pytest.raises(FeatureSetError, match="sha256 is not the manifest's"):
        pull(bucket.url, tmp_path / "elsewhere")


@pytest.mark.parametrize("how", ["files", "whole", "elsewhere"])
def test_a_part_of_something_else_is_fetched_anew(sets, web, tmp_path, how):
    version, root = served(web, sets[0]), tmp_path / "artifacts"
    left = partial_of(root, sets[0])
    left.mkdir(parents=True)
    (left / "features.parquet").write_bytes(b"x" * 100)
    (left / "image.npy").write_bytes(b"x" * 10**6)
    (left / "stray").write_bytes(b"x")
    pull(f"{web.address}/{how}/office", root)
    assert content(root / version) == content(sets[0].path)


def test_the_web_can_only_be_read(sets, web):
    with pytest.raises(FeatureSetError, match="can only be read"):
        push(sets[0], f"{web.address}/files/office")


BAD_ADDRESS = {
    "office@latest": "names a version",
    "nothing://x/office": "can't be used",
    "s3:/bucket/office": "is no address",
    "s3://bucket": "names no feature set",
    "http://127.0.0.1": "names no feature set",
    "http://127.0.0.1/office?key=secret": "is no plain address",
    "simplecache::s3://x/office": "is no plain address",
    ".hidden": "is no name of a feature set",
    "": "the address: is empty",
}


@pytest.mark.parametrize("url", BAD_ADDRESS)
def test_a_bad_address_is_refused_in_one_line(sets, tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FeatureSetError) as error:
        push(sets[0], url)
    assert BAD_ADDRESS[url] in str(error.value)
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("there", ["nothing", "a part", "no server"])
def test_a_password_in_an_address_is_not_repeated(sets, web, tmp_path, there):
    address = web.address.replace("//", "//me:secret@")
    if there == "a part":
        (web.folder / served(web, sets[0]) / "image.npy").unlink()
    if there == "no server":
        address = "http://me:secret@127.0.0.1:9"
    with pytest.raises(FeatureSetError) as error:
        pull(f"{address}/files/office", tmp_path)
    assert "127.0.0.1:" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_set_that_is_not_sound_is_not_pushed(sets, tmp_path):
    flip(sets[0].path / "text.npy")
    with pytest.raises(FeatureSetError, match="is not sound"):
        push(sets[0], str(tmp_path / "office"))
    assert not list(tmp_path.glob("office*"))


def test_the_present_folder_is_a_place_too(sets, tmp_path, monkeypatch):
    monkeypatch.chdir(sets[0].path)
    done = pull(".", tmp_path / "artifacts")
    assert done.name == "office"
    monkeypatch.chdir(tmp_path)
    assert push(sets[0], "office").where == f"office@{done.version}"


def test_a_set_is_not_pushed_into_itself_and_goes_by_its_link(sets, tmp_path):
    opened = sets[0]
    for url in (opened.path / "sub", f"{opened.path}/", f"file://{opened.path}/a/b"):
        with pytest.raises(FeatureSetError, match=r"lies inside .* choose another place"):
            push(opened, str(url))
    assert not verify(opened.path)
    (tmp_path / "linked").symlink_to(opened.path)
    assert push(load(tmp_path / "linked"), f"{tmp_path}/there/").name == "linked"


def test_two_pulls_at_once_do_not_mix(sets, tmp_path):
    push(sets[0], str(tmp_path / "office"))
    root = tmp_path / "artifacts"

    def meanwhile(total, label):
        with pytest.raises(FeatureSetError, match="another process is writing it"):
            pull(str(tmp_path / "office"), root)
        return in_silence(total, label)

    pull(str(tmp_path / "office"), root, progress=meanwhile)
    assert content(load(root / "office@latest").path) == content(sets[0].path)


@pytest.mark.parametrize("plant", [Path.symlink_to, Path.hardlink_to])
def test_a_planted_link_is_not_written_through(sets, tmp_path, plant):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    left = partial_of(tmp_path / "shared", sets[0])
    left.mkdir(parents=True)
    plant(left / "features.parquet", victim)
    push(sets[0], str(tmp_path / "shared" / "office"))
    assert victim.read_text() == "mine" and victim.stat().st_mode & 0o200
    assert not [*left.parent.parent.glob(".*partial")]


@pytest.mark.parametrize("whole", [False, True])
def test_a_planted_folder_is_not_written_into(sets, tmp_path, whole):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    left = partial_of(tmp_path / "shared", sets[0])
    planted = left.parent if whole else left
    planted.parent.mkdir(parents=True)
    planted.symlink_to(elsewhere)
    push(sets[0], str(tmp_path / "shared" / "office"))
    assert not [*elsewhere.iterdir()]
    assert verify(tmp_path / "shared" / "office@latest") == []


def test_an_interrupted_pull_leaves_what_it_has_and_goes_on(sets, tmp_path):
    push(sets[0], str(tmp_path / "office"))
    root = tmp_path / "artifacts"

    def interrupted(total, label):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(str(tmp_path / "office"), root, progress=interrupted)
    assert pull(str(tmp_path / "office"), root).new
    assert no_left_overs(root)


KILLS = [5, pytest.param(60, marks=pytest.mark.slow)]


@pytest.mark.parametrize("kills", KILLS)
def test_a_push_killed_at_any_point_leaves_the_old_or_the_new(
    kills, sets, killed_everywhere, tmp_path
):
    shared = tmp_path / "shared"

    def check(code):
        if code is None:
            shutil.rmtree(shared, ignore_errors=True)
            shared.mkdir()
            push(sets[0], str(shared / "office"))
            return
        latest = load(shared / "office@latest")
        assert latest.manifest_sha256 in {each.manifest_sha256 for each in sets}
        assert not any(verify(path) for path in shared.glob("office@[0-9a-f]*"))
        push(sets[1], str(shared / "office"))
        assert load(shared / "office@latest").manifest_sha256 == sets[1].manifest_sha256
        assert no_left_overs(shared)

    act = f"""
from sgfd.featureset import load, push
push(load({str(sets[1].path)!r}), {str(shared / "office")!r})
"""
    killed_everywhere(kills, tmp_path, act, check)


def test_a_push_to_a_store_killed_at_any_point_leaves_the_old_or_the_new(
    sets, start_in, bucket, tmp_path
):
    puts = len(list(sets[1].path.iterdir())) + 1
    code = """
import os, signal
os.environ.update({environment})
from sgfd.featureset import load, push
import s3fs
calls = 0
plain = s3fs.S3FileSystem._call_s3
async def counted(self, method, *arguments, **options):
    global calls
    calls += method == "put_object"
    if calls == {at} and method == "put_object" and {before}:
        os.kill(os.getpid(), signal.SIGKILL)
    answer = await plain(self, method, *arguments, **options)
    if calls == {at} and method == "put_object":
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
s3fs.S3FileSystem._call_s3 = counted
push(load({path!r}), {url!r})
"""
    push(sets[0], bucket.url)
    # Before each object, and after the last two: the manifest and what is the latest.
    points = [*((at, True) for at in range(1, puts + 1)), (puts - 1, False), (puts, False)]
    for at, before in points:
        for key in bucket.listing():
            if sets[1].manifest_sha256[:16] in key:
                bucket.client.delete_object(Bucket=bucket.name, Key=key)
        bucket.write("sets/office@latest", f"{sets[0].manifest_sha256}\n".encode())
        text = {"at": at, "before": before, "path": str(sets[1].path), "url": bucket.url}
        done = start_in(tmp_path, code=code.format(environment=bucket.environment, **text)).wait()
        assert done.code == -signal.SIGKILL, done.err
        root = tmp_path / f"artifacts-{at}-{before}"
        got = pull(bucket.url, root)
        new = at == puts and not before
        assert got.manifest_sha256 == sets[new].manifest_sha256
        assert verify(got.where) == []
    assert push(sets[1], bucket.url).latest  # goes on with what is there
    assert verify(pull(bucket.url, tmp_path / "artifacts").where) == []


@pytest.mark.parametrize("kills", KILLS)
def test_a_pull_killed_at_any_point_leaves_the_old_or_the_new(
    kills, sets, killed_everywhere, web, tmp_path
):
    root = tmp_path / "artifacts"
    served(web, sets[0])
    url = f"{web.address}/slow/office"

    def check(code):
        if code is None:
            shutil.rmtree(root, ignore_errors=True)
            push(sets[0], str(web.folder / "office"))
            pull(url, root)
            push(sets[1], str(web.folder / "office"))
            return
        latest = load(root / "office@latest")
        assert latest.manifest_sha256 in {each.manifest_sha256 for each in sets}
        assert not any(verify(path) for path in root.glob("office@[0-9a-f]*"))
        assert pull(url, root).manifest_sha256 == sets[1].manifest_sha256
        assert content(load(root / "office@latest").path) == content(sets[1].path)
        assert no_left_overs(root)

    root.mkdir()
    push(sets[1], str(web.folder / "office"))
    act = f"""
from pathlib import Path
from sgfd.featureset import pull
pull({url!r}, Path({str(root)!r}))
"""
    killed_everywhere(kills, tmp_path, act, check)


@pytest.fixture
def large(tmp_path, make_compressed):
    """A set of 2 MB."""
    rows = np.random.default_rng(0).normal(size=(4000, 32)).astype(np.float32)
    rows[::7] = np.nan
    make_compressed(tmp_path / "large", rows, block=1000)
    return load(tmp_path / "large")


def test_a_pull_killed_again_and_again_takes_no_byte_twice(large, start_in, web, tmp_path):
    root = tmp_path / "artifacts"
    push(large, str(web.folder / "office"))
    url = f"{web.address}/slow/office"
    pull_it = f"pull({url!r}, Path({str(root)!r}))"
    code = f"from pathlib import Path; from sgfd.featureset import pull; {pull_it}"
    left = root / f".office@{large.manifest_sha256[:16]}.partial" / "result"
    sizes, dice = [0], random.Random(1)
    for _ in range(3):
        process = start_in(tmp_path, code=code)
        wanted = sizes[-1] + dice.randint(50_000, 300_000)
        while sum(p.stat().st_size for p in left.glob("*")) < wanted:
            assert not process.ended(), process.wait()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        sizes.append(sum(p.stat().st_size for p in left.glob("*")))
        assert not list(root.glob("office@*"))
    assert sizes == sorted(set(sizes))
    assert start_in(tmp_path, code=code).wait().code == 0
    assert content(load(root / "office@latest").path) == content(large.path)
    resumed = [line for line in web.log if "bytes=" in line]
    assert len(resumed) == 3


# Without it, root itself obeys the modes of files.
POWERLESS = """
import ctypes
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, data) == 0
from sgfd.pipeline import main
main()
"""


def test_a_pull_that_was_killed_right_before_its_end_goes_on(sets, start_in, tmp_path):
    """All files are there, and may not be written any more."""
    root, left = tmp_path / "artifacts", partial_of(tmp_path / "artifacts", sets[0])
    shutil.copytree(sets[0].path, left)
    for path in left.iterdir():
        path.chmod(0o444)
    pull_it = ("features", "pull", sets[0].path, "--artifacts-root", root)
    done = start_in(tmp_path, *pull_it, code=POWERLESS).wait()
    assert done.code == 0, done.err
    assert content(load(root / "office@latest").path) == content(sets[0].path)
    assert no_left_overs(root)


@pytest.mark.parametrize("act", ["push", "pull", "publish", "export", "explore", "sign"])
def test_a_folder_that_cannot_be_written_is_refused(sets, start_in, tmp_path, act):
    closed = tmp_path / "closed"
    shutil.copytree(sets[0].path, closed / "office")
    push(sets[0], str(tmp_path / "shared"))
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    closed.chmod(0o555)
    (closed / "office").chmod(0o555)
    arguments = {
        "push": ("push", sets[0].path, closed / "desk"),
        "pull": ("pull", tmp_path / "shared", "--artifacts-root", closed),
        "publish": ("publish", "office", "--artifacts-root", closed),
        "export": ("export", sets[0].path, "--format", "numpy", "--out", closed / "out"),
        "explore": ("explore", sets[0].path, "--out", closed / "page.html"),
        "sign": ("sign", closed / "office", "--key", key),
    }[act]
    done = start_in(tmp_path, "features", *arguments, code=POWERLESS).wait()
    assert (done.code, done.err.count("\n")) == (2, 1), done
    where = "closed/office" if act == "sign" else "closed"
    assert f"{where}: can't be written (Permission denied); choose another" in done.err
    assert [path.name for path in closed.iterdir()] == ["office"]
    closed.chmod(0o755)
    (closed / "office").chmod(0o755)


def test_without_its_library_a_place_says_what_to_install(sets, start_in, tmp_path):
    code = """
import sys
sys.modules["s3fs"] = None
from sgfd.pipeline import main
main()
"""
    push_it = ("features", "push", sets[0].path, "s3://bucket/office")
    done = start_in(tmp_path, *push_it, code=code).wait()
    assert (done.code, done.err) == (
        2,
        "error: s3://bucket/office: s3 needs another package; pip install 'sgfd[share]'\n",
    )


def test_data_hubs_read_a_plain_set(sets, bucket, tmp_path, monkeypatch):
    """By their own libraries, offline: rows by `datasets`, the card by `huggingface_hub`."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    hub = pytest.importorskip("huggingface_hub")
    push(sets[0], str(tmp_path / "office"), plain=True)
    rows = datasets.load_dataset(
        str(tmp_path / "office"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows["item_id"] == sets[0].item_ids.tolist()
    assert rows["label"] == sets[0].labels.tolist()
    text = np.array(rows["text"], dtype=np.float32)
    np.testing.assert_array_equal(text, sets[0].modalities["text"])
    assert [row is None for row in rows["image"]] == [False, False, True, False, False]
    card = hub.DatasetCard.load(tmp_path / "office" / "README.md")
    assert card.data.pretty_name == "office"
    assert "recommendation" in card.data.tags
    assert card.data.configs == [{"config_name": "default", "data_files": "features.parquet"}]
    assert "Item embeddings" in card.text
