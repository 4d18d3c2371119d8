"""Protocol buffers in a file, walked field by field: long values stay where they are.

Encoding: "Encoding" in the Protocol Buffers documentation (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    import numpy as np

    from paratree.files.local import Source

    Span = tuple[int, int]  # where a value begins and ends in the source

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LONGEST_VARINT = 10  # bytes
_GROUPS = (3, 4)
_WITH_NUMBER = frozenset({VARINT, BYTES})  # a value, or a length
_LONGEST_KEY = 2 * LONGEST_VARINT  # a field's number and wire type, and its length or value
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

    def fields(
        self, span: Span | None = None, wanted: Mapping[int, tuple[int, ...]] | None = None
    ) -> Iterator[tuple[int, int, Any]]:
        """Yield number, wire type and value of each field: a span for bytes, else an unsigned integer.

        Args:
            span: the message; the whole source if not given.
            wanted: numbers of the fields to yield, and the wire types that each may have; all if not given.

        Raises:
            CorruptFileError: a field does not end where its message does, or is of no known wire type, or
                not of the one that is wanted.
        """
        place, end = (0, self.source.size) if span is None else span
        held, base = b"", place  # bytes of this message at hand, and where they begin
        while place < end:
            at = place - base
            if at + _LONGEST_KEY > len(held) and base + len(held) < end:
                held, base, at = self._held(place, end), place, 0
            key = held[at]
            at += 1
            if key > 0x7F:  # numbers of one byte, which most are, are taken here without a call
                key, at = self._number(held, at - 1, base)
            number, wire = key >> 3, key & 7
            if not 0 < number < 1 << 29:
                raise self.fault(f"{number} is no field number", place)
            value: Any
            if wire in _WITH_NUMBER:
                if at < len(held) and held[at] < 0x80:
                    value, at = held[at], at + 1
                else:
                    value, at = self._number(held, at, base)
                if wire == BYTES:
                    begin = base + at
                    if value > end - begin:
                        raise self.fault(
                            f"field {number} claims {value} bytes and {end - begin} are left", place
                        )
                    place = begin + value
                    value = (begin, place)
                else:
                    place = base + at
            elif wire in (FIXED32, FIXED64):
                width = 4 if wire == FIXED32 else 8
                if at + width > len(held):
                    raise self.fault(f"field {number} is cut short", place)
                value, place = int.from_bytes(held[at : at + width], "little"), base + at + width
            else:
                what = "a group, which nobody writes" if wire in _GROUPS else f"of wire type {wire}"
                raise self.fault(f"field {number} is {what}", place)
            if wanted is not None:
                if (types := wanted.get(number)) is None:
                    continue
                if wire not in types:
                    raise self.fault(f"field {number} is of wire type {wire} and not {types[0]}", base + at)
            yield number, wire, value

    def varints(self, span: Span) -> list[int]:
        """Return the unsigned integers of a packed field that is short by its nature.

        Raises:
            CorruptFileError: one does not end where the field does, or there are more bytes than such a
                field has.
        """
        held, at, found = self.raw(span), 0, []
        while at < len(held):
            value, at = self._number(held, at, span[0])
            found.append(value)
        return found

    def many_varints(self, span: Span) -> np.ndarray[Any, Any]:
        """Return the unsigned integers of a packed field of any length, as an array of uint64.

        Raises:
            CorruptFileError: one does not end where the field does, or is longer than 64 bits.
        """
        import numpy as np

        raw = np.frombuffer(read(self.source, span[0], span[1] - span[0]), np.uint8)
        last = np.flatnonzero(raw < 0x80)  # of each number, its last byte
        if raw.size and (not last.size or last[-1] != raw.size - 1):
            raise self.fault("a number is cut short", span[1] - 1)
        first = np.concatenate([np.zeros(1, last.dtype), last[:-1] + 1])[: last.size]
        lengths = last - first + 1
        if last.size and (lengths.max() > LONGEST_VARINT or (raw[last[lengths == LONGEST_VARINT]] > 1).any()):
            raise self.fault("a number is longer than 64 bits", span[0])
        found = np.zeros(last.size, np.uint64)
        for i in range(int(lengths.max(initial=0))):
            long = lengths > i
            found[long] |= (raw[first[long] + i] & 0x7F).astype(np.uint64) << np.uint64(7 * i)
        return found

    def raw(self, span: Span) -> bytes:
        """Return the bytes of a field that is short by its nature; an array is read in its place.

        Raises:
            CorruptFileError: there are more than such a field has.
        """
        start, end = span
        if end - start > _LONGEST_TEXT:
            raise self.fault(f"{end - start} bytes are too many for this field", start)
        at = start - self._start
        if at < 0 or at + end - start > len(self._window):
            if end - start > _WINDOW:
                return read(self.source, start, end - start)
            self._fill(start)
            at = 0
        return self._window[at : at + end - start]

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

    def _number(self, held: bytes, at: int, base: int) -> tuple[int, int]:
        """Return the number at ``at`` of bytes that begin at ``base``, and where it ends."""
        value = 0
        for i in range(LONGEST_VARINT):
            if at + i >= len(held):
                raise self.fault("a number is cut short", base + at)
            byte = held[at + i]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if value >> 64:
                    break
                return value, at + i + 1
        raise self.fault("a number is longer than 64 bits", base + at)

    def _held(self, place: int, end: int) -> bytes:
        """Return bytes from ``place``: a field's key at least, or all up to ``end``."""
        at, needed = place - self._start, min(_LONGEST_KEY, end - place)
        if at < 0 or at + needed > len(self._window):
            self._fill(place)
            at = 0
        return self._window[at : at + end - place]

    def _fill(self, place: int) -> None:
        self._start = place
        self._window = read(self.source, place, min(_WINDOW, self.source.size - place))


def signed(value: int) -> int:
    """Return an unsigned 64-bit integer as the signed one that an ``int64`` field means."""
    return value - (1 << 64) if value >> 63 else value
