"""Write a file so that its path holds the old bytes or the new ones, never a part, also after a power cut.

The bytes go to a file of a random name in the same folder, are flushed to the disk, and the rename is, too.
That file is locked while it is written: one that is not is what a killed writer left; the next removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import signal
import stat
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paratree.core.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import IO, NoReturn

_NEW_MODE = 0o666  # less the umask
_PREFIX, _SUFFIX = ".paratree-", ".tmp"
_YOUNG = 60  # seconds: a file that a writer may have made and not locked yet


@contextmanager
def replacing(
    path: str | os.PathLike[str], *, force: bool = False, check: Callable[[str], None] | None = None
) -> Iterator[IO[bytes]]:
    """Give a file to write; when the block ends without an error, it takes the place of ``path``.

    A symbolic link stays, and what it points to is replaced. Permissions of an existing file are kept.
    After an error, an interrupt or SIGTERM nothing is left of the new file.

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
    _remove_leftovers(target.parent)
    new = target.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
    with _terminated_as_exit():
        try:
            try:
                descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _NEW_MODE)
            except OSError as error:  # say which file was asked for, not the temporary one
                raise type(error)(error.errno, error.strerror, str(path)) from None
            with os.fdopen(descriptor, "wb") as file:
                with suppress(
                    OSError
                ):  # some network file systems have no locks, nor are leftovers removed there
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
            if isinstance(error, OSError) and error.filename is None:  # of a write
                error.filename = str(path)
            new.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)


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


def _remove_leftovers(folder: Path) -> None:
    """Remove what writers left that were killed: nobody holds the lock of it."""
    with suppress(OSError):
        for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            with suppress(OSError):
                _remove_leftover(path)


def _remove_leftover(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - os.fstat(descriptor).st_mtime > _YOUNG:
            path.unlink()
    finally:
        os.close(descriptor)


def _imitate(descriptor: int, old: os.stat_result) -> None:
    """Give the new file the owner, if that is permitted, and the mode of the old."""
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        with suppress(
            PermissionError
        ):  # only root gives files away; else the writer owns it, as with any editor
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that the file is removed; a handler of the program is left alone."""
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
