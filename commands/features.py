"""`pipeline features`: look at feature sets and verify them."""

from pathlib import Path

import click

from sgfd.commands.inputs import features_path, open_features
from sgfd.commands.options import artifacts_root_option, json_option
from sgfd.commands.output import present, print_figures


@click.group()
def features() -> None:
    """Look at feature sets and verify them."""


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
