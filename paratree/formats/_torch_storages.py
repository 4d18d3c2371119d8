"""Where torch's files keep their storages: records of a zip, or what follows the pickles of a legacy file.

Layout: ``torch.serialization`` (2.13). A zip holds ``ROOT/data.pkl`` and a record ``ROOT/data/KEY`` for each
storage; a legacy file is four pickles (magic, protocol, system, object), a fifth with the keys of the
storages, then for each a 64-bit count and its values, little-endian always.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.files.local import Window, read
from paratree.files.pickle import load
from paratree.formats._torch_tensors import StorageRecord, interpret, storage_dtype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from paratree.files.local import Source
    from paratree.files.zip import Member

    Find = Callable[[str], Source | None]

MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
_PROTOCOL = 1001


# Zip


def zip_root(members: dict[str, Member]) -> str | None:
    """Return the folder that holds ``data.pkl``; every file has one of its own name."""
    return next((name[:-8] for name in members if name.endswith("/data.pkl") and name.count("/") == 1), None)


def is_big_endian(members: dict[str, Member], root: str, path: str) -> bool:
    """Tell whether the storages of a zip have the most significant byte first.

    Raises:
        CorruptFileError: its record of the byte order says neither.
    """
    order = members[root + "byteorder"].bytes() if root + "byteorder" in members else b"little"
    if order not in (b"little", b"big"):
        raise CorruptFileError(path, f"the byte order is {order[:20]!r}", member=root + "byteorder")
    return order == b"big"


def load_zip(members: dict[str, Member], name: str, folder: str, path: str) -> tuple[Any, Find, Source]:
    """Read one pickle of a zip, whose storages are in ``folder``.

    Returns:
        The value, what finds the storage of a key, and the pickle.
    """
    source = members[name].whole()
    root, _ = load(source, 0, interpret, _zip_persistent, length=source.size)
    sources: dict[str, Source] = {}

    def find(key: str) -> Source | None:
        if key not in sources:
            if folder + key not in members:
                raise CorruptFileError(path, "the archive has no such storage", member=folder + key)
            sources[key] = members[folder + key].source()
        return sources[key]

    return root, find, source


def _zip_persistent(pid: Any) -> StorageRecord:
    match pid:
        case ("storage", kind, str(key), _, int(size), *_):
            return StorageRecord(key, storage_dtype(kind), _length(size))
    raise ValueError("a persistent id of unknown form")


# Legacy


def load_legacy(source: Source) -> tuple[Any, Find, int]:
    """Read the pickles of a legacy file, which must fill ``source`` exactly.

    Returns:
        The value, what finds the storage of a key, and how many bytes the pickle of the value has.

    Raises:
        CorruptFileError: the pickles or the storages do not fit each other or the file.
    """
    place, header = 0, []
    for _ in range(3):
        value, place = load(source, place, interpret, no_persistent)
        header.append(value)
    if header[1] != _PROTOCOL:
        raise CorruptFileError(
            source.path, f"protocol {str(header[1])[:40]} is not {_PROTOCOL}", offset=0, member=source.member
        )
    storages: dict[str, StorageRecord] = {}
    start = place
    root, place = load(source, place, interpret, lambda pid: _legacy_persistent(pid, storages))
    length = place - start
    keys, place = load(source, place, interpret, no_persistent)
    sources, end = _storages(source, keys, storages, place)
    if end != source.size:
        raise CorruptFileError(
            source.path, f"the storages end here and the file goes on to byte {source.size}",
            offset=end, member=source.member,
        )  # fmt: skip
    return root, sources.get, length


def _storages(
    file: Source, keys: Any, storages: dict[str, StorageRecord], place: int
) -> tuple[dict[str, Source], int]:
    """Return where the values of each storage lie, and where the last ends."""
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise CorruptFileError(
            file.path, "the keys of the storages are not those that the tensors use",
            offset=place, member=file.member,
        )  # fmt: skip
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


def _legacy_persistent(pid: Any, storages: dict[str, StorageRecord]) -> Any:
    """Return the storage, or the class (with its source code, which is not looked at) that an id names."""
    match pid:
        case ("module", kind, *_):
            return kind
        case ("storage", kind, key, _, int(size), view):
            whole = storages.setdefault(str(key), StorageRecord(str(key), storage_dtype(kind), _length(size)))
            if (whole.size, whole.dtype) != (size, storage_dtype(kind)):
                raise ValueError("one storage with two sizes or types")
            return whole if view is None else part_of(whole, view)
    raise ValueError("a persistent id of unknown form")


def part_of(whole: StorageRecord, view: Any) -> StorageRecord:
    """Return the view of a storage that a triple of its key, first value and number of values describes."""
    _, first, count = view
    if not 0 <= first <= first + count <= whole.size:
        raise ValueError("a view beyond its storage")
    return StorageRecord(whole.key, whole.dtype, count, whole.first + first)


def no_persistent(pid: Any) -> Any:
    """Refuse a persistent id, in a pickle that has none.

    Raises:
        ValueError: always.
    """
    raise ValueError("a persistent id where none belongs")


def _length(size: int) -> int:
    if type(size) is not int or size < 0:
        raise ValueError("a storage of negative size")
    return size
