"""The file that pt.save writes: whole or not there, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from blake3 import blake3

import paratree as pt
from paratree.files.local import LocalFile
from tests.verbs.held import Held, tree_with
from tests.verbs.writers import SUFFIX


def test_a_file_that_is_there_is_replaced_only_if_told_so(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"precious")
    tree = tree_with({"w": np.ones(3, np.float32)})
    with pytest.raises(FileExistsError, match="replacing it takes force"):
        pt.save(tree, path)
    assert path.read_bytes() == b"precious"
    pt.save(tree, path, force=True, verify=True)


def test_the_source_may_be_the_file_that_is_replaced(tmp_path):
    path = tmp_path / "m.safetensors"
    pt.save(tree_with({"a": np.arange(9.0), "b": np.ones(3, np.float32)}), path)
    before = pt.fingerprint(path, select="a").params["a"]
    pt.save(path, path, select="a", force=True, verify=True)
    assert pt.fingerprint(path).params == {"a": before}


def test_a_damaged_source_leaves_the_old_file(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    pt.save(tree_with({"w": np.ones(300, np.float32)}), source)
    target.write_bytes(b"precious")
    with pt.open(source) as tree:
        source.write_bytes(source.read_bytes()[:-8])
        with pytest.raises(pt.CorruptFileError, match="has changed since it was opened"):
            pt.save(tree, target, force=True)
    assert target.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_differs_when_it_is_read_again_is_told(tmp_path, monkeypatch):
    from paratree.files.output import Output

    real = Output.values
    monkeypatch.setattr(Output, "values", lambda self, array: real(self, Held(np.zeros_like(array.read()))))
    (tmp_path / "m.safetensors").write_bytes(b"precious")
    with pytest.raises(pt.MismatchError, match="read again, it is not what was written: w"):
        pt.save(tree_with({"w": np.ones(3, np.float32)}), tmp_path / "m.safetensors", verify=True, force=True)
    assert (tmp_path / "m.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("name", "index", "options"),
    [
        ("m.safetensors", "m.safetensors.index.json", {"shard_size": 16}),
        ("m.bin", "m.bin.index.json", {"shard_size": 16}),
        ("m.index", "m.index", {}),
        ("m", "m", {"format": "dcp"}),
        ("m", "m", {"format": "orbax"}),
    ],
)
def test_of_several_files_all_are_read_again_before_the_old_ones_go(
    name, index, options, tmp_path, monkeypatch
):
    from paratree.files.output import Output

    arrays = {each: np.full(4, n + 1, np.float32) for n, each in enumerate("abc")}
    pt.save(tree_with(arrays), tmp_path / name, verify=True, **options)
    new = {each: values + 1 for each, values in arrays.items()}
    saved = pt.save(tree_with(new), tmp_path / name, verify=True, force=True, **options)
    assert saved.verified
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def wrong(real):
        return lambda self, array, *others: real(self, Held(np.zeros_like(array.read())), *others)

    monkeypatch.setattr(Output, "values", wrong(Output.values))
    monkeypatch.setattr(Output, "stream", wrong(Output.stream))
    with pytest.raises(pt.MismatchError) as error:
        pt.save(tree_with(arrays), tmp_path / name, verify=True, force=True, **options)
    assert str(error.value).startswith(
        f"{tmp_path / index}: read again, it is not what was written: a, b, c;"
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert pt.open(tmp_path / index)["c"].value[0] == 4


def test_the_kernel_copies_what_lies_in_a_file_as_it_will(tmp_path, monkeypatch):
    arrays = {"a": np.arange(50_000.0), "b": np.ones(7, np.int8), "c": np.arange(9, dtype=np.float32)}
    pt.save(tree_with(arrays), tmp_path / "a.safetensors")
    calls, real = [], os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", lambda *a, **k: calls.append(a[2]) or real(*a, **k))
    pt.save(tmp_path / "a.safetensors", tmp_path / "b.safetensors", verify=True)
    assert sum(calls) == sum(values.nbytes for values in arrays.values())


@pytest.mark.parametrize("size", [1, 9, (1 << 20) + 5, (5 << 20) - 3])
def test_what_lies_at_another_place_of_its_pages_goes_through_a_buffer(size, tmp_path, monkeypatch):
    values = np.random.default_rng(size).integers(0, 255, size, np.uint8)
    np.save(tmp_path / "a.npy", values)
    monkeypatch.setattr(os, "lseek", lambda *_: 1)
    monkeypatch.setattr(os, "copy_file_range", None)
    pt.save(tmp_path / "a.npy", tmp_path / "b.safetensors")
    np.testing.assert_array_equal(next(iter(pt.open(tmp_path / "b.safetensors").values())).value, values)


def test_a_file_that_is_cut_while_it_is_copied_is_told(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros(6 << 20, np.uint8))
    real = LocalFile.readinto

    def cut(self, view, offset):
        if offset > 4 << 20:
            os.truncate(tmp_path / "a.npy", 5 << 20)
        real(self, view, offset)

    tree = pt.open(tmp_path / "a.npy")
    monkeypatch.setattr(LocalFile, "readinto", cut)
    monkeypatch.setattr(LocalFile, "copy_inside", lambda *_: 0)
    with pytest.raises(pt.CorruptFileError, match="has changed since it was opened"):
        pt.save(tree, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("error", [18, 22, 95, 1, 38])
def test_where_the_kernel_cannot_copy_the_bytes_are_read_and_written(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))

    pt.save(tree_with({"a": np.arange(50_000.0)}), tmp_path / "a.safetensors")
    monkeypatch.setattr(os, "copy_file_range", refuse)
    pt.save(tmp_path / "a.safetensors", tmp_path / "b.safetensors", verify=True)


def test_an_error_of_the_disk_is_one(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, os.strerror(28))

    pt.save(tree_with({"a": np.arange(50_000.0)}), tmp_path / "a.safetensors")
    monkeypatch.setattr(os, "copy_file_range", refuse)
    with pytest.raises(OSError, match="No space left on device") as caught:
        pt.save(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert caught.value.filename == str(tmp_path / "b.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_progress_counts_every_byte_once(tmp_path):
    tree = tree_with({"a": np.arange(50_000.0), "b": np.ones(7, np.int8)}, [("c", "a")])
    for suffix in (".pt", ".safetensors"):
        told = []
        pt.save(
            tree, tmp_path / f"m{suffix}", progress=lambda done, total, told=told: told.append((done, total))
        )
        assert told[-1] == (400_007, 400_007)
        assert sorted(told) == told


def test_the_same_tree_gives_the_same_bytes(tmp_path):
    for suffix in SUFFIX.values():
        hashes = set()
        for number in range(2):
            path = tmp_path / f"{number}{suffix}"
            pt.save(tree_with({"a": np.arange(5.0), "b": np.ones(7, np.int8)}), path)
            hashes.add(blake3(path.read_bytes()).hexdigest())
        assert len(hashes) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_old_file_and_nothing_else(number, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"precious")
    code = (
        "import os, sys, paratree as pt, numpy as np\n"
        "from tests.verbs.held import tree_with\n"
        "def told(done, total): os.kill(os.getpid(), int(sys.argv[2]))\n"
        "pt.save(tree_with({'a': np.ones(9), 'b': np.ones(9)}), sys.argv[1], force=True, progress=told)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, str(int(number))], capture_output=True, check=False
    )
    assert done.returncode != 0
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]
