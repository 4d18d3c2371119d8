"""Every hostile case is refused in one line, with little memory and time; every good twin opens."""

from __future__ import annotations

import json

import pytest

import paratree as pt
from tests.attacks import cases_safetensors, cases_torch
from tests.attacks.harness import Case, Sweep, assert_refused, modules, run, write

MODULES = modules()
EVERY = [
    pytest.param(case, getattr(module, "LIBRARIES", ()), id=f"{format}-{case.id}")
    for format, module in MODULES.items()
    for case in module.CASES
]
SWEEPS = [
    pytest.param(sweep, id=f"{format}-{sweep.name}")
    for format, module in MODULES.items()
    for sweep in getattr(module, "SWEEPS", ())
]
TO_READ = ("numpy", "ml_dtypes", "paratree.verbs.get")  # what reading a value imports anyway


@pytest.mark.once
@pytest.mark.parametrize(("case", "libraries"), EVERY)
def test_bad_is_refused(case: Case, libraries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(case, "bad", tmp_path)
    command = ("get", str(path), case.get) if case.get else ("show", str(path))
    libraries = (*libraries, *TO_READ) if case.get else libraries
    assert_refused(run(libraries, *command), path, libraries)
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(("case", "libraries"), EVERY)
def test_bad_is_refused_in_python(case: Case, libraries, tmp_path):
    path = write(case, "bad", tmp_path)
    with pytest.raises(pt.ParatreeError) as caught:
        tree = pt.open(path)
        if case.get:
            _ = tree[case.get].value
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith((str(tmp_path), case.get or str(tmp_path)))
    if isinstance(caught.value, pt.CorruptFileError | pt.UnsafeFileError):
        assert caught.value.path.startswith(str(tmp_path))
        assert caught.value.reason in str(caught.value)


@pytest.mark.parametrize(("case", "libraries"), EVERY)
def test_good_twin_opens(case: Case, libraries, tmp_path):
    with pt.open(write(case, "good", tmp_path)) as tree:
        for param in tree.values():
            if param.array.problem is None:  # text beside the numbers is listed, not read
                assert param.value.shape == param.shape


@pytest.mark.parametrize("format", MODULES)
def test_there_are_enough_cases(format):
    cases = [case.id for case in MODULES[format].CASES]
    assert len(set(cases)) == len(cases) >= 25


@pytest.mark.once
@pytest.mark.parametrize("which", ["flip", "cut"])
@pytest.mark.parametrize("sweep", SWEEPS)
def test_nothing_but_our_errors_escapes(sweep: Sweep, which, tmp_path):
    """Flip every bit, and cut at every byte, of a good file: an error of ours, or a tree that reads."""
    for name, data in sweep.beside:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    path, refused, good = tmp_path / sweep.name, 0, sweep.good
    for place in range(len(good) * (8 if which == "flip" else 1)):
        changed = bytearray(good)
        if which == "flip":
            changed[place // 8] ^= 1 << place % 8
        else:
            del changed[place:]
        path.write_bytes(changed)
        try:
            with pt.open(path) as tree:
                for param in tree.values():
                    if param.array.problem is None:
                        assert param.value.shape == param.shape
        except pt.ParatreeError as error:
            refused += 1
            assert str(error).isprintable()
            assert str(tmp_path) in str(error)
    assert refused > len(good) / 4


def test_hostile_names_are_data(tmp_path):
    """A path, markup and control characters in names are shown escaped and lead nowhere."""
    case = next(case for case in cases_safetensors.CASES if case.id == "hostile-name")
    path = write(case, "good", tmp_path)
    found = run((), "show", str(path))
    assert found.code == 0, found
    assert "\x1b" not in found.out
    assert "\u202e" not in found.out
    assert json.loads(run((), "show", "--json", str(path)).out)["params"][0]["name"].endswith("etc/passwd")


@pytest.mark.parametrize("name", ["nothing", "folder/nothing.pt", "org/model", "a\0b"])
def test_no_such_path_is_never_looked_up(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pt.SourceNotFoundError, match=r"never|not a path"):
        pt.open(name)


def test_empty_folder_and_odd_files(tmp_path):
    for path in (tmp_path, tmp_path / "fifo"):
        if path != tmp_path:
            import os

            os.mkfifo(path)
        found = run((), "show", str(path))
        assert_refused(found, path)


def test_file_changed_while_open(tmp_path):
    path = write(cases_torch.CASES[0], "good", tmp_path)
    with pt.open(path) as tree:
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(pt.CorruptFileError, match="changed since it was opened"):
            _ = tree["w"].value


def test_file_replaced_while_open_stays_what_it_was(tmp_path):
    path = write(cases_safetensors.CASES[0], "good", tmp_path)
    with pt.open(path) as tree:
        other = tmp_path / "other"
        other.write_bytes(b"\xff" * path.stat().st_size)
        other.replace(path)
        assert tree["w"].value.tolist() == [0, 0, 0, 0]
