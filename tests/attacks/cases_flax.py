"""Hostile and damaged Flax msgpack files, each with its good twin."""

from __future__ import annotations

import struct

from tests.attacks.harness import Case, Sweep


class Raw(bytes):
    """Bytes of msgpack, spliced in among values."""


def pack(value: object) -> bytes:
    """Return a value in msgpack, as Flax packs it."""
    if isinstance(value, Raw):
        return bytes(value)
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return (
            bytes([value])
            if 0 <= value < 128
            else b"\xd3" + struct.pack(">q", value)
            if value < 1 << 63
            else b"\xcf" + struct.pack(">Q", value)
        )
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        return (bytes([0xA0 | len(raw)]) if len(raw) < 32 else b"\xdb" + struct.pack(">I", len(raw))) + raw
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, list):
        return (
            bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdd" + struct.pack(">I", len(value))
        ) + b"".join(map(pack, value))
    if isinstance(value, dict):
        start = bytes([0x80 | len(value)]) if len(value) < 16 else b"\xdf" + struct.pack(">I", len(value))
        return start + b"".join(pack(k) + pack(v) for k, v in value.items())
    raise TypeError(type(value))


def extension(code: int, payload: bytes, length: int | None = None) -> Raw:
    """Return an extension with a length of four bytes."""
    return Raw(b"\xc9" + struct.pack(">Ib", len(payload) if length is None else length, code) + payload)


def ndarray(
    shape: object = (4,),
    dtype: object = "float32",
    data: object = bytes(16),
    code: int = 1,
    more: bytes = b"",
) -> Raw:
    """Return an array; by default four float32."""
    return extension(code, pack([list(shape) if isinstance(shape, tuple) else shape, dtype, data]) + more)


def chunked(shape: object = None, chunks: object = None, **more: object) -> dict[str, object]:
    """Return a chunked array; by default 2 x 4 float32 in two chunks."""
    shape = {"0": 2, "1": 4} if shape is None else shape
    chunks = {"0": ndarray(), "1": ndarray()} if chunks is None else chunks
    return {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks, **more}


W = ndarray()
GOOD = pack({"w": W})
GOOD_CHUNKED = pack({"w": chunked()})
GOOD_STATE = pack(
    {"step": 1, "params": {"a": {"kernel": W}}, "opt_state": {"0": {"mu": {"a": {"kernel": W}}}}}
)
_NUMBERS = {"2^31": 1 << 31, "2^32-1": (1 << 32) - 1}
_KEY = pack("w")


def _case(id: str, bad: bytes, good: bytes = GOOD, get: str = "") -> Case:
    return Case(id, ".msgpack", bad, good, get)


def _of(id: str, value: object, good: object = W, get: str = "") -> Case:
    return _case(id, pack({"w": value}), pack({"w": good}), get)


def _chunks(id: str, **wrong: object) -> Case:
    return _case("chunked-" + id, pack({"w": chunked(**wrong)}), GOOD_CHUNKED)


def _deep(levels: int) -> bytes:
    return b"\x81" + _KEY + (b"\x81" + _KEY) * levels + bytes(W)


def _lists(levels: int) -> bytes:
    return b"\x81" + _KEY + b"\x91" * levels + b"\x01"


SWEEPS = [Sweep("changed.msgpack", GOOD_STATE), Sweep("chunked.msgpack", GOOD_CHUNKED)]
CASES = [
    _case("empty", b""), _case("only-map", GOOD[:1]), _case("only-key", GOOD[:3]), _case("cut-in-extension", GOOD[:12]),
    _case("cut-in-values", GOOD[:-8]), _case("cut-one-byte", GOOD[:-1]), _case("one-byte-more", GOOD + b"\0"), _case("two-values", GOOD + GOOD),
    _case("map-of-fifteen", b"\x8f" + GOOD[1:]), _case("map-empty", b"\x80"),
    *(_case(f"map-{label}", b"\xdf" + struct.pack(">I", n) + GOOD[1:]) for label, n in _NUMBERS.items()),
    *(_of(f"array-{label}", Raw(b"\xdd" + struct.pack(">I", n) + b"\xc0"), [None]) for label, n in _NUMBERS.items()),
    *(_of(f"text-{label}", Raw(b"\xdb" + struct.pack(">I", n) + b"x"), "x") for label, n in _NUMBERS.items()),
    *(_of(f"bytes-{label}", Raw(b"\xc6" + struct.pack(">I", n) + b"x"), b"x") for label, n in _NUMBERS.items()),
    *(_of(f"extension-{label}", extension(1, bytes(W)[6:], n)) for label, n in _NUMBERS.items()),
    _of("text-of-17-megabytes", Raw(pack("x" * (17 << 20))), "x"),
    _case("deep-maps", _deep(100_000), _deep(100)), _case("deep-arrays", _lists(100_000), _lists(100)), _case("deep-by-one", _deep(128), _deep(127)),
    _case("key-twice", b"\x82" + GOOD[1:] + GOOD[1:], pack({"w": W, "v": W})), _case("key-array", b"\x82" + GOOD[1:] + b"\x91\x01\x01", pack({"w": W, 1: 1})),
    _case("key-map", b"\x82" + GOOD[1:] + b"\x80\x01"), _case("key-extension", b"\x82" + GOOD[1:] + bytes(W) + b"\x01"), _case("key-none", b"\x82" + GOOD[1:] + b"\xc0\x01"),
    _case("key-not-utf8", b"\x82" + GOOD[1:] + b"\xa1\xff\x01"), _of("text-not-utf8", Raw(b"\xa2\xff\xfe"), "xx"), _of("never-used-byte", Raw(b"\xc1"), None),
    _of("extension-type-0", ndarray(code=0)), _of("extension-type-4", ndarray(code=4)), _of("extension-type-127", ndarray(code=127)),
    _of("extension-timestamp", extension(-1, bytes(8))), _of("extension-pickle", extension(42, b"cos\nsystem\n(S'touch evil'\ntR.")),
    _of("objects", ndarray(dtype="object", data=b"cos\nsystem\n(S'touch evil'\ntR.")), _of("objects-of-eight-bytes", ndarray((2,), "object", bytes(16))),
    _of("array-empty", extension(1, b"")), _of("array-of-pickle", extension(1, b"\x80\x02cos\nsystem\n.")), _of("array-of-two", extension(1, pack([[4], "float32"]))),
    _of("array-goes-on", ndarray(more=b"\0")), _of("array-map", extension(1, pack({"shape": [4], "dtype": "float32", "data": bytes(16)}))),
    _of("array-data-text", ndarray(data="x" * 16)), _of("array-data-extension", ndarray(data=W)), _of("array-dtype-number", ndarray(dtype=4)), _of("array-shape-number", ndarray(shape=4)),
    _of("shape-negative", ndarray((-4,))), _of("shape-fraction", ndarray((4.0,))), _of("shape-boolean", ndarray((True, 4))), _of("shape-text", ndarray(("4",))),
    _of("shape-less", ndarray((3,))), _of("shape-more", ndarray((5,))), _of("shape-terabytes", ndarray((10**12,))), _of("shape-2^62", ndarray((1 << 62,))), _of("shape-2^64-1", ndarray(((1 << 64) - 1,))),
    _of("shape-overflows", ndarray((1 << 32, 1 << 32, 4))), _of("shape-zero-times-huge", ndarray((1 << 62, 1 << 62, 0), data=b""), ndarray((1 << 40, 0), data=b"")),
    _of("rank-100000", ndarray((1,) * 100_000, data=bytes(4)), ndarray((1,) * 32, data=bytes(4))),
    _of("scalar-too-long", ndarray((), data=bytes(16), code=3), ndarray((), data=bytes(4), code=3)),
    _of("dtype-wider", ndarray(dtype="float64")), _of("dtype-unknown", ndarray(dtype="nothing"), get="w"), _of("dtype-text", ndarray((1,), "str128", bytes(16)), get="w"),
    _of("complex-one", extension(2, pack([1.0])), extension(2, pack([1.0, 2.0]))), _of("complex-texts", extension(2, pack(["1", "2"])), extension(2, pack([1.0, 2.0]))),
    _of("complex-goes-on", extension(2, pack([1.0, 2.0]) + b"\0"), extension(2, pack([1.0, 2.0]))), _of("complex-empty", extension(2, b""), extension(2, pack([1.0, 2.0]))),
    _chunks("without-chunks", chunks={}), _chunks("chunk-missing", chunks={"0": W, "2": W}), _chunks("chunk-number", chunks={0: W, 1: W}), _chunks("chunks-list", chunks=[W, W]),
    _chunks("shape-list", shape=[2, 4]), _chunks("shape-hole", shape={"0": 2, "2": 4}), _chunks("shape-more", shape={"0": 3, "1": 4}), _chunks("shape-less", shape={"0": 1, "1": 4}),
    _chunks("shape-terabytes", shape={"0": 10**12}), _chunks("shape-negative", shape={"0": -2, "1": -4}), _chunks("key-more", code="evil"),
    _chunks("dtypes-differ", chunks={"0": W, "1": ndarray(dtype="int32")}), _chunks("chunk-not-flat", chunks={"0": ndarray((2, 2)), "1": W}),
    _chunks("chunk-no-array", chunks={"0": W, "1": 4}), _chunks("chunk-bytes", chunks={"0": W, "1": bytes(16)}), _chunks("chunk-complex", chunks={"0": W, "1": extension(2, pack([1.0, 2.0]))}),
    _chunks("objects", chunks={"0": ndarray((2,), "object"), "1": ndarray((2,), "object")}), _chunks("chunk-longer", chunks={"0": ndarray(data=bytes(20)), "1": W}),
]  # fmt: skip
