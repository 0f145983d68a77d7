"""Bad input: one line that says what, where and what to do; exit code 2; nothing written."""

import os
import subprocess

import numpy as np
import pandas as pd
import pytest

from sgfd.commands.inputs import runs_made_with

TRAIN = ("train", "--backbone", "bm3", "--dataset", "sample")
TUNE = ("tune", "--backbone", "bpr", "--dataset", "sample")
COMPARE = ("compare", "--dataset", "sample", "--features")
BAD = {
    "unknown command": (("distil",), "No such command 'distil'"),
    "unknown option": ((*TRAIN, "--seeds", "3"), "No such option"),
    "unknown data set": (("distill", "--dataset", "offise"), "data set 'offise': is not in"),
    "unknown backbone": (("train", "--backbone", "bm33", "--dataset", "sample"), "choose bm3"),
    "unknown setting": ((*TRAIN, "--set", "dropuot=0.1"), "choose dropout"),
    "setting out of range": ((*TRAIN, "--set", "dropout=1.5"), "--set dropout=1.5: input should"),
    "setting of the wrong type": (
        (*TRAIN, "--set", "layers=two"),
        "--set layers=two: input should",
    ),
    "setting without a value": ((*TRAIN, "--set", "layers"), "write --set NAME=VALUE"),
    "unknown preset": (("distill", "--dataset", "sample", "--preset", "ofice"), "choose office"),
    "no data set": (("train", "--backbone", "bm3"), "--dataset says what to train on"),
    "no feature set": ((*TRAIN, "--features", "artifacts/x"), "is no feature set"),
    "no run": (("evaluate",), "there is no run"),
    "unknown run": (("evaluate", "--run", "x"), "run 'x': is not in runs and no folder"),
    "test items of a new user": (
        ("recommend", "x", "--items", "i1", "--leave-out-test"),
        "--leave-out-test is of users of the run",
    ),
    "two runs": (("similar", "--item", "i1", "--run", "x", "y"), "two runs are named, y and x"),
    "lists that are no Parquet": (
        ("recommend", "--all", "--out", "x.csv"),
        "--out x.csv: is written as Parquet; end its name in .parquet",
    ),
    "a setting as an option": ((*TRAIN, "--epochs", "3"), "write --set epochs=VALUE"),
    "no data root": (("data", "list", "--data-root", "nope"), "'nope' does not exist"),
    "no artifacts root": (
        ("features", "list", "--artifacts-root", "nope"),
        "--artifacts-root nope: is no folder",
    ),
    "a feature set without a name": ((*TRAIN, "--features", ""), "the feature set's name is empty"),
    "an empty name": ((*TRAIN, "--name", ""), "--name: '' is no plain folder name"),
    "a server that does not answer": (
        ("features", "pull", "ftp://127.0.0.1:1/x"),
        "ftp://127.0.0.1:1/x: can't be read or written (ConnectionRefusedError",
    ),
    "a name that is a path": (("distill", "--dataset", "sample", "--name", "../x"), "plain folder"),
    "no CUDA": ((*TRAIN, "--device", "cuda"), "no CUDA device is available"),
    "negative seed": ((*TRAIN, "--seed", "-1"), "Invalid value for '--seed'"),
    "nothing to compare": (
        (*COMPARE, "none", "--backbones", "content"),
        "compare; content needs features; name other",
    ),
    "a setting of no compared backbone": (
        (*COMPARE, "none", "--backbones", "bpr", "--set", "bm3.layers=2"),
        "write --set bpr.NAME=VALUE",
    ),
    "features named twice": ((*COMPARE, "none,none", "--backbones", "bpr"), "is there twice"),
    "a baseline that is not compared": (
        (*COMPARE, "none", "--backbones", "bpr", "--baseline", "pca"),
        "--baseline pca: is not compared",
    ),
    "unknown protocol": (
        (*COMPARE, "none", "--backbones", "bpr", "--protocols", "fair"),
        "choose honest or paper",
    ),
    "a split that nobody can answer": (
        (*COMPARE, "none", "--backbones", "bpr", "--split", "cold-items"),
        "bpr scores items by id: can't answer",
    ),
    "a split by times that are not there": (
        (*COMPARE, "none", "--backbones", "bpr", "--split", "temporal"),
        "have no timestamps",
    ),
    "another split by the paper's protocol": (
        (
            *COMPARE,
            "none",
            "--backbones",
            "bpr",
            "--split",
            "leave-one-out",
            "--protocols",
            "paper",
        ),
        "choose protocol honest, or split given",
    ),
    "a refit under the paper's protocol": (
        (*TRAIN, "--protocol", "paper", "--refit"),
        "choose protocol honest, or leave the refit out",
    ),
    "no trials": ((*TUNE, "--trials", "0"), "Invalid value for '--trials'"),
    "a setting without a range": ((*TUNE, "--range", "layers=1:3"), "--range layers: unknown"),
    "a range of what is fixed": (
        (*TUNE, "--range", "learning_rate=0.1:1", "--set", "learning_rate=0.1"),
        "--range learning_rate: --set fixes it",
    ),
    "a range of one end": ((*TUNE, "--range", "learning_rate=1"), "write --range NAME=LOW:HIGH"),
    "a range upside down": ((*TUNE, "--range", "learning_rate=1:0.1"), "low end is not below"),
    "a range by logarithm from 0": (
        (*TUNE, "--range", "learning_rate=0:0.1"),
        "needs a low end above 0",
    ),
    "a range of refused values": (
        ("tune", "--backbone", "neumf", "--dataset", "sample", "--range", "dropout=0:2"),
        "input should be less than 1",
    ),
    "nothing to tune": (
        ("tune", "--backbone", "popular", "--dataset", "sample"),
        "has nothing to tune: its settings declare no range",
    ),
    "a range of what features alone need": (
        ("tune", "--backbone", "ease", "--dataset", "sample", "--range", "content_weight=0.1:1"),
        "--range content_weight: makes no difference without features",
    ),
    "unknown compression": (
        ("distill", "--dataset", "nowhere", "--compress", "int8,int4"),
        "--compress int4: unknown; choose int8",
    ),
    "no neighbours": (
        ("distill", "--dataset", "sample", "--neighbours", "0"),
        "Invalid value for '--neighbours'",
    ),
    "no threads": ((*TRAIN, "--threads", "0"), "Invalid value for '--threads'"),
}


@pytest.mark.parametrize("kind", BAD)
def test_it_is_refused_in_one_line_and_nothing_is_written(pipeline, tmp_path, kind):
    arguments, what = BAD[kind]
    if kind == "no CUDA":
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has a CUDA device")
    done = pipeline(*arguments)
    assert done.code == 2, done
    assert what in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_broken_data_set_is_refused_and_checked(pipeline, tmp_path):
    folder = tmp_path / "data" / "shop"
    folder.mkdir(parents=True)
    np.save(folder / "FeatureImage_normal.npy", np.eye(3, 4, dtype=np.float32))
    np.save(folder / "MetaData_normal.npy", np.array([0, 1]))
    done = pipeline("distill", "--dataset", "shop")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "MetaData_normal.npy: has shape (2,) for 3 items" in done.err
    checked = pipeline("data", "check", "shop")
    assert checked.code == 2
    assert "MetaData_normal.npy" in checked.err
    assert checked.out == "shop: 1 error\n"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_is_odd_alone_is_told_and_used(pipeline, tmp_path):
    folder = tmp_path / "data" / "shop"
    folder.mkdir(parents=True)
    np.save(folder / "FeatureImage_normal.npy", np.ones((3, 4), np.float32))
    np.save(folder / "MetaData_normal.npy", np.array([0, 1, 1]))
    checked = pipeline("data", "check", "shop")
    assert (checked.code, checked.out) == (0, "shop: 1 warning\n")
    told = "FeatureImage_normal.npy: has one row, again and again; export it again, or remove it"
    assert told in checked.err
    done = pipeline("distill", "--dataset", "shop", "--method", "standard")
    assert done.code == 0 and told in done.err


def test_an_existing_result_is_kept(pipeline, tmp_path):
    (tmp_path / "artifacts" / "sample").mkdir(parents=True)
    (tmp_path / "artifacts" / "sample" / "mine").write_text("precious")
    done = pipeline("distill", "--dataset", "sample")
    assert done.code == 2
    assert "exists already; choose another name or add --overwrite" in done.err
    assert [p.name for p in (tmp_path / "artifacts" / "sample").iterdir()] == ["mine"]
    assert [p.name for p in (tmp_path / "artifacts").iterdir()] == ["sample"]


def test_a_feature_set_of_other_items_is_refused(pipeline, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    np.save(folder / "FeatureImage_normal.npy", np.eye(8, dtype=np.float32))
    np.save(folder / "MetaData_normal.npy", np.arange(8) % 2)
    assert pipeline("distill", "--dataset", "shop", "--set", "epochs=1").code == 0
    done = pipeline("train", "--backbone", "bm3", "--features", "shop", "--dataset", "sample")
    assert done.code == 2
    assert "has no row for 300 of 300 items" in done.err
    assert "--min-coverage" in done.err
    assert not (tmp_path / "runs").exists()


def test_the_data_set_of_a_feature_set_that_is_elsewhere_is_asked_for(pipeline, tmp_path):
    folder = tmp_path / "elsewhere" / "shop"
    folder.mkdir(parents=True)
    np.save(folder / "FeatureImage_normal.npy", np.eye(8, dtype=np.float32))
    assert pipeline("distill", "--dataset", folder, "--method", "raw").code == 0
    done = pipeline("train", "--backbone", "bm3", "--features", "shop-raw")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "data set 'shop', of which artifacts/shop-raw was made: is not in data" in done.err
    assert "give --dataset" in done.err


@pytest.mark.parametrize("group", [(), ("data",), ("features",)])
def test_a_group_without_a_command_prints_its_help(pipeline, group):
    done = pipeline(*group)
    text = done.out or done.err
    assert text.startswith("Usage: pipeline")
    assert text == pipeline(*group, "--help").out


def test_letters_that_a_terminal_lacks_are_escaped(run_fresh, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "книга"
    folder.mkdir(parents=True)
    columns = {"user_id": ["u", "u"], "item_id": ["a", "b"], "split": ["train", "test"]}
    pd.DataFrame(columns).to_parquet(folder / "interactions.parquet")
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    done = run_fresh(tmp_path, "data", "show", "книга")
    assert (done.code, done.err) == (0, "")
    assert "\\u043a\\u043d\\u0438\\u0433\\u0430" in done.out


def test_numbers_beyond_float32_are_told_of_in_one_line(pipeline, tmp_path):
    folder = tmp_path / "data" / "large"
    folder.mkdir(parents=True)
    pd.DataFrame({"item_id": ["a", "b", "c"]}).to_parquet(folder / "items.parquet")
    np.save(folder / "image.npy", np.array([[1.0, 1e300], [2, 3], [4, 5]]))
    done = pipeline("distill", "--dataset", "large", "--method", "standard")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err


def test_an_unknown_user_is_refused(pipeline):
    assert (
        pipeline("train", "--backbone", "popular", "--dataset", "sample", "--name", "r").code == 0
    )
    done = pipeline("evaluate", "rr")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "run 'rr': is not in runs and no folder; choose r, or give --runs-root" in done.err
    done = pipeline("recommend", "--user", "nobody")
    assert done.code == 2
    assert "user 'nobody': is not among the 600 users" in done.err


def test_a_pipe_that_closes_early_is_no_success(command, tmp_path):
    """As a shell tells of a program that SIGPIPE ended."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            (*command, "data", "show", "sample"),
            stdout=closed,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_name_that_is_no_text_is_refused_before_any_work(command, tmp_path):
    arguments = ("train", "--backbone", "popular", "--dataset", "sample", "--runs-root", b"caf\xe9")
    done = subprocess.run((*command, *arguments), capture_output=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr == b"error: 'caf\\udce9': is no UTF-8; give a name that is\n"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_a_record_is_no_run(tmp_path):
    (tmp_path / "runs" / "odd" / "run.json").mkdir(parents=True)
    nowhere = tmp_path / "nowhere"
    assert runs_made_with("0" * 64, tmp_path / "runs", nowhere, nowhere) == []
