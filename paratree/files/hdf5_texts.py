"""The texts among the attributes of an HDF5 object, read without the HDF5 library.

The library believes the lengths that references to texts claim, copies one long text for each of them, and
goes round for ever in a heap with an object of no length (2.0.0). Format: HDF5 File Format Specification
3.0, sections III.E (global heap) and IV.A (object headers). What the newest form of the format keeps apart
("dense" attributes, from about nine of them on) is not looked for; no version of Keras writes it.
"""

from __future__ import annotations

import struct

from paratree.core.errors import CorruptFileError, UnsafeFileError
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paratree.files.local import Source

BOMB = "it has the form of a bomb: open it with h5py if you trust it"
_MOST_TEXT = 64 << 20  # bytes of all texts of a file, those that are the same counted once
_MOST_TEXTS = 1 << 20
_MOST_STEPS = 1 << 20  # messages in headers, objects in heaps
_LARGEST_CHUNK = 4 << 20  # of a header
_CONTINUATION, _ATTRIBUTE = 0x10, 0x0C
_FIXED, _VARIABLE = 3, 9  # classes of types
_NOWHERE = (1 << 64) - 1
_REFERENCE = struct.Struct("<IQI")  # length, heap, index in it


class Texts:
    """The texts of one file.

    Args:
        source: where the file is.
        base: where its first byte is, after the user block; addresses count from there.
    """

    def __init__(self, source: Source, base: int) -> None:
        self.source, self.base = source, base
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._known: dict[tuple[int, int, int], str] = {}
        self._steps = self._count = self._bytes = 0
        version = read(source, base + 8, 1)[0]
        place = base + (13 if version < 2 else 9)
        self._wide = (
            read(source, place, 2) == b"\x08\x08"
        )  # sizes of addresses and lengths; others are not written

    def of(self, address: int, wanted: Callable[[str], bool]) -> dict[str, list[str]]:
        """Return the attributes of the object at an address that are texts or lists of them, and are wanted.

        Raises:
            CorruptFileError: a length or a place is outside of the file.
            UnsafeFileError: the texts are far more than the file can mean to hold.
        """
        found: dict[str, list[str]] = {}
        for kind, message in self._messages(address) if self._wide else ():
            if kind == _ATTRIBUTE and (parts := _attribute(message)) is not None:
                name, type_, space, data = parts
                if wanted(name) and (texts := self._texts(type_, _length(space), data, name)) is not None:
                    found[name] = texts
        return found

    def _texts(self, type_: bytes, count: int, data: bytes, name: str) -> list[str] | None:
        """Return the texts that an attribute holds or refers to; ``None`` if it is of another type."""
        if count == 0:
            return []
        kind, size = type_[0] & 15, int.from_bytes(type_[4:8], "little")
        if kind != _FIXED and not (kind == _VARIABLE and type_[1] & 15 == 1):
            return None
        width = size if kind == _FIXED else _REFERENCE.size
        self._count += count
        if count * width > len(data) or self._count > _MOST_TEXTS:
            raise self._fault(f"the attribute {name} claims {count} texts, more than there is place for", 0)
        pieces = (data[i * width : (i + 1) * width] for i in range(count))
        if kind == _FIXED:
            return [piece.partition(b"\0")[0].decode("utf-8", "surrogateescape") for piece in pieces]
        return [self._referred(*_REFERENCE.unpack(piece)) for piece in pieces]

    def _referred(self, length: int, heap: int, index: int) -> str:
        """Return the text that a reference means; texts that are the same are kept once."""
        if not length or heap in (0, _NOWHERE):
            return ""
        key = (heap, index, length)
        if (text := self._known.get(key)) is not None:
            return text
        if heap not in self._heaps:
            self._heaps[heap] = dict(self._objects(self.base + heap))
        place, size = self._heaps[heap].get(index, (0, -1))
        if length > size:
            raise self._fault(f"{length} bytes of text are referred to, and there are {max(size, 0)}", heap)
        self._bytes += length
        if self._bytes > _MOST_TEXT:
            raise UnsafeFileError(
                self.source.path, f"over {_MOST_TEXT} bytes of text", member=self.source.member, advice=BOMB
            )
        text = read(self.source, place, length).partition(b"\0")[0].decode("utf-8", "surrogateescape")
        self._known[key] = text
        return text

    def _objects(self, start: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield index, place and length of every object in the heap at ``start``."""
        head = read(self.source, start, 16)
        end = start + int.from_bytes(head[8:], "little")
        if head[:4] != b"GCOL" or end > self.source.size:
            raise self._fault("no heap of texts is here, or it is larger than the file", start - self.base)
        place = start + 16
        while place + 16 <= end:
            entry = read(self.source, place, 16)
            index, length = int.from_bytes(entry[:2], "little"), int.from_bytes(entry[8:], "little")
            if index == 0:  # the rest is free
                return
            self._step(place)
            yield index, (place + 16, min(length, end - place - 16))
            place += 16 + -(-length // 8) * 8

    def _messages(self, address: int) -> Iterator[tuple[int, bytes]]:
        """Yield type and content of every message in an object's header."""
        start = self.base + address
        first = read(self.source, start, min(48, self.source.size - start))
        new = first[:4] == b"OHDR"
        if new:
            width = 1 << (first[5] & 3)
            place = 6 + (16 if first[5] & 0x20 else 0) + (4 if first[5] & 0x10 else 0)
            chunks = [(start + place + width, int.from_bytes(first[place : place + width], "little"))]
        else:
            chunks = [(start + 16, int.from_bytes(first[8:12], "little"))]
        head = (6 if first[5] & 4 else 4) if new else 8
        while chunks:
            place, size = chunks.pop()
            if size > _LARGEST_CHUNK:
                raise self._fault(f"a header of {size} bytes is too large", place - self.base)
            for kind, message in self._chunk(read(self.source, place, size), head, place):
                if kind == _CONTINUATION and len(message) >= 16:
                    at, length = struct.unpack_from("<2Q", message)
                    inside = 4 if new else 0  # a signature before, a checksum after
                    chunks.append((self.base + at + inside, max(length - 2 * inside, 0)))
                yield kind, message

    def _chunk(self, chunk: bytes, head: int, start: int) -> Iterator[tuple[int, bytes]]:
        place = 0
        while place + head <= len(chunk):
            self._step(start + place)
            kind = chunk[place] if head < 8 else int.from_bytes(chunk[place : place + 2], "little")
            size = int.from_bytes(chunk[place + head // 4 : place + head // 4 + 2], "little")
            if place + head + size > len(chunk):
                raise self._fault("a header says more than it has place for", start + place - self.base)
            yield kind, chunk[place + head : place + head + size]
            place += head + size

    def _step(self, place: int) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise self._fault("the headers and heaps never end", place - self.base)

    def _fault(self, reason: str, address: int) -> CorruptFileError:
        return CorruptFileError(
            self.source.path, reason, offset=self.base + address, member=self.source.member
        )


def _attribute(message: bytes) -> tuple[str, bytes, bytes, bytes] | None:
    """Return name, type, space and data of an attribute; ``None`` if its type is kept elsewhere."""
    if len(message) < 9 or message[0] > 3 or (message[0] > 1 and message[1]):
        return None
    step, place = (8 if message[0] == 1 else 1), (9 if message[0] == 3 else 8)
    parts = []
    for size in struct.unpack_from("<3H", message, 2):
        parts.append(message[place : place + size])
        place += -(-size // step) * step
    name = parts[0].partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return (name, parts[1], parts[2], message[place:]) if len(parts[1]) >= 8 and len(parts[2]) >= 4 else None


def _length(space: bytes) -> int:
    """Return how many values a space holds."""
    version, rank = space[0], space[1]
    start = 8 if version == 1 else 4
    if version > 1 and space[3] == 2:
        return 0
    count = 1
    for axis in range(rank):
        count *= int.from_bytes(space[start + 8 * axis : start + 8 * axis + 8], "little")
    return count
