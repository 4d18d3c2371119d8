"""An array in a file: bounds checked when it is described, bytes read when it is asked for."""

from __future__ import annotations

from math import prod

from paratree.core.array import Storage, basic_index, check_axes, contiguous, normal_strides
from paratree.core.dtypes import BITS, nbytes, numpy_dtype
from paratree.core.errors import CorruptFileError
from paratree.files.local import PAGE, in_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import numpy as np

    from paratree.core.array import Index
    from paratree.files.local import Source

MOST_AXES = 64  # NumPy 2 holds no more
_LARGEST = (1 << 63) - 1
_MOST_EXPANSION = 1000  # values a stored value may stand for, beyond _SMALL bytes
_SMALL = 64 << 20
_FREE_GAP = 1 << 16  # bytes that are cheaper to read than to skip
_BEHIND = 32  # bytes further in its page than the source: there a copy is slow


def check_shape(
    shape: Sequence[object], source: Source, member: str | None, width: int = 1
) -> tuple[int, ...]:
    """Return ``shape`` as a tuple of lengths that NumPy can hold, for values of ``width`` bytes.

    Raises:
        CorruptFileError: a length is no whole number >= 0, there are too many, or their product overflows.
    """
    if len(shape) > MOST_AXES:
        raise _fault(source, member, f"{len(shape)} axes are claimed; NumPy holds at most {MOST_AXES}")
    for n in shape:  # a loop, not any(): this and the two lines below are a third of opening 10,000 tensors
        if type(n) is not int or n < 0:
            raise _fault(source, member, f"the shape {_short(shape)} has an entry that is no length")
    lengths: tuple[int, ...] = tuple(shape)  # type: ignore[arg-type]
    if prod(lengths) > _LARGEST or (0 in lengths and width * prod(n for n in lengths if n) > _LARGEST):
        raise _fault(source, member, f"the shape {_short(shape)} overflows 64 bits")
    return lengths


def file_array(
    source: Source,
    offset: int,
    shape: Sequence[object],
    dtype: str,
    *,
    strides: Sequence[object] | None = None,
    big_endian: bool = False,
    conjugate: bool = False,
    negative: bool = False,
    end: int | None = None,
    member: str | None = None,
) -> FileArray:
    """Describe the array at ``offset`` of ``source``; the bounds of every format are checked here.

    Args:
        source: where the bytes are.
        offset: bytes from its start to the value at index zero.
        shape: length along each axis.
        dtype: a name in :data:`paratree.core.dtypes.BITS`.
        strides: step in values along each axis, >= 0; row-major without gaps if not given.
        big_endian: the most significant byte comes first.
        conjugate: the values are the conjugates of what is stored.
        negative: the values are the negatives of what is stored.
        end: byte of the source that the array must not reach beyond, if not its last: a storage's end.
        member: what the messages call the array.

    Raises:
        CorruptFileError: the array does not lie inside the source, or claims far more than is stored.
    """
    name = member if member is not None else source.member
    lengths = check_shape(shape, source, name, BITS[dtype] // 8)
    steps = None if strides is None else check_shape(strides, source, name)
    if steps is not None and len(steps) != len(lengths):
        raise _fault(source, name, f"{len(steps)} strides are given for {len(lengths)} axes")
    if negative and dtype == "bool":
        raise _fault(source, name, "booleans are said to be stored negated, which they cannot be")
    span = prod(lengths)
    if steps is not None and span:
        span = 1 + sum((n - 1) * s for n, s in zip(lengths, steps, strict=True))
    needed = nbytes(span, dtype)
    left = max((source.size if end is None else min(end, source.size)) - offset, 0)
    if offset < 0 or needed > left:
        raise CorruptFileError(
            source.path,
            f"{dtype} {_short(lengths)} needs {needed} bytes here and {left} are left",
            offset=offset,
            member=name,
        )
    if steps is not None and prod(lengths) * BITS[dtype] // 8 > max(_SMALL, _MOST_EXPANSION * needed):
        raise _fault(
            source, name, f"the shape {_short(lengths)} claims over {_MOST_EXPANSION} times what is stored"
        )
    kept = None if steps is None else normal_strides(lengths, steps)
    return FileArray(source, offset, lengths, dtype, kept, big_endian, conjugate, negative)


class FileArray:
    """An uncompressed array in a source; built by :func:`file_array`, which checks it."""

    __slots__ = ("_flags", "dtype", "offset", "shape", "source", "strides")

    problem = None

    def __init__(
        self,
        source: Source,
        offset: int,
        shape: tuple[int, ...],
        dtype: str,
        strides: tuple[int, ...] | None,
        big_endian: bool,
        conjugate: bool,
        negative: bool,
    ) -> None:
        self.source, self.offset, self.shape, self.dtype = source, offset, shape, dtype
        self.strides = strides
        self._flags = (big_endian, conjugate, negative)

    @property
    def nbytes(self) -> int:
        """Bytes of the values without gaps."""
        return nbytes(prod(self.shape), self.dtype)

    @property
    def storage(self) -> Storage:
        """The bytes, with what is done to them on reading: a conjugate view is another array."""
        return Storage((self.source.key, self._flags), self.offset, self.strides)

    @property
    def is_plain(self) -> bool:
        """Whether the bytes in the source are the values in row-major order, little-endian."""
        return self.strides is None and not any(self._flags)

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index, in native byte order.

        Raises:
            IndexError: the index does not fit the shape.
            CorruptFileError: the file has changed since it was opened.
            UnreadableError: it has more axes than this NumPy holds.
        """
        check_axes(self.shape)
        steps = self.strides or contiguous(self.shape)
        start, lengths, strides, dropped = (
            (0, self.shape, steps, ()) if index is ... else _basic(index, self.shape, steps)
        )
        values = self._region(start, lengths, strides)
        values = (
            values.reshape(tuple(n for i, n in enumerate(lengths) if i not in dropped)) if dropped else values
        )
        _, conjugate, negative = self._flags
        if not conjugate and not negative:
            return values
        import numpy as np

        values = values.conj() if conjugate else values
        return np.asarray(-values if negative else values)  # NumPy makes a scalar of a result without axes

    def _region(self, start: int, lengths: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """Read a strided region, given in values; in one piece unless most of the piece is not wanted."""
        import numpy as np

        if 0 in lengths:
            return np.empty(lengths, numpy_dtype(self.dtype))
        reach = [(n - 1) * s for n, s in zip(lengths, strides, strict=True)]
        low = start + sum(r for r in reach if r < 0)
        count = 1 + sum(abs(r) for r in reach)
        wanted = prod(n for n, s in zip(lengths, strides, strict=True) if s)
        if nbytes(count, self.dtype) <= _FREE_GAP + 2 * nbytes(wanted, self.dtype):
            flat = self._flat(low, count)
            if normal_strides(lengths, strides) is None:
                return flat.reshape(lengths)
            steps = tuple(s * flat.itemsize for s in strides)
            place = (start - low) * flat.itemsize
            # as_strided does not know the dtypes of ml_dtypes: "data type '<f1' not understood" (NumPy 2.4)
            view = np.ndarray(lengths, flat.dtype, flat.view(np.uint8), place, steps)
            view.flags.writeable = wanted == prod(lengths)
            return view
        outer = max(range(len(lengths)), key=lambda axis: abs(reach[axis]))
        rest, rest_strides = lengths[:outer] + lengths[outer + 1 :], strides[:outer] + strides[outer + 1 :]
        pieces = np.empty((lengths[outer], *rest), numpy_dtype(self.dtype))
        for i in range(lengths[outer]):
            pieces[i] = self._region(start + i * strides[outer], rest, rest_strides)
        return np.moveaxis(pieces, 0, outer)

    def _flat(self, first: int, count: int) -> np.ndarray[Any, Any]:
        """Read ``count`` adjacent values from value ``first``."""
        bits = BITS[self.dtype]
        dtype = numpy_dtype(self.dtype)
        if bits < 8:
            return self._packed(first, count, bits).view(dtype)
        raw = self._bytes(self.offset + first * bits // 8, count * bits // 8)
        if self._flags[0] and bits > 8:
            part = {"complex64": 4, "complex128": 8}.get(self.dtype, bits // 8)
            raw = raw.view(f"u{part}").byteswap().view("u1")
        return raw.view(dtype)

    def _bytes(self, offset: int, length: int) -> np.ndarray[Any, Any]:
        """Read bytes into a place in memory that the kernel copies to at full speed.

        AMD's EPYC copies (``rep movsb``) at a quarter of it to what lies 1 to 31 bytes further in its page
        than the source in its own; what malloc maps begins 16 bytes into a page.
        """
        import numpy as np

        place = in_file(self.source, offset) if length >= PAGE else None
        if place is None:
            raw = np.empty(length, np.uint8)
        else:
            room = np.empty(length + _BEHIND, np.uint8)
            further = (room.ctypes.data - place[1]) % PAGE
            skipped = _BEHIND if 0 < further < _BEHIND else 0
            raw = room[skipped : skipped + length]
        self.source.readinto(raw.data, offset)
        return raw

    def _packed(self, first: int, count: int, bits: int) -> np.ndarray[Any, Any]:
        """Unpack values narrower than a byte, the first in the lowest bits, one to a byte."""
        import numpy as np

        start, stop = first * bits // 8, nbytes(first + count, self.dtype)
        raw = self._bytes(self.offset + start, stop - start)
        skipped = first * bits - start * 8
        ones = np.unpackbits(raw, bitorder="little")[skipped : skipped + count * bits].reshape(count, bits)
        return np.packbits(ones, axis=1, bitorder="little").reshape(count)


def _basic(
    index: Index, shape: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return start, lengths, strides and dropped axes of a basic index."""
    start, lengths, steps, dropped = 0, [], [], []
    for axis, (part, stride) in enumerate(zip(basic_index(index, shape), strides, strict=True)):
        places = part if isinstance(part, range) else range(part, part + 1)
        if isinstance(part, int):
            dropped.append(axis)
        start += places.start * stride if places else 0
        lengths.append(len(places))
        steps.append(places.step * stride)
    return start, tuple(lengths), tuple(steps), tuple(dropped)


def _fault(source: Source, member: str | None, reason: str) -> CorruptFileError:
    return CorruptFileError(source.path, reason, member=member)


def _short(shape: Sequence[object]) -> str:
    text = " × ".join(str(n)[:24] for n in shape[:6]) or "scalar"
    return f"({text}{' × …' if len(shape) > 6 else ''})"
