"""Values in another floating dtype, rounded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from paratree.core.array import Storage
from paratree.core.dtypes import numpy_dtype

if TYPE_CHECKING:
    from paratree.core.array import Index, LazyArray, Shape

    Values = np.ndarray[Any, Any]


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
    """Return values in another dtype, those of floats rounded once, to nearest, ties to even.

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
