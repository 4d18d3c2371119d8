"""What is worth a look in the statistics of a model, in plain words and with the evidence.

A model fresh from its constructor has none: zero biases, unit scales, zero-initialised projections, an
embedding's padding row and the like are what frameworks make.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from math import inf, log2
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from paratree.core.dtypes import BITS, finfo, numpy_dtype
from paratree.core.errors import UnreadableError, printable
from paratree.core.names import PARAMETER, role_of
from paratree.verbs.reading import ParamUnread, place_of, scan, spelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from paratree.core.tree import Param, ParamTree
    from paratree.engine import Block
    from paratree.verbs.stats import ParamStats

    Values = np.ndarray[Any, Any]

_FEWEST_SIBLINGS = 3
_FAR = 8.0  # times the usual spread of the siblings
_FAR_OCTAVES = 3.0  # and times 8, at least
_NUMBER = re.compile(r"[0-9]+")
_LISTED = 3
_OUTLYING, _OUTLYING_OF = 1000.0, 1000  # times the 99.9 % of the magnitudes, of so many values
_LOST = 0.01  # of the values that are not zero
_SLICE = 1 << 18  # values whose places are held at once
_SHORT = {
    "half": "float16", "bf16": "bfloat16", "fp8": "float8_e4m3fn", "fp8_e4m3": "float8_e4m3fn",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is worth a look.

    Attributes:
        name: the parameter.
        what: ``"nan"``, ``"inf"``, ``"constant"``, ``"dead"``, ``"siblings"``, ``"outlier"``, ``"variance"``,
            ``"range"`` or ``"unread"``.
        text: what it is, with the evidence.
    """

    name: str
    what: str
    text: str


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


def findings(tree: ParamTree, rows: Sequence[ParamStats], target: Target | None) -> tuple[Finding, ...]:
    """Look for what is worth a look; tensors with very many zeros, and those with NaN, are read again.

    Args:
        tree: what was described.
        rows: its statistics, a row for each name.
        target: a dtype that the values should fit.
    """
    own = [row for row in rows if row.tied_with is None]
    found = [
        Finding(row.name, "unread", f"not read: {row.problem}") for row in own if row.problem is not None
    ]
    found += _not_finite(tree, own)
    found += [Finding(row.name, "constant", _constant(row)) for row in own if _is_constant(row)]
    found += _dead(tree, own)
    found += _far(own)
    found += _outlying(own)
    found += _negative_variance(own)
    if target is not None:
        found += _beyond(own, target)
    places = {name: i for i, name in enumerate(tree)}
    return tuple(sorted(found, key=lambda finding: places[finding.name]))


# NaN and infinity


def _not_finite(tree: ParamTree, rows: Iterable[ParamStats]) -> Iterator[Finding]:
    bad = [row for row in rows if row.nan or (row.inf and not _is_mask(row))]
    first = _first_places(tree, bad)
    for row in bad:
        for what, words, count in (("nan", "NaN", row.nan), ("inf", "infinite", row.inf)):
            if count:
                place = first.get((row.name, what))
                at = "" if place is None else f", the first at {spelled(place)}"
                yield Finding(row.name, what, f"{count} of {row.size} values are {words}{at}")


def _is_mask(row: ParamStats) -> bool:
    """Tell whether it is a mask of attention, as it is added to scores: zeros and -infinity."""
    return row.kind != PARAMETER and not row.nan and not row.pos_inf and row.absmax == 0


def _first_of(mask: Values) -> int:
    return int(mask.argmax()) if mask.any() else -1


def _first_places(tree: ParamTree, rows: Sequence[ParamStats]) -> dict[tuple[str, str], tuple[int, ...]]:
    """Find where the first NaN and the first infinity of each are."""
    params: list[Param] = [tree[row.name] for row in rows]

    def first(_: Block, values: Values) -> tuple[int, int]:
        nan = np.isnan(values)
        infinite = ~np.isfinite(values) & ~nan
        return _first_of(nan), _first_of(infinite)

    found: dict[tuple[str, str], tuple[int, ...]] = {}
    for block, places in scan(params, first):
        if isinstance(places, ParamUnread):
            continue
        for what, place in zip(("nan", "inf"), places, strict=True):
            key = (rows[block.item].name, what)
            if place >= 0 and key not in found:
                found[key] = place_of(block.start + place, _lengths(rows[block.item]))
    return found


# Constant tensors, dead rows and columns


def _axes(row: ParamStats) -> int:
    return sum(n is not None and n > 1 for n in row.shape or ())


def _is_constant(row: ParamStats) -> bool:
    """Tell whether a matrix or a kernel holds one value other than zero or one, which initialisers give."""
    is_one = row.min is not None and row.min == row.max and row.nan + row.inf == 0
    return is_one and row.kind == PARAMETER and _axes(row) >= 2 and row.min not in (0.0, 1.0)


def _constant(row: ParamStats) -> str:
    return f"all {row.size} values are {row.min:.6g}"


def _dead(tree: ParamTree, rows: Iterable[ParamStats]) -> Iterator[Finding]:
    """Find slices of zeros along the first and last axes of what is not all zero."""
    full = [row for row in rows if row.kind == PARAMETER and _axes(row) >= 2 and row.nan + row.inf == 0]
    some = [row for row in full if row.absmax and row.zeros * max(_lengths(row)) >= row.size]
    for row, alive in zip(some, _alive(tree, some), strict=True):
        for axis, lives in alive.items():
            dead = np.flatnonzero(~lives)
            if not dead.size or (axis == 0 and dead.size == 1 and _is_embedding(tree[row.name])):
                continue
            which = ", ".join(map(str, dead[:_LISTED])) + (", …" if dead.size > _LISTED else "")
            noun = "rows" if axis == 0 else "columns" if _axes(row) == 2 else f"slices along axis {axis}"
            yield Finding(row.name, "dead", f"zeros only: {dead.size} of {lives.size} {noun} ({which})")


def _lengths(row: ParamStats) -> tuple[int, ...]:
    return tuple(n or 1 for n in row.shape or ())


def _is_embedding(param: Param) -> bool:
    """Tell whether it is an embedding, in which the row of the padding token is zero."""
    return "emb" in param.name.lower() or (param.layout or "").startswith("vocabulary")


def _alive(tree: ParamTree, rows: Sequence[ParamStats]) -> list[dict[int, Values]]:
    """Tell which slices along the first and the last axis have a value that is not zero."""
    shapes = [_lengths(row) for row in rows]
    alive = [{axis: np.zeros(shape[axis], bool) for axis in (0, len(shape) - 1)} for shape in shapes]

    def places(_: Block, values: Values) -> Values:
        return np.flatnonzero(values)

    for block, found in scan([tree[row.name] for row in rows], places, most=_SLICE):
        if not isinstance(found, ParamUnread):
            where = np.unravel_index(found + block.start, shapes[block.item])
            for axis, lives in alive[block.item].items():
                lives[where[axis]] = True
    return alive


# One layer far from its siblings


def _far(rows: Iterable[ParamStats]) -> Iterator[Finding]:
    """Compare the spread of weights that differ in the numbers in their names only."""
    groups: dict[tuple[object, ...], list[ParamStats]] = {}
    for row in rows:
        if row.kind == PARAMETER and row.std is not None and (_axes(row) >= 2 or _is_scale(row)):
            groups.setdefault((_NUMBER.sub("#", row.name), row.shape, row.dtype), []).append(row)
    for siblings in groups.values():
        living = [row for row in siblings if row.absmax]
        for row in siblings:
            if living and not row.absmax:
                others = f"its {len(living)} siblings are" if len(living) > 1 else "its sibling is"
                yield Finding(row.name, "siblings", f"all {row.size} values are zero, {others} not")
        spread = [row for row in living if row.std and _axes(row) >= 2]
        if len(spread) >= _FEWEST_SIBLINGS:
            yield from _far_of(spread)


def _is_scale(row: ParamStats) -> bool:
    return role_of(row.name) in ("weight", "scale") and row.size > 1


def _outlying(rows: Iterable[ParamStats]) -> Iterator[Finding]:
    """Find values far beyond all but a thousandth of the others."""
    for row in rows:
        if row.quantiles is None or row.absmax is None or row.kind != PARAMETER or row.size < _OUTLYING_OF:
            continue
        usual = max(abs(row.quantiles[0]), abs(row.quantiles[-1]))
        if 0 < _OUTLYING * usual < row.absmax:
            text = (
                f"the largest magnitude is {row.absmax:.3g}, and 99.8 % of the values lie within {usual:.3g}"
            )
            yield Finding(row.name, "outlier", text)


def _negative_variance(rows: Iterable[ParamStats]) -> Iterator[Finding]:
    for row in rows:
        if row.min is not None and row.min < 0 and role_of(row.name) == "running_var":
            yield Finding(row.name, "variance", f"a variance, and its smallest value is {row.min:.3g}")


def _far_of(siblings: Sequence[ParamStats]) -> Iterator[Finding]:
    octaves = [log2(row.std or 1.0) for row in siblings]
    middle = median(octaves)
    usual = median(abs(octave - middle) for octave in octaves)
    for row, octave in zip(siblings, octaves, strict=True):
        if abs(octave - middle) > max(_FAR_OCTAVES, _FAR * usual):
            others = sorted(other.std or 0.0 for other in siblings if other is not row)
            yield Finding(
                row.name, "siblings",
                f"its standard deviation is {row.std:.3g}, those of its {len(others)} siblings are "
                f"{others[0]:.3g} to {others[-1]:.3g}",
            )  # fmt: skip


# The range of another dtype


def target_dtype(name: object) -> Target:
    """Return the range of the floating dtype of a name, as ``"float16"`` or ``"fp16"``.

    Raises:
        UnreadableError: there is none.
    """
    lower = name.lower() if isinstance(name, str) else ""
    known = _SHORT.get(lower, re.sub("^fp(?=[0-9])", "float", lower))
    if known not in BITS or not known.startswith(("float", "bfloat")):
        given = printable(name) if isinstance(name, str) else f"{name!r:.80}"
        raise UnreadableError(f"'{given}' is no floating dtype; give a name, as float16 or bfloat16")
    return _range(known)


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


def _beyond(rows: Iterable[ParamStats], target: Target) -> Iterator[Finding]:
    for row in rows:
        if row.absmax is None:
            continue
        if row.absmax >= target.overflow:
            count = max(1, _counted(row, lambda e: e >= log2(target.overflow)))
            yield Finding(
                row.name, "range",
                f"at least {count} of {row.size} values are beyond {target.dtype}, whose largest is "
                f"{target.largest:.6g}; the largest here is {row.absmax:.6g}",
            )  # fmt: skip
        lost = _counted(row, lambda e: e + 1 <= (log2(target.tiny) if target.tiny else -inf))
        if lost >= max(1, _LOST * (row.finite - row.zeros)):
            yield Finding(
                row.name,
                "range",
                f"{lost} of {row.size} values would be zero in {target.dtype}, too small for it",
            )


def _counted(row: ParamStats, fits: Callable[[int], bool]) -> int:
    """Return how many values are in bins whose exponents fit."""
    bins = row.histogram
    if bins is None:
        return 0
    pairs = zip(bins.exponents, bins.negative, bins.positive, strict=True)
    return sum(below + above for exponent, below, above in pairs if fits(exponent))
