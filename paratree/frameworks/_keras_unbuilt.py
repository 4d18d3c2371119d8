"""What a Keras layer knows of its variables before it has seen data (imports no framework)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from paratree.core.array import Shape

    Shapes = dict[str, Shape]


def expected_of(kind: str, layer: Any) -> Shapes:
    """Return name -> shape, ``None`` where unknown, for a layer of Keras's own; empty if it does not say.

    Args:
        kind: the nearest of Keras's own classes.
        layer: of which only options are asked.
    """
    known = _EXPECTED.get(kind)
    return {} if known is None else known(layer)


def is_statistic(name: str) -> bool:
    """Tell whether a variable that is expected will not be trained: a running statistic."""
    return name.startswith("moving_")


def _with_bias(layer: Any, shapes: Shapes, bias: Shape) -> Shapes:
    return {**shapes, "bias": bias} if layer.use_bias else shapes


def _dense(layer: Any) -> Shapes:
    return _with_bias(layer, {"kernel": (None, layer.units)}, (layer.units,))


def _embedding(layer: Any) -> Shapes:
    return {"embeddings": (layer.input_dim, layer.output_dim)}


def _conv(layer: Any) -> Shapes:
    return _with_bias(layer, {"kernel": (*layer.kernel_size, None, layer.filters)}, (layer.filters,))


def _transposed(layer: Any) -> Shapes:
    return _with_bias(layer, {"kernel": (*layer.kernel_size, layer.filters, None)}, (layer.filters,))


def _separable(layer: Any) -> Shapes:
    shapes: Shapes = {
        "depthwise_kernel": (*layer.kernel_size, None, layer.depth_multiplier),
        "pointwise_kernel": (*(1 for _ in layer.kernel_size), None, layer.filters),
    }
    return _with_bias(layer, shapes, (layer.filters,))


def _batch_norm(layer: Any) -> Shapes:
    if getattr(layer, "renorm", False) or not isinstance(layer.axis, int):
        return {}
    names = [name for name, made in (("gamma", layer.scale), ("beta", layer.center)) if made]
    return dict.fromkeys([*names, "moving_mean", "moving_variance"], (None,))


def _gated(gates: int) -> Callable[[Any], Shapes]:
    def shapes_of(cell: Any) -> Shapes:
        width = gates * cell.units
        shapes: Shapes = {"kernel": (None, width), "recurrent_kernel": (cell.units, width)}
        return _with_bias(cell, shapes, (2, width) if getattr(cell, "reset_after", False) else (width,))

    return shapes_of


_EXPECTED: dict[str, Callable[[Any], Shapes]] = {
    "Dense": _dense,
    "Embedding": _embedding,
    **{f"Conv{n}D": _conv for n in (1, 2, 3)},
    **{f"Conv{n}DTranspose": _transposed for n in (1, 2, 3)},
    **{f"SeparableConv{n}D": _separable for n in (1, 2)},
    "BatchNormalization": _batch_norm,
    "LSTMCell": _gated(4),
    "GRUCell": _gated(3),
    "SimpleRNNCell": _gated(1),
}
