"""The benchmarks import, and the files that they make are what they say; nothing is timed here."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

import paratree as pt
from benchmarks.timing import Row, measured
from benchmarks.weights_files import chosen, write

BENCHMARKS = sorted(path.stem for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize(
    "name", ["listing", "makers", "timing", "weights_files", "scan", "compare", "convert"]
)
def test_what_measures_processes_imports_little(name):
    assert name in BENCHMARKS
    importlib.import_module(f"benchmarks.{name}")


@pytest.mark.parametrize("width", [2, 4])
def test_weights_hold_what_was_planted(tmp_path, width):
    shapes = chosen(24 << 20, width)
    for change in (False, True):
        write(tmp_path / f"{change}.safetensors", shapes, width, change=change)
    found = pt.stats(tmp_path / "False.safetensors")
    assert (sum(row.nan for row in found), sum(row.inf for row in found)) == (3, 2)
    assert {row.name: row.shape for row in found} == shapes
    changed = pt.diff(tmp_path / "False.safetensors", tmp_path / "True.safetensors")
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    assert sum(row.changed for row in changed) == pytest.approx(total / 50, abs=50)


def test_a_row_is_held_against_its_bar():
    def work(count):
        return lambda: [sum(range(count)) for _ in range(20)]

    assert not measured(Row("slow", work(20_000), work(200), 2), 1)[1]
    assert measured(Row("fast", work(200), work(20_000), 2, faster=True), 1)[1]


def test_corpus_of_peers(tmp_path):
    """Each file holds what the table says of it, as paratree's own readers see it."""
    pytest.importorskip("torch")
    corpus = importlib.import_module("benchmarks.peers_corpus")
    corpus.make(tmp_path)
    base = pt.open(tmp_path / "base.safetensors")
    assert (len(base), base.size) == (27, corpus.SIZE)
    for name in ("value", "nan", "inf", "bf16_one", "fp8_one"):
        before = {"bf16_one": "bf16", "fp8_one": "fp8"}.get(name, "base")
        rows = pt.diff(tmp_path / f"{before}.safetensors", tmp_path / f"{name}.safetensors")
        assert {row.name: row.changed for row in rows if row.status != "bit-equal"} == {corpus.CHANGED: 1}
    assert set(base) ^ set(pt.open(tmp_path / "removed.npz")) == {corpus.REMOVED}
    assert set(base) ^ set(pt.open(tmp_path / "added.pt")) == {corpus.ADDED}
    assert pt.diff(tmp_path / "shards", tmp_path / "base.npz").same
    assert pt.open(tmp_path / "tied.pt").size == corpus.TIED_SIZE
    for name in ("truncated", "overlapping", "out_of_bounds", "huge_header"):
        with pytest.raises(pt.CorruptFileError):
            pt.open(tmp_path / f"{name}.safetensors")
    with pytest.raises(pt.UnsafeFileError):
        pt.open(tmp_path / "evil.pt")


def test_every_case_has_a_tool_and_every_question_a_rule():
    pytest.importorskip("torch")
    peers = importlib.import_module("benchmarks.peers")
    for case in peers.cases():
        assert case.question in peers.QUESTIONS
        assert case.form in peers.PARATREE.answers[case.question].commands, case


def test_an_answer_is_judged_by_its_rule():
    pytest.importorskip("torch")
    peers = importlib.import_module("benchmarks.peers")
    case = {case.title: case for case in peers.cases()}
    one = case["one value changed by 0.001, .npz"]
    assert peers.judge(one, one.answer, ran=False)
    assert not peers.judge(one, set(), ran=False)
    assert not peers.judge(one, None, ran=False)
    assert not peers.judge(case["a pickle that runs a command"], True, ran=True)
    described = case["one NaN: how many, and the other values?"]
    name, figures = next(iter(described.answer.items()))
    assert peers.judge(described, {name: figures}, ran=False)
    assert not peers.judge(described, {name: (0, *figures[1:])}, ran=False)
