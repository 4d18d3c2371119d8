"""Real ONNX models, opened where there is no onnx: weights, order, the same network in another format."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import paratree as pt
from tests import weights


@pytest.fixture(autouse=True)
def no_onnx(absent):
    absent("onnx")


@pytest.mark.parametrize(
    ("name", "count", "parameters", "size"),
    [
        ("silero-vad.onnx", 345, 30, 545_282),
        ("silero-vad-half.onnx", 172, 15, 309_633),
        ("basic-pitch.onnx", 102, 24, 35_740),
        ("qlknn.onnx", 36, 16, 73_859),
    ],
)
def test_weights_are_told_from_the_constants_of_the_code(name, count, parameters, size):
    tree = pt.open(weights.path(name))
    kinds = Counter(param.kind for param in tree.values())
    assert (len(tree), kinds["parameter"], tree.size) == (count, parameters, size)
    assert all(p.size <= 12 for p in tree.values() if p.kind == "other")


def test_a_real_model_is_listed_in_the_order_of_its_layers():
    names = list(pt.open(weights.path("qlknn.onnx")).select("_network.**"))
    assert names == [f"_network.model.{i}.{part}" for i in range(0, 12, 2) for part in ("weight", "bias")]


def test_one_network_in_two_formats_is_one_and_another_is_not():
    """Half of the tensors are equal as they are, the kernels stand transposed in the ONNX; 12 in all.

    The trained ones have an axis more, of length 1, for an ensemble of networks.
    """
    exported = list(pt.open(weights.path("qlknn.onnx")).select("_network.**").values())
    trained = [param[0] for param in pt.open(weights.path("qlknn")).select(kind="parameter").values()]
    assert len(exported) == len(trained) == 12

    def fits(param, transposed):
        value = param.value.T if transposed else param.value
        return sum(np.array_equal(value, other) for other in trained)

    assert [fits(p, False) for p in exported if p.name.endswith("bias")] == [1] * 6
    assert [fits(p, True) for p in exported if p.name.endswith("weight")] == [1] * 6
    assert [fits(p, False) for p in exported if p.name.endswith("weight")] == [0] * 6
    another = pt.open(weights.path("basic-pitch.onnx")).select(kind="parameter")
    assert not any(fits(p, transposed) for p in another.values() for transposed in (False, True))


def test_meta_is_what_the_model_says():
    meta = pt.open(weights.path("basic-pitch.onnx")).meta
    assert meta["ir_version"] == 8
    assert meta["producer_name"] == "tf2onnx"
    assert meta["opset_import"] == {"ai.onnx": 15, "ai.onnx.ml": 2}
    assert meta["inputs"] == {"serving_default_input_2:0": "float32 [unk__749, 43844, 1]"}
    assert list(meta["outputs"]) == [f"StatefulPartitionedCall:{i}" for i in (2, 1, 0)]
