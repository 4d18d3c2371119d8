"""Read the values of many parameters: each tied group once, in blocks, on several threads."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from paratree import engine
from paratree.core.array import row_major
from paratree.core.errors import MissingPackageError, NoSuchParamError, UnreadableError, printable
from paratree.core.tree import ParamTree
from paratree.registry import open as open_source
from paratree.verbs.listing import reason_of
from paratree.verbs.show import nothing_fits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Executor
    from typing import Any, TypeVar

    import numpy as np

    from paratree.core.param import Param
    from paratree.core.select import Selector
    from paratree.engine import Block, Progress

    Result = TypeVar("Result")
    Values = np.ndarray[Any, Any]


@contextmanager
def opened(source: object) -> Iterator[ParamTree]:
    """Open a path or a live model, and close it; a tree that the caller opened stays open."""
    if isinstance(source, ParamTree):
        yield source
        return
    with open_source(source) as tree:
        yield tree


def selected(
    tree: ParamTree, select: Selector | None = None, kind: str | Iterable[str] | None = None
) -> ParamTree:
    """Return the tree of what fits a selector and a kind, all of it by default.

    Raises:
        NoSuchParamError: nothing does, though there is something.
    """
    if select is None and kind is None:
        return tree
    found = tree.select(select, kind=kind)
    if len(tree) and not found:
        message = nothing_fits(tree, select, kind)
        raise NoSuchParamError(str(select or ""), (), tree.source, message=message)
    return found


def unsaved_names(tree: ParamTree) -> frozenset[str]:
    """Return the names of what is left out when the model that a tree was opened from is saved."""
    return frozenset(name for name, param in tree.items() if not param.is_saved)


@dataclass(frozen=True, slots=True)
class Plan:
    """Which parameters to read.

    Attributes:
        params: those that can be read, by name; of a tied group the first name only.
        first: name -> the first name of its tied group, for every name that was asked for.
        problems: names that cannot be read -> the reason.
    """

    params: Mapping[str, Param]
    first: Mapping[str, str]
    problems: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes that will be read."""
        return sum(param.nbytes or 0 for param in self.params.values())


def plan(tree: ParamTree) -> Plan:
    """Look at what a tree, or a selection of one, has to read."""
    first = {name: tree.tied_with(name)[0] for name in tree}
    problems = {
        name: reason_of(problem)
        for name, param in tree.items()
        if (problem := param.array.problem) is not None
    }
    params = {name: param for name, param in tree.items() if first[name] == name and name not in problems}
    return Plan(params, first, problems)


def scan(
    params: Iterable[Param],
    work: Callable[[Block, Values], Result],
    *,
    most: int = engine.BLOCK,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[Block, Result | ParamUnread]]:
    """Read parameters block by block, hand each block to ``work`` and yield what it returns, in order.

    Args:
        params: readable parameters of known shape.
        work: a function of a block and its values, in one dimension, row-major; it runs on several threads.
        most: number of values in a block, at most.
        threads: as in :func:`paratree.engine.run`.
        executor: as in :func:`paratree.engine.run`.
        progress: called with the bytes that are done and the bytes of all after each block.

    Yields:
        The block with what ``work`` returned, or with why the values cannot be had after all.

    Raises:
        CorruptFileError: the file is damaged here, or has changed since it was opened.
    """
    listed = list(params)
    shapes: list[Any] = [param.shape for param in listed]
    lengths = [param.nbytes or 0 for param in listed] if progress is not None else []
    total, done = sum(lengths), 0

    def one(block: Block) -> tuple[Block, Result | ParamUnread]:
        try:
            values = listed[block.item][block.index]
        except (UnreadableError, MissingPackageError) as error:
            return block, ParamUnread(reason_of(str(error)))
        return block, work(block, flat(values))

    for block, result in engine.run(one, engine.blocks_of(shapes, most), threads=threads, executor=executor):
        if progress is not None:
            done += round(lengths[block.item] * block.size / prod(shapes[block.item]))
            progress(done, total)
        yield block, result


class ParamUnread(str):
    """Why the values of a parameter cannot be had, found out when they were asked for."""

    __slots__ = ()


def flat(values: Values) -> Values:
    """Return values in one dimension, row-major; a copy only if they are not so in memory."""
    return row_major(values).reshape(-1)


def place_of(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the index of the value at a position in row-major order.

    >>> place_of(7, (2, 5))
    (1, 2)
    """
    import numpy as np

    return tuple(int(i) for i in np.unravel_index(position, shape)) if shape else ()


def spelled(place: tuple[int, ...]) -> str:
    """Return an index as NumPy's users write it.

    >>> spelled((1, 2))
    '[1, 2]'
    """
    return f"[{', '.join(map(str, place))}]"


def where(tree: ParamTree, name: str) -> str:
    """Return how messages name a parameter of a tree."""
    return f"{printable(tree.source)}: {printable(name)}"
