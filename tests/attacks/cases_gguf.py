"""Hostile and damaged GGUF files, each with its good twin."""

from __future__ import annotations

import struct
from typing import NamedTuple

from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64 = range(13)
_LETTERS = dict(zip((U8, I8, U16, I16, U32, I32, F32, BOOL, U64, I64, F64), "BbHhIif?Qqd", strict=True))


class Raw(bytes):
    """Bytes that are written as they are."""


class Tensor(NamedTuple):
    """A tensor: lengths as GGUF has them (the last axis first), type, and bytes; an offset if it is to be wrong."""

    name: str | bytes = "w"
    lengths: tuple[int, ...] = (4,)
    type: int = 0
    data: bytes = bytes(16)
    offset: int | None = None
    axes: int | None = None


def text(value: str | bytes, length: int | None = None) -> bytes:
    """Return a text with its length in front, true or not."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data) if length is None else length) + data


def value(type: int, content: object) -> bytes:
    """Return a value of metadata without its type."""
    if isinstance(content, Raw):
        return content
    if type == TEXT:
        return text(content)  # type: ignore[arg-type]
    if type == ARRAY:
        inner, items = content  # type: ignore[misc]
        return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, item) for item in items)
    return struct.pack("<" + _LETTERS[type], content)


def gguf(
    tensors: list[Tensor] | None = None,
    meta: list[tuple[object, int, object]] | None = None,
    *,
    version: int = 3,
    count: int | None = None,
    keys: int | None = None,
    alignment: int = 32,
    tail: bytes = b"",
) -> bytes:
    """Return a GGUF file; what is given beside tensors and metadata contradicts them."""
    tensors = [Tensor()] if tensors is None else tensors
    meta = [("general.architecture", TEXT, "none")] if meta is None else meta
    counts = (len(tensors) if count is None else count, len(meta) if keys is None else keys)
    head = bytearray(b"GGUF" + struct.pack("<IQQ", version, *counts))
    for key, type, content in meta:
        head += (key if isinstance(key, Raw) else text(key)) + struct.pack("<I", type) + value(type, content)  # type: ignore[arg-type]
    data = bytearray()
    for tensor in tensors:
        offset = len(data) if tensor.offset is None else tensor.offset
        name = tensor.name if isinstance(tensor.name, Raw) else text(tensor.name)
        axes = len(tensor.lengths) if tensor.axes is None else tensor.axes
        head += name + struct.pack(f"<I{len(tensor.lengths)}QIQ", axes, *tensor.lengths, tensor.type, offset)
        data += tensor.data + bytes(-len(tensor.data) % alignment)
    return bytes(head) + bytes(-len(head) % alignment) + bytes(data) + tail


GOOD = gguf()
_FULL = gguf(
    [Tensor("token_embd.weight", (4, 3), 0, bytes(48)), Tensor("blk.0.w", (3,), 1, bytes(6)), Tensor("q", (32,), 3, bytes(20))],
    [("general.architecture", TEXT, "llama"), ("a.list", ARRAY, (I32, [1, 2])), ("a.texts", ARRAY, (TEXT, ["x", "yz"])),
     ("a.deep", ARRAY, (ARRAY, [(U8, [1]), (BOOL, [True])])), ("a.flag", BOOL, True), ("a.real", F64, 0.5)],
)  # fmt: skip
SWEEPS = [Sweep("changed.gguf", _FULL)]


def _case(id: str, bad: bytes, good: bytes = GOOD) -> Case:
    return Case(id, ".gguf", bad, good)


def _meta(id: str, type: int, bad: object, good: object) -> Case:
    return _case(id, gguf(meta=[("k", type, bad)]), gguf(meta=[("k", type, good)]))


def _array(type: int, count: int, data: bytes = b"") -> Raw:
    return Raw(struct.pack("<IQ", type, count) + data)


def _tensor(id: str, bad: Tensor, good: Tensor | None = None) -> Case:
    return _case(id, gguf([bad]), GOOD if good is None else gguf([good]))


def _deep(depth: int, type: int = ARRAY) -> Raw:
    return Raw(
        b"".join(struct.pack("<IQ", type, 1) for _ in range(depth)) + struct.pack("<IQ", U8, 1) + b"\1"
    )


def _many_texts() -> bytes:
    """Return a file of 33 MB with 4,000,001 empty texts."""
    return gguf(meta=[("k", ARRAY, _array(TEXT, 4_000_001, bytes(8 * 4_000_001)))])


def _many_lists() -> bytes:
    """Return a file in which 200,000 arrays of one number lie in an array."""
    one = struct.pack("<IQB", U8, 1, 7)
    return gguf(meta=[("k", ARRAY, _array(ARRAY, 200_000, one * 200_000))])


def _part(number: object, count: object, tensors: object, own: list[Tensor], of: int = U16) -> bytes:
    split = [("split.no", of, number), ("split.count", of, count), ("split.tensors.count", I32, tensors)]
    return gguf(own, [("general.architecture", TEXT, "llama"), *split])  # type: ignore[list-item]


_A, _B = "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"
_FIRST, _SECOND = _part(0, 2, 2, [Tensor("a")]), _part(1, 2, 2, [Tensor("b")])
_SPLIT = {_A: _FIRST, _B: _SECOND}


def _split(id: str, bad: dict[str, object]) -> Case:
    return Case(id, "", bad, _SPLIT)


_TWO = [Tensor("a"), Tensor("b")]
_NAME = "\x1b[2J\u202e\x00../../etc/passwd"

CASES = [
    _case("only-magic", GOOD[:4]),
    _case("cut-in-counts", GOOD[:20]),
    _case("cut-in-metadata", GOOD[:40]),
    _case("cut-in-tensor-info", GOOD[:90]),
    _case("cut-in-data", GOOD[:-20]),
    *(_case(f"version-{n}", gguf(version=n), gguf(version=2)) for n in (0, 1, 4, 1 << 24, 0x03000001)),
    *(_case(f"tensors-{label}", gguf(count=n)) for label, n in NUMBERS.items() if 0 < n < 1 << 64),
    *(_case(f"keys-{label}", gguf(keys=n)) for label, n in NUMBERS.items() if 0 < n < 1 << 64),
    _case("keys-100001", gguf(meta=[(f"{n:05}", U8, 0) for n in range(100_001)]), gguf(meta=[(f"{n:05}", U8, 0) for n in range(100)])),
    *(_meta(f"text-{label}", TEXT, Raw(struct.pack("<Q", n)), "") for label, n in NUMBERS.items() if 100 < n < 1 << 64),
    *(_meta(f"array-{label}", ARRAY, _array(U8, n), (U8, [])) for label, n in NUMBERS.items() if 100 < n < 1 << 64),
    *(_meta(f"texts-{label}", ARRAY, _array(TEXT, n), (TEXT, [])) for label, n in NUMBERS.items() if 100 < n < 1 << 64),
    *(_meta(f"arrays-{label}", ARRAY, _array(ARRAY, n), (ARRAY, [])) for label, n in NUMBERS.items() if 100 < n < 1 << 64),
    _meta("doubles-overflow", ARRAY, _array(F64, 1 << 61), (F64, [])),
    _meta("inner-text-too-long", ARRAY, _array(TEXT, 300, text("a", 1 << 62) + text("a") * 299), (TEXT, ["a"] * 300)),
    _meta("last-text-too-long", ARRAY, _array(TEXT, 300, text("a") * 299 + text("a", 1 << 62)), (TEXT, ["a"] * 300)),
    _meta("text-length-wraps", ARRAY, _array(TEXT, 300, text("a", (1 << 64) - 8) + text("a") * 299), (TEXT, ["a"] * 300)),
    Case("many-texts", ".gguf", _many_texts, gguf(meta=[("k", ARRAY, (TEXT, [""] * 3000))])),
    Case("many-lists", ".gguf", _many_lists, gguf(meta=[("k", ARRAY, (ARRAY, [(U8, [7])] * 2000))])),
    _meta("nested-5", ARRAY, _deep(5), _deep(3)),
    _meta("nested-100000", ARRAY, _deep(100_000), _deep(3)),
    _meta("nested-not-the-last-type", ARRAY, _deep(3, 13), _deep(3)),
    _meta("bool-2", BOOL, Raw(b"\2"), True),
    _meta("bool-2-in-array", ARRAY, _array(BOOL, 1, b"\2"), (BOOL, [True])),
    _case("type-13", gguf(meta=[("k", 13, Raw(b"\0"))]), gguf(meta=[("k", BOOL, Raw(b"\0"))])),
    _case("type-huge", gguf(meta=[("k", (1 << 32) - 1, Raw(b"\0"))]), gguf(meta=[("k", U8, Raw(b"\0"))])),
    _case("key-empty", gguf(meta=[("", U8, 0)]), gguf(meta=[("k", U8, 0)])),
    _case("key-twice", gguf(meta=[("k", U8, 0), ("k", U8, 0)]), gguf(meta=[("k", U8, 0), ("l", U8, 0)])),
    _case("key-not-utf8", gguf(meta=[(b"\xff", U8, 0)]), gguf(meta=[("k", U8, 0)])),
    _case("key-too-long", gguf(meta=[("k" * 65_536, U8, 0)]), gguf(meta=[("k" * 65_535, U8, 0)])),
    _case("key-beyond", gguf(meta=[(Raw(text("k", 1 << 62)), U8, 0)]), gguf(meta=[("k", U8, 0)])),
    *(_case(f"alignment-{n}", gguf(meta=[("general.alignment", U32, n)]), gguf(meta=[("general.alignment", U32, 32)])) for n in (0, 3, 33, 1 << 31)),
    _case("alignment-text", gguf(meta=[("general.alignment", TEXT, "32")]), gguf(meta=[("general.alignment", U32, 32)])),
    _case("alignment-true", gguf(meta=[("general.alignment", BOOL, True)]), gguf(meta=[("general.alignment", U32, 32)])),
    _case("alignment-negative", gguf(meta=[("general.alignment", I32, -32)]), gguf(meta=[("general.alignment", U32, 32)])),
    *(_tensor(f"length-{label}", Tensor(lengths=(n,))) for label, n in NUMBERS.items() if 100 < n < 1 << 64),
    *(_tensor(f"offset-{label}", Tensor(offset=n)) for label, n in NUMBERS.items() if 100 < n < 1 << 64),
    _tensor("offset-unaligned", Tensor(offset=1)),
    _tensor("offset-hole", Tensor(offset=32, data=bytes(80))),
    _tensor("product-overflows", Tensor(lengths=(1 << 32, 1 << 32, 4))),
    _tensor("zero-times-huge-in-bytes", Tensor(lengths=(0, 1 << 61), data=b""), Tensor(lengths=(0, 1 << 40), data=b"")),
    _tensor("zero-blocks-times-huge", Tensor(lengths=(1 << 61, 0), type=8, data=b""), Tensor(lengths=(1 << 40, 0), data=b"")),
    _tensor("zero-times-huge", Tensor(lengths=(0, 1 << 62, 1 << 62), data=b""), Tensor(lengths=(0, 1 << 40), data=b"")),
    _tensor("axes-65", Tensor(lengths=(1,) * 65), Tensor(lengths=(1,) * 32, data=bytes(4))),
    _tensor("axes-huge", Tensor(axes=(1 << 32) - 1)),
    _tensor("too-few-bytes", Tensor(lengths=(40,))),
    *(_tensor(f"type-{n}", Tensor(type=n)) for n in (4, 5, 42, 99, (1 << 32) - 1)),
    _tensor("half-a-block", Tensor(lengths=(48,), type=3, data=bytes(40)), Tensor(lengths=(12,), data=bytes(48))),
    _tensor("block-without-axes", Tensor(lengths=(), type=8, data=bytes(34)), Tensor(lengths=(), data=bytes(4))),
    _tensor("blocks-beyond", Tensor(lengths=(1 << 40,), type=8, data=bytes(34))),
    _case("name-twice", gguf([Tensor("a"), Tensor("a")]), gguf(_TWO)),
    _case("name-not-utf8", gguf([Tensor(b"\xff\xfe")])),
    _case("name-beyond", gguf([Tensor(Raw(text("w", 1 << 62)))])),
    _case("overlap", gguf([Tensor("a"), Tensor("b", offset=0)]), gguf(_TWO)),
    _case("overlap-in-part", gguf([Tensor("a", (12,), 0, bytes(48)), Tensor("b", offset=32)]), gguf([Tensor("a", (12,), 0, bytes(48)), Tensor("b")])),
    _case("hole", gguf([Tensor("a"), Tensor("b", offset=64, data=bytes(64))]), gguf(_TWO)),
    _case("hostile-name", gguf([Tensor(_NAME, (5,), data=b"")]), gguf([Tensor(_NAME)])),
    _split("split-part-missing", {_A: _FIRST}),
    _split("split-same-part-twice", {_A: _FIRST, _B: _FIRST}),
    _split("split-of-another-count", {_A: _FIRST, _B: _part(1, 3, 2, [Tensor("b")])}),
    _split("split-name-twice", {_A: _FIRST, _B: _part(1, 2, 2, [Tensor("a")])}),
    _split("split-other-total", {_A: _part(0, 2, 3, [Tensor("a")]), _B: _SECOND}),
    _split("split-no-total", {_A: gguf([Tensor("a")], [("split.no", U16, 0), ("split.count", U16, 2)]), _B: _SECOND}),
    _split("split-part-is-a-folder", {_A: _FIRST, f"{_B}/x": b""}),
    _split("split-part-is-no-gguf", {_A: _FIRST, _B: b"PK\3\4"}),
    _split("split-part-damaged", {_A: _FIRST, _B: _SECOND[:-30]}),
    Case("split-wrong-name", "m.gguf", {"m.gguf": _FIRST, _B: _SECOND}, {"m.gguf": GOOD}),
    _case("split-number-beyond", _part(2, 2, 1, [Tensor()]), _part(0, 1, 1, [Tensor()])),
    _case("split-count-text", gguf(meta=[("split.count", TEXT, "2")]), gguf(meta=[("split.count", U16, 1)])),
    _case("split-number-negative", _part(-1, 2, 1, [Tensor()], I16), _part(0, 1, 1, [Tensor()])),
]  # fmt: skip
