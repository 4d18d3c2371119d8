"""Moments of values without NaN and infinity, of one block or of several together."""

from __future__ import annotations

from math import copysign, fsum, hypot, inf, ldexp, sqrt
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
        squares: sum of the squares of their distances from the mean, times ``4 ** -power``.
        l1: sum of their magnitudes.
        power: 0, unless squares are beyond float64 or too small for it.
    """

    size: int
    zeros: int
    low: float
    high: float
    mean: float
    squares: float
    l1: float
    power: int = 0

    @property
    def std(self) -> float:
        """Standard deviation of the values themselves (divided by their number, not by one less)."""
        return scaled(sqrt(self.squares / self.size), self.power)

    @property
    def l2(self) -> float:
        """Root of the sum of their squares."""
        mean = scaled(self.mean, -self.power)
        return scaled(sqrt(self.squares + self.size * mean * mean), self.power)

    @property
    def rms(self) -> float:
        """Root of the mean of their squares, which float64 holds though it may not hold their norm."""
        mean = scaled(self.mean, -self.power)
        found = scaled(hypot(sqrt(self.squares / self.size), mean), self.power)
        return min(found, max(abs(self.low), abs(self.high)))


def scaled(value: float, power: int) -> float:
    """Return ``value * 2 ** power``; infinite where float64 overflows."""
    try:
        return ldexp(value, power)
    except OverflowError:
        return copysign(inf, value)


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
    power = max((part.power for part in parts if part.low or part.high), default=0)
    means = [scaled(part.mean, -power) for part in parts]
    mean = added([part.size * own for part, own in zip(parts, means, strict=True)]) / size
    between = (part.size * (own - mean) * (own - mean) for part, own in zip(parts, means, strict=True))
    within = (scaled(part.squares, 2 * (part.power - power)) for part in parts)
    return Moments(
        size,
        sum(part.zeros for part in parts),
        min(part.low for part in parts),
        max(part.high for part in parts),
        scaled(mean, power),
        added([*within, *between]),
        added([part.l1 for part in parts]),
        power,
    )
