"""The power fails after each call of a writer: what was not certain to be on the disk may be missing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.crash.cases import NEW, OLD, contents
from tests.crash.disk import Disk
from tests.crash.faults import Result, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crash.cases import Case
    from tests.crash.layer import Layer
    from tests.crash.strace import Strace


def power_losses(
    case: Case, by: Strace | Layer, seed: int = 0, *, most: int | None = None
) -> Iterator[Result]:
    """Look at every state that the disk may be in, after each call; after the last one it must be the new.

    Args:
        case: the writer, and the state of its target.
        by: what lists the calls.
        seed: of the states that are drawn by chance.
        most: before so many calls at most, evenly spread, and after the last; by default before all.
    """
    case.prepare()
    ended, calls = by.record(case.action)
    assert ended.code == 0, ended.stderr
    disk = Disk(case.old, contents(case.folder), calls)
    chance, places = random.Random(seed), {*spread(len(calls), most), len(calls)}
    for place in range(len(calls) + 1):
        is_done = place == len(calls)
        where = "when it was done" if is_done else f"before {calls[place].name} of {calls[place].path}"
        for files in disk.states(chance) if place in places else ():
            state = case.verdict(files)
            problems = [state] if state not in (OLD, NEW) else []
            problems += ["what was done is lost"] * (is_done and state != NEW)
            yield Result(f"power fails {where}", state, tuple(problems))
        if not is_done:
            disk.apply(calls[place])
