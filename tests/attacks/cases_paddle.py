"""Hostile and damaged Paddle files, each with its good twin; streams, programs and pickles, without Paddle."""

from __future__ import annotations

import json
import pickle
import struct
from typing import TYPE_CHECKING

import numpy as np

from tests.attacks.cases_onnx import held, number
from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS, Op, call, name, op

if TYPE_CHECKING:
    from collections.abc import Sequence

DTYPES = {
    "bool": 0, "int16": 1, "int32": 2, "int64": 3, "float16": 4, "float32": 5, "float64": 6, "uint8": 20,
    "int8": 21, "bfloat16": 22, "complex64": 23, "complex128": 24, "float8_e4m3fn": 32, "float8_e5m2": 33,
    "uint16": 36, "uint32": 37, "uint64": 38,
}  # fmt: skip


def description(shape: Sequence[int] = (4,), dtype: str | int = "float32") -> bytes:
    """Return a ``TensorDesc``."""
    kind = DTYPES[dtype] if isinstance(dtype, str) else dtype
    return number(1, kind) + b"".join(number(2, n) for n in shape)


def record(
    shape: Sequence[int] = (4,), dtype: str | int = "float32", data: bytes = bytes(16), *, version: int = 0,
    levels: int = 0, lod: bytes = b"", inner: int = 0, size: int | None = None,
) -> bytes:  # fmt: skip
    """Return one tensor of a stream."""
    about = description(shape, dtype)
    head = struct.pack("<IQ", version, levels) + lod
    return head + struct.pack("<Ii", inner, len(about) if size is None else size) + about + data


def variable(
    name: bytes = b"w", shape: Sequence[int] = (4,), dtype: str = "float32", persistable: int = 1
) -> bytes:
    """Return a ``VarDesc`` of a tensor, in its block."""
    kind = number(1, 7) + held(3, held(1, description(shape, dtype)))
    return held(3, held(1, name) + held(2, kind) + number(3, persistable))


def program(*variables: bytes) -> bytes:
    """Return a ``ProgramDesc`` of one block."""
    return held(1, number(1, 0) + number(2, -1) + b"".join(variables))


def pir(*names: str, shape: object = (4,)) -> bytes:
    """Return a PIR program."""
    ops = [
        {"#": "p", "A": [0, 1, 1, n], "O": {"%": i, "TT": {"D": [{"#": "0.t_f32"}, shape]}}, "OA": [1, 0, 1]}
        for i, n in enumerate(names, 1)
    ]
    return json.dumps({"base_code": {"magic": "pir", "version": 4}, "program": {"regions": [{"blocks": [{"ops": ops}]}]}}).encode()  # fmt: skip


GOOD = record() + record((2, 2))
_BESIDE = {"m.pdiparams": GOOD, "m.pdmodel": program(variable(b"x", (2, 2)), variable())}
_W = np.arange(4, dtype="float32")
PICKLE = pickle.dumps({"w": _W, "StructuredToParameterName@@": {"w": "linear_0.w_0"}}, 2)


def _case(id: str, bad: bytes, good: bytes = GOOD) -> Case:
    return Case(id, ".pdiparams", bad, good)


def _program(id: str, **bad: bytes) -> Case:
    return Case(id, "m.pdiparams", {**_BESIDE, **{f"m.{key}": data for key, data in bad.items()}}, _BESIDE)


def _pickle(id: str, bad: object, good: object = None) -> Case:
    made = [
        value if isinstance(value, bytes) else pickle.dumps(value, 2)
        for value in (bad, PICKLE if good is None else good)
    ]
    return Case(id, ".pdparams", *made)


def _pieces(slices: object, shape: object = (2, 2), **arrays: object) -> dict[str, object]:
    made = {"w@@.0": _W[:2], "w@@.1": _W[2:], **arrays}
    return {**made, "UnpackBigParamInfor@@": {"w": {"OriginShape": shape, "slices": slices}}}


def _calling(target: Op, *args: object) -> bytes:
    return b"\x80\x02" + op({"w": call(target, *args)}) + b"."


_PIECES = _pieces(["w@@.0", "w@@.1"])
_PLAIN = b"\x80\x02" + op({"w": call(name("collections", "OrderedDict"))}) + b"."

SWEEPS = [
    Sweep("changed.pdiparams", GOOD, (("changed.pdmodel", program(variable(b"x", (2, 2)), variable())),)),
    Sweep("named.pdparams", PICKLE),
]
CASES = [
    _case("empty", b""),
    _case("cut-in-version", GOOD[:3]),
    _case("cut-in-description", GOOD[:22]),
    _case("cut-one-byte", GOOD[:-1]),
    _case("cut-after-description", record(data=b"")),
    _case("one-byte-more", GOOD + b"\0"),
    _case("second-of-version-1", record() + record(version=1)),
    _case("first-of-version-1", record(version=1)),
    _case("tensor-of-version-1", record() + record(inner=1)),
    *(_case(f"levels-{label}", record() + record(levels=n)) for label, n in NUMBERS.items()),
    *(_case(f"level-size-{label}", record() + record(levels=1, lod=struct.pack("<Q", n)), record() + record(levels=1, lod=struct.pack("<QQQ", 16, 0, 4))) for label, n in NUMBERS.items()),
    _case("description-of-no-bytes", record() + record(size=0)),
    _case("description-of-minus-1", record() + record(size=-1)),
    _case("description-of-2^31-1", record() + record(size=(1 << 31) - 1)),
    _case("description-one-short", record() + record(size=3)),
    _case("description-of-100-kb", record() + record((1,) * 50_000, data=bytes(4))),
    _case("dtype-unknown", record() + record(dtype=99)),
    _case("dtype-of-no-tensor", record() + record(dtype=7)),
    *(_case(f"dims-{label}", record() + record((n,))) for label, n in NUMBERS.items()),
    _case("dims-negative", record() + record((-4,))),
    _case("dims-product-overflows", record() + record((1 << 32, 1 << 32, 4))),
    _case("rank-100", record() + record((1,) * 100, data=bytes(4)), record() + record((1,) * 32, data=bytes(4))),
    _program("program-of-fewer", pdmodel=program(variable())),
    _program("program-of-more", pdmodel=program(variable(b"x", (2, 2)), variable(), variable(b"y"))),
    _program("program-of-another-shape", pdmodel=program(variable(b"x", (4,)), variable())),
    _program("program-of-another-dtype", pdmodel=program(variable(b"x", (2, 2), "int32"), variable())),
    _pickle("pickle-cut", PICKLE[:-20]),
    _pickle("pickle-goes-on", PICKLE + b"\0"),
    _pickle("calls-system", _calling(name("os", "system"), "touch evil"), _PLAIN),
    _pickle("calls-eval", _calling(name("builtins", "eval"), "__import__('os').system('touch evil')"), _PLAIN),
    _pickle("calls-eval-of-data", _calling(name("builtins", "eval"), "data", {"data": "touch evil"}), _PLAIN),
    _pickle("calls-exec", _calling(name("builtins", "exec"), "open('evil', 'w')"), _PLAIN),
    _pickle("array-too-short", PICKLE.replace(b"K\x04\x85", b"K\x05\x85")),
    _pickle("pieces-not-there", _pieces(["w@@.0", "w@@.2"]), _PIECES),
    _pickle("pieces-none", _pieces([]), _PIECES),
    _pickle("pieces-no-list", _pieces("w@@.0"), _PIECES),
    _pickle("pieces-of-no-form", {**_PIECES, "UnpackBigParamInfor@@": {"w": 3}}, _PIECES),
    _pickle("pieces-twice", _pieces(["w@@.0", "w@@.0"]), _PIECES),
    _pickle("pieces-of-two-dtypes", _pieces(["w@@.0", "w@@.1"], **{"w@@.1": np.zeros(2, "int32")}), _PIECES),
    _pickle("pieces-too-few", _pieces(["w@@.0", "w@@.1"], (3, 2)), _PIECES),
    _pickle("pieces-of-2^62", _pieces(["w@@.0", "w@@.1"], (1 << 62, 4)), _PIECES),
    _pickle("pieces-negative", _pieces(["w@@.0", "w@@.1"], (-2, -2)), _PIECES),
    Case("info-calls-system", "m.pdiparams", {**_BESIDE, "m.pdiparams.info": _calling(name("os", "system"), "touch evil")}, {**_BESIDE, "m.pdiparams.info": _PLAIN}),
    Case("json-of-fewer", "m.pdiparams", {"m.pdiparams": GOOD, "m.json": pir("w")}, {"m.pdiparams": record() + record(), "m.json": pir("w", "x")}),
    Case("json-of-another-shape", "m.pdiparams", {"m.pdiparams": record(), "m.json": pir("w", shape=[5])}, {"m.pdiparams": record(), "m.json": pir("w")}),
]  # fmt: skip
