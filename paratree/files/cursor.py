"""Reading a source from one value to the next; every length is checked against the source first."""

from __future__ import annotations

import struct

from paratree.core.errors import CorruptFileError
from paratree.files.local import Source, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FORMS = {order: {letter: struct.Struct(order + letter) for letter in "BbHhIiQqfd"} for order in "<>"}


class Cursor:
    """A place in a source that moves on with what is read.

    Args:
        source: where the bytes are.
        place: where to begin.
        big_endian: the byte order of numbers.
        window: bytes that are read at a time: few where what lies between is passed over.

    Attributes:
        member: what messages call that which is being read.
    """

    __slots__ = ("_at", "_buffer", "_forms", "_start", "_window", "member", "source")

    def __init__(
        self, source: Source, place: int = 0, *, big_endian: bool = False, window: int = 1 << 18
    ) -> None:
        self.source, self.member, self._window = source, source.member, window
        self._forms = _FORMS[">" if big_endian else "<"]
        self._buffer, self._start, self._at = b"", place, 0

    def at(self, place: int) -> Cursor:
        """Return another cursor over the same source, with the same name for messages."""
        other = Cursor(self.source, place, big_endian=self._forms is _FORMS[">"], window=self._window)
        other.member = self.member
        return other

    @property
    def place(self) -> int:
        """Where the next value begins."""
        return self._start + self._at

    @property
    def left(self) -> int:
        """How many bytes there are from here."""
        return self.source.size - self.place

    def fault(self, reason: str, offset: int) -> CorruptFileError:
        """Return the error for a fault at a byte of the source."""
        return CorruptFileError(self.source.path, reason, offset=offset, member=self.member)

    def check_count(self, count: int, least: int, what: str) -> None:
        """Refuse a count of what takes at least ``least`` bytes each, if too few bytes are left for it."""
        if count * least > self.left:
            raise self.fault(f"{count} {what} are claimed and {self.left} bytes are left", self.place)

    def _fill(self, length: int) -> None:
        """Have ``length`` bytes in the buffer, and more if they are there."""
        if self._at + length > len(self._buffer):
            if length > self.left:
                raise self.fault(f"{length} bytes are needed here and {self.left} are left", self.place)
            window = max(length, min(self._window, self.left))
            self._buffer, self._start, self._at = read(self.source, self.place, window), self.place, 0

    def bytes(self, length: int) -> bytes:
        """Read bytes."""
        self._fill(length)
        found = self._buffer[self._at : self._at + length]
        self._at += length
        return found

    def number(self, letter: str) -> Any:
        """Read a number of the width that a letter of :mod:`struct` says."""
        form = self._forms[letter]
        self._fill(form.size)
        (found,) = form.unpack_from(self._buffer, self._at)
        self._at += form.size
        return found

    def numbers(self, letter: str, count: int) -> tuple[Any, ...]:
        """Read several numbers of one width."""
        self.check_count(count, self._forms[letter].size, "numbers")
        return tuple(self.number(letter) for _ in range(count))

    def name(self, longest: int) -> str:
        """Read a name in UTF-8, with its length in 8 bytes before it."""
        place, length = self.place, self.number("Q")
        if length > longest:
            raise self.fault(f"a name of {length} bytes is claimed; the limit is {longest}", place)
        try:
            return self.bytes(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.fault("a name is not UTF-8", place + 8) from None

    def skip(self, length: int) -> None:
        """Pass over bytes."""
        if length > self.left:
            raise self.fault(f"{length} bytes are needed here and {self.left} are left", self.place)
        self._at += length

    def skip_texts(self, count: int) -> None:
        """Pass over texts with their lengths in 8 bytes before each, of which nothing else is looked at."""
        first, length_at = self.place, self._forms["Q"].unpack_from
        while count:
            self._fill(8)
            buffer, at, left = self._buffer, self._at, count
            try:
                for left in range(count, 0, -1):  # noqa: B007 -- how many are left when the buffer ends
                    at += 8 + length_at(buffer, at)[0]
                left = 0
            except (struct.error, OverflowError):
                pass
            count, self._at = left, at
            if self.left < 8 * count:
                raise self.fault("one of the texts from here reaches beyond the end", first)
