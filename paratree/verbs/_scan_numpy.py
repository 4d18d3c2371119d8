"""The hot loops of ``stats`` in NumPy: how often each bit pattern occurs, and the moments of floats."""

from __future__ import annotations

from math import isfinite
from sys import byteorder
from typing import TYPE_CHECKING, Any

import numpy as np

from paratree.verbs._distribution import UPPER
from paratree.verbs._moments import Moments, added, shifted

if TYPE_CHECKING:
    Values = np.ndarray[Any, Any]

_CHUNK = 1 << 16  # values that stay in the cache as float64
_COUNTED = 1 << 18  # values that bincount makes eight bytes of at once
_FIRST = 64  # values whose mean is near that of all


def count(patterns: Values, kinds: int) -> Values:
    """Return how often each of ``kinds`` patterns, unsigned integers of 8 or 16 bits, occurs."""
    counts = np.zeros(kinds, np.int64)
    for start in range(0, patterns.size, _COUNTED):
        counts += np.bincount(patterns[start : start + _COUNTED], minlength=kinds)
    return counts


def moments(values: Values, upper: Values | None = None) -> Moments | None:
    """Return the moments of a block of floats; ``None`` if one is NaN or infinite.

    ``upper``, if given, is where to add how often each pattern of the upper 16 bits occurs.
    """
    with np.errstate(invalid="ignore"):
        low, high = float(values.min()), float(values.max())
    if not (isfinite(low) and isfinite(high)):
        return None
    if upper is not None:
        halves = values.view(np.uint16).reshape(values.size, -1)
        upper += count(halves[:, -1 if byteorder == "little" else 0], UPPER)
    zeros = values.size - int(np.count_nonzero(values))
    sums = []
    with np.errstate(over="ignore", invalid="ignore"):
        shift = float(values[:_FIRST].mean(dtype=np.float64))
        for start in range(0, values.size, _CHUNK):
            part = values[start : start + _CHUNK].astype(np.float64)
            magnitudes = float(np.abs(part).sum())
            part -= shift
            sums.append((float(part.sum()), float(np.einsum("i,i->", part, part)), magnitudes))
    total, squares, magnitudes = map(added, zip(*sums, strict=True))
    return shifted(values.size, zeros, low, high, shift, (total, squares, magnitudes))
