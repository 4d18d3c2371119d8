"""The values of an HDF5 file: how it is opened, what its types are called, arrays that only h5py can read.

The view that h5py gets is closed after every use: h5py 3.16 crashes the interpreter at exit otherwise.
"""

from __future__ import annotations

import io
import re
import struct
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
from paratree.files.hdf5_texts import BOMB
from paratree.files.local import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import numpy as np

    from paratree.core.array import Index
    from paratree.files.local import Source

MOST_EXPANSION = 1000  # bytes that a stored byte may stand for, beyond _SMALL bytes
_SMALL = 64 << 20
_NO_MORE_FREE, _MOST_FREE = 1, 1 << 16
_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000  # filters, by the number that HDF5 gives them
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
    """A source as the read-only file object that h5py asks for.

    Args:
        source: where the file is.
        base: where it begins in the source, if what HDF5 reads of it is not known to be sound yet.
    """

    def __init__(self, source: Source, base: int | None = None) -> None:
        self.source, self.base, self._place = source, base, 0

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
        place = self._place
        view = memoryview(buffer)[: max(self.source.size - place, 0)]
        if view.nbytes:
            self.source.readinto(view, place)
        self._place += view.nbytes
        if self.base is not None and bytes(view[:4]) == b"HEAP":
            self._check_names(place, self.base)
        return view.nbytes

    def _check_names(self, start: int, base: int) -> None:
        """Follow the list of free places in a heap of names: HDF5 2.0 would follow a circle for ever."""
        size, free, place = struct.unpack("<3Q", read(self.source, start + 8, 24))
        seen: set[int] = set()
        while free != _NO_MORE_FREE:
            if free in seen or free + 16 > size or len(seen) > _MOST_FREE:
                raise CorruptFileError(
                    self.source.path, "the free places of a heap of names are no list", offset=start,
                    member=self.source.member,
                )  # fmt: skip
            seen.add(free)
            free = int.from_bytes(read(self.source, base + place + free, 8), "little")


@contextmanager
def opened(stream: Stream, where: Callable[[], tuple[str, ...]]) -> Iterator[Any]:
    """Open a stream with h5py, close it whatever happens, and turn h5py's errors into one of ours."""
    source = stream.source
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(
            f"{printable(source.path)}: an HDF5 file; reading it needs: pip install h5py ({error})"
        ) from None
    file = None
    try:
        file = h5py.File(stream, "r")
        yield file
    except ParatreeError:
        raise
    except _FAULTS as error:
        what = _INNER.sub(r"\1", " ".join(str(error).strip("'").split()))[:200] or type(error).__name__
        member = member_of(source, "/".join(where()))
        raise CorruptFileError(source.path, f"HDF5 cannot read this: {what}", member=member) from None
    finally:
        if file is not None:
            file.close()


def member_of(source: Source, where: str) -> str | None:
    """Return what messages call a place in the file, which may be in an archive."""
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


def problem_of(plist: Any, layout: int, size: int, width: int, stored: int) -> str | None:
    """Say why an array that is not plain will not be read, if so."""
    from h5py import h5d

    most = max(_SMALL, MOST_EXPANSION * stored)
    if size > most:
        return f"{size} bytes are claimed and {stored} are stored; open it with h5py if you trust it"
    if layout != h5d.CHUNKED:
        return None
    if (chunk := prod(plist.get_chunk()) * width) > most:
        return f"{chunk} bytes make a chunk and {stored} are stored; open it with h5py if you trust it"
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if odd := [f for f in filters if f not in (_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF)]:
        return f"compressed by HDF5 filter {odd[0]}, which is not read; rewrite it with h5repack"
    if sum(f in (_DEFLATE, _LZF) for f in filters) > 1:
        return "compressed more than once; rewrite it with h5repack"
    return None


class PackedArray:
    """An array in chunks, or inside its own header: read with h5py, only the chunks that are asked for."""

    __slots__ = ("_big_endian", "_path", "_source", "address", "dtype", "shape")

    problem = None

    def __init__(
        self,
        source: Source,
        path: tuple[str, ...],
        address: int,
        shape: tuple[int, ...],
        dtype: str,
        big: bool,
    ) -> None:
        self._source, self._path, self.address = source, path, address
        self.shape, self.dtype, self._big_endian = shape, dtype, big

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
        up = [r if r.step > 0 else r[::-1] for r in ranges]
        dtype = numpy_dtype(self.dtype)
        raw = np.empty([len(r) for r in up], f"V{dtype.itemsize}")
        if raw.size:
            with opened(Stream(self._source), lambda: self._path) as file:
                self._fill(file.id, raw, up)
        values = raw.view(np.uint8 if dtype.itemsize == 1 else f"u{self._part(dtype.itemsize)}")
        values = (values.byteswap() if self._big_endian else values).view(dtype)
        values = values.reshape(raw.shape)
        values = values[tuple(slice(None, None, 1 if r.step > 0 else -1) for r in ranges)]
        return values[(*(0 if isinstance(p, int) else slice(None) for p in picks), ...)]

    def _part(self, width: int) -> int:
        return width // 2 if self.dtype.startswith("complex") else width

    def _fill(self, file: Any, raw: np.ndarray[Any, Any], ranges: list[range]) -> None:
        from h5py import h5o, h5s

        dataset = h5o.open(file, "/".join(self._path).encode("utf-8", "surrogateescape"))
        self._check_chunks(dataset, ranges)
        if not ranges:
            dataset.read(h5s.ALL, h5s.ALL, raw, dataset.get_type())
            return
        space = dataset.get_space()
        space.select_hyperslab(
            tuple(r.start for r in ranges), tuple(map(len, ranges)), tuple(r.step for r in ranges)
        )
        dataset.read(h5s.create_simple(raw.shape), space, raw, dataset.get_type())

    def _check_chunks(self, dataset: Any, ranges: list[range]) -> None:
        """Inflate the chunks that will be read, each to no more than its size: HDF5 would not stop there."""
        from h5py import h5d

        plist = dataset.get_create_plist()
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if plist.get_layout() != h5d.CHUNKED or _DEFLATE not in filters:
            return
        chunk, bit = plist.get_chunk(), 1 << filters.index(_DEFLATE)
        size = prod(chunk) * dataset.get_type().get_size()
        for i in range(dataset.get_num_chunks()):
            info = dataset.get_chunk_info(i)
            outside = (
                s >= r.stop or s + n <= r.start
                for s, n, r in zip(info.chunk_offset, chunk, ranges, strict=True)
            )
            if info.filter_mask & bit or any(outside):
                continue
            if info.size > self._source.size:
                raise self._fault(
                    f"a chunk claims {info.size} bytes, more than the file has", info.byte_offset
                )
            self._check_inflation(dataset.read_direct_chunk(info.chunk_offset)[1], size, info.byte_offset)

    def _check_inflation(self, packed: bytes, size: int, offset: int) -> None:
        import zlib

        try:
            inflated = len(zlib.decompressobj().decompress(packed, size + 1))
        except zlib.error as error:
            raise self._fault(f"a chunk is damaged: {error}", offset) from None
        if inflated > size:
            raise UnsafeFileError(
                self._source.path, f"a chunk of {size} bytes inflates to more", offset=offset,
                member=self._where(), advice=BOMB,
            )  # fmt: skip

    def _fault(self, reason: str, offset: int) -> CorruptFileError:
        return CorruptFileError(self._source.path, reason, offset=offset, member=self._where())

    def _where(self) -> str | None:
        return member_of(self._source, "/".join(self._path))
