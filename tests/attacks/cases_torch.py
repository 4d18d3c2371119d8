"""Hostile and damaged PyTorch files, zip and legacy, each with its good twin."""

from __future__ import annotations

import json
import struct

from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import (
    NUMBERS,
    Op,
    call,
    member,
    name,
    op,
    pickled,
    storage,
    tensor,
    torch_legacy,
    torch_zip,
    zipped,
)

_LENGTHS = {"as_int": 4}
_DESCRIBED = {
    "dtype": 7, "sizes": [_LENGTHS], "strides": [{"as_int": 1}], "storage_offset": {"as_int": 0},
    "requires_grad": True, "device": {"type": "cpu", "index": None}, "layout": 7,
}  # fmt: skip


def exported(meta: object = None, values: bytes = bytes(16), config: object = None, **facts: object) -> bytes:
    """Return an archive of torch.export with one weight of four float32."""
    meta = _DESCRIBED if meta is None else meta
    entry = {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": meta, **facts}
    config = {"config": {"w": entry}} if config is None else config
    described = config if isinstance(config, bytes) else json.dumps(config).encode()
    return zipped([
        member("m/archive_format", b"pt2"), member("m/archive_version", b"0"),
        member("m/data/weights/weight_0", values),
        member("m/data/weights/model_weights_config.json", described),
    ])  # fmt: skip


GOOD = torch_zip()
LEGACY = torch_legacy()
_EVIL = "touch evil"


def _zip(id: str, bad: object, good: object = GOOD, get: str = "") -> Case:
    return Case("zip-" + id, ".pt", bad, good, get)


def _pickle(id: str, value: object, good: object | None = None) -> Case:
    bad = torch_zip(value if type(value) is bytes else pickled({"w": tensor(), "x": value}))
    return _zip(id, bad, GOOD if good is None else torch_zip(pickled({"w": tensor(), "x": good})))


def _tensor(id: str, **wrong: object) -> Case:
    return _zip("tensor-" + id, torch_zip(pickled({"w": tensor(**wrong)})))  # type: ignore[arg-type]


def _legacy(id: str, bad: object, good: object = LEGACY) -> Case:
    return Case("legacy-" + id, ".pt", bad, good)


def _laughs(depth: int) -> Op:
    """Return a list of nine of the same list, ``depth`` times over: nine to the power of values."""
    code = b"]q\x00K\x01a"
    for slot in range(1, depth):
        code += b"0](" + b"h" + bytes([slot - 1]) + (b"h" + bytes([slot - 1])) * 8 + b"eq" + bytes([slot])
    return Op(code)


_DATA = member("archive/data.pkl", pickled({"w": tensor()}))
_STORAGE = member("archive/data/0", bytes(16))
_SYSTEM = name("os", "system")

CALLS = [
    ("os-system", call(_SYSTEM, _EVIL)),
    ("posix-system", call(name("posix", "system"), _EVIL)),
    ("nt-system", call(name("nt", "system"), _EVIL)),
    ("eval", call(name("builtins", "eval"), "1")),
    ("exec-python2", call(name("__builtin__", "execfile"), "x")),
    ("import", call(name("builtins", "__import__"), "os")),
    ("popen", call(name("subprocess", "Popen"), _EVIL)),
    ("check-output", call(name("subprocess", "check_output"), _EVIL)),
    ("commands", call(name("commands", "getoutput"), _EVIL)),
    ("runpy", call(name("runpy", "_run_code"), _EVIL)),
    ("code-interpreter", call(name("code", "InteractiveInterpreter"))),
    ("webbrowser", call(name("webbrowser", "open"), "x")),
    ("pickle-loads", call(name("pickle", "loads"), "x")),
    ("marshal", call(name("marshal", "loads"), "x")),
    ("ctypes", call(name("ctypes", "CDLL"), "x")),
    ("socket", call(name("socket", "create_connection"), ("localhost", 1))),
    ("open", call(name("builtins", "open"), "/etc/passwd")),
    ("getattr-chain", call(call(name("builtins", "getattr"), _SYSTEM, "__call__"), _EVIL)),
    ("getattr-module", call(call(name("builtins", "getattr"), name("os", "path"), "os"), _EVIL)),
    ("map", call(name("builtins", "map"), _SYSTEM, [_EVIL])),
    ("partial-called", call(call(name("functools", "partial"), _SYSTEM), _EVIL)),
    ("newobj", Op(_SYSTEM + op((_EVIL,)) + b"\x81")),
    ("newobj-ex", Op(_SYSTEM + op((_EVIL,)) + b"}\x92")),
    ("inst", Op(b"(" + op(_EVIL) + b"ios\nsystem\n")),
    ("obj", Op(b"(" + _SYSTEM + op(_EVIL) + b"o")),
    ("stack-global", Op(op("os") + op("system") + b"\x93" + op((_EVIL,)) + b"R")),
    ("stack-global-from-memo", Op(op("os") + b"q\x07" + b"0" + op("system") + b"q\x080h\x07h\x08\x93" + op((_EVIL,)) + b"R")),
    ("extension-registry", Op(b"\x82\x01" + op((_EVIL,)) + b"R")),
    ("reconstructor", call(name("copyreg", "_reconstructor"), _SYSTEM, name("builtins", "object"), None)),
    ("newobj-function", call(name("copyreg", "__newobj__"), _SYSTEM, _EVIL)),
    ("build-on-global", Op(name("os", "environ") + op({"PATH": "evil"}) + b"b")),
    ("dotted", Op(op("builtins") + op("str.format") + b"\x93" + op(("x",)) + b"R")),
    ("submodule", call(name("os.path", "exists"), "/")),
    ("python2-module", call(name("__builtin__", "eval"), "1")),
    ("calling-text", call("os.system", _EVIL)),
    ("calling-result", call(call(name("mine", "Thing")), _EVIL)),
]  # fmt: skip


def _export(id: str, bad: bytes) -> Case:
    return Case("export-" + id, ".pt2", bad, exported())


def _meta(id: str, **wrong: object) -> Case:
    return _export(id, exported({**_DESCRIBED, **wrong}))


SWEEPS = [Sweep("changed.pt", GOOD), Sweep("changed.pt2", exported())]
CASES = [
    *(_meta(f"size-{label}", sizes=[{"as_int": n}]) for label, n in NUMBERS.items()), _meta("size-text", sizes=[{"as_int": "4"}]), _meta("size-symbolic", sizes=[{"as_expr": "s0"}]), _meta("sizes-number", sizes=4), _meta("sizes-none", sizes=None),
    _meta("stride-2^62", strides=[{"as_int": 1 << 62}]), _meta("stride-negative", strides=[{"as_int": -1}]), _meta("strides-two", strides=[{"as_int": 1}] * 2), _meta("offset-1", storage_offset={"as_int": 1}), _meta("offset-negative", storage_offset={"as_int": -1}), _meta("offset-none", storage_offset=None),
    _meta("dtype-0", dtype=0), _meta("dtype-list", dtype=[7]), _meta("dtype-wider", dtype=8), _export("values-fewer", exported(values=bytes(15))), _export("values-none", exported(path_name="weight_1")), _export("values-climb", exported(path_name="../archive_format/x")), _export("values-number", exported(path_name=[0])),
    _export("config-none", exported(config={})), _export("config-list", exported(config={"config": []})), _export("config-entries", exported(config={"config": {"w": 1}})), _export("config-deep", exported(config=b'{"config": ' + b"[" * 100_000)), _export("config-twice", exported(config=b'{"config": {}, "config": {}}')), _export("config-cut", exported(config=b'{"config": {"w"')),
    *(_pickle("calls-" + id, code, call(name("mine", "Thing"), "x")) for id, code in CALLS),
    _pickle("no-opcode", Op(b"\xff")), _pickle("stack-empty", Op(b"R")), _pickle("memo-missing", Op(b"h\xfe")),
    _pickle("memo-far", Op(b"j\xff\xff\xff\xff")), _pickle("no-mark", b"\x80\x02e."), _pickle("only-stop", b"."),
    _pickle("two-values-left", b"\x80\x02NN."), _pickle("protocol-6", b"\x80\x06N."), _pickle("no-stop", b"\x80\x02N"),
    _pickle("bytes-after-stop", pickled({"w": tensor()}, tail=b"cos\nsystem\n.")),
    _pickle("integer-2^31-bytes", Op(b"\x8b\xff\xff\xff\x7f")), _pickle("text-2^32", Op(b"X\xff\xff\xff\xff")),
    _pickle("bytes-2^64", Op(b"\x8e" + b"\xff" * 8)), _pickle("frame-2^64", Op(b"\x95" + b"\xff" * 8 + b"\x8e" + b"\xff" * 8)),
    _pickle("integer-5000-digits", Op(b"I" + b"9" * 5000 + b"\n")), _pickle("out-of-band", Op(b"\x97")),
    _pickle("not-utf8", Op(b"X\x02\0\0\0\xff\xfe")), _pickle("string-unquoted", Op(b"Sevil\n")),
    _pickle("key-list", Op(b"}]Ns")), _pickle("key-deep", Op(b"}" + b")" + b"\x85" * 50_000 + b"Ns")),
    _pickle("key-colliding", Op(b"}" + op(2**61 - 1) + b"Ns")), _pickle("odd-items", Op(b"}(Nu")),
    _pickle("set-in-dict", Op(b"N" + op(1) + op(2) + b"s")), _pickle("bytes-of-10^12", call(name("builtins", "bytearray"), 10**12)),
    _pickle("list-of-range", call(name("builtins", "list"), call(name("builtins", "range"), 10**12))),
    _pickle("deep-lists", Op(b"]" * 100_000 + b"a" * 99_999), [[[]]]), _pickle("deep-marks", Op(b"(" * 200_000)),
    _pickle("many-sets", Op(b"(" + b"\x8f" * 900_000 + b"t"), Op(b"(\x8f\x8ft")),
    _pickle("sets-in-a-list", Op(b"]" + b"\x8fa" * 500_000), Op(b"]\x8fa")),
    _pickle("many-marks", Op(b"(" * 1_000_000)),
    _pickle("laughs", _laughs(40), _laughs(3)),
    _pickle("persistent-unknown", Op(op(("thing", 1)) + b"Q")), _pickle("persistent-text", Op(b"P1\n")),
    _pickle("rebuild-no-arguments", call(name("torch._utils", "_rebuild_tensor_v2"))),
    _pickle("rebuild-of-text", call(name("torch._utils", "_rebuild_tensor_v2"), "x", 0, (1,), (1,), False, None)),
    _tensor("storage-missing", of=storage("9")), _tensor("storage-type-unknown", of=storage("0", "EvilStorage")),
    _tensor("storage-claims-more", of=storage("0", "FloatStorage", 5)),
    *(_tensor(f"storage-{label}", of=storage("0", "FloatStorage", n)) for label, n in NUMBERS.items()),
    _tensor("storage-negative", of=storage("0", "FloatStorage", -4)), _tensor("key-traversal", of=storage("../../data.pkl")),
    _tensor("beyond-storage", offset=1), _tensor("offset-negative", offset=-1), _tensor("offset-2^62", offset=2**62),
    *(_tensor(f"shape-{label}", shape=(n,)) for label, n in NUMBERS.items()),
    _tensor("shape-negative", shape=(-1,)), _tensor("shape-overflows", shape=(2**40, 2**40), strides=(0, 0)),
    _tensor("shape-text", shape="4"), _tensor("stride-negative", strides=(-1,)), _tensor("stride-missing", strides=()),
    _tensor("stride-2^62", strides=(2**62,)), _tensor("stride-zero-bomb", shape=(10**12,), strides=(0,)),
    _tensor("rank-1000", shape=(1,) * 1000, strides=(1,) * 1000),
    _zip("byteorder-evil", torch_zip(byteorder=b"middle"), torch_zip(byteorder=b"little")),
    _zip("cut-in-directory", GOOD[:-30]), _zip("cut-in-storage", GOOD[: len(GOOD) // 2]), _zip("cut-in-header", GOOD[:20]),
    _zip("byte-after-end", GOOD + b"\n"),
    _zip("duplicate-pickle", zipped([_DATA, _DATA, _STORAGE])), _zip("overlap", zipped([_DATA, {**_STORAGE, "offset": 0}])),
    _zip("local-name-differs", zipped([{**_DATA, "local_path": b"archive/evil.pkl"}, _STORAGE])),
    _zip("local-size-differs", zipped([_DATA, {**_STORAGE, "local_size": 4}])),
    _zip("encrypted", zipped([_DATA, {**_STORAGE, "flags": 1}])), _zip("count-wrong", zipped([_DATA, _STORAGE], count=3)),
    _zip("pickle-bomb", lambda: zipped([member("archive/data.pkl", b"\x80\x02" + b"]" * (80 << 20), method=8), _STORAGE])),
    _legacy("cut-in-magic", LEGACY[:10]), _legacy("cut-in-pickle", LEGACY[:120]), _legacy("cut-in-keys", LEGACY[:-30]),
    _legacy("cut-in-count", LEGACY[:-20]), _legacy("cut-one-byte", LEGACY[:-1]), _legacy("tail", torch_legacy(tail=b"\0")),
    _legacy("second-pickle", torch_legacy(tail=pickled(1))), _legacy("protocol-1002", torch_legacy(protocol=1002)),
    *(_legacy(f"count-{label}", torch_legacy(counts=(n,))) for label, n in NUMBERS.items()),
    _legacy("count-negative", torch_legacy(counts=(-4,))), _legacy("keys-missing", torch_legacy(keys=())),
    _legacy("keys-other", torch_legacy(keys=("7",))), _legacy("keys-no-list", torch_legacy(keys=3)),
    _legacy("storage-2^62", torch_legacy({"w": tensor(storage("0", "FloatStorage", 2**62, None))}, counts=(2**62,))),
    _legacy("view-beyond", torch_legacy({"w": tensor(storage("0", "FloatStorage", 4, ("v", 2, 3)))}), torch_legacy({"w": tensor(storage("0", "FloatStorage", 4, ("v", 0, 4)))})),
    _legacy("calls", torch_legacy({"w": tensor(storage("0", "FloatStorage", 4, None)), "x": call(_SYSTEM, _EVIL)})),
    _legacy("sizes-differ", torch_legacy({"w": tensor(storage("0", "FloatStorage", 4, None)), "v": tensor(storage("0", "FloatStorage", 3, None), shape=(3,))})),
    _legacy("magic-only", struct.pack("<BB", 0x80, 2) + b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
]  # fmt: skip
