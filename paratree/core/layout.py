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


def layout_of(table: Table, classes: Iterable[str], name: str, ndim: int) -> str | None:
    """Return the layout of a layer's parameter, or ``None`` if its class is not in the table.

    Args:
        table: class of the layer -> name in the layer -> layout.
        classes: the class of the layer and its base classes, nearest first, so that a subclass inherits.
        name: name of the parameter in its layer.
        ndim: number of axes it has; a layout of another number does not apply.

    >>> layout_of(TORCH, ["LazyLinear", "Linear"], "weight", 2)
    'out in'
    """
    found = (table[base][name] for base in classes if name in table.get(base, {}))
    layout = next(found, None)
    return layout if layout is not None and len(layout.split()) == ndim else None
