"""Read two arrays side by side in blocks, and find how they differ: equal bits first, figures only then."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from paratree import engine
from paratree.core.cast import rounded
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.errors import MissingPackageError, UnreadableError
from paratree.verbs._compare_numpy import EXACT, bits_of, is_float
from paratree.verbs._figures import Figures, combined
from paratree.verbs._kernels import loops
from paratree.verbs.listing import reason_of
from paratree.verbs.reading import ParamUnread, flat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor
    from typing import Any

    from paratree.core.param import Param
    from paratree.engine import Block, Progress
    from paratree.verbs._compare_numpy import Tolerance

    Values = np.ndarray[Any, Any]
    Measure = Callable[[Values, Values, Tolerance], Figures]

_ROOM = 64 << 20  # bytes that all blocks in work take together
_LARGEST_BLOCK = 8 << 20
_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@dataclass(frozen=True)
class Pair:
    """Two parameters to compare.

    Attributes:
        a: the first.
        b: the second.
        axes: for each axis of the first, which axis of the second it is; ``None`` if they are in one order.
    """

    a: Param
    b: Param
    axes: tuple[int, ...] | None = None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first, which is known."""
        return self.a.shape  # type: ignore[return-value]

    @property
    def nbytes(self) -> int:
        """Bytes that are read."""
        return (self.a.nbytes or 0) + (self.b.nbytes or 0)

    @property
    def width(self) -> int:
        """Bytes of a value in memory, of the wider."""
        return max(-(-BITS.get(param.dtype, 32) // 8) for param in (self.a, self.b))

    def read(self, block: Block) -> tuple[Values, Values]:
        """Return the same part of both, in one dimension."""
        return native(flat(self.a[block.index])), native(flat(self._of_b(block)))

    def _of_b(self, block: Block) -> Values:
        if self.axes is None:
            return self.b[block.index]
        given = () if block.index is ... else block.index
        parts: list[Any] = [*given, *[slice(None)] * (len(self.shape) - len(given))]
        index: list[Any] = [None] * len(parts)
        for part, axis in zip(parts, self.axes, strict=True):
            index[axis] = part
        kept = [axis for part, axis in zip(parts, self.axes, strict=True) if isinstance(part, slice)]
        return self.b[tuple(index)].transpose([sorted(kept).index(axis) for axis in kept])


def native(values: Values) -> Values:
    """Return values in the byte order of the machine."""
    return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))


def is_equal(a: Values, b: Values) -> bool:
    """Tell whether two arrays in one dimension have the same bits; it ends at the first that differs."""
    if a.dtype != b.dtype or a.size != b.size:
        return False
    if BITS.get(a.dtype.name, 8) < 8:
        return bool(np.array_equal(bits_of(a), bits_of(b)))
    return not a.size or _memcmp(a.ctypes.data, b.ctypes.data, a.nbytes) == 0


class Outcome(NamedTuple):
    """What comparing a pair gave.

    Attributes:
        figures: how they differ; ``None`` if every bit is equal.
        problem: why they could not be compared, or ``None``.
    """

    figures: Figures | None = None
    problem: str | None = None


def compare(
    pairs: Sequence[Pair],
    *,
    tolerance: Tolerance = EXACT,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Compare every pair; blocks of equal bits are measured only in pairs that turn out to differ."""
    most = _block_bytes(threads)
    total, done = sum(pair.nbytes for pair in pairs), 0

    @cache
    def measure() -> Measure:  # when something differs: to compare equal bits takes no loops of ours
        found: Measure = loops("compare", total - done).measure
        return found

    def first_look(batch: list[Block]) -> list[tuple[Block, Figures | ParamUnread | None]]:
        return [(block, _looked_at(pairs[block.item], block, measure, tolerance)) for block in batch]

    def norms(batch: list[Block]) -> list[tuple[Block, Figures]]:
        return [(block, _norms(pairs[block.item].a, block, measure)) for block in batch]

    found: defaultdict[int, list[tuple[Block, Figures]]] = defaultdict(list)
    equal: defaultdict[int, list[Block]] = defaultdict(list)
    problems: dict[int, str] = {}
    for batch in engine.run(first_look, _batches(pairs, most), threads=threads, executor=executor):
        for block, result in batch:
            done += round(pairs[block.item].nbytes * block.size / (pairs[block.item].a.size or 1))
            if isinstance(result, ParamUnread):
                problems.setdefault(block.item, result)
            elif result is None:
                equal[block.item].append(block)
            else:
                found[block.item].append((block, result))
        if progress is not None:
            progress(done, total)
    rest = ([block] for item in found if item not in problems for block in equal[item])
    for block, result in chain.from_iterable(engine.run(norms, rest, threads=threads, executor=executor)):
        found[block.item].append((block, result))
    return [_outcome(found.get(item), problems.get(item)) for item in range(len(pairs))]


def _looked_at(
    pair: Pair, block: Block, measure: Callable[[], Measure], tolerance: Tolerance
) -> Figures | ParamUnread | None:
    try:
        a, b = pair.read(block)
    except (UnreadableError, MissingPackageError) as error:
        return ParamUnread(reason_of(str(error)))
    if is_equal(a, b):
        return None
    return measure()(a, b, tolerance)


def _norms(param: Param, block: Block, measure: Callable[[], Measure]) -> Figures:
    values = native(flat(param[block.index]))
    return measure()(values, values, EXACT)


def _outcome(parts: list[tuple[Block, Figures]] | None, problem: str | None) -> Outcome:
    if problem is not None or parts is None:
        return Outcome(problem=problem)
    parts.sort(key=lambda part: part[0].start)
    return Outcome(combined(figures.moved(block.start) for block, figures in parts))


# Blocks


def _block_bytes(threads: int | None) -> int:
    """Return how many bytes a block may have, so that those of all threads fit into the room."""
    workers = engine.cores() if threads is None else threads
    return min(_LARGEST_BLOCK, _ROOM // (4 * max(workers, 1)))


def _blocks(pairs: Iterable[Pair], most: int) -> Iterator[Block]:
    for item, pair in enumerate(pairs):
        for block in engine.blocks_of([pair.shape], max(most // pair.width, 1)):
            yield block._replace(item=item)


def _batches(pairs: Sequence[Pair], most: int) -> Iterator[list[Block]]:
    """Yield blocks in batches: to hand every small array to a thread would take longer than to read it."""
    batch: list[Block] = []
    room = most
    for block in _blocks(pairs, most):
        batch.append(block)
        room -= block.size * pairs[block.item].width
        if room <= 0:
            yield batch
            batch, room = [], most
    if batch:
        yield batch


# One pair by itself


def is_same(pair: Pair, dtype: str | None = None) -> bool:
    """Tell whether two parameters are equal to the last bit, both cast to a dtype if one is given."""
    return all(is_equal_as(*pair.read(block), dtype) for block in _blocks([pair], _LARGEST_BLOCK))


def is_equal_as(a: Values, b: Values, dtype: str | None) -> bool:
    """Tell whether two arrays in one dimension are equal to the last bit once both are cast to a dtype."""
    if dtype is None or dtype not in BITS:
        return is_equal(a, b)
    x, y = cast(a, dtype), cast(b, dtype)
    return x is not None and y is not None and is_equal(x, y)


def _are_of_a_kind(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Tell whether a cast only rounds, if it changes anything."""
    if "c" in source.kind + target.kind:
        return source.kind == target.kind
    return (is_float(source) and is_float(target)) or np.can_cast(source, target)


def cast(values: Values, dtype: str) -> Values | None:
    """Return values in a dtype; ``None`` where that makes other numbers of them, as real ones of complex."""
    target = numpy_dtype(dtype)
    if values.dtype == target:
        return values
    if not _are_of_a_kind(values.dtype, target):
        return None
    with np.errstate(all="ignore"):
        made = rounded(values, dtype)
        return None if bool((np.isfinite(values) & ~np.isfinite(made)).any()) else made
