"""`pipeline compare`: backbones on several feature sets, over seeds, with an answer in words."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from sgfd.commands.inputs import load, open_features, plain_name, read_ids
from sgfd.commands.options import (
    NAMES,
    artifacts_root_option,
    comparisons_root_option,
    data_root_option,
    device_option,
    dimension_option,
    json_option,
    judge_users_option,
    min_coverage_option,
    refit_option,
    scale_option,
    split_option,
    split_seed_option,
    threads_option,
    trust_option,
)
from sgfd.commands.output import counted, present
from sgfd.commands.settings import read_settings

SHOWN = ("recall@20", "ndcg@20")  # metrics whose comparison is put in words


@click.command()
@click.option("--dataset", required=True, help="A data set: name, folder, or sample.")
@click.option("--backbones", type=NAMES, required=True, help="Names with commas between, or all.")
@click.option(
    "--features",
    type=NAMES,
    required=True,
    help="Feature sets (folders or names) with commas between; none is the training without.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Trainings of each backbone on each features, by the seeds from 0.",
)
@click.option(
    "--protocols",
    type=NAMES,
    default="honest",
    show_default=True,
    help="honest, or honest,paper to set the paper's protocol beside it.",
)
@click.option("--baseline", help="Features that the others are held against [default: none].")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="BACKBONE.NAME=VALUE",
    help="Change a setting of a backbone; repeatable.",
)
@split_option
@judge_users_option
@click.option(
    "--tune",
    "trials",
    type=click.IntRange(1),
    metavar="TRIALS",
    help="First search each backbone's settings on each feature set, by so many trials on valid.",
)
@refit_option
@split_seed_option
@scale_option
@dimension_option
@trust_option
@min_coverage_option
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Trainings at a time [default: one a thread, one on a GPU].",
)
@click.option("--plan", is_flag=True, help="Say what would run and how long it takes, and stop.")
@click.option("--name", help="Name of the comparison's folder [default: of data set and split].")
@comparisons_root_option
@device_option
@threads_option
@data_root_option
@artifacts_root_option
@json_option
def compare(
    dataset: str,
    backbones: list[str],
    features: list[str],
    seeds: int,
    protocols: list[str],
    baseline: str | None,
    overrides: tuple[str, ...],
    split: str,
    judge_users: Path | None,
    trials: int | None,
    refit: bool,
    split_seed: int,
    feature_scale: str,
    dimension: int | None,
    trust_features: bool,
    min_coverage: float,
    jobs: int | None,
    plan: bool,
    name: str | None,
    comparisons_root: Path,
    device: str,
    threads: int | None,
    data_root: Path | None,
    artifacts_root: Path,
    as_json: bool,
) -> int:
    """Compare feature sets: every backbone on each, over seeds. Exit code 1 if a cell failed.

    Goes on where it was stopped; the same command with more backbones, features or seeds adds to
    what is there. The report lies in the comparison's folder. --threads are those of all trainings
    together. Under --split cold-items, backbones that score items by id and trainings without
    features can't answer, and are told of.
    """
    from sgfd.jobs import use_device, use_threads
    from sgfd.recommenders import comparison

    on_gpu = use_device(device).type == "cuda"
    settings = _settings(_all_or(backbones), overrides)
    opened = [
        None if reference == "none" else open_features(reference, artifacts_root)
        for reference in features
    ]
    options: dict[str, Any] = {"split_seed": split_seed, "device": device}
    # Only what differs from the defaults: it tells comparisons apart.
    chosen = {
        "split": split,
        "feature_scale": feature_scale,
        "min_coverage": min_coverage,
        "dimension": dimension,
        "trust_features": trust_features,
    }
    defaults = {each.name: each.default for each in click.get_current_context().command.params}
    options |= {
        name: value
        for name, value in chosen.items()
        if value is not None and value != defaults[name]
    }
    if judge_users is not None:
        options["judge_users"] = read_ids(judge_users)
    grid = comparison.Grid(
        dataset=load(dataset, data_root),
        reference=dataset,
        data_root=data_root,
        features=comparison.label_features(opened),
        settings=settings,
        seeds=seeds,
        protocols=comparison.protocols_of(protocols),
        options=options,
        tune=trials or 0,
        fixed=_fixed(overrides),
        refit=refit,
    )
    usual = grid.dataset.name if split == "given" else f"{grid.dataset.name}-{split}"
    folder = comparisons_root / plain_name(usual if name is None else name, "--name")
    held_against = comparison.baseline_of(grid, baseline)
    cores, shared = use_threads(None), use_threads(threads)
    at_a_time = min(jobs or (1 if on_gpu else shared), cores)
    if plan:
        todo = comparison.plan(grid, folder, at_a_time)
        present(todo, as_json, lambda: _print_plan(todo))
        return 0
    command = shlex.join(["pipeline", *without_places(sys.argv[1:])])
    found, contrasts = comparison.compare(
        grid, folder, at_a_time, threads, command=command, baseline=held_against, metrics=SHOWN
    )
    failed = found.failed()
    result: dict[str, Any] = {
        "comparison": str(folder),
        "cells": len(found.results),
        "failed": len(failed),
        "unanswered": [asdict(each) for each in found.unanswered],
        "contrasts": [contrast.to_json() for contrast in contrasts],
    }

    def human() -> None:
        for contrast in contrasts:
            if contrast.metric == SHOWN[0]:
                click.echo(comparison.in_words(contrast, contrasts))
        _print_unanswered(result["unanswered"])
        for broken in failed:
            click.echo(f"failed: {comparison.name_of(broken.cell)}: {broken.error}", err=True)
        click.echo(f"report        {folder / 'report.html'}")

    present(result, as_json, human)
    return 1 if failed else 0


def without_places(arguments: Sequence[str]) -> list[str]:
    """A command's arguments as any machine could give them, for a report that is passed on.

    Absolute paths are of one machine. Those below the working folder become relative, others
    their last name, by which it is found under a root; a root that lies elsewhere is left out.
    """
    here = Path.cwd()

    def portable(path: str) -> str:
        if not Path(path).is_absolute():
            return path
        inside = Path(path).is_relative_to(here)
        return str(Path(path).relative_to(here)) if inside else Path(path).name

    kept: list[str] = []
    for argument in arguments:
        option, equals, value = "", "", argument
        if argument.startswith("--"):
            option, equals, value = argument.partition("=")
        is_root = (option or "".join(kept[-1:])).endswith("-root")
        if is_root and Path(value).is_absolute() and not Path(value).is_relative_to(here):
            if not option:
                kept.pop()
        else:
            kept.append(option + equals + ",".join(map(portable, value.split(","))))
    return kept


def _all_or(backbones: list[str]) -> list[str]:
    from sgfd.recommenders import usable_backbones

    return list(usable_backbones()) if backbones == ["all"] else backbones


def _settings(backbones: list[str], overrides: tuple[str, ...]) -> dict[str, Any]:
    """Settings of each backbone; `--set bm3.layers=2` changes those of one."""
    from sgfd.recommenders import find_backbone

    kinds = {name: find_backbone(name) for name in backbones}
    own: dict[str, list[str]] = {name: [] for name in backbones}
    for pair in overrides:
        backbone, dot, rest = pair.partition(".")
        if not dot or backbone not in own:
            raise click.UsageError(
                f"--set {pair}: names no compared backbone; write --set {backbones[0]}.NAME=VALUE"
            )
        own[backbone].append(rest)
    return {
        name: read_settings(kind.Settings, tuple(own[name]), prefix=f"{name}.")
        for name, kind in kinds.items()
    }


def _fixed(overrides: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Names of the settings that were given a value, by backbone."""
    fixed: dict[str, tuple[str, ...]] = {}
    for pair in overrides:
        backbone, _, setting = pair.partition("=")[0].partition(".")
        fixed[backbone] = (*fixed.get(backbone, ()), setting)
    return fixed


def _print_plan(todo: dict[str, Any]) -> None:
    click.echo(f"{'':14}{'cells':>6}{'done':>6}")
    for row in todo["backbones"]:
        click.echo(f"{row['backbone']:<14}{row['cells']:>6}{row['done']:>6}")
    _print_unanswered(todo["unanswered"])
    if todo["trials"]:
        click.echo(f"{counted(todo['trials'], 'trial')} of tuning before them")
    click.echo(f"about {todo['words']} to go, {counted(todo['jobs'], 'training')} at a time")


def _print_unanswered(unanswered: list[dict[str, str]]) -> None:
    for each in unanswered:
        click.echo(f"{each['what']} {each['why']}")
