"""What becomes of parameters before they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from paratree.core.array import Storage
from paratree.core.dtypes import numpy_dtype
from paratree.core.names import OTHER

if TYPE_CHECKING:
    from paratree.core.array import Index, LazyArray, Shape
    from paratree.core.tree import ParamTree

    Values = np.ndarray[Any, Any]


class Untied:
    """An array that is tied with nothing."""

    __slots__ = ("_array",)

    storage = None

    def __init__(self, array: LazyArray) -> None:
        self._array = array

    @property
    def shape(self) -> Shape:
        """Length along each axis."""
        return self._array.shape

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self._array.dtype

    @property
    def problem(self) -> str | None:
        """Why there is no value to read."""
        return self._array.problem

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index."""
        return self._array.read(index)


class Cast:
    """An array in another floating dtype: rounded to nearest, ties to even, when it is read.

    Attributes:
        dtype: name of the dtype.
        overflowed: how many finite values of what was read so far have become infinite, or NaN.
    """

    __slots__ = ("_array", "dtype", "overflowed")

    def __init__(self, array: LazyArray, dtype: str) -> None:
        self._array, self.dtype, self.overflowed = array, dtype, 0

    @property
    def shape(self) -> Shape:
        """Length along each axis."""
        return self._array.shape

    @property
    def storage(self) -> Storage | None:
        """That of the array, cast: two names of one array are still one."""
        storage = self._array.storage
        return storage and Storage((storage.key, self.dtype), storage.offset, storage.strides)

    @property
    def problem(self) -> str | None:
        """Why there is no value to read."""
        return self._array.problem

    def read(self, index: Index = ...) -> Values:
        """Return the values at a basic index, cast."""
        values = self._array.read(index)
        cast = rounded(values, self.dtype)
        with np.errstate(invalid="ignore"):
            self.overflowed += int(np.count_nonzero(np.isfinite(values) & ~np.isfinite(cast)))
        return cast


def rounded(values: Values, dtype: str) -> Values:
    """Return floating values in another floating dtype, rounded once, to nearest, ties to even.

    ml_dtypes takes float64 through float32, which would round twice: so that is rounded to odd, which keeps
    what the second rounding has to know (Boldo and Melquiond 2008).
    """
    target = numpy_dtype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        if values.dtype == np.float64 and target.name not in ("float16", "float32", "float64"):
            values = _to_odd(values)
        return np.asarray(values.astype(target))


def _to_odd(values: Values) -> Values:
    """Return float64 as float32; what does not fit becomes that of its two neighbours whose last bit is 1."""
    near = np.asarray(values.astype(np.float32))
    back, bits = near.astype(np.float64), near.view(np.uint32)
    with np.errstate(invalid="ignore"):
        bits -= np.abs(back) > np.abs(values)
        bits |= (back != values) & ~np.isnan(values)
    return near


def skipped_names(tree: ParamTree) -> list[str]:
    """Return the names of what belongs to no model and has no numbers, as texts."""
    return [name for name, param in tree.items() if param.kind == OTHER and param.array.problem is not None]
