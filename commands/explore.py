"""`pipeline features explore`: a feature set as one page to look around in."""

from pathlib import Path

import click

from sgfd.commands.inputs import load, open_features
from sgfd.commands.options import (
    artifacts_root_option,
    data_root_option,
    json_option,
    overwrite_option,
)
from sgfd.commands.output import present


@click.command("explore", short_help="Write a page to look around in.")
@click.argument("features")
@click.option(
    "--dataset",
    "--catalogue",
    "catalogue",
    help="The items' data set, for titles and generic features [default: item ids alone].",
)
@click.option(
    "--neighbours",
    type=click.IntRange(1, 50),
    default=10,
    show_default=True,
    metavar="K",
    help="Nearest others of an item.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page [default: NAME.html here].",
)
@overwrite_option
@data_root_option
@artifacts_root_option
@json_option
def explore(
    features: str,
    catalogue: str | None,
    neighbours: int,
    out: Path | None,
    overwrite: bool,
    data_root: Path | None,
    artifacts_root: Path,
    as_json: bool,
) -> None:
    """Write a page to look around in: search, neighbours, a map, coverage and norms.

    One HTML file that needs no network. With --dataset an item's nearest by distilled and by
    generic features stand side by side. The time it takes grows with the square of the number of
    items; of more than 100,000 a part is shown.
    """
    opened = open_features(features, artifacts_root)
    target = out or Path(f"{opened.path.absolute().name}.html")
    if target.exists() and not overwrite:
        raise click.UsageError(f"{target}: exists already; choose another --out or --overwrite")
    if not target.parent.is_dir():
        raise click.UsageError(f"--out {target}: there is no folder {target.parent}; make it")
    from sgfd.distill.source_items import source_items
    from sgfd.featureset import write_file
    from sgfd.featureset.explorer import MOST_ITEMS, SourceItems, explorer_page, is_page
    from sgfd.jobs import progress, room_in

    if target.exists() and not (target.is_file() and is_page(target)):
        raise click.UsageError(
            f"{target}: is no such page, and only one is replaced; choose another --out"
        )
    known = source_items(opened, load(catalogue, data_root)) if catalogue else SourceItems()
    shown = min(opened.n_items, MOST_ITEMS)
    with progress(shown * (1 + bool(known.generic)), "neighbours") as advance:
        page = explorer_page(opened, known, neighbours, advance).encode()
    with room_in(target):
        write_file(target, page)
    result = {"page": str(target), "bytes": len(page), "items": shown, "of": opened.n_items}

    def human() -> None:
        if shown < opened.n_items:
            click.echo(f"left out      {opened.n_items - shown} items; {shown} are on the page")
        click.echo(f"page          {target}  ({len(page) / 1e6:.1f} MB)")

    present(result, as_json, human)
