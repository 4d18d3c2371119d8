"""Pickles that no framework writes: values that are still plain, and programs that make no sense."""

from __future__ import annotations

import struct

import pytest

import paratree as pt
from paratree.files.pickled import Opaque
from tests.attacks.makers import Op, call, name, op, pickled, storage, tensor, torch_legacy, torch_zip


def opened(tmp_path, value, content=torch_zip):
    path = tmp_path / "m.pt"
    path.write_bytes(content(pickled(value)) if content is torch_zip else content(value))
    return pt.open(path)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (call(name("builtins", "set")), []),
        (call(name("builtins", "list")), []),
        (call(name("collections", "OrderedDict"), 3), {}),
        (call(name("_codecs", "encode"), "caf\xe9", "utf-8"), "café".encode()),
        (call(name("builtins", "bytes")), b""),
        (Op(b"K\1(0"), 1),
        (Op(b"N(0" + b"0K\1"), 1),
    ],
    ids=str,
)
def test_a_plain_value(tmp_path, code, expected):
    assert opened(tmp_path, {"w": tensor(), "x": code}).meta["x"] == expected


@pytest.mark.parametrize(
    "code",
    [
        call(name("builtins", "getattr"), call(name("mine", "Thing")), "method"),
        call(name("torch._utils", "_rebuild_parameter"), call(name("mine", "Thing")), True, None),
        call(name("numpy.core.multiarray", "scalar"), name("mine", "dtype"), 3),
    ],
    ids=["attribute-of-a-thing", "parameter-of-a-thing", "scalar-of-no-bytes"],
)
def test_a_thing_stays_opaque(tmp_path, code):
    assert isinstance(opened(tmp_path, {"w": tensor(), "x": code}).meta["x"], Opaque)


def test_a_state_given_twice_is_one(tmp_path):
    thing = Op(call(name("mine", "Thing")) + op({"a": 1}) + b"b" + op({"b": 2}) + b"b")
    assert opened(tmp_path, {"w": tensor(), "x": thing}).meta["x"].state == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "code",
    [
        Op(b"(K\1\x87"),
        Op(b"]K\1(K\2\x90"),
        Op(b"K\1K\2\x93"),
        Op(b"}" + op(1 << 70) + b"K\1s"),
        call(name("builtins", "set"), 3),
        call(name("torch._utils", "_rebuild_tensor_v2"), 3, 0, (4,), (1,), False, None),
        call(
            name("torch._utils", "_rebuild_tensor_v3"),
            3,
            0,
            (4,),
            (1,),
            False,
            None,
            name("torch", "float32"),
        ),
        call(name("torch._utils", "_rebuild_tensor_v3"), storage(), 0, (4,), (1,), False, None, "float32"),
    ],
    ids=[
        "stack-too-short",
        "items-into-a-list",
        "global-of-numbers",
        "key-of-70-bits",
        "set-of-a-number",
        "tensor-of-a-number",
        "tensor-3-of-a-number",
        "dtype-as-text",
    ],
)
def test_nonsense_is_refused(tmp_path, code):
    with pytest.raises(pt.CorruptFileError, match=r"byte \d+ \(member archive/data\.pkl\)"):
        opened(tmp_path, {"w": tensor(), "x": code})


def test_marks_are_bounded(tmp_path):
    with pytest.raises(pt.CorruptFileError, match="more marks than"):
        opened(tmp_path, {"w": tensor(), "x": Op(b"(" * 1_000_010)})


def test_version_three_of_a_tensor_and_its_conjugate_bit(tmp_path):
    arguments = (
        storage(kind="ComplexFloatStorage", size=2),
        0,
        (2,),
        (1,),
        True,
        None,
        name("torch", "complex64"),
    )
    made = call(name("torch._utils", "_rebuild_tensor_v3"), *arguments, {"conj": True})
    data = struct.pack("<4f", 1, 2, 3, 4)
    path = tmp_path / "m.pt"
    path.write_bytes(torch_zip(pickled({"w": made}), {"0": data}))
    assert pt.open(path)["w"].value.tolist() == [1 - 2j, 3 - 4j]
    assert pt.open(path)["w"].trainable


def test_a_tensor_subclass_is_the_tensor_inside(tmp_path):
    inner = (storage(), 0, (4,), (1,), False, None)
    function = name("torch._utils", "_rebuild_tensor_v2")
    made = call(name("torch._tensor", "_rebuild_from_type_v2"), function, name("mine", "Tensor"), inner, None)
    assert opened(tmp_path, {"w": made})["w"].shape == (4,)


def test_a_legacy_pickle_longer_than_the_first_look(tmp_path):
    tree = opened(
        tmp_path, {"w": tensor(storage("0", "FloatStorage", 4, None)), "x": "y" * 3_000_000}, torch_legacy
    )
    assert len(tree.meta["x"]) == 3_000_000
    assert tree["w"].shape == (4,)
