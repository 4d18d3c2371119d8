"""paratree stats, from outside."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.test_cli import content, run


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("stats") / "model.safetensors"
    path.write_bytes(content())
    return path


def test_a_table_and_what_is_worth_a_look(file):
    found = run("stats", file)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines()[0] == str(file)
    (row,) = (line for line in found.stdout.splitlines() if line.startswith("layers.1.weight"))
    assert row.split()[:8] == ["layers.1.weight", "2", "×", "2", "float32", "1", "2", "0"]
    assert "= embed.weight" in found.stdout
    assert "6 of 6 read · 1 name tied to another" in found.stdout
    assert "layers.1.weight: 1 of 4 values are NaN, the first at [0, 1]" in found.stdout


def test_json_is_complete(file):
    found = json.loads(run("stats", "--json", file).stdout)
    assert (found["schema"], found["read"]) == (1, 6)
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["layers.1.weight"]["neg_inf"] == 1
    assert rows["layers.1.weight"]["mean"] == 1.5
    assert rows["embed.weight"]["quantiles"]["0.5"] == 3.5
    assert rows["head.weight"]["tied_with"] == "embed.weight"
    assert [f["what"] for f in found["findings"]] == ["nan", "inf"]


def test_options(file):
    by = run("stats", "--by", "depth", file).stdout
    assert "layers.0 " in by
    assert "1 tensor" in by
    assert "6 of 6 read · 1 name tied to another" in by
    assert "layers.1.weight: 1 of 4 values are NaN" in by
    depth = json.loads(run("stats", "--by", "depth", "--json", file).stdout)
    assert (depth["by"], depth["names"], depth["read"]) == ("depth", 6, 6)
    assert [f["what"] for f in depth["findings"]] == ["nan", "inf"]
    first = run("stats", "--sort", "absmax", "--select", "layers.**", file).stdout.splitlines()[3]
    assert first.startswith("layers.2.weight")
    moments = json.loads(run("stats", "--moments", "--json", file).stdout)["rows"]
    assert all(row["histogram"] is None for row in moments)
    ranged = run("stats", "--for", "float8_e4m3fn", "--select", "layers.2.*", file).stdout
    assert "nothing that is worth a look" in ranged


def test_one_line_for_what_is_wrong(file, tmp_path):
    for arguments, code, text in (
        (["--select", "nothing.*"], 1, "nothing fits 'nothing.*'"),
        (["--for", "int8"], 2, "'int8' is no floating dtype"),
        (["--by", "colour"], 2, "invalid choice"),
    ):
        found = run("stats", *arguments, file)
        assert (found.returncode, found.stdout) == (code, "")
        assert found.stderr.count("\n") == 1
        assert text in found.stderr
    assert run("stats", tmp_path / "absent").returncode == 2


def test_a_damaged_tensor_is_an_error(tmp_path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content()[:-4])
    assert run("stats", path).returncode == 2


def test_a_bar_on_a_terminal_only(tmp_path):
    """Long work shows a bar on stderr, if that is a terminal; stdout stays clean."""
    path = tmp_path / "big.npy"
    np.save(path, np.zeros(1 << 25, np.float32))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "paratree", "stats", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        seen = b""
        try:
            while more := os.read(ours, 1024):
                seen += more
        except OSError:  # the other end is closed
            pass
        stdout = process.stdout.read()
    os.close(ours)
    assert b"reading" in seen
    assert "1 of 1 read" in stdout
    assert "\x1b" not in stdout
    assert run("stats", path).stderr == ""


def test_control_c_ends_it_after_the_blocks_in_work(tmp_path):
    path, begun = tmp_path / "m.npz", tmp_path / "begun"
    np.savez(path, **{f"w{number}": np.ones(4, np.float32) for number in range(200)})
    code = (
        "import sys, time; from paratree.verbs import stats; from paratree.cli import main\n"
        "def slow(*_):\n open(sys.argv[1], 'a').write('.'); time.sleep(0.2)\n return stats.Part()\n"
        "stats.measured = slow; sys.exit(main(['stats', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", code, begun, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not begun.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, b"", b"")
    assert begun.stat().st_size < 100
