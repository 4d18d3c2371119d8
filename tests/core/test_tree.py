"""The tree as a mapping: look-ups, subtrees, layers, meta, and what a parameter can do."""

import copy
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratree.core.array import RefusedArray
from paratree.core.errors import NoSuchParamError, UnreadableError
from paratree.core.names import split
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from tests.core.trees import param, tree_of

TRANSFORMER = (
    "embed.weight",
    "encoder.0.attn.query.weight",
    "encoder.0.attn.query.bias",
    "encoder.0.norm.weight",
    "encoder.1.attn.query.weight",
    "encoder.10.attn.query.weight",
    "scale",
)


@pytest.fixture
def tree():
    return tree_of(*TRANSFORMER)


# The mapping


def test_it_is_a_mapping_in_the_order_given(tree):
    assert list(tree) == list(tree.keys()) == list(TRANSFORMER)
    assert [p.name for p in tree.values()] == list(TRANSFORMER)
    assert len(tree) == len(TRANSFORMER)
    assert dict(tree)["scale"] is tree["scale"]
    assert tree.get("nothing") is None


def test_a_name_is_a_parameter_and_a_prefix_is_a_subtree(tree):
    assert isinstance(tree["encoder.0.norm.weight"], Param)
    block = tree["encoder.0"]
    assert isinstance(block, ParamTree)
    assert list(block) == ["attn.query.weight", "attn.query.bias", "norm.weight"]
    assert block.prefix == "encoder.0"
    assert block["attn"]["query.bias"] is tree["encoder.0.attn.query.bias"]
    assert block["attn"].prefix == "encoder.0.attn"
    assert block["norm.weight"].name == "encoder.0.norm.weight"


def test_a_prefix_ends_at_a_segment(tree):
    assert list(tree["encoder.1"]) == ["attn.query.weight"]
    assert "encoder.1" in tree
    assert "enc" not in tree


def test_slash_and_dot_are_the_same_separator_in_look_ups(tree):
    assert tree["encoder/0/norm/weight"] is tree["encoder.0.norm.weight"]
    assert list(tree["encoder/0"]) == list(tree["encoder.0"])
    assert "encoder/0.norm" in tree


def test_names_with_slashes_are_kept_and_found_either_way():
    tree = tree_of("dense/kernel:0", "dense/bias:0", "head/out.w")
    assert list(tree) == ["dense/kernel:0", "dense/bias:0", "head/out.w"]
    assert tree["dense.kernel:0"] is tree["dense/kernel:0"]
    assert tree["head.out/w"] is tree["head/out.w"]
    assert list(tree["dense"]) == ["kernel:0", "bias:0"]
    assert list(tree["head"]) == ["out.w"]


def test_a_name_that_differs_only_in_separators_wins_by_exactness():
    tree = tree_of("a/b", "a.b", "c/d/e", "c/d.e")
    assert tree["a/b"].name == "a/b"
    assert tree["a.b"].name == "a.b"
    assert tree["c.d.e"].name == "c/d/e", "the first in the tree"


def test_a_position_is_a_child(tree):
    assert tree[0].prefix == "embed"
    assert tree[1].prefix == "encoder"
    assert tree[-1] is tree["scale"]
    assert list(tree[1][2]) == ["attn.query.weight"]
    with pytest.raises(IndexError):
        tree[3]


@pytest.mark.parametrize("key", [None, 1.5, ("a",), slice(2), ["scale"]], ids=repr)
def test_another_kind_of_key_is_a_type_error(tree, key):
    assert key not in tree
    with pytest.raises(TypeError, match="a name or a position"):
        tree[key]


def test_children_are_one_segment_down(tree):
    assert list(tree.children) == ["embed", "encoder", "scale"]
    assert list(tree["encoder"].children) == ["0", "1", "10"]
    assert tree.children["scale"] is tree["scale"]


@pytest.mark.parametrize("names", [("a", "a.b"), ("a.b", "a")])
def test_a_parameter_hides_a_subtree_of_its_name_among_the_children(names):
    tree = tree_of(*names)
    assert list(tree.children) == ["a"]
    assert tree.children["a"] is tree["a"]
    assert isinstance(tree["a"], Param)
    assert tree["a.b"].name == "a.b"


def test_a_missing_name_is_a_key_error_that_says_what_is_near(tree):
    with pytest.raises(KeyError) as error:
        tree["encoder.0.norm.wieght"]
    assert isinstance(error.value, NoSuchParamError)
    assert str(error.value) == (
        "net: no parameter 'encoder.0.norm.wieght'; did you mean 'encoder.0.norm.weight', "
        "'encoder.0.attn.query.weight', 'encoder.10.attn.query.weight'?"
    )


# Layers and roles


def test_layers_are_the_subtrees_that_own_parameters_in_order(tree):
    assert [layer.prefix for layer in tree.layers] == [
        "embed",
        "encoder.0.attn.query",
        "encoder.0.norm",
        "encoder.1.attn.query",
        "encoder.10.attn.query",
        "",
    ]
    assert list(tree.layers[1]) == ["weight", "bias"]
    assert tree.layers[-1] is tree
    assert [layer.prefix for layer in tree["encoder.0"].layers] == ["encoder.0.attn.query", "encoder.0.norm"]


def test_a_layer_that_is_not_there(tree):
    with pytest.raises(IndexError, match=f"no layer 999: there are {len(tree.layers)} layers"):
        tree.layers[999]
    assert isinstance(tree.layers, tuple)
    assert tree.layers[1:][0] is tree.layers[1]


def test_a_tree_takes_another_name():
    tree = tree_of("a.weight", "a.bias")
    tree.source = "after epoch 3"
    assert tree.source == tree.layers[0].source == "after epoch 3"
    with pytest.raises(NoSuchParamError, match="after epoch 3: no parameter"):
        tree["nothing"]


def test_a_layer_that_also_has_sublayers_holds_them_too():
    tree = tree_of("block.gate", "block.linear.weight")
    assert [list(layer) for layer in tree.layers] == [["gate", "linear.weight"], ["weight"]]
    assert tree.layers[0].gate.name == "block.gate"


@pytest.mark.parametrize(
    ("names", "role", "found"),
    [
        (("dense.weight", "dense.bias"), "weight", "dense.weight"),
        (("dense.kernel", "dense.bias"), "weight", "dense.kernel"),
        (("norm.gamma", "norm.beta"), "bias", "norm.beta"),
        (("norm.gamma", "norm.beta"), "scale", "norm.gamma"),
        (("norm.gamma", "norm.beta"), "gamma", "norm.gamma"),
        (("embed.embeddings",), "weight", "embed.embeddings"),
        (("cell.kernel", "cell.recurrent_kernel"), "weight", "cell.kernel"),
        (("cell.kernel", "cell.recurrent_kernel"), "recurrent_weight", "cell.recurrent_kernel"),
    ],
)
def test_a_role_is_an_attribute_of_a_layer(names, role, found):
    assert getattr(tree_of(*names).layers[0], role).name == found


def test_a_role_that_two_parameters_play_is_not_guessed():
    layer = tree_of("lstm.weight_ih_l0", "lstm.weight_ih_l1").layers[0]
    message = (
        r"the layer 'lstm' has 2 parameters of role 'weight'; its parameters: weight_ih_l0, weight_ih_l1"
    )
    with pytest.raises(AttributeError, match=message):
        _ = layer.weight
    assert layer.weight_ih_l1.name == "lstm.weight_ih_l1"


def test_a_missing_attribute_says_what_there_is(tree):
    with pytest.raises(
        AttributeError, match="the tree has no parameter or role 'bias'; its parameters: scale"
    ):
        _ = tree.bias
    with pytest.raises(
        AttributeError, match=r"'encoder' has no parameter or role 'bias'; .*: none of its own"
    ):
        _ = tree["encoder"].bias
    assert not hasattr(tree, "_private")


def test_a_tree_can_be_copied(tree):
    assert copy.copy(tree) == tree


# What it was opened from


def test_meta_of_a_subtree_is_what_stands_at_its_place():
    meta = {"epoch": 3, "optimizer": {"lr": 0.1, "groups": {"0": {"decay": 1}}}}
    tree = tree_of("model.w", "optimizer.groups.0.m", meta=meta)
    assert tree.meta["epoch"] == 3
    assert tree["optimizer"].meta["lr"] == 0.1
    assert tree["optimizer.groups.0"].meta == {"decay": 1}
    assert tree["model"].meta == {}
    assert tree_of("w").meta == {}
    assert tree_of("epoch.w", meta=meta)["epoch"].meta == 3


def test_subtrees_and_selections_share_the_origin(tree):
    for part in (tree["encoder"], tree.select("scale"), tree.layers[0]):
        assert (part.source, part.format, part.notes) == ("net", "test", ("a note",))


def test_closing_calls_every_closer():
    closed = []
    tree = tree_of("a.w", closers=[lambda: closed.append(1), lambda: closed.append(2)])
    with tree as same:
        assert same is tree
        assert closed == []
    assert closed == [1, 2]
    tree["a"].close()
    assert closed == [1, 2, 1, 2]


def test_an_error_inside_with_still_closes():
    closed = []
    with pytest.raises(RuntimeError), tree_of("w", closers=[lambda: closed.append(1)]):
        raise RuntimeError
    assert closed == [1]


def test_a_tree_can_be_built_from_a_mapping_or_an_iterable():
    params = [param("a"), param("b")]
    origin = Origin("net", "test")
    assert ParamTree(iter(params), origin) == ParamTree({p.name: p for p in params}, origin)
    assert len(ParamTree([], origin)) == 0


# A parameter


def test_a_parameter_tells_what_its_array_and_its_name_say():
    p = param("dense.kernel", (3, 4), "float16", trainable=True, layout="in out")
    assert (p.shape, p.dtype, p.ndim, p.size, p.nbytes) == ((3, 4), "float16", 2, 12, 24)
    assert (p.role, p.kind, p.layout, p.trainable) == ("weight", "parameter", "in out", True)
    assert p.storage == p.array.storage
    assert p.grad is None


def test_unknown_dimensions_and_dtypes_have_no_size():
    unknown = Param("w", RefusedArray((8, None), "float32", "w: not yet"))
    assert (unknown.size, unknown.nbytes, unknown.ndim) == (None, None, 2)
    packed = Param("w", RefusedArray((8, 2), "quint4x2", "w: not yet"))
    assert (packed.size, packed.nbytes) == (16, None)


@pytest.mark.parametrize(("dtype", "nbytes"), [("qint8", 16), ("qint32", 64), ("complex32", 64)])
def test_a_width_that_is_known_counts_though_numpy_has_no_such_dtype(dtype, nbytes):
    assert Param("w", RefusedArray((8, 2), dtype, "w: convert it")).nbytes == nbytes


def test_a_refused_array_says_why_whatever_is_asked():
    p = Param("w", RefusedArray((2,), "float32", "w: not initialised yet"))
    for read in (lambda: p.value, lambda: p[0], lambda: np.asarray(p), lambda: np.from_dlpack(p)):
        with pytest.raises(UnreadableError, match="w: not initialised yet"):
            read()


def test_the_gradient_is_asked_for_each_time():
    live = SimpleNamespace(grad=np.ones(2))
    p = param("w", live=live)
    assert p.grad is live.grad
    live.grad = None
    assert p.grad is None


def test_what_a_live_model_says_of_a_parameter_is_asked_for_each_time():
    facts = {"handle": object(), "native": "net[2].bias", "aliases": ("dense0_bias",), "layout": "out"}
    live = SimpleNamespace(**facts, trainable=True)
    p = param("2.bias", live=live)
    assert {fact: getattr(p, fact) for fact in facts} == facts
    assert p.trainable is True
    live.trainable = False
    assert p.trainable is False
    of_file = param("2.bias")
    assert (of_file.handle, of_file.native, of_file.aliases, of_file.grad) == (None, None, (), None)


@pytest.mark.parametrize(
    "facts", [{"live": SimpleNamespace(aliases=("dense0_bias",))}, {"aliases": ("dense0_bias",)}]
)
def test_an_alias_is_found_by_look_ups_and_selectors(facts):
    tree = ParamTree([param("0.bias", **facts), param("1.bias")], Origin("net", "Gluon"))
    assert tree["dense0_bias"] is tree["0.bias"]
    assert "dense0_bias" in tree
    assert list(tree.select("dense0_*")) == list(tree.select(re.compile("^dense0"))) == ["0.bias"]


def test_numpy_sees_the_values_without_a_copy():
    p = param("w", (2, 3))
    assert np.shares_memory(np.asarray(p), p.value)
    assert np.shares_memory(np.from_dlpack(p), p.value)
    assert p[1, 0] == 1


def test_numpy_gets_another_dtype_or_a_copy_if_it_asks():
    p = param("w", (2, 3))
    assert np.asarray(p, dtype="float64").dtype == np.float64
    assert not np.shares_memory(np.array(p), p.value)
    assert not np.shares_memory(p.__array__(copy=True), p.value)
    assert np.shares_memory(p.__array__(np.dtype("float32"), copy=False), p.value)
    with pytest.raises(ValueError, match="w: float32 as float64 needs a copy"):
        p.__array__(np.dtype("float64"), copy=False)


def test_a_dtype_that_dlpack_lacks_is_refused_with_the_next_step():
    import ml_dtypes

    p = param("w", (2,), ml_dtypes.bfloat16)
    with pytest.raises(UnreadableError, match=r"does not export bfloat16 through DLPack; use \.value"):
        p.__dlpack__()
    with pytest.raises(UnreadableError):
        p.__dlpack_device__()


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (param("2.bias", (8,), trainable=True), "<Param 2.bias: 8 float32, trainable>"),
        (param("w", (8, 4), "int8", trainable=False), "<Param w: 8 × 4 int8, frozen>"),
        (param("n", (), "int64", "buffer", trainable=False), "<Param n: scalar int64, buffer>"),
        (Param("w", RefusedArray((8, None), "float32", "no")), "<Param w: 8 × ? float32, not readable>"),
        (param("a\x1b[2J", (1,)), "<Param a\\x1b[2J: 1 float32>"),
    ],
    ids=str,
)
def test_the_repr_of_a_parameter(made, expected):
    assert repr(made) == expected


# Any tree

segments = st.sampled_from(["0", "1", "10", "a", "weight", "bias", "block"])
names = st.lists(st.lists(segments, min_size=1, max_size=4).map(tuple), unique=True, max_size=12)


@given(names, st.sampled_from("./"))
def test_every_look_up_agrees_with_the_names(paths, separator):
    tree = tree_of(*(".".join(path) for path in paths))
    for path in paths:
        assert tree[separator.join(path)].name == ".".join(path)
        for cut in range(1, len(path)):
            if path[:cut] not in paths:
                below = [p[cut:] for p in paths if len(p) > cut and p[:cut] == path[:cut]]
                assert list(tree[separator.join(path[:cut])]) == [".".join(rest) for rest in below]


@given(names)
def test_every_parameter_is_owned_by_exactly_one_layer(paths):
    tree = tree_of(*(".".join(path) for path in paths))
    owners = list(dict.fromkeys(path[:-1] for path in paths))
    assert [layer.prefix for layer in tree.layers] == [".".join(owner) for owner in owners]
    for owner, layer in zip(owners, tree.layers, strict=True):
        own = [p.name for n, p in layer.items() if "." not in n]
        assert own == [".".join(path) for path in paths if path[:-1] == owner]
        assert list(layer) == [
            ".".join(p[len(owner) :]) for p in paths if p[: len(owner)] == owner and p != owner
        ]


@given(names)
def test_the_children_are_the_first_segments_and_hold_everything_not_hidden(paths):
    tree = tree_of(*(".".join(path) for path in paths))
    assert list(tree.children) == list(dict.fromkeys(path[0] for path in paths))
    for head, child in tree.children.items():
        assert child == tree[head] if isinstance(child, ParamTree) else child is tree[head]
    assert [tree[i] for i in range(len(tree.children))] == list(tree.children.values())


@given(st.lists(st.text("ab./\x00é", max_size=6), unique=True, max_size=8), st.text("ab./", max_size=6))
def test_odd_names_never_break_a_look_up(odd, asked):
    tree = tree_of(*odd)
    for name in odd:
        assert tree[name].name == name
    assert len(tree.layers) == len({name.replace("/", ".").rpartition(".")[0] for name in odd})
    assert set(tree.children) == {split(name)[0] for name in odd}
    if asked not in tree:
        with pytest.raises(NoSuchParamError):
            tree[asked]
