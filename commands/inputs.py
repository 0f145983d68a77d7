"""From what a user names to what is meant: data sets, feature sets, runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgfd.commands.output import problem_line

if TYPE_CHECKING:
    from sgfd.dataset import Dataset
    from sgfd.featureset import FeatureSet
    from sgfd.recommenders import Run


def load(reference: str, data_root: Path | None) -> "Dataset":
    """A data set; what the loader had to repair is said on standard error."""
    from sgfd.dataset import load_dataset

    loaded = load_dataset(reference, data_root)
    for problem in loaded.warnings:
        click.echo(f"warning: {problem_line(problem)}", err=True)
    return loaded


def features_path(reference: str, artifacts_root: Path) -> Path:
    """A feature set by its name under the artifacts' root, or by folder."""
    named = artifacts_root / reference
    return named if reference and named.is_dir() else Path(reference)


def open_features(reference: str | None, artifacts_root: Path) -> "FeatureSet":
    from sgfd.featureset import load

    return load(features_path(reference or "", artifacts_root))


def open_run(reference: str | None, runs_root: Path) -> "Run":
    """A run by folder or by its name under the runs' root; the newest one where none is named."""
    from sgfd.recommenders import load_run

    if reference is None:
        records = sorted(runs_root.glob("[!.]*/run.json"), key=lambda path: path.stat().st_mtime)
        if not records:
            raise click.UsageError(
                f"{runs_root}: there is no run; train one, or name it with --run"
            )
        return load_run(records[-1].parent)
    path = Path(reference)
    return load_run(path if path.is_dir() else runs_root / reference)


def read_ids(path: Path) -> list[str]:
    """The ids of a text file, one a line; empty lines are none."""
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line]
    except UnicodeDecodeError:
        raise click.UsageError(f"{path}: is not UTF-8; save it as UTF-8") from None


def plain_name(name: str, option: str) -> str:
    if name in ("", ".", "..") or "/" in name or name.startswith("."):
        raise click.UsageError(f"{option}: {name!r} is no plain folder name; leave out / and dots")
    return name
