"""Names, ties and kinds from TensorFlow's graph of objects: modules, Keras, optimizers, exports."""

from __future__ import annotations

import numpy as np
import pytest

import paratree as pt
from tests.attacks.tensorflow_files import SUFFIX, field, node, objects
from tests.formats.test_tensorflow import assert_equal, write

A, B = "a" + SUFFIX, "b" + SUFFIX


def open_made(folder, nodes, values, **more):
    return pt.open(write(objects(nodes, values, **more), folder))


# Graphs made byte by byte


def test_a_variable_under_two_attributes_is_tied_and_listed_in_the_order_of_the_model(tmp_path):
    held = node([("emb", 1), ("body", 2), ("head", 1)])
    nodes = [held, node(values=[("e", A)]), node([("w", 3)]), node(values=[("v", B)])]
    tree = open_made(tmp_path, nodes, {A: [1, 2], B: [3]})
    assert list(tree)[:3] == ["emb", "body.w", "head"]
    assert tree.ties == (("emb", "head"),)
    assert tree.size == 3
    assert tree["head"].value.tolist() == [1, 2]
    assert tree["b"] is tree["body.w"]
    assert tree["v"] is tree["body.w"]


def test_a_cycle_gives_no_further_names(tmp_path):
    nodes = [node([("child", 1)]), node([("parent", 0), ("self", 1), ("w", 2)]), node(values=[("w", A)])]
    assert list(open_made(tmp_path, nodes, {A: [1]}))[:-1] == ["child.w"]


def test_a_variable_of_very_many_names_is_listed_under_some_of_them(tmp_path):
    nodes = [*(node([("l", i + 1), ("r", i + 1)]) for i in range(40)), node(values=[("w", A)])]
    tree = open_made(tmp_path, nodes, {A: [1]})
    assert 2 <= len(tree.ties[0]) <= 17
    assert tree.notes == ("some variables are held in more places than are listed as names",)
    assert tree.size == 1


def test_two_variables_of_one_name_are_called_by_their_keys(tmp_path):
    keys = [f"layer_with_weights-{i}/kernel{SUFFIX}" for i in range(2)]
    nodes = [node([(f"layer_with_weights-{i}", 1 + i) for i in range(2)])]
    nodes += [node([("kernel", 3 + i)]) for i in range(2)]
    nodes += [node(values=[("dense/kernel", key)]) for key in keys]
    tree = open_made(tmp_path, nodes, dict(zip(keys, ([1], [2]), strict=True)))
    assert list(tree)[:2] == ["layer_with_weights-0.kernel", "layer_with_weights-1.kernel"]
    assert [p.value.tolist() for p in list(tree.values())[:2]] == [[1], [2]]


def test_what_the_graph_names_and_the_index_lacks_is_told_and_the_reverse_is_listed(tmp_path):
    nodes = [node([("a", 1), ("b", 2)]), node(values=[("", A)]), node(values=[("", B)])]
    tree = open_made(tmp_path, nodes, {A: [1], "more": [2]})
    assert list(tree) == ["a", "more", "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert tree.notes == ("the graph of objects names 1 tensors that the index does not hold",)


def test_what_is_no_value_of_a_variable_is_called_by_what_it_is(tmp_path):
    key = "table/.ATTRIBUTES/table-keys"
    nodes = [node([("table", 1)]), node(values=[("table-keys", "table", key)])]
    tree = open_made(tmp_path, nodes, {key: [1]})
    assert tree["table.table-keys"].kind == "other"


@pytest.mark.parametrize(("second", "count"), [([1, 2], 1), ([1, 3], 2)])
def test_only_equal_values_of_one_name_are_doubles(second, count, tmp_path):
    first, again = f"variables/0{SUFFIX}", f"_all_variables/0{SUFFIX}"
    lists = node([("variables", 1), ("_all_variables", 2)])
    nodes = [
        lists,
        node([("0", 3)]),
        node([("0", 4)]),
        node(values=[("d/k", first)]),
        node(values=[("d/k", again)]),
    ]
    tree = open_made(tmp_path, nodes, {first: [1, 2], again: second})
    assert len(tree) == count + 1
    assert tree["variables/0"].value.tolist() == [1, 2]
    assert tree["_all_variables/0"].value.tolist() == second
    assert bool(tree.notes) == (count == 1)


def test_an_object_that_only_looks_like_an_optimizer_keeps_its_parameters(tmp_path):
    nodes = [node([("iterations", 1), ("w", 2)]), node(values=[("", A)]), node(values=[("", B)])]
    assert open_made(tmp_path, nodes, {A: [1], B: [2]})["w"].kind == "parameter"


def test_a_graph_that_is_empty(tmp_path):
    tree = open_made(tmp_path, [], {A: [1]}, graph=b"")
    assert list(tree) == [A, "_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert list(open_made(tmp_path, [], {A: [1]}, graph=field(1, b""))) == list(tree)


# Graphs that TensorFlow makes


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow", reason="TensorFlow writes the files and is the truth here")


@pytest.fixture(scope="module")
def keras(tf):
    found = pytest.importorskip("keras", reason="Keras writes the files")
    if found.backend.backend() != "tensorflow":
        pytest.skip("Keras saves checkpoints of TensorFlow on that backend only")
    return found


@pytest.fixture(scope="module")
def tf_keras(tf):
    return pytest.importorskip("tf_keras", reason="tf-keras writes the files")


def module(tf):
    class Block(tf.Module):
        def __init__(self, shared):
            super().__init__()
            self.w = tf.Variable([[1.0, 2.0]])
            self.shared = shared

    class Net(tf.Module):
        def __init__(self):
            super().__init__()
            self.embedding = tf.Variable(np.arange(6.0).reshape(2, 3), name="embedding", dtype=tf.bfloat16)
            self.head = self.embedding
            self.blocks = [Block(self.embedding), Block(self.embedding)]
            self.by_name = {"scale": tf.Variable(2.0, dtype=tf.float64), "mask": tf.Variable([True, False])}
            self.twice = self.blocks[0]

    return Net()


def test_a_module_is_named_and_tied_as_the_live_one(tf, tmp_path):
    net = module(tf)
    tf.train.Checkpoint(net).write(str(tmp_path / "net"))
    tree = assert_equal(tf, tmp_path / "net")
    live = pt.open(net)
    names = set(tree) - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    assert names == set(live)
    assert {frozenset(group) for group in tree.ties} == {frozenset(group) for group in live.ties}
    assert tree.size == live.size - live["by_name.mask"].size, (
        "the file does not say that booleans are trained"
    )
    for name in names:
        assert (tree[name].shape, tree[name].dtype) == (live[name].shape, live[name].dtype)
    assert tree["embedding"].dtype == "bfloat16"


def test_a_saved_module(tf, tmp_path):
    net = module(tf)
    tf.saved_model.save(net, str(tmp_path / "saved"))
    tree = assert_equal(tf, tmp_path / "saved" / "variables" / "variables", tmp_path / "saved")
    assert set(tree) - {"_CHECKPOINTABLE_OBJECT_GRAPH"} == set(pt.open(net))


def test_a_checkpoint_of_steps_and_counters(tf, tmp_path):
    checkpoint = tf.train.Checkpoint(net=module(tf), step=tf.Variable(7))
    tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=2).save()
    tree = assert_equal(tf, tmp_path / "ckpt-1", tmp_path)
    assert tree["save_counter"].kind == "other"
    assert tree["step"].value == 7
    assert tree["net.head"].kind == "parameter"


def functional(keras):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    shared = keras.layers.Dense(8, name="shared")
    hidden = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization(name="norm")(shared(shared(inputs))))
    net = keras.Model(inputs, keras.layers.Dense(3, name="out")(hidden))
    net.compile("adam", "mse", metrics=["mae"])
    net.fit(np.ones((4, 8)), np.ones((4, 3)), verbose=0)
    return net


MODEL = [
    "shared.kernel", "shared.bias", "norm.gamma", "norm.beta", "norm.moving_mean", "norm.moving_variance",
    "out.kernel", "out.bias",
]  # fmt: skip
KINDS = ["parameter"] * 4 + ["buffer"] * 2 + ["parameter"] * 2


def of_model(tree, prefix=""):
    names = [name for name, param in tree.items() if param.kind in ("parameter", "buffer")]
    assert [tree[name].kind for name in names] == KINDS
    return [name.removeprefix(prefix) for name in names]


def test_keras_3_with_its_optimizer(tf, keras, tmp_path):
    net = functional(keras)
    tf.train.Checkpoint(model=net, optimizer=net.optimizer).write(str(tmp_path / "x"))
    tree = assert_equal(tf, tmp_path / "x")
    assert of_model(tree, "model.") == MODEL
    assert tree.ties == ()
    state = [name for name, param in tree.items() if param.kind == "state"]
    assert len(state) == 2 + 2 * 6
    assert {"optimizer.iterations", "optimizer.learning_rate", "optimizer.adam.shared_kernel_momentum"} <= {
        *state
    }
    assert tree["optimizer/_trainable_variables/0"] is tree["model.shared.kernel"]


@pytest.mark.parametrize("how", ["weights", "saved"])
def test_keras_3_has_the_names_of_the_live_model(tf, keras, how, tmp_path):
    net = functional(keras)
    if how == "saved":
        tf.saved_model.save(net, str(tmp_path / "x"))
        tree = assert_equal(tf, tmp_path / "x" / "variables" / "variables", tmp_path / "x")
    else:
        tf.train.Checkpoint(net).write(str(tmp_path / "x"))
        tree = assert_equal(tf, tmp_path / "x")
    live = pt.open(net)
    assert of_model(tree) == list(live) == MODEL
    for name in MODEL:
        np.testing.assert_array_equal(tree[name].value, live[name].value)


def test_keras_3_layers_in_a_list_are_named_by_the_model_and_not_by_the_optimizer(tf, keras, tmp_path):
    class Branches(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="branches")
            self.first = keras.layers.Dense(4, name="stem")
            self.rest = [keras.layers.Dense(3, name="left"), keras.layers.Dense(3, name="right")]

        def build(self, shape):
            self.first.build(shape)
            for layer in self.rest:
                layer.build((None, 4))

        def call(self, x):
            return sum(layer(self.first(x)) for layer in self.rest)

    net = keras.Sequential([keras.layers.Input((2,)), Branches(), keras.layers.Dense(1, name="out")])
    net.compile("adam", "mse")
    net.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    tf.train.Checkpoint(model=net).write(str(tmp_path / "ck"))
    tree = pt.open(tmp_path / "ck")
    parameters = {name for name, param in tree.items() if param.kind == "parameter"}
    layers = {"branches.first", "branches.left", "branches.right", "out"}
    assert parameters == {f"model.{layer}.{role}" for layer in layers for role in ("kernel", "bias")}
    left = net.layers[0].rest[0].kernel
    np.testing.assert_array_equal(tree["model.branches.left.kernel"].value, left.numpy())


def test_keras_3_in_a_sequential_in_a_sequential(tf, keras, tmp_path):
    inner = keras.Sequential([keras.layers.Dense(3, name="a"), keras.layers.Dense(3, name="b")], name="block")
    net = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="first"), inner])
    net(np.ones((1, 4)))
    tf.train.Checkpoint(net).write(str(tmp_path / "x"))
    tree = assert_equal(tf, tmp_path / "x")
    assert list(tree)[:-1] == list(pt.open(net))
    assert "block.b.kernel" in tree


@pytest.mark.parametrize("subclass", [False, True])
def test_an_export_of_keras_3_is_counted_once(tf, keras, subclass, tmp_path):
    if subclass:
        net = subclassed(keras)
        net.export(str(tmp_path / "x"), input_signature=[tf.TensorSpec((2, 4))], verbose=False)
    else:
        net = functional(keras)
        net.export(str(tmp_path / "x"), verbose=False)
    tree = assert_equal(tf, tmp_path / "x" / "variables" / "variables", tmp_path / "x")
    assert tree.size == sum(int(np.prod(v.shape)) for v in net.trainable_weights)
    count = len(net.weights)
    assert f"{count} variables are stored twice, as Keras exports them: each is listed once" in tree.notes
    kinds = [param.kind for param in tree.values()]
    assert kinds.count("parameter") + kinds.count("buffer") == count
    if not subclass:
        assert of_model(tree) == MODEL
        assert next(n for n, p in tree.items() if p.kind == "other").endswith(".seed_generator_state")
    else:
        kept = [p.value.tobytes() for p in tree.values() if p.kind in ("parameter", "buffer")]
        assert kept == [np.asarray(v).tobytes() for v in net.weights]


def subclassed(keras):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = keras.layers.Dense(4)
            self.again = self.first
            self.blocks = [keras.layers.Dense(4) for _ in range(2)]
            self.attention = keras.layers.MultiHeadAttention(2, 2)
            self.lstm = keras.layers.LSTM(3)

        def call(self, x):
            x = self.again(self.first(x))
            for block in self.blocks:
                x = block(x)
            return self.lstm(self.attention(x[None], x[None]))

    net = Net()
    net(np.ones((2, 4), "float32"))
    return net


@pytest.mark.parametrize("generation", ["keras", "tf_keras"])
def test_a_subclassed_model_is_named_by_its_attributes(tf, generation, tmp_path, request):
    net = subclassed(request.getfixturevalue(generation))
    tf.train.Checkpoint(net).write(str(tmp_path / "x"))
    tree = assert_equal(tf, tmp_path / "x")
    assert set(tree.ties) == {("first.kernel", "again.kernel"), ("first.bias", "again.bias")}
    assert "lstm.cell.recurrent_kernel" in tree
    if generation == "tf_keras":  # Keras 3 does not show TensorFlow the layers that it keeps in lists
        assert {"blocks.0.kernel", "blocks.1.bias"} < set(tree)
        assert tree.size == sum(int(np.prod(v.shape)) for v in net.trainable_weights)


def test_weights_of_tf_keras(tf, tf_keras, tmp_path):
    net = functional(tf_keras)
    net.save_weights(str(tmp_path / "x"))
    tree = assert_equal(tf, tmp_path / "x", tmp_path)
    assert of_model(tree) == MODEL == list(pt.open(net))
    assert tree["optimizer.Adam.m.shared.kernel"].kind == "state"
    assert tree["layer_with_weights-0/kernel"] is tree["shared.kernel"]


def test_a_saved_model_of_tf_keras(tf, tf_keras, tmp_path):
    net = functional(tf_keras)
    net.save(str(tmp_path / "x"), save_format="tf")
    tree = assert_equal(tf, tmp_path / "x" / "variables" / "variables", tmp_path / "x")
    assert of_model(tree) == MODEL
    assert {p.kind for name, p in tree.items() if name.startswith("keras_api.metrics")} == {"other"}


def test_slots_of_an_optimizer(tf, tf_keras, tmp_path):
    net = functional(tf_keras)
    optimizer = tf_keras.optimizers.legacy.Adam()
    net.compile(optimizer, "mse")
    net.fit(np.ones((4, 8)), np.ones((4, 3)), verbose=0)
    tf.train.Checkpoint(net=net, optimizer=optimizer).write(str(tmp_path / "x"))
    tree = assert_equal(tf, tmp_path / "x")
    assert of_model(tree, "net.") == MODEL
    slots = optimizer.get_slot(net.get_layer("out").kernel, "v")
    np.testing.assert_array_equal(tree["optimizer.net.out.kernel.v"].value, slots.numpy())
    assert tree["optimizer.net.out.kernel.v"].kind == "state"
    assert tree["optimizer.iter"].value == 1


def test_what_a_dropout_draws_from_is_no_parameter(tf, tf_keras, tmp_path):
    net = tf_keras.Sequential([tf_keras.layers.Dense(2), tf_keras.layers.Dropout(0.5, rng_type="stateful")])
    net(np.ones((1, 3)), training=True)
    net.save_weights(str(tmp_path / "x"))
    tree = assert_equal(tf, tmp_path / "x")
    assert [p.kind for p in tree.values()].count("parameter") == 2


@pytest.mark.parametrize("layer", ["Bidirectional", "TimeDistributed", "StackedRNNCells"])
def test_layers_around_layers(tf, tf_keras, layer, tmp_path):
    layers = tf_keras.layers
    inner = {
        "Bidirectional": lambda: layers.Bidirectional(layers.LSTM(2), name="both"),
        "TimeDistributed": lambda: layers.TimeDistributed(layers.Dense(2), name="each"),
        "StackedRNNCells": lambda: layers.RNN([layers.LSTMCell(2), layers.LSTMCell(3)], name="stack"),
    }[layer]()
    net = tf_keras.Sequential([tf_keras.Input((3, 2)), inner])
    net.save_weights(str(tmp_path / "x"))
    tree = assert_equal(tf, tmp_path / "x")
    assert tree.size == sum(int(np.prod(v.shape)) for v in net.weights)
    assert len(list(tree)) == len(net.weights) + 1
    assert tree.ties == ()
