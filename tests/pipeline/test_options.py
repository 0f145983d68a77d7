"""What is typed as an option becomes what was meant."""

import csv

import pytest

from sgfd.commands.options import NAMES


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
