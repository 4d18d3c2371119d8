"""Values in another floating dtype, rounded once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from paratree.core.array import Storage
from paratree.core.dtypes import finfo, numpy_dtype

if TYPE_CHECKING:
    import numpy as np

    from paratree.core.array import Index, LazyArray, Shape

    Values = np.ndarray[Any, Any]


class Cast:
    """An array in another floating dtype: rounded to nearest, ties to even, when it is read.

    Attributes:
        dtype: name of the dtype.
        lost: of what was read so far, how many values the dtype could not hold: what they were, and became.
    """

    __slots__ = ("_array", "dtype", "lost")

    def __init__(self, array: LazyArray, dtype: str) -> None:
        self._array, self.dtype = array, dtype
        self.lost = Counter[tuple[str, str]]()

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
        self.lost.update(_lost(values, cast))
        return cast


def _lost(values: Values, cast: Values) -> dict[tuple[str, str], int]:
    """Count the values that a cast did more to than round them; dtypes of 4 and 6 bits are finite only."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        finite, kept = np.isfinite(values), np.isfinite(cast)
        counts = {("finite value", "infinite or NaN"): np.count_nonzero(finite & ~kept)}
        if not finite.all():
            infinite, nan = np.isinf(values), np.isnan(values)
            counts["infinite value", "NaN"] = np.count_nonzero(infinite & np.isnan(cast))
            counts["infinite value", "finite"] = np.count_nonzero(infinite & kept)
            counts["NaN value", "a number"] = np.count_nonzero(nan & ~np.isnan(cast))
        if cast.dtype.name.startswith(("float4_", "float6_")):
            beyond = np.abs(values) > float(finfo(cast.dtype.name).max)
            counts["finite value", "its largest"] = np.count_nonzero(finite & beyond)
    return {key: int(count) for key, count in counts.items() if count}


def rounded(values: Values, dtype: str) -> Values:
    """Return values in another dtype, those of floats rounded once, to nearest, ties to even.

    ml_dtypes takes float64 through float32, which would round twice: so that is rounded to odd, which keeps
    what the second rounding has to know (Boldo and Melquiond 2008).
    """
    import numpy as np

    target = numpy_dtype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        if values.dtype == np.float64 and target.name not in ("float16", "float32", "float64"):
            values = _to_odd(values)
        return np.asarray(values.astype(target))


def _to_odd(values: Values) -> Values:
    """Return float64 as float32; what does not fit becomes that of its two neighbours whose last bit is 1."""
    import numpy as np

    near = np.asarray(values.astype(np.float32))
    back, bits = near.astype(np.float64), near.view(np.uint32)
    with np.errstate(invalid="ignore"):
        bits -= np.abs(back) > np.abs(values)
        bits |= (back != values) & ~np.isnan(values)
    return near
