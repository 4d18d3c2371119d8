"""Changing Gluon models: ties in everything that looks parameters up, new values, freezing, multipliers."""

import numpy as np
import pytest

import paratree as pt

mx = pytest.importorskip("tests.mxnet_numpy", reason="could not import mxnet; these tests need it").mxnet
autograd, gluon, nn = mx.autograd, mx.gluon, mx.gluon.nn

X = mx.nd.array(np.random.default_rng(0).normal(size=(3, 4)))


@pytest.fixture(params=["not hybridized", "hybridized", "static"])
def net(request):
    """Three layers of one shape; in its compiled forms compiled, and run, before anything is tied."""
    mx.random.seed(0)
    net = nn.HybridSequential()
    net.add(*(nn.Dense(4, activation="tanh", in_units=4) for _ in range(3)))
    net.initialize(mx.init.Uniform(0.5))
    if request.param != "not hybridized":
        net.hybridize(static_alloc=request.param == "static", static_shape=request.param == "static")
    net(X)
    return net


def by_hand(weights, biases):
    """Return what the net makes of X, calculated in NumPy."""
    hidden = X.asnumpy()
    for weight, bias in zip(weights, biases, strict=True):
        hidden = np.tanh(hidden @ weight.T + bias)
    return hidden


def outputs(net):
    return net(X).asnumpy()


def values(net, part):
    return [layer_value.value.copy() for layer_value in pt.open(net).select(f"*.{part}").values()]


def train(net, steps=1):
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    for _ in range(steps):
        with autograd.record():
            value = (net(X) ** 2).sum()
        value.backward()
        trainer.step(1)


# Ties


def test_forward_uses_the_tied_parameter(net):
    weights, biases = values(net, "weight"), values(net, "bias")
    assert pt.tie(net, "0.weight", "2.weight") is net
    np.testing.assert_allclose(
        outputs(net), by_hand([*weights[:2], weights[0]], biases), rtol=1e-5, atol=1e-6
    )


def test_a_change_after_tying_reaches_both_uses(net):
    biases = values(net, "bias")
    pt.tie(net, "0.weight", "1.weight", "2.weight")
    new = np.eye(4, dtype="float32") / 2
    pt.update(net, {"1.weight": new})
    np.testing.assert_allclose(outputs(net), by_hand([new] * 3, biases), rtol=1e-5, atol=1e-6)


def test_gluon_collects_one_parameter(net):
    gone = net[2].weight
    pt.tie(net, "0.weight", "2.weight")
    assert net[2].weight is net[0].weight
    assert net[2].params[net[0].weight.name] is net[0].weight
    collected = net.collect_params()
    assert len(collected.keys()) == 5
    assert gone.name not in collected.keys()  # noqa: SIM118 -- a ParameterDict has no __contains__


def test_a_trainer_made_afterwards_steps_once_with_the_sum(net):
    pt.tie(net, "0.weight", "2.weight")
    tree = pt.open(net)
    found = pt.gradients(net, lambda net, x: (net(x) ** 2).sum(), X, per_use=True)
    before = tree["0.weight"].value.copy()
    train(net)
    total = sum(use.gradient for use in found.uses["2.weight"])
    assert len(found.uses["2.weight"]) == 2
    np.testing.assert_allclose(tree["2.weight"].value, before - 0.1 * total, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(net[0].weight.data().asnumpy(), net[2].weight.data().asnumpy())


@pytest.mark.parametrize("deduplicate", [False, True])
def test_saving_and_loading_keep_the_tie(net, tmp_path, deduplicate):
    pt.tie(net, "0.weight", "2.weight")
    path = str(tmp_path / "net.params")
    net.save_parameters(path, deduplicate=deduplicate)
    assert len(mx.nd.load(path)) == 6 - deduplicate
    expected, kept = outputs(net), pt.open(net)["2.weight"].value.copy()
    pt.update(net, {"**.weight": 0})
    net.load_parameters(path)
    np.testing.assert_array_equal(outputs(net), expected)
    np.testing.assert_array_equal(pt.open(net)["0.weight"].value, kept)
    assert pt.open(net).ties == (("0.weight", "2.weight"),)


def test_an_exported_graph_has_the_tied_parameter_once(net, tmp_path):
    pt.tie(net, "0.weight", "2.weight")
    net.hybridize()
    expected = outputs(net)
    net.export(str(tmp_path / "net"))
    again = gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    assert len(pt.open(again)) == 5
    np.testing.assert_allclose(again(X).asnumpy(), expected, rtol=1e-6)


def test_untying_gives_a_parameter_of_equal_value_and_another_name(net):
    pt.tie(net, "0.weight", "2.weight")
    net[0].weight.lr_mult = 0.3
    expected = outputs(net)
    assert pt.untie(net, "2.weight") is net
    own, first = net[2].weight, net[0].weight
    assert own is not first
    assert own.name != first.name
    assert own.name.endswith("weight"), "Gluon's initialisers go by the end of the name"
    assert (own.lr_mult, own.grad_req, own.shape) == (0.3, "write", first.shape)
    np.testing.assert_array_equal(outputs(net), expected)
    assert len(net.collect_params().keys()) == 6
    assert pt.open(net).ties == ()


def test_an_untied_parameter_learns_and_is_initialised_on_its_own(net):
    pt.tie(net, "0.weight", "2.weight")
    pt.untie(net, "0.weight", "2.weight")
    train(net, steps=2)
    tree = pt.open(net)
    assert (tree["0.weight"].value != tree["2.weight"].value).any()
    assert tree["2.weight"].grad.any()
    np.testing.assert_allclose(
        outputs(net), by_hand(values(net, "weight"), values(net, "bias")), rtol=1e-5, atol=1e-6
    )
    net.initialize(mx.init.One(), force_reinit=True)
    assert (tree["2.weight"].value == 1).all()


def test_ties_can_be_made_and_broken_again_and_again(net):
    for _ in range(3):
        pt.tie(net, "0.weight", "2.weight")
        pt.untie(net, "2.weight")
    names = list(net.collect_params().keys())
    assert len(names) == len(set(names)) == 6
    train(net)


def test_a_shared_block_is_parted_by_a_shallow_copy():
    shared = nn.Dense(4, activation="tanh", in_units=4)
    net = nn.HybridSequential()
    net.add(shared, shared, nn.Dense(4, in_units=4), shared)
    net.initialize(mx.init.Uniform(0.5))
    net.hybridize()
    expected = outputs(net)
    assert pt.open(net).ties == (("0.weight", "1.weight", "3.weight"), ("0.bias", "1.bias", "3.bias"))
    pt.untie(net, "1.weight")
    assert net[0] is shared
    assert net[1] is not shared
    assert net[3] is shared
    assert net[1].name_scope()._block is net[1]
    assert pt.open(net).ties == (("0.weight", "3.weight"), ("0.bias", "1.bias", "3.bias"))
    np.testing.assert_array_equal(outputs(net), expected)
    pt.update(net, {"1.weight": 0})
    assert shared.weight.data().asnumpy().any()
    assert (outputs(net) != expected).any()
    train(net)
    assert len(net.collect_params().keys()) == 5


class Twice(gluon.HybridBlock):
    """A block that goes through a list of its own, which holds one block twice."""

    def __init__(self, registered=2):
        super().__init__()
        block = nn.Dense(4, in_units=4)
        self.steps = [block, nn.Dense(4, in_units=4), block]
        for i in (0, 1, 2)[: registered + 1]:
            self.register_child(self.steps[i], f"step{i}")

    def hybrid_forward(self, F, x):
        for step in self.steps:
            x = step(x)
        return x


def test_a_block_in_a_list_of_its_parent_is_parted_there_too():
    net = Twice()
    net.initialize(mx.init.Uniform(0.5))
    expected = outputs(net)
    pt.untie(net, "step2.weight")
    assert net.steps[2] is net._children["step2"] is not net.steps[0]
    np.testing.assert_array_equal(outputs(net), expected)
    pt.update(net, {"step2.weight": 0})
    assert not (outputs(net) - net.steps[2].bias.data().asnumpy()).any()


def test_a_list_that_does_not_tell_which_is_meant_is_refused():
    net = Twice(registered=1)
    net.register_child(net.steps[0], "again")
    net.register_child(net.steps[0], "and again")
    net.initialize()
    before = list(net.steps)
    with pytest.raises(
        pt.UnsupportedError, match=r"^again: steps of Twice holds the shared block 2 times, and it has 3"
    ):
        pt.untie(net, "again.weight")
    assert net.steps == before


class WithAttributes(gluon.Block):
    """A block that calls its parts by its own attributes, and its parameters, too."""

    def __init__(self):
        super().__init__()
        self.first = nn.Dense(4, in_units=4)
        self.second = self.first
        self.scale = self.params.get("scale", shape=(4,), init="ones")
        self.shift = self.params.get("shift", shape=(4,), init="zeros")

    def forward(self, x):
        return self.second(self.first(x)) * self.scale.data() + self.shift.data()


def test_attributes_are_changed_with_what_gluon_registers():
    net = WithAttributes()
    net.initialize()
    expected = outputs(net)
    pt.untie(net, "second.weight")
    assert net.second is net._children["second"] is not net.first
    np.testing.assert_array_equal(outputs(net), expected)
    pt.tie(net, "scale", "shift")
    assert net.shift is net.scale
    np.testing.assert_array_equal(outputs(net), expected + 1)
    pt.untie(net, "shift")
    assert net.shift is not net.scale
    assert net.shift.name in net.params.keys()  # noqa: SIM118


def test_a_tied_embedding_and_output_layer_learn_together():
    class Model(gluon.Block):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Dense(7, use_bias=False, in_units=4, flatten=False)

        def forward(self, words):
            return self.head(self.embed(words))

    net = Model()
    net.initialize()
    words = mx.nd.array([[1, 2, 3]])
    net(words)
    pt.tie(net, "embed.weight", "head.weight")
    assert pt.open(net).size == 28
    trainer = gluon.Trainer(net.collect_params(), "adam")
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    losses = []
    for _ in range(30):
        with autograd.record():
            value = loss(net(words), words).mean()
        value.backward()
        trainer.step(1)
        losses.append(value.asscalar())
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal(net.embed.weight.data().asnumpy(), net.head.weight.data().asnumpy())


def test_on_several_contexts_an_untied_parameter_has_each_of_them():
    contexts = [mx.cpu(0), mx.cpu(1)]
    shared = nn.Dense(4, in_units=4)
    net = nn.HybridSequential()
    net.add(shared, nn.Dense(4, in_units=4, params=shared.params))
    net.initialize(ctx=contexts)
    pt.untie(net, "1.weight")
    for context in contexts:
        own, first = net[1].weight.data(context), net[0].weight.data(context)
        assert own.context == context
        np.testing.assert_array_equal(own.asnumpy(), first.asnumpy())
    net(X.as_in_context(contexts[1]))


def test_a_symbol_block_is_refused_with_the_way_there_is(tmp_path):
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=4), nn.Dense(4, in_units=4))
    net.hybridize()
    net.initialize()
    net(X)
    net.export(str(tmp_path / "net"))
    symbol = gluon.SymbolBlock.imports(
        str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params")
    )
    first, second = (name for name in pt.open(symbol) if name.endswith("weight"))
    with pytest.raises(pt.UnsupportedError, match=r"the graph of a SymbolBlock .* export it again$"):
        pt.tie(symbol, first, second)


def test_a_parameter_dict_is_refused_with_the_way_there_is(net):
    params = net.collect_params()
    first, second = (name for name in list(params.keys())[:3:2])
    with pytest.raises(
        pt.UnsupportedError, match=r"a ParameterDict does not know the blocks .*; give the model$"
    ):
        pt.tie(params, first, second)


def test_two_gluon_names_that_collide_are_refused():
    net = nn.Sequential()
    for _ in range(2):
        block = gluon.Block(prefix="same_")
        block.a = block.params.get("a", shape=(2,), init="ones")
        block.b = block.params.get("b", shape=(2,), init="ones")
        block.initialize()
        net.add(block)
    with pytest.raises(pt.UnsupportedError, match="another parameter of the Gluon name same_b"):
        pt.tie(net, "0.b", "1.a")


# Values


def test_an_update_reaches_weights_that_a_trainer_keeps_elsewhere():
    contexts = [mx.cpu(0), mx.cpu(1)]
    net = nn.Dense(2, in_units=4)
    net.initialize(ctx=contexts)
    trainer = gluon.Trainer(
        net.collect_params(), "sgd", {"learning_rate": 1.0}, kvstore="local", update_on_kvstore=True
    )

    def step():
        with autograd.record():
            value = [net(X.as_in_context(context)).sum() for context in contexts]
        autograd.backward(value)
        trainer.step(1)

    step()
    pt.update(net, {"weight": 0.5})
    step()
    expected = 0.5 - 2 * X.asnumpy().sum(0)
    np.testing.assert_allclose(net.weight.data(contexts[1]).asnumpy(), [expected, expected], rtol=1e-5)


def test_an_update_while_a_forward_pass_is_recorded_leaves_the_recording_alone():
    net = nn.Dense(2, in_units=4)
    net.initialize()
    with autograd.record():
        pt.update(net, {"weight": 0.5})
        value = net(X).sum()
    value.backward()
    np.testing.assert_allclose(net.weight.grad().asnumpy(), [X.asnumpy().sum(0)] * 2, rtol=1e-5)


# Freezing and groups


@pytest.mark.parametrize("request_", ["write", "add"])
def test_thawing_brings_back_what_the_gradient_was_asked_for_by(net, request_):
    net[0].weight.grad_req = request_
    pt.freeze(net, "0.weight")
    assert net[0].weight.grad_req == "null"
    pt.freeze(net, "0.weight")
    pt.unfreeze(net, "**")
    assert net[0].weight.grad_req == request_
    assert net[1].weight.grad_req == "write"


def test_a_compiled_net_trains_what_is_not_frozen(net):
    train(net)
    pt.freeze(net, "{0,1}.**")
    before = values(net, "weight")
    train(net)
    after = values(net, "weight")
    assert [bool((a != b).any()) for a, b in zip(before, after, strict=True)] == [False, False, True]
    pt.unfreeze(net, "0.weight")
    train(net)
    assert (values(net, "weight")[0] != before[0]).any()


def test_freezing_before_initialisation_holds_after_it():
    net = nn.Dense(2)
    pt.freeze(net, "weight")
    net.initialize()
    net(X)
    assert (net.weight.grad_req, net.bias.grad_req) == ("null", "write")
    pt.unfreeze(net, "weight")
    assert net.weight.grad().shape == (2, 4)


def test_buffers_cannot_be_frozen():
    net = nn.BatchNorm(in_channels=2)
    net.initialize()
    with pytest.raises(pt.NoSuchParamError, match=r"'running_\*' chooses no parameter, only: buffer"):
        pt.freeze(net, "running_*")


def test_an_option_that_gluon_has_for_all_only_is_refused(net):
    with pytest.raises(
        pt.UnsupportedError,
        match=r"^\*\*.bias: Gluon has no weight_decay of single parameters, only lr_mult and wd_mult",
    ):
        pt.groups(net, {"**.bias": {"weight_decay": 0.0}})


def test_a_tied_parameter_has_one_multiplier(net):
    pt.tie(net, "0.weight", "2.weight")
    found = pt.groups(net, {"2.weight": {"lr_mult": 0.5}})
    assert found == {"lr_mult": {net[0].weight.name: 0.5}}
