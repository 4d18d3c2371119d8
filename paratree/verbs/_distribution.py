"""How values are distributed, from counts of bit patterns, of their upper bits, or of the values themselves.

The counts of all patterns of a type of at most 16 bits hold everything there is to know of its values but
their order, so that every figure follows from them, exact to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import floor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paratree.core.dtypes import BITS, finfo, numpy_dtype
from paratree.verbs._moments import Moments, added

if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = np.ndarray[Any, Any]

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
SPARKS = 20  # steps
_SMALLER = 2.0**-6  # steps are found among values so much smaller: the span times a step may overflow
_UPPER = 16  # bits


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


class Bins(NamedTuple):
    """Values in ascending order with how often each occurs; each is known to lie between two bounds."""

    low: Values
    high: Values
    counts: Values


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
    values, _, counts = bins
    if not values.size:
        return None
    size = int(counts.sum())
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
    magnitudes = np.arange(1 << (_UPPER - 1), dtype=uint)
    with np.errstate(invalid="ignore"):  # NaN
        edges = (magnitudes << uint(width - _UPPER)).view(dtype).astype(np.float64)
    return np.append(edges[np.isfinite(edges)], np.finfo(dtype).max)


def upper_bins(counts: Values, zeros: int, dtype: str, extremes: tuple[float, float]) -> Bins:
    """Return bounds of the values, from the counts of the upper bits of those that are not zero.

    Args:
        counts: how often each pattern of the upper bits occurs.
        zeros: how many values are zero.
        dtype: name of the dtype that has these bits.
        extremes: the smallest and the largest value, within which the bounds are.
    """
    edges = upper_edges(dtype)
    finite, sign = edges.size - 1, counts.size // 2
    found = (counts != 0).nonzero()[0]  # five times faster on booleans than on counts
    top, negative, bottom = np.searchsorted(found, (finite, sign, sign + finite))
    above, below = found[:top], found[negative:bottom][::-1]
    between = 1 if zeros else 0
    low, high = np.empty((2, below.size + between + above.size))
    order = np.zeros(low.size, np.int64)
    order[: below.size], order[below.size + between :] = counts[below], counts[above]
    sides = slice(below.size), slice(below.size + between, None)
    low[sides[0]], high[sides[0]] = -edges[below - (sign - 1)], -edges[below - sign]
    low[sides[1]], high[sides[1]] = edges[above], edges[above + 1]
    if between:
        low[below.size] = high[below.size] = 0.0
        order[below.size] = zeros
    low[0], high[-1] = max(low[0], extremes[0]), min(high[-1], extremes[1])
    return Bins(low, high, order)


def upper_error(dtype: str) -> float:
    """Return how wide a bin of upper bits is at most, as a part of the magnitudes in it."""
    return float(2.0 ** -(_UPPER - 1 - (BITS[dtype] - 1 - np.finfo(dtype).nmant)))


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
    ends = np.cumsum(bins.counts)
    quantiles = _quantiles(bins, ends, extremes)
    low, high = quantiles[0], quantiles[-1]
    return quantiles, _spark(bins, ends, low, high) if low < high else ()


def reach(bins: Bins) -> tuple[int, int]:
    """Return the places of the first and the last bin that a quantile is taken from."""
    ends = np.cumsum(bins.counts)
    last = int(ends[-1]) - 1
    values = [floor(QUANTILES[0] * last), min(floor(QUANTILES[-1] * last) + 1, last)]
    first, end = np.searchsorted(ends, values, side="right")
    return int(first), int(end)


def _histogram(bins: Bins, dtype: str) -> Histogram:
    zero = slice(int(np.searchsorted(bins.low, 0.0)), int(np.searchsorted(bins.high, 0.0, "right")))
    sides = slice(zero.start), slice(zero.stop, None)
    zeros = int(bins.counts[zero].sum())
    nearest = np.concatenate([bins.high[sides[0]], bins.low[sides[1]]])  # the bounds next to zero
    if not nearest.size:
        return Histogram(0, (), (), zeros)
    exponents = nearest.view(np.int64)  # frexp takes ten times as long
    exponents >>= 52
    exponents &= 0x7FF
    exponents -= 1023
    np.maximum(exponents, _least_exponent(dtype) - 1, out=exponents)  # subnormals
    first = int(exponents.min())
    length = int(exponents.max()) - first + 1
    exponents[zero.start :] += length
    counts = np.concatenate([bins.counts[side] for side in sides])
    both = np.bincount(exponents - first, counts, 2 * length)  # float64, exact up to 2**53
    found = both.astype(np.int64).tolist()
    return Histogram(first, tuple(found[:length]), tuple(found[length:]), zeros)


@cache
def _least_exponent(dtype: str) -> int:
    """Return the exponent of the smallest normal value of a dtype; that of 1 for integers."""
    return int(finfo(dtype).minexp) if "float" in dtype else 0


def _quantiles(bins: Bins, ends: Values, extremes: tuple[float, float]) -> tuple[float, ...]:
    last, (low, high) = int(ends[-1]) - 1, extremes
    below = [floor(q * last) for q in QUANTILES]
    found = _at(bins, ends, [*below, *(place + 1 for place in below)]).tolist()
    quantiles = []
    for q, place, first, second in zip(
        QUANTILES, below, found[: len(below)], found[len(below) :], strict=True
    ):
        part = q * last - place
        between = first * (1 - part) + second * part  # their difference may be beyond float64
        quantiles.append(min(max(first if first == second else between, low), high))
    return tuple(quantiles)


def _at(bins: Bins, ends: Values, places: Sequence[int]) -> Values:
    """Return the values at places of the ascending order, those within a bin in equal steps."""
    wanted = np.minimum(np.array(places), ends[-1] - 1)
    found = np.searchsorted(ends, wanted, side="right")
    low, high, counts = (column[found] for column in bins)
    inside = (wanted - (ends[found] - counts) + 0.5) / counts
    return np.asarray(low + (high - low) * inside)


def _spark(bins: Bins, ends: Values, low: float, high: float) -> tuple[int, ...]:
    """Return counts in equal steps, in fewer where they would show what is not known of a wide bin."""
    low, high = low * _SMALLER, high * _SMALLER
    narrow = Bins(bins.low * _SMALLER, bins.high * _SMALLER, bins.counts)
    below, widest = _below(narrow, ends, low, high, SPARKS)
    if widest * SPARKS > high - low:
        below, _ = _below(narrow, ends, low, high, max(int((high - low) / widest), 1))
    return tuple(after - before for before, after in pairwise(below)) if len(below) > 2 else ()


def _below(bins: Bins, ends: Values, low: float, high: float, steps: int) -> tuple[list[int], float]:
    """Return how many values lie below the ends of equal steps, and the width of the widest bin cut."""
    inner = low + (high - low) * np.arange(1, steps) / steps
    at = np.minimum(np.searchsorted(bins.high, inner), bins.high.size - 1)  # the bin that a step ends in
    start, stop, counts = (column[at] for column in bins)
    cut = start < inner
    parts = np.zeros(inner.size)
    parts[cut] = (inner[cut] - start[cut]) / (stop[cut] - start[cut])
    below = ends[at] - counts + np.rint(parts * counts).astype(np.int64)
    widest = float((stop - start)[cut].max(initial=0.0))
    return [0, *below.tolist(), int(ends[-1])], widest
