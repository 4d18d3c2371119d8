"""Gluon blocks as trees: names, order, kinds, gradients, layouts, and what opening does not do."""

import doctest
from importlib import import_module
from typing import ClassVar

import numpy as np
import pytest

import paratree as pt

mx = pytest.importorskip("tests.mxnet_numpy", reason="could not import mxnet; these tests need it").mxnet
autograd, gluon, nn = mx.autograd, mx.gluon, mx.gluon.nn


def sequential(*blocks, kind=nn.HybridSequential):
    net = kind()
    net.add(*blocks)
    return net


def net_with_everything():
    net = sequential(
        nn.Embedding(11, 6),
        nn.Conv1D(4, 3, in_channels=6),
        nn.BatchNorm(in_channels=4),
        gluon.rnn.LSTM(5, num_layers=2, bidirectional=True, input_size=4),
        sequential(nn.Dense(3, use_bias=False, in_units=10), nn.PReLU()),
    )
    net.initialize()
    return net


def initialised(block, *batch, **options):
    block.initialize(**options)
    if batch:
        block(*batch)
    return block


# Names, order, kinds


def test_names_order_and_values_are_those_that_gluon_saves(tmp_path):
    net = net_with_everything()
    net.save_parameters(str(tmp_path / "net.params"))
    saved = mx.nd.load(str(tmp_path / "net.params"))
    tree = pt.open(net)
    assert list(tree) == list(saved)
    for name, array in saved.items():
        np.testing.assert_array_equal(tree[name].value, array.asnumpy())
        assert (tree[name].shape, tree[name].dtype) == (array.shape, np.dtype(array.dtype).name)


def test_every_parameter_is_found_by_the_name_that_gluon_gives_it_too():
    net = net_with_everything()
    tree = pt.open(net)
    assert {param.handle.name for param in tree.values()} == set(net.collect_params().keys())
    for full, parameter in net.collect_params().items():
        assert tree[full].handle is parameter
    assert list(tree.select("embedding*")) == ["0.weight"]


def test_the_source_is_the_class_and_the_format_is_gluon():
    class Net(nn.Dense):
        pass

    tree = pt.open(Net(3))
    assert (tree.source, tree.format) == ("Net", "MXNet Gluon")


def test_parameters_and_buffers_are_told_apart():
    class WithConstant(gluon.Block):
        def __init__(self):
            super().__init__()
            self.norm, self.unscaled = nn.BatchNorm(in_channels=2), nn.BatchNorm(in_channels=2, scale=False)
            self.table = self.params.get_constant("table", mx.nd.ones((2,)))

    tree = pt.open(initialised(WithConstant()))
    assert list(tree.select(kind="buffer")) == [
        "table", "norm.running_mean", "norm.running_var",
        "unscaled.gamma", "unscaled.running_mean", "unscaled.running_var",
    ]  # fmt: skip
    assert {p.trainable for p in tree.select(kind="buffer").values()} == {False}
    assert {p.trainable for p in tree.select(kind="parameter").values()} == {True}


def test_what_the_user_froze_is_still_a_parameter():
    net = initialised(nn.Dense(2, in_units=3))
    tree = pt.open(net)
    net.weight.grad_req = "null"
    for seen in (tree, pt.open(net), pt.open(net.collect_params())):
        weight = next(p for p in seen.values() if p.handle is net.weight)
        assert (weight.kind, weight.trainable, weight.grad) == ("parameter", False, None)
        assert "frozen" in repr(weight)


def test_an_absent_bias_is_no_name():
    assert list(pt.open(nn.Dense(2, use_bias=False))) == ["weight"]


def test_a_block_without_parameters_is_an_empty_tree():
    tree = pt.open(nn.Activation("relu"))
    assert (len(tree), tree.size, tree.ties, tree.layers, tree.notes) == (0, 0, (), (), ())


def test_a_block_inside_itself_is_walked_once():
    net = sequential(nn.Dense(2))
    net.register_child(net)
    assert list(pt.open(net)) == ["0.weight", "0.bias"]


def test_a_parameter_dict_has_its_own_keys_for_names():
    net = initialised(sequential(nn.Dense(2, in_units=3), nn.BatchNorm(in_channels=2)))
    params = net.collect_params()
    tree = pt.open(params)
    assert list(tree) == list(params.keys())
    assert [p.kind for p in tree.values()] == ["parameter"] * 4 + ["buffer"] * 2
    first = next(iter(tree.values()))
    assert first.native == f"params[{first.name!r}]"
    assert eval(first.native, {"params": params}) is first.handle is net[0].weight
    assert first.aliases == ()


def test_one_parameter_is_a_tree_of_one():
    parameter = gluon.Parameter("scale", shape=(2,))
    with pytest.raises(pt.UnreadableError, match=r"^scale: not initialised yet; call params.initialize\(\)$"):
        _ = pt.open(parameter)["scale"].value
    parameter.initialize()
    param = pt.open(parameter)["scale"]
    assert (param.native, param.handle, param.shape, param.aliases) == ("params", parameter, (2,), ())


def test_a_symbol_block_opens_with_the_names_it_saves(tmp_path):
    net = sequential(nn.Conv2D(2, 3, in_channels=1), nn.BatchNorm(), nn.Dense(2))
    net.hybridize()
    net.initialize()
    net(mx.nd.ones((1, 1, 4, 4)))
    net.export(str(tmp_path / "net"))
    symbol = gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    tree = pt.open(symbol)
    assert list(tree) == list(symbol._collect_params_with_prefix())
    assert {p.handle.name for p in tree.select(kind="buffer").values()} == {
        net[1].running_mean.name, net[1].running_var.name,
    }  # fmt: skip
    for param in tree.values():
        assert eval(param.native, {"net": symbol}) is param.handle
        np.testing.assert_array_equal(param.value, net.collect_params()[param.handle.name].data().asnumpy())


def test_what_is_trained_and_not_saved_is_listed_last_with_a_note(tmp_path):
    class Forgetful(gluon.Block):
        def __init__(self):
            super().__init__()
            self.gates = [self.params.get(f"gate{i}", shape=(2,)) for i in range(2)]
            self.dense = nn.Dense(2, in_units=2)

    net = initialised(Forgetful())
    tree = pt.open(net)
    assert list(tree) == ["dense.weight", "dense.bias", "gate0", "gate1"]
    assert tree.totals["parameter"].count == len(net.collect_params().keys())
    assert tree.notes[0] == ("gate0 is trained and not saved: no attribute of its block, only in net.params")
    assert eval(tree["gate1"].native, {"net": net}) is net.gates[1] is tree["gate1"].handle
    with pytest.raises(pt.UnsupportedError, match=r"^gate1: it is no attribute of its block.*setattr"):
        pt.tie(net, "gate0", "gate1")


def test_names_that_a_block_invents_are_followed():
    class Renaming(gluon.Block):
        def __init__(self):
            super().__init__()
            self.inner = sequential(nn.Dense(2, in_units=2))

        def _collect_params_with_prefix(self, prefix=""):
            below = super()._collect_params_with_prefix(prefix)
            return {name.replace("inner.0", "core"): p for name, p in below.items()}

    net = initialised(sequential(Renaming(), kind=nn.Sequential))
    tree = pt.open(net)
    assert list(tree) == list(net._collect_params_with_prefix()) == ["0.core.weight", "0.core.bias"]
    assert tree["0.core.bias"].native == "net[0].inner[0].bias"
    assert eval(tree["0.core.bias"].native, {"net": net}) is net[0].inner[0].bias


def test_a_parameter_that_only_a_listing_has_is_in_the_tree_too():
    class Elsewhere(gluon.Block):
        def __init__(self):
            super().__init__()
            self.kept = [gluon.Parameter("kept_w", shape=(2,))]

        def _collect_params_with_prefix(self, prefix=""):
            return {f"{prefix}kept": self.kept[0]}

    net = Elsewhere()
    tree = pt.open(net)
    assert (list(tree), tree.notes) == (["kept"], ())
    assert eval(tree["kept"].native, {"net": net}) is net.kept[0] is tree["kept"].handle


def test_a_child_that_is_no_attribute_has_an_expression_too():
    class Parallel(gluon.Block):
        def __init__(self):
            super().__init__()
            for name in ("left", "up-1"):
                self.register_child(nn.Dense(2, in_units=2), name)

    net = Parallel()
    tree = pt.open(net)
    assert list(tree) == ["left.weight", "left.bias", "up-1.weight", "up-1.bias"]
    for param in tree.values():
        assert eval(param.native, {"net": net}) is param.handle


@pytest.mark.parametrize("other", [mx.nd.ones((2,)), mx.sym.var("x")], ids=["array", "symbol"])
def test_what_is_no_block_is_refused_by_name(other):
    with pytest.raises(pt.UnknownSourceError, match=r"not a model of any of: .*mxnet"):
        pt.open(other)


def test_resnet18_has_gluons_names_counts_and_values():
    net = mx.gluon.model_zoo.vision.resnet18_v1(classes=10)
    tree = pt.open(net)
    own = net._collect_params_with_prefix()
    assert list(tree) == list(own)
    assert tree["features.0.weight"].shape == (64, None, 7, 7)
    initialised(net, mx.nd.ones((1, 3, 32, 32)))
    parameters = [p for p in net.collect_params().values() if p.grad_req != "null"]
    assert tree.size == sum(p.data().size for p in parameters)
    assert tree.totals["parameter"].count == len(parameters)
    assert tree.totals["buffer"].count == len(own) - len(parameters)
    assert tree.ties == ()
    for name in ("features.0.weight", "features.4.0.body.1.running_var", "output.bias"):
        np.testing.assert_array_equal(tree[name].value, own[name].data().asnumpy())
        assert eval(tree[name].native, {"net": net}) is own[name]
    assert tree["features.0.weight"].layout == "out in height width"


# Opening


class Untouchable:
    """Stands in for the library of MXNet: whatever is called is an error."""

    called: ClassVar[list] = []

    def __getattr__(self, name):
        self.called.append(name)
        raise AssertionError(f"{name} was called")


def test_opening_asks_mxnet_for_nothing(monkeypatch):
    net = net_with_everything()
    for place in ("mxnet.base", "mxnet.ndarray.ndarray", "mxnet._ctypes.ndarray"):
        monkeypatch.setattr(import_module(place), "_LIB", Untouchable())
    tree = pt.open(net)
    assert [p.name for p in tree.values()] == list(net._collect_params_with_prefix())
    with pytest.raises(AssertionError, match="was called"):
        _ = tree["0.weight"].value


def test_ten_thousand_parameters_open_and_are_counted():
    net = sequential(*(sequential(*(nn.Dense(1, in_units=1) for _ in range(50))) for _ in range(100)))
    for parameter in net.collect_params().values():
        parameter.initialize(init="zeros")
    tree = pt.open(net)
    assert len(tree) == len(net._collect_params_with_prefix()) == 10_000
    assert (tree.size, tree.ties) == (10_000, ())
    assert tree["99.49.bias"].native == "net[99][49].bias"


# Gradients


def backward(net, *batch):
    with autograd.record():
        value = net(*batch).sum()
    value.backward()


def test_the_gradient_is_none_and_then_the_live_memory():
    net = initialised(nn.Dense(2, in_units=3))
    param = pt.open(net)["weight"]
    assert param.grad is None
    backward(net, mx.nd.ones((1, 3)))
    np.testing.assert_array_equal(param.grad, np.ones((2, 3)))
    param.grad[0, 0] = 9
    assert net.weight.grad()[0, 0].asscalar() == 9


def test_a_gradient_of_zeros_that_was_computed_is_no_none():
    net = initialised(nn.Dense(2, in_units=3))
    backward(net, mx.nd.zeros((1, 3)))
    np.testing.assert_array_equal(pt.open(net)["weight"].grad, np.zeros((2, 3)))


def test_a_gradient_stays_after_the_step_of_a_trainer_and_goes_with_zero_grad():
    net = initialised(nn.Dense(2, in_units=3))
    trainer = gluon.Trainer(net.collect_params(), "sgd")
    backward(net, mx.nd.ones((1, 3)))
    trainer.step(1)
    param = pt.open(net)["weight"]
    np.testing.assert_array_equal(param.grad, np.ones((2, 3)))
    net.collect_params().zero_grad()
    assert param.grad is None


def test_gradients_that_add_up_are_shown_as_they_stand():
    net = initialised(nn.Dense(2, in_units=3))
    net.collect_params().setattr("grad_req", "add")
    for times in (1, 2):
        backward(net, mx.nd.ones((1, 3)))
        np.testing.assert_array_equal(pt.open(net)["weight"].grad, times * np.ones((2, 3)))


def test_buffers_have_no_gradient():
    assert pt.open(initialised(nn.BatchNorm(in_channels=2)))["running_mean"].grad is None


def test_a_sparse_gradient_is_refused_with_the_next_step():
    net = initialised(nn.Embedding(5, 2, sparse_grad=True))
    backward(net, mx.nd.array([1]))
    with pytest.raises(pt.UnreadableError, match=r'gradient of weight: row_sparse .*tostype\("default"\)'):
        _ = pt.open(net)["weight"].grad


def test_gradients_can_be_given_by_either_name():
    net = initialised(nn.Dense(2, in_units=3))
    given = {"weight": mx.nd.ones((2, 3)), net.bias.name: np.zeros(2)}
    tree = pt.open(net, grads=given)
    np.testing.assert_array_equal(tree["weight"].grad, np.ones((2, 3)))
    np.testing.assert_array_equal(tree["bias"].grad, np.zeros(2))
    assert pt.open(net, grads={"bias": np.zeros(2)})["weight"].grad is None


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"wait": np.ones(2)}, "grads: no parameter 'wait' in Dense"),
        ({"weight": np.ones(2)}, r"grads: 'weight' has the shape \(2,\), its parameter \(2, 3\)"),
        ([np.ones(2)], "by name"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(grads, message):
    with pytest.raises(pt.MismatchError, match=message):
        pt.open(initialised(nn.Dense(2, in_units=3)), grads=grads)


# Layouts


def test_layouts_come_from_the_class_of_the_block():
    layouts = {name: param.layout for name, param in pt.open(net_with_everything()).items()}
    assert layouts["0.weight"] == "vocabulary dimension"
    assert (layouts["1.weight"], layouts["1.bias"]) == ("out in length", "out")
    assert layouts["2.running_var"] == layouts["2.gamma"] == "channel"
    assert layouts["3._unfused.1.r_cell.i2h_weight"] == "gates in"
    assert layouts["3._unfused.0.l_cell.h2h_weight"] == "gates hidden"
    assert (layouts["4.0.weight"], layouts["4.1.alpha"]) == ("out in", "channel")


@pytest.mark.parametrize(
    ("layer", "name", "layout"),
    [
        (nn.Conv2D(1, 2), "weight", "out in height width"),
        (nn.Conv2D(5, (2, 3), layout="NHWC", in_channels=4), "weight", "out height width in"),
        (nn.Conv3D(1, 2), "weight", "out in depth height width"),
        (nn.Conv2DTranspose(1, 2), "weight", "in out height width"),
        (nn.LayerNorm(), "gamma", "channel"),
        (nn.BatchNorm(), "running_mean", "channel"),
        (gluon.contrib.nn.SyncBatchNorm(), "beta", "channel"),
        (gluon.rnn.LSTM(4, projection_size=2, input_size=3), "_unfused.0.h2r_weight", "projection hidden"),
        (gluon.rnn.GRUCell(3), "i2h_weight", "gates in"),
        (gluon.rnn.RNN(3), "_unfused.0.h2h_weight", "out hidden"),
        (gluon.rnn.RNN(3), "_unfused.0.i2h_bias", "out"),
    ],
)
def test_layout_of_a_block(layer, name, layout):
    assert pt.open(layer)[name].layout == layout


def test_a_layout_of_data_is_seen_in_the_shape():
    weight = pt.open(nn.Conv2D(5, (2, 3), layout="NHWC", in_channels=4))["weight"]
    assert dict(zip(weight.layout.split(), weight.shape, strict=True)) == {
        "out": 5, "height": 2, "width": 3, "in": 4,
    }  # fmt: skip


def test_a_subclass_inherits_its_layout_and_a_namesake_does_not():
    class Quiet(nn.Dense):
        pass

    class Dense(gluon.Block):
        def __init__(self):
            super().__init__()
            self.weight = self.params.get("weight", shape=(4, 3))

    assert pt.open(Quiet(2))["weight"].layout == "out in"
    assert pt.open(Dense())["weight"].layout is None


def test_the_examples_in_the_documentation_are_true():
    for name in ("mxnet", "_mxnet_arrays", "_mxnet_blocks", "_mxnet_changes", "_mxnet_gradients"):
        assert doctest.testmod(import_module(f"paratree.frameworks.{name}")).failed == 0
