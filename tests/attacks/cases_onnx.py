"""Hostile and damaged ONNX models, each with its good twin; written field by field, without onnx."""

from __future__ import annotations

import struct

from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS

_FLOAT, _INT64, _INT32, _INT4 = 1, 7, 6, 22


def varint(value: int) -> bytes:
    """Return an integer as protocol buffers write it, a negative one as 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    """Return a field that holds an integer."""
    return varint(field << 3) + varint(value)


def held(field: int, value: bytes, length: int | None = None) -> bytes:
    """Return a field that holds bytes, text or a message; ``length`` lies about it."""
    return varint(field << 3 | 2) + varint(len(value) if length is None else length) + value


def dims(*lengths: int) -> bytes:
    """Return the shape of a tensor."""
    return b"".join(number(1, n) for n in lengths)


def tensor(
    shape: bytes = dims(4),
    kind: int = _FLOAT,
    data: bytes = held(9, bytes(16)),
    name: bytes | None = b"w",
    more: bytes = b"",
) -> bytes:
    """Return a ``TensorProto``; by default four float32 called ``w``."""
    called = b"" if name is None else held(8, name)
    return shape + number(2, kind) + data + called + more


def external(**said: object) -> bytes:
    """Return a tensor whose values lie in another file."""
    pairs = (held(13, held(1, key.encode()) + held(2, str(value).encode())) for key, value in said.items())
    return tensor(data=b"".join(pairs), more=number(14, 1))


def sparse(values: bytes, indices: bytes, shape: bytes) -> bytes:
    """Return a ``SparseTensorProto``, as an initializer of a graph."""
    return held(15, held(1, values) + held(2, indices) + b"".join(number(3, n) for n in shape))


def constant(value: bytes, output: bytes = b"c") -> bytes:
    """Return a Constant node with one attribute."""
    return held(1, held(2, output) + held(4, b"Constant") + held(5, held(1, b"value") + value))


def within(graph: bytes, depth: int) -> bytes:
    """Return a graph in a node in a graph, and so on."""
    for _ in range(depth):
        graph = held(1, held(4, b"If") + held(5, held(1, b"then_branch") + held(6, graph)))
    return graph


def model(
    *parts: bytes, before: bytes = number(1, 8) + held(2, b"maker"), after: bytes = held(8, number(2, 17))
) -> bytes:
    """Return a model whose graph has these parts."""
    return before + held(7, b"".join(parts)) + after


def one(made: bytes) -> bytes:
    """Return a model with one initializer."""
    return model(held(5, made))


GOOD = one(tensor())


def _case(id: str, bad: object, good: object = GOOD, get: str = "") -> Case:
    return Case(id, ".onnx", bad, good, get)


def _tensor(id: str, bad: bytes, good: bytes = tensor()) -> Case:
    return _case(id, one(bad), one(good))


def _beside(id: str, said: dict[str, object], extra: dict[str, bytes | str] | None = None) -> Case:
    good = {"m.onnx": one(external(location="w.bin", offset=8, length=16)), "w.bin": bytes(24)}
    return Case(id, "m.onnx", {**good, **(extra or {}), "m.onnx": one(external(**said))}, good)


def _pairs(*places: int) -> bytes:
    return tensor(dims(len(places) // 2, 2), _INT64, held(9, struct.pack(f"<{len(places)}q", *places)), b"i")


_TWO = tensor(dims(2), data=held(9, bytes(8)))
_AT = _pairs(0, 1, 1, 0)
_SPARSE = model(sparse(_TWO, _AT, b"\x02\x03"))
_INTEGERS = tensor(dims(3), _INT64, held(7, b"\x01\xac\x02\x03"))
_NAME = b"\x1b[2J\xe2\x80\xae../../etc/passwd"
_C = constant(held(5, tensor(name=None)))

SWEEPS = [
    Sweep(
        "changed.onnx",
        model(
            held(5, tensor()),
            held(5, _INTEGERS[:-1] + b"v"),
            sparse(tensor(dims(2), data=held(9, bytes(8)), name=b"s"), _AT, b"\x02\x03"),
            within(_C, 1),
            held(11, held(1, b"x") + held(2, held(1, number(1, 1) + held(2, held(1, number(1, 3)))))),
        ),
        (("w.bin", bytes(24)),),
    ),
    Sweep("beside.onnx", one(external(location="w.bin", offset=8, length=16)), (("w.bin", bytes(24)),)),
]
CASES = [
    _case("empty", b""),
    _case("cut-in-version", GOOD[:1]),
    _case("cut-in-graph", GOOD[:30]),
    _case("cut-one-byte", GOOD[:-1]),
    _case("zeros-behind", GOOD + bytes(4)),
    _case("no-graph", number(1, 8) + held(2, b"maker")),
    _case("two-graphs", model(after=held(7, held(5, tensor()))), model()),
    _case("graph-longer-than-file", number(1, 8) + held(2, b"maker") + held(7, held(5, tensor()), 1 << 40)),
    _case("group", model(held(5, tensor()) + b"\x0b\x0c")),
    _case("wire-type-7", model(held(5, tensor()) + b"\x0f")),
    _case("field-0", model(held(5, tensor()) + b"\x00\x01")),
    _case("number-of-11-bytes", model(b"\x08" + b"\xff" * 10 + b"\x01")),
    _case("tensor-beyond-its-graph", model(held(5, tensor(), 60))),
    _case("initializer-is-a-number", model(number(5, 3))),
    _case("ir-version-not-there", held(2, b"maker") + held(7, held(5, tensor()))),
    *(_tensor(f"dims-{label}", tensor(dims(n))) for label, n in NUMBERS.items()),
    _tensor("dims-negative", tensor(dims(-4))),
    _tensor("dims-product-overflows", tensor(dims(1 << 32, 1 << 32, 4))),
    _tensor("dims-zero-times-huge", tensor(dims(1 << 62, 1 << 62, 0), data=b""), tensor(dims(1 << 40, 0), data=b"")),
    _tensor("rank-100000", tensor(dims(*[1] * 100_000), data=held(9, bytes(4))), tensor(dims(*[1] * 32), data=held(9, bytes(4)))),
    _tensor("raw-too-short", tensor(data=held(9, bytes(15)))),
    _tensor("raw-too-long", tensor(data=held(9, bytes(17)))),
    _tensor("no-values", tensor(data=b"")),
    _tensor("values-twice", tensor(data=held(9, bytes(16)) + held(4, bytes(16)))),
    _tensor("values-in-the-field-of-others", tensor(data=held(5, bytes(4)))),
    _tensor("values-of-text", tensor(data=held(6, b"abcd"))),
    _tensor("packed-floats-too-few", tensor(data=held(4, bytes(12))), tensor(data=held(4, bytes(16)))),
    _tensor("packed-floats-not-whole", tensor(data=held(4, bytes(15))), tensor(data=held(4, bytes(16)))),
    _tensor("loose-floats-too-many", tensor(data=(b"\x25" + bytes(4)) * 5), tensor(data=(b"\x25" + bytes(4)) * 4)),
    _tensor("integers-claim-2^40", tensor(dims(1 << 40), _INT64, held(7, b"\1\2\3")), _INTEGERS),
    _tensor("integers-too-many", tensor(dims(3), _INT64, held(7, bytes(40))), _INTEGERS),
    _case("integers-too-few", one(tensor(dims(3), _INT64, held(7, b"\x01\xac\x02"))), one(_INTEGERS), "w"),
    _case("integer-cut-short", one(tensor(dims(3), _INT64, held(7, b"\x01\x03\xac"))), one(_INTEGERS), "w"),
    _case("integer-of-11-bytes", one(tensor(dims(3), _INT64, held(7, b"\x01\x02" + b"\xff" * 10 + b"\x01"))), one(_INTEGERS), "w"),
    _case("four-bits-too-few", one(tensor(dims(5), _INT4, held(5, b"\xac\x02\x80\x01"))), one(tensor(dims(5), _INT4, held(5, b"\x21\x43\x05"))), "w"),
    _tensor("dtype-unknown", tensor(kind=99)),
    _tensor("dtype-undefined", tensor(kind=0)),
    _tensor("place-of-data-unknown", tensor(more=number(14, 7))),
    _tensor("no-name", tensor(name=None)),
    _tensor("name-not-utf8", tensor(name=b"\xff\xfe")),
    _tensor("hostile-name", tensor(name=_NAME, data=held(9, bytes(12))), tensor(name=_NAME)),
    _case("two-of-one-name", model(held(5, tensor()), held(5, tensor())), model(held(5, tensor()), held(5, tensor(name=b"v")))),
    _case("constant-named-as-initializer", model(constant(held(5, tensor(name=None)), b"w"), held(5, tensor())), model(_C, held(5, tensor()))),
    _case("two-constants-of-one-name", model(_C, _C), model(_C, constant(held(5, tensor(name=None)), b"d"))),
    _case("constant-too-short", model(constant(held(5, tensor(name=None, data=held(9, bytes(12)))))), model(_C)),
    _case("constant-of-wrong-wire-type", model(constant(number(5, 1))), model(_C)),
    _case("graphs-33-deep", model(within(_C, 33)), model(within(_C, 32))),
    _case("graphs-10000-deep", lambda: model(within(_C, 10_000)), model(within(_C, 3))),
    _case("sparse-without-indices", model(held(15, held(1, _TWO) + number(3, 2))), _SPARSE),
    _case("sparse-shapes-differ", model(sparse(_TWO, _pairs(0, 1), b"\x02\x03")), _SPARSE),
    _case("sparse-indices-are-floats", model(sparse(_TWO, _TWO, b"\x06")), _SPARSE),
    _case("sparse-place-outside", model(sparse(_TWO, _pairs(0, 1, 2, 0), b"\x02\x03")), _SPARSE, "w"),
    _case("sparse-place-negative", model(sparse(_TWO, _pairs(-1, 1, 1, 0), b"\x02\x03")), _SPARSE, "w"),
    _case("sparse-place-twice", model(sparse(_TWO, _pairs(0, 1, 0, 1), b"\x02\x03")), _SPARSE, "w"),
    _beside("external-climbs", {"location": "../w.bin"}, {"../w.bin": bytes(24)}),
    _beside("external-climbs-inside", {"location": "a/../../../w.bin"}),
    _beside("external-absolute", {"location": "/etc/passwd", "length": 16}),
    _beside("external-empty-name", {"location": ""}),
    _beside("external-of-nul", {"location": "w.bin\0"}),
    _beside("external-link", {"location": "v.bin", "length": 16}, {"v.bin": "/etc/passwd"}),
    _beside("external-linked-folder", {"location": "d/passwd", "length": 16}, {"d": "/etc"}),
    _beside("external-folder", {"location": "d", "length": 16}, {"d/x": b""}),
    _beside("external-no-name", {"offset": 0}),
    _beside("external-offset-beyond", {"location": "w.bin", "offset": 9}),
    *(_beside(f"external-offset-{label}", {"location": "w.bin", "offset": n}) for label, n in NUMBERS.items()),
    _beside("external-offset-negative", {"location": "w.bin", "offset": -1}),
    _beside("external-offset-no-number", {"location": "w.bin", "offset": "8 "}),
    _beside("external-offset-long", {"location": "w.bin", "offset": "9" * 5000}),
    _beside("external-length-other", {"location": "w.bin", "offset": 8, "length": 12}),
    _beside("external-keys-many", {"location": "w.bin", **{f"k{i}": i for i in range(40)}}),
    Case("external-key-twice", "m.onnx", {"m.onnx": one(tensor(data=held(13, held(1, b"location") + held(2, b"w.bin")) * 2, more=number(14, 1))), "w.bin": bytes(16)}, {"m.onnx": one(external(location="w.bin")), "w.bin": bytes(16)}),
    Case("runtime-format", ".ort", b"\x20\0\0\0ORTM" + bytes(64), GOOD),
]  # fmt: skip
