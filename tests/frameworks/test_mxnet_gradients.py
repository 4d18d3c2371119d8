"""Gradients of Gluon models under the tree's names: by use, compiled or not, the model left unchanged."""

import numpy as np
import pytest

import paratree as pt

mx = pytest.importorskip("tests.mxnet_numpy", reason="could not import mxnet; these tests need it").mxnet
autograd, gluon, nn = mx.autograd, mx.gluon, mx.gluon.nn

X = mx.nd.array(np.random.default_rng(0).normal(size=(3, 4)))


def squares(net, *batch):
    return (net(*batch) ** 2).sum()


def tied(hybridize=False):
    mx.random.seed(0)
    shared = nn.Dense(4, activation="tanh", in_units=4)
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=4), shared, nn.Dense(4, in_units=4, params=shared.params), shared)
    net.initialize(mx.init.Uniform(0.5))
    if hybridize:
        net.hybridize(static_alloc=True)
    net(X)
    return net


def test_a_compiled_net_is_told_apart_and_stays_compiled():
    net = tied(hybridize=True)
    compiled = net._cached_op
    assert compiled is not None
    found = pt.gradients(net, squares, X, per_use=True)
    assert [use.by for use in found.uses["1.weight"]] == ["dense"] * 3
    assert net._cached_op is compiled
    assert all(block._active for block in (net, net[0], net[1]))
    assert (net._flags, net[1]._forward_hooks, net[1]._forward_pre_hooks) == (net._flags, {}, {})
    plain = pt.gradients(tied(), squares, X, per_use=True)
    for ours, theirs in zip(found.uses["1.weight"], plain.uses["1.weight"], strict=True):
        np.testing.assert_allclose(ours.gradient, theirs.gradient, rtol=1e-5, atol=1e-7)


def test_each_use_is_the_derivative_by_that_use_alone():
    """Against differences: the second of three uses of one weight moves, the others stay."""
    net = tied()
    uses = pt.gradients(net, squares, X, per_use=True).uses["1.weight"]
    pt.untie(net, "2.weight")
    weight, step = pt.open(net)["2.weight"].value, 1e-2
    losses = []
    for sign in (1, -1):
        weight[1, 2] += sign * step
        losses.append(squares(net, X).asscalar())
        weight[1, 2] -= sign * step
    np.testing.assert_allclose(uses[1].gradient[1, 2], (losses[0] - losses[1]) / (2 * step), rtol=1e-2)


def test_the_model_is_left_as_it_was():
    net = nn.HybridSequential()
    net.add(nn.Dense(4, in_units=4), nn.BatchNorm(in_channels=4))
    net.initialize()
    net[0].weight.grad_req = "add"
    with autograd.record():
        value = squares(net, X)
    value.backward()
    net[0].bias.data()._fresh_grad = False
    parameters = net._collect_params_with_prefix()
    state = {
        name: (p.data(), p.data().asnumpy().tobytes(), p.data()._fresh_grad, p.__dict__.keys() | set())
        for name, p in parameters.items()
    }
    gradients = {n: p.grad().asnumpy().tobytes() for n, p in parameters.items() if p.grad_req != "null"}
    for per_use in (False, True):
        pt.gradients(net, squares, X, per_use=per_use)
    for name, p in parameters.items():
        data, values, fresh, attributes = state[name]
        assert p.data() is data, name
        assert (p.data().asnumpy().tobytes(), p.data()._fresh_grad) == (values, fresh), name
        assert p.__dict__.keys() == attributes, name
    assert gradients == {
        n: p.grad().asnumpy().tobytes() for n, p in parameters.items() if p.grad_req != "null"
    }


def test_the_running_statistics_are_put_back_although_training_moves_them():
    net = nn.BatchNorm(in_channels=4)
    net.initialize()
    with autograd.record():
        value = squares(net, X)
    value.backward()
    moved = net.running_mean.data().asnumpy()
    assert moved.any(), "the comparison means something"
    pt.gradients(net, squares, X)
    np.testing.assert_array_equal(net.running_mean.data().asnumpy(), moved)


def test_a_gradient_that_adds_up_in_gluon_is_that_of_this_loss_alone():
    net = tied()
    expected = pt.gradients(net, squares, X)["1.weight"]
    net.collect_params().setattr("grad_req", "add")
    for _ in range(2):
        with autograd.record():
            value = squares(net, X)
        value.backward()
    np.testing.assert_array_equal(pt.gradients(net, squares, X)["1.weight"], expected)


def test_what_the_loss_does_not_use_has_zeros_and_no_uses():
    net = tied()
    found = pt.gradients(net, lambda net, x: (net[0](x) ** 2).sum(), X, per_use=True)
    assert found["0.weight"].any()
    np.testing.assert_array_equal(found["1.weight"], np.zeros((4, 4)))
    assert found.uses["1.weight"] == ()


def test_a_loss_of_no_parameter_has_zeros():
    found = pt.gradients(tied(), lambda net, x: x.sum(), X)
    assert not any(gradient.any() for gradient in found.values())
    assert found.loss == pytest.approx(X.sum().asscalar())


def test_the_loss_itself_may_read_a_parameter():
    net = tied()
    found = pt.gradients(
        net, lambda net, x: squares(net, x) + (net[1].weight.data() ** 2).sum(), X, per_use=True
    )
    assert [use.by for use in found.uses["1.weight"]] == ["dense", "dense", "dense", "read"]
    np.testing.assert_allclose(
        found.uses["1.weight"][3].gradient, 2 * net[1].weight.data().asnumpy(), rtol=1e-6
    )


def test_what_is_read_while_nothing_is_recorded_is_no_use():
    net = tied()

    def loss(net, x):
        with autograd.pause():
            scale = net[1].weight.data().max()
        return squares(net, x) / scale

    found = pt.gradients(net, loss, X, per_use=True)
    assert len(found.uses["1.weight"]) == 3


def test_frozen_parameters_have_no_gradient():
    net = tied()
    pt.freeze(net, "1.**")
    assert list(pt.gradients(net, squares, X)) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("hybridize", [False, True])
def test_a_recurrent_layer_is_one_reading(hybridize):
    net = gluon.rnn.LSTM(3, input_size=4)
    net.initialize()
    if hybridize:
        net.hybridize()
    found = pt.gradients(net, squares, mx.nd.ones((5, 2, 4)), per_use=True)
    assert {len(uses) for uses in found.uses.values()} == {1}
    assert found.uses["_unfused.0.i2h_weight"][0].by == "lstm"


def test_a_cell_reads_at_every_step():
    cell = gluon.rnn.GRUCell(3, input_size=4)
    cell.initialize()

    def loss(cell, inputs):
        outputs, _ = cell.unroll(5, inputs, merge_outputs=True)
        return (outputs**2).sum()

    found = pt.gradients(cell, loss, mx.nd.ones((2, 5, 4)), per_use=True)
    assert len(found.uses["h2h_weight"]) == 5
    assert not found.uses["h2h_weight"][0].gradient.any(), "the first state is zero"


def test_sparse_gradients_come_as_arrays():
    net = nn.Embedding(5, 2, sparse_grad=True)
    net.initialize()
    words = mx.nd.array([1, 1, 3])
    expected = np.zeros((5, 2), "float32")
    expected[1] = 2 * 2 * net.weight.data().asnumpy()[1]
    expected[3] = 2 * net.weight.data().asnumpy()[3]
    for per_use in (False, True):
        found = pt.gradients(net, squares, words, per_use=per_use)
        np.testing.assert_allclose(found["weight"], expected, rtol=1e-5)


def test_double_precision():
    net = tied()
    net.cast("float64")
    found = pt.gradients(net, squares, X.astype("float64"), per_use=True)
    total = sum(use.gradient for use in found.uses["1.weight"])
    assert found["1.weight"].dtype == total.dtype == np.float64
    np.testing.assert_allclose(total, found["1.weight"], rtol=0, atol=1e-14)


def test_half_precision():
    parameter = gluon.Parameter("scale", shape=(3, 4), dtype="float16")
    parameter.initialize(init="ones")

    def loss(scale, x):
        return (scale.data() * x).sum() + (scale.data() * 2).sum()

    found = pt.gradients(parameter, loss, X.astype("float16"), per_use=True)
    first, second = (use.gradient for use in found.uses["scale"])
    np.testing.assert_array_equal(first, X.astype("float16").asnumpy())
    np.testing.assert_array_equal(second, np.full((3, 4), 2, "float16"))
    np.testing.assert_allclose(found["scale"], first + second, rtol=1e-3)


def test_on_several_contexts_the_gradient_is_the_sum():
    contexts = [mx.cpu(0), mx.cpu(1)]
    net = nn.Dense(2, in_units=4)
    net.initialize(ctx=contexts)

    def loss(net, x):
        parts = gluon.utils.split_and_load(x, contexts, even_split=False)
        return sum((net(part) ** 2).sum().as_in_context(contexts[0]) for part in parts)

    found = pt.gradients(net, loss, X, per_use=True)
    single = nn.Dense(2, in_units=4)
    single.initialize()
    pt.update(single, {name: param.value for name, param in pt.open(net).items()})
    np.testing.assert_allclose(found["weight"], pt.gradients(single, squares, X)["weight"], rtol=1e-5)
    assert len(found.uses["weight"]) == 2


def exported(net, folder):
    net.hybridize()
    net(X)
    net.export(str(folder / "net"))
    return gluon.SymbolBlock.imports(
        str(folder / "net-symbol.json"), ["data"], str(folder / "net-0000.params")
    )


def test_a_symbol_block_has_gradients_whose_uses_cannot_be_told_apart(tmp_path):
    net = tied()
    expected = pt.gradients(net, squares, X)
    symbol = exported(net, tmp_path)
    found = pt.gradients(symbol, squares, X)
    for param in pt.open(symbol).values():
        theirs = expected[next(n for n, p in pt.open(net).items() if p.handle.name == param.handle.name)]
        np.testing.assert_allclose(found[param.name], theirs, rtol=1e-5, atol=1e-6)
    with pytest.raises(
        pt.UnsupportedError, match=r"a compiled graph \(SymbolBlock\) reads it once for all its uses"
    ):
        pt.gradients(symbol, squares, X, per_use=True)
    assert "_check_and_get" not in vars(next(iter(symbol.collect_params().values())))


def test_a_frozen_symbol_block_is_no_obstacle(tmp_path):
    features = exported(tied(), tmp_path)
    net = nn.HybridSequential()
    net.add(features, nn.Dense(2, in_units=4))
    net[1].initialize()
    pt.freeze(net, "0.**")
    found = pt.gradients(net, squares, X, per_use=True)
    assert list(found) == ["1.weight", "1.bias"]
    assert len(found.uses["1.weight"]) == 1


def test_the_parameters_alone_have_gradients_too_and_compiled_uses_are_refused():
    net = tied()
    expected = pt.gradients(net, squares, X)["1.weight"]
    params = net.collect_params()
    found = pt.gradients(params, lambda _, x: squares(net, x), X, per_use=True)
    name = net[1].weight.name
    np.testing.assert_array_equal(found[name], expected)
    assert [use.by for use in found.uses[name]] == ["read"] * 3
    net.hybridize()
    np.testing.assert_allclose(
        pt.gradients(params, lambda _, x: squares(net, x), X)[name], expected, rtol=1e-5, atol=1e-6
    )
    with pytest.raises(pt.UnsupportedError, match=r"a compiled graph \(HybridSequential\) reads it once"):
        pt.gradients(params, lambda _, x: squares(net, x), X, per_use=True)


@pytest.mark.parametrize(
    ("loss", "what"), [(lambda net, x: net(x), r"an array of shape \(3, 4\)"), (lambda net, x: 1.5, "1.5")]
)
def test_a_loss_that_is_not_one_number_is_refused(loss, what):
    with pytest.raises(pt.MismatchError, match=rf"^the loss is {what}; a gradient needs one number"):
        pt.gradients(tied(), loss, X)


def test_an_error_in_the_loss_leaves_the_model_as_it_was():
    net = tied(hybridize=True)
    call = gluon.HybridBlock._call_cached_op

    def loss(net, x):
        net(x)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pt.gradients(net, loss, X, per_use=True)
    assert gluon.HybridBlock._call_cached_op is call
    assert net._active
    assert not net[1]._forward_hooks
    assert not autograd.is_recording()
    assert all("_check_and_get" not in vars(p) for p in net.collect_params().values())


def test_a_model_without_values_is_refused_by_the_first_name():
    net = nn.Dense(2)
    net.initialize()
    with pytest.raises(pt.UnreadableError, match=r"^weight: not initialised yet; run the model once"):
        pt.gradients(net, squares, X)


def test_a_compiled_net_of_static_memory_learns_after_its_gradients_were_taken():
    net = nn.HybridSequential()
    net.add(nn.Dense(8), nn.Dense(1))
    net.initialize()
    net.hybridize(static_alloc=True, static_shape=True)
    batch = mx.nd.ones((3, 4))
    net(batch)
    pt.gradients(net, lambda net, x: ((net(x) - 1) ** 2).mean(), batch)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1})
    losses = []
    for _ in range(3):
        with mx.autograd.record():
            loss = ((net(batch) - 1) ** 2).mean()
        loss.backward()
        trainer.step(1)
        losses.append(float(loss.asscalar()))
    assert losses[0] > losses[1] > losses[2]
