"""Run the crash matrix and print a table of what came of it: ``scripts/crash``; exit 1 on a finding."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.broken import BROKEN
from tests.crash.cases import ABSENT, EXISTS, NEW, OLD, Case, states_before
from tests.crash.faults import faults
from tests.crash.layer import Layer
from tests.crash.power import power_losses
from tests.crash.readers import READERS, REPLACEMENTS, is_whole, read_while_replaced
from tests.crash.strace import Strace, problem
from tests.crash.targets import targets
from tests.crash.writers import WRITERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.crash.faults import Result

MEMORY = Path("/dev/shm")
_HEAD = ("writer", "calls that fail", "faults", "old, new after them", "power-loss states", "target states",
         "readings", "to try again")  # fmt: skip
_KINDS = ("faults", "power-loss states", "target states", "readings")
_SHOWN = 50
PARTS = ("faults", "power", "targets", "readers")


class Findings:
    """What was counted, and what should not be."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.problems: Counter[tuple[str, str, str]] = Counter()

    def add(self, writer: str, kind: str, results: Iterable[Result]) -> Iterator[Result]:
        """Count results, and pass them on."""
        for result in results:
            self.counts[kind] += 1
            self.counts["unnamed shards"] += result.unnamed
            for words in result.problems:
                self.problems[writer, result.fault, words] += 1
            yield result

    def join(self, other: Findings) -> None:
        """Add what was found elsewhere."""
        self.counts += other.counts
        self.problems += other.problems

    def of(self, *starts: str) -> int:
        """Count the problems that begin so."""
        return sum(times for (_, _, words), times in self.problems.items() if words.startswith(starts))

    def summary(self) -> str:
        """Say it in a line."""
        counts = ", ".join(f"{self.counts[kind]:,} {kind}" for kind in _KINDS)
        lost = self.of("nothing is there", "what was done is lost")
        torn, silent = self.of("torn", "a mixture"), self.of("it says that it is done")
        other = sum(self.problems.values()) - lost - torn - silent
        return f"{counts}: {lost} lost, {torn} torn, {silent} silent, {other} otherwise wrong"


def main() -> int:
    """Run the matrix, or a part of it."""
    parser = argparse.ArgumentParser(prog="scripts/crash", description=__doc__.splitlines()[0])
    parser.add_argument("--writers", nargs="+", choices=WRITERS, default=list(WRITERS), metavar="WRITER")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--by", choices=("strace", "layer"), help="what injects faults; strace where it can")
    parser.add_argument("--most", type=int, help="of a save, only so many calls (default: all)")
    parser.add_argument("--replacements", type=int, default=REPLACEMENTS, help="for each writer")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="so many writers at a time")
    parser.add_argument("--seed", type=int, default=0, help="of the power-loss states drawn by chance")
    parser.add_argument("--broken", action="store_true", help="look that writers broken on purpose are found")
    options = parser.parse_args()
    reason = problem() if options.by is None else None
    by = Layer if options.by == "layer" or reason else Strace
    if reason:
        say(f"faults by the layer in the process, as strace cannot be used: {reason}\n")
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="crash-", dir=place) as folder:
        Path(folder).chmod(0o755)  # targets runs as another user, too
        if options.broken:
            return _find_broken(Path(folder), by)
        return _run(Path(folder), by, options)


def _run(folder: Path, by: type[Strace | Layer], options: argparse.Namespace) -> int:
    findings, started = Findings(), time.monotonic()
    say(f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}\n")
    with ProcessPoolExecutor(options.jobs, get_context("fork")) as pool:
        for row, found in pool.map(partial(_row, folder=folder, by=by, options=options), options.writers):
            findings.join(found)
            say(f"| {' | '.join(row)} |\n")
    taken = time.monotonic() - started
    say(f"\nFaults by {by.name}; {findings.summary()}; {taken:.0f} s.\n")
    if shards := findings.counts["unnamed shards"]:
        say(f"Killed writers left {shards} whole shards that no index names and no save removes.\n")
    for (writer, where, words), times in findings.problems.most_common(_SHOWN):
        say(f"{writer}: {where}: {words}{f' ({times} times)' * (times > 1)}\n")
    return 1 if findings.problems else 0


def _row(
    name: str, folder: Path, by: type[Strace | Layer], options: argparse.Namespace
) -> tuple[list[str], Findings]:
    """Run everything for one writer; return its row, and what was found."""
    findings, place = Findings(), folder / name.replace(" ", "-").replace(",", "")
    states, calls, again = Counter[str](), set(), 0
    for before in states_before(name) if {"faults", "power"} & {*options.parts} else ():
        case = Case(name, before, place / before)
        injects = by(case.folder)
        failed = faults(case, injects, most=options.most) if "faults" in options.parts else ()
        for result in findings.add(name, "faults", failed):
            states[result.state] += 1
            calls.add((before, result.fault.partition(" at ")[2]))
        if "power" in options.parts:
            losses = power_losses(case, injects, options.seed, most=options.most)
            _exhaust(findings.add(name, "power-loss states", losses))
    if "targets" in options.parts:
        _exhaust(findings.add(name, "target states", targets(name, place / "targets")))
    if "readers" in options.parts:
        seen = read_while_replaced(name, place / "read", replacements=options.replacements)
        findings.counts["readings"] += seen.total()
        findings.problems += Counter(
            {(name, f"{READERS} readers", what): times for what, times in seen.items() if not is_whole(what)}
        )
        again = sum(times for what, times in seen.items() if is_whole(what) and "Error" in what)
    numbers = [len(calls), findings.counts["faults"], f"{states[OLD]}, {states[NEW]}",
               *(findings.counts[kind] for kind in _KINDS[1:]), again]  # fmt: skip
    return [name, *map(str, numbers)], findings


def _exhaust(results: Iterable[Result]) -> None:
    for _ in results:
        pass


def _find_broken(folder: Path, by: type[Strace | Layer]) -> int:
    """Run writers that are broken on purpose; 1 if the matrix takes one for whole."""
    missed = 0
    for number, (words, (name, broken)) in enumerate(BROKEN.items()):
        for before in (ABSENT, EXISTS):
            case = Case(name, before, folder / f"{number}-{before}", broken)
            results = list(power_losses(case, by(case.folder)))
            found = sum(bool(result.problems) for result in results)
            missed += not found
            say(f"{words}, target {before}: {found} of {len(results)} power-loss states are found wrong\n")
    return 1 if missed else 0


def say(text: str) -> None:
    """Write at once: a run takes minutes."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
