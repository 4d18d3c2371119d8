"""Write a zip of stored members, as torch and NumPy do, through the standard library."""

from __future__ import annotations

import struct
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from paratree.core.array import size_of
from paratree.core.dtypes import nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import IO, Self

    from paratree.core.array import LazyArray
    from paratree.files.output import Output

_LOCAL_HEADER = 30  # bytes, before the name
_ZIP64_EXTRA = 20
_PADDING = 0x4246  # "FB", the id of the extra field that torch fills up with
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same tree gives the same bytes
_MOST_IN_ZIP = 1.05  # of its size is what zipfile fears a member to take


class Archive:
    """A zip that is being written: nothing compressed, the same bytes for the same content.

    It may be a part of a file: what it says of places in it counts from where it begins.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._file = _Part(output.file)
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._zip.close()
        else:
            self._zip.fp = None  # what is written will be removed: no directory, and no second error

    def write(self, name: str, data: bytes) -> None:
        """Add a member."""
        self._zip.writestr(_member(name, len(data)), data)

    @contextmanager
    def member(self, name: str, size: int) -> Iterator[IO[bytes]]:
        """Give a member to write; it must become ``size`` bytes."""
        with self._zip.open(_member(name, size), "w") as file:
            yield file

    def values(self, name: str, array: LazyArray, *, head: bytes = b"", alignment: int = 1) -> None:
        """Add a member: ``head``, then the values of an array, little-endian, without holding them all.

        Args:
            name: name of the member.
            array: what is written.
            head: what comes before.
            alignment: the data begins at a multiple of so many bytes.
        """
        size = len(head) + nbytes(size_of(array), array.dtype)
        member = _member(name, size)
        start = self._file.tell() + _LOCAL_HEADER + len(name.encode())
        if size * _MOST_IN_ZIP > zipfile.ZIP64_LIMIT:
            start += _ZIP64_EXTRA
        if start % alignment:
            filling = -(start + 4) % alignment
            member.extra = struct.pack("<HH", _PADDING, filling) + bytes(filling)
        with self._zip.open(member, "w") as file:
            file.write(head)
            self._output.stream(array, file.write)


class _Part:
    """A file from where it is now, as a file of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._start = file, file.tell()
        self.write, self.flush, self.close = file.write, file.flush, file.close

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int) -> int:
        return self._file.seek(self._start + offset) - self._start


def _member(name: str, size: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.file_size = size
    return member
