"""NumPy arrays in plain containers are a source, whatever is imported, and open as JAX opens them."""

import subprocess
import sys
from collections import OrderedDict, defaultdict, namedtuple

import ml_dtypes
import numpy as np
import pytest

import paratree as pt
from paratree.frameworks import numpy as of_numpy

Pair = namedtuple("Pair", "w b")
ONE = np.arange(6, dtype=np.float32).reshape(2, 3)
SOURCES = [
    {"weight": ONE, "bias": np.zeros(2)},
    {"a": {"b": [ONE, (ONE.copy(), np.float32(2))]}, "step": 3, "name": "mlp", "none": None, "f": len},
    [ONE, {"w": np.ones(2, ml_dtypes.bfloat16)}],
    ONE,
    {"params": {"d": {"kernel": ONE}}, "batch_stats": {"d": {"mean": np.ones(2), "kernel": np.ones(3)}}},
    {"batch_stats": {"d": {"w": np.ones(2)}}, "params": {"d": {"w": ONE}}},
    {"a.b": ONE, "a": {"b": np.ones(2)}},
    {"w": ONE, "x": object(), 1: np.ones(1, np.int64)},
    OrderedDict(b=ONE, a=defaultdict(list, c=[np.ones(1)])),
    {"one": ONE, "two": ONE, "three": ONE[0]},
]


def seen(tree):
    return {
        param.name: (param.kind, param.shape, param.dtype, param.native, param.aliases, param.value.tobytes())
        for param in tree.values()
    }


@pytest.mark.parametrize("source", SOURCES, ids=range(len(SOURCES)))
def test_a_source_opens_as_it_does_where_jax_is_imported(source):
    of_jax = pytest.importorskip("paratree.frameworks.jax", reason="could not import jax")
    tree, other = of_numpy.open(source), of_jax.open(source)
    assert of_numpy.matches(source)
    assert list(tree) == list(other)
    assert seen(tree) == seen(other)
    assert {frozenset(group) for group in tree.ties} == {frozenset(group) for group in other.ties}
    assert tree.meta == dict(other.meta)
    assert (tree.source, tree.immutable) == (other.source, True)


def run(code, *args):
    done = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_verb_takes_arrays_where_no_framework_is_imported(tmp_path):
    code = """
import sys
import numpy as np, paratree as pt
source = {"0": {"weight": np.ones((2, 3), "float32")}, "bias": np.arange(2.0)}
pt.save(source, sys.argv[1])
assert pt.diff(source, sys.argv[1]).same
assert pt.stats(source)["bias"].max == 1
new = pt.load({"0": {"weight": np.zeros((2, 3), "float32")}, "bias": np.zeros(2)}, source)
assert new.complete and new.model["bias"].tolist() == [0, 1]
assert pt.diff([np.ones(2)], [np.ones(2)]).same
print([name for name in ("torch", "jax", "tensorflow", "keras", "mxnet", "flax") if name in sys.modules])
"""
    assert run(code, tmp_path / "net.safetensors") == "[]\n"


def test_a_torch_model_takes_arrays_where_jax_is_not_imported():
    pytest.importorskip("torch", reason="could not import torch")
    code = """
import sys, torch
import numpy as np, paratree as pt
net = torch.nn.Linear(3, 2)
source = {"weight": np.ones((2, 3), "float32"), "bias": np.arange(2, dtype="float32")}
assert pt.load(net, source).complete
assert net.bias.tolist() == [0, 1]
assert pt.load(net, {"kernel": 2 * np.ones((3, 2), "float32"), "bias": np.zeros(2, "float32")},
               rename={"kernel": "weight"}).complete
assert "jax" not in sys.modules
"""
    run(code)


def test_what_is_changed_is_new_and_of_the_same_types():
    source = {"pair": Pair(ONE, [np.ones(2), np.float32(1)]), "d": defaultdict(list, x=ONE), "n": 3}
    tree = of_numpy.open(source)
    assert list(tree) == ["pair.0", "pair.1.0", "pair.1.1", "d.x"]
    new = of_numpy.assign(source, tree, {"pair.0": ONE + 1, "pair.1.1": np.array(5, np.float32)})
    assert type(new["pair"]) is Pair
    assert type(new["d"]) is defaultdict
    assert type(new["pair"].b[1]) is np.float32
    assert new["pair"].b[1] == 5
    np.testing.assert_array_equal(new["pair"].w, ONE + 1)
    assert new["d"]["x"] is new["pair"].w  # tied names change together
    assert source["pair"].w is ONE
    apart = of_numpy.untie(source, tree, ["d.x"])
    assert apart["d"]["x"] is not ONE
    np.testing.assert_array_equal(apart["d"]["x"], ONE)
    assert apart["n"] == 3


def test_values_are_the_memory_and_cannot_be_written():
    param = of_numpy.open({"w": ONE})["w"]
    assert np.shares_memory(param.value, ONE)
    assert not param.value.flags.writeable
    assert param[1, ::-1].tolist() == [5, 4, 3]
    assert param[1, 2].shape == ()
    assert ONE.flags.writeable
    text = of_numpy.open({"w": np.array(["a"])})["w"]
    with pytest.raises(pt.UnreadableError, match=r"w: paratree has no str"):
        _ = text.value


def test_gradients_that_stand_beside_are_paired_by_name():
    tree = of_numpy.open({"w": ONE, "b": np.ones(2)}, grads={"w": ONE + 1})
    np.testing.assert_array_equal(tree["w"].grad, ONE + 1)
    assert tree["b"].grad is None
    for grads, message in (({"x": ONE}, "no parameter 'x'"), ({"w": np.ones(3)}, r"has the shape \(3,\)")):
        with pytest.raises(pt.MismatchError, match=message):
            of_numpy.open({"w": ONE}, grads=grads)


@pytest.mark.parametrize("verb", ["tie", "freeze", "groups", "gradients"])
def test_what_needs_a_framework_is_refused_with_the_next_step(verb):
    source = {"w": ONE, "v": ONE.copy()}
    tree = of_numpy.open(source)
    more = {"tie": ("w", ["v"]), "freeze": (["w"], True), "groups": ([],), "gradients": (len, (), [], False)}
    with pytest.raises(pt.UnsupportedError, match="import jax, whose pytrees they are"):
        getattr(of_numpy, verb)(source, tree, *more[verb])


@pytest.mark.parametrize("beside", [[], [np.ones(2)]])
def test_a_container_inside_itself_is_told(beside):
    loop = [*beside]
    loop.append(loop)
    with pytest.raises(pt.UnknownSourceError, match="a list that holds itself"):
        pt.open(loop)
