"""`pipeline features`: look at feature sets, verify them, and embed new items by them."""

from pathlib import Path

import click

from sgfd.commands.explore import explore
from sgfd.commands.formats import export, import_
from sgfd.commands.inputs import features_path, load, open_features, plain_name, result_path
from sgfd.commands.options import (
    artifacts_root_option,
    data_root_option,
    json_option,
    overwrite_option,
)
from sgfd.commands.output import present, print_figures


@click.group()
def features() -> None:
    """Look at feature sets, verify them, and embed new items by them."""


for command in (explore, export, import_):
    features.add_command(command)


@features.command("show")
@click.argument("features")
@artifacts_root_option
@json_option
def features_show(features: str, artifacts_root: Path, as_json: bool) -> None:
    """Show a feature set's manifest: what it is, from what, how made, how good."""
    manifest = open_features(features, artifacts_root).manifest

    def human() -> None:
        click.echo(f"name          {manifest.name}  ({manifest.method}, seed {manifest.seed})")
        click.echo(f"created       {manifest.created} by {manifest.producer.name}")
        click.echo(f"dataset       {manifest.dataset.name}, {manifest.dataset.n_items} items")
        if (origin := manifest.derived_from) is not None:
            click.echo(
                f"derived from  {origin.name}: {origin.kept} rows kept, {origin.added} items "
                f"of {origin.catalogue.name} added by its student"
            )
        for modality in manifest.modalities:
            if (encoding := modality.encoding) is not None:
                click.echo(
                    f"{modality.name:<14}{encoding.kind} of {encoding.of}, "
                    f"{modality.bytes_an_item} bytes an item"
                )
                continue
            click.echo(
                f"{modality.name:<14}{modality.source_dimension}-d -> {modality.dimension}-d, "
                f"{modality.coverage:.1%} of the items have it"
            )
        if manifest.neighbours is not None:
            by = ", ".join(manifest.neighbours.modalities)
            click.echo(f"neighbours    {manifest.neighbours.k} an item, by {by}")
        print_figures(manifest.quality)

    present(manifest.model_dump(mode="json"), as_json, human)


@features.command("verify")
@click.argument("features")
@artifacts_root_option
@json_option
def features_verify(features: str, artifacts_root: Path, as_json: bool) -> int:
    """Check a feature set's files against its manifest and each other. Exit code 2 if not whole."""
    from sgfd.featureset import verify

    path = features_path(features, artifacts_root)
    problems = verify(path)

    def human() -> None:
        for problem in problems:
            click.echo(problem, err=True)
        click.echo(
            f"{path}: " + (f"{len(problems)} problems" if problems else "whole and unchanged")
        )

    present({"artifact": str(path), "problems": problems}, as_json, human)
    return 2 if problems else 0


@features.command("embed")
@click.option("--features", required=True, help="The set whose student is applied: folder or name.")
@click.option("--catalogue", required=True, help="The new items: a data set's name or folder.")
@click.option("--out", required=True, help="The set to be made: a name, or a folder (with a /).")
@click.option("--append", is_flag=True, help="Begin with the old set's rows, bit for bit.")
@click.option(
    "--modalities",
    help="Those to take from the catalogue, with commas between; the others are lacking "
    "[default: all of the student's].",
)
@overwrite_option
@data_root_option
@artifacts_root_option
@json_option
def features_embed(
    features: str,
    catalogue: str,
    out: str,
    append: bool,
    modalities: str | None,
    overwrite: bool,
    data_root: Path | None,
    artifacts_root: Path,
    as_json: bool,
) -> None:
    """Embed items that stage one never saw, by a feature set's student alone.

    The catalogue is a data set of any layout; it needs no interactions. With --append, items that
    the old set has are not made again: they keep their rows.
    """
    from sgfd.distill import embed

    target = result_path(out, artifacts_root, "--out")
    opened = open_features(features, artifacts_root)
    wanted = modalities.split(",") if modalities else None
    made = embed(
        opened,
        load(catalogue, data_root),
        target,
        append=append,
        modalities=wanted,
        overwrite=overwrite,
    )

    def human() -> None:
        if append:
            click.echo(f"kept          {made.kept} rows of {opened.manifest.name}")
        click.echo(f"added         {made.added} items")
        if made.known:
            rows = "they keep their rows" if append else "made here all the same"
            click.echo(f"known before  {made.known} items of the catalogue: {rows}")
        if made.changed:
            click.echo(f"of which      {made.changed} have other features than the old set's rows")
        click.echo(f"feature set   {made.artifact}  ({made.seconds:.1f} s)")

    present(made.to_json(), as_json, human)


@features.command("export-onnx")
@click.argument("features")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder.")
@overwrite_option
@artifacts_root_option
@json_option
def features_export_onnx(
    features: str, out: Path, overwrite: bool, artifacts_root: Path, as_json: bool
) -> None:
    """Write the student as ONNX files, one a modality, for a service without torch.

    x, float32 (batch, D), are generic features; z, float32 (batch, d), their rows. Standardisation
    and norms are inside. A modality that is the sum of others takes one input each, such as
    x_image, where a row of NaN is an item that lacks it. Needs the package onnx.
    """
    from sgfd.distill import export_onnx

    plain_name(out.name, "--out")
    files = export_onnx(open_features(features, artifacts_root), out, overwrite)

    def human() -> None:
        for name, file in files.items():
            click.echo(f"{name:<14}{file}")

    written = {name: str(file) for name, file in files.items()}
    present({"folder": str(out), "files": written}, as_json, human)
