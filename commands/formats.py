"""`pipeline features export | import`: to other tools and from them."""

from pathlib import Path

import click

from sgfd.commands.inputs import open_features, plain_name, result_path
from sgfd.commands.options import NAMES, artifacts_root_option, json_option, overwrite_option
from sgfd.commands.output import present, problem_line
from sgfd.commands.settings import choose

IMPORTED = ("mmrec", "ducho")


@click.command("export")
@click.argument("features")
@click.option(
    "--format",
    "kind",
    required=True,
    help="mmrec, recbole, cornac, numpy, safetensors, hf-datasets, lance or faiss.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option(
    "--modalities",
    type=NAMES,
    help="With commas between [default: those that the set is used by].",
)
@overwrite_option
@artifacts_root_option
@json_option
def export(
    features: str,
    kind: str,
    out: Path,
    modalities: list[str] | None,
    overwrite: bool,
    artifacts_root: Path,
    as_json: bool,
) -> None:
    """Write a feature set as another tool reads it.

    mmrec, recbole and cornac: files to lay beside a data set of theirs. numpy, safetensors: arrays.
    hf-datasets, lance: a table (lance needs the package pylance). faiss: an exact index by cosine.
    """
    from sgfd.featureset import formats
    from sgfd.jobs import progress, room_in

    choose(kind, formats.FORMATS, "--format")
    plain_name(out.name, "--out")
    opened = open_features(features, artifacts_root)
    wanted = opened.chosen_modalities(modalities)
    with progress(opened.n_items * len(wanted), "exporting") as advance, room_in(out):
        files = formats.export(opened, out, kind, wanted, overwrite, advance)

    def human() -> None:
        for file in files:
            click.echo(out / file)

    present({"folder": str(out), "format": kind, "files": files}, as_json, human)


@click.command("import", short_help="Make a feature set of another tool's features.")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format", "kind", required=True, type=click.Choice(IMPORTED), help="Whose files they are."
)
@click.option("--out", required=True, help="The set to be made: a name, or a folder (with a /).")
@click.option("--licence", help="Of the features, for their card: best an SPDX identifier.")
@click.option("--contact", help="Whom to ask about them, for their card.")
@overwrite_option
@artifacts_root_option
@json_option
def import_(
    folder: Path,
    kind: str,
    out: str,
    licence: str | None,
    contact: str | None,
    overwrite: bool,
    artifacts_root: Path,
    as_json: bool,
) -> None:
    """Make a feature set of the features that another tool made, as they are.

    mmrec: a folder with IMAGE_feat.npy and the like, and i_id_mapping.csv for the ids, where there
    is one. ducho: a folder with visual_embeddings, textual_embeddings and the like. Interactions
    are left where they are. `distill --dataset FOLDER` distils the same features.
    """
    target = result_path(out, artifacts_root, "--out")
    from sgfd.dataset import read_layout
    from sgfd.distill import distill

    loaded = read_layout(folder, kind)
    for problem in loaded.warnings:
        click.echo(f"warning: {problem_line(problem)}", err=True)
    made = distill(
        loaded, target, method="raw", overwrite=overwrite, licence=licence, contact=contact
    )
    present(
        made.to_json(),
        as_json,
        lambda: click.echo(f"feature set   {made.artifact}  ({made.seconds:.1f} s)"),
    )
