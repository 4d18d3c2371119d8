"""TensorFlow variables: their shape and dtype now, a copy of their values when asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from paratree.core.array import Storage, basic_index
from paratree.core.dtypes import is_known
from paratree.core.errors import UnreadableError, printable

if TYPE_CHECKING:
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, Shape

    Values = np.ndarray[Any, Any]


class VariableArray:
    """The array of a variable or a tensor; ``name`` is what messages call it.

    TensorFlow does not let others write into its memory: what is read is a copy.
    """

    __slots__ = ("name", "variable")

    def __init__(self, variable: Any, name: str) -> None:
        self.variable, self.name = variable, name

    @property
    def shape(self) -> Shape:
        """Length along each axis; of a variable whose shape may change, the shape that it has now."""
        return shape_of(self.variable)

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return dtype_of(self.variable)

    @property
    def storage(self) -> Storage:
        """The variable itself: TensorFlow has no two that share memory."""
        return storage_of(self.variable)

    @property
    def problem(self) -> str | None:
        """Why there is no value to read now."""
        if tf.is_symbolic_tensor(self.variable) or getattr(self.variable, "_in_graph_mode", False):
            words = "a graph holds it, and values exist only while that runs; run TensorFlow eagerly"
        elif not is_known(self.dtype):
            words = f"NumPy has no {self.dtype}; read it with TensorFlow, or convert it with tf.cast"
        else:
            return None
        return f"{printable(self.name)}: {words}"

    def read(self, index: Index = ...) -> Values:
        """Return a copy of the values at a basic index, read-only: writing to it would change no variable.

        Raises:
            IndexError: the index does not fit the shape.
            UnreadableError: NumPy cannot hold the values, or there are none yet.
        """
        import numpy as np

        if (problem := self.problem) is not None:
            raise UnreadableError(problem)
        values = np.asarray(self.variable.numpy())
        values.flags.writeable = False
        if index is ...:
            return values
        basic_index(index, values.shape)  # refuses what would be another reading than in every framework
        part = np.asarray(values[index])
        part.flags.writeable = False
        return part


def inner(variable: Any) -> Any:
    """Return the variable with the values: Keras 2 wraps it where a layer computes in half precision."""
    return variable._variable if type(variable).__name__ == "AutoCastVariable" else variable


def shape_of(variable: Any) -> Shape:
    """Return the shape, asking the device only where the variable itself leaves it open."""
    static = variable.shape
    if not static.is_fully_defined() and isinstance(variable, tf.Variable):
        static = tf.TensorShape(tf.raw_ops.VariableShape(input=inner(variable).handle))
    return (None,) if static.rank is None else tuple(static.as_list())


def dtype_of(variable: Any) -> str:
    """Return the name of the dtype in which the values are kept."""
    return str(variable.dtype.base_dtype.name)


def storage_of(variable: Any) -> Storage:
    """Return the identity of a variable."""
    return Storage(_Same(inner(variable)))


class _Same:
    """An object as a key that is equal to itself alone; it stays alive, so that no other takes its place."""

    __slots__ = ("_object",)

    def __init__(self, held: object) -> None:
        self._object = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._object is other._object

    def __hash__(self) -> int:
        return id(self._object)

    def __repr__(self) -> str:
        return f"<{type(self._object).__name__} {id(self._object):#x}>"


def dense(gradient: Any) -> Any:
    """Return a gradient as a tensor: that of an embedding comes as rows and their places."""
    return tf.convert_to_tensor(gradient)


def lists_variables(tracked: Any) -> bool:
    """Tell whether what an object tracks is a list or dict with variables in it."""
    if not isinstance(tracked, tf.__internal__.tracking.TrackableDataStructure):
        return False
    return any(isinstance(value, tf.Variable) for value in tracked._values)


def new_like(variable: Any, values: Values, name: str) -> Any:
    """Return another variable with these values and the options of one."""
    import numpy as np

    made = tf.Variable(
        np.array(values),
        trainable=variable.trainable,
        dtype=inner(variable).dtype,
        name=name,
        constraint=inner(variable).constraint,
        synchronization=variable.synchronization,
        aggregation=variable.aggregation,
    )
    return made if inner(variable) is variable else type(variable)(made)
