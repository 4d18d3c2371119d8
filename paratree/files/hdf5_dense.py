"""What the newer form of HDF5 keeps apart when there is much of it: fractal heaps, and trees of version 2.

Format: HDF5 File Format Specification 3.0, sections III.A.2 and III.G.
"""

from __future__ import annotations

import struct

from paratree.files import lookup3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from paratree.files.hdf5_reader import Reader

_HUGE, _LINK_NAMES, _ATTRIBUTE_NAMES = 1, 5, 8  # what a tree holds
_NODE = 10  # bytes of a node beside its records: signature, version, kind, checksum
_LARGEST_BLOCK = 16 << 20
_MANAGED, _HUGE_OBJECT = 0, 1  # kinds of objects in a heap


def links(reader: Reader, heap: int, tree: int) -> Iterator[bytes]:
    """Yield the messages of the links in a group."""
    held = Heap(reader, heap)
    for record in records(reader, tree, _LINK_NAMES):  # a hash of the name, then an id in the heap
        yield held.object(record[4:])


def attributes(reader: Reader, heap: int, tree: int) -> Iterator[bytes]:
    """Yield the messages of the attributes of an object."""
    held = Heap(reader, heap)
    for record in records(reader, tree, _ATTRIBUTE_NAMES):  # an id in the heap, flags, order, hash
        if record[8:9] != b"\0":
            raise reader.unknown("an attribute is kept in a heap of shared messages", tree)
        yield held.object(record[:8])


def records(reader: Reader, address: int, kind: int) -> Iterator[bytes]:
    """Yield the records of a tree of version 2.

    Raises:
        CorruptFileError: a node is damaged, or is there twice.
        UnsafeFileError: there are too many.
    """
    head = reader.checked(address, 38, b"BTHD\0")
    found, node_size, width, depth, _, _, root, count, _ = struct.unpack("<BIHHBBQHQ", head[5:])
    if found != kind or not width or node_size <= _NODE:
        raise reader.fault(f"a tree of records of kind {found} is no such tree", address)
    most = (node_size - _NODE) // width
    counter = _width(most)  # bytes that say how many records are in a node
    pointers = [0]  # bytes of a pointer in a node of each level: address, records in the node, and below it
    for level in range(depth):
        pointer = 8 + counter + (_width(most) if level else 0)
        pointers.append(pointer)
        room = (node_size - _NODE - pointer) // (width + pointer)
        most = (room + 1) * most + room
        if room < 1 or _width(most) > 8:
            raise reader.fault("a tree is deeper than its nodes have place for", address)
    waiting, seen = [(root, count, depth)] if count else [], set()
    while waiting:
        place, count, level = waiting.pop()
        if place in seen:
            raise reader.fault("two branches of a tree meet here", place)
        seen.add(place)
        reader.step(place, count + 1)
        pointer = pointers[level]
        size = _NODE + count * width + (count + 1) * pointer
        node = reader.checked(place, size, (b"BTIN\0" if level else b"BTLF\0") + bytes([kind]))
        yield from (node[6 + i * width : 6 + (i + 1) * width] for i in range(count))
        for i in range(count + 1 if level else 0):
            at = 6 + count * width + i * pointer
            below = int.from_bytes(node[at + 8 : at + 8 + counter], "little")
            waiting.append((int.from_bytes(node[at : at + 8], "little"), below, level - 1))


def _width(most: int) -> int:
    """Return how many bytes a number up to ``most`` takes."""
    return (max(most, 1).bit_length() + 7) // 8


class Heap:
    """A fractal heap: objects in blocks that double in size, row by row, and blocks that list blocks."""

    def __init__(self, reader: Reader, address: int) -> None:
        self._reader, self._address = reader, address
        head = reader.checked(address, 146, b"FRHP\0")
        self._id, filters, flags, most = struct.unpack_from("<HHBI", head, 5)
        (self._huge_tree,) = struct.unpack_from("<Q", head, 22)
        self._columns, self._first, self._largest, bits = struct.unpack_from("<HQQH", head, 110)
        self._root, self._rows = struct.unpack_from("<QH", head, 132)
        if filters:
            raise reader.unknown("a heap is compressed", address)
        powers = (self._columns, self._first, self._largest)
        if any(n < 1 or n & (n - 1) for n in powers) or not self._first <= self._largest <= _LARGEST_BLOCK:
            raise reader.fault("the sizes of a heap's blocks are no powers of two", address)
        self._checked = bool(flags & 2)
        self._place = (bits + 7) // 8  # bytes of an offset
        self._length = min((self._largest.bit_length() + 6) // 8, _width(most))
        self._blocks: dict[int, bytes] = {}
        self._huge: dict[int, tuple[int, int]] | None = None

    def object(self, id: bytes) -> bytes:
        """Return the object with an id.

        Raises:
            CorruptFileError: it, or the block that it is in, is not there or damaged.
        """
        kind = id[0] >> 4 if len(id) == self._id else -1
        if kind == _HUGE_OBJECT:
            return self._huge_object(int.from_bytes(id[1:], "little"))
        if kind != _MANAGED:
            raise self._reader.fault("an id means no object of this heap", self._address)
        offset = int.from_bytes(id[1 : 1 + self._place], "little")
        length = int.from_bytes(id[1 + self._place : 1 + self._place + self._length], "little")
        block, start = self._block(offset)
        inside = offset - start
        self._reader.step(self._address, 1 + length // 64)
        if not length or inside + length > len(block):
            raise self._reader.fault("an object reaches beyond its block", self._address)
        return block[inside : inside + length]

    def _huge_object(self, number: int) -> bytes:
        if self._huge is None:
            huge = records(self._reader, self._huge_tree, _HUGE)
            self._huge = {
                key: (place, length) for place, length, key in map(struct.Struct("<3Q").unpack, huge)
            }
        if number not in self._huge:
            raise self._reader.fault("an id means no object of this heap", self._address)
        return self._reader.take(*self._huge[number])

    def _block(self, offset: int) -> tuple[bytes, int]:
        """Return the block in which an offset is, and the offset of its first byte."""
        address, rows, start, size = self._root, self._rows, 0, self._first
        while rows:
            row, size, below = 0, self._first, start  # the first two rows are of blocks of one size
            while offset >= below + self._columns * size:
                below += self._columns * size
                row, size = row + 1, size << min(row, 1)
            if row >= rows:
                raise self._reader.fault("an object is in no block of its heap", address)
            column = (offset - below) // size
            address = self._listed(address, rows, start)[row * self._columns + column]
            start = below + column * size
            rows = 0 if size <= self._largest else (size // (self._first * self._columns)).bit_length()
        if size > self._largest:
            raise self._reader.fault("a block of a heap is too small to list others", address)
        return self._direct(address, size, start), start

    def _listed(self, address: int, rows: int, start: int) -> tuple[int, ...]:
        """Return the addresses that a block of blocks lists."""
        count = rows * self._columns
        head = 13 + self._place
        if address not in self._blocks:
            block = self._reader.checked(address, head + 8 * count + 4, b"FHIB\0")
            self._blocks[address] = self._verified(block, address, start)
        return struct.unpack_from(f"<{count}Q", self._blocks[address], head)

    def _direct(self, address: int, size: int, start: int) -> bytes:
        """Return a block of objects; the checksum in it is that of the block with zeros in its place."""
        if address not in self._blocks:
            block, at = self._reader.take(address, size, b"FHDB\0"), 13 + self._place
            if self._checked:
                stored = int.from_bytes(block[at : at + 4], "little")
                if lookup3.checksum(block[:at] + bytes(4) + block[at + 4 :]) != stored:
                    raise self._reader.fault("its checksum is wrong", address)
            self._blocks[address] = self._verified(block, address, start)
        return self._blocks[address]

    def _verified(self, block: bytes, address: int, start: int) -> bytes:
        heap, place = block[5:13], block[13 : 13 + self._place]
        if int.from_bytes(heap, "little") != self._address or int.from_bytes(place, "little") != start:
            raise self._reader.fault("a block is of another heap, or of another place in it", address)
        return block
