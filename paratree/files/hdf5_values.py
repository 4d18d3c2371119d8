"""The values of HDF5 arrays that are kept in chunks, or were never written.

A chunk is inflated up to its size and no further.
"""

from __future__ import annotations

from math import prod

from paratree.core.array import Storage, basic_index
from paratree.core.dtypes import numpy_dtype
from paratree.core.errors import CorruptFileError, UnsafeFileError
from paratree.files.hdf5_messages import CHUNKED
from paratree.files.hdf5_reader import BOMB, Reader
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    import numpy as np

    from paratree.core.array import Index
    from paratree.files.hdf5_chunks import Piece
    from paratree.files.hdf5_messages import Layout, Space, Type

_DEFLATE, _SHUFFLE = 1, 2  # filters, by the number that HDF5 gives them


def packing_problem(filters: list[int]) -> str | None:
    """Say why chunks that went through these filters will not be read, if so."""
    if odd := [number for number in filters if number not in (_DEFLATE, _SHUFFLE)]:
        return f"packed by HDF5 filter {odd[0]}, which paratree does not undo; rewrite it with h5repack"
    return "packed more than once; rewrite it with h5repack" if len(set(filters)) < len(filters) else None


def stored_bytes(reader: Reader, layout: Layout, space: Space) -> int:
    """Return how many bytes the chunks of an array take in the file."""
    from paratree.files.hdf5_chunks import chunks_of

    return sum(size for *_, size in chunks_of(reader, layout, space))


class PackedArray:
    """An array in chunks, or never written: only the chunks that are asked for are read."""

    __slots__ = (
        "_base", "_big_endian", "_fill", "_filters", "_layout", "_source", "_space", "_where",
        "address", "dtype", "shape",
    )  # fmt: skip

    problem = None

    def __init__(
        self, reader: Reader, where: str | None, address: int, space: Space, type_: Type, layout: Layout,
        filters: list[int], fill: bytes,
    ) -> None:  # fmt: skip
        self._source, self._base, self._where, self.address = reader.source, reader.base, where, address
        self._space, self._layout, self._filters, self._fill = space, layout, filters, fill
        self.shape, self.dtype, self._big_endian = space.shape or (), type_.name, type_.big_endian

    @property
    def storage(self) -> Storage:
        """The object in the file: two names that lead to one object are tied."""
        return Storage((self._source.key, "object"), self.address)

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index, in native byte order.

        Raises:
            IndexError: the index does not fit the shape.
            CorruptFileError: a chunk is damaged, or the file has changed since it was opened.
            UnsafeFileError: a chunk inflates to more than its size.
        """
        import numpy as np

        picks = basic_index(index, self.shape)
        ranges = [range(p, p + 1) if isinstance(p, int) else p for p in picks]
        dtype = numpy_dtype(self.dtype)
        width = dtype.itemsize
        raw = np.zeros([len(r) for r in ranges], f"V{width}")
        if len(self._fill) == width:
            raw[...] = np.void(self._fill)
        for start, mask, place, size in self._chunks(ranges) if raw.size else ():
            self._copy(raw, ranges, start, self._unpacked(start, mask, self._base + place, size, width))
        flat = raw.reshape(-1).view(f"u{width // (2 if dtype.kind == 'c' else 1)}")
        values = (flat.byteswap() if self._big_endian else flat).view(dtype).reshape(raw.shape)
        return values[(*(0 if isinstance(p, int) else slice(None) for p in picks), ...)]

    def _chunks(self, ranges: list[range]) -> Iterator[Piece]:
        """Yield the chunks in which something is wanted."""
        if self._layout.kind != CHUNKED:
            return
        from paratree.files.hdf5_chunks import chunks_of

        ends = [(min(r[0], r[-1]), max(r[0], r[-1])) for r in ranges]
        for piece in chunks_of(Reader(self._source, self._base), self._layout, self._space):
            reach = zip(piece[0], self._layout.chunk[:-1], ends, strict=True)
            if all(start <= high and low < start + n for start, n, (low, high) in reach):
                yield piece

    def _copy(
        self, raw: np.ndarray[Any, Any], ranges: list[range], start: tuple[int, ...], piece: bytes
    ) -> None:
        """Copy what is wanted of one chunk to where it belongs."""
        import numpy as np

        chunk_shape = self._layout.chunk[:-1]
        to, of = [], []
        for r, at, n in zip(ranges, start, chunk_shape, strict=True):
            forward = r if r.step > 0 else r[::-1]
            first = max(-(-(at - forward.start) // forward.step), 0)
            last = min(-(-(at + n - forward.start) // forward.step), len(r))
            inside = forward[first:last]
            of.append(slice(inside.start - at, inside.stop - at, inside.step))
            to.append(slice(first, last) if r.step > 0 else slice(len(r) - last, len(r) - first))
        chunk = np.frombuffer(piece, raw.dtype).reshape(chunk_shape)[tuple(of)]
        for axis, r in enumerate(ranges):
            chunk = np.flip(chunk, axis) if r.step < 0 else chunk
        raw[tuple(to)] = chunk

    def _unpacked(self, start: tuple[int, ...], mask: int, place: int, size: int, width: int) -> bytes:
        """Return a chunk as it was before the filters; inflating stops at its size."""
        import zlib

        import numpy as np

        data, wanted = read(self._source, place, size), prod(self._layout.chunk)
        for i, number in reversed(list(enumerate(self._filters))):
            if mask >> i & 1 or (self._layout.bare_edges and self._is_cut(start)):
                continue
            if number == _SHUFFLE and width > 1 and len(data) == wanted:
                data = np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()
            elif number == _DEFLATE:
                try:
                    data = zlib.decompressobj().decompress(data, wanted + 1)
                except zlib.error as error:
                    raise self._fault(f"a chunk is damaged: {error}", place) from None
        if len(data) > wanted:
            what = f"a chunk of {wanted} bytes unpacks to more"
            raise UnsafeFileError(self._source.path, what, offset=place, member=self._where, advice=BOMB)
        if len(data) < wanted:
            raise self._fault(f"a chunk of {wanted} bytes unpacks to {len(data)}", place)
        return data

    def _is_cut(self, start: tuple[int, ...]) -> bool:
        """Tell whether a chunk reaches beyond the array."""
        ends = zip(start, self._layout.chunk[:-1], self.shape, strict=True)
        return any(at + n > length for at, n, length in ends)

    def _fault(self, reason: str, offset: int) -> CorruptFileError:
        return CorruptFileError(self._source.path, reason, offset=offset, member=self._where)
