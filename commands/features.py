"""`pipeline features`: look at feature sets, verify, compare and share them, embed new items."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from sgfd.commands.explore import explore
from sgfd.commands.formats import export, import_
from sgfd.commands.inputs import (
    features_path,
    load,
    open_features,
    plain_name,
    result_path,
    runs_made_with,
)
from sgfd.commands.options import (
    NAMES,
    artifacts_root_option,
    comparisons_root_option,
    data_root_option,
    json_option,
    overwrite_option,
    runs_root_option,
    signature_option,
    tunings_root_option,
)
from sgfd.commands.output import counted, present, print_figures, printed
from sgfd.commands.sharing import publish, pull, push, sign

if TYPE_CHECKING:
    from sgfd.featureset import Difference

SHOWN = 5  # items of a kind, in what people read


@click.group(short_help="Look at feature sets, verify, compare and share them.")
def features() -> None:
    """Look at feature sets, verify, compare and share them, and embed new items by them."""


for command in (explore, export, import_, publish, push, pull, sign):
    features.add_command(command)


@features.command("list", short_help="List the feature sets at hand, or at PLACE.")
@click.argument("place", required=False)
@artifacts_root_option
@json_option
def features_list(place: str | None, artifacts_root: Path, as_json: bool) -> None:
    """List the feature sets at hand, or at PLACE, with their versions.

    PLACE is where sets were pushed to: a folder, s3://, https:// or whatever fsspec knows. Only
    manifests are read. All but folders need sgfd[share].
    """
    from sgfd.featureset import inventory, inventory_at
    from sgfd.jobs import progress

    given = click.get_current_context().get_parameter_source("artifacts_root")
    if not place and given is ParameterSource.COMMANDLINE and not artifacts_root.is_dir():
        raise click.UsageError(f"--artifacts-root {artifacts_root}: is no folder; give another")
    entries, problems = inventory_at(place, progress) if place else inventory(artifacts_root)

    published = {each.manifest_sha256 for each in entries if each.published}

    def human() -> None:
        for each in entries:
            state = "latest" if each.latest else ""
            if not each.published:
                kept = each.manifest_sha256 in published
                state = f"is {each.version}" if kept else "not published"
            made = f"{each.manifest.method}, {counted(each.manifest.dataset.n_items, 'item')}"
            click.echo(f"{each.label:<36}{made:<32}{each.manifest.created[:16]}  {state}".rstrip())
        for problem in problems:
            click.echo(printed(problem), err=True)
        if not entries and not problems:
            click.echo(f"no feature set in {printed(place or str(artifacts_root))}", err=True)

    result = {"sets": [each.to_json() for each in entries], "problems": problems}
    present(result, as_json, human)


@features.command("show", short_help="Show what a feature set is, how made and how good.")
@click.argument("features")
@artifacts_root_option
@json_option
def features_show(features: str, artifacts_root: Path, as_json: bool) -> None:
    """Show a feature set's manifest: what it is, from what, how made, how good."""
    from sgfd.featureset import version_of

    opened = open_features(features, artifacts_root)
    manifest = opened.manifest

    def human() -> None:
        click.echo(f"name          {manifest.name}  ({manifest.method}, seed {manifest.seed})")
        click.echo(f"version       {version_of(opened.manifest_sha256)}  {opened.path}")
        click.echo(f"created       {manifest.created} by {manifest.producer.name}")
        click.echo(f"dataset       {manifest.dataset.name}, {manifest.dataset.n_items} items")
        if (use := manifest.interactions) is not None:
            click.echo(f"guided by     {_guidance(use.model_dump())}")
        if manifest.settings:
            settings = ", ".join(f"{name} {value}" for name, value in manifest.settings.items())
            click.echo(click.wrap_text(printed(settings), 100, f"{'settings':<14}", " " * 14))
        for what in ("licence", "contact"):
            if (said := getattr(manifest, what)) is not None:
                click.echo(f"{what:<14}{printed(said)}")
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

    shown = {"manifest_sha256": opened.manifest_sha256, **manifest.model_dump(mode="json")}
    present(shown, as_json, human)


@features.command("verify", short_help="Check a feature set's files against its manifest.")
@click.argument("features")
@click.option(
    "--catalogue",
    help="The data set that it was made from: the student must give its rows again.",
)
@signature_option
@data_root_option
@artifacts_root_option
@json_option
def features_verify(
    features: str,
    catalogue: str | None,
    key: Path | None,
    data_root: Path | None,
    artifacts_root: Path,
    as_json: bool,
) -> int:
    """Check a feature set's files against its manifest and each other. Exit code 2 if not whole."""
    from sgfd.featureset import FeatureSetError, check_signature_of, verify

    path = features_path(features, artifacts_root)
    problems = verify(path, _catalogue(catalogue, data_root) if catalogue else None)
    if key is not None:
        try:
            check_signature_of(open_features(features, artifacts_root), key)
        except FeatureSetError as error:
            problems += [str(error)] if str(error) not in problems else []

    def human() -> None:
        for problem in problems:
            click.echo(printed(problem), err=True)
        sound = "whole and unchanged" + (f", signed by a key of {key}" if key else "")
        click.echo(f"{path}: " + (counted(len(problems), "problem") if problems else sound))

    present({"artifact": str(path), "problems": problems}, as_json, human)
    return 2 if problems else 0


def _catalogue(reference: str, data_root: Path | None) -> Any:
    from sgfd.featureset import Catalogue

    catalog = load(reference, data_root).catalog
    if catalog is None:
        raise click.UsageError(f"--catalogue {reference}: has no items; give one with features")
    return Catalogue(reference, catalog.fingerprint(), catalog.items.ids, catalog.features)


@features.command("diff", short_help="Say which items came, went and moved from A to B.")
@click.argument("old", metavar="A")
@click.argument("new", metavar="B")
@artifacts_root_option
@json_option
def features_diff(old: str, new: str, artifacts_root: Path, as_json: bool) -> None:
    """Say which items came, went and moved from A to B, and whether runs on A can serve with B."""
    from sgfd.featureset import diff

    found = diff(open_features(old, artifacts_root), open_features(new, artifacts_root))
    present(found.to_json(), as_json, lambda: _print_difference(found))


def _print_difference(found: "Difference") -> None:
    for what, items in (("came", found.came), ("went", found.went)):
        click.echo(f"{what:<14}{counted(len(items), 'item')}{_first(items)}")
    click.echo(f"stayed        {counted(found.stayed, 'item')}")
    for each in found.modalities:
        if each.widths[0] != each.widths[1]:
            now = "is not there" if each.widths[1] is None else f"has {each.widths[1]} columns"
            click.echo(f"{each.name:<14}{each.widths[0]} columns; {now} in B")
            continue
        mean = "" if each.mean_cosine is None else f", mean cosine {each.mean_cosine:.4f}"
        least = [f"{item} ({cosine:.4f})" for item, cosine in each.moved[:SHOWN]]
        click.echo(
            f"{each.name:<14}{len(each.moved)} of {each.compared} items moved{mean}"
            + _first(least, len(each.moved))
        )
        if each.gained or each.lost:
            click.echo(f"{'':14}{each.gained} items have got it, {each.lost} have lost it")
    if found.more_modalities:
        click.echo(f"more          {', '.join(found.more_modalities)}")
    click.echo(f"serves        {'yes' if found.serves else 'NO'}: {found.why}")


def _first(items: list[str], of: int | None = None) -> str:
    shown = ", ".join(map(printed, items[:SHOWN]))
    return f": {shown}{', ...' if (of or len(items)) > SHOWN else ''}" if items else ""


@features.command("lineage", short_help="Say what a set was made from, and what from it.")
@click.argument("features")
@artifacts_root_option
@runs_root_option
@tunings_root_option
@comparisons_root_option
@json_option
def features_lineage(
    features: str,
    artifacts_root: Path,
    runs_root: Path,
    tunings_root: Path,
    comparisons_root: Path,
    as_json: bool,
) -> None:
    """Say what a feature set was made from, and what at hand was made from it: sets and runs."""
    from sgfd.featureset import lineage

    opened = open_features(features, artifacts_root)
    found = lineage(opened, artifacts_root)
    found["runs"] = runs_made_with(
        opened.manifest_sha256, runs_root, tunings_root, comparisons_root
    )

    def human() -> None:
        own = found["set"]
        click.echo(f"{own['name']}@{own['version']}")
        producer = f"{own['producer']['name']} {own['producer']['version']}"
        click.echo(
            f"  made          {own['created']} by {producer}: {own['method']}, seed {own['seed']}"
        )
        prints = own["dataset"]["fingerprints"]
        click.echo(f"  data set      {own['dataset']['name']}, {own['dataset']['n_items']} items")
        for what in ("catalogue", "labels", "interactions"):
            if prints[what] is not None:
                click.echo(f"  {what:<14}sha256 {prints[what]}")
        if (use := own["interactions"]) is not None:
            click.echo(f"  guided by     {_guidance(use)}")
        step = found["derived_from"]
        while step is not None:
            here = "" if step["path"] else "  (not at hand)"
            click.echo(
                f"  from          {step['name']}@{step['version']}: {step['kept']} rows kept, "
                f"{step['added']} items of {step['catalogue']} added{here}"
            )
            step = step["derived_from"]
        for name in found["derived"]:
            click.echo(f"  made of it    {name}")
        for run in found["runs"]:
            click.echo(f"  run           {run}")

    present(found, as_json, human)


def _guidance(use: dict[str, Any]) -> str:
    part = f"split {use['split']}, seed {use['split_seed']}, protocol {use['protocol']}"
    return f"{counted(use['pairs'], 'training interaction')}: {part}"


@features.command("embed", short_help="Embed items that stage one never saw, by the student.")
@click.option("--features", required=True, help="The set whose student is applied: folder or name.")
@click.option("--catalogue", required=True, help="The new items: a data set's name or folder.")
@click.option("--out", required=True, help="The set to be made: a name, or a folder (with a /).")
@click.option("--append", is_flag=True, help="Begin with the old set's rows, bit for bit.")
@click.option(
    "--modalities",
    type=NAMES,
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
    modalities: list[str] | None,
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
    made = embed(
        opened,
        load(catalogue, data_root),
        target,
        append=append,
        modalities=modalities,
        overwrite=overwrite,
    )

    def human() -> None:
        if append:
            click.echo(f"kept          {made.kept} rows of {opened.manifest.name}")
        click.echo(f"added         {counted(made.added, 'item')}")
        if made.known:
            rows = "they keep their rows" if append else "made here all the same"
            click.echo(f"known before  {made.known} items of the catalogue: {rows}")
        if made.changed:
            click.echo(f"of which      {made.changed} have other features than the old set's rows")
        click.echo(f"feature set   {made.artifact}  ({made.seconds:.1f} s)")

    present(made.to_json(), as_json, human)


@features.command("export-onnx", short_help="Write the student as ONNX files, one a modality.")
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
