"""PyTorch distributed checkpoints: a folder of ``.metadata`` and shards ``__RANK_N.distcp``; without torch.

Layout: ``torch.distributed.checkpoint`` (2.13), ``metadata.py`` and ``filesystem.py``. ``.metadata`` is a
pickle that gives each tensor its dtype, shape and chunks, and each chunk the shard, offset and length where
it lies: there, it is a file of ``torch.save`` of its own, and so is every value that is no tensor. Chunks are
opened when their values are asked for.
"""

from __future__ import annotations

from math import prod

from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS, nbytes
from paratree.core.errors import CorruptFileError
from paratree.core.names import kind_of
from paratree.core.param import Param
from paratree.files.array import check_shape
from paratree.files.composed import composed_array
from paratree.files.folder import beside
from paratree.files.local import read
from paratree.files.pickle import load
from paratree.files.pickled import Opaque
from paratree.files.zip import Inside, archive
from paratree.formats._dcp_names import Names
from paratree.formats._pickled_tree import PickledTree
from paratree.formats._torch_storages import is_big_endian, load_zip, no_persistent, zip_root
from paratree.formats._torch_tensors import WRITTEN, TensorRecord, array_of, dtype_name, interpret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, LazyArray
    from paratree.core.tree import ParamTree
    from paratree.files.local import LocalFile, Source
    from paratree.formats._torch_storages import Find

NAME = "PyTorch DCP"
SUFFIXES = (".metadata", ".distcp")
FOLDER = (".metadata",)
LAZY = "yes"
TIES = "no: both names are stored in full"
READS = "chunks of any number of processes, put together; float8; plain values; not compressed shards"
EXTRA = None
MAKES = "folder"
FILES = r"\.metadata|__\d+_\d+\.distcp"
WRITES = WRITTEN

_MARK = b"checkpoint.metadata"
_MOST_READ = 2000  # plain values; each is an archive of its own


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is the pickle of a checkpoint's metadata, or one of its shards."""
    if file.head[:1] == b"\x80":
        return _MARK in file.head[:80] and b"Metadata" in file.head[:100]
    return file.path.endswith(".distcp") and file.head.startswith(b"PK\3\4")


def open(file: LocalFile) -> ParamTree:
    """Read the metadata and the plain values, and return the tree; a shard stands for its checkpoint.

    Raises:
        CorruptFileError: the metadata contradict themselves or the shards.
        SourceNotFoundError: a shard is missing.
        UnsafeFileError: a pickle would call code of the standard library, or a shard lies elsewhere.
    """
    if file.head[:1] != b"\x80":
        shard, file = file, beside(file, ".metadata")
        shard.close()
    return _Reader(file).tree()


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell that no tied group can be written."""
    return False


def save_folder(tree: ParamTree, folder: str, written: Callable[[int], None]) -> Sequence[str]:
    """Write what ``torch.distributed.checkpoint.load`` reads, as one process does."""
    from paratree.formats._dcp_written import write

    return write(tree, folder, written)


def check_folder(tree: ParamTree) -> Sequence[str]:
    """Return what would be left out."""
    from paratree.formats._dcp_written import check

    return check(tree)


class _Place:
    """Where a chunk or a value lies: which shard, from which byte on, how many bytes, through what."""

    __slots__ = ("length", "offset", "shard", "transforms")

    def __init__(self, shard: str, offset: int, length: int, transforms: tuple[str, ...]) -> None:
        self.shard, self.offset, self.length, self.transforms = shard, offset, length, transforms


class _Shards:
    """The shards beside the metadata; one is kept open, as there may be more than a process may open."""

    def __init__(self, file: LocalFile) -> None:
        self.file = file
        self._versions: dict[str, object] = {}
        self._sizes: dict[str, int] = {}
        self._recent: tuple[str, LocalFile] | None = None

    def open(self, name: str) -> LocalFile:
        """Open a shard, which must be the same file each time."""
        recent = self._recent
        if recent is not None and recent[0] == name:
            return recent[1]
        shard = beside(self.file, name)
        if self._versions.setdefault(name, shard.version) != shard.version:
            raise CorruptFileError(
                shard.path, "the file has changed since it was opened", advice="open the checkpoint again"
            )
        self._recent = (name, shard)
        return shard

    def path(self, name: str) -> str:
        """Return the path of a shard."""
        folder, slash, _ = self.file.path.rpartition("/")
        return f"{folder}{slash}{name}"

    def size(self, name: str) -> int:
        """Return the bytes of a shard."""
        if name not in self._sizes:
            self._sizes[name] = self.open(name).size
        return self._sizes[name]

    def cut(self, place: _Place, name: str) -> Inside:
        """Return the part of a shard in which a chunk lies."""
        read(self.file, 0, 0)  # refused once the tree is closed
        return Inside(self.open(place.shard), place.offset, place.length, name)

    def close(self) -> None:
        """Close the shard that is open."""
        if self._recent is not None:
            self._recent[1].close()
            self._recent = None


class _Chunk:
    """The array of one chunk, of which only the metadata have been read."""

    __slots__ = ("_place", "_shards", "dtype", "name", "shape")

    problem = storage = None

    def __init__(self, shards: _Shards, place: _Place, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self._shards, self._place, self.name, self.shape, self.dtype = shards, place, name, shape, dtype

    @property
    def span(self) -> tuple[str, int, int]:
        """The shard, the first byte of the chunk in it, and the byte after its last."""
        place = self._place
        return self._shards.path(place.shard), place.offset, place.offset + place.length

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Open the chunk, check it against the metadata, and return the values at a basic index.

        Raises:
            IndexError: the index does not fit the shape.
            CorruptFileError: the chunk is not what the metadata say, or the file has changed.
        """
        part = self._shards.cut(self._place, self.name)
        record, find, big_endian, _ = _unpack(part, self.name)
        if not isinstance(record, TensorRecord) or (record.shape, record.dtype) != (self.shape, self.dtype):
            raise CorruptFileError(
                part.path, "the chunk is not of the shape and dtype that the metadata give",
                offset=self._place.offset, member=self.name,
            )  # fmt: skip
        source = None if record.storage is None else find(record.storage.key)
        return array_of(record, source, part, self.name, big_endian).read(index)


def _unpack(part: Inside, name: str) -> tuple[Any, Find, bool, Source]:
    """Read the file of ``torch.save`` that a part of a shard is."""
    members = archive(part)
    if members is None or (root := zip_root(members)) is None:
        raise CorruptFileError(
            part.path, "no archive with a data.pkl where the metadata say", offset=part.start, member=name
        )
    value, find, source = load_zip(members, root + "data.pkl", root + "data/", part.path)
    return value, find, is_big_endian(members, root, part.path), source


class _Reader:
    """Turns the metadata of one checkpoint into a tree."""

    def __init__(self, file: LocalFile) -> None:
        self.file, self.shards, self.found = file, _Shards(file), PickledTree(file, NAME)
        value, _ = load(file, 0, interpret, no_persistent, length=file.size)
        metadata = _state(value)
        entries = metadata.get("state_dict_metadata")
        if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
            raise self.fault("the metadata have no map from names to tensors")
        self.entries: dict[str, Any] = entries
        self.names = Names(entries, metadata.get("planner_data"))
        self.places = self._places(metadata.get("storage_data"))
        self.values = self.unread = 0

    def fault(self, reason: str, name: str | None = None) -> CorruptFileError:
        return CorruptFileError(self.file.path, reason, member=name)

    def tree(self) -> ParamTree:
        """Add every entry, in the order of the state dict."""
        for name in self.names.order:
            entry = self.entries[name]
            kind = entry.target.name if isinstance(entry, Opaque) else ""
            if kind == "TensorStorageMetadata":
                self._add_tensor(name, _state(entry))
            elif kind == "BytesStorageMetadata":
                self._add_value(name)
            else:
                raise self.fault("its entry describes neither a tensor nor a value", name)
        if self.unread:
            self.found.notes.append(f"values that are no tensors and were not read: {self.unread}")
        self.found.closers.append(self.shards.close)
        return self.found.tree()

    def _places(self, found: Any) -> dict[tuple[str, Any], _Place]:
        """Return where each chunk lies, by the name of its tensor and its offsets."""
        if not isinstance(found, dict):
            raise self.fault("the metadata do not say where the tensors lie")
        places: dict[tuple[str, Any], _Place] = {}
        for key, value in found.items():
            index, info = _state(key), _state(value)
            match index.get("fqn"), index.get("offset"), info.get("transform_descriptors"):
                case str() as name, None | tuple() as offset, None | list() | tuple() as transforms:
                    pass
                case _:
                    raise self.fault("an entry of its places is of unknown form")
            place = self._place(name, info, tuple(str(word)[:40] for word in transforms or ()))
            if (name, offset) in places:
                raise self.fault("two places are given for one chunk", name)
            places[name, offset] = place
        return places

    def _place(self, name: str, info: dict[str, Any], transforms: tuple[str, ...]) -> _Place:
        match info.get("relative_path"), info.get("offset"), info.get("length"):
            case str() as shard, int() as offset, int() as length if offset >= 0 and length >= 0:
                size = self.shards.size(shard)
                if offset + length > size:
                    raise CorruptFileError(
                        self.file.path,
                        f"{length} bytes are claimed in {shard}, where {max(size - offset, 0)} are left",
                        offset=offset, member=name,
                    )  # fmt: skip
                return _Place(shard, offset, length, transforms)
        raise self.fault("its place is no shard, offset and length", name)

    def _add_tensor(self, name: str, entry: dict[str, Any]) -> None:
        properties = getattr(entry.get("properties"), "state", None)
        fields = list(properties.values()) if isinstance(properties, dict) else properties
        chunks = entry.get("chunks")
        if not isinstance(fields, tuple | list) or not fields or not isinstance(chunks, list):
            raise self.fault("its entry has no dtype or no chunks", name)
        try:
            dtype, shape = dtype_name(fields[0]), check_shape(entry.get("size") or (), self.file, name)
        except TypeError:
            raise self.fault("its dtype is none of torch, or its size is no shape", name) from None
        path = self.names.path(name)
        array = self._array(name, dtype, shape, chunks)
        kind = self.names.kind(path) or kind_of(name, dtype)
        trainable = True if len(fields) > 2 and fields[2] is True else None
        final = self.found.new_name((name,))
        self.found.params[final] = Param(final, array, kind, trainable=trainable)

    def _array(self, name: str, dtype: str, shape: tuple[int, ...], chunks: list[Any]) -> LazyArray:
        parts = []
        for chunk in map(_state, chunks):
            offsets, sizes = chunk.get("offsets"), chunk.get("sizes")
            if not isinstance(offsets, tuple) or not isinstance(sizes, tuple):
                raise self.fault("a chunk has no offsets or sizes", name)
            start = check_shape(offsets, self.file, name)
            lengths = check_shape(sizes, self.file, name)
            place = self.places.get((name, start)) or self.places.get((name, None))
            if place is None:
                raise self.fault(f"the metadata do not say where its chunk at {start} lies", name)
            if place.transforms:
                return RefusedArray(
                    shape, dtype, f"{name}: stored through {', '.join(place.transforms)}; "
                    "load it in torch and save it without",
                )  # fmt: skip
            if dtype in BITS and nbytes(prod(lengths), dtype) > place.length:
                raise self.fault(f"a chunk of {sizes} needs more than its {place.length} bytes", name)
            parts.append((start, _Chunk(self.shards, place, name, lengths, dtype)))
        if dtype not in BITS:
            return RefusedArray(shape, dtype, f"{name}: NumPy has no dtype {dtype}; convert it in torch")
        if len(parts) == 1 and parts[0][1].shape == shape and not any(parts[0][0]):
            return parts[0][1]
        return composed_array(self.file, shape, dtype, parts, member=name)

    def _add_value(self, name: str) -> None:
        """Read a value that is no tensor: its tensors are added, the rest becomes plain values."""
        place = self.places.get((name, None))
        if place is None:
            raise self.fault("the metadata do not say where its value lies", name)
        if place.transforms or self.values == _MOST_READ:
            self.unread += 1
            return
        self.values += 1
        value, find, self.found.big_endian, source = _unpack(self.shards.cut(place, name), name)
        path = self.names.path(name)
        meta = self.found.add(
            {path[-1]: value}, find, source.size, source, path=path[:-1], kind=self.names.kind(path)
        )
        if meta:
            self.names.set_at(self.found.meta, path, meta[path[-1]])


def _state(value: Any) -> dict[str, Any]:
    """Return the attributes of an object that was not built."""
    return value.state if isinstance(value, Opaque) and isinstance(value.state, dict) else {}
