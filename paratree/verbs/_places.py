"""Which bytes of which files the values of an array come from."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast, runtime_checkable

from paratree.core.dtypes import BITS, nbytes
from paratree.files.array import FileArray
from paratree.files.composed import ComposedArray
from paratree.files.local import in_file

if TYPE_CHECKING:
    from paratree.core.array import LazyArray


class Place(NamedTuple):
    """A range of a file.

    Attributes:
        file: its path.
        start: the first byte; ``None`` if the bytes are packed, so that no range of the file holds these.
        stop: the byte after the last, likewise.
    """

    file: str
    start: int | None
    stop: int | None


@runtime_checkable
class _Spanned(Protocol):
    """An array that knows a range of a file in which all of it lies, with more."""

    @property
    def span(self) -> tuple[str, int, int]: ...


def places_of(array: LazyArray, start: int, stop: int) -> tuple[Place, ...]:
    """Return where the values from one position to another in row-major order lie; nowhere if in no file."""
    if isinstance(array, FileArray):
        return (_place(array, start, stop),)
    if isinstance(array, _Spanned):
        return (Place(*array.span),)
    if isinstance(array, ComposedArray):
        return tuple(
            place
            for begin, part in array.parts
            if _has_rows(array.shape, start, stop, begin, part)
            for place in places_of(part, 0, prod(cast("tuple[int, ...]", part.shape)))
        )
    return ()


def _place(array: FileArray, start: int, stop: int) -> Place:
    found = in_file(array.source, array.offset)
    if found is None:
        return Place(array.source.path, None, None)
    file, offset = found
    if array.strides is not None:  # the values do not follow each other: all that holds them
        reach = sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True))
        return Place(file.path, offset, offset + nbytes(1 + reach, array.dtype))
    first = start * BITS[array.dtype] // 8
    return Place(file.path, offset + first, offset + nbytes(stop, array.dtype))


def _has_rows(shape: tuple[int, ...], start: int, stop: int, begin: tuple[int, ...], part: LazyArray) -> bool:
    """Tell whether a part has some of the rows that the values from one position to another are in."""
    if not shape:
        return True
    row = prod(shape[1:])
    length = cast("int", part.shape[0])
    return start < (begin[0] + length) * row and stop > begin[0] * row
