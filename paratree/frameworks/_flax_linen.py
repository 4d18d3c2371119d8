"""Flax linen modules: what is known of their parameters before ``init``, and those of a bound module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from flax import linen as nn

from paratree.core.array import RefusedArray
from paratree.core.errors import UnsupportedError, printable
from paratree.core.layout import FLAX, layout_of
from paratree.core.names import BUFFER, PARAMETER
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.frameworks._flax_layouts import flax_classes
from paratree.frameworks._jax_open import tree_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

    from paratree.core.array import Shape

    Known = tuple[str, Shape]  # name in the layer, what is known of the shape

NOT_INITIALISED = "not initialised yet; run params = net.init(key, X) and open what it returns"
_STATISTICS = ("mean", "var")
_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm, nn.BatchNorm)


def is_module(source: object) -> bool:
    """Tell whether ``source`` is a linen module, initialised or not."""
    return isinstance(source, nn.Module)


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of a bound module's variables, or of what a module without any will have."""
    title = type(source).__name__
    if source.scope is not None:
        return tree_of(
            source.variables, native="net.variables", title=title, grads=grads, format="Flax linen"
        )
    notes: dict[str, None] = {}
    found: dict[str, Param] = {}
    for layer, prefix in _layers(source, "", notes):
        for name, shape in _known(layer):
            param = _param(prefix + name, shape, layer)
            found[param.name] = param
    kinds = list(dict.fromkeys(param.kind for param in found.values()))  # collections, in the order of init
    ordered = sorted(found.values(), key=lambda param: kinds.index(param.kind))
    return ParamTree(ordered, Origin(title, "Flax linen", notes=notes))


def _param(name: str, shape: Shape, layer: Any) -> Param:
    last = name.rpartition(".")[2]
    statistic = last in _STATISTICS and isinstance(layer, nn.BatchNorm)
    dtype = "float32" if statistic else np.dtype(layer.param_dtype).name
    array = RefusedArray(shape, dtype, f"{printable(name)}: {NOT_INITIALISED}")
    layout = layout_of(FLAX, flax_classes(layer), last, len(shape))
    kind = BUFFER if statistic else PARAMETER
    return Param(name, array, kind, trainable=not statistic, layout=layout)


def _layers(module: Any, prefix: str, notes: dict[str, None]) -> Iterator[tuple[Any, str]]:
    """Yield the layers whose names are known, in the order of use; a shared one once, as in ``init``."""
    if type(module) is not nn.Sequential:
        if any(True for _ in _known(module)):
            yield module, prefix
        elif not _has_none(module):
            place = f"{printable(prefix[:-1])}: " if prefix else ""
            notes[f"{place}a {type(module).__name__} makes its parameters in net.init(key, X)"] = None
        return
    names: dict[int, str] = {}
    for name in sorted(f"layers_{number}" for number in range(len(module.layers))):  # as Flax sorts them
        names.setdefault(id(module.layers[int(name[7:])]), name)
    for layer in {id(layer): layer for layer in module.layers if isinstance(layer, nn.Module)}.values():
        yield from _layers(layer, f"{prefix}{names[id(layer)]}.", notes)


def _has_none(module: Any) -> bool:
    return type(module) is nn.Dropout


def _known(layer: Any) -> Iterator[Known]:
    """Yield what a layer will have, in the order of ``init``; nothing for a class that is not Flax's own."""
    kind = type(layer)
    if kind is nn.Dense:
        yield "kernel", (None, layer.features)
    elif kind is nn.DenseGeneral and not _numbers(layer.batch_dims):
        features = _numbers(layer.features)
        yield "kernel", (*(None for _ in _numbers(layer.axis)), *features)
    elif kind is nn.Conv:
        yield "kernel", (*_numbers(layer.kernel_size), None, layer.features)
    elif kind is nn.ConvTranspose:
        ends = (layer.features, None) if layer.transpose_kernel else (None, layer.features)
        yield "kernel", (*_numbers(layer.kernel_size), *ends)
    elif kind is nn.Embed:
        yield "embedding", (layer.num_embeddings, layer.features)
    elif kind in _NORMS:
        yield from _of_norm(layer)
    if kind in (nn.Dense, nn.DenseGeneral, nn.Conv, nn.ConvTranspose) and layer.use_bias:
        yield "bias", _numbers(layer.features)


def _of_norm(layer: Any) -> Iterator[Known]:
    axes = layer.axis if isinstance(layer, nn.BatchNorm) else getattr(layer, "feature_axes", -1)
    unknown: Shape = (None,) * len(_numbers(axes))
    if isinstance(layer, nn.BatchNorm):
        yield from ((name, unknown) for name in _STATISTICS)
    if layer.use_scale:
        yield "scale", unknown
    if getattr(layer, "use_bias", False):
        yield "bias", unknown


def _numbers(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def refuse(source: Any) -> NoReturn:
    """Refuse to change a module, which holds no parameters.

    Raises:
        UnsupportedError: always.
    """
    if source.scope is None:
        raise UnsupportedError(
            f"{type(source).__name__}: not initialised yet; run params = net.init(key, X), and change those"
        )
    raise UnsupportedError(
        f"{type(source).__name__}: a bound module is a view of its variables; net, variables = net.unbind(), "
        "and change the variables"
    )
