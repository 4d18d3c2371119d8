"""pt.load into Flax linen variables, NNX modules, Equinox models and other pytrees: as Flax restores them."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import numpy_dtype
from tests.verbs.held import tree_of

jax = pytest.importorskip("jax", reason="could not import jax; these tests need it")
flax = pytest.importorskip("flax", reason="could not import flax; these tests need it")
nnx = pytest.importorskip("flax.nnx", reason="could not import flax; these tests need it")

jnp, nn = jax.numpy, flax.linen
X = np.random.default_rng(0).random((2, 6, 6, 3), dtype="float32")


class Net(nn.Module):
    @nn.compact
    def __call__(self, images):
        hidden = nn.Conv(4, (3, 3))(images)
        hidden = nn.relu(nn.BatchNorm(use_running_average=True)(hidden))
        return nn.Dense(5, param_dtype=jnp.bfloat16)(hidden.mean((1, 2)))


def variables(seed):
    """Return variables no two of which are equal, running statistics included."""
    made = Net().init(jax.random.key(0), X)
    keys = iter(jax.random.split(jax.random.key(seed), 99))
    return jax.tree.map(lambda leaf: jax.random.uniform(next(keys), leaf.shape, leaf.dtype, 0.5, 2), made)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_linen_variables_come_back_as_new_ones_as_flax_restores_them(tmp_path):
    trained, fresh = variables(0), variables(1)
    path = tmp_path / "net.msgpack"
    path.write_bytes(flax.serialization.to_bytes(trained))
    found = pt.load(fresh, path)
    assert found.complete
    assert found.model is not fresh
    assert_same(fresh, variables(1))
    own = flax.serialization.from_bytes(fresh, path.read_bytes())
    assert_same(found.model, own)
    np.testing.assert_array_equal(Net().apply(found.model, X), Net().apply(own, X))


def test_what_does_not_fit_gives_no_new_variables(tmp_path):
    trained = variables(0)
    del trained["params"]["Dense_0"]["bias"]
    fresh = variables(1)
    with pytest.raises(pt.LoadError, match=r"1 missing \(Dense_0.bias\)") as caught:
        pt.load(fresh, trained)
    assert caught.value.report.model is fresh
    found = pt.load(fresh, trained, strict=False)
    assert_same(found.model["params"]["Dense_0"]["bias"], fresh["params"]["Dense_0"]["bias"])
    assert_same(found.model["batch_stats"], trained["batch_stats"])


def test_a_failure_half_way_leaves_the_variables(monkeypatch):
    fresh, count, put = variables(1), 0, jax.device_put

    def failing(*args, **options):
        nonlocal count
        count += 1
        if count == 3:
            raise RuntimeError("the device is lost")
        return put(*args, **options)

    monkeypatch.setattr(jax, "device_put", failing)
    with pytest.raises(RuntimeError, match="the device is lost"):
        pt.load(fresh, variables(0))
    monkeypatch.undo()
    assert_same(fresh, variables(1))


@given(st.lists(st.tuples(
    st.sampled_from(["float32", "bfloat16", "float16", "int32", "uint8", "bool", "complex64"]),
    hnp.array_shapes(min_dims=0, max_dims=3, max_side=4, min_side=0),
), min_size=1, max_size=4), st.randoms())  # fmt: skip
def test_any_pytree_is_loaded_to_the_last_bit(tmp_path_factory, leaves, random):
    """Of any shapes, dtypes and bits, NaN payloads included."""
    trained = {}
    for number, (dtype, shape) in enumerate(leaves):
        kind = numpy_dtype(dtype)
        raw = np.frombuffer(random.randbytes(int(np.prod(shape)) * kind.itemsize), np.uint8)
        raw = raw & 1 if dtype == "bool" else raw
        trained[f"p{number}"] = jnp.asarray(raw.view(kind).reshape(shape))
    path = tmp_path_factory.mktemp("load") / "net.msgpack"
    pt.save(trained, path)
    found = pt.load(jax.tree.map(jnp.zeros_like, trained), path)
    assert found.complete
    assert_same(found.model, trained)


def test_optimizer_state_is_loaded_where_the_model_has_it(tmp_path):
    optax = pytest.importorskip("optax", reason="could not import optax; this test needs it")
    tx = optax.adam(0.1)
    params = variables(0)["params"]
    _, state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params))
    trained = {"params": params, "opt_state": state}
    path = tmp_path / "state.msgpack"
    path.write_bytes(flax.serialization.to_bytes(trained))
    found = pt.load(params, path, strip="params.")
    assert found.complete
    assert_same(found.model, params)
    assert dict(found.hidden)["state"] > 0
    fresh = {"params": variables(1)["params"], "opt_state": tx.init(params)}
    found = pt.load(fresh, trained)
    assert found.complete
    assert_same(found.model, trained)


def test_a_tied_leaf_stays_one_and_takes_one_value():
    shared = jnp.zeros((3, 2))
    fresh, values = {"a": {"kernel": shared}, "b": {"kernel": shared}}, np.ones((3, 2), np.float32)
    found = pt.load(fresh, tree_of(**{"a.kernel": values}))
    assert found.complete
    assert found.model["a"]["kernel"] is found.model["b"]["kernel"]
    source = tree_of(**{"a.kernel": values, "b.kernel": 2 * values})
    with pytest.raises(pt.LoadError, match=r"tied in the model.*pt\.untie\(net, 'b\.kernel'\)"):
        pt.load(fresh, source)
    found = pt.load(pt.untie(fresh, "b.kernel"), source)
    assert float(found.model["b"]["kernel"][0, 0]) == 2


# NNX


class Module(nnx.Module):
    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, use_running_average=True, rngs=rngs)
        self.dense = nnx.Linear(4, 5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.norm.mean.set_value(jax.random.uniform(jax.random.key(seed), (4,)))

    def __call__(self, images):
        return self.dense(self.drop(nnx.relu(self.norm(self.conv(images)))).mean((1, 2)))


def state_of(net):
    return nnx.to_pure_dict(nnx.state(net, nnx.Any(nnx.Param, nnx.BatchStat)))


def test_an_nnx_module_is_filled_in_place(tmp_path):
    trained, net = Module(0), Module(1)
    pt.save(trained, tmp_path / "net.safetensors", kind=["parameter", "buffer"])
    kernel = net.conv.kernel
    found = pt.load(net, tmp_path / "net.safetensors")
    assert found.model is net
    assert found.complete
    assert net.conv.kernel is kernel
    assert_same(state_of(net), state_of(trained))
    np.testing.assert_array_equal(net(X), trained(X))
    own = Module(2)
    nnx.update(own, nnx.state(trained, nnx.Any(nnx.Param, nnx.BatchStat)))
    np.testing.assert_array_equal(net(X), own(X))


def test_an_nnx_module_is_put_back_after_a_failure(monkeypatch):
    net, count, set_value = Module(1), 0, nnx.Variable.set_value

    def failing(variable, value, **options):
        nonlocal count
        count += 1
        if count == 4:
            raise RuntimeError("the device is lost")
        return set_value(variable, value, **options)

    monkeypatch.setattr(nnx.Variable, "set_value", failing)
    with pytest.raises(RuntimeError, match="the device is lost"):
        pt.load(net, Module(0))
    monkeypatch.undo()
    assert_same(state_of(net), state_of(Module(1)))


def test_linen_variables_fill_an_nnx_module():
    """Of one library, and two ways to name."""
    params, stats = (variables(0)[name] for name in ("params", "batch_stats"))
    source = {
        "params": {"conv": params["Conv_0"], "norm": params["BatchNorm_0"]},
        "batch_stats": {"norm": stats["BatchNorm_0"]},
    }
    net, dense = Module(1), np.asarray(Module(1).dense.kernel[...])
    assert pt.load(net, source, select="{conv,norm}.**").complete
    np.testing.assert_array_equal(net.conv.kernel[...], params["Conv_0"]["kernel"])
    np.testing.assert_array_equal(net.norm.var[...], stats["BatchNorm_0"]["var"])
    np.testing.assert_array_equal(net.dense.kernel[...], dense)


def test_an_equinox_model_comes_back_as_a_new_one(tmp_path):
    eqx = pytest.importorskip("equinox", reason="could not import equinox; this test needs it")
    trained, fresh = (eqx.nn.MLP(3, 2, 4, 2, key=jax.random.key(seed)) for seed in (0, 1))
    pt.save(trained, tmp_path / "net.safetensors")
    found = pt.load(fresh, tmp_path / "net.safetensors")
    assert found.complete
    eqx.tree_serialise_leaves(tmp_path / "net.eqx", trained)
    own = eqx.tree_deserialise_leaves(tmp_path / "net.eqx", fresh)
    assert_same(eqx.filter(found.model, eqx.is_array), eqx.filter(own, eqx.is_array))
    np.testing.assert_array_equal(found.model(X[0, 0, 0]), own(X[0, 0, 0]))
