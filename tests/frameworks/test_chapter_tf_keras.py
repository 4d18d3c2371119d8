"""The TensorFlow tab of the chapter as it was written, with Keras 2: our expression against its own."""

import numpy as np
import pytest

import paratree as pt

tf_keras = pytest.importorskip("tf_keras", reason="could not import tf_keras; these tests need it")
import tensorflow as tf  # noqa: E402 -- Keras 2 needs it

from tests.frameworks.cases.tf_keras import squares  # noqa: E402 -- it imports tf_keras

layers = tf_keras.layers
X = np.random.default_rng(0).random((2, 4), dtype="float32")
Y = np.ones((2, 1), "float32")


@pytest.fixture(autouse=True)
def seeded():
    tf_keras.utils.set_random_seed(0)


def unbuilt():
    return tf_keras.models.Sequential(
        [layers.Flatten(), layers.Dense(4, activation=tf.nn.relu), layers.Dense(1)]
    )  # fmt: skip


@pytest.fixture
def net():
    """The multilayer perceptron with one hidden layer, after its first batch."""
    net = unbuilt()
    net(X)
    return net


@pytest.fixture
def tied():
    """A functional net that uses one layer twice."""
    shared = layers.Dense(4, activation=tf.nn.relu)
    given = tf_keras.Input((4,))
    return tf_keras.Model(given, layers.Dense(1)(shared(shared(given))))


class NestMLP(tf_keras.Model):
    """The nested model that the first exercise refers to."""

    def __init__(self):
        super().__init__()
        self.net = tf_keras.Sequential(
            [layers.Dense(64, activation="relu"), layers.Dense(32, activation="relu")]
        )
        self.linear = layers.Dense(16)

    def call(self, inputs):
        return self.linear(self.net(inputs))


def tape_gradients(net):
    with tf.GradientTape() as tape:
        value = squares(net, X)
    return tape.gradient(value, net.trainable_variables)


def test_before_the_first_batch_unknown_dimensions_are_question_marks():
    net = unbuilt()
    tree = pt.open(net)
    assert {name: param.shape for name, param in tree.items()} == {
        "dense.kernel": (None, 4), "dense.bias": (4,), "dense_1.kernel": (None, 1), "dense_1.bias": (1,),
    }  # fmt: skip
    assert repr(tree["dense.kernel"]) == "<Param dense.kernel: ? × 4 float32, trainable, not readable>"
    with pytest.raises(
        pt.UnreadableError, match=r"dense\.kernel: .*call net\(X\) or net\.build\(input_shape\)"
    ):
        _ = tree.layers[0].weight.value
    net(X)
    assert [param.shape for param in tree.values()] == [(4, 4), (4,), (4, 1), (1,)]
    assert tree["dense_1.bias"].native == "net.layers[2].weights[1]"


def test_the_second_fully_connected_layer(net):
    layer, weights = pt.open(net).layers[1], net.layers[2].weights
    assert list(layer) == ["kernel", "bias"]
    for param, variable in zip(layer.values(), weights, strict=True):
        assert param.handle is variable
        np.testing.assert_array_equal(param.value, tf.convert_to_tensor(variable).numpy())
    assert layer.bias.native == "net.layers[2].weights[1]"


def test_all_parameters_at_once(net):
    for param, value in zip(pt.open(net).values(), net.get_weights(), strict=True):
        np.testing.assert_array_equal(param.value, value)
    assert pt.open(net).size == net.count_params() == 25


def test_all_parameters_of_a_nested_net():
    net = tf_keras.Sequential([NestMLP(), layers.Dense(20), NestMLP()])
    net(X)
    tree = pt.open(net)
    assert [id(param.handle) for param in tree.values()] == [id(variable) for variable in net.weights]
    assert [layer.prefix for layer in tree.layers] == [
        "nest_mlp.sequential.dense", "nest_mlp.sequential.dense_1", "nest_mlp.dense_2", "dense_3",
        "nest_mlp_1.sequential_1.dense_4", "nest_mlp_1.sequential_1.dense_5", "nest_mlp_1.dense_6",
    ]  # fmt: skip


def test_a_gradient_is_none_and_then_that_of_the_tape(net):
    assert all(param.grad is None for param in pt.open(net).values())
    grads = tape_gradients(net)
    for param, gradient in zip(pt.open(net, grads=grads).values(), grads, strict=True):
        np.testing.assert_array_equal(param.grad, gradient.numpy())
    with pytest.raises(
        pt.MismatchError, match=r"3 gradients for 4 .* the first without one is 'dense_1\.bias'"
    ):
        pt.open(net, grads=grads[:3])


def test_the_last_line_of_the_chapter_is_true_and_the_layer_is_used_once():
    """Keras 2 removes the second of the two: such a Sequential uses the shared layer only once."""
    shared = layers.Dense(4, activation=tf.nn.relu)
    net = tf_keras.models.Sequential([layers.Flatten(), shared, shared, layers.Dense(1)])
    net(X)
    tree = pt.open(net)
    assert len(net.layers) == 3
    assert len(tree) == len(net.weights) == 4
    found = pt.gradients(net, squares, X, per_use=True)
    assert [len(uses) for uses in found.uses.values()] == [1, 1, 1, 1]
    np.testing.assert_allclose(net(X), net.layers[2](shared(X)), rtol=1e-6)


def test_a_layer_used_twice_is_one_parameter_whose_gradients_add_up(tied):
    tree = pt.open(tied)
    assert tree.size == tree.expanded_size == tied.count_params() == 25
    assert tree.notes == ("dense is used 2 times: its parameters are listed and counted once",)
    found = pt.gradients(tied, squares, X, per_use=True)
    for param, gradient in zip(tree.values(), tape_gradients(tied), strict=True):
        np.testing.assert_allclose(found[param.name], gradient.numpy(), rtol=1e-6)
        total = sum(use.gradient for use in found.uses[param.name])
        np.testing.assert_allclose(total, gradient.numpy(), rtol=1e-6)
    assert [len(uses) for uses in found.uses.values()] == [2, 2, 1, 1]


def test_tie_makes_one_parameter_that_trains_as_one_and_untie_parts_it():
    net = tf_keras.Sequential([tf_keras.Input((4,)), layers.Dense(4), layers.Dense(4), layers.Dense(1)])
    first, second, _ = net.layers
    assert pt.tie(net, "dense.kernel", "dense_1.kernel") is net
    assert first.kernel is second.kernel
    assert [v.name for v in second.weights] == ["dense/kernel:0", "dense_1/bias:0"]
    assert len(net.weights) == 5
    assert net.count_params() == pt.open(net).size
    assert pt.open(net).ties == (("dense.kernel", "dense_1.kernel"),)
    net.compile("sgd", "mse")
    start = net.evaluate(X, Y, verbose=0)
    net.fit(X, Y, epochs=5, verbose=0)
    assert net.evaluate(X, Y, verbose=0) < start
    pt.untie(net, "dense_1.kernel")
    assert pt.open(net).ties == ()
    assert [v.name for v in second.weights] == ["dense_1/kernel:0", "dense_1/bias:0"]
    net.compile("sgd", "mse")
    net.fit(X, Y, epochs=5, verbose=0)
    tree = pt.open(net)
    assert (tree["dense.kernel"].value != tree["dense_1.kernel"].value).any()


def test_training_is_observed_step_by_step(tied):
    tree = pt.open(tied)
    tied.compile(tf_keras.optimizers.SGD(0.1), "mse")
    losses = []
    for _ in range(3):
        before = {name: param.value for name, param in tree.items()}
        found = pt.gradients(tied, lambda net, x, y: tf.reduce_mean((net(x) - y) ** 2), X, Y)
        tied.train_on_batch(X, Y)
        for name, param in tree.items():
            np.testing.assert_allclose(param.value, before[name] - 0.1 * found[name], rtol=1e-5, atol=1e-6)
        losses.append(found.loss)
    assert losses[-1] < losses[0]


def test_update(net):
    new = np.arange(4, dtype="float32").reshape(4, 1)
    assert pt.update(net, {"dense_1.kernel": new, "**.bias": lambda bias: bias + 2}) is net
    np.testing.assert_array_equal(net.layers[2].kernel.numpy(), new)
    np.testing.assert_array_equal(net.layers[1].bias.numpy(), np.full(4, 2.0))


@pytest.mark.parametrize("trained_before", [False, True])
def test_whole_layers_are_frozen(net, trained_before):
    if trained_before:
        net.compile("sgd", "mse")
        net.fit(X, Y, verbose=0)
    assert pt.freeze(net, "dense.**") is net
    assert [param.trainable for param in pt.open(net).values()] == [False, False, True, True]
    assert {param.kind for param in pt.open(net).values()} == {"parameter"}
    assert [v.name for v in net.trainable_weights] == ["dense_1/kernel:0", "dense_1/bias:0"]
    net.compile("sgd", "mse")
    before = net.get_weights()
    net.fit(X, Y, verbose=0)
    changed = [(ours != theirs).any() for ours, theirs in zip(net.get_weights(), before, strict=True)]
    assert changed[:2] == [False, False]
    assert changed[3]
    assert list(pt.gradients(net, squares, X)) == ["dense_1.kernel", "dense_1.bias"]
    pt.unfreeze(net, "dense.**")
    assert len(net.trainable_weights) == 4


def test_a_part_of_a_layer_cannot_be_frozen(net):
    with pytest.raises(
        pt.UnsupportedError, match=r"dense\.kernel: Keras 2 freezes whole layers, and dense has it"
    ):
        pt.freeze(net, "dense.bias")
    assert len(net.trainable_weights) == 4


def test_what_is_frozen_as_a_whole_is_unfrozen_by_keras(net):
    net.trainable = False
    with pytest.raises(pt.UnsupportedError, match=r"dense\.kernel: sequential.* is frozen as a whole"):
        pt.unfreeze(net, "dense.**")


def test_groups_are_multipliers_by_name_that_a_training_step_applies(net):
    scale = pt.groups(net, {"**.bias": {"lr_mult": 0.0}})["lr_mult"]
    assert scale == {"dense/bias:0": 0.0, "dense_1/bias:0": 0.0}
    before = net.get_weights()
    grads = [
        g * scale.get(v.name, 1) for g, v in zip(tape_gradients(net), net.trainable_variables, strict=True)
    ]
    tf_keras.optimizers.SGD(0.1).apply_gradients(zip(grads, net.trainable_variables, strict=True))
    changed = [(ours != theirs).any() for ours, theirs in zip(net.get_weights(), before, strict=True)]
    assert changed == [True, False, True, False]
