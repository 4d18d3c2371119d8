"""Where the chunks of an HDF5 array are: a tree in the older form, one of five ways in the newer.

Only the chunks inside of the array are told; a file may keep some that were cut off when it shrank.
Format: HDF5 File Format Specification 3.0, sections III.A and VII.
"""

from __future__ import annotations

import struct
from math import prod

from paratree.files.hdf5_dense import records
from paratree.files.hdf5_messages import EXTENSIBLE_ARRAY, FIXED_ARRAY, IMPLICIT, NEW_TREE, SINGLE
from paratree.files.hdf5_reader import NOWHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from paratree.files.hdf5_messages import Layout, Space
    from paratree.files.hdf5_reader import Reader

    Piece = tuple[tuple[int, ...], int, int, int]  # start, filter mask, address, stored bytes
    Entry = tuple[int, int, int, int]  # number of a chunk, filter mask, address, stored bytes

_PLAIN, _FILTERED = 10, 11  # kinds of trees of chunks


class Grid:
    """The chunks of one array: how long they are, how many there can be along each axis."""

    def __init__(self, layout: Layout, space: Space) -> None:
        self.layout, self.lengths = layout, layout.chunk[:-1]
        self.size = prod(layout.chunk)
        self._shape = space.shape or ()
        most = [-(-n // m) for n, m in zip(space.most, self.lengths, strict=True)]
        endless = [axis for axis, n in enumerate(space.most) if n == NOWHERE]
        self._axes = list(range(len(most)))  # as the chunks are counted, the slowest first
        if layout.index == EXTENSIBLE_ARRAY and endless:  # the one that grows is counted last
            self._axes = [endless[0], *(axis for axis in self._axes if axis != endless[0])]
        self._counts = [most[axis] for axis in self._axes]

    @property
    def count(self) -> int:
        """How many chunks the array can have."""
        return prod(self._counts)

    def start(self, number: int) -> tuple[int, ...] | None:
        """Return where the chunk that is counted as ``number`` begins; ``None`` if that is outside."""
        found = [0] * len(self._axes)
        for axis, count in zip(reversed(self._axes[1:]), reversed(self._counts[1:]), strict=True):
            number, found[axis] = divmod(number, max(count, 1))
        if self._axes:
            found[self._axes[0]] = number
        return self.inside([n * m for n, m in zip(found, self.lengths, strict=True)])

    def inside(self, start: list[int]) -> tuple[int, ...] | None:
        """Return the start of a chunk, or ``None`` if it is outside."""
        return tuple(start) if all(n < m for n, m in zip(start, self._shape, strict=True)) else None


def chunks_of(reader: Reader, layout: Layout, space: Space) -> Iterator[Piece]:
    """Yield every chunk that was written.

    Raises:
        CorruptFileError: what says where they are is damaged.
        UnsafeFileError: it says far more than a file can mean to.
    """
    if layout.address == NOWHERE:
        return
    grid = Grid(layout, space)
    if layout.index in (0, NEW_TREE):
        tree = _old_tree if layout.index == 0 else _new_tree
        found = ((grid.inside(start), mask, place, size) for start, mask, place, size in tree(reader, grid))
    else:
        counted = _COUNTED[layout.index](reader, grid)
        found = ((grid.start(number), mask, place, size) for number, mask, place, size in counted)
    for at, mask, place, size in found:
        if at is not None and place != NOWHERE:
            yield at, mask, place, size


def _old_tree(reader: Reader, grid: Grid) -> Iterator[tuple[list[int], int, int, int]]:
    axes = len(grid.lengths)
    entry = struct.Struct(f"<2I{axes + 2}Q")  # bytes, mask, start on each axis and in a value, address
    waiting, seen = [(grid.layout.address, -1)], set()
    while waiting:
        address, level = waiting.pop()
        head = reader.take(address, 24, b"TREE\1")
        if level not in (-1, head[5]) or address in seen:
            raise reader.fault("two branches of a tree meet here, or one goes down too far", address)
        seen.add(address)
        used = int.from_bytes(head[6:8], "little")
        reader.step(address, used + 1)
        for size, mask, *start, _, place in entry.iter_unpack(reader.take(address + 24, used * entry.size)):
            if head[5]:
                waiting.append((place, head[5] - 1))
            else:
                yield start, mask, place, size


def _new_tree(reader: Reader, grid: Grid) -> Iterator[tuple[list[int], int, int, int]]:
    """Yield from a tree of version 2, whose records say an address and which chunk along each axis."""
    axes = len(grid.lengths)
    kind = reader.peek(grid.layout.address, 6)[5:]
    filtered = kind == bytes([_FILTERED])
    for record in records(reader, grid.layout.address, _FILTERED if filtered else _PLAIN):
        (address,), numbers = struct.unpack_from("<Q", record), record[len(record) - 8 * axes :]
        start = [n * m for n, m in zip(struct.unpack(f"<{axes}Q", numbers), grid.lengths, strict=True)]
        size, mask = _packing(record[8 : len(record) - 8 * axes]) if filtered else (grid.size, 0)
        yield start, mask, address, size


def _packing(entry: bytes) -> tuple[int, int]:
    """Return stored bytes and filter mask, of which the last four bytes are the mask."""
    return int.from_bytes(entry[:-4], "little"), int.from_bytes(entry[-4:], "little")


def _single(_: Reader, grid: Grid) -> Iterator[Entry]:
    size, mask = grid.layout.single or (grid.size, 0)
    yield 0, mask, grid.layout.address, size


def _implicit(reader: Reader, grid: Grid) -> Iterator[Entry]:
    reader.step(grid.layout.address, grid.count)
    for number in range(grid.count):
        yield number, 0, grid.layout.address + number * grid.size, grid.size


def _elements(grid: Grid, data: bytes, filtered: bool, width: int, start: int = 0) -> Iterator[Entry]:
    """Yield the chunks of an array of addresses, which is a part from chunk ``start`` on."""
    for place in range(0, len(data) - width + 1, width):
        entry = data[place : place + width]
        size, mask = _packing(entry[8:]) if filtered else (grid.size, 0)
        yield start + place // width, mask, int.from_bytes(entry[:8], "little"), size


def _width(reader: Reader, address: int, filtered: int, width: int) -> int:
    """Return the bytes of an element, which must fit what is in it."""
    if filtered > 1 or not (13 <= width <= 20 if filtered else width == 8):
        raise reader.fault(f"an array of chunks has elements of {width} bytes", address)
    return width


def _pages(
    reader: Reader, address: int, count: int, most: int, width: int, written: list[bool]
) -> Iterator[tuple[int, bytes]]:
    """Yield the first element and the bytes of each page that was written, of an array of elements."""
    for is_there, start in zip(written, range(0, count, most), strict=True):
        size = min(most, count - start) * width + 4
        if is_there:
            reader.step(address, size // width)
            yield start, reader.checked(address, size)
        address += size


def _bit(bits: bytes, number: int) -> bool:
    return bool(bits[number // 8] & 0x80 >> number % 8)


def _fixed_array(reader: Reader, grid: Grid) -> Iterator[Entry]:
    header = grid.layout.address
    head = reader.checked(header, 28, b"FAHD\0")
    filtered, width, bits, count, address = struct.unpack_from("<3B2Q", head, 5)
    width = _width(reader, header, filtered, width)
    if address == NOWHERE:
        return
    if count <= 1 << min(bits, 63):
        reader.step(address, count)
        block = reader.checked(address, 14 + count * width + 4, b"FADB\0")
        yield from _elements(grid, block[14:], bool(filtered), width)
        return
    pages = (count - 1 >> bits) + 1
    marks = (pages + 7) // 8
    bitmap = reader.checked(address, 14 + marks + 4, b"FADB\0")[14:]
    reader.step(address, pages)
    written = [_bit(bitmap, page) for page in range(pages)]
    for start, data in _pages(reader, address + 18 + marks, count, 1 << bits, width, written):
        yield from _elements(grid, data, bool(filtered), width, start)


class _Extensible:
    """An array that grows: a few elements in its index, then blocks of them, each row of which doubles."""

    def __init__(self, reader: Reader, grid: Grid) -> None:
        self._reader, self._grid, self._header = reader, grid, grid.layout.address
        head = reader.checked(self._header, 72, b"EAHD\0")
        filtered, width, bits, *sizes, page = struct.unpack_from("<7B", head, 5)
        self._held, self._least, self._pointers = sizes
        (self._index,) = struct.unpack_from("<Q", head, 60)
        self._filtered, self._width = bool(filtered), _width(reader, self._header, filtered, width)
        odd = any(n < 1 or n & (n - 1) for n in (self._least, self._pointers))
        if odd or not self._least.bit_length() <= bits <= 64 or page > 63:
            raise reader.fault("the sizes of an array of chunks do not fit each other", self._header)
        self._place, self._page = (bits + 7) // 8, 1 << page
        self._rows = 1 + bits - (self._least.bit_length() - 1)

    def __iter__(self) -> Iterator[Entry]:
        if self._index == NOWHERE:
            return
        in_index = min(2 * (self._pointers.bit_length() - 1), self._rows)  # rows whose blocks the index lists
        blocks = sum(1 << row // 2 for row in range(in_index))
        held, above = self._held * self._width, self._rows - in_index
        body = self._reader.checked(self._index, 14 + held + 8 * (blocks + above) + 4, b"EAIB\0")[14:]
        yield from _elements(self._grid, body[:held], self._filtered, self._width)
        places = iter(struct.unpack_from(f"<{blocks + above}Q", body, held))
        start = self._held
        for row in range(self._rows):
            count, length = 1 << row // 2, self._least << (row + 1) // 2
            if row < in_index:
                for at in range(start, start + count * length, length):
                    yield from self._block(next(places), at, length, [])
            elif (address := next(places)) != NOWHERE:
                yield from self._row(address, start, count, length)
            start += count * length

    def _row(self, address: int, start: int, count: int, length: int) -> Iterator[Entry]:
        """Yield from a block that lists blocks, and which of their pages were written."""
        pages = length // self._page if length > self._page else 0
        marks = count * ((pages + 7) // 8)
        head = 14 + self._place
        self._reader.step(address, count * (pages + 1))
        body = self._reader.checked(address, head + marks + 8 * count + 4, b"EASB\0")[head:]
        written = body[:marks]
        for i, place in enumerate(struct.unpack_from(f"<{count}Q", body, marks)):
            there = [_bit(written, page) for page in range(i * pages, (i + 1) * pages)]
            yield from self._block(place, start + i * length, length, there)

    def _block(self, address: int, start: int, length: int, pages: list[bool]) -> Iterator[Entry]:
        """Yield from a block of elements, in one piece or in pages, of which some were written."""
        if address == NOWHERE:
            return
        head, size = 14 + self._place, length * self._width
        self._reader.step(address, 0 if pages else length)
        block = self._reader.checked(address, head + (0 if pages else size) + 4, b"EADB\0")
        parts = iter([(0, block[head:])])
        if pages:
            parts = _pages(self._reader, address + head + 4, length, self._page, self._width, pages)
        for first, data in parts:
            yield from _elements(self._grid, data, self._filtered, self._width, start + first)


def _extensible_array(reader: Reader, grid: Grid) -> Iterator[Entry]:
    return iter(_Extensible(reader, grid))


_COUNTED = {
    SINGLE: _single,
    IMPLICIT: _implicit,
    FIXED_ARRAY: _fixed_array,
    EXTENSIBLE_ARRAY: _extensible_array,
}
