"""What selectors choose for the verbs that change a model."""

import re

import numpy as np
import pytest

from paratree.core.errors import MismatchError, NoSuchParamError
from paratree.core.tree import Origin, ParamTree
from paratree.verbs.choose import Choice, text_of, trained
from paratree.verbs.gradients import Gradients
from tests.verbs.trees import listed


@pytest.fixture
def tree():
    params = [
        listed("a.weight", (2, 2), memory="tied"),
        listed("a.bias", (2,)),
        listed("b.weight", (2, 2), memory="tied"),
        listed("b.mean", (2,), kind="buffer"),
        listed("words.weight", (2,), "int64"),
    ]
    return ParamTree(params, Origin("Net", "test"))


def test_tied_names_are_chosen_as_one_by_the_first(tree):
    choice = Choice(tree)
    assert choice.names("b.weight") == choice.names("*.weight", kind="parameter")[:1] == ["a.weight"]
    assert choice.group("b.weight") == ("a.weight", "b.weight")
    assert choice.group("a.bias") == ("a.bias",)


def test_a_plain_name_stands_for_a_parameter_or_all_below_it(tree):
    assert Choice(tree).names("a") == ["a.weight", "a.bias"]
    assert Choice(tree).names("a/bias") == ["a.bias"]


@pytest.mark.parametrize(
    "selector", [re.compile("weight$"), lambda p: p.role == "weight", ("a.weight", "words.*")]
)
def test_every_kind_of_selector(tree, selector):
    assert Choice(tree).names(selector) == ["a.weight", "words.weight"]


@pytest.mark.parametrize(
    ("selector", "kind", "message"),
    [
        ("a.wieght", None, "did you mean 'a.weight'"),
        ("weight.*", None, r"nothing fits 'weight\.\*'"),
        (re.compile("^x"), None, r"/\^x/ chooses nothing"),
        ("b.mean", "parameter", "'b.mean' chooses no parameter, only: buffer"),
    ],
)
def test_a_selector_that_chooses_nothing_is_an_error(tree, selector, kind, message):
    with pytest.raises(NoSuchParamError, match=message):
        Choice(tree).names(selector, kind=kind)


def test_two_selectors_for_one_parameter_are_an_error(tree):
    with pytest.raises(MismatchError, match=r"a\.weight, b\.weight: chosen twice, by a\.weight and by b\.\*"):
        Choice(tree).each({"a.weight": 1, "b.*": 2})
    with pytest.raises(MismatchError, match=r"^a\.bias: chosen twice"):
        Choice(tree).each({"a.bias": 1, re.compile("bias"): 2})


def test_what_training_may_change(tree):
    assert trained(tree, Choice(tree)) == ["a.weight", "a.bias"]


def test_the_text_of_a_selector_is_printable():
    def biases(param):
        return param.role == "bias"

    assert text_of(biases) == "biases"
    assert text_of(("a\x1b", re.compile("b"))) == "a\\x1b|/b/"


def test_gradients_are_a_mapping_by_name():
    found = Gradients(0.5, {"a": np.ones(2), "b": None}, {})
    assert (list(found), len(found), found["b"]) == (["a", "b"], 2, None)
    assert repr(found) == "<Gradients of a loss of 0.5: 2 names>"
    with pytest.raises(NoSuchParamError, match="gradients: no parameter 'c'"):
        _ = found["c"]
