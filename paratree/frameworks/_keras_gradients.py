"""Keras 3: the gradients of a loss, and what each reading of a variable adds to them, on every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras

from paratree.core.errors import UnsupportedError
from paratree.frameworks._keras_arrays import backend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from paratree.core.results import Derivative
    from paratree.core.tree import ParamTree


def gradients(
    source: Any,
    tree: ParamTree,
    loss: Callable[..., Any],
    batch: tuple[Any, ...],
    names: Sequence[str],
    per_use: bool,
) -> Derivative:
    """Differentiate in a scope that gives every reading of a variable its own value, and keeps no writing.

    A use is a reading: an operation that takes the variable, or a step of a recurrent layer on TensorFlow and
    torch, which run it step by step.
    """
    places: dict[int, int] = {}
    for place, name in enumerate(names):
        for alike in tree.tied_with(name):
            places[id(tree[alike].handle)] = place
    values = [tree[name].handle._value for name in names]

    def function(read: Callable[[int], Any]) -> Any:
        with _Readings(places, read) as readings:
            value = loss(source, *batch)
        if places and not readings.seen:
            raise UnsupportedError(
                "the loss reads no parameter of the model: what was compiled before (jax.jit, torch.compile) "
                "has old values in it; call the model itself in the loss"
            )
        return value

    found: Derivative = backend().differentiate(function, values, per_use)
    return found


class _Readings(keras.StatelessScope):  # type: ignore[misc]
    """A scope in which a variable is what ``read`` gives, until it is assigned to."""

    def __init__(self, places: Mapping[int, int], read: Callable[[int], Any]) -> None:
        super().__init__()
        self._places, self._read = places, read
        self.seen = False

    def get_current_value(self, variable: Any) -> Any:
        """Return what was assigned in this scope, or another reading of the parameter."""
        assigned = super().get_current_value(variable)
        if assigned is not None or id(variable) not in self._places:
            return assigned
        self.seen = True
        return self._read(self._places[id(variable)])
