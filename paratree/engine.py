"""Run one function on the blocks of many arrays: in order of the blocks, over threads or any executor.

NumPy, numba and the system's reads let other threads run, so a pool of threads is enough on one machine.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import nullcontext
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from paratree.core.array import parts_of
from paratree.core.errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor
    from contextlib import AbstractContextManager
    from typing import TypeVar

    from paratree.core.array import Index

    Result = TypeVar("Result")
    Progress = Callable[[int, int], None]

BLOCK = 1 << 22  # values: few enough to bound the memory, enough to repay handing them to a thread
_IN_FLIGHT = 2  # blocks a worker, one being worked on and one waiting


class Block(NamedTuple):
    """A part of an array.

    Attributes:
        item: number of the array in the list that was given.
        index: a basic NumPy index; the blocks of an array follow each other in row-major order.
        start: position of the first value in the row-major order of the array.
        size: number of values.
        is_last: whether it is the last of its array.
    """

    item: int
    index: Index
    start: int
    size: int
    is_last: bool = True


def blocks_of(shapes: Sequence[tuple[int, ...]], most: int = BLOCK) -> Iterator[Block]:
    """Yield the blocks of arrays, each of at most ``most`` values, one array after the other.

    An array without values has none.

    >>> [block.index for block in blocks_of([(2, 3)], most=2)]
    [(0, slice(0, 2)), (0, slice(2, 3)), (1, slice(0, 2)), (1, slice(2, 3))]
    """
    for item, shape in enumerate(shapes):
        start, total = 0, prod(shape)
        for index, size in parts_of(shape, most):
            yield Block(item, index, start, size, start + size == total)
            start += size


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(threads: object, executor: object, progress: object = None) -> None:
    """Look that the arguments that say how to run are what they should be.

    Raises:
        MismatchError: one is not; it names the argument.
    """
    is_number = isinstance(threads, int) and not isinstance(threads, bool)
    if threads is not None and not (is_number and threads >= 1):  # type: ignore[operator]
        raise MismatchError(f"threads is a number of threads, at least 1, or None, not {threads!r:.80}")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        kind = type(executor).__name__
        raise MismatchError(f"executor is a concurrent.futures.Executor, not an object of type {kind}")
    if progress is not None and not callable(progress):
        kind = type(progress).__name__
        raise MismatchError(f"progress is a function of two numbers of bytes, not an object of type {kind}")


def run(
    work: Callable[[Any], Result],
    tasks: Iterable[Any],
    *,
    threads: int | None = None,
    executor: Executor | None = None,
) -> Iterator[Result]:
    """Yield what ``work`` returns for every task, in the order of the tasks.

    No more than two tasks for each worker are handed out before their results are taken, which bounds the
    memory. An error of one ends the run; the tasks that have begun are waited for.

    Args:
        work: a function of one task.
        tasks: what to do; taken from the iterable as it is needed.
        threads: number of threads; as many as the process may use by default, and 1 uses none.
        executor: where to run instead, for example of another library; it is not shut down.

    Raises:
        MismatchError: ``threads`` or ``executor`` is not what it should be.
    """
    check_workers(threads, executor)
    workers = cores() if threads is None else threads
    if executor is None and workers <= 1:
        yield from map(work, tasks)
        return
    from concurrent.futures import ThreadPoolExecutor

    pool: AbstractContextManager[Executor] = (
        ThreadPoolExecutor(workers, "paratree") if executor is None else nullcontext(executor)
    )
    remaining = iter(tasks)
    with pool as running:
        waiting = deque(running.submit(work, task) for task in islice(remaining, _IN_FLIGHT * workers))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(running.submit(work, task) for task in islice(remaining, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
