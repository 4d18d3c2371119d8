"""A local file, read by position; never mapped, so a file that shrinks is an error and not a crash."""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_right

from paratree.core.errors import CorruptFileError, SourceNotFoundError, UnknownSourceError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol
else:
    Protocol = object

HEAD = 4096
PAGE = 4096  # of the kernel's file cache, at least
_MOST_AT_ONCE = 1 << 30  # preadv(2) takes less than 2 GiB at a time
_NO_COPYING = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)  # between these files


class Source(Protocol):
    """Bytes that arrays lie in: a file, a member of an archive, bytes in memory.

    Attributes:
        path: the file, for messages.
        member: the entry of an archive, for messages, or ``None``.
        size: how many bytes there are.
        key: identity, for ties: equal only for the same bytes of the same open file.
    """

    path: str
    member: str | None
    size: int
    key: Any

    def readinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with the bytes from ``offset``; the caller has checked that they exist."""


def read(source: Source, offset: int, length: int) -> bytes:
    """Return ``length`` bytes from ``offset``.

    Raises:
        CorruptFileError: the source has fewer.
    """
    if offset < 0 or length < 0 or offset + length > source.size:
        raise CorruptFileError(
            source.path,
            f"{length} bytes are needed here and {max(source.size - offset, 0)} are left",
            offset=offset,
            member=source.member,
        )
    buffer = bytearray(length)
    source.readinto(memoryview(buffer), offset)
    return bytes(buffer)


class LocalFile:
    """One open file. It stays what it was if another file takes its path; if it changes, reads fail.

    Attributes:
        named: paths of this file, first, and of those that it or one of them names, once opened.
    """

    member: str | None = None

    def __init__(self, path: str | os.PathLike[str], descriptor: int = -1) -> None:
        self.path, self._descriptor = os.fspath(path), descriptor
        self.named = {self.path: None}
        try:
            mode = os.stat(self.path if descriptor < 0 else descriptor).st_mode  # noqa: PTH116 -- pathlib is slow to import
            if not stat.S_ISREG(mode):
                self.close()
                raise UnknownSourceError(
                    f"{printable(self.path)}: not a regular file; give a file or a folder"
                )
            if descriptor < 0:
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise SourceNotFoundError(
                f"{printable(self.path)}: no such file or folder; "
                "paratree opens local paths and never looks one up online"
            ) from None
        except ValueError as error:  # a NUL in the path
            raise SourceNotFoundError(f"{printable(self.path)}: not a path: {error}") from None
        self._opened = os.fstat(self._descriptor)
        self.size = self._opened.st_size
        self.key = (self._opened.st_dev, self._opened.st_ino)
        self.version = (
            self.key,
            self.size,
            self._opened.st_mtime_ns,
        )  # another one: another file, or changed
        self.archive: Any = None  # the zip directory, once read; see files.zip
        self.head = read(self, 0, min(HEAD, self.size))

    def readinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset``.

        Raises:
            CorruptFileError: the file has changed since it was opened, or the tree is closed.
        """
        if self._descriptor < 0:
            raise self._closed()
        done, length = 0, len(view)
        while done < length:
            got = os.preadv(self._descriptor, [view[done : done + _MOST_AT_ONCE]], offset + done)
            if got <= 0:
                break
            done += got
        self._look_for_change(complete=done == length)

    @property
    def is_replaced(self) -> bool:
        """Whether another file has taken its path."""
        try:
            found = os.stat(self.path)  # noqa: PTH116
        except OSError:
            return False
        return (found.st_dev, found.st_ino) != self.key

    def copy_inside(self, descriptor: int, offset: int, length: int) -> int:
        """Let the kernel append a range to another file; return how much of it was copied so.

        None is where this system cannot, or where the range does not lie at the same place of its pages in
        both files: each page would be copied in two pieces, and a buffer is faster.

        Raises:
            CorruptFileError: the file has changed since it was opened, or the tree is closed.
            OSError: the other file cannot be written.
        """
        if self._descriptor < 0:
            raise self._closed()
        is_alike = (offset - os.lseek(descriptor, 0, os.SEEK_CUR)) % PAGE == 0
        done = 0
        while done < length and is_alike and hasattr(os, "copy_file_range"):
            count = min(length - done, _MOST_AT_ONCE)
            try:
                got = os.copy_file_range(self._descriptor, descriptor, count, offset_src=offset + done)
            except OSError as error:
                if done or error.errno not in _NO_COPYING:
                    raise
                break
            if got <= 0:
                break
            done += got
        self._look_for_change(complete=True)
        return done

    def _look_for_change(self, *, complete: bool) -> None:
        now = os.fstat(self._descriptor)
        if not complete or (now.st_size, now.st_mtime_ns) != (self.size, self._opened.st_mtime_ns):
            raise CorruptFileError(
                self.path, "the file has changed since it was opened", advice="open it again"
            )

    def _closed(self) -> CorruptFileError:
        return CorruptFileError(self.path, "the tree was closed", advice="open the file again")

    def close(self) -> None:
        """Close the file; reads fail from now on."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if os is not None:  # as it is when the interpreter ends while another thread holds a tree
            self.close()


class Window:
    """A range of another source, as the stored member of an archive is."""

    def __init__(self, source: Source, start: int, size: int, member: str | None = None) -> None:
        if start < 0 or size < 0 or start + size > source.size:
            raise CorruptFileError(
                source.path, f"{size} bytes are claimed and {max(source.size - start, 0)} are left",
                offset=start, member=member,
            )  # fmt: skip
        self.path, self.member, self.size = source.path, member, size
        self.source, self.start = source, start
        self.key = (source.key, start, size)

    def readinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset`` of the window."""
        self.source.readinto(view, self.start + offset)


def in_file(source: Source, offset: int) -> tuple[LocalFile, int] | None:
    """Return the file that an offset of a source lies in, and where there; ``None`` if it is in no file."""
    place: Source = source
    while isinstance(place, Window):
        offset, place = place.start + offset, place.source
    return (place, offset) if isinstance(place, LocalFile) else None


class Joined:
    """Other sources, one after the other, as one."""

    def __init__(self, parts: Sequence[Source], path: str, member: str | None = None) -> None:
        self.path, self.member, self._parts = path, member, tuple(parts)
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + part.size)
        self.size = self._starts[-1]
        self.key: Any = tuple(part.key for part in self._parts)

    def readinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset`` of the whole."""
        place = bisect_right(self._starts, offset) - 1
        done = 0
        while done < len(view):
            part, inside = self._parts[place], offset + done - self._starts[place]
            length = min(len(view) - done, part.size - inside)
            part.readinto(view[done : done + length], inside)
            done, place = done + length, place + 1


class Memory:
    """Bytes already in memory, as an array inside a pickle is."""

    def __init__(self, data: bytes, path: str, member: str | None = None) -> None:
        self.data, self.path, self.member, self.size = data, path, member, len(data)
        self.key: Any = self  # alive as long as any array over it: never the id of a temporary

    def readinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset``."""
        view[:] = self.data[offset : offset + len(view)]
