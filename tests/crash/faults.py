"""Every call of a writer fails in every way, one a run; then what is left is looked at."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tests.crash.calls import KILL, LOOK, SYNC, UNLINK, faults_of
from tests.crash.cases import ABSENT, NEW, OLD, contents

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crash.calls import Call, Fault
    from tests.crash.cases import Case
    from tests.crash.child import Ended
    from tests.crash.layer import Layer
    from tests.crash.strace import Strace

_SHARD = re.compile(r"-\d{5}-of-\d{5}(\.|$)")


class Result(NamedTuple):
    """What came of one fault.

    Attributes:
        fault: in words, and at which call.
        state: ``"old"``, ``"new"``, or what else is there.
        problems: what should not be.
        unnamed: number of whole shards that are left, which no index names.
    """

    fault: str
    state: str
    problems: tuple[str, ...]
    unnamed: int = 0


def faults(case: Case, by: Strace | Layer, *, most: int | None = None) -> Iterator[Result]:
    """Let every call fail, one after the other.

    Args:
        case: the writer, and the state of its target.
        by: what injects.
        most: of so many calls at most, evenly spread; by default of all.
    """
    case.prepare()
    ended, calls = by.record(case.action)
    assert ended.code == 0, ended.stderr
    assert case.verdict(contents(case.folder)) == NEW
    for place in spread(len(calls), most):
        call = calls[place]
        for fault in faults_of(call):
            case.prepare()
            ended, hit = by.inject(case.action, calls, place, fault)
            yield _judged(case, call, fault, ended, hit=hit)


def spread(count: int, most: int | None) -> list[int]:
    """Return at most so many of the numbers below ``count``, evenly spread; all of them if it is None."""
    return sorted({number * count // most for number in range(most)}) if most else list(range(count))


def _judged(case: Case, call: Call, fault: Fault, ended: Ended, *, hit: bool) -> Result:
    files = contents(case.folder)
    state = case.verdict(files)
    problems = [] if hit else ["the fault did not come"]
    if state not in (OLD, NEW):
        problems.append(state)
    if ended.was_killed != (fault == KILL):
        problems.append(f"it ended with {ended.code}")
    if ended.was_killed:
        state_after, left = case.save_again()
        problems += [f"after the next save: {state_after}"] * (state_after != NEW)
        unnamed = [name for name in left if _SHARD.search(name)]
        is_known = left == unnamed and not (unnamed and _is_noted(case))
        problems += [] if is_known else [f"the next save leaves {', '.join(left)}"]
        return Result(_words(call, fault), state, tuple(problems), len(unnamed))
    if ended.code == 0 and state != NEW:
        problems.append("it says that it is done, and is not")
    if ended.code not in (0, 2) or (ended.code == 2 and not is_one_line(ended.stderr)):
        problems.append(f"it ended with {ended.code} and said: {ended.stderr.strip()[-300:]}")
    if (left := case.leftovers(files)) and not _may_stay(call, state):
        problems.append(f"it leaves {', '.join(left)}")
    return Result(_words(call, fault), state, tuple(problems))


def _is_noted(case: Case) -> bool:
    """Tell whether every whole shard is one of the killed writer, which has noted it: none was replaced."""
    return case.before == ABSENT and case.writer.reads.endswith(".index.json")


def _may_stay(call: Call, state: str) -> bool:
    """Tell whether what was replaced may still be there: it cannot be removed, or may be needed again.

    If the folder could not be flushed, the old index or folder is what a power cut would bring back; if the
    old index could not be read, nothing says what was replaced.
    """
    return call.kind == UNLINK or (state == NEW and call.kind in (SYNC, LOOK))


def _words(call: Call, fault: Fault) -> str:
    return f"{fault} at {call.name} {call.ordinal} of {call.path or 'the folder'}"


def is_one_line(text: str) -> bool:
    """Tell whether an error is told as it shall be."""
    return text.startswith("paratree: ") and text.count("\n") == 1 and "Traceback" not in text
