"""Why parameters were not loaded, in groups of one place and one cause, each with what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from paratree.core.errors import MismatchError, NoSuchParamError, printable
from paratree.core.names import split
from paratree.verbs._load_report import FAILING, MISSING, REFUSED, SHAPE, UNEXPECTED, LoadGroup, ParamLoad
from paratree.verbs._matching import match
from paratree.verbs._proposing import propose
from paratree.verbs._verdict import common_place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from paratree.verbs._load_plan import Plan, Wanted
    from paratree.verbs._proposing import Proposal

_MOST_PLACES = 8  # of one cause; more are told as one
_LEFT = "strict=False loads the rest"


def groups_of(rows: Iterable[ParamLoad], plan: Plan, wanted: Wanted) -> tuple[LoadGroup, ...]:
    """Return what does not fit, in groups; those first that other options would mend."""
    failing = [row for row in rows if row.status in FAILING]
    mended = _mended(plan, wanted) if failing else _Mended(frozenset(), frozenset(), "")
    causes: dict[tuple[str, str, str], list[ParamLoad]] = {}
    for status in FAILING:
        for row in (row for row in failing if row.status == status):
            cause, fix = _otherwise(mended) if mended.has(row, wanted.prefix) else _why(row)
            causes.setdefault((status, cause, fix), []).append(row)
    made = [
        LoadGroup(status, common_place(names), tuple(names), cause, fix)
        for (status, cause, fix), found in causes.items()
        for names in _by_place([row.name for row in found], whole=fix == mended.options)
    ]
    return tuple(sorted(made, key=lambda group: (group.fix != mended.options, group.status != REFUSED)))


def _by_place(names: list[str], *, whole: bool) -> list[list[str]]:
    """Group names by their first segment, unless that makes too many or what mends them mends all."""
    places: dict[str, list[str]] = {}
    for name in names:
        head, *rest = split(name)
        places.setdefault(head if rest else "", []).append(name)
    return [*places.values()] if len(places) <= _MOST_PLACES and not whole else [names]


# Causes


def _otherwise(mended: _Mended) -> tuple[str, str]:
    return "the other has it under another name", mended.options


def _why(row: ParamLoad) -> tuple[str, str]:
    """Return the likely cause and what to do."""
    if row.problem is not None:
        return row.problem, row.fix or _LEFT
    if row.status == SHAPE:
        return _of_shapes(row)
    if row.status == MISSING:
        return "the source does not have it", "strict=False leaves it as it is"
    return "the model does not have it", "strict=False leaves it out; select= chooses what is loaded"


def _of_shapes(row: ParamLoad) -> tuple[str, str]:
    first, second = row.shapes
    if first is None or second is None or len(first) != len(second):
        return "another number of axes", _LEFT
    if len(first) > 1 and sorted(map(str, first)) == sorted(map(str, second)):
        return "its axes are in another order", "pt.update takes its value transposed"
    others = [axis for axis, both in enumerate(zip(first, second, strict=True)) if both[0] != both[1]]
    if others == [0]:
        return "another number of classes or words", f"make the model of that size; {_LEFT}"
    return "a model of another size", f"make the model of that size; {_LEFT}"


# Names that other options would match


class _Mended(NamedTuple):
    """Names that match with other options, of the source and of the part of the model, and these options."""

    of_source: frozenset[str]
    of_model: frozenset[str]
    options: str

    def has(self, row: ParamLoad, prefix: str) -> bool:
        """Tell whether the name of a row is one of them."""
        if row.status == UNEXPECTED:
            return row.name in self.of_source
        return row.status == MISSING and row.name[len(prefix) :] in self.of_model


def _mended(plan: Plan, wanted: Wanted) -> _Mended:
    nothing = _Mended(frozenset(), frozenset(), "")
    found = propose(plan.chosen, plan.part, plan.names, rename=wanted.rename, strip=wanted.strip)
    if found is None:
        return nothing
    try:
        made = match(plan.chosen, plan.part, rename=found.rename or wanted.rename, strip=found.prefixes)
    except (MismatchError, NoSuchParamError):
        return nothing
    known = {*plan.names.pairs}
    pairs = [pair for pair in made.pairs if pair not in known]
    ours, theirs = (frozenset(names) for names in (zip(*pairs, strict=True) if pairs else ((), ())))
    return _Mended(ours, theirs, _options(found))


def _options(found: Proposal) -> str:
    options = [f"strip={[*map(printable, found.prefixes)]}"] * bool(found.prefixes)
    options += [f"rename={_printable(found.rename)}"] * bool(found.rename)
    names = found.names
    return f"{names} more {'name matches' if names == 1 else 'names match'} with {', '.join(options)}"


def _printable(rename: Mapping[str, str]) -> dict[str, str]:
    return {printable(old): printable(new) for old, new in rename.items()}
