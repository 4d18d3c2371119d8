"""Keras 3: every variable of a model or layer under its layer's name, on TensorFlow, JAX and torch.

Names and kinds are those of the moment the model was opened. Shape, dtype, value and whether it is trained
are asked of the variable each time, so ``fit`` is seen; a layer that was not built is looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

import keras

from paratree.core.names import BUFFER, PARAMETER, STATE, kind_of
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.frameworks._held_outside import give
from paratree.frameworks._keras_arrays import KerasArray, gradient_of, read_gradient, require_backend
from paratree.frameworks._keras_changes import assign, freeze, groups, tie, untie
from paratree.frameworks._keras_gradients import gradients
from paratree.frameworks._keras_layers import Dialect
from paratree.frameworks._keras_walk import params_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import numpy as np

    Values = np.ndarray[Any, Any]
    Found = tuple[str, str, Any]  # name, expression, variable

__all__ = ["assign", "freeze", "gradients", "groups", "matches", "open", "tie", "untie"]

_IS_KERAS_3 = int(keras.__version__.partition(".")[0]) >= 3
_NUMBERS = ("int", "uint", "bool")


def matches(source: object) -> bool:
    """Tell whether ``source`` is a layer, a model, a variable, an optimizer, or a container of variables."""
    if not _IS_KERAS_3:
        return False
    if isinstance(source, keras.Layer | keras.Variable | keras.optimizers.Optimizer):
        return True
    return any(True for _ in _contained(source, "", "params"))


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of a model in the order of its ``weights``; no value is read or copied.

    A name is the path of layer names and the variable's: ``dense_1.kernel``, without the model's own name in
    front. A layer that is used several times has one name and is one parameter; two layers that hold the same
    variable give two names, tied. What a layer that is not built yet knows of its variables is listed; seeds
    and metrics are no parameters.

    Args:
        source: a model or layer, built or not; an optimizer; a list or dict of variables, or one variable.
        grads: what ``tape.gradient(loss, net.trainable_variables)`` or ``jax.grad`` returned: a list beside
            ``net.trainable_variables``, or a dict by name. By default what torch holds on its backend.

    Returns:
        The tree. ``value`` shares memory with the variable on the torch backend. On TensorFlow it is a copy,
        on JAX a read-only array: their memory cannot be written from outside; use ``pt.update``.

    Raises:
        MismatchError: ``grads`` do not fit the variables.
        UnsupportedError: Keras runs on another backend than TensorFlow, JAX or torch.

    Example:
        >>> net = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="out")])
        >>> {name: param.shape for name, param in open(net).items()}
        {'out.kernel': (2, 3), 'out.bias': (3,)}
    """
    require_backend()
    notes: list[str] = []
    trained: Sequence[Any] | None = None
    if isinstance(source, keras.Layer):
        tops = _tops(source) if isinstance(source, keras.Model) else {}
        params = params_of(source, _DIALECT, tops, notes)
        trained = None if grads is None else source.trainable_variables
    elif isinstance(source, keras.optimizers.Optimizer):
        params = _of_optimizer(source)
    else:
        params = _of_container(source)
        trained = source if isinstance(source, list | tuple) else None
    tree = ParamTree(
        params, Origin(type(source).__name__, f"Keras on {keras.backend.backend()}", notes=notes)
    )
    if grads is not None:
        give(tree, grads, trained)
    return tree


# A model or layer


def _own(layer: Any) -> tuple[list[Any], list[Any]]:
    return layer._trainable_variables, layer._non_trainable_variables


def _kind(variable: Any) -> str:
    """Return what a variable is that gradients do not change: quantised weights are parameters still."""
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return kind_of(variable.name, dtype) if dtype.startswith(_NUMBERS) else BUFFER


def _uses(layer: Any) -> list[Any]:
    """Return the layers that a Sequential or functional model uses, each as often as it does."""
    if isinstance(layer, keras.Sequential):
        return list(layer.layers)
    nodes = getattr(layer, "_nodes_by_depth", None)
    return [node.operation for depth in nodes.values() for node in depth] if nodes else []


def _trains(variable: Any, above: Sequence[Any]) -> bool:
    return bool(above[0].trainable and variable.trainable)  # as trainable_variables has it


_DIALECT = Dialect(
    own=_own,
    kind=_kind,
    uses=_uses,
    children=attrgetter("_layers"),
    own_first=None,
    weights=attrgetter("weights"),
    ordered=lambda layer: None,
    path=attrgetter("path"),
    array=KerasArray,
    trains=_trains,
    gradient=gradient_of,
    read=read_gradient,
)


def _tops(model: Any) -> dict[int, str]:
    tops: dict[int, str] = {}
    for place, layer in enumerate(model.layers):
        tops.setdefault(id(layer), f"net.layers[{place}]")
    return tops


# An optimizer, or a container of variables


class _Held:
    """A variable in an optimizer, or in a container."""

    __slots__ = ("_alias", "_kind", "gradient", "handle", "native")

    layout = None

    def __init__(self, handle: Any, native: str, alias: str, kind: str) -> None:
        self.handle, self.native, self._alias, self._kind = handle, native, alias, kind
        self.gradient: Any = None

    @property
    def aliases(self) -> tuple[str, ...]:
        """Keras's own path of it, if that is another name."""
        return (self._alias,) if self._alias else ()

    @property
    def trainable(self) -> bool:
        """Whether it was made, or set, to be trained."""
        return self._kind == PARAMETER and bool(self.handle.trainable)

    @property
    def grad(self) -> Values | None:
        """The gradient given to ``open``, else the one that the variable holds."""
        return gradient_of(self.handle) if self.gradient is None else read_gradient(self.gradient)


def _of_optimizer(optimizer: Any) -> dict[str, Param]:
    params: dict[str, Param] = {}
    for place, variable in enumerate(optimizer.variables):
        path = variable.path
        name = path.removeprefix(f"{optimizer.name}/").replace("/", ".")
        if name in params:
            name = f"{name}_{place}"
        live = _Held(variable, f"net.variables[{place}]", path if path != name else "", STATE)
        params[name] = Param(name, KerasArray(variable, name), STATE, live=live)
    return params


def _of_container(source: Any) -> dict[str, Param]:
    found = list(_contained(source, "", "params"))
    paths = {variable.path.replace("/", ".") for _, _, variable in found}
    listed = isinstance(source, list | tuple) and len(paths) == len(found)
    params: dict[str, Param] = {}
    for key, native, variable in found:
        path = variable.path.replace("/", ".")
        name = path if listed else key or "parameter"
        dtype = keras.backend.standardize_dtype(variable.dtype)
        kind = PARAMETER if variable.trainable else kind_of(path, dtype)
        live = _Held(variable, native, "" if listed else path, kind)
        params[name] = Param(name, KerasArray(variable, name), kind, live=live)
    return params


def _contained(source: Any, path: str, native: str) -> Iterator[Found]:
    """Yield the variables in nested dicts and lists."""
    if isinstance(source, keras.Variable):
        yield path, native, source
        return
    if isinstance(source, Mapping):
        steps: Any = source.items()
    elif isinstance(source, list | tuple):
        steps = enumerate(source)
    else:
        return
    for key, below in steps:
        yield from _contained(below, f"{path}.{key}" if path else str(key), f"{native}[{key!r}]")
