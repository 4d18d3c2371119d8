"""What the messages in the header of an HDF5 array say: its shape, type, place, filters and filling.

Pure functions of a message's bytes; they raise :class:`MalformedError`, or ``struct.error`` where a message
is too short, and the caller knows whose header it is.
Format: HDF5 File Format Specification 3.0, section IV.A.2.
"""

from __future__ import annotations

import struct
from math import prod

from paratree.core.dtypes import BITS
from paratree.files.hdf5_headers import FILL, OLD_FILL, first
from paratree.files.hdf5_reader import NOWHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from paratree.files.hdf5_headers import Messages

    Shape = tuple[int, ...]

COMPACT, CONTIGUOUS, CHUNKED, VIRTUAL = range(4)
FIXED_TEXT, VARIABLE = 3, 9  # classes of types
OPAQUE = "opaque bytes"
_MOST_AXES = 32  # H5S_MAX_RANK
_NULL = 2  # a space without values
_FIXED, _FLOAT, _COMPOUND, _ENUM, _COMPLEX = 0, 1, 6, 8, 11  # the last since HDF5 2.0
_WORDS = (
    "integers", "floats", "times", "text", "bit fields", OPAQUE, "compounds", "references", "an unknown type",
    "lists", "arrays in an array", "complex numbers",
)  # fmt: skip
_FLOATS = {  # bytes, then where sign, exponent and fraction are, and the exponent's bias -> name
    (2, 15, 10, 5, 0, 10, 15): "float16", (2, 15, 7, 8, 0, 7, 127): "bfloat16",
    (4, 31, 23, 8, 0, 23, 127): "float32", (8, 63, 52, 11, 0, 52, 1023): "float64",
}  # fmt: skip
_ORDER = {_FIXED: 0x01, _FLOAT: 0x41}  # bits that say the byte order; 0x40 is that of the VAX
SINGLE, IMPLICIT, FIXED_ARRAY, EXTENSIBLE_ARRAY, NEW_TREE = range(1, 6)  # where the places of chunks are
_INDEX_OPTIONS = {SINGLE: 0, IMPLICIT: 0, FIXED_ARRAY: 1, EXTENSIBLE_ARRAY: 5, NEW_TREE: 6}  # bytes of them
_BARE_EDGES, _FILTERED = 1, 2  # flags of chunks of layout 4, and 5 (HDF5 2.0), which differs in limits only


class MalformedError(Exception):
    """A message contradicts itself."""


class Space:
    """Length along each axis, and the most it may grow to; ``shape`` is ``None`` if there are no values."""

    __slots__ = ("most", "shape")

    def __init__(self, shape: Shape | None, most: Shape) -> None:
        self.shape, self.most = shape, most


class Type:
    """The name of a dtype, or another word if NumPy lacks it; whether it is big-endian; bytes of a value."""

    __slots__ = ("big_endian", "name", "width")

    def __init__(self, name: str, big_endian: bool, width: int) -> None:
        self.name, self.big_endian, self.width = name, big_endian, width


class Layout:
    """Where the values of an array are.

    Attributes:
        kind: ``COMPACT``, ``CONTIGUOUS``, ``CHUNKED`` or ``VIRTUAL``.
        address: of the values, or of what says where the chunks are; :data:`NOWHERE` if nothing was written.
        size: bytes of the values, if they are in one piece and the file says it.
        data: the values, if compact.
        chunk: length of a chunk along each axis, and of a value in bytes.
        index: how the places of the chunks are kept; 0 for the tree of the older form.
        single: stored bytes and filter mask, if there is one chunk and it is filtered.
        bare_edges: chunks that reach beyond the array are not filtered.
    """

    __slots__ = ("address", "bare_edges", "chunk", "data", "index", "kind", "single", "size")

    def __init__(
        self, kind: int, address: int = NOWHERE, size: int | None = None, data: bytes = b"",
        chunk: Shape = (), index: int = 0,
    ) -> None:  # fmt: skip
        self.kind, self.address, self.size, self.data = kind, address, size, data
        self.chunk, self.index = chunk, index
        self.single: tuple[int, int] | None = None
        self.bare_edges = False


def space_of(message: bytes) -> Space:
    """Read a dataspace."""
    version, rank, flags, kind = struct.unpack_from("<4B", message)
    if version not in (1, 2) or rank > _MOST_AXES:
        raise MalformedError(f"a shape of {rank} axes, of version {version}, is not known")
    if version == 2 and kind == _NULL:
        return Space(None, ())
    start = 8 if version == 1 else 4
    shape = struct.unpack_from(f"<{rank}Q", message, start)
    return Space(shape, struct.unpack_from(f"<{rank}Q", message, start + 8 * rank) if flags & 1 else shape)


def length_of(message: bytes) -> int:
    """Return how many values a dataspace holds."""
    shape = space_of(message).shape
    return 0 if shape is None else prod(shape)


def type_of(message: bytes) -> Type:
    """Read a datatype; of types inside of types no more than tells numbers and booleans."""
    head, width = struct.unpack_from("<II", message)
    kind = head & 15
    if kind == _ENUM:
        return Type("bool", False, 1) if width == 1 and _is_bool(message) else _plain(message[8:], width)
    half = _half(message, width) if kind == _COMPOUND and head >> 8 & 0xFFFF == 2 else None
    if kind == _COMPLEX:
        half = _plain(message[8:], width // 2)
    if half is not None and half.name in ("float32", "float64"):
        return Type(f"complex{width * 8}", half.big_endian, width)
    return _plain(message, width)


def _plain(message: bytes, width: int) -> Type:
    """Name an integer or floating type of a form that NumPy has."""
    head, size = struct.unpack_from("<II", message)
    kind, name = head & 15, None
    if kind == VARIABLE and head >> 8 & 15 == 1:
        kind = FIXED_TEXT
    if kind not in _ORDER:
        return Type(_WORDS[kind] if kind < len(_WORDS) else _WORDS[_ENUM], False, width)
    if kind == _FIXED:
        offset, precision = struct.unpack_from("<2H", message, 8)
        if offset == 0 and precision == 8 * size:
            name = f"{'' if head >> 8 & 8 else 'u'}int{precision}"
    else:
        *places, bias = struct.unpack_from("<4BI", message, 12)
        name = _FLOATS.get((size, head >> 16 & 0xFF, *places, bias))
    order = head >> 8 & _ORDER[kind]
    if name not in BITS or order > 1 or size != width:
        return Type(f"{_WORDS[kind]} of a form that NumPy lacks ({size} bytes)", False, width)
    return Type(name, order == 1, width)


def _is_bool(message: bytes) -> bool:
    """Tell whether an enumeration of one byte is FALSE = 0 and TRUE = 1, as h5py keeps booleans."""
    version, count = message[0] >> 4, int.from_bytes(message[1:3], "little")
    names, values = (b"FALSE\0TRUE\0", b"TRUE\0FALSE\0"), (b"\0\1", b"\1\0")
    if version < 3:
        names = (b"FALSE\0\0\0TRUE\0\0\0\0", b"TRUE\0\0\0\0FALSE\0\0\0")
    forms = (name + value for name, value in zip(names, values, strict=True))
    base = 12  # bytes of the type of its values, an integer, which comes first
    return count == 2 and any(message.startswith(form, 8 + base) for form in forms)


def _half(message: bytes, width: int) -> Type | None:
    """Return the type of the parts of a complex number: a pair of equal floats called r and i."""
    version, size = message[0] >> 4, width // 2
    pad = 1 if version > 2 else 7
    place_width = 4 if version < 3 else (width.bit_length() + 7) // 8
    members, at = [], 8
    for name, place in ((b"r", 0), (b"i", size)):
        head = name + bytes(pad) + place.to_bytes(place_width, "little")
        head += bytes(28) if version == 1 else b""  # it is no array
        if not message.startswith(head, at):
            return None
        at += len(head)
        members.append(message[at : at + 20])
        at += 20
    first, second = members
    if len(second) < 20 or first != second or first[0] & 15 != _FLOAT:
        return None
    return _plain(first, size) if width == 2 * size else None


def layout_of(message: bytes) -> Layout:
    """Read where the values are."""
    version, kind = struct.unpack_from("<2B", message)
    if version in (1, 2):
        return _old_layout(message)
    if version not in (3, 4, 5) or kind > (CHUNKED if version == 3 else VIRTUAL):
        raise MalformedError(f"a layout of kind {kind}, of version {version}, is not known")
    if kind == COMPACT:
        (size,) = struct.unpack_from("<H", message, 2)
        return Layout(kind, size=size, data=message[4 : 4 + size])
    if kind == CONTIGUOUS:
        return Layout(kind, *struct.unpack_from("<2Q", message, 2))
    if kind == VIRTUAL:
        return Layout(kind)
    if version == 3:
        count, address = struct.unpack_from("<BQ", message, 2)
        return _chunked(address, struct.unpack_from(f"<{count}I", message, 11))
    return _new_chunks(message)


def _old_layout(message: bytes) -> Layout:
    """Read a layout of versions 1 and 2, in which all kinds say how long the axes are."""
    count, kind = struct.unpack_from("<BB", message, 1)
    start = 8 if kind == COMPACT else 16
    lengths = struct.unpack_from(f"<{count}I", message, start)
    if kind == COMPACT:
        (size,) = struct.unpack_from("<I", message, start + 4 * count)
        return Layout(kind, size=size, data=message[start + 4 * count + 4 :][:size])
    (address,) = struct.unpack_from("<Q", message, 8)
    if kind == CONTIGUOUS:
        return Layout(kind, address)
    if kind != CHUNKED:
        raise MalformedError(f"a layout of kind {kind} is not known")
    return _chunked(address, lengths)


def _chunked(address: int, chunk: Shape, index: int = 0) -> Layout:
    if 0 in chunk or not chunk:
        raise MalformedError("a chunk of no length cannot be")
    return Layout(CHUNKED, address, chunk=chunk, index=index)


def _new_chunks(message: bytes) -> Layout:
    """Read the chunks of layouts 4 and 5, which may be kept in five ways."""
    flags, count, width = struct.unpack_from("<3B", message, 2)
    start = 5 + count * width
    if not 1 <= width <= 8 or len(message) < start + 1:
        raise MalformedError("the lengths of a chunk are not there")
    chunk = tuple(int.from_bytes(message[5 + i * width :][:width], "little") for i in range(count))
    index, at, single = message[start], start + 1, None
    if index not in _INDEX_OPTIONS:
        raise MalformedError(f"chunks kept in way {index} are not known")
    if index == SINGLE and flags & _FILTERED:
        single, at = struct.unpack_from("<QI", message, at), at + 12
    (address,) = struct.unpack_from("<Q", message, at + _INDEX_OPTIONS[index])
    found = _chunked(address, chunk, index)
    found.single, found.bare_edges = single, bool(flags & _BARE_EDGES)
    return found


def filters_of(message: bytes | None) -> list[int]:
    """Return the filters that chunks go through, by the numbers that HDF5 gives them."""
    if message is None:
        return []
    version, count = struct.unpack_from("<2B", message)
    if version not in (1, 2):
        raise MalformedError(f"filters of version {version} are not known")
    place, found = (8 if version == 1 else 2), []
    for _ in range(count):
        number, named = struct.unpack_from("<2H", message, place)
        short = version == 2 and number < 256  # of the filters that all know there is no name
        flags_at = place + (2 if short else 4)
        _, values = struct.unpack_from("<2H", message, flags_at)
        name = 0 if short else named if version == 2 else -(-named // 8) * 8
        place = flags_at + 4 + name + 4 * (values + (values % 2 if version == 1 else 0))
        found.append(number)
    if place > len(message):
        raise MalformedError("the filters say more than they have place for")
    return found


def fill_of(messages: Messages) -> bytes:
    """Return the value, as stored, of what was never written; empty for zero."""
    message = first(messages, FILL)
    if message is None:
        old = first(messages, OLD_FILL)
        return b"" if old is None else old[4 : 4 + int.from_bytes(old[:4], "little")]
    version, flags = struct.unpack_from("<2B", message)
    start = 2 if version == 3 else 4
    if flags & 0x20 if version == 3 else message[3:4] == b"\1":
        return message[start + 4 :][: int.from_bytes(message[start : start + 4], "little")]
    return b""
