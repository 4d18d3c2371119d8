"""How values are distributed, from counts of bit patterns, of their upper bits, or of the values themselves.

The counts of all patterns of a type of at most 16 bits hold everything there is to know of its values but
their order, so that every figure follows from them, exact to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import floor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paratree.core.dtypes import BITS, finfo, numpy_dtype
from paratree.verbs._moments import Moments, added

if TYPE_CHECKING:
    from collections.abc import Sequence

    Values = np.ndarray[Any, Any]

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
_SPARKS = 20
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
        spark: counts in equal steps from the 0.1 % to the 99.9 % quantile, the ends with what lies beyond.
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


def upper_bins(counts: Values, zeros: int, dtype: str) -> Bins:
    """Return bounds of the values, from the counts of the upper bits of those that are not zero."""
    edges = upper_edges(dtype)
    positive, negative = np.split(counts, 2)
    finite = edges.size - 1  # nonzero is five times faster on booleans than on counts
    above, below = ((half[:finite] != 0).nonzero()[0] for half in (positive, negative))
    below, between = below[::-1], np.zeros(1 if zeros else 0)
    return Bins(
        np.concatenate([-edges[below + 1], between, edges[above]]),
        np.concatenate([-edges[below], between, edges[above + 1]]),
        np.concatenate([negative[below], np.full(between.size, zeros), positive[above]]),
    )


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
    quantiles, spark = quantiles_and_spark(clipped(bins, extremes), extremes)
    return Distribution(
        _histogram(bins, dtype),
        quantiles,
        error,
        spark,
        None if error or BITS[dtype] > 16 else int(1 + (np.diff(bins.low) > 0).sum()),
    )


def clipped(bins: Bins, extremes: tuple[float, float]) -> Bins:
    """Return bins whose bounds are within the extremes of the values."""
    return Bins(np.clip(bins.low, *extremes), np.clip(bins.high, *extremes), bins.counts)


def quantiles_and_spark(
    bins: Bins, extremes: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the quantiles, and counts in equal steps between the first and the last of them."""
    quantiles = _quantiles(bins, extremes)
    return quantiles, _spark(bins, quantiles[0], quantiles[-1])


def reach(bins: Bins) -> tuple[int, int]:
    """Return the places of the first and the last bin that a quantile is taken from."""
    ends = np.cumsum(bins.counts)
    last = int(ends[-1]) - 1
    values = [floor(QUANTILES[0] * last), min(floor(QUANTILES[-1] * last) + 1, last)]
    first, end = np.searchsorted(ends, values, side="right")
    return int(first), int(end)


def _histogram(bins: Bins, dtype: str) -> Histogram:
    nearest = np.where(bins.high > 0, bins.low, bins.high)  # the bound next to zero
    subnormal = _least_exponent(dtype) - 1
    exponents = np.maximum(
        (nearest.view(np.int64) >> 52 & 0x7FF) - 1023, subnormal
    )  # frexp takes ten times that
    zero = slice(int(np.searchsorted(bins.low, 0.0)), int(np.searchsorted(bins.high, 0.0, "right")))
    sides = slice(zero.start), slice(zero.stop, None)
    zeros = int(bins.counts[zero].sum())
    found = np.concatenate([exponents[side] for side in sides])
    if not found.size:
        return Histogram(0, (), (), zeros)
    first = int(found.min())
    length = int(found.max()) - first + 1
    below, over = (_added(exponents[side] - first, bins.counts[side], length) for side in sides)
    return Histogram(first, below, over, zeros)


def _added(places: Values, counts: Values, length: int) -> tuple[int, ...]:
    """Return the sums of the counts at each place; as float64 they are exact up to 2**53."""
    return tuple(np.bincount(places, counts, length).astype(np.int64).tolist())


@cache
def _least_exponent(dtype: str) -> int:
    """Return the exponent of the smallest normal value of a dtype; that of 1 for integers."""
    return int(finfo(dtype).minexp) if "float" in dtype else 0


def _quantiles(bins: Bins, extremes: tuple[float, float]) -> tuple[float, ...]:
    ends = np.cumsum(bins.counts)
    places = [q * (int(ends[-1]) - 1) for q in QUANTILES]
    below = [floor(place) for place in places]
    first, second = np.split(_at(bins, ends, [*below, *(place + 1 for place in below)]), 2)
    parts = np.array(places) - np.array(below)
    between = first * (1 - parts) + second * parts  # their difference may be beyond float64
    found = np.clip(np.where(first == second, first, between), *extremes)
    return tuple(float(value) for value in found)


def _at(bins: Bins, ends: Values, places: Sequence[int]) -> Values:
    """Return the values at places of the ascending order, those within a bin in equal steps."""
    wanted = np.minimum(np.array(places), ends[-1] - 1)
    found = np.searchsorted(ends, wanted, side="right")
    low, high, counts = (column[found] for column in bins)
    inside = (wanted - (ends[found] - counts) + 0.5) / counts
    return np.asarray(low + (high - low) * inside)


def _spark(bins: Bins, low: float, high: float) -> tuple[int, ...]:
    if not low < high:
        return ()
    starts, stops = ((ends / 2 - low / 2) / (high / 2 - low / 2) * _SPARKS for ends in (bins.low, bins.high))
    first = np.clip(starts, 0, _SPARKS - 1).astype(np.intp)
    last = np.clip(np.ceil(stops) - 1, first, _SPARKS - 1).astype(np.intp)
    inner = np.arange(1, _SPARKS)
    at = np.searchsorted(last, inner)  # the bin in which a step ends, or the first above that
    parts = np.zeros(inner.size)
    cut = first[at] < inner
    begin, end = starts[at[cut]], stops[at[cut]]
    parts[cut] = (inner[cut] - begin) / (end - begin)
    below = np.append(0, np.cumsum(bins.counts))[at] + np.rint(parts * bins.counts[at]).astype(np.int64)
    return tuple(np.diff(below, prepend=0, append=bins.counts.sum()).tolist())
