"""What a writer asks of the system, call by call, and what may go wrong with one."""

from __future__ import annotations

import errno
from typing import NamedTuple

CREATE, WRITE, TRUNCATE, SYNC, SYNC_ALL, RENAME, EXCHANGE, UNLINK, MAKE_FOLDER, CHANGE, LOOK = (
    "create", "write", "truncate", "sync", "sync all", "rename", "exchange", "unlink", "mkdir", "change",
    "look",
)  # fmt: skip
KINDS = {  # of the system calls by name; an open that makes no file is a look
    "openat": CREATE, "open": CREATE, "creat": CREATE,
    "write": WRITE, "pwrite64": WRITE, "writev": WRITE, "pwritev": WRITE, "copy_file_range": WRITE,
    "sendfile": WRITE, "splice": WRITE,
    "ftruncate": TRUNCATE, "truncate": TRUNCATE, "fallocate": CHANGE,
    "fsync": SYNC, "fdatasync": SYNC, "syncfs": SYNC_ALL,
    "rename": RENAME, "renameat": RENAME, "renameat2": RENAME,
    "unlink": UNLINK, "unlinkat": UNLINK, "rmdir": UNLINK,
    "mkdir": MAKE_FOLDER, "mkdirat": MAKE_FOLDER,
    "fchmod": CHANGE, "chmod": CHANGE, "fchown": CHANGE, "chown": CHANGE, "utimensat": CHANGE,
    "link": CHANGE, "linkat": CHANGE, "symlink": CHANGE, "symlinkat": CHANGE,
    "close": LOOK, "newfstatat": LOOK, "fstat": LOOK, "lseek": LOOK, "getdents64": LOOK, "flock": LOOK,
    "pread64": LOOK, "preadv": LOOK, "preadv2": LOOK,
}  # fmt: skip


class Call(NamedTuple):
    """One call that succeeded, on a path below the folder that is watched.

    Attributes:
        name: of the system call.
        ordinal: the number of the call among those of that name, from 1.
        kind: what it does.
        path: relative to the folder; ``""`` is the folder itself.
        to: of a rename, where to; of an exchange, with what.
        offset: of a write, where it begins; of a truncation, the new size.
        length: of a write.
        empties: of an open, whether it empties a file that is there.
    """

    name: str
    ordinal: int
    kind: str
    path: str
    to: str = ""
    offset: int = 0
    length: int = 0
    empties: bool = False


class Fault(NamedTuple):
    """What goes wrong: the process is killed before the call (no error), or the call fails.

    Attributes:
        error: number of the error, or 0.
        stays: whether every later call that takes room fails, too, as on a full disk.
        short: whether the call does half of its work first.
    """

    error: int = 0
    stays: bool = False
    short: bool = False

    def __str__(self) -> str:
        name = errno.errorcode[self.error] if self.error else "SIGKILL"
        return name + " from then on" * self.stays + " after half of it" * self.short


KILL = Fault()
_OF_CHANGES = (KILL, *map(Fault, (errno.ENOSPC, errno.EIO, errno.EDQUOT)))
_OF_WRITES = (*_OF_CHANGES, Fault(errno.ENOSPC, stays=True))
_OF_LOOKS = (Fault(errno.EIO),)  # killed there, it is killed before the next change
TAKES_ROOM = (CREATE, WRITE, MAKE_FOLDER)


def faults_of(call: Call) -> tuple[Fault, ...]:
    """Return what may go wrong with a call."""
    if call.kind == LOOK:
        return _OF_LOOKS
    return _OF_WRITES if call.kind in TAKES_ROOM else _OF_CHANGES
