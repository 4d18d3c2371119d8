"""The table of LevelDB that TensorFlow keeps its indexes in: sorted keys, each with a few bytes.

Layout: data blocks, a meta block, an index block, a footer ("LevelDB's table format", leveldb 1.23;
TensorFlow 2.21 writes the same). A block ends in its type (0 plain, 1 snappy) and its masked CRC-32C. In it
each key is stored without what it shares with the key before; at the restart points whole keys stand.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.files import crc32c
from paratree.files.local import LocalFile, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER = 48
_TRAILER = 5  # type and CRC
_PLAIN, _SNAPPY = 0, 1
_LARGEST_BLOCK = 1 << 26  # bytes; TensorFlow begins a new one at 1 << 18
_MOST_RATIO = 22  # a copy of three bytes stands for at most 64
_MOST_EXPANSION = 64  # bytes of all keys, written out, to a byte of the file
_LONGEST_VARINT = 10


def is_table(file: LocalFile) -> bool:
    """Tell whether the file ends as a table does."""
    return file.size >= FOOTER + 2 * (_TRAILER + 8) and read(file, file.size - 8, 8) == MAGIC


def read_table(file: LocalFile) -> Iterator[tuple[bytes, bytes]]:
    """Yield keys and values in order.

    Raises:
        CorruptFileError: a checksum is wrong, keys are out of order, or bytes belong to no block.
    """
    start = file.size - FOOTER
    footer = Cursor(file, read(file, start, FOOTER - 8), start)
    meta, index = footer.handle(), footer.handle()
    if any(footer.rest()):
        raise file_fault(file, "the footer holds more than two places", start)
    end, last, left = 0, None, _MOST_EXPANSION * file.size
    for separator, value, place in _entries(file, _block(file, index), index[0]):
        handle = Cursor(file, value, place)
        where = handle.handle()
        if where[0] != end or handle.rest():
            raise file_fault(file, f"a block should begin at byte {end}, where the one before ends", place)
        end += where[1] + _TRAILER
        for key, value, at in _entries(file, _block(file, where), where[0]):
            left -= len(key)
            if left < 0 or (last is not None and key <= last):
                what = (
                    "are longer than its bytes can tell"
                    if left < 0
                    else "are out of order, or one stands twice"
                )
                raise file_fault(file, f"its keys {what}", at)
            last = key
            yield key, value
        if last is None or last > separator:
            raise file_fault(file, "a key is beyond what the index says", where[0])
    for place, length in (meta, index):
        if place != end:
            raise file_fault(file, f"a block should begin at byte {end}, where the one before ends", place)
        end += length + _TRAILER
    if end != start or any(True for _ in _entries(file, _block(file, meta), meta[0])):
        raise file_fault(file, "it holds more than the blocks of an index", start)


class Cursor:
    """Reads numbers from bytes that were taken from ``offset`` of a file.

    Attributes:
        place: of the next byte.
    """

    def __init__(self, file: LocalFile, data: bytes, offset: int, end: int = -1) -> None:
        self.file, self.data, self.offset, self.place = file, data, offset, 0
        self.end = len(data) if end < 0 else end

    def varint(self) -> int:
        """Return the next number.

        Raises:
            CorruptFileError: it is cut short, or longer than 64 bits.
        """
        value = 0
        for i in range(min(_LONGEST_VARINT, self.end - self.place)):
            byte = self.data[self.place]
            self.place += 1
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if value >> 64:
                    break
                return value
        raise self.fault("a number is cut short or longer than 64 bits")

    def take(self, length: int) -> bytes:
        """Return the next bytes.

        Raises:
            CorruptFileError: there are fewer.
        """
        if length > self.end - self.place:
            raise self.fault(f"{length} bytes are claimed and {self.end - self.place} are left")
        self.place += length
        return self.data[self.place - length : self.place]

    def handle(self) -> tuple[int, int]:
        """Return where a block begins and how long it is, without its trailer."""
        return self.varint(), self.varint()

    def rest(self) -> bytes:
        """Return what is left."""
        return self.data[self.place : self.end]

    def fault(self, reason: str) -> CorruptFileError:
        """Return the error for this place."""
        return file_fault(self.file, reason, self.offset + self.place)


def _block(file: LocalFile, handle: tuple[int, int]) -> bytes:
    """Return a block, checked and unpacked."""
    offset, length = handle
    if length > min(_LARGEST_BLOCK, file.size - FOOTER - _TRAILER) or offset > file.size:
        raise file_fault(file, f"a block claims {length} bytes", min(offset, file.size))
    data = read(file, offset, length + _TRAILER)
    if crc32c.masked(crc32c.checksum(data[: length + 1])) != int.from_bytes(data[length + 1 :], "little"):
        raise file_fault(file, f"the CRC-32C of this block of {length} bytes is not the recorded one", offset)
    kind = data[length]
    if kind not in (_PLAIN, _SNAPPY):
        raise file_fault(file, f"this block is compressed by method {kind}, which is not known", offset)
    return data[:length] if kind == _PLAIN else _unpacked(Cursor(file, data, offset, length))


def _entries(file: LocalFile, block: bytes, offset: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield key, value and place of each entry of a block."""
    count = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * count
    if end < 0 or not count:
        raise file_fault(file, f"a block of {len(block)} bytes cannot have {count} restart points", offset)
    restarts = {int.from_bytes(block[i : i + 4], "little") for i in range(end, len(block) - 4, 4)}
    cursor, key, whole = Cursor(file, block, offset, end), b"", {0}
    while (place := cursor.place) < end:
        shared, rest, length = cursor.varint(), cursor.varint(), cursor.varint()
        if shared > len(key):
            raise cursor.fault(f"a key shares {shared} bytes with one of {len(key)}")
        if not shared:
            whole.add(place)
        key = key[:shared] + cursor.take(rest)
        yield key, cursor.take(length), offset + place
    if not restarts <= whole:
        raise file_fault(file, "a restart point is none", offset)


def _unpacked(packed: Cursor) -> bytes:
    """Return what is compressed with snappy ("Snappy compressed format description", snappy 1.2)."""
    size = packed.varint()
    if size > min(_LARGEST_BLOCK, _MOST_RATIO * len(packed.data)):
        raise packed.fault(f"{packed.end} bytes cannot unpack to the {size} that are claimed")
    found = bytearray()
    while packed.place < packed.end:
        tag = packed.take(1)[0]
        kind, rest = tag & 3, tag >> 2
        if kind == 0:
            length = rest + 1 if rest < 60 else int.from_bytes(packed.take(rest - 59), "little") + 1
            found += packed.take(length)
        else:
            if kind == 1:
                length, distance = (rest & 7) + 4, rest >> 3 << 8 | packed.take(1)[0]
            else:
                length, distance = rest + 1, int.from_bytes(packed.take(2 * kind - 2), "little")
            if not 0 < distance <= len(found):
                raise packed.fault(f"a copy from {distance} bytes back, after {len(found)} bytes")
            start = len(found) - distance
            repeated = found[start : start + length]
            found += (repeated * (length // len(repeated) + 1))[:length]
        if len(found) > size:
            break
    if len(found) != size:
        raise packed.fault(f"the block unpacks to {len(found)} bytes and claims {size}")
    return bytes(found)


def file_fault(file: LocalFile, reason: str, offset: int) -> CorruptFileError:
    """Return the error for a place of the file."""
    return CorruptFileError(file.path, reason, offset=offset)
