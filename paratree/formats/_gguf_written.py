"""Write GGUF: metadata, where each tensor will be, then the tensors, each at a multiple of the alignment.

Specification: ``docs/gguf.md`` of ggml, version 3. Metadata of a GGUF file keep their types; other plain
values get the type that files of llama.cpp have for such.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, cast

from paratree.core.cast import Cast
from paratree.core.dtypes import BLOCKS
from paratree.core.errors import UnsupportedError, printable
from paratree.formats._gguf_header import MAGIC, Metadata
from paratree.formats._gguf_tensors import TYPES

if TYPE_CHECKING:
    from paratree.core.array import LazyArray, QuantisedLazyArray
    from paratree.core.param import Param
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output

_ALIGNMENT = 32
_LONGEST_NAME = 63  # bytes, and one for the end (ggml.h)
_MOST_AXES = 4  # of a tensor of ggml
_OF_PARTS = ("split.no", "split.count", "split.tensors.count")
_ARCHITECTURE = "general.architecture"
_FILE_TYPE = "general.file_type"
_FILE_TYPES = {"float32": 0, "float16": 1, "bfloat16": 32}  # most values are of it: llama_ftype (llama.h)


def write(tree: ParamTree, output: Output) -> list[str]:
    """Write a tree.

    Raises:
        UnsupportedError: a name is longer, or a tensor has more axes, than ggml holds.
    """
    stored = {name: param for name, param in tree.items() if tree.tied_with(name)[0] == name}
    entries, left = _metadata(tree.meta, _file_type(tree.meta, stored))
    alignment = (
        tree.meta.get("general.alignment", _ALIGNMENT) if isinstance(tree.meta, Metadata) else _ALIGNMENT
    )
    head = MAGIC + struct.pack("<IQQ", 3, len(stored), len(entries)) + b"".join(entries)
    place = 0
    for name, param in stored.items():
        if (fault := _fault(name, param)) is not None:
            raise UnsupportedError(fault)
        head += _described(name, param, place)
        place += _padded(param.nbytes or 0, alignment)
    output.write(head + bytes(-len(head) % alignment))
    for param in stored.values():
        output.values(_stored(param))
        output.write(bytes(-(param.nbytes or 0) % alignment))
    notes = (
        [] if _ARCHITECTURE in tree.meta else [f"no {_ARCHITECTURE}, by which llama.cpp knows what to run"]
    )
    return notes + (
        [f"metadata that GGUF has no type for was left out: {', '.join(left[:5])}"] if left else []
    )


def _fault(name: str, param: Param) -> str | None:
    """Say why ggml cannot hold a tensor of that name, and what to do."""
    if len(param.shape) > _MOST_AXES:
        fact = f"{len(param.shape)} axes, and tensors of ggml at most {_MOST_AXES}"
        return f"'{printable(name)}' has {fact}; drop it (--drop)"
    is_long = len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME
    if is_long or any("\ud800" <= sign <= "\udfff" for sign in name):
        return f"'{printable(name)}' is no name of at most {_LONGEST_NAME} bytes, as ggml has; rename it"
    return None


def _described(name: str, param: Param, place: int) -> bytes:
    shape = cast("tuple[int, ...]", param.shape)
    number = next(number for number, dtype in TYPES.items() if dtype == param.dtype)
    return _text(name.encode()) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], number, place)


def _stored(param: Param) -> LazyArray:
    return cast("QuantisedLazyArray", param.array).blocks if param.dtype in BLOCKS else param.array


def _padded(size: int, alignment: int) -> int:
    return size + -size % alignment


# Metadata


def _file_type(meta: Any, stored: dict[str, Param]) -> Any:
    """Return what is to be said of the dtype of most values; ``None`` if nothing that is known fits.

    Which mixture of quantised types a file is, nothing but its metadata tells: that stays, until what is cast
    is the most of it.
    """
    said = meta.get(_FILE_TYPE)
    if not stored or (isinstance(meta, Metadata) and said is None):
        return said
    sizes = dict.fromkeys((param.dtype for param in stored.values()), 0)
    for param in stored.values():
        sizes[param.dtype] += param.size or 0
    most = max(sizes, key=lambda dtype: sizes[dtype])
    if _is_of_blocks(said) and not BLOCKS.keys().isdisjoint(sizes):
        is_cast = any(isinstance(param.array, Cast) for param in stored.values())
        if most in BLOCKS or not is_cast:
            return said
    if most == "float32" and any("float" in dtype for dtype in sizes if dtype != most):
        return None  # 0 is said of files that have no other
    return _FILE_TYPES.get(most)


def _is_of_blocks(said: object) -> bool:
    return type(said) is int and said not in _FILE_TYPES.values()


def _metadata(meta: Any, file_type: Any) -> tuple[list[bytes], list[str]]:
    """Return the entries as they are written, and the keys of what has no type."""
    entries, left = [], []
    for key, value in (dict(meta) | {_FILE_TYPE: file_type}).items():
        if key in _OF_PARTS or (key == _FILE_TYPE and value is None):
            continue
        is_kept = isinstance(meta, Metadata) and value is meta.get(key)
        stored = meta.stored(key) if is_kept else None
        stored = _typed(value) if stored is None else stored
        if stored is None:
            left.append(printable(str(key)))
        else:
            entries.append(_text(str(key).encode("utf-8", "replace")) + stored)
    return entries, left


def _typed(value: Any) -> bytes | None:
    """Return the number of a type and the value; ``None`` if there is no type for it."""
    match value:
        case bool():
            return struct.pack("<IB", 7, value)
        case int() if 0 <= value < 1 << 32:
            return struct.pack("<II", 4, value)
        case int() if -(1 << 31) <= value < 0:
            return struct.pack("<Ii", 5, value)
        case int() if 0 <= value < 1 << 64:
            return struct.pack("<IQ", 10, value)
        case int() if -(1 << 63) <= value < 0:
            return struct.pack("<Iq", 11, value)
        case float():
            return struct.pack("<Id", 12, value)
        case str():
            return struct.pack("<I", 8) + _text(value.encode("utf-8", "replace"))
        case list() | tuple() if value and all(isinstance(each, str) for each in value):
            texts = b"".join(_text(each.encode("utf-8", "replace")) for each in value)
            return struct.pack("<IIQ", 9, 8, len(value)) + texts
    return None


def _text(encoded: bytes) -> bytes:
    return struct.pack("<Q", len(encoded)) + encoded
