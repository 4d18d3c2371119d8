"""The range of a dtype that values are to be cast to, and how many values do not fit it."""

from __future__ import annotations

from functools import cache
from math import floor, inf, log2
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paratree.core.dtypes import finfo, floating_dtype, numpy_dtype
from paratree.core.names import BUFFER, PARAMETER
from paratree.verbs.reading import ParamUnread, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from paratree.core.tree import ParamTree
    from paratree.engine import Block
    from paratree.verbs.stats import ParamStats

    Values = np.ndarray[Any, Any]

_LOST = 0.01  # of the values that are not zero
_COUNTED = ("int", "uint", "bool")  # positions, counters, masks: they have no range that training could leave


class Target(NamedTuple):
    """A dtype that values are to be cast to.

    Attributes:
        dtype: its name.
        largest: its largest finite value.
        overflow: the least magnitude that is rounded beyond that.
        tiny: the largest magnitude that is rounded to zero.
    """

    dtype: str
    largest: float
    overflow: float
    tiny: float


def target_dtype(name: object) -> Target:
    """Return the range of the floating dtype of a name, as ``"float16"`` or ``"fp16"``.

    Raises:
        MismatchError: there is none.
    """
    return _range(floating_dtype(name))


@cache
def _range(dtype: str) -> Target:
    """Find the bounds by bisection of what the cast itself does: round to nearest, ties to even."""
    kind, limits = numpy_dtype(dtype), finfo(dtype)
    inside, outside = float(limits.max), 2 * float(limits.max)
    while (middle := (inside + outside) / 2) not in (inside, outside):
        with np.errstate(over="ignore"):
            fits = np.isfinite(np.float64(middle).astype(kind).astype(np.float64))
        inside, outside = (middle, outside) if fits else (inside, middle)
    return Target(dtype, float(limits.max), outside, float(limits.smallest_subnormal) / 2)


def has_range(row: ParamStats, *, every_kind: bool) -> bool:
    """Tell whether values are meant to fit a range: floats of a model, or of every kind."""
    return (every_kind or row.kind in (PARAMETER, BUFFER)) and not row.dtype.startswith(_COUNTED)


def beyond(tree: ParamTree, rows: Iterable[ParamStats], target: Target) -> Iterator[tuple[str, str]]:
    """Yield the name of each parameter with values that a dtype cannot hold, and what is so of them.

    Where the histogram does not tell how many are beyond it, the parameter is read again.
    """
    known = [row for row in rows if row.absmax is not None]
    over = [row for row in known if row.absmax is not None and row.absmax >= target.overflow]
    counts = {row.name: count for row in over if (count := _counted_beyond(row, target)) is not None}
    counts |= _read_beyond(tree, [row.name for row in over if row.name not in counts], target)
    for row in known:
        if row.name in counts:
            verb = "value is" if row.size == 1 else "values are"
            yield (
                row.name,
                (
                    f"{counts[row.name]} of {row.size} {verb} beyond {target.dtype}, whose largest is "
                    f"{target.largest:.6g}; the largest here is {row.absmax:.6g}"
                ),
            )
        lost = _counted(row, lambda e: e + 1 <= (log2(target.tiny) if target.tiny else -inf))
        if lost >= max(1, _LOST * (row.finite - row.zeros)):
            yield row.name, f"{lost} of {row.size} values would be zero in {target.dtype}, too small for it"


def _counted_beyond(row: ParamStats, target: Target) -> int | None:
    """Return how many values are beyond a dtype; ``None`` if some are in the bin in which its range ends."""
    end = log2(target.overflow)
    exponent = floor(end)
    if row.histogram is None or (exponent < end and _counted(row, lambda e: e == exponent)):
        return None
    return _counted(row, lambda e: e >= end)


def _read_beyond(tree: ParamTree, names: list[str], target: Target) -> dict[str, int]:
    def count(_: Block, values: Values) -> int:
        with np.errstate(over="ignore"):
            magnitudes = np.abs(values.astype(np.complex128 if values.dtype.kind == "c" else np.float64))
        return int(np.count_nonzero((magnitudes >= target.overflow) & (magnitudes < inf)))

    counts = dict.fromkeys(names, 0)
    for block, found in scan([tree[name] for name in names], count):
        if not isinstance(found, ParamUnread):
            counts[names[block.item]] += found
    return counts


def _counted(row: ParamStats, fits: Callable[[int], bool]) -> int:
    """Return how many values are in bins whose exponents fit."""
    bins = row.histogram
    if bins is None:
        return 0
    pairs = zip(bins.exponents, bins.negative, bins.positive, strict=True)
    return sum(below + above for exponent, below, above in pairs if fits(exponent))
