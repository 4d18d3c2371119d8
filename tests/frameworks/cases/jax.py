"""Pytrees of JAX for the conformance suite: plain containers, Haiku, Equinox, Optax."""

from functools import cache
from typing import NamedTuple

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from paratree.testing import Case, Fact, Loss

KEY = jax.random.key(0)
X = jax.random.normal(jax.random.key(1), (2, 4))
WORDS = jnp.array([[1, 2, 3], [3, 0, 5]])


def fact(name, array, kind="parameter"):
    return Fact(name, array.shape, array.dtype.name, np.asarray(array), kind)


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)))


def case(name, build, facts, loss=None, **more):
    return Case(name, build, facts, more.pop("size", size), loss=loss, in_place=False, **more)


def squares(apply):
    return lambda source, *batch: (apply(source, *batch).astype(jnp.float32) ** 2).mean()


# Haiku


def haiku_facts(params):
    return [
        fact(f"{module}.{name}", array) for module, held in params.items() for name, array in held.items()
    ]


def haiku_loss(forward, *batch, uses=None):
    function = squares(lambda params, *batch: forward.apply(params, None, *batch))

    def gradients(params):
        found = jax.grad(function)(params, *batch)
        return {f"{m}.{n}": np.asarray(g) for m, held in found.items() for n, g in held.items()}

    return Loss(function, batch, gradients, uses or {})


def haiku_case(name, forward, *batch, **more):
    uses = more.pop("uses", None)
    transformed = hk.transform(forward)
    loss = haiku_loss(transformed, *batch, uses=uses)
    return case(f"haiku: {name}", lambda: transformed.init(KEY, *batch), haiku_facts, loss, **more)


def haiku_mlp(x):
    return hk.nets.MLP([8, 8, 8, 1])(x)


def haiku_shared(x):
    shared = hk.Linear(4, name="shared")
    return hk.Linear(1)(shared(jax.nn.relu(shared(x))))


def haiku_words(words):
    hidden, _ = hk.dynamic_unroll(
        hk.LSTM(6), hk.Embed(11, 6)(words), hk.LSTM(6).initial_state(2), time_major=False
    )
    return hidden


def haiku_attention(x):
    return hk.MultiHeadAttention(2, 3, w_init=hk.initializers.VarianceScaling(), model_size=4)(x, x, x)


# Equinox


def equinox_name(path):
    return jax.tree_util.keystr(path).replace("[", ".").replace("]", "").replace("'", "").lstrip(".")


def equinox_facts(model):
    leaves = jax.tree_util.tree_leaves_with_path(model)
    return [fact(equinox_name(path), leaf) for path, leaf in leaves if eqx.is_array(leaf)]


def equinox_loss(apply, *batch, uses=None):
    function = squares(apply)

    def gradients(model):
        found = jax.tree_util.tree_leaves_with_path(eqx.filter_grad(function)(model, *batch))
        return {equinox_name(path): np.asarray(gradient) for path, gradient in found}

    return Loss(function, batch, gradients, uses or {})


class Attention(eqx.Module):
    attend: eqx.nn.MultiheadAttention
    norm: eqx.nn.LayerNorm
    scale: jax.Array
    empty: jax.Array

    def __init__(self):
        self.attend = eqx.nn.MultiheadAttention(2, 4, key=KEY)
        self.norm = eqx.nn.LayerNorm(4)
        self.scale = jnp.array(0.5)
        self.empty = jnp.zeros((0, 3))

    def __call__(self, x):
        x = jax.vmap(self.norm)(x)
        return self.scale * self.attend(x, x, x)


class Recurrent(eqx.Module):
    embed: eqx.nn.Embedding
    cell: eqx.nn.GRUCell

    def __init__(self):
        self.embed = eqx.nn.Embedding(11, 6, key=KEY)
        self.cell = eqx.nn.GRUCell(6, 6, key=KEY)

    def __call__(self, words):
        hidden = jnp.zeros(6)
        for word in words:
            hidden = self.cell(self.embed(word), hidden)
        return hidden


def recur(model, words):
    return jax.vmap(model)(words)


def mlp():
    return eqx.nn.MLP(4, 1, 8, 3, key=KEY)


def run(model, x):
    return jax.vmap(model)(x)


# Plain containers


class Layer(NamedTuple):
    w: jax.Array
    b: jax.Array


def plain():
    keys = jax.random.split(KEY, 3)
    layers = [
        Layer(jax.random.normal(key, (m, n)), jnp.ones(n))
        for key, (m, n) in zip(keys, [(4, 8), (8, 8), (8, 8)], strict=True)
    ]
    return {"layers": layers, "head": (jnp.ones((8, 1)), {"b": jnp.zeros(())}), "counts": np.arange(3)}


def plain_apply(params, x):
    for layer in params["layers"]:
        x = jax.nn.tanh(x @ layer.w + layer.b)
    return x @ params["head"][0] + params["head"][1]["b"]


PLAIN = {
    **{f"layers.{i}.{n}": lambda p, i=i, n=n: getattr(p["layers"][i], n) for i in range(3) for n in "wb"},
    "head.0": lambda p: p["head"][0],
    "head.1.b": lambda p: p["head"][1]["b"],
}


def plain_facts(params):
    return [fact(name, get(params)) for name, get in PLAIN.items()] + [
        fact("counts", params["counts"], "buffer")
    ]


def plain_gradients(params):
    def loss_of(real):
        return squares(plain_apply)({**params, **real}, X)

    found = jax.grad(loss_of)({key: params[key] for key in ("layers", "head")})
    return {name: np.asarray(get(found)) for name, get in PLAIN.items()}


def tied():
    """One array under two names."""
    shared = jax.random.normal(KEY, (4, 4))
    return {"first": {"w": shared}, "second": {"w": shared}, "head": {"w": jnp.ones((4, 1))}}


def tied_apply(params, x):
    return jax.nn.tanh(x @ params["first"]["w"]) @ params["second"]["w"] @ params["head"]["w"]


def tied_gradients(params):
    def loss_of(shared, head):
        return squares(tied_apply)({"first": {"w": shared}, "second": {"w": shared}, "head": head}, X)

    shared, head = jax.grad(loss_of, argnums=(0, 1))(params["first"]["w"], params["head"])
    return {"first.w": np.asarray(shared), "head.w": np.asarray(head["w"])}


def dicts_facts(params):
    return [fact(f"{module}.{name}", leaf) for module, held in params.items() for name, leaf in held.items()]


@cache  # arrays cannot be changed, and take long to make
def many():
    return {f"layer_{i}": {"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)} for i in range(5000)}


def optimizer_facts(state):
    adam = state[0]
    moments = [
        fact(f"0.{moment}.{module}.{name}", leaf, "state")
        for moment in ("mu", "nu")
        for module, held in getattr(adam, moment).items()
        for name, leaf in held.items()
    ]
    return [fact("0.count", adam.count, "state"), *moments]


CASES = [
    case(
        "plain",
        plain,
        plain_facts,
        Loss(squares(plain_apply), (X,), plain_gradients, {"layers.0.w": 1}),
        tie=("layers.1.w", "layers.2.w"),
    ),
    case(
        "tied",
        tied,
        dicts_facts,
        Loss(squares(tied_apply), (X,), tied_gradients, {"second.w": 2, "head.w": 1}),
        ties=(("first.w", "second.w"),),
        size=lambda params: size(params) - params["first"]["w"].size,
    ),
    case("10,000 parameters", many, dicts_facts),
    case(
        "optax",
        lambda: optax.adam(1e-3).init({"a": {"w": jnp.ones((2, 3))}, "b": {"w": jnp.ones(3)}}),
        optimizer_facts,
        size=lambda state: 0,
    ),
    haiku_case("plain", haiku_mlp, X, tie=("mlp/~/linear_1.w", "mlp/~/linear_2.w")),
    haiku_case("shared layer", haiku_shared, X, uses={"shared.w": 2, "shared.b": 2, "linear.w": 1}),
    haiku_case("embedding, RNN", haiku_words, WORDS),
    haiku_case("attention", haiku_attention, jax.random.normal(KEY, (2, 5, 4))),
    case(
        "equinox: plain",
        mlp,
        equinox_facts,
        equinox_loss(run, X),
        tie=("layers.1.weight", "layers.2.weight"),
    ),
    case(
        "equinox: attention, scalar, empty",
        Attention,
        equinox_facts,
        equinox_loss(run, jax.random.normal(KEY, (2, 5, 4))),
    ),
    case("equinox: embedding, RNN", Recurrent, equinox_facts, equinox_loss(recur, WORDS)),
    case(
        "equinox: bfloat16",
        lambda: jax.tree.map(lambda x: x.astype(jnp.bfloat16) if eqx.is_array(x) else x, mlp()),
        equinox_facts,
        equinox_loss(run, X.astype(jnp.bfloat16)),
    ),
]
