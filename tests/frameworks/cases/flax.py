"""Models of Flax for the conformance suite: linen variables and modules, NNX modules."""

from functools import cache

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState

from paratree.testing import Case, Fact, Loss

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 4))
SERIES = jax.random.normal(jax.random.key(2), (2, 5, 4))
WORDS = jnp.array([[1, 2, 3], [3, 0, 5]])
KINDS = {"params": "parameter", "batch_stats": "buffer", "intermediates": "other"}


def fact(name, array, kind="parameter"):
    return Fact(name, tuple(array.shape), array.dtype.name, np.asarray(array), kind)


def squares(output):
    return (output.astype(jnp.float32) ** 2).mean()


# Linen


def flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep=".")


def facts(variables):
    return [
        fact(name, leaf, KINDS[collection])
        for collection, held in variables.items()
        for name, leaf in flat(held).items()
    ]


def size(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def loss_of(net, *batch, uses=None):
    def function(variables, *batch):
        output = net.apply(variables, *batch, mutable=["batch_stats", "intermediates"])[0]
        return squares(output)

    def gradients(variables):
        def of_params(params):
            return function({**variables, "params": params}, *batch)

        return {name: np.asarray(g) for name, g in flat(jax.grad(of_params)(variables["params"])).items()}

    return Loss(function, batch, gradients, uses or {})


def linen(name, net, *batch, uses=None, frozen_dict=False, **more):
    def build():
        variables = net.init(KEY, *batch)
        return flax.core.freeze(variables) if frozen_dict else variables

    loss = more.pop("loss", None) or loss_of(net, *batch, uses=uses)
    return Case(f"linen: {name}", build, facts, size, loss=loss, in_place=False, **more)


def mlp(dtype=jnp.float32):
    layers = [nn.Dense(n, dtype=dtype, param_dtype=dtype) for n in (8, 8, 8, 1)]
    return nn.Sequential([layers[0], nn.relu, layers[1], nn.relu, *layers[2:]])


def shared_mlp():
    shared = nn.Dense(8)
    return nn.Sequential([nn.Dense(8), nn.relu, shared, nn.relu, shared, nn.relu, nn.Dense(1)])


class Nested(nn.Module):
    """Modules in modules, a scalar and an empty parameter, something sown."""

    @nn.compact
    def __call__(self, x):
        hidden = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(6)], name="net")(x)
        self.sow("intermediates", "hidden", hidden)
        self.param("empty", nn.initializers.zeros, (0, 3))
        scale = self.param("scale", nn.initializers.constant(0.5), ())
        return scale * (nn.Dense(2, name="head_a")(hidden) + nn.Dense(2, name="head_b")(hidden))


class LanguageModel(nn.Module):
    """An embedding that is the output layer, too: in linen one parameter under one name."""

    @nn.compact
    def __call__(self, words):
        embed = nn.Embed(11, 6, name="embed")
        return embed.attend(nn.RNN(nn.LSTMCell(6))(embed(words)))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False)(nn.Conv(4, (2,))(x))
        return nn.Dense(2)(x.reshape(len(x), -1))


@cache  # arrays cannot be changed, and take long to make
def many():
    return {
        "params": {f"layers_{i}": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)} for i in range(5000)}
    }


def unknown_facts(net):
    return [
        Fact("layers_0.kernel", (None, 8), "float32", None),
        Fact("layers_0.bias", (8,), "float32", None),
        Fact("layers_2.kernel", (None, 1), "float32", None),
        Fact("layers_2.bias", (1,), "float32", None),
    ]


def training():
    net = mlp()
    return TrainState.create(apply_fn=net.apply, params=net.init(KEY, X)["params"], tx=optax.adam(1e-2))


def training_facts(state):
    adam = state.opt_state[0]
    moments = [
        fact(f"opt_state.0.{moment}.{name}", leaf, "state")
        for moment in ("mu", "nu")
        for name, leaf in flat(getattr(adam, moment)).items()
    ]
    return [
        fact("step", np.asarray(state.step), "other"),
        *(fact(f"params.{name}", leaf) for name, leaf in flat(state.params).items()),
        fact("opt_state.0.count", adam.count, "state"),
        *moments,
    ]


def training_gradients(state):
    def of_params(params):
        return squares(state.apply_fn({"params": params}, X))

    return {f"params.{name}": np.asarray(g) for name, g in flat(jax.grad(of_params)(state.params)).items()}


# NNX


def nnx_flat(state):
    return {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(state)}


def nnx_kind(variable):
    if isinstance(variable, nnx.Param):
        return "parameter"
    return "other" if isinstance(variable, nnx.RngState) else "buffer"


def nnx_facts(order, twins):
    """What the state says, in the order of definition; ``twins``: other name -> name in the state."""

    def facts(net):
        held = nnx_flat(nnx.state(net))
        assert {twins.get(name, name) for name in order} == set(held)
        return [nnx_fact(name, held[twins.get(name, name)]) for name in order]

    return facts


def nnx_fact(name, variable):
    array = variable.get_value()
    value = None if jnp.issubdtype(array.dtype, jax.dtypes.prng_key) else np.asarray(array)
    return Fact(name, array.shape, array.dtype.name, value, nnx_kind(variable))


def nnx_size(net):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(net, nnx.Param)))


def nnx_loss(*batch, uses=None):
    def function(net, *batch):
        return squares(net(*batch))

    def gradients(net):
        return {
            name: np.asarray(g.get_value()) for name, g in nnx_flat(nnx.grad(function)(net, *batch)).items()
        }

    return Loss(function, batch, gradients, uses or {})


def nnx_case(name, build, order, *batch, uses=None, twins=None, **more):
    loss = nnx_loss(*batch, uses=uses) if batch else None
    facts = nnx_facts(order.split(), twins or {})
    return Case(f"NNX: {name}", lambda: build(nnx.Rngs(0)), facts, nnx_size, loss=loss, **more)


def nnx_mlp(rngs, dtype=jnp.float32):
    sizes = ((4, 8), (8, 8), (8, 8), (8, 1))
    layers = [nnx.Linear(m, n, rngs=rngs, dtype=dtype, param_dtype=dtype) for m, n in sizes]
    return nnx.Sequential(layers[0], nnx.relu, layers[1], nnx.relu, *layers[2:])


MLP = " ".join(f"layers.{i}.{part}" for i in (0, 2, 4, 5) for part in ("kernel", "bias"))


def nnx_shared(rngs):
    shared = nnx.Linear(8, 8, rngs=rngs)
    first, last = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
    return nnx.Sequential(first, nnx.relu, shared, nnx.relu, shared, last)


class NNXNested(nnx.Module):
    """Modules in modules, a scalar, an empty parameter, random numbers, an array without a variable."""

    def __init__(self, rngs):
        self.net = nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 6, rngs=rngs))
        self.heads = nnx.Dict(b=nnx.Linear(6, 2, rngs=rngs), a=nnx.Linear(6, 2, rngs=rngs))
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.scale = nnx.Param(jnp.array(0.5))
        self.empty = nnx.Param(jnp.zeros((0, 3)))

    def __call__(self, x):
        hidden = self.drop(self.net(x))
        return self.scale * (self.heads["a"](hidden) + self.heads["b"](hidden))


class NNXLanguageModel(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(11, 6, rngs=rngs)
        self.cell = nnx.LSTMCell(6, 6, rngs=rngs)
        self.head = nnx.Embed(11, 6, rngs=rngs)
        self.head.embedding = self.embed.embedding

    def __call__(self, words):
        carry, outputs = (jnp.zeros((2, 6)), jnp.zeros((2, 6))), []
        for vector in self.embed(words).swapaxes(0, 1):
            carry, output = self.cell(carry, vector)
            outputs.append(output)
        return self.head.attend(jnp.stack(outputs))


class NNXAttention(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)

    def __call__(self, x):
        return self.attend(self.norm(x))


class NNXNormed(nnx.Module):
    """In training, so that every call changes the running statistics."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(4, 4, (2,), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(20, 2, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(self.conv(x)).reshape(len(x), -1))


class NNXLayer(nnx.Module):
    def __init__(self):
        for i in range(100):
            setattr(self, f"w{i}", nnx.Param(np.zeros((2, 2))))


def nnx_many(rngs):
    return nnx.List([NNXLayer() for _ in range(100)])


CELL = " ".join(
    [f"cell.i{g}.kernel" for g in ("i", "f_", "g", "o")]
    + [f"cell.h{g}.{part}" for g in "ifgo" for part in ("kernel", "bias")]
)
LINEARS = "attend.{}.kernel attend.{}.bias"

CASES = [
    linen("plain", mlp(), X, uses={"layers_0.kernel": 1}, tie=("layers_2.kernel", "layers_4.kernel")),
    linen("FrozenDict", mlp(), X, frozen_dict=True, tie=("layers_2.kernel", "layers_4.kernel")),
    linen("nested", Nested(), X, tie=("head_a.kernel", "head_b.kernel")),
    linen("shared layer", shared_mlp(), X, uses={"layers_2.kernel": 2, "layers_2.bias": 2}),
    linen("tied embedding, RNN", LanguageModel(), WORDS, uses={"embed.embedding": 2}),
    linen("BatchNorm", Normed(), SERIES),
    linen("attention", Attention(), SERIES),
    linen("bfloat16", mlp(jnp.bfloat16), X.astype(jnp.bfloat16)),
    Case("linen: 10,000 parameters", many, facts, size, in_place=False),
    Case(
        "linen: not initialised",
        lambda: nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(1)]),
        unknown_facts,
        lambda net: 9,
        in_place=False,
        advice="params = net.init(key, X)",
    ),
    Case(
        "TrainState",
        training,
        training_facts,
        lambda state: size({"params": state.params}),
        loss=Loss(
            lambda state, x: squares(state.apply_fn({"params": state.params}, x)), (X,), training_gradients
        ),
        in_place=False,
        tie=("params.layers_2.kernel", "params.layers_4.kernel"),
    ),
    nnx_case(
        "plain", nnx_mlp, MLP, X, uses={"layers.0.kernel": 1}, tie=("layers.2.kernel", "layers.4.kernel")
    ),
    nnx_case(
        "nested",
        NNXNested,
        "net.layers.0.kernel net.layers.0.bias net.layers.2.kernel net.layers.2.bias heads.b.kernel "
        "heads.b.bias heads.a.kernel heads.a.bias drop.rngs.key drop.rngs.count scale empty",
        X,
        tie=("heads.b.kernel", "heads.a.kernel"),
        advice="jax.random.key_data",
    ),
    nnx_case(
        "shared layer",
        nnx_shared,
        MLP,
        X,
        uses={"layers.2.kernel": 2, "layers.4.bias": 2},
        twins={"layers.4.kernel": "layers.2.kernel", "layers.4.bias": "layers.2.bias"},
        ties=(("layers.2.kernel", "layers.4.kernel"), ("layers.2.bias", "layers.4.bias")),
    ),
    nnx_case(
        "tied embedding, RNN",
        NNXLanguageModel,
        f"embed.embedding {CELL} head.embedding",
        WORDS,
        uses={"head.embedding": 2},
        twins={"head.embedding": "embed.embedding"},
        ties=(("embed.embedding", "head.embedding"),),
        tie=("cell.hi.kernel", "cell.hf.kernel"),
    ),
    nnx_case(
        "BatchNorm",
        NNXNormed,
        "conv.kernel conv.bias norm.mean norm.var norm.scale norm.bias head.kernel head.bias",
        SERIES,
    ),
    nnx_case(
        "attention",
        NNXAttention,
        " ".join(["norm.scale norm.bias", *(LINEARS.format(p, p) for p in ("query", "key", "value", "out"))]),
        SERIES,
    ),
    nnx_case("bfloat16", lambda rngs: nnx_mlp(rngs, jnp.bfloat16), MLP, X.astype(jnp.bfloat16)),
    nnx_case("10,000 parameters", nnx_many, " ".join(f"{i}.w{j}" for i in range(100) for j in range(100))),
]
