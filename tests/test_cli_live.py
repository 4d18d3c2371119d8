"""``paratree show MODULE:CALLABLE``: a live model that the user's own code makes."""

import json
import subprocess
import sys

import pytest

import paratree as pt
from paratree.cli import main

torch = pytest.importorskip("torch", reason="could not import torch; these tests need it")

MODELS = """
from torch import nn

print("this line is no data")

def build_model():
    shared = nn.Linear(4, 4)
    return nn.Sequential(shared, nn.ReLU(), shared)

net = build_model()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 3)

class zoo:
    small = staticmethod(lambda: nn.Linear(1, 1))

def number():
    return 3

def needs(size):
    return nn.Linear(size, size)

def fails():
    raise ValueError("no\\x1b[31m data")
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command in a folder with the models, in this process."""
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "models.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])

    def run(*arguments):
        for name in [name for name in sys.modules if name.startswith("my_package")]:
            del sys.modules[name]
        code = main(arguments)
        output = capsys.readouterr()
        return code, output.out, output.err

    return run


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("build_model", ["0.weight", "0.bias", "2.weight", "2.bias"]),
        ("net", ["0.weight", "0.bias", "2.weight", "2.bias"]),
        ("Net", ["head.weight", "head.bias"]),
        ("zoo.small", ["weight", "bias"]),
    ],
)
def test_a_live_model_is_shown(name, names, run):
    code, out, err = run("show", f"my_package.models:{name}", "--json")
    assert code == 0
    assert [param["name"] for param in json.loads(out)["params"]] == names
    assert json.loads(out)["source"] == f"my_package.models:{name}"
    assert err == "this line is no data\n"


def test_a_process_of_its_own_finds_the_module_in_its_folder(run, tmp_path):
    command = [sys.executable, "-m", "paratree", "ties", "my_package.models:build_model"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert "2 tied groups" in done.stdout


def test_a_value_of_it_is_printed(run):
    code, out, _ = run("get", "my_package.models:Net", "head.weight", "--slice=0,0", "--json")
    assert code == 0
    assert json.loads(out)["shape"] == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "my_package.models:nothing",
            "it raised AttributeError: module 'my_package.models' has no attribute",
        ),
        ("my_package.others:net", "it raised ModuleNotFoundError: No module named 'my_package.others'"),
        ("my_package.models:needs", "it raised TypeError: needs() missing 1 required positional argument"),
        ("my_package.models:fails", "it raised ValueError: no\\x1b[31m data; --debug shows where"),
        ("my_package.models:number", "my_package.models:number: builtins.int: not a model of any of"),
    ],
)
def test_what_makes_no_model_is_2_and_one_line(source, message, run):
    code, out, err = run("show", source)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("paratree: ")
    assert message in last
    assert "Traceback" not in err
    assert "Traceback" in run("show", source, "--debug")[2]


def test_a_file_of_that_name_comes_first(run, tmp_path):
    (tmp_path / "models:net").write_bytes((2).to_bytes(8, "little") + b"{}")
    code, out, _ = run("show", "models:net")
    assert code == 0
    assert "safetensors" in out


@pytest.mark.parametrize("source", ["c:/models", "s3://bucket/model", "my model:net", "models:"])
def test_what_is_no_such_name_is_a_path(source, run):
    code, _, err = run("show", source)
    assert code == 2
    assert "no such file or folder" in err


def test_python_never_runs_code_for_a_text(run):
    with pytest.raises(pt.SourceNotFoundError):
        pt.open("my_package.models:net")
    assert "my_package.models" not in sys.modules
