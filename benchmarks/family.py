"""Differences of several comparisons, judged as one family.

    python benchmarks/family.py office docs/results/office-all-items/contrasts.csv \
        docs/results/office-costly/contrasts.csv

Of each backbone the difference of one feature set from the baseline, with p after Holm's correction
for these differences alone: each report corrects for all differences of its own. Of a backbone
that is in several files, the last one's counts.
"""

import argparse
from pathlib import Path

import pandas as pd

from sgfd.recommenders.comparison.statistics import SIGNIFICANT, holm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", help="the feature set whose differences count")
    parser.add_argument("contrasts", nargs="+", type=Path, help="contrasts.csv of comparisons")
    parser.add_argument("--metric", default="recall@20")
    parser.add_argument("--part", default="test")
    options = parser.parse_args()
    found = pd.concat([pd.read_csv(path) for path in options.contrasts])
    found = found[
        (found["features"] == options.features)
        & (found["metric"] == options.metric)
        & (found["part"] == options.part)
        & (found["protocol"] == "honest")
    ]
    found = found.drop_duplicates("backbone", keep="last")
    if found.empty:
        parser.error("no such difference")
    found = found.assign(p=holm(found["p_value"].tolist())).sort_values("p")
    print(f"{options.features}, {len(found)} backbones, {options.metric} on {options.part}")
    for row in found.itertuples():
        shown = ("worse", "better")[row.mean > 0] if row.p < SIGNIFICANT else "not shown"
        share = f"{row.mean / row.baseline_mean:+.1%}" if row.baseline_mean else "from 0"
        print(f"{row.backbone:12}{share:>8}  p {row.p:.3f}  {shown}, {row.n_seeds} seeds")


if __name__ == "__main__":
    main()
