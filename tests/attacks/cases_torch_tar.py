"""Hostile and damaged tar files of PyTorch before 0.1.10, each with its good twin."""

from __future__ import annotations

import struct

from tests.attacks.cases_torch import CALLS
from tests.attacks.harness import Case
from tests.attacks.makers import NUMBERS, Op, call, name, op, pickled

_BLOCK = 512
_FLOAT = name("torch", "FloatStorage")
_TENSOR = name("torch", "FloatTensor")


def tar(
    members: list[tuple[str, bytes]] | dict[str, bytes], end: bytes = bytes(1024), **wrong: object
) -> bytes:
    """Return a tar file; ``wrong`` overrides a field of the header of the member called ``storages``."""
    items = list(members.items()) if isinstance(members, dict) else members
    return b"".join(block(path, data, **(wrong if path == "storages" else {})) for path, data in items) + end


def block(path: str, data: bytes, **wrong: object) -> bytes:
    """Return header and data of a member."""
    size = wrong.get("size", b"%011o\0" % len(data))
    head = bytearray(_BLOCK)
    kind, magic = wrong.get("kind", b"0"), wrong.get("magic", b"ustar\x0000")
    for place, field in (
        (0, path.encode()[:100]),
        (100, b"0000644\0"),
        (124, size),
        (136, b"00000000000\0"),
        (156, kind),
        (257, magic),
    ):
        assert isinstance(field, bytes)
        head[place : place + len(field)] = field
    prefix = wrong.get("prefix", b"")
    assert isinstance(prefix, bytes)
    head[345 : 345 + len(prefix)] = prefix
    head[148:156] = b" " * 8
    checksum = wrong.get("checksum", sum(head))
    head[148:156] = b"%06o\0 " % checksum
    return bytes(head) + data + bytes(-len(data) % _BLOCK)


def storages(items: object = None, views: object = (), count: object = None, tail: bytes = b"") -> bytes:
    """Return the member ``storages``: (key, class, number of values, values) each."""
    items = [(7, _FLOAT, 4, struct.pack("<4f", 1, 2, 3, 4))] if items is None else items
    assert isinstance(items, list)
    parts = [pickled(len(items) if count is None else count)]
    for key, kind, size, data in items:
        parts += [pickled((key, "cpu", kind)), struct.pack("<q", size), data]
    return b"".join([*parts, pickled(list(views) if isinstance(views, tuple) else views), tail])  # type: ignore[arg-type]


def tensors(items: object = None, count: object = None, tail: bytes = b"") -> bytes:
    """Return the member ``tensors``: (key, key of the storage, axes, numbers) each."""
    items = [(8, 7, 1, (4, 1, 0))] if items is None else items
    assert isinstance(items, list)
    parts = [pickled(len(items) if count is None else count)]
    for key, storage, axes, numbers in items:
        parts += [pickled((key, storage, _TENSOR)), struct.pack(f"<i4x{len(numbers)}q", axes, *numbers)]
    return b"".join([*parts, tail])


def pid(key: object) -> Op:
    """Return what a pickle says in place of an object of another member."""
    return Op(op(str(key) if isinstance(key, int) else key) + b"Q")


def torch_tar(value: object = None, **members: bytes) -> bytes:
    """Return a file as torch 0.1.9 wrote it; by default one tensor ``w`` of four float32."""
    facts = {"protocol_version": 1000, "little_endian": True, "type_sizes": {"int": 4}}
    parts = {
        "sys_info": pickled(facts), "pickle": pickled({"w": pid(8)} if value is None else value),
        "tensors": tensors(), "storages": storages(),
    }  # fmt: skip
    return tar({**parts, **members})


GOOD = torch_tar()
_PARTS = {
    "sys_info": pickled({"protocol_version": 1000}), "pickle": pickled({"w": pid(8)}), "tensors": tensors(),
    "storages": storages(),
}  # fmt: skip
_BYTES = struct.pack("<4f", 1, 2, 3, 4)


def _tar(id: str, bad: object, good: object = GOOD, get: str = "") -> Case:
    return Case(id, ".pth.tar", bad, good, get)


def _field(id: str, **wrong: object) -> Case:
    return _tar("header-" + id, tar(_PARTS, **wrong), tar(_PARTS))


def _extended(record: bytes, **wrong: object) -> bytes:
    parts = list(_PARTS.items())
    return b"".join([block("x", record, kind=b"x", **wrong), tar(parts)])


_RECORD = b"28 mtime=1490000000.5555555\n"
CASES = [
    *(_tar("calls-" + id, torch_tar({"w": pid(8), "x": code}), torch_tar({"w": pid(8), "x": call(name("mine", "Thing"))})) for id, code in CALLS[:8]),
    _tar("calls-in-storages", torch_tar(storages=storages([(7, call(name("os", "system"), "touch evil"), 4, _BYTES)]))),
    _tar("calls-in-tensors", torch_tar(tensors=pickled(call(name("os", "system"), "touch evil")))),
    _tar("calls-in-sys-info", torch_tar(sys_info=pickled(call(name("os", "system"), "touch evil")))),
    _tar("calls-in-views", torch_tar(storages=storages(views=call(name("os", "system"), "touch evil")))),
    _field("checksum", checksum=1), _field("size-text", size=b"evil"), _field("size-2^62", size=b"\x80" + (1 << 62).to_bytes(11, "big")),
    _field("size-beyond", size=b"77777777777\0"), _field("magic", magic=b"evil"), _field("prefix", prefix=b"../.."),
    *(_field(f"kind-{kind}", kind=kind.encode()) for kind in "123456LS"),
    _tar("member-missing", tar({k: v for k, v in _PARTS.items() if k != "tensors"})),
    _tar("member-twice", tar([*_PARTS.items(), ("storages", storages())])),
    _tar("members-17", tar([*_PARTS.items(), *((f"more{i}", b"") for i in range(13))]), tar([*_PARTS.items(), *((f"more{i}", b"") for i in range(12))])),
    _tar("end-missing", tar(_PARTS, end=b"")), _tar("end-short", tar(_PARTS, end=bytes(512))), _tar("after-end", tar(_PARTS, end=bytes(1024) + b"cos\nsystem\n"), tar(_PARTS, end=bytes(2048))),
    _tar("cut-in-storages", GOOD[:-1500]), _tar("cut-in-header", GOOD[:700]),
    _tar("extended-damaged", _extended(b"99 mtime=1\n"), _extended(_RECORD)), _tar("extended-no-number", _extended(b"evil\n"), _extended(_RECORD)),
    _tar("extended-zero", _extended(b"0 a=b\n"), _extended(_RECORD)), _tar("extended-size-text", _extended(b"10 size=x\n"), _extended(_RECORD)),
    _tar("extended-size-beyond", _extended(b"19 size=9999999999\n"), _extended(_RECORD)), _tar("extended-path", _extended(b"17 path=../evil!\n"), _extended(_RECORD)),
    _tar("extended-many", block("x", _RECORD, kind=b"x") * 100 + tar(_PARTS), block("x", _RECORD, kind=b"x") + tar(_PARTS)),
    _tar("protocol-1001", torch_tar(sys_info=pickled({"protocol_version": 1001}))), _tar("sys-info-number", torch_tar(sys_info=pickled(3))),
    *(_tar(f"storage-{label}", torch_tar(storages=storages([(7, _FLOAT, min(n, 2**63 - 1), _BYTES)]))) for label, n in NUMBERS.items()),
    _tar("storage-negative", torch_tar(storages=storages([(7, _FLOAT, -4, _BYTES)]))), _tar("storage-longer", torch_tar(storages=storages([(7, _FLOAT, 5, _BYTES)]))),
    _tar("storage-shorter", torch_tar(storages=storages([(7, _FLOAT, 3, _BYTES)]))), _tar("storage-twice", torch_tar(storages=storages([(7, _FLOAT, 4, _BYTES)] * 2)), torch_tar(storages=storages([(k, _FLOAT, 4, _BYTES) for k in (7, 9)]))),
    _tar("storage-class", torch_tar(storages=storages([(7, name("torch", "Evil"), 4, _BYTES)]))), _tar("storage-key-text", torch_tar(storages=storages([("../x", _FLOAT, 4, _BYTES)]))),
    _tar("storages-count-more", torch_tar(storages=storages(count=2))), _tar("storages-count-2^62", torch_tar(storages=storages(count=2**62))), _tar("storages-count-text", torch_tar(storages=storages(count="1"))),
    _tar("storages-tail", torch_tar(storages=storages(tail=b"\0"))), _tar("views-no-list", torch_tar(storages=storages(views=3))),
    _tar("view-beyond", torch_tar(storages=storages(views=((9, 7, 2, 3),))), torch_tar(storages=storages(views=((9, 7, 1, 3),)))),
    _tar("view-negative", torch_tar(storages=storages(views=((9, 7, -1, 3),)))), _tar("view-of-nothing", torch_tar(storages=storages(views=((9, 6, 0, 3),)))),
    _tar("tensor-of-nothing", torch_tar(tensors=tensors([(8, 6, 1, (4, 1, 0))]))), _tar("tensor-twice", torch_tar(tensors=tensors([(8, 7, 1, (4, 1, 0))] * 2))),
    _tar("tensor-beyond", torch_tar(tensors=tensors([(8, 7, 1, (4, 1, 1))]))), _tar("tensor-negative", torch_tar(tensors=tensors([(8, 7, 1, (4, -1, 0))]))),
    _tar("tensor-axes-negative", torch_tar(tensors=tensors([(8, 7, -1, (4, 1, 0))]))), _tar("tensor-axes-2^31", torch_tar(tensors=tensors([(8, 7, 2**31 - 1, (4, 1, 0))]))),
    _tar("tensor-2^62", torch_tar(tensors=tensors([(8, 7, 1, (2**62, 0, 0))]))), _tar("tensors-count-more", torch_tar(tensors=tensors(count=2))), _tar("tensors-tail", torch_tar(tensors=tensors(tail=b"x"))),
    _tar("key-unknown", torch_tar({"w": pid(99)})), _tar("key-text", torch_tar({"w": pid("evil")})), _tar("key-of-5000-digits", torch_tar({"w": pid("9" * 5000)})),
    _tar("pickle-tail", torch_tar(pickle=pickled({"w": pid(8)}, tail=b"cos\nsystem\n."))),
]  # fmt: skip
