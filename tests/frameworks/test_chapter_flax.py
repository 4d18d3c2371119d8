"""The JAX tab of the chapter on parameter management, block by block: our expression against its own.

The tab is linen's; what NNX, which keeps parameters in the model, does otherwise has tests at the end.
"""

import numpy as np
import pytest

import paratree as pt

flax = pytest.importorskip("flax", reason="could not import flax; these tests need it")
jax = pytest.importorskip("jax", reason="could not import jax; these tests need it")
optax = pytest.importorskip("optax", reason="could not import optax; these tests need it")

jnp, nnx = jax.numpy, pytest.importorskip("flax.nnx", reason="could not import flax; these tests need it")
nn = flax.linen

KEY = jax.random.key(0)
X = jax.random.uniform(KEY, (2, 4))


def mlp():
    return nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(1)])


def shared_net():
    """The net whose second and third hidden layer are one."""
    shared = nn.Dense(8)
    return nn.Sequential([nn.Dense(8), nn.relu, shared, nn.relu, shared, nn.relu, nn.Dense(1)])


def square_net():
    return nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(8), nn.relu, nn.Dense(8), nn.Dense(1)])


class NestMLP(nn.Module):
    """The nested model that the first exercise refers to."""

    def setup(self):
        self.net = nn.Sequential([nn.Dense(64), nn.relu, nn.Dense(32), nn.relu])
        self.linear = nn.Dense(16)

    def __call__(self, inputs):
        return self.linear(self.net(inputs))


@pytest.fixture
def net():
    return mlp()


@pytest.fixture
def params(net):
    return net.init(KEY, X)


@pytest.fixture
def tied():
    return shared_net().init(KEY, X)


def squares(net):
    return lambda variables, *batch: ((net.apply(variables, *batch) - 1) ** 2).mean()


def flat(tree):
    return flax.traverse_util.flatten_dict(tree["params"], sep=".")


# The net, before and after it has seen data


def test_before_init_unknown_dimensions_are_question_marks(net):
    tree = pt.open(net)
    assert {name: param.shape for name, param in tree.items()} == {
        "layers_0.kernel": (None, 8),
        "layers_0.bias": (8,),
        "layers_2.kernel": (None, 1),
        "layers_2.bias": (1,),
    }
    assert repr(tree["layers_0.kernel"]) == "<Param layers_0.kernel: ? × 8 float32, trainable, not readable>"
    with pytest.raises(pt.UnreadableError, match=r"run params = net.init\(key, X\) and open what it returns"):
        _ = tree.layers[0].weight.value


def test_after_init_the_shapes_are_known(params):
    tree = pt.open(params)
    assert {name: param.shape for name, param in tree.items()} == {
        "layers_0.kernel": (4, 8), "layers_0.bias": (8,), "layers_2.kernel": (8, 1), "layers_2.bias": (1,),
    }  # fmt: skip
    assert tree.size == sum(leaf.size for leaf in jax.tree.leaves(params)) == 49
    assert all(param.array.problem is None for param in tree.values())


def test_names_before_and_after_init_are_the_same(net, params):
    assert list(pt.open(net)) == list(pt.open(params))


# Parameter access


def test_the_second_fully_connected_layer(params):
    layer, theirs = pt.open(params).layers[1], params["params"]["layers_2"]
    assert set(layer) == set(theirs) == {"kernel", "bias"}
    for name, array in theirs.items():
        np.testing.assert_array_equal(layer[name].value, array)


def test_every_way_to_the_second_layer_is_the_same(params):
    tree = pt.open(params)
    ways = (tree.layers[1], tree["layers_2"], tree[1], tree["params.layers_2.bias"])
    assert len({id(way.bias) for way in ways[:3]} | {id(ways[3]), id(tree["layers_2/bias"])}) == 1


def test_the_bias_is_a_parameter_with_a_value(params):
    bias, theirs = pt.open(params).layers[1].bias, params["params"]["layers_2"]["bias"]
    assert isinstance(bias, pt.Param)
    assert isinstance(bias.handle, jax.Array)
    assert bias.handle is theirs
    np.testing.assert_array_equal(bias.value, theirs)
    assert (bias.name, bias.trainable, bias.kind) == ("layers_2.bias", True, "parameter")


def test_the_value_is_the_memory_of_the_array_and_cannot_be_written(params):
    value = pt.open(params).layers[1].bias.value
    assert np.shares_memory(value, np.asarray(params["params"]["layers_2"]["bias"]))
    assert not value.flags.writeable


def test_the_gradient_is_none_until_gradients_are_given(net, params):
    assert pt.open(params).layers[1].weight.grad is None
    grads = jax.grad(squares(net))(params, X)
    theirs = grads["params"]["layers_2"]["kernel"]
    assert np.asarray(theirs).any(), "the comparison means something"
    np.testing.assert_array_equal(pt.open(params, grads=grads).layers[1].weight.grad, theirs)
    np.testing.assert_array_equal(pt.open(params, grads=grads["params"]).layers[1].weight.grad, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g["layers_2"].pop("kernel"), "grads: nothing for the parameter 'layers_2.kernel'"),
        (lambda g: g["layers_2"].update(scale=g["layers_2"]["bias"]), "grads: no parameter 'layers_2.scale'"),
        (
            lambda g: g["layers_0"].update(bias=jnp.ones(3)),
            r"'layers_0.bias' has the shape \(3,\), its parameter",
        ),
    ],
)
def test_gradients_of_another_structure_are_refused_by_the_first_path(net, params, change, message):
    grads = jax.tree.map(lambda leaf: leaf, jax.grad(squares(net))(params, X))
    change(grads["params"])
    with pytest.raises(pt.MismatchError, match=message):
        pt.open(params, grads=grads)


def test_none_in_place_of_a_gradient_is_no_gradient(params):
    grads = {"layers_0": None, "layers_2": {"kernel": jnp.ones((8, 1)), "bias": None}}
    tree = pt.open(params, grads=grads)
    assert [param.grad is None for param in tree.values()] == [True, True, False, True]


# All parameters at once


def test_all_parameters_at_once(params):
    ours = {name: param.shape for name, param in pt.open(params).items()}
    assert ours == {name: leaf.shape for name, leaf in flat(params).items()}


def test_all_parameters_of_a_nested_net():
    net = nn.Sequential([NestMLP(), nn.Dense(20), NestMLP()])
    params = net.init(KEY, X)
    tree = pt.open(params)
    assert [(name, param.shape) for name, param in tree.items()] == [
        (name, leaf.shape) for name, leaf in flat(params).items()
    ]
    assert [layer.prefix for layer in tree.layers] == [
        "layers_0.net.layers_0", "layers_0.net.layers_2", "layers_0.linear", "layers_1",
        "layers_2.net.layers_0", "layers_2.net.layers_2", "layers_2.linear",
    ]  # fmt: skip
    biases = ["net.layers_0.bias", "net.layers_2.bias", "linear.bias"]
    assert list(tree["layers_2"].select(role="bias")) == biases
    theirs = params["params"]["layers_0"]["net"]["layers_2"]["bias"]
    np.testing.assert_array_equal(tree["layers_0/net/layers_2"].bias.value, theirs)


# Tied parameters


def test_a_shared_layer_of_linen_is_one_parameter_under_one_name(tied):
    assert len(tied["params"]) == 3
    tree = pt.open(tied)
    assert (
        [layer.prefix for layer in tree.layers]
        == list(tied["params"])
        == ["layers_0", "layers_2", "layers_6"]
    )
    assert (tree.ties, tree.size) == ((), 121)
    assert repr(tree) == "<ParamTree dict: 6 parameters, 121 values, float32>"


def test_a_change_of_the_shared_layer_changes_both_uses(tied):
    changed = pt.update(tied, {"layers_2.kernel": 0})
    assert not np.asarray(changed["params"]["layers_2"]["kernel"]).any()
    twin = nn.Sequential([nn.Dense(8), nn.relu, lambda x: nn.relu(jnp.zeros(8)), nn.Dense(1)])
    last = {"layers_3": tied["params"]["layers_6"], "layers_0": tied["params"]["layers_0"]}
    np.testing.assert_allclose(
        shared_net().apply(changed, X)[0], twin.apply({"params": last}, X)[0], rtol=1e-6
    )


def test_equal_values_are_no_tie():
    values = np.ones((4, 4), np.float32)
    assert (
        pt.open({"params": {"a": {"kernel": jnp.array(values)}, "b": {"kernel": jnp.array(values)}}}).ties
        == ()
    )


def test_the_gradients_of_tied_layers_are_added_together(tied):
    """The gradient of the shared layer is the sum of those of an equal net without sharing."""
    apart_net = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(8), nn.relu, nn.Dense(8), nn.relu, nn.Dense(1)])
    apart = {"params": {**tied["params"], "layers_4": tied["params"]["layers_2"]}}
    grads = jax.grad(squares(shared_net()))(tied, X)["params"]
    separate = jax.grad(squares(apart_net))(apart, X)["params"]
    tree = pt.open(tied, grads=grads)
    found = pt.gradients(tied, squares(shared_net()), X, per_use=True)
    for part in ("kernel", "bias"):
        both = [separate["layers_2"][part], separate["layers_4"][part]]
        assert all(np.asarray(gradient).any() for gradient in both), "the comparison means something"
        name = f"layers_2.{part}"
        np.testing.assert_array_equal(tree[name].grad, grads["layers_2"][part])
        np.testing.assert_allclose(found[name], sum(both), rtol=1e-5, atol=1e-8)
        for use, gradient in zip(found.uses[name], both, strict=True):
            np.testing.assert_allclose(use.gradient, gradient, rtol=1e-5, atol=1e-8)
    assert [use.by for use in found.uses["layers_2.kernel"]] == ["dot_general", "dot_general"]
    assert [use.by for use in found.uses["layers_2.bias"]] == ["add", "add"]


def test_training_is_observed_step_by_step(tied):
    """The chapter's second exercise: parameters and gradients of each layer while a tied net learns."""
    loss = squares(shared_net())
    losses = []
    for _ in range(3):
        found = pt.gradients(tied, loss, X)
        before = {name: param.value for name, param in pt.open(tied).items()}
        tied = jax.tree.map(lambda leaf, g: leaf - 0.1 * g, tied, jax.grad(loss)(tied, X))
        for name, param in pt.open(tied).items():
            np.testing.assert_allclose(param.value, before[name] - 0.1 * found[name], rtol=1e-5, atol=1e-7)
        losses.append(found.loss)
    assert losses[-1] < losses[0]


# Ties made and broken


def test_a_tie_that_is_made_survives_training():
    """As in the documentation of ``pt.tie``: what is trained is reduced, what the model takes is expanded."""
    net = square_net()
    params = net.init(KEY, X)
    tied = pt.tie(params, "layers_2.kernel", "layers_4.kernel")
    assert "kernel" not in tied.variables["params"]["layers_4"]
    assert "kernel" in params["params"]["layers_4"], "the source is as it was"
    optimizer = optax.adam(0.05)
    variables, state = tied.variables, optimizer.init(tied.variables)

    @jax.jit
    def step(variables, state):
        loss, grads = jax.value_and_grad(lambda v: squares(net)(tied.expand(v), X))(variables)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(variables, updates), state, loss

    losses = []
    for _ in range(20):
        variables, state, loss = step(variables, state)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    whole = tied.expand(variables)
    assert pt.open(whole).ties == (("layers_2.kernel", "layers_4.kernel"),)
    assert whole["params"]["layers_4"]["kernel"] is whole["params"]["layers_2"]["kernel"]
    assert jax.tree.structure(whole) == jax.tree.structure(params)
    assert list(pt.open(whole)) == list(pt.open(params))


def test_the_gradient_by_reduced_variables_is_the_sum_over_the_uses():
    net = square_net()
    tied = pt.tie(net.init(KEY, X), "layers_2.kernel", "layers_4.kernel")
    theirs = jax.grad(lambda v: squares(net)(tied.expand(v), X))(tied.variables)["params"]["layers_2"][
        "kernel"
    ]
    found = pt.gradients(tied.expand(tied.variables), squares(net), X, per_use=True)
    np.testing.assert_allclose(found["layers_4.kernel"], theirs, rtol=1e-6)
    np.testing.assert_allclose(sum(use.gradient for use in found.uses["layers_4.kernel"]), theirs, rtol=1e-5)


def test_a_whole_layer_is_tied_by_two_ties_and_its_empty_dict_is_gone():
    net = square_net()
    params = net.init(KEY, X)
    kernel = pt.tie(params, "layers_2.kernel", "layers_4.kernel")
    both = pt.tie(kernel.variables, "layers_2.bias", "layers_4.bias")
    assert "layers_4" not in both.variables["params"]
    whole = kernel.expand(both.expand(both.variables))
    assert jax.tree.structure(whole) == jax.tree.structure(params)
    assert list(whole["params"]) == list(params["params"]), "the layers stand in their order"
    assert pt.open(whole).ties == (("layers_2.kernel", "layers_4.kernel"), ("layers_2.bias", "layers_4.bias"))


def test_a_tie_of_names_of_one_array_keeps_them_together():
    net = square_net()
    params = net.init(KEY, X)
    params["params"]["layers_4"]["kernel"] = params["params"]["layers_2"]["kernel"]
    tree = pt.open(params)
    assert tree.ties == (("layers_2.kernel", "layers_4.kernel"),)
    assert tree.notes == (
        "layers_2.kernel and layers_4.kernel are one array, which JAX trains as two; pt.tie keeps them one",
    )
    parted = jax.tree.map(lambda leaf, g: leaf - 0.1 * g, params, jax.grad(squares(net))(params, X))
    assert pt.open(parted).ties == (), "as the note says"
    tied = pt.tie(params, "layers_2.kernel", "layers_4.kernel")
    assert list(pt.open(tied.variables)) == [name for name in tree if name != "layers_4.kernel"]


def test_untie_gives_a_name_an_array_of_its_own():
    net = square_net()
    params = net.init(KEY, X)
    params["params"]["layers_4"]["kernel"] = params["params"]["layers_2"]["kernel"]
    parted = pt.untie(params, "layers_4.kernel")
    assert pt.open(parted).ties == ()
    assert parted["params"]["layers_2"]["kernel"] is params["params"]["layers_2"]["kernel"]
    np.testing.assert_array_equal(
        parted["params"]["layers_4"]["kernel"], params["params"]["layers_4"]["kernel"]
    )
    assert pt.open(params).ties, "the source is as it was"


def test_what_linen_shares_by_itself_has_one_name_and_cannot_be_parted(tied):
    with pytest.raises(pt.MismatchError, match=r"layers_2.kernel is not tied; tied here: nothing"):
        pt.untie(tied, "layers_2.kernel")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda p: pt.tie(p, "layers_0.kernel", "layers_2.kernel"), pt.MismatchError, r"their shapes are"),
        (
            lambda p: pt.tie(p, "layers_2.kernel", "layers_2.kernel"),
            pt.MismatchError,
            "one parameter already",
        ),
        (lambda p: pt.tie(p, "layers_2.kernel"), pt.MismatchError, "name a second parameter"),
        (lambda p: pt.tie(p, "layers_2.kernel", "layers_4.kernle"), pt.NoSuchParamError, "did you mean"),
    ],
)
def test_a_tie_that_cannot_be_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        change(square_net().init(KEY, X))


# Gradients


def test_gradients_are_the_frameworks_own(net, params):
    found = pt.gradients(params, squares(net), X)
    loss, theirs = jax.value_and_grad(squares(net))(params, X)
    assert found.loss == float(loss)
    assert list(found) == list(pt.open(params))
    for name, gradient in flat(theirs).items():
        np.testing.assert_array_equal(found[name], gradient)


def test_a_loss_that_is_not_one_number_is_refused(net, params):
    with pytest.raises(pt.MismatchError, match=r"of shape \(2, 1\); .* take its mean or sum"):
        pt.gradients(params, net.apply, X)
    with pytest.raises(pt.MismatchError, match="the loss is 3"):
        pt.gradients(params, lambda params, X: 3, X)
    with pytest.raises(
        pt.MismatchError, match=r"the loss is .* of shape \(\); a gradient needs one real number"
    ):
        pt.gradients(params, lambda params, X: net.apply(params, X).argmax(), X)


# Changing, freezing, groups


def test_update_by_arrays_numbers_and_functions(params):
    weight = np.arange(8.0).reshape(8, 1)
    new = pt.update(params, {"layers_2.kernel": weight, "*.bias": 3, "layers_0.kernel": lambda w: w * 2})
    np.testing.assert_array_equal(new["params"]["layers_2"]["kernel"], weight)
    assert (new["params"]["layers_0"]["bias"] == 3).all()
    np.testing.assert_array_equal(
        new["params"]["layers_0"]["kernel"], 2 * params["params"]["layers_0"]["kernel"]
    )
    assert jax.tree.map(lambda leaf: leaf.dtype, new) == jax.tree.map(lambda leaf: leaf.dtype, params)
    assert not params["params"]["layers_2"]["bias"].any(), "the source is as it was"


def test_an_update_keeps_the_order_of_the_layers(params):
    assert list(pt.open(pt.update(params, {"**": 0}))) == list(pt.open(params))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"layers_2.kernel": np.zeros((1, 8))}, pt.MismatchError, r"its shape is \(8, 1\), .* \(1, 8\)"),
        ({"layers_2.kernel": 1j}, pt.MismatchError, "complex128 does not fit into float32"),
        ({"layers_2.kernle": 0}, pt.NoSuchParamError, "did you mean 'layers_2.kernel'"),
        ({"layers_2.*": 0, "*.bias": 1}, pt.MismatchError, r"layers_2.bias: chosen twice"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(params, values, error, message):
    with pytest.raises(error, match=message):
        pt.update(params, values)


def test_a_frozen_layer_does_not_learn_and_the_others_do(net, params):
    """As in the documentation of ``pt.freeze``: differentiate by the trained part, merge inside the loss."""
    parted = pt.freeze(params, "layers_0.**")
    assert parted.mask == {
        "params": {"layers_0": {"kernel": False, "bias": False}, "layers_2": {"kernel": True, "bias": True}}
    }
    optimizer = optax.sgd(0.5)
    state = optimizer.init(parted.trainable)

    @jax.jit
    def step(trainable, state):
        grads = jax.grad(lambda t: squares(net)(parted.merge(t, parted.frozen), X))(trainable)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(trainable, updates), state

    trainable, state = step(parted.trainable, state)
    new = parted.merge(trainable, parted.frozen)
    assert new["params"]["layers_0"]["kernel"] is params["params"]["layers_0"]["kernel"]
    assert (new["params"]["layers_2"]["kernel"] != params["params"]["layers_2"]["kernel"]).any()
    assert jax.tree.structure(new) == jax.tree.structure(params)


def test_the_mask_is_what_optax_takes(net, params):
    mask = pt.freeze(params, "layers_0.**").mask
    frozen = jax.tree.map(lambda trained: not trained, mask)
    optimizer = optax.chain(optax.sgd(0.5), optax.masked(optax.set_to_zero(), frozen))
    updates, _ = optimizer.update(jax.grad(squares(net))(params, X), optimizer.init(params))
    new = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(new["params"]["layers_0"]["kernel"], params["params"]["layers_0"]["kernel"])
    assert (new["params"]["layers_2"]["kernel"] != params["params"]["layers_2"]["kernel"]).any()


def test_freezing_what_is_parted_keeps_what_is_frozen_and_unfreeze_takes_it_away(params):
    first = pt.freeze(params, "layers_0.kernel")
    second = pt.freeze(first, "layers_2.bias")
    assert [*pt.open(second.trainable)] == ["layers_0.bias", "layers_2.kernel"]
    third = pt.unfreeze(second, "layers_0.**")
    assert [*pt.open(third.trainable)] == ["layers_0.kernel", "layers_0.bias", "layers_2.kernel"]
    everything = pt.freeze(third, "**")
    assert not jax.tree.leaves(everything.trainable)
    assert [*pt.open(pt.unfreeze(everything, "**.bias").trainable)] == ["layers_0.bias", "layers_2.bias"]


def test_running_statistics_are_no_parameters_and_are_neither_trained_nor_frozen_by_name():
    variables = nn.Sequential([nn.BatchNorm(use_running_average=True), nn.Dense(2)]).init(KEY, X)
    tree = pt.open(variables)
    assert {name: param.kind for name, param in tree.items() if param.kind != "parameter"} == {
        "layers_0.mean": "buffer",
        "layers_0.var": "buffer",
    }
    assert pt.freeze(variables, "layers_0.scale").mask["batch_stats"] == {
        "layers_0": {"mean": False, "var": False}
    }
    with pytest.raises(pt.NoSuchParamError, match=r"'layers_0.mean' chooses no parameter, only: buffer"):
        pt.freeze(variables, "layers_0.mean")


def test_groups_are_what_optax_takes(net, params):
    found = pt.groups(params, {"**.bias": {"learning_rate": 0.0}, "layers_2.kernel": {"learning_rate": 1.0}})
    assert found.labels["params"]["layers_2"] == {"kernel": "layers_2.kernel", "bias": "**.bias"}
    rates = {label: options.get("learning_rate", 0.5) for label, options in found.options.items()}
    assert rates == {"**.bias": 0.0, "layers_2.kernel": 1.0, "default": 0.5}
    optimizer = optax.multi_transform({label: optax.sgd(rate) for label, rate in rates.items()}, found.labels)
    grads = jax.grad(squares(net))(params, X)
    updates, _ = optimizer.update(grads, optimizer.init(params))
    new = optax.apply_updates(params, updates)
    for name, leaf in flat(new).items():
        rate = {"layers_0.kernel": 0.5, "layers_2.kernel": 1.0}.get(name, 0.0)
        np.testing.assert_allclose(leaf, flat(params)[name] - rate * flat(grads)[name], rtol=1e-6)


def test_what_is_in_no_group_has_a_label_of_its_own():
    variables = nn.Sequential([nn.BatchNorm(use_running_average=True), nn.Dense(2)]).init(KEY, X)
    found = pt.groups(variables, {"**.bias": {"a": 1}})
    assert found.labels["batch_stats"]["layers_0"] == {"mean": "not trained", "var": "not trained"}
    assert found.options == {"**.bias": {"a": 1}, "default": {}, "not trained": {}}


# The framework's own expressions


def test_native_is_the_expression_of_the_framework(params):
    bias = pt.open(params).layers[1].bias
    assert bias.native == "params['params']['layers_2']['bias']"
    assert eval(bias.native) is bias.handle


# NNX, which keeps the parameters in the model


def nnx_net(rngs):
    shared = nnx.Linear(8, 8, rngs=rngs)
    return nnx.Sequential(
        nnx.Linear(4, 8, rngs=rngs), nnx.relu, shared, nnx.relu, shared, nnx.relu, nnx.Linear(8, 1, rngs=rngs)
    )


def nnx_squares(net, *batch):
    return ((net(*batch) - 1) ** 2).mean()


@pytest.fixture
def model():
    return nnx_net(nnx.Rngs(0))


def test_nnx_tied_layers_stand_under_both_names_and_are_counted_once(model):
    tree = pt.open(model)
    assert tree.ties == (("layers.2.kernel", "layers.4.kernel"), ("layers.2.bias", "layers.4.bias"))
    assert tree.size == sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 121
    assert tree.expanded_size == 193
    assert tree["layers.4.bias"].native == "net.layers[4].bias"


def test_nnx_a_change_through_one_name_is_seen_through_the_other(model):
    tree = pt.open(model)
    model.layers[2].kernel[0, 0] = 100
    assert tree["layers.2.kernel"][0, 0] == tree["layers.4.kernel"][0, 0] == 100
    assert pt.update(model, {"layers.4.kernel": 2}) is model
    assert (model.layers[2].kernel[...] == 2).all()
    assert (tree["layers.2.kernel"].value == 2).all()


def test_nnx_gradients_of_tied_layers_are_added_together(model):
    theirs = nnx.grad(nnx_squares)(model, X)
    found = pt.gradients(model, nnx_squares, X, per_use=True)
    tree = pt.open(model, grads=theirs)
    for name in ("layers.2.kernel", "layers.4.kernel"):
        np.testing.assert_array_equal(tree[name].grad, theirs["layers"][2]["kernel"][...])
        np.testing.assert_array_equal(found[name], theirs["layers"][2]["kernel"][...])
        assert len(found.uses[name]) == 2
    twin = pt.gradients(pt.untie(model, "layers.4.kernel", "layers.4.bias"), nnx_squares, X)
    for use, name in zip(found.uses["layers.2.kernel"], ("layers.2.kernel", "layers.4.kernel"), strict=True):
        np.testing.assert_allclose(use.gradient, twin[name], rtol=1e-5, atol=1e-8)


def train(model, optimizer, steps, wrt=nnx.Param):
    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(nnx_squares, argnums=nnx.DiffState(0, wrt))(model, X)
        optimizer.update(model, grads)
        return loss

    return [float(step(model, optimizer)) for _ in range(steps)]


def test_nnx_a_tie_that_is_made_is_the_frameworks_own_and_survives_training(model):
    model = pt.untie(model, "layers.4.kernel", "layers.4.bias")
    assert model.layers[2] is not model.layers[4]
    assert pt.open(model).ties == ()
    assert pt.tie(model, "layers.2.kernel", "layers.4.kernel") is model
    assert model.layers[2].kernel is model.layers[4].kernel
    losses = train(model, nnx.Optimizer(model, optax.adam(0.05), wrt=nnx.Param), 10)
    assert losses[-1] < losses[0]
    assert pt.open(model).ties == (("layers.2.kernel", "layers.4.kernel"),)
    assert (model.layers[2].bias[...] != model.layers[4].bias[...]).any(), "the untied ones learn apart"


def test_nnx_a_frozen_layer_does_not_learn_and_the_others_do(model):
    """As in the documentation of ``pt.freeze``: the mask is a filter, for optimizer and gradient."""
    parted = pt.freeze(model, "layers.4.kernel")
    before = {name: np.array(param.value) for name, param in pt.open(model).items()}
    train(model, nnx.Optimizer(model, optax.sgd(0.5), wrt=parted.mask), 1, wrt=parted.mask)
    changed = {name for name, param in pt.open(model).items() if (param.value != before[name]).any()}
    assert changed == set(before) - {"layers.2.kernel", "layers.4.kernel"}


def test_nnx_the_parts_make_a_model(model):
    parted = pt.freeze(model, "layers.0.**")
    whole = parted.merge(parted.trainable, parted.frozen)
    assert whole is not model
    np.testing.assert_array_equal(whole(X), model(X))
    assert [*pt.open(pt.freeze(parted, "layers.2.**").trainable)] == ["layers.6.bias", "layers.6.kernel"]


def test_nnx_groups_are_what_optax_takes(model):
    found = pt.groups(model, {"**.bias": {"learning_rate": 0.0}})
    rates = {label: options.get("learning_rate", 0.5) for label, options in found.options.items()}
    assert rates == {"**.bias": 0.0, "default": 0.5}
    optimizer = optax.multi_transform({label: optax.sgd(rate) for label, rate in rates.items()}, found.labels)
    before = {name: np.array(param.value) for name, param in pt.open(model).items()}
    train(model, nnx.Optimizer(model, optimizer, wrt=nnx.Param), 1)
    changed = {name for name, param in pt.open(model).items() if (param.value != before[name]).any()}
    assert changed == {name for name in before if name.endswith("kernel")}
