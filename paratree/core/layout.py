"""The layout of a parameter: the names of its axes, in order, as one string.

A dense kernel is ``"out in"`` in PyTorch and Gluon, ``"in out"`` in Keras and Flax.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Table = Mapping[str, Mapping[str, str]]

_SPACE = {1: "length", 2: "height width", 3: "depth height width"}
_NORM = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), "channel")
_GATED = {
    "weight_ih": "gates in", "weight_hh": "gates hidden", "bias_ih": "gates", "bias_hh": "gates",
    "weight_hr": "projection hidden",
}  # fmt: skip
_PLAIN_RNN = {"weight_ih": "out in", "weight_hh": "out hidden", "bias_ih": "out", "bias_hh": "out"}

TORCH: Table = {  # class of the layer -> name in the layer -> layout
    "Linear": {"weight": "out in", "bias": "out"},
    "Bilinear": {"weight": "out in1 in2", "bias": "out"},
    "Embedding": {"weight": "vocabulary dimension"},
    "EmbeddingBag": {"weight": "vocabulary dimension"},
    **{f"Conv{n}d": {"weight": f"out in {space}", "bias": "out"} for n, space in _SPACE.items()},
    **{f"ConvTranspose{n}d": {"weight": f"in out {space}", "bias": "out"} for n, space in _SPACE.items()},
    **dict.fromkeys(("_NormBase", "LayerNorm", "GroupNorm", "RMSNorm"), _NORM),
    "PReLU": {"weight": "channel"},
    **dict.fromkeys(("LSTM", "GRU", "LSTMCell", "GRUCell"), _GATED),
    **dict.fromkeys(("RNN", "RNNCell"), _PLAIN_RNN),
    "MultiheadAttention": {
        "in_proj_weight": "qkv in", "in_proj_bias": "qkv",
        "q_proj_weight": "out in", "k_proj_weight": "out in", "v_proj_weight": "out in",
    },
    "transformers.Conv1D": {"weight": "in out", "bias": "out"},
}  # fmt: skip

_ANY_SPACE = tuple(_SPACE.values())
_SCALE = dict.fromkeys(("scale", "weight", "bias", "mean", "var"), "channel")
_KERNEL = {"kernel": "in out", "bias": "out"}
_CONV_KERNEL = {"kernel": "|".join(f"{space} in out" for space in _ANY_SPACE), "bias": "out"}
_TURNED_KERNEL = {"kernel": "|".join(f"{space} out in" for space in _ANY_SPACE), "bias": "out"}

FLAX: Table = {  # linen and NNX; one layout for each number of axes
    "Dense": _KERNEL,
    "Linear": _KERNEL,
    "Conv": _CONV_KERNEL,
    "ConvTranspose": _CONV_KERNEL,
    "ConvTranspose.transpose_kernel": _TURNED_KERNEL,
    "Embed": {"embedding": "vocabulary dimension"},
    **dict.fromkeys(("BatchNorm", "LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm"), _SCALE),
}

_CONV_WEIGHT = {"weight": "|".join(f"out in {space}" for space in _ANY_SPACE)}
_CELL = {"weight_ih": "gates in", "weight_hh": "gates hidden", "bias": "gates"}

EQUINOX: Table = {
    "Linear": {"weight": "out in", "bias": "out"},
    "Embedding": {"weight": "vocabulary dimension"},
    "Conv": _CONV_WEIGHT,
    "ConvTranspose": _CONV_WEIGHT,
    **dict.fromkeys(("LayerNorm", "RMSNorm", "GroupNorm", "BatchNorm"), _SCALE),
    **dict.fromkeys(("LSTMCell", "GRUCell"), _CELL),
}

_CONV = {n: f"{space} in out" for n, space in _SPACE.items()}
_DEPTHWISE = {n: f"{space} in multiplier" for n, space in _SPACE.items()}
_SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias")
_SCALED = {"gamma": "channel|*", "beta": "channel|*"}
_RENORM = (
    "gamma", "beta", "moving_mean", "moving_variance", "moving_stddev", "renorm_mean", "renorm_stddev",
)  # fmt: skip
_LSTM = {"kernel": "in gates", "recurrent_kernel": "hidden gates", "bias": "gates"}
_GRU = _LSTM | {"bias": "gates|set gates"}  # reset_after keeps two biases
_RNN = {"kernel": "in out", "recurrent_kernel": "hidden out", "bias": "out"}
_CONV_LSTM = {
    "kernel": "|".join(f"{space} in gates" for space in _SPACE.values()),
    "recurrent_kernel": "|".join(f"{space} hidden gates" for space in _SPACE.values()),
    "bias": "gates",
}

# Class of the layer -> name in the layer -> layouts by number of axes; "*" is any number, of no known layout.
# The names of a class stand in the order in which Keras 3 saves them, with every option of the class on.
KERAS: Table = {
    "Dense": {"kernel": "in out", "bias": "out"},
    "EinsumDense": {"kernel": "*", "bias": "*"},
    "Embedding": {"embeddings": "vocabulary dimension"},
    "ReversibleEmbedding": {
        "embeddings": "vocabulary dimension", "reverse_embeddings": "dimension vocabulary",
    },
    **{f"Conv{n}D": {"kernel": _CONV[n], "bias": "out"} for n in _SPACE},
    **{f"Conv{n}DTranspose": {"kernel": f"{space} out in", "bias": "out"} for n, space in _SPACE.items()},
    **{f"DepthwiseConv{n}D": {"kernel": _DEPTHWISE[n], "bias": "out"} for n in (1, 2)},
    **{
        f"SeparableConv{n}D": dict(zip(_SEPARABLE, (_DEPTHWISE[n], _CONV[n], "out"), strict=True))
        for n in (1, 2)
    },
    "BatchNormalization": dict.fromkeys(_RENORM, "channel"),
    "LayerNormalization": _SCALED,
    "GroupNormalization": _SCALED,
    "RMSNormalization": {"scale": "channel|*"},
    "SpectralNormalization": {"0": "*", "vector_u": "one out"},  # 0 is a copy of the kernel it wraps
    "Normalization": {"mean": "*", "variance": "*", "count": "*"},
    "PReLU": {"alpha": "channel|*"},
    "Attention": {"scale": "*", "concat_score_weight": "*"},
    "AdditiveAttention": {"scale": "channel"},
    "MultiHeadAttention.in": {"kernel": "in head feature", "bias": "head feature"},
    "MultiHeadAttention.out": {"kernel": "head feature out", "bias": "out"},
    **dict.fromkeys(("LSTM", "LSTMCell"), _LSTM),
    **dict.fromkeys(("GRU", "GRUCell"), _GRU),
    **dict.fromkeys(("SimpleRNN", "SimpleRNNCell"), _RNN),
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "ConvLSTMCell"), _CONV_LSTM),
    "SeedGenerator": {"seed_generator_state": "*"},
}  # fmt: skip

_HEADS = {
    **dict.fromkeys(("query", "key", "value"), "MultiHeadAttention.in"),
    "attention_output": "MultiHeadAttention.out",
}
_CONV_CELL = {"cell": "ConvLSTMCell"}
KERAS_PARTS: Table = {  # class of a layer -> its sublayers in order -> class in KERAS, or "" if any
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention"), _HEADS),
    "Bidirectional": {"forward_layer": "", "backward_layer": ""},
    "LSTM": {"cell": "LSTMCell"},
    "GRU": {"cell": "GRUCell"},
    "SimpleRNN": {"cell": "SimpleRNNCell"},
    **dict.fromkeys(("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"), _CONV_CELL),
}


_GLUON_NORM = dict.fromkeys(("gamma", "beta", "running_mean", "running_var"), "channel")
_GLUON_GATED = {
    "i2h_weight": "gates in", "h2h_weight": "gates hidden", "i2h_bias": "gates", "h2h_bias": "gates",
    "h2r_weight": "projection hidden",
}  # fmt: skip
_GLUON_RNN = {"i2h_weight": "out in", "h2h_weight": "out hidden", "i2h_bias": "out", "h2h_bias": "out"}

GLUON: Table = {  # class of the block -> name in the block -> layout, where data is "NCHW" (Gluon's default)
    "Dense": {"weight": "out in", "bias": "out"},
    "Embedding": {"weight": "vocabulary dimension"},
    "SparseEmbedding": {"weight": "vocabulary dimension"},
    **{f"Conv{n}D": {"weight": f"out in {space}", "bias": "out"} for n, space in _SPACE.items()},
    **{f"Conv{n}DTranspose": {"weight": f"in out {space}", "bias": "out"} for n, space in _SPACE.items()},
    **dict.fromkeys(("_BatchNorm", "InstanceNorm", "LayerNorm", "GroupNorm"), _GLUON_NORM),
    "PReLU": {"alpha": "channel"},
    **dict.fromkeys(("LSTM", "GRU", "LSTMCell", "GRUCell"), _GLUON_GATED),
    **dict.fromkeys(("RNN", "RNNCell"), _GLUON_RNN),
}


def keras_layout(layer: str, name: str, ndim: int) -> str | None:
    """Return the layout of a variable of a Keras layer, or ``None`` if the table does not say.

    >>> keras_layout("Conv2D", "kernel", 4), keras_layout("GRUCell", "bias", 2)
    ('height width in out', 'set gates')
    """
    layouts = KERAS.get(layer, {}).get(name, "*").split("|")
    return next((words for words in layouts if words != "*" and len(words.split()) == ndim), None)


def layout_of(table: Table, classes: Iterable[str], name: str, ndim: int) -> str | None:
    """Return the layout of a layer's parameter, or ``None`` if its class is not in the table.

    Args:
        table: class of the layer -> name in the layer -> layout, or one for each number of axes.
        classes: the class of the layer and its base classes, nearest first, so that a subclass inherits.
        name: name of the parameter in its layer.
        ndim: number of axes it has; a layout of another number does not apply.

    >>> layout_of(TORCH, ["LazyLinear", "Linear"], "weight", 2)
    'out in'
    """
    found = (table[base][name] for base in classes if name in table.get(base, {}))
    layouts = next(found, "").split("|")
    return next((layout for layout in layouts if layout and len(layout.split()) == ndim), None)
