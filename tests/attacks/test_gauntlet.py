"""No pickle runs anything, wherever it lies: it is refused, or shown with its objects not built."""

from __future__ import annotations

import subprocess
import sys

import pytest

import paratree as pt
from tests import weights
from tests.attacks.gauntlet import ARCHIVES, BYPASSES, CONTAINERS, PINNED, REFUSED, npy, npz, trials
from tests.attacks.harness import MEMORY, SECONDS, Case, assert_refused, idle, run, write
from tests.attacks.makers import pickled

TRIALS = trials()
NOT_SHOWN = {  # containers -> what is said instead, where an object stands that has no place in the tree
    "dcp-metadata": "PyTorch DCP",
    "joblib-object": "reading them would run their pickles",
    "inside-an-object-array": "reading them would run their pickles",
}
EVERYWHERE = ("reduce", "build-with-setstate", "nested-stream", "numpy.load", "torch.hub.load")
PAIRS = [(trial, PINNED.get(trial.id, [*CONTAINERS][i % len(CONTAINERS)])) for i, trial in enumerate(TRIALS)]
PAIRS += [(trial, where) for trial in TRIALS if trial.id in EVERYWHERE for where in CONTAINERS]
PAIRS = list(dict.fromkeys(PAIRS))


def put(tmp_path, where, code):
    suffix, make = CONTAINERS[where]
    return write(Case(where, suffix, make(code), b""), "bad", tmp_path)


def test_there_are_enough():
    assert len({trial.id for trial in TRIALS}) == len(TRIALS) >= 60
    assert sum(trial.fires for trial in TRIALS) >= 40
    assert {where for _, where in PAIRS} == set(CONTAINERS)


@pytest.mark.parametrize("trial", [trial for trial in TRIALS if trial.fires], ids=lambda trial: trial.id)
def test_the_same_pickle_runs_in_python(trial, tmp_path):
    """Without this, a mistake of the maker would look like a success of the reader."""
    path = tmp_path / "m.pkl"
    path.write_bytes(pickled(trial.code))
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path)],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert list(tmp_path.glob("evil*"))


@pytest.mark.parametrize(("trial", "where"), PAIRS, ids=lambda part: getattr(part, "id", part))
def test_nothing_runs(trial, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, where, trial.code)
    before = sorted(tmp_path.rglob("*"))
    found = run((), "show", str(path))
    assert "AUDIT" not in found.err, found
    assert sorted(tmp_path.rglob("*")) == before
    if trial.verdict == REFUSED:
        assert_refused(found, path)
        return
    assert found.code == 0, found
    assert NOT_SHOWN.get(where, "not built") in found.out
    assert found.memory < idle(()).memory + MEMORY
    assert found.seconds < idle(()).seconds + SECONDS


@pytest.mark.parametrize("name", ARCHIVES)
def test_no_archive_hides_a_pickle(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.pt"
    path.write_bytes(ARCHIVES[name])
    assert_refused(run((), "show", str(path)), path)


@pytest.mark.parametrize(("suffix", "make"), [(".npy", npy), (".npz", npz)])
@pytest.mark.parametrize("trial", BYPASSES[:8], ids=lambda trial: trial.id)
def test_object_arrays_are_never_unpickled(trial, suffix, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"m{suffix}"
    path.write_bytes(make(trial.code))
    found = run((), "show", str(path))
    assert (found.code, "AUDIT" in found.err) == (0, False), found
    assert "Python objects; reading them would run their pickles" in found.out


PICKLED = (".pt", ".pth", ".bin", ".jit", ".tar", ".pkl", ".pickle", ".ckpt", ".pdparams", ".metadata")


@pytest.mark.parametrize("name", [n for n, file in weights.FILES.items() if file.member.endswith(PICKLED)])
def test_no_real_checkpoint_is_refused(name):
    with pt.open(weights.path(name)) as tree:
        assert len(tree)
        assert all(param.value.shape == param.shape for param in tree.values() if not param.array.problem)
