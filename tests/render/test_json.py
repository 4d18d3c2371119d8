"""JSON: one valid document, whatever the names and values are."""

import json as standard

import ml_dtypes
import numpy as np
import pytest

from paratree.core.errors import UnreadableError
from paratree.core.param import Param
from paratree.render import json
from paratree.verbs.formats import formats
from paratree.verbs.get import Values
from paratree.verbs.show import show
from paratree.verbs.ties import ties
from tests.render.hostile import NAMES
from tests.verbs.trees import Listed, checkpoint, listed, transformer, tree_of


def parsed(text):
    """Parse strictly: ASCII only, no NaN, one document that ends its line."""
    assert text.isascii()
    assert text.endswith("}\n")

    def refuse(token):
        raise AssertionError(token)

    return standard.loads(text, parse_constant=refuse)


def test_a_listing():
    found = parsed(json.listing(show(transformer(), fold=False)))
    assert list(found) == [
        "schema",
        "source",
        "format",
        "prefix",
        "names",
        "totals",
        "dtypes",
        "ties",
        "unreadable",
        "notes",
        "meta",
        "params",
    ]
    assert (found["schema"], found["source"], found["format"], found["names"]) == (1, "net", "test", 23)
    assert found["totals"]["parameter"] == {
        "names": 22,
        "count": 21,
        "size": 211_968,
        "nbytes": 847_872,
        "expanded_size": 275_968,
        "expanded_nbytes": 1_103_872,
        "unknown": 0,
    }
    assert found["ties"] == [["model.embed.weight", "lm_head.weight"]]
    assert found["params"][0] == {
        "name": "model.embed.weight",
        "shape": [1000, 64],
        "dtype": "float32",
        "size": 64_000,
        "nbytes": 256_000,
        "kind": "parameter",
        "trainable": None,
        "role": "weight",
        "layout": None,
        "readable": True,
        "problem": None,
        "tied_with": "lm_head.weight",
    }
    assert found["params"][-1]["tied_with"] == "model.embed.weight"
    assert [param["name"] for param in found["params"]] == list(transformer())


def test_every_kind_is_listed_and_counted():
    found = parsed(json.listing(show(checkpoint())))
    assert [param["kind"] for param in found["params"]] == ["parameter"] * 2 + ["state"] * 2 + ["other"]
    assert [param["trainable"] for param in found["params"]] == [True, False, None, None, None]
    assert found["meta"] == {"epoch": 3, "optimizer": {"param_groups": [{"lr": 0.0003}]}}


def test_a_tensor_takes_one_line():
    lines = json.listing(show(transformer())).splitlines()
    assert sum(line.startswith('  {"name": ') for line in lines) == 23


def test_what_is_unknown_is_null():
    tree = tree_of(listed("w", (None, 4), problem="not yet"), listed("v", dtype="odd"))
    found = parsed(json.listing(show(tree)))
    first, second = found["params"]
    assert (first["shape"], first["size"], first["nbytes"]) == ([None, 4], None, None)
    assert (first["readable"], first["problem"]) == (False, "not yet")
    assert (second["size"], second["nbytes"]) == (4, None)
    assert found["unreadable"] == [{"reason": "not yet", "tensors": 1}]


def test_parameters_that_differ_in_one_thing_only_are_told_apart():
    tree = tree_of(
        listed("a.weight"),
        listed("a.bias"),
        listed("b.weight", (2, 2)),
        listed("c.weight", dtype="int8"),
        listed("d.weight", kind="buffer"),
        listed("e.weight", trainable=False),
        listed("f.weight", layout="out in"),
    )
    for found, param in zip(parsed(json.listing(show(tree)))["params"], tree.values(), strict=True):
        for field in ("name", "dtype", "size", "nbytes", "kind", "trainable", "role", "layout"):
            assert found[field] == getattr(param, field)
        assert found["shape"] == list(param.shape)


def test_subtrees():
    found = parsed(json.listing(show(transformer(), depth=3)))
    assert "params" not in found
    assert found["subtrees"][2] == {
        "name": "model.layers.{0..3}.**",
        "tensors": 20,
        "shape": None,
        "dtypes": ["float32"],
        "size": 147_968,
        "nbytes": 591_872,
        "kind": "parameter",
    }


def test_an_empty_tree():
    assert parsed(json.listing(show(tree_of())))["params"] == []


def test_hostile_names_come_back_as_they_were():
    tree = tree_of(*[listed(name, dtype=name, problem=name) for name in NAMES], source=NAMES[0], notes=NAMES)
    found = parsed(json.listing(show(tree)))
    assert [param["name"] for param in found["params"]] == NAMES
    assert [param["dtype"] for param in found["params"]] == NAMES
    assert found["notes"] == NAMES


class Odd:
    def __repr__(self):
        return "<Odd>" * 100


def test_meta_becomes_what_json_can_hold():
    meta = {
        "nan": float("nan"),
        "inf": [float("inf"), -float("inf")],
        "bytes": b"abc",
        7: None,
        (1, 2): True,
        float("nan"): "key",
        "set": {5},
        "odd": Odd(),
        "long": 1 << 5000,
        1 << 20_000: 0,
    }
    assert parsed(json.listing(show(tree_of(meta=meta))))["meta"] == {
        "nan": "NaN",
        "inf": ["Infinity", "-Infinity"],
        "bytes": "<3 bytes>",
        "7": None,
        "…": True,
        "NaN": "key",
        "set": [5],
        "odd": ("<Odd>" * 100)[:200],
        "long": "<integer of 5001 bits>",
        "<integer of 20001 bits>": 0,
    }


def test_meta_that_is_deep_or_a_bomb_is_bounded():
    deep = bomb = circle = []
    for _ in range(5000):
        deep = [deep]
    for _ in range(40):
        bomb = {"a": bomb, "b": bomb}
    circle.append(circle)
    for meta in (deep, bomb, circle):
        assert len(json.listing(show(tree_of(meta={"x": meta})))) < 4_000_000
    parsed(json.listing(show(tree_of(meta={"x": deep}))))


def test_many_ties_stay_linear():
    tree = tree_of(*[listed(f"{i}.w", memory=1) for i in range(3000)])
    assert len(json.listing(show(tree, fold=False))) < 1_000_000


def test_ties_and_formats():
    found = parsed(json.ties(ties(transformer())))
    assert found["ties"] == [
        {
            "names": ["model.embed.weight", "lm_head.weight"],
            "shape": [1000, 64],
            "dtype": "float32",
            "nbytes": 256_000,
            "expanded_nbytes": 512_000,
        }
    ]
    assert parsed(json.ties(ties(tree_of()))) == {"schema": 1, "source": "net", "ties": []}
    found = {one["name"]: one for one in parsed(json.formats(formats()))["formats"]}
    assert found["safetensors"]["suffixes"] == [".safetensors", ".safetensors.index.json"]
    assert (found["safetensors"]["writes"], found["Paddle"]["writes"]) == (True, False)
    assert (found["Flax msgpack"]["option"], found["Paddle"]["option"]) == ("flax", None)


def values_of(values, dtype=None):
    return Values("net", Param("w", Listed(values.shape)), values, dtype or values.dtype.name, 0)


@pytest.mark.parametrize(
    ("values", "listed"),
    [
        (np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32), [[1.5, "NaN"], ["Infinity", "-Infinity"]]),
        (np.array([1 + 2j, np.nan], np.complex64), [[1.0, 2.0], ["NaN", 0.0]]),
        (np.array([True, False]), [True, False]),
        (np.array([2**64 - 1], np.uint64), [2**64 - 1]),
        (np.array(7, np.int8), 7),
        (np.array(np.nan), "NaN"),
        (np.array([1.5, np.nan], ml_dtypes.bfloat16), [1.5, "NaN"]),
        (np.array([0.5, 448], ml_dtypes.float8_e4m3fn), [0.5, 448.0]),
        (np.zeros((0, 3)), []),
    ],
)
def test_values(values, listed):
    found = parsed(json.values(values_of(values)))
    assert found["values"] == listed
    assert found["shape"] == list(values.shape)
    assert list(found) == ["schema", "source", "name", "shape", "dtype", "changed", "values"]


def test_too_many_values_are_refused():
    with pytest.raises(UnreadableError, match="100001 values are too many for JSON"):
        json.values(values_of(np.zeros(100_001, bool)))
