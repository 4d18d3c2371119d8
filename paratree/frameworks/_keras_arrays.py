"""Keras 3 variables: shape and dtype now, values as the backend's own adapter reads them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import keras

from paratree.core.array import Storage
from paratree.core.errors import UnreadableError, UnsupportedError, printable

if TYPE_CHECKING:
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, LazyArray, Shape

    Values = np.ndarray[Any, Any]

_BACKENDS = ("jax", "tensorflow", "torch")


def backend() -> Any:
    """Return the adapter of the framework that Keras runs on: its ``array`` and ``differentiate``.

    Imported by name: Keras has imported that framework, and no other.
    """
    return import_module(f"paratree.frameworks.{require_backend()}")


def require_backend() -> str:
    """Return the name of the backend.

    Raises:
        UnsupportedError: it is one without arrays that can be trained.
    """
    name = str(keras.backend.backend())
    if name not in _BACKENDS:
        raise UnsupportedError(
            f"Keras on '{printable(name)}': not supported; set KERAS_BACKEND to tensorflow, jax or torch"
        )
    return name


class KerasArray:
    """The array of a variable; ``name`` is what messages call it."""

    __slots__ = ("name", "variable")

    def __init__(self, variable: Any, name: str) -> None:
        self.variable, self.name = variable, name

    @property
    def shape(self) -> Shape:
        """Length along each axis."""
        return tuple(self.variable.shape)

    @property
    def dtype(self) -> str:
        """Name of the dtype of the values, which torch has fewer of than Keras."""
        if self.variable._value is None:
            return str(keras.backend.standardize_dtype(self.variable.dtype))
        return self._values.dtype

    @property
    def _values(self) -> LazyArray:
        array: LazyArray = backend().array(self.variable._value, self.name)
        return array

    @property
    def storage(self) -> Storage | None:
        """The variable itself, or what it shares with another on TensorFlow and torch."""
        if self.variable._value is None or require_backend() == "jax":  # arrays of JAX are values, not places
            return Storage(_Same(self.variable))
        return self._values.storage

    @property
    def problem(self) -> str | None:
        """Why there is no value to read now."""
        if self.variable._value is None:
            return (
                f"{printable(self.name)}: not initialised yet; leave the keras.StatelessScope it was made in"
            )
        return self._values.problem

    def read(self, index: Index = ...) -> Values:
        """Return the values at a basic index, in the backend's memory where that can be shared.

        Raises:
            IndexError: the index does not fit the shape.
            UnreadableError: NumPy cannot hold the values, or there are none yet.
        """
        if self.variable._value is None:
            raise UnreadableError(self.problem)
        return self._values.read(index)


class _Same:
    """A variable as a key that is equal to itself alone; Keras compares variables by their values."""

    __slots__ = ("_variable",)

    def __init__(self, variable: Any) -> None:
        self._variable = variable

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._variable is other._variable

    def __hash__(self) -> int:
        return id(self._variable)

    def __repr__(self) -> str:
        return f"<variable {id(self._variable):#x}>"


def gradient_of(variable: Any) -> Values | None:
    """Return the gradient that a variable holds: on torch, where backpropagation leaves it."""
    if variable._value is None or require_backend() != "torch" or variable._value.grad is None:
        return None
    return read_gradient(variable._value.grad)


def read_gradient(gradient: Any) -> Values:
    """Return a gradient given by the backend, or by NumPy, as an array."""
    import numpy as np

    if isinstance(gradient, np.ndarray):
        return gradient
    values: Values = backend().array(gradient, "gradient").read()
    return values
