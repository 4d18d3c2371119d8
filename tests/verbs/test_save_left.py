"""What a killed writer of shards leaves: the next save removes what is surely its own, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import paratree as pt
from tests.verbs.held import held, tree_of

ROOT = Path(__file__).parents[2]
INDEX = "m.safetensors.index.json"
SHARDS = [f"m-{number:05}-of-00003.safetensors" for number in range(1, 4)]
WRITING = """
import os, sys, time
from pathlib import Path
from tests.verbs.test_save_left import save
def told(done, total):
    if done == total:
        print("two are whole", flush=True)
        time.sleep(60)
save(Path(sys.argv[1]), progress=told)
"""


def three():
    return tree_of(*(held(name, np.full(10, ord(name), np.float32)) for name in "abc"))


def save(folder, **options):
    return pt.save(three(), folder / "m.safetensors", shard_size=40, **options)


@contextmanager
def writer(folder):
    """Give a process that has two shards of three in their places and waits."""
    command = [sys.executable, "-c", WRITING, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"two are whole\n"
        yield process
        process.kill()


def temporaries(folder):
    return sorted(folder.glob(".paratree-*.tmp"))


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def make_old(folder):
    for path in temporaries(folder):
        os.utime(path, (0, 0))


@pytest.fixture
def left(tmp_path):
    """Return a folder in which a writer was killed a while ago."""
    with writer(tmp_path):
        pass
    assert names_in(tmp_path)[-2:] == SHARDS[:2]
    make_old(tmp_path)
    return tmp_path


def save_another(folder):
    """Save something else there; return which shards are left."""
    pt.save(tree_of(held("w", np.ones(3))), folder / "other.npz")
    return [name for name in names_in(folder) if name in SHARDS]


def test_the_next_save_removes_them_and_has_their_names(left):
    saved = save(left)
    assert names_in(left) == [*SHARDS, INDEX]
    assert pt.fingerprint(saved.path) == pt.fingerprint(three())


def test_a_save_of_another_name_removes_them_too(left):
    assert save_another(left) == []
    assert temporaries(left) == []


def test_those_of_a_living_writer_stay(tmp_path):
    with writer(tmp_path):
        make_old(tmp_path)
        assert save_another(tmp_path) == SHARDS[:2]
        assert len(temporaries(tmp_path)) == 3  # the index, a shard, the notes
    assert save_another_when_old(tmp_path) == []


def save_another_when_old(folder):
    make_old(folder)
    (folder / "other.npz").unlink()
    return save_another(folder)


def test_while_the_writer_may_be_young_all_stays_for_the_next(left):
    notes = next(path for path in temporaries(left) if "-beside" in path.name)
    for path in temporaries(left):
        os.utime(path)
    os.utime(notes, (0, 0))
    assert save_another(left) == SHARDS[:2]
    assert save_another_when_old(left) == []


def changed(path):
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def copied(path):
    shutil.copy2(path, f"{path}.copy")
    Path(f"{path}.copy").replace(path)


def linked(path):
    os.link(path, path.with_name("kept"))


def named(path):
    path.with_name("mine.index.json").write_text(json.dumps({"weight_map": {"a": path.name}}))


@pytest.mark.parametrize("touch", [changed, copied, linked, named])
def test_what_somebody_has_touched_stays(touch, left):
    touch(left / SHARDS[0])
    assert save_another(left) == SHARDS[:1]
    assert temporaries(left) == []


def test_what_is_not_there_any_more_is_no_error(left):
    (left / SHARDS[0]).unlink()
    assert save_another(left) == []


def test_a_copy_of_the_folder_is_left_alone(left, tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy") / "f"
    shutil.copytree(left, folder)
    make_old(folder)
    assert save_another(folder) == SHARDS[:2]


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"main": 1, "itself": 2}'])
def test_notes_that_are_none_remove_nothing(text, left):
    notes = next(path for path in temporaries(left) if "-beside" in path.name)
    notes.write_bytes(text)
    make_old(left)
    assert save_another(left) == SHARDS[:2]
    assert temporaries(left) == []


def test_notes_name_no_file_of_another_folder(left):
    notes = next(path for path in temporaries(left) if "-beside" in path.name)
    (left / "sub").mkdir()
    inside = left / "sub" / "precious"
    (left / SHARDS[0]).rename(inside)
    notes.write_bytes(notes.read_bytes().replace(SHARDS[0].encode(), b"sub/precious"))
    make_old(left)
    save_another(left)
    assert inside.exists()


def test_a_dry_run_removes_nothing(left):
    before = names_in(left)
    save(left, dry_run=True)
    assert names_in(left) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_shard(number, tmp_path):
    with writer(tmp_path) as process:
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert names_in(tmp_path) == []


def test_an_index_that_is_a_link_elsewhere_is_written_as_ever(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "index").write_text("{}")
    (tmp_path / INDEX).symlink_to("there/index")
    save(tmp_path, force=True)
    assert names_in(tmp_path) == [*SHARDS, INDEX, "there"]
    assert (tmp_path / INDEX).is_symlink()


BESIDE = """
import sys, time
from contextlib import contextmanager
from paratree.files.output import Output
from tests.verbs.test_save_left import pt, three
real = Output.beside
@contextmanager
def beside(self, path):
    with real(self, path) as output:
        yield output
    print("the bytes are whole", flush=True)
    time.sleep(60)
Output.beside = beside
pt.save(three(), sys.argv[1])
"""


@pytest.fixture
def writer_of_tensorflow(tmp_path):
    """Return a process that has the file of the values in its place and not yet the index."""
    command = [sys.executable, "-c", BESIDE, tmp_path / "m.index"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout.readline() == b"the bytes are whole\n"
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_between_two_files_leaves_neither(writer_of_tensorflow, number, tmp_path):
    assert len([name for name in names_in(tmp_path) if name.startswith("m.data")]) == 1
    writer_of_tensorflow.send_signal(number)
    assert writer_of_tensorflow.wait(30)
    assert names_in(tmp_path) == []


def test_the_bytes_of_an_index_that_was_never_written_are_removed(writer_of_tensorflow, tmp_path):
    writer_of_tensorflow.kill()
    writer_of_tensorflow.wait(30)
    make_old(tmp_path)
    pt.save(three(), tmp_path / "other.npz")
    assert names_in(tmp_path) == ["other.npz"]
