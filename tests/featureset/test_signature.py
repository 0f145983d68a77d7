"""Signatures of the manifest, made and checked by OpenSSH."""

import shutil
import subprocess

import pytest

from sgfd.featureset import FeatureSetError, check_signature_of, load, pull, push, sign, verify
from sgfd.featureset.signature import NAMESPACE

pytestmark = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen (OpenSSH's client) is not installed"
)


def new_key(path, kind="ed25519"):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Private keys of the maker and of a stranger; the public ones are beside them."""
    folder = tmp_path_factory.mktemp("keys")
    return new_key(folder / "maker"), new_key(folder / "stranger")


def public(key):
    return key.with_suffix(".pub")


def test_what_is_signed_is_known_by_the_public_key(feature_set, keys):
    file = sign(load(feature_set), keys[0])
    assert file.name == "manifest.json.sig"
    check_signature_of(load(feature_set), public(keys[0]))
    assert verify(feature_set) == []
    with pytest.raises(FeatureSetError, match="is no signature of this manifest by a key of"):
        check_signature_of(load(feature_set), public(keys[1]))


@pytest.mark.parametrize("spoil", ["longer than any", "elsewhere", "a page", "a long page"])
def test_what_push_takes_for_no_signature_is_none_here(feature_set, keys, tmp_path, spoil):
    file = sign(load(feature_set), keys[0])
    if spoil == "elsewhere":
        file.rename(tmp_path / "signature")
        file.symlink_to(tmp_path / "signature")
    else:
        content = file.read_bytes()
        page = b"<html>" * (2**16 if spoil == "a long page" else 1)
        file.write_bytes(content + b"\n" * 2**16 if spoil == "longer than any" else page)
    told = {"elsewhere": "leads out of", "longer than any": "more than"}
    with pytest.raises(FeatureSetError, match=told.get(spoil, "not signed")):
        check_signature_of(load(feature_set), public(keys[0]))


def test_openssh_alone_agrees(feature_set, keys, tmp_path):
    sign(load(feature_set), keys[0])
    signers = tmp_path / "signers"
    signers.write_text(f"maker@example.org {public(keys[0]).read_text()}")
    verify_it = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", "maker@example.org"]
    with (feature_set / "manifest.json").open("rb") as manifest:
        done = subprocess.run(
            [*verify_it, "-n", NAMESPACE, "-s", feature_set / "manifest.json.sig"],
            stdin=manifest,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr


def test_one_of_several_keys_will_do_of_whatever_kind(feature_set, keys, tmp_path):
    ecdsa = new_key(tmp_path / "ecdsa", "ecdsa")
    sign(load(feature_set), ecdsa)
    team = tmp_path / "team.pub"
    team.write_text("# the team\n\n" + "".join(public(k).read_text() for k in (*keys, ecdsa)))
    check_signature_of(load(feature_set), team)


def test_another_manifest_is_not_signed(feature_set, keys):
    sign(load(feature_set), keys[0])
    manifest = feature_set / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(FeatureSetError, match="is no signature of this manifest"):
        check_signature_of(load(feature_set), public(keys[0]))


def test_a_signature_for_another_purpose_counts_for_nothing(feature_set, keys):
    sign_it = ["ssh-keygen", "-Y", "sign", "-q", "-f", keys[0], "-n", "git"]
    subprocess.run([*sign_it, feature_set / "manifest.json"], check=True, capture_output=True)
    with pytest.raises(FeatureSetError, match="is no signature of this manifest"):
        check_signature_of(load(feature_set), public(keys[0]))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "holds no public key"),
        ("restrict,cert-authority ssh-ed25519 AAAA\n", "holds a line that is no public key"),
        ("-oProxyCommand=x AAAA\n", "holds a line that is no public key"),
        (None, "can't be read"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused(feature_set, keys, tmp_path, content, what):
    sign(load(feature_set), keys[0])
    file = tmp_path / "x.pub"
    if content is not None:
        file.write_text(content)
    with pytest.raises(FeatureSetError, match=what) as error:
        check_signature_of(load(feature_set), file)
    assert "\n" not in str(error.value)


def test_a_key_that_cannot_sign_is_refused(feature_set, keys, tmp_path):
    (tmp_path / "garbage").write_text("no key")
    open_to_all = new_key(tmp_path / "open")
    open_to_all.chmod(0o644)
    for key, what in (
        (tmp_path / "garbage", "can't sign"),
        (tmp_path / "none", "is no file"),
        (open_to_all, r"can't sign \(WARNING: UNPROTECTED PRIVATE KEY.*chmod 600"),
    ):
        with pytest.raises(FeatureSetError, match=what):
            sign(load(feature_set), key)
    assert not (feature_set / "manifest.json.sig").exists()


def test_a_pull_takes_only_what_is_signed(feature_set, keys, tmp_path):
    place, root = str(tmp_path / "shared" / "office"), tmp_path / "artifacts"
    (tmp_path / "shared").mkdir()
    push(load(feature_set), place)
    with pytest.raises(FeatureSetError, match="the manifest is not signed"):
        pull(place, root, key=public(keys[0]))
    sign(load(feature_set), keys[0])
    push(load(feature_set), place)
    with pytest.raises(FeatureSetError, match="is no signature of this manifest"):
        pull(place, root, key=public(keys[1]))
    assert not root.exists()
    pull(place, root, key=public(keys[0]))
    check_signature_of(load(root / "office@latest"), public(keys[0]))
    sign(load(feature_set), keys[1])
    push(load(feature_set), place, replace_signature=True)
    pull(place, root, key=public(keys[1]))  # whose key is trusted may sign anew
    check_signature_of(load(root / "office@latest"), public(keys[1]))
