"""Models of Keras 2 (tf-keras) for the conformance suite."""

import functools

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers

from paratree.testing import Case, Fact, Loss

# What Keras itself says


def rows(net, extra=()):
    """Return the names and variables of ``net.weights``, and other names for them.

    Keras 2 leaves the name of a nested model out of its variables' names, though not of their place.
    """
    inside = {id(v): f"{x.name}/" for x in net.layers if isinstance(x, keras.Model) for v in x.weights}
    named = []
    for variable in net.weights:
        path = variable.name.removesuffix(":0").removeprefix(f"{net.name}/")
        named.append(((inside.get(id(variable), "") + path).replace("/", "."), variable))
    first = dict(named)
    return named + [(name, first[other]) for name, other in extra]


def facts(net, extra=()):
    trained = {id(variable) for variable in net.trainable_weights}
    return [
        Fact(
            name,
            tuple(variable.shape),
            variable.dtype.name,
            np.asarray(variable.numpy()),
            "parameter" if id(variable) in trained else "buffer",
        )
        for name, variable in rows(net, extra)
    ]


def size(net):
    return sum(int(np.prod(variable.shape)) for variable in net.trainable_weights)


def squares(net, *batch):
    return tf.reduce_mean(tf.square(tf.cast(net(*batch, training=True), "float32")))


def loss(*batch, uses=None):
    def gradients(net):
        with tf.GradientTape() as tape:
            value = squares(net, *batch)
        found = tape.gradient(value, net.trainable_variables)
        names = {id(variable): name for name, variable in rows(net)}
        return {
            names[id(v)]: None if g is None else tf.convert_to_tensor(g).numpy()
            for v, g in zip(net.trainable_variables, found, strict=True)
        }

    return Loss(squares, batch, gradients, uses or {})


def seeded(build):
    def make():
        keras.utils.set_random_seed(0)
        return build()

    return make


# Models

X = np.random.default_rng(1).random((2, 4), dtype="float32")
SEQUENCE = np.random.default_rng(2).random((2, 5, 4), dtype="float32")
WORDS = np.array([[1, 2, 3], [3, 0, 5]])


def mlp(dtype=None):
    net = keras.Sequential(
        [
            layers.Dense(8, activation="relu", name="in", dtype=dtype),
            layers.Dense(8, activation="relu", name="a", dtype=dtype),
            layers.Dense(8, name="b", dtype=dtype),
            layers.Dense(1, name="out", dtype=dtype),
        ],
        name="mlp",
    )
    net.build((None, 4))
    return net


def shared_layer():
    """Return a functional model; a Sequential of Keras 2 would use the layer once."""
    shared = layers.Dense(8, activation="relu", name="shared")
    given = keras.Input((4,))
    hidden = shared(shared(layers.Dense(8, activation="relu", name="in")(given)))
    return keras.Model(given, layers.Dense(1, name="out")(hidden), name="net")


class Nested(keras.Model):
    """A model with layers in a model, in a list and in a dict, and variables of its own."""

    def __init__(self):
        super().__init__(name="nested")
        self.net = keras.Sequential(
            [layers.Dense(8, activation="relu", name="up"), layers.Dense(6, name="down")], name="inner"
        )
        self.heads = {"a": layers.Dense(2, name="head_a"), "b-1": [layers.Dense(2, name="head_b")]}

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.empty = self.add_weight(shape=(0, 3), initializer="zeros", name="empty")

    def call(self, x, training=False):
        hidden = self.net(x)
        return self.scale * (self.heads["a"](hidden) + self.heads["b-1"][0](hidden))


def nested():
    net = Nested()
    net(X)
    return net


class Head(layers.Layer):
    """The output of a language model: the embedding's own variable."""

    def __init__(self, kernel, **options):
        super().__init__(**options)
        self.kernel = kernel

    def call(self, x):
        return tf.matmul(x, self.kernel, transpose_b=True)


class LanguageModel(keras.Model):
    def __init__(self):
        super().__init__(name="language")
        self.embed = layers.Embedding(11, 6, name="embed")
        self.embed(WORDS)
        self.rnn = layers.LSTM(6, return_sequences=True, name="rnn")
        self.head = Head(self.embed.embeddings, name="head")

    def call(self, words, training=False):
        return self.head(self.rnn(self.embed(words)))


def language():
    net = LanguageModel()
    net(WORDS)
    return net


def normed():
    return keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.Conv1D(3, 2, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Flatten(),
            layers.Dense(2, name="out"),
        ],
        name="normed",
    )


def attention():
    given = keras.Input((5, 4))
    attended = layers.MultiHeadAttention(2, 3, name="attend")(given, given)
    return keras.Model(given, layers.LayerNormalization(name="norm")(attended), name="attention")


def unbuilt():
    return keras.Sequential([layers.Flatten(), layers.Dense(4, name="a"), layers.Dense(1, name="b")])


def unbuilt_facts(net):
    return [
        Fact("a.kernel", (None, 4), "float32", None),
        Fact("a.bias", (4,), "float32", None),
        Fact("b.kernel", (None, 1), "float32", None),
        Fact("b.bias", (1,), "float32", None),
    ]


class Block(layers.Layer):
    def build(self, shape):
        for i in range(100):
            setattr(self, f"w{i}", tf.Variable([0.0, 0.0], name=f"w{i}"))


@functools.cache  # it takes seconds to make; no check changes what the others look at
def many():
    net = keras.Sequential([Block(name=f"block_{i}") for i in range(100)], name="many")
    net.build((None, 2))
    return net


TIED = [("head.kernel", "embed.embeddings")]
CASES = [  # Keras 2 freezes layers, not variables: test_tf_keras.py has its tests
    Case(
        "plain",
        seeded(mlp),
        facts,
        size,
        can_freeze=False,
        loss=loss(X, uses={"in.kernel": 1, "a.bias": 1}),
        tie=("a.kernel", "b.kernel"),
    ),
    Case(
        "nested",
        seeded(nested),
        facts,
        size,
        can_freeze=False,
        loss=loss(X),
        tie=("head_a.kernel", "head_b.kernel"),
    ),
    Case(
        "shared layer",
        seeded(shared_layer),
        facts,
        size,
        can_freeze=False,
        loss=loss(X, uses={"shared.kernel": 2, "shared.bias": 2}),
    ),
    Case(
        "tied embedding, RNN",
        seeded(language),
        lambda net: facts(net, TIED),
        size,
        can_freeze=False,
        ties=(("embed.embeddings", "head.kernel"),),
        loss=loss(WORDS, uses={"head.kernel": 2}),
        tie=("rnn.lstm_cell.kernel", "rnn.lstm_cell.recurrent_kernel"),
    ),
    Case("unbuilt", unbuilt, unbuilt_facts, lambda net: 5, advice="net(X)", can_freeze=False),
    Case("BatchNorm", seeded(normed), facts, size, can_freeze=False, loss=loss(SEQUENCE)),
    Case(
        "attention",
        seeded(attention),
        facts,
        size,
        can_freeze=False,
        loss=loss(SEQUENCE),
        tie=("attend.query.kernel", "attend.key.kernel"),
    ),
    Case("bfloat16", seeded(lambda: mlp("bfloat16")), facts, size, can_freeze=False, loss=loss(X)),
    Case("10,000 parameters", many, facts, size, can_freeze=False),
]
