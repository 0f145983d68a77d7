"""Who published a feature set: a signature of its manifest, by the SSH keys that people have.

The manifest holds the sha256 of every other file, so its signature is one of all bytes. It lies
beside it as `manifest.json.sig`, made and checked by OpenSSH's `ssh-keygen -Y`; anybody can check
it without this program.
"""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.manifest import MANIFEST, SIGNATURE
from sgfd.featureset.places import Folder
from sgfd.featureset.publish import write_file
from sgfd.featureset.reading import FeatureSet

NAMESPACE = "sgfd-feature-set"  # a signature made for anything else is none here
SIGNATURE_BYTES = 2**16

_HEAD = b"-----BEGIN SSH SIGNATURE-----"
_SIGNER = "signer"
_PUBLIC_KEY = re.compile(r"((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+=*)(?: .*)?")


def sign(opened: FeatureSet, key: Path) -> Path:
    """Sign a set's manifest with a private SSH key; a passphrase is asked for on the terminal.

    Returns:
        The file of the signature, which replaces one that is there.

    Raises:
        FeatureSetError: the key can't be used, or there is no ssh-keygen.
    """
    if not key.is_file():
        raise FeatureSetError(key, "is no file", "give a private key of ssh-keygen")
    content = (opened.path / MANIFEST).read_bytes()
    done = _ssh_keygen(["sign", "-q", "-f", str(key)], content)
    if done.returncode or not done.stdout:
        remedy = "give a private key of ssh-keygen"
        if key.stat().st_mode & 0o077:
            remedy += f", which nobody else may read (chmod 600 {key})"
        raise FeatureSetError(key, f"can't sign ({_reason(done.stderr)})", remedy)
    target = opened.path / SIGNATURE
    write_file(target, done.stdout)
    return target


def check_signature_of(opened: FeatureSet, key: Path) -> None:
    """Whether a set was signed, as `check_signature`."""
    signature = signature_in(Folder.local(opened.path))
    manifest = (opened.path / MANIFEST).read_bytes()
    check_signature(opened.path / SIGNATURE, manifest, signature, key)


def signature_in(folder: Folder) -> bytes | None:
    """The signature that lies there; None where there is none.

    A web server may answer with a page of its own where there is no such file: that is none.

    Raises:
        FeatureSetError: the file is longer than any, or can't be read.
    """
    return folder.read_or_none(SIGNATURE, SIGNATURE_BYTES, head=_HEAD)


def check_signature(where: str | Path, manifest: bytes, signature: bytes | None, key: Path) -> None:
    """Whether a manifest was signed with the private part of a key.

    Args:
        where: the signature's place, for messages.
        signature: its file's content; None where there is none.
        key: a file of public keys, one a line, as ssh-keygen writes them (`.pub`); any will do.

    Raises:
        FeatureSetError: it was not.
    """
    allowed = _public_keys(key)
    if signature is None:
        raise FeatureSetError(
            where, "the manifest is not signed", "have it signed: `pipeline features sign`"
        )
    with tempfile.TemporaryDirectory() as folder:
        signers, file = Path(folder) / "signers", Path(folder) / SIGNATURE
        signers.write_text("".join(f"{_SIGNER} {kind} {body}\n" for kind, body in allowed))
        file.write_bytes(signature)
        done = _ssh_keygen(["verify", "-f", str(signers), "-I", _SIGNER, "-s", str(file)], manifest)
    if done.returncode:
        raise FeatureSetError(
            where,
            f"is no signature of this manifest by a key of {key}",
            "get the set again from whoever made it, or give the maker's key",
        )


def _public_keys(path: Path) -> list[tuple[str, str]]:
    """Type and body of each key in a file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FeatureSetError(path, f"can't be read ({error})", "give a .pub file") from None
    keys = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            # No line of options is taken over: what it restricts would be lost on the way.
            match = _PUBLIC_KEY.fullmatch(line.strip())
            if match is None:
                raise FeatureSetError(
                    path, "holds a line that is no public key", "give a .pub file of ssh-keygen"
                )
            keys.append((match[1], match[2]))
    if not keys:
        raise FeatureSetError(path, "holds no public key", "give a .pub file of ssh-keygen")
    return keys


def _ssh_keygen(arguments: list[str], content: bytes) -> "subprocess.CompletedProcess[bytes]":
    program = shutil.which("ssh-keygen")
    if program is None:
        raise FeatureSetError("signature", "needs ssh-keygen", "install OpenSSH's client")
    action, *rest = arguments
    return subprocess.run(
        [program, "-Y", action, "-n", NAMESPACE, *rest],
        input=content,
        capture_output=True,
        check=False,
    )


def _reason(text: bytes) -> str:
    """What ssh-keygen says, without the frames that it draws around a warning."""
    lines = (line.strip(" @") for line in text.decode(errors="replace").splitlines())
    return next((line for line in lines if line), "no reason given")
