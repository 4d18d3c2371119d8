"""Hostile and damaged distributed checkpoints of PyTorch, each with its good twin."""

from __future__ import annotations

import struct

from tests.attacks.cases_torch import CALLS
from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS, Op, call, name, op, pickled, storage, tensor, torch_zip

_MODULE = "torch.distributed.checkpoint.metadata"
_EVIL = "touch evil"
_VALUES = struct.pack("<4f", 1, 2, 3, 4)


def chunk(value: object = None, data: bytes = _VALUES) -> bytes:
    """Return a chunk: a file of ``torch.save``, by default of four float32."""
    return torch_zip(pickled(tensor() if value is None else value), {"0": data})


def made(kind: str, state: object, module: str = _MODULE) -> Op:
    """Return an object of a class of the metadata with a state."""
    return Op(name(module, kind) + b")\x81" + op(state) + b"b")


def size(*lengths: object) -> Op:
    """Return a ``torch.Size``."""
    return call(name("torch", "Size"), lengths)


def entry(shape: object = (4,), chunks: object = None, dtype: object = None) -> Op:
    """Return what the metadata say of a tensor; a chunk is (offsets, sizes)."""
    chunks = [((0,), (4,))] if chunks is None else chunks
    dtype = name("torch", "float32") if dtype is None else dtype
    properties = made("TensorProperties", (dtype, "torch.strided", False, None, False))
    if isinstance(chunks, list):
        chunks = [made("ChunkStorageMetadata", {"offsets": _size(o), "sizes": _size(s)}) for o, s in chunks]
    return made("TensorStorageMetadata", {"properties": properties, "size": _size(shape), "chunks": chunks})


def _size(value: object) -> object:
    return size(*value) if isinstance(value, tuple) else value


def place(
    name_: object = "w",
    offsets: object = (0,),
    shard: object = "__0_0.distcp",
    first: object = 0,
    length: object = None,
    **more: object,
) -> bytes:
    """Return the opcodes of key and value of a place."""
    length = len(chunk()) if length is None else length
    key = {"fqn": name_, "index": 0} | ({} if offsets is None else {"offset": _size(offsets)})
    info = {"relative_path": shard, "offset": first, "length": length, **more}
    return made("MetadataIndex", key) + made("_StorageInfo", info, "torch.distributed.checkpoint.filesystem")


def metadata(entries: object = None, places: object = None, planner: object = None, **more: object) -> bytes:
    """Return ``.metadata``; by default of one tensor ``w`` in one chunk."""
    entries = {"w": entry()} if entries is None else entries
    places = [place()] if places is None else places
    where = Op(b"}(" + b"".join(places) + b"u") if isinstance(places, list) else places
    state = {"state_dict_metadata": entries, "planner_data": planner, "storage_data": where, **more}
    return pickled(made("Metadata", state))


def folder(meta: bytes | None = None, shard: object = None, **more: object) -> dict[str, object]:
    """Return a checkpoint of one shard."""
    files = {
        ".metadata": metadata() if meta is None else meta,
        "__0_0.distcp": chunk() if shard is None else shard,
        **more,
    }
    return {path: data for path, data in files.items() if data != b""}


GOOD = folder()
_VALUE = {"w": entry(), "n": made("BytesStorageMetadata", {})}
_TWO = chunk() + torch_zip(pickled(3), {})


def _with_value(value: bytes, **wrong: object) -> dict[str, object]:
    """Return a checkpoint with a value ``n`` beside the tensor."""
    where = [place(), place("n", None, first=len(chunk()), length=len(value), **wrong)]
    return folder(metadata(_VALUE, where), chunk() + value)


_PLAIN = _with_value(torch_zip(pickled(3), {}))


def _dcp(id: str, bad: object, good: object = GOOD, get: str = "") -> Case:
    return Case(id, "", bad, good, get)


def _meta(id: str, **wrong: object) -> Case:
    return _dcp(id, folder(metadata(**wrong)))  # type: ignore[arg-type]


def _entry(id: str, **wrong: object) -> Case:
    return _meta("entry-" + id, entries={"w": entry(**wrong)})  # type: ignore[arg-type]


def _place(id: str, **wrong: object) -> Case:
    return _meta("place-" + id, places=[place(**wrong)])  # type: ignore[arg-type]


def _chunk(id: str, bad: bytes) -> Case:
    """A chunk that is refused when it is read; its length in the metadata is right."""
    return _dcp("chunk-" + id, folder(metadata(places=[place(length=len(bad))]), bad), get="w")


_HALVES = [((0,), (2,)), ((2,), (2,))]
_HALF = torch_zip(pickled(tensor(storage("0", "FloatStorage", 2), shape=(2,))), {"0": bytes(8)})


def _halves(chunks: object = None, second: object = (2,)) -> dict[str, object]:
    where = [place(length=len(_HALF)), place(offsets=second, first=len(_HALF), length=len(_HALF))]
    return folder(metadata({"w": entry(chunks=chunks or _HALVES)}, where), _HALF * 2)


SWEEPS = [
    Sweep(".metadata", metadata(), (("__0_0.distcp", chunk()),)),
    Sweep("__0_0.distcp", chunk(), ((".metadata", metadata()),)),
]
CASES = [
    *(_dcp("calls-" + id, folder(metadata(extra=code)), folder(metadata(extra=call(name("mine", "Thing"))))) for id, code in CALLS[:8]),
    *(_dcp("value-calls-" + id, _with_value(torch_zip(pickled(code), {})), _PLAIN) for id, code in CALLS[8:16]),
    *(_chunk("calls-" + id, chunk(code)) for id, code in CALLS[16:22]),
    _dcp("shard-missing", folder(shard=b"")), _dcp("shard-empty", {".metadata": metadata(), "__0_0.distcp": b"\0"}),
    _dcp("shard-is-a-link", folder(shard="../outside"), GOOD), _dcp("shard-is-a-link-inside", {**folder(shard="other"), "other": chunk()}, {**GOOD, "other": chunk()}),
    _dcp("metadata-cut", folder(metadata()[:-9])), _dcp("metadata-second-pickle", folder(metadata() + pickled(1))),
    _dcp("metadata-is-a-list", folder(pickled([made("Metadata", {}), "torch.distributed.checkpoint.metadata"]))),
    *(_place("shard-" + id, shard=path) for id, path in (("climbs", "../__0_0.distcp"), ("absolute", "/etc/passwd"), ("dot", "."), ("empty", ""), ("nul", "a\0b"), ("number", 3), ("deep", "a/" * 40 + "b"), ("metadata", "missing"))),
    *(_place(f"offset-{label}", first=n) for label, n in NUMBERS.items()), *(_place(f"length-{label}", length=n) for label, n in NUMBERS.items()),
    _place("offset-negative", first=-1), _place("length-negative", length=-1), _place("offset-text", first="0"), _place("offset-one-more", first=1),
    _place("name-number", name_=3), _place("offsets-text", offsets="0"), _place("offsets-other", offsets=(1,)), _place("name-other", name_="v"), _place("transforms-text", transform_descriptors="zstd"),
    _meta("places-none", places=Op(b"N")), _meta("places-empty", places=[]), _meta("place-twice", places=[place(), place()]), _meta("place-no-state", places=[b"K\1K\2"]),
    _meta("entries-none", entries=3), _meta("entries-by-number", entries={3: entry()}), _meta("entry-number", entries={"w": 3}), _meta("entry-class", entries={"w": made("Thing", {})}),
    _entry("dtype-text", dtype="float32"), _entry("size-text", shape="4"), _entry("size-negative", shape=(-4,)), _entry("size-other", shape=(5,)), _entry("chunks-none", chunks=3), _entry("chunks-empty", chunks=[]),
    *(_entry(f"size-{label}", shape=(n,), chunks=[((0,), (n,))]) for label, n in NUMBERS.items()), *(_entry(f"offset-{label}", chunks=[((n,), (4,))]) for label, n in NUMBERS.items()),
    _entry("rank-100", shape=(1,) * 100, chunks=[((0,) * 100, (1,) * 100)]), _entry("chunk-larger-than-its-bytes", shape=(10**6,), chunks=[((0,), (10**6,))]), _entry("chunk-text", chunks=[("0", "4")]),
    _dcp("halves-overlap", _halves([((0,), (2,)), ((1,), (2,))], (1,)), _halves()), _dcp("halves-leave-out", _halves([((0,), (2,))]), _halves()), _dcp("halves-twice", _halves([((0,), (2,)), ((0,), (2,))]), _halves()),
    _dcp("halves-beyond", _halves([((0,), (2,)), ((3,), (2,))], (3,)), _halves()), _dcp("halves-of-two-axes", _halves([((0, 0), (2, 1)), ((2,), (2,))]), _halves()),
    _chunk("cut", chunk()[:-30]), _chunk("text", b"#!/bin/sh\n" * 40), _chunk("is-a-value", chunk(3)), _chunk("shape", chunk(tensor(shape=(2, 2), strides=(2, 1)))),
    _chunk("dtype", chunk(tensor(storage(kind="IntStorage")))), _chunk("storage-missing", torch_zip(pickled(tensor(storage("9"))), {"0": _VALUES})), _chunk("storage-short", chunk(data=_VALUES[:8])),
    _chunk("tail", chunk() + b"\0"), _chunk("beyond-storage", chunk(tensor(offset=1))), _chunk("no-pickle", torch_zip(b"", {})),
    _dcp("value-missing", folder(metadata(_VALUE)), _PLAIN), _dcp("value-cut", _with_value(torch_zip(pickled(3), {})[:-10]), _PLAIN), _dcp("value-is-text", _with_value(b"evil" * 30), _PLAIN),
]  # fmt: skip
