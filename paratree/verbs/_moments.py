"""Moments of values without NaN and infinity, of one block or of several together."""

from __future__ import annotations

from math import fsum, inf, sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Moments(NamedTuple):
    """What a few sums say about values, all in float64.

    Attributes:
        size: number of values.
        zeros: how many of them are zero.
        low: the smallest.
        high: the largest.
        mean: their mean.
        squares: sum of the squares of their distances from the mean.
        l1: sum of their magnitudes.
    """

    size: int
    zeros: int
    low: float
    high: float
    mean: float
    squares: float
    l1: float

    @property
    def std(self) -> float:
        """Standard deviation of the values themselves (divided by their number, not by one less)."""
        return sqrt(self.squares / self.size)

    @property
    def l2(self) -> float:
        """Root of the sum of their squares."""
        return sqrt(self.squares + self.size * self.mean * self.mean)


def added(parts: Sequence[float]) -> float:
    """Return a sum that is rounded once; infinite where float64 overflows."""
    try:
        return fsum(parts)
    except (OverflowError, ValueError):
        return sum(parts)


def shifted(
    size: int, zeros: int, low: float, high: float, shift: float, sums: tuple[float, float, float]
) -> Moments:
    """Return moments from sums over ``values - shift``; a shift near the mean keeps the digits of the spread.

    Args:
        size: number of values.
        zeros: how many of them are zero.
        low: the smallest.
        high: the largest.
        shift: what was taken from every value.
        sums: of the differences, of their squares, and of the magnitudes of the values.
    """
    total, squares, magnitudes = sums
    if low == high:
        return Moments(size, zeros, low, high, low, 0.0, abs(low) * size)
    mean, about = shift + total / size, squares - total / size * total
    about = max(about, 0.0) if about == about else inf
    return Moments(size, zeros, low, high, mean, about, magnitudes)


def together(parts: Sequence[Moments]) -> Moments:
    """Return the moments of several blocks as one (Chan, Golub, LeVeque 1983, "pairwise" formula)."""
    if len(parts) == 1:
        return parts[0]
    size = sum(part.size for part in parts)
    mean = added([part.size * part.mean for part in parts]) / size
    between = (part.size * (part.mean - mean) * (part.mean - mean) for part in parts)
    return Moments(
        size,
        sum(part.zeros for part in parts),
        min(part.low for part in parts),
        max(part.high for part in parts),
        mean,
        added([*(part.squares for part in parts), *between]),
        added([part.l1 for part in parts]),
    )
