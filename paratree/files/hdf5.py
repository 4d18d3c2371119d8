"""HDF5 under guard: hard links inside the one file only, and every size checked before it is believed.

Read without the HDF5 library, which hangs or crashes on damaged files (2.0.0). Each object is described by
the messages in its header: :mod:`paratree.files.hdf5_headers` finds them, :mod:`paratree.files.hdf5_messages`
reads them, :mod:`paratree.files.hdf5_links` says what is in a group. Plain arrays are then described by
:mod:`paratree.files.array`, others by :mod:`paratree.files.hdf5_values`.
Format: HDF5 File Format Specification 3.0.
"""

from __future__ import annotations

import struct
from math import prod

from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS
from paratree.core.errors import CorruptFileError, UnsafeFileError, printable
from paratree.files.array import check_shape, file_array
from paratree.files.hdf5_headers import EXTERNAL, FILTERS, LAYOUT, SPACE, TYPE, Headers, base_of, first
from paratree.files.hdf5_links import HARD, KINDS, is_group, is_tracked, links_of
from paratree.files.hdf5_messages import (
    CHUNKED,
    COMPACT,
    CONTIGUOUS,
    OPAQUE,
    VIRTUAL,
    MalformedError,
    fill_of,
    filters_of,
    layout_of,
    space_of,
    type_of,
)
from paratree.files.hdf5_reader import BOMB, NOWHERE
from paratree.files.hdf5_texts import Texts
from paratree.files.hdf5_values import PackedArray, packing_problem, stored_bytes
from paratree.files.local import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paratree.core.array import LazyArray
    from paratree.files.hdf5_headers import Messages
    from paratree.files.hdf5_links import Link
    from paratree.files.hdf5_messages import Layout, Space, Type
    from paratree.files.local import Source

_DEEPEST = 64  # groups inside each other
_MOST_OBJECTS = 250_000
_DTYPE = "dtype"  # the attribute in which Keras keeps the name of a dtype that HDF5 lacks
_LARGE = 4 << 30  # an array of more that is stored in a thousandth of it is a bomb
_SMALL = 64 << 20  # bytes that may be claimed whatever is stored
_MOST_EXPANSION = 1000  # bytes that a stored byte may stand for, beyond those
_NO_NAMES = (b"", b".")  # which no link can have
_OUT = "paratree follows no way out of a file: copy the data into one file (h5repack) if you trust it"


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
        end: the highest of the ends of the arrays below it, -1 if there are none.
        tracked: whether the file tracks the order of creation.
        texts: the attributes asked for, each a list of texts (of one, for a single text).
    """

    __slots__ = ("children", "end", "path", "texts", "tracked")

    def __init__(self, path: tuple[str, ...], texts: dict[str, list[str]], tracked: bool) -> None:
        self.path, self.texts, self.tracked = path, texts, tracked
        self.children: dict[str, Group | Dataset] = {}
        self.end = -1

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
    return base_of(head) is not None


def read_tree(source: Source, wanted: Callable[[str], bool]) -> Group:
    """Walk the whole file and describe every group and array in it; no value is read.

    Args:
        source: where the file is: itself, or a window on a member of an archive.
        wanted: which attributes of groups to read, by their names.

    Raises:
        CorruptFileError: the file is damaged, or claims what it cannot hold.
        UnsafeFileError: the file leads out of itself, around in a circle, or to far more than it stores.
    """
    walk = _Walk(source, wanted)
    try:
        return walk.run()
    except MalformedError as error:
        raise walk.fault(str(error)) from None
    except struct.error:
        raise walk.fault("what heads it is shorter than it says") from None


class _Walk:
    """One walk over one file; ``path`` is where it is, for messages."""

    def __init__(self, source: Source, wanted: Callable[[str], bool]) -> None:
        self.source, self._wanted = source, wanted
        self._headers = Headers(source)
        self._texts = Texts(self._headers)
        self.path: tuple[str, ...] = ()
        self._groups: dict[int, Group] = {}
        self._datasets: dict[int, Dataset] = {}
        self._types: set[int] = set()  # those that have names; they hold no values
        self._spans: list[tuple[int, int, str]] = []
        self._objects = 0

    def run(self) -> Group:
        """Return the root; every object is met once."""
        root_at = self._headers.root
        messages = self._headers.messages(root_at)
        if not is_group(messages):
            raise self.fault("the root of the file is no group")
        root = self._group(root_at, messages)
        waiting = [(root, messages)]
        while waiting:
            group, messages = waiting.pop()
            for link in self._links(group, messages):
                if link.address in self._types:
                    continue
                text = _text(link)
                self.path = (*group.path, text)
                if (same := self._datasets.get(link.address)) is not None:
                    group.children[text] = Dataset(self.path, same.array, same.end)
                    continue
                self._check_group(link.address)
                inside = self._headers.messages(link.address)
                child = self._child(link.address, inside)
                if child is not None:
                    group.children[text] = child
                if isinstance(child, Group):
                    waiting.append((child, inside))
        self._check_overlap()
        for group in reversed(self._groups.values()):
            group.end = max((child.end for child in group.children.values()), default=-1)
        return root

    def _check_group(self, address: int) -> None:
        if (known := self._groups.get(address)) is not None:
            other = "/".join(known.path) or "the root"
            raise self._unsafe(f"this group is also {other}, so names may go on for ever", advice=BOMB)
        if len(self.path) > _DEEPEST:
            raise self.fault(f"over {_DEEPEST} groups lie inside each other")

    def _child(self, address: int, messages: Messages) -> Group | Dataset | None:
        if is_group(messages):
            return self._group(address, messages)
        type_, space = first(messages, TYPE), first(messages, SPACE)
        if type_ is None:
            raise self.fault("this is no group, no array and no type")
        if space is None:
            self._types.add(address)
            return None
        self._datasets[address] = self._dataset(address, messages, type_of(type_), space_of(space))
        return self._datasets[address]

    def _group(self, address: int, messages: Messages) -> Group:
        texts = self._texts.of(address, messages, self._wanted)
        self._groups[address] = Group(self.path, texts, is_tracked(messages))
        return self._groups[address]

    def _links(self, group: Group, messages: Messages) -> list[Link]:
        """List what is in a group; nothing may be a link elsewhere."""
        self.path = group.path
        links = links_of(self._headers.reader, messages)
        self._objects += len(links)
        if self._objects > _MOST_OBJECTS:
            raise self.fault(f"it holds over {_MOST_OBJECTS} objects")
        if len({link.name for link in links}) < len(links):
            raise self.fault("two things in this group have one name")
        for link in links:
            if link.name in _NO_NAMES or b"/" in link.name or b"\0" in link.name:
                raise self.fault("a name in this group is one that nothing can have")
            if link.kind != HARD:
                self.path = (*group.path, _text(link))
                raise self._unsafe(f"{KINDS.get(link.kind, 'a link of its own kind')} stands for data")
        return links

    def _dataset(self, address: int, messages: Messages, type_: Type, space: Space) -> Dataset:
        where = self._where() or ""
        layout = layout_of(first(messages, LAYOUT) or b"")
        if layout.kind == VIRTUAL or first(messages, EXTERNAL) is not None:
            raise self._unsafe("its values lie in other files")
        if space.shape is None:
            return Dataset(self.path, RefusedArray((), "empty", f"{printable(where)}: no values"), address)
        shape = check_shape(space.shape, self.source, where, type_.width)
        size = prod(shape) * type_.width
        self._check_layout(layout, space, type_, size)
        stored = self._stored(layout, space, size)
        if size > _LARGE and size > _MOST_EXPANSION * stored:
            raise self._unsafe(f"{size} bytes are claimed and {stored} are stored", advice=BOMB)
        if type_.name == OPAQUE:
            named = self._texts.of(address, messages, _DTYPE.__eq__).get(_DTYPE, [])
            type_.name = next((name for name in named if BITS.get(name) == type_.width * 8), OPAQUE)
        offset = None
        if layout.kind == CONTIGUOUS and layout.address != NOWHERE and size:
            offset = self._headers.reader.base + layout.address
            self._spans.append((offset, offset + size, where))
        filters = filters_of(first(messages, FILTERS))
        array: LazyArray
        if type_.name not in BITS:
            problem = f"{type_.name}; paratree reads numbers"
            array = RefusedArray(shape, type_.name, f"{printable(where)}: {problem}")
        elif said := _problem(layout, filters, size, stored):
            array = RefusedArray(shape, type_.name, f"{printable(where)}: {said}")
        elif offset is not None or layout.kind == COMPACT:
            held = Memory(layout.data, self.source.path, where) if offset is None else self.source
            array = file_array(
                held, offset or 0, shape, type_.name, big_endian=type_.big_endian, member=where
            )
        else:
            array = PackedArray(
                self._headers.reader, where, address, space, type_, layout, filters, fill_of(messages)
            )
        return Dataset(self.path, array, max(address, offset or 0))

    def _check_layout(self, layout: Layout, space: Space, type_: Type, size: int) -> None:
        if layout.kind == CHUNKED:
            if len(layout.chunk) != len(space.shape or ()) + 1 or layout.chunk[-1] != type_.width:
                raise self.fault("its chunks have other axes, or hold other values")
        elif layout.size is not None and size > layout.size and layout.address != NOWHERE:
            raise self.fault(f"{size} bytes are claimed and {layout.size} are stored")

    def _stored(self, layout: Layout, space: Space, size: int) -> int:
        """Return the bytes in the file; chunks are not looked for where little is claimed."""
        if layout.kind != CHUNKED:
            return size if layout.kind == COMPACT or layout.address != NOWHERE else 0
        if max(size, prod(layout.chunk)) <= _SMALL:
            return 0
        return min(stored_bytes(self._headers.reader, layout, space), self.source.size)

    def _check_overlap(self) -> None:
        end = 0
        for low, high, where in sorted(self._spans):
            if low < end and low < high:
                raise CorruptFileError(
                    self.source.path, "overlaps the array before it", offset=low, member=where
                )
            end = max(end, high)

    def _where(self) -> str | None:
        where, member = "/".join(self.path), self.source.member
        return f"{member}: {where}" if member and where else where or member

    def fault(self, reason: str) -> CorruptFileError:
        """Return the error for damage where the walk is."""
        return CorruptFileError(self.source.path, reason, member=self._where())

    def _unsafe(self, reason: str, advice: str = _OUT) -> UnsafeFileError:
        return UnsafeFileError(self.source.path, reason, member=self._where(), advice=advice)


def _text(link: Link) -> str:
    return link.name.decode("utf-8", "surrogateescape")


def _problem(layout: Layout, filters: list[int], size: int, stored: int) -> str | None:
    """Say why an array will not be read, if so."""
    most = max(_SMALL, _MOST_EXPANSION * stored)
    if size > most:
        return f"{size} bytes are claimed and {stored} are stored; open it with h5py if you trust it"
    if layout.kind != CHUNKED:
        return None
    if (chunk := prod(layout.chunk)) > most:
        return f"{chunk} bytes make a chunk and {stored} are stored; open it with h5py if you trust it"
    return packing_problem(filters)
