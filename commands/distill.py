"""`pipeline distill`: stage one."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from sgfd.commands.inputs import load, plain_name
from sgfd.commands.options import (
    NAMES,
    artifacts_root_option,
    data_root_option,
    device_option,
    guiding_protocol_option,
    json_option,
    overwrite_option,
    seed_option,
    set_option,
    split_option,
    split_seed_option,
    threads_option,
)
from sgfd.commands.output import present, print_figures
from sgfd.commands.settings import SettingsHelp, choose, read_settings

if TYPE_CHECKING:
    from sgfd.dataset import Protocol, Split
    from sgfd.featureset import EncodingKind

PRESET_NAMES = "office, clothing or toys-games (also with -bm3, -grcn, -maml)"


@click.command(cls=SettingsHelp, short_help="Stage one: turn generic features into a feature set.")
@click.option("--dataset", required=True, help="A data set: name, folder, or sample.")
@click.option(
    "--method",
    is_eager=True,  # so that --help after it knows it
    help="sgfd-plus (guided by interactions) [default], sgfd (the paper's), "
    "interaction-metric, or what they are held against: raw, standard, pca, random, label, "
    "autoencoder, rq-vae, clcrec. With --help, its settings alone.",
)
@click.option(
    "--name",
    help="Name of the feature set [default: the data set's; DATASET-METHOD for other methods].",
)
@click.option(
    "--preset",
    help=f"Makes sgfd the method, with the paper's weights and temperature: {PRESET_NAMES}.",
)
@click.option(
    "--compress",
    type=NAMES,
    metavar="KINDS",
    help="Add compressed modalities, such as fused_int8: float16, int8 and pq (product "
    "quantisation), with commas between [default: none].",
)
@click.option(
    "--neighbours",
    type=click.IntRange(1),
    metavar="K",
    help="Add the K nearest others of every item, by cosine [default: none].",
)
@click.option("--licence", help="Of the features, for their card: best an SPDX identifier.")
@click.option("--contact", help="Whom to ask about them, for their card.")
@guiding_protocol_option
@split_option
@split_seed_option
@set_option
@seed_option
@device_option
@threads_option
@overwrite_option
@data_root_option
@artifacts_root_option
@json_option
def distill(
    dataset: str,
    method: str | None,
    name: str | None,
    preset: str | None,
    compress: list[str] | None,
    neighbours: int | None,
    licence: str | None,
    contact: str | None,
    protocol: "Protocol",
    split: "Split",
    split_seed: int,
    overrides: tuple[str, ...],
    seed: int,
    device: str,
    threads: int | None,
    overwrite: bool,
    data_root: Path | None,
    artifacts_root: Path,
    as_json: bool,
) -> None:
    """Stage one: turn a catalogue's generic features into a feature set.

    A method that interactions guide sees the training part of --split, --split-seed and --protocol,
    and nothing else: give those of the trainings to come.
    """
    from sgfd.distill import DEFAULT_METHOD, METHODS, PRESETS
    from sgfd.featureset import KINDS

    method = method or ("sgfd" if preset else DEFAULT_METHOD)
    chosen = choose(method, METHODS, "--method")
    if preset and method != "sgfd":
        raise click.UsageError(f"--preset: is of sgfd, not of {method}; leave it out")
    base = choose(preset, PRESETS, "--preset") if preset else {}
    settings = read_settings(chosen.settings, overrides, base)
    from sgfd.distill import distill as run_stage_one

    known: dict[str, EncodingKind] = {kind: kind for kind in KINDS}
    kinds = [choose(kind, known, "--compress") for kind in compress or ()]
    loaded = load(dataset, data_root)
    own_name = loaded.name if method == DEFAULT_METHOD else f"{loaded.name}-{method}"
    if split != "given" and chosen.uses_interactions:
        own_name += f"-{split}"
    target = artifacts_root / plain_name(own_name if name is None else name, "--name")
    result = run_stage_one(
        loaded,
        target,
        settings,
        seed,
        method=method,
        protocol=protocol,
        split=split,
        split_seed=split_seed,
        device=device,
        threads=threads,
        overwrite=overwrite,
        compress=kinds,
        neighbours=neighbours,
        licence=licence,
        contact=contact,
    )

    def human() -> None:
        print_figures(result.quality)
        click.echo(f"feature set   {result.artifact}  ({result.seconds:.1f} s)")

    present(result.to_json(), as_json, human)
