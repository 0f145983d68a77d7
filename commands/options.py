"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
data_root_option = click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder of the data sets [default: $PIPELINE_DATA, else ./data].",
)
artifacts_root_option = click.option(
    "--artifacts-root",
    type=click.Path(path_type=Path),
    default=Path("artifacts"),
    show_default=True,
    help="Folder of the feature sets.",
)
runs_root_option = click.option(
    "--runs-root",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder of the runs.",
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable."
)
seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True
)
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="Threads of torch and FAISS [default: all cores]."
)
refit_option = click.option(
    "--refit",
    is_flag=True,
    help="Once the model is chosen, train anew on train and valid together, and test that too.",
)
k_option = click.option("--k", type=click.IntRange(1), default=10, show_default=True)
label_option = click.option("--label", help="List items of this label alone.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing result.")


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The run a command reads: RUN or --run, else the newest one."""
    command = click.argument("run_argument", metavar="[RUN]", required=False)(command)
    command = click.option("--run", "run_option", help="A run: folder or name [default: newest].")(
        command
    )
    return runs_root_option(json_option(command))
