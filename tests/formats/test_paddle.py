"""Paddle: inference models and training checkpoints; against the values that Paddle itself read from them.

The files and values are those of ``tests/fixtures/make_paddle.py``; Paddle is not needed here.
"""

from __future__ import annotations

import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import paratree as pt
from tests import weights
from tests.attacks.cases_paddle import DTYPES, pir, program, record, variable

FIXTURES = Path(__file__).parents[1] / "fixtures" / "paddle"
FILES = sorted(
    path.name for path in FIXTURES.iterdir() if path.suffix in (".pdiparams", ".pdparams", ".pdopt")
)
DIGESTS = {  # of what paddle.load reads: name and bytes of each tensor, by name
    "rapidocr-cls": "33e35749b423890999d0472ebfee108c20e63bd76da6eca910f811b5bb018a4d",
    "rapidocr-det": "08f391a8bcc0d4c84e2c0f5e665167db69578b74445754d9a5891819bba26f46",
}
NETWORK = [
    "conv.weight", "conv.bias", "norm.weight", "norm.bias", "norm._mean", "norm._variance", "first.weight",
    "first.bias", "second.weight", "second.bias", "tied.weight", "tied.bias",
]  # fmt: skip


def expected_of(name):
    with np.load(FIXTURES / "expected.npz") as expected:
        return {key.partition(":")[2]: expected[key] for key in expected if key.startswith(f"{name}:")}


@pytest.mark.parametrize("name", FILES)
def test_what_paddle_reads_is_read(name):
    expected = expected_of(name)
    with pt.open(FIXTURES / name) as tree:
        for key, param in tree.items():
            value, wanted = param.value, expected[key]
            assert value.shape == wanted.shape
            if param.dtype == "bfloat16":
                value = value.view(np.uint16)
            if param.dtype.startswith("float8"):
                value = value.astype(np.float32)
            assert value.dtype == wanted.dtype
            assert value.tobytes() == wanted.tobytes()
        left_out = expected.keys() - set(tree)
        assert left_out == ({"second.weight"} if name == "old.pdiparams" else set()), (
            "of tied names, one is kept"
        )


@pytest.mark.parametrize("name", DIGESTS)
def test_real_models_equal_paddle(name):
    tree, digest = pt.open(weights.path(name)), hashlib.sha256()
    for key in sorted(tree):
        digest.update(key.encode() + tree[key].value.tobytes())
    assert digest.hexdigest() == DIGESTS[name]


def test_a_real_model_has_the_names_and_the_order_of_its_layers():
    tree = pt.open(weights.path("rapidocr-cls"))
    norm = [f"backbone.conv1.bn.{part}" for part in ("weight", "bias", "_mean", "_variance")]
    first = ["backbone.conv1.conv.weight", *norm, "backbone.blocks.0.expand_conv.conv.weight"]
    assert list(tree)[:6] == first
    assert list(tree)[-2:] == ["head.fc.weight", "head.fc.bias"]
    assert tree.notes == ("names are those in the model, from inference.pdiparams.info",)
    assert {p.kind for name, p in tree.items() if name.endswith(("_mean", "_variance"))} == {"buffer"}
    assert tree["head.fc.weight"].trainable is True
    own = pt.open(weights.path("rapidocr-det"))
    assert list(own)[:3] == ["conv2d_0.w_0", "batch_norm2d_0.w_0", "batch_norm2d_0.b_0"]
    assert [p.kind for p in own.values()].count("buffer") == 6
    assert own.notes == ()


def test_every_dtype_of_the_stream():
    tree = pt.open(FIXTURES / "dtypes.pdiparams")
    assert [param.dtype for param in tree.values()] == [
        "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
        "complex64", "complex128", "float8_e4m3fn", "float8_e5m2",
    ]  # fmt: skip
    assert list(tree) == [str(i) for i in range(14)]
    assert "tensors are numbered: their names are in dtypes.pdmodel or dtypes.json" in tree.notes[0]


@pytest.mark.parametrize(("name", "program"), [("new", "new.json"), ("old", "old.pdmodel")])
def test_names_come_from_the_program_of_either_kind(name, program, tmp_path):
    for file in (f"{name}.pdiparams", program):
        shutil.copy(FIXTURES / file, tmp_path)
    tree = pt.open(tmp_path / f"{name}.pdiparams")
    assert list(tree) == [
        "conv2d_0.w_0", "conv2d_0.b_0", "batch_norm2d_0.w_0", "batch_norm2d_0.b_0", "batch_norm2d_0.w_1",
        "batch_norm2d_0.w_2", "linear_0.w_0", "linear_0.b_0", "linear_1.w_0", "linear_1.b_0", "linear_2.b_0",
    ]  # fmt: skip
    assert [p.kind for p in tree.values()].count("buffer") == 2
    assert tree["batch_norm2d_0.w_1"].kind == "buffer"
    assert tree["linear_0.w_0"].trainable is (True if name == "new" else None)
    assert pt.open(tmp_path)["linear_0.w_0"].shape == (8, 3)


@pytest.mark.parametrize(
    "program",
    [
        b'{"base_code": {"magic": "other"}}',
        b'{"base_code": {"magic": "pir", "version": 99}, "program": {"units": []}}',
        pir("w").replace(b'"#": "p"', b'"#": 3'),
        pir("w", shape=["x"]),
        pir("w", "w"),
    ],
)
def test_a_program_of_an_unknown_form_leaves_numbers(program, tmp_path):
    (tmp_path / "new.pdiparams").write_bytes(record() + record())
    (tmp_path / "new.json").write_bytes(program)
    tree = pt.open(tmp_path / "new.pdiparams")
    assert list(tree) == ["0", "1"]
    assert tree.notes == ("tensors are numbered: new.json is no program of a form that is known",)


def test_the_files_of_paddle_1(tmp_path):
    (tmp_path / "__model__").write_bytes(program(variable(b"w")))
    (tmp_path / "__params__").write_bytes(record())
    assert list(pt.open(tmp_path / "__params__")) == ["w"]


# Training checkpoints


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_checkpoint_is_the_network_and_its_ties(protocol):
    tree = pt.open(FIXTURES / f"net{protocol}.pdparams")
    assert list(tree) == NETWORK
    assert tree.ties == (("second.weight", "tied.weight"),), (
        "two names of one tensor, says the file's own table"
    )
    assert [name for name, p in tree.items() if p.kind == "buffer"] == ["norm._mean", "norm._variance"]
    assert tree.meta == {}


def test_optimizer_state_and_its_learning_rate():
    tree = pt.open(FIXTURES / "net.pdopt")
    assert {param.kind for param in tree.values()} == {"state"}
    assert len(tree) == 36
    assert tree.meta == {"LR_Scheduler": {"last_epoch": 0, "last_lr": 0.1}}


def test_nested_checkpoints():
    tree = pt.open(FIXTURES / "nested.pdparams")
    assert list(tree["model"]) == NETWORK
    assert tree.ties == (("model.second.weight", "model.tied.weight"),)
    assert tree["more.0"].dtype == "bfloat16", "NumPy has no word for it: Paddle pickles it as uint16"
    assert {key: tree.meta[key] for key in ("epoch", "note")} == {"epoch": 3, "note": "abc"}


def test_an_array_in_pieces_is_one():
    tree = pt.open(FIXTURES / "pieces.pdparams")
    assert set(tree) == {"b", "w"}
    assert tree["w"][1:, 2].tolist() == [6, 10]


def test_a_checkpoint_is_known_by_its_table_whatever_it_is_called(tmp_path):
    shutil.copy(FIXTURES / "net4.pdparams", tmp_path / "weights")
    assert pt.open(tmp_path / "weights").format == "Paddle pickle"
    held = {"w": np.ones(2, "float32")}
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(held))
    assert pt.open(tmp_path / "plain.pkl").format != "Paddle pickle"
    (tmp_path / "plain.pdparams").write_bytes(pickle.dumps(held, 2))
    assert pt.open(tmp_path / "plain.pdparams").format == "Paddle pickle"


def test_names_that_are_one_when_joined(tmp_path):
    path = tmp_path / "m.pdparams"
    path.write_bytes(pickle.dumps({"a.b": np.ones(1), "a": {"b": np.zeros(2)}}, 4))
    tree = pt.open(path)
    assert list(tree) == ["a.b", "a.b~2"]
    assert "NAME~2: 1" in tree.notes[0]


def test_eval_is_read_in_the_one_form_that_paddle_writes(tmp_path):
    """A tensor of a static program is pickled as eval("data", {"data": array}); nothing else is let by."""
    good = (FIXTURES / "static.pdparams").read_bytes()
    assert b"eval" in good
    path = tmp_path / "m.pdparams"
    path.write_bytes(good.replace(b"\x8c\x04data", b"\x8c\x04exit"))
    with pytest.raises(pt.UnsafeFileError, match=r"would call builtins\.eval"):
        pt.open(path)


# Every stream


@settings(max_examples=60, deadline=None)
@given(
    arrays=st.lists(
        hnp.arrays(
            st.sampled_from([np.dtype(name) for name in DTYPES if not name.startswith(("bfloat", "float8"))]),
            hnp.array_shapes(min_dims=0, min_side=0),
        ),
        min_size=1,
        max_size=10,
    ),
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True, min_size=10),
)  # fmt: skip
def test_any_tensors_under_any_names(arrays, names, tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    names = (
        sorted(names[: len(arrays)])
        if len(names) >= len(arrays)
        else [str(i).zfill(3) for i in range(len(arrays))]
    )
    made = dict(zip(names, arrays, strict=True))
    (folder / "m.pdiparams").write_bytes(b"".join(record(a.shape, a.dtype.name, a.tobytes()) for a in arrays))
    variables = [variable(n.encode(), a.shape, a.dtype.name) for n, a in reversed(made.items())]
    (folder / "m.pdmodel").write_bytes(program(*variables))
    with pt.open(folder / "m.pdiparams") as tree:
        assert set(tree) == set(made)
        for name, array in made.items():
            found = tree._params[name].value
            assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
