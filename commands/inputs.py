"""From what a user names to what is meant: data sets, feature sets, runs."""

import difflib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sgfd.commands.output import problem_line
from sgfd.commands.settings import names_in, read_settings

if TYPE_CHECKING:
    from sgfd.dataset import Dataset
    from sgfd.featureset import FeatureSet
    from sgfd.recommenders import Backbone, BackboneSettings, Run

logger = logging.getLogger("sgfd")


@dataclass(frozen=True)
class TrainingInputs:
    """What `training_options` name, opened.

    Attributes:
        fixed: names of the settings that were given a value.
        options: the rest, as `recommenders.train` takes it.
    """

    backbone: str
    settings: "BackboneSettings"
    fixed: tuple[str, ...]
    features: "FeatureSet | None"
    dataset: "Dataset"
    options: dict[str, Any]


def backbone_class(name: str | None) -> "type[Backbone]":
    """The backbone of `training_options`."""
    from sgfd.recommenders import find_backbone

    if name is None:
        raise click.UsageError("missing option --backbone; name a recommender")
    return find_backbone(name)


def training_inputs(options: dict[str, Any]) -> TrainingInputs:
    """From `training_options` to what they mean; settings are checked before data is read."""
    from sgfd import recommenders

    left = dict(options)
    backbone, preset, overrides = (left.pop(key) for key in ("backbone", "preset", "overrides"))
    kind = backbone_class(backbone)
    base = recommenders.find_preset(kind, preset) if preset else None
    settings = read_settings(kind.Settings, overrides, base)

    features, reference = None, left.pop("features")
    artifacts_root, data_root = left.pop("artifacts_root"), left.pop("data_root")
    if reference not in (None, "none"):
        features = open_features(reference, artifacts_root)
    dataset = left.pop("dataset")
    if dataset is None:
        if features is None:
            raise click.UsageError("without --features, --dataset says what to train on; add it")
        dataset = _dataset_of(features, data_root)
    loaded = load(dataset, data_root)
    fixed = names_in(overrides)
    if features is None:
        _say_what_has_no_effect(kind, fixed)
    judge_users = left["judge_users"]
    left["judge_users"] = read_ids(judge_users) if judge_users else None
    return TrainingInputs(backbone, settings, fixed, features, loaded, left)


def _say_what_has_no_effect(kind: "type[Backbone]", fixed: tuple[str, ...]) -> None:
    """Name the options and settings given that are of features alone."""
    context = click.get_current_context()
    of_features = ("feature_scale", "modalities", "dimension", "trust_features", "min_coverage")
    spelled = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    idle = [
        spelled[name]
        for name in of_features
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    ranges = kind.ranges()
    idle += [name for name in fixed if name in ranges and ranges[name].features]
    if idle:
        logger.warning("%s: without effect, as there are no features", " and ".join(idle))


def _dataset_of(features: "FeatureSet", data_root: Path | None) -> str:
    """The data set that a feature set names, which may lie elsewhere here.

    Raises:
        UsageError: there is none of that name.
    """
    from sgfd.dataset import DatasetError, find_dataset
    from sgfd.dataset.load import SAMPLE, find_data_root

    name = features.manifest.dataset.name
    try:
        if name != SAMPLE:
            find_dataset(name, data_root)
    except DatasetError:
        raise click.UsageError(
            f"data set {name!r}, of which {features.path} was made: is not in "
            f"{find_data_root(data_root)} and no folder; give --dataset or --data-root"
        ) from None
    return name


def load(reference: str, data_root: Path | None) -> "Dataset":
    """A data set; what the loader had to repair is said on standard error."""
    from sgfd.dataset import load_dataset

    loaded = load_dataset(reference, data_root)
    for problem in loaded.warnings:
        click.echo(f"warning: {problem_line(problem)}", err=True)
    return loaded


def features_path(reference: str, artifacts_root: Path) -> Path:
    """A feature set by its name under the artifacts' root, or by folder.

    Behind an @ stands the version, or `latest`; a bare name is the latest where there is no folder
    of that name.

    Raises:
        UsageError: there is none, but one whose name is near.
    """
    if not reference:
        raise click.UsageError("the feature set's name is empty; give its folder or name")
    if reference.partition("/")[0] in (".", ".."):
        return Path(reference)
    named = artifacts_root / reference
    is_version = "@" in reference and "/" not in reference and not Path(reference).is_dir()
    is_name = named.is_dir() or named.with_name(f"{named.name}@latest").is_file()
    if is_version or is_name:
        return named
    if not Path(reference).exists() and artifacts_root.is_dir():
        known = {
            path.name.partition("@")[0]
            for path in artifacts_root.glob("[!.]*")
            if path.is_dir() or path.name.endswith("@latest")
        }
        if near := difflib.get_close_matches(reference, sorted(known), cutoff=0.5):
            raise click.UsageError(
                f"feature set {reference!r}: is not in {artifacts_root} and no folder; "
                f"choose {' or '.join(near)}, or give --artifacts-root"
            )
    return Path(reference)


def open_features(reference: str, artifacts_root: Path) -> "FeatureSet":
    from sgfd.featureset import load

    return load(features_path(reference, artifacts_root))


def open_run(argument: str | None, option: str | None, runs_root: Path) -> "Run":
    """A run by folder or by its name under the runs' root; the newest one where none is named.

    Raises:
        UsageError: there is none, or both the argument and the option name one.
    """
    from sgfd.recommenders import load_run

    if argument is not None and option is not None:
        raise click.UsageError(f"two runs are named, {argument} and {option}; leave one out")
    reference = option if argument is None else argument
    folders = [Path(reference), runs_root / reference] if reference else []
    folders.sort(key=lambda folder: not (folder / "run.json").is_file())  # another may be so called
    for folder in folders:
        if folder.is_dir():
            return load_run(folder)
    records = sorted(runs_root.glob("[!.]*/run.json"), key=lambda path: path.stat().st_mtime)
    if reference is None:
        if not records:
            raise click.UsageError(
                f"{runs_root}: there is no run; train one, or name it with --run"
            )
        newest = records[-1].parent
        click.echo(f"run           {newest} (the newest; RUN names another)", err=True)
        return load_run(newest)
    known = [record.parent.name for record in records]
    near = difflib.get_close_matches(reference, known, cutoff=0.5) or known[:-6:-1]
    remedy = f"choose {' or '.join(near)}" if near else "train one"
    raise click.UsageError(
        f"run {reference!r}: is not in {runs_root} and no folder; {remedy}, or give --runs-root"
    )


def runs_made_with(
    manifest_sha256: str, runs_root: Path, tunings_root: Path, comparisons_root: Path
) -> list[str]:
    """Folders of the runs that a feature set was used in, those of searches and comparisons too."""
    found = []
    places = (
        *sorted(runs_root.glob("[!.]*/run.json")),
        *sorted(tunings_root.glob("[!.]*/run/run.json")),
        *sorted(comparisons_root.glob("[!.]*/runs/[!.]*/run.json")),
    )
    for record in places:
        try:
            features = json.loads(record.read_bytes())["features"]
            made_with = features is not None and features["manifest_sha256"] == manifest_sha256
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # no record of a run, or none that we may read
        if made_with:
            found.append(str(record.parent))
    return found


def read_ids(path: Path) -> list[str]:
    """The ids of a text file, one a line; empty lines are none."""
    try:
        # Not splitlines, which takes signs for ends of a line that an id may have.
        return [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line]
    except UnicodeDecodeError:
        raise click.UsageError(f"{path}: is not UTF-8; save it as UTF-8") from None


def result_path(reference: str, root: Path, option: str) -> Path:
    """Where a result goes: to a folder of its own, where there is a / in it, else under the root.

    Raises:
        UsageError: it names no folder of its own.
    """
    if "/" not in reference:
        return root / plain_name(reference, option)
    plain_name(Path(reference).name, option)
    return Path(reference)


def plain_name(name: str, option: str) -> str:
    from sgfd.featureset.manifest import NAME_RULE, is_name

    if not is_name(name):
        raise click.UsageError(f"{option}: {name!r} is no plain folder name; {NAME_RULE}")
    return name
