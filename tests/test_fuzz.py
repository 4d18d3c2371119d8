"""The fuzzing harness reads good files as they are, and sees what should not happen."""

from __future__ import annotations

import sys

import pytest

from paratree.core.errors import CorruptFileError, ParatreeError
from tests import fuzz
from tests.attacks.harness import modules


@pytest.fixture
def target(tmp_path):
    """Return what makes a target; what it changes in other modules ends with the test."""
    made = []

    def make(name):
        made.append(fuzz.Target(name, tmp_path))
        return made[-1]

    yield make
    for one in reversed(made):
        one.close()


@pytest.mark.parametrize("format", modules())
def test_good_files_open_in_memory(format, target, monkeypatch):
    found = target(format)
    listed = []
    monkeypatch.setattr("paratree.verbs.show.show", lambda tree: listed.append(len(tree)))
    for seed in found.seeds:
        found.run(seed)
    assert len(listed) == len(found.seeds) > 0
    assert sum(listed) > 0


def raising(error):
    def opened(file):
        raise error

    return opened


@pytest.mark.parametrize(
    "error", [KeyError("x"), RecursionError(), MemoryError(), ParatreeError("two\nlines")]
)
def test_what_escapes_is_a_finding(error, target, monkeypatch):
    found = target("safetensors")
    monkeypatch.setattr(found.reader, "open", raising(error))
    expected = fuzz.Finding if isinstance(error, ParatreeError) else type(error)
    with pytest.raises(expected):
        found.run(found.seeds[0])


def test_what_takes_long_is_a_finding(target, monkeypatch):
    found = target("safetensors")
    monkeypatch.setattr(fuzz, "SECONDS", 0.0)
    with pytest.raises(fuzz.Finding, match="it took"):
        found.run(found.seeds[0])


def test_a_refusal_is_none(target, monkeypatch):
    found = target("safetensors")
    monkeypatch.setattr(found.reader, "open", raising(CorruptFileError("path", "it is damaged")))
    found.run(found.seeds[0])


def test_checksums_can_be_overlooked(target):
    """A changed array in a zip is refused for its CRC-32, unless that is not looked at."""
    found = target("numpy")
    seed = next(seed for seed in found.seeds if seed[2:].startswith(b"PK") and b"<f4" in seed)
    start = seed.index(b"\n", seed.index(b"<f4")) + 1
    changed = seed[2:start] + bytes([seed[start] ^ 1]) + seed[start + 1 :]
    heard = []
    for checked in (0, 0x80):
        found.run(bytes([seed[0], seed[1] | checked]) + changed)
        with found.reader.open(found._open(found._now[0])) as tree:
            try:
                heard.append([param.value.shape for param in tree.values()])
            except CorruptFileError as error:
                heard.append(error.reason)
    assert heard == [[(4,)], "its CRC-32 is not the recorded one"]


def test_a_finding_is_kept_with_its_traceback(target, monkeypatch, tmp_path, capsys):
    found = target("safetensors")
    monkeypatch.setattr(found.reader, "open", raising(KeyError("x")))
    seed = found.seeds[0]
    for data in (seed + b"longer", seed, seed + b"long"):
        with pytest.raises(KeyError) as caught:
            found.run(data)
        fuzz._keep(tmp_path, data, caught.value)
    kept = [path for path in tmp_path.iterdir() if path.is_file()]
    assert sorted(path.suffix for path in kept) == ["", ".txt"]
    assert min(kept).read_bytes() == seed
    assert "KeyError" in max(kept).read_text()
    (tmp_path / "again").mkdir()
    monkeypatch.setattr(fuzz, "_limit_memory", lambda: None)
    monkeypatch.setattr(sys.modules["paratree.formats.safetensors"], "open", raising(KeyError("x")))
    assert fuzz.replay("safetensors", min(kept)) == 1
    assert "KeyError" in capsys.readouterr().err
