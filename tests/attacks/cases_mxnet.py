"""Hostile and damaged MXNet ``.params`` files, each with its good twin."""

from __future__ import annotations

import json
import struct

from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
F32, F64, I32, I64 = 0, 1, 4, 6
DENSE, ROW_SPARSE, CSR = 0, 1, 2


def shape(*lengths: int, axes: int | None = None) -> bytes:
    """Return a shape as versions 1 to 3 write it."""
    return struct.pack(f"<i{len(lengths)}q", len(lengths) if axes is None else axes, *lengths)


def dense(
    lengths: tuple[int, ...] = (4,),
    data: bytes = bytes(16),
    dtype: int = F32,
    *,
    magic: int = V2,
    axes: int | None = None,
) -> bytes:
    """Return a dense array of version 1, 2 or 3."""
    storage = b"" if magic == V1 else struct.pack("<i", DENSE)
    return (
        struct.pack("<I", magic)
        + storage
        + shape(*lengths, axes=axes)
        + struct.pack("<iii", 1, 0, dtype)
        + data
    )


def oldest(
    lengths: tuple[int, ...] = (4,), data: bytes = bytes(16), dtype: int = F32, *, axes: int | None = None
) -> bytes:
    """Return an array as it was before version 1: the number of axes, their lengths in 4 bytes, then the rest."""
    head = struct.pack(f"<I{len(lengths)}I", len(lengths) if axes is None else axes, *lengths)
    return head + struct.pack("<iii", 1, 0, dtype) + data


def sparse(
    storage: int,
    lengths: tuple[int, ...],
    stored: tuple[int, ...],
    parts: list[tuple[int, tuple[int, ...]]],
    data: bytes,
    *,
    magic: int = V2,
) -> bytes:
    """Return a sparse array; ``parts`` are the dtypes and shapes of what says where the values belong."""
    head = (
        struct.pack("<Ii", magic, storage) + shape(*stored) + shape(*lengths) + struct.pack("<iii", 1, 0, F32)
    )
    return head + b"".join(struct.pack("<i", dtype) + shape(*own) for dtype, own in parts) + data


def rows(numbers: tuple[int, ...] = (0, 2), length: int = 4, *, magic: int = V2) -> bytes:
    """Return a row_sparse array of ``length`` rows of 2, of which those of ``numbers`` are stored."""
    count = len(numbers)
    data = struct.pack(f"<{2 * count}f{count}q", *range(1, 2 * count + 1), *numbers)
    return sparse(ROW_SPARSE, (length, 2), (count, 2), [(I64, (count,))], data, magic=magic)


def csr(
    starts: tuple[int, ...] = (0, 1, 1, 3), columns: tuple[int, ...] = (1, 0, 2), width: int = 4
) -> bytes:
    """Return a csr array of 3 rows."""
    count = len(columns)
    data = struct.pack(f"<{count}f{len(starts)}q{count}q", *range(1, count + 1), *starts, *columns)
    return sparse(CSR, (3, width), (count,), [(I64, (len(starts),)), (I64, (count,))], data)


def params(
    arrays: dict[str | bytes, bytes] | list[bytes],
    *,
    count: int | None = None,
    named: int | None = None,
    tail: bytes = b"",
    magic: int = 0x112,
    reserved: int = 0,
) -> bytes:
    """Return a file of arrays by name, or of a list of them."""
    names = [n.encode() if isinstance(n, str) else n for n in arrays] if isinstance(arrays, dict) else []
    records = list(arrays.values()) if isinstance(arrays, dict) else arrays
    body = struct.pack("<QQQ", magic, reserved, len(records) if count is None else count) + b"".join(records)
    body += struct.pack("<Q", len(names) if named is None else named)
    return body + b"".join(struct.pack("<Q", len(name)) + name for name in names) + tail


GOOD = params({"w": dense()})
SWEEPS = [
    Sweep("changed.params", params({"arg:w": dense(), "aux:w_running_mean": dense((2, 1), bytes(16), F64, magic=V3), "v": dense(magic=V1), "o": oldest()})),
    Sweep("sparse.params", params({"r": rows(), "c": csr()})),
]  # fmt: skip


def _case(id: str, bad: bytes, good: bytes = GOOD, get: str = "") -> Case:
    return Case(id, ".params", bad, good, get)


def _array(id: str, bad: bytes, good: bytes | None = None, get: str = "") -> Case:
    return _case(id, params({"w": bad}), GOOD if good is None else params({"w": good}), get)


def _rows(id: str, bad: bytes) -> Case:
    return _array(id, bad, rows())


def _graph(*nodes: object) -> bytes:
    return json.dumps({"nodes": nodes}).encode()


_VARIABLE = {"op": "null", "name": "w", "inputs": []}
_GOOD_GRAPH = _graph(_VARIABLE, {"op": "FullyConnected", "name": "f", "inputs": [[0, 0, 0]]})


def _symbol(id: str, bad: bytes) -> Case:
    """Return a checkpoint in a folder of its own: a graph is found by the name of the file beside it."""
    names = "net-0000.params", "net-symbol.json"
    return Case(
        id, "", dict(zip(names, (GOOD, bad), strict=True)), dict(zip(names, (GOOD, _GOOD_GRAPH), strict=True))
    )


def _taking(*inputs: object) -> bytes:
    return _graph(_VARIABLE, {"op": "f", "name": "f", "inputs": list(inputs)})


def _many_without_shape() -> bytes:
    """Return a file of 4 MB with a million arrays that have no shape."""
    return params([bytes(4)] * 1_000_000)


_NAME = "\x1b[2J\u202e\x00../../etc/passwd"
_ROWS_OF = {"w": sparse(ROW_SPARSE, (1 << 40, 1 << 10), (0, 1 << 10), [(I64, (0,))], b"")}
_FEW_ROWS = {"w": sparse(ROW_SPARSE, (1 << 10, 1 << 10), (0, 1 << 10), [(I64, (0,))], b"")}

CASES = [
    _case("only-magic", GOOD[:16]),
    _case("cut-in-count", GOOD[:20]),
    _case("cut-in-head", GOOD[:40]),
    _case("cut-in-data", GOOD[:70]),
    _case("cut-before-names", GOOD[:-17]),
    _case("cut-in-name", GOOD[:-1]),
    _case("another-reserved", params({"w": dense()}, reserved=1)),
    _case("another-magic", params({"w": dense()}, magic=0x113)),
    *(_case(f"count-{label}", params({"w": dense()}, count=n)) for label, n in NUMBERS.items()),
    *(_case(f"names-{label}", params({"w": dense()}, named=n)) for label, n in NUMBERS.items()),
    _case("one-name-for-two", params({"w": dense() + dense()}, count=2), params({"w": dense(), "v": dense()})),
    _case("two-names-for-one", params({"w": dense(), "v": b""}, count=1), params({"w": dense(), "v": dense()})),
    _case("name-twice", params([dense(), dense()], named=2, tail=(struct.pack("<Q", 1) + b"w") * 2), params({"w": dense(), "v": dense()})),
    _case("name-not-utf8", params({b"\xff\xfe": dense()})),
    *(_case(f"name-length-{label}", params([dense()], named=1, tail=struct.pack("<Q", n) + b"w")) for label, n in NUMBERS.items()),
    _case("hostile-name", params({_NAME: dense((5,))}), params({_NAME: dense()})),
    *(_array(f"length-{label}", dense((n,))) for label, n in NUMBERS.items() if n < 1 << 63),
    _array("length-negative", dense((-4,))),
    _array("product-overflows", dense((1 << 32, 1 << 32, 4))),
    _array("zero-times-huge", dense((0, 1 << 62, 1 << 62), b"", magic=V3), dense((0, 1 << 40), b"", magic=V3)),
    _array("zero-times-huge-in-bytes", dense((0, 1 << 61), b""), dense((0, 1 << 40), b"")),
    _rows("rows-of-nothing", sparse(ROW_SPARSE, (1 << 61, 0), (0, 0), [(I64, (0,))], b"")),
    _array("axes-65", dense((1,) * 65, bytes(4)), dense((1,) * 32, bytes(4))),
    _array("axes-huge", dense(axes=(1 << 31) - 1)),
    _array("axes-negative", dense(axes=-2)),
    _array("too-few-bytes", dense((40,))),
    *(_array(f"dtype-{n}", dense(dtype=n)) for n in (13, -1, 255, (1 << 31) - 1)),
    *(_array(f"storage-{n}", struct.pack("<Ii", V2, n) + dense()[8:]) for n in (-1, 3, 1 << 30)),
    _array("magic-next", dense(magic=0xF993FACB)),
    _array("magic-zero-axes-many", oldest(axes=65)),
    _array("oldest-too-few-bytes", oldest((1 << 31, 1 << 31)), oldest((2, 2))),
    _array("oldest-cut-in-shape", oldest((4,), axes=64), oldest((4,))),
    Case("many-without-shape", ".params", _many_without_shape, params([oldest((1,), bytes(4))] * 100)),
    _rows("rows-other-width", sparse(ROW_SPARSE, (4, 2), (2, 3), [(I64, (2,))], bytes(40))),
    _rows("rows-more-than-there-are", rows((0, 1, 2, 3, 4))),
    _rows("rows-other-count", sparse(ROW_SPARSE, (4, 2), (2, 2), [(I64, (3,))], bytes(40))),
    _rows("rows-count-huge", sparse(ROW_SPARSE, (1 << 40, 2), (1 << 40, 2), [(I64, (1 << 40,))], bytes(40))),
    _rows("rows-numbers-of-floats", sparse(ROW_SPARSE, (4, 2), (2, 2), [(F64, (2,))], bytes(32))),
    _rows("rows-no-shape", struct.pack("<Ii", V2, ROW_SPARSE) + shape(axes=-1) + rows()[32:]),
    _rows("rows-in-version-3", rows(magic=V3)),
    _array("rows-twice", rows((2, 2)), rows(), "w"),
    _array("rows-descending", rows((2, 0)), rows(), "w"),
    _array("rows-negative", rows((-1, 2)), rows(), "w"),
    _array("rows-outside", rows((0, 4)), rows(), "w"),
    _case("rows-of-zeros", params(_ROWS_OF), params(_FEW_ROWS), "w"),
    _array("csr-of-three-axes", sparse(CSR, (3, 4, 1), (1,), [(I64, (4,)), (I64, (1,))], bytes(44)), csr()),
    _array("csr-too-few-starts", csr((0, 1, 3)), csr()),
    _array("csr-other-count", sparse(CSR, (3, 4), (3,), [(I64, (4,)), (I64, (2,))], bytes(60)), csr()),
    _array("csr-rows-huge", sparse(CSR, (1 << 60, 4), (1,), [(I64, ((1 << 60) + 1,)), (I64, (1,))], bytes(60)), csr()),
    _array("csr-starts-not-at-zero", csr((1, 1, 1, 3)), csr(), "w"),
    _array("csr-starts-beyond", csr((0, 1, 1, 4)), csr(), "w"),
    _array("csr-starts-fall", csr((0, 3, 1, 3)), csr(), "w"),
    _array("csr-starts-negative", csr((0, -1, 1, 3)), csr(), "w"),
    _array("csr-column-outside", csr(columns=(1, 0, 4)), csr(), "w"),
    _array("csr-column-negative", csr(columns=(-1, 0, 2)), csr(), "w"),
    _array("csr-columns-descending", csr(columns=(1, 2, 0)), csr(), "w"),
    _array("csr-column-twice", csr(columns=(1, 2, 2)), csr(), "w"),
    _symbol("graph-not-json", b"{"),
    _symbol("graph-not-utf8", b'{"nodes": "\xff"}'),
    _symbol("graph-deep", b'{"nodes":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    _symbol("graph-without-nodes", b"{}"),
    _symbol("graph-node-is-text", _graph("w")),
    _symbol("graph-node-without-name", _graph({"op": "null", "inputs": []})),
    _symbol("graph-name-is-a-list", _graph({"op": "null", "name": [], "inputs": []})),
    _symbol("graph-key-twice", b'{"nodes": [], "nodes": []}'),
    *(_symbol(f"graph-takes-{label}", _taking(n)) for label, n in {"itself": [1, 0, 0], "later": [2, 0, 0], "negative": [-1, 0, 0], "true": [False, 0], "text": ["w"], "nothing": [], "number": 0}.items()),
    _symbol("graph-too-long", b" " * ((1 << 24) + 1)),
]  # fmt: skip
