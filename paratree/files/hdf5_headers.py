"""What heads an HDF5 file and its objects, read without the HDF5 library and checked before it comes to it.

The library (2.0.0) believes the length that a reference to a text claims and copies one long text for each
reference; it goes round for ever in a heap with an object of no length or a circle of free places, and
through a tree whose branches meet it goes once for every way. So texts are read here, and trees and heaps
of the older form (up to version 1 of the superblock, which Keras writes) are walked here first. The newer
form has checksums. Format: HDF5 File Format Specification 3.0, sections II, III.A, III.D, III.E and IV.A.
"""

from __future__ import annotations

import struct

from paratree.core.errors import CorruptFileError, UnsafeFileError
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paratree.files.local import Source

    Messages = list[tuple[int, bytes]]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
BOMB = "it has the form of a bomb: open it with h5py if you trust it"
_BASES = (0, 512, 1024, 2048)  # where the file may begin, after a user block
_MOST_TEXT = 64 << 20  # bytes of all texts of a file, those that are the same counted once
_MOST_STEPS = 1 << 20  # texts, messages in headers, objects in heaps, branches of trees
_LARGEST_HEADER = 4 << 20
_FILL, _LAYOUT, _ATTRIBUTE, _CONTINUATION, _SYMBOLS = 0x05, 0x08, 0x0C, 0x10, 0x11  # kinds of messages
_FIXED, _VARIABLE = 3, 9  # classes of types
_NOWHERE, _NO_MORE_FREE = (1 << 64) - 1, 1
_REFERENCE = struct.Struct("<IQI")  # length of a text, heap, index in it


def base_of(head: bytes) -> int | None:
    """Return where HDF5 begins in a file that begins with ``head``, or ``None``."""
    return next((start for start in _BASES if head.startswith(SIGNATURE, start)), None)


class Headers:
    """The headers of one file.

    Attributes:
        root: the address of the root group; addresses count from the file's base.
    """

    def __init__(self, source: Source) -> None:
        base = base_of(read(source, 0, min(source.size, _BASES[-1] + len(SIGNATURE))))
        if base is None:
            raise CorruptFileError(source.path, "this is no HDF5 file", offset=0, member=source.member)
        self.source, self.base = source, base
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self._known: dict[tuple[int, int, int], str] = {}
        self._seen: set[int] = set()
        self._steps = self._bytes = 0
        version = read(source, base + 8, 1)[0]
        if read(source, base + (13 if version < 2 else 9), 2) != b"\x08\x08":
            raise self._fault("its addresses are not of 8 bytes, as everybody writes them", 8)
        place = {0: 64, 1: 68}.get(version, 36)
        self.root = self._number(place)
        if version < 2 and self._number(place + 8) & 0xFFFFFFFF == 1:  # a copy of the root's symbol table
            self._check_symbols(read(source, base + place + 16, 16))

    def messages(self, address: int) -> Messages:
        """Return type and content of every message in the header of the object at an address.

        Raises:
            CorruptFileError: the header, or a tree or heap that it leads to, is damaged.
        """
        start = self.base + address
        first = read(self.source, start, min(48, max(self.source.size - start, 16)))
        new = first[:4] == b"OHDR"
        if new:
            width = 1 << (first[5] & 3)
            place = 6 + (16 if first[5] & 0x20 else 0) + (4 if first[5] & 0x10 else 0)
            chunks = [(start + place + width, int.from_bytes(first[place : place + width], "little"))]
        else:
            chunks = [(start + 16, int.from_bytes(first[8:12], "little"))]
        head = (6 if first[5] & 4 else 4) if new else 8
        found: Messages = []
        while chunks:
            place, size = chunks.pop()
            if size > _LARGEST_HEADER:
                raise self._fault(f"a header of {size} bytes is too large", place - self.base)
            for kind, message in self._chunk(read(self.source, place, size), head, place):
                if kind == _CONTINUATION and len(message) >= 16:
                    at, length = struct.unpack_from("<2Q", message)
                    inside = 4 if new else 0  # a signature before, a checksum after
                    chunks.append((self.base + at + inside, max(length - 2 * inside, 0)))
                found.append((kind, message))
        self._check(found)
        return found

    def texts(self, messages: Messages, wanted: Callable[[str], bool]) -> dict[str, list[str]]:
        """Return the attributes in a header that are texts or lists of them, and are wanted.

        What the newer form keeps apart, from about nine attributes on, is not looked for.

        Raises:
            CorruptFileError: a length or a place is outside of the file.
            UnsafeFileError: the texts are far more than the file can mean to hold.
        """
        found: dict[str, list[str]] = {}
        for kind, message in messages:
            if kind == _ATTRIBUTE and (parts := _attribute(message)) is not None:
                name, type_, space, data = parts
                if wanted(name) and (texts := self._texts(type_, _length(space), data, name)) is not None:
                    found[name] = texts
        return found

    def _number(self, place: int) -> int:
        return int.from_bytes(read(self.source, self.base + place, 8), "little")

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

    # Texts

    def _texts(self, type_: bytes, count: int, data: bytes, name: str) -> list[str] | None:
        """Return the texts that an attribute holds or refers to; ``None`` if it is of another type."""
        if count == 0:
            return []
        kind, size = type_[0] & 15, int.from_bytes(type_[4:8], "little")
        if kind != _FIXED and not (kind == _VARIABLE and type_[1] & 15 == 1):
            return None
        width = size if kind == _FIXED else _REFERENCE.size
        if width == 0 or count * width > len(data):
            raise self._fault(f"the attribute {name} claims {count} texts, more than there is place for", 0)
        self._step(self.base, count)
        pieces = (data[i * width : (i + 1) * width] for i in range(count))
        if kind == _FIXED:
            return [_decoded(piece) for piece in pieces]
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
        place, size = self._heaps[heap].get(index, (0, 0))
        if length > size:
            raise self._fault(f"a text of {length} bytes is referred to, and there are {size}", heap)
        self._bytes += length
        if self._bytes > _MOST_TEXT:
            what = f"it holds over {_MOST_TEXT} bytes of text"
            raise UnsafeFileError(self.source.path, what, member=self.source.member, advice=BOMB)
        text = self._known[key] = _decoded(read(self.source, place, length))
        return text

    def _objects(self, start: int) -> Iterator[tuple[int, tuple[int, int]]]:
        """Yield index, place and length of every object in the heap of texts at ``start``."""
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

    # Trees and heaps of the older form, before HDF5 walks them

    def _check(self, messages: Messages) -> None:
        for kind, message in messages:
            if kind == _SYMBOLS:
                self._check_symbols(message)
        if (tree := chunk_tree(messages)) is not None:
            self._check_tree(tree[0], 1, 16 + 8 * tree[1])

    def _check_symbols(self, message: bytes) -> None:
        tree, heap = struct.unpack("<2Q", message[:16].ljust(16, b"\0"))
        self._check_tree(tree, 0, 8)
        if heap not in self._seen:
            self._check_names(heap)

    def _check_tree(self, address: int, kind: int, key: int) -> None:
        """Walk a tree; no two of its branches may lead to one place."""
        if address in self._seen:
            return
        waiting = [(address, -1)]
        while waiting:
            address, level = waiting.pop()
            head = read(self.source, self.base + address, 24)
            if head[:5] != b"TREE" + bytes([kind]) or level not in (-1, head[5]) or address in self._seen:
                raise self._fault("two branches of a tree meet here, or it is no tree", address)
            self._seen.add(address)
            used = int.from_bytes(head[6:8], "little")
            self._step(self.base + address, used + 1)
            if head[5]:
                body = read(self.source, self.base + address + 24, used * (key + 8))
                places = (body[i * (key + 8) + key :][:8] for i in range(used))
                waiting += [(int.from_bytes(place, "little"), head[5] - 1) for place in places]

    def _check_names(self, address: int) -> None:
        """Follow the list of free places in a heap of names."""
        self._seen.add(address)
        head = read(self.source, self.base + address, 32)
        size, free, place = struct.unpack_from("<3Q", head, 8)
        if head[:4] != b"HEAP":
            raise self._fault("no heap of names is here", address)
        met: set[int] = set()
        while free != _NO_MORE_FREE:
            self._step(self.base + address)
            if free in met or free + 16 > size:
                raise self._fault("the free places of a heap of names are no list", address)
            met.add(free)
            free = self._number(place + free)

    def _step(self, place: int, steps: int = 1) -> None:
        self._steps += steps
        if self._steps > _MOST_STEPS:
            what = f"its headers, heaps and trees have over {_MOST_STEPS} entries"
            raise UnsafeFileError(
                self.source.path, what, offset=place, member=self.source.member, advice=BOMB
            )

    def _fault(self, reason: str, address: int) -> CorruptFileError:
        place = self.base + address
        return CorruptFileError(self.source.path, reason, offset=place, member=self.source.member)


def chunk_tree(messages: Messages) -> tuple[int, int] | None:
    """Return where the tree of an array's chunks is, and its number of axes; ``None`` if there is none."""
    for kind, message in messages:
        if kind == _LAYOUT and message[:2] == b"\3\2" and len(message) >= 11:
            address = int.from_bytes(message[3:11], "little")
            return None if address == _NOWHERE else (address, message[2] - 1)
    return None


def chunks_of(
    source: Source, base: int, tree: tuple[int, int]
) -> Iterator[tuple[tuple[int, ...], int, int, int]]:
    """Yield start, filter mask, place and stored bytes of the chunks of a tree that has been checked."""
    address, axes = tree
    entry = struct.Struct(f"<2I{axes + 2}Q")  # bytes, mask, start on each axis and in a value, place
    waiting = [address]
    while waiting:
        place = base + waiting.pop()
        head = read(source, place, 24)
        body = read(source, place + 24, int.from_bytes(head[6:8], "little") * entry.size)
        for size, mask, *start, branch in entry.iter_unpack(body):
            if head[5]:
                waiting.append(branch)
            else:
                yield tuple(start[:-1]), mask, base + branch, size


def compact_data(messages: Messages) -> bytes:
    """Return the values of an array so small that they are in its header."""
    for kind, message in messages:
        if kind == _LAYOUT and message[:1] in (b"\3", b"\4") and message[1:2] == b"\0":
            return message[4 : 4 + int.from_bytes(message[2:4], "little")]
    return b""


def fill_value(messages: Messages) -> bytes:
    """Return the value, as stored, of what was never written; empty for zero."""
    for kind, message in messages:
        if kind != _FILL or len(message) < 2:
            continue
        start = 2 if message[0] == 3 else 4
        if message[1] & 0x20 if message[0] == 3 else message[3:4] == b"\1":
            return message[start + 4 : start + 4 + int.from_bytes(message[start : start + 4], "little")]
    return b""


def _attribute(message: bytes) -> tuple[str, bytes, bytes, bytes] | None:
    """Return name, type, space and data of an attribute; ``None`` if its type is kept elsewhere."""
    if len(message) < 9 or message[0] > 3 or (message[0] > 1 and message[1]):
        return None
    step, place = (8 if message[0] == 1 else 1), (9 if message[0] == 3 else 8)
    parts = []
    for size in struct.unpack_from("<3H", message, 2):
        parts.append(message[place : place + size])
        place += -(-size // step) * step
    if len(parts[1]) < 8 or len(parts[2]) < 4:
        return None
    return _decoded(parts[0]), parts[1], parts[2], message[place:]


def _decoded(text: bytes) -> str:
    return text.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _length(space: bytes) -> int:
    """Return how many values a space holds."""
    version, rank = space[0], space[1]
    if version > 1 and space[3] == 2:
        return 0
    start, count = (8 if version == 1 else 4), 1
    for axis in range(rank):
        count *= int.from_bytes(space[start + 8 * axis : start + 8 * axis + 8], "little")
    return count
