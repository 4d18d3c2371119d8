"""The MXNet tab of the chapter on parameter management, block by block: our expression against its own."""

import numpy
import pytest

import paratree as pt

mxnet = pytest.importorskip("tests.mxnet_numpy", reason="could not import mxnet; these tests need it").mxnet
autograd, gluon, init, nn, np = mxnet.autograd, mxnet.gluon, mxnet.init, mxnet.gluon.nn, mxnet.np


@pytest.fixture(autouse=True)
def numpy_mode():
    """As npx.set_np(), for the time of a test."""
    with mxnet.util.np_shape(True), mxnet.util.np_array(True):
        mxnet.random.seed(0)
        yield


@pytest.fixture
def batch():
    return np.random.uniform(size=(2, 4))


def mlp():
    net = nn.Sequential()
    net.add(nn.Dense(8, activation="relu"))
    net.add(nn.Dense(1))
    return net


@pytest.fixture
def net(batch):
    """The multilayer perceptron with one hidden layer, after its first batch."""
    net = mlp()
    net.initialize()
    net(batch)
    return net


def shared_layer():
    net = nn.Sequential()
    shared = nn.Dense(8, activation="relu")
    net.add(
        nn.Dense(8, activation="relu"),
        shared,
        nn.Dense(8, activation="relu", params=shared.params),
        nn.Dense(10),
    )
    return net


@pytest.fixture
def tied(batch):
    """The net whose second and third hidden layer share their parameters."""
    net = shared_layer()
    net.initialize(init.Uniform(0.5))
    net(batch)
    return net


class NestMLP(nn.Block):
    """The nested model that the first exercise refers to."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential()
        self.net.add(nn.Dense(64, activation="relu"), nn.Dense(32, activation="relu"))
        self.dense = nn.Dense(16, activation="relu")

    def forward(self, inputs):
        return self.dense(self.net(inputs))


def loss(net, X):
    return ((net(X) - 1) ** 2).mean()


def train(net, batch, steps=20, options=None):
    """Train as the book does; return the losses."""
    trainer = gluon.Trainer(net.collect_params(), "sgd", options or {"learning_rate": 0.1})
    losses = []
    for _ in range(steps):
        with autograd.record():
            value = loss(net, batch)
        value.backward()
        trainer.step(1)
        losses.append(float(value))
    return losses


# 1. The net, before and after it has seen data


def test_before_initialisation_and_before_the_first_batch_unknown_dimensions_are_question_marks():
    net = mlp()
    shapes = {"0.weight": (8, None), "0.bias": (8,), "1.weight": (1, None), "1.bias": (1,)}
    assert {name: param.shape for name, param in pt.open(net).items()} == shapes
    with pytest.raises(pt.UnreadableError, match=r"^1.bias: not initialised yet; call net.initialize\(\)$"):
        _ = pt.open(net).layers[1].bias.value
    with pytest.raises(
        pt.UnreadableError, match=r"call net.initialize\(\), then run the model once .*, net\(X\)"
    ):
        _ = pt.open(net).layers[1].weight.value
    net.initialize()
    tree = pt.open(net)
    assert {name: param.shape for name, param in tree.items()} == shapes
    assert repr(tree["0.weight"]) == "<Param 0.weight: 8 × ? float32, trainable, not readable>"
    with pytest.raises(gluon.parameter.DeferredInitializationError):
        net[1].weight.data()
    with pytest.raises(
        pt.UnreadableError, match=r"1.weight: not initialised yet; run the model once .*, net\(X\)"
    ):
        _ = tree.layers[1].weight.value


def test_a_tree_opened_before_the_first_batch_sees_what_it_brings(batch):
    net = mlp()
    tree = pt.open(net)
    net.initialize()
    net(batch)
    assert [param.shape for param in tree.values()] == [(8, 4), (8,), (1, 8), (1,)]
    assert tree.size == sum(p.data().size for p in net.collect_params().values()) == 49


# 2. and 3. Parameter access


def test_the_second_fully_connected_layer(net):
    layer, own = pt.open(net).layers[1], net[1].params
    assert [param.handle.name for param in layer.values()] == list(own.keys())
    for param, parameter in zip(layer.values(), own.values(), strict=True):
        assert param.handle is parameter
        numpy.testing.assert_array_equal(param.value, parameter.data().asnumpy())


def test_every_way_to_the_second_layer_is_the_same(net):
    tree = pt.open(net)
    ways = (tree.layers[1], tree["1"], tree[1])
    alias = net[1].bias.name
    assert len({id(way.bias) for way in ways} | {id(tree[n]) for n in ("1.bias", "1/bias", alias)}) == 1


def test_the_bias_is_a_parameter_with_a_value(net):
    bias = pt.open(net).layers[1].bias
    assert isinstance(bias, pt.Param)
    assert isinstance(net[1].bias, gluon.Parameter)
    numpy.testing.assert_array_equal(bias.value, net[1].bias.data().asnumpy())
    assert (bias.name, bias.trainable, bias.kind, bias.native) == ("1.bias", True, "parameter", "net[1].bias")
    assert bias.aliases == (net[1].bias.name,)


def test_writing_through_the_value_is_seen_by_gluon_and_the_reverse(net, batch):
    value = pt.open(net).layers[1].bias.value
    before = net(batch).asnumpy()
    value[0] += 42
    assert net[1].bias.data()[0].item() == value[0]
    numpy.testing.assert_allclose(net(batch).asnumpy(), before + 42, rtol=1e-6)
    net[1].bias.set_data(np.array([7.0]))
    mxnet.npx.waitall()
    assert value[0] == 7


def test_the_gradient_is_none_before_backpropagation_where_gluon_has_zeros(net, batch):
    weight = pt.open(net).layers[1].weight
    assert not net[1].weight.grad().asnumpy().any()
    assert weight.grad is None
    with autograd.record():
        value = loss(net, batch)
    value.backward()
    assert net[1].weight.grad().asnumpy().any()
    numpy.testing.assert_array_equal(weight.grad, net[1].weight.grad().asnumpy())


# 4. All parameters at once


def test_all_parameters_at_once(net):
    ours = {param.handle.name: param.shape for param in pt.open(net).values()}
    assert ours == {name: parameter.shape for name, parameter in net.collect_params().items()}


def test_all_parameters_of_a_nested_net(batch):
    net = nn.Sequential()
    net.add(NestMLP(), nn.Dense(20), NestMLP())
    net.initialize()
    net(batch)
    tree = pt.open(net)
    assert [(name, p.shape) for name, p in tree.items()] == [
        (name, p.shape) for name, p in net._collect_params_with_prefix().items()
    ]
    assert tree.size == sum(p.data().size for p in net.collect_params().values())
    assert [layer.prefix for layer in tree.layers] == [
        "0.net.0", "0.net.1", "0.dense", "1", "2.net.0", "2.net.1", "2.dense",
    ]  # fmt: skip
    assert tree["2.net.1.bias"].native == "net[2].net[1].bias"
    numpy.testing.assert_array_equal(tree["0/net/1"].bias.value, net[0].net[1].bias.data().asnumpy())


def test_names_are_those_of_the_saved_file(net, tmp_path):
    net.save_parameters(str(tmp_path / "net.params"))
    assert list(pt.open(net)) == list(mxnet.npx.load(str(tmp_path / "net.params")))


# 5. Tied parameters


def test_tied_parameters_stand_under_every_name_and_are_counted_once(tied):
    tree = pt.open(tied)
    assert len(tree) == 8
    assert tree.totals["parameter"].count == len(tied.collect_params().keys()) == 6
    assert tree.ties == (("1.weight", "2.weight"), ("1.bias", "2.bias"))
    assert tree.size == sum(p.data().size for p in tied.collect_params().values())


def test_a_change_through_one_name_is_seen_through_the_other(tied):
    tree = pt.open(tied)
    numpy.testing.assert_array_equal(tree["1.weight"][0], tree["2.weight"][0])
    tied[1].weight.data()[0, 0] = 100
    assert tree["1.weight"][0, 0] == tree["2.weight"][0, 0] == 100
    tree["2.weight"].value[0, 1] = -100
    assert tied[1].weight.data()[0, 1].item() == tree["1.weight"][0, 1] == -100


def test_tying_is_what_the_chapter_does_by_params(batch):
    net = nn.Sequential()
    net.add(*(nn.Dense(n, activation=a) for n, a in ((8, "relu"), (8, "relu"), (8, "relu"), (10, None))))
    net.initialize(init.Uniform(0.5))
    net(batch)
    assert pt.tie(net, "1.weight", "2.weight") is net
    assert pt.tie(net, "1.bias", "2.bias") is net
    assert net[1].weight is net[2].weight
    assert net[1].bias is net[2].bias
    assert len(net.collect_params().keys()) == 6
    losses = train(net, batch)
    assert losses[-1] < losses[0] / 2
    assert pt.open(net).ties == (("1.weight", "2.weight"), ("1.bias", "2.bias"))


def test_untying_gives_each_layer_its_own_and_training_goes_on(tied, batch):
    train(tied, batch, steps=2)
    before = tied(batch).asnumpy()
    pt.untie(tied, "2.weight", "2.bias")
    assert pt.open(tied).ties == ()
    numpy.testing.assert_array_equal(tied(batch).asnumpy(), before)
    losses = train(tied, batch)
    assert losses[-1] < losses[0]
    tree = pt.open(tied)
    assert (tree["1.weight"].value != tree["2.weight"].value).any(), "each has learned on its own"


# 6. The gradients of tied layers are added together


def test_the_gradient_of_a_tied_parameter_is_the_sum_over_its_uses(tied, batch):
    found = pt.gradients(tied, loss, batch, per_use=True)
    with autograd.record():
        value = loss(tied, batch)
    value.backward()
    assert found.loss == float(value)
    for name, param in pt.open(tied).items():
        theirs = tied._collect_params_with_prefix()[name].grad().asnumpy()
        numpy.testing.assert_allclose(found[name], theirs, rtol=1e-6, atol=1e-6 * abs(theirs).max())
        total = sum(use.gradient for use in found.uses[name])
        numpy.testing.assert_allclose(total, theirs, rtol=0, atol=1e-6 * abs(theirs).max())
        numpy.testing.assert_array_equal(param.grad, theirs)
    assert [use.by for use in found.uses["2.weight"]] == ["dense", "dense"]
    assert len(found.uses["0.weight"]) == 1


def test_the_uses_are_the_gradients_of_layers_that_are_equal_and_apart(tied, batch, tmp_path):
    apart = nn.Sequential()
    apart.add(*(nn.Dense(n, activation=a) for n, a in ((8, "relu"), (8, "relu"), (8, "relu"), (10, None))))
    apart.initialize()
    tied.save_parameters(str(tmp_path / "tied.params"))
    apart.load_parameters(str(tmp_path / "tied.params"))
    uses = pt.gradients(tied, loss, batch, per_use=True).uses
    separate = pt.gradients(apart, loss, batch)
    for part in ("weight", "bias"):
        first, second = (use.gradient for use in uses[f"1.{part}"])
        assert first.any()
        numpy.testing.assert_allclose(first, separate[f"1.{part}"], rtol=1e-5, atol=1e-7)
        numpy.testing.assert_allclose(second, separate[f"2.{part}"], rtol=1e-5, atol=1e-7)


# 7. Training is observed


def test_training_is_observed_step_by_step(tied, batch):
    """The chapter's second exercise: parameters and gradients of each layer while a tied net learns."""
    tree = pt.open(tied)
    trainer = gluon.Trainer(tied.collect_params(), "sgd", {"learning_rate": 0.1})
    for _ in range(3):
        before = {name: param.value.copy() for name, param in tree.items()}
        with autograd.record():
            value = loss(tied, batch)
        value.backward()
        trainer.step(1)
        for name, param in tree.items():
            numpy.testing.assert_allclose(param.value, before[name] - 0.1 * param.grad, rtol=1e-5, atol=1e-6)
    assert tree.ties == (("1.weight", "2.weight"), ("1.bias", "2.bias"))


# 8. Update, freeze, groups


def test_update_gives_new_values_as_set_data_does(net, batch):
    weight = numpy.arange(8, dtype="float32").reshape(1, 8)
    assert pt.update(net, {"1.weight": weight, "**.bias": 0, "0.weight": lambda w: w / 2}) is net
    numpy.testing.assert_array_equal(net[1].weight.data().asnumpy(), weight)
    assert not net[0].bias.data().asnumpy().any()


def test_what_is_frozen_stays_while_the_rest_is_trained(tied, batch):
    assert pt.freeze(tied, "1.**") is tied
    assert [p.grad_req for p in tied[2].params.values()] == ["null", "null"]
    before = {name: param.value.copy() for name, param in pt.open(tied).items()}
    losses = train(tied, batch, steps=3)
    assert losses[-1] < losses[0]
    changed = {name for name, p in pt.open(tied).items() if (p.value != before[name]).any()}
    assert changed == {"0.weight", "0.bias", "3.weight", "3.bias"}
    pt.unfreeze(tied, "**")
    train(tied, batch, steps=1)
    assert (pt.open(tied)["2.weight"].value != before["2.weight"]).any()


def test_groups_are_multipliers_that_a_trainer_uses(net, batch):
    multipliers = pt.groups(net, {"0.**": {"lr_mult": 0.0}, "1.bias": {"lr_mult": 0.5, "wd_mult": 0.0}})
    first, last = net[0], net[1]
    assert multipliers == {
        "lr_mult": {first.weight.name: 0.0, first.bias.name: 0.0, last.bias.name: 0.5},
        "wd_mult": {last.bias.name: 0.0},
    }
    for multiplier, values in multipliers.items():
        for name, value in values.items():
            setattr(net.collect_params()[name], multiplier, value)
    tree = pt.open(net)
    before = {name: param.value.copy() for name, param in tree.items()}
    train(net, batch, steps=1, options={"learning_rate": 0.1, "wd": 0.01})
    numpy.testing.assert_array_equal(tree["0.weight"].value, before["0.weight"])
    numpy.testing.assert_allclose(
        tree["1.bias"].value, before["1.bias"] - 0.05 * tree["1.bias"].grad, rtol=1e-5
    )
    decayed = before["1.weight"] - 0.1 * (tree["1.weight"].grad + 0.01 * before["1.weight"])
    numpy.testing.assert_allclose(tree["1.weight"].value, decayed, rtol=1e-4, atol=1e-7)
