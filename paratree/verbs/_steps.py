"""Values far from zero that lie close together are counted again, in equal steps.

Upper bits tell apart what differs by a part of its magnitude. Where that is coarse beside the spread, as of
the scales of a norm, the bins that hold the quantiles are counted once more, each value in one of many steps.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paratree.verbs._distribution import Bins, quantiles_and_spark, reach
from paratree.verbs._measured import floats
from paratree.verbs.reading import ParamUnread, scan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from concurrent.futures import Executor

    from paratree.core.param import Param
    from paratree.engine import Block

    Values = np.ndarray[Any, Any]

_STEPS = 1 << 16
_FEWEST = 64  # bins from the lowest quantile to the highest, or widths of the widest, that are fine enough
_COUNTED = 1 << 17  # values whose places are held at once, in the cache


class Coarse(NamedTuple):
    """Bins some of which are to be counted again.

    Attributes:
        bins: all of them.
        first: place of the first of those.
        last: place of the last.
        low: the least value in them.
        high: the largest.
        extremes: the smallest and the largest value of all.
    """

    bins: Bins
    first: int
    last: int
    low: float
    high: float
    extremes: tuple[float, float]

    @property
    def step(self) -> float:
        """How far apart two values in one step are at most, rounding included."""
        rounding = 2 * float(np.spacing(max(abs(self.low), abs(self.high))))
        return (self.high - self.low) / _STEPS + rounding


def coarse(bins: Bins, extremes: tuple[float, float], dtype: str) -> Coarse | None:
    """Return what is to be counted again, if bins of upper bits are wide beside the spread of the values."""
    first, last = reach(bins)
    with np.errstate(over="ignore"):
        widest = (bins.high[first : last + 1] - bins.low[first : last + 1]).max()
        span = bins.high[last] - bins.low[first]
        if last - first >= _FEWEST or not widest * _FEWEST > span:
            return None
    low = _ends(bins, first, dtype)[0] if first else extremes[0]
    high = _ends(bins, last, dtype)[1] if last < bins.low.size - 1 else extremes[1]
    if not (low < high and isfinite(high - low) and isfinite(_STEPS / (high - low))):
        return None
    return Coarse(bins, first, last, low, high, extremes)


def _ends(bins: Bins, place: int, dtype: str) -> tuple[float, float]:
    """Return the least and the largest value of a dtype in a bin: its bound away from zero is beyond it."""
    low, high = float(bins.low[place]), float(bins.high[place])
    if low == high:
        return low, high
    kind = np.dtype(dtype).type
    near, far = sorted((abs(low), abs(high)))
    near = near or float(np.finfo(dtype).smallest_subnormal)
    far = far if far == np.finfo(dtype).max else float(np.nextafter(kind(far), kind(0)))
    return (near, far) if high > 0 else (-far, -near)


def refined(
    params: Mapping[str, Param],
    found: Mapping[str, Coarse],
    *,
    threads: int | None = None,
    executor: Executor | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read parameters again, and yield the name of each with its figures that are finer now."""
    names = list(found)
    counts: dict[str, Values] = {}

    def places(block: Block, values: Values) -> Values:
        return _count(floats(values)[0], found[names[block.item]])

    for block, more in scan([params[name] for name in names], places, threads=threads, executor=executor):
        if isinstance(more, ParamUnread):  # read a moment ago; what was found then stays
            continue
        name = names[block.item]
        counts[name] = counts[name] + more if name in counts else more
        if block.is_last:
            yield name, _figures(found[name], counts.pop(name))


def _count(values: Values, found: Coarse) -> Values:
    """Return how many values are in each step."""
    counts = np.zeros(_STEPS, np.int64)
    scale = _STEPS / (found.high - found.low)
    for start in range(0, values.size, _COUNTED):
        part = values[start : start + _COUNTED]
        with np.errstate(invalid="ignore"):
            within = (part >= found.low) & (part <= found.high)
        places = (part if within.all() else part[within]).astype(np.float64)
        places -= found.low
        places *= scale
        np.minimum(places, _STEPS - 1, out=places)
        counts += np.bincount(places.astype(np.intp), minlength=_STEPS)
    return counts


def _figures(found: Coarse, counts: Values) -> dict[str, Any]:
    taken = counts.nonzero()[0]
    width = (found.high - found.low) / _STEPS
    low, high = (np.minimum(found.low + ends * width, found.high) for ends in (taken, taken + 1))
    below, above = slice(found.first), slice(found.last + 1, None)
    parts = zip(found.bins, (low, high, counts[taken]), strict=True)
    bins = Bins(*(np.concatenate([old[below], new, old[above]]) for old, new in parts))
    quantiles, spark = quantiles_and_spark(bins, found.extremes)
    return {"quantiles": quantiles, "quantile_error": 0.0, "quantile_step": found.step, "spark": spark}
