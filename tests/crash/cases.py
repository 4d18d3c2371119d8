"""One writer, one state of its target, and who says whether the old or the new checkpoint is there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import paratree as pt
from tests.crash.child import run
from tests.crash.writers import WRITERS, convert, source_of, succeed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Action = Callable[[], object]

ABSENT, EXISTS, SOURCE = "absent", "exists", "is the source"
OLD, NEW = "old", "new"
TEMPORARY = ".paratree-*.tmp"


def states_before(name: str) -> tuple[str, ...]:
    """Return the states of its target that a writer is tried in; a copy of itself has no other content."""
    return (ABSENT, EXISTS) if WRITERS[name].like else (ABSENT, EXISTS, SOURCE)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, links followed."""
    paths = (Path(at, name) for at, _, names in os.walk(folder, followlinks=True) for name in names)
    files = (path for path in sorted(paths) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_contents(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder hold these files and nothing else."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


class Case:
    """A save that can be repeated: ``prepare``, then ``action`` in another process.

    Attributes:
        folder: where the target lies.
        action: what writes it.
        old: the files before.
        new: the files after it.
    """

    def __init__(
        self, name: str, before: str, place: Path, action: Callable[[Case], Action] | None = None
    ) -> None:
        self.name, self.before = name, before
        self.writer = WRITERS[name]
        self.folder, self._scratch = place / "target", place / "seen"
        self._source = place / f"source{self.writer.source}"
        self._verdicts: dict[bytes, str] = {}
        for path in (self.folder, self._scratch):
            path.mkdir(parents=True)
        source_of(self.writer, 1, self._source)
        part = ("--select", "layers.**") if before == SOURCE else ()
        self.action = convert(self.source, self.folder / self.writer.target, self.writer, part)
        if before != ABSENT:
            self._write_old(place)
        self.old = contents(self.folder)
        self._old = self._fingerprint(self.folder) if before != ABSENT else None
        self._write_new()
        if action is not None:
            self.action = action(self)
        self.prepare()

    @property
    def source(self) -> Path:
        """What is converted."""
        return self.folder / self.writer.reads if self.before == SOURCE else self._source

    def _write_old(self, place: Path) -> None:
        other = source_of(self.writer, 2, place / f"other{self.writer.source}")
        succeed(convert(other, self.folder / self.writer.target, self.writer))

    def _write_new(self) -> None:
        """Write it once in this process: what is imported late is there, and the new content is known."""
        succeed(self.action)
        self.new = contents(self.folder)
        self._new = self._fingerprint(self.folder)
        assert self._new != self._old

    def prepare(self) -> None:
        """Put the old state back."""
        write_contents(self.folder, self.old)

    def _fingerprint(self, folder: Path) -> str:
        with pt.open(folder / self.writer.reads) as tree:
            return pt.fingerprint(tree).hash

    def verdict(self, files: Mapping[str, bytes]) -> str:
        """Say which checkpoint files are: the old one, bit for bit; the new one, as it reads; or neither."""
        files = {name: data for name, data in files.items() if not is_temporary(name)}
        key = hashlib.sha1(repr(sorted(files.items())).encode()).digest()
        if key not in self._verdicts:
            self._verdicts[key] = self._judged(files)
        return self._verdicts[key]

    def _judged(self, files: Mapping[str, bytes]) -> str:
        name = self.writer.reads
        if self.old and all(files.get(name) == data for name, data in self.old.items()):
            return OLD
        if not any(f"{file}/".startswith(f"{name}/") for file in files):
            return "nothing is there" if self.old else OLD
        write_contents(self._scratch, files)
        try:
            found = self._fingerprint(self._scratch)
        except pt.ParatreeError as error:
            return f"torn: {error}"
        return NEW if found == self._new else "torn: it opens, and is neither the old nor the new"

    def leftovers(self, files: Mapping[str, bytes]) -> list[str]:
        """Return the files that belong neither to the checkpoint that is there nor to the old one."""
        if self.verdict(files) == OLD:
            return sorted(files.keys() - self.old.keys())
        return sorted(files.keys() - self._named(files))

    def _named(self, files: Mapping[str, bytes]) -> set[str]:
        """Return the files that make up the new checkpoint; shards have names drawn by chance."""
        name = self.writer.reads
        if name.endswith(".index.json"):
            return {name, *json.loads(files[name])["weight_map"].values()}
        return set(self.new)

    def save_again(self) -> tuple[str, list[str]]:
        """Save once more, after a while; return the verdict and what is left over."""
        for path in self.folder.glob(TEMPORARY):
            os.utime(path, (0, 0))
        ended = run(self.action)
        files = contents(self.folder)
        if ended.code:
            return f"the next save ends with {ended.code}: {ended.stderr}", []
        return self.verdict(files), self.leftovers(files)


def is_temporary(name: str) -> bool:
    """Tell whether a file is one that a writer of ours writes to."""
    return any(fnmatch(part, TEMPORARY) for part in name.split("/"))
