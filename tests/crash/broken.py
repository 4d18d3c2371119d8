"""Writers that break what ours keep, each in one way: the matrix must find them."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from paratree.files import _syncing, atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.crash.cases import Case

    Action = Callable[[], object]


@contextmanager
def _with(place: object, name: str, value: object) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def no_sync_of_the_file(case: Case) -> Action:
    """Rename what may not be on the disk yet."""
    action = case.action

    def broken() -> object:
        with _with(os, "fsync", _of_folders(os.fsync)):
            return action()

    return broken


def no_sync_of_the_folder(case: Case) -> Action:
    """Say that it is done when the name may not be on the disk yet."""
    action = case.action

    def broken() -> object:
        with _with(atomic, "sync_folder", lambda _: None):
            return action()

    return broken


def no_sync_of_all(case: Case) -> Action:
    """Rename a folder whose files may not be on the disk yet."""
    action = case.action

    def broken() -> object:
        with _with(_syncing, "sync_all", lambda _: True):
            return action()

    return broken


def rename_before_the_sync(case: Case) -> Action:
    """Give the new file its name, then see to its bytes."""
    action, target = case.action, case.folder / case.writer.target

    def broken() -> object:
        fsync, sync_folder = os.fsync, atomic.sync_folder

        def sync_both(folder: Path) -> None:
            descriptor = os.open(target, os.O_WRONLY)
            fsync(descriptor)
            os.close(descriptor)
            sync_folder(folder)

        with _with(os, "fsync", _of_folders(fsync)), _with(atomic, "sync_folder", sync_both):
            return action()

    return broken


def _of_folders(fsync: Callable[[int], None]) -> Callable[[int], None]:
    return lambda descriptor: fsync(descriptor) if stat.S_ISDIR(os.fstat(descriptor).st_mode) else None


def write_in_place(case: Case) -> Action:
    """Empty the old file, then write the new one into it."""
    source, target = case.source, case.folder / case.writer.target
    data = case.new[case.writer.target]

    def broken() -> object:
        source.stat()
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for start in range(0, len(data), 8192):
            os.write(descriptor, data[start : start + 8192])
        os.fsync(descriptor)
        os.close(descriptor)
        atomic.sync_folder(target.parent)
        return 0

    return broken


def index_first(case: Case) -> Action:
    """Write the index of shards before the shards that it names."""
    index = case.writer.reads

    def broken() -> object:
        for name in sorted(case.new, key=lambda name: name != index):
            with atomic.replacing(case.folder / name, force=True) as file:
                file.write(case.new[name])
        return 0

    return broken


BROKEN = {  # each with the writer that it breaks
    "no fsync of the file": ("safetensors", no_sync_of_the_file),
    "rename before fsync": ("safetensors", rename_before_the_sync),
    "no fsync of the folder": ("safetensors", no_sync_of_the_folder),
    "no syncfs of a folder of many": ("orbax, flushed in one call", no_sync_of_all),
    "written in place": ("safetensors", write_in_place),
    "index first": ("shards", index_first),
}
