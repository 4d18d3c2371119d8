"""What a writer would write, counted: no value is read, and no file is made."""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from paratree.core.array import size_of
from paratree.core.dtypes import nbytes
from paratree.files.atomic import check_target
from paratree.files.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from paratree.core.array import LazyArray

_ZEROS = bytes(1 << 20)


@contextmanager
def counting(path: str, *, force: bool = False) -> Iterator[DryOutput]:
    """Give an output that only counts, where :func:`paratree.files.output.writing` would give one to write.

    Raises:
        FileExistsError: there is a file and ``force`` is false.
        OSError: the path is no place for a file.
    """
    check_target(path, force=force)
    yield DryOutput(path)


class DryOutput(Output):
    """An output that counts the bytes of its file and of those beside it."""

    def __init__(self, path: str) -> None:
        self._sink = _Sink()
        super().__init__(cast("IO[bytes]", self._sink), path)
        self._beside: list[DryOutput] = []

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return self._sink.size + sum(output.nbytes for output in self._beside)

    @contextmanager
    def beside(self, path: str) -> Iterator[Output]:
        """Give an output for another file."""
        if os.path.lexists(path):
            check_target(path)
        self._beside.append(DryOutput(path))
        self.made.append(path)
        yield self._beside[-1]

    def values(self, array: LazyArray) -> None:
        """Count the values of an array."""
        self._sink.skip(nbytes(size_of(array), array.dtype))

    def stream(self, array: LazyArray, write: Callable[[memoryview], object]) -> None:
        """Give zeros, as many bytes as the values take."""
        left = nbytes(size_of(array), array.dtype)
        while left:
            part = memoryview(_ZEROS)[: min(left, len(_ZEROS))]
            write(part)
            left -= len(part)


class _Sink(io.RawIOBase):
    """A file that forgets what is written to it."""

    def __init__(self) -> None:
        self._place = self.size = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = place + (0, self._place, self.size)[whence]
        return self._place

    def write(self, data: object) -> int:
        count = memoryview(data).nbytes  # type: ignore[arg-type]
        self.skip(count)
        return count

    def skip(self, count: int) -> None:
        self._place += count
        self.size = max(self.size, self._place)
