"""Flax msgpack: nested maps of arrays, as ``flax.serialization`` and ``flax.training.checkpoints`` write.

Layout: ``flax/serialization.py`` (0.12). An array is an extension: 1 (or 3, a scalar) for a packed shape,
name of the dtype and bytes, 2 for a complex number; one of over 2^30 bytes is a map of flat chunks.
"""

from __future__ import annotations

from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS, STANDARD, is_known, numpy_dtype
from paratree.core.errors import CorruptFileError, UnsafeFileError, printable
from paratree.core.names import OTHER
from paratree.core.plain import PlainValues
from paratree.core.tree import Origin, ParamTree
from paratree.files.array import check_shape, file_array
from paratree.files.composed import DecodedArray
from paratree.files.local import Joined, Window, read
from paratree.files.msgpack import Binary, Extension, unpack
from paratree.formats._pytrees import Packed, Pytree, Stored, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile, Source
    from paratree.files.output import Output

NAME = "Flax msgpack"
SUFFIXES = (".msgpack",)
FOLDER = ("flax_model.msgpack", "*.msgpack", "checkpoint_#")
LAZY = "yes"
TIES = "no"
READS = "arrays, scalars, chunked arrays, and msgpack packed in msgpack; plain values as meta"
EXTRA = None
MAKES = "file"
WRITES = (*STANDARD, "bfloat16")

_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_CHUNKED_KEYS = frozenset({_CHUNKED, "shape", "chunks"})
_DTYPES = {"V2": "bfloat16"}  # as Flax reads it
_LONGEST_START = 1 << 10


def sniff(file: LocalFile) -> bool:
    """Tell whether the file begins with a map whose first key is a printable text."""
    return _begins_map(file.head)


def open(file: LocalFile) -> ParamTree:
    """Walk the maps, leave the values where they are, and return the tree.

    Raises:
        CorruptFileError: the file is not the one value that it should be, or an array does not fit its bytes.
        UnsafeFileError: an array is said to be of Python objects.
    """
    reader = _Reader(file)
    root = reader.resolve(unpack(file), "")
    tree = Pytree(root, dict.fromkeys(reader.packed if reader.arrays else (), OTHER))
    meta = PlainValues(tree.meta, tree.params.keys(), lambda: places(root))
    return ParamTree(tree.params, Origin(file.path, NAME, meta, [*reader.notes, *tree.notes], [file.close]))


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell that no tied group can be written."""
    return False


def save(tree: ParamTree, output: Output) -> Sequence[str]:
    """Write nested maps, one a segment of the names, as ``flax.serialization.to_bytes`` writes them."""
    from paratree.formats._flax_written import write

    return write(tree, output)


def _begins_map(head: bytes) -> bool:
    first = head[0] if head else 0
    start = {0xDE: 3, 0xDF: 5}.get(first, 1 if 0x81 <= first <= 0x8F else 0)
    if not start or len(head) < start + 3:
        return False
    if 0xA1 <= head[start] <= 0xBF:
        length, start = head[start] & 31, start + 1
    elif head[start] == 0xD9:
        length, start = head[start + 1], start + 2
    else:
        return False
    try:
        key = head[start : start + length].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return len(head) > start + length and key != "" and key.isprintable()


class _Reader:
    """Makes arrays of what was left in the file.

    Attributes:
        arrays: how many stand in the file's own maps.
        packed: names of the places where msgpack is packed in bytes, as a configuration may be.
        notes: what was left as bytes though it seemed to be more.
    """

    def __init__(self, file: LocalFile) -> None:
        self.file, self.arrays = file, 0
        self.packed: set[str] = set()
        self.notes: list[str] = []

    def resolve(self, found: Any, name: str, *, inside: bool = False) -> Any:
        """Return a value with arrays in place of extensions and chunks; ``inside`` packed bytes, or not."""
        if isinstance(found, dict):
            if _CHUNKED in found:
                self.arrays += not inside
                return _chunked_array(self.file, found, name)
            return {
                key: self.resolve(value, _below(name, key), inside=inside) for key, value in found.items()
            }
        if isinstance(found, list):
            return [self.resolve(value, _below(name, i), inside=inside) for i, value in enumerate(found)]
        if isinstance(found, Extension):
            if found.code == _COMPLEX:
                return _complex_number(self.file, found, name)
            self.arrays += not inside
            return _array(self.file, found, name)
        if isinstance(found, Binary):
            return self._stored(found) if inside else self._bytes(found, name)
        return found

    def _bytes(self, found: Binary, name: str) -> Any:
        """Return the msgpack that is packed in bytes; of other bytes, how many they are."""
        if _begins_map(read(self.file, found.offset, min(found.length, _LONGEST_START))):
            try:
                value = unpack(self.file, found.offset, found.offset + found.length)
                value = self.resolve(value, name, inside=True)
            except CorruptFileError as error:
                self.notes.append(
                    f"{printable(name)} begins as msgpack and is none: {printable(error.reason)}"
                )
            else:
                self.packed.add(name)
                return Packed(value, self._stored(found)) if isinstance(value, dict) else value
        return self._stored(found)

    def _stored(self, found: Binary) -> Stored:
        return Stored(file_array(self.file, found.offset, (found.length,), "uint8"))


def _below(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _array(file: LocalFile, found: Extension, name: str) -> LazyArray:
    shape, dtype, values = _packed_array(file, found, name)
    return _described(Window(file, values.offset, values.length, name), shape, dtype, name)


def _packed_array(file: LocalFile, found: object, name: str) -> tuple[list[Any], str, Binary]:
    """Return shape, name of the dtype, and where the values are."""
    if not isinstance(found, Extension) or found.code not in (_NDARRAY, _SCALAR):
        what = f"an extension of type {found.code}" if isinstance(found, Extension) else "no array"
        offset = found.offset if isinstance(found, Binary) else None
        raise CorruptFileError(file.path, f"{what}, where Flax writes an array", offset=offset, member=name)
    packed = unpack(file, found.offset, found.offset + found.length)
    if isinstance(packed, list) and len(packed) == 3:
        shape, dtype, values = packed
        if isinstance(shape, list) and isinstance(dtype, str) and type(values) is Binary:
            return shape, _DTYPES.get(dtype, dtype), values
    raise CorruptFileError(
        file.path, "the array is not packed as shape, dtype and bytes", offset=found.offset, member=name
    )


def _described(source: Source, shape: list[Any], dtype: str, name: str) -> LazyArray:
    """Return the array over a source that holds nothing but its values."""
    lengths = check_shape(shape, source, name)
    if dtype.startswith("object"):
        raise UnsafeFileError(
            source.path, "an array of Python objects; Flax writes none", member=name,
            advice="nothing that it says would be run; fetch the file from where it can be trusted",
        )  # fmt: skip
    if not is_known(dtype):
        problem = f"{name}: paratree does not read {dtype[:40]}; save it as a number type that NumPy has"
        return RefusedArray(lengths, dtype[:40], problem)
    narrow = BITS[dtype] < 8  # NumPy keeps those in a byte each
    array = file_array(source, 0, lengths, "uint8" if narrow else dtype, member=name)
    if array.nbytes != source.size:
        raise CorruptFileError(
            source.path, f"the values take {array.nbytes} bytes and {source.size} are stored", member=name
        )
    if not narrow:
        return array
    return DecodedArray(lengths, dtype, lambda: array.read().view(numpy_dtype(dtype)), array.storage)


def _chunked_array(file: LocalFile, found: dict[Any, Any], name: str) -> LazyArray:
    """Return the array of which flat chunks are stored, numbered from "0"."""
    shape, chunks = found.get("shape"), found.get("chunks")
    if (
        found.keys() != _CHUNKED_KEYS
        or not isinstance(shape, dict)
        or not isinstance(chunks, dict)
        or not chunks
    ):
        raise CorruptFileError(file.path, "a chunked array without shape or chunks", member=name)
    parts, dtypes = [], set()
    for chunk in _in_order(file, chunks, name):
        lengths, dtype, values = _packed_array(file, chunk, name)
        part = Window(file, values.offset, values.length, name)
        if len(lengths) != 1:
            raise CorruptFileError(file.path, "a chunk is not flat", offset=values.offset, member=name)
        _described(part, lengths, dtype, name)
        parts.append(part)
        dtypes.add(dtype)
    if len(dtypes) != 1:
        raise CorruptFileError(file.path, "its chunks are of different dtypes", member=name)
    return _described(Joined(parts, file.path, name), _in_order(file, shape, name), dtypes.pop(), name)


def _in_order(file: LocalFile, numbered: dict[Any, Any], name: str) -> list[Any]:
    """Return what a map from "0", "1", … holds, as a list."""
    keys = [str(i) for i in range(len(numbered))]
    if numbered.keys() != set(keys):
        raise CorruptFileError(file.path, "the parts of a chunked array are not numbered from 0", member=name)
    return [numbered[key] for key in keys]


def _complex_number(file: LocalFile, found: Extension, name: str) -> complex:
    parts = unpack(file, found.offset, found.offset + found.length)
    if not isinstance(parts, list) or len(parts) != 2 or not all(type(n) in (int, float) for n in parts):
        raise CorruptFileError(
            file.path, "a complex number not of two parts", offset=found.offset, member=name
        )
    return complex(*parts)
