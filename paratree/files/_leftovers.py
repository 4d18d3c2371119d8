"""What killed writers left: files and folders of a random name, and whole files that nothing names.

A file is locked while it is written: one that is not, and is not young, is what a killed writer left. Files
that are in their places before the one that names them are noted in a file of their own; what is noted is
removed if that one never came to its place, and if it is, to the nanosecond, still the file that was noted.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

_PREFIX, _SUFFIX = ".paratree-", ".tmp"
_NOTES = f"-beside{_SUFFIX}"
_OURS = re.compile(r"\.paratree-[0-9a-f]{16}\.tmp")
_YOUNG = 60  # seconds: a file that a writer may have made and not locked yet
_LARGEST = 16 << 20  # bytes of notes, and of an index that is looked into
_OWNERS_MODE = 0o600
_INDEXES = "*.index.json"


def temporary(target: Path) -> Path:
    """Return a random path in the same folder."""
    return target.with_name(f"{_PREFIX}{os.urandom(8).hex()}{_SUFFIX}")


def lock(descriptor: int) -> None:
    """Say that a writer lives; some network file systems have no locks, nor are leftovers removed there."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_leftovers(folder: Path) -> None:
    """Remove what writers left that were killed: nobody holds the lock of it."""
    with suppress(OSError):
        found = [*folder.glob(f"{_PREFIX}*{_SUFFIX}")]
        for path in sorted(found, key=lambda path: not path.name.endswith(_NOTES)):
            with suppress(OSError):
                _remove_leftover(path)


class Notes:
    """The files that are whole before the one that names them, for whoever finds them without it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._descriptor = -1

    def add(self, main: IO[bytes], file: IO[bytes], path: str) -> None:
        """Note a file that is whole and about to take its place.

        Args:
            main: the temporary file that will name it.
            file: the file.
            path: its place.
        """
        if self._path is None:
            self._begin(main, Path(os.path.realpath(path)))
        file.flush()
        if self._path is not None:
            facts = os.fstat(file.fileno())
            self._write({"name": Path(path).name, "is": _identity(facts)})

    def _begin(self, main: IO[bytes], place: Path) -> None:
        facts = os.fstat(main.fileno())
        names = [path.name for path in place.parent.glob(f"{_PREFIX}*{_SUFFIX}")]
        found = [name for name in names if os.path.samestat(facts, place.with_name(name).lstat())]
        if not found:  # the index is a link to one in another folder
            return
        path = place.with_name(f"{_PREFIX}{os.urandom(8).hex()}{_NOTES}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor, self._path = os.open(path, flags, _OWNERS_MODE), path
        lock(self._descriptor)
        self._write({"main": found[0], "itself": _identity(os.fstat(self._descriptor))[:2]})

    def _write(self, note: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(note).encode() + b"\n")

    def remove(self) -> None:
        """Remove the notes: the files are named, or gone."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
            with suppress(OSError):
                os.close(self._descriptor)


@contextmanager
def noting() -> Iterator[Notes]:
    """Give notes that are kept until the end of the block, also after an error: all is tidied up then."""
    notes = Notes()
    try:
        yield notes
    finally:
        notes.remove()


def _remove_leftover(path: Path) -> None:
    with _unlocked(path) as (descriptor, facts):
        if path.name.endswith(_NOTES) and stat.S_ISREG(facts.st_mode):
            _follow(path, descriptor, facts)
        elif _is_young(facts):
            return
        elif not stat.S_ISDIR(facts.st_mode):
            path.unlink()
        elif _OURS.fullmatch(path.name):
            shutil.rmtree(path)


def _follow(path: Path, descriptor: int, facts: os.stat_result) -> None:
    """Remove what is noted if the file that was to name it is a killed writer's; then the notes."""
    main, noted = _read(descriptor, facts)
    if main and os.path.lexists(path.with_name(main)):
        with _unlocked(path.with_name(main)) as (_, left):
            if _is_young(left):
                return
            for name, identity in noted.items():
                _remove_noted(path.with_name(name), identity)
    elif _is_young(facts):
        return
    path.unlink()


def _read(descriptor: int, facts: os.stat_result) -> tuple[str, dict[str, Any]]:
    """Return the name of the file that was to name others, and these; nothing of a copy, or of another's."""
    if facts.st_uid != os.geteuid() or facts.st_nlink != 1 or facts.st_size > _LARGEST:
        return "", {}
    try:
        head, *notes = map(json.loads, os.read(descriptor, _LARGEST).splitlines())
        main, noted = head["main"], {note["name"]: note["is"] for note in notes}
        is_whole = _OURS.fullmatch(main) and head["itself"] == _identity(facts)[:2]
        is_whole = is_whole and all(name == Path(name).name for name in noted)
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", {}
    return (main, noted) if is_whole else ("", {})


def _remove_noted(path: Path, identity: list[int]) -> None:
    with suppress(FileNotFoundError):
        facts = path.lstat()
        is_it = _identity(facts) == identity and facts.st_uid == os.geteuid() and facts.st_nlink == 1
        if is_it and not _is_named(path):
            path.unlink()


def _is_named(path: Path) -> bool:
    """Tell whether an index in the folder may name a file: somebody may have written one."""
    written = (path.name.encode(errors="surrogateescape"), json.dumps(path.name)[1:-1].encode())
    for index in path.parent.glob(_INDEXES):
        if index.stat().st_size > _LARGEST or any(name in index.read_bytes() for name in written):
            return True
    return False


def _identity(facts: os.stat_result) -> list[int]:
    return [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns]


@contextmanager
def _unlocked(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor, os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _is_young(facts: os.stat_result) -> bool:
    return time.time() - facts.st_mtime <= _YOUNG
