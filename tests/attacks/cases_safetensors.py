"""Hostile and damaged safetensors files, each with its good twin."""

from __future__ import annotations

from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS, entry, safetensors

GOOD = safetensors()


def _case(id: str, bad: bytes, good: bytes = GOOD) -> Case:
    return Case(id, ".safetensors", bad, good)


def _two(second: tuple[int, int], data: bytes = bytes(32)) -> bytes:
    return safetensors({"a": entry(), "b": entry(offsets=second)}, data)


_TWO = _two((16, 32))
_NAME = "\x1b[2J\u202e\x00../../etc/passwd"

SWEEPS = [Sweep("changed.safetensors", GOOD)]
CASES = [
    _case("empty", b""),
    _case("cut-in-length", GOOD[:5]),
    _case("only-length", GOOD[:8]),
    _case("cut-in-header", GOOD[:30]),
    _case("cut-after-header", GOOD[: len(GOOD) - 16]),
    _case("cut-one-byte", GOOD[:-1]),
    _case("one-byte-more", GOOD + b"\0"),
    _case("length-zero", safetensors(length=0)),
    *(_case(f"length-{label}", safetensors(length=n)) for label, n in NUMBERS.items()),
    _case("length-over-limit", safetensors(length=100_000_001)),
    _case("length-one-less", safetensors(length=len(GOOD) - 25)),
    _case("not-json", safetensors(b'{"w": nonsense}' + b" " * 9)),
    _case("not-utf8", safetensors(b'{"\xff\xfe": 1}')),
    _case("array", GOOD[:8] + b"{" + b"[" * 40, GOOD),
    _case("deep", safetensors(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}")),
    _case("duplicate-name", safetensors(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}')),
    _case("duplicate-key", safetensors(b'{"w":{"dtype":"F32","dtype":"I32","shape":[4],"data_offsets":[0,16]}}')),
    _case("metadata-number", safetensors({"__metadata__": {"a": 1}, "w": entry()}), safetensors({"__metadata__": {"a": "1"}, "w": entry()})),
    _case("metadata-list", safetensors({"__metadata__": [], "w": entry()})),
    _case("shape-negative", safetensors({"w": entry(shape=(-4,))})),
    _case("shape-fraction", safetensors({"w": entry(shape=(4.0,))})),
    _case("shape-boolean", safetensors({"w": entry(shape=(True, 4))})),
    _case("shape-text", safetensors({"w": entry(shape="4")})),
    *(_case(f"shape-{label}", safetensors({"w": entry(shape=(n,))})) for label, n in NUMBERS.items()),
    _case("shape-product-overflows", safetensors({"w": entry(shape=(1 << 32, 1 << 32, 4))})),
    _case("shape-zero-times-huge", safetensors({"w": entry(shape=(1 << 62, 1 << 62, 0), offsets=(0, 0))}, b""), safetensors({"w": entry(shape=(1 << 40, 0), offsets=(0, 0))}, b"")),
    _case("shape-zero-times-huge-in-bytes", safetensors({"w": entry(shape=(1 << 61, 0), offsets=(0, 0))}, b""), safetensors({"w": entry(shape=(1 << 60, 0), offsets=(0, 0))}, b"")),
    _case("shape-thousand-digits", safetensors(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,16]}}')),
    _case("rank-100000", safetensors({"w": entry(shape=(1,) * 100_000, offsets=(0, 4))}, bytes(4)), safetensors({"w": entry(shape=(1,) * 32, offsets=(0, 4))}, bytes(4))),
    _case("overlap", _two((8, 24), bytes(24)), _TWO),
    _case("same-bytes", _two((0, 16), bytes(16)), _TWO),
    _case("hole", _two((20, 36), bytes(36)), _TWO),
    _case("beyond-the-file", _two((1 << 40, (1 << 40) + 16)), _TWO),
    _case("begin-after-end", safetensors({"w": entry(offsets=(16, 0))})),
    _case("offsets-negative", safetensors({"w": entry(offsets=(-16, 0))})),
    _case("offsets-three", safetensors({"w": entry(offsets=(0, 8, 16))})),
    _case("offsets-boolean", safetensors({"w": entry("U8", (1,), (False, True))}, bytes(1)), safetensors({"w": entry("U8", (1,), (0, 1))}, bytes(1))),
    _case("too-few-bytes", safetensors({"w": entry(shape=(5,))})),
    _case("dtype-unknown", safetensors({"w": entry("F7")})),
    _case("dtype-number", safetensors({"w": entry(32)})),
    _case("dtype-missing", safetensors({"w": {"shape": [4], "data_offsets": [0, 16]}})),
    _case("entry-with-more", safetensors({"w": {**entry(), "code": "x"}})),
    _case("entry-no-object", safetensors({"w": [1]})),
    _case("half-a-byte", safetensors({"w": entry("F4", (3,), (0, 2))}, bytes(2)), safetensors({"w": entry("F4", (4,), (0, 2))}, bytes(2))),
    _case("hostile-name", safetensors({_NAME: entry(shape=(5,))}), safetensors({_NAME: entry()})),
    _case("surrogate-name", safetensors(b'{"\\ud800\\u001b[31m":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}}'), safetensors(b'{"\\ud800\\u001b[31m":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}')),
]  # fmt: skip
