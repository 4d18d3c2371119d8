"""Protocol buffers in a file, walked field by field: long values stay where they are.

Encoding: "Encoding" in the Protocol Buffers documentation (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from paratree.files.local import Source

    Span = tuple[int, int]  # where a value begins and ends in the source

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_GROUPS = (3, 4)
_LONGEST_VARINT = 10  # bytes
_WINDOW = 1 << 13
_LONGEST_TEXT = 1 << 24  # of what is taken into memory whole


class Wire:
    """The fields of messages in one source.

    A message is a span of the source; the whole source is one too. Memory does not grow with the length of
    what is stepped over.
    """

    def __init__(self, source: Source, member: str | None = None) -> None:
        self.source, self.member = source, member if member is not None else source.member
        self._window, self._start = b"", 0

    def fields(self, span: Span | None = None) -> Iterator[tuple[int, int, Any]]:
        """Yield number, wire type and value of each field: a span for bytes, else an unsigned integer.

        Raises:
            CorruptFileError: a field does not end where its message does, or is of no known wire type.
        """
        place, end = (0, self.source.size) if span is None else span
        while place < end:
            start = place
            key, place = self._varint(place, end)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise self.fault(f"{number} is no field number", start)
            value: Any
            if wire == VARINT:
                value, place = self._varint(place, end)
            elif wire == BYTES:
                length, place = self._varint(place, end)
                if length > end - place:
                    raise self.fault(
                        f"field {number} claims {length} bytes and {end - place} are left", start
                    )
                value, place = (place, place + length), place + length
            elif wire in (FIXED32, FIXED64):
                width = 4 if wire == FIXED32 else 8
                if width > end - place:
                    raise self.fault(f"field {number} is cut short", start)
                value, place = int.from_bytes(self._bytes(place, width), "little"), place + width
            else:
                what = "a group, which nobody writes" if wire in _GROUPS else f"of wire type {wire}"
                raise self.fault(f"field {number} is {what}", start)
            yield number, wire, value

    def varints(self, span: Span) -> list[int]:
        """Return the unsigned integers of a packed field."""
        place, end = span
        found = []
        while place < end:
            value, place = self._varint(place, end)
            found.append(value)
        return found

    def raw(self, span: Span) -> bytes:
        """Return the bytes of a field that is short by its nature; an array is read in its place.

        Raises:
            CorruptFileError: there are more than such a field has.
        """
        start, end = span
        if end - start > _LONGEST_TEXT:
            raise self.fault(f"{end - start} bytes are too many for this field", start)
        return self._bytes(start, end - start)

    def text(self, span: Span) -> str:
        """Return a field as text.

        Raises:
            CorruptFileError: it is not UTF-8.
        """
        try:
            return self.raw(span).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fault("this byte is not UTF-8", span[0] + error.start) from None

    def fault(self, reason: str, offset: int) -> CorruptFileError:
        """Return the error for a place of the source."""
        return CorruptFileError(self.source.path, reason, offset=offset, member=self.member)

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        value = 0
        for i in range(_LONGEST_VARINT):
            if place + i >= end:
                raise self.fault("a number is cut short", place)
            at = place + i - self._start
            if not 0 <= at < len(self._window):
                self._fill(place + i)
                at = 0
            byte = self._window[at]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if value >> 64:
                    break
                return value, place + i + 1
        raise self.fault("a number is longer than 64 bits", place)

    def _bytes(self, place: int, length: int) -> bytes:
        at = place - self._start
        if at >= 0 and at + length <= len(self._window):
            return self._window[at : at + length]
        if length > _WINDOW:
            return read(self.source, place, length)
        self._fill(place)
        return self._window[:length]

    def _fill(self, place: int) -> None:
        self._start = place
        self._window = read(self.source, place, min(_WINDOW, self.source.size - place))


def signed(value: int) -> int:
    """Return an unsigned 64-bit integer as the signed one that an ``int64`` field means."""
    return value - (1 << 64) if value >> 63 else value
