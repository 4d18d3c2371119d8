"""pt.load into Keras 3 models: what load_weights loads, and what it cannot."""

import numpy as np
import pytest

import paratree as pt

keras = pytest.importorskip("keras", reason="could not import keras; these tests need it")
pytest.importorskip("h5py", reason="could not import h5py; these tests need it")
if keras.__version__ < "3":
    pytest.skip("could not import keras 3; these tests need it", allow_module_level=True)
from keras import layers  # noqa: E402 -- Keras 2 would not do

from tests.formats import keras_models as models  # noqa: E402 -- it imports keras
from tests.verbs.held import tree_of  # noqa: E402

X = np.random.default_rng(0).random((2, 6, 6, 3), dtype="float32")


def convolutional(seed):
    net = keras.Sequential([
        keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(),
        layers.Flatten(), layers.Dropout(0.5), layers.Dense(5, name="head"),
    ])  # fmt: skip
    generator = np.random.default_rng(seed)
    net.set_weights([generator.uniform(0.5, 2, weight.shape) for weight in net.get_weights()])
    return net


def assert_same(net, other):
    for one, another in zip(net.get_weights(), other.get_weights(), strict=True):
        assert one.tobytes() == another.tobytes()


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_model_takes_what_keras_saved(tmp_path, suffix):
    trained, net, own = convolutional(0), convolutional(1), convolutional(2)
    path = str(tmp_path / f"net{suffix}")
    trained.save(path) if suffix == ".keras" else trained.save_weights(path)
    found = pt.load(net, path)
    assert found.model is net
    assert found.complete
    own.load_weights(path)
    assert_same(net, own)
    to_numpy = keras.ops.convert_to_numpy
    np.testing.assert_array_equal(to_numpy(net(X)), to_numpy(own(X)))


def test_a_model_takes_what_we_saved(tmp_path):
    trained, net = convolutional(0), convolutional(1)
    for suffix in (".safetensors", ".npz"):
        pt.save(trained, tmp_path / f"net{suffix}")
        assert pt.load(net, tmp_path / f"net{suffix}").complete
        assert_same(net, trained)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_model_of_another_dtype_takes_it_cast(dtype):
    net = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype=dtype)])
    trained = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    found = pt.load(net, trained)
    assert {row.status for row in found} == {"cast"}
    kernel = np.asarray(trained.get_weights()[0]).astype(pt.open(net)["dense.kernel"].value.dtype)
    assert pt.open(net)["dense.kernel"].value.tobytes() == kernel.tobytes()


def test_the_tied_model_that_keras_cannot_load(tmp_path):
    """Keras 3.15.1 counts the shared layer twice in one file of the archive and once in the other."""
    trained, net = models.scramble(models.tied()), models.tied()
    trained.save(tmp_path / "net.keras")
    assert pt.load(net, tmp_path / "net.keras").complete
    assert_same(net, trained)


def test_optimizer_state_is_left_out(tmp_path):
    trained, net = convolutional(0), convolutional(1)
    trained.compile("adam", "mse")
    trained.fit(X, np.ones((2, 5)), verbose=0)
    trained.save(tmp_path / "net.keras")
    found = pt.load(net, tmp_path / "net.keras")
    assert found.complete
    assert dict(found.hidden)["state"] == len(trained.optimizer.variables)
    assert_same(net, trained)


def test_a_failure_half_way_puts_the_old_values_back(monkeypatch):
    net, count, assign = convolutional(1), 0, keras.Variable.assign

    def failing(variable, value):
        nonlocal count
        count += 1
        if count == 4:
            raise RuntimeError("the device is lost")
        return assign(variable, value)

    monkeypatch.setattr(keras.Variable, "assign", failing)
    with pytest.raises(RuntimeError, match="the device is lost"):
        pt.load(net, convolutional(0))
    assert_same(net, convolutional(1))


def test_another_head_is_left_as_it_is():
    trained, net = convolutional(0), convolutional(1)
    head = [np.asarray(weight) for weight in net.layers[-1].get_weights()]
    found = pt.load(net, trained, select=lambda param: not param.name.startswith("head"))
    assert found.complete
    assert {row.name for row in found if row.status == "skipped"} == {"head.kernel", "head.bias"}
    for one, other in zip(net.layers[-1].get_weights(), head, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(net.layers[0].get_weights()[0], trained.layers[0].get_weights()[0])


def test_layers_are_numbered_by_what_else_the_process_has_made(tmp_path):
    def stack():
        return keras.Sequential([keras.Input((4,)), *(layers.Dense(4) for _ in range(3)), layers.Dense(2)])

    trained = models.scramble(stack())
    trained.save(tmp_path / "net.keras")
    net = keras.Sequential([layers.Dense(1), stack()]).layers[1]
    found = pt.load(net, tmp_path / "net.keras")
    assert found.complete
    assert found[2].other == "dense_1.kernel" != found[2].name
    assert_same(net, trained)
    other = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(3)])
    with pytest.raises(pt.LoadError):
        pt.load(other, tmp_path / "net.keras")


def test_a_model_that_is_not_built_says_what_to_do():
    net = keras.Sequential([layers.Dense(3)])
    with pytest.raises(
        pt.LoadError, match=r"not initialised yet.*; call net\(X\) or net\.build\(input_shape\)"
    ):
        pt.load(net, tree_of(**{"dense.kernel": np.ones((4, 3)), "dense.bias": np.ones(3)}))
