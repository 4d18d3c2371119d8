"""pt.load from one framework into another: what both compute is the same, with every kernel turned."""

import re

import numpy as np
import pytest

import paratree as pt
from paratree.render import load as render

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")
nn = torch.nn
IMAGES = np.random.default_rng(0).standard_normal((3, 3, 7, 6)).astype("float32")
VECTORS = np.random.default_rng(1).standard_normal((5, 4)).astype("float32")


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, batch):
        return self.second(torch.tanh(self.first(batch)))


class Convolutional(nn.Module):
    """A kernel of as many channels as rows and columns: its shape tells nothing of its axes."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.last, self.dense = nn.Conv2d(3, 8, (2, 3)), nn.Linear(8, 8)

    def forward(self, images):
        hidden = self.last(torch.relu(self.norm(self.conv(images))))
        return self.dense(hidden.mean((2, 3)))


def trained(kind):
    torch.manual_seed(0)
    net = kind().eval()
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.3, 1)
    return net


def outputs(net, batch):
    with torch.no_grad():
        return net(torch.from_numpy(np.ascontiguousarray(batch))).numpy()


@pytest.fixture(params=["model", ".pt", ".safetensors"])
def source_of(request, tmp_path):
    """A function that returns a torch model, or a file of it."""

    def make(net):
        if request.param == "model":
            return net
        if request.param == ".pt":
            torch.save(net.state_dict(), tmp_path / "net.pt")
        else:
            pt.save(net, tmp_path / "net.safetensors", force=True)
        return tmp_path / f"net{request.param}"

    return make


def assert_ported(found, computed, expected, turned):
    assert found.complete
    assert sum(row.axes is not None for row in found) == turned
    np.testing.assert_allclose(np.asarray(computed), expected, rtol=1e-5, atol=1e-5)


TO_KERAS = {
    "norm.weight": "norm.gamma", "norm.bias": "norm.beta", "**.running_mean": "**.moving_mean",
    "**.running_var": "**.moving_variance", "**.weight": "**.kernel",
}  # fmt: skip
TO_FLAX = {
    "norm.weight": "norm.scale", "**.running_mean": "**.mean", "**.running_var": "**.var",
    "**.weight": "**.kernel",
}  # fmt: skip
TO_GLUON = {"norm.weight": "norm.gamma", "norm.bias": "norm.beta"}


class Decoder(nn.Module):
    """A transposed convolution of as many channels in as out, and one of more."""

    def __init__(self):
        super().__init__()
        self.up, self.last = nn.ConvTranspose2d(3, 3, 3, stride=2), nn.ConvTranspose2d(3, 5, (2, 3))

    def forward(self, images):
        return self.last(self.up(images))


def decoder_of(keras):
    return keras.Sequential([
        keras.Input((7, 6, 3)), keras.layers.Conv2DTranspose(3, 3, strides=2, name="up"),
        keras.layers.Conv2DTranspose(5, (2, 3), name="last"),
    ])  # fmt: skip


def keras_models(keras):
    layers = keras.layers
    return (
        keras.Sequential([
            keras.Input((4,)), layers.Dense(4, activation="tanh", name="first"),
            layers.Dense(3, name="second"),
        ]),
        keras.Sequential([
            keras.Input((7, 6, 3)), layers.Conv2D(3, 3, padding="same", name="conv"),
            layers.BatchNormalization(epsilon=1e-5, name="norm"), layers.ReLU(),
            layers.Conv2D(8, (2, 3), name="last"), layers.GlobalAveragePooling2D(),
            layers.Dense(8, name="dense"),
        ]),
    )  # fmt: skip


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_from_torch_to_keras(source_of, package):
    keras = pytest.importorskip(package, reason=f"could not import {package}; this test needs it")
    perceptron, convolutional = keras_models(keras)
    source = trained(Perceptron)
    found = pt.load(perceptron, source_of(source), rename={"**.weight": "**.kernel"})
    assert_ported(found, perceptron(VECTORS), outputs(source, VECTORS), 2)
    source = trained(Convolutional)
    found = pt.load(convolutional, source_of(source), rename=TO_KERAS)
    assert_ported(found, convolutional(IMAGES.transpose(0, 2, 3, 1)), outputs(source, IMAGES), 3)


def test_from_torch_to_flax_linen(source_of):
    jax = pytest.importorskip("jax", reason="could not import jax; this test needs it")
    linen = pytest.importorskip("flax.linen", reason="could not import flax; this test needs it")

    class Dense(linen.Module):
        @linen.compact
        def __call__(self, batch):
            return linen.Dense(3, name="second")(linen.tanh(linen.Dense(4, name="first")(batch)))

    class Images(linen.Module):
        @linen.compact
        def __call__(self, images):
            hidden = linen.Conv(3, (3, 3), name="conv")(images)
            hidden = linen.relu(linen.BatchNorm(use_running_average=True, name="norm")(hidden))
            hidden = linen.Conv(8, (2, 3), padding="VALID", name="last")(hidden)
            return linen.Dense(8, name="dense")(hidden.mean((1, 2)))

    images = IMAGES.transpose(0, 2, 3, 1)
    for kind, batch, theirs, net, rename, turned in (
        (Perceptron, VECTORS, VECTORS, Dense(), {"**.weight": "**.kernel"}, 2),
        (Convolutional, IMAGES, images, Images(), TO_FLAX, 3),
    ):
        source = trained(kind)
        found = pt.load(net.init(jax.random.key(0), theirs), source_of(source), rename=rename)
        with jax.default_matmul_precision("highest"):
            assert_ported(found, net.apply(found.model, theirs), outputs(source, batch), turned)


def test_from_torch_to_flax_nnx(source_of):
    pytest.importorskip("jax", reason="could not import jax; this test needs it")
    nnx = pytest.importorskip("flax.nnx", reason="could not import flax; this test needs it")

    class Images(nnx.Module):
        def __init__(self, rngs):
            self.conv, self.last = (
                nnx.Conv(3, 3, (3, 3), rngs=rngs),
                nnx.Conv(3, 8, (2, 3), padding="VALID", rngs=rngs),
            )
            self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)
            self.dense = nnx.Linear(8, 8, rngs=rngs)

        def __call__(self, images):
            hidden = self.last(nnx.relu(self.norm(self.conv(images))))
            return self.dense(hidden.mean((1, 2)))

    net, source = Images(nnx.Rngs(0)), trained(Convolutional)
    found = pt.load(net, source_of(source), rename=TO_FLAX)
    assert_ported(found, net(IMAGES.transpose(0, 2, 3, 1)), outputs(source, IMAGES), 3)


def test_from_torch_to_gluon(source_of):
    """Gluon lays its weights out as PyTorch does."""
    mx = pytest.importorskip("tests.mxnet_numpy", reason="could not import mxnet; this test needs it").mxnet
    layers = mx.gluon.nn

    class Images(mx.gluon.Block):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = (
                layers.Conv2D(3, 3, padding=1, in_channels=3),
                layers.BatchNorm(in_channels=3),
            )
            self.last, self.dense = layers.Conv2D(8, (2, 3), in_channels=3), layers.Dense(8, in_units=8)

        def forward(self, images):
            hidden = self.last(mx.nd.relu(self.norm(self.conv(images))))
            return self.dense(hidden.mean((2, 3)))

    net, source = Images(), trained(Convolutional)
    net.initialize()
    found = pt.load(net, source_of(source), rename=TO_GLUON)
    assert_ported(found, net(mx.nd.array(IMAGES)).asnumpy(), outputs(source, IMAGES), 0)


def test_from_keras_to_torch(tmp_path):
    keras = pytest.importorskip("keras", reason="could not import keras; this test needs it")
    pytest.importorskip("h5py", reason="could not import h5py; this test needs it")
    if keras.__version__ < "3":
        pytest.skip("could not import keras 3; this test needs it")
    _, source = keras_models(keras)
    generator = np.random.default_rng(0)
    source.set_weights([generator.uniform(0.3, 1, weight.shape) for weight in source.get_weights()])
    source.save(tmp_path / "net.keras")
    expected = np.asarray(source(IMAGES.transpose(0, 2, 3, 1)))
    back = {new: old for old, new in TO_KERAS.items()}
    for given in (source, tmp_path / "net.keras"):
        net = Convolutional().eval()
        found = pt.load(net, given, rename=back)
        assert_ported(found, outputs(net, IMAGES), expected, 3)
        assert found["norm.num_batches_tracked"].status == "skipped"


def test_the_renaming_that_is_proposed_ports_a_model():
    keras = pytest.importorskip("keras", reason="could not import keras; this test needs it")
    _, net = keras_models(keras)
    source = trained(Convolutional)
    with pytest.raises(pt.LoadError, match=r"more names match with rename=") as caught:
        pt.load(net, source)
    rename = caught.value.report.groups[0].fix.partition("rename=")[2]
    found = eval(f"pt.load(net, source, rename={rename})", {"pt": pt, "net": net, "source": source})
    assert_ported(found, net(IMAGES.transpose(0, 2, 3, 1)), outputs(source, IMAGES), 3)


# Transposed convolutions


@pytest.mark.parametrize("package", ["keras", "tf_keras"])
def test_a_transposed_convolution_goes_from_torch_to_keras(source_of, package):
    """The layout of a file is not known: the kernel of more channels out than in tells it, the other not."""
    keras = pytest.importorskip(package, reason=f"could not import {package}; this test needs it")
    net, source = decoder_of(keras), trained(Decoder)
    given, expected = source_of(source), outputs(source, IMAGES).transpose(0, 2, 3, 1)
    images = IMAGES.transpose(0, 2, 3, 1)
    if given is not source:
        with pytest.raises(pt.LoadError, match=r"up\.kernel: of a transposed convolution") as caught:
            pt.load(net, given, rename={"**.weight": "**.kernel"})
        assert "value.transpose(2, 3, 1, 0) between PyTorch, Gluon and Keras" in str(caught.value)
        found = pt.load(net, given, rename={"**.weight": "**.kernel"}, strict=False)
        assert [row.name for row in found if row.status == "refused"] == ["up.kernel"]
        pt.update(net, {"up.kernel": pt.open(given)["up.weight"].value.transpose(2, 3, 1, 0)})
    else:
        assert_ported(
            pt.load(net, given, rename={"**.weight": "**.kernel"}),
            np.asarray(net(images)).transpose(0, 3, 1, 2),
            outputs(source, IMAGES),
            2,
        )
    np.testing.assert_allclose(np.asarray(net(images)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["up", "ConvTranspose_0"])
def test_a_transposed_convolution_of_flax_is_not_turned_for_torch(name):
    """Flax applies it as it is, torch mirrored: one line of the two that are offered ports it."""
    jax = pytest.importorskip("jax", reason="could not import jax; this test needs it")
    linen = pytest.importorskip("flax.linen", reason="could not import flax; this test needs it")
    images = IMAGES.transpose(0, 2, 3, 1)
    for width in (3, 5):
        layer = linen.ConvTranspose(width, (3, 3), strides=(2, 2), padding="VALID")
        params = {name: layer.init(jax.random.key(0), images)["params"]}
        net = nn.Sequential()
        net.add_module(name, nn.ConvTranspose2d(3, width, 3, stride=2))
        before = net[0].weight.detach().clone()
        with pytest.raises(pt.LoadError) as caught:
            pt.load(net, params, rename={"**.kernel": "**.weight"})
        assert torch.equal(net[0].weight, before)
        (row,) = [row for row in caught.value.report if row.status == "refused"]
        order = re.search(r"value(\.transpose\([^)]*\)\[:[^]]*\])", row.fix)[1]
        value = eval(f"value{order}", {"value": np.asarray(params[name]["kernel"])})
        pt.update(net, {f"{name}.weight": value, f"{name}.bias": params[name]["bias"]})
        with jax.default_matmul_precision("highest"):
            expected = np.asarray(layer.apply({"params": params[name]}, images)).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(outputs(net, IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_two_known_layouts_of_transposed_convolutions_that_are_applied_otherwise_are_refused():
    pytest.importorskip("jax", reason="could not import jax; this test needs it")
    nnx = pytest.importorskip("flax.nnx", reason="could not import flax; this test needs it")
    net = nnx.ConvTranspose(3, 5, (3, 3), rngs=nnx.Rngs(0))
    with pytest.raises(pt.LoadError, match="mirrored in space"):
        pt.load(net, nn.ConvTranspose2d(3, 5, 3), rename={"weight": "kernel"})
    net = nnx.ConvTranspose(3, 5, (3, 3), transpose_kernel=True, rngs=nnx.Rngs(0))
    assert pt.load(net, nn.ConvTranspose2d(3, 5, 3), rename={"weight": "kernel"}).complete


def test_a_square_kernel_of_no_known_layer_is_turned_as_of_a_convolution_and_that_is_said(tmp_path):
    pytest.importorskip("jax", reason="could not import jax; this test needs it")
    source = nn.Sequential(nn.Conv2d(3, 3, 3, bias=False))
    torch.save(source.state_dict(), tmp_path / "net.pt")
    params = {"conv": {"kernel": jax_zeros(3, 3, 3, 3)}}
    found = pt.load(params, tmp_path / "net.pt", rename={"0.weight": "conv.kernel"})
    assert found.complete
    assert "not transposed ones of Flax: conv.kernel" in found.notes[0]
    assert found.notes[0] in render.lines(found)
    named = {"ConvTranspose_0": {"kernel": jax_zeros(3, 3, 3, 3)}}
    with pytest.raises(pt.LoadError, match="in two orders"):
        pt.load(named, tmp_path / "net.pt", rename={"0.weight": "ConvTranspose_0.kernel"})


def jax_zeros(*shape):
    return pytest.importorskip("jax.numpy", reason="could not import jax; this test needs it").zeros(shape)
