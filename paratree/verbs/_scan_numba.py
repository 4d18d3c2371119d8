"""The hot loops of ``stats``, compiled: how often each bit pattern occurs, and the moments of floats.

What LLVM makes vectors of: sums in two groups, so that no addition waits for the one before it; extremes of
integers of the floats' own width (numba widens them otherwise), as it does not take the minimum of floats.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202 -- numba finds the types of what it compiles

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from paratree.verbs._moments import Moments, added, shifted

if TYPE_CHECKING:
    Values = np.ndarray[Any, Any]

UPPER = 1 << 16
_PART = (
    1 << 18
)  # bytes that stay in the second cache, and whose sums are added apart, which keeps their digits
_CANCELLED = 10.0  # square of mean over variance from which the sums are taken again, about the mean
_REORDERED = {"reassoc", "contract", "nsz"}  # in any order; NaN and infinity keep their sense


def count(patterns: Values, kinds: int) -> Values:
    """Return how often each of ``kinds`` patterns, unsigned integers of 8 or 16 bits, occurs."""
    counts = np.zeros(kinds, np.int64)
    one, other = np.zeros((2, kinds), np.uint32)
    _count(patterns, np.uint16(0), one, other)
    _add(counts, one, other)
    return counts


def moments(values: Values, upper: Values | None = None) -> Moments | None:
    """Return the moments of a block of floats; ``None`` if one is NaN or infinite.

    ``upper``, if given, is where to add how often each pattern of the upper 16 bits occurs.
    """
    width = values.dtype.itemsize
    length = _PART // width
    bits = np.empty((-(-values.size // length), 4), np.int64)
    sums = np.empty((len(bits), 3))
    one, other = np.zeros((2, 0 if upper is None else UPPER), np.uint32)
    _SCANS[width](values, values.view(f"i{width}"), values.view(f"u{width}"), length, bits, sums, one, other)
    if upper is not None:
        _add(upper, one, other)
    highs, lows, leasts, zeros = bits.T
    low, high = _extremes(int(highs.max()), int(lows.view(np.uint64).max()), int(leasts.min()), width)
    if not (isfinite(low) and isfinite(high)):
        return None
    found_zeros = int(zeros.sum())
    total, squares, magnitudes = map(added, sums.T.tolist())
    found = shifted(values.size, found_zeros, low, high, 0.0, (total, squares, magnitudes))
    if found.mean * found.mean * values.size <= _CANCELLED * found.squares:
        return found
    shift = found.mean
    total, squares = _about(values, shift)
    return shifted(values.size, found_zeros, low, high, shift, (total, squares, magnitudes))


def _extremes(signed: int, unsigned: int, least: int, width: int) -> tuple[float, float]:
    """Return the smallest and largest value, from extremes of the bit patterns and of the magnitudes.

    As signed integers, the largest belongs to the largest value, if one has no sign; as unsigned ones, to the
    smallest, if one has a sign. Otherwise all are on one side of zero, and the least magnitude is that end.
    """
    sign = 1 << (width * 8 - 1)
    nearest = _float(least, width)
    low = _float(unsigned, width) if unsigned & sign else nearest
    high = _float(signed, width) if signed >= 0 else -nearest
    return low, high


def _float(bits: int, width: int) -> float:
    return float(np.array(bits, f"u{width}").view(f"f{width}"))


@njit(nogil=True, cache=True)
def _count(bits, places, one, other):
    pairs = bits.size // 2 * 2
    for i in range(0, pairs, 2):  # of two equal neighbours, neither waits for the other
        one[bits[i] >> places] += np.uint32(1)
        other[bits[i + 1] >> places] += np.uint32(1)
    for i in range(pairs, bits.size):
        one[bits[i] >> places] += np.uint32(1)


@njit(nogil=True, cache=True)
def _add(counts, one, other):
    for i in range(counts.size):
        counts[i] += np.int64(one[i]) + np.int64(other[i])


@njit(nogil=True, cache=True)
def _zeros(values):
    found = 0
    for i in range(values.size):
        found += values[i] == 0
    return found


@njit(nogil=True, cache=True, fastmath=_REORDERED)
def _about(values, middle):
    total, squares = 0.0, 0.0
    for i in range(values.size):
        off = np.float64(values[i]) - middle
        total += off
        squares += off * off
    return total, squares


def _scan_of(width: int) -> Any:
    """Return the loop over floats of so many bytes: extremes of their bits, zeros, sums; counts if asked."""
    sint, uint = np.dtype(f"i{width}").type, np.dtype(f"u{width}").type
    lowest, mask = sint(np.iinfo(sint).min), sint(np.iinfo(sint).max)
    places = uint(width * 8 - 16)

    @njit(nogil=True, cache=True, fastmath=_REORDERED)
    def part(values, signed, unsigned):
        half = values.size // 2
        rest, more_signed, more_unsigned = values[half:], signed[half:], unsigned[half:]
        high, low, least = lowest, uint(0), mask
        other_high, other_low, other_least = lowest, uint(0), mask
        total, squares, magnitudes = 0.0, 0.0, 0.0
        other_total, other_squares, other_magnitudes = 0.0, 0.0, 0.0
        for i in range(half):
            high, low = max(high, signed[i]), max(low, unsigned[i])
            least = min(least, sint(signed[i] & mask))
            value = np.float64(values[i])
            total += value
            squares += value * value
            magnitudes += abs(value)
            other_high, other_low = max(other_high, more_signed[i]), max(other_low, more_unsigned[i])
            other_least = min(other_least, sint(more_signed[i] & mask))
            value = np.float64(rest[i])
            other_total += value
            other_squares += value * value
            other_magnitudes += abs(value)
        high, low, least = max(high, other_high), max(low, other_low), min(least, other_least)
        total += other_total
        squares += other_squares
        magnitudes += other_magnitudes
        if values.size % 2:
            high, low = max(high, signed[-1]), max(low, unsigned[-1])
            least = min(least, sint(signed[-1] & mask))
            value = np.float64(values[-1])
            total, squares, magnitudes = total + value, squares + value * value, magnitudes + abs(value)
        return (high, low, least), (total, squares, magnitudes)

    @njit(nogil=True, cache=True)
    def scan(values, signed, unsigned, length, bits, sums, one, other):
        for k in range(len(sums)):
            low, high = k * length, min((k + 1) * length, values.size)
            found, added_up = part(values[low:high], signed[low:high], unsigned[low:high])
            bits[k, 0], bits[k, 1], bits[k, 2] = found
            bits[k, 3] = _zeros(values[low:high]) if found[2] == 0 else 0
            sums[k, 0], sums[k, 1], sums[k, 2] = added_up
            if one.size:
                _count(unsigned[low:high], places, one, other)

    return scan


_SCANS = {width: _scan_of(width) for width in (4, 8)}
