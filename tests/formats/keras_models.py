"""Live Keras models to save and read back, and what their variables are called, in order."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers


def expected(model):
    """Return name -> value of every variable that Keras saves, in the order of the model."""
    found = {}
    _walk(model, "", found, set())
    return found


def _walk(layer, prefix, found, seen):
    if id(layer) in seen:
        return
    seen.add(id(layer))
    lent = {id(v) for child in layer._layers for v in child._trainable_variables}
    for variable in layer._trainable_variables + layer._non_trainable_variables:
        if id(variable) not in lent:  # SpectralNormalization holds the kernel of the layer it wraps
            found[prefix + variable.name] = keras.ops.convert_to_numpy(variable)
    inner = layer.layers if isinstance(layer, keras.Sequential | keras.Model) else layer._layers
    for child in inner:
        _walk(child, f"{prefix}{child.name}.", found, seen)


def scramble(model):
    """Give every weight values of its own, so that no two can be taken for each other."""
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def single(layer, shape, dtype="float32", inputs=1):
    """Return a functional model of one layer."""
    given = [layers.Input(shape, dtype=dtype) for _ in range(inputs)]
    out = (
        layer(*given)
        if inputs > 1 and not isinstance(layer, layers.Attention)
        else layer(given if inputs > 1 else given[0])
    )
    return keras.Model(given, out)


def sequential():
    return keras.Sequential([
        layers.Input((12, 12, 3)),
        layers.Conv2D(4, 3, name="stem"),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.SeparableConv2D(6, 3),
        layers.BatchNormalization(scale=False, name="second.norm"),
        layers.DepthwiseConv2D(3, use_bias=False),
        layers.GroupNormalization(2),
        layers.Dropout(0.5),
        layers.Conv2D(4, 1, trainable=False),
        layers.GlobalAveragePooling2D(),
        *(layers.Dense(4) for _ in range(12)),
        layers.Dense(2, use_bias=False, name="head"),
    ])  # fmt: skip


def functional():
    """Return a model with a nested model and a shared layer, whose classes do not sort in its order."""
    encoder = keras.Sequential(
        [
            layers.Input((5, 8)),
            layers.Dense(8),
            layers.LayerNormalization(),
            layers.GRU(8, return_sequences=True),
        ],
        name="encoder",
    )
    tokens = layers.Input((5,), dtype="int32")
    shared = layers.Dense(8, name="shared")
    x = shared(layers.Embedding(11, 8)(tokens))
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = shared(encoder(x))
    x = layers.Bidirectional(layers.LSTM(4))(x)
    return keras.Model(tokens, layers.Dense(3)(layers.PReLU()(x)))


def deep():
    """Return a nested model in a nested model, each with layers after it."""
    inner = keras.Sequential([layers.Input((4,)), layers.Dense(4), layers.BatchNormalization()], name="inner")
    given = layers.Input((4,))
    middle = keras.Model(given, layers.Dense(4)(inner(layers.LayerNormalization()(given))), name="middle")
    return keras.Sequential([layers.Input((4,)), layers.Dense(4, name="zero"), middle, layers.Dense(1)])


def stacked():
    return single(layers.RNN([layers.LSTMCell(3), layers.GRUCell(4, reset_after=False)]), (5, 4))


@keras.saving.register_keras_serializable(package="tests")
class Block(layers.Layer):
    """A layer of a user's own, with parts in attributes, lists and dictionaries."""

    def __init__(self, **options):
        super().__init__(**options)
        self.norm = layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(2, 2, name="attention")
        self.steps = [layers.Dense(4) for _ in range(11)]
        self.heads = {"b": layers.Dense(4), "a": [layers.Dense(4, name="plain")]}

    def build(self, shape):
        self.gain = self.add_weight(shape=(4,), name="gain")
        self.norm.build(shape)
        self.attention.build(shape, shape)
        for layer in [*self.steps, self.heads["b"], self.heads["a"][0]]:
            layer.build(shape)

    def call(self, x):
        x = self.attention(self.norm(x), x)
        for layer in [*self.steps, self.heads["b"], self.heads["a"][0]]:
            x = layer(x)
        return x * self.gain


def subclassed():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.Dense(4, name="zz_first")
            self.blocks = [Block(), Block()]
            self.tail = keras.Sequential([layers.Dense(4), layers.BatchNormalization()])

        def call(self, x):
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
            return self.tail(x)

    model = Net()
    model(np.zeros((2, 5, 4), "float32"))
    return model


def tied():
    """Return the chapter's model with a shared layer: Keras 3.15.1 saves it and cannot load it."""
    shared = layers.Dense(8, activation="relu", name="shared")
    return keras.Sequential(
        [layers.Input((8,)), layers.Dense(8), shared, layers.ReLU(), shared, layers.Dense(1)]
    )


LAYERS = {
    "dense": lambda: single(layers.Dense(3), (4,)),
    "dense-no-bias": lambda: single(layers.Dense(3, use_bias=False), (4,)),
    "conv1d": lambda: single(layers.Conv1D(3, 2), (8, 2)),
    "conv2d": lambda: single(layers.Conv2D(3, 2), (8, 8, 2)),
    "conv3d": lambda: single(layers.Conv3D(3, 2), (8, 8, 8, 2)),
    "conv1d-transpose": lambda: single(layers.Conv1DTranspose(3, 2), (8, 2)),
    "conv2d-transpose": lambda: single(layers.Conv2DTranspose(3, 2, use_bias=False), (8, 8, 2)),
    "conv3d-transpose": lambda: single(layers.Conv3DTranspose(3, 2), (4, 4, 4, 2)),
    "depthwise1d": lambda: single(layers.DepthwiseConv1D(3), (8, 2)),
    "depthwise2d": lambda: single(layers.DepthwiseConv2D(3), (8, 8, 2)),
    "separable1d": lambda: single(layers.SeparableConv1D(3, 2), (8, 2)),
    "separable2d": lambda: single(layers.SeparableConv2D(3, 2, use_bias=False), (8, 8, 2)),
    "embedding": lambda: single(layers.Embedding(7, 3), (5,), "int32"),
    "reversible": lambda: single(layers.ReversibleEmbedding(7, 3, tie_weights=False), (5,), "int32"),
    "batch-norm": lambda: single(layers.BatchNormalization(), (8,)),
    "batch-norm-frozen": lambda: single(layers.BatchNormalization(trainable=False), (8,)),
    "batch-norm-renorm": lambda: single(layers.BatchNormalization(renorm=True), (8,)),
    "layer-norm": lambda: single(layers.LayerNormalization(), (8,)),
    "group-norm": lambda: single(layers.GroupNormalization(2), (8,)),
    "rms-norm": lambda: single(layers.RMSNormalization(), (8,)),
    "spectral-norm": lambda: single(layers.SpectralNormalization(layers.Dense(3)), (4,)),
    "normalization": lambda: single(layers.Normalization(), (4,)),
    "prelu": lambda: single(layers.PReLU(), (4,)),
    "lstm": lambda: single(layers.LSTM(3), (5, 4)),
    "gru": lambda: single(layers.GRU(3), (5, 4)),
    "gru-no-bias": lambda: single(layers.GRU(3, use_bias=False), (5, 4)),
    "simple-rnn": lambda: single(layers.SimpleRNN(3), (5, 4)),
    "conv-lstm": lambda: single(layers.ConvLSTM2D(3, 2), (4, 8, 8, 2)),
    "bidirectional": lambda: single(layers.Bidirectional(layers.GRU(3)), (5, 4)),
    "time-distributed": lambda: single(layers.TimeDistributed(layers.Conv1D(3, 2)), (5, 4, 2)),
    "stacked-cells": stacked,
    "attention": lambda: single(layers.MultiHeadAttention(2, 3), (5, 4), inputs=2),
    "attention-no-bias": lambda: single(layers.MultiHeadAttention(2, 3, use_bias=False), (5, 4), inputs=2),
    "grouped-attention": lambda: single(layers.GroupQueryAttention(4, 4, 2), (5, 4), inputs=2),
    "dot-attention": lambda: single(layers.Attention(use_scale=True, score_mode="concat"), (5, 4), inputs=2),
    "einsum-dense": lambda: single(layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d"), (5, 4)),
}  # fmt: skip
