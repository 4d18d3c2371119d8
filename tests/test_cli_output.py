"""What the command line says where it failed itself, and what it prints where stdout has no such signs."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from paratree import cli
from tests.attacks.makers import entry, safetensors

ANSI = re.compile("\x1b\\[[0-9;?]*[a-zA-Z]")


def test_a_bug_is_no_result(tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise TypeError("'<' not supported\nbetween \x1b[31m")

    (path := tmp_path / "w.safetensors").write_bytes(safetensors({"w": entry("U8", (1,), (0, 1))}, b"a"))
    monkeypatch.setattr("paratree.verbs.diff.diff", fail)
    assert cli.main(["diff", str(path), str(path)]) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said == (
        "paratree: TypeError: '<' not supported\\nbetween \\x1b[31m; this is a bug of paratree: please "
        "report the command and what it prints with --debug\n"
    )
    assert cli.main(["diff", str(path), str(path), "--debug"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert said.splitlines()[-1].startswith("paratree: TypeError")


def ascii_lines(*arguments, **more):
    command = [sys.executable, "-m", "paratree", *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100", **more}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.isascii()
    return ANSI.sub("", done.stdout).splitlines()


@pytest.mark.parametrize("color", ["", "1"])
def test_ascii_has_no_bars_and_its_own_signs(tmp_path, color):
    names = ("\u2581word", "w")
    header = {name: entry("F32", (10, 5), (200 * i, 200 * i + 200)) for i, name in enumerate(names)}
    values = np.random.default_rng(0).normal(size=(2, 10, 5)).astype("<f4")
    (path := tmp_path / "w.safetensors").write_bytes(safetensors(header, values.tobytes()))
    (other := tmp_path / "v.safetensors").write_bytes(safetensors(header, (values + 1).tobytes()))
    lines = ascii_lines("stats", path, FORCE_COLOR=color)
    assert max(map(len, lines)) < 90
    assert [line.split()[0] for line in lines if "float32" in line] == [r"\u2581word", "w"]
    lines = ascii_lines("diff", path, other, "--atol", "0.1", FORCE_COLOR=color)
    assert "max |d|" in "\n".join(lines)
    assert " -> " in lines[1]
    assert lines[-1].startswith("tolerance: |d| <= 0.1 + 0 |a|")
    lines = ascii_lines("spectrum", path, "w", FORCE_COLOR=color)
    assert re.fullmatch(r"[\d.]+  [\d.]+", lines[-1])
