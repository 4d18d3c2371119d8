"""What comparing two arrays gives: counts, the largest change, and sums that neither overflow nor vanish."""

from __future__ import annotations

from math import fsum, ldexp, sqrt
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

Scaled = tuple[float, int]  # a number and an even power of two that it is to be multiplied by
NO_SUM: Scaled = (0.0, 0)


class Figures(NamedTuple):
    """How the values of two arrays differ; positions count from the first value in row-major order.

    Attributes:
        changed: values that are not equal; two NaN are equal here.
        beyond: those of them that the tolerance does not cover.
        other_bits: equal values of other bits in one dtype: zeros of other sign, NaN.
        nan_bits: those of them that are NaN.
        uncast: values that differ even after the wider dtype is cast to the narrower; all that are changed
            where the dtypes are one.
        uncast_beyond: those of them that the tolerance does not cover.
        max_abs: largest difference of two finite values, -1 if there are none.
        max_at: position of the first that differs so.
        nan: NaN of each side.
        new_nan: NaN of the second where the first has none.
        first_nan: position of the first of these, or -1.
        inf: infinities of each side.
        new_inf: infinities of the second where the first has another value.
        first_inf: position of the first of these, or -1.
        square_change: sum of the squared differences; this and all sums over pairs of finite values only.
        square_a: sum of the squares of the first.
        square_b: sum of the squares of the second.
        product: sum of the products.
    """

    changed: int = 0
    beyond: int = 0
    other_bits: int = 0
    nan_bits: int = 0
    uncast: int = 0
    uncast_beyond: int = 0
    max_abs: float = -1
    max_at: int = -1
    nan: tuple[int, int] = (0, 0)
    new_nan: int = 0
    first_nan: int = -1
    inf: tuple[int, int] = (0, 0)
    new_inf: int = 0
    first_inf: int = -1
    square_change: Scaled = NO_SUM
    square_a: Scaled = NO_SUM
    square_b: Scaled = NO_SUM
    product: Scaled = NO_SUM

    def moved(self, start: int) -> Figures:
        """Return the same with positions that count from ``start`` before the first value."""
        places = {name: getattr(self, name) for name in ("max_at", "first_nan", "first_inf")}
        return self._replace(**{name: place + start for name, place in places.items() if place >= 0})

    @property
    def are_finite_equal(self) -> bool:
        """Whether something changed, and no pair of finite values, so that there is no change to measure."""
        return self.changed > 0 >= self.max_abs

    @property
    def relative_l2(self) -> float:
        """Norm of the change by the norm of the first; infinite where the first is zero and changed."""
        return root_of_ratio(self.square_change, self.square_a)

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between the two, 1 if nothing changed; ``None`` where one is zero."""
        (product, power), (a, power_a), (b, power_b) = self.product, self.square_a, self.square_b
        if not a or not b:
            return None
        if not self.square_change[0]:
            return 1.0
        cosine = ldexp(product / sqrt(a) / sqrt(b), power - (power_a + power_b) // 2)
        return max(-1.0, min(1.0, cosine))


def with_sums(sums: Sequence[Scaled], **counts: Any) -> Figures:
    """Return figures with the sums of the squared change, of both squares and of the products."""
    named: dict[str, Any] = dict(zip(SUMS, sums, strict=True))
    return Figures(**counts, **named)


def combined(parts: Iterable[Figures]) -> Figures:
    """Return the figures of an array from those of its parts, in order; positions are those of the whole."""
    listed = list(parts)
    if len(listed) == 1:
        return listed[0]
    fields: dict[str, Any] = {name: sum(getattr(part, name) for part in listed) for name in _COUNTS}
    for name in ("nan", "inf"):
        fields[name] = tuple(map(sum, zip(*(getattr(part, name) for part in listed), strict=True)))
    for name in ("first_nan", "first_inf"):
        places = (getattr(part, name) for part in listed)
        fields[name] = next((place for place in places if place >= 0), -1)
    for name in SUMS:
        fields[name] = total(getattr(part, name) for part in listed)
    largest = max(listed, key=lambda part: part.max_abs, default=Figures())
    return Figures(max_abs=largest.max_abs, max_at=largest.max_at, **fields)


_COUNTS = ("changed", "beyond", "other_bits", "nan_bits", "uncast", "uncast_beyond", "new_nan", "new_inf")
SUMS = ("square_change", "square_a", "square_b", "product")


def total(parts: Iterable[Scaled]) -> Scaled:
    """Return the sum of scaled numbers, rounded once.

    >>> total([(1.0, 2000), (1.0, 2002)])
    (1.25, 2002)
    """
    listed = [part for part in parts if part[0]]
    if not listed:
        return NO_SUM
    top = max(power for _, power in listed)
    return fsum(ldexp(number, power - top) for number, power in listed), top


def root_of_ratio(above: Scaled, below: Scaled) -> float:
    """Return the square root of a ratio of scaled numbers.

    >>> root_of_ratio((1.0, -2000), (4.0, -2000)), root_of_ratio((0.0, 0), (0.0, 0))
    (0.5, 0.0)
    """
    if not above[0]:
        return 0.0
    if not below[0]:
        return float("inf")
    power = (above[1] - below[1]) // 2
    try:
        return ldexp(sqrt(above[0]) / sqrt(below[0]), power)
    except OverflowError:
        return float("inf")
