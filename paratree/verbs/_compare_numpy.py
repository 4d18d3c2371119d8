"""Hot loops of ``diff`` in NumPy: how the values of two blocks differ, for every pair of dtypes.

Values are compared in float64 (complex128), which holds all those of other dtypes exactly; integers of 64
bits are compared as they are.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import fsum, isfinite
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from paratree.core.cast import rounded
from paratree.core.dtypes import BITS
from paratree.verbs._figures import NO_SUM, Figures, Scaled, combined, total, with_sums

if TYPE_CHECKING:
    from typing import Any

    Values = np.ndarray[Any, Any]

_CHUNK = 1 << 14  # values whose float64 copies stay in the cache
_DOT = 1 << 13  # np.dot of no more values starts no threads of its own
_LONG = ("int64", "uint64")
LEAST, _MOST = 1e-260, 1e300  # of a sum of squares that is neither rounded to nothing nor overflows
_WHOLE = 2.0**53  # below it float64 holds every integer


class Tolerance(NamedTuple):
    """A change of at most ``absolute + relative * |a|`` is none."""

    relative: float = 0.0
    absolute: float = 0.0


EXACT = Tolerance()


def measure(a: Values, b: Values, tolerance: Tolerance = EXACT) -> Figures:
    """Compare two blocks of as many values, in one dimension and native byte order."""
    with np.errstate(all="ignore"):
        if not {a.dtype.kind, b.dtype.kind} & {"c"} and not {a.dtype.name, b.dtype.name} & {*_LONG}:
            return _real(a, b, tolerance)
        parts = []
        for low in range(0, len(a), _CHUNK):
            parts.append(_other(a[low : low + _CHUNK], b[low : low + _CHUNK], tolerance).moved(low))
        return combined(parts)


def _real(a: Values, b: Values, tolerance: Tolerance) -> Figures:
    """Compare numbers that float64 holds; chunks with values that are not finite go the long way."""
    room, mask = np.empty((3, min(len(a), _CHUNK))), np.empty(min(len(a), _CHUNK), bool)
    changed = beyond = differing = uncast = uncast_beyond = 0
    largest, at = -1.0, -1
    wide = "float64" in (a.dtype.name, b.dtype.name)
    long_way: list[Figures] = []
    sums: list[tuple[float, ...]] = []
    for low in range(0, len(a), _CHUNK):
        first, second = a[low : low + _CHUNK], b[low : low + _CHUNK]
        x, y, change = room[:, : len(first)]
        _widen(first, x)
        _widen(second, y)
        np.subtract(y, x, out=change)
        found = _dot(change, change), _dot(x, x), _dot(y, y), _dot(x, y)
        unequal = int(np.count_nonzero(np.not_equal(x, y, out=mask[: len(x)])))
        if not isfinite(sum(found)) or (wide and min(found[0 if unequal else 1 : 3]) < LEAST):
            long_way.append(_any(first, second, x, y, tolerance).moved(low))
            continue
        sums.append(found)
        changed += unequal
        if a.dtype == b.dtype:
            differing += int(np.count_nonzero(bits_of(first) != bits_of(second)))
        sizes = np.abs(change, out=change)
        if (most := sizes.max()) > largest:
            largest, at = float(most), low + int(sizes.argmax())
        far = _is_beyond(sizes, x, tolerance) if any(tolerance) else None
        beyond += unequal if far is None else int(np.count_nonzero(far))
        if a.dtype != b.dtype and unequal:
            wrong = _uncast(first, second)
            uncast += int(np.count_nonzero(wrong))
            uncast_beyond += int(np.count_nonzero(wrong if far is None else wrong & far))
    scaled = [total((number, 0) for number in column) for column in zip(*sums, strict=True)] or [NO_SUM] * 4
    usual = with_sums(
        scaled,
        changed=changed,
        beyond=beyond,
        other_bits=differing - changed if a.dtype == b.dtype else 0,
        uncast=changed if a.dtype == b.dtype else uncast,
        uncast_beyond=beyond if a.dtype == b.dtype else uncast_beyond,
        max_abs=largest,
        max_at=at,
    )
    return combined([usual, *long_way]) if long_way else usual


def _widen(values: Values, out: Values) -> None:
    """Write values as float64."""
    if values.itemsize == 1:
        np.take(_table(values.dtype), bits_of(values), out=out, mode="clip")
    else:
        np.copyto(out, values)


def _other(a: Values, b: Values, tolerance: Tolerance) -> Figures:
    """Compare complex numbers, or integers of 64 bits."""
    if {a.dtype.name, b.dtype.name} & {*_LONG}:
        if a.dtype == b.dtype or ("uint64" not in (a.dtype.name, b.dtype.name) and _are_integers(a, b)):
            return _integers(a, b, tolerance)
        return _numbers_of_python(a, b, tolerance)
    return _any(a, b, widened(a).astype(np.complex128), widened(b).astype(np.complex128), tolerance)


def _is_beyond(sizes: Values, x: Values, tolerance: Tolerance) -> Values:
    found: Values = sizes > tolerance.absolute + tolerance.relative * np.abs(x)
    return found


def _beyond(sizes: Values, x: Values, tolerance: Tolerance) -> int:
    return int(np.count_nonzero(_is_beyond(sizes, x, tolerance)))


def _any(a: Values, b: Values, x: Values, y: Values, tolerance: Tolerance) -> Figures:
    """Compare values of which some are not finite, or whose squares need another scale."""
    nan_x, nan_y = np.isnan(x), np.isnan(y)
    inf_x, inf_y = np.isinf(x) & ~nan_x, np.isinf(y) & ~nan_y
    finite = np.isfinite(x) & np.isfinite(y)
    unequal = _unequal(x, y)
    new_nan, new_inf = nan_y & ~nan_x, inf_y & unequal
    known, other = np.where(finite, x, 0), np.where(finite, y, 0)
    sizes = np.where(finite, np.abs(other - known), -1.0)
    at = int(sizes.argmax())
    far = (unequal & ~finite) | _is_beyond(sizes, known, tolerance)
    same_dtype = a.dtype == b.dtype
    wrong = unequal if same_dtype else _uncast(a, b)
    other_bits = (bits_of(a) != bits_of(b)) & ~unequal if same_dtype else np.zeros(len(a), bool)
    return with_sums(
        _scaled_sums(known, other),
        changed=int(np.count_nonzero(unequal)),
        beyond=int(np.count_nonzero(far)),
        other_bits=int(np.count_nonzero(other_bits)),
        nan_bits=int(np.count_nonzero(other_bits & nan_x)),
        uncast=int(np.count_nonzero(wrong)),
        uncast_beyond=int(np.count_nonzero(wrong & far)),
        max_abs=float(sizes[at]),
        max_at=at if sizes[at] >= 0 else -1,
        nan=(int(np.count_nonzero(nan_x)), int(np.count_nonzero(nan_y))),
        new_nan=int(np.count_nonzero(new_nan)),
        first_nan=_first(new_nan),
        inf=(int(np.count_nonzero(inf_x)), int(np.count_nonzero(inf_y))),
        new_inf=int(np.count_nonzero(new_inf)),
        first_inf=_first(new_inf),
    )


def _first(mask: Values) -> int:
    at = int(mask.argmax())
    return at if mask[at] else -1


# Sums


def _dot(x: Values, y: Values) -> float:
    """Return the sum of products of float64 values."""
    if len(x) <= _DOT:
        return float(np.dot(x, y))
    return fsum(float(np.dot(x[low : low + _DOT], y[low : low + _DOT])) for low in range(0, len(x), _DOT))


def _scaled_sums(x: Values, y: Values) -> tuple[Scaled, ...]:
    """Return the sums of finite values of any size, each with the power of two that it lacks."""
    if x.dtype.kind == "c":
        x, y = x.view(np.float64), y.view(np.float64)
    with np.errstate(all="ignore"):
        change, doubled = y - x, 0
        if not np.isfinite(change).all():
            change, doubled = y / 2 - x / 2, 1
        (change, power), (x, power_x), (y, power_y) = map(_scaled, (change, x, y))
        return (
            (_dot(change, change), 2 * (power + doubled)),
            (_dot(x, x), 2 * power_x),
            (_dot(y, y), 2 * power_y),
            (_dot(x, y), power_x + power_y),
        )


def _scaled(values: Values) -> tuple[Values, int]:
    """Return values divided by an even power of two, so that their squares add up; only if they do not."""
    square = _dot(values, values)
    if LEAST < square < _MOST or not values.any():
        return values, 0
    power = int(np.frexp(np.abs(values).max())[1]) // 2 * 2
    return np.ldexp(values, -power), power


# Integers of 64 bits


def _integers(a: Values, b: Values, tolerance: Tolerance) -> Figures:
    """Compare signed integers, or unsigned ones, exactly."""
    if a.dtype != b.dtype:
        a, b = a.astype(np.int64), b.astype(np.int64)
    unequal = a != b
    with np.errstate(over="ignore"):
        sizes = np.where(a > b, a - b, b - a).view(np.uint64)  # what wraps around is right as unsigned
    at = int(sizes.argmax())
    x, y, change = a.astype(np.float64), b.astype(np.float64), sizes.astype(np.float64)
    changed = int(np.count_nonzero(unequal))
    beyond = int(np.count_nonzero(unequal & (change > tolerance.absolute + tolerance.relative * np.abs(x))))
    return with_sums(
        [(_dot(*pair), 0) for pair in ((change, change), (x, x), (y, y), (x, y))],
        changed=changed,
        beyond=beyond if any(tolerance) else changed,
        uncast=changed,
        uncast_beyond=beyond if any(tolerance) else changed,
        max_abs=int(sizes[at]),
        max_at=at,
    )


def _numbers_of_python(a: Values, b: Values, tolerance: Tolerance) -> Figures:
    """Compare integers of 64 bits with other numbers, where no dtype holds both, as Python does: exactly."""
    x, y = widened(a), widened(b)
    if "c" in x.dtype.kind + y.dtype.kind:
        x, y = x.astype(np.complex128, copy=False), y.astype(np.complex128, copy=False)
    found = _any(a, b, x, y, tolerance)
    finite = np.isfinite(x) & np.isfinite(y)
    if np.abs(np.where(finite, x, 0)).max(initial=0) < _WHOLE > np.abs(np.where(finite, y, 0)).max(initial=0):
        return found
    pairs = list(zip(a.tolist(), b.tolist(), finite.tolist(), strict=True))
    changes = [_change(first, second) if known else 0.0 for first, second, known in pairs]
    sizes = np.array(changes)
    at = int(sizes.argmax())
    changed = found.changed + sum(map(bool, changes)) - int(np.count_nonzero((x != y) & finite))
    wild = found.beyond - _beyond(np.where(finite, np.abs(y - x), -1.0), x, tolerance)
    beyond = wild + _beyond(np.where(finite, sizes, -1.0), x, tolerance) if any(tolerance) else changed
    return found._replace(
        changed=changed,
        beyond=beyond,
        uncast=changed,
        uncast_beyond=beyond,
        max_abs=changes[at] if finite.any() else -1,
        max_at=at if finite.any() else -1,
        square_change=_scaled_sums(np.zeros(len(sizes)), sizes)[0],
    )


def _change(first: complex, second: complex) -> float:
    """Return the size of the difference of two numbers of Python, rounded once."""
    real = Fraction(second.real) - Fraction(first.real)
    return abs(complex(float(real), second.imag - first.imag))


# Dtypes


def widened(values: Values) -> Values:
    """Return values as float64 or complex128; each keeps its value, if it is no integer of 64 bits."""
    if values.dtype.kind == "c":
        return values.astype(np.complex128, copy=False)
    wide = np.empty(len(values))
    _widen(values, wide)
    return wide


@lru_cache(maxsize=32)
def _table(dtype: np.dtype[Any]) -> Values:
    """Return the value of every bit pattern of a narrow dtype."""
    bits = np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}")
    known: Values = bits != 0 if dtype.kind == "b" else (bits & _mask(dtype)).astype(bits.dtype).view(dtype)
    return known.astype(np.float64, copy=False)


def bits_of(values: Values) -> Values:
    """Return the bits of values as unsigned integers, those of complex ones as records of their bytes."""
    dtype = values.dtype
    if dtype.itemsize > 8:
        return values.view(np.dtype((np.void, dtype.itemsize)))
    bits = values.view(f"u{dtype.itemsize}")
    return bits & _mask(dtype) if BITS.get(dtype.name, 8) < 8 else bits


def _mask(dtype: np.dtype[Any]) -> int:
    """Return the bits of a value's bytes that count: an int4 of a file and of JAX fill theirs differently."""
    width = BITS.get(dtype.name, 8)
    return (1 << width) - 1 if width < 8 else (1 << 8 * dtype.itemsize) - 1


def _are_integers(*arrays: Values) -> bool:
    return all(x.dtype.kind in "biu" for x in arrays)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Tell whether a dtype is of real floating-point numbers, one of NumPy's or not."""
    return dtype.kind == "f" or "float" in dtype.name


def _uncast(a: Values, b: Values) -> Values:
    """Tell which values differ once those of the wider dtype are cast to the narrower, or overflow."""
    both_real, both_complex = is_float(a.dtype) and is_float(b.dtype), a.dtype.kind == b.dtype.kind == "c"
    if not both_real and not both_complex:
        return _unequal(widened(a), widened(b))
    widths = [BITS.get(x.dtype.name, 8 * x.itemsize) for x in (a, b)]
    found = []
    if widths[0] >= widths[1]:
        found.append(_differing(a, b))
    if widths[1] >= widths[0]:
        found.append(_differing(b, a))
    return min(found, key=np.count_nonzero)


def _differing(values: Values, given: Values) -> Values:
    """Tell which values are not those given when they are cast to their dtype, or overflow it."""
    with np.errstate(over="ignore", invalid="ignore"):
        x, y, before = widened(rounded(values, given.dtype.name)), widened(given), widened(values)
    return _unequal(x, y) | (np.isfinite(before) & ~np.isfinite(x))


def _unequal(x: Values, y: Values) -> Values:
    """Tell which numbers are not equal; two NaN are."""
    found: Values = (x != y) & ~(np.isnan(x) & np.isnan(y))
    return found
