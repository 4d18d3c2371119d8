"""The result of ``load``: a row for each parameter, what does not fit in groups, and the error."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, overload

from paratree.core.errors import MismatchError, printable
from paratree.verbs._rows import has, row_of
from paratree.verbs.listing import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from paratree.core.array import Shape
    from paratree.verbs._differences import TieChange

EXACT, CAST, SKIPPED = "bit-exact", "cast", "skipped"
MISSING, UNEXPECTED, SHAPE, REFUSED = "missing", "unexpected", "shape", "refused"
STATUSES = (EXACT, CAST, SKIPPED, MISSING, UNEXPECTED, SHAPE, REFUSED)
FAILING = (MISSING, UNEXPECTED, SHAPE, REFUSED)
_WORDS = {SHAPE: "of another shape", SKIPPED: "left as they are"}
_MOST_NAMES = 2  # of a status, in a sentence


@dataclass(frozen=True, slots=True)
class ParamLoad:
    """What became of one parameter of the model, or of one that only the source has.

    Attributes:
        name: name in the model; of an unexpected one, in the source.
        other: name in the source, or ``None``.
        status: ``"bit-exact"``, ``"cast"``, ``"skipped"`` (left as it is, and it need not be loaded),
            ``"missing"`` (the source has it not), ``"unexpected"`` (the model has it not), ``"shape"``, or
            ``"refused"`` for another reason, which ``problem`` says.
        shapes: shape in the model and in the source, ``None`` where there is none.
        dtypes: dtypes, likewise.
        tied: other names of the parameter in the model.
        size: number of values; ``None`` if it is unknown.
        changed: how many values the cast has rounded to another.
        axes: for each axis in the model which one of the source it is; ``None`` if in order.
        problem: why it was skipped or refused.
        fix: what to do about it.
    """

    name: str
    other: str | None
    status: str
    shapes: tuple[Shape | None, Shape | None]
    dtypes: tuple[str | None, str | None]
    tied: tuple[str, ...] = ()
    size: int | None = None
    changed: int = 0
    axes: tuple[int, ...] | None = None
    problem: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class LoadGroup:
    """Parameters that do not fit for one reason.

    Attributes:
        status: one of the statuses of :class:`ParamLoad`.
        place: what their names begin with; empty if they have nothing in common.
        names: the names, as in the rows.
        cause: the likely cause.
        fix: what to do about it.
    """

    status: str
    place: str
    names: tuple[str, ...]
    cause: str
    fix: str


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What :func:`paratree.load` did.

    ``found["0.weight"]`` and ``found[0]`` are rows; iterating gives the rows.

    Attributes:
        model: the model with the values: the one that was given, or the new tree of arrays that cannot be
            changed (Flax linen, JAX). In the report of an error, the model as it was.
        source: path of the source, or the class of the live object.
        into: class of the model.
        rows: one for each parameter and buffer of the model, in its order; those that only the source has
            come last.
        groups: what does not fit, by reason and place, with the likely cause and what to do.
        ties: names that are tied in the source and have values of their own in the model.
        hidden: kinds of the source that were left out, as optimizer state, with how many names have each.
        applied: whether the model has been given what fits; not so in the report of an error.
        notes: what was taken for granted, a sentence each.
    """

    model: Any
    source: str
    into: str
    rows: tuple[ParamLoad, ...]
    groups: tuple[LoadGroup, ...] = ()
    ties: tuple[TieChange, ...] = ()
    hidden: tuple[tuple[str, int], ...] = ()
    applied: bool = True
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[ParamLoad]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, key: object) -> bool:
        return has(self.rows, key, _NAMES)

    @overload
    def __getitem__(self, key: slice) -> tuple[ParamLoad, ...]: ...

    @overload
    def __getitem__(self, key: str | int) -> ParamLoad: ...

    def __getitem__(self, key: str | int | slice) -> ParamLoad | tuple[ParamLoad, ...]:
        """Return the row of a name, in the model or else in the source, or at a place, or several rows.

        Raises:
            NoSuchParamError: there is no such name; the message names the nearest.
            IndexError: there are fewer rows.
        """
        return self.rows[key] if isinstance(key, slice) else row_of(self.rows, key, _NAMES, self.into)

    def __bool__(self) -> bool:
        raise TypeError("a Loaded is neither true nor false; ask .complete, or len() for the number of rows")

    @property
    def complete(self) -> bool:
        """Whether something was loaded, and nothing that should be was not."""
        statuses = {row.status for row in self.rows}
        return bool(statuses & {EXACT, CAST}) and not statuses & {*FAILING}

    @property
    def verdict(self) -> str:
        """What was done, or would have been, in a sentence."""
        words = [_done(self.rows, "loaded" if self.applied else "fit"), *_left(self.rows)]
        words += _failing(self.rows, names=False)
        return " · ".join(words if self.applied else ["nothing was changed", *words])

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""
        return [asdict(row) for row in self.rows]

    def __repr__(self) -> str:
        return f"<Loaded: {self.verdict}>"

    def __rich__(self) -> Any:
        from paratree.render.load import table

        return table(self)

    def _repr_html_(self) -> str:
        from paratree.render.load import html

        return html(self)


class LoadError(MismatchError):
    """A source does not fit a model, and nothing was changed.

    Attributes:
        report: the :class:`Loaded` of what was to be done, a row for each parameter.
    """

    def __init__(self, report: Loaded) -> None:
        self.report = report
        super().__init__(_message(report))

    def __reduce__(self) -> tuple[type[LoadError], tuple[Loaded]]:
        return LoadError, (self.report,)


def _in_model(row: ParamLoad) -> tuple[str, ...]:
    return (row.name, *row.tied)


def _in_source(row: ParamLoad) -> tuple[str, ...]:
    return () if row.other is None else (row.other,)


_NAMES = (_in_model, _in_source)


def fact_and_advice(problem: str) -> tuple[str, str | None]:
    """Return why an array cannot be read, without its place, and what to do, if that is said.

    >>> fact_and_advice("net/0.weight: not initialised yet; run the model once")
    ('not initialised yet', 'run the model once')
    """
    fact, _, advice = printable(reason_of(problem)).partition("; ")
    return fact, advice or None


# In words


def _message(report: Loaded) -> str:
    facts = ", ".join(_failing(report.rows, names=True)) or "no name of the one is in the other"
    head = f"{printable(report.source)} does not fit {printable(report.into)}: {facts}; nothing was changed"
    fixes = dict.fromkeys(group.fix for group in report.groups)
    return "; ".join([head, *list(fixes)[:1]]) + (" (.report has every row)" if len(report) > 1 else "")


def _done(rows: Iterable[ParamLoad], verb: str) -> str:
    wanted = [row for row in rows if row.status not in (SKIPPED, UNEXPECTED)]
    exact = sum(row.status == EXACT for row in wanted)
    words = f"{exact} of {len(wanted)} {verb} to the last bit"
    turned = sum(row.axes is not None and row.status == EXACT for row in wanted)
    return words + f" ({turned} of them with the axes turned)" * bool(turned)


def _left(rows: Iterable[ParamLoad]) -> Iterator[str]:
    cast = [row for row in rows if row.status == CAST]
    if cast:
        pairs = dict.fromkeys((row.dtypes[1] or "", row.dtypes[0] or "") for row in cast)
        how = ", ".join(" → ".join(map(printable, pair)) for pair in pairs)
        changed = sum(row.changed for row in cast)
        yield f"{len(cast)} cast ({how}{f', {changed} values rounded' * bool(changed)})"
    if skipped := sum(row.status == SKIPPED for row in rows):
        yield f"{skipped} {_WORDS[SKIPPED]}"


def _failing(rows: Iterable[ParamLoad], *, names: bool) -> Iterator[str]:
    counts = Counter(row.status for row in rows)
    for status in FAILING:
        if counts[status]:
            some = [row for row in rows if row.status == status] if names else []
            yield f"{counts[status]} {_WORDS.get(status, status)}{_named_in_words(some)}"


def _named_in_words(rows: list[ParamLoad]) -> str:
    if not rows:
        return ""
    said = [printable(row.name) + (f": {printable(row.problem)}" if row.problem else "") for row in rows]
    return f" ({', '.join(said[:_MOST_NAMES])}{', …' * (len(rows) > _MOST_NAMES)})"
