"""What a comparison's folder is about, so that a half-done one never goes on with other inputs."""

import json
from pathlib import Path
from typing import Any, get_args

from sgfd.dataset import Protocol
from sgfd.featureset import write_file
from sgfd.jobs import JobError

IDENTITY = "comparison.json"


def remember(identity: dict[str, Any], folder: Path) -> None:
    """Write what is compared, or hold it against what was compared here before.

    Raises:
        JobError: something changed; nothing is written.
    """
    known = unchanged(identity, folder)
    write_file(folder / IDENTITY, (json.dumps(known, indent=2) + "\n").encode())


def unchanged(identity: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What is compared in a folder, now and before.

    More backbones and feature sets may come; those that are there must be what they were. Settings
    may change while nothing was made with them.

    Raises:
        JobError: something changed, named in the message; the file can't be read.
    """
    identity = json.loads(json.dumps(identity))
    path = folder / IDENTITY
    if not path.exists():
        return identity
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(before, dict):
            raise ValueError("no object")
        changed = [
            key
            for key in ("format", "dataset", "catalogue")
            if before.get(key, identity[key]) != identity[key]
        ]
        changed += _other_options(before["options"], identity["options"])
        if not changed and before.get("parts", identity["parts"]) != identity["parts"]:
            changed.append("parts")  # of the same data set by the same options
        for kind in ("features", "settings"):
            both = before[kind].keys() & identity[kind].keys()
            changed += [
                f"{kind} of {name}"
                for name in sorted(both)
                if before[kind][name] != identity[kind][name]
                and (kind == "features" or _has_results(name, folder))
            ]
            identity[kind] = before[kind] | identity[kind]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise JobError(
            path,
            f"can't be read ({type(error).__name__}); it says of what inputs the cells were made",
            "choose another --name",
        ) from None
    if changed:
        raise JobError(
            folder,
            f"its cells were made with other inputs ({', '.join(changed)})",
            "choose another --name, or delete the folder to make all of it again",
        )
    return identity


def _other_options(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """`device auto, now cpu` for each option that is not what it was."""

    def shown(options: dict[str, Any], name: str) -> str:
        return json.dumps(options[name]).strip('"') if name in options else "not given"

    return [
        f"{name} {shown(before, name)}, now {shown(now, name)}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def _has_results(backbone: str, folder: Path) -> bool:
    """Whether a backbone has a run or a search in a comparison."""
    for protocol in get_args(Protocol):  # a feature set's name may hold a backbone's
        if any((folder / "runs").glob(f"{protocol}-{backbone}-*/run.json")):
            return True
    return any((folder / "tunings").glob(f"{backbone}-*"))
