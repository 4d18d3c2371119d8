"""The values of Gluon parameters: memory shared with MXNet where that is safe, else copies that say so."""

import gc
from importlib import import_module

import ml_dtypes
import numpy as np
import pytest

import paratree as pt

mx = pytest.importorskip("tests.mxnet_numpy", reason="could not import mxnet; these tests need it").mxnet
gluon, nn = mx.gluon, mx.gluon.nn
BFLOAT16 = np.dtype([("bfloat16", np.uint16)])


class Holder(gluon.Block):
    """A block with parameters of the values it is given."""

    def __init__(self, **values):
        super().__init__()
        for name, value in values.items():
            setattr(self, name, self.params.get(name, shape=value.shape, dtype=value.dtype, init="zeros"))
        self.params.load_dict(
            {self.params.prefix + name: value for name, value in values.items()}, ctx=mx.cpu()
        )


def initialised(block, *batch, **options):
    block.initialize(**options)
    if batch:
        block(*batch)
    return block


@pytest.mark.parametrize("numpy_mode", [False, True], ids=["mx.nd", "mx.np"])
def test_the_value_shares_memory_in_both_directions(numpy_mode):
    with mx.util.np_shape(numpy_mode), mx.util.np_array(numpy_mode):
        net = initialised(nn.Dense(2, in_units=3))
        assert isinstance(net.weight.data(), mx.np.ndarray) == numpy_mode
        value = pt.open(net)["weight"].value
        value[0, 1] = 42
        assert net.weight.data()[0, 1].asscalar() == 42 if not numpy_mode else net.weight.data()[0, 1] == 42
        net.weight.data()[1, 2] = -7
        net.weight.data().wait_to_read()
        assert value[1, 2] == -7
        assert value.flags.writeable


def test_reading_waits_for_what_mxnet_has_under_way():
    net = Holder(w=mx.nd.zeros((1000, 1000)))
    slow = mx.nd.ones((1000, 1000))
    for _ in range(8):
        slow = mx.nd.dot(slow, slow) / 1000
    net.w.set_data(slow * 3)  # returns at once
    value = pt.open(net)["w"].value.copy()
    np.testing.assert_array_equal(value, np.full((1000, 1000), 3, "float32"))


@pytest.mark.parametrize("name", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_every_dtype_shares_memory(name):
    with mx.util.np_shape(True), mx.util.np_array(True):
        source = mx.np.array(np.array([0, 1, 1, 0, 1]), dtype=name)
        net = Holder(w=source)
    param = pt.open(net)["w"]
    assert (param.dtype, param.value.dtype, param.nbytes) == (
        name,
        np.dtype(name),
        5 * np.dtype(name).itemsize,
    )
    np.testing.assert_array_equal(param.value, [0, 1, 1, 0, 1])
    param.value[0] = 1
    assert net.w.data().asnumpy().tolist() == [1, 1, 1, 0, 1]
    assert pt.update(net, {"w": np.array([1, 0, 0, 0, 1], name)}) is net
    assert param.value.tolist() == [1, 0, 0, 0, 1]


def test_bfloat16_is_read_and_written_where_gluon_itself_shows_integers():
    parameter = gluon.Parameter("w", shape=(2, 3), dtype=BFLOAT16)
    assert pt.open(parameter)["w"].dtype == "bfloat16"
    parameter.initialize(init=mx.init.Constant(1.5))
    param = pt.open(parameter)["w"]
    assert (param.dtype, param.value.dtype, param.nbytes) == ("bfloat16", ml_dtypes.bfloat16, 12)
    assert parameter.data().asnumpy().dtype == BFLOAT16
    np.testing.assert_array_equal(param.value.astype("float32"), np.full((2, 3), 1.5))
    pt.update(parameter, {"w": 0.1})
    assert parameter.data().asnumpy().view(np.uint16)[0, 0] == np.array(0.1, ml_dtypes.bfloat16).view(
        np.uint16
    )


def test_casting_to_bfloat16_is_what_mxnet_cannot_do():
    net = initialised(nn.Dense(2, in_units=2))
    with pytest.raises((TypeError, KeyError), match="bfloat16"):
        net.weight.data().astype("bfloat16")


CONVOLUTIONS = [
    (nn.Conv1D(8, 3, in_channels=16), (1, 16, 8)),
    (nn.Conv2D(16, 3, in_channels=8), (1, 8, 8, 8)),
    (nn.Conv2DTranspose(16, 3, in_channels=8), (1, 8, 8, 8)),
    (nn.Conv3D(8, 3, in_channels=8), (1, 8, 4, 4, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda x: type(x).__name__)
def test_the_weights_of_convolutions_are_copies_that_inference_cannot_spoil(layer, shape):
    """oneDNN lays them out anew inside their memory; a view would then show them in another order."""
    net = initialised(layer, mx.nd.ones(shape))
    weight = pt.open(net)["weight"]
    expected, value = net.weight.data().asnumpy(), weight.value
    for _ in range(3):
        net(mx.nd.ones(shape)).wait_to_read()
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(weight.value, expected)
    with pytest.raises(ValueError, match="read-only"):
        value[...] = 0
    pt.update(net, {"weight": 0.5})
    assert (net.weight.data().asnumpy() == 0.5).all()
    assert (weight.value == 0.5).all()


@pytest.mark.parametrize("units", [1, 16, 64, 200])
@pytest.mark.parametrize("rows", [1, 64])
def test_inference_leaves_the_shared_weights_of_dense_layers_as_they_are(units, rows):
    net = initialised(nn.Dense(units, in_units=64))
    value = pt.open(net)["weight"].value
    expected = net.weight.data().asnumpy()
    for _ in range(3):
        net(mx.nd.ones((rows, 64))).wait_to_read()
    np.testing.assert_array_equal(value, expected)
    assert value.flags.writeable


INDICES = [..., (), 0, -1, (1, 2), (slice(None), 1), slice(1, None), (..., -1), np.int64(1), (1, ..., 2, 2)]
INDICES += [
    (slice(None, None, -1), slice(4, 0, -2)),
    (0, slice(3, 3)),
    slice(5, 2),
    slice(-99, 99, 3),
    (1, 2, 2),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_an_index_reads_a_view_as_numpy_would(index):
    with mx.util.np_shape(True), mx.util.np_array(True):
        param = pt.open(Holder(w=mx.np.arange(60, dtype="float64").reshape(4, 5, 3)))["w"]
    part, expected = param[index], np.arange(60.0).reshape(4, 5, 3)[index]
    assert isinstance(part, np.ndarray)
    np.testing.assert_array_equal(part, expected)
    assert np.shares_memory(part, param.value) or not part.size


@pytest.mark.parametrize(
    "index", [4, (0, -6), (0, 0, 0, 0), (..., ...), [0], None, True, 1.0, np.ones(4, bool)], ids=repr
)
def test_an_index_that_does_not_fit_is_an_index_error(index):
    with pytest.raises(IndexError):
        pt.open(Holder(w=mx.nd.zeros((4, 5, 3))))["w"][index]


def test_a_parameter_of_no_axes_and_an_empty_one_read_as_such():
    with mx.util.np_shape(True), mx.util.np_array(True):
        net = gluon.ParameterDict()
        net.get("scalar", shape=())
        net.get("empty", shape=(0, 3), allow_deferred_init=True)
        net.load_dict({"scalar": mx.np.array(2.5), "empty": mx.np.zeros((0, 3))}, ctx=mx.cpu())
    tree = pt.open(net)
    assert (tree["scalar"].shape, tree["scalar"].value.shape, tree["scalar"].size) == ((), (), 1)
    assert tree["scalar"][()] == 2.5
    assert (tree["empty"].shape, tree["empty"].value.shape, tree["empty"].size) == ((0, 3), (0, 3), 0)
    pt.update(net, {"scalar": 3.5})
    assert net["scalar"].data().item() == tree["scalar"].value == 3.5


def test_in_classic_mode_no_axes_mean_an_unknown_rank():
    assert pt.open(gluon.Parameter("w", shape=()))["w"].shape == (None,)
    assert pt.open(gluon.Parameter("w"))["w"].shape == (None,)
    with mx.util.np_shape(True):
        assert pt.open(gluon.Parameter("w", shape=()))["w"].shape == ()
        assert pt.open(gluon.Parameter("w", shape=(2, -1)))["w"].shape == (2, None)
    assert pt.open(gluon.Parameter("w", shape=(2, 0)))["w"].shape == (2, None)


def test_a_sparse_parameter_is_listed_and_its_reading_refused():
    parameter = gluon.Parameter("w", shape=(5, 3), stype="row_sparse")
    parameter.initialize()
    param = pt.open(parameter)["w"]
    assert (param.shape, param.dtype) == ((5, 3), "float32")
    with pytest.raises(
        pt.UnreadableError, match=r'^w: row_sparse is no dense array; make it one with .tostype\("default"\)'
    ):
        _ = param.value


def test_on_several_contexts_the_value_is_the_first_and_an_update_reaches_all():
    contexts = [mx.cpu(0), mx.cpu(1)]
    net = initialised(nn.Dense(2, in_units=3), ctx=contexts)
    tree = pt.open(net)
    net.weight.list_data()[1][:] = 5
    np.testing.assert_array_equal(tree["weight"].value, net.weight.data(contexts[0]).asnumpy())
    pt.update(net, {"weight": 0.25})
    assert all((net.weight.data(context).asnumpy() == 0.25).all() for context in contexts)


def test_from_a_device_the_value_is_a_copy_that_says_so(monkeypatch):
    net = initialised(nn.Dense(2, in_units=3))
    arrays = import_module("paratree.frameworks._mxnet_arrays")
    monkeypatch.setattr(arrays, "_ON_HOST", ())
    param = pt.open(net)["weight"]
    np.testing.assert_array_equal(param[1, ::-1], net.weight.data().asnumpy()[1, ::-1])
    assert not np.shares_memory(param.value, param.value)
    with pytest.raises(ValueError, match="read-only"):
        param.value[0] = 1


def test_a_value_outlives_its_model():
    net = initialised(nn.Dense(300, in_units=300))
    value, expected = pt.open(net)["weight"].value, net.weight.data().asnumpy()
    del net
    gc.collect()
    _ = [initialised(nn.Dense(300, in_units=300)) for _ in range(5)]
    np.testing.assert_array_equal(value, expected)


def test_the_array_protocols_reach_the_live_memory():
    param = pt.open(initialised(nn.Dense(2, in_units=3)))["weight"]
    assert np.shares_memory(np.asarray(param), param.value)
    assert np.from_dlpack(param).ctypes.data == param.value.ctypes.data


def test_shape_dtype_and_value_follow_the_live_parameter():
    net = initialised(nn.Dense(2, in_units=3))
    tree = pt.open(net)
    net.cast("float16")
    assert (tree["weight"].dtype, tree["weight"].value.dtype) == ("float16", np.float16)
    net.initialize(mx.init.One(), force_reinit=True)
    assert (tree["weight"].value == 1).all()
