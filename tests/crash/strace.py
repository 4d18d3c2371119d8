"""System calls by strace: their list, and faults that the kernel itself returns."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from typing import TYPE_CHECKING

from tests.crash.calls import CREATE, EXCHANGE, KINDS, LOOK, RENAME, TAKES_ROOM, TRUNCATE, WRITE, Call
from tests.crash.child import Child

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.crash.calls import Fault
    from tests.crash.child import Action, Ended

_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)(.*)")
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"|\d+<(/[^>]*)>')  # an argument, or the file of a descriptor
_BELOW = re.compile(r'(?:\d+|AT_FDCWD)<([^>]*)>, "([^/"](?:[^"\\]|\\.)*)"')  # a folder, a name in it
_OPENS_TO_WRITE = re.compile(r"O_WRONLY|O_RDWR|O_CREAT")
_COUNT = re.compile(r", (\d+)(?:, 0)?$")
_ATTACHED = "attached"


def problem() -> str | None:
    """Say why strace cannot be used here, if it cannot."""
    if shutil.which("strace") is None:
        return "strace is not installed (Debian package strace)"
    done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True)
    return f"strace: {done.stderr.strip().splitlines()[0]}" if done.returncode else None


class Strace:
    """Runs actions under strace; what they do below one folder counts."""

    name = "strace"

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)

    def record(self, action: Action) -> tuple[Ended, list[Call]]:
        """Run an action; return how it ended, and its calls."""
        ended, lines = self._run(action, [])
        return ended, list(self._calls(lines))

    def inject(self, action: Action, calls: Sequence[Call], place: int, fault: Fault) -> tuple[Ended, bool]:
        """Run an action of which a call fails; return how it ended, and whether it came to the call."""
        found = calls[place]
        what = f"error={errno.errorcode[fault.error]}" if fault.error else "signal=KILL"
        first = {found.name: f"{found.ordinal}"}
        if fault.stays:
            for call in calls[place:]:
                if call.kind in TAKES_ROOM:
                    first.setdefault(call.name, f"{call.ordinal}")
            first = {
                name: ordinal + "+" * (name != "openat") for name, ordinal in first.items()
            }  # it reads, too
        options = [f"--inject={name}:{what}:when={when}" for name, when in first.items()]
        ended, lines = self._run(action, options)
        hit = any("(INJECTED)" in line and self._folder in line for line in lines)
        return ended, ended.was_killed or hit

    def _run(self, action: Action, options: list[str]) -> tuple[Ended, list[str]]:
        with tempfile.NamedTemporaryFile(mode="r", errors="surrogateescape") as log:
            child = Child(action)
            command = ["strace", "-f", "-y", "-s", "0", "-o", log.name, f"--trace={','.join(_known())}"]
            with subprocess.Popen(
                [*command, *options, "-p", str(child.pid)], stderr=subprocess.PIPE, text=True
            ) as strace:
                said = strace.stderr.readline()
                child.go()
                ended = child.wait()
                if _ATTACHED not in said:
                    raise OSError(errno.EPERM, f"strace: {said.strip()}")
            return ended, log.read().splitlines()

    def _calls(self, lines: Sequence[str]) -> Iterator[Call]:
        """Read what strace wrote; only calls below the folder that succeeded."""
        counts: Counter[tuple[str, str]] = Counter()
        places: dict[str, int] = {}  # where the next write to a file goes
        for line in lines:
            if (found := _LINE.fullmatch(line)) is None:
                continue
            process, name, arguments, result, _ = found.groups()
            counts[process, name] += 1
            found_paths = _PATH.findall(_BELOW.sub(r'"\1/\2"', arguments))
            paths = [named or file for named, file in found_paths if named or file]
            inside = [path for path in paths if f"{path}/".startswith(f"{self._folder}/")]
            if int(result) < 0 or not inside:
                continue
            kind = _kind(name, arguments)
            path, offset, length = inside[0] if kind in (RENAME, EXCHANGE) else inside[-1], 0, 0
            if name == "lseek":
                places[path] = int(result)
            if kind == WRITE:
                offset, length = places.get(path, 0), int(result)
                if name.startswith("pwrite"):
                    offset = int(_COUNT.search(arguments)[1])
                else:
                    places[path] = offset + length
            if kind == TRUNCATE:
                offset = int(_COUNT.search(arguments)[1])
            to = self._relative(inside[-1]) if kind in (RENAME, EXCHANGE) else ""
            empties = kind == CREATE and "O_TRUNC" in arguments
            if kind == CREATE:
                places[path] = 0
            yield Call(name, counts[process, name], kind, self._relative(path), to, offset, length, empties)

    def _relative(self, path: str) -> str:
        return path[len(self._folder) :].lstrip("/")


def _kind(name: str, arguments: str) -> str:
    if KINDS[name] == CREATE and name != "creat" and not _OPENS_TO_WRITE.search(arguments):
        return LOOK
    return EXCHANGE if "RENAME_EXCHANGE" in arguments else KINDS[name]


def _known() -> list[str]:
    return [f"?{name}" for name in KINDS]
