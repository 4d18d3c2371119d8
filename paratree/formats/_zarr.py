"""Zarr arrays of versions 2 and 3 in a store of keys: where their chunks are, and what is in one.

Layout: the Zarr specifications 2 and 3.1, and the codec ``sharding_indexed`` 1.0, as far as Orbax uses them.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from math import prod

from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS, from_numpy_code, is_known, numpy_dtype
from paratree.core.errors import CorruptFileError, UnsafeFileError
from paratree.files.array import check_shape
from paratree.files.composed import ComposedArray, DecodedArray
from paratree.files.crc32c import checksum
from paratree.files.json import parse_object
from paratree.files.local import read
from paratree.formats._zstd import decompress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    import numpy as np

    from paratree.core.array import LazyArray
    from paratree.files.local import Source

    Shape = tuple[int, ...]

    class Store(Protocol):
        """Values by key, in a folder or in a database.

        Attributes:
            path: the checkpoint, for messages.
            size: bytes of everything that is stored.
        """

        path: str
        size: int

        def __contains__(self, key: object) -> bool:
            """Tell whether there is such a key."""

        def __len__(self) -> int:
            """Return the number of keys."""

        def __iter__(self) -> Iterator[str]:
            """Return the keys."""

        def size_of(self, key: str) -> int:
            """Return how many bytes a key holds, or at most holds."""

        def source(self, key: str) -> Source:
            """Return the value of a key that is there."""


_SMALL = 16 << 20  # bytes
_MOST_EXPANSION = 1 << 15  # of a block of zstd that repeats one byte
_MOST_GZIP = 1032  # the most that a deflate stream can expand (RFC 1951)
_CRC = 4  # bytes
_ABSENT = (1 << 64) - 1  # place and length of an inner chunk that is not stored
_PLAIN_INDEX = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
_COMPRESSORS = ("zstd", "gzip")


class _UnknownCodecError(Exception):
    """Says which part of an array's metadata is of no kind that is read."""


class _Layout:
    """What the metadata of an array says.

    Attributes:
        dtype: name of the dtype.
        shape, chunk: length along each axis of the array, and of a chunk, which may reach beyond the array.
        inner: the same of the chunks in a chunk, if that is a shard.
        codecs: what was done to the bytes of a (or an inner) chunk, in the order of writing.
        big_endian: the most significant byte comes first.
        column_major: the first axis is the fastest.
        start, separator: how the keys of chunks are made.
        fill: the value of chunks that are not stored.
    """

    dtype: str
    shape: Shape
    chunk: Shape
    inner: Shape | None = None
    codecs: tuple[str, ...] = ()
    big_endian = column_major = False
    start, separator = "", "."
    fill: Any = None

    @property
    def grid(self) -> Shape:
        """How many chunks there are along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True))

    def key(self, position: Shape) -> str:
        """Return the key of a chunk, after that of the array."""
        parts = [self.start] * bool(self.start) + [str(n) for n in position]
        return self.separator.join(parts) or "0"

    def bytes_of(self, shape: Shape) -> int:
        """Return how many bytes values take before they are compressed: one at least for each."""
        return prod(shape) * max(BITS[self.dtype] // 8, 1)


def zarr_array(store: Store, name: str, *, complete: bool) -> LazyArray:
    """Describe the array whose keys begin with ``name``.

    Args:
        store: where the keys are.
        name: the key of the array.
        complete: whether every chunk must be stored; else one that is not is full of the fill value.

    Raises:
        CorruptFileError: there is no such array, it contradicts itself, or its chunks are not there.
    """
    for end, describe in (("/.zarray", _version_2), ("/zarr.json", _version_3)):
        if name + end in store:
            source = store.source(name + end)
            metadata = parse_object(source, read(source, 0, source.size), 0, name + end)
            layout = _basics(source, metadata, name)
            try:
                describe(source, metadata, name, layout)
            except _UnknownCodecError as error:
                return RefusedArray(layout.shape, layout.dtype, f"{name}: {error}; restore it with Orbax")
            return _Chunks(store, name, layout).array(complete)
    raise CorruptFileError(store.path, "no array of this name is stored", member=name)


def _basics(source: Source, metadata: dict[str, Any], name: str) -> _Layout:
    layout = _Layout()
    layout.shape = _lengths(source, metadata.get("shape"), name)
    word = metadata.get("dtype", metadata.get("data_type"))
    layout.dtype = word[:40] if isinstance(word, str) else "structured"
    return layout


def _version_2(source: Source, metadata: dict[str, Any], name: str, layout: _Layout) -> None:
    if metadata.get("zarr_format") != 2:
        raise _fault(source, name, "its metadata is not of Zarr version 2")
    known = from_numpy_code(layout.dtype)
    if known is not None:
        layout.dtype, layout.big_endian = known
    elif not is_known(layout.dtype):
        raise _UnknownCodecError(f"paratree does not read the dtype {layout.dtype}")
    layout.chunk = _chunk(source, metadata.get("chunks"), name, layout.shape)
    layout.column_major = metadata.get("order") == "F"
    layout.separator = metadata.get("dimension_separator", ".")
    compressor = metadata.get("compressor")
    if compressor is not None:
        kind = compressor.get("id") if isinstance(compressor, dict) else compressor
        layout.codecs = (_compressor({"zlib": "gzip"}.get(str(kind), kind)),)
    if metadata.get("filters"):
        raise _UnknownCodecError("paratree does not undo the filters of Zarr")
    if layout.separator not in (".", "/") or metadata.get("order") not in ("C", "F"):
        raise _fault(source, name, "its separator or order is none of Zarr's")
    layout.fill = metadata.get("fill_value")


def _version_3(source: Source, metadata: dict[str, Any], name: str, layout: _Layout) -> None:
    if metadata.get("zarr_format") != 3 or metadata.get("node_type") != "array":
        raise _fault(source, name, "its metadata is not that of an array of Zarr version 3")
    if not is_known(layout.dtype):
        raise _UnknownCodecError(f"paratree does not read the dtype {layout.dtype}")
    grid, encoding = _named(source, name, metadata.get("chunk_grid")), metadata.get("chunk_key_encoding")
    if grid[0] != "regular":
        raise _UnknownCodecError(f"paratree does not read the chunk grid {str(grid[0])[:40]}")
    layout.chunk = _chunk(source, grid[1].get("chunk_shape"), name, layout.shape)
    kind, options = _named(source, name, encoding)
    layout.start = "c" if kind == "default" else ""
    layout.separator = options.get("separator", "/" if kind == "default" else ".")
    if kind not in ("default", "v2") or layout.separator not in (".", "/"):
        raise _fault(source, name, "its chunk_key_encoding is none of Zarr's")
    layout.fill = metadata.get("fill_value")
    codecs = [_named(source, name, codec) for codec in _list(source, name, metadata.get("codecs"))]
    if len(codecs) == 1 and codecs[0][0] == "sharding_indexed":
        options = codecs[0][1]
        layout.inner = _lengths(source, options.get("chunk_shape"), name)
        if len(layout.inner) != len(layout.chunk) or any(
            n < 1 or c % n for c, n in zip(layout.chunk, layout.inner, strict=True)
        ):
            raise _fault(source, name, "its shards are no whole number of chunks")
        if options.get("index_codecs") != _PLAIN_INDEX or options.get("index_location", "end") != "end":
            raise _UnknownCodecError("paratree does not read such an index of a shard")
        codecs = [_named(source, name, codec) for codec in _list(source, name, options.get("codecs"))]
    _set_codecs(source, name, codecs, layout)


def _set_codecs(source: Source, name: str, codecs: list[tuple[Any, dict[str, Any]]], layout: _Layout) -> None:
    if not codecs or codecs[0][0] != "bytes":
        raise _UnknownCodecError("paratree does not undo what was done to the values of its chunks")
    endian = codecs[0][1].get("endian", "little")
    if endian not in ("little", "big"):
        raise _fault(source, name, "its byte order is neither little nor big")
    layout.big_endian = endian == "big"
    layout.codecs = tuple(kind if kind == "crc32c" else _compressor(kind) for kind, _ in codecs[1:])
    if sum(codec in _COMPRESSORS for codec in layout.codecs) > 1:
        raise _UnknownCodecError("paratree does not read what is compressed twice")


def _compressor(kind: object) -> str:
    if kind not in _COMPRESSORS:
        raise _UnknownCodecError(f"paratree does not read what is compressed by {str(kind)[:40]}")
    return str(kind)


class _Chunks:
    """The chunks of one array."""

    def __init__(self, store: Store, name: str, layout: _Layout) -> None:
        self.store, self.name, self.layout = store, name, layout

    def array(self, complete: bool) -> LazyArray:
        """Return the array that the chunks make.

        Raises:
            CorruptFileError: chunks are missing, or the array claims more than they can hold.
        """
        layout = self.layout
        keys = self._every_key() if complete else self._stored_keys()
        stored = (
            min(sum(map(self.store.size_of, keys.values())), self.store.size) if complete else self.store.size
        )
        claimed = layout.bytes_of(layout.shape)
        if claimed > _SMALL + _MOST_EXPANSION * stored:
            raise self._fault(f"the shape {layout.shape} takes {claimed} bytes, and {stored} are stored")
        parts = []
        for position, key in keys.items():
            start = tuple(p * c for p, c in zip(position, layout.chunk, strict=True))
            shape = tuple(min(c, n - s) for c, n, s in zip(layout.chunk, layout.shape, start, strict=True))
            parts.append((start, DecodedArray(shape, layout.dtype, partial(self._decoded, key, shape))))
        fill = None if len(keys) == prod(layout.grid) else self._fill()
        return ComposedArray(layout.shape, layout.dtype, tuple(parts), fill)

    def _every_key(self) -> dict[Shape, str]:
        grid = self.layout.grid
        if prod(grid) >= len(self.store):
            raise self._fault(f"it has {prod(grid)} chunks, more than the checkpoint has")
        keys = {p: f"{self.name}/{self.layout.key(p)}" for p in product(*map(range, grid))}
        for key in keys.values():
            if key not in self.store:
                raise self._fault(f"its chunk {key.removeprefix(self.name + '/')} is missing")
        return keys

    def _stored_keys(self) -> dict[Shape, str]:
        layout = self.layout
        found: dict[Shape, str] = {}
        before = f"{self.name}/"
        start = before + (layout.start + layout.separator if layout.start and layout.shape else layout.start)
        for key in self.store:
            words = key[len(start) :].split(layout.separator) if key.startswith(start) else []
            if not layout.shape and key == before + layout.key(()):
                found[()] = key
            elif len(words) == len(layout.shape) and all(w.isdecimal() and len(w) < 20 for w in words):
                position = tuple(map(int, words))
                if all(p < n for p, n in zip(position, layout.grid, strict=True)):
                    found[position] = key
        return found

    def _fill(self) -> int:
        """Return the value of what is not stored: zero, which is what Orbax writes nothing for."""
        fill = self.layout.fill
        if fill is None or fill in (0, [0, 0]):
            return 0
        raise self._fault(f"chunks are missing, and its fill_value is {str(fill)[:40]}")

    def _decoded(self, key: str, shape: Shape) -> np.ndarray[Any, Any]:
        """Return the values of a chunk, as far as they are in the array."""
        source = self.store.source(key)
        inner = self.layout.inner
        if inner is None:
            values = self._values(read(source, 0, source.size), self.layout.chunk, key)
        else:
            values = self._shard(source, inner, key)
        return values[tuple(map(slice, shape))]

    def _shard(self, source: Source, inner: Shape, key: str) -> np.ndarray[Any, Any]:
        """Return the values of a chunk that is made of chunks, with an index at its end."""
        import numpy as np

        layout = self.layout
        grid = tuple(c // n for c, n in zip(layout.chunk, inner, strict=True))
        start = source.size - 16 * prod(grid) - _CRC
        claimed = layout.bytes_of(layout.chunk)
        if start < 0 or claimed > _SMALL + _MOST_EXPANSION * source.size:
            raise self._fault(f"a shard of {claimed} bytes is stored in {source.size}", key)
        index = read(source, start, source.size - start)
        if checksum(index[:-_CRC]) != int.from_bytes(index[-_CRC:], "little"):
            raise self._fault("the checksum of the index of a shard is wrong", key)
        places = np.frombuffer(index[:-_CRC], "<u8").reshape(-1, 2).tolist()
        values = np.full(layout.chunk, self._fill(), numpy_dtype(layout.dtype))
        for position, (place, length) in zip(product(*map(range, grid)), places, strict=True):
            if place == length == _ABSENT:
                continue
            if place + length > start:
                raise self._fault("a chunk reaches beyond its shard", key)
            box = tuple(slice(p * n, p * n + n) for p, n in zip(position, inner, strict=True))
            values[box] = self._values(read(source, place, length), inner, key)
        return values

    def _values(self, data: bytes, shape: Shape, key: str) -> np.ndarray[Any, Any]:
        """Return the values that the stored bytes of a chunk are."""
        import numpy as np

        layout = self.layout
        size = layout.bytes_of(shape)
        raw = np.frombuffer(self._undone(data, size, key), np.uint8)
        if raw.size != size:
            raise self._fault(f"a chunk of {size} bytes is stored in {raw.size}", key)
        width = BITS[layout.dtype] // 8
        if layout.big_endian and width > 1:
            part = {"complex64": 4, "complex128": 8}.get(layout.dtype, width)
            raw = raw.view(f"u{part}").byteswap().view(np.uint8)
        values = raw.view(numpy_dtype(layout.dtype))
        return values.reshape(shape, order="F" if layout.column_major else "C")

    def _undone(self, data: bytes, size: int, key: str) -> bytes | np.ndarray[Any, Any]:
        """Undo the codecs, the last first."""
        found: Any = data
        for place, codec in reversed([*enumerate(self.layout.codecs)]):
            longer = size + _CRC * self.layout.codecs[:place].count("crc32c")
            if codec == "crc32c":
                if checksum(bytes(found[:-_CRC])) != int.from_bytes(bytes(found[-_CRC:]), "little"):
                    raise self._fault("its checksum is wrong", key)
                found = found[:-_CRC]
            elif codec == "zstd":
                found = decompress(bytes(found), longer, self.store.path, key)
            else:
                found = self._inflated(bytes(found), longer, key)
        return found  # type: ignore[no-any-return]

    def _inflated(self, data: bytes, size: int, key: str) -> bytes:
        import zlib

        if size > _MOST_GZIP * max(len(data), 1):
            raise self._fault(f"{len(data)} bytes cannot inflate to the {size} that are claimed", key)
        engine = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            found = engine.decompress(data, size + 1)
        except zlib.error as error:
            raise self._fault(f"the deflate stream is damaged: {error}", key) from None
        if len(found) > size:
            raise UnsafeFileError(
                self.store.path, f"a chunk of {size} bytes inflates to more", member=key,
                advice="it has the form of a decompression bomb; decompress it yourself if you trust it",
            )  # fmt: skip
        if not engine.eof or engine.unused_data:
            raise self._fault("the deflate stream does not end where the chunk does", key)
        return found

    def _fault(self, reason: str, key: str | None = None) -> CorruptFileError:
        return CorruptFileError(self.store.path, reason, member=key or self.name)


def _lengths(source: Source, found: object, name: str) -> Shape:
    if not isinstance(found, list):
        raise _fault(source, name, "its shape is no list of lengths")
    return check_shape(found, source, name)


def _chunk(source: Source, found: object, name: str, shape: Shape) -> Shape:
    chunk = _lengths(source, found, name)
    if len(chunk) != len(shape) or 0 in chunk:
        raise _fault(source, name, f"its chunks {str(found)[:60]} do not fit the shape {str(shape)[:60]}")
    return chunk


def _list(source: Source, name: str, found: object) -> list[Any]:
    if not isinstance(found, list):
        raise _fault(source, name, "its codecs are no list")
    return found


def _named(source: Source, name: str, found: object) -> tuple[Any, dict[str, Any]]:
    """Return name and options of an extension point of Zarr version 3."""
    options = found.get("configuration", {}) if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(options, dict):
        raise _fault(source, name, "a part of its metadata has no name and configuration")
    return found.get("name"), options


def _fault(source: Source, name: str, reason: str) -> CorruptFileError:
    return CorruptFileError(source.path, reason, member=name)
