"""HDF5 under guard: hard links inside the one file only, and every size checked before it is believed.

h5py reads the structure, through a read-only view of a source. Plain arrays are then described by
:mod:`paratree.files.array` and never need h5py again; the others are read with it, chunk sizes first.
The view is closed after every walk and every read: h5py 3.16 crashes the interpreter at exit otherwise.
Format: HDF5 File Format Specification 3.0.
"""

from __future__ import annotations

import io
from math import prod

from paratree.core.array import RefusedArray, Storage, basic_index
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.errors import CorruptFileError, MissingPackageError, ParatreeError, UnsafeFileError, printable
from paratree.files.array import check_shape, file_array

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, LazyArray
    from paratree.files.local import Source

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 64  # groups inside each other
_MOST_OBJECTS = 250_000
_MOST_ATTRIBUTES = 10_000  # of one group
_MOST_TEXT = 64 << 20  # bytes of one attribute
_MOST_TEXTS = 256 << 20  # bytes that a list of texts could take if each were the longest of its heap
_SMALL, _LARGE, _MOST_EXPANSION = 64 << 20, 4 << 30, 1000  # beyond both LARGE and the factor: a bomb
_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000
_PACKERS = (_DEFLATE, _LZF)
_FLOATS = {  # bytes, then where sign, exponent and fraction are, and the exponent's bias -> name
    (2, 15, 10, 5, 0, 10, 15): "float16", (2, 15, 7, 8, 0, 7, 127): "bfloat16",
    (4, 31, 23, 8, 0, 23, 127): "float32", (8, 63, 52, 11, 0, 52, 1023): "float64",
}  # fmt: skip
_FAULTS = (  # what h5py raises on a damaged file, and NumPy on what h5py makes of it
    OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError,
)  # fmt: skip


class Dataset:
    """An array in the file.

    Attributes:
        path: names of the groups it is in, and its own.
        array: shape and dtype now, values when asked.
        end: the highest byte at which it, or what it says about itself, begins; grows as a writer proceeds.
    """

    __slots__ = ("array", "end", "path")

    def __init__(self, path: tuple[str, ...], array: LazyArray, end: int) -> None:
        self.path, self.array, self.end = path, array, end


class Group:
    """A folder in the file.

    Attributes:
        path: names of the groups it is in, and its own.
        children: what is in it, in order of creation if the file tracks it, else by name.
        tracked: whether the file tracks the order of creation.
        texts: the attributes asked for, each a list of texts (of one, for a single text).
    """

    __slots__ = ("children", "path", "texts", "tracked")

    def __init__(self, path: tuple[str, ...], texts: dict[str, list[str]], tracked: bool) -> None:
        self.path, self.texts, self.tracked = path, texts, tracked
        self.children: dict[str, Group | Dataset] = {}

    def text(self, name: str) -> str | None:
        """Return the attribute called ``name`` if it is a single text."""
        found = self.texts.get(name, ())
        return found[0] if len(found) == 1 else None

    def find(self, path: str) -> Group | Dataset | None:
        """Return what a path of names, separated by slashes, leads to from here."""
        found: Group | Dataset | None = self
        for part in path.split("/"):
            if part:
                found = found.children.get(part) if isinstance(found, Group) else None
        return found

    def datasets(self) -> Iterator[Dataset]:
        """Yield every array below, in order."""
        for child in self.children.values():
            if isinstance(child, Group):
                yield from child.datasets()
            else:
                yield child


def is_hdf5(head: bytes) -> bool:
    """Tell whether a file that begins with ``head`` is HDF5; a user block of its own may come first."""
    return any(head.startswith(SIGNATURE, start) for start in (0, 512, 1024, 2048))


def read_tree(source: Source, wanted: Callable[[str], bool]) -> Group:
    """Walk the whole file and describe every group and array in it; no value is read.

    Args:
        source: where the file is: itself, or a window on a member of an archive.
        wanted: which attributes of groups to read, by their names.

    Raises:
        CorruptFileError: the file is damaged, or claims what it cannot hold.
        UnsafeFileError: the file leads out of itself, around in a circle, or to far more than it stores.
        MissingPackageError: h5py is not installed.
    """
    stream = _Stream(source)
    walk = _Walk(source, stream, wanted)
    with _opened(stream, lambda: walk.path) as file:
        return walk.run(file.id)


class _Stream(io.RawIOBase):
    """A source as the read-only file object that h5py asks for; it also sees what HDF5 reads of its heaps."""

    def __init__(self, source: Source) -> None:
        self.source, self._place = source, 0
        self.texts = 0  # how many texts are being read from heaps just now

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + (0, self._place, self.source.size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(self.source.size - self._place, 0)]
        if view.nbytes:
            self.source.readinto(view, self._place)
        self._place += view.nbytes
        if self.texts > 1 and view[:4] == b"GCOL" and view.nbytes >= 16:
            self._check_heap(int.from_bytes(view[8:16], "little"))
        return view.nbytes

    def _check_heap(self, size: int) -> None:
        """Refuse many references to one long text: HDF5 would make a copy for each."""
        if size * self.texts > _MOST_TEXTS:
            raise UnsafeFileError(
                self.source.path, f"{self.texts} texts lie in a heap of {size} bytes, which may mean each is as long",
                member=self.source.member, advice=_BOMB,
            )  # fmt: skip


_BOMB = "it has the form of a bomb: open it with h5py if you trust it"
_OUT = "paratree follows no way out of a file; copy the data into one file (h5repack) if you trust it"


class _opened:  # noqa: N801 -- a function with a body, as contextlib.contextmanager would make of it
    """Open a stream with h5py, close it whatever happens, and turn h5py's errors into one of ours."""

    def __init__(self, stream: _Stream, where: Callable[[], tuple[str, ...]]) -> None:
        self._stream, self._where, self._file = stream, where, None

    def __enter__(self) -> Any:
        try:
            import h5py
        except ImportError as error:
            path = printable(self._stream.source.path)
            raise MissingPackageError(f"{path}: an HDF5 file; reading it needs: pip install h5py ({error})") from None
        try:
            self._file = h5py.File(self._stream, "r")
        except _FAULTS as error:
            self.__exit__(type(error), error, None)
            raise
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._file is not None:
            self._file.close()
        if isinstance(error, _FAULTS) and not isinstance(error, ParatreeError | IndexError):
            raise self._fault(error) from None

    def _fault(self, error: BaseException) -> CorruptFileError:
        source, where = self._stream.source, "/".join(self._where())
        what = " ".join(str(error).split())[:200] or type(error).__name__
        return CorruptFileError(source.path, f"HDF5 cannot read this: {what}", member=_member(source, where))


def _member(source: Source, where: str) -> str | None:
    return f"{source.member}: {where}" if source.member and where else where or source.member


class _Walk:
    """One walk over one file; ``path`` is where it is, for messages."""

    def __init__(self, source: Source, stream: _Stream, wanted: Callable[[str], bool]) -> None:
        self.source, self.stream, self.wanted = source, stream, wanted
        self.path: tuple[str, ...] = ()
        self._groups: dict[int, tuple[str, ...]] = {}
        self._spans: dict[int, tuple[int, int, str]] = {}
        self._objects = 0

    def run(self, root_id: Any) -> Group:
        from h5py import h5d, h5g, h5o

        root_id = h5g.open(root_id, b"/")
        root = self._group(root_id, h5o.get_info(root_id).addr)
        waiting = [(root_id, root)]
        while waiting:
            group_id, group = waiting.pop()
            for name in self._links(group_id, group):
                text = name.decode("utf-8", "surrogateescape")
                self.path = (*group.path, text)
                found = h5o.open(group_id, name)
                address = h5o.get_info(found).addr
                if isinstance(found, h5g.GroupID):
                    group.children[text] = inner = self._group(found, address)
                    waiting.append((found, inner))
                elif isinstance(found, h5d.DatasetID):
                    group.children[text] = self._dataset(found, address)
        self._check_overlap()
        return root

    def _group(self, group_id: Any, address: int) -> Group:
        where = "/".join(self.path)
        if (first := self._groups.setdefault(address, self.path)) is not self.path:
            other = "/".join(first) or "the root"
            raise self._unsafe(f"this group is also {other}, so names may go on for ever", advice=_BOMB)
        if len(self.path) > _DEEPEST:
            raise self._fault(f"over {_DEEPEST} groups lie inside each other: {where[:60]}…")
        plist = group_id.get_create_plist()
        return Group(self.path, self._texts(group_id), bool(plist.get_link_creation_order() & 1))

    def _links(self, group_id: Any, group: Group) -> list[bytes]:
        """List the names in a group, none of which may be a link elsewhere, before any is opened."""
        from h5py import h5, h5l

        links: list[tuple[bytes, int]] = []
        left = _MOST_OBJECTS - self._objects

        def note(name: bytes, info: Any) -> bool | None:
            links.append((name, info.type))
            return True if len(links) > left else None

        order = h5.INDEX_CRT_ORDER if group.tracked else h5.INDEX_NAME
        group_id.links.iterate(note, idx_type=order, info=True)
        self._objects += len(links)
        if self._objects > _MOST_OBJECTS:
            raise self._fault(f"it holds over {_MOST_OBJECTS} objects")
        for name, kind in links:
            if kind != h5l.TYPE_HARD:
                self.path = (*group.path, name.decode("utf-8", "surrogateescape"))
                what = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link into another file"}
                raise self._unsafe(f"{what.get(kind, 'a link of its own kind')} stands for data")
        return [name for name, _ in links]

    def _texts(self, group_id: Any) -> dict[str, list[str]]:
        from h5py import h5a

        names: list[bytes] = []

        def note(name: bytes, *_: object) -> bool | None:
            names.append(name)
            return True if len(names) > _MOST_ATTRIBUTES else None

        if h5a.get_num_attrs(group_id):
            h5a.iterate(group_id, note)
        if len(names) > _MOST_ATTRIBUTES:
            raise self._fault(f"this group has over {_MOST_ATTRIBUTES} attributes")
        texts = {name: name.decode("utf-8", "surrogateescape") for name in names}
        return {
            text: self._text(h5a.open(group_id, name), text) for name, text in texts.items() if self.wanted(text)
        }

    def _text(self, attribute: Any, name: str) -> list[str]:
        """Read an attribute of texts; the file says how many and how long, so that is checked first."""
        import numpy as np
        from h5py import h5s, h5t

        kind, space = attribute.get_type(), attribute.get_space()
        count = 0 if space.get_simple_extent_type() == h5s.NULL else space.get_simple_extent_npoints()
        if count == 0:
            return []
        if not isinstance(kind, h5t.TypeStringID):
            raise self._fault(f"its attribute {name} is no text")
        if count * kind.get_size() > min(_MOST_TEXT, self.source.size):
            raise self._fault(f"its attribute {name} claims {count} texts, more than the file can hold")
        values = np.empty(count, attribute.dtype).reshape(attribute.shape)
        self.stream.texts = count
        attribute.read(values)
        self.stream.texts = 0
        found = values.reshape(-1).tolist()
        return [t if isinstance(t, str) else t.decode("utf-8", "surrogateescape") for t in found]

    def _dataset(self, dataset: Any, address: int) -> Dataset:
        from h5py import h5d, h5s

        plist, kind = dataset.get_create_plist(), dataset.get_type()
        layout = plist.get_layout()
        if layout == h5d.VIRTUAL or plist.get_external_count():
            raise self._unsafe("its values lie in other files")
        where = _member(self.source, "/".join(self.path)) or "/"
        if dataset.get_space().get_simple_extent_type() == h5s.NULL:
            return Dataset(self.path, RefusedArray((), "empty", f"{printable(where)}: has no values at all"), address)
        shape = check_shape(dataset.shape, self.source, where)
        size, stored = prod(shape) * kind.get_size(), min(dataset.get_storage_size(), self.source.size)
        if size > _LARGE and size > _MOST_EXPANSION * stored:
            raise self._unsafe(f"{size} bytes are claimed and {stored} are stored", advice=_BOMB)
        dtype, big_endian = _dtype(dataset, kind)
        offset = dataset.get_offset() if layout == h5d.CONTIGUOUS else None
        if offset is not None:
            self._spans[address] = (offset, offset + size, where)
        if dtype not in BITS:
            problem = f"{printable(where)}: {dtype}; paratree reads numbers"
            return Dataset(self.path, RefusedArray(shape, dtype, problem), address)
        array: LazyArray
        if offset is not None:
            array = file_array(self.source, offset, shape, dtype, big_endian=big_endian, member=where)
        elif problem := _problem(plist, layout, size, kind.get_size(), stored):
            array = RefusedArray(shape, dtype, f"{printable(where)}: {problem}")
        else:
            array = PackedArray(self.source, self.path, address, shape, dtype, big_endian)
        return Dataset(self.path, array, max(address, offset or 0))

    def _check_overlap(self) -> None:
        end = 0
        for low, high, where in sorted(self._spans.values()):
            if low < end and low < high:
                raise CorruptFileError(
                    self.source.path, "overlaps the array before it", offset=low, member=where
                )
            end = max(end, high)

    def _fault(self, reason: str) -> CorruptFileError:
        return CorruptFileError(self.source.path, reason, member=_member(self.source, "/".join(self.path)))

    def _unsafe(self, reason: str, advice: str = _OUT) -> UnsafeFileError:
        where = _member(self.source, "/".join(self.path))
        return UnsafeFileError(self.source.path, reason, member=where, advice=advice)


def _dtype(dataset: Any, kind: Any) -> tuple[str, bool]:
    """Return the name of a dtype and whether it is big-endian; a word that is no dtype's for anything else."""
    from h5py import h5a, h5t

    size, big = kind.get_size(), False
    if isinstance(kind, h5t.TypeCompoundID) and kind.get_nmembers() == 2 and kind.get_member_name(0) == b"r":
        part = kind.get_member_type(0)
        if kind.get_member_name(1) == b"i" and part == kind.get_member_type(1) and kind.get_member_offset(0) == 0:
            half, big = _plain(part)
            if half in ("float32", "float64") and kind.get_member_offset(1) * 2 == size == part.get_size() * 2:
                return f"complex{size * 8}", big
    if isinstance(kind, h5t.TypeEnumID):
        names = {kind.get_member_value(i): kind.get_member_name(i) for i in range(min(kind.get_nmembers(), 3))}
        if size == 1 and names == {0: b"FALSE", 1: b"TRUE"}:
            return "bool", False
        return _plain(kind.get_super())
    if isinstance(kind, h5t.TypeOpaqueID):  # Keras keeps bfloat16 so, and its name in an attribute
        if size <= 2 and h5a.exists(dataset, b"dtype"):
            attribute = h5a.open(dataset, b"dtype")
            text = attribute.get_type()
            if isinstance(text, h5t.TypeStringID) and attribute.shape == () and text.get_size() <= 64:
                import numpy as np

                value = np.empty((), attribute.dtype)
                attribute.read(value)
                name = value[()].decode("utf-8", "replace") if isinstance(value[()], bytes) else str(value[()])
                if BITS.get(name) == size * 8:
                    return name, False
    return _plain(kind)


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


_WORDS = {
    "TypeIntegerID": "an integer", "TypeFloatID": "a float", "TypeStringID": "text", "TypeOpaqueID": "opaque bytes",
    "TypeCompoundID": "a compound", "TypeVlenID": "lists of any length", "TypeArrayID": "arrays in arrays",
    "TypeReferenceID": "references", "TypeBitfieldID": "bit fields", "TypeTimeID": "times",
}  # fmt: skip


def _problem(plist: Any, layout: int, size: int, width: int, stored: int) -> str | None:
    """Say why an array that is not plain will not be read, if so."""
    from h5py import h5d

    most = max(_SMALL, _MOST_EXPANSION * stored)
    if size > most:
        return f"{size} bytes are claimed and {stored} are stored; open it with h5py if you trust it"
    if layout != h5d.CHUNKED:
        return None
    if (chunk := prod(plist.get_chunk()) * width) > most:
        return f"its chunks of {chunk} bytes are larger than what is stored; open it with h5py if you trust it"
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if odd := [f for f in filters if f not in (_DEFLATE, _SHUFFLE, _FLETCHER32, _LZF)]:
        return f"compressed by HDF5 filter {odd[0]}, which is not read; rewrite it with h5repack"
    if sum(f in _PACKERS for f in filters) > 1:
        return "compressed more than once; rewrite it with h5repack"
    return None


class PackedArray:
    """An array in chunks, or inside its own header: read with h5py, only the chunks that are asked for."""

    __slots__ = ("_big_endian", "_path", "_source", "address", "dtype", "shape")

    problem = None

    def __init__(
        self, source: Source, path: tuple[str, ...], address: int, shape: tuple[int, ...], dtype: str, big: bool
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
            with _opened(_Stream(self._source), lambda: self._path) as file:
                self._fill(file.id, raw, up)
        values = raw.view(np.uint8 if dtype.itemsize == 1 else f"u{self._part(dtype.itemsize)}")
        values = (values.byteswap() if self._big_endian else values).view(dtype)
        values = values.reshape(raw.shape)
        values = values[tuple(slice(None, None, 1 if r.step > 0 else -1) for r in ranges)]
        return values[tuple(0 if isinstance(p, int) else slice(None) for p in picks) + (...,)]

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
        import zlib

        from h5py import h5d

        plist = dataset.get_create_plist()
        filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
        if plist.get_layout() != h5d.CHUNKED or _DEFLATE not in filters:
            return
        chunk, bit = plist.get_chunk(), 1 << filters.index(_DEFLATE)
        size = prod(chunk) * dataset.get_type().get_size()
        for i in range(dataset.get_num_chunks()):
            start = dataset.get_chunk_info(i).chunk_offset
            if any(s >= r.stop or s + n <= r.start for s, n, r in zip(start, chunk, ranges, strict=True)):
                continue
            mask, packed = dataset.read_direct_chunk(start)
            engine = zlib.decompressobj()
            if mask & bit or len(engine.decompress(packed, size + 1)) <= size:
                continue
            raise UnsafeFileError(
                self._source.path, f"a chunk inflates to more than its {size} bytes",
                member=_member(self._source, "/".join(self._path)), advice=_BOMB,
            )  # fmt: skip
