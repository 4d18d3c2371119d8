"""Trees made of trees: renamed, dropped, cast, untied, joined."""

import re

import numpy as np
import pytest

from paratree.core.errors import MismatchError, NoSuchParamError
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from tests.core.trees import Held, param, tree_of


@pytest.fixture
def tree():
    return tree_of("model.embed.weight", "model.0.attn.weight", "model.0.attn.bias", "head.weight")


def tied():
    values = Held(np.linspace(-2, 2, 7))
    return ParamTree(
        [Param("a", values), Param("b", values), param("n", (3,), "int32")], Origin("net", "test")
    )


@pytest.mark.parametrize(
    ("rename", "names"),
    [
        ({"head.weight": "lm.weight"},
         ["model.embed.weight", "model.0.attn.weight", "model.0.attn.bias", "lm.weight"]),
        ({"model.**": "**"}, ["embed.weight", "0.attn.weight", "0.attn.bias", "head.weight"]),
        ({"model.*.attn.*": "h.*.*"}, ["model.embed.weight", "h.0.weight", "h.0.bias", "head.weight"]),
        ({"model.0.**": "first.**", "**": "rest.**"},
         ["rest.model.embed.weight", "first.attn.weight", "first.attn.bias", "rest.head.weight"]),
        ({re.compile(r"^model\.(\d+)"): r"layer\1"},
         ["model.embed.weight", "layer0.attn.weight", "layer0.attn.bias", "head.weight"]),
        (str.upper, ["MODEL.EMBED.WEIGHT", "MODEL.0.ATTN.WEIGHT", "MODEL.0.ATTN.BIAS", "HEAD.WEIGHT"]),
    ],
)  # fmt: skip
def test_rename(tree, rename, names):
    new = tree.rename(rename)
    assert list(new) == names
    assert [p.name for p in new.values()] == names
    assert all(a.array is b.array for a, b in zip(tree.values(), new.values(), strict=True))
    assert (new.source, new.format, new.notes) == (tree.source, tree.format, tree.notes)
    assert list(tree)[3] == "head.weight"


@pytest.mark.parametrize(
    ("rename", "error", "fact"),
    [
        ({"nope": "x"}, NoSuchParamError, "net: no parameter 'nope'"),
        ({"nope.*": "x.*"}, NoSuchParamError, "net: nothing fits 'nope.*', which is to be renamed"),
        ({re.compile("z"): "x"}, NoSuchParamError, "nothing fits 'z'"),
        ({"model.*.attn.*": "h.*"}, MismatchError, "need as many wildcards"),
        ({re.compile("model"): r"\2"}, MismatchError, "'model' to"),
        (
            lambda name: "same",
            MismatchError,
            "net: 'model.embed.weight' and 'model.0.attn.weight' would both be 'same'",
        ),
        (lambda name: "", MismatchError, "model.embed.weight would become '', which is no name"),
        (lambda name: None, MismatchError, "would become None"),
    ],
)
def test_what_cannot_be_renamed(tree, rename, error, fact):
    with pytest.raises(error, match=re.escape(fact)):
        tree.rename(rename)


def test_ties_follow_renaming():
    assert tied().rename({"a": "z"}).ties == (("z", "b"),)


def test_a_subtree_is_renamed_by_its_own_names(tree):
    new = tree["model"].rename({"0.**": "block.**"})
    assert list(new) == ["embed.weight", "block.attn.weight", "block.attn.bias"]


def test_drop(tree):
    assert list(tree.drop("**.bias")) == ["model.embed.weight", "model.0.attn.weight", "head.weight"]
    assert list(tree.drop(["model.**"])) == ["head.weight"]
    for pattern, message in {
        "x.**": "net: nothing fits 'x.**'; 'paratree show --all' lists every name",
        "*.bias": "net: nothing fits '*.bias'; did you mean '**.bias'? ('*' ends at a dot, '**' does not)",
        "mdoel.*.{attn,mlp}.**": "; did you mean 'model.*.{attn,mlp}.**'?",
        "**.wieght": "; did you mean '**.weight'?",
        "mdoel.?": "; did you mean 'model.?.**'?",
        "mdoel.*.other": "nothing fits 'mdoel.*.other'; 'paratree show --all'",
        "head.wieght": "net: no parameter 'head.wieght'; did you mean 'head.weight'?",
    }.items():
        with pytest.raises(NoSuchParamError, match=re.escape(message)):
            tree.drop(pattern)
    with pytest.raises(MismatchError, match="net: nothing would be left; drop less"):
        tree.drop("**")
    with pytest.raises(NoSuchParamError, match="net: nothing fits the selector"):
        tree.drop(lambda param: False)


def test_cast_rounds_when_it_is_read_and_leaves_integers():
    new = tied().cast("fp16")
    assert [p.dtype for p in new.values()] == ["float16", "float16", "int32"]
    np.testing.assert_array_equal(new["a"].value, np.linspace(-2, 2, 7).astype("float16"))
    np.testing.assert_array_equal(new["b"][2:4], new["a"].value[2:4])
    assert new.ties == (("a", "b"),)


def test_what_is_tied_is_cast_together():
    new = tied().cast("bf16", "b")
    assert [p.dtype for p in new.values()] == ["bfloat16", "bfloat16", "int32"]
    assert new.ties == (("a", "b"),)


def test_a_cast_needs_a_floating_dtype_and_something_that_fits(tree):
    with pytest.raises(MismatchError, match="'int8' is no floating dtype"):
        tree.cast("int8")
    with pytest.raises(NoSuchParamError, match="no parameter 'x'"):
        tree.cast("fp16", "x")


def test_what_is_known_of_a_parameter_survives_a_cast():
    known = Param("k", Held(np.ones(2)), "buffer", trainable=False, layout="out", aliases=("kk",))
    new = ParamTree([known], Origin("net", "test")).cast("fp16")
    assert new["kk"] is new["k"]
    assert (new["k"].kind, new["k"].trainable, new["k"].layout) == ("buffer", False, "out")


def test_untie():
    new = tied().untie()
    assert new.ties == ()
    assert (new.size, tied().size) == (14 + 3, 7 + 3)
    np.testing.assert_array_equal(new["b"].value, tied()["a"].value)


def test_two_trees_are_joined_as_dicts_are():
    closed = []
    first = tree_of("a", ("b", (3,)), meta={"x": 1, "y": 1}, closers=[lambda: closed.append("first")])
    second = tree_of(
        ("b", (5,)), "c", meta={"y": 2}, closers=[lambda: closed.append("second")], source="other"
    )
    new = first | second
    assert {name: p.shape for name, p in new.items()} == {"a": (2,), "b": (5,), "c": (2,)}
    assert (new.source, new.meta) == ("net | other", {"x": 1, "y": 2})
    new.close()
    assert closed == ["first", "second"]
    with pytest.raises(TypeError):
        first | {"c": 1}
