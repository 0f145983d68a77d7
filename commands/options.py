"""Options that several commands share."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

_NAME = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*(?=,|$)|([^,]*))(?:,|$)')


class Names(click.ParamType[list[str]]):
    """Names with commas between, at least one; as in CSV, one in double quotes may hold commas and
    outer blanks."""

    name = "names"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        if isinstance(value, list):
            return value
        names = [
            quoted.replace('""', '"') or plain.strip() for quoted, plain in _NAME.findall(value)
        ]
        names = [name for name in names if name]
        return names or self.fail(f"{value!r} names none; give at least one", param, ctx)


NAMES = Names()

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
data_root_option = click.option(
    "--data-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
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
tunings_root_option = click.option(
    "--tunings-root",
    type=click.Path(path_type=Path),
    default=Path("tunings"),
    show_default=True,
    help="Folder of the searches.",
)
comparisons_root_option = click.option(
    "--comparisons-root",
    type=click.Path(path_type=Path),
    default=Path("comparisons"),
    show_default=True,
    help="Folder of the comparisons.",
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeatable."
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=0,
    show_default=True,
    help="Of all that is random but the parts.",
)
split_option = click.option(
    "--split",
    type=click.Choice(["given", "random", "cold-items", "temporal", "leave-one-out"]),
    default="given",
    show_default=True,
    help="The data set's own parts; or as test a fifth of each user's items at random, whole "
    "items, the last in time, a user's last.",
)
split_seed_option = click.option(
    "--split-seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the parts, where --split or valid is drawn at random.",
)
_protocol = partial(
    click.option,
    "--protocol",
    type=click.Choice(["honest", "paper"]),
    default="honest",
    show_default=True,
)
protocol_option = _protocol(
    help="The model is chosen on valid, or on test as the paper does it (to compare only)."
)
guiding_protocol_option = _protocol(
    help="That of the trainings to come: interactions of train guide, by paper's valid ones, too."
)
scale_option = click.option(
    "--feature-scale",
    type=click.Choice(["entry", "unit", "stored"]),
    default="entry",
    show_default=True,
    help="Features with mean squared entry 1, as unit vectors, or as they are stored.",
)
min_coverage_option = click.option(
    "--min-coverage",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Least share of the data set's items that the features must know.",
)
dimension_option = click.option(
    "--dim",
    "dimension",
    type=click.IntRange(1),
    help="Use so many leading columns of the features alone (nested dimensions).",
)
trust_option = click.option(
    "--trust-features",
    is_flag=True,
    help="Use features guided by interactions of which nobody can tell whether test is in them.",
)
signature_option = click.option(
    "--require-signature",
    "key",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="KEY",
    help="A file of public SSH keys (.pub): one of them must have signed the set.",
)
judge_users_option = click.option(
    "--judge-users",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A text file with a user id a line: test judges these alone.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to compute; auto is the GPU where there is one.",
)
threads_option = click.option(
    "--threads", type=click.IntRange(1), help="Threads of torch and FAISS [default: all cores]."
)
refit_option = click.option(
    "--refit",
    is_flag=True,
    help="Once the model is chosen, train anew on train and valid together, and test that too.",
)
k_option = click.option(
    "--k", type=click.IntRange(1), default=10, show_default=True, help="Items to list."
)
label_option = click.option("--label", help="List items of this label alone.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an existing result.")


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What `train` and `tune` are told alike, beside the backbone; `training_inputs` reads it."""
    options = (
        click.option(
            "--preset", help="The authors' published settings: office, clothing or toys-games."
        ),
        click.option(
            "--features", help="A feature set: folder, name or name@version; none to train without."
        ),
        click.option(
            "--dataset", help="A data set: name, folder, or sample [default: the features']."
        ),
        split_option,
        judge_users_option,
        set_option,
        refit_option,
        seed_option,
        split_seed_option,
        scale_option,
        click.option(
            "--modalities",
            type=NAMES,
            help="Those of the feature set to use, with commas between [default: those it names].",
        ),
        dimension_option,
        trust_option,
        min_coverage_option,
        device_option,
        threads_option,
        data_root_option,
        artifacts_root_option,
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The run a command reads: RUN or --run, else the newest one."""
    command = click.argument("run_argument", metavar="[RUN]", required=False)(command)
    command = click.option("--run", "run_option", help="A run: folder or name [default: newest].")(
        command
    )
    return runs_root_option(json_option(command))
