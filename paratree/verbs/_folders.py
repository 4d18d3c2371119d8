"""Write a tree as a folder, which takes the place of an older checkpoint of its format and of no other."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from paratree.core.errors import MismatchError, UnknownSourceError, printable
from paratree.files.atomic import check_target, replacing_folder
from paratree.files.local import LocalFile
from paratree.registry import entry_of, find_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from paratree.core.plugin import Format
    from paratree.core.tree import ParamTree


def write_folder(
    tree: ParamTree,
    path: str,
    writer: Format,
    written: Callable[[int], None],
    *,
    force: bool,
    check: Callable[[str], None] | None,
) -> tuple[list[str], list[str]]:
    """Write a folder, and return the paths of its files and what it does not hold.

    Raises:
        FileExistsError: there is a folder that is not empty, and ``force`` is false.
        MismatchError: what would be replaced is not, file by file, a checkpoint of this format.
    """
    replaceable = (lambda folder: check_replaceable(folder, writer)) if force else None
    with replacing_folder(path, replaceable=replaceable, check=check) as folder:
        notes = writer.save_folder(tree, folder, written)
        names = sorted(_files(folder))
    return [os.path.join(path, name) for name in names], [*notes]  # noqa: PTH118


def check_folder(path: str, writer: Format, *, force: bool) -> None:
    """Look that a folder may be written to a path, as far as that can be seen.

    Raises:
        FileExistsError: there is a folder that is not empty, and ``force`` is false.
        MismatchError: what would be replaced is not, file by file, a checkpoint of this format.
        OSError: the path is no place for a folder.
    """
    if not os.path.isdir(path):  # noqa: PTH112
        check_target(path)
    elif any(Path(path).iterdir()):
        if not force:
            raise FileExistsError(errno.EEXIST, "it exists; replacing it takes force (--force)", path)
        check_replaceable(path, writer)


def check_replaceable(folder: str, writer: Format) -> None:
    """Look that a folder is a checkpoint of a format and holds nothing else, as it will be removed.

    Raises:
        MismatchError: it is none, or a file in it is not named as a file of one, or is a link.
    """
    for name in _files(folder):
        if re.fullmatch(writer.FILES, name) is None or not stat.S_ISREG(Path(folder, name).lstat().st_mode):
            raise _irreplaceable(folder, writer, f"{printable(name)} in it is no file of one")
    try:
        with closing(LocalFile(entry_of(folder))) as entry:
            found = find_format(entry).NAME
    except UnknownSourceError:
        raise _irreplaceable(folder, writer, "it is none") from None
    if found != writer.NAME:
        raise _irreplaceable(folder, writer, f"it is one of {found}")


def _files(folder: str) -> Iterator[str]:
    """Yield the path of what is in a folder and below and is no folder itself; a link is none."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(folder, below)) as entries:  # noqa: PTH118
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{below}{entry.name}/")
                else:
                    yield below + entry.name


def _irreplaceable(folder: str, writer: Format, fact: str) -> MismatchError:
    rule = f"only a checkpoint of {writer.NAME} is replaced by one"
    return MismatchError(f"{printable(folder)}: {fact}; {rule}: give a new name, or remove it yourself")
