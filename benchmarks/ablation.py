"""Every loss on and off, every student, every size and every other method: what each is worth.

    python benchmarks/ablation.py --dataset ../shared/data/office --items new
    python benchmarks/ablation.py --dataset ../shared/data/office --items all \
        --backbones content,vbpr,lightgcn,bm3,freedom --seeds 3

`--items new` holds whole items out (`--split cold-items`), `--splits` times: features that
interactions guide are made anew for each, and figures are among the cold items alone. `--items
known` is as many times `--split random`, among all items; `--items all`, the data set's own split.
Feature sets and comparisons are those that `pipeline distill` and `pipeline compare` make, below
`--work`, where the command goes on after a stop. Two tables are printed as Markdown: of the
variants, and of the leading columns of the default (`--columns ''`: without).

Differences over splits are tested by the corrected resampled t-test (Nadeau and Bengio, Machine
Learning 52, 2003), as the splits' training parts overlap; those on one split over users and seeds,
as `pipeline compare` does. No p-value is corrected for their number.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlp_student
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sgfd import featureset
from sgfd.dataset import load_dataset
from sgfd.distill import METHODS, distill
from sgfd.recommenders import comparison, find_backbone
from sgfd.recommenders.comparison.statistics import UserFigures, p_text, paired_difference

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "raw": ("raw", {}),
    "standard": ("standard", {}),
    "pca": ("pca", {}),
    "random": ("random", {}),
    "label": ("label", {}),
    "autoencoder": ("autoencoder", {}),
    "sgfd": ("sgfd", {}),
    "rq-vae": ("rq-vae", {}),
    "clcrec": ("clcrec", {}),
    "closed-form": ("interaction-metric", {}),
    "sgfd-plus": ("sgfd-plus", {}),
    "structure-alone": ("sgfd-plus", {"interaction_weight": 0, "structure_weight": 1}),
    "with-structure": ("sgfd-plus", {"structure_weight": 1}),
    "with-semantic": ("sgfd-plus", {"semantic_weight": 0.1}),
    "not-nested": ("sgfd-plus", {"nested": False}),
    "no-modality-dropout": ("sgfd-plus", {"modality_dropout": 0}),
    "standardised-input": ("sgfd-plus", {"input_normalised": False}),
    "width-64": ("sgfd-plus", {"dimension": 64}),
    "width-256": ("sgfd-plus", {"dimension": 256}),
    "mlp": ("mlp-student", {}),
}
METHODS["mlp-student"] = mlp_student.METHOD
DEFAULT, GENERIC = "sgfd-plus", "standard"
PARTS = {"new": "test_among_cold", "known": "test", "all": "test"}
SPLITS = {"new": "cold-items", "known": "random"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--items", choices=PARTS, default="new")
    parser.add_argument("--backbones", default="content")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="with commas")
    parser.add_argument("--splits", type=int, default=5, help="of --items new, known")
    parser.add_argument("--seeds", type=int, default=1, help="of the trainings")
    parser.add_argument("--columns", default="16,32,64", help="leading columns of the default")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--work", type=Path, default=Path("ablation"))
    options = parser.parse_args()
    backbones, variants = options.backbones.split(","), options.variants.split(",")
    name = load_dataset(options.dataset).name
    splits = range(options.splits) if options.items in SPLITS else [None]
    print(f"## {name}: {options.items} items, Recall@20 / NDCG@20\n")
    rows = {split: run(split, backbones, variants, None, options) for split in splits}
    print_table(backbones, variants, list(rows.values()))
    if not options.columns:
        return
    print(f"\nThe leading columns of `{DEFAULT}` alone:\n")
    nested = {f"{k} columns": int(k) for k in options.columns.split(",")}
    of_columns = []
    for split in splits:
        found = {GENERIC: rows[split][GENERIC]}
        for label, dimension in nested.items():
            found[label] = run(split, backbones, [DEFAULT], dimension, options)[DEFAULT]
        of_columns.append(found)
    print_table(backbones, [GENERIC, *nested], of_columns)


Figures = dict[str, dict[str, "Judged"]]  # of a split: by variant and backbone


@dataclass(frozen=True)
class Judged:
    """Means over the seeds, of a part of these runs."""

    recall: float
    ndcg: float
    runs: list[comparison.CellResult]
    part: str


def run(
    split: int | None,
    backbones: list[str],
    variants: list[str],
    dimension: int | None,
    options: argparse.Namespace,
) -> Figures:
    """Distil and compare what is missing; the figures by variant and backbone."""
    dataset = load_dataset(options.dataset)
    parts = {} if split is None else {"split": SPLITS[options.items], "split_seed": split}
    label = dataset.name if split is None else f"{dataset.name}-{options.items}{split}"
    sets = {name: made(name, dataset, label, parts, options) for name in variants}
    where = label + ("" if dimension is None else f"-{dimension}columns")
    grid = comparison.Grid(
        dataset=dataset,
        reference=options.dataset,
        data_root=None,
        features={name: featureset.load(path) for name, path in sets.items()},
        settings={name: find_backbone(name).Settings() for name in backbones},
        seeds=options.seeds,
        protocols=("honest",),
        options={"split_seed": 0, "device": "auto"}
        | parts
        | ({} if dimension is None else {"dimension": dimension}),
    )
    found, _ = comparison.compare(
        grid, options.work / "comparisons" / where, options.jobs, options.threads
    )
    part = PARTS[options.items]
    figures: Figures = {name: {} for name in variants}
    for name in variants:
        for backbone in backbones:
            done = found.of("honest", backbone, name)
            if done:
                means = (
                    float(np.mean([one.metrics[part][k] for one in done]))
                    for k in ("recall@20", "ndcg@20")
                )
                figures[name][backbone] = Judged(*means, done, part)
    return figures


def made(
    name: str, dataset: Any, label: str, parts: dict[str, Any], options: argparse.Namespace
) -> Path:
    """The feature set of a variant, made where it is missing; for one split if it is guided."""
    method, changes = VARIANTS[name]
    kind = METHODS[method]
    division = parts if kind.uses_interactions else {}
    label = label if division else dataset.name
    path = options.work / "artifacts" / label / name
    if not path.exists():
        if method in ("sgfd-plus", "interaction-metric"):
            changes = {"held_out_share": 0, **changes}  # its own figures are not what is asked
        settings = kind.settings(**changes)
        distill(dataset, path, settings, method=method, threads=options.threads, **division)
    return path


def print_table(backbones: list[str], variants: list[str], splits: list[Figures]) -> None:
    print("| |", " | ".join(f"{name} | against `{GENERIC}`" for name in backbones), "|")
    print("| --- |" + " --- |" * (2 * len(backbones)))
    for variant in variants:
        cells = list(cells_of(backbones, variant, splits))
        print(f"| {variant} |", " | ".join(cells), "|", flush=True)


def cells_of(backbones: list[str], variant: str, splits: list[Figures]) -> Iterator[str]:
    for backbone in backbones:
        own = [split[variant][backbone] for split in splits if backbone in split[variant]]
        base = [split[GENERIC][backbone] for split in splits if backbone in split[variant]]
        if not own:
            yield from ("-", "-")
            continue
        yield f"{np.mean([j.recall for j in own]):.4f} / {np.mean([j.ndcg for j in own]):.4f}"
        yield "" if variant == GENERIC else difference(own, base)


def difference(own: list[Judged], base: list[Judged]) -> str:
    """The relative difference of the means, and its p-value: over splits, or of one over users."""
    recalls, base_recalls = (np.array([j.recall for j in judged]) for judged in (own, base))
    text, d = f"{recalls.mean() / base_recalls.mean() - 1:+.1%}", recalls - base_recalls
    if len(d) < 2:
        (one,), (other,) = own, base
        a, b = UserFigures(["recall@20"], one.part).paired(one.runs, other.runs, "recall@20")
        return f"{text} (p {p_text(paired_difference(a - b).p_value)})"
    # A fifth (of the items, or of each user's) is held out, and a tenth of the others as valid.
    return f"{text} (p {p_text(resampled_p_value(d, test_to_training=0.2 / (0.8 * 0.9)))})"


def resampled_p_value(d: NDArray[np.float64], test_to_training: float) -> float:
    """Of the corrected resampled t-test, for the differences of one split each."""
    error = np.sqrt((1 / len(d) + test_to_training) * d.var(ddof=1))
    return float(2 * stats.t.sf(abs(d.mean()) / error, len(d) - 1) if error else d.mean() == 0)


if __name__ == "__main__":
    main()
