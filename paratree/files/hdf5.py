"""HDF5 under guard: hard links inside the one file only, and every size checked before it is believed.

h5py reads the structure, through a read-only view of a source, after :mod:`paratree.files.hdf5_headers` has
looked at it. Plain arrays are then described by :mod:`paratree.files.array`, others by
:mod:`paratree.files.hdf5_values`. Format: HDF5 File Format Specification 3.0.
"""

from __future__ import annotations

from math import prod

from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS
from paratree.core.errors import CorruptFileError, UnsafeFileError, printable
from paratree.files.array import check_shape, file_array
from paratree.files.hdf5_headers import BOMB, Headers, base_of, compact_data
from paratree.files.hdf5_values import (
    MOST_EXPANSION,
    OPAQUE,
    PackedArray,
    dtype_of,
    member_of,
    opened,
    problem_of,
)
from paratree.files.local import Memory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.hdf5_headers import Messages
    from paratree.files.local import Source

_DEEPEST = 64  # groups inside each other
_MOST_OBJECTS = 250_000
_DTYPE = "dtype"  # the attribute in which Keras keeps the name of a dtype that HDF5 lacks
_LARGE = 4 << 30  # an array of more that is stored in a thousandth of it is a bomb
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
        MissingPackageError: h5py is not installed.
    """
    walk = _Walk(source, wanted)
    messages = walk.headers.messages(walk.headers.root)
    with opened(source, lambda: walk.path) as file:
        from h5py import h5g

        return walk.run(h5g.open(file.id, b"/"), messages)


class _Walk:
    """One walk over one file; ``path`` is where it is, for messages."""

    def __init__(self, source: Source, wanted: Callable[[str], bool]) -> None:
        self.source, self.headers, self._wanted = source, Headers(source), wanted
        self.path: tuple[str, ...] = ()
        self._groups: dict[int, Group] = {}
        self._datasets: dict[int, Dataset] = {}
        self._spans: list[tuple[int, int, str]] = []
        self._objects = 0

    def run(self, root_id: Any, messages: Messages) -> Group:
        """Return the root; every object is met once, each checked before it is opened."""
        from h5py import h5o

        if h5o.get_info(root_id).addr != self.headers.root:
            raise self._fault("the root is not where the file says")
        root = self._group(root_id, self.headers.root, messages)
        waiting = [(root_id, root)]
        while waiting:
            group_id, group = waiting.pop()
            for name, address in self._links(group_id, group):
                text = name.decode("utf-8", "surrogateescape")
                self.path = (*group.path, text)
                if (same := self._datasets.get(address)) is not None:
                    group.children[text] = Dataset(self.path, same.array, same.end)
                    continue
                self._check_group(address)
                messages = self.headers.messages(address)
                child = self._child(found := h5o.open(group_id, name), address, messages)
                if child is not None:
                    group.children[text] = child
                if isinstance(child, Group):
                    waiting.append((found, child))
        self._check_overlap()
        for group in reversed(self._groups.values()):
            group.end = max((child.end for child in group.children.values()), default=-1)
        return root

    def _check_group(self, address: int) -> None:
        if (first := self._groups.get(address)) is not None:
            other = "/".join(first.path) or "the root"
            raise self._unsafe(f"this group is also {other}, so names may go on for ever", advice=BOMB)
        if len(self.path) > _DEEPEST:
            raise self._fault(f"over {_DEEPEST} groups lie inside each other")

    def _child(self, found: Any, address: int, messages: Messages) -> Group | Dataset | None:
        from h5py import h5d, h5g

        if isinstance(found, h5g.GroupID):
            return self._group(found, address, messages)
        if isinstance(found, h5d.DatasetID):
            self._datasets[address] = self._dataset(found, address, messages)
            return self._datasets[address]
        return None  # a type that has a name; it holds no values

    def _group(self, group_id: Any, address: int, messages: Messages) -> Group:
        tracked = bool(group_id.get_create_plist().get_link_creation_order() & 1)
        self._groups[address] = Group(self.path, self.headers.texts(messages, self._wanted), tracked)
        return self._groups[address]

    def _links(self, group_id: Any, group: Group) -> list[tuple[bytes, int]]:
        """List what is in a group, by name and address; nothing may be a link elsewhere."""
        from h5py import h5, h5l

        links: list[tuple[bytes, int, int]] = []
        left = _MOST_OBJECTS - self._objects

        def note(name: bytes, info: Any) -> bool | None:
            links.append((name, info.type, info.u))
            return True if len(links) > left else None

        order = h5.INDEX_CRT_ORDER if group.tracked else h5.INDEX_NAME
        group_id.links.iterate(note, idx_type=order, info=True)
        self.path = group.path
        self._objects += len(links)
        if self._objects > _MOST_OBJECTS:
            raise self._fault(f"it holds over {_MOST_OBJECTS} objects")
        if len({name for name, _, _ in links}) < len(links):
            raise self._fault("two things in this group have one name")
        for name, kind, _ in links:
            if kind != h5l.TYPE_HARD:
                self.path = (*group.path, name.decode("utf-8", "surrogateescape"))
                what = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link into another file"}
                raise self._unsafe(f"{what.get(kind, 'a link of its own kind')} stands for data")
        return [(name, address) for name, _, address in links]

    def _dataset(self, dataset: Any, address: int, messages: Messages) -> Dataset:
        from h5py import h5d, h5s

        plist, where = dataset.get_create_plist(), self._where() or ""
        layout, width = plist.get_layout(), dataset.get_type().get_size()
        if layout == h5d.VIRTUAL or plist.get_external_count():
            raise self._unsafe("its values lie in other files")
        if dataset.get_space().get_simple_extent_type() == h5s.NULL:
            return Dataset(self.path, RefusedArray((), "empty", f"{printable(where)}: no values"), address)
        shape = check_shape(dataset.shape, self.source, where)
        size, stored = prod(shape) * width, min(dataset.get_storage_size(), self.source.size)
        if size > _LARGE and size > MOST_EXPANSION * stored:
            raise self._unsafe(f"{size} bytes are claimed and {stored} are stored", advice=BOMB)
        dtype, big_endian = dtype_of(dataset)
        if dtype == OPAQUE:
            named = self.headers.texts(messages, _DTYPE.__eq__).get(_DTYPE, [])
            dtype = next((name for name in named if BITS.get(name) == width * 8), dtype)
        offset = dataset.get_offset() if layout == h5d.CONTIGUOUS and stored else None
        if offset is not None:
            self._spans.append((offset, offset + size, where))
        array: LazyArray
        if dtype not in BITS:
            array = RefusedArray(shape, dtype, f"{printable(where)}: {dtype}; paratree reads numbers")
        elif problem := problem_of(plist, size, width, stored):
            array = RefusedArray(shape, dtype, f"{printable(where)}: {problem}")
        elif offset is not None or layout == h5d.COMPACT:
            held = self.source if offset is not None else self._header_of(messages)
            array = file_array(held, offset or 0, shape, dtype, big_endian=big_endian, member=where)
        else:
            array = PackedArray(self.headers, messages, self.path, address, shape, dtype, big_endian, plist)
        return Dataset(self.path, array, max(address, offset or 0))

    def _header_of(self, messages: Messages) -> Memory:
        return Memory(compact_data(messages), self.source.path, self._where())

    def _check_overlap(self) -> None:
        end = 0
        for low, high, where in sorted(self._spans):
            if low < end and low < high:
                raise CorruptFileError(
                    self.source.path, "overlaps the array before it", offset=low, member=where
                )
            end = max(end, high)

    def _where(self) -> str | None:
        return member_of(self.source, self.path)

    def _fault(self, reason: str) -> CorruptFileError:
        return CorruptFileError(self.source.path, reason, member=self._where())

    def _unsafe(self, reason: str, advice: str = _OUT) -> UnsafeFileError:
        return UnsafeFileError(self.source.path, reason, member=self._where(), advice=advice)
