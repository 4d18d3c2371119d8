"""Folding: every name is in exactly one row, and a row's name selects exactly what it stands for."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratree.core.select import tests_of as compiled
from paratree.verbs.fold import fold, split_all
from tests.verbs.trees import listed

ANY = listed("w")  # a selector asks a parameter for its other names

SEGMENTS = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "3",
        "10",
        "007",
        "w",
        "layer_0",
        "layer_1",
        "layer_2",
        "layer_3",
        "",
        "٣",
        "*",
        "{0..1}",
        "a[0]",
        "-1",
    ]
)
SEPARATORS = st.sampled_from([".", ".", ".", "/"])
NAMES = st.lists(st.tuples(SEGMENTS, st.lists(st.tuples(SEPARATORS, SEGMENTS), max_size=4)), max_size=40)


def joined(first, rest):
    return first + "".join(itertools.chain.from_iterable(rest))


def expanded(folded):
    """Return the names that a folded one stands for, by its own account."""
    options = []
    for segment, times in zip(folded.path, folded.times, strict=True):
        if times == 1:
            options.append([segment])
        else:
            stem, low, high = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}", segment, re.DOTALL).groups()
            assert int(high) - int(low) + 1 == times
            options.append([f"{stem}{number}" for number in range(int(low), int(high) + 1)])
    return ["".join(parts) for parts in itertools.product(*options)]


def rows_of(names, sign=lambda name: 0):
    return ["".join(row.path) for row in fold(names, [sign(name) for name in names])]


@given(NAMES, st.integers(1, 3))
def test_expanding_gives_exactly_the_names(pieces, kinds):
    names = list(dict.fromkeys(joined(*piece) for piece in pieces))
    rows = fold(names, [hash(name) % kinds for name in names])
    found = [name for row in rows for name in expanded(row)]
    assert sorted(found) == sorted(names)
    assert [row.first for row in rows] == sorted(row.first for row in rows)
    assert all(names[row.first] == expanded(row)[0] for row in rows)


@given(NAMES)
def test_a_folded_name_selects_what_it_stands_for(pieces):
    names = list(dict.fromkeys(joined(*piece) for piece in pieces))
    for row in fold(names, [0] * len(names)):
        if set(row.times) - {1}:
            fits = compiled("".join(row.path), role=None, kind=None, dtype=None, ndim=None)
            meant = {name.replace("/", ".") for name in expanded(row)}
            assert [n for n in names if fits(n, ANY)] == [n for n in names if n.replace("/", ".") in meant]


@given(NAMES)
def test_equal_signs_are_needed_to_fold(pieces):
    names = list(dict.fromkeys(joined(*piece) for piece in pieces))
    assert ["".join(row.path) for row in fold(names, names)] == names
    assert ["".join(row.path) for row in split_all(names)] == names


def test_experts_inside_layers_fold_and_dense_layers_stay_apart():
    names = [f"layers.{i}.mlp.{part}" for i in range(3) for part in ("up.weight", "down.weight")]
    names += [f"layers.{i}.mlp.experts.{j}.up.weight" for i in range(3, 61) for j in range(256)]
    rows = fold(names, [0] * len(names))
    assert ["".join(row.path) for row in rows] == [
        "layers.{0..2}.mlp.up.weight",
        "layers.{0..2}.mlp.down.weight",
        "layers.{3..60}.mlp.experts.{0..255}.up.weight",
    ]
    assert rows[-1].times == (1, 58, 1, 1, 256, 1, 1)


def test_a_different_shape_inside_parts_the_run():
    names = [f"layers.{i}.{part}" for i in range(6) for part in ("a", "b")]
    assert rows_of(names, lambda name: name == "layers.3.b") == [
        "layers.{0..2}.a",
        "layers.{0..2}.b",
        "layers.3.a",
        "layers.3.b",
        "layers.{4..5}.a",
        "layers.{4..5}.b",
    ]


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["0.w", "2.w", "4.w"], ["0.w", "2.w", "4.w"]),  # not consecutive
        (["0.w", "1.w"], ["{0..1}.w"]),
        (["conv1.w", "conv2.w"], ["conv1.w", "conv2.w"]),  # two of a stem are quicker read than folded
        (["conv1.w", "conv2.w", "conv3.w"], ["conv{1..3}.w"]),
        (["block_0/w", "block_1/w", "block_2/w"], ["block_{0..2}/w"]),
        (["l.00", "l.01", "l.02"], ["l.00", "l.01", "l.02"]),  # no plain numbers
        (["a*.0.w", "a*.1.w"], ["a*.0.w", "a*.1.w"]),  # its folded name would select others
        (["0.w", "1.w", "1"], ["0.w", "1.w", "1"]),  # a tensor that has the name of a block
        (["l." + "9" * 5000, "l.1" + "0" * 5000], ["l." + "9" * 5000, "l.1" + "0" * 5000]),
        ([""], [""]),
    ],
)
def test_what_folds_and_what_does_not(names, rows):
    assert rows_of(names) == rows


def test_a_run_is_no_longer_than_a_selector_takes():
    rows = rows_of([f"{i}" for i in range(100_003)])
    assert rows == ["{0..100000}", "{100001..100002}"]


def test_a_hostile_name_stays_whole():
    names = ["a." * 200_000 + "w", ".".join("ab" * 20)]
    rows = fold(names, [0, 0])
    assert [row.path for row in rows] == [(name,) for name in names]
