"""Errors: source, fact, next step; paratree's root and the builtin."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt
from paratree.core import errors
from paratree.core.errors import CorruptFileError, NoSuchParamError, UnsafeFileError, printable
from tests.core.trees import tree_of


@pytest.mark.parametrize(
    ("ours", "builtin"),
    [
        (pt.UnknownSourceError, TypeError),
        (pt.SourceNotFoundError, FileNotFoundError),
        (pt.MissingPackageError, ImportError),
        (pt.CorruptFileError, ValueError),
        (pt.UnsafeFileError, ValueError),
        (pt.UnreadableError, TypeError),
        (pt.NoSuchParamError, KeyError),
    ],
)
def test_each_error_is_ours_and_a_builtin(ours, builtin):
    assert issubclass(ours, pt.ParatreeError)
    assert issubclass(ours, builtin)
    assert ours.__name__ in errors.__doc__


def test_every_error_is_public():
    ours = {name for name, value in vars(errors).items() if isinstance(value, type) and name[0] != "_"}
    assert ours <= set(pt.__all__)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({}, "f.pt: no good; the file is damaged or was cut short: fetch it again"),
        ({"offset": 0, "advice": "stop"}, "f.pt: at byte 0: no good; stop"),
        ({"member": "data.pkl", "advice": "stop"}, "f.pt: (member data.pkl): no good; stop"),
        (
            {"offset": 1204, "member": "a\nb", "advice": "stop"},
            r"f.pt: at byte 1204 (member a\nb): no good; stop",
        ),
    ],
)
@pytest.mark.parametrize("kind", [CorruptFileError, UnsafeFileError])
def test_an_error_of_a_file_names_the_place_the_fact_and_the_next_step(kind, place, expected):
    error = kind("f.pt", "no good", **place)
    assert str(error) == expected
    assert (error.path, error.reason) == ("f.pt", "no good")
    assert (error.offset, error.member) == (place.get("offset"), place.get("member"))


def test_what_comes_from_a_file_is_escaped_and_cut():
    error = CorruptFileError("a\x1b]0;x\x07.pt", "is \u202ebad", member="m" * 10_000)
    assert str(error).isprintable()
    assert len(str(error)) < 400


@given(st.text())
def test_printable_text_is_printable_and_plain_text_is_left_alone(text):
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize(
    ("names", "asked", "hint"),
    [
        ((), "w", "; the tree is empty"),
        (("model.w", "model.b"), "w", "; did you mean 'model.w'? (every name here begins with 'model.')"),
        (("model.w", "head.b"), "w", "; did you mean 'model.w'?"),
        (("encoder.0.w",), "encoder", "; it is a subtree: 'encoder.**' selects what is below it"),
        (("dense.weight", "norm.scale"), "dense.wieght", "; did you mean 'dense.weight'?"),
        (("dense.weight",), "zzz", ""),
        (("a.\x1b.w",), "\x1b.w", r"; did you mean 'a.\x1b.w'? (every name here begins with 'a.')"),
    ],
)
def test_a_missing_name_gets_the_nearest_hint(names, asked, hint):
    error = NoSuchParamError(asked, names, "net")
    assert str(error) == f"net: no parameter '{printable(asked)}'{hint}"
    assert error.name == asked


def test_in_a_large_tree_only_the_first_names_are_compared():
    """Comparing a hundred thousand names letter by letter would take seconds, for a typing error."""
    names = {f"layers.{i}.x": None for i in range(100_000)} | {"embedding.weight": None}
    assert "did you mean 'layers.7.x'" in str(NoSuchParamError("layer.7.x", names, "net"))
    assert str(NoSuchParamError("embeding.weigth", names, "net")) == "net: no parameter 'embeding.weigth'"


def test_the_hint_of_a_subtree_is_relative_to_it():
    with pytest.raises(NoSuchParamError, match=r"did you mean '0\.weight'"):
        tree_of("encoder.0.weight")["encoder"]["0.wieght"]
