"""Statistics of several parameters together, from their own."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from math import frexp
from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError
from paratree.core.names import PARAMETER, role_of
from paratree.verbs._distribution import Histogram
from paratree.verbs._moments import Moments, scaled, together
from paratree.verbs.stats import ParamStats, Stats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_NUMBERED = re.compile(r"(.*?[./])?[^./]*[0-9]+(?=[./]|$)")
GROUPS: dict[str, Callable[[str], str]] = {}


def _layer(name: str) -> str:
    """Return the name of the layer that owns a parameter.

    >>> _layer("encoder.0.query.weight"), _layer("weight")
    ('encoder.0.query', '')
    """
    return name[: max(name.rfind("."), name.rfind("/"), 0)]


def _role(name: str) -> str:
    return role_of(name) or "(no role)"


def _depth(name: str) -> str:
    """Return the name up to its first number, which is that of a block; without one, its first segment.

    >>> _depth("encoder.layer.3.query.weight"), _depth("pooler.dense.bias")
    ('encoder.layer.3', 'pooler')
    """
    found = _NUMBERED.match(_layer(name))
    return found.group() if found else re.split("[./]", name, maxsplit=1)[0]


GROUPS |= {"layer": _layer, "role": _role, "depth": _depth}


def aggregated(whole: Stats, what: str) -> Stats:
    """Return a row for each group of parameters, in order of appearance; of buffers if there is nothing else.

    Tied names and what was not read count nothing. The findings are those of the whole table.

    Raises:
        MismatchError: ``what`` is no way to group.
    """
    if not isinstance(what, str) or what not in GROUPS:
        raise MismatchError(f"group by one of {', '.join(GROUPS)}, not {what!r:.80}")
    read = [row for row in whole if row.tied_with is None and row.problem is None]
    own = [row for row in read if row.kind == PARAMETER] or read
    groups: dict[str, list[ParamStats]] = {}
    for row in own:
        groups.setdefault(_group(row.name, what), []).append(row)
    kinds = {PARAMETER, *(row.kind for row in own)}
    hidden = {**whole.hidden, **Counter(row.kind for row in whole if row.kind not in kinds)}
    rows = tuple(_together(name, members) for name, members in groups.items())
    return Stats(whole.source, rows, hidden, whole.findings, whole, what)


def part(table: Stats, rows: tuple[ParamStats, ...]) -> Stats:
    """Return the table of some of the rows of an aggregate, with what was found in those groups."""
    whole, what = table.whole, table.grouped
    assert whole is not None and what is not None  # noqa: S101 -- it is an aggregate
    names = {row.name for row in rows}
    members = tuple(row for row in whole if _group(row.name, what) in names)
    findings = tuple(finding for finding in whole.findings if _group(finding.name, what) in names)
    return replace(table, rows=rows, findings=findings, whole=replace(whole, rows=members, findings=findings))


def _group(name: str, what: str) -> str:
    return GROUPS[what](name) or "(the model)"


def _together(name: str, rows: Sequence[ParamStats]) -> ParamStats:
    measured = [row for row in rows if row.mean is not None]
    dtypes = ", ".join(dict.fromkeys(row.dtype for row in rows))
    kinds = dict.fromkeys(row.kind for row in rows)
    found = ParamStats(
        name, None, dtypes, " and ".join(kinds), sum(row.size for row in rows),
        nan=sum(row.nan for row in rows), pos_inf=sum(row.pos_inf for row in rows),
        neg_inf=sum(row.neg_inf for row in rows), of=" and ".join(dict.fromkeys(row.of for row in rows)),
        params=len(rows),
    )  # fmt: skip
    if not measured:
        return found
    whole = together([_moments(row) for row in measured])
    return replace(
        found, zeros=whole.zeros, min=whole.low, max=whole.high, mean=whole.mean, std=whole.std,
        rms=whole.rms, l1=whole.l1, l2=whole.l2, absmax=max(abs(whole.low), abs(whole.high)),
        histogram=_histogram(measured),
    )  # fmt: skip


def _moments(row: ParamStats) -> Moments:
    low, high, mean, std, l1 = (value or 0.0 for value in (row.min, row.max, row.mean, row.std, row.l1))
    power = frexp(max(abs(low), abs(high)))[1]
    own = scaled(std, -power)
    return Moments(row.finite, row.zeros, low, high, mean, own * own * row.finite, l1, power)


def _histogram(rows: Iterable[ParamStats]) -> Histogram | None:
    """Add histograms; there is none if one row has none."""
    bins = [row.histogram for row in rows]
    known = [one for one in bins if one is not None]
    if len(known) < len(bins):
        return None
    some = [one for one in known if one.positive]
    zeros = sum(one.zeros for one in known)
    if not some:
        return Histogram(0, (), (), zeros)
    first = min(one.first for one in some)
    length = max(one.first + len(one.positive) for one in some) - first
    sides = ([0] * length, [0] * length)
    for one in some:
        for side, counts in zip(sides, (one.negative, one.positive), strict=True):
            for place, count in enumerate(counts, one.first - first):
                side[place] += count
    return Histogram(first, tuple(sides[0]), tuple(sides[1]), zeros)
