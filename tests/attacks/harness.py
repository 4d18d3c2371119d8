"""Runs the command line on a hostile file in a process of its own, under an audit hook, and measures it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from types import ModuleType

_ROOT = Path(__file__).parents[2]
_RUNNER = Path(__file__).with_name("audited.py")
MEMORY = 64 << 20  # bytes over the idle process
SECONDS = 1.0  # of processor time over the idle process; wall time says more about the machine than about us


class Case(NamedTuple):
    """A bad file and its good twin, which differs in the one thing that is wrong.

    A checkpoint of several files is a dict from relative path to bytes (or to where a link leads, as text).
    """

    id: str
    suffix: str  # of the file; of a dict: the path in it that is opened, or nothing for the folder
    bad: object  # bytes or a dict, or a function that returns them
    good: object
    get: str = ""  # the parameter whose value is refused, when the file itself opens


class Sweep(NamedTuple):
    """A good file of which every bit is flipped, and which is cut at every byte."""

    name: str  # what the file is called
    good: bytes
    beside: tuple[tuple[str, bytes], ...] = ()  # paths and bytes of files that stay as they are


class Run(NamedTuple):
    code: int
    out: str
    err: str
    memory: int
    seconds: float


@cache
def _server(libraries: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start the process of which the runs are forks; it ends when its input does, with this one."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, str(_RUNNER), *libraries],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path},
    )


def run(libraries: tuple[str, ...], *args: str) -> Run:
    """Run ``paratree`` with an audit hook that kills the process if anything from outside is executed."""
    server = _server(libraries)
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps([str(Path.cwd()), *args]) + "\n")
    server.stdin.flush()
    return Run(**json.loads(server.stdout.readline()))


@cache
def idle(libraries: tuple[str, ...]) -> Run:
    """Measure the process that only imports what a reader needs anyway."""
    return run(libraries)


def modules() -> dict[str, ModuleType]:
    """Return the modules of cases by the name of their format: ``cases_NAME.py`` in this folder.

    Each has ``CASES``; ``SWEEPS``, if every bit of something is to be flipped; and ``LIBRARIES``, if opening
    such a file imports packages.
    """
    names = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))
    return {name.removeprefix("cases_"): import_module(f"tests.attacks.{name}") for name in names}


def write(case: Case, which: str, folder: Path) -> Path:
    """Write the bad or the good file (or files) of a case, and return what is to be opened."""
    content = getattr(case, which)
    content = content() if callable(content) else content
    if not isinstance(content, dict):
        path = folder / f"{which}{case.suffix}"
        path.write_bytes(content)
        return path
    for name, data in content.items():
        path = folder / which / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str):
            path.symlink_to(data)
        else:
            path.write_bytes(data)
    return folder / which / case.suffix


def assert_refused(found: Run, path: Path, libraries: tuple[str, ...] = ()) -> None:
    """One printable line that begins with the file, or one beside it, exit 2, little memory, little time."""
    base = idle(libraries)
    assert found.code == 2, found
    assert found.out == "", found
    lines = found.err.splitlines()
    assert len(lines) == 1, found.err
    folder = path if path.is_dir() else path.parent
    assert lines[0].startswith((f"paratree: {path}", f"paratree: {folder}{os.sep}")), lines[0]
    assert lines[0].isprintable(), lines[0]
    assert "; " in lines[0], "the line ends in what to do"
    assert 0 < found.memory < base.memory + MEMORY, (found.memory, base.memory)
    assert found.seconds < base.seconds + SECONDS, (found.seconds, base.seconds)
