"""The one thing paratree knows about data: an array that is read when asked."""

from __future__ import annotations

from itertools import product
from math import prod

from paratree.core.errors import UnreadableError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator
    from typing import Any, NoReturn, Protocol

    import numpy as np

    Shape = tuple[int | None, ...]
    Index = Any  # what NumPy calls a basic index: integers, slices, an Ellipsis, or a tuple of them
else:
    Protocol = object  # typing costs a fifth of the command line's start


_MOST_AXES_BEFORE_2 = 32
_STRIP = 8  # values: of rows a power of two apart the first cache holds no more lines than its ways


class Storage:
    """Where values live: equal storages are one and the same array (tied), by identity, never by value.

    Attributes:
        key: the memory or the bytes that hold the array, and possibly others.
        offset: bytes from the start of those to the first value.
        strides: steps in values along each axis; ``None`` when row-major without gaps.
    """

    __slots__ = ("key", "offset", "strides")

    def __init__(self, key: Hashable, offset: int = 0, strides: tuple[int, ...] | None = None) -> None:
        self.key, self.offset, self.strides = key, offset, strides

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self._all == other._all

    def __hash__(self) -> int:
        return hash((self.key, self.offset))

    def __repr__(self) -> str:
        strides = "" if self.strides is None else f", strides {self.strides}"
        return f"<Storage {self.key!r} at byte {self.offset}{strides}>"

    @property
    def _all(self) -> tuple[Hashable, int, tuple[int, ...] | None]:
        return self.key, self.offset, self.strides


class LazyArray(Protocol):
    """Shape and dtype now, values later.

    An unknown dimension is ``None``; a lone ``(None,)`` means that not even the rank is known.
    ``storage`` is ``None`` when nothing is recorded about it; such an array is never tied.
    ``problem`` says why :meth:`read` would refuse, and is ``None`` when it would not.
    """

    @property
    def shape(self) -> Shape:
        """Length along each axis."""

    @property
    def dtype(self) -> str:
        """Name of the dtype, as in :mod:`paratree.core.dtypes`, or the source's own word."""

    @property
    def storage(self) -> Storage | None:
        """Where the values live."""

    @property
    def problem(self) -> str | None:
        """Why there is no value to read."""

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic NumPy index, all of them by default."""


class QuantisedLazyArray(LazyArray, Protocol):
    """A lazy array of a dtype of :data:`paratree.core.dtypes.BLOCKS` whose values can be read."""

    @property
    def blocks(self) -> LazyArray:
        """What is stored, as ``uint8``: its last axis is the bytes of a block, little-endian."""


class RefusedArray:
    """An array that is listed and cannot be read: reading it raises its problem."""

    __slots__ = ("dtype", "problem", "shape", "storage")

    def __init__(self, shape: Shape, dtype: str, problem: str, storage: Storage | None = None) -> None:
        self.shape, self.dtype, self.problem, self.storage = shape, dtype, problem, storage

    def read(self, index: Index = ...) -> NoReturn:
        """Refuse.

        Raises:
            UnreadableError: always, with the reason and the next step.
        """
        raise UnreadableError(printable(self.problem))


def check_axes(shape: Shape) -> None:
    """Look that this NumPy can hold so many axes: 64, and 32 before NumPy 2.

    Raises:
        UnreadableError: it cannot.
    """
    if len(shape) > _MOST_AXES_BEFORE_2:
        import numpy as np

        if np.__version__.startswith(("0.", "1.")):
            limit = f"NumPy {np.__version__} holds at most {_MOST_AXES_BEFORE_2} axes"
            raise UnreadableError(f"{limit} and this array has {len(shape)}; read it with NumPy 2")


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in values, of a row-major array without gaps.

    >>> contiguous((2, 3, 4))
    (12, 4, 1)
    """
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


def normal_strides(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return ``strides``, or ``None`` if they mean row-major; a stride along one value means nothing.

    >>> normal_strides((1, 4), (99, 1)) is None
    True
    """
    row_major = contiguous(shape)
    if all(n <= 1 or a == b for n, a, b in zip(shape, strides, row_major, strict=True)):
        return None
    return tuple(b if n <= 1 else a for n, a, b in zip(shape, strides, row_major, strict=True))


def basic_index(index: Index, shape: tuple[int, ...]) -> tuple[int | range, ...]:
    """Return what a basic NumPy index takes from each axis: one position, or a range of them.

    Raises:
        IndexError: it does not fit the shape, or is no basic index.

    >>> basic_index((-1, slice(None, None, -2)), (3, 4))
    (2, range(3, -1, -2))
    """
    parts = list(index) if isinstance(index, tuple) else [index]
    if sum(part is ... for part in parts) > 1:
        raise IndexError("an index has at most one Ellipsis")
    if not any(part is ... for part in parts):
        parts.append(...)
    gap = next(i for i, part in enumerate(parts) if part is ...)
    missing = len(shape) - (len(parts) - 1)
    if missing < 0:
        given, axes = len(parts) - 1, len(shape)
        raise IndexError(
            f"the index has {given} part{'s' * (given != 1)} and the array "
            + (f"{axes} {'axis' if axes == 1 else 'axes'}" if axes else "is a scalar, without axes")
        )
    parts[gap : gap + 1] = [slice(None)] * missing
    return tuple(
        range(length)[part] if isinstance(part, slice) else _position(part, axis, length)
        for axis, (part, length) in enumerate(zip(parts, shape, strict=True))
    )


def size_of(array: LazyArray) -> int:
    """Return the number of values of an array whose lengths are all known."""
    return prod(array.shape)  # type: ignore[arg-type]


def row_major(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the values without gaps in row-major order; a copy only if they are not so in memory.

    Where the last axis is not the one whose values are adjacent, as of a transpose, they are copied in strips
    of it: NumPy would go along rows that each take a line of the cache for every value.
    """
    import numpy as np

    if values.flags.c_contiguous:
        return values
    steps = [abs(step) for step, length in zip(values.strides, values.shape, strict=True) if length > 1]
    if not steps or steps[-1] == min(steps) or values.shape[-1] <= _STRIP:
        return np.ascontiguousarray(values).reshape(values.shape)
    made = np.empty(values.shape, values.dtype)
    for start in range(0, values.shape[-1], _STRIP):
        made[..., start : start + _STRIP] = values[..., start : start + _STRIP]
    return made


def parts_of(shape: tuple[int, ...], most: int) -> Iterator[tuple[Index, int]]:
    """Yield basic indices of parts of at most ``most`` values, in row-major order, and their sizes.

    An array without values has none.

    >>> [index for index, size in parts_of((2, 3), 2)]
    [(0, slice(0, 2, None)), (0, slice(2, 3, None)), (1, slice(0, 2, None)), (1, slice(2, 3, None))]
    """
    if (size := prod(shape)) <= most:
        if size:
            yield ..., size
        return
    axis = next(i for i in range(len(shape)) if prod(shape[i + 1 :]) <= most)
    below = prod(shape[axis + 1 :])
    rows = most // below
    for outer in product(*map(range, shape[:axis])):
        for low in range(0, shape[axis], rows):
            high = min(low + rows, shape[axis])
            yield (*outer, slice(low, high)), (high - low) * below


def parts_between(shape: tuple[int, ...], start: int, stop: int) -> Iterator[Index]:
    """Yield basic indices of the values from one position to another in row-major order, in that order.

    >>> list(parts_between((4, 3), 2, 10))
    [(0, slice(2, 3, None)), (slice(1, 3, None),), (3, slice(0, 1, None))]
    """
    if not shape or (start, stop) == (0, prod(shape)):
        yield ...
        return
    below = prod(shape[1:])
    first, skipped = divmod(start, below)
    last, more = divmod(stop, below)
    if first == last:
        yield from ((first, *_tuple(part)) for part in parts_between(shape[1:], skipped, more))
        return
    if skipped:
        yield from ((first, *_tuple(part)) for part in parts_between(shape[1:], skipped, below))
        first += 1
    if first < last:
        yield (slice(first, last),)
    if more:
        yield from ((last, *_tuple(part)) for part in parts_between(shape[1:], 0, more))


def _tuple(index: Index) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _position(part: Any, axis: int, length: int) -> int:
    from operator import index as whole

    try:
        position = whole(part)
    except TypeError:
        raise IndexError(f"{part!r} is no basic index; take .value and index that") from None
    if isinstance(part, bool) or not -length <= position < length:
        raise IndexError(f"index {part!r} is out of bounds for axis {axis} of length {length}")
    return position % length
