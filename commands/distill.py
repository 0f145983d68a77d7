"""`pipeline distill`: stage one."""

from pathlib import Path

import click

from sgfd.commands.inputs import load, plain_name
from sgfd.commands.options import (
    artifacts_root_option,
    data_root_option,
    device_option,
    json_option,
    overwrite_option,
    seed_option,
    set_option,
    threads_option,
)
from sgfd.commands.output import present, print_figures
from sgfd.commands.settings import SettingsHelp, choose, read_settings

PRESET_NAMES = "office, clothing or toys-games (also with -bm3, -grcn, -maml)"


@click.command(cls=SettingsHelp)
@click.option("--dataset", required=True, help="A data set: name, folder, or sample.")
@click.option(
    "--method",
    help="sgfd-plus, guided by the training interactions [default]; sgfd, the paper's; "
    "interaction-metric; or what they are compared with: raw, standard, pca, random, label, "
    "autoencoder.",
)
@click.option(
    "--name",
    help="Name of the feature set [default: the data set's, DATASET-METHOD where one is named].",
)
@click.option("--preset", help=f"Of sgfd: the paper's weights and temperature: {PRESET_NAMES}.")
@protocol_option
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
    method: str,
    name: str | None,
    preset: str | None,
    overrides: tuple[str, ...],
    seed: int,
    device: str,
    threads: int | None,
    overwrite: bool,
    data_root: Path | None,
    artifacts_root: Path,
    as_json: bool,
) -> None:
    """Stage one: turn a catalogue's generic features and labels into a feature set."""
    from sgfd.distill import METHODS, PRESETS

    chosen = choose(method, METHODS, "--method")
    if preset and method != "sgfd":
        raise click.UsageError(f"--preset: is of sgfd, not of {method}; leave it out")
    base = choose(preset, PRESETS, "--preset") if preset else {}
    settings = read_settings(chosen.settings, overrides, base)
    from sgfd.distill import distill as run_stage_one

    loaded = load(dataset, data_root)
    own_name = loaded.name if method == "sgfd" else f"{loaded.name}-{method}"
    target = artifacts_root / plain_name(name or own_name, "--name")
    result = run_stage_one(
        loaded,
        target,
        settings,
        seed,
        method=method,
        device=device,
        threads=threads,
        overwrite=overwrite,
    )

    def human() -> None:
        print_figures(result.quality)
        click.echo(f"feature set   {result.artifact}  ({result.seconds:.1f} s)")

    present(result.to_json(), as_json, human)
