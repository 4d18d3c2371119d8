"""Attributes of HDF5 objects that are texts, or lists of them.

A reference to a text claims a length, and many may mean one text: each is read once.
Format: HDF5 File Format Specification 3.0, sections III.E, IV.A.2.m and IV.A.2.v.
"""

from __future__ import annotations

import struct

from paratree.core.errors import UnsafeFileError
from paratree.files.hdf5_headers import ATTRIBUTE, ATTRIBUTES, SPACE, TYPE, first
from paratree.files.hdf5_messages import FIXED_TEXT, VARIABLE, MalformedError, length_of
from paratree.files.hdf5_reader import BOMB, NOWHERE
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paratree.files.hdf5_headers import Headers, Messages

_MOST_TEXT = 64 << 20  # bytes of all texts of a file, those that are the same counted once
_REFERENCE = struct.Struct("<IQI")  # length of a text, heap, index in it


class Texts:
    """The texts of one file."""

    def __init__(self, headers: Headers) -> None:
        self._headers, self._reader = headers, headers.reader
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._known: dict[tuple[int, int, int], str] = {}
        self._bytes = 0

    def of(self, address: int, messages: Messages, wanted: Callable[[str], bool]) -> dict[str, list[str]]:
        """Return the attributes of an object that are texts or lists of them, and are wanted.

        Raises:
            CorruptFileError: a length or a place is outside of the file.
            UnsafeFileError: the texts are far more than the file can mean to hold.
            MalformedError: an attribute contradicts itself.
        """
        found: dict[str, list[str]] = {}
        for message in self._attributes(messages):
            name, parts = _named(message)
            if not wanted(name):
                continue
            texts = self._texts(name, *self._parts(address, message, parts))
            if texts is not None:
                found[name] = texts
        return found

    def _attributes(self, messages: Messages) -> Iterator[bytes]:
        yield from (message for kind, message in messages if kind == ATTRIBUTE)
        if (info := first(messages, ATTRIBUTES)) is not None:
            heap, tree = struct.unpack_from("<2Q", info, 4 if info[1:2] in (b"\1", b"\3") else 2)
            if heap != NOWHERE:
                from paratree.files.hdf5_dense import attributes

                yield from attributes(self._reader, heap, tree)

    def _parts(self, address: int, message: bytes, parts: list[bytes]) -> tuple[bytes, bytes, bytes]:
        """Return the type, space and data of an attribute, wherever they are kept."""
        type_, space, data = parts
        flags = message[1] if message[0] > 1 else 0
        type_ = self._headers.shared(TYPE, type_, address) if flags & 1 else type_
        return type_, self._headers.shared(SPACE, space, address) if flags & 2 else space, data

    def _texts(self, name: str, type_: bytes, space: bytes, data: bytes) -> list[str] | None:
        """Return the texts that an attribute holds or refers to; ``None`` if it is of another type."""
        head, size = struct.unpack_from("<II", type_)
        kind, count = head & 15, length_of(space)
        if kind != FIXED_TEXT and not (kind == VARIABLE and head >> 8 & 15 == 1):
            return None if count else []
        width = size if kind == FIXED_TEXT else _REFERENCE.size
        if count and (width == 0 or count * width > len(data)):
            raise MalformedError(f"the attribute {name} claims {count} texts, more than there is place for")
        self._reader.step(0, count)
        pieces = (data[i * width : (i + 1) * width] for i in range(count))
        if kind == FIXED_TEXT:
            return [_decoded(piece) for piece in pieces]
        return [self._referred(*_REFERENCE.unpack(piece)) for piece in pieces]

    def _referred(self, length: int, heap: int, index: int) -> str:
        """Return the text that a reference means; texts that are the same are kept once."""
        if not length or heap in (0, NOWHERE):
            return ""
        key = (heap, index, length)
        if (text := self._known.get(key)) is not None:
            return text
        if heap not in self._heaps:
            self._heaps[heap] = dict(self._objects(heap))
        place, size = self._heaps[heap].get(index, (0, 0))
        if length > size:
            raise self._reader.fault(f"a text of {length} bytes is referred to, and there are {size}", heap)
        self._bytes += length
        source = self._reader.source
        if self._bytes > _MOST_TEXT:
            what = f"it holds over {_MOST_TEXT} bytes of text"
            raise UnsafeFileError(source.path, what, member=source.member, advice=BOMB)
        text = self._known[key] = _decoded(read(source, self._reader.base + place, length))
        return text

    def _objects(self, heap: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield index, address and length of every object in a heap of texts."""
        head = self._reader.take(heap, 16, b"GCOL")
        end = heap + int.from_bytes(head[8:], "little")
        if self._reader.base + end > self._reader.source.size:
            raise self._reader.fault("a heap of texts is larger than the file", heap)
        place = heap + 16
        while place + 16 <= end:
            index, length = struct.unpack("<H6xQ", self._reader.take(place, 16))
            if index == 0:  # the rest is free
                return
            self._reader.step(place)
            yield index, (place + 16, min(length, end - place - 16))
            place += 16 + -(-length // 8) * 8


def _named(message: bytes) -> tuple[str, list[bytes]]:
    """Return the name of an attribute, and its type, space and data, as they are kept."""
    version, *sizes = struct.unpack_from("<Bx3H", message)
    if version not in (1, 2, 3):
        raise MalformedError(f"version {version} of an attribute is not known")
    step, place, parts = (8 if version == 1 else 1), (9 if version == 3 else 8), []
    for size in sizes:
        parts.append(message[place : place + size])
        place += -(-size // step) * step
    if place > len(message):
        raise MalformedError("an attribute says more than it has place for")
    return _decoded(parts[0]), [*parts[1:], message[place:]]


def _decoded(text: bytes) -> str:
    return text.partition(b"\0")[0].decode("utf-8", "surrogateescape")
