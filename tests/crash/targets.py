"""Saves onto what may be where the checkpoint shall go: links, folders, modes, owners, no room."""

from __future__ import annotations

import os
import resource
import stat
from typing import TYPE_CHECKING, NamedTuple

from tests.crash.cases import ABSENT, EXISTS, NEW, OLD, Case, contents
from tests.crash.child import run
from tests.crash.faults import Result, is_one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOBODY = 65534
MODES = (0o600, 0o640, 0o444)


def _nothing(_: Case) -> None:
    pass


def _true(_: Case) -> bool:
    return True


class Target(NamedTuple):
    """What is there, and what must come of a save.

    Attributes:
        prepare: makes it so, from the old checkpoint.
        code: the exit code that is right.
        state: which checkpoint must be there then.
        holds: what must hold besides.
        limit: what the process may not do; runs in it.
        of_folders: whether it is one for a checkpoint that is a folder.
    """

    prepare: Callable[[Case], None] = _nothing
    code: int = 0
    state: str = NEW
    holds: Callable[[Case], bool] = _true
    limit: Callable[[Case], None] = _nothing
    of_folders: bool = True


def path_of(case: Case) -> Path:
    """Return what takes its place last: the file, the index, the folder."""
    return case.folder / case.writer.reads


def _aside(case: Case) -> Path:
    return case.folder.parent / "aside"


def _link(case: Case) -> None:
    path_of(case).rename(_aside(case))
    path_of(case).symlink_to(_aside(case))


def _is_link_to_aside(case: Case) -> bool:
    return path_of(case).is_symlink() and path_of(case).readlink() == _aside(case)


def _dangling(case: Case) -> None:
    path_of(case).symlink_to("nowhere")


def _is_dangling(case: Case) -> bool:
    return [*case.folder.iterdir()] == [path_of(case)] and path_of(case).is_symlink()


def _other_folder(case: Case) -> None:
    path_of(case).mkdir()
    (path_of(case) / "precious").write_bytes(b"1")


def _has_precious(case: Case) -> bool:
    return contents(case.folder) == {f"{case.writer.reads}/precious": b"1"}


def _pipe(case: Case) -> None:
    os.mkfifo(path_of(case))


def _is_pipe(case: Case) -> bool:
    return [*case.folder.iterdir()] == [path_of(case)] and stat.S_ISFIFO(path_of(case).stat().st_mode)


def _hard_link(case: Case) -> None:
    os.link(path_of(case), _aside(case))


def _other_name_is_old(case: Case) -> bool:
    return _aside(case).read_bytes() == case.old[case.writer.reads]


def _readable_only(case: Case) -> None:
    case.folder.chmod(0o555)


def _for_everybody(case: Case) -> None:
    case.folder.chmod(0o777)


def _nobody(_: Case) -> None:
    """Become a user whom modes stop."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _no_room(case: Case) -> None:
    """Let the kernel refuse what goes beyond half of the largest file (EFBIG; Python ignores SIGXFSZ)."""
    most = max(map(len, case.new.values())) // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def _is_old(case: Case) -> bool:
    return contents(case.folder) == case.old


def _of_mode(mode: int) -> Target:
    def prepare(case: Case) -> None:
        path_of(case).chmod(mode | 0o111 if path_of(case).is_dir() else mode)

    def holds(case: Case) -> bool:
        found = stat.S_IMODE(path_of(case).stat().st_mode)
        return found == (mode | 0o111 if path_of(case).is_dir() else mode)

    return Target(prepare, holds=holds)


def _owned(case: Case) -> None:
    os.chown(path_of(case), NOBODY, NOBODY)


def _is_owned(case: Case) -> bool:
    found = path_of(case).stat()
    return (found.st_uid, found.st_gid) == (NOBODY, NOBODY)


ONTO_NOTHING = {
    "nothing there": Target(),
    "a link to nothing": Target(_dangling, 2, OLD, _is_dangling),
    "a folder of other files": Target(_other_folder, 2, OLD, _has_precious),
    "a pipe": Target(_pipe, 2, OLD, _is_pipe),
    "nothing there, no room": Target(_nothing, 2, OLD, _is_old, _no_room),
}
ONTO_OLD = {
    "an older one": Target(),
    "a link": Target(_link, holds=_is_link_to_aside),
    **{f"mode {mode:o}": _of_mode(mode) for mode in MODES},
    "hard-linked: the other name keeps the old": Target(
        _hard_link, holds=_other_name_is_old, of_folders=False
    ),
    "a folder that may not be written": Target(_readable_only, 2, OLD, _is_old, _nobody),
    "an older one, no room": Target(_nothing, 2, OLD, _is_old, _no_room),
}
AS_ROOT = {
    "of another owner": Target(_owned, holds=_is_owned),
    "of another owner, in a folder for everybody": Target(_for_everybody, limit=_nobody, of_folders=False),
}


def targets(name: str, place: Path) -> Iterator[Result]:
    """Save onto everything in the tables; look at what is there then."""
    onto_old = ONTO_OLD | (AS_ROOT if os.getuid() == 0 else {})
    for before, table in ((ABSENT, ONTO_NOTHING), (EXISTS, onto_old)):
        for number, (words, target) in enumerate(table.items()):
            case = Case(name, before, place / before / str(number))
            if target.of_folders or case.writer.reads in case.new:
                yield _judged(case, words, target)


def _judged(case: Case, words: str, target: Target) -> Result:
    target.prepare(case)

    def action() -> object:
        target.limit(case)
        return case.action()

    ended = run(action)
    case.folder.chmod(0o755)
    files = {} if target.holds in (_is_pipe, _has_precious) else contents(case.folder)
    state = case.verdict(files)
    problems = [f"it ended with {ended.code}: {ended.stderr.strip()[-300:]}"] * (ended.code != target.code)
    if ended.code == 2 and not is_one_line(ended.stderr):
        problems.append(f"it said: {ended.stderr.strip()[-300:]}")
    problems += [f"there is: {state}"] * (state != target.state)
    problems += ["what was there is not as it shall be"] * (not target.holds(case))
    problems += ["something is left"] * bool(case.leftovers(files))
    return Result(words, state, tuple(problems))
