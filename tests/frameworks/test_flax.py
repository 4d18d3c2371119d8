"""Flax as trees: what linen and NNX have beyond a pytree, and what each refuses."""

import copy

import numpy as np
import pytest

import paratree as pt

jax = pytest.importorskip("jax", reason="could not import jax; these tests need it")
flax = pytest.importorskip("flax", reason="could not import flax; these tests need it")
nnx = pytest.importorskip("flax.nnx", reason="could not import flax; these tests need it")
optax = pytest.importorskip("optax", reason="could not import optax; these tests need it")

jnp, nn = jax.numpy, flax.linen
KEY = jax.random.key(0)
IMAGES = jnp.ones((2, 6, 6, 3))


def flat(tree):
    return {".".join(path): leaf for path, leaf in flax.traverse_util.flatten_dict(tree).items()}


# Linen: modules that have no parameters yet


def names_after_init(net, batch):
    variables = net.init(KEY, batch)
    return {name: leaf.shape for held in variables.values() for name, leaf in flat(held).items()}


def dense(features):
    return nn.Dense(features, use_bias=False)


shared = nn.Dense(3)
MODULES = [
    nn.Dense(3),
    nn.Conv(4, (2, 3)),
    nn.Conv(4, 3),
    nn.ConvTranspose(3, (2, 2)),
    nn.ConvTranspose(3, (2, 2), transpose_kernel=True),
    nn.DenseGeneral((2, 3), axis=(-2, -1)),
    nn.DenseGeneral(5),
    nn.LayerNorm(),
    nn.LayerNorm(reduction_axes=(-2, -1), feature_axes=(-2, -1)),
    nn.GroupNorm(1),
    nn.RMSNorm(),
    nn.InstanceNorm(use_bias=False),
    nn.BatchNorm(use_running_average=True),
    nn.Sequential([dense(2), nn.Sequential([nn.relu, dense(3)]), nn.Dropout(0.5, deterministic=True)]),
    nn.Sequential([nn.Dense(2, name="called"), nn.BatchNorm(use_running_average=True)]),
    nn.Sequential([shared, nn.relu, shared]),
    nn.Sequential([shared, shared, *[nn.relu] * 8, shared, dense(2)]),
]


@pytest.mark.parametrize("net", MODULES)
def test_what_is_known_before_init_is_so_after_it(net):
    known = {name: param.shape for name, param in pt.open(net).items()}
    truth = names_after_init(net, IMAGES)
    assert [*known] == [*truth]
    for name, shape in truth.items():
        assert len(known[name]) == len(shape)
        assert all(ours in (None, theirs) for ours, theirs in zip(known[name], shape, strict=True))
    assert pt.open(net).notes == ()


def test_an_embedding_is_known_in_full():
    embed = nn.Embed(5, 3, param_dtype=jnp.bfloat16)
    param = pt.open(embed)["embedding"]
    assert (param.shape, param.dtype, param.layout) == ((5, 3), "bfloat16", "vocabulary dimension")


def test_running_statistics_are_known_to_be_buffers():
    tree = pt.open(nn.BatchNorm(use_running_average=True, param_dtype=jnp.bfloat16))
    assert {name: (param.kind, param.dtype, param.trainable) for name, param in tree.items()} == {
        "mean": ("buffer", "float32", False), "var": ("buffer", "float32", False),
        "scale": ("parameter", "bfloat16", True), "bias": ("parameter", "bfloat16", True),
    }  # fmt: skip


def test_what_cannot_be_known_is_told():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x)

    tree = pt.open(Net())
    assert (len(tree), tree.notes) == (0, ("a Net makes its parameters in net.init(key, X)",))
    tree = pt.open(nn.Sequential([Net(), nn.Dense(2)]))
    assert [*tree] == ["layers_1.kernel", "layers_1.bias"]
    assert tree.notes == ("layers_0: a Net makes its parameters in net.init(key, X)",)


def test_a_module_that_is_not_initialised_can_be_neither_read_nor_changed():
    net = nn.Dense(3)
    assert pt.open(net)["kernel"].native is None
    with pytest.raises(
        pt.UnreadableError, match=r"kernel: not initialised yet; run params = net.init\(key, X\)"
    ):
        pt.update(net, {"kernel": 0})
    for change in (lambda: pt.freeze(net, "kernel"), lambda: pt.groups(net, {"kernel": {}})):
        with pytest.raises(pt.UnsupportedError, match="Dense: not initialised yet"):
            change()


def test_a_bound_module_shows_its_variables_and_is_not_changed():
    net = nn.Dense(3)
    bound = net.bind(net.init(KEY, jnp.ones((1, 2))))
    tree = pt.open(bound)
    assert tree["kernel"].native == "net.variables['params']['kernel']"
    np.testing.assert_array_equal(tree["kernel"].value, bound.variables["params"]["kernel"])
    with pytest.raises(
        pt.UnsupportedError, match=r"net, variables = net.unbind\(\), and change the variables"
    ):
        pt.update(bound, {"kernel": 0})


# Linen: collections


def test_collections_are_kinds_and_no_part_of_names():
    variables = {
        "params": {"a": {"w": jnp.ones(1)}},
        "batch_stats": {"a": {"mean": jnp.ones(1)}},
        "cache": {"a": {"index": jnp.array(0)}},
        "intermediates": {"a": {"hidden": (jnp.ones(1),)}},
        "perturbations": {"a": {"hidden": jnp.ones(1)}},
        "mine": {"a": {"moving": jnp.ones(1)}},
    }
    tree = pt.open(variables)
    assert {name: param.kind for name, param in tree.items()} == {
        "a.w": "parameter", "a.mean": "buffer", "a.index": "buffer", "a.hidden.0": "other",
        "a.hidden": "other",
        "a.moving": "buffer",
    }  # fmt: skip
    assert tree["params.a.w"] is tree["a.w"]


def test_a_name_in_two_collections_keeps_its_collection_outside_the_parameters():
    variables = {"cache": {"a": {"w": jnp.ones(2)}}, "params": {"a": {"w": jnp.ones(1)}}}
    assert {name: param.shape for name, param in pt.open(variables).items()} == {
        "cache.a.w": (2,),
        "a.w": (1,),
    }


def test_what_apply_returns_beside_the_output_opens_too():
    net = nn.BatchNorm(use_running_average=False)
    _, updated = net.apply(net.init(KEY, IMAGES), IMAGES, mutable=["batch_stats"])
    assert [*updated] == ["batch_stats"]
    assert [*pt.open(updated)] == ["batch_stats.mean", "batch_stats.var"]


def test_a_dict_with_other_things_beside_params_is_no_variables():
    tree = pt.open({"params": {"w": jnp.ones(1)}, "count": jnp.array(1)})
    assert [*tree] == ["params.w", "count"]


def test_boxes_with_the_names_of_axes_are_no_part_of_names():
    layer = nn.Dense(3, kernel_init=nn.with_partitioning(nn.initializers.ones, ("data", "model")))
    params = layer.init(KEY, jnp.ones((1, 2)))
    assert type(params["params"]["kernel"]).__name__ == "Partitioned"
    tree = pt.open(params)
    assert tree["kernel"].native == "params['params']['kernel'].value"
    assert eval(tree["kernel"].native) is tree["kernel"].handle
    new = pt.update(params, {"kernel": 2})
    assert new["params"]["kernel"].names == ("data", "model")
    assert (new["params"]["kernel"].value == 2).all()


def test_a_frozen_dict_stays_one():
    params = flax.core.freeze({"params": {"b": jnp.ones(1), "a": {"w": jnp.ones(2), "v": jnp.ones(2)}}})
    assert [*pt.open(params)] == ["b", "a.w", "a.v"]
    new = pt.update(params, {"**": 0})
    tied = pt.tie(params, "a.w", "a.v")
    parted = pt.freeze(params, "b")
    for tree in (new, tied.variables, tied.expand(tied.variables), parted.mask, parted.trainable):
        assert type(tree) is flax.core.FrozenDict
    assert [*pt.open(tied.expand(tied.variables))] == ["b", "a.w", "a.v"]


def test_the_running_statistics_are_not_kept_by_gradients():
    net = nn.Sequential([nn.Dense(3), nn.BatchNorm(use_running_average=False)])
    variables = net.init(KEY, jnp.ones((4, 2)))
    batch = jax.random.normal(KEY, (4, 2))

    def loss(variables, batch):
        output, updated = net.apply(variables, batch, mutable=["batch_stats"])
        assert {*updated} == {"batch_stats"}
        return (output**3).mean()

    found = pt.gradients(variables, loss, batch)
    assert [*found] == ["layers_0.kernel", "layers_0.bias", "layers_1.scale", "layers_1.bias"]
    assert not variables["batch_stats"]["layers_1"]["mean"].any()


# NNX


class Block(nnx.Module):
    def __init__(self, rngs):
        self.second = nnx.Linear(4, 4, rngs=rngs)
        self.first = nnx.Linear(4, 4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.raw = nnx.data(jnp.zeros(3))
        self.size = 4

    def __call__(self, x):
        return self.norm(self.drop(self.second(nnx.relu(self.first(x)))))


def squares(net, x):
    return (net(x) ** 2).mean()


X = jax.random.normal(KEY, (2, 4))


def test_nnx_names_stand_in_the_order_of_definition_and_kinds_follow_the_variables():
    tree = pt.open(Block(nnx.Rngs(0)))
    assert {name: param.kind for name, param in tree.items()} == {
        "second.kernel": "parameter", "second.bias": "parameter", "first.kernel": "parameter",
        "first.bias": "parameter", "drop.rngs.key": "other", "drop.rngs.count": "other",
        "norm.mean": "buffer",
        "norm.var": "buffer", "norm.scale": "parameter", "norm.bias": "parameter", "raw": "buffer",
    }  # fmt: skip
    assert tree["first.kernel"].layout == "in out"


@pytest.mark.parametrize("kind", [nnx.Cache, nnx.Intermediate, nnx.LoRAParam, nnx.OptState, nnx.Variable])
def test_nnx_kinds_of_variables(kind):
    expected = {nnx.Intermediate: "other", nnx.LoRAParam: "parameter", nnx.OptState: "state"}.get(
        kind, "buffer"
    )
    assert pt.open(nnx.Dict(v=kind(jnp.ones(1))))["v"].kind == expected


def test_nnx_layouts():
    rngs = nnx.Rngs(0)
    net = nnx.List([
        nnx.Conv(2, 3, (4, 4), rngs=rngs), nnx.ConvTranspose(2, 3, (4,), rngs=rngs),
        nnx.ConvTranspose(2, 3, (4,), transpose_kernel=True, rngs=rngs), nnx.Embed(5, 6, rngs=rngs),
        nnx.LayerNorm(3, rngs=rngs), nnx.LinearGeneral(2, (3, 4), rngs=rngs),
    ])  # fmt: skip
    assert {name: param.layout for name, param in pt.open(net).items() if not name.endswith("bias")} == {
        "0.kernel": "height width in out", "1.kernel": "length in out", "2.kernel": "length out in",
        "3.embedding": "vocabulary dimension", "4.scale": "channel", "5.kernel": None,
    }  # fmt: skip


def test_nnx_containers_inside_models_have_expressions():
    net = nnx.Dict(
        {"a-1": nnx.List([nnx.Param(jnp.ones(1))]), "b": nnx.data({"c": (nnx.Param(jnp.ones(2)),)})}
    )
    tree = pt.open(net)
    assert {name: param.native for name, param in tree.items()} == {
        "a-1.0": "net['a-1'][0]",
        "b.c.0": "net['b']['c'][0]",
    }
    assert all(eval(param.native, {"net": net}) is param.handle for param in tree.values())
    with pytest.raises(pt.UnsupportedError, match=r"b.c.0: a tuple cannot be changed in place"):
        pt.tie(nnx.Dict(a=nnx.Param(jnp.ones(2)), b=nnx.data(net["b"])), "a", "b.c.0")


def test_nnx_a_model_that_holds_itself_is_walked_once():
    net = nnx.Dict(w=nnx.Param(jnp.ones(1)))
    net["me"] = net
    assert [*pt.open(net)] == ["w"]


def test_nnx_a_shared_module_stands_under_every_path():
    layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    tree = pt.open(nnx.Dict(a=layer, b=nnx.Dict(c=layer)))
    assert tree.ties == (("a.kernel", "b.c.kernel"), ("a.bias", "b.c.bias"))


def test_nnx_one_parameter_of_a_shared_module_is_parted_and_the_other_stays_tied():
    layer = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    net = nnx.Dict(a=layer, b=nnx.Dict(c=layer))
    pt.untie(net, "b.c.kernel")
    assert net["a"] is layer
    assert pt.open(net).ties == (("a.bias", "b.c.bias"),)
    np.testing.assert_array_equal(net["b"]["c"].kernel[...], layer.kernel[...])


def test_nnx_a_parted_variable_keeps_its_type_and_metadata():
    variable = nnx.LoRAParam(jnp.ones(2), mine="x")
    net = nnx.Dict(a=variable, b=variable)
    pt.untie(net, "b")
    assert (type(net["b"]), net["b"].get_metadata("mine")) == (nnx.LoRAParam, "x")
    assert net["b"] is not variable


def test_nnx_gradients_leave_the_model_as_it_was():
    model = Block(nnx.Rngs(0))
    before = copy.deepcopy(jax.tree.map(np.asarray, nnx.as_pure(nnx.state(model, nnx.Not(nnx.RngKey)))))
    variables = [variable for _, variable in nnx.to_flat_state(nnx.state(model))]
    found = pt.gradients(model, squares, X, per_use=True)
    after = jax.tree.map(np.asarray, nnx.as_pure(nnx.state(model, nnx.Not(nnx.RngKey))))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert all(a is b for a, (_, b) in zip(variables, nnx.to_flat_state(nnx.state(model)), strict=True))
    theirs = nnx.grad(squares)(model, X)
    np.testing.assert_array_equal(found["first.kernel"], theirs["first"]["kernel"][...])
    assert model.norm.mean[...].any(), "nnx.grad, by contrast, keeps the running statistics"


def test_nnx_gradients_of_another_model_are_refused():
    model = Block(nnx.Rngs(0))
    grads = nnx.grad(squares)(model, X)
    tree = pt.open(model, grads=grads)
    np.testing.assert_array_equal(tree["norm.scale"].grad, grads["norm"]["scale"][...])
    assert tree["norm.mean"].grad is None
    with pytest.raises(pt.MismatchError, match=r"grads: no parameter 'bias' in Block"):
        pt.open(model, grads=nnx.state(nnx.Linear(2, 2, rngs=nnx.Rngs(0))))
    other = nnx.state(nnx.Dict(first=nnx.Linear(2, 2, rngs=nnx.Rngs(0))))
    with pytest.raises(
        pt.MismatchError, match=r"grads: 'first.bias' has the shape \(2,\), its parameter \(4,\)"
    ):
        pt.open(model, grads=other)


def test_nnx_an_array_without_a_variable_is_replaced_and_never_tied():
    array = jnp.zeros(3)
    net = nnx.Dict(a=nnx.data(array), b=nnx.data(array))
    assert pt.open(net).ties == ()
    assert pt.update(net, {"a": 1}) is net
    assert (net["a"].sum(), net["b"].sum()) == (3, 0)
    with pytest.raises(pt.UnsupportedError, match=r"a: an array without a variable has no identity"):
        pt.tie(net, "a", "b")


def test_nnx_what_is_no_array_is_told():
    net = nnx.Dict(a=nnx.Param(jnp.ones(1)), b=nnx.Variable({"x": jnp.ones(1)}), c=nnx.Variable(3))
    tree = pt.open(net)
    assert {name: (param.shape, param.dtype) for name, param in tree.items()} == {
        "a": ((1,), "float32"), "c": ((), "int64"),
    }  # fmt: skip
    assert tree.notes == ("b holds no array, but a dict: not listed",)


def test_nnx_shapes_alone_are_listed_and_not_read():
    tree = pt.open(nnx.eval_shape(lambda: nnx.Linear(2, 3, rngs=nnx.Rngs(0))))
    assert tree["kernel"].shape == (2, 3)
    with pytest.raises(pt.UnreadableError, match=r"kernel: a shape without values, as of jax.eval_shape"):
        _ = tree["kernel"].value


def test_nnx_a_changed_model_is_seen_through_an_open_tree():
    net = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tree = pt.open(net)
    net.kernel[...] = jnp.full((2, 3), 7.0)
    assert (tree["kernel"].value == 7).all()
    net.kernel.set_value(jnp.ones((2, 3), "bfloat16"))
    assert (tree["kernel"].dtype, tree["kernel"].nbytes) == ("bfloat16", 12)


def test_nnx_a_variable_that_computes_its_value_is_read_as_its_users_read_it():
    class Doubled(nnx.Param):
        def get_value(self, **options):
            return super().get_value(**options) * 2

    assert pt.open(nnx.Dict(w=Doubled(jnp.ones(2))))["w"].value.tolist() == [2, 2]


def test_nnx_states_and_single_variables_open_too():
    model = Block(nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    tree = pt.open(state)
    assert {*tree} == {name for name, param in pt.open(model).items() if param.kind == "parameter"}
    assert tree["first.kernel"].native == "params['first']['kernel']"
    assert pt.update(state, {"first.bias": 3}) is state
    variable = nnx.Param(jnp.ones(2))
    assert pt.open(variable)["parameter"].handle is variable
    pure = nnx.as_pure(state)
    new = pt.update(pure, {"first.bias": 5})
    assert type(new) is type(pure)
    assert (new["first"]["bias"] == 5).all()
    assert (pure["first"]["bias"] == 3).all(), "a state of arrays is a pytree like any other"


def test_nnx_an_optimizer_has_state_and_no_parameters():
    model = Block(nnx.Rngs(0))
    tree = pt.open(nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param))
    assert {param.kind for param in tree.values()} == {"state"}
    assert {*tree} >= {
        "step",
        "opt_state.0.count",
        "opt_state.0.mu.first.kernel",
        "opt_state.0.nu.norm.scale",
    }
    assert tree["opt_state.0.mu.first.kernel"].native == "net.opt_state[0].mu['first']['kernel']"


def test_nnx_models_in_a_container_open_together():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    tree = pt.open({"model": model, "copy": nnx.clone(model)})
    assert [*tree["model"]] == ["kernel", "bias"]
    assert [*tree["copy"]] == ["bias", "kernel"], "nnx.merge sets attributes in the order of the alphabet"
    assert tree.ties == ()
    assert tree["model.kernel"].native == "params['model'].kernel"


def test_opening_a_model_moves_nothing_from_or_to_a_device():
    model = Block(nnx.Rngs(0))
    with jax.transfer_guard("disallow"):
        tree = pt.open(model)
        assert "Block" in repr(tree) + str(tree.ties) + str(tree.size)
    arrays = [variable.get_raw_value() for _, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    assert all(array._npy_value is None for array in arrays)
