"""Numbers in units: short, and true to within the last figure."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratree.render import html, json, results, terminal, text, units
from paratree.render.units import count, count_of, plural, shape, size

FACTORS = {
    "": 1,
    "B": 1,
    "k": 1e3,
    "kB": 1e3,
    "M": 1e6,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "PB": 1e15,
    "T": 1e12,
}


def value(said, of_bytes):
    number, _, unit = said.partition(" ")
    return float(number) * (1e9 if unit == "B" and not of_bytes else FACTORS[unit])


@given(st.integers(0, 10**14), st.booleans())
def test_a_number_in_units_is_short_and_true(number, of_bytes):
    said = size(number) if of_bytes else count(number)
    assert len(said.partition(" ")[0]) <= 4
    assert abs(value(said, of_bytes) - number) <= number * 0.051
    assert len(said) <= 7


@pytest.mark.parametrize(
    ("number", "counted", "sized"),
    [
        (0, "0", "0 B"),
        (999, "999", "999 B"),
        (1000, "1.0 k", "1.0 kB"),
        (99_949, "99.9 k", "99.9 kB"),
        (99_951, "100 k", "100 kB"),
        (999_499, "999 k", "999 kB"),
        (999_500, "1.0 M", "1.0 MB"),
        (6_738_415_616, "6.7 B", "6.7 GB"),
        (10**20, "100000000 T", "100 EB"),
    ],
)
def test_where_one_unit_ends_and_the_next_begins(number, counted, sized):
    assert (count(number), size(number)) == (counted, sized)


def test_words():
    assert (plural(1, "tensor"), plural(0, "tensor")) == ("1 tensor", "0 tensors")
    assert (count_of(1, "value"), count_of(2500, "value")) == ("1 value", "2.5 k values")
    assert (shape(()), shape((None,)), shape((2, 3))) == ("scalar", "?", "2 × 3")


@pytest.mark.parametrize("module", [html, json, results, terminal, text, units])
def test_the_examples_of_a_module(module):
    assert doctest.testmod(module).failed == 0
