"""Parameters of a model that share memory without being tied: whether each can hold what it is to take."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from paratree.core.array import contiguous
from paratree.core.errors import printable
from paratree.verbs._load_report import REFUSED
from paratree.verbs._load_values import is_deferred
from paratree.verbs._pairs import is_equal
from paratree.verbs.reading import flat

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence
    from typing import Any

    from paratree.core.array import Storage
    from paratree.core.tree import ParamTree
    from paratree.verbs._load_report import ParamLoad

    Values = np.ndarray[Any, Any]


class _View(NamedTuple):
    """Where the values of a parameter lie in a memory: bytes, and steps in bytes along each axis."""

    name: str
    first: int
    start: int
    stop: int
    strides: tuple[int, ...]


def without_clashes(
    rows: Sequence[ParamLoad], values: Mapping[str, Values], tree: ParamTree
) -> tuple[list[ParamLoad], dict[str, Values]]:
    """Refuse parameters of which one would overwrite another with other values; return rows and values."""
    if tree.immutable:
        return [*rows], {**values}
    sources = {row.name: printable(row.other or row.name) for row in rows}
    refused: dict[str, tuple[str, str]] = {}
    for names, (one, other) in _clashes(values, tree):
        words = _words(one, other, sources)
        refused |= dict.fromkeys(names, words)
    kept = {name: array for name, array in values.items() if name not in refused}
    return [_refused(row, *refused[row.name]) if row.name in refused else row for row in rows], kept


def _refused(row: ParamLoad, problem: str, fix: str) -> ParamLoad:
    return replace(row, status=REFUSED, changed=0, axes=None, problem=problem, fix=fix)


def _words(one: str, other: str, sources: Mapping[str, str]) -> tuple[str, str]:
    fix = f"give {printable(other)} memory of its own first, as a clone of it has"
    if one == other:
        return "places of it share memory in the model, and the source has other values for them", fix
    both = f"{printable(one)} and {printable(other)} share memory in the model"
    return f"{both}, and the source has other values for {sources[one]} and {sources[other]}", fix


def _clashes(
    values: Mapping[str, Values], tree: ParamTree
) -> Iterator[tuple[tuple[str, ...], tuple[str, str]]]:
    """Yield names whose memory overlaps and cannot hold all their values, and two of them that clash."""
    memories: dict[Hashable, list[_View]] = {}
    for name, array in values.items():
        storage = None if is_deferred(tree[name]) else tree[name].storage
        if storage is not None and array.size:
            memories.setdefault(storage.key, []).append(_view(name, storage, array))
    for views in memories.values():
        for together in _together(views):
            if len(together) > 1 or _folds(together[0], values[together[0].name]):
                pair = _overwritten(together, values)
                if pair is not None:
                    yield tuple(view.name for view in together), pair


def _view(name: str, storage: Storage, array: Values) -> _View:
    steps = contiguous(array.shape) if storage.strides is None else storage.strides
    strides = tuple(step * array.itemsize for step in steps)
    ends = [(n - 1) * step for n, step in zip(array.shape, strides, strict=True)]
    start = storage.offset + sum(end for end in ends if end < 0)
    stop = storage.offset + sum(end for end in ends if end > 0) + array.itemsize
    return _View(name, storage.offset, start, stop, strides)


def _together(views: Sequence[_View]) -> Iterator[list[_View]]:
    """Yield views of one memory in groups whose ranges of bytes overlap."""
    group: list[_View] = []
    stop = 0
    for view in sorted(views, key=lambda view: view.start):
        if group and view.start >= stop:
            yield group
            group = []
        stop = max(stop, view.stop) if group else view.stop
        group.append(view)
    yield group


def _folds(view: _View, array: Values) -> bool:
    """Tell whether several places of a view may be the same bytes."""
    reach = array.itemsize
    for step, length in sorted(zip(map(abs, view.strides), array.shape, strict=True)):
        if length > 1 and step < reach:
            return True
        reach += step * (length - 1)
    return False


def _overwritten(views: Sequence[_View], values: Mapping[str, Values]) -> tuple[str, str] | None:
    """Return the first name whose values do not survive that all are written, and one that shares its bytes.

    They are written to memory of ours, where they lie as in the model.
    """
    low = min(view.start for view in views)
    memory = np.zeros(max(view.stop for view in views) - low, np.uint8)
    made: dict[str, Values] = {}
    for view in views:
        array = values[view.name]
        place = view.first - low
        made[view.name] = np.ndarray(array.shape, array.dtype, memory.data, place, view.strides)
        made[view.name][...] = array
    for name, held in made.items():
        if not is_equal(flat(held), flat(values[name])):
            others = (other for other in made if other != name)
            shared = (n for n in others if np.may_share_memory(held, made[n]))
            return name, next(shared, name)
    return None
