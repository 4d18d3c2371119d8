"""Pytrees of JAX as trees: names, kinds, values, what cannot be read, what is no array."""

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

import paratree as pt

jax = pytest.importorskip("jax", reason="could not import jax; these tests need it")
eqx = pytest.importorskip("equinox", reason="could not import equinox; these tests need it")
hk = pytest.importorskip("haiku", reason="could not import haiku; these tests need it")
optax = pytest.importorskip("optax", reason="could not import optax; these tests need it")

from paratree.frameworks import jax as adapter  # noqa: E402 -- it imports JAX

jnp = jax.numpy
KEY = jax.random.key(0)


class Layer(NamedTuple):
    w: object
    b: object


def each_expression_gives_its_handle(tree, params):
    names = {"net": params, "params": params, "jax": jax}
    return all(eval(param.native, names) is param.handle for param in tree.values())


# Names, order, expressions


def test_keys_stand_in_the_order_of_their_containers_where_jax_sorts_them():
    params = {"z": jnp.ones(1), "a": {"y": jnp.ones(1), "b": jnp.ones(1)}}
    assert [*pt.open(params)] == ["z", "a.y", "a.b"]
    assert [path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(params)] == ["a", "a", "z"]


@pytest.mark.parametrize(
    ("params", "names"),
    [
        (
            [jnp.ones(1), (jnp.ones(2), jnp.ones(3))],
            {"0": "params[0]", "1.0": "params[1][0]", "1.1": "params[1][1]"},
        ),
        (Layer(jnp.ones(1), jnp.ones(2)), {"w": "params.w", "b": "params.b"}),
        ({1: jnp.ones(1), "it's": jnp.ones(2)}, {"1": "params[1]", "it's": 'params["it\'s"]'}),
        (OrderedDict(b=jnp.ones(1), a=jnp.ones(2)), {"b": "params['b']", "a": "params['a']"}),
        (defaultdict(list, b=[jnp.ones(1)]), {"b.0": "params['b'][0]"}),
        ({"mlp/~/linear_0": {"w": jnp.ones(1)}}, {"mlp/~/linear_0.w": "params['mlp/~/linear_0']['w']"}),
        (jnp.ones(3), {"parameter": "params"}),
        ({"a": None, "b": [], "c": jnp.ones(1)}, {"c": "params['c']"}),
    ],
)
def test_names_and_expressions_of_containers(params, names):
    tree = pt.open(params)
    assert {name: param.native for name, param in tree.items()} == names
    assert each_expression_gives_its_handle(tree, params)


def test_a_registered_class_opens_though_its_package_is_unknown():
    @jax.tree_util.register_dataclass
    @dataclass
    class Params:
        weight: object
        bias: object

    tree = pt.open(Params(jnp.ones((2, 3)), jnp.ones(3)))
    assert {name: param.native for name, param in tree.items()} == {
        "weight": "net.weight",
        "bias": "net.bias",
    }
    assert tree.source == "Params"
    new = pt.update(Params(jnp.ones(2), jnp.ones(3)), {"bias": 4})
    assert (new.bias == 4).all()


def test_a_class_registered_without_keys_goes_by_its_attributes():
    class Pair:
        def __init__(self, left, right):
            self.left, self.right = left, right

    jax.tree_util.register_pytree_node(Pair, lambda p: ((p.left, p.right), None), lambda _, c: Pair(*c))
    params = {"pair": Pair(jnp.ones(1), [jnp.ones(2)])}
    tree = pt.open(params)
    assert {name: param.native for name, param in tree.items()} == {
        "pair.left": "params['pair'].left",
        "pair.right.0": "params['pair'].right[0]",
    }
    assert isinstance(pt.update(params, {"**": 0})["pair"], Pair)


def test_a_class_that_hides_its_children_is_reached_through_jax():
    _, state = eqx.nn.make_with_state(lambda: eqx.nn.BatchNorm(4, axis_name="b", mode="batch"))()
    params = {"state": state}
    tree = pt.open(params)
    assert len(tree) == 3
    assert each_expression_gives_its_handle(tree, params)
    assert {param.kind for param in tree.values()} == {"buffer"}


def test_names_that_would_be_the_same_are_told_apart():
    tree = pt.open({"a.b": jnp.ones(1), "a": {"b": jnp.ones(2)}})
    assert {name: param.shape for name, param in tree.items()} == {"a.b": (1,), "a.b#2": (2,)}
    assert tree.notes == ("two leaves are called a.b: another is a.b#2",)


def test_hostile_keys_are_escaped_in_messages():
    tree = pt.open({"a\x1b[31m": jax.ShapeDtypeStruct((1,), "float32")})
    with pytest.raises(pt.UnreadableError) as error:
        _ = tree["a\x1b[31m"].value
    assert "\x1b" not in str(error.value)


# Kinds, and what is no array


def test_integers_and_keys_are_no_parameters():
    tree = pt.open({"w": jnp.ones(2), "step": jnp.array(3), "rng": KEY, "old": jax.random.PRNGKey(0)})
    assert {name: param.kind for name, param in tree.items()} == {
        "w": "parameter", "step": "buffer", "rng": "other", "old": "buffer",
    }  # fmt: skip
    assert {name: param.trainable for name, param in tree.items()} == {
        "w": None, "step": False, "rng": False, "old": False,
    }  # fmt: skip


def test_the_running_statistics_of_haiku_are_buffers():
    def forward(x):
        return hk.BatchNorm(True, True, 0.9)(x, is_training=True)

    params, state = hk.transform_with_state(forward).init(KEY, jnp.ones((2, 4)))
    assert {param.kind for param in pt.open(params).values()} == {"parameter"}
    assert {param.kind for param in pt.open(state).values()} == {"buffer"}


def test_what_optax_holds_is_the_state_of_an_optimizer():
    params = {"a": {"w": jnp.ones((2, 3))}}
    state = optax.chain(optax.clip(1.0), optax.adamw(optax.linear_schedule(1.0, 0.0, 3))).init(params)
    tree = pt.open(state)
    assert {param.kind for param in tree.values()} == {"state"}
    assert [name for name in tree if name.endswith("a.w")] == ["1.0.mu.a.w", "1.0.nu.a.w"]
    whole = pt.open({"params": params, "opt_state": state})
    assert [name for name, param in whole.items() if param.kind == "parameter"] == ["params.a.w"]


def test_plain_values_stand_beside_the_parameters():
    tree = pt.open({"w": jnp.ones(1), "lr": 0.5, "model": {"depth": 3, "name": "mlp"}})
    assert [*tree] == ["w"]
    assert tree.meta == {"lr": 0.5, "model": {"depth": 3, "name": "mlp"}}


def test_what_is_no_array_is_told():
    assert pt.open({"w": jnp.ones(1), "x": object()}).notes == ("x is no array, but a object: not listed",)
    assert pt.open(eqx.nn.MLP(2, 2, 2, 1, key=KEY)).notes == (), "functions belong to the model"


def test_what_holds_no_array_is_not_recognised():
    for source in ({"a": 1}, {"a": None}, [], object(), {"f": print}):
        with pytest.raises(pt.UnknownSourceError):
            pt.open(source)


def test_arrays_of_numpy_alone_open_where_jax_is_imported():
    params = jax.device_get({"a": {"w": jnp.ones((2, 3))}})
    assert isinstance(params["a"]["w"], np.ndarray)
    tree = pt.open(params)
    assert tree["a.w"].value is params["a"]["w"]
    new = pt.update(params, {"a.w": 2})
    assert isinstance(new["a"]["w"], np.ndarray)
    assert (params["a"]["w"] == 1).all()


def test_arrays_of_numpy_beside_those_of_jax_keep_their_type():
    params = {"n": np.ones(2, np.float32), "s": np.float32(1), "j": jnp.ones(2)}
    assert [*pt.open(params)] == ["n", "s", "j"]
    new = pt.update(params, {"**": 3})
    assert [type(new[name]) is type(params[name]) for name in params] == [True, True, True]
    assert pt.gradients(params, lambda p: (p["n"] * p["j"]).sum() * p["s"])["s"] == 2


# Values


DTYPES = [
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "float32", "bfloat16",
    "complex64",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e4m3", "float8_e3m4", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu",
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_reads_as_itself(dtype):
    array = jnp.arange(1, 5).astype(dtype).reshape(2, 2)
    param = pt.open({"w": array})["w"]
    assert (param.dtype, param.value.dtype.name, param.nbytes) == (dtype, dtype, array.nbytes)
    assert param.value.tobytes() == np.asarray(array).tobytes()
    new = pt.update({"w": array}, {"w": lambda w: w[::-1]})["w"]
    assert new.dtype == array.dtype
    assert np.asarray(new).tobytes() == np.asarray(array)[::-1].tobytes()


def test_64_bit_dtypes_read_as_themselves():
    with jax.enable_x64(True):
        arrays = {name: jnp.arange(3).astype(name) for name in ("int64", "uint64", "float64", "complex128")}
        assert {name: param.dtype for name, param in pt.open(arrays).items()} == {
            name: name for name in arrays
        }
        assert pt.update(arrays, {"float64": 1 / 3})["float64"][0] == 1 / 3


@pytest.mark.parametrize("dtype", ["int4", "uint4", "int2"])
def test_integers_narrower_than_a_byte_read_as_themselves(dtype):
    param = pt.open({"q": jnp.ones(3, dtype)})["q"]
    assert (param.dtype, param.shape) == (dtype, (3,))
    assert param.value.dtype.name == dtype
    assert param.value.astype(int).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "index", [..., 0, -1, slice(None, None, -2), (slice(1, 1), 0), (1, slice(2, None)), (2, 3)]
)
def test_a_part_is_what_numpy_takes(index):
    array = jnp.arange(12.0).reshape(3, 4)
    part = pt.open({"w": array})["w"][index]
    assert isinstance(part, np.ndarray)
    np.testing.assert_array_equal(part, np.asarray(array)[index])


@pytest.mark.parametrize("index", [3, (0, 4), (0, 0, 0)])
def test_an_index_that_does_not_fit_is_an_error_though_jax_clamps_it(index):
    with pytest.raises(IndexError):
        _ = pt.open({"w": jnp.ones((3, 4))})["w"][index]


def test_opening_moves_nothing_from_or_to_a_device():
    params = {"w": jnp.ones((2, 3)), "k": KEY}
    with jax.transfer_guard("disallow"):
        tree = pt.open(params)
        text = repr(tree) + repr(tree["w"]) + str(tree.ties) + str(tree.size)
        with pytest.raises(Exception, match="transfer"):
            _ = jnp.ones(3) + np.ones(3)
    assert "6 values" in text
    assert params["w"]._npy_value is None, "no copy for NumPy was made"


def test_an_update_stays_where_the_array_was():
    committed = jax.device_put(jnp.ones(3), jax.devices()[0])
    new = pt.update({"a": committed, "b": jnp.ones(3)}, {"**": 2})
    assert (new["a"].sharding, new["a"].committed, new["b"].committed) == (committed.sharding, True, False)


def test_an_update_does_not_share_the_memory_of_what_was_given():
    values = np.ones(1024, np.float32)
    new = pt.update({"w": jnp.zeros(1024), "n": np.zeros(1024, np.float32)}, {"**": values})
    values[:] = 7
    assert (new["w"] == 1).all()
    assert (new["n"] == 1).all()


# What cannot be read


def refused(param):
    with pytest.raises(pt.UnreadableError) as error:
        _ = param.value
    assert str(error.value) == param.array.problem
    return str(error.value)


def test_shapes_alone_are_listed_and_not_read():
    params = jax.eval_shape(lambda: {"w": jnp.ones((2, 3), "bfloat16")})
    tree = pt.open(params)
    assert (tree["w"].shape, tree["w"].dtype, tree.nbytes) == ((2, 3), "bfloat16", 12)
    assert "as of jax.eval_shape; call the function itself and open what it returns" in refused(tree["w"])
    assert pt.open({"a": params["w"], "b": params["w"]}).ties == (), "a shape has no identity"


@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.make_jaxpr, jax.vmap])
def test_a_tracer_is_listed_and_not_read(transform):
    seen = []

    def function(params):
        tree = pt.open(params)
        seen.extend((tree["w"].shape[-1], refused(tree["w"])))
        return params["w"].sum()

    transform(function)({"w": jnp.ones((2, 3))})
    words = "w: a tracer has no values; open it outside the function that JAX transforms (jit, grad, vmap)"
    assert seen == [3, words]


def test_a_deleted_array_is_listed_and_not_read():
    params = {"w": jnp.ones((2, 3))}
    tree = pt.open(params)
    params["w"].delete()
    assert tree["w"].shape == (2, 3)
    assert "w: its memory is gone" in refused(tree["w"])
    assert "open what that returned" in refused(pt.open(params)["w"])
    with pytest.raises(pt.UnreadableError, match="its memory is gone"):
        pt.gradients(params, lambda p: p["w"].sum())


def test_a_donated_array_is_refused():
    params = {"w": jnp.ones((2, 3))}
    jax.jit(lambda p: jax.tree.map(lambda x: x + 1, p), donate_argnums=0)(params)
    assert "donate_argnums" in refused(pt.open(params)["w"])


def test_a_key_says_how_to_get_its_data():
    tree = pt.open({"rng": jax.random.split(KEY, 3)})
    assert (tree["rng"].shape, tree["rng"].dtype, tree["rng"].kind) == ((3,), "key<fry>", "other")
    assert "jax.random.key_data(key)" in refused(tree["rng"])


def test_a_mutable_reference_is_read_as_it_is_now():
    ref = jax.new_ref(jnp.zeros(3))
    tree = pt.open({"r": ref})
    ref[...] = jnp.ones(3)
    assert (tree["r"].value == 1).all()


# Equinox


def test_equinox_layers_have_layouts():
    class Net(eqx.Module):
        linear: eqx.nn.Linear
        conv: eqx.nn.Conv2d
        turned: eqx.nn.ConvTranspose1d
        norm: eqx.nn.LayerNorm
        embed: eqx.nn.Embedding
        cell: eqx.nn.GRUCell

    net = Net(
        eqx.nn.Linear(2, 3, key=KEY), eqx.nn.Conv2d(2, 3, 4, key=KEY),
        eqx.nn.ConvTranspose1d(2, 3, 4, key=KEY),
        eqx.nn.LayerNorm(4), eqx.nn.Embedding(5, 6, key=KEY), eqx.nn.GRUCell(2, 3, key=KEY),
    )  # fmt: skip
    layouts = {name: param.layout for name, param in pt.open(net).items()}
    assert layouts == {
        "linear.weight": "out in", "linear.bias": "out", "conv.weight": "out in height width",
        "conv.bias": None,
        "turned.weight": "out in length", "turned.bias": None, "norm.weight": "channel",
        "norm.bias": "channel",
        "embed.weight": "vocabulary dimension", "cell.weight_ih": "gates in",
        "cell.weight_hh": "gates hidden",
        "cell.bias": "gates", "cell.bias_n": None,
    }  # fmt: skip


def test_equinox_gradients_pair_with_the_model():
    model = eqx.nn.MLP(2, 1, 3, 1, key=KEY)
    grads = eqx.filter_grad(lambda m: m(jnp.ones(2)).sum())(model)
    tree = pt.open(model, grads=grads)
    np.testing.assert_array_equal(tree["layers.0.weight"].grad, grads.layers[0].weight)
    with pytest.raises(pt.MismatchError, match=r"grads: 'layers.1.weight' has the shape \(3, 3\), its"):
        pt.open(model, grads=eqx.nn.MLP(2, 1, 3, 2, key=KEY))
    with pytest.raises(pt.MismatchError, match=r"grads: no parameter 'weight' in MLP"):
        pt.open(model, grads=eqx.nn.Linear(2, 3, key=KEY))


def test_a_frozen_equinox_model_trains_the_rest():
    model = eqx.nn.MLP(2, 1, 3, 1, key=KEY)
    parted = pt.freeze(model, "layers.0.**")
    grads = jax.grad(lambda t: (parted.merge(t, parted.frozen)(jnp.ones(2)) - 1).sum() ** 2)(parted.trainable)
    trained = jax.tree.map(lambda leaf, g: leaf - g, parted.trainable, grads)
    new = eqx.combine(trained, parted.frozen)
    assert new.layers[0].weight is model.layers[0].weight
    assert (new.layers[1].weight != model.layers[1].weight).any()
    assert jax.tree.structure(new) == jax.tree.structure(model)


def test_an_equinox_tie_leaves_none_in_the_reduced_model():
    model = eqx.nn.MLP(2, 2, 2, 1, key=KEY)
    tied = pt.tie(model, "layers.0.weight", "layers.1.weight")
    assert tied.variables.layers[1].weight is None
    whole = tied.expand(tied.variables)
    assert whole.layers[1].weight is whole.layers[0].weight
    assert whole.activation is model.activation


# The functions that other adapters use


def test_array_is_the_lazy_array_of_a_leaf():
    array = adapter.array(jnp.ones((2, 3), "bfloat16"), "w")
    assert (array.shape, array.dtype, array.problem) == ((2, 3), "bfloat16", None)
    assert (array.read(0) == 1).all()


def test_differentiate_counts_readings():
    values = [jnp.array([1.0, 2.0]), jnp.array(3.0), jnp.array(5.0)]

    def function(read):
        return (read(0) * read(1)).sum() + (read(0) ** 2).sum() + read(1)

    found = adapter.differentiate(function, values, True)
    assert found.loss == 17.0
    assert [gradient.tolist() for gradient in found.gradients] == [[5.0, 7.0], 4.0, 0.0]
    uses = [[(use.gradient.tolist(), use.by) for use in of_one] for of_one in found.uses]
    assert uses == [[([3.0, 3.0], "read"), ([2.0, 4.0], "read")], [(3.0, "read"), (1.0, "read")], []]
    assert adapter.differentiate(function, values, False).uses is None
