"""The selector language."""

import re
import warnings
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratree.core.errors import MismatchError
from tests.core.trees import tree_of

NAMES = (
    "embed.weight",
    "encoder.0.attn.query.weight",
    "encoder.0.attn.key.weight",
    "encoder.0.attn.query.bias",
    "encoder.0.norm.weight",
    "encoder.1.attn.query.weight",
    "encoder.10.attn.query.weight",
    "attn.query.weight",
    "scale",
)


def chosen(*args, names=NAMES, **options):
    return list(tree_of(*names).select(*args, **options))


GLOBS = [
    ("scale", ["scale"]),
    ("embed.weight", ["embed.weight"]),
    ("embed", []),
    ("*", ["scale"]),
    ("*.weight", ["embed.weight"]),
    ("**", list(NAMES)),
    ("**.weight", [n for n in NAMES if n.endswith("weight")]),
    ("**.**.weight", [n for n in NAMES if n.endswith("weight")]),
    ("encoder.**", [n for n in NAMES if n.startswith("encoder.")]),
    ("encoder.*.norm.weight", ["encoder.0.norm.weight"]),
    ("encoder.*.weight", []),
    ("**.attn.**", [n for n in NAMES if "attn." in n]),
    ("**.attn.query.weight", [n for n in NAMES if n.endswith("attn.query.weight")]),
    ("attn.**.query.weight", ["attn.query.weight"]),
    ("encoder.?.attn.query.weight", ["encoder.0.attn.query.weight", "encoder.1.attn.query.weight"]),
    ("encoder.1*.**", ["encoder.1.attn.query.weight", "encoder.10.attn.query.weight"]),
    ("**.{query,key}.weight", [n for n in NAMES if n.endswith(("query.weight", "key.weight"))]),
    ("**.{query,key}.{bias,scale}", ["encoder.0.attn.query.bias"]),
    ("**.{qu*y,nothing}.bias", ["encoder.0.attn.query.bias"]),
    ("{embed.weight,scale}", ["embed.weight", "scale"]),
    ("encoder.{1..10}.**", ["encoder.1.attn.query.weight", "encoder.10.attn.query.weight"]),
    ("encoder.{0..0}.norm.*", ["encoder.0.norm.weight"]),
    ("encoder.[01].attn.query.weight", ["encoder.0.attn.query.weight", "encoder.1.attn.query.weight"]),
    ("encoder.[!0].**", ["encoder.1.attn.query.weight"]),
    ("[a-e]*.weight", ["embed.weight"]),
    ("embed[!x]weight", []),
    ("embed[--/]weight", []),
    ("encoder/0/norm/*", ["encoder.0.norm.weight"]),
    ("SCALE", []),
    ("", []),
    ("sca", []),
    ("s.ale", []),
]


@pytest.mark.parametrize(("glob", "expected"), GLOBS)
def test_a_glob(glob, expected):
    assert chosen(glob) == expected


def test_names_with_slashes_and_with_signs_of_the_language_are_found():
    names = ("dense/kernel:0", "a[0].w", "a{b}.w", "x*y", "(w+b)^2|$")
    assert chosen("dense.*", names=names) == ["dense/kernel:0"]
    assert chosen("dense/*", names=names) == ["dense/kernel:0"]
    for name in names:
        assert chosen(name, names=names) == [name], "a name selects itself"


@pytest.mark.parametrize("glob", ["[z-a]", "[a--b]", "w[b-a]x", "{3..1}", "{0..999999999}", "{-5..-9}"])
def test_a_glob_that_means_nothing_is_a_value_error(glob):
    with pytest.raises(ValueError, match=f"selector .*{re.escape(glob.strip('wx'))}"):
        chosen(glob)


@pytest.mark.parametrize(
    "glob", ["[[]", "[a&&b]", "[+--b]", "[!]", "[^a]", "[\\w]", "[]", "[", "{", "}", "{a", "{{a}}", "{}"]
)
def test_an_odd_glob_is_no_accident(glob):
    with warnings.catch_warnings(action="error"):
        chosen(glob, names=("a", "[", "w", "\\"))


def test_brackets_hold_characters_and_not_regular_expressions():
    names = ("a", "b", "w", "\\", "[", "&", "^", "1")
    assert chosen("[\\w]", names=names) == ["w", "\\"]
    assert chosen("[[&]", names=names) == ["[", "&"]
    assert chosen("[^a]", names=names) == ["a", "^"]
    assert chosen("[!a-z]", names=names) == ["\\", "[", "&", "^", "1"]


def test_a_regular_expression_is_searched():
    assert chosen(re.compile(r"\.1\d*\.")) == ["encoder.1.attn.query.weight", "encoder.10.attn.query.weight"]
    assert chosen(re.compile("^attn")) == ["attn.query.weight"]


def test_a_predicate_sees_the_parameter():
    tree = tree_of(("a", (3,)), ("b", (5,)))
    assert list(tree.select(lambda p: p.size > 4)) == ["b"]


def test_an_iterable_fits_if_any_of_it_does():
    assert chosen(["scale", re.compile("bias$"), lambda p: p.name == "embed.weight", ("**.norm.*",)]) == [
        "embed.weight", "encoder.0.attn.query.bias", "encoder.0.norm.weight", "scale",
    ]  # fmt: skip
    assert chosen([]) == []
    assert chosen(iter(["scale"])) == ["scale"]


ROWS = (
    ("dense.kernel", (3, 4), "float32"),
    ("dense.bias", (4,), "float16"),
    ("norm.moving_mean", (4,), "float32", "buffer"),
    ("optimizer.m", (3, 4), "float32", "state"),
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"role": "weight"}, ["dense.kernel"]),
        ({"role": ["weight", "bias"]}, ["dense.kernel", "dense.bias"]),
        ({"kind": "buffer"}, ["norm.moving_mean"]),
        ({"kind": {"state", "buffer"}}, ["norm.moving_mean", "optimizer.m"]),
        ({"dtype": "float16"}, ["dense.bias"]),
        ({"dtype": ("float16", "int8")}, ["dense.bias"]),
        ({"ndim": 2}, ["dense.kernel", "optimizer.m"]),
        ({"ndim": range(1, 2)}, ["dense.bias", "norm.moving_mean"]),
        ({"ndim": 2, "kind": "parameter"}, ["dense.kernel"]),
        ({"pattern": "dense.*", "ndim": 1}, ["dense.bias"]),
        ({"pattern": "dense.*", "role": "running_mean"}, []),
        ({"role": []}, []),
        ({}, [row[0] for row in ROWS]),
    ],
)
def test_everything_given_must_fit(options, expected):
    assert chosen(names=ROWS, **options) == expected


def test_a_selection_is_a_tree_with_the_same_names():
    tree = tree_of(*NAMES)
    part = tree.select("**.attn.**")
    assert part["encoder.0.attn.query.bias"] is tree["encoder.0.attn.query.bias"]
    assert list(part.select("**.bias")) == ["encoder.0.attn.query.bias"]
    assert part.prefix == ""


def test_in_a_subtree_names_are_relative():
    block = tree_of(*NAMES)["encoder.0"]
    assert list(block.select("norm.*")) == ["norm.weight"]
    assert list(block.select("encoder.**")) == []
    assert block.select("norm.*").prefix == "encoder.0"


# Any glob

pieces = st.sampled_from(["a", "b", "10", "*", "?", "[ab]", "[!a]", "a*"])
words = st.lists(st.text("ab10", min_size=1, max_size=3), min_size=1, max_size=3)


@given(st.lists(words.map(".".join), unique=True, max_size=10), st.lists(pieces, min_size=1, max_size=3))
def test_a_glob_agrees_with_the_shell_segment_by_segment(names, pattern):
    expected = [
        name for name in names
        if len(name.split(".")) == len(pattern) and all(map(fnmatchcase, name.split("."), pattern))
    ]  # fmt: skip
    assert chosen(".".join(pattern), names=names) == expected


@given(st.lists(words.map(".".join), unique=True, max_size=10), words, words)
def test_two_stars_are_any_number_of_segments(names, front, back):
    front, back = ".".join(front), ".".join(back)
    fits = [
        n for n in names if n == f"{front}.{back}" or (n.startswith(f"{front}.") and n.endswith(f".{back}"))
    ]
    expected = [n for n in fits if len(n) > len(front) + len(back)]
    assert chosen(f"{front}.**.{back}", names=names) == expected


@given(st.lists(st.integers(0, 40), unique=True), st.integers(0, 40), st.integers(0, 40))
def test_a_range_is_every_number_in_it(numbers, low, high):
    low, high = sorted((low, high))
    names = [f"layers.{n}.w" for n in numbers]
    assert chosen(f"layers.{{{low}..{high}}}.w", names=names) == [
        f"layers.{n}.w" for n in numbers if low <= n <= high
    ]


@given(st.lists(st.text(max_size=8), unique=True, max_size=6), st.text(max_size=8))
def test_a_name_selects_itself_and_no_glob_breaks(names, glob):
    for name in names:
        assert name in chosen(re.compile("", re.DOTALL), names=names)
        try:
            assert name in chosen(name, names=names)
        except ValueError as error:
            assert str(error).startswith("selector ")
    try:
        chosen(glob, names=names)
    except ValueError as error:
        assert str(error).startswith("selector ")


def test_a_row_of_show_can_be_pasted():
    tree = tree_of("encoder.0.w", "encoder.1.w", "decoder.0.w")
    assert list(tree.select("encoder.{0..1}.w ×2")) == ["encoder.0.w", "encoder.1.w"]


def test_dtypes_may_be_objects():
    import ml_dtypes
    import numpy as np

    tree = tree_of("w")
    for dtype in (np.float32, np.dtype("float32"), "float32", [np.float32, ml_dtypes.bfloat16]):
        assert list(tree.select(dtype=dtype)) == ["w"], dtype
    assert not tree.select(dtype=ml_dtypes.bfloat16)


@pytest.mark.parametrize("wrong", [{"kind": "buffers"}, {"role": "kernel"}, {"role": ["weight", "kernel"]}])
def test_a_word_that_no_parameter_can_have_is_refused(wrong):
    with pytest.raises(ValueError, match=r"there is no (kind|role) '(buffers|kernel)'; there are: "):
        tree_of("w").select(**wrong)


@pytest.mark.parametrize("wrong", [5, b"w", 1.5, ["w", 5]])
def test_what_is_no_selector_is_refused(wrong):
    with pytest.raises(
        MismatchError, match=r"select takes a glob, .* not an object of type (int|bytes|float)"
    ):
        tree_of("w").select(wrong)


@pytest.mark.parametrize("wrong", [{"kind": 5}, {"kind": [[1]]}, {"role": {"a": 1}}])
def test_what_is_no_word_is_refused(wrong):
    with pytest.raises(MismatchError, match=r"there is no (kind|role) "):
        tree_of("w").select(**wrong)
