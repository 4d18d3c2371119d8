"""Write a TensorBundle: the bytes of the tensors, then the table that says where each lies, and how long.

Layout as :mod:`paratree.formats._tensorflow_bundle` and :mod:`paratree.formats._tensorflow_table` read it;
``BundleWriter`` of tensor_bundle.cc (TensorFlow 2.21) writes the same entries and the same bytes.
The file of bytes has a number that none beside it has: at every moment the index there is names whole files.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

import numpy as np

from paratree.core.dtypes import BITS
from paratree.core.errors import ParatreeError, UnsupportedError, printable
from paratree.files import crc32c
from paratree.files.local import LocalFile
from paratree.formats._tensorflow_bundle import DTYPES, GRAPH, Bundle
from paratree.formats._tensorflow_table import FOOTER, MAGIC

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from paratree.core.array import Index, LazyArray, Storage
    from paratree.core.param import Param
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output

INDEX = ".index"
_BLOCK = 1 << 18  # bytes of entries, about
_BETWEEN_RESTARTS = 16  # keys
_PLAIN = b"\0"
_EMPTY_BLOCK = (0).to_bytes(4, "little") + (1).to_bytes(4, "little")
_NUMBERS = {name: number for number, name in DTYPES.items()}


def write(tree: ParamTree, output: Output) -> list[str]:
    """Write a tree; of a tied group the bytes are written once.

    Raises:
        UnsupportedError: the path is not that of an index, or a name cannot be a key.
    """
    if not output.path.endswith(INDEX):
        fact = f"{printable(output.path)}: a SavedModel is a program"
        raise UnsupportedError(f"{fact}; give the index of a checkpoint, NAME{INDEX}")
    names = {_key(name): name for name in tree}
    prefix = output.path.removesuffix(INDEX)
    old = _shards_of(output.path)
    number = _free_number(prefix, old)
    entries, places = {b"": _header(number + 1)}, dict[str, tuple[int, int, int]]()
    with output.beside(_shard(prefix, number, number + 1)) as shard:
        for key, name in names.items():
            first = tree.tied_with(name)[0]
            if first not in places:
                places[first] = _write_values(tree[name].array, shard)
            entries[key] = _entry(tree[name], number, *places[first])
    _write_table(sorted(entries.items()), output)
    output.replaced += old
    return _notes(tree)


def _key(name: str) -> bytes:
    try:
        key = name.encode()
    except UnicodeEncodeError:
        raise UnsupportedError(
            f"'{printable(name)}' is no UTF-8, as a name in TensorFlow's checkpoints is; rename it"
        ) from None
    if not key or key.startswith(b"\0") or name == GRAPH:
        raise UnsupportedError(f"'{printable(name)}' means something else to TensorFlow; rename it")
    return key


# The bytes


def _write_values(array: LazyArray, shard: Output) -> tuple[int, int, int]:
    """Append the values; return where they begin, how long they are, and their checksum."""
    start, crc = shard.offset, 0

    def write(block: memoryview) -> None:
        nonlocal crc
        crc = crc32c.checksum(block, crc)
        shard.file.write(block)

    shard.stream(_Bytes(array) if BITS[array.dtype] < 8 else array, write)
    return start, shard.offset - start, crc32c.masked(crc)


class _Bytes:
    """Values narrower than a byte, each in one, as TensorFlow keeps them."""

    __slots__ = ("_array", "shape")

    dtype, problem = "uint8", None

    def __init__(self, array: LazyArray) -> None:
        self._array, self.shape = array, array.shape

    @property
    def storage(self) -> Storage | None:
        return self._array.storage

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        return self._array.read(index).view(np.uint8)


def _free_number(prefix: str, old: Collection[str]) -> int:
    """Return a number for a shard that is not there, as the last of all that its name claims.

    None that the old index names, even if it is gone: what that names is removed.
    """
    number = 0
    while (name := _shard(prefix, number, number + 1)) in old or os.path.lexists(name):
        number += 1
    return number


def _shard(prefix: str, number: int, count: int) -> str:
    return f"{prefix}.data-{number:05}-of-{count:05}"


def _shards_of(index: str) -> list[str]:
    """Return the shards that an index names, if it is there and can be read."""
    try:
        bundle = Bundle(LocalFile(index))
    except (ParatreeError, OSError):
        return []
    bundle.close()
    prefix, last = index.removesuffix(INDEX), bundle.count - 1
    return [_shard(prefix, number, bundle.count) for number in {*bundle.shards, last}]


# The messages


def _header(count: int) -> bytes:
    """Return how many shards there are; numbers in them are little-endian, and version 1 is written."""
    return _number(1, count) + _message(3, _number(1, 1))


def _entry(param: Param, shard: int, offset: int, size: int, crc: int) -> bytes:
    shape = b"".join(_message(2, _number(1, length)) for length in cast("tuple[int, ...]", param.shape))
    numbers = _number(3, shard) + _number(4, offset) + _number(5, size)
    return (
        _number(1, _NUMBERS[param.dtype]) + _message(2, shape) + numbers + b"\x35" + crc.to_bytes(4, "little")
    )


def _number(field: int, value: int) -> bytes:
    """Return a field; zero is what is read where there is none."""
    return bytes([field << 3]) + _varint(value) if value else b""


def _message(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


# The table


def _write_table(entries: Iterable[tuple[bytes, bytes]], output: Output) -> None:
    """Write entries that are in the order of their keys."""
    blocks: list[tuple[bytes, bytes]] = []  # the last key of each, and where it is
    block = _Block(_BETWEEN_RESTARTS)
    for key, value in entries:
        block.add(key, value)
        if block.size >= _BLOCK:
            blocks.append((key, _write_block(block.finished(), output)))
            block = _Block(_BETWEEN_RESTARTS)
    if block.size:
        blocks.append((block.last, _write_block(block.finished(), output)))
    index = _Block(1)
    for key, place in blocks:
        index.add(key, place)
    places = _write_block(_EMPTY_BLOCK, output) + _write_block(index.finished(), output)
    output.write(places.ljust(FOOTER - len(MAGIC), b"\0") + MAGIC)


def _write_block(block: bytes, output: Output) -> bytes:
    """Write a block and its checksum; return where it is."""
    place = _varint(output.offset) + _varint(len(block))
    data = block + _PLAIN
    output.write(data + crc32c.masked(crc32c.checksum(data)).to_bytes(4, "little"))
    return place


class _Block:
    """Entries whose keys are written without what they share with the one before, but for every so many."""

    def __init__(self, between: int) -> None:
        self._between, self._count, self._data = between, 0, bytearray()
        self._restarts: list[int] = []
        self.last = b""

    @property
    def size(self) -> int:
        return len(self._data)

    def add(self, key: bytes, value: bytes) -> None:
        shared = 0
        if self._count % self._between:
            shared = len(os.path.commonprefix((self.last, key)))  # noqa: RUF071 -- bytes, no paths
        else:
            self._restarts.append(len(self._data))
        lengths = _varint(shared) + _varint(len(key) - shared) + _varint(len(value))
        self._data += lengths + key[shared:] + value
        self.last = key
        self._count += 1

    def finished(self) -> bytes:
        restarts = (*self._restarts, len(self._restarts))
        return bytes(self._data) + b"".join(number.to_bytes(4, "little") for number in restarts)


def _notes(tree: ParamTree) -> list[str]:
    left = ", ".join(map(printable, list(tree.meta)[:5]))
    return [f"a checkpoint has no place for metadata, left out: {left}"] if left else []
