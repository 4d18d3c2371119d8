"""What Keras saves, read back: names, order, values and ties equal those of the live model."""

from __future__ import annotations

import numpy as np
import pytest

import paratree as pt

keras = pytest.importorskip("keras")
pytest.importorskip("h5py")
if keras.__version__ < "3":  # another Keras than the one whose files these tests are about
    pytest.skip("could not import keras 3", allow_module_level=True)

from tests.formats import keras_models as models  # noqa: E402 -- it imports keras

WHOLE = {
    "sequential": models.sequential,
    "functional": models.functional,
    "deep": models.deep,
    "tied": models.tied,
}
EVERY = [pytest.param(make, id=name) for name, make in {**models.LAYERS, **WHOLE}.items()]


def params_of(tree):
    return {name: param for name, param in tree.items() if param.kind not in ("state", "other")}


def assert_same(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name].value, value, strict=True)


@pytest.mark.parametrize("make", EVERY)
def test_archive(make, tmp_path):
    model = models.scramble(make())
    model.save(tmp_path / "m.keras")
    with pt.open(tmp_path / "m.keras") as tree:
        found, expected = params_of(tree), models.expected(model)
        assert list(found) == list(expected)
        assert_same(found, expected)
        assert tree.notes == ()
        assert tree.meta["keras_version"] == keras.__version__


@pytest.mark.parametrize("make", EVERY)
def test_weights(make, tmp_path):
    """The file does not say the order, nor whether the only one of beta and gamma is which."""
    model = models.scramble(make())
    model.save_weights(tmp_path / "m.weights.h5")
    with pt.open(tmp_path / "m.weights.h5") as tree:
        found, expected = params_of(tree), models.expected(model)
        names = [name.replace("second.norm.beta", "second.norm.0") for name in expected]
        assert list(found) == names
        assert_same(found, dict(zip(names, expected.values(), strict=True)))


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_subclassed_model(suffix, tmp_path):
    """Attributes are saved in the order of the alphabet; layers named by their user say no class."""
    model = models.scramble(models.subclassed())
    path = str(tmp_path / f"m{suffix}")
    if suffix == ".keras":
        model.save(path)
    else:
        model.save_weights(path)
    expected = models.expected(model)
    for name in [n for n in expected if n.endswith(".gain")]:
        expected[name.replace(".gain", ".0")] = expected.pop(name)
    expected["zz_first.0"], expected["zz_first.1"] = (
        expected.pop("zz_first.kernel"),
        expected.pop("zz_first.bias"),
    )
    with pt.open(path) as tree:
        assert set(params_of(tree)) == set(expected)
        assert_same(tree, expected)
        block = tree[next(name for name in tree.children if name.startswith("block"))]
        dense = [name for name in block.children if name.startswith("dense")]
        numbers = [int(name.removeprefix("dense").removeprefix("_") or 0) for name in dense]
        assert numbers[1:] == list(
            range(numbers[0] - 11, numbers[0])
        )  # heads before steps, the steps in order
        assert block["attention.query.kernel"].layout == "in head feature"
        assert len(tree.notes) == 2


@pytest.mark.parametrize("make", [models.sequential, models.subclassed])
def test_names_are_the_paths_of_the_variables(make, tmp_path):
    model = make()
    model.save_weights(tmp_path / "m.weights.h5")
    paths = {v.path.partition("/")[2].replace("/", "."): v for v in model.variables if "seed" not in v.path}
    with pt.open(tmp_path / "m.weights.h5") as tree:
        named = [name for name in tree if not name.rpartition(".")[2].isdecimal()]
        assert len(named) > 40
        assert set(named) <= set(paths)


def test_the_tied_model_that_keras_cannot_load(tmp_path):
    """Keras 3.15.1 counts the shared layer twice in one file of the archive and once in the other."""
    model = models.scramble(models.tied())
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    with pt.open(tmp_path / "m.keras") as tree, pt.open(tmp_path / "m.weights.h5") as same:
        assert len(tree) == 6
        assert tree.size == model.count_params()
        assert list(tree) == list(same)
        assert_same(tree, models.expected(model))
        assert len(tree.layers) == 3


def test_a_shared_layer_is_stored_once(tmp_path):
    model = models.functional()
    model.save(tmp_path / "m.keras")
    with pt.open(tmp_path / "m.keras") as tree:
        assert tree.size == sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        assert tree.ties == ()


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
def test_a_compiled_model_and_its_optimizer(suffix, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    path = str(tmp_path / f"m{suffix}")
    if suffix == ".weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    with pt.open(path) as tree:
        assert list(params_of(tree)) == list(models.expected(model))
        assert_same(tree, models.expected(model))
        states = [param.value for param in tree["optimizer"].values()]
        assert len(states) == len(model.optimizer.variables)
        for state, variable in zip(states, model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(state, keras.ops.convert_to_numpy(variable))
        assert set(tree.select("optimizer.**")) == set(tree.select(kind="state"))
        assert tree.size == 4 * 3 + 3 + 3 + 3
        if suffix != ".weights.h5":
            assert tree.meta["training_config"]["loss"] == "mse"
            assert tree.meta["model_config"]["class_name"] == "Sequential"


@pytest.mark.parametrize("make", [models.sequential, models.functional, models.deep])
def test_older_form_written_by_keras_3(make, tmp_path):
    model = models.scramble(make())
    model.save(tmp_path / "m.h5")
    expected = models.expected(model)
    with pt.open(tmp_path / "m.h5") as tree:
        assert set(tree) == set(expected)
        if make is not models.deep:  # for a nested model Keras lists what is trained before what is not
            assert list(tree) == list(expected)
        assert_same(tree, expected)
        dense = next(name for name in tree if "dense" in name and name.endswith("kernel"))
        assert tree[dense].layout == "in out"
        assert tree[dense].trainable


def test_frozen_layers(tmp_path):
    model = models.sequential()
    model.save(tmp_path / "m.keras")
    with pt.open(tmp_path / "m.keras") as tree:
        frozen = {name for name, param in tree.items() if param.trainable is False}
        by_path = {v.path.partition("/")[2].replace("/", ".") for v in model.non_trainable_variables}
        assert frozen == {name for name in by_path if "seed" not in name}


def test_bfloat16(tmp_path):
    layer = keras.layers.Dense(3, dtype="bfloat16")
    model = models.scramble(keras.Sequential([keras.Input((4,)), layer]))
    model.save(tmp_path / "m.keras")
    with pt.open(tmp_path / "m.keras") as tree:
        kernel = tree[f"{layer.name}.kernel"]
        assert kernel.dtype == "bfloat16"
        expected = keras.ops.convert_to_numpy(keras.ops.cast(layer.kernel, "float32"))
        np.testing.assert_array_equal(kernel.value.astype("float32"), expected)


# Keras 2


@pytest.fixture(scope="module")
def old():
    """Return a compiled and trained model of Keras 2."""
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    given = layers.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, name="depthwise")(given)
    x = layers.BatchNormalization()(layers.SeparableConv2D(4, 3)(x))
    inner = tf_keras.Sequential([layers.Dense(4), layers.Dropout(0.5), layers.Dense(3)], name="inner")
    x = layers.Reshape((3, 1))(inner(layers.Flatten()(x)))
    model = tf_keras.Model(given, layers.Bidirectional(layers.LSTM(2))(x))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(np.ones((2, 8, 8, 3)), np.ones((2, 4)), verbose=0)
    return model


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "weights.h5"])
def test_keras_2(name, old, tmp_path):
    path = str(tmp_path / name)
    if name == "weights.h5":
        old.save_weights(path)
    else:
        old.save(path)
    with pt.open(path) as tree:
        found = list(params_of(tree).values())
        assert len(found) == len(old.weights)
        for param, weight in zip(found, old.weights, strict=True):
            path = weight.name.removesuffix(":0").replace("/", ".")
            assert param.name in (path, f"inner.{path}")
            np.testing.assert_array_equal(param.value, weight.numpy(), strict=True)
        assert tree["depthwise.depthwise_kernel"].value.shape == (3, 3, 3, 1)
        if name != "weights.h5":
            assert tree["depthwise.depthwise_kernel"].layout == "height width in multiplier"
            assert len(tree.select(kind="state")) == len(old.optimizer.variables)


def test_keras_2_weights_without_names(old, tmp_path):
    """Keras 2 writes no names of layers into it, and has another name for a depthwise kernel than Keras 3."""
    old.save_weights(str(tmp_path / "m.weights.h5"))
    with pt.open(tmp_path / "m.weights.h5") as tree:
        found = list(params_of(tree).values())
        for param, weight in zip(found, old.weights, strict=True):
            np.testing.assert_array_equal(param.value, weight.numpy(), strict=True)
        assert [p.name for p in found[:2]] == ["depthwise_conv2d.0", "depthwise_conv2d.bias"]
        assert found[9].name == "sequential.dense.kernel"


# Shards


def save_sharded(model, path):
    """Save as many shards as Keras makes when each may hold little more than the largest variable."""
    largest = max(keras.ops.convert_to_numpy(v).nbytes for v in model.variables)
    model.save_weights(path, max_shard_size=(largest + 8) / 1024**3)
    return len(list(path.parent.glob(f"{path.name.partition('.')[0]}_*.weights.h5")))


@pytest.mark.parametrize("make", [*WHOLE.values(), models.subclassed], ids=[*WHOLE, "subclassed"])
def test_shards_are_the_tree_of_the_one_file(make, tmp_path):
    model = models.scramble(make())
    model.save_weights(tmp_path / "one.weights.h5")
    count = save_sharded(model, tmp_path / "m.weights.json")
    assert count > 3
    with pt.open(tmp_path / "one.weights.h5") as one, pt.open(tmp_path / "m.weights.json") as tree:
        assert list(tree) == list(one)
        assert tree.format == f"Keras weights, {count} shards"
        assert (tree.notes, tree.ties, tree.size) == (one.notes, one.ties, one.size)
        for name, param in tree.items():
            np.testing.assert_array_equal(param.value, one[name].value, strict=True)
            facts = [(p.kind, p.layout, p.trainable, p.role) for p in (param, one[name])]
            assert facts[0] == facts[1]


def test_shards_equal_what_keras_loads(tmp_path):
    model, other = models.scramble(models.functional()), models.functional()
    save_sharded(model, tmp_path / "m.weights.json")
    names = list(models.expected(model))
    other.load_weights(tmp_path / "m.weights.json")
    with pt.open(tmp_path) as tree:  # the folder stands for the index
        assert list(params_of(tree)) == names
        for name, value in zip(names, models.expected(other).values(), strict=True):
            np.testing.assert_array_equal(tree[name].value, value, strict=True)


def test_variables_of_one_layer_in_two_shards(tmp_path):
    model = models.scramble(keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, name="only")]))
    assert save_sharded(model, tmp_path / "m.weights.json") == 2
    with pt.open(tmp_path / "m.weights.json") as tree:
        assert list(tree) == ["only.kernel", "only.bias"]
        assert [p.array.source.path.rpartition("/")[2] for p in tree.values()] == [
            "m_00000.weights.h5",
            "m_00001.weights.h5",
        ]
        assert_same(tree, models.expected(model))


def test_shards_of_a_compiled_model_hold_its_optimizer(tmp_path):
    model = models.sequential()
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    save_sharded(model, tmp_path / "m.weights.json")
    model.save_weights(tmp_path / "one.weights.h5")
    with pt.open(tmp_path / "m.weights.json") as tree, pt.open(tmp_path / "one.weights.h5") as one:
        assert list(tree) == list(one)
        assert len(tree.select(kind="state")) > 10


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantised_layers_have_the_names_that_keras_gives(mode, tmp_path):
    net = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(2, use_bias=False)], name="net"
    )
    net.quantize(mode)
    net.save(tmp_path / "net.keras")
    tree = pt.open(tmp_path / "net.keras")
    for layer in net.layers:
        if layer.variables:
            names = layer.variable_serialization_spec[mode]
            names = [name for name in names if getattr(layer, name, None) is not None]
            assert [n.rpartition(".")[2] for n in tree if n.startswith(f"{layer.name}.")] == names
            assert tree[f"{layer.name}.kernel"].kind == "parameter"
    assert not tree.notes


class _Inside(keras.layers.Layer):
    """A layer of the user's with a variable and a layer inside, and no get_config of its own."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = keras.layers.Dense(3, name="inner")

    def build(self, shape):
        self.a = self.add_weight(shape=(3,), name="a")
        self.inner.build(shape)
        self.built = True

    def call(self, x):
        return self.inner(x) + self.a


def test_a_custom_layer_keeps_its_place(tmp_path):
    x = first = keras.Input((3,))
    for layer in (keras.layers.Dense(3, name="zz"), _Inside(name="cc"), keras.layers.Dense(2, name="aa")):
        x = layer(x)
    keras.Model(first, x).save(tmp_path / "net.keras")
    tree = pt.open(tmp_path / "net.keras")
    assert [layer.prefix for layer in tree.layers] == ["zz", "cc", "cc.inner", "aa"]
