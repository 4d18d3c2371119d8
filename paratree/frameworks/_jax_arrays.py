"""Leaves of pytrees as arrays: shape and dtype now, values when asked, on the host without a copy."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import jax
import numpy as np

from paratree.core.array import Storage, basic_index
from paratree.core.dtypes import is_known
from paratree.core.errors import UnreadableError, printable
from paratree.frameworks._jax_trees import by_class

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from paratree.core.array import Index, Shape

    Values = np.ndarray[Any, Any]

NUMBERS = (bool, int, float, complex)
_NO_VALUES: tuple[tuple[Callable[[Any], bool], str], ...] = (  # what applies, what to say
    (
        lambda x: isinstance(x, jax.ShapeDtypeStruct),
        "a shape without values, as of jax.eval_shape; call the function itself and open what it returns",
    ),
    (
        lambda x: isinstance(x, jax.core.Tracer),
        "a tracer has no values; open it outside the function that JAX transforms (jit, grad, vmap)",
    ),
    (
        lambda x: isinstance(x, jax.Array) and x.is_deleted(),
        "its memory is gone, given to a jitted function (donate_argnums) or deleted; open what that returned",
    ),
    (
        lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key),
        "a key is no array of NumPy's; jax.random.key_data(key) is",
    ),
    (
        lambda x: isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated),
        "parts of it are in other processes; gather them on every one with "
        "jax.experimental.multihost_utils.process_allgather(array, tiled=True)",
    ),
)


@by_class
def is_array(kind: type) -> bool:
    """Tell whether the leaves of a class are arrays, with values or without."""
    return issubclass(
        kind, jax.Array | jax.core.Tracer | np.ndarray | np.generic | jax.ShapeDtypeStruct | jax.Ref
    )


@lru_cache(maxsize=1024)
def dtype_name(dtype: Any) -> str:
    """Return the name of a dtype of NumPy or JAX."""
    return str(dtype.name)


class JaxArray:
    """The array of a leaf, a Python number included; ``name`` is what messages call it.

    Leaves of one ``group`` that are one object are tied.
    """

    __slots__ = ("group", "leaf", "name")

    def __init__(self, leaf: Any, name: str, group: str = "") -> None:
        self.leaf, self.name, self.group = leaf, name, group

    @property
    def shape(self) -> Shape:
        """Length along each axis, over all devices."""
        return () if isinstance(self.leaf, NUMBERS) else tuple(self.leaf.shape)

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return dtype_name(np.asarray(self.leaf).dtype if isinstance(self.leaf, NUMBERS) else self.leaf.dtype)

    @property
    def storage(self) -> Storage | None:
        """The object itself, kept alive: JAX hides the memory, and an array is never changed in it."""
        if isinstance(self.leaf, (np.generic, jax.ShapeDtypeStruct, *NUMBERS)):
            return None  # equal ones may be one object by chance
        return Storage(Same(self.leaf, self.group))

    @property
    def problem(self) -> str | None:
        """Why there is no value to read now."""
        if isinstance(self.leaf, NUMBERS):
            return None
        words = next((words for applies, words in _NO_VALUES if applies(self.leaf)), None)
        if words is None and not is_known(self.dtype):
            words = f"paratree has no {self.dtype}; convert it, as with .astype(jax.numpy.int8)"
        return None if words is None else f"{printable(self.name)}: {words}"

    def read(self, index: Index = ...) -> Values:
        """Return the values at a basic index: the memory of the host, read-only, or a copy from a device.

        Raises:
            IndexError: the index does not fit the shape.
            UnreadableError: there are no values here.
        """
        if (problem := self.problem) is not None:
            raise UnreadableError(problem)
        leaf = self.leaf[...] if isinstance(self.leaf, jax.Ref) else self.leaf
        if index is ...:
            return np.asarray(leaf)
        places = basic_index(index, self.shape)  # type: ignore[arg-type]
        parts = (*(_slice(place) for place in places), ...)
        on_device = isinstance(leaf, jax.Array) and any(d.platform != "cpu" for d in leaf.devices())
        return np.asarray(leaf[parts]) if on_device else np.asarray(leaf)[parts]


def _slice(place: int | range) -> int | slice:
    if isinstance(place, int):
        return place
    if not place:
        return slice(0, 0)
    stop = place.stop if place.stop >= 0 else None
    return slice(place.start, stop, place.step)


class Same:
    """An object as a key: equal to itself only, and alive as long as the key is."""

    __slots__ = ("_group", "_it")

    def __init__(self, it: object, group: str) -> None:
        self._it, self._group = it, group

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self._it is other._it and self._group == other._group

    def __hash__(self) -> int:
        return id(self._it)

    def __repr__(self) -> str:
        return f"<{type(self._it).__name__} at {id(self._it):#x}>"


def leaf_of(values: Values, like: Any) -> Any:
    """Return NumPy values as a leaf of the same kind, dtype and place on devices; a copy."""
    if isinstance(like, jax.Ref):
        return jax.new_ref(leaf_of(values, like[...]))
    if isinstance(like, jax.Array):
        return jax.device_put(np.array(values), like.sharding if like.committed else None)
    if isinstance(like, np.ndarray):
        return np.array(values)
    return type(like)(values[()])


def copy_of(leaf: Any) -> Any:
    """Return an array of its own of equal values."""
    return leaf.copy()
