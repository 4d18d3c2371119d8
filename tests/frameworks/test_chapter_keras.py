"""The TensorFlow tab of the chapter in Keras 3, on any backend: our expression against its own."""

import numpy as np
import pytest

import paratree as pt

keras = pytest.importorskip("keras", reason="could not import keras; these tests need it")
if keras.__version__ < "3":
    pytest.skip("could not import keras 3; these tests need it", allow_module_level=True)
from keras import layers, ops  # noqa: E402 -- Keras 2 would not do

from tests.frameworks.cases.keras import numbers, own_gradients, squares  # noqa: E402 -- it imports keras

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).random((2, 4), dtype="float32")
Y = np.ones((2, 1), "float32")


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


def unbuilt():
    return keras.Sequential([layers.Flatten(), layers.Dense(4, activation="relu"), layers.Dense(1)])


@pytest.fixture
def net():
    """The multilayer perceptron with one hidden layer, after its first batch."""
    net = unbuilt()
    net(X)
    return net


@pytest.fixture
def tied():
    """The net that uses one layer twice."""
    shared = layers.Dense(4, activation="relu")
    net = keras.Sequential([layers.Flatten(), shared, shared, layers.Dense(1)])
    net(X)
    return net


class NestMLP(keras.Model):
    """The nested model that the first exercise refers to."""

    def __init__(self):
        super().__init__()
        self.net = keras.Sequential(
            [layers.Dense(64, activation="relu"), layers.Dense(32, activation="relu")]
        )
        self.linear = layers.Dense(16)

    def call(self, inputs):
        return self.linear(self.net(inputs))


# The net, before and after it has seen data


def test_before_the_first_batch_unknown_dimensions_are_question_marks():
    tree = pt.open(unbuilt())
    assert {name: param.shape for name, param in tree.items()} == {
        "dense.kernel": (None, 4), "dense.bias": (4,), "dense_1.kernel": (None, 1), "dense_1.bias": (1,),
    }  # fmt: skip
    assert repr(tree["dense.kernel"]) == "<Param dense.kernel: ? × 4 float32, trainable, not readable>"
    with pytest.raises(
        pt.UnreadableError, match=r"dense.kernel: .*call net\(X\) or net.build\(input_shape\)"
    ):
        _ = tree.layers[0].weight.value


def test_a_tree_opened_before_the_first_batch_has_the_values_after_it():
    net = unbuilt()
    tree = pt.open(net)
    net(X)
    assert [param.shape for param in tree.values()] == [(4, 4), (4,), (4, 1), (1,)]
    for param, value in zip(tree.values(), net.get_weights(), strict=True):
        np.testing.assert_array_equal(param.value, value)
    assert tree["dense_1.bias"].native == "net.layers[2].weights[1]"


def test_after_the_first_batch_the_shapes_are_known(net):
    tree = pt.open(net)
    assert [param.shape for param in tree.values()] == [(4, 4), (4,), (4, 1), (1,)]
    assert tree.size == net.count_params() == 25
    assert all(param.array.problem is None for param in tree.values())


# Parameter access


def test_the_second_fully_connected_layer(net):
    layer, weights = pt.open(net).layers[1], net.layers[2].weights
    assert list(layer) == [variable.name for variable in weights] == ["kernel", "bias"]
    for param, variable in zip(layer.values(), weights, strict=True):
        assert param.handle is variable
        np.testing.assert_array_equal(param.value, ops.convert_to_numpy(variable))


def test_every_way_to_the_second_layer_is_the_same(net):
    tree = pt.open(net)
    ways = (tree.layers[1], tree["dense_1"], tree[1])
    assert (
        len({id(way.bias) for way in ways} | {id(tree["dense_1/bias"]), id(tree["sequential/dense_1/bias"])})
        == 1
    )


def test_the_bias_is_a_variable_with_a_value(net):
    bias = pt.open(net).layers[1].bias
    assert bias.native == "net.layers[2].weights[1]"
    assert isinstance(bias.handle, keras.Variable)
    np.testing.assert_array_equal(bias.value, ops.convert_to_numpy(net.layers[2].weights[1]))
    assert (bias.name, bias.trainable, bias.kind) == ("dense_1.bias", True, "parameter")


def test_a_change_that_keras_makes_is_seen(net):
    param = pt.open(net)["dense.kernel"]
    net.layers[1].kernel.assign(np.full((4, 4), 7.0))
    assert (param.value == 7).all()


def test_the_value_shares_memory_where_the_backend_lets_it(net):
    param = pt.open(net)["dense.kernel"]
    if BACKEND != "torch":  # a copy, or memory that nobody may change
        with pytest.raises(ValueError, match="read-only"):
            param.value[0, 0] = 42
        return
    param.value[0, 0] = 42
    assert ops.convert_to_numpy(net.layers[1].kernel)[0, 0] == 42


def test_the_gradient_is_none_before_backpropagation_and_then_keras_own(net):
    assert all(param.grad is None for param in pt.open(net).values())
    grads = own_gradients(net, X)
    tree = pt.open(net, grads=grads)
    assert len(tree) == len(grads) == 4
    for param, gradient in zip(tree.values(), grads, strict=True):
        assert param.grad.shape == param.shape
        np.testing.assert_array_equal(param.grad, numbers(gradient))
    assert tree["dense.kernel"].grad.any()


def test_gradients_by_name(net):
    gradient = np.ones((4, 1), "float32")
    tree = pt.open(net, grads={"dense_1.kernel": gradient})
    np.testing.assert_array_equal(tree["dense_1.kernel"].grad, gradient)


def wrong_grads():
    right = [np.zeros(shape) for shape in ((4, 4), (4,), (4, 1), (1,))]
    yield right[:2], r"2 gradients for 4 trained variables; the first without one is 'dense_1.kernel'"
    yield [*right, right[0]], "5 gradients for 4 trained variables; the first too many is number 4"
    yield [right[0], right[2], *right[2:]], r"'dense.bias' has the shape \(4, 1\), its parameter \(4,\)"
    yield {"dense_9.kernel": right[0]}, "no parameter 'dense_9.kernel' in Sequential"
    yield 1.0, "a float; give a list beside the trained variables, or a dict by name"


@pytest.mark.parametrize(("grads", "message"), list(wrong_grads()))
def test_gradients_that_do_not_fit_name_the_first_path(net, grads, message):
    with pytest.raises(pt.MismatchError, match=message):
        pt.open(net, grads=grads)


# All parameters at once


def test_all_parameters_at_once(net):
    values = [param.value for param in pt.open(net).values()]
    for ours, theirs in zip(values, net.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_all_parameters_of_a_nested_net():
    net = keras.Sequential([NestMLP(), layers.Dense(20), NestMLP()])
    net(X)
    tree = pt.open(net)
    ours = [(name, param.shape) for name, param in tree.items()]
    theirs = [(v.path.partition("/")[2].replace("/", "."), tuple(v.shape)) for v in net.weights]
    assert ours == theirs
    assert tree.size == net.count_params()
    assert [layer.prefix for layer in tree.layers] == [
        "nest_mlp.sequential.dense", "nest_mlp.sequential.dense_1", "nest_mlp.dense_2", "dense_3",
        "nest_mlp_1.sequential_1.dense_4", "nest_mlp_1.sequential_1.dense_5", "nest_mlp_1.dense_6",
    ]  # fmt: skip
    assert len(tree["nest_mlp_1"].select(role="bias")) == 3


# Tied parameters


def test_a_layer_used_twice_is_one_parameter(tied):
    """Keras 3 lists the layer twice: the chapter's last line, which is True in Keras 2, prints False."""
    tree = pt.open(tied)
    assert (len(tied.layers) == 3) is False
    assert tied.layers[1] is tied.layers[2]
    assert list(tree) == ["dense.kernel", "dense.bias", "dense_1.kernel", "dense_1.bias"]
    assert tree.totals["parameter"].count == len(tied.weights) == 4
    assert tree.size == tree.expanded_size == tied.count_params() == 25
    assert tree.notes == ("dense is used 2 times: its parameters are listed and counted once",)
    assert tree.ties == ()


def test_a_layer_used_twice_cannot_be_parted(tied):
    with pytest.raises(pt.MismatchError, match=r"dense\.kernel is not tied"):
        pt.untie(tied, "dense.kernel")


def test_a_change_through_one_use_is_seen_through_the_other(tied):
    tied.layers[1].kernel.assign(np.full((4, 4), 100.0))
    assert (ops.convert_to_numpy(tied.layers[2].kernel) == 100).all()
    assert (pt.open(tied)["dense.kernel"].value == 100).all()


def test_equal_values_are_no_tie():
    net = keras.Sequential([layers.Dense(4), layers.Dense(4)])
    net.build((None, 4))
    net.layers[1].set_weights(net.layers[0].get_weights())
    assert pt.open(net).ties == ()


def test_the_tied_net_opens_from_the_file_that_keras_cannot_load(tied, tmp_path):
    pytest.importorskip("h5py", reason="could not import h5py; Keras saves with it")
    tied.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match="expected 2 variables, but received 0"):
        keras.saving.load_model(tmp_path / "m.keras")
    with pt.open(tmp_path / "m.keras") as tree:
        live = pt.open(tied)
        assert list(tree) == list(live)
        for name, param in tree.items():
            np.testing.assert_array_equal(param.value, live[name].value)


def apart(tied):
    """Return the tied net with two layers in place of the one."""
    net = keras.Sequential(
        [layers.Flatten(), *(layers.Dense(4, activation="relu") for _ in range(2)), layers.Dense(1)]
    )
    net(X)
    kernel, bias, *last = tied.get_weights()
    net.set_weights([kernel, bias, kernel, bias, *last])
    return net


def test_the_gradients_of_tied_layers_are_added_together(tied):
    ours = pt.gradients(tied, squares, X, per_use=True)
    separate = pt.gradients(apart(tied), squares, X)
    names = list(separate)
    for key, place in (("kernel", 0), ("bias", 1)):
        total = separate[names[place]] + separate[names[place + 2]]
        assert total.any(), "the comparison means something"
        np.testing.assert_allclose(ours[f"dense.{key}"], total, rtol=1e-6)
        first, second = (use.gradient for use in ours.uses[f"dense.{key}"])
        np.testing.assert_allclose(first, separate[names[place]], rtol=1e-6)
        np.testing.assert_allclose(second, separate[names[place + 2]], rtol=1e-6)
    for variable, gradient in zip(tied.trainable_variables, own_gradients(tied, X), strict=True):
        name = next(n for n, p in pt.open(tied).items() if p.handle is variable)
        np.testing.assert_allclose(ours[name], numbers(gradient), rtol=1e-6)


def test_tie_makes_one_parameter_that_trains_as_one_and_untie_parts_it():
    net = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4), layers.Dense(1)])
    assert pt.tie(net, "dense.kernel", "dense_1.kernel") is net
    first, second, _ = net.layers
    assert first.kernel is second.kernel
    assert len(net.weights) == 5
    assert net.count_params() == pt.open(net).size == 16 + 4 + 4 + 4 + 1
    assert pt.open(net).ties == (("dense.kernel", "dense_1.kernel"),)
    net.compile("sgd", "mse")
    start = net.evaluate(X, Y, verbose=0)
    net.fit(X, Y, epochs=5, verbose=0)
    assert net.evaluate(X, Y, verbose=0) < start
    tree = pt.open(net)
    assert (tree["dense.kernel"].value == tree["dense_1.kernel"].value).all()
    pt.untie(net, "dense_1.kernel")
    assert first.kernel is not second.kernel
    assert pt.open(net).ties == ()
    assert len({variable.path for variable in net.weights}) == len(net.weights) == 6
    net.compile("sgd", "mse")
    net.fit(X, Y, epochs=5, verbose=0)
    tree = pt.open(net)
    assert (tree["dense.kernel"].value != tree["dense_1.kernel"].value).any()


def test_a_tied_net_saves_and_loads_its_weights(tmp_path):
    pytest.importorskip("h5py", reason="could not import h5py; Keras saves with it")
    net = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(4)])
    pt.tie(net, "dense.kernel", "dense_1.kernel")
    net.save_weights(tmp_path / "m.weights.h5")
    before = net.get_weights()
    pt.update(net, {"**": 0.0})
    net.load_weights(tmp_path / "m.weights.h5")
    for ours, theirs in zip(net.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pt.open(tmp_path / "m.weights.h5") as saved:
        assert list(saved) == list(pt.open(net))


# Training


def test_training_is_observed_step_by_step(tied):
    """The chapter's second exercise: parameters and gradients of each layer while a tied net learns."""
    tree = pt.open(tied)
    tied.compile(keras.optimizers.SGD(0.1), "mse")
    losses = []
    for _ in range(3):
        before = {name: np.array(param.value) for name, param in tree.items()}
        found = pt.gradients(tied, lambda net, x, y: ops.mean(ops.square(ops.subtract(net(x), y))), X, Y)
        tied.train_on_batch(X, Y)
        for name, param in tree.items():
            np.testing.assert_allclose(param.value, before[name] - 0.1 * found[name], rtol=1e-5, atol=1e-6)
        losses.append(found.loss)
    assert losses[-1] < losses[0]


def test_update(net):
    new = np.arange(4, dtype="float32").reshape(4, 1)
    assert pt.update(net, {"dense_1.kernel": new, "**.bias": lambda bias: bias + 2}) is net
    np.testing.assert_array_equal(ops.convert_to_numpy(net.layers[2].kernel), new)
    np.testing.assert_array_equal(ops.convert_to_numpy(net.layers[1].bias), np.full(4, 2.0))
    with pytest.raises(pt.NoSuchParamError, match=r"dense_7\.kernel"):
        pt.update(net, {"dense_7.kernel": 0})
    with pytest.raises(pt.MismatchError, match="chosen twice"):
        pt.update(net, {"dense.*": 0, "**.bias": 0})


@pytest.mark.parametrize("compiled_before", [False, True])
def test_fit_leaves_what_is_frozen_alone(net, compiled_before):
    """On JAX a model that has trained must be compiled again, as Keras asks after setting ``trainable``."""
    if compiled_before:
        net.compile("sgd", "mse")
        net.fit(X, Y, verbose=0)
    assert pt.freeze(net, "dense.**") is net
    assert (
        [p.trainable for p in pt.open(net).values()]
        == [v.trainable for v in net.weights]
        == [False] * 2 + [True] * 2
    )
    assert {p.kind for p in pt.open(net).values()} == {"parameter"}
    if not compiled_before or BACKEND == "jax":
        net.compile("sgd", "mse")
    before = net.get_weights()
    net.fit(X, Y, verbose=0)
    changed = [(ours != theirs).any() for ours, theirs in zip(net.get_weights(), before, strict=True)]
    assert changed[:2] == [False, False]
    assert changed[3]
    assert list(pt.gradients(net, squares, X)) == ["dense_1.kernel", "dense_1.bias"]
    pt.unfreeze(net, "dense.bias")
    assert [p.trainable for p in pt.open(net).values()] == [False, True, True, True]


def test_what_is_frozen_as_a_whole_is_unfrozen_by_keras(net):
    net.trainable = False
    assert not any(param.trainable for param in pt.open(net).values())
    with pytest.raises(pt.UnsupportedError, match=r"frozen as a whole; set net.trainable = True first"):
        pt.unfreeze(net, "**")


def test_groups_are_multipliers_by_path_that_a_training_step_applies(net):
    scale = pt.groups(net, {"**.bias": {"lr_mult": 0.0}})["lr_mult"]
    assert scale == {"sequential/dense/bias": 0.0, "sequential/dense_1/bias": 0.0}
    optimizer = keras.optimizers.SGD(0.1)
    before = net.get_weights()
    grads = [
        gradient * scale.get(variable.path, 1)
        for gradient, variable in zip(own_gradients(net, X), net.trainable_variables, strict=True)
    ]
    optimizer.apply(grads, net.trainable_variables)
    changed = [(ours != theirs).any() for ours, theirs in zip(net.get_weights(), before, strict=True)]
    assert changed == [True, False, True, False]
