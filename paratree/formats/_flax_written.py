"""Write Flax msgpack: nested maps of arrays, each an extension, those of over 2^30 bytes in chunks.

Layout: ``flax/serialization.py`` (0.12). Plain values and empty containers of a pytree are written in their
places, since Flax restores a state only from the whole structure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from paratree.core.array import parts_between, size_of
from paratree.core.dtypes import nbytes
from paratree.core.errors import UnsupportedError, printable
from paratree.core.plain import PlainValues
from paratree.files.output import blocks
from paratree.formats._flax_packed import list_head, map_head, plain, text, whole
from paratree.formats._pytrees import Packed, Stored, arrays, check_nested, places, with_collections

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from paratree.core.array import Index, LazyArray
    from paratree.core.plain import Path
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output

    Nested = Mapping[str, "Nested | LazyArray | Stored | bytes"]

_LARGEST = 1 << 30  # bytes of an array, or of one chunk of it
_LONGEST_FIRST = 255
_NO_PLACES = (
    "a part of a pytree, or one with other names, has no places for plain values and empty containers"
)
_MOST_NAMED = 5  # in a note
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
    notes = _add_plain(nested, tree)
    _write_map(nested, output)
    return notes


def _nested(tree: ParamTree) -> dict[str, Any]:
    root: dict[str, Any] = {}
    check_nested(tree, "Flax")
    for name, param in tree.items():
        *path, last = name.split(".")
        place = root
        for segment in path:
            place = place.setdefault(segment, {})
        if any("\ud800" <= sign <= "\udfff" for sign in name) or _CHUNKED in (*path, last):
            raise UnsupportedError(f"'{printable(name)}' cannot be a key of Flax's maps; rename it")
        place[last] = param.array
    return root


def _add_plain(nested: dict[str, Any], tree: ParamTree) -> list[str]:
    """Add what a pytree has beside its arrays; return what is left out, and why."""
    meta = tree.meta
    if not isinstance(meta, PlainValues):
        return _left_out("maps of arrays have no place for metadata", meta)
    if tree.keys() != set(meta.names):
        names = [".".join(path) for path, _ in meta.places()]
        return _left_out(_NO_PLACES, names)
    refused = [".".join(path) for path, value in meta.places() if not _add(nested, path, value)]
    return _left_out("msgpack has no place for it", refused)


def _left_out(why: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    left = ", ".join(map(printable, names[:_MOST_NAMED]))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return [f"{why}, left out: {left}{more}"] if left else []


def _add(nested: dict[str, Any], path: Path, value: Any) -> bool:
    """Put a value in its place; tell whether it is there: itself, or the array that a number is as well."""
    if _CHUNKED in path:
        return False
    *above, last = path
    place: Any = nested
    try:
        for segment in above:
            text(segment)
            place = place.setdefault(segment, {})
            if not isinstance(place, dict):
                return False
        text(last)
        if isinstance(value, Packed):
            return _add_packed(nested, place, path, value)
        if last in place:
            return not isinstance(place[last], dict)
        place[last] = value if isinstance(value, Stored) else plain(value)
    except ValueError:
        return False
    return True


def _add_packed(nested: dict[str, Any], place: dict[str, Any], path: Path, packed: Packed) -> bool:
    """Put bytes in their place if no array in them was changed; else maps are there, for what was packed."""
    if {*map(id, arrays(place.get(path[-1], {})))} == {*map(id, arrays(packed))}:
        place[path[-1]] = packed.stored
        return True
    refused = [below for below, value in places(dict(packed), path) if not _add(nested, below, value)]
    return not refused


def _write_map(found: Nested, output: Output) -> None:
    output.write(map_head(len(found)))
    for key, value in found.items():
        output.write(text(key))
        if isinstance(value, dict):
            _write_map(value, output)
        elif isinstance(value, bytes):
            output.write(value)
        elif isinstance(value, Stored):
            _write_stored(value.array, output)
        elif nbytes(size_of(value := cast("LazyArray", value)), value.dtype) > _LARGEST:
            _write_chunked(value, output)
        else:
            _write_array(value, output)


def _write_stored(array: LazyArray, output: Output) -> None:
    output.write(b"\xc6" + size_of(array).to_bytes(4, "big"))
    for block in blocks(array):
        output.write(bytes(block))


def _write_array(array: LazyArray, output: Output) -> None:
    size = nbytes(size_of(array), array.dtype)
    shape = list_head(len(array.shape)) + b"".join(map(whole, cast("tuple[int, ...]", array.shape)))
    head = b"\x93" + shape + text(array.dtype) + b"\xc6" + size.to_bytes(4, "big")
    output.write(b"\xc9" + (len(head) + size).to_bytes(4, "big") + bytes([_NDARRAY]) + head)
    output.values(array)


def _write_chunked(array: LazyArray, output: Output) -> None:
    size, step = size_of(array), _LARGEST // nbytes(1, array.dtype)
    starts = range(0, size, step)
    lengths = cast("tuple[int, ...]", array.shape)
    output.write(b"\x83" + text(_CHUNKED) + b"\xc3" + text("shape") + map_head(len(lengths)))
    output.write(b"".join(text(str(axis)) + whole(length) for axis, length in enumerate(lengths)))
    output.write(text("chunks") + map_head(len(starts)))
    for number, start in enumerate(starts):
        output.write(text(str(number)))
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
