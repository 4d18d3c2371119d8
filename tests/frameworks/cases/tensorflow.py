"""Modules and containers of plain TensorFlow for the conformance suite."""

import functools

import numpy as np
import tensorflow as tf

from paratree.testing import Case, Fact, Loss

X = np.random.default_rng(1).random((2, 4), dtype="float32")
SEQUENCE = np.random.default_rng(2).random((2, 5, 4), dtype="float32")
WORDS = np.array([[1, 2, 3], [3, 0, 5]])

# What TensorFlow itself says


def fact(name, variable):
    kind = "parameter" if variable.trainable else "buffer"
    return Fact(name, tuple(variable.shape), variable.dtype.name, np.asarray(variable.numpy()), kind)


def facts(net):
    """Return every variable under all its paths, as ``tf.Module`` finds them."""
    found = net._flatten(predicate=lambda leaf: isinstance(leaf, tf.Variable), with_path=True)
    return [fact(".".join(map(str, path)), variable) for path, variable in found]


def size(net):
    return sum(int(np.prod(variable.shape)) for variable in net.trainable_variables)


def squares(net, *batch):
    return tf.reduce_mean(tf.square(tf.cast(net(*batch), "float32")))


def tape_gradients(function, net, variables, *batch):
    with tf.GradientTape() as tape:
        value = function(net, *batch)
    return [None if g is None else tf.convert_to_tensor(g).numpy() for g in tape.gradient(value, variables)]


def loss(*batch, uses=None):
    def gradients(net):
        names = {}
        for path, variable in net._flatten(
            predicate=lambda leaf: isinstance(leaf, tf.Variable), with_path=True
        ):
            names.setdefault(id(variable), ".".join(map(str, path)))
        variables = net.trainable_variables
        found = tape_gradients(squares, net, variables, *batch)
        return {names[id(variable)]: g for variable, g in zip(variables, found, strict=True)}

    return Loss(squares, batch, gradients, uses or {})


# Models


def random(*shape, dtype="float32"):
    return tf.Variable(np.random.default_rng(shape).normal(size=shape).astype("float32"), dtype=dtype)


class Dense(tf.Module):
    def __init__(self, inside, outside, dtype="float32"):
        super().__init__()
        self.kernel = tf.Variable(tf.cast(random(inside, outside), dtype))
        self.bias = tf.Variable(tf.ones(outside, dtype))

    def __call__(self, x):
        return tf.nn.relu(x @ self.kernel + self.bias)


class Chain(tf.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = list(layers)

    def __call__(self, x):
        x = tf.cast(x, self.layers[0].bias.dtype)
        for layer in self.layers:
            x = layer(x)
        return x


def shared():
    layer = Dense(8, 8)
    return Chain(Dense(4, 8), layer, layer, Dense(8, 1))


class Nested(tf.Module):
    def __init__(self):
        super().__init__()
        self.net = Chain(Dense(4, 8), Dense(8, 6))
        self.heads = {"a": Dense(6, 2), "b-1": Dense(6, 2)}
        self.scale = tf.Variable(0.5)
        self.empty = tf.Variable(tf.zeros((0, 3)))
        self.calls = tf.Variable(0, trainable=False)

    @tf.function
    def __call__(self, x):
        self.calls.assign_add(1)
        hidden = self.net(x)
        return self.scale * (self.heads["a"](hidden) + self.heads["b-1"](hidden))


class LanguageModel(tf.Module):
    """A recurrent net whose embedding is its output layer, too."""

    def __init__(self):
        super().__init__()
        self.embed = random(11, 6)
        self.cell = random(6, 6)
        self.recurrent = random(6, 6)
        self.head = self.embed

    def __call__(self, words):
        state = tf.zeros((len(words), 6))
        for step in tf.unstack(tf.nn.embedding_lookup(self.embed, words), axis=1):
            state = tf.tanh(step @ self.cell + state @ self.recurrent)
        return tf.matmul(state, self.head, transpose_b=True)


class Attention(tf.Module):
    """Attention, and a normalisation with running statistics."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = random(4, 2, 3), random(4, 2, 3), random(4, 2, 4)
        self.mean = tf.Variable(tf.zeros(4), trainable=False)

    def __call__(self, x):
        query, key, value = (tf.einsum("bsi,ihf->bhsf", x, w) for w in (self.query, self.key, self.value))
        weights = tf.nn.softmax(tf.einsum("bhsf,bhtf->bhst", query, key))
        output = tf.einsum("bhst,bhtf->bsf", weights, value)
        self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(output, (0, 1)))
        return output - self.mean


# A container


def container():
    return {"w": random(4, 2), "deep": [random(2), random(4, 2)]}


def container_facts(params):
    names = ("deep.0", params["deep"][0]), ("deep.1", params["deep"][1]), ("w", params["w"])
    return [fact(name, variable) for name, variable in names]


def linear(params, x):
    output = x @ params["w"] + params["deep"][0] + tf.nn.tanh(x @ params["deep"][1])
    return tf.reduce_mean(tf.square(output))


def container_gradients(params):
    variables = {"w": params["w"], "deep.0": params["deep"][0], "deep.1": params["deep"][1]}
    return dict(zip(variables, tape_gradients(linear, params, list(variables.values()), X), strict=True))


@functools.cache  # it takes seconds to make; no check changes what the others look at
def many():
    return Chain(
        *[Chain(*[Chain(tf.Variable([0.0, 1.0]), tf.Variable([1.0])) for _ in range(50)]) for _ in range(100)]
    )


CASES = [  # TensorFlow cannot freeze a variable: test_tensorflow.py has what it says
    Case(
        "plain",
        lambda: Chain(Dense(4, 8), Dense(8, 8), Dense(8, 8), Dense(8, 1)),
        facts,
        size,
        loss=loss(X, uses={"layers.0.kernel": 1}),
        tie=("layers.1.kernel", "layers.2.kernel"),
        can_freeze=False,
    ),
    Case(
        "nested",
        Nested,
        facts,
        size,
        loss=loss(X),
        tie=("heads.a.kernel", "heads.b-1.kernel"),
        can_freeze=False,
    ),
    Case(
        "shared layer",
        shared,
        facts,
        size,
        ties=(("layers.1.bias", "layers.2.bias"), ("layers.1.kernel", "layers.2.kernel")),
        loss=loss(X, uses={"layers.1.kernel": 2, "layers.2.bias": 2, "layers.0.bias": 1}),
        can_freeze=False,
    ),
    Case(
        "tied embedding, RNN",
        LanguageModel,
        facts,
        size,
        ties=(("embed", "head"),),
        loss=loss(WORDS, uses={"head": 2, "recurrent": 3}),
        tie=("cell", "recurrent"),
        can_freeze=False,
    ),
    Case(
        "attention, running mean",
        Attention,
        facts,
        size,
        loss=loss(SEQUENCE),
        tie=("query", "key"),
        can_freeze=False,
    ),
    Case(
        "bfloat16",
        lambda: Chain(Dense(4, 8, "bfloat16"), Dense(8, 1, "bfloat16")),
        facts,
        size,
        loss=loss(X),
        can_freeze=False,
    ),
    Case(
        "container",
        container,
        container_facts,
        lambda params: 18,
        loss=Loss(linear, (X,), container_gradients, {"w": 1}),
        tie=("w", "deep.1"),
        can_freeze=False,
    ),
    Case("10,000 parameters", many, facts, size, can_freeze=False),
]
