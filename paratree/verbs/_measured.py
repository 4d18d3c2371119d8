"""What one block of values adds to the statistics of a parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from paratree.core.dtypes import BITS, name_of
from paratree.verbs import _distribution as counted
from paratree.verbs._moments import Moments, scaled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from paratree.engine import Block
    from paratree.verbs.reading import ParamUnread

    Values = np.ndarray[Any, Any]

_HUGE, _TINY, _POWER = 2.0**490, 2.0**-490, 600  # beyond these, float64 does not hold the sums of squares
_HELD = 1 << 23  # bytes of counts and values that wait to be described
_SORTED = 1 << 14  # values of a wide type up to which they are sorted, so that quantiles are exact


class Part:
    """What the blocks of a parameter add to its figures.

    Attributes:
        others: how many values are NaN, +infinity and -infinity.
        moments: of the finite values of each block; none if counts hold them.
        dtype: name of the dtype of the values that were measured.
        counts: of patterns, or of upper bits, or ``None``.
        values: the finite values themselves, if they are few.
        problem: why they could not be read.
    """

    __slots__ = ("counts", "dtype", "moments", "others", "problem", "values")

    def __init__(self, problem: str | None = None) -> None:
        self.others = (0, 0, 0)
        self.moments: list[Moments] = []
        self.counts: Values | None = None
        self.values: Values | None = None
        self.dtype, self.problem = "", problem

    def with_(self, other: Part) -> Part:
        """Take in another block, and return this."""
        self.problem = self.problem or other.problem
        nan, above, below = (a + b for a, b in zip(self.others, other.others, strict=True))
        self.others = (nan, above, below)
        self.moments += other.moments
        if self.counts is None:
            self.counts = other.counts
        elif other.counts is not None:
            self.counts += other.counts
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of the counts or values."""
        return sum(column.nbytes for column in (self.counts, self.values) if column is not None)


def whole_parts(blocks: Iterable[tuple[Block, Part | ParamUnread]]) -> Iterator[tuple[int, Part]]:
    """Yield the number of each parameter, and what all of its blocks add to its figures.

    They come many at once: reading values empties the processor's caches, and what describes a parameter
    takes several times as long the first time after that.
    """
    begun: dict[int, Part] = {}
    waiting: list[tuple[int, Part]] = []
    nbytes = 0
    for block, found in blocks:
        part = found if isinstance(found, Part) else Part(problem=found)
        part = begun[block.item] = begun[block.item].with_(part) if block.item in begun else part
        if block.is_last:
            waiting.append((block.item, begun.pop(block.item)))
            nbytes += part.nbytes
        if nbytes > _HELD:
            yield from waiting
            waiting, nbytes = [], 0
    yield from waiting


def measured(work: ModuleType, block: Block, values: Values, histogram: bool) -> Part:
    """Count the patterns of a narrow type; take moments, and counts of the upper bits, of a wide one."""
    part = Part()
    part.dtype = name_of(values.dtype)
    if values.dtype.itemsize <= 2 and part.dtype in BITS:
        width = max(BITS[part.dtype], 8)
        patterns = values.view(f"u{width // 8}")
        part.counts = work.count(patterns, 1 << width)
        return part
    is_few = block.start == 0 and block.is_last and values.size <= _SORTED
    return _wide(work, part, values, histogram, few=is_few)


def _wide(work: ModuleType, part: Part, values: Values, histogram: bool, few: bool) -> Part:
    """Measure floats of 32 or 64 bits, or what is made into them."""
    values, part.others = floats(values)
    part.dtype = name_of(values.dtype)
    upper = np.zeros(counted.UPPER + 1, np.int64) if histogram and not few else None
    moments = _moments(work, values, upper)
    if moments is None and values.size:
        finite = values[np.isfinite(values)]
        nan = int(np.isnan(values).sum())
        above = int((values == np.inf).sum())
        part.others = (nan, above, values.size - finite.size - nan - above)
        values = finite
        upper = None if upper is None else np.zeros_like(upper)
        moments = _moments(work, values, upper)
    if moments is None:
        return part
    part.moments.append(moments)
    if upper is not None:
        _part_zeros(upper, values, moments.zeros)
        part.counts = upper
    elif histogram:
        part.values = values.astype(np.float64)
    return part


def floats(values: Values) -> tuple[Values, tuple[int, int, int]]:
    """Return wide values as floats: complex ones as finite magnitudes, with how many others there are."""
    if values.dtype.kind == "c":
        return _magnitudes(values)
    return (values.astype(np.float64) if values.dtype.kind in "iu" else values), (0, 0, 0)


def _moments(work: ModuleType, values: Values, upper: Values | None) -> Moments | None:
    """Return moments; where squares are beyond float64 or too small for it, those of scaled values."""
    patterns = None if upper is None else upper[:-1]
    found: Moments | None = work.moments(values, patterns) if values.size else None
    if found is None or values.dtype != np.float64:
        return found
    most = max(abs(found.low), abs(found.high))
    if not most or _TINY <= most <= _HUGE:
        return found
    power = _POWER if most > _HUGE else -_POWER
    other: Moments = work.moments(np.ldexp(values, -power))
    mean, l1 = scaled(other.mean, power), scaled(other.l1, power)
    return other._replace(zeros=found.zeros, low=found.low, high=found.high, mean=mean, l1=l1, power=power)


def _magnitudes(values: Values) -> tuple[Values, tuple[int, int, int]]:
    """Return the absolute values of finite complex numbers, and how many have a NaN or else an infinity."""
    nan = np.isnan(values)
    infinite = np.isinf(values) & ~nan
    with np.errstate(over="ignore"):  # NumPy before 2 warns
        magnitudes = np.abs(values[~nan & ~infinite].astype(np.complex128))
    return magnitudes, (int(nan.sum()), int(infinite.sum()), 0)


def _part_zeros(counts: Values, values: Values, zeros: int) -> None:
    """Count zeros apart from the upper bits that they share with tiny numbers."""
    negative = counted.UPPER // 2
    tiny = int(counts[0] + counts[negative]) - zeros
    counts[0], counts[negative], counts[-1] = 0, 0, zeros
    if tiny:
        least = float(counted.upper_edges(values.dtype.name)[1])
        counts[0] = int(((values > 0) & (values < least)).sum())
        counts[negative] = tiny - int(counts[0])
