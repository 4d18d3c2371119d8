"""Checkpoints that are written: TensorFlow reads them, and one whole pair of files is there at any moment."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.files import atomic
from paratree.files.local import LocalFile
from paratree.formats import _tensorflow_written
from paratree.formats._tensorflow_bundle import DTYPES, GRAPH
from paratree.formats._tensorflow_table import read_table
from tests import weights
from tests.attacks import tensorflow_files as made
from tests.verbs.held import tree_with

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=300).filter(
    lambda name: not name.startswith("\0")
)


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow", reason="TensorFlow reads the files and is the truth here")


def of_value(value):
    return tree_with({"w": np.full(10, value, np.float32), "v": np.full((2, 3), value)}, [("tied", "w")])


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


# What TensorFlow reads


def test_tensorflow_reads_every_dtype(tf, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for name in DTYPES.values():
        values = rng.integers(0, 256, (3, 64), np.uint8)
        if BITS[name] < 8 or name == "bool":
            values &= 1
        arrays[name] = values.view(numpy_dtype(name))
    pt.save(tree_with(arrays), tmp_path / "m.index", verify=True)
    found = tf.train.load_checkpoint(tmp_path / "m")
    assert found.get_variable_to_shape_map() == {name: list(a.shape) for name, a in arrays.items()}
    for name, values in arrays.items():
        read = found.get_tensor(name)
        assert read.dtype.name == name
        assert read.tobytes() == values.tobytes()


@given(names=st.lists(NAMES, max_size=40, unique=True), size=st.sampled_from([1, 200, 1 << 18]))
@settings(max_examples=50)
def test_tensorflow_reads_any_names_in_any_number_of_blocks(tf, names, size, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    arrays = {name: np.arange(number % 3, dtype=np.int16) for number, name in enumerate(names)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tensorflow_written, "_BLOCK", size)
        pt.save(tree_with(arrays), folder / "m.index")
    found = tf.train.load_checkpoint(folder / "m")
    assert found.get_variable_to_shape_map().keys() == arrays.keys()
    for name, values in arrays.items():
        assert np.array_equal(found.get_tensor(name), values)
    with pt.open(folder / "m.index") as tree:
        assert tree.keys() == arrays.keys()


def test_tied_names_are_the_same_bytes_to_tensorflow_and_tied_to_us(tf, tmp_path):
    saved = pt.save(of_value(3), tmp_path / "m.index", verify=True)
    assert saved.ties == (("w", "tied"),)
    assert pt.open(tmp_path / "m.index").ties == (("tied", "w"),)
    assert (tmp_path / "m.data-00000-of-00001").stat().st_size == 10 * 4 + 6 * 8
    found = tf.train.load_checkpoint(tmp_path / "m")
    assert found.get_tensor("w").tolist() == found.get_tensor("tied").tolist() == [3] * 10


def test_what_tensorflow_writes_of_the_same_tensors(tf, tmp_path):
    arrays = {"b": np.arange(6, dtype=np.int32), "a/x": np.float64(2), "c": np.zeros((0, 3), np.float16)}
    pt.save(tree_with(arrays), tmp_path / "ours.index")
    names, tensors = list(arrays), [tf.constant(values) for values in arrays.values()]
    tf.raw_ops.SaveV2(
        prefix=str(tmp_path / "theirs"), tensor_names=names, shape_and_slices=[""] * 3, tensors=tensors
    )
    ours, theirs = (
        (list(read_table(LocalFile(index))), index.with_suffix(".data-00000-of-00001").read_bytes())
        for index in (tmp_path / "ours.index", tmp_path / "theirs.index")
    )
    assert ours == theirs


def test_a_checkpoint_of_keras_is_written_without_its_graph(tmp_path):
    source = weights.path("basic-pitch")
    saved = pt.save(source, tmp_path / "m.index", verify=True)
    assert saved.notes[-1].startswith("no numbers, left out: ")
    assert "_CHECKPOINTABLE_OBJECT_GRAPH" in saved.notes[-1]
    with pt.open(source) as before, pt.open(tmp_path / "m.index") as after:
        numbers = {name: p for name, p in before.items() if p.array.problem is None}
        assert after.keys() == numbers.keys()
        assert all(after[name].value.tobytes() == p.value.tobytes() for name, p in numbers.items())


def test_an_empty_tree(tf, tmp_path):
    pt.save(tree_with({}), tmp_path / "m.index", verify=True)
    assert tf.train.load_checkpoint(tmp_path / "m").get_variable_to_shape_map() == {}


# Names of files and of tensors


@pytest.mark.parametrize("name", ["m", "m.index", "model.ckpt-100", "m.pt"])
def test_a_path_is_that_of_the_index_or_a_prefix(name, tmp_path):
    saved = pt.save(of_value(1), tmp_path / name, format="tensorflow", verify=True)
    prefix = name.removesuffix(".index")
    assert files_in(tmp_path) == [f"{prefix}.data-00000-of-00001", f"{prefix}.index"]
    assert saved.path == saved.files[-1] == str(tmp_path / f"{prefix}.index")
    assert saved.nbytes == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [
        ("w", "m.pb", "a SavedModel is a program; give the index of a checkpoint, NAME.index"),
        ("", "m.index", "'' means something else to TensorFlow; rename it"),
        (GRAPH, "m.index", "means something else to TensorFlow; rename it"),
        ("\0w", "m.index", "means something else to TensorFlow; rename it"),
        ("\ud800", "m.index", "is no UTF-8, as a name in TensorFlow's checkpoints is; rename it"),
    ],
)
def test_what_is_refused(name, path, words, tmp_path):
    with pytest.raises(pt.UnsupportedError, match=words):
        pt.save(tree_with({name: np.ones(3)}), tmp_path / path)
    assert files_in(tmp_path) == []


def test_metadata_is_told(tmp_path):
    saved = pt.save(tree_with({"w": np.ones(3)}, meta={"epoch": 3}), tmp_path / "m.index")
    assert saved.notes == ("a checkpoint has no place for metadata, left out: epoch",)


# One whole pair of files at any moment


def test_a_pair_takes_the_place_of_a_pair(tf, tmp_path):
    for value in range(4):
        pt.save(of_value(value), tmp_path / "m.index", force=bool(value), verify=True)
        number = value % 2
        assert files_in(tmp_path) == [f"m.data-{number:05}-of-{number + 1:05}", "m.index"]
        assert tf.train.load_checkpoint(tmp_path / "m").get_tensor("v").tolist() == [[value] * 3] * 2
    with pytest.raises(FileExistsError, match="replacing it takes force"):
        pt.save(of_value(9), tmp_path / "m", format="tensorflow")


def test_at_every_step_one_whole_checkpoint_is_there(tmp_path, monkeypatch):
    old, new = (pt.fingerprint(of_value(value)) for value in (0, 1))
    pt.save(of_value(0), tmp_path / "m.index")
    seen = []

    def watched(real):
        def call(*given, **more):
            seen.append(pt.fingerprint(tmp_path / "m.index"))
            try:
                return real(*given, **more)
            finally:
                seen.append(pt.fingerprint(tmp_path / "m.index"))

        return call

    for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "fsync"), (os, "fchmod")):
        monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    pt.save(of_value(1), tmp_path / "m.index", force=True)
    assert len(seen) >= 14
    assert seen == sorted(seen, key=(old, new).index)
    assert seen[0] == old
    assert seen[-1] == new


def test_shards_of_the_old_checkpoint_go_with_it_and_no_other_file(tmp_path):
    files = made.bundle({"a": made.entry(), "b": made.entry(shard=1)}, [bytes(16), bytes(16)], shards=2)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    others = {
        "m.data-00000-of-00003",
        "m.data-00000-of-00001.bak",
        "n.data-00000-of-00002",
        "m.data-00000-of-00001",
    }
    for name in others:
        (tmp_path / name).write_bytes(b"precious")
    pt.save(of_value(1), tmp_path / "m.index", force=True, verify=True)
    assert set(files_in(tmp_path)) == {*others, "m.index", "m.data-00002-of-00003"}
    assert all((tmp_path / name).read_bytes() == b"precious" for name in others)


def test_an_index_that_cannot_be_read_has_nothing_removed(tmp_path):
    pt.save(of_value(0), tmp_path / "m.index")
    (tmp_path / "m.index").write_bytes(b"damaged")
    pt.save(of_value(1), tmp_path / "m.index", force=True, verify=True)
    assert files_in(tmp_path) == ["m.data-00000-of-00001", "m.data-00001-of-00002", "m.index"]


@pytest.mark.parametrize("failing", ["data", "index"])
def test_an_error_leaves_the_old_pair_and_nothing_else(failing, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pt.save(of_value(0), tmp_path / "m.index")
    before = files_in(tmp_path)
    function = {"data": "_write_values", "index": "_write_table"}[failing]
    monkeypatch.setattr(_tensorflow_written, function, full)
    with pytest.raises(OSError, match="No space left") as caught:
        pt.save(of_value(1), tmp_path / "m.index", force=True)
    assert caught.value.filename.startswith(str(tmp_path / "m."))
    assert files_in(tmp_path) == before
    assert pt.diff(tmp_path / "m.index", of_value(0)).same


@pytest.mark.parametrize("which", [1, 2])
def test_an_interrupt_when_a_file_is_in_its_place(which, tmp_path, monkeypatch):
    pt.save(of_value(0), tmp_path / "m.index")
    synced = []

    def interrupted(folder):
        synced.append(folder)
        if len(synced) == which:
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "sync_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pt.save(of_value(1), tmp_path / "m.index", force=True)
    assert pt.diff(tmp_path / "m.index", of_value(which - 1)).same
    if which == 1:
        assert files_in(tmp_path) == ["m.data-00000-of-00001", "m.index"]


def test_links_stay_and_what_the_index_names_lies_beside_its_link(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    pt.save(of_value(0), tmp_path / "blobs" / "m.index")
    for name in files_in(tmp_path / "blobs"):
        (tmp_path / "snapshot" / name).symlink_to(f"../blobs/{name}")
    pt.save(of_value(1), tmp_path / "snapshot" / "m.index", force=True, verify=True)
    assert (tmp_path / "snapshot" / "m.index").is_symlink()
    assert files_in(tmp_path / "snapshot") == ["m.data-00001-of-00002", "m.index"]
    assert files_in(tmp_path / "blobs") == ["m.data-00000-of-00001", "m.index"]


def test_the_source_may_be_the_checkpoint_that_is_replaced(tmp_path):
    pt.save(of_value(4), tmp_path / "m.index")
    pt.save(tmp_path / "m", tmp_path / "m.index", select="v", force=True, verify=True)
    with pt.open(tmp_path / "m") as tree:
        assert {name: param.value.tolist() for name, param in tree.items()} == {"v": [[4] * 3] * 2}


def test_progress_counts_every_byte_once(tmp_path):
    told = []
    tree = tree_with({"a": np.zeros(70_000), "b": np.ones(3, np.int8)}, [("c", "a")])
    pt.save(tree, tmp_path / "m.index", progress=lambda done, total: told.append((done, total)))
    assert told == [(560_000, 560_003), (560_003, 560_003)]
