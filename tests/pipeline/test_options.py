"""What is typed as an option becomes what was meant."""

import csv
from inspect import signature
from typing import get_args

import pytest

from sgfd import recommenders
from sgfd.commands.options import NAMES
from sgfd.dataset import Protocol, Split
from sgfd.pipeline import cli


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("a,b", ["a", "b"]),
        (" a b , c,", ["a b", "c"]),
        ('"a,b",c', ["a,b", "c"]),
        ('" x ",y', [" x ", "y"]),
        ('"a ""b""",c', ['a "b"', "c"]),
        ('a"b,c', ['a"b', "c"]),
    ],
)
def test_names_are_read_as_csv_is(typed, names):
    assert NAMES.convert(typed, None, None) == names
    if '"' in typed:
        assert next(csv.reader([typed])) == names


@pytest.mark.parametrize("typed", ['"a', '"a"b', '"'])
def test_a_quote_that_closes_nothing_is_part_of_the_name(typed):
    assert NAMES.convert(f"{typed},c", None, None) == [typed, "c"]


@pytest.mark.parametrize("command", ["train", "tune", "compare"])
def test_the_command_line_and_python_have_the_same_defaults(command):
    """The options are declared apart: to show help needs no torch."""
    of_python = signature(recommenders.train).parameters
    options = {option.name: option for option in cli.commands[command].params}
    same = ["split", "split_seed", "feature_scale", "dimension", "trust_features", "min_coverage"]
    same += [
        "device",
        "threads",
        "refit",
        *(["seed", "modalities"] if command != "compare" else []),
    ]
    for name in same:
        of_option = options[name].to_info_dict()["default"]
        assert of_option == of_python[name].default, name


@pytest.mark.parametrize(
    ("command", "option", "meant"),
    [
        ("train", "split", Split),
        ("train", "protocol", Protocol),
        ("distill", "split", Split),
        ("compare", "split", Split),
    ],
)
def test_the_command_line_offers_what_python_knows(command, option, meant):
    (found,) = (each for each in cli.commands[command].params if each.name == option)
    assert list(found.type.choices) == list(get_args(meant))
