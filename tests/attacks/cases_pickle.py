"""Hostile and damaged plain pickles, and dumps of joblib, each with its good twin."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import zlib
from functools import partial

from tests.attacks.cases_torch import CALLS
from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS, Op, call, name, op, pickled, storage, tensor, torch_legacy

_RAW = struct.pack("<4f", 1, 2, 3, 4)
_KEEP = object()


def dtype(code: object = "f4", order: object = "<") -> Op:
    """Return a NumPy dtype."""
    return Op(
        call(name("numpy", "dtype"), code, False, True) + op((3, order, None, None, None, -1, -1, 0)) + b"b"
    )


def array(
    shape: object = (4,), of: object = _KEEP, raw: object = _RAW, fortran: object = False, version: object = 1
) -> Op:
    """Return a NumPy array as protocols below 5 hold it."""
    made = call(name("numpy._core.multiarray", "_reconstruct"), name("numpy", "ndarray"), (0,), b"b")
    return Op(made + op((version, shape, dtype() if of is _KEEP else of, fortran, raw)) + b"b")


def buffer(shape: object = (4,), of: object = _KEEP, raw: object = _RAW, order: object = "C") -> Op:
    """Return a NumPy array as protocol 5 holds it."""
    return call(name("numpy._core.numeric", "_frombuffer"), raw, dtype() if of is _KEEP else of, shape, order)


def jax(args: object = _KEEP) -> Op:
    """Return a JAX array."""
    state = (1, (4,), dtype(), False, _RAW)
    inner = (
        name("numpy._core.multiarray", "_reconstruct"),
        (name("numpy", "ndarray"), (0,), b"b"),
        state,
    )
    return call(
        name("jax._src.array", "_reconstruct_array"),
        *(inner if args is _KEEP else args),
        {"weak_type": False},
    )  # type: ignore[misc]


def joblib(
    shape: object = (4,),
    of: object = _KEEP,
    order: object = "C",
    alignment: object = None,
    raw: bytes = _RAW,
    **more: object,
) -> Op:
    """Return what joblib writes: a description, then the values among the opcodes."""
    state = {
        "subclass": name("numpy", "ndarray"),
        "shape": shape,
        "order": order,
        "dtype": dtype() if of is _KEEP else of,
        "allow_mmap": True,
        "numpy_array_alignment_bytes": alignment,
        **more,
    }
    return Op(name("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81" + op(state) + b"b" + raw)


def plain_storage(content: object = None) -> Op:
    """Return a storage of a plainly pickled tensor: a legacy file of torch as a byte string."""
    content = torch_legacy(storage("0", "FloatStorage", 4, None)) if content is None else content
    return call(name("torch.storage", "_load_from_bytes"), content)


def _pkl(id: str, value: object, good: object = _KEEP, suffix: str = ".pkl") -> Case:
    """A pickle of a dictionary with the value, unless it is bytes already."""
    return Case(
        id,
        suffix,
        value if type(value) is bytes else pickled({"w": value}),
        GOOD if good is _KEEP else good if type(good) is bytes else pickled({"w": good}),
    )


def _array(id: str, **wrong: object) -> Case:
    return _pkl("array-" + id, array(**wrong))  # type: ignore[arg-type]


def _buffer(id: str, **wrong: object) -> Case:
    return _pkl("buffer-" + id, buffer(**wrong), buffer())  # type: ignore[arg-type]


def _joblib(id: str, **wrong: object) -> Case:
    return _pkl("joblib-" + id, joblib(**wrong), joblib(), ".joblib")  # type: ignore[arg-type]


def _torch(id: str, content: bytes) -> Case:
    return _pkl("tensor-" + id, tensor(plain_storage(content)), tensor(plain_storage()))


def _changed(content: bytes) -> bytes:
    """Return the bytes with the one in their middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]


GOOD = pickled({"w": array(), "n": 3})
_LEGACY = torch_legacy(storage("0", "FloatStorage", 4, None))
_ENGINES = {
    "zlib": zlib.compress, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
    "lzma": partial(lzma.compress, format=lzma.FORMAT_ALONE),
}  # fmt: skip
_INSIDE = {  # what a compressed file holds
    "nothing": b"", "text": b"hello", "bomb": bytes(100 << 20), "compressed": zlib.compress(GOOD),
    "calls": pickled(call(name("os", "system"), "touch evil")), "cut-inside": GOOD[:-1],
}  # fmt: skip
_TEXT = b"(dp0\nVw\np1\nI3\ns."
SWEEPS = [
    Sweep("changed.pkl", GOOD),
    Sweep("zlib.pkl", zlib.compress(GOOD)),
    Sweep("xz.pkl", lzma.compress(GOOD)),
    Sweep("changed.joblib", pickled({"w": joblib(), "v": buffer(), "t": tensor(plain_storage())})),
]
CASES = [
    *(_pkl("calls-" + id, code, call(name("mine", "Thing"), "x")) for id, code in CALLS),
    _pkl("calls-protocol-0", b"(dp0\nVw\np1\ncposix\nsystem\n(Vtouch evil\ntRs.", _TEXT), _pkl("calls-in-dtype", array(of=call(name("os", "system"), "touch evil"))),
    _pkl("calls-second-pickle", GOOD + pickled(call(name("os", "system"), "touch evil")), GOOD + pickled(3)), _pkl("bytes-after", GOOD + b"\0"), _pkl("text-after", GOOD + b"hello", GOOD + pickled("hello")),
    _pkl("pickles-1001", pickled(None) * 1001, pickled(None) * 1000), _pkl("persistent", Op(op(("storage", 1)) + b"Q")), _pkl("persistent-text", Op(b"P1\n")),
    _pkl("cut", GOOD[:-20]), _pkl("cut-one", GOOD[:-1]), _pkl("protocol-6", b"\x80\x06}."), _pkl("protocol-0-cut", b"(dp0\nVw\np1\nI3\nsV.", _TEXT), _pkl("no-opcode", Op(b"\xff")),
    *(_pkl(f"compressed-{engine}", magic + bytes(60)) for engine, magic in (("zstd", b"\x28\xb5\x2f\xfd"), ("lz4", b"\x04\x22\x4d\x18"))),
    *(_pkl(f"compressed-{engine}-{id}", compress(bad) if id in _INSIDE else bad, compress(GOOD)) for engine, compress in _ENGINES.items() for id, bad in {**_INSIDE, "cut": compress(GOOD)[:-1], "half": compress(GOOD)[:40], "tail": compress(GOOD) + b"\0", "only-its-mark": compress(GOOD)[:3] + bytes(40), "changed": _changed(compress(GOOD))}.items()),
    _pkl("deep", Op(b"]" * 100_000 + b"a" * 99_999), [[[]]]), _pkl("bytes-2^64", Op(b"\x8e" + b"\xff" * 8)), _pkl("bytes-2^31", Op(b"B\xff\xff\xff\x7f")), _pkl("line-endless", b"(dp0\nVw\np1\nV" + b"x" * 3_000_000 + b".", _TEXT),
    *(_array(f"shape-{label}", shape=(n,)) for label, n in NUMBERS.items()), _array("shape-text", shape=("4",)), _array("shape-negative", shape=(-4,)), _array("shape-more", shape=(5,)), _array("shape-rank-100", shape=(1,) * 100),
    _array("shape-overflows", shape=(2**32, 2**32, 0, 2**32)), _array("bytes-fewer", raw=_RAW[:8]), _array("bytes-beyond-latin", raw="\u20ac" * 16), _array("dtype-wider", of=dtype("f8")),
    *(_buffer(f"shape-{label}", shape=(n,)) for label, n in list(NUMBERS.items())[::2]), _buffer("bytes-fewer", raw=_RAW[:8]),
    _pkl("jax-shape", jax((name("numpy._core.multiarray", "_reconstruct"), (), (1, (2**62,), dtype(), False, _RAW))), jax()),
    *(_joblib(f"shape-{label}", shape=(n,)) for label, n in NUMBERS.items()), _joblib("shape-none", shape=None), _joblib("shape-negative", shape=(-4,)), _joblib("dtype-none", of=None), _joblib("dtype-unknown", of=dtype("evil")),
    _joblib("dtype-2^62", of=dtype("V4611686018427387904")), _joblib("values-fewer", raw=_RAW[:9]), _joblib("values-more", raw=_RAW + b"evil"), _joblib("padding-beyond", alignment=16, raw=b"\xff" + _RAW),
    _pkl("joblib-object-calls", joblib(of=dtype("O8"), raw=pickled(call(name("os", "system"), "touch evil"))), joblib(), ".joblib"),
    _pkl("joblib-object-cut", joblib(of=dtype("O8"), raw=b"\x80\x02]"), joblib(), ".joblib"),
    _torch("cut", _LEGACY[:-1]), _torch("tail", _LEGACY + b"\0"), _torch("empty", b""), _torch("text", b"evil" * 9), _torch("is-a-value", torch_legacy(3, counts=(), data=b"", keys=())), _torch("calls", torch_legacy(call(name("os", "system"), "touch evil"), counts=(), data=b"", keys=())),
    _torch("size-2^62", torch_legacy(storage("0", "FloatStorage", 2**62, None), counts=(2**62,))), _pkl("tensor-storage-text", tensor(call(name("torch.storage", "_load_from_bytes"), "x")), tensor(plain_storage())),
]  # fmt: skip
