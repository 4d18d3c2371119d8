"""MessagePack in a file, walked without recursion: bytes and extensions stay where they are.

Encoding: the MessagePack specification (github.com/msgpack/msgpack/blob/master/spec.md).
"""

from __future__ import annotations

import struct

from paratree.core.errors import CorruptFileError
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.files.local import Source

DEEPEST = 128
_MOST_VALUES = 10_000_000
_LONGEST_TEXT = 1 << 24  # bytes
_BLOCK = 1 << 12
_NUMBERS = {  # first byte -> how the number after it is packed
    first: struct.Struct(">" + letter) for first, letter in enumerate("fdBHIQbhiq", 0xCA)
}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}  # first byte -> length
_LENGTHS = {  # first byte -> what follows a length, and how many bytes that length takes
    0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4),
    0xC7: ("extension", 1), 0xC8: ("extension", 2), 0xC9: ("extension", 4),
    0xD9: ("text", 1), 0xDA: ("text", 2), 0xDB: ("text", 4),
    0xDC: ("array", 2), 0xDD: ("array", 4), 0xDE: ("map", 2), 0xDF: ("map", 4),
}  # fmt: skip


class Binary:
    """Bytes that were left where they are: their offset in the source and their length."""

    __slots__ = ("length", "offset")

    def __init__(self, offset: int, length: int) -> None:
        self.offset, self.length = offset, length


class Extension(Binary):
    """A value of a type that the application defines, left where it is."""

    __slots__ = ("code",)

    def __init__(self, code: int, offset: int, length: int) -> None:
        super().__init__(offset, length)
        self.code = code


def unpack(source: Source, start: int = 0, end: int | None = None) -> Any:
    """Return the one value between ``start`` and ``end`` of a source, by default all of it.

    Maps become dicts with keys of text or whole numbers, arrays lists; bytes and extensions are not read.

    Raises:
        CorruptFileError: the bytes are no value, go on after it, nest too deep, or a key stands twice.
    """
    walk = _Walk(source, start, source.size if end is None else end)
    waiting: list[_Container] = []
    while True:
        value = walk.next()
        if isinstance(value, _Container):
            if value.left:
                if len(waiting) == DEEPEST:
                    raise walk.fault(f"nested over {DEEPEST} levels deep")
                waiting.append(value)
                continue
            value = value.held
        while waiting:
            waiting[-1].add(value, walk)
            if waiting[-1].left:
                break
            value = waiting.pop().held
        if not waiting:
            break
    if walk.place != walk.end:
        raise walk.fault("the value ends here and the bytes go on")
    return value


class _Container:
    """A map or an array whose values are being met; ``left`` counts keys and values to come."""

    __slots__ = ("_key", "held", "left")

    def __init__(self, held: dict[Any, Any] | list[Any], left: int) -> None:
        self.held, self.left = held, left
        self._key: str | int = 0

    def add(self, value: Any, walk: _Walk) -> None:
        """Take the next key or value."""
        self.left -= 1
        if isinstance(self.held, list):
            self.held.append(value)
        elif self.left % 2:
            if type(value) is not str and type(value) is not int:
                raise walk.fault("a key is neither text nor a whole number")
            if value in self.held:
                raise walk.fault(f"the key '{str(value)[:200]}' stands twice")
            self._key = value
        else:
            self.held[self._key] = value


class _Walk:
    """A place in the source, with a block of bytes around it."""

    def __init__(self, source: Source, start: int, end: int) -> None:
        self.source, self.place, self.end = source, start, end
        self._block, self._block_start, self._met = b"", start, 0

    def fault(self, reason: str) -> CorruptFileError:
        """Return the error for what is wrong here."""
        return CorruptFileError(self.source.path, reason, offset=self.place, member=self.source.member)

    def next(self) -> Any:
        """Return the next value; of a map or an array, an empty container."""
        self._met += 1
        if self._met > _MOST_VALUES:
            raise self.fault(f"over {_MOST_VALUES} values, more than a checkpoint has")
        first = self._take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 0x100
        if first in _CONSTANTS:
            return _CONSTANTS[first]
        if first in _NUMBERS:
            packed = _NUMBERS[first]
            return packed.unpack(self._take(packed.size))[0]
        if first < 0xC0:
            kind, length = ("map", first & 15) if first < 0x90 else ("array", first & 15)
            if first >= 0xA0:
                kind, length = "text", first & 31
            return self._of_length(kind, length)
        if first in _FIXED_EXTENSIONS:
            return self._of_length("extension", _FIXED_EXTENSIONS[first])
        if first not in _LENGTHS:
            raise self.fault(f"0x{first:02x} begins no value")
        kind, width = _LENGTHS[first]
        return self._of_length(kind, int.from_bytes(self._take(width), "big"))

    def _of_length(self, kind: str, length: int) -> Any:
        left = self.end - self.place
        needed = {"map": 2 * length, "extension": length + 1}.get(kind, length)
        if needed > left:
            raise self.fault(f"{kind} of length {length} needs {needed} bytes at least, and {left} are left")
        if kind == "map":
            return _Container({}, 2 * length)
        if kind == "array":
            return _Container([], length)
        if kind == "text":
            return self._text(length)
        code = int.from_bytes(self._take(1), "big", signed=True) if kind == "extension" else None
        start = self.place
        self.place += length
        return Binary(start, length) if code is None else Extension(code, start, length)

    def _text(self, length: int) -> str:
        if length > _LONGEST_TEXT:
            raise self.fault(f"a text of {length} bytes")
        start = self.place
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            self.place = start
            raise self.fault("a text that is not UTF-8") from None

    def _take(self, length: int) -> bytes:
        if length > self.end - self.place:
            raise self.fault(f"{length} bytes are needed here and {self.end - self.place} are left")
        skipped = self.place - self._block_start
        if skipped < 0 or skipped + length > len(self._block):
            self._block_start, skipped = self.place, 0
            self._block = read(self.source, self.place, min(max(length, _BLOCK), self.end - self.place))
        self.place += length
        return self._block[skipped : skipped + length]
