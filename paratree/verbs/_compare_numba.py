"""Hot loops of ``diff`` that numba compiles: for bfloat16, float16, float32 and float64; others go to NumPy.

A block of values stays in the first cache for all loops over it; each loop is one that LLVM turns into vector
instructions (sums may be reordered, the largest is sought among integers). Blocks with NaN or infinities,
which the sums tell, are gone through value by value.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN202 -- numba finds the types of what it compiles

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from paratree.verbs import _compare_numpy
from paratree.verbs._compare_numpy import EXACT, LEAST
from paratree.verbs._figures import Figures

if TYPE_CHECKING:
    from typing import Any

    from paratree.verbs._compare_numpy import Tolerance

    Values = np.ndarray[Any, Any]

_BLOCK = 768  # two of them in float32, their bits and their change take 12 of 32 KiB; 512 and 1024 are slower
_SMALL = 1e-3  # of a squared norm beside the other's: got from sums that cancel, it would not be exact
(
    _CHANGED, _BEYOND, _OTHER_BITS, _NAN_BITS, _MAX_AT, _NAN_A, _NAN_B, _NEW_NAN, _FIRST_NAN, _INF_A, _INF_B,
    _NEW_INF, _FIRST_INF, _PEAK,
) = range(14)  # fmt: skip
_SQUARE_CHANGE, _SQUARE_A, _ALONG, _MAX_ABS = range(4)  # _ALONG: the sum of a times its change
_reordered = njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
_compiled = njit(nogil=True, cache=True)
_inlined = njit(nogil=True, cache=True, inline="always")  # a call a block took a tenth of the time


def measure(a: Values, b: Values, tolerance: Tolerance = EXACT) -> Figures:
    """Compare two blocks of as many values, in one dimension and native byte order."""
    name = a.dtype.name
    if a.dtype != b.dtype or name not in ("bfloat16", "float16", "float32", "float64"):
        return _compare_numpy.measure(a, b, tolerance)
    counts, sums = np.zeros(14, np.int64), np.zeros(4)
    counts[[_MAX_AT, _FIRST_NAN, _FIRST_INF]] = sums[_MAX_ABS] = -1
    kind = np.dtype(f"u{a.itemsize}")
    bits = a.view(kind), b.view(kind), kind.type(np.iinfo(kind).max >> 1)
    if a.itemsize == 2:
        _narrow(*bits, name == "float16", *tolerance, counts, sums)
    else:
        _plain(a, b, *bits, *tolerance, counts, sums)
    square_change, square_a, along, max_abs = sums.tolist()
    square_b = square_a + 2 * along + square_change
    squares = (square_a, square_b, square_change if counts[_CHANGED] else square_a)
    known = isfinite(sum(squares)) and (square_b >= _SMALL * square_a)
    if not known or (name == "float64" and min(squares) < LEAST):
        return _compare_numpy.measure(a, b, tolerance)
    found = counts.tolist()
    beyond = found[_BEYOND] if any(tolerance) else found[_CHANGED]
    return Figures(
        changed=found[_CHANGED],
        beyond=beyond,
        other_bits=found[_OTHER_BITS],
        nan_bits=found[_NAN_BITS],
        uncast=found[_CHANGED],
        uncast_beyond=beyond,
        max_abs=max_abs,
        max_at=found[_MAX_AT],
        nan=(found[_NAN_A], found[_NAN_B]),
        new_nan=found[_NEW_NAN],
        first_nan=found[_FIRST_NAN],
        inf=(found[_INF_A], found[_INF_B]),
        new_inf=found[_NEW_INF],
        first_inf=found[_FIRST_INF],
        square_change=(square_change, 0),
        square_a=(square_a, 0),
        square_b=(square_b, 0),
        product=(square_a + along, 0),
    )


@_compiled
def _plain(a, b, bits_a, bits_b, magnitude, relative, absolute, counts, sums):
    for low in range(0, a.size, _BLOCK):
        x, y = a[low : low + _BLOCK], b[low : low + _BLOCK]
        u, v = bits_a[low : low + _BLOCK], bits_b[low : low + _BLOCK]
        _block(x, y, u, v, magnitude, _peak(x, y), low, relative, absolute, counts, sums)


@_compiled
def _narrow(a, b, magnitude, half, relative, absolute, counts, sums):
    bits_x, bits_y = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.uint32)
    x, y = bits_x.view(np.float32), bits_y.view(np.float32)
    for low in range(0, a.size, _BLOCK):
        u, v = a[low : low + _BLOCK], b[low : low + _BLOCK]
        n = u.size
        if half:
            _widen_half(u, bits_x, x)
            _widen_half(v, bits_y, y)
            peak = _peak(x[:n], y[:n])
        else:
            peak = _widen_both(u, v, x, y)
        _block(x[:n], y[:n], u, v, magnitude, peak, low, relative, absolute, counts, sums)


@_compiled
def _widen_both(u, v, x, y):
    """Write bfloat16 as float32, and return the bits of the largest change, which order as integers do."""
    peak = np.int32(0)
    for i in range(u.size):
        first = np.uint32(np.uint32(u[i]) << np.uint32(16)).view(np.float32)
        second = np.uint32(np.uint32(v[i]) << np.uint32(16)).view(np.float32)
        x[i], y[i] = first, second
        peak = max(peak, np.float32(abs(second - first)).view(np.int32))
    return peak


@_compiled
def _widen_half(half, bits, values):
    """Write float16 as float32: its exponent moves by 112, and that of NaN and infinities to the top."""
    for i in range(half.size):
        bits[i] = np.uint32(half[i] & np.uint16(0x7FFF)) << np.uint32(13)
    for i in range(half.size):
        values[i] *= np.float32(2.0**112)
    for i in range(half.size):
        top = np.uint32(0x7F800000) if half[i] & np.uint16(0x7C00) == np.uint16(0x7C00) else np.uint32(0)
        bits[i] |= np.uint32(half[i] & np.uint16(0x8000)) << np.uint32(16) | top


@_inlined
def _block(x, y, u, v, magnitude, peak, low, relative, absolute, counts, sums):
    square_change, square_a, along = _sums(x, y)
    if not np.isfinite(square_change + square_a):
        _value_by_value(x, y, u, v, low, relative, absolute, counts, sums)
        return
    sums[_SQUARE_CHANGE] += square_change
    sums[_SQUARE_A] += square_a
    sums[_ALONG] += along
    unequal, zeros = _unequal(u, v, magnitude)
    counts[_CHANGED] += unequal - zeros
    counts[_OTHER_BITS] += zeros
    if peak >= counts[_PEAK] and _outside(x, y, 0.0, sums[_MAX_ABS]):
        counts[_PEAK] = peak
        for i in range(x.size):
            _look_for_largest(x[i], y[i], low + i, counts, sums)
    if relative != 0 or absolute != 0:
        counts[_BEYOND] += _outside(x, y, relative, absolute)


@_compiled
def _look_for_largest(x, y, place, counts, sums):
    size = abs(np.float64(y) - np.float64(x))
    if size > sums[_MAX_ABS]:
        sums[_MAX_ABS] = size
        counts[_MAX_AT] = place


@_reordered
def _sums(x, y):
    square_change = square_a = along = 0.0
    for i in range(x.size):
        first = np.float64(x[i])
        change = np.float64(y[i]) - first
        square_change += change * change
        square_a += first * first
        along += first * change
    return square_change, square_a, along


@_compiled
def _peak(x, y):
    """Return the bits of the largest change rounded to float32; rounding keeps the order."""
    peak = np.int32(0)
    for i in range(x.size):
        peak = max(peak, np.float32(abs(y[i] - x[i])).view(np.int32))
    return peak


@_compiled
def _unequal(u, v, magnitude):
    """Return how many bit patterns differ, and how many of those are zeros of either sign."""
    kind = u.dtype.type  # sums as wide as what is compared: as many to a vector
    found = zeros = kind(0)
    for i in range(u.size):
        differ = u[i] != v[i]
        found = kind(found + kind(differ))
        zeros = kind(zeros + kind(differ & (kind(u[i] | v[i]) & magnitude == kind(0))))
    return np.int64(found), np.int64(zeros)


@_compiled
def _outside(x, y, relative, absolute):
    found = np.int32(0)
    for i in range(x.size):
        first = np.float64(x[i])
        allowed = absolute + relative * abs(first)
        found = np.int32(found + np.int32(abs(np.float64(y[i]) - first) > allowed))
    return found


@_compiled
def _value_by_value(x, y, u, v, low, relative, absolute, counts, sums):
    for i in range(x.size):
        first, second = np.float64(x[i]), np.float64(y[i])
        nan_a, nan_b = np.isnan(first), np.isnan(second)
        inf_a, inf_b = np.isinf(first), np.isinf(second)
        same = first == second or (nan_a and nan_b)
        counts[_NAN_A] += nan_a
        counts[_NAN_B] += nan_b
        counts[_INF_A] += inf_a
        counts[_INF_B] += inf_b
        counts[_CHANGED] += not same
        counts[_OTHER_BITS] += same and u[i] != v[i]
        counts[_NAN_BITS] += nan_a and nan_b and u[i] != v[i]
        counts[_NEW_NAN] += nan_b and not nan_a
        counts[_NEW_INF] += inf_b and not same
        if nan_b and not nan_a and counts[_FIRST_NAN] < 0:
            counts[_FIRST_NAN] = low + i
        if inf_b and not same and counts[_FIRST_INF] < 0:
            counts[_FIRST_INF] = low + i
        if nan_a or nan_b or inf_a or inf_b:
            counts[_BEYOND] += not same
            continue
        change = second - first
        sums[_SQUARE_CHANGE] += change * change
        sums[_SQUARE_A] += first * first
        sums[_ALONG] += first * change
        counts[_BEYOND] += abs(change) > absolute + relative * abs(first)
        _look_for_largest(x[i], y[i], low + i, counts, sums)
