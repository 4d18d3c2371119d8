"""TensorFlow: the gradients of a loss, and what each reading of a variable adds to them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import tensorflow as tf

from paratree.core.errors import MismatchError, UnsupportedError
from paratree.core.results import Derivative, Use
from paratree.frameworks._tensorflow_variables import VariableArray, dense, inner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    Reading = tuple[int, Any]  # position of the variable, the tensor that this reading of it gave

_READINGS = ("value", "read_value", "sparse_read", "gather_nd")


def differentiate(
    function: Callable[[Callable[[int], Any]], Any], values: Sequence[Any], per_use: bool
) -> Derivative:
    """Differentiate ``function(read)``, which asks for the value at a position by ``read(position)``.

    Args:
        function: returns a scalar tensor.
        values: variables or tensors; a use is a call of ``read``.
        per_use: whether to return the uses.
    """
    leaves = [tf.identity(value) for value in values]
    readings: list[Reading] = []

    def read(place: int) -> Any:
        readings.append((place, tf.identity(leaves[place])))
        return readings[-1][1]

    with _functions_run_eagerly(), tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(leaves)
        value = function(read)
    return _derivative(tape, value, leaves, readings if per_use else None)


def differentiate_variables(
    loss: Callable[[], Any], variables: Sequence[Any], kept: Iterable[Any], per_use: bool
) -> Derivative:
    """Differentiate ``loss()`` by variables that it reads itself.

    Args:
        loss: returns a scalar tensor.
        variables: what to differentiate by.
        kept: variables whose values are put back.
        per_use: whether to tell readings apart; functions then run eagerly.
    """
    leaves = [inner(variable) for variable in variables]
    readings: list[Reading] = []
    with ExitStack() as stack:
        stack.enter_context(_values_kept(kept))
        tape = stack.enter_context(tf.GradientTape(watch_accessed_variables=False))
        tape.watch(leaves)
        with ExitStack() as spies:
            if per_use:
                spies.enter_context(_functions_run_eagerly())
                for place, leaf in enumerate(leaves):
                    spies.enter_context(_spied(leaf, place, readings))
            value = loss()
    return _derivative(tape, value, leaves, readings if per_use else None)


def _derivative(
    tape: Any, value: Any, leaves: Sequence[Any], readings: Sequence[Reading] | None
) -> Derivative:
    if not tf.is_tensor(value) or value.shape.num_elements() != 1 or not value.dtype.is_floating:
        what = f"a tensor of shape {tuple(value.shape)}" if tf.is_tensor(value) else repr(value)
        raise MismatchError(f"the loss is {what[:80]}; a gradient needs one number: take its mean or sum")
    found = tape.gradient(value, [*leaves, *(tensor for _, tensor in readings or ())])
    arrays = [None if g is None else VariableArray(dense(g), "gradient").read() for g in found]
    number = float(tf.reshape(value, ()))
    if readings is None:
        return Derivative(number, arrays, None)
    uses: list[list[Use]] = [[] for _ in leaves]
    for (place, _), gradient in zip(readings, arrays[len(leaves) :], strict=True):
        if gradient is not None:
            uses[place].append(Use(gradient, "read"))
    return Derivative(number, arrays[: len(leaves)], uses)


@contextmanager
def _functions_run_eagerly() -> Iterator[None]:
    """Run every ``tf.function`` as plain Python: a graph traced before would not ask for values again."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@contextmanager
def _values_kept(variables: Iterable[Any]) -> Iterator[None]:
    """Put back what a loss writes into variables; a reading copies nothing until then."""
    before = [
        (variable, variable.read_value()) for variable in {id(v): v for v in map(inner, variables)}.values()
    ]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


@contextmanager
def _spied(variable: Any, place: int, readings: list[Reading]) -> Iterator[None]:
    """Give every reading of a variable a tensor of its own.

    TensorFlow reads the variables that an operation takes by their handles, without asking Python; where a
    handle is no tensor, it asks the methods.
    """
    held = vars(variable)
    if "_handle" not in held:
        raise UnsupportedError(
            f"{variable.name}: the readings of a {type(variable).__name__} cannot be told apart; "
            "take the gradients without per_use=True"
        )
    handle = held["_handle"]

    def value(*_: Any, **__: Any) -> Any:
        tensor = tf.identity(tf.raw_ops.ReadVariableOp(resource=handle, dtype=variable.dtype))
        readings.append((place, tensor))
        return tensor

    held["value"] = held["read_value"] = value
    held["sparse_read"] = lambda indices, name=None: tf.gather(value(), indices, name=name)
    held["gather_nd"] = lambda indices, name=None: tf.gather_nd(value(), indices, name=name)
    held["_handle"] = _Handle(handle)
    try:
        yield
    finally:
        for name in _READINGS:
            del held[name]
        held["_handle"] = handle


class _Handle:
    """Stands for the handle of a variable, for those who ask in Python."""

    def __init__(self, handle: Any) -> None:
        self._real = handle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self._real
