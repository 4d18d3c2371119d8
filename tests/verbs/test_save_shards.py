"""pt.save in shards: they and their index take the place of the old ones together."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import paratree as pt
from paratree.verbs._sharded import bytes_of
from tests.verbs.held import tree_with


def shards_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_shards_and_their_index(tmp_path):
    arrays = {f"w{number}": np.full(10, number, np.float32) for number in range(5)} | {"big": np.zeros(30)}
    tree = tree_with(arrays, [("z", "w0")])
    saved = pt.save(tree, tmp_path / "m.safetensors", shard_size=100, verify=True)
    assert shards_in(tmp_path) == [
        *(f"m-{number:05}-of-00004.safetensors" for number in range(1, 5)),
        "m.safetensors.index.json",
    ]
    assert saved.path == str(tmp_path / "m.safetensors.index.json") == saved.files[-1]
    assert pt.fingerprint(saved.path) == pt.fingerprint(tree)
    assert pt.open(saved.path).ties == (("w0", "z"),) == saved.ties
    assert saved.nbytes == sum(entry.stat().st_size for entry in tmp_path.iterdir())


def test_the_libraries_read_shards(tmp_path):
    safe_open = pytest.importorskip("safetensors", reason="the library reads its files").safe_open
    arrays = {f"w{number}": np.full(10, number, np.float32) for number in range(5)}
    saved = pt.save(tree_with(arrays), tmp_path / "m.safetensors", shard_size="80B")
    weight_map = json.loads((tmp_path / "m.safetensors.index.json").read_text())["weight_map"]
    assert list(weight_map) == list(arrays)
    assert len(saved.files) == 4
    for name, file in weight_map.items():
        with safe_open(tmp_path / file, "numpy") as shard:
            assert np.array_equal(shard.get_tensor(name), arrays[name])


def test_tensors_that_are_larger_than_a_shard_are_told_of(tmp_path):
    tree = tree_with({"a": np.ones(4, np.float32), "b": np.ones(6, np.float32), "c": np.ones(1, np.float32)})
    fact = "larger than 10 bytes, as which a shard was asked for: the largest, b, is 24 bytes"
    for dry_run in (True, False):
        saved = pt.save(tree, tmp_path / "m.safetensors", shard_size=10, dry_run=dry_run)
        assert saved.notes == (f"2 tensors {fact}",)
    assert pt.save(tree, tmp_path / "n.safetensors", shard_size=24).notes == ()


def test_what_fits_is_one_file(tmp_path):
    tree = tree_with({"w": np.ones(10, np.float32)})
    assert pt.save(tree, tmp_path / "m.safetensors", shard_size="1GB").files == ()
    assert shards_in(tmp_path) == ["m.safetensors"]


def test_shards_take_the_place_of_shards_when_the_index_does(tmp_path):
    old = tree_with({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    new = tree_with({f"w{number}": np.ones(10, np.float32) for number in range(3)})
    pt.save(old, tmp_path / "m.safetensors", shard_size=40)
    before = shards_in(tmp_path)
    with pytest.raises(FileExistsError, match="replacing it takes force"):
        pt.save(new, tmp_path / "m.safetensors", shard_size=40)
    assert shards_in(tmp_path) == before
    assert pt.diff(tmp_path / "m.safetensors.index.json", old).same
    pt.save(new, tmp_path / "m.safetensors", shard_size=40, force=True)
    assert pt.diff(tmp_path / "m.safetensors.index.json", new).same
    assert len(shards_in(tmp_path)) == 4
    assert not set(before[:3]) & set(shards_in(tmp_path))


def test_shards_never_have_a_name_again_that_an_older_index_has(tmp_path):
    tree = tree_with({f"w{number}": np.ones(10, np.float32) for number in range(3)})
    seen = set()
    for _ in range(3):
        files = set(pt.save(tree, tmp_path / "m.safetensors", shard_size=40, force=True).files[:-1])
        assert not files & seen
        seen |= files


@pytest.mark.parametrize(("name", "size"), [("m.safetensors", 40), ("m.index", None)])
def test_files_stay_where_the_old_index_named_such_that_were_gone(name, size, tmp_path):
    """They were removed as what the old index named: a save that destroyed what it had written."""
    tree = tree_with({f"w{number}": np.ones(10, np.float32) for number in range(3)})
    saved = pt.save(tree, tmp_path / name, shard_size=size)
    others = [path for path in tmp_path.iterdir() if str(path) != saved.path]
    assert others
    for path in others:
        path.unlink()
    again = pt.save(tree, tmp_path / name, shard_size=size, force=True)
    assert pt.fingerprint(again.path) == pt.fingerprint(tree)


def test_an_error_in_a_shard_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    from paratree.files.output import Output

    old = tree_with({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    pt.save(old, tmp_path / "m.safetensors", shard_size=40)
    before, count, real = shards_in(tmp_path), [], Output.values

    def full(self, array):
        count.append(array)
        if len(count) == 2:
            raise OSError(28, os.strerror(28))
        real(self, array)

    monkeypatch.setattr(Output, "values", full)
    with pytest.raises(OSError, match="No space left"):
        pt.save(old, tmp_path / "m.safetensors", shard_size=40, force=True)
    assert shards_in(tmp_path) == before
    assert pt.diff(tmp_path / "m.safetensors.index.json", old).same


def test_an_index_cannot_have_other_files_removed(tmp_path):
    tree = tree_with({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    named = ["precious.txt", "m.safetensors", "other-00001-of-00001.safetensors", ".."]
    for name in named[:-1]:
        (tmp_path / name).write_bytes(b"precious")
    index = {"weight_map": {str(place): name for place, name in enumerate(named)}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    pt.save(tree, tmp_path / "m.safetensors", shard_size=40, force=True)
    assert all((tmp_path / name).read_bytes() == b"precious" for name in named[:-1])


@pytest.mark.parametrize(
    ("other", "text", "kept"),
    [
        ("b.safetensors.index.json", None, [0, 1, 2]),
        ("model.safetensors.index.fp16.json", None, [0, 1, 2]),
        ("b.safetensors.index.json", '{"weight_map": {"a": "%s"}}', [1]),
        ("b.safetensors.index.json", '{"weight_map": {', [0, 1, 2]),
        ("config.json", '{"weight_map": {', []),
        ("config.json", '{"name": "%s"}', []),
    ],
)
def test_shards_that_another_index_names_stay(other, text, kept, tmp_path):
    path, index = tmp_path / "model.safetensors", tmp_path / "model.safetensors.index.json"
    arrays = {name: np.full(4, n, np.float32) for n, name in enumerate("abc")}
    old = [Path(file) for file in pt.save(tree_with(arrays), path, shard_size=16).files[:-1]]
    is_whole = text is None
    text = index.read_text() if is_whole else text.replace("%s", old[1].name)
    (tmp_path / other).write_text(text)
    new = tree_with({name: values + 1 for name, values in arrays.items()})
    stayed = [old[n].name for n in kept]
    note = f"not removed, as {other} names them, too: {', '.join(stayed)}"
    for dry_run in (True, False):
        saved = pt.save(new, path, shard_size=16, force=True, dry_run=dry_run)
        assert saved.notes == ((note,) if kept else ())
    assert [file.name for file in old if file.exists()] == stayed
    assert pt.open(index)["c"].value[0] == 3
    if is_whole and other.endswith(".index.json"):
        assert pt.open(tmp_path / other)["c"].value[0] == 2


def test_an_interrupt_when_the_index_is_there_keeps_its_shards(tmp_path, monkeypatch):
    from paratree.files import atomic

    old = tree_with({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    new = tree_with({f"w{number}": np.ones(10, np.float32) for number in range(3)})
    pt.save(old, tmp_path / "m.safetensors", shard_size=40)
    synced = []

    def interrupted(folder):
        synced.append(folder)
        if len(synced) == 4:  # three shards, then the index, which has been renamed by now
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "sync_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pt.save(new, tmp_path / "m.safetensors", shard_size=40, force=True)
    assert pt.diff(tmp_path / "m.safetensors.index.json", new).same


def test_nothing_is_written_before_an_index_that_may_not_be_replaced(tmp_path):
    tree = tree_with({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    pt.save(tree, tmp_path / "m.safetensors", shard_size=40)
    told = []
    with pytest.raises(FileExistsError):
        pt.save(tree, tmp_path / "m.safetensors", shard_size=40, progress=lambda *done: told.append(done))
    assert told == []


def test_shards_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch reads its files")
    arrays = {f"w{number}": np.full(10, number, np.float32) for number in range(3)}
    tree = tree_with(arrays, [("tied", "w0")])
    saved = pt.save(tree, tmp_path / "pytorch_model.bin", shard_size=40, verify=True)
    state = {}
    for file in saved.files[:-1]:
        state |= torch.load(file, weights_only=True)
    assert state.keys() == {*arrays, "tied"}


@pytest.mark.parametrize("size", [0, -1, True, "five", "5 parsecs", "", "0GB", 1.5, "1e9"])
def test_what_is_no_shard_size(size, tmp_path):
    with pytest.raises(pt.MismatchError, match="a shard size is a number of bytes, or as '5GB'"):
        pt.save(tree_with({"w": np.ones(3)}), tmp_path / "m.safetensors", shard_size=size)


def test_formats_without_an_index_have_no_shards(tmp_path):
    with pytest.raises(pt.UnsupportedError, match=r"shards are those of \.safetensors and \.bin files"):
        pt.save(tree_with({"w": np.ones(3)}), tmp_path / "m.npz", shard_size=8)


@pytest.mark.parametrize(
    ("text", "count"), [("5GB", 5 * 10**9), ("2 GiB", 2 << 30), ("1.5kb", 1500), ("7", 7), (7, 7)]
)
def test_sizes(text, count):
    assert bytes_of(text) == count
