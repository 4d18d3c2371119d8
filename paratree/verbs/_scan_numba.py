"""The hot loops of ``stats``, compiled: how often each bit pattern occurs, and the moments of floats.

What LLVM makes vectors of: sums in two groups, so that no addition waits for the one before it; extremes of
integers of the floats' own width (numba widens them otherwise), as it does not take the minimum of floats.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202 -- numba finds the types of what it compiles

from __future__ import annotations

import threading
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from paratree.verbs._distribution import UPPER
from paratree.verbs._moments import Moments, shifted

if TYPE_CHECKING:
    Values = np.ndarray[Any, Any]

_PART = (
    1 << 18
)  # bytes that stay in the second cache, and whose sums are added apart, which keeps their digits
_CANCELLED = 10.0  # square of mean over variance from which the sums are taken again, about the mean
_NONE = np.empty(0, np.int64)
_REORDERED = {"reassoc", "contract", "nsz"}  # in any order; NaN and infinity keep their sense


class _Tables(threading.local):
    """Two tables of counts for each thread: new ones would cost more than to clear these."""

    def __init__(self) -> None:
        self.pair = np.empty((2, UPPER), np.uint32)


_TABLES = _Tables()


def count(patterns: Values, kinds: int) -> Values:
    """Return how often each of ``kinds`` patterns, unsigned integers of 8 or 16 bits, occurs."""
    counts = np.zeros(kinds, np.int64)
    _count_all(patterns, counts, *_TABLES.pair[:, :kinds])
    return counts


def moments(values: Values, upper: Values | None = None) -> Moments | None:
    """Return the moments of a block of floats; ``None`` if one is NaN or infinite.

    ``upper``, if given, is where to add how often each pattern of the upper 16 bits occurs.
    """
    counts = _NONE if upper is None else upper
    signed, unsigned = (values.view(f"{kind}{values.dtype.itemsize}") for kind in "iu")
    are_finite, zeros, low, high, shift, sums = _scan(values, signed, unsigned, counts, _TABLES.pair)
    return shifted(values.size, zeros, low, high, shift, sums) if are_finite else None


@njit(nogil=True, cache=True)
def _count(bits, places, one, other):
    pairs = bits.size // 2 * 2
    for i in range(0, pairs, 2):  # of two equal neighbours, neither waits for the other
        one[bits[i] >> places] += np.uint32(1)
        other[bits[i + 1] >> places] += np.uint32(1)
    for i in range(pairs, bits.size):
        one[bits[i] >> places] += np.uint32(1)


@njit(nogil=True, cache=True)
def _count_upper(bits, one, other):
    """Count the upper 16 bits of floats of 32 or 64 bits; of the first, two are loaded as one."""
    if bits.itemsize == 8:
        _count(bits, np.uint64(48), one, other)
        return
    words = bits[: bits.size // 2 * 2].view(np.uint64)
    for word in words:
        one[word >> np.uint64(16) & np.uint64(0xFFFF)] += np.uint32(1)
        other[word >> np.uint64(48)] += np.uint32(1)
    _count(bits[2 * words.size :], np.uint32(16), one, other)


@njit(nogil=True, cache=True)
def _count_all(bits, counts, one, other):
    one[:], other[:] = 0, 0
    _count(bits, np.uint16(0), one, other)
    _add(counts, one, other)


@njit(nogil=True, cache=True)
def _add(counts, one, other):
    for i in range(one.size):
        counts[i] += np.int64(one[i]) + np.int64(other[i])


@njit(nogil=True, cache=True)
def _zeros(values):
    found = 0
    for i in range(values.size):
        found += values[i] == 0
    return found


@njit(nogil=True, cache=True)
def _take_in(sums, lost, parts):
    """Add to each sum, and what its rounding lost to another (Knuth's two-sum)."""
    for i in range(sums.size):
        total = sums[i] + parts[i]
        added = total - sums[i]
        lost[i] += (sums[i] - (total - added)) + (parts[i] - added)
        sums[i] = total


@njit(nogil=True, cache=True, fastmath=_REORDERED)
def _about(values, middle):
    total, squares = 0.0, 0.0
    for i in range(values.size):
        off = np.float64(values[i]) - middle
        total += off
        squares += off * off
    return total, squares


@njit(nogil=True, cache=True, fastmath=_REORDERED)
def _part(values, signed, unsigned):
    sint, mask = signed.dtype.type, signed.dtype.type(np.iinfo(signed.dtype).max)
    half = values.size // 2
    rest, more_signed, more_unsigned = values[half:], signed[half:], unsigned[half:]
    high, low, least = sint(~mask), unsigned.dtype.type(0), mask
    other_high, other_low, other_least = high, low, least
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
def _extremes(high, low, least, values, signed):
    """Return the smallest and largest value, from extremes of the bit patterns and of the magnitudes.

    As signed integers, the largest belongs to the largest value, if one has no sign; as unsigned ones, to
    the smallest, if one has a sign. Otherwise all lie on one side of zero, and the least magnitude is that
    end. ``values`` and ``signed`` tell the types.
    """
    sint = signed.dtype.type
    bits = np.empty(2, signed.dtype)
    bits[0] = sint(low) if sint(low) < 0 else least
    bits[1] = high if high >= 0 else sint(least | np.iinfo(signed.dtype).min)
    ends = bits.view(values.dtype)
    return np.float64(ends[0]), np.float64(ends[1])


@njit(nogil=True, cache=True)
def _scan(values, signed, unsigned, counts, tables):
    """Return if all are finite, the zeros, both extremes, and sums about a shift; count if asked.

    No closure for each width: numba would compile those anew in every process.
    """
    one, other = tables[0], tables[1]
    if counts.size:
        one[:], other[:] = 0, 0
    high, least = signed.dtype.type(np.iinfo(signed.dtype).min), signed.dtype.type(np.iinfo(signed.dtype).max)
    low, zeros, length = unsigned.dtype.type(0), 0, _PART // values.itemsize
    sums, lost = np.zeros(3), np.zeros(3)
    for start in range(0, values.size, length):
        end = min(start + length, values.size)
        found, parts = _part(values[start:end], signed[start:end], unsigned[start:end])
        high, low, least = max(high, found[0]), max(low, found[1]), min(least, found[2])
        zeros += _zeros(values[start:end]) if found[2] == 0 else 0
        _take_in(sums, lost, parts)
        if counts.size:
            _count_upper(unsigned[start:end], one, other)
    smallest, largest = _extremes(high, low, least, values, signed)
    if not (isfinite(smallest) and isfinite(largest)):
        return False, 0, smallest, largest, 0.0, (0.0, 0.0, 0.0)
    if counts.size:
        _add(counts, one, other)
    for i in range(sums.size):
        sums[i] += lost[i] if isfinite(sums[i]) else 0.0
    total, squares, magnitudes = sums
    mean = total / values.size
    if smallest == largest or mean * total <= _CANCELLED * (squares - mean * total):
        return True, zeros, smallest, largest, 0.0, (total, squares, magnitudes)
    total, squares = _about(values, mean)
    return True, zeros, smallest, largest, mean, (total, squares, magnitudes)
