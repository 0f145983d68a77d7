"""`pipeline features publish | push | pull | list | diff | lineage | sign | verify`, as a team
uses them."""

import hashlib
import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

from sgfd.dataset import load_dataset
from sgfd.featureset import load as load_features
from sgfd.recommenders.comparison import label_features

METHOD = ("--method", "interaction-metric", "--set", "dimension=16")


@pytest.fixture(scope="module")
def made(run_in, tmp_path_factory):
    """Sets of the sample: `office`, `other` of another width, and by the student of `office`:
    `both` with new items behind the old, `fresh` of new items alone, `changed` of old ones."""
    folder = tmp_path_factory.mktemp("made")
    for name, dimension in (("office", 16), ("other", 8)):
        method = (*METHOD[:-1], f"dimension={dimension}", "--name", name)
        assert run_in(folder, "distill", "--dataset", "sample", *method).code == 0
    rng = np.random.default_rng(3)
    for catalogue, ids in (("new", "new {}"), ("old", "i{}")):
        (folder / catalogue).mkdir()
        table = pd.DataFrame({"item_id": [ids.format(i) for i in range(1, 9)]})
        table.to_parquet(folder / catalogue / "items.parquet")
        for name, feature in load_dataset("sample").catalog.features.items():
            rows = rng.normal(size=(8, feature.dimension)).astype(np.float32)
            np.save(folder / catalogue / f"{name}.npy", rows)
    embed = ("features", "embed", "--features", "office", "--catalogue")
    for catalogue, name, more in (
        ("new", "both", ["--append"]),
        ("new", "fresh", []),
        ("old", "changed", []),
    ):
        done = run_in(folder, *embed, catalogue, "--out", name, *more)
        assert done.code == 0, done.err
    return folder


TRAIN = ("train", "--backbone", "content", "--threads", "1", "--dataset", "sample", "--features")


def test_a_training_pins_the_version_that_latest_means(here, pipeline):
    first = pipeline("features", "publish", "office", "--json").json()
    run = pipeline(*TRAIN, "office@latest", "--name", "run", "--json").json()
    assert (run["features"], run["features_version"]) == ("office", first["version"])
    shutil.move(here / "artifacts" / "other", here / "artifacts" / "new-office")
    second = pipeline("features", "publish", "new-office", "--name", "office", "--json").json()
    record = json.loads((here / "runs" / "run" / "run.json").read_text())
    assert record["features"]["manifest_sha256"] == first["manifest_sha256"]
    again = pipeline(*TRAIN, f"office@{first['version']}", "--name", "again", "--json").json()
    assert again["metrics"] == run["metrics"]
    newer = pipeline(*TRAIN, "office@latest", "--name", "newer")
    assert f"features      office@{second['version']}" in newer.out  # the name that finds it again

    listed = pipeline("features", "list", "--json").json()
    states = {each["path"]: (each["published"], each["latest"]) for each in listed["sets"]}
    assert states[first["where"]] == (True, False)
    assert states[second["where"]] == (True, True)
    assert states["artifacts/office"] == (False, False)
    text = pipeline("features", "list").out.splitlines()
    assert any(line.startswith("both") and line.endswith("not published") for line in text)
    assert any(line.endswith(f"is {first['version']}") for line in text)
    runs = pipeline("features", "lineage", f"office@{first['version']}", "--json").json()["runs"]
    assert runs == ["runs/again", "runs/run"]


def test_lineage_names_the_runs_of_searches_and_comparisons(here, pipeline):
    quick = ("--features", "other", "--set")
    tune = ("tune", "--backbone", "vbpr", "--trials", "1", "--name", "t", *quick, "epochs=1")
    assert pipeline(*tune).code == 0
    compare = ("compare", "--dataset", "sample", "--backbones", "vbpr", "--seeds", "1")
    assert pipeline(*compare, "--name", "c", *quick, "vbpr.epochs=1").code == 0
    runs = pipeline("features", "lineage", "other", "--json").json()["runs"]
    assert runs[-2:] == ["tunings/t/run", "comparisons/c/runs/honest-vbpr-other-seed0"]


def test_what_is_published_stays_when_the_set_is_made_anew(here, pipeline):
    first = pipeline("features", "publish", "office", "--json").json()
    again = ("distill", "--dataset", "sample", "--method", "pca", "--name", "office")
    assert pipeline(*again, "--overwrite").code == 0
    assert pipeline("features", "verify", "office@latest").code == 0
    shown = pipeline("features", "show", "office@latest").out
    assert f"version       {first['version']}  {first['where']}" in shown
    assert "(interaction-metric, seed 0)" in shown
    assert "(pca, seed 0)" in pipeline("features", "show", "office").out


def test_two_versions_of_a_name_are_compared_under_names_of_their_own(here, pipeline):
    publish = ("features", "publish", "--name", "office", "--json")
    versions = [pipeline(*publish, name).json()["where"] for name in ("office", "other")]
    opened = [load_features(here / version) for version in versions]
    labels = [version.removeprefix("artifacts/") for version in versions]
    assert list(label_features(opened)) == labels


@pytest.mark.parametrize("new", ["office", "both", "fresh", "changed", "other"])
def test_diff_says_what_recommend_then_does(here, pipeline, new):
    """The oracle is the run itself: it takes the other set's new items, or refuses them."""
    assert pipeline(*TRAIN, "office", "--name", "run").code == 0
    found = pipeline("features", "diff", "office", new, "--json").json()
    recommended = pipeline("recommend", "run", "--user", "u1", "--new-items", new)
    assert found["serves"] == (recommended.code == 0), (found["why"], recommended.err)
    assert found["serves"] == (new != "other")
    if new == "both":
        assert found["came"] == [f"new {i}" for i in range(1, 9)]
        assert (found["went"], found["stayed"]) == ([], 300)
    if new == "changed":  # by the same student, from newer generic features
        assert "8 of 8 items have other fused rows now" in found["why"]
        moved = next(m["moved"] for m in found["modalities"] if m["name"] == "fused")
        assert sorted(item for item, _ in moved) == [f"i{i}" for i in range(1, 9)]
    words = pipeline("features", "diff", "office", new).out
    assert f"serves        {'yes' if found['serves'] else 'NO'}: {found['why']}" in words


def test_lineage_goes_up_and_down(here, pipeline):
    up = pipeline("features", "lineage", "both").out
    assert "300 rows kept, 8 items of new added" in up
    down = pipeline("features", "lineage", "office", "--json").json()
    assert down["derived"] == ["both", "changed", "fresh"]
    shutil.rmtree(here / "artifacts" / "office")
    assert "(not at hand)" in pipeline("features", "lineage", "both").out


@pytest.mark.parametrize(
    ("features", "catalogue"),
    [("office", "sample"), ("both", "sample"), ("both", "new"), ("fresh", "new")],
)
def test_the_student_gives_the_rows_again(here, pipeline, features, catalogue):
    assert pipeline("features", "verify", features, "--catalogue", catalogue).code == 0
    folder = here / "artifacts" / features
    tensors = load_file(folder / "student.safetensors")
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name][0] += 0.05
    save_file(tensors, folder / "student.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "student.safetensors").read_bytes()
    manifest["files"]["student.safetensors"] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert pipeline("features", "verify", features).code == 0  # each file is as recorded
    done = pipeline("features", "verify", features, "--catalogue", catalogue)
    assert done.code == 2
    assert "the student gives another row for item" in done.err


def test_another_catalogue_is_none_to_verify_by(here, pipeline):
    done = pipeline("features", "verify", "office", "--catalogue", "new")
    assert done.code == 2
    assert "was not made from the catalogue new as it is now" in done.err


def test_from_maker_to_user_over_a_folder_signed(here, pipeline, run_in, tmp_path_factory):
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen (OpenSSH's client) is not installed")
    user = tmp_path_factory.mktemp("user")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", here / "key"], check=True)
    place, key = here / "net" / "office", ("--require-signature", here / "key.pub")
    (here / "net").mkdir()
    unsigned = pipeline("features", "verify", "office", *key)
    assert (unsigned.code, unsigned.err.count("\n")) == (2, 1)
    assert "the manifest is not signed" in unsigned.err
    assert pipeline("features", "sign", "office", "--key", "key").code == 0
    assert "signed by a key of" in pipeline("features", "verify", "office", *key).out
    pushed = pipeline("features", "push", "office", place, "--json").json()
    pulled = run_in(user, "features", "pull", place, *key, "--json")
    assert pulled.code == 0, pulled.err
    assert pulled.json() == pushed | {"where": f"artifacts/office@{pushed['version']}"}
    assert run_in(user, "features", "verify", "office@latest", *key).code == 0
    trained = run_in(user, *TRAIN, "office", "--json")  # nothing else bears that name there
    assert trained.json()["features_version"] == pushed["version"]


def test_a_push_into_a_folder_keeps_the_name(here, pipeline):
    pushed = pipeline("features", "push", "office", "shared/", "--json").json()
    assert pushed["where"] == f"shared/office@{pushed['version']}"


def test_show_says_what_guided_a_set_and_how_it_was_made(here, pipeline):
    shown = pipeline("features", "show", "office").out
    assert " training interactions: split given, seed 0, protocol honest\n" in shown
    assert "settings      dimension 16, " in shown


def test_an_interrupted_pull_says_so_and_goes_on(here, start_in, pipeline):
    stop = """
import os, signal
from sgfd.featureset import places
before = places.Folder.receive
def receive(self, name, *rest):
    if name == "text.npy":
        os.kill(os.getpid(), signal.SIGINT)
    before(self, name, *rest)
places.Folder.receive = receive
from sgfd.pipeline import main
main()
"""
    (here / "net").mkdir()
    assert pipeline("features", "push", "office", "net/office").code == 0
    pull = ("features", "pull", "net/office", "--artifacts-root", "mine")
    done = start_in(here, *pull, code=stop).wait()
    assert (done.code, done.err.count("\n")) == (130, 1), done.err
    assert not list((here / "mine").glob("office*"))
    assert pipeline(*pull).code == 0
    assert not list((here / "mine").glob(".*"))


BAD = {
    "a version as a name": (("distill", "--dataset", "sample", "--name", "a@b"), "plain folder"),
    "a misspelt set": (("features", "show", "ofice"), "choose office, or give --artifacts-root"),
    "no such version": (("features", "show", f"office@{'0' * 16}"), "see `pipeline features list`"),
    "no version": (("features", "show", "office@new"), "names no version"),
    "nothing published": ((*TRAIN, "both@latest"), "both has no latest version"),
    "nowhere to push to": (("features", "push", "office", "x://y/office"), "can't be used"),
    "nothing to pull": (("features", "pull", "nowhere/office"), "it has no manifest.json"),
    "a published name with a dot": (
        ("features", "publish", "office", "--name", ".x"),
        "plain folder",
    ),
    "no key": (("features", "sign", "office", "--key", "none"), "none: is no file"),
    "an embedding into a version": (
        (
            *("features", "embed", "--features", "office", "--catalogue", "new"),
            *("--out", f"artifacts/office@{'0' * 16}"),
        ),
        "plain folder",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_it_is_refused_in_one_line_and_nothing_is_written(here, pipeline, kind):
    before = sorted(path for path in here.rglob("*"))
    arguments, what = BAD[kind]
    done = pipeline(*arguments)
    assert (done.code, done.err.count("\n"), done.out) == (2, 1, ""), done
    assert what in done.err
    assert sorted(path for path in here.rglob("*")) == before
