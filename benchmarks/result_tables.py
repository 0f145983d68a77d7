"""The tables of docs/results, from the files of the reports beside them.

    python benchmarks/result_tables.py            # writes each table anew
    python benchmarks/result_tables.py --check    # names the pages whose tables are others

A table stands between `<!-- table: KIND ... -->` and `<!-- end -->`; KIND and what follows say what
it holds:

- `defaults DATASET`: `backbones.jsonl`, of `benchmarks/recommendation.py`;
- `costs`: `costs.jsonl`, of the same;
- `report PART NAME ...`, PART `test`, `refit-test` or `test_among_cold`: the means over the seeds
  of the reports' `cells.csv`, and how `sgfd-plus` stands to the generic features by their
  `contrasts.csv`; of a backbone that is in several reports, those of the last one;
- `protocols NAME ...`: the honest protocol beside the paper's, and of Office the figures of
  SGFD's paper (Liu et al., MM 2023).
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import recommendation

from sgfd.recommenders.comparison.statistics import p_text

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"
TABLE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", flags=re.DOTALL)
KINDS = {"standard": "generic", "pca": "`pca`", "sgfd": "`sgfd`"}  # by the end of a set's name
SETS = ["none", "generic", "`pca`", "`sgfd`", "`sgfd-plus`"]
MAKERS = {"none": "no features", "raw": "generic (`raw`)", "sgfd": "SGFD's student"}

# Recall@20 and NDCG@20 on Office, of each backbone as it is and with SGFD.
PAPER = {
    "neumf": ((0.0605, 0.0337), None),
    "cml": ((0.1229, 0.1395), None),
    "dgcf": ((0.1206, 0.1105), None),
    "ngcf": ((0.0814, 0.0479), None),
    "maml": ((0.1333, 0.1412), (0.1422, 0.1487)),
    "grcn": ((0.1320, 0.1533), (0.1388, 0.1626)),
    "bm3": ((0.1367, 0.1536), (0.1407, 0.1586)),
}
USES_FEATURES = {"maml", "grcn", "bm3"}  # in the paper, where they have no row without


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    others = []
    for page in sorted(RESULTS.glob("*.md")):
        text = page.read_text()
        made = with_tables(text)
        if made != text:
            others.append(page)
            if not options.check:
                page.write_text(made)
    for page in others:
        print(f"{page}: {'its tables are not those of the files' if options.check else 'written'}")
    sys.exit(1 if options.check and others else 0)


def with_tables(text: str) -> str:
    """A page with each of its tables made anew."""
    return TABLE.sub(lambda found: found[1] + table(found[2].split()) + found[3], text)


def table(words: Sequence[str]) -> str:
    kinds: dict[str, Callable[..., list[list[str]]]] = {
        "defaults": defaults,
        "costs": costs,
        "report": report,
        "protocols": protocols,
    }
    head, *rows = kinds[words[0]](*words[1:])
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def defaults(dataset: str) -> list[list[str]]:
    cells = jsonl("backbones.jsonl")
    groups = cells[cells["dataset"] == dataset].groupby(["backbone", "maker"])
    of = {
        key: f"{each['recall@20'].mean():.4f}{_deviation(each['recall@20'])} / "
        f"{each['ndcg@20'].mean():.4f} ({len(each)})"
        for key, each in groups
    }
    return by_maker(of, MAKERS)


def _deviation(values: pd.Series) -> str:
    """That of several seeds; one has none."""
    return f" ± {values.std():.4f}" if len(values) > 1 else ""


def costs() -> list[list[str]]:
    cells = jsonl("costs.jsonl")
    of = {}
    for each in cells.to_dict("records"):
        epoch = f"{each['train'] / each['epochs']:.2f}" if each["epochs"] else "none"
        text = f"{epoch} / {each['evaluate']:.1f} / {each['peak'] / 2**20:.0f}"
        of[each["backbone"], f"{each['dataset']} {each['maker']}"] = text
    places = {"office": "Office", "ml100k": "MovieLens"}
    names = {f"{d} {m}": f"{places[d]}: {MAKERS[m]}" for d in places for m in MAKERS}
    return by_maker(of, names)


def by_maker(of: dict[tuple[str, str], str], names: dict[str, str]) -> list[list[str]]:
    backbones = sorted({backbone for backbone, _ in of})
    rows = [[name, *(of.get((name, maker), "-") for maker in names)] for name in backbones]
    return [["", *names.values()], *rows]


def report(part: str, *names: str) -> list[list[str]]:
    cells, contrasts = read(names, "cells.csv"), read(names, "contrasts.csv")
    cells = cells[cells["protocol"] == "honest"]
    metrics = [f"{part.replace('-', ' ')} {metric}@20" for metric in ("recall", "ndcg")]
    means = cells.groupby(["backbone", "set"], sort=False)[metrics].mean()
    sets = [each for each in SETS if each in set(cells["set"])]
    rows = []
    for backbone in dict.fromkeys(cells["backbone"]):
        row = [backbone]
        for each in sets:
            known = (backbone, each) in means.index
            row.append("{:.4f} / {:.4f}".format(*means.loc[backbone, each]) if known else "")
        rows.append([*row, gain(means[metrics[0]], contrasts, backbone, part)])
    return [["Recall@20 / NDCG@20", *sets, "`sgfd-plus` against generic"], *rows]


def gain(means: pd.Series, contrasts: pd.DataFrame, backbone: str, part: str) -> str:
    if (backbone, "`sgfd-plus`") not in means.index:
        return ""
    generic = means[backbone, "generic"]
    change = f"{means[backbone, '`sgfd-plus`'] / generic - 1:+.1%}".replace("%", " %")
    found = contrasts[
        (contrasts["backbone"] == backbone)
        & (contrasts["set"] == "`sgfd-plus`")
        & (contrasts["part"] == part)
        & (contrasts["metric"] == "recall@20")
    ]
    if found.empty:
        return change
    p = found["corrected_p"].item()
    return f"{change}, p {p_text(p)}"


def protocols(*names: str) -> list[list[str]]:
    cells = read(names, "cells.csv")
    head = ["Recall@20 / NDCG@20", "honest", "paper's protocol, its NDCG"]
    rows = {}
    for (backbone, each), group in cells.groupby(["backbone", "set"]):
        honest = group[group["protocol"] == "honest"]
        paper = group[group["protocol"] == "paper"]
        seeds = f" ({len(honest)})" if len(honest) > 1 else ""
        row = [f"{backbone}, {each}{seeds}"]
        for cell, ndcg in ((honest, "ndcg"), (paper, "paper_ndcg")):
            values = (cell[f"test {metric}@20"].mean() for metric in ("recall", ndcg))
            row.append("{:.4f} / {:.4f}".format(*values))
        rows[backbone, each] = [*row, published(backbone, each)]
    of_paper = names[0].startswith("office")
    for backbone in USES_FEATURES if of_paper else ():
        figures = published(backbone, "features")
        rows[backbone, "features"] = [f"{backbone} with features", "", "", figures]
    order = ["none", "features", "`sgfd`"]
    keys = sorted(rows, key=lambda key: (key[0], order.index(key[1])))
    columns = 4 if of_paper else 3
    return [[*head, "SGFD's paper"][:columns], *(rows[key][:columns] for key in keys)]


def published(backbone: str, features: str) -> str:
    """What SGFD's paper gives for a backbone: alone (`none` or `features`), and with SGFD."""
    alone, with_sgfd = PAPER.get(backbone, (None, None))
    own = "features" if backbone in USES_FEATURES else "none"
    figures = with_sgfd if features == "`sgfd`" else alone if features == own else None
    return "{:.4f} / {:.4f}".format(*figures) if figures else ""


def read(names: Sequence[str], file: str) -> pd.DataFrame:
    """A file of several reports, and of each row the kind of its set; the last report of a
    backbone counts, in the place of the first."""
    tables = {}
    for name in names:
        for backbone, rows in pd.read_csv(RESULTS / name / file).groupby("backbone", sort=False):
            tables[backbone] = rows
    cells = pd.concat(tables.values()).copy()
    ends = cells["features"].str.rpartition("-")[2]
    cells["set"] = ends.map(KINDS).fillna("`sgfd-plus`").mask(cells["features"] == "none", "none")
    return cells


def jsonl(name: str) -> pd.DataFrame:
    cells = [
        {"dataset": Path(dataset).name, "backbone": backbone, "maker": maker, **figures}
        for (dataset, backbone, maker, _), figures in recommendation.read(RESULTS / name).items()
    ]
    return pd.DataFrame(cells)


if __name__ == "__main__":
    main()
