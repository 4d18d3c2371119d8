"""Many files are flushed in one call where that is known to be as good, and one by one elsewhere."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from paratree.files import _syncing
from paratree.files.atomic import replacing_folder

EXT4, NFS = 0xEF53, 0x6969


@pytest.fixture
def system(monkeypatch):
    """Stand in for the system: ``kind`` of file system, ``error`` of syncfs; what is flushed is ``done``."""
    found = SimpleNamespace(kind=EXT4, error=0, done=[])

    def fstatfs(_, struct):
        struct[0] = found.kind
        return 0

    def syncfs(_):
        found.done.append("all")
        ctypes.set_errno(found.error)
        return -1 if found.error else 0

    library = SimpleNamespace(fstatfs=fstatfs, syncfs=syncfs)
    monkeypatch.setattr(_syncing.ctypes, "CDLL", lambda *_, **__: library)
    monkeypatch.setattr(_syncing.platform, "system", lambda: "Linux")
    monkeypatch.setattr(_syncing.platform, "release", lambda: "5.8.0-arch")
    monkeypatch.setattr(_syncing, "_MANY", 10)
    monkeypatch.setattr(os, "fsync", found.done.append)
    found.library = library
    return found


def filled(folder, count=9):
    with replacing_folder(folder) as new:
        for number in range(count):
            Path(new, str(number)).touch()


def is_one_by_one(system, count=9):
    """Tell whether every file, the folder, and the name of the folder were flushed."""
    return len([done for done in system.done if done != "all"]) == count + 2


def test_many_files_are_flushed_in_one_call(tmp_path, system):
    filled(tmp_path / "f")
    assert system.done[0] == "all"
    assert len(system.done) == 2  # the name of the folder, after the rename


def test_few_files_are_flushed_one_by_one_others_bytes_wait(tmp_path, system):
    filled(tmp_path / "f", 8)
    assert is_one_by_one(system, 8)
    assert "all" not in system.done


@pytest.mark.parametrize(
    ("what", "value"), [("release", "5.7.9"), ("release", "unknown"), ("system", "Darwin")]
)
def test_a_system_whose_call_tells_no_errors_is_not_asked(what, value, tmp_path, system, monkeypatch):
    monkeypatch.setattr(_syncing.platform, what, lambda: value)
    filled(tmp_path / "f")
    assert is_one_by_one(system)
    assert "all" not in system.done


def test_an_unknown_file_system_is_not_asked(tmp_path, system):
    system.kind = NFS
    filled(tmp_path / "f")
    assert is_one_by_one(system)
    assert "all" not in system.done


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_where_the_call_is_not_allowed_files_are_flushed_one_by_one(number, tmp_path, system):
    system.error = number
    filled(tmp_path / "f")
    assert is_one_by_one(system)


def test_where_there_is_no_such_call_files_are_flushed_one_by_one(tmp_path, system):
    del system.library.syncfs
    filled(tmp_path / "f")
    assert is_one_by_one(system)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
def test_a_write_that_failed_is_told_and_nothing_is_left(number, tmp_path, system):
    system.error = number
    with pytest.raises(OSError, match=os.strerror(number)) as told:
        filled(tmp_path / "f")
    assert told.value.filename == str(tmp_path / "f")
    assert [*tmp_path.iterdir()] == []


def test_the_call_of_this_system_works(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        assert isinstance(_syncing._flushes_all(descriptor), bool)
        assert isinstance(_syncing.sync_all(descriptor), bool)
    finally:
        os.close(descriptor)
