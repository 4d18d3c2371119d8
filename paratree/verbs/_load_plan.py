"""Which parameter of a source fills which of a model, what is missing, and what is left over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from paratree.core.errors import MismatchError, NoSuchParamError, printable
from paratree.core.names import BUFFER, PARAMETER
from paratree.core.numbered import renumbered
from paratree.core.param import Param
from paratree.core.renames import renamed, renaming, rules_of
from paratree.core.select import tests_of
from paratree.verbs._axes import shapes_fit
from paratree.verbs._load_report import MISSING, SKIPPED, UNEXPECTED, ParamLoad, fact_and_advice
from paratree.verbs._matching import match
from paratree.verbs._tie_changes import tie_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from paratree.core.renames import Rename
    from paratree.core.select import Selector
    from paratree.core.tree import ParamTree
    from paratree.verbs._differences import TieChange
    from paratree.verbs._matching import Match

_OF_MODELS = (PARAMETER, BUFFER)


class Wanted(NamedTuple):
    """What of a source is to go where.

    Attributes:
        select: which parameters of the source.
        prefix: what stands before their names in the model.
        rename: names of the source -> names of the model, without the prefix.
        strip: prefixes to take from the names of both.
    """

    select: Selector | None
    prefix: str
    rename: Rename | None
    strip: tuple[str, ...]


class Plan(NamedTuple):
    """What fills what.

    Attributes:
        part: the part of the model behind the prefix, its names without that.
        chosen: what was selected of the source.
        names: which names of the two match.
        jobs: first name of a parameter of the model -> names in the source, each another parameter there.
        rest: rows of what is not filled and, last, of what fills nothing.
        ties: names that are tied in the source only.
        hidden: kinds of the source that were left out.
    """

    part: ParamTree
    chosen: ParamTree
    names: Match
    jobs: Mapping[str, tuple[str, ...]]
    rest: tuple[ParamLoad, ...]
    ties: tuple[TieChange, ...]
    hidden: tuple[tuple[str, int], ...]


def plan(
    model: ParamTree, source: ParamTree, chosen: ParamTree, wanted: Wanted, unsaved: Collection[str]
) -> Plan:
    """Pair the names of a model and of what was chosen of a source.

    Args:
        model: the model.
        source: all of the source, to which rules of renaming have to apply.
        chosen: what was selected of it.
        wanted: what is to go where.
        unsaved: names of the model that its framework does not save.

    Raises:
        NoSuchParamError: no name of the model has the prefix, or a rule fits no name of the source.
        MismatchError: two names become the same.
    """
    part = _part(model, wanted.prefix)
    new_name = renaming(source, wanted.rename)
    names = match(chosen, part, rename=new_name, strip=wanted.strip)
    if model.format.startswith("Keras") and names.only_a and names.only_b:
        found = renumbered(source, part, new_name) or {}
        numbers: Mapping[str, str] = {name: other for name, other in found.items() if name in chosen}
        if numbers and all(shapes_fit(part[other], source[name]) for name, other in numbers.items()):
            names = match(chosen, part, rename=lambda name: numbers.get(name, name))
    full = {name: wanted.prefix + name for name in part}
    full |= {name: param.name for name, param in part.items() if param.name in model}
    jobs: dict[str, list[str]] = {}
    for other, name in names.pairs:
        jobs.setdefault(model.tied_with(full[name])[0], []).append(other)
    distinct = {name: _distinct(chosen, others) for name, others in jobs.items()}
    is_due = _due(wanted, {full[name]: name for name in part})
    rest = [
        *(_unfilled(model, name, is_due, unsaved) for name in _firsts(model, jobs)),
        *_unexpected(chosen, names),
    ]
    pairs = [(other, full[name]) for other, name in names.pairs]
    ties = tuple(tie for tie in tie_changes(chosen, model, pairs) if tie.tied_in == "a")
    return Plan(part, chosen, names, distinct, tuple(rest), ties, _hidden(chosen, names))


def _part(model: ParamTree, prefix: str) -> ParamTree:
    if not isinstance(prefix, str):
        raise MismatchError(f"prefix is a text, as 'backbone.', not {prefix!r:.80}")
    if not prefix:
        return model
    dotted = prefix.replace("/", ".")
    below = {n[len(prefix) :]: p for n, p in model.items() if n.replace("/", ".").startswith(dotted)}
    if not below:
        message = f"{printable(model.source)}: no name begins with '{printable(prefix)}'"
        raise NoSuchParamError(prefix, model, model.source, message=message)
    return model.with_params({name: param for name, param in below.items() if name})


def _distinct(source: ParamTree, names: list[str]) -> tuple[str, ...]:
    """Return names of parameters, of those that are tied in the source the first only."""
    return tuple({source.tied_with(name)[0]: name for name in reversed(names)}.values())[::-1]


# What is not filled


def _firsts(model: ParamTree, filled: Collection[str]) -> Iterator[str]:
    """Yield the first name of each parameter and buffer that is not filled."""
    for name, param in model.items():
        if param.kind in _OF_MODELS and model.tied_with(name)[0] == name and name not in filled:
            yield name


def _due(wanted: Wanted, part: Mapping[str, str]) -> Callable[[str, Param], bool]:
    """Return the function that tells whether what was selected should have filled a name of the model.

    It is so if the name that it would have in the source fits the selector. A renaming by a function or a
    regular expression cannot be turned round: then nothing is due but what is called the same in both.
    """
    if wanted.select is None:
        return lambda name, param: name in part
    fits = tests_of(wanted.select, role=None, kind=None, dtype=None, ndim=None)
    rename = wanted.rename if isinstance(wanted.rename, Mapping) else {}
    texts = {old: new for old, new in rename.items() if isinstance(old, str)}
    forth, back = rules_of(texts), [rules_of({new: old}) for old, new in texts.items()]

    def is_due(name: str, param: Param) -> bool:
        if name not in part:
            return False
        names = [prefix + part[name] for prefix in ("", *wanted.strip)]
        before = [old for new in names for rules in back if renamed(old := renamed(new, rules), forth) == new]
        same = [] if callable(wanted.rename) else [new for new in names if renamed(new, forth) == new]
        return any(fits(old, Param(old, param.array, param.kind)) for old in (*before, *same))

    return is_due


def _unfilled(
    model: ParamTree, name: str, is_due: Callable[[str, Param], bool], unsaved: Collection[str]
) -> ParamLoad:
    param, (_, *tied) = model[name], model.tied_with(name)
    problem, fix = (
        _why_not_due(param, any(is_due(each, param) for each in (name, *tied)), name in unsaved),
        None,
    )
    status = MISSING if problem is None else SKIPPED
    if status == MISSING and param.array.problem is not None:
        problem, fix = fact_and_advice(param.array.problem)
    shapes, dtypes = (param.shape, None), (param.dtype, None)
    return ParamLoad(name, None, status, shapes, dtypes, tuple(tied), param.size, problem=problem, fix=fix)


def _why_not_due(param: Param, is_due: bool, is_unsaved: bool) -> str | None:
    """Say why a parameter needs no value from the source; ``None`` if it does."""
    if not is_due:
        return "not selected"
    if is_unsaved:
        return "not saved with the model"
    return "a counter, which the source does not keep" if param.role == "counter" else None


# What is left over


def _unexpected(source: ParamTree, names: Match) -> Iterator[ParamLoad]:
    """Yield a row for each parameter and buffer of the source that fills nothing, under none of its names."""
    filling = {source.tied_with(other)[0] for other, _ in names.pairs}
    for other in names.only_a:
        param, (first, *_) = source[other], source.tied_with(other)
        if param.kind not in _OF_MODELS or first in filling:
            continue
        counts = param.role == "counter"
        problem = "a counter, which the model does not keep" if counts else None
        status = SKIPPED if counts else UNEXPECTED
        shapes, dtypes = (None, param.shape), (None, param.dtype)
        yield ParamLoad(other, other, status, shapes, dtypes, (), param.size, problem=problem)


def _hidden(source: ParamTree, names: Match) -> tuple[tuple[str, int], ...]:
    kinds = Counter(source[name].kind for name in names.only_a)
    return tuple((kind, number) for kind, number in kinds.items() if kind not in _OF_MODELS)
