"""pt.load into tf.Module and Keras 2 models: what their own loaders load."""

import numpy as np
import pytest

import paratree as pt

tf = pytest.importorskip("tensorflow", reason="could not import tensorflow; these tests need it")


class Net(tf.Module):
    """A small network of variables, in a list and by itself."""

    def __init__(self, seed):
        super().__init__()
        generator = np.random.default_rng(seed)
        self.layers = [
            tf.Variable(generator.normal(size=shape).astype("float32")) for shape in ((4, 3), (3, 2))
        ]
        self.scale = tf.Variable(tf.cast(generator.normal(size=2), tf.bfloat16))
        self.steps = tf.Variable(seed + 3, dtype=tf.int64, trainable=False)

    def __call__(self, batch):
        return batch @ self.layers[0] @ self.layers[1] * tf.cast(self.scale, tf.float32)


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_a_module_takes_what_tensorflow_saved(tmp_path):
    trained, net, own = Net(0), Net(1), Net(2)
    path = tf.train.Checkpoint(net=trained).write(str(tmp_path / "net"))
    found = pt.load(net, path, select="net.**", strip="net.")
    assert found.model is net
    assert found.complete
    tf.train.Checkpoint(net=own).read(path).expect_partial()
    assert_same(net.variables, own.variables)
    batch = tf.ones((2, 4))
    assert_same([net(batch)], [own(batch)])


def test_a_module_takes_what_we_saved(tmp_path):
    trained, net = Net(0), Net(1)
    pt.save(trained, tmp_path / "net.safetensors")
    assert pt.load(net, tmp_path / "net.safetensors").complete
    assert_same(net.variables, trained.variables)


def test_a_failure_half_way_puts_the_old_values_back(monkeypatch):
    net, count = Net(1), 0
    kind = type(net.scale)
    assign = kind.assign

    def failing(variable, value, **options):
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("the device is lost")
        return assign(variable, value, **options)

    monkeypatch.setattr(kind, "assign", failing)
    with pytest.raises(RuntimeError, match="the device is lost"):
        pt.load(net, Net(0))
    assert_same(net.variables, Net(1).variables)


def test_a_missing_variable_changes_nothing():
    net = Net(1)
    with pytest.raises(pt.LoadError, match="missing"):
        pt.load(net, {"scale": tf.Variable(tf.ones(2, tf.bfloat16))})
    assert_same(net.variables, Net(1).variables)


def keras_2(seed):
    tf_keras = pytest.importorskip("tf_keras", reason="could not import tf_keras; this test needs it")
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(seed)
    net = tf_keras.Sequential([
        tf_keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(),
        layers.Flatten(), layers.Dense(5),
    ])  # fmt: skip
    generator = np.random.default_rng(seed)
    net.set_weights([generator.uniform(0.5, 2, weight.shape) for weight in net.get_weights()])
    return net


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
def test_a_keras_2_model_takes_what_it_saved(tmp_path, suffix):
    pytest.importorskip("h5py", reason="could not import h5py; this test needs it")
    trained, net, own = keras_2(0), keras_2(1), keras_2(2)
    path = str(tmp_path / f"net{suffix}")
    trained.save_weights(path) if suffix == ".weights.h5" else trained.save(path)
    found = pt.load(net, path)
    assert found.model is net
    assert found.complete
    own.load_weights(path)
    assert_same(net.get_weights(), own.get_weights())
    batch = np.random.default_rng(0).random((2, 6, 6, 3), dtype="float32")
    assert_same([net(batch)], [own(batch)])
