"""A sample of the crash matrix (scripts/crash runs all of it): nothing is lost, torn, or wrong in silence.

It runs in processes of its own, which fork. A layer in them makes the faults, as ptrace may be forbidden.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.calls import CREATE, EXCHANGE, MAKE_FOLDER, RENAME, SYNC, SYNC_ALL, UNLINK, WRITE, Call
from tests.crash.disk import Disk
from tests.crash.strace import Strace
from tests.crash.writers import WRITERS

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
SEVERAL_FILES = ("dcp", "shards", "tensorflow")  # checkpoints of more than one


def matrix(*arguments):
    command = [sys.executable, "-m", "tests.crash", "--by", "layer", "--jobs", "1", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def check(done, kind):
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    counts, found = done.stdout.split("Faults by layer; ")[1].split(": ", 1)
    assert found.startswith("0 lost, 0 torn, 0 silent, 0 otherwise wrong")
    assert (
        int(next(count for count in counts.split(", ") if count.endswith(kind)).split()[0].replace(",", ""))
        > 0
    )


@pytest.mark.parametrize("writer", WRITERS)
def test_a_fault_leaves_the_old_or_the_new(writer):
    done = matrix("--writers", writer, "--parts", "faults", "power", "--most", "2")
    check(done, "faults")
    check(done, "power-loss states")


@pytest.mark.parametrize("writer", ["safetensors", *SEVERAL_FILES])
def test_what_may_be_where_the_checkpoint_goes(writer):
    check(matrix("--writers", writer, "--parts", "targets"), "target states")


@pytest.mark.parametrize("writer", ["safetensors", "dcp"])
def test_readers_see_one_or_the_other(writer):
    check(matrix("--writers", writer, "--parts", "readers", "--replacements", "20"), "readings")


def test_writers_broken_on_purpose_are_found():
    done = matrix("--broken")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.count("are found wrong") == 12


# The disk of the model

FILE = bytes(range(256)) * 8


def left(calls, before=None, after=None):
    """Return every state that may be on the disk after some calls."""
    before, after = before or {}, after or {"new": FILE}
    disk = Disk(before, after, calls)
    for call in calls:
        disk.apply(call)
    return list(disk.states(random.Random(0)))


def call(kind, path, to="", offset=0, length=0, **more):
    return Call("", 1, kind, path, to, offset, length, **more)


WRITTEN = [call(CREATE, "new"), call(WRITE, "new", length=len(FILE))]


def test_nothing_is_certain_that_was_not_flushed():
    states = left(WRITTEN)
    assert {} in states  # no name
    assert {"new": b""} in states  # a name, and no bytes
    assert {"new": bytes(len(FILE))} in states  # its length, and no bytes
    assert {"new": FILE} in states
    assert {"new": FILE[:1024]} in states  # the first half
    sectors = [state["new"] for state in states if len(state.get("new", b"")) == len(FILE)]
    assert any(b"\0" * 512 in data and FILE[:512] in data for data in sectors)  # some of them


def test_a_flushed_file_has_its_bytes_and_maybe_no_name():
    states = left([*WRITTEN, call(SYNC, "new")])
    assert sorted(states, key=len) == [{}, {"new": FILE}]


def test_a_flushed_folder_has_its_names():
    states = left([*WRITTEN, call(SYNC, "new"), call(SYNC, "")])
    assert states == [{"new": FILE}]


def test_when_all_is_flushed_every_name_and_byte_is_there():
    made = [call(MAKE_FOLDER, "t"), call(CREATE, "t/new"), call(WRITE, "t/new", length=len(FILE))]
    states = left([*made, call(SYNC_ALL, "t")], after={"t/new": FILE})
    assert states == [{"t/new": FILE}]


def test_a_rename_may_come_before_the_bytes():
    states = left([*WRITTEN, call(RENAME, "new", "old")], {"old": b"1"}, {"old": FILE})
    assert {"old": b"1"} in states
    assert {"old": b""} in states
    assert {"old": FILE} in states


def test_a_removal_may_come_before_what_was_made_earlier():
    states = left([*WRITTEN, call(SYNC, "new"), call(UNLINK, "old")], {"old": b"1"})
    assert {} in states
    assert {"old": b"1", "new": FILE} in states


def test_folders_are_exchanged_in_one_step():
    calls = [call(MAKE_FOLDER, "t"), call(CREATE, "t/f"), call(WRITE, "t/f", length=len(FILE)),
             call(SYNC, "t/f"), call(SYNC, "t"), call(EXCHANGE, "t", "m")]  # fmt: skip
    before, after = {"m/f": b"1"}, {"m/f": FILE, "t/f": b"1"}
    assert {tuple(sorted(state.items())) for state in left(calls, before, after)} == {
        (("m/f", b"1"),),  # neither the new folder nor the exchange
        (("m/f", b"1"), ("t/f", FILE)),
        (("m/f", FILE), ("t/f", b"1")),
    }
    removed = [*calls, call(UNLINK, "t/f")]
    assert {} in left(removed, before, {"m/f": FILE})  # the old file of a folder that is not exchanged yet


# The lists that strace writes

LINES = """\
7 openat(AT_FDCWD</x>, "{0}/.t", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0666) = 4<{0}/.t>
7 write(2</dev/null>, ""..., 10) = 10
7 write(4<{0}/.t>, ""..., 608) = 608
7 lseek(4<{0}/.t>, 0, SEEK_SET) = 0
7 write(4<{0}/.t>, ""..., 8) = 8
7 lseek(4<{0}/.t>, 0, SEEK_END) = 608
7 copy_file_range(3</x/source>, [0], 4<{0}/.t>, NULL, 9600, 0) = 9600
7 write(4<{0}/.t>, ""..., 5) = -1 ENOSPC (No space left on device) (INJECTED)
7 fsync(4<{0}/.t>) = 0
7 rename("{0}/.t", "{0}/m") = 0
7 syncfs(4<{0}/t>) = 0
7 renameat2(AT_FDCWD</x>, "{0}/a", AT_FDCWD</x>, "{0}/b", RENAME_EXCHANGE) = 0
7 unlinkat(5<{0}/a>, "f", 0) = 0
7 openat(AT_FDCWD</x>, "{0}", O_RDONLY|O_DIRECTORY) = 4<{0}>
7 fsync(4<{0}>) = 0
7 +++ exited with 0 +++
"""


def test_what_strace_writes_is_understood(tmp_path):
    found = Strace(tmp_path)._calls(LINES.format(tmp_path).splitlines())
    assert [
        (c.name, c.ordinal, c.kind, c.path, c.to, c.offset, c.length) for c in found if c.kind != "look"
    ] == [
        ("openat", 1, CREATE, ".t", "", 0, 0),
        ("write", 2, WRITE, ".t", "", 0, 608),
        ("write", 3, WRITE, ".t", "", 0, 8),
        ("copy_file_range", 1, WRITE, ".t", "", 608, 9600),
        ("fsync", 1, SYNC, ".t", "", 0, 0),
        ("rename", 1, RENAME, ".t", "m", 0, 0),
        ("syncfs", 1, SYNC_ALL, "t", "", 0, 0),
        ("renameat2", 1, EXCHANGE, "a", "b", 0, 0),
        ("unlinkat", 1, UNLINK, "a/f", "", 0, 0),
        ("fsync", 2, SYNC, "", "", 0, 0),
    ]
