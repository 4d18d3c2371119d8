"""A disk without mercy: what may be on it when the power fails, given the calls that were made so far.

Nothing is certain but what fsync or syncfs has said to be. Of the rest any part may be there and any not: a
write as a whole, its first sectors, or any of them; the length of a file without its bytes; a rename before
the bytes of the file, or after a later one. That is less than any file system in use promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.crash.calls import (
    CHANGE,
    CREATE,
    EXCHANGE,
    LOOK,
    MAKE_FOLDER,
    RENAME,
    SYNC,
    SYNC_ALL,
    TRUNCATE,
    UNLINK,
    WRITE,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping, Sequence

    from tests.crash.calls import Call

    Folders = dict[int, dict[str, int]]  # number of a folder -> name -> number of a file or folder

SECTOR = 512
ROOT = 0
_DRAWN = 4  # states of a moment that are drawn by chance
_PARTS = 4  # of the writes that wait, of which the first are there


class Data(NamedTuple):
    """A change of the bytes of a file that waits: a write, or a new size if ``length`` is None."""

    file: int
    offset: int
    length: int | None


class Entry(NamedTuple):
    """A name of a folder that means another file or folder now, or nothing."""

    folder: int
    name: str
    number: int | None


Change = tuple[Entry, ...]  # all of it is there, or nothing; it waits for the folder of the last


class Disk:
    """What is certain, and what waits, call by call."""

    def __init__(
        self, before: Mapping[str, bytes], after: Mapping[str, bytes], calls: Sequence[Call]
    ) -> None:
        """Take the files before, those after, and the calls between, which say what was written where."""
        self._folders: Folders = {ROOT: {}}  # as the program sees them
        self._last = ROOT
        self._certain: dict[int, bytes] = {}
        self._bytes: dict[int, bytes] = {}  # of each file in the end
        for path, data in before.items():
            self._certain[self._place(path)] = data
        self._certain_folders = _copy(self._folders)
        self._names: list[Change] = []
        self._data: list[Data] = []
        ended = Disk.__new__(Disk)
        ended.__dict__ = {**vars(self), "_folders": _copy(self._folders), "_certain": {}, "_names": [],
                          "_data": [], "_certain_folders": _copy(self._folders)}  # fmt: skip
        for call in calls:
            ended._see(call)
        self._bytes = {
            number: after[path] for path, number in _files(ended._folders).items() if path in after
        }

    def _place(self, path: str) -> int:
        """Make a file and the folders it lies in; return its number."""
        *folders, name = path.split("/")
        here = ROOT
        for folder in folders:
            if folder not in self._folders[here]:
                self._folders[here][folder] = self._new()
                self._folders[self._last] = {}
            here = self._folders[here][folder]
        self._folders[here][name] = self._new()
        return self._last

    def _new(self) -> int:
        self._last += 1
        return self._last

    def _find(self, path: str) -> tuple[int, str]:
        """Return the folder that a path lies in, and its name there."""
        *folders, name = path.split("/")
        here = ROOT
        for folder in folders:
            here = self._folders[here][folder]
        return here, name

    def _number(self, path: str) -> int | None:
        if not path:
            return ROOT
        folder, name = self._find(path)
        return self._folders[folder].get(name)

    # Calls

    def apply(self, call: Call) -> None:
        """Make one call."""
        if call.kind == SYNC:
            self._sync(self._number(call.path))
        elif call.kind == SYNC_ALL:
            for number in (*self._certain, *self._folders):
                self._sync(number)
        else:
            self._see(call)

    def _see(self, call: Call) -> None:
        if call.kind in (LOOK, CHANGE):  # a look may be at what is removed
            return
        number = self._number(call.path)
        if call.kind in (CREATE, MAKE_FOLDER) and number is None:
            number = self._new()
            if call.kind == MAKE_FOLDER:
                self._folders[number], self._certain_folders[number] = {}, {}
            self._certain[number] = b""
            self._change(Entry(*self._find(call.path), number))
        elif call.kind == CREATE and call.empties:
            self._data.append(Data(number, 0, None))
        elif call.kind == WRITE:
            self._data.append(Data(number, call.offset, call.length))
        elif call.kind == TRUNCATE:
            self._data.append(Data(number, call.offset, None))
        elif call.kind == UNLINK:
            self._change(Entry(*self._find(call.path), None))
        elif call.kind in (RENAME, EXCHANGE):
            other = self._number(call.to) if call.kind == EXCHANGE else None
            self._change(Entry(*self._find(call.path), other), Entry(*self._find(call.to), number))

    def _change(self, *change: Entry) -> None:
        _enter(self._folders, change)
        self._names.append(change)

    def _sync(self, number: int | None) -> None:
        if number in self._folders:
            for change in [change for change in self._names if change[-1].folder == number]:
                _enter(self._certain_folders, change)
                self._names.remove(change)
        elif number is not None:
            self._certain[number] = self._written(number, self._data)
            self._data = [data for data in self._data if data.file != number]

    # What may be left

    def _written(
        self, file: int, kept: Sequence[Data], sectors: random.Random | None = None, *, long: bool = False
    ) -> bytes:
        """Return the bytes of a file of which these changes are there, or sectors of them by chance."""
        found, final = bytearray(self._certain[file]), self._bytes.get(file, b"")
        for data in (data for data in kept if data.file == file):
            if data.length is None:
                found[data.offset :] = bytes(max(data.offset - len(found), 0))
                continue
            end = data.offset + data.length
            found.extend(bytes(max(end - len(found), 0)))
            for start in range(data.offset, end, SECTOR):
                if sectors is None or sectors.random() < 0.5:
                    part = final[start : min(start + SECTOR, end)]
                    found[start : start + len(part)] = part
        if long:
            ends = (data.offset + data.length for data in self._data if data.file == file and data.length)
            found.extend(bytes(max(max(ends, default=0) - len(found), 0)))
        return bytes(found)

    def states(self, chance: random.Random) -> Iterator[dict[str, bytes]]:
        """Yield what may be on the disk if the power fails now, each once."""
        seen = set()
        for names in self._choices_of_names(chance):
            for kept, sectors, long in self._choices_of_data(chance):
                found = {path: self._written(file, kept, sectors, long=long) for path, file in names.items()}
                key = hash(tuple(sorted(found.items())))
                if key not in seen:
                    seen.add(key)
                    yield found

    def _choices_of_names(self, chance: random.Random) -> Iterator[dict[str, int]]:
        changes = self._names
        subsets = [[], changes, *([one] for one in changes)]
        subsets += [changes[:end] for end in range(2, len(changes))]
        subsets += [[one for one in changes if one is not left] for left in changes]
        subsets += [[one for one in changes if chance.random() < 0.5] for _ in range(_DRAWN)]
        for subset in subsets:
            folders = _copy(self._certain_folders)
            for change in subset:
                _enter(folders, change)
            yield _files(folders)

    def _choices_of_data(
        self, chance: random.Random
    ) -> Iterator[tuple[Sequence[Data], random.Random | None, bool]]:
        """Yield changes that are there, what draws their sectors, and whether files have their lengths."""
        waiting = self._data
        yield [], None, False
        yield [], None, True
        yield waiting, None, False
        if waiting:
            yield waiting[-1:], None, False
            for part in range(1, _PARTS):
                yield waiting[: len(waiting) * part // _PARTS], None, bool(part % 2)
            last = waiting[-1]
            if last.length:
                yield [*waiting[:-1], last._replace(length=(last.length + 1) // 2)], None, False
            for _ in range(_DRAWN):
                yield [data for data in waiting if chance.random() < 0.7], chance, bool(chance.random() < 0.5)


def _copy(folders: Folders) -> Folders:
    return {number: dict(entries) for number, entries in folders.items()}


def _enter(folders: Folders, change: Change) -> None:
    for folder, name, number in change:
        if number is None:
            folders[folder].pop(name, None)
        else:
            folders[folder][name] = number


def _files(folders: Folders, folder: int = ROOT, prefix: str = "") -> dict[str, int]:
    """Return the path of every file that can be reached."""
    found: dict[str, int] = {}
    for name, number in folders[folder].items():
        path = prefix + name
        found |= _files(folders, number, f"{path}/") if number in folders else {path: number}
    return found
