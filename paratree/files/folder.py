"""A checkpoint of several files: what is in its folder, and what one of its files names there."""

from __future__ import annotations

import os
from errno import ELOOP, ENOENT, ENOTDIR

from paratree.core.errors import CorruptFileError, SourceNotFoundError, UnsafeFileError, printable
from paratree.files.local import LocalFile

_DEEPEST = 16  # folders between the file that names another and that other


def folder_entries(path: str, patterns: tuple[str, ...]) -> list[str]:
    """Return the regular files directly in a folder whose names fit a pattern, pattern by pattern."""
    from fnmatch import fnmatchcase

    names = sorted(entry.name for entry in os.scandir(path) if entry.is_file())
    return [os.path.join(path, n) for pattern in patterns for n in names if fnmatchcase(n, pattern)]  # noqa: PTH118


def latest_entries(path: str, patterns: tuple[str, ...]) -> list[str]:
    """Return the file of the greatest number that fits a pattern, as the last step of a training run.

    In a pattern, ``#`` stands for a number: ``checkpoint_#`` for files, ``#/_METADATA`` for folders, before
    whose number letters may stand. Symbolic links are not followed.

    Returns:
        One file, or none; several if different words stand before the number: no steps of one run.
    """
    import re

    latest: dict[str, tuple[int, str]] = {}  # words before the number -> the greatest, and its file
    entries = [entry for entry in os.scandir(path) if not entry.is_symlink()]
    for before, after in (pattern.split("#") for pattern in patterns):
        name = re.compile(f"({re.escape(before) or '[A-Za-z_-]*'})([0-9]{{1,18}})")
        for entry in entries:
            file = entry.path + after
            if (step := name.fullmatch(entry.name)) and os.path.isfile(file) and not os.path.islink(file):  # noqa: PTH113, PTH114
                latest[step[1]] = max(latest.get(step[1], (-1, "")), (int(step[2]), file))
    return [file for _, file in latest.values()]


def beside(file: LocalFile, name: str, *, links: bool = False) -> LocalFile:
    """Open a file that ``file`` names, relative to the folder in which ``file`` lies.

    Args:
        file: the file that names it, for messages and its folder.
        name: the name, with ``/`` between folders.
        links: follow a symbolic link at its end, as the cache of the Hugging Face hub consists of; only for a
            plain name, which leads where the owner of the folder wanted and nowhere that the file chose.

    Raises:
        UnsafeFileError: the name leads out of the folder: it is absolute, climbs, or passes a symbolic link.
        SourceNotFoundError: there is no such file.
        CorruptFileError: another checkpoint has taken the place of the folder since ``file`` was opened.
    """
    parts = name.split("/")
    plain = all(part not in ("", ".", "..") and "\0" not in part for part in parts)
    if not plain or len(parts) > (1 if links else _DEEPEST):
        raise _outside(file, name)
    folder = os.path.dirname(file.path)  # noqa: PTH120
    path = os.path.join(folder, *parts)  # noqa: PTH118
    if links:
        _check_there(file, name, os.path.exists(path), path)  # noqa: PTH110
        return _named(file, LocalFile(path))
    held = -1
    try:
        held = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for i, part in enumerate(parts):
            flags = os.O_NONBLOCK if i == len(parts) - 1 else os.O_DIRECTORY
            step = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=held)
            os.close(held)
            held = step
    except OSError as error:
        if held >= 0:
            os.close(held)
        if error.errno in (ELOOP, ENOTDIR):  # a link, or something that is no folder
            raise _outside(file, name) from None
        _check_same(file)
        _check_there(file, name, error.errno != ENOENT, path)
        raise
    found = _named(file, LocalFile(path, held))
    _check_same(file)
    return found


def _named(file: LocalFile, found: LocalFile) -> LocalFile:
    """Note that a file names another one."""
    file.named[found.path] = None
    found.named = file.named
    return found


def _check_there(file: LocalFile, name: str, there: bool, path: str) -> None:
    if not there:
        source = printable(os.path.basename(file.path))  # noqa: PTH119
        raise SourceNotFoundError(
            f"{printable(path)}: no such file; {source} names it: fetch it too, into the same folder"
        )


def _check_same(file: LocalFile) -> None:
    """Look that the folder is still that of ``file``: one that takes its place has the same names in it."""
    if file.is_replaced or not os.path.exists(file.path):  # noqa: PTH110
        raise CorruptFileError(
            file.path, "another checkpoint has taken its place since it was opened", advice="open it again"
        )


def _outside(file: LocalFile, name: str) -> UnsafeFileError:
    return UnsafeFileError(
        file.path,
        "a file outside its folder is named",
        member=name,
        advice="other files are read from the folder itself only, and not through links",
    )
