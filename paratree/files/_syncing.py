"""Flush files to the disk: one by one, or, where there are many, all of the file system in one call."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

_MANY = 512  # files and folders: of fewer, fsync takes less than what syncfs may flush of others
_SAYS_ERRORS = (5, 8)  # Linux since which syncfs fails if a write that waited has
_FLUSH_ALL = {0xEF53, 0x58465342, 0x9123683E, 0xF2F52010, 0x01021994}  # ext4, XFS, Btrfs, F2FS, tmpfs
_UNABLE = (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP)
_STATFS = 512  # bytes; the struct has at most 120


def sync_tree(folder: Path, opened: int) -> None:
    """Flush every file and folder to the disk.

    Args:
        folder: what is flushed, with all that is below it.
        opened: a descriptor of it that was opened before anything was written: of a write that failed since,
            syncfs tells through it.
    """
    many = len([*islice(_below(folder), _MANY)]) == _MANY
    if many and _flushes_all(opened) and sync_all(opened):
        return
    for path in _below(folder):
        _sync(path, os.O_NOFOLLOW)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder."""
    _sync(folder, os.O_DIRECTORY)


def sync_all(opened: int) -> bool:
    """Flush the file system of a descriptor: syncfs(2), of Linux; return whether it can be called here."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        return False
    number = ctypes.get_errno() if call(opened) else 0
    if number and number not in _UNABLE:
        raise OSError(number, os.strerror(number))
    return not number


def _flushes_all(opened: int) -> bool:
    """Tell whether syncfs is known to do for every file what fsync does, and to say what failed."""
    release = re.match(r"(\d+)\.(\d+)", platform.release()) if platform.system() == "Linux" else None
    if release is None or (int(release[1]), int(release[2])) < _SAYS_ERRORS:
        return False
    found = (ctypes.c_long * (_STATFS // ctypes.sizeof(ctypes.c_long)))()
    failed = ctypes.CDLL(None).fstatfs(opened, found)
    return not failed and found[0] in _FLUSH_ALL


def _below(folder: Path) -> Iterator[Path]:
    """Yield every file and folder, what is inside first, the folder itself last."""
    for path, _, names in os.walk(folder, topdown=False, onerror=_raise):
        yield from (Path(path, name) for name in names)
        yield Path(path)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> NoReturn:
    raise error
