"""The chapter's four scripts run, print what they should, and differ only in how models are made."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "parameter_management"
SCRIPTS = sorted(FOLDER.glob("*_chapter.py"))
SECTIONS = [
    "A net with one hidden layer, before it has seen data",
    "The same net when it has seen data",
    "One layer, and one parameter of it",
    "All at once, nested too",
    "Tied parameters",
    "A net with a shared layer learns",
]
EXPECTED = {  # framework -> what its script prints besides what training gives, each run of blanks as one
    "flax": [
        "layers_0.kernel ? × 8 float32",
        "layers_2.kernel: not initialised yet; run params = net.init(key, X) and open what it returns",
        "layers_2.kernel 8 × 1 float32",
        "49 values, 196 bytes",
        "['kernel', 'bias']",
        "params['params']['layers_2']['bias'] is a ArrayImpl: (1,) float32",
        "layers_0.Dense_1.kernel 16 × 8 float32",
        "7 biases, 60 values",
        "one parameter under 1 name: layers_2.kernel",
        "6 parameters, 121 values: the shared layer counts once",
        "a change through layers_2.kernel is seen through layers_2.kernel: 0.1",
    ],
    "keras": [
        "dense.kernel ? × 8 float32",
        "dense_1.kernel: not initialised yet; call net(X) or net.build(input_shape)",
        "dense_1.kernel 8 × 1 float32",
        "49 values, 196 bytes",
        "['kernel', 'bias']",
        "net.layers[2].weights[1] is a Variable: (1,) float32",
        "nest_mlp.sequential_1.dense_3.kernel 16 × 8 float32",
        "7 biases, 60 values",
        "one parameter under 1 name: dense_9.kernel",
        "6 parameters, 121 values: the shared layer counts once",
        "a change through dense_9.kernel is seen through dense_9.kernel: 0.1",
    ],
    "mxnet": [
        "0.weight 8 × ? float32",
        "1.weight: not initialised yet; call net.initialize(), "
        "then run the model once on a batch of data, net(X)",
        "1.weight 1 × 8 float32",
        "49 values, 196 bytes",
        "['weight', 'bias']",
        "net[1].bias is a Parameter: (1,) float32",
        "0.net.1.weight 8 × 16 float32",
        "7 biases, 60 values",
        "one parameter under 2 names: 1.weight, 2.weight",
        "6 parameters, 121 values: the shared layer counts once",
        "a change through 2.weight is seen through 1.weight: 0.1",
    ],
    "torch": [
        "0.weight 8 × ? float32",
        "2.weight: not initialised yet; run the model once on a batch of data, net(X)",
        "2.weight 1 × 8 float32",
        "49 values, 196 bytes",
        "['weight', 'bias']",
        "net[2].bias is a Parameter: (1,) float32",
        "0.net.2.weight 8 × 16 float32",
        "7 biases, 60 values",
        "one parameter under 2 names: 2.weight, 4.weight",
        "6 parameters, 121 values: the shared layer counts once",
        "a change through 4.weight is seen through 2.weight: 0.1",
    ],
}
PACKAGES = {
    "flax": ["flax"],
    "keras": ["keras", "tensorflow"],
    "mxnet": ["tests.mxnet_numpy"],
    "torch": ["torch"],
}  # what importing them needs
RUN = {"mxnet": ["-m", "tests.mxnet_numpy"]}


def framework_of(script):
    return script.name.removesuffix("_chapter.py")


def output_of(script):
    for package in PACKAGES[framework_of(script)]:
        pytest.importorskip(package, reason=f"could not import {package}; the example needs it")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *RUN.get(framework_of(script), []), script],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_is_a_script_for_each():
    assert {framework_of(script) for script in SCRIPTS} == set(EXPECTED)


@pytest.mark.parametrize("script", SCRIPTS, ids=framework_of)
def test_the_chapter_is_the_same_in_every_framework(script):
    _, marker, chapter = script.read_text(encoding="utf-8").partition("# The chapter\n")
    assert marker
    assert chapter == SCRIPTS[-1].read_text(encoding="utf-8").partition("# The chapter\n")[2]


@pytest.mark.parametrize("script", SCRIPTS, ids=framework_of)
def test_the_script_prints_what_it_should(script):
    output = output_of(script)
    lines = output.splitlines()
    assert [line for line, below in pairwise(lines) if set(below) == {"-"}] == SECTIONS
    texts = [" ".join(line.split()) for line in lines]
    for line in EXPECTED[framework_of(script)]:
        assert line in texts
    assert "its gradient: None" in output
    assert "  its gradient is the sum of its two uses: True" in lines
    steps = re.findall(r"^  step (\d+), loss (\d\.\d+)$", output, re.MULTILINE)
    assert [int(number) for number, _ in steps] == [0, 50, 100]
    fell = re.search(r"^  the loss fell from (\d\.\d+) to (\d\.\d+): True$", output, re.MULTILINE)
    assert fell
    assert float(fell[2]) < float(fell[1]) / 2
    rows = re.findall(r"^  \S+ +(\d+\.\d{4}) +(\d+\.\d{4}) +(\d+\.\d{4})   (.*\))$", output, re.MULTILINE)
    assert rows
    assert all(float(number) > 0 for row in rows for number in row[:3])
    assert sum(row[3].count("(") == 2 for row in rows) >= 3, "the shared layer's two uses at each step"
