"""A file that is written from its start to its end: bytes, and values of arrays without holding them all.

Files that belong to it are there before it takes its place; those that they replace go afterwards.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, cast

from paratree.core.array import parts_of, row_major
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.files._leftovers import noting
from paratree.files.array import FileArray
from paratree.files.atomic import ended_in_order, replacing
from paratree.files.local import in_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import IO, Any

    import numpy as np

    from paratree.core.array import LazyArray
    from paratree.files._leftovers import Notes
    from paratree.files.local import LocalFile

    Values = np.ndarray[Any, Any]

_BLOCK = 8 << 20  # bytes
_BUFFER = 1 << 20  # bytes that stay in the second cache of the processor
_WORTH_A_THREAD = 3  # buffers beside the first
_COMPLEX = {"complex64": 32, "complex128": 64}  # bits of a part


@contextmanager
def writing(
    path: str,
    written: Callable[[int], None] | None = None,
    *,
    force: bool = False,
    check: Callable[[str], None] | None = None,
) -> Iterator[Output]:
    """Give an output; when the block ends without an error, its file takes the place of ``path``.

    What :func:`paratree.files.atomic.replacing` promises of one file holds for those beside it, too: they go
    if this one does not come to its place, and those that they replace go when it has.

    Args:
        path: where the file shall be.
        written: called with the number of bytes of values whenever some were written.
        force: whether a file that is there may be replaced.
        check: called with the path of the complete new file before it takes its place; its error stops that.

    Raises:
        FileExistsError: there is a file and ``force`` is false.
        OSError: the path is no place for a file, or the disk is full.
    """
    before, beside, replaced = _state(path), list[str](), list[str]()
    with ended_in_order(), noting() as notes:
        try:
            with replacing(path, force=force, check=check) as file:
                output = Output(file, path, written, notes)
                beside, replaced = output.made, output.replaced
                yield output
        except BaseException:
            if _state(path) == before:  # else an interrupt came when the file was in its place
                _remove(beside)
            raise
        _remove(replaced)


class Output:
    """What a writer writes to.

    Attributes:
        file: the file itself, for libraries that write to one.
        path: where it shall be.
        written: called with the number of bytes of values whenever some were written.
        made: paths of the files that were written beside it.
        replaced: paths of files that nothing needs when this one is in its place.
    """

    def __init__(
        self,
        file: IO[bytes],
        path: str,
        written: Callable[[int], None] | None = None,
        notes: Notes | None = None,
    ) -> None:
        self.file, self.path, self.written, self._notes = file, path, written, notes
        self._buffers: list[memoryview] = []
        self.made: list[str] = []
        self.replaced: list[str] = []

    @contextmanager
    def beside(self, path: str) -> Iterator[Output]:
        """Give an output for another file, which is in its place before this one; no file may be there.

        Raises:
            FileExistsError: there is one.
            OSError: the path is no place for a file, or the disk is full.
        """
        own = None
        try:
            with replacing(path) as file:
                own = os.fstat(file.fileno())
                yield Output(file, path, self.written)
                if self._notes is not None:
                    self._notes.add(self.file, file, path)
        finally:
            with suppress(OSError):
                if own is not None and os.path.samestat(own, Path(path).stat()):
                    self.made.append(path)

    @property
    def offset(self) -> int:
        """Bytes written so far."""
        return self.file.tell()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self.file.write(data)

    def values(self, array: LazyArray) -> None:
        """Append the values of an array in row-major order, little-endian, narrow ones packed.

        The bytes of a file that are so already are copied, inside the kernel where that is faster.

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
        done = file.copy_inside(self.file.fileno(), offset, array.nbytes)
        self.file.seek(0, 2)
        for part in self._read_ahead(file, offset + done, array.nbytes - done):
            self.file.write(part)
        self._tell(array.nbytes)
        return True

    def _read_ahead(self, file: LocalFile, offset: int, length: int) -> Iterator[memoryview]:
        """Yield a range of a file in parts, of which one is read while the one before it is written."""
        if not self._buffers or len(self._buffers[0]) < min(length, _BUFFER):
            self._buffers = [memoryview(bytearray(min(length, _BUFFER))) for _ in range(2)]

        def filled(start: int) -> memoryview:
            part = self._buffers[start // _BUFFER % 2][: length - start]
            file.readinto(part, offset + start)
            return part

        first, *others = range(0, length, _BUFFER) or [0]
        if len(others) < _WORTH_A_THREAD:
            yield from map(filled, (first, *others))
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1, "paratree") as reader:
            waiting = reader.submit(filled, first)
            for start in others:
                part = waiting.result()
                waiting = reader.submit(filled, start)
                yield part
            yield waiting.result()

    def _tell(self, count: int) -> None:
        if self.written is not None:
            self.written(count)


def _state(path: str) -> tuple[int, ...] | None:
    """Return what tells a file from another one that takes its path, or ``None`` if there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _remove(paths: Iterable[str]) -> None:
    for path in paths:
        with suppress(OSError):
            Path(path).unlink()


def blocks(array: LazyArray) -> Iterator[memoryview]:
    """Yield the bytes of an array in row-major order, little-endian, values narrower than a byte packed."""
    shape, bits = cast("tuple[int, ...]", array.shape), BITS[array.dtype]
    size = _BLOCK if getattr(array, "strides", None) is None else 4 * _BLOCK  # a read for each column
    most = max(size * 8 // bits, 1) if bits >= 8 else max(prod(shape), 1)  # packs need whole bytes
    for index, _ in parts_of(shape, most):
        values = array.read(index).astype(numpy_dtype(array.dtype), copy=False)
        yield _little(row_major(values).reshape(-1), array.dtype).data


def _little(values: Values, dtype: str) -> Values:
    import numpy as np

    raw = values.view(np.uint8)
    bits = BITS[dtype]
    if bits < 8:
        ones = np.unpackbits(raw[:, None], axis=1, count=bits, bitorder="little")
        return np.packbits(ones.reshape(-1), bitorder="little")
    if sys.byteorder == "big" and bits > 8:
        return raw.view(f"u{_COMPLEX.get(dtype, bits) // 8}").byteswap().view(np.uint8)
    return raw
