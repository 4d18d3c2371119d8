"""Modules, variables and containers of plain TensorFlow as trees."""

import doctest
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt

tf = pytest.importorskip("tensorflow", reason="could not import tensorflow; these tests need it")

from tests.frameworks.cases import tensorflow as cases  # noqa: E402 -- it imports tensorflow


class Holder(tf.Module):
    """A module with what it is given."""

    def __init__(self, **held):
        super().__init__()
        for name, value in held.items():
            setattr(self, name, value)


# Names, order, kinds


def test_names_are_the_paths_that_tensorflow_finds_and_order_is_that_of_its_variables():
    net = cases.Nested()
    tree = pt.open(net)
    found = net._flatten(predicate=lambda leaf: isinstance(leaf, tf.Variable), with_path=True)
    assert list(tree) == [".".join(map(str, path)) for path, _ in found]
    assert [id(p.handle) for p in tree.values()] == [id(v) for v in net.variables]


def test_a_variable_stands_under_every_name_and_is_counted_once():
    net = cases.shared()
    tree = pt.open(net)
    assert len(tree) == 8
    assert tree.totals["parameter"].count == len(net.variables) == 6
    assert tree.size == sum(int(tf.size(v)) for v in net.variables)


def test_the_expression_reaches_attributes_keys_and_places():
    net = Holder(
        **{"odd-name": tf.Variable(1.0), "deep": {"a b": [Holder(w=tf.Variable(2.0))], "c": tf.Variable(3.0)}}
    )
    for name, param in pt.open(net).items():
        assert eval(param.native, {"net": net}) is param.handle, name
    assert pt.open(net)["deep.a b.0.w"].native == "net.deep['a b'][0].w"


def test_a_module_that_holds_the_one_that_holds_it_is_walked_once():
    inner = Holder(w=tf.Variable(1.0))
    net = Holder(inner=inner)
    inner.parent = net
    assert list(pt.open(net)) == ["inner.w"]


def test_variables_that_are_not_trained_are_buffers():
    tree = pt.open(cases.Nested())
    assert (tree["calls"].kind, tree["calls"].trainable) == ("buffer", False)
    assert (tree["scale"].kind, tree["scale"].trainable) == ("parameter", True)


def test_containers_and_single_variables():
    assert list(pt.open([tf.Variable(1.0), tf.Variable(2.0)])) == ["0", "1"]
    assert list(pt.open(tf.Variable(1.0))) == ["parameter"]
    assert pt.open(cases.container())["deep.0"].native == "params['deep'][0]"


@pytest.mark.parametrize("other", [tf.constant(1.0), [tf.constant(1.0)], tf.float32, tf.Module])
def test_what_holds_no_variable_is_refused(other):
    with pytest.raises(pt.UnknownSourceError):
        pt.open(other)


# Values


DTYPES = [
    "float16",
    "float32",
    "float64",
    "bfloat16",
    "complex64",
    "complex128",
    "float8_e5m2",
    "float8_e4m3fn",
]
DTYPES += ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_that_numpy_has_reads_as_it_is(dtype):
    values = tf.cast(tf.reshape(tf.range(6.0), (2, 3)), dtype)
    param = pt.open([tf.Variable(values)])["0"]
    assert (param.dtype, param.value.dtype.name, param.shape) == (dtype, dtype, (2, 3))
    assert param.value.tobytes() == values.numpy().tobytes()


def test_what_numpy_lacks_is_refused_with_the_next_step():
    param = pt.open([tf.Variable("text")])["0"]
    with pytest.raises(pt.UnreadableError, match=r"0: NumPy has no string; .*tf\.cast"):
        _ = param.value


def test_a_copy_is_read_and_the_variable_is_asked_each_time():
    variable = tf.Variable([1.0, 2.0])
    param = pt.open([variable])["0"]
    with pytest.raises(ValueError, match="read-only"):
        param.value[0] = 9
    variable.assign([3.0, 4.0])
    assert param.value.tolist() == [3, 4]


def test_a_variable_whose_shape_may_change_has_the_shape_of_now():
    variable = tf.Variable([1.0, 2.0], shape=tf.TensorShape([None]))
    param = pt.open([variable])["0"]
    assert param.shape == (2,)
    variable.assign([1.0, 2.0, 3.0])
    assert (param.shape, param.value.tolist()) == ((3,), [1, 2, 3])
    pt.update([variable], {"0": np.zeros(3)})
    assert variable.numpy().tolist() == [0, 0, 0]


def test_a_variable_of_a_graph_has_no_values():
    with tf.Graph().as_default():
        variable = tf.compat.v1.get_variable("v", (2,), use_resource=True)
        param = pt.open([variable])["0"]
        assert (param.shape, param.dtype) == ((2,), "float32")
        with pytest.raises(pt.UnreadableError, match=r"0: a graph holds it, .* run TensorFlow eagerly"):
            _ = param.value


@pytest.mark.parametrize(
    "index", [..., 0, -1, (1, 2), (slice(None), 1), (slice(None, None, -1), 0), (), (..., 1)]
)
def test_an_index_reads_as_numpy_would(index):
    param = pt.open([tf.Variable(tf.reshape(tf.range(6), (2, 3)))])["0"]
    np.testing.assert_array_equal(param[index], param.value[index])


@pytest.mark.parametrize("index", [2, (0, 3), (0, 0, 0), [0], None, True])
def test_an_index_that_does_not_fit_is_an_index_error(index):
    with pytest.raises(IndexError):
        pt.open([tf.Variable(tf.zeros((2, 3)))])["0"][index]


def test_opening_reads_no_value(monkeypatch):
    net = cases.Nested()
    kind = type(net.scale)
    for name in ("numpy", "value", "read_value"):
        monkeypatch.setattr(kind, name, lambda *_: pytest.fail("a value was read"))
    tree = pt.open(net)
    assert [p.shape for p in tree.values()] == [tuple(v.shape) for v in net.variables]
    assert tree.ties == ()


# Ties


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["same", "equal", "temporary", "empty"])), max_size=8
    )
)
def test_a_variable_is_tied_to_itself_alone(rows):
    originals = [tf.Variable([1.0, 1.0]) for _ in range(4)]
    empty = tf.Variable(tf.zeros((0, 3)))
    held, groups = [], {}
    for i, (which, how) in enumerate(rows):
        if how == "same":
            held.append(originals[which])
            groups.setdefault(which, []).append(str(i))
        elif how == "temporary":
            tf.Variable([1.0, 1.0])  # its address may come again
            held.append(tf.Variable([1.0, 1.0]))
        else:
            held.append(tf.Variable(originals[which]) if how == "equal" else empty)
    if held:
        assert set(pt.open(held).ties) == {tuple(group) for group in groups.values() if len(group) > 1}


def test_a_module_held_twice_cannot_be_parted():
    net = cases.shared()
    with pytest.raises(
        pt.UnsupportedError, match=r"layers\.2\.kernel: it and layers\.1\.kernel are one place"
    ):
        pt.untie(net, "layers.2.kernel")
    assert len(net.variables) == 6


def test_a_tuple_has_no_place_for_another():
    with pytest.raises(pt.UnsupportedError, match=r"1: a tuple has no place .* hold it in a list"):
        pt.tie((tf.Variable(1.0), tf.Variable(2.0)), "0", "1")


def test_tie_and_untie_train():
    net = cases.Chain(cases.Dense(4, 4), cases.Dense(4, 4))
    pt.tie(net, "layers.0.kernel", "layers.1.kernel")
    assert net.layers[0].kernel is net.layers[1].kernel
    assert len(net.trainable_variables) == 3
    step(net)
    assert (net.layers[0].kernel.numpy() == net.layers[1].kernel.numpy()).all()
    pt.untie(net, "layers.1.kernel")
    step(net)
    assert (net.layers[0].kernel.numpy() != net.layers[1].kernel.numpy()).any()


def step(net):
    with tf.GradientTape() as tape:
        value = tf.reduce_mean((net(cases.X) - 1) ** 2)
    variables = net.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(value, variables), strict=True):
        variable.assign_sub(0.1 * gradient)


# Gradients


def test_gradients_of_a_tape_are_paired_with_the_variables():
    net = cases.Nested()
    with tf.GradientTape() as tape:
        value = cases.squares(net, cases.X)
    grads = tape.gradient(value, net.trainable_variables)
    tree = pt.open(net, grads=grads)
    for variable, gradient in zip(net.trainable_variables, grads, strict=True):
        param = next(p for p in tree.values() if p.handle is variable)
        if gradient is None:
            assert param.grad is None
        else:
            np.testing.assert_array_equal(param.grad, gradient.numpy())
    assert tree["calls"].grad is None


def test_the_sparse_gradient_of_an_embedding_is_made_dense():
    table = tf.Variable(tf.ones((5, 2)))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tf.nn.embedding_lookup(table, [1, 3, 3]))
    gradient = tape.gradient(value, [table])
    assert isinstance(gradient[0], tf.IndexedSlices)
    np.testing.assert_array_equal(pt.open([table], grads=gradient)["0"].grad[:, 0], [0, 1, 0, 2, 0])


def test_gradients_in_the_structure_of_a_container():
    params = cases.container()
    grads = {"w": tf.ones((4, 2)), "deep": [None, tf.ones((4, 2))]}
    tree = pt.open(params, grads=grads)
    assert (tree["w"].grad == 1).all()
    assert tree["deep.0"].grad is None
    with pytest.raises(pt.MismatchError, match=r"'deep\.1' has the shape \(2,\), its parameter \(4, 2\)"):
        pt.open(params, grads={"w": tf.ones((4, 2)), "deep": [None, tf.ones(2)]})
    with pytest.raises(pt.MismatchError, match=r"the structure has no '1'"):
        pt.open([tf.Variable(1.0), tf.Variable(1.0)], grads=[tf.constant(1.0)])


@pytest.mark.parametrize(
    ("use", "number"),
    [
        (lambda w, x: x @ w, 1),
        (lambda w, x: tf.raw_ops.MatMul(a=x, b=w), 1),
        (lambda w, x: tf.nn.bias_add(x, w[0]) + w[1], 2),
        (lambda w, x: tf.gather(w, [0, 2]) + tf.nn.embedding_lookup(w, [1, 1]), 2),
        (lambda w, x: tf.gather_nd(w, [[0, 1]]) + tf.exp(w) * w, 3),
        (lambda w, x: tf.concat([w, w], 0) + tf.linalg.matvec(w, x[0]) + tf.stack([w])[0, 0], 4),
        (lambda w, x: tf.function(lambda: x @ w + tf.reduce_sum(w))(), 2),
        (lambda w, x: tf.while_loop(lambda i, s: i < 3, lambda i, s: (i + 1, s @ w), (0, x))[1], 3),
        (lambda w, x: tf.map_fn(lambda row: tf.linalg.matvec(w, row), x), 2),
    ],
)  # fmt: skip
def test_every_way_to_read_a_variable_is_a_use(use, number):
    net = Holder(w=tf.Variable(np.random.default_rng(0).random((4, 4), dtype="float32")))
    x = tf.constant(cases.X)
    held = dict(vars(net.w))

    def loss(net, x):
        return tf.reduce_sum(use(net.w, x) ** 2)

    found = pt.gradients(net, loss, x, per_use=True)
    with tf.GradientTape() as tape:
        value = loss(net, x)
    theirs = tf.convert_to_tensor(tape.gradient(value, net.w)).numpy()
    assert len(found.uses["w"]) == number
    np.testing.assert_allclose(sum(u.gradient for u in found.uses["w"]), theirs, rtol=1e-6)
    assert vars(net.w).keys() == held.keys()
    assert vars(net.w)["_handle"] is held["_handle"]
    assert not tf.config.functions_run_eagerly()


def test_an_error_in_the_loss_leaves_the_variables_as_they_were():
    net = Holder(w=tf.Variable([1.0]), calls=tf.Variable(0, trainable=False))
    held = dict(vars(net.w))

    def loss(net):
        net.calls.assign_add(1)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        pt.gradients(net, loss, per_use=True)
    assert vars(net.w).keys() == held.keys()
    assert net.calls.numpy() == 0
    assert not tf.config.functions_run_eagerly()


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(pt.MismatchError, match=r"a tensor of shape \(2,\); a gradient needs one number"):
        pt.gradients([tf.Variable([1.0, 2.0])], lambda params: params[0] * 2)


# What TensorFlow cannot


def test_a_variable_cannot_be_frozen():
    with pytest.raises(pt.UnsupportedError, match=r"scale: tf.Variable.trainable is read-only; give tape"):
        pt.freeze(cases.Nested(), "scale")


def test_groups_are_values_by_name():
    net = cases.Nested()
    found = pt.groups(net, {"**.bias": {"lr": 0.1}, "scale": {"lr": 0.2, "decay": 0.0}})
    assert found["decay"] == {"scale": 0.0}
    assert found["lr"] == {
        **dict.fromkeys(["heads.a.bias", "heads.b-1.bias", "net.layers.0.bias", "net.layers.1.bias"], 0.1),
        "scale": 0.2,
    }


def test_ten_thousand_parameters_are_listed_in_order():
    net = cases.many()
    tree = pt.open(net)
    assert [id(p.handle) for p in tree.values()] == [id(v) for v in net.variables]
    assert len(tree) == 10_000


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(import_module("paratree.frameworks.tensorflow")).failed == 0


SCRIPT = """
import sys
import tensorflow as tf
import paratree as pt
net = [tf.Variable([1.0, 2.0])]
roots_of = lambda names: {name.partition(".")[0] for name in names}
before = roots_of(sys.modules)
tree = pt.open(net)
pt.update(net, {"0": 1})
found = pt.gradients(net, lambda params: tf.reduce_sum(params[0] ** 2), per_use=True)
others = {"torch", "jax", "flax", "keras", "tf_keras", "mxnet", "transformers"}
print(sorted((roots_of(sys.modules) - before) & others), found["0"])
"""


def test_opening_imports_no_other_framework():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] [2. 2.]"
