"""`pipeline data`: look at data sets and check them."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from sgfd.commands.options import data_root_option, json_option
from sgfd.commands.output import counted, present, print_table, problem_line


@click.group()
def data() -> None:
    """Look at data sets and check them."""


@data.command("list")
@data_root_option
@json_option
def data_list(data_root: Path | None, as_json: bool) -> None:
    """List the data sets that can be named."""
    from sgfd.dataset import list_datasets

    rows = [{"name": name, "layout": layout} for name, layout in list_datasets(data_root)]
    present({"datasets": rows}, as_json, lambda: print_table(rows))


@data.command("show", short_help="Show what a data set holds.")
@click.argument("dataset")
@data_root_option
@json_option
def data_show(dataset: str, data_root: Path | None, as_json: bool) -> None:
    """Show what a data set holds: users, items, interactions, modalities, labels."""
    from sgfd.dataset import load_dataset

    loaded = load_dataset(dataset, data_root)
    catalog, interactions = loaded.catalog, loaded.interactions
    shown: dict[str, Any] = {"dataset": loaded.name, "layout": loaded.layout}
    if interactions is not None:
        parts = {part: getattr(interactions, part) for part in ("train", "valid", "test")}
        shown |= {
            "users": interactions.n_users,
            "items": interactions.n_items,
            "interactions": {part: 0 if p is None else len(p) for part, p in parts.items()},
        }
    if catalog is not None:
        shown["items"] = catalog.n_items
        shown["modalities"] = [
            {"name": name, "dimension": feature.dimension, "coverage": round(feature.coverage, 4)}
            for name, feature in catalog.features.items()
        ]
        if catalog.labels is not None:
            shown["labels"] = {
                "count": len(catalog.label_names),
                "unlabelled": int((catalog.labels < 0).sum()),
            }
    shown["warnings"] = [problem_line(problem) for problem in loaded.warnings]

    def human() -> None:
        for key in ("dataset", "layout", "users", "items"):
            if key in shown:
                click.echo(f"{key:<14}{shown[key]}")
        for part, count in shown.get("interactions", {}).items():
            click.echo(f"{part:<14}{count} interactions")
        for row in shown.get("modalities", []):
            click.echo(
                f"{row['name']:<14}{row['dimension']}-d, {row['coverage']:.1%} of the items have it"
            )
        if "labels" in shown:
            labels = shown["labels"]
            click.echo(f"labels        {labels['count']}, {labels['unlabelled']} items unlabelled")
        for line in shown["warnings"]:
            click.echo(f"warning: {line}", err=True)

    present(shown, as_json, human)


@data.command("check", short_help="Name every problem of a data set.")
@click.argument("dataset")
@data_root_option
@json_option
def data_check(dataset: str, data_root: Path | None, as_json: bool) -> int:
    """Name every problem of a data set: where it is and what to do.

    An error keeps it from being loaded: exit code 2. A warning says what is passed over.
    """
    from sgfd.dataset import check_dataset

    problems = check_dataset(dataset, data_root)
    kinds = Counter(problem.severity for problem in problems)
    rows = [
        {"severity": p.severity, "where": p.where, "what": p.what, "remedy": p.remedy}
        for p in problems
    ]

    def human() -> None:
        for problem in problems:
            click.echo(f"{problem.severity}: {problem_line(problem)}", err=True)
        found = [counted(kinds[kind], kind) for kind in ("error", "warning") if kinds[kind]]
        click.echo(f"{dataset}: {', '.join(found) or 'no problems'}")

    present({"dataset": dataset, "problems": rows}, as_json, human)
    return 2 if kinds["error"] else 0
