"""A TensorBundle: an index of tensors (a table), and their bytes in shards beside it.

Messages: ``BundleHeaderProto`` and ``BundleEntryProto`` of tensor_bundle.proto, ``TensorSliceProto``; keys of
the slices of a partitioned variable and strings as in tensor_bundle.h and ordered_code.h (TensorFlow 2.21).
"""

from __future__ import annotations

from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS
from paratree.core.errors import CorruptFileError, UnsupportedError, printable
from paratree.files import crc32c
from paratree.files.array import MOST_AXES, check_shape, file_array
from paratree.files.composed import DecodedArray, composed_array
from paratree.files.folder import beside
from paratree.files.local import LocalFile, Memory, Window, read
from paratree.files.protobuf import BYTES, FIXED32, VARINT, Wire, signed
from paratree.formats._tensorflow_table import Cursor, file_fault, read_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy as np

    from paratree.core.array import LazyArray
    from paratree.files.composed import Part
    from paratree.files.protobuf import Span

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VERSION = 1  # of the bundle; a reader must be as new as the header asks
_V1 = b"\x0a"  # a message comes first, not the number of shards
_SLICE = b"\0"  # how keys of slices begin
_MOST_SHARDS = 100_000  # five digits in a name
_NEWER = "a newer paratree may read it"
DTYPES = {  # number in types.proto -> name
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64", 9: "int64",
    10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64",
    24: "float8_e5m2", 25: "float8_e4m3fn", 26: "float8_e4m3fnuz", 27: "float8_e4m3b11fnuz",
    28: "float8_e5m2fnuz", 29: "int4", 30: "uint4", 31: "int2", 32: "uint2", 33: "float4_e2m1fn",
}  # fmt: skip
QUANTISED = {11: "qint8", 12: "quint8", 13: "qint32", 15: "qint16", 16: "quint16"}
_STRING = 7
_REFUSALS = {
    _STRING: ("string", "text; paratree reads numbers"),
    20: ("resource", "a handle of a running program, which means nothing in a file"),
    21: ("variant", "a structure of TensorFlow's own; restore it with TensorFlow"),
}


class Entry:
    """What the index says about a tensor or a slice of one."""

    __slots__ = ("crc", "dtype", "name", "offset", "shape", "shard", "size", "slices")

    def __init__(self, name: str) -> None:
        self.name = name
        self.dtype = self.shard = self.offset = self.size = self.crc = 0
        self.shape: list[int] = []
        self.slices: list[list[tuple[int, int]]] = []  # start and length along each axis; -1 is all of it

    @property
    def content(self) -> tuple[object, ...]:
        """What is equal for tensors of equal values."""
        return self.dtype, tuple(self.shape), self.size, self.crc

    @property
    def place(self) -> tuple[object, ...]:
        """What is equal for tensors that are one."""
        return self.shard, self.offset, *self.content


class Bundle:
    """The tensors of a checkpoint by their keys; its shards are open.

    Attributes:
        entries: key -> what the index says, in the index's order.
        arrays: key -> its array.
        shards: the open files of the shards that hold something.
        count: how many shards there are.
        big_endian: whether the most significant byte of a value comes first.
    """

    def __init__(self, file: LocalFile) -> None:
        self.file = file
        table = read_table(file)
        key, header = next(table, (b"x", b""))
        if key:
            raise file_fault(file, "the index does not begin with a header, as one of a checkpoint does", 0)
        if header.startswith(_V1):
            raise UnsupportedError(
                f"{printable(file.path)}: a checkpoint in the first format of TensorFlow, which none of its "
                "versions since 0.12 writes; restore and save it with tf.compat.v1.train.Saver"
            )
        self.count, self.big_endian = _header(Wire(Memory(header, file.path, "header")))
        self.shards: dict[int, LocalFile] = {}
        self.entries: dict[str, Entry] = {}
        self._parts: dict[bytes, Entry] = {}  # slices, until their tensor is met
        self._stored: list[Entry] = []  # what has bytes of its own
        self._shapes: dict[bytes, list[int]] = {}  # as stored: most are met again
        for key, value in table:
            self._add(key, value)
        self.arrays = {name: self._array(entry) for name, entry in self.entries.items()}
        if self._parts:
            part = next(iter(self._parts.values()))
            raise CorruptFileError(file.path, "a slice of a tensor that has no such slice", member=part.name)
        self._check_layout()

    def graph(self) -> Memory | None:
        """Return the serialised graph of objects, if there is one; its checksum is checked."""
        entry = self.entries.get(GRAPH)
        if entry is None or entry.dtype != _STRING or entry.shape or entry.slices:
            return None
        place = Cursor(self.file, read(self._window(entry), 0, min(entry.size, 10)), entry.offset)
        length = place.varint()
        if place.place + 4 + length != entry.size:
            raise CorruptFileError(
                self.shards[entry.shard].path, f"a text of {length} bytes is claimed to take {entry.size}",
                offset=entry.offset, member=GRAPH,
            )  # fmt: skip
        data = read(self._window(entry), place.place, 4 + length)
        width = 4 if length < 1 << 32 else 8
        lengths = crc32c.checksum(length.to_bytes(width, "little"))
        if _are_wrong(data, lengths, entry.crc):
            raise _wrong(self.shards[entry.shard].path, GRAPH)
        return Memory(data[4:], self.file.path, GRAPH)

    def close(self) -> None:
        """Close the index and every shard."""
        for file in (self.file, *self.shards.values()):
            file.close()

    def loose(self) -> int:
        """Return how many bytes at the ends of the shards belong to no tensor."""
        ends = dict.fromkeys(self.shards, 0)
        for entry in self._stored:
            ends[entry.shard] = max(ends[entry.shard], entry.offset + entry.size)
        return sum(self.shards[shard].size - end for shard, end in ends.items())

    def _add(self, key: bytes, value: bytes) -> None:
        name = _name(self.file, key)
        entry = _entry(Wire(Memory(value, self.file.path, name)), name, self._shapes)
        if key.startswith(_SLICE):
            self._parts[key] = entry
        elif name in self.entries:
            raise CorruptFileError(self.file.path, "two tensors have this name", member=name)
        else:
            self.entries[name] = entry

    def _array(self, entry: Entry) -> LazyArray:
        if not entry.slices:
            return self._whole(entry)
        if (dtype := DTYPES.get(entry.dtype)) is None:
            raise self._fault(entry, f"a dtype of number {entry.dtype} does not come in slices")
        parts: list[Part] = []
        shape = check_shape(entry.shape, self.file, entry.name)
        for extents in entry.slices:
            key = _slice_key(entry.name, extents)
            if (part := self._parts.pop(key, None)) is None:
                raise self._fault(entry, f"the index does not hold its slice {extents}")
            lengths = [n if length < 0 else length for n, (_, length) in zip(shape, extents, strict=True)]
            if part.shape != lengths or part.dtype != entry.dtype or part.slices:
                raise self._fault(entry, f"its slice {extents} is of another shape or dtype")
            self._stored.append(part)
            parts.append((tuple(start for start, _ in extents), self._numbers(part, dtype)))
        return composed_array(self.file, shape, dtype, parts, member=entry.name)

    def _whole(self, entry: Entry) -> LazyArray:
        self._stored.append(entry)
        number = entry.dtype
        if (dtype := DTYPES.get(number)) or (dtype := QUANTISED.get(number, "")[1:]):
            return self._numbers(entry, dtype)
        if number not in _REFUSALS:
            raise CorruptFileError(
                self.file.path, f"its dtype, number {number}, is not one of TensorFlow's", member=entry.name,
                advice=_NEWER,
            )  # fmt: skip
        self._window(entry)
        shape = check_shape(entry.shape, self.file, entry.name)
        word, why = _REFUSALS[number]
        return RefusedArray(shape, word, f"{printable(entry.name)}: {why}")

    def _numbers(self, entry: Entry, dtype: str) -> LazyArray:
        stored = Stored(self._window(entry), entry.crc)
        kept = "uint8" if BITS[dtype] < 8 else dtype  # a byte each
        array = file_array(stored, 0, entry.shape, kept, big_endian=self.big_endian, member=entry.name)
        if array.nbytes != entry.size:
            raise self._fault(entry, f"{dtype} {entry.shape} takes {array.nbytes} bytes, not {entry.size}")
        if kept == dtype:
            return array
        return DecodedArray(array.shape, dtype, lambda: _viewed(array.read(), dtype), array.storage)

    def _window(self, entry: Entry) -> Window:
        if not 0 <= entry.shard < self.count:
            raise self._fault(entry, f"it lies in shard {entry.shard} of {self.count}")
        if (shard := self.shards.get(entry.shard)) is None:
            stem = self.file.path.rpartition("/")[2].removesuffix(".index")
            name = f"{stem}.data-{entry.shard:05d}-of-{self.count:05d}"
            shard = self.shards[entry.shard] = beside(self.file, name, links=True)
        return Window(shard, entry.offset, entry.size, entry.name)

    def _fault(self, entry: Entry, reason: str) -> CorruptFileError:
        return CorruptFileError(self.file.path, reason, member=entry.name)

    def _check_layout(self) -> None:
        """Check that no two tensors share bytes, but for those that are one: they are tied."""
        before: dict[int, Entry] = {}
        for entry in sorted((e for e in self._stored if e.size), key=lambda e: (e.offset, e.size)):
            last = before.setdefault(entry.shard, entry)
            overlaps = last is not entry and entry.offset < last.offset + last.size
            if overlaps and not (
                self._is_whole(last) and self._is_whole(entry) and last.place == entry.place
            ):
                raise CorruptFileError(
                    self.shards[entry.shard].path, "overlaps the tensor before it", offset=entry.offset,
                    member=entry.name,
                )  # fmt: skip
            before[entry.shard] = entry

    def _is_whole(self, entry: Entry) -> bool:
        """Tell whether an entry is a tensor; a slice that stood for many could claim what is not stored."""
        return self.entries.get(entry.name) is entry


class Stored:
    """The bytes of a tensor; when all of them are read, their CRC-32C is checked."""

    def __init__(self, window: Window, crc: int) -> None:
        self.path, self.member, self.size, self.key = window.path, window.member, window.size, window.key
        self._window, self._crc = window, crc

    def readinto(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` from ``offset``.

        Raises:
            CorruptFileError: all was read, and it is not what was written.
        """
        self._window.readinto(view, offset)
        if len(view) == self.size and crc32c.masked(crc32c.checksum(view)) != self._crc:
            raise _wrong(self.path, self.member)


def _wrong(path: str, member: str | None) -> CorruptFileError:
    return CorruptFileError(
        path, "the CRC-32C of its bytes is not the recorded one", member=member,
        advice="the file is damaged, or of another checkpoint than its index: fetch both again",
    )  # fmt: skip


def _are_wrong(data: bytes, lengths: int, crc: int) -> bool:
    """Tell whether the checksum of a text's length, which comes first, or that of all of it is wrong."""
    first, whole = crc32c.masked(lengths), crc32c.masked(crc32c.checksum(data, lengths))
    return first != int.from_bytes(data[:4], "little") or whole != crc


def _viewed(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    from paratree.core.dtypes import numpy_dtype

    return values.view(numpy_dtype(dtype))


def _name(file: LocalFile, key: bytes) -> str:
    """Return the name of the tensor that a key is of."""
    if key.startswith(_SLICE):
        return key[1:].partition(b"\0\1")[0].decode("utf-8", "backslashreplace")
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptFileError(file.path, "its name is not UTF-8", member=repr(key)[2:-1]) from None


def _header(wire: Wire) -> tuple[int, bool]:
    """Return how many shards there are, and whether the most significant byte comes first."""
    count = order = 0
    for number, _, value in wire.fields(None, {1: (VARINT,), 2: (VARINT,), 3: (BYTES,)}):
        if number == 1:
            count = value
        elif number == 2:
            order = value
        else:
            for _, _, version in wire.fields(value, {2: (VARINT,)}):
                if version > _VERSION:
                    raise UnsupportedError(
                        f"{printable(wire.source.path)}: it asks for a reader of version {version}; {_NEWER}"
                    )
    if not 0 < count < _MOST_SHARDS or order > 1:
        raise wire.fault(f"{count} shards of byte order {order} are none that TensorFlow writes", 0)
    return count, order == 1


_FIELDS = {
    1: (VARINT,), 2: (BYTES,), 3: (VARINT,), 4: (VARINT,), 5: (VARINT,), 6: (FIXED32,), 7: (BYTES,),
}  # fmt: skip


def _entry(wire: Wire, name: str, shapes: dict[bytes, list[int]]) -> Entry:
    entry = Entry(name)
    for number, _, value in wire.fields(None, _FIELDS):
        if number == 1:
            entry.dtype = value
        elif number == 2:
            stored = wire.raw(value)
            if stored not in shapes:
                shapes[stored] = _shape(wire, value)
            entry.shape = shapes[stored]
        elif number == 3:
            entry.shard = signed(value)
        elif number == 4:
            entry.offset = signed(value)
        elif number == 5:
            entry.size = signed(value)
        elif number == 6:
            entry.crc = value
        else:
            entry.slices.append([_extent(wire, s) for _, _, s in wire.fields(value, {1: (BYTES,)})])
    if entry.slices and any(len(extents) != len(entry.shape) for extents in entry.slices):
        raise wire.fault("a slice has another number of axes than the tensor", 0)
    return entry


def _shape(wire: Wire, span: Span) -> list[int]:
    shape: list[int] = []
    for number, _, value in wire.fields(span, {2: (BYTES,), 3: (VARINT,)}):
        if number == 3:
            raise wire.fault("a tensor in a file cannot be of unknown rank", span[0])
        if len(shape) == MOST_AXES:
            raise wire.fault(f"more axes are claimed than the {MOST_AXES} that NumPy holds", span[0])
        shape.append(0)
        for _, _, length in wire.fields(value, {1: (VARINT,)}):
            shape[-1] = signed(length)
    return shape


def _extent(wire: Wire, span: Span) -> tuple[int, int]:
    start, length = 0, -1
    for number, _, value in wire.fields(span, {1: (VARINT,), 2: (VARINT,)}):
        if number == 1:
            start = signed(value)
        else:
            length = signed(value)
    return start, length


def _slice_key(name: str, extents: list[tuple[int, int]]) -> bytes:
    """Return the key of a slice: name, rank, start and length along each axis, in a code that sorts."""
    escaped = name.encode().replace(b"\0", b"\0\xff")
    rank = len(extents)
    numbers = (number for extent in extents for number in extent)
    return b"".join([_SLICE, escaped, b"\0\1", bytes([1, rank] if rank else [0]), *map(_ordered, numbers)])


def _ordered(number: int) -> bytes:
    """Return a number in bytes that sort as numbers do: as many leading ones as bytes, then the number."""
    magnitude = number if number >= 0 else ~number
    length = magnitude.bit_length() // 7 + 1
    return ((number ^ ((1 << length) - 1) << 7 * length) & ((1 << 8 * length) - 1)).to_bytes(length, "big")
