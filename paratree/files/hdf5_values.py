"""The values of an HDF5 file: how it is opened, what its types are called, and arrays kept in chunks.

HDF5 never reads a chunk: it crashes on damaged ones (2.0.0). What it is opened with is closed after every
use: h5py 3.16 crashes the interpreter at exit otherwise.
"""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from math import prod

from paratree.core.array import Storage, basic_index
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.errors import (
    CorruptFileError,
    MissingPackageError,
    ParatreeError,
    UnsafeFileError,
    printable,
)
from paratree.files.hdf5_headers import BOMB, chunk_tree, chunks_of, fill_value
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import numpy as np

    from paratree.core.array import Index
    from paratree.files.hdf5_headers import Headers, Messages
    from paratree.files.local import Source

    Where = tuple[str, ...]
    Piece = tuple[tuple[int, ...], int, int, int]  # start, filter mask, place, stored bytes

MOST_EXPANSION = 1000  # bytes that a stored byte may stand for, beyond _SMALL bytes
_SMALL = 64 << 20
_DEFLATE, _SHUFFLE = 1, 2  # filters, by the number that HDF5 gives them
_FLOATS = {  # bytes, then where sign, exponent and fraction are, and the exponent's bias -> name
    (2, 15, 10, 5, 0, 10, 15): "float16", (2, 15, 7, 8, 0, 7, 127): "bfloat16",
    (4, 31, 23, 8, 0, 23, 127): "float32", (8, 63, 52, 11, 0, 52, 1023): "float64",
}  # fmt: skip
OPAQUE = "opaque bytes"
_WORDS = {
    "TypeIntegerID": "integers", "TypeFloatID": "floats", "TypeStringID": "text", "TypeVlenID": "lists",
    "TypeOpaqueID": OPAQUE, "TypeCompoundID": "compounds", "TypeArrayID": "arrays in an array",
    "TypeReferenceID": "references", "TypeBitfieldID": "bit fields", "TypeTimeID": "times",
}  # fmt: skip
_INNER = re.compile(r"^[^()]* \((.*)\)$")  # h5py says what it was doing, and HDF5's reason in brackets
_FAULTS = (  # what h5py raises on a damaged file, and NumPy on what h5py makes of it
    OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError,
)  # fmt: skip


class Stream(io.RawIOBase):
    """A source as the read-only file object that h5py asks for."""

    def __init__(self, source: Source) -> None:
        self.source, self._place = source, 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as files do."""
        self._place = offset + (0, self._place, self.source.size)[whence]
        return self._place

    def tell(self) -> int:
        """Return the place."""
        return self._place

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read from the place on; h5py asks for nothing else."""
        view = memoryview(buffer)[: max(self.source.size - self._place, 0)]
        if view.nbytes:
            self.source.readinto(view, self._place)
        self._place += view.nbytes
        return view.nbytes


@contextmanager
def opened(source: Source, where: Callable[[], Where]) -> Iterator[Any]:
    """Open a file with h5py, close it whatever happens, and turn h5py's errors into one of ours."""
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(
            f"{printable(source.path)}: an HDF5 file; reading it needs: pip install h5py ({error})"
        ) from None
    file = None
    try:
        file = h5py.File(Stream(source), "r")
        yield file
    except ParatreeError:
        raise
    except _FAULTS as error:
        what = _INNER.sub(r"\1", " ".join(str(error).strip("'").split()))[:200] or type(error).__name__
        raise CorruptFileError(
            source.path, f"HDF5 cannot read this: {what}", member=member_of(source, where())
        ) from None
    finally:
        if file is not None:
            file.close()


def member_of(source: Source, path: Where) -> str | None:
    """Return what messages call a place in the file, which may be in an archive."""
    where = "/".join(path)
    return f"{source.member}: {where}" if source.member and where else where or source.member


def dtype_of(dataset: Any) -> tuple[str, bool]:
    """Return the name of a dtype, or another word if NumPy lacks it, and whether it is big-endian."""
    from h5py import h5t

    kind = dataset.get_type()
    if isinstance(kind, h5t.TypeCompoundID):
        return _complex(kind) or _plain(kind)
    if isinstance(kind, h5t.TypeEnumID):
        count = min(kind.get_nmembers(), 3)
        names = {kind.get_member_value(i): kind.get_member_name(i) for i in range(count)}
        boolean = kind.get_size() == 1 and names == {0: b"FALSE", 1: b"TRUE"}
        return ("bool", False) if boolean else _plain(kind.get_super())
    return _plain(kind)


def _complex(kind: Any) -> tuple[str, bool] | None:
    """Name a pair of equal floats called r and i, as h5py keeps complex numbers; no other compound."""
    members = range(min(kind.get_nmembers(), 3))
    if [kind.get_member_name(i) for i in members] != [b"r", b"i"]:
        return None
    (half, big), (other, big_too) = (_plain(kind.get_member_type(i)) for i in members)
    width = BITS.get(half, 0) // 8
    places = [kind.get_member_offset(i) for i in members]
    if half != other or big != big_too or half not in ("float32", "float64"):
        return None
    return (f"complex{width * 16}", big) if places == [0, width] and kind.get_size() == 2 * width else None


def _plain(kind: Any) -> tuple[str, bool]:
    """Name an integer or floating type of a form that NumPy has."""
    from h5py import h5t

    size, word = kind.get_size(), _WORDS.get(type(kind).__name__, "an unknown type")
    if not isinstance(kind, h5t.TypeIntegerID | h5t.TypeFloatID):
        return word, False
    order, name = kind.get_order(), None
    if isinstance(kind, h5t.TypeFloatID):
        name = _FLOATS.get((size, *kind.get_fields(), kind.get_ebias()))
    elif kind.get_precision() == size * 8 and kind.get_offset() == 0:
        name = f"{'int' if kind.get_sign() == h5t.SGN_2 else 'uint'}{size * 8}"
    if name not in BITS or order not in (h5t.ORDER_LE, h5t.ORDER_BE):
        return f"{word} of a form that NumPy lacks ({size} bytes)", False
    return name, order == h5t.ORDER_BE


def problem_of(plist: Any, size: int, width: int, stored: int) -> str | None:
    """Say why an array that is not in one piece will not be read, if so."""
    from h5py import h5d

    most = max(_SMALL, MOST_EXPANSION * stored)
    if size > most:
        return f"{size} bytes are claimed and {stored} are stored; open it with h5py if you trust it"
    if plist.get_layout() != h5d.CHUNKED:
        return None
    if (chunk := prod(plist.get_chunk()) * width) > most:
        return f"{chunk} bytes make a chunk and {stored} are stored; open it with h5py if you trust it"
    filters = _filters(plist)
    if odd := [number for number in filters if number not in (_DEFLATE, _SHUFFLE)]:
        return f"packed by HDF5 filter {odd[0]}, which paratree does not undo; rewrite it with h5repack"
    return "packed more than once; rewrite it with h5repack" if len(set(filters)) < len(filters) else None


def _filters(plist: Any) -> list[int]:
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


class PackedArray:
    """An array in chunks, or never written: only the chunks that are asked for are read."""

    __slots__ = (
        "_big_endian",
        "_chunk",
        "_fill",
        "_filters",
        "_headers",
        "_path",
        "_tree",
        "address",
        "dtype",
        "shape",
    )

    problem = None

    def __init__(
        self, headers: Headers, messages: Messages, path: Where, address: int, shape: tuple[int, ...],
        dtype: str, big_endian: bool, plist: Any,
    ) -> None:  # fmt: skip
        from h5py import h5d

        self._headers, self._path, self.address = headers, path, address
        self.shape, self.dtype, self._big_endian = shape, dtype, big_endian
        self._chunk = plist.get_chunk() if plist.get_layout() == h5d.CHUNKED else None
        self._filters, self._fill, self._tree = _filters(plist), fill_value(messages), chunk_tree(messages)

    @property
    def storage(self) -> Storage:
        """The object in the file: two names that lead to one object are tied."""
        return Storage((self._headers.source.key, "object"), self.address)

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
            self._copy(raw, ranges, start, self._unpacked(mask, place, size, width))
        values = raw.view(np.uint8 if width == 1 else f"u{width // (2 if dtype.kind == 'c' else 1)}")
        values = (values.byteswap() if self._big_endian else values).view(dtype).reshape(raw.shape)
        return values[(*(0 if isinstance(p, int) else slice(None) for p in picks), ...)]

    def _chunks(self, ranges: list[range]) -> Iterator[Piece]:
        """Yield the chunks in which something is wanted."""
        if self._chunk is None:
            return
        ends = [(min(r[0], r[-1]), max(r[0], r[-1])) for r in ranges]
        source, base = self._headers.source, self._headers.base
        for piece in chunks_of(source, base, self._tree) if self._tree else self._asked():
            reach = zip(piece[0], self._chunk, ends, strict=True)
            if all(start <= high and low < start + n for start, n, (low, high) in reach):
                yield piece

    def _asked(self) -> list[Piece]:
        """Ask HDF5 where the chunks are: the newer form has five ways to keep them."""
        with opened(self._headers.source, lambda: self._path) as file:
            from h5py import h5o

            dataset = h5o.open(file.id, "/".join(self._path).encode("utf-8", "surrogateescape"))
            infos = [dataset.get_chunk_info(i) for i in range(dataset.get_num_chunks())]
            return [(info.chunk_offset, info.filter_mask, info.byte_offset, info.size) for info in infos]

    def _copy(
        self, raw: np.ndarray[Any, Any], ranges: list[range], start: tuple[int, ...], piece: bytes
    ) -> None:
        """Copy what is wanted of one chunk to where it belongs."""
        import numpy as np

        assert self._chunk is not None  # noqa: S101 -- only chunked arrays have chunks
        to, of = [], []
        for r, at, n in zip(ranges, start, self._chunk, strict=True):
            forward = r if r.step > 0 else r[::-1]
            first = max(-(-(at - forward.start) // forward.step), 0)
            last = min(-(-(at + n - forward.start) // forward.step), len(r))
            inside = forward[first:last]
            of.append(slice(inside.start - at, inside.stop - at, inside.step))
            to.append(slice(first, last) if r.step > 0 else slice(len(r) - last, len(r) - first))
        chunk = np.frombuffer(piece, raw.dtype).reshape(self._chunk)[tuple(of)]
        for axis, r in enumerate(ranges):
            chunk = np.flip(chunk, axis) if r.step < 0 else chunk
        raw[tuple(to)] = chunk

    def _unpacked(self, mask: int, place: int, size: int, width: int) -> bytes:
        """Return a chunk as it was before the filters; inflating stops at its size."""
        import zlib

        import numpy as np

        data, wanted = read(self._headers.source, place, size), prod(self._chunk or ()) * width
        for i, number in reversed(list(enumerate(self._filters))):
            if mask >> i & 1:
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
            where = member_of(self._headers.source, self._path)
            raise UnsafeFileError(self._headers.source.path, what, offset=place, member=where, advice=BOMB)
        if len(data) < wanted:
            raise self._fault(f"a chunk of {wanted} bytes unpacks to {len(data)}", place)
        return data

    def _fault(self, reason: str, offset: int) -> CorruptFileError:
        where = member_of(self._headers.source, self._path)
        return CorruptFileError(self._headers.source.path, reason, offset=offset, member=where)
