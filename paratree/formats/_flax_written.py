"""Write Flax msgpack: nested maps of arrays, each an extension, those of over 2^30 bytes in chunks.

Layout: ``flax/serialization.py`` (0.12); the encoding is that of the MessagePack specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from paratree.core.array import parts_between, size_of
from paratree.core.dtypes import nbytes
from paratree.core.errors import UnsupportedError, printable
from paratree.formats._pytrees import with_collections

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from paratree.core.array import Index, LazyArray
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output

    Nested = Mapping[str, "Nested | LazyArray"]

_LARGEST = 1 << 30  # bytes of an array, or of one chunk of it
_LONGEST_FIRST = 255
_NDARRAY = 1  # the extension
_CHUNKED = "__msgpack_chunked_array__"


def write(tree: ParamTree, output: Output) -> list[str]:
    """Write a tree.

    Raises:
        UnsupportedError: a name is also the beginning of another one, or no text.
    """
    nested = _nested(with_collections(tree))
    first = next(iter(nested), "")
    if not first or not first.isprintable() or len(first.encode()) > _LONGEST_FIRST:
        what = f"maps of arrays begin with a printable name of at most {_LONGEST_FIRST} bytes"
        here = repr(printable(first[:80])) if nested else "no parameters"
        raise UnsupportedError(f"{what}, by which their files are known; this one has {here}")
    _write_map(nested, output)
    left = ", ".join(map(printable, list(tree.meta)[:5]))
    return [f"maps of arrays have no place for metadata, left out: {left}"] if left else []


def _nested(tree: ParamTree) -> Nested:
    root: dict[str, Any] = {}
    for name, param in tree.items():
        *path, last = name.split(".")
        place = root
        for segment in path:
            place = place.setdefault(segment, {})
            if not isinstance(place, dict):
                raise _clash(name)
        if last in place:
            raise _clash(name)
        if any("\ud800" <= sign <= "\udfff" for sign in name) or _CHUNKED in (*path, last):
            raise UnsupportedError(f"'{printable(name)}' cannot be a key of Flax's maps; rename it")
        place[last] = param.array
    return root


def _clash(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"'{printable(name)}' is a parameter and a part of the path to another; Flax nests them; rename one"
    )


def _write_map(found: Nested, output: Output) -> None:
    output.write(_head(len(found), 0x80, 16, 0xDE))
    for key, value in found.items():
        output.write(_text(key))
        if isinstance(value, dict):
            _write_map(value, output)
        elif nbytes(size_of(value := cast("LazyArray", value)), value.dtype) > _LARGEST:
            _write_chunked(value, output)
        else:
            _write_array(value, output)


def _write_array(array: LazyArray, output: Output) -> None:
    size = nbytes(size_of(array), array.dtype)
    shape = _head(len(array.shape), 0x90, 16, 0xDC) + b"".join(
        map(_whole, cast("tuple[int, ...]", array.shape))
    )
    head = b"\x93" + shape + _text(array.dtype) + b"\xc6" + size.to_bytes(4, "big")
    output.write(b"\xc9" + (len(head) + size).to_bytes(4, "big") + bytes([_NDARRAY]) + head)
    output.values(array)


def _write_chunked(array: LazyArray, output: Output) -> None:
    size, step = size_of(array), _LARGEST // nbytes(1, array.dtype)
    starts = range(0, size, step)
    lengths = cast("tuple[int, ...]", array.shape)
    output.write(b"\x83" + _text(_CHUNKED) + b"\xc3" + _text("shape") + _head(len(lengths), 0x80, 16, 0xDE))
    output.write(b"".join(_text(str(axis)) + _whole(length) for axis, length in enumerate(lengths)))
    output.write(_text("chunks") + _head(len(starts), 0x80, 16, 0xDE))
    for number, start in enumerate(starts):
        output.write(_text(str(number)))
        _write_array(_Range(array, start, min(start + step, size)), output)


class _Range:
    """The values of an array from one position to another, as an array of one axis."""

    __slots__ = ("_array", "_start", "shape")

    storage = problem = None

    def __init__(self, array: LazyArray, start: int, stop: int) -> None:
        self._array, self._start, self.shape = array, start, (stop - start,)

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return self._array.dtype

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return all values, or those of a slice, as ``parts_of`` gives it."""
        import numpy as np

        (length,) = self.shape
        low, high, _ = (slice(None) if index is ... else cast("tuple[slice]", index)[0]).indices(length)
        shape = cast("tuple[int, ...]", self._array.shape)
        return np.concatenate(
            [
                np.ravel(self._array.read(i))
                for i in parts_between(shape, self._start + low, self._start + high)
            ]
        )


# MessagePack


def _head(count: int, fixed: int, below: int, wide: int) -> bytes:
    """Return the start of a map, list or text of so many entries."""
    if count < below:
        return bytes([fixed | count])
    if count < 1 << 16:
        return bytes([wide]) + count.to_bytes(2, "big")
    return bytes([wide + 1]) + count.to_bytes(4, "big")


def _text(text: str) -> bytes:
    data = text.encode()
    if 32 <= len(data) < 1 << 8:
        return bytes([0xD9, len(data)]) + data
    return _head(len(data), 0xA0, 32, 0xDA) + data


def _whole(value: int) -> bytes:
    if value < 0x80:
        return bytes([value])
    for code, width in ((0xCC, 1), (0xCD, 2), (0xCE, 4)):
        if value < 1 << 8 * width:
            return bytes([code]) + value.to_bytes(width, "big")
    return b"\xcf" + value.to_bytes(8, "big")
