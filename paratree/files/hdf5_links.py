"""What is in a group of an HDF5 file: the links of both forms.

The older form keeps them in a tree, with their names in a heap; the newer one in messages, and from about
nine on in a heap with a tree of its own. Format: HDF5 File Format Specification 3.0, sections III.A to III.D,
IV.A.2.c, IV.A.2.g and IV.A.2.r.
"""

from __future__ import annotations

import struct

from paratree.files.hdf5_headers import LINK, LINKS, SYMBOLS, first
from paratree.files.hdf5_messages import MalformedError
from paratree.files.hdf5_reader import NOWHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from paratree.files.hdf5_headers import Messages
    from paratree.files.hdf5_reader import Reader

HARD, _SOFT, _EXTERNAL = 0, 1, 64
KINDS = {_SOFT: "a soft link", _EXTERNAL: "a link into another file"}
_LARGEST_HEAP = 64 << 20  # bytes of the names of a group
_CACHED_SOFT = 2  # what an entry of a table of symbols keeps beside a link: the place of a soft link's text
_SYMBOL = struct.Struct("<2QI20x")  # place of the name, address, what is kept beside it


class Link:
    """A name in a group: what it leads to, and when it was made, counted from the first."""

    __slots__ = ("address", "kind", "name", "order")

    def __init__(self, name: bytes, kind: int, address: int, order: int = 0) -> None:
        self.name, self.kind, self.address, self.order = name, kind, address, order


def is_group(messages: Messages) -> bool:
    """Tell whether what has these messages is a group."""
    return first(messages, SYMBOLS) is not None or first(messages, LINKS) is not None


def is_tracked(messages: Messages) -> bool:
    """Tell whether the group with these messages knows the order in which its links were made."""
    info = first(messages, LINKS)
    return info is not None and bool(struct.unpack_from("<2B", info)[1] & 1)


def links_of(reader: Reader, messages: Messages) -> list[Link]:
    """Return what is in a group, in order of creation if it is tracked, else by name.

    Raises:
        CorruptFileError: the trees or heaps that hold the links are damaged.
        UnsafeFileError: they have far more entries than a file can mean to hold.
        MalformedError: a link contradicts itself.
    """
    links = [link_of(message) for kind, message in messages if kind == LINK]
    by_order = is_tracked(messages)
    if (info := first(messages, LINKS)) is not None:
        heap, tree = struct.unpack_from("<2Q", info, 10 if by_order else 2)
        if heap != NOWHERE:
            from paratree.files.hdf5_dense import links as dense

            links += map(link_of, dense(reader, heap, tree))
    elif (symbols := first(messages, SYMBOLS)) is not None:
        links += _symbols(reader, *struct.unpack_from("<2Q", symbols))
    return sorted(links, key=lambda link: link.order if by_order else link.name)


def link_of(message: bytes) -> Link:
    """Read a link as the newer form keeps it."""
    version, flags = struct.unpack_from("<2B", message)
    if version != 1:
        raise MalformedError(f"version {version} of a link is not known")
    kind, place, order = HARD, 2, 0
    if flags & 8:
        kind, place = message[2], 3
    if flags & 4:
        (order,) = struct.unpack_from("<Q", message, place)
        place += 8
    place += 1 if flags & 16 else 0  # its character set
    (length,) = struct.unpack_from("<" + "BHIQ"[flags & 3], message, place)
    place += 1 << (flags & 3)
    if place + length > len(message):
        raise MalformedError(f"a name of {length} bytes has no place here")
    name = message[place : place + length]
    (address,) = struct.unpack_from("<Q", message, place + length) if kind == HARD else (0,)
    return Link(name, kind, address, order)


def _symbols(reader: Reader, tree: int, heap: int) -> Iterator[Link]:
    names = _names(reader, heap)
    for table in _tables(reader, tree):
        count = int.from_bytes(reader.take(table, 8, b"SNOD\1")[6:], "little")
        reader.step(table, count)
        for place, address, beside in _SYMBOL.iter_unpack(reader.take(table + 8, count * _SYMBOL.size)):
            end = names.find(b"\0", place)
            if end < 0:
                raise reader.fault("a name begins or ends outside of its heap", table)
            yield Link(names[place:end], _SOFT if beside == _CACHED_SOFT else HARD, address)


def _names(reader: Reader, address: int) -> bytes:
    size, _, place = struct.unpack_from("<3Q", reader.take(address, 32, b"HEAP\0"), 8)
    if size > _LARGEST_HEAP:
        raise reader.fault(f"a heap of names of {size} bytes is too large", address)
    return reader.take(place, size)


def _tables(reader: Reader, tree: int) -> Iterator[int]:
    """Yield the addresses of the tables of symbols in a tree."""
    waiting, seen = [(tree, -1)], set()
    while waiting:
        address, level = waiting.pop()
        head = reader.take(address, 24, b"TREE\0")
        if level not in (-1, head[5]) or address in seen:
            raise reader.fault("two branches of a tree meet here, or one goes down too far", address)
        seen.add(address)
        used = int.from_bytes(head[6:8], "little")
        reader.step(address, used + 1)
        body = reader.take(address + 24, used * 16)  # each a key, and an address
        places = [place for _, place in struct.iter_unpack("<2Q", body)]
        if head[5]:
            waiting += [(place, head[5] - 1) for place in places]
        else:
            if len(seen | set(places)) < len(seen) + len(places):
                raise reader.fault("two branches of a tree meet here", address)
            seen.update(places)
            yield from places
