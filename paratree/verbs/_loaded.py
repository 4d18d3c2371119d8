"""What a live model holds where it does not hold what the file has, and the line that mends it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from blake3 import blake3

from paratree import engine
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.errors import MissingPackageError, UnreadableError, printable
from paratree.core.tree import Param
from paratree.verbs._compare_numpy import bits_of
from paratree.verbs._differences import DIFFERENT, RESHAPED
from paratree.verbs._pairs import Pair, is_same, native
from paratree.verbs._verdict import INITIAL, TRANSPOSE
from paratree.verbs.reading import flat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from paratree.core.tree import ParamTree
    from paratree.verbs._differences import Difference

    Values = np.ndarray[Any, Any]

_BLOCK = 1 << 20  # values


class Sides(NamedTuple):
    """A live model and what it was loaded from.

    Attributes:
        model: the live model.
        file: the file.
        initial: the model before loading, if it is known.
        name_of: name in the file -> name in the model, for names that are in both.
    """

    model: ParamTree
    file: ParamTree
    initial: ParamTree | None
    name_of: dict[str, str]


class _Suspect(NamedTuple):
    """A live parameter that does not hold what the file has, and that, if it has any; with their names."""

    name: str
    held: Param
    other: str | None
    wanted: Param | None


def explained(rows: Sequence[Difference], sides: Sides, *, model_is_first: bool) -> list[Difference]:
    """Return the rows, those of parameters that were not loaded with what they hold and how to mend it."""
    suspects: dict[int, _Suspect] = {}
    for number, row in enumerate(rows):
        name, other = (row.name, row.other) if model_is_first else (row.other, row.name)
        if row.status == ("removed" if model_is_first else "added"):
            suspects[number] = _Suspect(row.name, sides.model[row.name], None, None)
        elif row.status in (DIFFERENT, RESHAPED) and name is not None and other is not None:
            suspects[number] = _Suspect(name, sides.model[name], other, sides.file[other])
    owners = _Owners(sides.file, [suspect.held for suspect in suspects.values()])
    made = list(rows)
    for number, suspect in suspects.items():
        axes = rows[number].axes
        if axes is not None and not model_is_first:
            axes = tuple(axes.index(axis) for axis in range(len(axes)))
        made[number] = _explained(rows[number], suspect, sides, owners, axes)
    return made


def _explained(
    row: Difference, suspect: _Suspect, sides: Sides, owners: _Owners, axes: tuple[int, ...] | None
) -> Difference:
    """Say what a parameter of the model holds; ``axes`` of the file's make the order of the model's."""
    if row.status == RESHAPED:
        turned = row.transposed
        return row if turned is None else replace(row, repair=_update(suspect, sides, turned))
    found = _at_initial_value(suspect, sides.initial)
    if found is None and (other := owners.of(suspect.held, suspect.other)) is not None:
        found = f"holds {printable(other)} of the file"
    if found is None and row.transposed is not None:
        return replace(row, found=TRANSPOSE, repair=_update(suspect, sides))
    if suspect.wanted is None or found is None:
        return replace(row, found=found)
    return replace(row, found=found, repair=_tie(suspect, sides) or _update(suspect, sides, axes))


def _at_initial_value(suspect: _Suspect, initial: ParamTree | None) -> str | None:
    held, before = suspect.held, None if initial is None else initial.get(suspect.name)
    if isinstance(before, Param) and before.shape == held.shape and _readable(before) and _readable(held):
        return INITIAL if is_same(Pair(held, before)) else None
    constant = _constant(held)
    return None if constant is None else f"{INITIAL}, all {constant}"


def _constant(param: Param) -> str | None:
    """Return the name of the constant that every value is, if layers begin with it."""
    if not param.size or not _readable(param):
        return None
    first: Any = None
    for values in _parts(param):
        if first is None:
            first = values[0]
        if first not in (0, 1) or not bool((values == first).all()):
            return None
    return "zeros" if first == 0 else "ones"


def _readable(param: Param) -> bool:
    return param.array.problem is None


def _parts(param: Param) -> Iterator[Values]:
    shape: Any = param.shape
    for block in engine.blocks_of([shape], _BLOCK):
        yield native(flat(param[block.index]))


# Which tensor of the file is it?


class _Owners:
    """Looks up which parameter of a file has the values of a live one; hashes what it may be, once."""

    def __init__(self, file: ParamTree, suspects: Sequence[Param]) -> None:
        kinds = {(param.shape, param.dtype) for param in suspects if param.size and _readable(param)}
        self._names: dict[bytes, list[str]] = {}
        for name, param in file.items():
            if file.tied_with(name)[0] != name or not _readable(param):
                continue
            for dtype in sorted(dtype for shape, dtype in kinds if shape == param.shape):
                self._names.setdefault(_digest(param, dtype), []).append(name)

    def of(self, held: Param, other: str | None) -> str | None:
        """Return the name of the parameter whose values these are, if it is not the one they should be."""
        if not held.size or not _readable(held) or not self._names:
            return None
        return next((name for name in self._names.get(_digest(held, held.dtype), ()) if name != other), None)


def _digest(param: Param, dtype: str) -> bytes:
    """Return a hash of the values as those of a dtype."""
    hashed = blake3(f"{param.shape} {dtype}".encode())
    target = numpy_dtype(dtype) if dtype in BITS else None
    try:
        with np.errstate(all="ignore"):
            for values in _parts(param):
                cast = values if target is None else values.astype(target, copy=False)
                hashed.update(np.ascontiguousarray(bits_of(cast)).view(np.uint8).data)
    except (UnreadableError, MissingPackageError):
        return b""
    return bytes(hashed.digest())


# Repairs


def _tie(suspect: _Suspect, sides: Sides) -> str | None:
    """Return the line that ties a parameter as the file has it tied, if the model has not."""
    own = sides.model.tied_with(suspect.name)
    for other in sides.file.tied_with(suspect.other or ""):
        twin = sides.name_of.get(other)
        if twin is not None and twin not in own:
            return f"pt.tie(net, {_quoted(twin)}, {_quoted(suspect.name)})"
    return None


def _update(suspect: _Suspect, sides: Sides, axes: tuple[int, ...] | None = None) -> str:
    value = f"pt.open({_quoted(sides.file.source)})[{_quoted(suspect.other or '')}].value"
    if axes is not None:
        value += ".T" if axes == tuple(range(len(axes)))[::-1] else f".transpose{axes}"
    return f"pt.update(net, {{{_quoted(suspect.name)}: {value}}})"


def _quoted(text: str) -> str:
    """Return a text as Python's literal of it."""
    return printable(json.dumps(text, ensure_ascii=False))
