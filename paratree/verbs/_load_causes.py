"""Why parameters were not loaded, in groups of one place and one cause, each with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from paratree.core.errors import MismatchError, NoSuchParamError
from paratree.core.names import BUFFER, PARAMETER, split
from paratree.verbs._load_places import PLAIN, in_words, places_alike
from paratree.verbs._load_report import FAILING, MISSING, REFUSED, SHAPE, UNEXPECTED, LoadGroup, ParamLoad
from paratree.verbs._matching import match
from paratree.verbs._proposing import propose
from paratree.verbs._verdict import common_place

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from paratree.core.tree import ParamTree
    from paratree.verbs._load_plan import Plan, Wanted
    from paratree.verbs._matching import Match
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
    first, second = _prefixes(wanted, found, made)
    options = _best(plan, wanted, found, made, (first, second))
    places = places_alike(plan.chosen, plan.part, made.pairs, first) if "select" in options else [first]
    ours = ours.union(place + name[len(first) :] for name in ours for place in places)
    words = in_words([(place, _instead(options, first, place)) for place in places])
    verb = "name matches" if found.names == 1 else "names match"
    return _Mended(ours, theirs, f"{found.names} more {verb} {words}")


def _instead(options: Mapping[str, Any], first: str, place: str) -> dict[str, object]:
    """Return options for another place of the source than that whose names begin with ``first``."""
    if place == first:
        return {**options}
    strip = [place if prefix == first else prefix for prefix in options["strip"]]
    rules = {f"{first}**": f"{place}**"}
    rename = {rules.get(old, old): new for old, new in options["rename"].items()}
    return {**options, "select": f"{place}**", "strip": strip, "rename": rename}


def _best(
    plan: Plan, wanted: Wanted, found: Proposal, made: Match, prefixes: tuple[str, str]
) -> dict[str, object]:
    """Return the options that make names match; where one of the two has more than that, those of a part."""
    options: dict[str, object] = {"strip": [*found.prefixes], "rename": dict(found.rename)}
    first, second = prefixes
    if second and _has_more(plan.part, made.only_b):
        rename = wanted.rename if isinstance(wanted.rename, Mapping) else {}
        strip = [*dict.fromkeys((*wanted.strip, *[first] * bool(first)))]
        options = {"prefix": wanted.prefix + second, "strip": strip, "rename": dict(rename)}
    if PLAIN.fullmatch(first) and wanted.select is None and _has_more(plan.chosen, made.only_a):
        options = {"select": f"{first}**", **options}
    return options


def _prefixes(wanted: Wanted, found: Proposal, made: Match) -> tuple[str, str]:
    """Return what begins all names of the source and of the model that match, if that is all that is new."""
    known = wanted.rename if isinstance(wanted.rename, Mapping) else {}
    strip = [prefix for prefix in found.prefixes if prefix not in wanted.strip]
    rules = [rule for rule in found.rename.items() if rule[0] not in known]
    if len(strip) == 1 and not rules:
        first, second = strip * 2
    elif len(rules) == 1 and not strip and all(text.endswith("**") for text in rules[0]):
        first, second = (text.removesuffix("**") for text in rules[0])
    else:
        return "", ""
    ours, theirs = zip(*made.pairs, strict=True)
    if strip and any(name.startswith(first) for name in ours):
        second = ""
    elif strip:
        first = ""
    is_all = all(name.startswith(first) for name in ours) and all(name.startswith(second) for name in theirs)
    return (first, second) if is_all else ("", "")


def _has_more(tree: ParamTree, names: Iterable[str]) -> bool:
    """Tell whether one of some names is of a parameter or buffer that would be missed."""
    return any(tree[name].kind in (PARAMETER, BUFFER) and tree[name].role != "counter" for name in names)
