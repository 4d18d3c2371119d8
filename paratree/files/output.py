"""A file that is written from its start to its end: bytes, and values of arrays without holding them all."""

from __future__ import annotations

import sys
from math import prod
from typing import TYPE_CHECKING, cast

import numpy as np

from paratree.core.array import parts_of
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.files.array import FileArray
from paratree.files.local import in_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Any

    from paratree.core.array import LazyArray

    Values = np.ndarray[Any, Any]

_BLOCK = 8 << 20  # bytes
_COMPLEX = {"complex64": 32, "complex128": 64}  # bits of a part


class Output:
    """What a writer writes to.

    Attributes:
        file: the file itself, for libraries that write to one.
        written: called with the number of bytes of values whenever some were written.
    """

    def __init__(self, file: IO[bytes], written: Callable[[int], None] | None = None) -> None:
        self.file, self.written = file, written

    @property
    def offset(self) -> int:
        """Bytes written so far."""
        return self.file.tell()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self.file.write(data)

    def values(self, array: LazyArray) -> None:
        """Append the values of an array in row-major order, little-endian, narrow ones packed.

        The bytes of a file that are so already are copied inside the kernel.

        Raises:
            UnreadableError: the array has no values that can be read.
            CorruptFileError: the file that it lies in has changed or is damaged.
        """
        if not self._copy(array):
            self.stream(array, self.file.write)

    def stream(self, array: LazyArray, write: Callable[[memoryview], object]) -> None:
        """Give the values, as :meth:`values` writes them, to a function: of a library, or one that sums."""
        for block in blocks(array):
            write(block)
            self._tell(len(block))

    def _copy(self, array: LazyArray) -> bool:
        if not isinstance(array, FileArray) or not array.is_plain or sys.byteorder == "big":
            return False
        place = in_file(array.source, array.offset)
        if place is None:
            return False
        self.file.flush()
        file, offset = place
        if not file.copy_into(self.file.fileno(), offset, array.nbytes):
            return False
        self.file.seek(0, 2)
        self._tell(array.nbytes)
        return True

    def _tell(self, count: int) -> None:
        if self.written is not None:
            self.written(count)


def blocks(array: LazyArray) -> Iterator[memoryview]:
    """Yield the bytes of an array in row-major order, little-endian, values narrower than a byte packed."""
    shape, bits = cast("tuple[int, ...]", array.shape), BITS[array.dtype]
    most = max(_BLOCK * 8 // bits, 1) if bits >= 8 else max(prod(shape), 1)  # packs need whole bytes
    for index, _ in parts_of(shape, most):
        values = array.read(index).astype(numpy_dtype(array.dtype), copy=False)
        yield _little(np.ascontiguousarray(values).reshape(-1), array.dtype).data


def _little(values: Values, dtype: str) -> Values:
    raw = values.view(np.uint8)
    bits = BITS[dtype]
    if bits < 8:
        ones = np.unpackbits(raw[:, None], axis=1, count=bits, bitorder="little")
        return np.packbits(ones.reshape(-1), bitorder="little")
    if sys.byteorder == "big" and bits > 8:
        return raw.view(f"u{_COMPLEX.get(dtype, bits) // 8}").byteswap().view(np.uint8)
    return raw
