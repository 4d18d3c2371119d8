"""A power law in the tail of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from typing import Any

    Values = np.ndarray[Any, Any]

LEAST_TAIL = 10  # values: a law through fewer fits by chance


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """A density that falls as ``x ** -alpha`` from ``x_min`` on.

    Attributes:
        alpha: the exponent, the larger the lighter the tail.
        error: standard error of ``alpha``, for independent values.
        x_min: the least value of the tail.
        tail: number of values in it.
        distance: Kolmogorov-Smirnov distance between the tail and the law: 0 is a perfect fit.
    """

    alpha: float
    error: float
    x_min: float
    tail: int
    distance: float


def power_law(logs: Values, *, alike: float = 0.0) -> PowerLaw | None:
    """Fit a power law to the tail of a sample, by maximum likelihood.

    The tail begins where the distance between it and its law is the least, as in A. Clauset, C. R. Shalizi,
    M. E. J. Newman, Power-law distributions in empirical data, SIAM Review 51 (2009) 661-703, section 3.

    Args:
        logs: natural logarithms of the values, in any order.
        alike: logarithms that differ by no more than this are of values that are alike.

    Returns:
        The law with the best fit, or ``None`` for fewer than 10 values, or if they are all alike.
    """
    logs = np.sort(logs)
    laws = (_law(logs[start:]) for start in _starts(logs) if logs[-1] - logs[start] > alike)
    return min(laws, key=lambda law: law.distance, default=None)


def _starts(logs: Values) -> list[int]:
    """Return where a tail may begin in sorted values: at the first of equal ones."""
    starts = range(len(logs) - LEAST_TAIL + 1)
    return [start for start in starts if start == 0 or logs[start] > logs[start - 1]]


def _law(tail: Values) -> PowerLaw:
    above = tail - tail[0]
    count, total = len(tail), float(above.sum())
    slope = count / total  # alpha - 1
    below = -np.expm1(-slope * above)  # the law's share of what is less
    steps = np.arange(count + 1) / count
    distance = max(float((steps[1:] - below).max()), float((below - steps[:-1]).max()))
    with np.errstate(over="ignore"):
        x_min = float(np.exp(tail[0]))
    return PowerLaw(1 + slope, slope / sqrt(count), x_min, count, distance)
