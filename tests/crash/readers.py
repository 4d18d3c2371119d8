"""Processes that read a checkpoint again and again while it is replaced: each reading is of one state.

There are three contents of one layout: of two, every second is the same, and a mixture may look whole.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import paratree as pt
from tests.crash.child import Child
from tests.crash.writers import WIDTH, WRITERS, convert, model, succeed

if TYPE_CHECKING:
    from pathlib import Path

READERS, REPLACEMENTS = 8, 200
CONTENTS = 3
MIXTURE = "a mixture"


def read_while_replaced(
    name: str, place: Path, *, readers: int = READERS, replacements: int = REPLACEMENTS
) -> Counter[str]:
    """Replace a checkpoint by others in turn, while processes read it; return what they saw.

    Args:
        name: the writer.
        place: an empty folder.
        readers: number of processes that read.
        replacements: how often it is replaced.

    Returns:
        How often a reading was of each content, was a mixture, or an error, by its words.
    """
    writer, folder = WRITERS[name], place / "target"
    folder.mkdir(parents=True)
    writes, hashes = [], {}
    for number in range(CONTENTS):
        source = place / f"{number}{writer.source}"
        pt.save(model(number, width=WIDTH), source)
        writes.append(convert(source, folder / writer.target, writer))
        succeed(writes[-1])
        hashes[_read(folder / writer.reads)] = f"content {number}"
    ended = place / "ended"
    children = [Child(lambda: _watch(folder / writer.reads, hashes, ended)) for _ in range(readers)]
    for child in children:
        child.go()
    try:
        for number in range(replacements):
            succeed(writes[number % CONTENTS])
    finally:
        ended.touch()
        found = Counter[str]()
        for child in children:
            done = child.wait()
            assert done.code == 0, done.stderr
            for line in done.stderr.splitlines():
                found[line.partition(" ")[2]] += int(line.partition(" ")[0])
    return found


def is_whole(seen: str) -> bool:
    """Tell whether a reading was of one content, or an error that says that it is to be opened again."""
    return seen.startswith(("content ", "SourceNotFoundError")) or seen.endswith("open it again")


def _watch(path: Path, hashes: dict[str, str], ended: Path) -> int:
    """Read until it is over, at least once after that; say what was seen on stderr."""
    seen = Counter[str]()
    is_over = False
    while not is_over:
        is_over = ended.exists()
        try:
            seen[hashes.get(_read(path), MIXTURE)] += 1
        except Exception as error:  # noqa: BLE001 -- whatever a reader meets is what is asked for
            seen[f"{type(error).__name__}: {str(error).partition('; ')[2]}"] += 1
    sys.stderr.write("".join(f"{times} {what}\n" for what, times in seen.items()))
    return 0


def _read(path: Path) -> str:
    with pt.open(path) as tree:
        return pt.fingerprint(tree).hash or "unread"
