"""pt.load into Gluon blocks: what load_parameters loads."""

import numpy as np
import pytest

import paratree as pt
from tests.verbs.held import tree_of

mx = pytest.importorskip("tests.mxnet_numpy", reason="could not import mxnet; these tests need it").mxnet
gluon, nn = mx.gluon, mx.gluon.nn
X = np.random.default_rng(0).random((2, 3, 6, 6), dtype="float32")


def net_of(*blocks):
    net = nn.HybridSequential()
    net.add(*blocks)
    return net


def convolutional(seed):
    net = net_of(nn.Conv2D(4, 3, in_channels=3), nn.BatchNorm(in_channels=4), nn.Dense(5, in_units=64))
    mx.random.seed(seed)
    net.initialize(mx.init.Uniform(0.5))
    generator = np.random.default_rng(seed)
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.array(generator.uniform(0.5, 2, parameter.shape)))
    return net


def assert_same(net, other):
    ours, theirs = (block._collect_params_with_prefix() for block in (net, other))
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        assert parameter.data().asnumpy().tobytes() == theirs[name].data().asnumpy().tobytes()


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_block_takes_what_gluon_saved(tmp_path, hybrid):
    trained, net, own = convolutional(0), convolutional(1), convolutional(2)
    if hybrid:
        net.hybridize()
        net(mx.nd.array(X))
    path = str(tmp_path / "net.params")
    trained.save_parameters(path)
    found = pt.load(net, path)
    assert found.model is net
    assert found.complete
    own.load_parameters(path)
    assert_same(net, own)
    np.testing.assert_array_equal(net(mx.nd.array(X)).asnumpy(), own(mx.nd.array(X)).asnumpy())


def test_a_block_takes_what_we_saved(tmp_path):
    trained, net = convolutional(0), convolutional(1)
    for suffix in (".params", ".safetensors"):
        pt.save(trained, tmp_path / f"net{suffix}")
        assert pt.load(net, tmp_path / f"net{suffix}").complete
        assert_same(net, trained)


def test_shared_parameters_take_one_value():
    shared = nn.Dense(4, in_units=4)
    net = net_of(shared, nn.Dense(4, in_units=4, params=shared.params))
    net.initialize()
    values = np.random.default_rng(0).random((4, 4), dtype="float32")
    bias = np.ones(4, np.float32)
    assert pt.load(net, tree_of(**{"1.weight": values, "0.bias": bias})).complete
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), values)
    with pytest.raises(pt.LoadError, match=r"tied in the model.*pt\.untie\(net, '1\.weight'\)"):
        pt.load(net, tree_of(**{"0.weight": values, "1.weight": -values, "0.bias": bias}))
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), values)


def test_a_failure_half_way_puts_the_old_values_back(monkeypatch):
    net, count, set_data = convolutional(1), 0, gluon.Parameter.set_data

    def failing(parameter, data):
        nonlocal count
        count += 1
        if count == 4:
            raise RuntimeError("the device is lost")
        return set_data(parameter, data)

    source = convolutional(0)
    monkeypatch.setattr(gluon.Parameter, "set_data", failing)
    with pytest.raises(RuntimeError, match="the device is lost"):
        pt.load(net, source)
    monkeypatch.undo()
    assert_same(net, convolutional(1))


def deferred(initialised=True, hybrid=False):
    net = net_of(nn.Conv2D(4, 3), nn.BatchNorm(), nn.Dense(5))
    if initialised:
        net.initialize()
    if hybrid:
        net.hybridize()
    return net


@pytest.mark.parametrize("initialised", [True, False])
@pytest.mark.parametrize("hybrid", [True, False])
def test_deferred_parameters_take_shape_and_values_of_the_file(tmp_path, initialised, hybrid):
    trained, net, own = convolutional(0), deferred(initialised, hybrid), deferred(initialised, hybrid)
    path = str(tmp_path / "net.params")
    trained.save_parameters(path)
    found = pt.load(net, path)
    own.load_parameters(path)
    assert found.complete
    assert found["0.weight"].shapes == ((4, 3, 3, 3), (4, 3, 3, 3))
    assert found["0.weight"].size == 108
    assert_same(net, own)
    np.testing.assert_array_equal(net(mx.nd.array(X)).asnumpy(), own(mx.nd.array(X)).asnumpy())
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    with mx.autograd.record():
        loss = net(mx.nd.array(X)).sum()
    loss.backward()
    trainer.step(1)
    assert np.any(net[0].weight.data().asnumpy() != own[0].weight.data().asnumpy())


def test_what_does_not_fit_a_deferred_parameter_leaves_it_deferred():
    net = deferred()
    values = {"0.weight": np.ones((4, 3, 5, 5), "f4"), "2.weight": np.ones((5, 64), "f4")}
    with pytest.raises(pt.LoadError, match=r"1 of another shape \(0\.weight\)"):
        pt.load(net, tree_of(**values))
    assert pt.open(net)["2.weight"].shape == (5, None)
    with pytest.raises(pt.LoadError, match=r"missing \(0\.weight: not initialised yet"):
        pt.load(net, tree_of(**{"2.weight": values["2.weight"]}))
    values = {"0.weight": np.ones((4, 3, 3, 3), "f4"), "2.weight": np.ones((5, 64), "f4")}
    assert pt.load(net, tree_of(**values), strict=False)["2.weight"].status == "bit-exact"
    assert net[2].weight.data().shape == (5, 64)
    assert net[1].gamma._data is None


@pytest.mark.parametrize("initialised", [True, False])
def test_after_a_failure_half_way_what_was_deferred_is_so_again(monkeypatch, initialised):
    net, count, set_data = deferred(initialised), 0, gluon.Parameter.set_data

    def failing(parameter, data):
        nonlocal count
        count += 1
        if count == 4:
            raise RuntimeError("the device is lost")
        return set_data(parameter, data)

    states = [
        (parameter.shape, parameter._deferred_init, parameter._data, parameter._grad)
        for parameter in net.collect_params().values()
    ]
    monkeypatch.setattr(gluon.Parameter, "set_data", failing)
    with pytest.raises(RuntimeError, match="the device is lost"):
        pt.load(net, convolutional(0))
    monkeypatch.undo()
    after = [
        (parameter.shape, parameter._deferred_init, parameter._data, parameter._grad)
        for parameter in net.collect_params().values()
    ]
    assert after == states
    if not initialised:
        net.initialize()
    other = mx.nd.ones((1, 2, 8, 8))  # of other lengths than the file had
    assert net(other).shape == (1, 5)
    assert net[0].weight.shape == (4, 2, 3, 3)


def test_a_deferred_parameter_that_is_sparse_says_what_to_do():
    net = nn.Block()
    net.rows = gluon.Parameter("rows", shape=(3, 4), stype="row_sparse")
    net.bias = gluon.Parameter("bias", shape=(0,), allow_deferred_init=True)
    with pytest.raises(pt.LoadError, match=r"refused \(rows: not initialised yet"):
        pt.load(net, tree_of(rows=np.ones((3, 4), "f4"), bias=np.ones(3, "f4")))
    assert net.bias._data is None


def test_a_device_that_has_no_room_leaves_a_deferred_parameter_as_it_was(monkeypatch):
    net = deferred()

    def failing(parameter, data, contexts):
        raise MemoryError("no room")

    monkeypatch.setattr(gluon.Parameter, "_init_impl", failing)
    with pytest.raises(MemoryError, match="no room"):
        pt.load(net, convolutional(0))
    assert pt.open(net)["0.weight"].shape == (4, None, 3, 3)


def test_shared_deferred_parameters_take_one_value():
    shared = nn.Dense(4)
    net = net_of(shared, nn.Dense(4, params=shared.params))
    net.initialize()
    values = np.random.default_rng(0).random((4, 4), dtype="float32")
    assert pt.load(net, tree_of(**{"1.weight": values, "0.bias": np.ones(4, np.float32)})).complete
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), values)
    assert net[0].weight is net[1].weight
