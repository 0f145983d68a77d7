"""The report of a comparison: Markdown and CSV here, the page in `page.py`."""

import csv
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from sgfd.featureset import write_file
from sgfd.recommenders.comparison.page import page
from sgfd.recommenders.comparison.results import Comparison
from sgfd.recommenders.comparison.statistics import (
    CONTRAST_COLUMNS,
    Contrast,
    interval_text,
    p_text,
)
from sgfd.recommenders.comparison.summary import (
    HOW_REFIT,
    HOW_SHOWN,
    HOW_TUNED,
    MEANINGS,
    TUNING_HEAD,
    Row,
    answers,
    described,
    further,
    further_words,
    how_made,
    in_words,
    protocol_rows,
    refitted,
    rows_of,
    split_words,
    tuning_rows,
)

ANSWERED = "recall@20"  # what the first sentences are about
TABLED = ("recall@20", "ndcg@20", "recall@10", "ndcg@10", "coverage@20")


def write_report(comparison: Comparison, contrasts: Sequence[Contrast], folder: Path) -> None:
    """Write `report.md`, `report.html`, `cells.csv` and `contrasts.csv`, each whole or not."""
    write_file(folder / "report.md", markdown(comparison, contrasts).encode())
    write_file(folder / "report.html", page(comparison, contrasts, ANSWERED, TABLED).encode())
    write_file(folder / "cells.csv", cells_csv(comparison).encode())
    write_file(folder / "contrasts.csv", contrasts_csv(contrasts).encode())


def markdown(comparison: Comparison, contrasts: Sequence[Contrast]) -> str:
    """The report as text."""
    lines = [
        f"# Feature sets compared on {_plain(comparison.dataset)}",
        "",
        _plain(how_made(comparison)),
        f"Interactions: sha256 `{comparison.fingerprint[:16]}`. {split_words(comparison)}".rstrip(),
        "Made again by:",
        "",
        f"    {comparison.command}",
        "",
        "## In words",
        "",
        *(f"- {_plain(in_words(c, contrasts))}" for c in answers(comparison, contrasts, ANSWERED)),
        *(f"- {_plain(words)}" for words in further_words(comparison)),
    ]
    places = [(protocol, part) for protocol in comparison.protocols for part in comparison.parts]
    for protocol, part in places:
        lines += ["", f"## Protocol {protocol}, {described(comparison, part)}"]
        lines += ["", "Mean and standard deviation over the seeds.", ""]
        lines += _table(
            ["backbone", "features", "seeds", *TABLED[:2], "epochs", "training s", "peak MB"],
            [_figures(row) for row in rows_of(comparison, protocol, TABLED[:2], part)],
        )
    if contrasts:
        lines += ["", "## Differences from the baseline", "", HOW_SHOWN, ""]
        lines += _table(
            [
                *("protocol", "part", "backbone", "features", "against", "metric"),
                *("difference", "95 % interval", "p", "shown"),
            ],
            [
                [
                    contrast.protocol,
                    contrast.part,
                    contrast.backbone,
                    contrast.features,
                    contrast.baseline,
                    contrast.metric,
                    f"{contrast.difference.mean:+.4f}",
                    interval_text(contrast.difference),
                    p_text(contrast.corrected_p),
                    contrast.verdict,
                ]
                for contrast in contrasts
            ],
        )
    if (again := refitted(comparison)).results:
        lines += ["", "## Refit on train and valid", "", HOW_REFIT]
        for part in again.parts:
            rows = [_named_figures(row, TABLED) for row in rows_of(again, "honest", TABLED, part)]
            lines += ["", f"Refit, {described(again, part)}.", ""]
            lines += _table(["backbone", "features", *TABLED], rows)
    if searched := tuning_rows(comparison):
        lines += ["", "## Settings searched", "", HOW_TUNED, ""]
        lines += _table(TUNING_HEAD, searched)
    if {"honest", "paper"} <= set(comparison.protocols):
        lines += ["", "## What the paper's protocol does to the figures", ""]
        lines += ["honest: model chosen on valid. paper: chosen on test, trained on valid too.", ""]
        names, rows = protocol_rows(comparison)
        lines += _table(["backbone", "features", *names], rows)
    for heading, metrics in further(comparison).items():
        lines += ["", f"## {heading}"]
        for protocol, part in places:
            lines += ["", f"Protocol {protocol}, {described(comparison, part)}.", ""]
            lines += _table(
                ["backbone", "features", *metrics],
                [
                    _named_figures(row, metrics)
                    for row in rows_of(comparison, protocol, metrics, part)
                ],
            )
    lines += ["", "## Size of the features", ""]
    lines += _table(
        ["features", "method", "widths", "MB", "manifest's sha256"],
        [
            [
                features.label,
                features.method,
                ", ".join(f"{name} {width}" for name, width in features.dimensions.items()) or "-",
                f"{features.bytes / 1e6:.1f}",
                (features.manifest_sha256 or "-")[:16],
            ]
            for features in comparison.features
        ],
    )
    lines += ["", "## What the words mean", "", *(f"- {_plain(words)}" for words in MEANINGS)]
    return "\n".join(lines) + "\n"


def cells_csv(comparison: Comparison) -> str:
    """One row a cell, failed ones included; figures in full."""
    done = [result for result in comparison.results if result.error is None]
    names = list(dict.fromkeys((part, n) for r in done for part, m in r.metrics.items() for n in m))
    refit = list(dict.fromkeys((part, n) for r in done for part, m in r.refit.items() for n in m))
    head = ["protocol", "backbone", "features", "seed"]
    costs = ["epochs", "train_seconds", "peak_memory_bytes", "error"]
    if tuned := any(result.tuning for result in done):
        head += ["trials", "chosen"]
    named_refit = [f"refit {part} {name}" for part, name in refit]
    rows = [[*head, *(f"{part} {name}" for part, name in names), *named_refit, *costs]]
    for result in comparison.results:
        cell = result.cell
        figures = [str(result.metrics.get(part, {}).get(name, "")) for part, name in names]
        spent = [str(result.epochs), str(result.train_seconds), str(result.peak_memory_bytes)]
        if result.error is not None:
            spent = ["", "", ""]
        figures += [str(result.refit.get(part, {}).get(name, "")) for part, name in refit]
        named = [cell.protocol, cell.backbone, cell.features, str(cell.seed)]
        if tuned:
            found = result.tuning or {"trials": "", "chosen": {}}
            named += [str(found["trials"]), json.dumps(found["chosen"]) if result.tuning else ""]
        rows.append([*named, *figures, *spent, result.error or ""])
    return _csv(rows)


def contrasts_csv(contrasts: Sequence[Contrast]) -> str:
    """One row a contrast."""
    head = CONTRAST_COLUMNS
    rows = [contrast.to_json() for contrast in contrasts]
    return _csv(
        [head, *(["" if row[key] is None else str(row[key]) for key in head] for row in rows)]
    )


def _named_figures(row: Row, metrics: Sequence[str]) -> list[str]:
    return [row.backbone, row.features, *(row.figure(metric) for metric in metrics)]


def _figures(row: Row) -> list[str]:
    peak = f"{row.peak_memory_bytes / 1e6:.0f}"
    cost = [f"{row.epochs:.0f}", f"{row.train_seconds:.1f}", peak]
    if row.failed and not row.seeds:
        return [row.backbone, row.features, "failed", *("-" for _ in (*row.values, *cost))]
    seeds = f"{row.seeds}" + (f" ({row.failed} failed)" if row.failed else "")
    return [row.backbone, row.features, seeds, *(v.text for v in row.values.values()), *cost]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown of a table; a bar in a cell is escaped."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in cells) + " |"

    return [line(head), line(["---"] * len(head)), *(line(row) for row in rows)]


def _plain(text: str) -> str:
    """One line of Markdown that holds no HTML."""
    return escape(" ".join(text.split()), quote=False)


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
