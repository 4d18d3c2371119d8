"""A manifest and a .npy file never take the place of what they were made of."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import paratree as pt
from paratree.verbs.get import get, write_npy
from tests.test_cli import run
from tests.verbs.held import tree_with

ARRAYS = {"a.w": np.arange(6.0, dtype=np.float32), "b.w": np.ones((2, 3), np.float32)}
CHECKPOINTS = {
    "m.pt": {},
    "m.safetensors": {"shard_size": 8},
    "m.npz": {},
    "m.index": {},
    "dcp": {"format": "dcp"},
    "orbax": {"format": "orbax"},
}


@pytest.fixture(params=CHECKPOINTS)
def checkpoint(request, tmp_path):
    """Return a checkpoint, a file or a folder, and every file of it."""
    saved = pt.save(tree_with(ARRAYS), tmp_path / request.param, **CHECKPOINTS[request.param])
    return saved.path, [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_file_of_a_checkpoint_is_overwritten(checkpoint):
    source, files = checkpoint
    before = {path: path.read_bytes() for path in files}
    manifest = pt.manifest(source)
    with pt.open(source) as tree:
        values = get(tree, "a.w")
    for path in files:
        for force in (False, True):
            with pytest.raises(pt.MismatchError, match=r": a file of the source itself, .*; give another"):
                manifest.save(path, force=force)
            with pytest.raises(pt.MismatchError, match=r": a file of the source itself, .*; give another"):
                write_npy(values, str(path), force=force)
    assert {path: path.read_bytes() for path in files} == before


def test_other_files_of_the_folder_are_replaced_as_ever(checkpoint):
    source, files = checkpoint
    folder = files[0].parent
    for name in ("m.json", "w.npy"):
        (folder / name).write_bytes(b"old")
    pt.manifest(source).save(folder / "m.json", force=True)
    assert pt.verify(source, folder / "m.json").passed
    with pt.open(source) as tree:
        write_npy(get(tree, "b.w"), str(folder / "w.npy"), force=True)
    assert np.array_equal(np.load(folder / "w.npy"), ARRAYS["b.w"])


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_by_another_name_it_is_the_same_file(link, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pt.save(tree_with(ARRAYS), "m.pt")
    link("m.pt", "n.pt")
    before = Path("m.pt").read_bytes()
    manifest = pt.manifest("m.pt")
    joined = pt.manifest(pt.open("m.pt") | pt.open("n.pt"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for each in (manifest, joined):
        for name in ("m.pt", "n.pt"):
            with pytest.raises(pt.MismatchError, match="a file of the source itself"):
                each.save(f"../{name}", force=True)
    assert Path("../m.pt").read_bytes() == before


def test_a_source_that_is_gone_is_no_file(tmp_path):
    pt.save(tree_with(ARRAYS), tmp_path / "m.pt")
    manifest = pt.manifest(tmp_path / "m.pt")
    (tmp_path / "m.pt").rename(tmp_path / "n.pt")
    (tmp_path / "m.json").write_bytes(b"old")
    manifest.save(tmp_path / "m.json", force=True)
    assert pt.verify(tmp_path / "n.pt", tmp_path / "m.json").passed


@pytest.mark.parametrize("words", [("manifest", "m.pt"), ("get", "m.pt", "a.w")])
def test_the_command_line_refuses_in_a_line(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pt.save(tree_with(ARRAYS), "m.pt")
    done = run(*words, "-o", "m.pt", "--force")
    fact = "a file of the source itself, whose weights would be lost; give another path"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"paratree: m.pt: {fact}\n")
    assert list(pt.open("m.pt")) == list(ARRAYS)
