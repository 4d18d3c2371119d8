"""Write a file or a folder so that its path holds the old or the new, never a part, also after a power cut.

The bytes go to a file (a folder) of a random name in the same folder, are flushed to the disk, and the rename
is, too. It is locked while it is written: one that is not is what a killed writer left; the next removes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import stat
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paratree.core.errors import printable
from paratree.files._leftovers import lock, remove_leftovers, temporary
from paratree.files._syncing import sync_folder, sync_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import IO, NoReturn

_NEW_MODE = 0o666  # less the umask
_NEW_FOLDER_MODE, _OWNERS_MODE = 0o777, 0o700
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def replacing(
    path: str | os.PathLike[str], *, force: bool = False, check: Callable[[str], None] | None = None
) -> Iterator[IO[bytes]]:
    """Give a file to write; when the block ends without an error, it takes the place of ``path``.

    A symbolic link stays, and what it points to is replaced. Permissions of an existing file are kept.
    After an error, an interrupt, SIGTERM or SIGHUP nothing is left of the new file.

    Args:
        path: where the file shall be.
        force: whether a file that is there may be replaced.
        check: called with the path of the complete new file before it takes its place; its error stops that.

    Yields:
        A binary file, open for writing.

    Raises:
        FileExistsError: there is a file and ``force`` is false.
        OSError: the path is no place for a file, or the disk is full.

    Example:
        >>> with replacing("numbers.bin") as file:  # doctest: +SKIP
        ...     file.write(bytes(8))
    """
    target = _target(Path(path))
    old = _existing(target, force)
    remove_leftovers(target.parent)
    new = temporary(target)
    with ended_in_order():
        try:
            try:
                descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _NEW_MODE)
            except OSError as error:  # say which file was asked for, not the temporary one
                raise type(error)(error.errno, error.strerror, str(path)) from None
            with os.fdopen(descriptor, "wb") as file:
                lock(descriptor)
                if old is not None:
                    _imitate(descriptor, old)
                yield file
                file.flush()
                os.fsync(descriptor)
                if check is not None:
                    check(str(new))
                _existing(target, force)  # it may have come while we wrote
                new.replace(target)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno and error.filename is None:  # of a write
                error.filename = str(path)
            new.unlink(missing_ok=True)
            raise
        _sync_name(target)


def check_target(path: str | os.PathLike[str], *, force: bool = False) -> None:
    """Look that a file may be written to a path, as far as that can be seen.

    Raises:
        FileExistsError: there is a file and ``force`` is false.
        OSError: the path is no place for a file.
    """
    target = _target(Path(path))
    _existing(target, force)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


@contextmanager
def replacing_folder(
    path: str | os.PathLike[str],
    *,
    replaceable: Callable[[str], None] | None = None,
    check: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Give a new folder to fill; when the block ends without an error, it takes the place of ``path``.

    A folder that is there is exchanged for the new one in one step and then removed with all that is in it.
    What may be removed is for the caller to say; where the system cannot exchange two folders, none is
    replaced. An empty folder counts as none. A symbolic link stays, and what it points to is replaced; owner
    and permissions of an existing folder are kept. After an error, an interrupt, SIGTERM or SIGHUP nothing is
    left of the new folder.

    Args:
        path: where the folder shall be.
        replaceable: called with the path of a folder that is there and not empty, before anything is written
            and again before it is replaced; its error stops that. Without it no such folder is replaced.
        check: called with the path of the complete new folder before it takes its place; as ``replaceable``.

    Yields:
        The path of the new folder.

    Raises:
        FileExistsError: there is a folder that is not empty and ``replaceable`` is not given.
        OSError: the path is no place for a folder, the disk is full, or folders cannot be exchanged here.

    Example:
        >>> with replacing_folder("numbers") as folder:  # doctest: +SKIP
        ...     Path(folder, "eight.bin").write_bytes(bytes(8))
    """
    target = _target(Path(path))
    old = _existing_folder(target, replaceable)
    remove_leftovers(target.parent)
    new = temporary(target)
    with ended_in_order():
        try:
            _make_folder(new, path)
            if old is not None and any(target.iterdir()):
                _check_exchange(new, target)
            with _locked_folder(new) as descriptor:
                yield str(new)
                if old is not None:
                    _imitate(descriptor, old)
                sync_tree(new, descriptor)
                if check is not None:
                    check(str(new))
                now = _existing_folder(target, replaceable)  # it may have come while we wrote
                if now is not None and any(target.iterdir()):
                    _exchange(new, target)
                else:
                    new.rename(target)
        except BaseException as error:
            if isinstance(error, OSError) and error.errno and error.filename is None:  # of a write
                error.filename = str(path)
            _remove_folder(new)
            raise
        _sync_name(target)
        _remove_folder(new)  # what was exchanged


def _target(path: Path) -> Path:
    """Return the file that ``path`` means, links followed; a link to nothing is refused, not guessed at."""
    target = Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for a circle of links
    if path.is_symlink() and not target.exists():
        raise OSError(errno.ENOENT, "a link to nothing; remove it first", printable(str(path)))
    return target


def _existing(target: Path, force: bool) -> os.stat_result | None:
    """Return what is known of the file to be replaced, if there is one."""
    try:
        old = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EINVAL, "not a regular file; give another path", printable(str(target)))
    if not force:
        raise FileExistsError(
            errno.EEXIST, "it exists; replacing it takes force (--force)", printable(str(target))
        )
    return old


def _existing_folder(target: Path, replaceable: Callable[[str], None] | None) -> os.stat_result | None:
    """Return what is known of the folder to be replaced, if there is one."""
    try:
        old = target.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(old.st_mode):
        raise OSError(errno.ENOTDIR, "not a folder; give another path", printable(str(target)))
    if any(target.iterdir()):
        if replaceable is None:
            raise FileExistsError(
                errno.EEXIST, "it exists; replacing it takes force (--force)", printable(str(target))
            )
        replaceable(str(target))
    return old


def _make_folder(new: Path, path: str | os.PathLike[str]) -> None:
    try:
        new.mkdir(_NEW_FOLDER_MODE)
    except OSError as error:  # say which folder was asked for, not the temporary one
        raise type(error)(error.errno, error.strerror, str(path)) from None


@contextmanager
def _locked_folder(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock(descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _check_exchange(new: Path, target: Path) -> None:
    """Exchange two empty folders, so that a system that cannot is found out before anything is written."""
    other = temporary(target)
    other.mkdir()
    try:
        _exchange(new, other)
    finally:
        other.rmdir()


_HERE, _EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
_UNABLE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders in one step: renameat2(2), of Linux 3.15 and glibc 2.28."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    number = errno.ENOSYS
    if rename is not None:
        failed = rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
        number = ctypes.get_errno() if failed else 0
    if number:
        unable = (
            "two folders cannot be exchanged in one step here; give a new name, remove the old afterwards"
        )
        fact = unable if number in _UNABLE else os.strerror(number)
        raise OSError(number, fact, printable(str(other)))


def _remove_folder(folder: Path) -> None:
    """Remove a folder that has or had our random name; what took its place is on the disk before."""
    if folder.exists():
        with suppress(OSError):
            sync_folder(folder.parent)
            folder.chmod(_OWNERS_MODE)  # what is in a read-only folder could not be removed
        shutil.rmtree(folder, ignore_errors=True)


def _imitate(descriptor: int, old: os.stat_result) -> None:
    """Give the new file the owner, if that is permitted, and the mode of the old."""
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        with suppress(
            PermissionError
        ):  # only root gives files away; else the writer owns it, as with any editor
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_name(target: Path) -> None:
    """Flush the name of what has taken its place."""
    try:
        sync_folder(target.parent)
    except OSError as error:
        fact = f"{error.strerror}; the new one is in its place, but a power cut may bring back the old"
        raise OSError(error.errno, fact, printable(str(target))) from None


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that what is half done is removed.

    What the program handles or ignores (nohup) is left alone. When one came, others are ignored until the end
    of the block: a terminal that closes sends SIGHUP twice, as does the shell in it.
    """
    is_main = threading.current_thread() is threading.main_thread()
    ours = [number for number in _ENDING if is_main and signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> NoReturn:
        for other in ours:
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
