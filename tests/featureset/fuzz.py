"""Mangled feature sets, read for as long as one likes: refused in one line, or read. `make fuzz`.

    python tests/featureset/fuzz.py --seconds 600

Each case mangles a good set, and makes the manifest's sizes and digests fit so that the readers
behind it are met too; then a process of its own opens it, reads all that is in it and verifies it.
A case fails by any other exception than `FeatureSetError`, by a message of several lines, by death,
by more than 20 seconds, or by more memory than twice the set's bytes and 64 MiB. A failing case is
kept, and comes again with its `--seed`.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sgfd.dataset import load_dataset
from sgfd.distill import InteractionMetricSettings, distill
from sgfd.featureset import KINDS, FeatureSetError, load, verify

CASE_SECONDS = 20
FREE_BYTES = 64 * 2**20
REFUSED, READ, FAILED = 10, 11, 12
HOSTILE: list[Any] = [
    *(None, True, -1, 0, 2**31, 2**63, 10**30, 1.5, "", "x" * 100_000, "../x", "/etc/passwd"),
    *("a\nb", "\0", "\u202e", "=1+1", [], {}, [[]], {"": {}}, "1.9", "manifest.json"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; each has the next")
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="folder of failing cases")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        settings = InteractionMetricSettings(dimension=32)
        distill(load_dataset("sample"), good, settings, threads=1, compress=KINDS, neighbours=3)
        outcomes, seed, end = Counter[str](), options.seed, time.monotonic() + options.seconds
        while time.monotonic() < end:
            case = Path(folder) / "case"
            shutil.copytree(good, case)
            mangle(case, random.Random(seed))
            outcome, told = read_in_a_child(case)
            outcomes[outcome] += 1
            if outcome not in ("refused", "read"):
                shutil.copytree(case, options.keep / str(seed), dirs_exist_ok=True)
                say(f"seed {seed}: {outcome}\n{told}")
            shutil.rmtree(case)
            seed += 1
    say(f"{seed - options.seed} cases: {dict(outcomes)}")
    return 0 if set(outcomes) <= {"refused", "read"} else 1


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def mangle(folder: Path, rng: random.Random) -> None:
    """Change one to three things of a set."""
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(sorted(p for p in folder.iterdir() if p.is_file()))
        if path.name == "manifest.json" or rng.random() < 0.3:
            changed = change_json(json.loads((folder / "manifest.json").read_bytes()), rng)
            (folder / "manifest.json").write_text(json.dumps(changed))
            continue
        content = path.read_bytes()
        path.write_bytes(rng.choice(BYTES)(content, rng))
        if rng.random() < 0.8:
            fit(folder, path)
    if rng.random() < 0.1:
        manifest = folder / "manifest.json"
        manifest.write_bytes(rng.choice(BYTES)(manifest.read_bytes(), rng))


def flip(content: bytes, rng: random.Random) -> bytes:
    mangled = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        if mangled:
            # Headers and footers are where a reader can be led astray.
            at = rng.choice((rng.randrange(len(mangled)), rng.randrange(min(300, len(mangled)))))
            mangled[at if rng.random() < 0.7 else -at - 1] ^= 1 << rng.randrange(8)
    return bytes(mangled)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def splice(content: bytes, rng: random.Random) -> bytes:
    at, other = rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)
    return content[:at] + content[other : other + rng.randint(0, 400)] + content[at:]


def huge_number(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(min(400, len(content)) + 1)
    return content[:at] + rng.choice((b"\xff" * 8, b"9" * 12, b"\x7f" + b"\xff" * 7)) + content[at:]


BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, flip, cut, splice, huge_number)


def change_json(value: Any, rng: random.Random) -> Any:
    """The value with something at a random place put in another's stead."""
    if rng.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return rng.choice(HOSTILE)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        return value | {key: change_json(value[key], rng)}
    place = rng.randrange(len(value))
    return [*value[:place], change_json(value[place], rng), *value[place + 1 :]]


def fit(folder: Path, path: Path) -> None:
    """Let the manifest, where it can be read, say what the file is now."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        content = path.read_bytes()
        manifest["files"][path.name] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
    except (ValueError, TypeError, KeyError):
        return
    (folder / "manifest.json").write_text(json.dumps(manifest))


def read_in_a_child(folder: Path) -> tuple[str, str]:
    """What came of reading it, and what was said."""
    told = folder.with_suffix(".told")
    child = os.fork()
    if child == 0:
        signal.alarm(CASE_SECONDS)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        code = read_all(folder, told)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        if grown > 2 * size + FREE_BYTES:
            told.write_text(f"{grown / 2**20:.0f} MiB for a set of {size / 2**20:.1f} MiB")
            code = FAILED
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return ("hung" if number == signal.SIGALRM else f"killed by signal {number}"), ""
    code = os.WEXITSTATUS(status)
    outcome = {REFUSED: "refused", READ: "read"}.get(code, "failed")
    return outcome, told.read_text() if outcome == "failed" and told.exists() else ""


def read_all(folder: Path, told: Path) -> int:
    try:
        problems = verify(folder)
        opened = load(folder)
        for rows in opened.modalities.values():
            np.asarray(rows)
        opened.align(np.asarray(opened.item_ids))
        opened.labels, opened.neighbours(), opened.student()
        if any("\n" in problem for problem in problems):
            raise ValueError(f"several lines: {problems}")
        return REFUSED if problems else READ
    except FeatureSetError as error:
        if "\n" in str(error):
            told.write_text(repr(str(error)))
            return FAILED
        return REFUSED
    except BaseException:
        told.write_text(traceback.format_exc())
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
