"""Atomic writes: the old file or the new one, never a part, nothing left behind."""

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from paratree.files import atomic
from paratree.files.atomic import replacing


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
    ("number", "codes"), [(signal.SIGTERM, {143}), (signal.SIGINT, {130, -signal.SIGINT})]
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


def test_handlers_are_put_back_and_others_left_alone(tmp_path):
    write(tmp_path / "a")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
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
