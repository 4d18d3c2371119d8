"""Atomic writes: the old file or the new one, never a part, nothing left behind."""

import ctypes
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from paratree.files import atomic
from paratree.files.atomic import replacing, replacing_folder


def entries(folder):
    return sorted(entry.name for entry in folder.iterdir())


def write(path, data=b"new", **options):
    with replacing(path, **options) as file:
        file.write(data)


def modes(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "w")
    finally:
        os.umask(before)
    assert (tmp_path / "w").read_bytes() == b"new"
    assert modes(tmp_path / "w") == 0o640
    assert entries(tmp_path) == ["w"]


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_a_replaced_file_keeps_its_mode(mode, tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"old")
    path.chmod(mode)
    write(path, force=True)
    assert (path.read_bytes(), modes(path)) == (b"new", mode)


def test_the_owner_is_kept_where_that_is_permitted(tmp_path, monkeypatch):
    path, asked = tmp_path / "w", []
    path.write_bytes(b"old")
    real = os.fstat

    def another_owner(descriptor):
        found = list(real(descriptor))
        found[stat.ST_UID] += 1
        return os.stat_result(found)

    def refused(*arguments):
        asked.append(arguments[1:])
        raise PermissionError

    monkeypatch.setattr(atomic.os, "fstat", another_owner)
    monkeypatch.setattr(atomic.os, "fchown", refused)
    write(path, force=True)
    assert asked == [(path.stat().st_uid, path.stat().st_gid)]
    assert path.read_bytes() == b"new"


def test_an_existing_file_is_kept_without_force(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError, match="force"):
        write(path)
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["w"]


def test_a_file_that_came_meanwhile_is_kept_without_force(tmp_path):
    path = tmp_path / "w"
    with pytest.raises(FileExistsError), replacing(path) as file:
        file.write(b"new")
        path.write_bytes(b"of another")
    assert path.read_bytes() == b"of another"
    assert entries(tmp_path) == ["w"]


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "deep").mkdir()
    target, link = tmp_path / "deep" / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to("deep/target")
    with pytest.raises(FileExistsError):
        write(link)
    write(link, force=True)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert entries(tmp_path / "deep") == ["target"]


def test_a_link_to_nothing_or_to_itself_is_refused(tmp_path):
    dangling, circle = tmp_path / "dangling", tmp_path / "circle"
    dangling.symlink_to("nowhere")
    circle.symlink_to("circle")
    for link in (dangling, circle):
        with pytest.raises(OSError, match="link to nothing"):
            write(link, force=True)
    assert entries(tmp_path) == ["circle", "dangling"]


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/null"):
        with pytest.raises(OSError, match="not a regular file"):
            write(path, force=True)
    assert entries(tmp_path) == ["pipe"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "no" / "w")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        write(tmp_path / "file" / "w")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_an_error_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), replacing(path, force=True) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["w"]


@pytest.mark.parametrize("failing", ["fsync", "fdopen"])
def test_a_failing_disk_leaves_the_old_file(failing, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(5, "Input/output error")

    path = tmp_path / "w"
    path.write_bytes(b"old")
    monkeypatch.setattr(atomic.os, failing, fail)
    with pytest.raises(OSError, match="Input/output"):
        write(path, force=True)
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["w"]


def test_a_folder_that_cannot_be_flushed_is_told(tmp_path, monkeypatch):
    """The new file is there, and not certain to be: the error says so, of which file."""
    real = os.fsync

    def fail(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")
        real(descriptor)

    path = tmp_path / "w"
    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error; the new one is in its place") as caught:
        write(path)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"new"
    assert entries(tmp_path) == ["w"]


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def logged_fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else os.fstat(descriptor).st_size)
        fsync(descriptor)

    def logged_replace(*paths, **options):
        done.append("rename")
        replace(*paths, **options)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "replace", logged_replace)
    monkeypatch.setattr(os, "rename", logged_replace)
    write(tmp_path / "w", bytes(100_000))
    assert done == [100_000, "rename", "folder"]


WAITING = """
import sys, time
from paratree.files.atomic import replacing
with replacing(sys.argv[1], force=True) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "codes"),
    [(signal.SIGTERM, {143}), (signal.SIGHUP, {129}), (signal.SIGINT, {130, -signal.SIGINT})],
)
def test_a_signal_leaves_the_old_file_and_nothing_else(number, codes, tmp_path):
    path = tmp_path / "w"
    path.write_bytes(b"old")
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        assert len(entries(tmp_path)) == 2
        process.send_signal(number)
        assert process.wait(30) in codes
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["w"]


HUNG_UP_TWICE = """
import os, signal, sys
from paratree.files.atomic import replacing
with replacing(sys.argv[1]) as file:
    try:
        os.kill(os.getpid(), signal.SIGHUP)
    finally:
        os.kill(os.getpid(), signal.SIGHUP)
        print("went on", flush=True)
"""


def test_a_second_signal_does_not_stop_the_removal(tmp_path):
    done = subprocess.run([sys.executable, "-c", HUNG_UP_TWICE, tmp_path / "w"], capture_output=True)
    assert (done.returncode, done.stdout) == (129, b"went on\n")
    assert entries(tmp_path) == []


NOHUP = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from paratree.files.atomic import replacing
with replacing(sys.argv[1]) as file:
    os.kill(os.getpid(), signal.SIGHUP)
    file.write(b"whole")
"""


def test_what_is_ignored_stays_so(tmp_path):
    subprocess.run([sys.executable, "-c", NOHUP, tmp_path / "w"], check=True)
    assert (tmp_path / "w").read_bytes() == b"whole"


def test_handlers_are_put_back_and_others_left_alone(tmp_path):
    write(tmp_path / "a")
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with replacing(tmp_path / "b") as file:
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            file.write(b"")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    thread = threading.Thread(target=write, args=(tmp_path / "c",))
    thread.start()
    thread.join()
    assert entries(tmp_path) == ["a", "b", "c"]


# What killed writers leave


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    code = (
        "import os, signal, sys; from paratree.files.atomic import replacing\n"
        "with replacing(sys.argv[1]) as file:\n"
        " file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, tmp_path / "w"], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = entries(tmp_path)
    write(tmp_path / "young")
    assert entries(tmp_path) == sorted([left, "young"])
    os.utime(tmp_path / left, (0, 0))
    write(tmp_path / "w")
    assert entries(tmp_path) == ["w", "young"]


def test_what_another_writer_is_writing_stays(tmp_path):
    with replacing(tmp_path / "a") as file:
        file.write(b"first")
        (temporary,) = entries(tmp_path)
        os.utime(tmp_path / temporary, (0, 0))
        write(tmp_path / "b")
        assert temporary in entries(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"first"


def test_links_and_folders_of_that_name_stay(tmp_path):
    (tmp_path / "precious").write_bytes(b"1")
    os.utime(tmp_path / "precious", (0, 0))
    (tmp_path / ".paratree-link.tmp").symlink_to("precious")
    (tmp_path / ".paratree-folder.tmp").mkdir()
    write(tmp_path / "w")
    assert entries(tmp_path) == [".paratree-folder.tmp", ".paratree-link.tmp", "precious", "w"]


# Folders


def fill(path, data=b"new", **options):
    with replacing_folder(path, **options) as folder:
        write_in(folder, data)


def write_in(folder, data=b"new"):
    os.mkdir(os.path.join(folder, "deep"))  # noqa: PTH102, PTH118
    for name in ("a", "deep/b"):
        with open(os.path.join(folder, name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(data)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


NEW = {"a": b"new", "deep/b": b"new"}


def anything(path):
    """Let any folder be replaced."""


def old_folder(path):
    path.mkdir()
    (path / "old").write_bytes(b"old")
    return path


def test_a_new_folder_has_the_mode_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        fill(tmp_path / "f")
    finally:
        os.umask(before)
    assert content(tmp_path / "f") == NEW
    assert modes(tmp_path / "f") == 0o750
    assert entries(tmp_path) == ["f"]


@pytest.mark.parametrize("mode", [0o700, 0o775, 0o555])
def test_a_replaced_folder_keeps_its_mode_and_nothing_of_its_content(mode, tmp_path):
    path = old_folder(tmp_path / "f")
    path.chmod(mode)
    fill(path, replaceable=anything)
    assert (content(path), modes(path)) == (NEW, mode)
    assert entries(tmp_path) == ["f"]


def test_an_existing_folder_is_kept_unless_it_may_be_replaced(tmp_path):
    path = old_folder(tmp_path / "f")
    with pytest.raises(FileExistsError, match="force"):
        fill(path)

    def refuse(path):
        raise ValueError(path)

    with pytest.raises(ValueError, match=str(path)):
        fill(path, replaceable=refuse)
    assert content(path) == {"old": b"old"}
    assert entries(tmp_path) == ["f"]


def test_an_empty_folder_counts_as_none(tmp_path):
    (tmp_path / "f").mkdir(0o700)
    fill(tmp_path / "f")
    assert content(tmp_path / "f") == NEW
    assert modes(tmp_path / "f") == 0o700


def test_a_folder_that_came_or_changed_meanwhile_is_asked_about(tmp_path):
    asked = []
    with pytest.raises(FileExistsError), replacing_folder(tmp_path / "f") as folder:
        write_in(folder)
        old_folder(tmp_path / "f")
    with replacing_folder(tmp_path / "f", replaceable=asked.append) as folder:
        write_in(folder)
        (tmp_path / "f" / "another").write_bytes(b"")
    assert asked == [str(tmp_path / "f")] * 2
    assert entries(tmp_path) == ["f"]


def test_a_link_to_a_folder_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "deep").mkdir()
    target, link = old_folder(tmp_path / "deep" / "target"), tmp_path / "link"
    link.symlink_to("deep/target")
    fill(link, replaceable=anything)
    assert link.is_symlink()
    assert content(target) == NEW
    assert entries(tmp_path / "deep") == ["target"]


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name, fact in (("file", "not a folder"), ("dangling", "link to nothing"), ("file/f", "Not a dir")):
        with pytest.raises(OSError, match=fact):
            fill(tmp_path / name, replaceable=anything)
    assert content(tmp_path) == {"file": b"precious"}


def test_links_in_a_folder_that_is_replaced_are_not_followed(tmp_path):
    old_folder(tmp_path / "precious")
    (old_folder(tmp_path / "f") / "link").symlink_to(tmp_path / "precious")
    fill(tmp_path / "f", replaceable=anything)
    assert content(tmp_path / "precious") == {"old": b"old"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
def test_an_error_leaves_the_old_folder_and_nothing_else(error, tmp_path):
    path = old_folder(tmp_path / "f")
    with pytest.raises(type(error)), replacing_folder(path, replaceable=anything) as folder:
        write_in(folder)
        raise error
    with pytest.raises(type(error)):
        fill(path, replaceable=anything, check=lambda folder: fail_with(error))
    assert content(path) == {"old": b"old"}
    assert entries(tmp_path) == ["f"]


def fail_with(error):
    raise error


@pytest.mark.parametrize("failing", ["fsync", "mkdir", "rename"])
def test_a_failing_disk_leaves_the_old_folder(failing, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    path = old_folder(tmp_path / "f")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(atomic.os, failing, fail)
    with pytest.raises(OSError, match="Input/output"):
        fill(tmp_path / "empty" if failing == "rename" else path, replaceable=anything)
    monkeypatch.undo()
    assert content(path) == {"old": b"old"}
    assert entries(tmp_path) == ["empty", "f"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL])
def test_where_folders_cannot_be_exchanged_none_is_replaced(number, tmp_path, monkeypatch):
    def unable(*_):
        ctypes.set_errno(number)
        return -1

    path = old_folder(tmp_path / "f")
    monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: SimpleNamespace(renameat2=unable))
    unable_here = pytest.raises(OSError, match="cannot be exchanged in one step here; give a new name")
    with unable_here, replacing_folder(path, replaceable=anything):
        pytest.fail("nothing is to be written")
    fill(tmp_path / "g")
    assert content(path) == {"old": b"old"}
    assert entries(tmp_path) == ["f", "g"]


def test_a_system_without_the_call_replaces_no_folder(tmp_path, monkeypatch):
    path = old_folder(tmp_path / "f")
    monkeypatch.setattr(atomic.ctypes, "CDLL", lambda *_, **__: SimpleNamespace())
    with pytest.raises(OSError, match="give a new name"):
        fill(path, replaceable=anything)
    assert content(path) == {"old": b"old"}


def test_a_folder_reaches_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    done = []
    fsync, rename, exchange, rmtree = os.fsync, os.rename, atomic._exchange, atomic.shutil.rmtree

    def logged_fsync(descriptor):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))  # noqa: PTH115, PTH119
        fsync(descriptor)

    def logged(name, real):
        def call(*arguments, **options):
            done.append(name)
            return real(*arguments, **options)

        return call

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(os, "rename", logged("rename", rename))
    fill(tmp_path / "f")
    temporary = done[3]
    assert done == ["b", "deep", "a", temporary, "rename", tmp_path.name]
    monkeypatch.setattr(atomic, "_exchange", logged("exchange", exchange))
    monkeypatch.setattr(atomic.shutil, "rmtree", logged("remove", rmtree))
    done.clear()
    fill(tmp_path / "f", replaceable=anything)
    last = done.index("exchange", 1)
    assert done[last - 4 : last] == ["b", "deep", "a", done[last - 1]]
    assert done[last + 1] == tmp_path.name
    assert done[-1] == "remove"


FILLING = """
import os, signal, sys, time
from paratree.files.atomic import replacing_folder
with replacing_folder(sys.argv[1], replaceable=str) as folder:
    with open(os.path.join(folder, "half"), "wb") as file:
        file.write(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "codes"),
    [(signal.SIGTERM, {143}), (signal.SIGHUP, {129}), (signal.SIGINT, {130, -signal.SIGINT})],
)
def test_a_signal_leaves_the_old_folder_and_nothing_else(number, codes, tmp_path):
    path = old_folder(tmp_path / "f")
    with subprocess.Popen(
        [sys.executable, "-c", FILLING, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        assert len(entries(tmp_path)) == 2
        process.send_signal(number)
        assert process.wait(30) in codes
    assert content(path) == {"old": b"old"}
    assert entries(tmp_path) == ["f"]


def test_the_folder_of_a_killed_writer_is_removed_by_the_next_one_of_a_living_is_not(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", FILLING, tmp_path / "f"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        (temporary,) = entries(tmp_path)
        os.utime(tmp_path / temporary, (0, 0))
        write(tmp_path / "while_it_lives")
        assert temporary in entries(tmp_path)
        process.kill()
    os.utime(tmp_path / temporary, (0, 0))
    fill(tmp_path / "g")
    assert entries(tmp_path) == ["g", "while_it_lives"]


def test_old_folders_of_another_name_stay(tmp_path):
    for name in (".paratree-mine.tmp", ".paratree-0123456789abcdef0.tmp"):
        old_folder(tmp_path / name)
        os.utime(tmp_path / name, (0, 0))
    write(tmp_path / "w")
    assert len(entries(tmp_path)) == 3
