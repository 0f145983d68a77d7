"""Running what a folder lacks of a grid, and telling how long that takes.

    NAME/
      comparison.json          what is compared, by fingerprint: another input is refused
      runs/PROTOCOL-BACKBONE-FEATURES-seedN/   one run a cell, as `pipeline train` writes it
      tunings/BACKBONE-FEATURES/   the search of each one's settings, where they are tuned
      failed/...txt            what a failed cell said last
      report.md, report.html, cells.csv, contrasts.csv

A cell that is there is not run again, so the same call goes on after a kill, and one with more
backbones, features or seeds adds to what there is.
"""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from sgfd.featureset import refuse_changed
from sgfd.jobs import JobError, locked, progress, use_threads
from sgfd.recommenders.comparison.estimate import Estimate
from sgfd.recommenders.comparison.grid import Grid
from sgfd.recommenders.comparison.identity import remember, unchanged
from sgfd.recommenders.comparison.processes import Task, run_processes
from sgfd.recommenders.comparison.results import Cell, CellResult
from sgfd.recommenders.comparison.tuned import (
    SEED,
    Pair,
    Tuned,
    await_searches,
    name_of_search,
    read_tuned,
    to_tune,
)
from sgfd.recommenders.inputs import make_inputs
from sgfd.recommenders.run_folder import read_record

logger = logging.getLogger("sgfd")


def plan(grid: Grid, folder: Path, jobs: int) -> dict[str, Any]:
    """How many cells each backbone has, how many of them are done, and about how long the rest
    takes; nothing is written.

    Raises:
        JobError: the folder is of another comparison.
    """
    unchanged(grid.identity(), folder)
    cells = grid.cells()
    results = done_cells(grid, folder)
    missing = [cell for cell in cells if cell not in results]
    trials = _trials_to_go(grid, folder)
    seconds = estimate_of(grid)(missing + trials, list(results.values())) / jobs
    return {
        "cells": len(cells),
        "done": len(results),
        "trials": len(trials),
        "jobs": jobs,
        "seconds": seconds,
        "words": duration(seconds),
        "backbones": [
            {
                "backbone": name,
                "cells": sum(cell.backbone == name for cell in cells),
                "done": sum(cell.backbone == name for cell in results),
            }
            for name in grid.settings
        ],
        "unanswered": [asdict(each) for each in grid.unanswered()],
    }


def estimate_of(grid: Grid) -> Estimate:
    """What tells how long the grid's cells take.

    Raises:
        JobError: the interactions can't be split so, by one of the protocols; a user is unknown;
            test is empty.
    """
    sets = [grid.sets(protocol) for protocol in grid.protocols]
    if not len(sets[0].test.items):
        raise JobError(
            f"dataset {grid.dataset.name}",
            "has no test part to compare on",
            "add one, or have one made: --split random",
        )
    return Estimate(make_inputs(sets[0].train, {}, torch.device("cpu")), grid.settings)


@contextlib.contextmanager
def ran_grid(
    grid: Grid, folder: Path, jobs: int, threads: int | None = None
) -> Iterator[list[CellResult]]:
    """Run the cells that `folder` lacks, `jobs` at a time, each in a process of its own.

    The cores are divided among them. A cell that fails is noted and the others go on. The folder
    is held while the results are in use.

    Raises:
        JobError: the folder is of another comparison, or another process is at work in it.
        FeatureSetError: a file of a feature set is not what its manifest says.
        KeyboardInterrupt: interrupted; the cells at work have written checkpoints.
    """
    seconds = estimate_of(grid)  # first: it refuses what can't be split, and nothing is written
    with locked(folder, "compares"):
        unchanged(grid.identity(), folder)
        cells = grid.cells()
        for features in filter(None, grid.features.values()):
            refuse_changed(features)
        results = done_cells(grid, folder)  # refused before these inputs are remembered as theirs
        remember(grid.identity(), folder)
        (folder / "failed").mkdir(exist_ok=True)
        each = max(1, use_threads(threads) // jobs)

        def left() -> float:
            still = [cell for cell in cells if cell not in results]
            still += _trials_to_go(grid, folder)
            return seconds(still, list(results.values())) / jobs

        logger.info(
            "cells: %d of %d done; about %s to go, %d at a time (threads each: %d)",
            len(results),
            len(cells),
            duration(left()),
            jobs,
            each,
        )
        if grid.tune:

            def search(pairs: list[Pair]) -> Iterator[tuple[str, str | None]]:
                tasks = {name_of_search(p): _search_task(p, grid, folder, each) for p in pairs}
                return run_processes(tasks, jobs)

            failed = await_searches(grid.tuned_pairs(), folder, search)
            for cell in cells:
                if cell not in results and (said := failed.get((cell.backbone, cell.features))):
                    results[cell] = CellResult(cell, {}, error=said)
        tuned = read_tuned(grid.tuned_pairs(), folder)
        by_name = {name_of(cell): cell for cell in cells if cell not in results}
        tasks = {name: _task(cell, grid, folder, each, tuned) for name, cell in by_name.items()}
        with progress(len(cells), "comparing") as advance:
            advance(len(results))
            for name, error in run_processes(tasks, jobs):
                cell = by_name[name]
                results[cell] = _note(cell, grid, folder, error)
                advance(1, left=duration(left()))
                _say(results[cell], len(results), len(cells), left())
        yield [results[cell] for cell in cells]


def run_grid(grid: Grid, folder: Path, jobs: int, threads: int | None = None) -> list[CellResult]:
    """What `ran_grid` gives, for callers that write nothing more into the folder."""
    with ran_grid(grid, folder, jobs, threads) as results:
        return results


def done_cells(grid: Grid, folder: Path) -> dict[Cell, CellResult]:
    """Those of the grid's cells whose runs are there.

    Raises:
        JobError: one can't be read, or was trained on other inputs.
    """
    found = {cell: finished(cell, grid, folder) for cell in grid.cells()}
    return {cell: result for cell, result in found.items() if result is not None}


def finished(cell: Cell, grid: Grid, folder: Path) -> CellResult | None:
    """The result of a cell whose run is there; None where it is not.

    Raises:
        JobError: it can't be read, or was trained on other inputs than the grid's.
    """
    place = _place(cell, folder)
    if not place.exists():
        return None
    again = "delete that run; the same command trains it again"
    try:
        record = read_record(place)
    except JobError as error:
        raise JobError(place, error.what, again) from None
    features, used = grid.features[cell.features], record["features"]
    parts = grid.parts.get(cell.protocol)
    wanted = (grid.fingerprint, features and features.manifest_sha256, parts)
    made_on = record["dataset"]["fingerprint"], used and used["manifest_sha256"]
    if wanted != (*made_on, record.get("parts_sha256", parts)):
        raise JobError(place, "was trained on other inputs than this comparison's", again)
    refit = record.get("refit", {})
    again_seconds = refit.get("seconds", {})
    return CellResult(
        cell,
        record["metrics"],
        place,
        record["seconds"]["train"],
        record["peak_memory_bytes"],
        record["epochs"],
        refit.get("metrics", {}),
        record.get("tuning"),
        refit_seconds=again_seconds.get("train", 0.0),
        judge_seconds=record["seconds"]["evaluate"] + again_seconds.get("evaluate", 0.0),
        threads=tuple(record.get("threads", ())),
        device=record["device"],
    )


def name_of(cell: Cell) -> str:
    """A cell's name, which is its run's."""
    return f"{cell.protocol}-{cell.backbone}-{cell.features}-seed{cell.seed}"


def duration(seconds: float) -> str:
    """A time such as `40 s`, `12 min` or `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _place(cell: Cell, folder: Path) -> Path:
    return folder / "runs" / name_of(cell)


def _trials_to_go(grid: Grid, folder: Path) -> list[Cell]:
    """As many cells of each pair as its search has trials, where that is not over."""
    pairs = to_tune(grid.tuned_pairs(), folder)
    return [Cell("honest", *pair, SEED) for pair in pairs for _ in range(grid.tune)]


def _search_task(pair: Pair, grid: Grid, folder: Path, threads: int) -> Task:
    place = folder / "tunings" / name_of_search(pair)
    fixed = grid.fixed.get(pair[0], ())
    asked = {"trials": grid.tune, "fixed": fixed, "folder": place, "threads": threads}
    task = _task(Cell("honest", *pair, SEED), grid, folder, threads, {})
    return replace(task, options=grid.options | asked, search=True)


def _task(cell: Cell, grid: Grid, folder: Path, threads: int, tuned: dict[Pair, Tuned]) -> Task:
    features = grid.features[cell.features]
    found = tuned.get((cell.backbone, cell.features))
    return Task(
        reference=grid.reference,
        data_root=grid.data_root,
        fingerprint=grid.fingerprint,
        backbone=cell.backbone,
        settings=found.settings if found else grid.settings[cell.backbone],
        features=features.path if features else None,
        manifest_sha256=features.manifest_sha256 if features else None,
        options={
            **grid.options,
            "protocol": cell.protocol,
            "seed": cell.seed,
            "threads": threads,
            "runs_root": folder / "runs",
            "name": name_of(cell),
            "tuning": found.summary if found else None,
            "refit": grid.refit and cell.protocol == "honest",
        },
        failures=folder / "failed",
    )


def _note(cell: Cell, grid: Grid, folder: Path, error: str | None) -> CellResult:
    if error is not None:
        return CellResult(cell, {}, error=error)
    result = finished(cell, grid, folder)
    if result is None:
        return CellResult(cell, {}, error="it left no run")
    (folder / "failed" / f"{name_of(cell)}.txt").unlink(missing_ok=True)
    return result


def _say(result: CellResult, done: int, total: int, left: float) -> None:
    cell = result.cell
    name = f"{cell.backbone} on {cell.features}, {cell.protocol}, seed {cell.seed}"
    if result.error is not None:
        logger.error("[%d/%d] %s failed: %s", done, total, name, result.error)
    else:
        recall = result.metrics["test"]["recall@20"]
        spent, to_go = duration(result.train_seconds), duration(left)
        logger.info("[%d/%d] %s: %.4f in %s; %s to go", done, total, name, recall, spent, to_go)
