"""Builds the small files of each format byte by byte, so that any one byte can be made wrong."""

from __future__ import annotations

import json
import struct
import zlib

NUMBERS = {
    "2^31": 1 << 31,
    "2^32": 1 << 32,
    "2^53": 1 << 53,
    "2^62": 1 << 62,
    "2^63": 1 << 63,
    "2^64-1": (1 << 64) - 1,
}


def safetensors(header: object = None, data: bytes = bytes(16), length: int | None = None) -> bytes:
    """Return a safetensors file; by default one tensor ``w`` of four float32."""
    if header is None:
        header = {"w": entry()}
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: object = "F32", shape: object = (4,), offsets: object = (0, 16)) -> dict[str, object]:
    """Return an entry of a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


class Op(bytes):
    """Opcodes, spliced in among literals."""


def op(value: object) -> bytes:
    """Return the opcodes (protocol 2, but for bytes) that make a literal."""
    if isinstance(value, Op):
        return bytes(value)
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        size = (value.bit_length() + 8) // 8
        return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(raw)) + raw
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(op, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(op, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(op(k) + op(v) for k, v in value.items()) + b"u"
    raise TypeError(type(value))


def name(module: str, attribute: str) -> Op:
    """Return GLOBAL."""
    return Op(b"c" + f"{module}\n{attribute}\n".encode())


def call(target: object, *args: object) -> Op:
    """Return REDUCE."""
    return Op(op(target) + op(args) + b"R")


def storage(key: object = "0", kind: object = "FloatStorage", size: object = 4, *more: object) -> Op:
    """Return the persistent id of a storage."""
    kind = name("torch", kind) if isinstance(kind, str) else kind
    return Op(op(("storage", kind, key, "cpu", size, *more)) + b"Q")


def tensor(of: Op | None = None, offset: object = 0, shape: object = (4,), strides: object = (1,)) -> Op:
    """Return a tensor as ``torch._utils._rebuild_tensor_v2`` makes it."""
    of = storage() if of is None else of
    hooks = call(name("collections", "OrderedDict"))
    return call(name("torch._utils", "_rebuild_tensor_v2"), of, offset, shape, strides, False, hooks)


def pickled(value: object, tail: bytes = b"") -> bytes:
    """Return a pickle of protocol 2."""
    return b"\x80\x02" + op(value) + b"." + tail


def member(path: str, data: bytes, **wrong: int | bytes | str) -> dict[str, object]:
    """Describe a member of a zip; ``wrong`` overrides a field, ``local_X`` in the local header only."""
    return {"path": path, "data": data, **wrong}


def zipped(members: list[dict[str, object]], comment: bytes = b"", **wrong: int) -> bytes:
    """Return a zip file whose fields may lie."""
    body, directory = b"", b""
    for m in members:
        path, data = str(m["path"]).encode(), m["data"]
        assert isinstance(data, bytes)
        size = m.get("size", len(data))
        method = m.get("method", 0)
        stored = data
        if method == 8 and "raw" not in m:
            engine = zlib.compressobj(9, zlib.DEFLATED, -15)
            stored = engine.compress(data) + engine.flush()
        crc, compressed = m.get("crc", zlib.crc32(data)), m.get("compressed", len(stored))
        offset, flags = m.get("offset", len(body)), m.get("flags", 0)
        fields = ("flags", "method", "crc", "compressed", "size")
        values = (flags, method, crc, compressed, size)
        local = [m.get(f"local_{field}", value) for field, value in zip(fields, values, strict=True)]
        local_path = m.get("local_path", path)
        head = struct.pack(
            "<4s5H3I2H", b"PK\3\4", 20, local[0], local[1], 0, 0, *local[2:], len(local_path), 0
        )
        body += head + local_path + stored
        directory += (
            struct.pack(
                "<4s6H3I5H2I",
                b"PK\1\2",
                20,
                20,
                flags,
                method,
                0,
                0,
                crc,
                compressed,
                size,
                len(path),
                0,
                0,
                0,
                0,
                0,
                offset,
            )
            + path
        )
    count = wrong.get("count", len(members))
    end = struct.pack(
        "<4s4H2IH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF,
        wrong.get("directory_size", len(directory)),
        wrong.get("directory_offset", len(body)), wrong.get("comment_length", len(comment)),
    )  # fmt: skip
    return body + directory + end + comment


def torch_zip(data: bytes | None = None, records: dict[str, bytes] | None = None, **more: bytes) -> bytes:
    """Return a torch zip file with the pickle ``data`` and the storages ``records``."""
    data = pickled({"w": tensor()}) if data is None else data
    records = {"0": bytes(16)} if records is None else records
    members = [member("archive/data.pkl", data)]
    members += [member(f"archive/{path}", content) for path, content in more.items()]
    members += [member(f"archive/data/{key}", content) for key, content in records.items()]
    return zipped(members)


def torch_legacy(
    value: object = None,
    keys: object = ("0",),
    counts: tuple[int, ...] = (4,),
    data: bytes = bytes(16),
    protocol: int = 1001,
    tail: bytes = b"",
) -> bytes:
    """Return a legacy torch file; one storage of four float32 by default."""
    value = {"w": tensor(storage("0", "FloatStorage", 4, None))} if value is None else value
    system = {
        "protocol_version": protocol,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    pickles = [
        0x1950A86A20F9469CFC6C,
        protocol,
        system,
        value,
        list(keys) if isinstance(keys, tuple) else keys,
    ]
    storages = b"".join(struct.pack("<Q", count & (2**64 - 1)) + data for count in counts)
    return b"".join(map(pickled, pickles)) + storages + tail


def npy(descr: str = "'<f4'", shape: str = "(4,)", data: bytes = bytes(16), header: bytes | None = None,
        length: int | None = None, version: int = 1) -> bytes:  # fmt: skip
    """Return a ``.npy`` file."""
    text = (
        f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
        if header is None
        else header
    )
    size = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text + data
