"""Gluon models in processes of their own: what is imported, how a process ends, the chapter's example."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tests.mxnet_numpy", reason="could not import mxnet; these tests need it")

ROOT = Path(__file__).parents[2]
MODEL = """
from tests.mxnet_numpy import mxnet as mx
net = mx.gluon.nn.Dense(3, in_units=2)
net.initialize()
"""


def run(*arguments):
    """Run Python from the root of the project; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout


def test_opening_a_gluon_model_imports_no_other_framework():
    code = (
        MODEL
        + """
import sys
before = set(sys.modules)
import paratree as pt
tree = pt.open(net)
assert tree["weight"].value.shape == (3, 2) and tree.ties == ()
pt.gradients(pt.update(net, {"bias": 1}), lambda net, x: net(x).sum(), mx.nd.ones((1, 2)), per_use=True)
found = {name.partition(".")[0] for name in set(sys.modules) - before}
others = {"torch", "jax", "flax", "tensorflow", "keras", "tf_keras", "haiku", "equinox", "optax"}
print(sorted(found & others))
"""
    )
    assert run("-c", code) == "[]\n"


def test_paratree_alone_does_not_import_mxnet():
    code = """
import sys, paratree as pt
try:
    pt.open(object())
except pt.UnknownSourceError:
    print("mxnet" in sys.modules)
"""
    assert run("-c", code) == "False\n"


ORDERS = {"torch first": "import torch" + MODEL, "mxnet first": MODEL + "import torch"}


@pytest.mark.parametrize("order", ORDERS)
def test_a_value_that_lives_until_the_end_does_not_crash_a_process_with_torch(order):
    """A DLPack capsule of MXNet would."""
    pytest.importorskip("torch", reason="could not import torch; these tests need it")
    code = (
        ORDERS[order]
        + """
import paratree as pt, torch
tree = pt.open(net)
value, storage = tree["weight"].value, tree["weight"].storage
seen = torch.from_numpy(value)
print(float(seen.sum()) == float(value.sum()))
"""
    )
    assert run("-c", code) == "True\n"


def test_numpy_is_as_before_when_mxnet_has_been_imported():
    code = """
import numpy
has = lambda: [hasattr(numpy, name) for name in ("PZERO", "round_", "no_such_name", "random", "bool")]
before = vars(numpy).get("__getattr__"), has()
from tests.mxnet_numpy import mxnet
print(vars(numpy).get("__getattr__") is before[0], has() == before[1])
"""
    assert run("-c", code) == "True True\n"
