"""Values far from zero that lie close together are counted again, in equal steps.

Upper bits tell apart what differs by a part of its magnitude. Where that is coarse beside the spread, as of
the scales of a norm, the bins that hold the quantiles are counted once more, each value in one of many steps,
and these again if they are coarse still. What is alike in a step is known exactly: of each, the least and the
largest value are kept.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paratree.verbs._distribution import SPARKS, Bins, quantiles_and_spark, reach
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
_COUNTED = 1 << 19  # values whose places are held at once: 58 ns a value, of 2**17 132, of 2**21 80


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


class Steps(NamedTuple):
    """How many values are in each step, and the least and the largest of them."""

    low: Values
    high: Values
    counts: Values

    def and_(self, other: Steps) -> Steps:
        """Return what is in the steps of both."""
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Steps(low, high, self.counts + other.counts)


def coarse(bins: Bins, extremes: tuple[float, float], dtype: str) -> Coarse | None:
    """Return what is to be counted again, if bins of upper bits are wide beside the spread of the values."""
    first, last = reach(bins)
    if not _are_wide(bins, first, last):
        return None
    low = _ends(bins, first, dtype)[0] if first else extremes[0]
    high = _ends(bins, last, dtype)[1] if last < bins.low.size - 1 else extremes[1]
    return Coarse(bins, first, last, low, high, extremes) if _are_parted(low, high) else None


def _widest(bins: Bins, first: int, last: int) -> float:
    return float((bins.high[first : last + 1] - bins.low[first : last + 1]).max())


def _are_wide(bins: Bins, first: int, last: int) -> bool:
    """Tell whether bins are too wide for the quantiles that are taken from them."""
    fewest = _FEWEST if last - first < _FEWEST else SPARKS
    return _widest(bins, first, last) * fewest > float(bins.high[last]) - float(bins.low[first])


def _are_parted(low: float, high: float) -> bool:
    """Tell whether float64 holds the steps between two values."""
    return low < high and isfinite(high - low) and isfinite(_STEPS / (high - low))


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
    while found:
        again: dict[str, Coarse] = {}
        for name, steps in _counted(params, found, threads, executor):
            figures, finer = _figures(found[name], steps)
            again |= {} if finer is None else {name: finer}
            yield name, figures
        found = again


def _counted(
    params: Mapping[str, Param], found: Mapping[str, Coarse], threads: int | None, executor: Executor | None
) -> Iterator[tuple[str, Steps]]:
    names = list(found)
    sums: dict[str, Steps] = {}

    def places(block: Block, values: Values) -> Steps:
        return _count(floats(values)[0], found[names[block.item]])

    for block, more in scan([params[name] for name in names], places, threads=threads, executor=executor):
        if isinstance(more, ParamUnread):  # read a moment ago; what was found then stays
            continue
        name = names[block.item]
        sums[name] = sums[name].and_(more) if name in sums else more
        if block.is_last:
            yield name, sums.pop(name)


def _count(values: Values, found: Coarse) -> Steps:
    """Return how many values are in each step, and which."""
    low, high = np.full(_STEPS, np.inf), np.full(_STEPS, -np.inf)
    counts = np.zeros(_STEPS, np.int64)
    scale = _STEPS / (found.high - found.low)
    for start in range(0, values.size, _COUNTED):
        part = values[start : start + _COUNTED]
        with np.errstate(invalid="ignore"):
            within = (part >= found.low) & (part <= found.high)
        inside = (part if within.all() else part[within]).astype(np.float64)
        if not inside.size:
            continue
        places = np.minimum((inside - found.low) * scale, _STEPS - 1).astype(np.uint16)
        order = places.argsort(kind="stable")  # by radix: five times as fast as to sort the values
        inside, places = inside[order], places[order]
        starts = np.append(0, (places[1:] != places[:-1]).nonzero()[0] + 1)
        at = places[starts]
        low[at] = np.minimum(low[at], np.minimum.reduceat(inside, starts))
        high[at] = np.maximum(high[at], np.maximum.reduceat(inside, starts))
        counts[at] += np.diff(starts, append=inside.size)
    return Steps(low, high, counts)


def _figures(found: Coarse, steps: Steps) -> tuple[dict[str, Any], Coarse | None]:
    """Return the figures that are finer now, and what is to be counted again even so."""
    taken = steps.counts.nonzero()[0]
    old, first, last = found.bins, found.first, found.last + 1
    columns = ((old.low, steps.low), (old.high, steps.high), (old.counts, steps.counts))
    bins = Bins(*(np.concatenate([was[:first], now[taken], was[last:]]) for was, now in columns))
    quantiles, spark = quantiles_and_spark(bins, found.extremes)
    first, last = reach(bins)
    off = _widest(bins, first, last)
    figures = {"quantiles": quantiles, "quantile_error": 0.0, "quantile_step": off, "spark": spark}
    low, high = float(bins.low[first]), float(bins.high[last])
    is_coarse = _are_wide(bins, first, last) and _are_parted(low, high)
    return figures, Coarse(bins, first, last, low, high, found.extremes) if is_coarse else None
