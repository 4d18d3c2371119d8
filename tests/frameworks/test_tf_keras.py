"""Keras 2 models as trees: names, order, kinds, mixed precision, ties, real models."""

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

tf_keras = pytest.importorskip("tf_keras", reason="could not import tf_keras; these tests need it")
import tensorflow as tf  # noqa: E402 -- Keras 2 needs it

from tests.frameworks.cases import tf_keras as cases  # noqa: E402 -- it imports tf_keras

layers = tf_keras.layers
X = np.random.default_rng(0).random((2, 4), dtype="float32")


def built(*parts, shape=(4,)):
    return tf_keras.Sequential([tf_keras.Input(shape), *parts])


def handles(tree):
    return [id(param.handle) for param in tree.values()]


def ids(variables):
    return [id(variable) for variable in variables]


class Holder(layers.Layer):
    """A layer with the variables it is given."""

    def __init__(self, **variables):
        super().__init__(name="holder")
        for name, variable in variables.items():
            setattr(self, name, variable)


LAYERS = {
    "dense": (lambda: layers.Dense(3), (4,)),
    "conv": (lambda: layers.Conv2D(3, 2), (5, 5, 2)),
    "transposed": (lambda: layers.Conv1DTranspose(3, 2), (5, 2)),
    "depthwise": (lambda: layers.DepthwiseConv2D(3), (5, 5, 2)),
    "separable": (lambda: layers.SeparableConv1D(3, 2), (5, 2)),
    "norm": (lambda: layers.BatchNormalization(), (5, 2)),
    "layer norm": (lambda: layers.LayerNormalization(), (5, 2)),
    "lstm": (lambda: layers.LSTM(3), (5, 2)),
    "gru": (lambda: layers.GRU(3), (5, 2)),
    "both ways": (lambda: layers.Bidirectional(layers.LSTM(3)), (5, 2)),
    "distributed": (lambda: layers.TimeDistributed(layers.Dense(3)), (5, 2)),
    "stacked": (lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)]), (5, 2)),
    "prelu": (lambda: layers.PReLU(), (4,)),
}


@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_names_and_order_are_those_of_keras_and_of_the_file_it_saves(layer, shape, tmp_path):
    pytest.importorskip("h5py", reason="could not import h5py; Keras saves with it")
    net = built(layer(), shape=shape)
    tree = pt.open(net)
    assert handles(tree) == ids(net.weights)
    for param, variable in zip(tree.values(), net.weights, strict=True):
        path = variable.name.removesuffix(":0")  # TimeDistributed leaves out the layer in it
        assert path.replace("/", ".") == param.name or param.aliases == (path,)
        assert tree[path] is param
    net.save(str(tmp_path / "m.h5"))
    with pt.open(tmp_path / "m.h5") as saved:
        assert [tree[name] for name in saved] == list(tree.values())
        for name, param in saved.items():
            assert param.kind == tree[name].kind, name
            assert param.layout in (tree[name].layout, None), name


@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_what_is_foretold_comes_true(layer, shape):
    net = tf_keras.Sequential([layer()])
    before = pt.open(net)
    foretold = {name: param.shape for name, param in before.items()}
    net.build((None, *shape))
    after = pt.open(net)
    assert list(foretold) in ([], list(after))
    for name, expected in foretold.items():
        assert all(e in (None, n) for e, n in zip(expected, after[name].shape, strict=True)), name
        assert before[name].handle is after[name].handle


def test_layers_of_nested_models_that_are_not_built_have_expressions():
    class Net(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.both = layers.Bidirectional(layers.LSTM(3), name="both")
            self.inner = tf_keras.Sequential([layers.Flatten(), layers.Dense(4, name="a")], name="inner")

    net = Net()
    tree = pt.open(net)
    assert len(tree) == 8
    for param in tree.values():
        assert eval(param.native, {"net": net}) is param.handle is param.live.place.layer
    assert tree["inner.a.bias"].native == "net.layers[1].layers[1]"


class Block(layers.Layer):
    """A layer with layers, of which some variables are not trained."""

    def __init__(self, **options):
        super().__init__(**options)
        self.norm = layers.BatchNormalization(name="norm")
        self.dense = layers.Dense(4, name="dense")
        self.steps = tf.Variable(0, trainable=False, name="steps")

    def call(self, x):
        return self.dense(self.norm(x))


def test_of_a_layer_with_layers_keras_lists_what_is_trained_first():
    net = built(Block(name="block"), layers.Dense(2, name="out"))
    tree = pt.open(net)
    assert handles(tree) == ids(net.weights)
    assert list(tree)[:5] == [
        "block.norm.gamma",
        "block.norm.beta",
        "block.dense.kernel",
        "block.dense.bias",
        "block.steps",
    ]
    assert list(tree.select(kind="buffer")) == [
        "block.steps",
        "block.norm.moving_mean",
        "block.norm.moving_variance",
    ]


def test_statistics_are_buffers_and_metrics_are_not_listed():
    net = built(layers.Dense(3), layers.Dropout(0.5), layers.BatchNormalization(name="norm"))
    net.compile("adam", "mse", metrics=["mae"])
    net.fit(X, np.ones((2, 3)), verbose=0)
    tree = pt.open(net)
    assert handles(tree) == ids(net.weights)
    assert list(tree.select(kind="buffer")) == ["norm.moving_mean", "norm.moving_variance"]


def test_a_subclassed_model_with_variables_lists_and_modules():
    class Inner(tf.Module):
        def __init__(self):
            super().__init__(name="inner")
            self.w = tf.Variable([1.0], name="w")

    class Net(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(3, name="first")
            self.blocks = [layers.Dense(3, name="x"), layers.Dense(3, name="y")]
            self.gain = tf.Variable(1.0)
            self.steps = [tf.Variable(2.0)]
            self.inner = Inner()

        def call(self, x):
            return self.blocks[1](self.blocks[0](self.first(x))) * self.gain

    net = Net()
    net(X)
    tree = pt.open(net)
    assert handles(tree) == ids(net.weights)
    assert {"gain", "steps.0", "inner.w", "x.kernel", "first.bias"} <= set(tree)


def test_what_a_model_has_before_it_is_called_has_an_expression():
    class Net(tf_keras.Model):
        def __init__(self):
            super().__init__()
            self.gain = tf.Variable(1.0)
            self.steps = [tf.Variable(2.0)]
            self.first = layers.Dense(3, name="first")

    net = Net()
    tree = pt.open(net)
    assert set(tree) == {"first.kernel", "first.bias", "gain", "steps.0"}
    for param in tree.values():
        assert eval(param.native, {"net": net}) is param.handle


def test_densenet_of_keras_applications():
    net = tf_keras.applications.DenseNet121(weights=None, input_shape=(32, 32, 3), classes=10)
    tree = pt.open(net)
    assert handles(tree) == ids(net.weights)
    names = [name.replace("/", ".") for name in tree]  # of layers called conv1/conv
    assert names == [v.name.removesuffix(":0").replace("/", ".") for v in net.weights]
    assert tree.size + tree.totals["buffer"].size == net.count_params()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_shows_what_is_stored(policy):
    layer = layers.Dense(3, dtype=policy, name="out")
    net = built(layer, layers.Dense(3, dtype=policy, name="b", use_bias=False))
    tree = pt.open(net)
    assert {param.dtype for param in tree.values()} == {"float32"}
    assert handles(tree) == ids(net.weights)
    found = pt.gradients(net, cases.squares, X, per_use=True)
    assert [len(uses) for uses in found.uses.values()] == [1, 1, 1]
    with tf.GradientTape() as tape:
        value = cases.squares(net, X)
    theirs = tape.gradient(value, net.trainable_variables)
    np.testing.assert_allclose(found["out.bias"], theirs[1].numpy(), rtol=2e-2)


def test_tie_in_mixed_precision():
    net = built(
        layers.Dense(4, dtype="mixed_float16", name="a"), layers.Dense(4, dtype="mixed_float16", name="b")
    )
    pt.tie(net, "a.kernel", "b.kernel")
    assert pt.open(net).ties == (("a.kernel", "b.kernel"),)
    pt.untie(net, "b.kernel")
    assert pt.open(net).ties == ()
    assert net(X).dtype == "float16"


def test_ties_inside_a_layer_keep_both_names_and_can_be_parted():
    net = built(layers.BatchNormalization(name="norm"))
    pt.tie(net, "norm.gamma", "norm.beta")
    layer = net.layers[0]
    assert layer.beta is layer.gamma
    assert pt.open(net).ties == (("norm.gamma", "norm.beta"),)
    assert len(net.weights) == 3
    pt.untie(net, "norm.beta")
    assert layer.beta is not layer.gamma
    assert list(pt.open(net)) == ["norm.gamma", "norm.beta", "norm.moving_mean", "norm.moving_variance"]


def test_what_was_compiled_before_is_forgotten_by_a_tie():
    net = built(layers.Dense(4, name="a"), layers.Dense(4, name="b"))
    net.compile("sgd", "mse")
    net.predict(X, verbose=0)
    pt.tie(net, "a.kernel", "b.kernel")
    pt.update(net, {"a.kernel": np.eye(4, dtype="float32"), "**.bias": 0})
    np.testing.assert_allclose(net.predict(X, verbose=0), X, rtol=1e-6)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["same", "equal", "temporary", "empty"])), max_size=8
    )
)
def test_a_variable_is_tied_to_itself_alone(rows):
    originals = [tf.Variable([1.0, 1.0]) for _ in range(4)]
    empty = tf.Variable(tf.zeros((0, 3)))
    held, groups = {}, {}
    for i, (which, how) in enumerate(rows):
        if how == "same":
            variable = originals[which]
            groups.setdefault(which, []).append(f"p{i}.w")
        elif how == "temporary":
            tf.Variable([1.0, 1.0])  # its address may come again
            variable = tf.Variable([1.0, 1.0])
        else:
            variable = tf.Variable(originals[which]) if how == "equal" else empty
        held[f"p{i}"] = Holder(w=variable)
        held[f"p{i}"]._name = f"p{i}"
    assert set(pt.open(Holder(**held)).ties) == {tuple(group) for group in groups.values() if len(group) > 1}


def test_gradients_change_nothing():
    net = built(layers.Dense(3), layers.BatchNormalization())
    before = net.get_weights()
    pt.gradients(net, cases.squares, X, per_use=True)
    for ours, theirs in zip(net.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    net(X, training=True)
    assert any((ours != theirs).any() for ours, theirs in zip(net.get_weights(), before, strict=True))


def test_an_optimizer_is_state():
    net = built(layers.Dense(3))
    net.compile("adam", "mse")
    net.fit(X, np.ones((2, 3)), verbose=0)
    tree = pt.open(net.optimizer)
    assert handles(tree) == ids(net.optimizer.variables)
    assert {param.kind for param in tree.values()} == {"state"}
    assert all(eval(p.native, {"net": net.optimizer}) is p.handle for p in tree.values())


def test_groups_need_names_that_differ():
    net = Holder(a=tf.Variable(1.0), b=tf.Variable(1.0))
    with pytest.raises(pt.UnsupportedError, match=r"a: 2 variables have the name 'Variable:0'"):
        pt.groups(net, {"a": {"lr_mult": 0.5}})


def test_ten_thousand_parameters_are_listed_in_order():
    net = cases.many()
    tree = pt.open(net)
    assert handles(tree) == ids(net.weights)
    assert len(tree) == 10_000


def test_the_examples_in_the_documentation_are_true():
    assert doctest.testmod(import_module("paratree.frameworks.tf_keras")).failed == 0


# Real models and fresh processes


def run(code):
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "HF_HUB_OFFLINE": "1",
        "TF_USE_LEGACY_KERAS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


REAL = """
import numpy as np
import tensorflow as tf
import paratree as pt
from transformers import BertConfig, GPT2Config, TFBertModel, TFGPT2LMHeadModel

sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
bert = TFBertModel(BertConfig(hidden_size=16, **sizes))
gpt2 = TFGPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=20))
for net in (bert, gpt2):
    net(np.array([[1, 2, 3]]))
    tree = pt.open(net)
    assert [id(p.handle) for p in tree.values()] == [id(v) for v in net.weights]
    names = [v.name.removesuffix(":0").partition("/")[2].replace("/", ".") for v in net.weights]
    assert list(tree) == names, [(a, b) for a, b in zip(tree, names) if a != b]
    assert tree.size == net.count_params()
    assert tree.ties == ()
    assert all(eval(p.native, {"net": net}) is p.handle for p in tree.values())

words = np.array([[1, 2, 3]])
loss = lambda net, words: tf.reduce_mean(net(words).logits ** 2)
found = pt.gradients(gpt2, loss, words, per_use=True)
(table,) = [name for name in found if name.endswith("wte.embeddings")]
print(table, len(found.uses[table]), "bert.embeddings.word_embeddings.weight" in pt.open(bert))
"""


def test_bert_and_gpt2_of_transformers():
    """GPT-2's head is its embedding: one variable, counted once, used by both."""
    pytest.importorskip("transformers", reason="could not import transformers; this test needs it")
    assert run(REAL) == "transformer.wte.embeddings 2 True"


SCRIPT = """
import sys
import tf_keras
import paratree as pt
net = tf_keras.Sequential([tf_keras.Input((2,)), tf_keras.layers.Dense(3)])
roots_of = lambda names: {name.partition(".")[0] for name in names}
before = roots_of(sys.modules)
tree = pt.open(net)
pt.update(net, {"**.bias": 1})
others = {"torch", "jax", "flax", "keras", "mxnet", "transformers"}
print(sorted((roots_of(sys.modules) - before) & others), len(tree))
"""


def test_opening_imports_no_other_framework():
    assert run(SCRIPT) == "[] 2"
