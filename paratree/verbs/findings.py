"""What is worth a look in the statistics of a model, in plain words and with the evidence.

A model fresh from its constructor has none: zero biases, unit scales, zero-initialised projections, an
embedding's padding row and the like are what frameworks make. One is made to have some: the layers of
``torch.nn.TransformerEncoder`` begin as copies of one, as its documentation warns.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isclose, log2
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from paratree.core.dtypes import finfo
from paratree.core.names import BUFFER, PARAMETER, last_segment, role_of
from paratree.verbs._repeats import copies, repeats, rows_alike
from paratree.verbs._targets import Target, beyond, has_range
from paratree.verbs.reading import ParamUnread, place_of, scan, spelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from paratree.core.param import Param
    from paratree.core.tree import ParamTree
    from paratree.engine import Block
    from paratree.verbs.stats import ParamStats

    Values = np.ndarray[Any, Any]

_FEWEST_SIBLINGS = 3
_FAR = 8.0  # times the usual spread of the siblings
_FAR_OCTAVES = 3.0  # and times 8, at least
_NUMBER = re.compile(r"[0-9]+")
_LISTED = 3
_OUTLYING, _OUTLYING_OF = 1000.0, 1000  # times the 99.9 % of the magnitudes, of so many values
_SLICE = 1 << 18  # values whose places are held at once
_SUBNORMAL = {  # part of the values that are not zero; half precision is made to have some
    "float16": 0.5, "bfloat16": 0.01, "float32": 0.01, "float64": 0.01,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is worth a look.

    Attributes:
        name: the parameter.
        what: ``"nan"``, ``"inf"``, ``"constant"``, ``"dead"``, ``"alike"``, ``"copy"``, ``"siblings"``,
            ``"outlier"``, ``"subnormal"``, ``"variance"``, ``"range"`` or ``"unread"``.
        text: what it is, with the evidence.
        count: of ``"nan"`` and ``"inf"``, how many values are so.
        index: of these, where the first is, if it is known.
    """

    name: str
    what: str
    text: str
    count: int | None = None
    index: tuple[int, ...] | None = None


def findings(
    tree: ParamTree, rows: Sequence[ParamStats], target: Target | None, *, every_kind: bool = False
) -> tuple[Finding, ...]:
    """Look for what is worth a look.

    Read again are only tensors with very many zeros, with NaN, beyond the dtype, or whose statistics are
    those of another tensor or of a matrix of equal rows.

    Args:
        tree: what was described.
        rows: its statistics, a row for each name.
        target: a dtype that floats should fit.
        every_kind: whether those should, too, that are neither parameters nor buffers.
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
    found += _subnormal(own)
    found += _variances(own)
    found += [Finding(name, "alike", text) for name, text in rows_alike(tree, own)]
    found += [Finding(name, "copy", text) for name, text in copies(tree, own)]
    if target is not None:
        ranged = [row for row in own if has_range(row, every_kind=every_kind)]
        found += [Finding(name, "range", text) for name, text in beyond(tree, ranged, target)]
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
                yield Finding(row.name, what, f"{count} of {row.size} values are {words}{at}", count, place)


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
    some = [row for row in some if role_of(row.name) is not None or not repeats(tree, row, axis=0)]
    for row, alive in zip(some, _alive(tree, some), strict=True):
        for axis, lives in alive.items():
            dead = np.flatnonzero(~lives)
            if not dead.size or (axis == 0 and dead.size == 1 and _is_embedding(tree[row.name])):
                continue
            which = ", ".join(map(str, dead[:_LISTED])) + (", …" if dead.size > _LISTED else "")
            noun = "rows" if axis == 0 else "columns" if _axes(row) == 2 else f"slices along axis {axis}"
            text = f"zeros only: {dead.size} of {lives.size} {noun} ({which})"
            yield Finding(row.name, "dead", text + "; so begins an identity" * _is_like_identity(row))


def _is_like_identity(row: ParamStats) -> bool:
    """Tell whether all that is not zero is one positive value, as initialisers of identities make."""
    return isclose(row.l1 or 0.0, (row.max or 0.0) * (row.size - row.zeros), rel_tol=1e-12)


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


def _subnormal(rows: Iterable[ParamStats]) -> Iterator[Finding]:
    """Find many values below the normal ones of their dtype; a vector of half precision may begin so."""
    for row in rows:
        bins, most = row.histogram, _SUBNORMAL.get(row.dtype)
        if bins is None or most is None or row.kind != PARAMETER or not bins.positive:
            continue
        if row.dtype == "float16" and (_axes(row) < 2 or row.min == row.max):
            continue
        least = int(finfo(row.dtype).minexp)
        count = bins.negative[0] + bins.positive[0] if bins.first < least else 0
        if count and count >= most * (row.finite - row.zeros):
            yield Finding(
                row.name, "subnormal",
                f"{count} of {row.size} values are subnormal, less than {2.0**least:.3g}: they have lost "
                "digits, and some processors are slow with them",
            )  # fmt: skip


def _variances(rows: Iterable[ParamStats]) -> Iterator[Finding]:
    for row in rows:
        is_of_flax = row.kind == BUFFER and last_segment(row.name) == "var"
        if row.min is None or not (is_of_flax or role_of(row.name) == "running_var"):
            continue
        if row.min < 0:
            yield Finding(row.name, "variance", f"a variance, and its smallest value is {row.min:.3g}")
        elif row.zeros:
            text = (
                f"a variance, and {row.zeros} of {row.size} are zero, as if that input were always the same"
            )
            yield Finding(row.name, "variance", text)


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
