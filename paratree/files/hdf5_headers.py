"""What heads an HDF5 file and its objects: the superblock, and messages of either form of header.

Format: HDF5 File Format Specification 3.0, sections II.A and IV.A.1.
"""

from __future__ import annotations

import struct

from paratree.core.errors import CorruptFileError
from paratree.files.hdf5_reader import Reader
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from paratree.files.local import Source

    Messages = list[tuple[int, bytes]]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
SPACE, LINKS, TYPE, OLD_FILL, FILL, LINK = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06  # kinds of messages
EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE, SYMBOLS, ATTRIBUTES = 0x07, 0x08, 0x0B, 0x0C, 0x11, 0x15
_CONTINUATION = 0x10
_BASES = (0, 512, 1024, 2048)  # where the file may begin, after a user block
_OLD = {0: 24, 1: 28}  # versions of the superblock without a checksum -> where its addresses begin
_NEW = (2, 3)
_LARGEST = 4 << 20  # bytes of a header in one piece
_SHARED = 2  # flag of a message that is kept elsewhere
_COMMITTED = 2  # ... in the header of an object, which others refer to as well
_MESSAGE = struct.Struct("<HHB3x")  # kind, bytes, flags
_NEW_MESSAGE, _ORDERED = struct.Struct("<BHB"), struct.Struct("<BHBxx")
_PLACE = struct.Struct("<2Q")


def base_of(head: bytes) -> int | None:
    """Return where HDF5 begins in a file that begins with ``head``, or ``None``."""
    return next((start for start in _BASES if head.startswith(SIGNATURE, start)), None)


def first(messages: Messages, kind: int) -> bytes | None:
    """Return the content of the first message of a kind."""
    return next((message for found, message in messages if found == kind), None)


class Headers:
    """The headers of one file.

    Attributes:
        reader: reads what they lead to.
        root: the address of the root group.
    """

    def __init__(self, source: Source) -> None:
        base = base_of(read(source, 0, min(source.size, _BASES[-1] + len(SIGNATURE))))
        if base is None:
            raise CorruptFileError(source.path, "this is no HDF5 file", offset=0, member=source.member)
        self.reader = Reader(source, base)
        self._committed: dict[tuple[int, int], bytes] = {}
        version = self.reader.peek(0, 9).ljust(9, b"\xff")[8]
        if version in _OLD:
            place = _OLD[version]
            block = self.reader.take(0, place + 48)
            sizes, (old_base, _, end, _, _, self.root) = block[13:15], struct.unpack_from("<6Q", block, place)
        elif version in _NEW:
            block = self.reader.checked(0, 48)
            sizes, (old_base, _, end, self.root) = block[9:11], struct.unpack_from("<4Q", block, 12)
        else:
            raise self.reader.fault(f"version {version} of HDF5 is not known", 8)
        if sizes != b"\x08\x08":
            raise self.reader.fault("its addresses are not of 8 bytes, as everybody writes them", 8)
        if (missing := end - old_base + base - source.size) > 0:
            raise self.reader.fault(f"the file ends {missing} bytes before it says", source.size - base)

    def messages(self, address: int) -> Messages:
        """Return kind and content of every message in the header of the object at an address.

        Raises:
            CorruptFileError: the header is damaged, or leads to what is no header.
            UnsafeFileError: it goes on for longer than the file.
        """
        return [
            (kind, self.shared(kind, message, address) if flags & _SHARED else message)
            for kind, flags, message in self._messages(address)
        ]

    def shared(self, kind: int, message: bytes, address: int) -> bytes:
        """Return the content of a message that is kept in the header of another object, a named type."""
        version, where = (*message[:2], 0, 0)[:2]
        place = message[2:10] if version > 1 else message[8:16]
        if len(place) < 8 or version not in (1, 2, 3):
            raise self.reader.fault("a message that is kept elsewhere does not say where", address)
        if version == 3 and where != _COMMITTED:
            raise self.reader.unknown("a message is kept in a heap of shared messages", address)
        key = (int.from_bytes(place, "little"), kind)
        if key not in self._committed:
            found = next((m for m in self._messages(key[0]) if m[0] == kind), None)
            if found is None or found[1] & _SHARED:
                raise self.reader.fault("here should be a type that others refer to", key[0])
            self._committed[key] = found[2]
        return self._committed[key]

    def _messages(self, address: int) -> list[tuple[int, int, bytes]]:
        head = self.reader.peek(address, 32)
        if head[:5] == b"OHDR\2" and len(head) == 32:
            flags = head[5]
            start = 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)  # times, limits
            width = 1 << (flags & 3)
            size = start + width + int.from_bytes(head[start : start + width], "little") + 4
            return self._new(address, size, start + width, _ORDERED if flags & 4 else _NEW_MESSAGE)
        if head[:1] == b"\1" and len(head) >= 16:
            return self._old(address, int.from_bytes(head[8:12], "little"))
        raise self.reader.fault("here should be the header of an object", address)

    def _old(self, address: int, size: int) -> list[tuple[int, int, bytes]]:
        chunks, found = [(address + 16, size)], []
        for place, length in chunks:
            self._check_size(length, place)
            found += self._split(self.reader.take(place, length), 0, _MESSAGE, place, chunks)
        return found

    def _new(self, address: int, size: int, start: int, form: struct.Struct) -> list[tuple[int, int, bytes]]:
        chunks, found, signature = [(address, size)], [], b"OHDR"
        for place, length in chunks:
            self._check_size(length, place)
            found += self._split(self.reader.checked(place, length, signature), start, form, place, chunks)
            start, signature = 4, b"OCHK"
        return found

    def _check_size(self, length: int, place: int) -> None:
        if length > _LARGEST:
            raise self.reader.fault(f"a header of {length} bytes is too large", place)

    def _split(
        self, chunk: bytes, place: int, form: struct.Struct, address: int, chunks: list[tuple[int, int]]
    ) -> list[tuple[int, int, bytes]]:
        """Return kind, flags and content of the messages in a piece; add the pieces that it leads to."""
        found = []
        while place + form.size <= len(chunk):
            kind, size, flags = form.unpack_from(chunk, place)
            start = place + form.size
            place = start + size
            if place > len(chunk):
                raise self.reader.fault("a header says more than it has place for", address + start)
            if kind == _CONTINUATION and size >= _PLACE.size:
                chunks.append(_PLACE.unpack_from(chunk, start))
            elif kind:  # zero is a gap
                found.append((kind, flags, chunk[start:place]))
            self.reader.step(address)
        return found
