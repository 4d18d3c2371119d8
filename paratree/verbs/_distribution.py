"""How values are distributed, from counts of bit patterns, of their upper bits, or of the values themselves.

The counts of all patterns of a type of at most 16 bits hold everything there is to know of its values but
their order, so that every figure follows from them, exact to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import floor, frexp
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paratree.core.dtypes import BITS, finfo, numpy_dtype
from paratree.verbs._moments import Moments, added

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Values = np.ndarray[Any, Any]

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
SPARKS = 20  # steps
_SMALLER = 2.0**-6  # steps are found among values so much smaller: the span times a step may overflow
_COUNTED_BITS = 16  # upper ones that are counted
UPPER = 1 << _COUNTED_BITS  # their patterns


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many finite values lie between each two powers of two, by sign; exact.

    The first bin of a floating type may hold its subnormals, which all count as the power below the normals.

    Attributes:
        first: exponent ``e`` of the first bin: of magnitudes from ``2**e`` up to ``2**(e + 1)``.
        negative: counts of negative values, from the first bin on.
        positive: counts of positive values, as many bins.
        zeros: how many values are zero.
    """

    first: int
    negative: tuple[int, ...]
    positive: tuple[int, ...]
    zeros: int

    @property
    def exponents(self) -> tuple[int, ...]:
        """The exponent of each bin."""
        return tuple(range(self.first, self.first + len(self.positive)))


class Distribution(NamedTuple):
    """What counts say.

    Attributes:
        histogram: by powers of two.
        quantiles: at :data:`QUANTILES`, interpolated linearly between the two nearest values.
        error: most that a quantile can be off, as a part of its magnitude or of the smallest normal value;
            0 if exact.
        spark: counts in at most :data:`SPARKS` equal steps from the 0.1 % to the 99.9 % quantile, the ends
            with what lies beyond; none is narrower than the bins that it parts.
        distinct: number of distinct finite values; ``None`` if it was not counted.
    """

    histogram: Histogram
    quantiles: tuple[float, ...]
    error: float
    spark: tuple[int, ...]
    distinct: int | None


class Bins:
    """Values in ascending order with how often each occurs; each is known to lie between two bounds.

    Attributes:
        low: lower bound of each.
        high: upper bound of each.
        counts: how often it occurs.
        before: how many values there are before each, and at the end how many there are.
    """

    __slots__ = ("before", "counts", "high", "low")

    def __init__(self, low: Values, high: Values, counts: Values) -> None:
        self.low, self.high, self.counts = low, high, counts
        self.before = np.zeros(counts.size + 1, np.int64)
        np.cumsum(counts, out=self.before[1:])


# Of types that have few patterns


class Narrow(NamedTuple):
    """Every value of a type of at most 16 bits."""

    ascending: Values  # patterns of its finite values
    values: Values  # those values, as float64
    nan: Values  # patterns
    pos_inf: Values
    neg_inf: Values


@cache
def narrow(dtype: str) -> Narrow:
    """Return every value of a dtype."""
    width = max(BITS[dtype], 8)
    patterns = np.arange(1 << width, dtype=f"u{width // 8}")
    with np.errstate(invalid="ignore"):
        values = (patterns != 0 if dtype == "bool" else patterns.view(numpy_dtype(dtype))).astype(np.float64)
    finite = np.isfinite(values).nonzero()[0]
    ascending = finite[np.argsort(values[finite], kind="stable")]
    others = (np.isnan(values), values == np.inf, values == -np.inf)
    return Narrow(ascending, values[ascending], *(mask.nonzero()[0] for mask in others))


def narrow_bins(counts: Values, dtype: str) -> Bins:
    """Return the finite values that occur, from the counts of all patterns of a dtype."""
    every = narrow(dtype)
    ordered = counts[every.ascending]
    found = (ordered != 0).nonzero()[0]
    values = every.values[found]
    return Bins(values, values, ordered[found])


def narrow_moments(bins: Bins) -> Moments | None:
    """Return the moments of counted values: the products are exact, and their sum is rounded once."""
    values, counts = bins.low, bins.counts
    if not values.size:
        return None
    size = int(bins.before[-1])
    mean = added((values * counts).tolist()) / size
    off = values - mean
    low, high = float(values[0]), float(values[-1])
    squares = float((off * off * counts).sum()) if low < high else 0.0
    zeros = int(counts[values == 0].sum())
    return Moments(size, zeros, low, high, mean, squares, float((np.abs(values) * counts).sum()))


# Of float32 and float64


@cache
def upper_edges(dtype: str) -> Values:
    """Return the least magnitude of each finite pattern of upper bits, and the largest of all."""
    width = BITS[dtype]
    uint = np.dtype(f"u{width // 8}").type
    magnitudes = np.arange(1 << (_COUNTED_BITS - 1), dtype=uint)
    with np.errstate(invalid="ignore"):  # NaN
        edges = (magnitudes << uint(width - _COUNTED_BITS)).view(dtype).astype(np.float64)
    return np.append(edges[np.isfinite(edges)], np.finfo(dtype).max)


@cache
def _upper_bounds(dtype: str) -> tuple[Values, Values]:
    """Return the least and the largest value of each pattern of upper bits, and of zero, which follows."""
    edges = upper_edges(dtype)
    low, high = np.zeros((2, UPPER + 1))
    low[: edges.size - 1], high[: edges.size - 1] = edges[:-1], edges[1:]
    negative = slice(UPPER // 2, UPPER // 2 + edges.size - 1)
    low[negative], high[negative] = -edges[1:], -edges[:-1]
    return low, high


def upper_bins(counts: Values, dtype: str, extremes: tuple[float, float]) -> Bins:
    """Return bounds of the values, from the counts of their upper bits.

    Args:
        counts: how often each pattern of the upper bits occurs in what is not zero, and how often zero does.
        dtype: name of the dtype that has these bits.
        extremes: the smallest and the largest value, within which the bounds are.
    """
    found = (counts != 0).nonzero()[0]  # five times faster on booleans than on counts
    negative, zero = np.searchsorted(found, (UPPER // 2, UPPER))
    places = np.concatenate((found[negative:zero][::-1], found[zero:], found[:negative]))
    low, high = (bounds[places] for bounds in _upper_bounds(dtype))
    low[0], high[-1] = max(low[0], extremes[0]), min(high[-1], extremes[1])
    return Bins(low, high, counts[places])


def upper_error(dtype: str) -> float:
    """Return how wide a bin of upper bits is at most, as a part of the magnitudes in it."""
    return float(2.0 ** -(_COUNTED_BITS - 1 - (BITS[dtype] - 1 - np.finfo(dtype).nmant)))


# All


def distribution(
    bins: Bins, extremes: tuple[float, float], dtype: str, *, error: float = 0.0
) -> Distribution:
    """Return how values are distributed.

    Args:
        bins: the values; they are not empty.
        extremes: the smallest and the largest of them.
        dtype: name of the dtype in which they are, for where its subnormals begin.
        error: how wide a bin is at most, as a part of the magnitudes in it.
    """
    quantiles, spark = quantiles_and_spark(bins, extremes)
    return Distribution(
        _histogram(bins, dtype),
        quantiles,
        error,
        spark,
        None if error or BITS[dtype] > 16 else int(1 + (np.diff(bins.low) > 0).sum()),
    )


def quantiles_and_spark(
    bins: Bins, extremes: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the quantiles, and counts in equal steps between the first and the last of them."""
    quantiles = _quantiles(bins, extremes)
    low, high = quantiles[0], quantiles[-1]
    return quantiles, _spark(bins, low, high) if low < high else ()


def reach(bins: Bins) -> tuple[int, int]:
    """Return the places of the first and the last bin that a quantile is taken from."""
    last = int(bins.before[-1]) - 1
    values = [floor(QUANTILES[0] * last), min(floor(QUANTILES[-1] * last) + 1, last)]
    first, end = np.searchsorted(bins.before[1:], values, side="right").tolist()
    return first, end


def _histogram(bins: Bins, dtype: str) -> Histogram:
    start, stop = int(bins.low.searchsorted(0.0)), int(bins.high.searchsorted(0.0, "right"))  # of zeros
    below, above = bins.high[:start], bins.low[stop:]  # the bounds next to zero
    zeros = int(bins.before[stop] - bins.before[start])
    ends = [float(side[place]) for side in (below, above) if side.size for place in (0, -1)]
    if not ends:
        return Histogram(0, (), (), zeros)
    least = _least_exponent(dtype) - 1  # of subnormals
    exponents = [max(frexp(end)[1] - 1, least) if end else least for end in ends]
    first, last = min(exponents), max(exponents)
    powers = np.ldexp(1.0, np.arange(first + 1, last + 1))
    farther = bins.before[below.searchsorted(-powers, "right")].tolist()
    nearer = bins.before[stop + above.searchsorted(powers)].tolist()
    farther = [int(bins.before[start]), *farther, 0]
    nearer = [int(bins.before[stop]), *nearer, int(bins.before[-1])]
    negative = (more - fewer for more, fewer in pairwise(farther))
    positive = (more - fewer for fewer, more in pairwise(nearer))
    return Histogram(first, tuple(negative), tuple(positive), zeros)


@cache
def _least_exponent(dtype: str) -> int:
    """Return the exponent of the smallest normal value of a dtype; that of 1 for integers."""
    return int(finfo(dtype).minexp) if "float" in dtype else 0


def _quantiles(bins: Bins, extremes: tuple[float, float]) -> tuple[float, ...]:
    last, (low, high) = int(bins.before[-1]) - 1, extremes
    below = [floor(q * last) for q in QUANTILES]
    found = _at(bins, [*below, *(min(place + 1, last) for place in below)])
    quantiles = []
    for q, place, first, second in zip(
        QUANTILES, below, found[: len(below)], found[len(below) :], strict=True
    ):
        part = q * last - place
        between = first * (1 - part) + second * part  # their difference may be beyond float64
        quantiles.append(min(max(first if first == second else between, low), high))
    return tuple(quantiles)


def _at(bins: Bins, places: Sequence[int]) -> list[float]:
    """Return the values at places of the ascending order, those within a bin in equal steps."""
    found = bins.before[1:].searchsorted(places, "right")
    return [
        low + (high - low) * ((place - before + 0.5) / count)
        for place, low, high, count, before in zip(places, *_of(bins, found), strict=True)
    ]


def _of(bins: Bins, places: Values) -> Iterator[list[Any]]:
    """Yield bounds, counts and numbers of values before, of the bins at places, as plain numbers."""
    return (column[places].tolist() for column in (bins.low, bins.high, bins.counts, bins.before))


def _spark(bins: Bins, low: float, high: float) -> tuple[int, ...]:
    """Return counts in equal steps, in fewer where they would show what is not known of a wide bin."""
    low, high = low * _SMALLER, high * _SMALLER
    below, widest = _below(bins, low, high, SPARKS)
    if widest * SPARKS > high - low:
        below, _ = _below(bins, low, high, max(int((high - low) / widest), 1))
    return tuple(after - before for before, after in pairwise(below)) if len(below) > 2 else ()


def _below(bins: Bins, low: float, high: float, steps: int) -> tuple[list[int], float]:
    """Return how many values lie below the ends of equal steps, and the width of the widest bin cut.

    ``low``, ``high`` and the width are times ``_SMALLER``.
    """
    inner = [low + (high - low) * step / steps for step in range(1, steps)]
    found = bins.high.searchsorted([end / _SMALLER for end in inner])  # the bin that a step ends in
    ending = np.minimum(found, bins.high.size - 1)  # subnormal ends are rounded
    counts, widest = [0], 0.0
    for end, least, most, count, before in zip(inner, *_of(bins, ending), strict=True):
        start, stop = least * _SMALLER, most * _SMALLER
        part = 0.0
        if start < end:
            part = (end - start) / (stop - start)
            widest = max(widest, stop - start)
        counts.append(before + round(part * count))
    return [*counts, int(bins.before[-1])], widest
