"""PyTorch: zip files, TorchScript archives, legacy files (before 1.6), shard indexes; without torch.

The pickle inside is read by files.pickle, which calls and imports nothing. Layout: the zip holds
``ROOT/data.pkl`` and a record ``ROOT/data/KEY`` for each storage (``torch.serialization``, 2.13);
TorchScript adds ``ROOT/constants.pkl``. A legacy file is four pickles (magic, protocol, system, object), a
fifth with the keys of the storages, then for each a 64-bit count and its values, little-endian always.
"""

from __future__ import annotations

from itertools import count

from paratree.core.errors import CorruptFileError
from paratree.core.layout import TORCH, layout_of
from paratree.core.names import OTHER, PARAMETER, join, kind_of
from paratree.core.tree import Origin, Param, ParamTree
from paratree.files.local import LocalFile, Source, Window, read
from paratree.files.pickle import load
from paratree.files.pickled import Global, Opaque
from paratree.files.shards import is_index, open_index
from paratree.files.zip import Member, archive
from paratree.formats._nested import Entry, Nested
from paratree.formats._numpy_pickled import is_numpy_array, numpy_array, plain_value
from paratree.formats._torch_tensors import StorageRecord, TensorRecord, array_of, interpret, storage_dtype
from paratree.formats._torchscript import declared_kinds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from paratree.core.array import LazyArray

NAME = "PyTorch"
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".jit", ".pth.tar", ".bin.index.json")
FOLDER = (
    "pytorch_model.bin.index.json",
    "*.bin.index.json",
    "pytorch_model.bin",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
)
LAZY = "yes"
TIES = "shared storages"
READS = "zip, legacy, TorchScript, whole modules, training checkpoints, shard indexes"
EXTRA = None

_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_LEGACY_PROTOCOL = 1001
_SCRIPT = "PyTorch TorchScript"
_CLASSES_SHOWN = 3


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is a zip with a ``data.pkl``, a legacy file, or an index of such files."""
    if file.head[:1] == b"\x80":
        return _MAGIC in file.head[:32]
    if (members := archive(file)) is not None:
        return _root(members) is not None
    return is_index(file, ".bin")


def open(file: LocalFile) -> ParamTree:
    """Read the pickle and the places of the storages, and return the tree.

    Raises:
        CorruptFileError: the pickle or the storages do not fit the file.
        UnsafeFileError: the pickle would call code of the standard library.
    """
    if file.head[:1] in (b"\x80", b"P"):
        return _open_one(file)
    return open_index(file, _open_one, NAME)


def _open_one(file: LocalFile) -> ParamTree:
    if not sniff(file):
        raise CorruptFileError(file.path, "this is no PyTorch file", offset=0)
    members = archive(file)
    return _open_legacy(file) if members is None else _open_zip(file, members)


# Zip


def _root(members: dict[str, Member]) -> str | None:
    """Return the folder that holds ``data.pkl``; every file has one of its own name."""
    return next((name[:-8] for name in members if name.endswith("/data.pkl") and name.count("/") == 1), None)


def _open_zip(file: LocalFile, members: dict[str, Member]) -> ParamTree:
    root = _root(members) or ""
    order = members[root + "byteorder"].bytes() if root + "byteorder" in members else b"little"
    if order not in (b"little", b"big"):
        raise CorruptFileError(file.path, f"the byte order is {order[:20]!r}", member=root + "byteorder")
    script = root + "constants.pkl" in members
    reader = _Reader(file, _SCRIPT if script else "PyTorch zip", order == b"big")
    if script:
        reader.declared = declared_kinds(members, root)
    reader.read_pickle(members, root + "data.pkl", root + "data/")
    if script:
        reader.read_pickle(members, root + "constants.pkl", root + "constants/", ("constants",), OTHER)
    return reader.tree()


def _open_legacy(file: LocalFile) -> ParamTree:
    reader = _Reader(file, "PyTorch legacy", False)
    place, header = 0, []
    for _ in range(3):
        value, place = load(file, place, interpret, _no_persistent)
        header.append(value)
    if header[1] != _LEGACY_PROTOCOL:
        raise CorruptFileError(
            file.path, f"protocol {str(header[1])[:40]} is not {_LEGACY_PROTOCOL}", offset=0
        )
    storages: dict[str, StorageRecord] = {}
    start = place
    root, place = load(file, place, interpret, lambda pid: _legacy_persistent(pid, storages))
    keys, place = load(file, place, interpret, _no_persistent)
    sources, end = _legacy_storages(file, keys, storages, place)
    if end != file.size:
        raise CorruptFileError(
            file.path, f"the storages end here and the file goes on to byte {file.size}", offset=end
        )
    reader.add(root, sources.get, place - start, file)
    return reader.tree()


def _legacy_storages(
    file: LocalFile, keys: Any, storages: dict[str, StorageRecord], place: int
) -> tuple[dict[str, Source], int]:
    """Return where the values of each storage lie, and where the last ends."""
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise CorruptFileError(
            file.path, "the keys of the storages are not those that the tensors use", offset=place
        )
    sources: dict[str, Source] = {}
    for key in map(str, keys):
        count = int.from_bytes(read(file, place, 8), "little", signed=True)
        record = storages[key]
        if count != record.size:
            raise CorruptFileError(
                file.path, f"the storage has {count} values here and {record.size} in the pickle",
                offset=place, member=f"storage {key}",
            )  # fmt: skip
        sources[key] = Window(file, place + 8, count * record.itemsize, f"storage {key}")
        place += 8 + count * record.itemsize
    return sources, place


# Persistent ids


def _no_persistent(pid: Any) -> Any:
    raise ValueError("a persistent id where none belongs")


def _legacy_persistent(pid: Any, storages: dict[str, StorageRecord]) -> Any:
    """Return the storage, or the class (with its source code, which is not looked at) that an id names."""
    match pid:
        case ("module", kind, *_):
            return kind
        case ("storage", kind, key, _, int(size), view):
            whole = storages.setdefault(str(key), StorageRecord(str(key), storage_dtype(kind), _length(size)))
            if (whole.size, whole.dtype) != (size, storage_dtype(kind)):
                raise ValueError("one storage with two sizes or types")
            if view is None:
                return whole
            _, first, count = view
            if not 0 <= first <= first + count <= size:
                raise ValueError("a view beyond its storage")
            return StorageRecord(str(key), whole.dtype, count, first)
    raise ValueError("a persistent id of unknown form")


def _zip_persistent(pid: Any) -> StorageRecord:
    match pid:
        case ("storage", kind, str(key), _, int(size), *_):
            return StorageRecord(key, storage_dtype(kind), _length(size))
    raise ValueError("a persistent id of unknown form")


def _length(size: int) -> int:
    if type(size) is not int or size < 0:
        raise ValueError("a storage of negative size")
    return size


# The tree


class _Reader:
    """Collects the parameters, plain values and notes of one file."""

    def __init__(self, file: LocalFile, format: str, big_endian: bool) -> None:
        self.file, self.format, self.big_endian = file, format, big_endian
        self.params: dict[str, Param] = {}
        self.meta: dict[str, Any] = {}
        self.unbuilt: dict[str, int] = {}
        self.declared: dict[str, dict[str, str]] = {}
        self.doubles = 0

    def read_pickle(
        self,
        members: dict[str, Member],
        name: str,
        folder: str,
        path: tuple[str, ...] = (),
        kind: str | None = None,
    ) -> None:
        """Read one pickle of a zip, with its storages in ``folder``."""
        source = members[name].whole()
        root, _ = load(source, 0, interpret, _zip_persistent, length=source.size)
        sources: dict[str, Source] = {}

        def find(key: str) -> Source | None:
            if key not in sources:
                if folder + key not in members:
                    raise CorruptFileError(
                        self.file.path, "the archive has no such storage", member=folder + key
                    )
                sources[key] = members[folder + key].source()
            return sources[key]

        self.add(root, find, source.size, source, path, kind)

    def add(
        self,
        root: Any,
        find: Callable[[str], Source | None],
        budget: int,
        source: Source,
        path: tuple[str, ...] = (),
        kind: str | None = None,
    ) -> None:
        """Add what a pickle holds."""
        nested = Nested(source, _is_array, plain_value, budget, self.declared)
        meta = nested.walk(root)
        if not path:
            self.meta.update(meta)
        self.unbuilt.update(nested.unbuilt)
        for entry in nested.entries:
            name = self._name((*path, *entry.path))
            self.params[name] = self._param(name, entry, find, kind)

    def _name(self, path: tuple[str, ...]) -> str:
        """Return the dotted name of a path, and NAME~2 where two paths (``1`` and ``"1"``) make one name."""
        name = join(path) if path else _stem(self.file.path)
        if name not in self.params:
            return name
        self.doubles += 1
        return next(other for n in count(2) if (other := f"{name}~{n}") not in self.params)

    def _param(
        self, name: str, entry: Entry, find: Callable[[str], Source | None], kind: str | None
    ) -> Param:
        array, found = self._array(name, entry.found, find), entry.found
        kind = kind or entry.kind
        trainable = None
        if isinstance(found, Opaque) and array.problem:
            kind = kind or OTHER
        if isinstance(found, TensorRecord):
            trainable = found.trainable
            if found.parameter and kind is None:
                kind = PARAMETER
        layout = None if entry.owner is None else _layout(entry.owner, entry.path[-1], len(array.shape))
        return Param(name, array, kind or kind_of(name, array.dtype), trainable=trainable, layout=layout)

    def _array(self, name: str, found: Any, find: Callable[[str], Source | None]) -> LazyArray:
        if isinstance(found, Opaque):
            return numpy_array(found, self.file, name)
        if isinstance(found, StorageRecord):
            found = TensorRecord(found, 0, (found.size,), (1,))
        storage = found.storage
        source = None if storage is None else find(storage.key)
        if source is not None and storage is not None:
            claimed = (storage.first + storage.size) * storage.itemsize
            if claimed > source.size:
                raise CorruptFileError(
                    self.file.path,
                    f"the storage claims {claimed} bytes and has {source.size}",
                    member=source.member,
                )
        return array_of(found, source, self.file, name, self.big_endian)

    def tree(self) -> ParamTree:
        notes = []
        if self.format == _SCRIPT and self.params and all(p.kind == OTHER for p in self.params.values()):
            notes.append("the module is frozen: its weights are constants, without names")
        if self.doubles:
            notes.append(
                f"tensors whose joined keys are the name of another are listed as NAME~2: {self.doubles}"
            )
        if self.unbuilt:
            classes = list(self.unbuilt)
            more = f" and {len(classes) - _CLASSES_SHOWN} more" if len(classes) > _CLASSES_SHOWN else ""
            shown = ", ".join(classes[:_CLASSES_SHOWN])
            notes.append(f"classes named by the file were not built, only their values read: {shown}{more}")
        origin = Origin(self.file.path, self.format, self.meta, notes, [self.file.close])
        return ParamTree(self.params, origin)


def _layout(owner: Global, name: str, ndim: int) -> str | None:
    """Return the layout of a parameter of a pickled layer of ``torch.nn``, whose bases are not known."""
    if not owner.module.removeprefix("__torch__.").startswith("torch.nn."):
        return None
    norms = ("_NormBase",) if owner.name.startswith(("BatchNorm", "InstanceNorm", "SyncBatchNorm")) else ()
    return layout_of(TORCH, (owner.name, *norms), name, ndim)


def _is_array(value: Any) -> bool:
    return isinstance(value, TensorRecord | StorageRecord) or is_numpy_array(value)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]
