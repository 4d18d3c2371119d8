"""PyTorch before 0.1.10: a tar archive of ``sys_info``, ``pickle``, ``storages``, ``tensors``; without torch.

Layout: what ``legacy_load`` of ``torch.serialization`` (2.13) still reads. ``storages`` is a pickled count,
for each storage a pickle of key, device and class, a 64-bit count and the values, then a pickled list of
views: key, key of the whole, first value, number. ``tensors`` is a pickled count, for each tensor a pickle of
key, key of its storage and class, then numbers of 64 bits: axes, lengths, strides, first value. ``pickle`` is
the saved object, which refers to both by key.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError
from paratree.files.local import Window, read
from paratree.files.pickle import load
from paratree.files.tar import first_name, tar_members
from paratree.formats._pickled_tree import PickledTree
from paratree.formats._torch_storages import no_persistent, part_of
from paratree.formats._torch_tensors import StorageRecord, TensorRecord, interpret, storage_dtype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.core.tree import ParamTree
    from paratree.files.local import LocalFile, Source

NAME = "PyTorch tar"
SUFFIXES = (".pth.tar", ".tar", ".pth", ".pt")
FOLDER: tuple[str, ...] = ()
LAZY = "yes"
TIES = "shared storages"
READS = "files of torch 0.1.1 to 0.1.9; nothing is extracted"
EXTRA = None
WRITES = ()

_MEMBERS = ("sys_info", "pickle", "storages", "tensors")
_PROTOCOL = 1000
_MOST_MEMBERS = 16
_MOST_AXES = 64


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is a tar archive whose first member is one of the four."""
    return first_name(file) in _MEMBERS


def open(file: LocalFile) -> ParamTree:
    """Read the pickles and the places of the storages, and return the tree.

    Raises:
        CorruptFileError: the archive, the pickles and the storages do not fit each other.
        UnsafeFileError: a pickle would call code of the standard library.
    """
    members = tar_members(file, _MOST_MEMBERS)
    if missing := [name for name in _MEMBERS if name not in members]:
        raise CorruptFileError(file.path, f"the archive has no member {missing[0]}")
    facts, _ = load(members["sys_info"], 0, interpret, no_persistent, length=members["sys_info"].size)
    if not isinstance(facts, dict) or facts.get("protocol_version") != _PROTOCOL:
        raise CorruptFileError(file.path, f"the protocol is not {_PROTOCOL}", member="sys_info")
    sources: dict[str, Source] = {}
    storages = _storages(members["storages"], sources)
    objects: dict[int, StorageRecord | TensorRecord] = {**storages, **_tensors(members["tensors"], storages)}

    def persistent(pid: Any) -> Any:
        """Return the object of a key, or the class that a module's id begins with."""
        return pid[0] if isinstance(pid, tuple) else objects[int(pid)]

    part = members["pickle"]
    value, _ = load(part, 0, interpret, persistent, length=part.size)
    found = PickledTree(file, NAME)
    found.meta = found.add(value, sources.get, part.size, part)
    return found.tree()


def _storages(part: Window, sources: dict[str, Source]) -> dict[int, StorageRecord]:
    """Return the storages by key, and note where their values lie."""
    storages: dict[int, StorageRecord] = {}
    count, place = _count(part)
    for _ in range(count):
        start = place
        described, place = load(part, place, interpret, no_persistent)
        match described:
            case (int() as key, _, kind) if key not in storages:
                dtype = _dtype(part, kind, start)
            case _:
                raise _fault(part, "a storage is not described by key, device and class", start)
        size = int.from_bytes(read(part, place, 8), "little", signed=True)
        if size < 0:
            raise _fault(part, f"a storage of {size} values", place)
        storages[key] = record = StorageRecord(str(key), dtype, size)
        sources[record.key] = Window(part, place + 8, size * record.itemsize, f"storage {key}")
        place += 8 + size * record.itemsize
    start = place
    views, place = load(part, place, interpret, no_persistent)
    _check_end(part, place)
    for view in views if isinstance(views, list) else [views]:
        match view:
            case (int() as key, int() as whole, int() as first, int() as size) if whole in storages:
                try:
                    storages[key] = part_of(storages[whole], (key, first, size))
                except ValueError as error:
                    raise _fault(part, str(error), start) from None
            case _:
                raise _fault(part, "a view is not key, key of a storage, first value and number", start)
    return storages


def _tensors(part: Window, storages: dict[int, StorageRecord]) -> dict[int, TensorRecord]:
    """Return the tensors by key."""
    tensors: dict[int, TensorRecord] = {}
    count, place = _count(part)
    for _ in range(count):
        start = place
        described, place = load(part, place, interpret, no_persistent)
        match described:
            case (int() as key, int() as storage, _) if storage in storages and key not in tensors:
                pass
            case _:
                raise _fault(part, "a tensor is not described by key, key of a storage and class", start)
        axes = int.from_bytes(read(part, place, 4), "little", signed=True)  # the next four bytes say nothing
        if not 0 <= axes <= _MOST_AXES:
            raise _fault(part, f"a tensor of {axes} axes", place)
        numbers = _numbers(read(part, place + 8, 8 * (2 * axes + 1)))
        if min(numbers) < 0:
            raise _fault(part, "a length, stride or offset of a tensor is negative", place)
        lengths, strides, first = numbers[:axes], numbers[axes:-1], numbers[-1]
        tensors[key] = TensorRecord(storages[storage], first, tuple(lengths), tuple(strides))
        place += 8 + 8 * (2 * axes + 1)
    _check_end(part, place)
    return tensors


def _count(part: Window) -> tuple[int, int]:
    """Return the number that a member begins with, and where it goes on."""
    count, place = load(part, 0, interpret, no_persistent)
    if type(count) is not int or not 0 <= count <= part.size:
        raise _fault(part, "the member does not begin with a count", 0)
    return count, place


def _numbers(data: bytes) -> list[int]:
    return [int.from_bytes(data[i : i + 8], "little", signed=True) for i in range(0, len(data), 8)]


def _dtype(part: Window, kind: object, place: int) -> str:
    try:
        return storage_dtype(kind)
    except (TypeError, KeyError):
        raise _fault(part, "a storage is of no known class", place) from None


def _check_end(part: Window, place: int) -> None:
    if place != part.size:
        raise _fault(part, f"the member's last object ends here and it goes on to byte {part.size}", place)


def _fault(part: Window, reason: str, place: int) -> CorruptFileError:
    return CorruptFileError(part.path, reason, offset=place, member=part.member)
