"""Arrays that no single range of bytes holds: made of parts, or decoded when they are read."""

from __future__ import annotations

from _thread import RLock
from itertools import product
from math import prod

from paratree.core.array import basic_index, check_axes
from paratree.core.dtypes import numpy_dtype
from paratree.core.errors import CorruptFileError
from paratree.files.array import check_shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, LazyArray, Storage
    from paratree.files.local import Source

    Part = tuple[tuple[int, ...], LazyArray]  # where the part begins along each axis, and its values
    Box = tuple[tuple[int, int], ...]  # from where to where, along each axis

_MOST_KEPT = 256 << 20  # bytes of decoded arrays, the latest apart
_MOST_CUT = 12  # axes along which an array is cut


def composed_array(
    source: Source, shape: Sequence[object], dtype: str, parts: Sequence[Part], *, member: str
) -> ComposedArray:
    """Describe an array that is made of parts, as a checkpoint of several processes holds it.

    Args:
        source: where the description was read from, for messages.
        shape: length of the whole along each axis.
        dtype: a name in :data:`paratree.core.dtypes.BITS`; that of every part.
        parts: where each begins along every axis, and its array.
        member: what the messages call the whole.

    Raises:
        CorruptFileError: the parts do not cover the whole exactly.
    """
    lengths = check_shape(shape, source, member)
    boxes = []
    for start, array in parts:
        if array.dtype != dtype:
            raise _fault(source, member, f"a part is {array.dtype} and the whole {dtype}")
        if len(start) != len(lengths) or len(array.shape) != len(lengths) or None in array.shape:
            raise _fault(source, member, "a part has another number of axes than the whole")
        box = tuple(zip(start, (s + (n or 0) for s, n in zip(start, array.shape, strict=True)), strict=True))
        if any(low < 0 or high > length for (low, high), length in zip(box, lengths, strict=True)):
            raise _fault(source, member, f"a part at {start} reaches beyond the whole")
        if prod(high - low for low, high in box):
            boxes.append(box)
    if not _tile(lengths, boxes):
        raise _fault(source, member, "its parts overlap, or leave a part of it out")
    return ComposedArray(lengths, dtype, tuple(parts))


def _tile(lengths: tuple[int, ...], boxes: list[Box]) -> bool:
    """Tell whether boxes inside the whole cover it, each value once.

    They do if their volumes add up to that of the whole, and every point is a corner of an even number of
    boxes, save the corners of the whole: then every value is covered an odd number of times, once on average.
    """
    if sum(prod(high - low for low, high in box) for box in boxes) != prod(lengths):
        return False
    cut = [axis for axis, n in enumerate(lengths) if any(box[axis] != (0, n) for box in boxes)]
    if len(cut) > _MOST_CUT:
        return False
    odd: set[tuple[int, ...]] = set()
    for box in boxes:
        odd.symmetric_difference_update(product(*(box[axis] for axis in cut)))
    return not boxes or odd == set(product(*((0, lengths[axis]) for axis in cut)))


class ComposedArray:
    """An array made of parts; built by :func:`composed_array`, which checks it.

    Args:
        shape: length along each axis.
        dtype: name of the dtype, which every part has.
        parts: where each begins along every axis, and its array.
        fill: the value where no part is, if there may be such places.
    """

    __slots__ = ("_fill", "dtype", "parts", "shape")

    problem = None
    storage = None

    def __init__(self, shape: tuple[int, ...], dtype: str, parts: tuple[Part, ...], fill: Any = None) -> None:
        self.shape, self.dtype, self.parts, self._fill = shape, dtype, parts, fill

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index; of each part, only what is asked for is read.

        Raises:
            IndexError: the index does not fit the shape.
            CorruptFileError: a file has changed since it was opened.
        """
        import numpy as np

        check_axes(self.shape)
        wanted = basic_index(index, self.shape)
        ranges = [part if isinstance(part, range) else range(part, part + 1) for part in wanted]
        values = np.empty([len(r) for r in ranges], numpy_dtype(self.dtype))
        if self._fill is not None:
            values.fill(self._fill)
        for start, array in self.parts:
            lengths: tuple[int, ...] = array.shape  # type: ignore[assignment]
            places = [_within(r, s, s + n) for r, s, n in zip(ranges, start, lengths, strict=True)]
            if all(places):
                source = tuple(
                    slice_of(r[p.start : p.stop], s) for r, p, s in zip(ranges, places, start, strict=True)
                )
                values[tuple(slice(p.start, p.stop) for p in places)] = array.read(source)
        return np.asarray(values[tuple(slice(None) if isinstance(part, range) else 0 for part in wanted)])


def _within(places: range, low: int, high: int) -> range:
    """Return which positions of a range hold a place from ``low`` to ``high``."""
    if places.step < 0:
        back = _within(places[::-1], low, high)
        return range(len(places) - back.stop, len(places) - back.start)
    first = max(-(-(low - places.start) // places.step), 0)
    last = min(-(-(high - places.start) // places.step), len(places))
    return range(first, max(first, last))


def slice_of(places: range, start: int = 0) -> slice:
    """Return the slice of a part that begins at ``start`` for places of the whole."""
    if not places:
        return slice(0, 0)
    stop = places.stop - start
    return slice(places.start - start, stop if stop >= 0 else None, places.step)


class DecodedArray:
    """An array whose stored form is decoded as a whole when it is read: quantised, sparse, packed.

    Read in parts, one after the other, it is decoded once: the last that were decoded are kept for a while.

    Args:
        shape: length along each axis, checked.
        dtype: name of the dtype of what ``decode`` returns.
        decode: returns the values.
        storage: where the stored form lives, if the format records it.
    """

    __slots__ = ("__weakref__", "_decode", "dtype", "shape", "storage")

    problem = None

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: str,
        decode: Callable[[], np.ndarray[Any, Any]],
        storage: Storage | None = None,
    ) -> None:
        self.shape, self.dtype, self.storage, self._decode = shape, dtype, storage, decode

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index.

        Raises:
            IndexError: the index does not fit the shape.
            CorruptFileError: the stored form contradicts itself, or the file has changed.
        """
        import numpy as np

        check_axes(self.shape)
        wanted = basic_index(index, self.shape)
        taken = tuple(slice_of(part) if isinstance(part, range) else part for part in wanted)
        ends = [part if isinstance(part, range) else range(part, part + 1) for part in wanted]
        if all(len(r) == n for r, n in zip(ends, self.shape, strict=True)):
            return np.asarray(self._decode().reshape(self.shape)[taken])
        last = all(r and n - 1 in (r[0], r[-1]) for r, n in zip(ends, self.shape, strict=True))
        return np.array(_kept_values(self, self._decode, last=last).reshape(self.shape)[taken])


_kept: Any = None  # a WeakKeyDictionary of arrays to what they were decoded to, the latest last
_keeping = RLock()


def _kept_values(
    array: DecodedArray, decode: Callable[[], np.ndarray[Any, Any]], *, last: bool
) -> np.ndarray[Any, Any]:
    """Return what an array was decoded to, and keep it unless this is the last part of it."""
    global _kept
    with _keeping:
        if _kept is None:
            from weakref import WeakKeyDictionary

            _kept = WeakKeyDictionary()
        values: np.ndarray[Any, Any] | None = _kept.pop(array, None)
        if values is None:
            values = decode()
        if not last:
            _kept[array] = values
        for other in list(_kept)[:-1]:
            if sum(held.nbytes for held in _kept.values()) > _MOST_KEPT:
                del _kept[other]
        return values


def _fault(source: Source, member: str, reason: str) -> CorruptFileError:
    return CorruptFileError(source.path, reason, member=member)
