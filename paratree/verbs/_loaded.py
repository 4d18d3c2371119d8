"""What a parameter holds instead of the other's value, and the line that mends a live model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from paratree.core.dtypes import BLOCKS, numpy_dtype
from paratree.core.errors import MissingPackageError, UnreadableError, printable
from paratree.core.param import Param
from paratree.verbs._axes import axes_between, fit, is_transposed, other_order
from paratree.verbs._differences import DIFFERENT, EQUAL
from paratree.verbs._owners import Owners, is_readable, parts
from paratree.verbs._pairs import Pair, is_same
from paratree.verbs._verdict import INITIAL, ONES, TIED, TRANSPOSE, ZEROS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from paratree.core.tree import ParamTree
    from paratree.verbs._differences import Difference, TieChange


class Sides(NamedTuple):
    """A live model and what it was loaded from.

    Attributes:
        model: the live model.
        file: the file.
        initial: the model before loading, if it is known.
        name_of: name in the file -> name in the model, for names that are in both.
        turned: as :func:`axes_between` takes it.
    """

    model: ParamTree
    file: ParamTree
    initial: ParamTree | None
    name_of: dict[str, str]
    turned: bool | None


class _Suspect(NamedTuple):
    """A live parameter that does not hold what the file has, and that, if it has any; with their names."""

    name: str
    held: Param
    other: str | None
    wanted: Param | None


def explained(
    rows: Sequence[Difference], ties: Iterable[TieChange], sides: Sides, *, model_is_first: bool
) -> tuple[list[Difference], tuple[TieChange, ...]]:
    """Return the rows, those of parameters that were not loaded with what they hold and how to mend it.

    Ties that only the file has come with the line that makes them, too.
    """
    suspects: dict[int, _Suspect] = {}
    for number, row in enumerate(rows):
        name, other = (row.name, row.other) if model_is_first else (row.other, row.name)
        if row.status == ("removed" if model_is_first else "added"):
            suspects[number] = _Suspect(row.name, sides.model[row.name], None, None)
        elif row.status == DIFFERENT and name is not None and other is not None:
            suspects[number] = _Suspect(name, sides.model[name], other, sides.file[other])
    owners = Owners(sides.file, [suspect.held for suspect in suspects.values()])
    strays = _Strays(sides)
    repairs = _Repairs(sides, _equal_names(rows, sides, model_is_first=model_is_first))
    made = list(rows)
    for number, suspect in suspects.items():
        made[number] = _explained(rows[number], suspect, sides.initial, owners, strays, repairs)
    of_file = "b" if model_is_first else "a"
    return made, tuple(repairs.tied(tie) if tie.tied_in == of_file else tie for tie in ties)


def _equal_names(rows: Iterable[Difference], sides: Sides, *, model_is_first: bool) -> set[str]:
    """Return the names of the model whose values were found to be those of the file."""
    names = {name for row in rows if row.status in EQUAL for name in (row.name, *row.tied)}
    return names if model_is_first else {sides.name_of[name] for name in names}


def _explained(
    row: Difference,
    suspect: _Suspect,
    initial: ParamTree | None,
    owners: Owners,
    strays: _Strays,
    repairs: _Repairs,
) -> Difference:
    """Say what a parameter of the model holds."""
    if suspect.wanted is not None and (others := repairs.parted(suspect)):
        twins = ", ".join(map(printable, others))
        return replace(row, found=f"{TIED} with {twins} in the model; the file has another value for each",
                       repair=repairs.untie(suspect))  # fmt: skip
    owner = owners.of(suspect.held, (suspect.other or "",))
    if suspect.wanted is None:
        owner = owner or strays.of(suspect.held)
        return replace(row, found=_held(owner) or _at_initial_value(suspect, initial))
    found = _at_initial_value(suspect, initial) or _held(owner)
    if found is None and row.transposed is not None:
        return replace(row, found=TRANSPOSE, repair=repairs.update(suspect))
    if found is None and (constant := _constant(suspect.held)) is not None:
        found = f"{constant}; the file's is not"
    if found is None and initial is None:
        return row
    return replace(row, found=found, repair=repairs.tie(suspect) or repairs.update(suspect))


def _held(owner: str | None) -> str | None:
    return None if owner is None else f"holds {printable(owner)} of the file"


class _Strays:
    """Finds a parameter that the model lacks, of whose name and a given one the one ends in the other."""

    def __init__(self, sides: Sides) -> None:
        self._file = sides.file
        self._whole: dict[str, str] = {}
        self._ending: dict[str, list[str]] = {}
        for name in sides.file:
            if name not in sides.name_of:
                whole, *tails = _tails(name)
                self._whole[whole] = name
                for tail in tails:
                    self._ending.setdefault(tail, []).append(name)

    def of(self, held: Param) -> str | None:
        """Return the name in the file of the value that a parameter of the model holds."""
        whole, *tails = _tails(held.name)
        names = [*self._ending.get(whole, ()), *(self._whole[tail] for tail in tails if tail in self._whole)]
        return next((name for name in names if self._has(name, held)), None)

    def _has(self, name: str, held: Param) -> bool:
        param = self._file[name]
        return isinstance(param, Param) and param.shape == held.shape and _is_cast_of(held, param)


def _tails(name: str) -> list[str]:
    """Return a name, and what it ends in.

    >>> _tails("net/0.weight")
    ['net.0.weight', '0.weight', 'weight']
    """
    segments = name.replace("/", ".").split(".")
    return [".".join(segments[start:]) for start in range(len(segments))]


def _is_cast_of(held: Param, param: Param) -> bool:
    try:
        return is_readable(held) and is_readable(param) and is_same(Pair(held, param), held.dtype)
    except (UnreadableError, MissingPackageError):
        return False


def misplaced(rows: Sequence[Difference], a: ParamTree, b: ParamTree) -> list[Difference]:
    """Return the rows of two sources of a kind, with which other tensor of the first the second holds."""
    names = {
        number: (row.name, row.other or row.name)
        for number, row in enumerate(rows)
        if row.status == DIFFERENT and _is_all_new(row)
    }
    owners = Owners(a, [b[other] for _, other in names.values()])
    made = list(rows)
    for number, (name, other) in names.items():
        if (owner := owners.of(b[other], a.tied_with(name))) is not None:
            made[number] = replace(rows[number], found=f"holds {printable(owner)} of the first")
    return made


def _is_all_new(row: Difference) -> bool:
    """Tell whether so much differs that it may be another tensor, rather than a change of this one."""
    return 2 * row.changed > (row.size or 0) or (row.relative_l2 or 0) > 0.5


def _at_initial_value(suspect: _Suspect, initial: ParamTree | None) -> str | None:
    held, before = suspect.held, None if initial is None else initial.get(suspect.name)
    if isinstance(before, Param) and before.shape == held.shape and is_readable(before) and is_readable(held):
        return INITIAL if is_same(Pair(held, before)) else None
    return None


def _constant(param: Param) -> str | None:
    """Say which constant every value is, if it is one that layers begin with."""
    if not param.size or not is_readable(param):
        return None
    first: Any = None
    for values in parts(param):
        if first is None:
            first = values[0]
        if first not in (0, 1) or not bool((values == first).all()):
            return None
    return ZEROS if first == 0 else ONES


class _Repairs:
    """Writes the lines that mend a model; each makes its row equal, by itself and after those before it."""

    def __init__(self, sides: Sides, equal: set[str]) -> None:
        self._model, self._file, self._name_of = sides.model, sides.file, sides.name_of
        self._turned = sides.turned
        self._other_of = {name: other for other, name in sides.name_of.items()}
        self._equal = equal
        self._told: set[str] = set()
        self._is_on_disk = all(param.live is None for param in sides.file.values())

    def parted(self, suspect: _Suspect) -> list[str]:
        """Return the other names of a tied parameter, if the file has other values for them."""
        others = (name for name in self._model.tied_with(suspect.name) if name in self._other_of)
        return [name for name in others if not self._has_one_value(suspect, self._other_of[name])]

    def _has_one_value(self, suspect: _Suspect, other: str) -> bool:
        if suspect.other is None or other in self._file.tied_with(suspect.other):
            return True
        one, two = self._file[suspect.other], self._file[other]
        if one.shape != two.shape or one.dtype != two.dtype:
            return False
        return is_readable(one) and is_readable(two) and is_same(Pair(one, two))

    def untie(self, suspect: _Suspect) -> str | None:
        """Return the line that parts a tied parameter and gives each name its value; once for a group."""
        first, *others = (n for n in self._model.tied_with(suspect.name) if n in self._other_of)
        if first in self._told:
            return None
        self._told.add(first)
        values = [self._value(name) for name in (first, *others)]
        if None in values:
            return None
        names = ", ".join(self._quoted(name) for name in others)
        given = zip((first, *others), values, strict=True)
        items = ", ".join(f"{self._quoted(name)}: {value}" for name, value in given)
        return self._line(f"pt.update(pt.untie(net, {names}), {{{items}}})")

    def tie(self, suspect: _Suspect) -> str | None:
        """Return the line that ties a parameter as the file has it tied, if the model has not."""
        if self._model.immutable:
            return None
        for other in self._file.tied_with(suspect.other or ""):
            twin = self._name_of.get(other)
            if twin is None or not self._can_tie(suspect.name, twin):
                continue
            if twin in self._equal:
                return f"pt.tie(net, {self._quoted(twin)}, {self._quoted(suspect.name)})"
            if twin in self._told and (value := self._value(twin)) is not None:
                model = f"pt.update(net, {{{self._quoted(twin)}: {value}}})"
                return f"pt.tie({model}, {self._quoted(twin)}, {self._quoted(suspect.name)})"
        return None

    def tied(self, tie: TieChange) -> TieChange:
        """Return a tie of the file with the line that makes it, where all names have the file's value."""
        first, *others = (self._name_of[name] for name in tie.names)
        if self._model.immutable or not self._equal.issuperset((first, *others)):
            return tie
        if not all(self._can_tie(first, other) for other in others):
            return tie
        names = ", ".join(map(self._quoted, (first, *others)))
        return replace(tie, repair=f"pt.tie(net, {names})")

    def _can_tie(self, name: str, twin: str) -> bool:
        param, other = self._model[name], self._model[twin]
        if (
            twin in self._model.tied_with(name)
            or not isinstance(param, Param)
            or not isinstance(other, Param)
        ):
            return False
        alike = all(getattr(param, what) == getattr(other, what) for what in ("shape", "dtype", "kind"))
        return alike and is_readable(other)

    def update(self, suspect: _Suspect) -> str | None:
        """Return the line that gives a parameter the value of the file."""
        value = self._value(suspect.name)
        if value is None:
            return None
        self._told.add(suspect.name)
        return self._line(f"pt.update(net, {{{self._quoted(suspect.name)}: {value}}})")

    def _line(self, call: str) -> str:
        return f"net = {call}" if self._model.immutable else call

    def _value(self, name: str) -> str | None:
        """Return the expression of the file's value of a parameter, unless it would not do."""
        held, wanted = self._model[name], self._file[self._other_of[name]]
        if not isinstance(held, Param) or not isinstance(wanted, Param) or not self._is_on_disk:
            return None
        axes = axes_between(held, wanted, self._turned)
        if not fit(held, wanted, axes) or not _takes(held, wanted):
            return None
        if axes is not None and is_transposed(held, wanted) and other_order(held, wanted) is not None:
            return None
        value = f"pt.open({_literal(self._file.source)})[{_literal(wanted.name)}].value"
        if axes is None:
            return value
        return value + (".T" if axes == tuple(range(len(axes)))[::-1] else f".transpose{axes}")

    def _quoted(self, name: str) -> str:
        return _literal(self._model[name].name)


def _takes(held: Param, wanted: Param) -> bool:
    """Tell whether ``pt.update`` takes values: it refuses to lose a kind of number, and to overflow."""
    if not is_readable(held) or not is_readable(wanted):
        return False
    if held.dtype == wanted.dtype:
        return True
    if "float" not in held.dtype or ("float" not in wanted.dtype and wanted.dtype not in BLOCKS):
        return False
    target = numpy_dtype(held.dtype)
    try:
        with np.errstate(all="ignore"):
            return not any(
                bool((np.isfinite(values) & ~np.isfinite(values.astype(target))).any())
                for values in parts(wanted)
            )
    except (UnreadableError, MissingPackageError):
        return False


def _literal(text: str) -> str:
    """Return a text as Python's literal of it."""
    return printable(json.dumps(text, ensure_ascii=False))
