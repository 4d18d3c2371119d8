"""A layer between a writer and ``os`` in its process: the same list and faults where strace is not allowed.

It stands in for the functions of ``os`` that change files, and for the files that ``os.fdopen`` gives. What
is opened for writing in another way is an error of the layer, so that no call can pass unseen.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from typing import TYPE_CHECKING

from paratree.files import _syncing, atomic
from tests.crash.calls import EXCHANGE, KINDS, RENAME, TAKES_ROOM, WRITE, Call, Fault
from tests.crash.child import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.crash.child import Action, Ended

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_OF_DESCRIPTOR = {  # function of os -> system call; the descriptor comes first
    "fsync": "fsync", "fdatasync": "fdatasync", "fchmod": "fchmod", "fchown": "fchown",
}  # fmt: skip
_OF_PATH = {
    "unlink": "unlink", "remove": "unlink", "rmdir": "rmdir", "mkdir": "mkdir", "chmod": "chmod",
    "chown": "chown", "utime": "utimensat",
}  # fmt: skip
_OF_PATHS = {"rename": "rename", "replace": "rename", "link": "link", "symlink": "symlink"}
_UNKNOWN = ("pwrite", "writev", "pwritev", "sendfile", "posix_fallocate")  # used by no writer yet


class Layer:
    """Runs actions with the layer in their process; what they do below one folder counts."""

    name = "layer"

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)

    def record(self, action: Action) -> tuple[Ended, list[Call]]:
        """Run an action; return how it ended, and its calls."""
        return self._run(action, 0, None)

    def inject(self, action: Action, calls: Sequence[Call], place: int, fault: Fault) -> tuple[Ended, bool]:
        """Run an action of which a call fails; return how it ended, and whether it came to the call."""
        ended, done = self._run(action, place + 1, fault)
        return ended, ended.was_killed or len(done) >= place

    def _run(self, action: Action, at: int, fault: Fault | None) -> tuple[Ended, list[Call]]:
        with tempfile.TemporaryFile() as log:

            def within() -> object:
                _Standing(self._folder, log.fileno(), at, fault).install()
                return action()

            ended = run(within)
            log.seek(0)
            return ended, [Call(*json.loads(line)) for line in log]


class _Standing:
    """The layer itself, in the process of the writer, which ends with it."""

    def __init__(self, folder: str, log: int, at: int, fault: Fault | None) -> None:
        self.folder, self.log, self.at, self.fault = folder, log, at, fault
        self.count, self.names, self.paths = 0, Counter(), {}
        self.opening, self.real_open = False, io.open
        self.real = {name: getattr(os, name) for name in dir(os)}

    def install(self) -> None:
        for name, call in _OF_DESCRIPTOR.items():
            setattr(os, name, self._of_descriptor(name, call))
        for name, call in _OF_PATH.items():
            setattr(os, name, self._of_path(name, call))
        for name, call in _OF_PATHS.items():
            setattr(os, name, self._of_paths(name, call))
        for name in _UNKNOWN:
            setattr(os, name, self._unknown(name))
        for name in ("open", "close", "write", "ftruncate", "copy_file_range", "fdopen"):
            setattr(os, name, getattr(self, name))
        io.open = builtins.open = self.open_file
        self._exchange, atomic._exchange = atomic._exchange, self.exchange
        self._sync_all, _syncing.sync_all = _syncing.sync_all, self.sync_all
        sys.addaudithook(self._audit)

    def _inside(self, path: object, folder: int | None = None) -> str | None:
        """Return a path relative to the folder, if it is below it."""
        if folder is not None:
            return None if folder not in self.paths else f"{self.paths[folder]}/{path}".lstrip("/")
        known = isinstance(path, str | bytes | os.PathLike)
        found = os.path.abspath(os.fsdecode(path)) if known else ""  # noqa: PTH100 -- links are not followed
        return found[len(self.folder) + 1 :] if f"{found}/".startswith(f"{self.folder}/") else None

    def call(
        self,
        name: str,
        path: str | None,
        do: Callable[[], object],
        *,
        place: str | None = None,
        half: Callable[[], object] | None = None,
        **more: object,
    ) -> object:
        """Make one call, or let it fail; ``place`` is what the error names."""
        if path is None:
            return do()
        self.count += 1
        fault, later = self.fault, self.count > self.at
        if fault is not None and (self.count == self.at or (later and self._still(name, fault))):
            if fault.short and half is not None and not later:
                self.fault = fault._replace(short=False, stays=True)
                return half()
            if not fault.error:
                self.real["kill"](os.getpid(), signal.SIGKILL)
            error = OSError(fault.error, os.strerror(fault.error))
            error.filename = place
            raise error
        result = do()
        self.names[name] += 1
        kind = EXCHANGE if name == "renameat2" else KINDS[name]
        if kind == WRITE:
            more["length"] = result
        record = Call(name, self.names[name], kind, path, **more)
        self.real["write"](self.log, json.dumps(record).encode() + b"\n")
        return result

    def _still(self, name: str, fault: Fault) -> bool:
        return fault.stays and KINDS[name] in TAKES_ROOM

    def _of_descriptor(self, name: str, call: str) -> Callable[..., object]:
        def stand_in(descriptor: int, *more: object) -> object:
            return self.call(call, self.paths.get(descriptor), lambda: self.real[name](descriptor, *more))

        return stand_in

    def _of_path(self, name: str, call: str) -> Callable[..., object]:
        def stand_in(path: object, *more: object, **named: object) -> object:
            if isinstance(path, int):
                return self.call(call, self.paths.get(path), lambda: self.real[name](path, *more, **named))
            inside = self._inside(path, named.get("dir_fd"))
            return self.call(call, inside, lambda: self.real[name](path, *more, **named), place=str(path))

        return stand_in

    def _of_paths(self, name: str, call: str) -> Callable[..., object]:
        def stand_in(source: object, target: object, **named: object) -> object:
            to = self._inside(target) or ""
            from_ = self._inside(source) if KINDS[call] == RENAME else to
            do = lambda: self.real[name](source, target, **named)  # noqa: E731
            return self.call(call, from_, do, place=str(source), to=to)

        return stand_in

    def _unknown(self, name: str) -> Callable[..., object]:
        def stand_in(*_: object, **__: object) -> object:
            raise NotImplementedError(f"os.{name} is called, which the layer does not know")

        return stand_in

    # Files

    def open(self, path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        inside, writes = self._inside(path, dir_fd), bool(flags & _WRITES)
        do = lambda: self.real["open"](path, flags, mode, dir_fd=dir_fd)  # noqa: E731
        self.opening = True
        try:
            empties = bool(flags & os.O_TRUNC)
            descriptor = self.call("openat", inside, do, place=str(path), empties=empties) if writes else do()
        finally:
            self.opening = False
        if inside is not None:
            self.paths[descriptor] = inside
        return descriptor

    def open_file(self, path: object, mode: str = "r", *more: object, **named: object) -> object:
        if self._inside(path) is None or mode[0] == "r":
            return self.real_open(path, mode, *more, **named)
        flags = {"w": os.O_CREAT | os.O_TRUNC, "x": os.O_CREAT | os.O_EXCL}[mode[0]]
        raw = _Raw(self, self.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o666))
        raw.name = path
        file = io.BufferedWriter(raw)
        return file if "b" in mode else io.TextIOWrapper(file, *more[1:], **named)

    def exchange(self, one: Path, other: Path) -> None:
        do = lambda: self._exchange(one, other)  # noqa: E731
        self.call("renameat2", self._inside(one), do, place=str(other), to=self._inside(other))

    def sync_all(self, descriptor: int) -> bool:
        return self.call("syncfs", self.paths.get(descriptor), lambda: self._sync_all(descriptor))

    def close(self, descriptor: int) -> None:
        self.real["close"](descriptor)
        self.paths.pop(descriptor, None)

    def write(self, descriptor: int, data: bytes) -> int:
        real, view = self.real["write"], memoryview(data).cast("B")
        path = self.paths.get(descriptor)
        offset = 0 if path is None else os.lseek(descriptor, 0, os.SEEK_CUR)
        half = lambda: real(descriptor, view[: max(len(view) // 2, 1)])  # noqa: E731
        return self.call("write", path, lambda: real(descriptor, view), half=half, offset=offset)

    def copy_file_range(self, source: int, target: int, count: int, **offsets: object) -> int:
        real = self.real["copy_file_range"]
        offset = os.lseek(target, 0, os.SEEK_CUR)
        half = lambda: real(source, target, max(count // 2, 1), **offsets)  # noqa: E731
        do = lambda: real(source, target, count, **offsets)  # noqa: E731
        return self.call("copy_file_range", self.paths.get(target), do, half=half, offset=offset)

    def ftruncate(self, descriptor: int, size: int) -> None:
        do = lambda: self.real["ftruncate"](descriptor, size)  # noqa: E731
        self.call("ftruncate", self.paths.get(descriptor), do, offset=size)

    def fdopen(self, descriptor: int, mode: str = "r", *more: object, **named: object) -> object:
        if descriptor not in self.paths or mode != "wb":
            return self.real["fdopen"](descriptor, mode, *more, **named)
        return io.BufferedWriter(_Raw(self, descriptor))

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or self.opening or not arguments[2] & _WRITES:
            return
        if self._inside(arguments[0]) is not None:
            raise NotImplementedError(f"{arguments[0]} is opened past the layer")


class _Raw(io.FileIO):
    """A file whose writes go through the layer."""

    def __init__(self, layer: _Standing, descriptor: int) -> None:
        super().__init__(descriptor, "wb")
        self._layer = layer

    def write(self, data: bytes) -> int:
        return self._layer.write(self.fileno(), data)

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        self._layer.ftruncate(self.fileno(), size)
        return size

    def close(self) -> None:
        if not self.closed:
            self._layer.paths.pop(self.fileno(), None)
        super().close()
