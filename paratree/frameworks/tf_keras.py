"""Keras 2 (tf-keras): every variable of a model or layer under its layer's name.

Names and kinds are those of the moment the model was opened. Shape, dtype, value and whether it is trained
are asked of the variable each time, so ``fit`` is seen; a layer that was not built is looked at again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tf_keras

from paratree.core.names import BUFFER, STATE, kind_of
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.frameworks._held_outside import give
from paratree.frameworks._keras_layers import Dialect
from paratree.frameworks._keras_walk import params_of
from paratree.frameworks._tensorflow_gradients import differentiate_variables
from paratree.frameworks._tensorflow_variables import VariableArray, dense, dtype_of, inner, lists_variables
from paratree.frameworks._tf_keras_changes import assign, freeze, groups, path_of, tie, untie

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.results import Derivative

    Values = np.ndarray[Any, Any]

__all__ = ["assign", "freeze", "gradients", "groups", "matches", "open", "tie", "untie"]

_NUMBERS = ("int", "uint", "bool")


def matches(source: object) -> bool:
    """Tell whether ``source`` is a layer, a model, or an optimizer; variables alone are TensorFlow's."""
    return isinstance(source, tf_keras.layers.Layer | tf_keras.optimizers.Optimizer)


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of a model in the order of its ``weights``; no value is read or copied.

    A name is the path of layer names and the variable's: ``dense_1.kernel``, without the model's own name in
    front. A layer that is used several times has one name and is one parameter; two layers that hold the same
    variable give two names, tied. What a layer that is not built yet knows of its variables is listed; seeds
    and metrics are no parameters.

    Args:
        source: a model or layer, built or not; or an optimizer.
        grads: what ``tape.gradient(loss, net.trainable_variables)`` returned, or a dict by name.

    Returns:
        The tree. ``value`` is a copy: TensorFlow's memory cannot be written from outside; use ``pt.update``.

    Raises:
        MismatchError: ``grads`` do not fit the variables.

    Example:
        >>> net = tf_keras.Sequential([tf_keras.Input((2,)), tf_keras.layers.Dense(3, name="out")])
        >>> {name: param.shape for name, param in open(net).items()}
        {'out.kernel': (2, 3), 'out.bias': (3,)}
    """
    notes: list[str] = []
    if isinstance(source, tf_keras.layers.Layer):
        tops = _tops(source) if isinstance(source, tf_keras.Model) else {}
        params = params_of(source, _DIALECT, tops, notes)
    else:
        params = _of_optimizer(source)
    tree = ParamTree(params, Origin(type(source).__name__, "Keras 2", notes=notes))
    if grads is not None:
        is_layer = isinstance(source, tf_keras.layers.Layer)
        give(tree, grads, source.trainable_variables if is_layer else None)
    return tree


def gradients(
    source: Any,
    tree: ParamTree,
    loss: Callable[..., Any],
    batch: tuple[Any, ...],
    names: Sequence[str],
    per_use: bool,
) -> Derivative:
    """Differentiate with a tape of its own; what the loss writes into variables is put back."""
    variables = [tree[name].handle for name in names]
    kept = [param.handle for param in tree.values() if param.array.problem is None]
    return differentiate_variables(lambda: loss(source, *batch), variables, kept, per_use)


def _own(layer: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    if not isinstance(layer, tf_keras.layers.Layer):  # a tf.Module in a layer
        return layer.trainable_variables, [v for v in layer.variables if not v.trainable]
    layer._update_trackables()  # finds what was put into lists since
    return layer._trainable_weights, layer._non_trainable_weights


def _kind(variable: Any) -> str:
    """Return what a variable is that gradients do not change: quantised weights are parameters still."""
    dtype = dtype_of(variable)
    return kind_of(path_of(variable), dtype) if dtype.startswith(_NUMBERS) else BUFFER


def _children(layer: Any) -> list[Any]:
    is_layer = isinstance(layer, tf_keras.layers.Layer)
    return list(layer._flatten_modules(recursive=False, include_self=False)) if is_layer else []


def _ordered(layer: Any) -> Sequence[Any] | None:
    """Return the weights where Keras 2 has an order of its own.

    Of a layer with sublayers it lists first what is trained; of a model, lists of variables among the layers.
    """
    if isinstance(layer, tf_keras.Model) and not any(map(lists_variables, layer._self_tracked_trackables)):
        return None
    return _weights(layer) or None


def _weights(layer: Any) -> Sequence[Any]:
    try:
        weights: Sequence[Any] = layer.weights
    except ValueError:  # Keras lists no weights of a model, nor of one in a layer, that is not built
        return ()
    return weights


def _uses(layer: Any) -> list[Any]:
    """Return the layers that a functional model uses, each as often as it does."""
    nodes = getattr(layer, "_nodes_by_depth", None)
    return [node.layer for depth in nodes.values() for node in depth] if nodes else []


def _trains(variable: Any, above: Sequence[Any]) -> bool:
    return all(getattr(layer, "trainable", True) for layer in above)


_DIALECT = Dialect(
    own=_own,
    kind=_kind,
    uses=_uses,
    children=_children,
    own_first=lambda layer: not isinstance(layer, tf_keras.Model),
    weights=_weights,
    ordered=_ordered,
    path=path_of,
    array=lambda variable, name: VariableArray(inner(variable), name),
    trains=_trains,
    gradient=lambda variable: None,
    read=lambda gradient: VariableArray(dense(gradient), "gradient").read(),
)


def _tops(model: Any) -> dict[int, str]:
    tops: dict[int, str] = {}
    for place, layer in enumerate(model.layers):
        tops.setdefault(id(layer), f"net.layers[{place}]")
    return tops


# An optimizer


class _OfOptimizer:
    """A variable in an optimizer."""

    __slots__ = ("_place", "gradient", "handle")

    layout = grad = None
    trainable = False

    def __init__(self, handle: Any, place: int) -> None:
        self.handle, self._place = handle, place
        self.gradient: Any = None

    @property
    def native(self) -> str:
        """The expression: ``net.variables[2]``."""
        return f"net.variables[{self._place}]"

    @property
    def aliases(self) -> tuple[str, ...]:
        """Keras's own name of it."""
        return (path_of(self.handle),)


def _of_optimizer(optimizer: Any) -> dict[str, Param]:
    params: dict[str, Param] = {}
    for place, variable in enumerate(optimizer.variables):
        name = path_of(variable).removeprefix(f"{optimizer.name}/").replace("/", ".")
        if name in params:
            name = f"{name}_{place}"
        params[name] = Param(name, VariableArray(variable, name), STATE, live=_OfOptimizer(variable, place))
    return params
