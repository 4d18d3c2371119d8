"""Builds TensorFlow checkpoints byte by byte, with right checksums: any one thing can be made wrong."""

from __future__ import annotations

import struct

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def crc32c(data: bytes, crc: int = 0) -> int:
    """Return the CRC-32C, bit by bit."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """Return the CRC-32C as TensorFlow stores it."""
    return mask(crc32c(data))


def mask(crc: int) -> int:
    """Return a CRC-32C as TensorFlow stores it."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number: int) -> bytes:
    """Return a number as protocol buffers and LevelDB write it; a negative one as of 64 bits."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: object) -> bytes:
    """Return a field: a varint for an integer, else the bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    assert isinstance(data, bytes)
    return varint(number << 3 | 2) + varint(len(data)) + data


def fixed32(number: int, value: int) -> bytes:
    """Return a field of four bytes."""
    return varint(number << 3 | 5) + struct.pack("<I", value)


# Tables


def block(entries, restarts=None, shared=True) -> bytes:
    """Return the content of a block; keys share what they can with the key before."""
    out, last = bytearray(), b""
    for key, value in entries:
        common = 0
        while shared and common < min(len(key), len(last)) and key[common] == last[common]:
            common += 1
        out += varint(common) + varint(len(key) - common) + varint(len(value)) + key[common:] + value
        last = key
    return bytes(out) + points([0] if restarts is None else restarts)


def points(restarts) -> bytes:
    """Return the restart points at the end of a block."""
    return struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def closed(content: bytes, kind: int = 0, crc: int | None = None) -> bytes:
    """Return a block with its type and checksum."""
    return (
        content + bytes([kind]) + struct.pack("<I", masked(content + bytes([kind])) if crc is None else crc)
    )


def table(*blocks, meta=None, index=None, footer=None, after=b"") -> bytes:
    """Return a table of blocks, each a list of entries or ``(content, type, last key)``."""
    out, handles = b"", []
    for part in blocks:
        content, kind, *last = part if isinstance(part, tuple) else (block(part), 0, part[-1][0])
        handles.append((last[0] if last else b"\xff", varint(len(out)) + varint(len(content))))
        out += closed(content, kind)
    places = []
    for content in (block([]) if meta is None else meta, block(handles) if index is None else index(handles)):
        places += [len(out), len(content)]
        out += closed(content)
    packed = b"".join(map(varint, places)) if footer is None else footer(places)
    return out + after + packed.ljust(40, b"\0") + MAGIC


def snappy(data: bytes) -> bytes:
    """Compress: literals, and copies of the three kinds where four bytes were there before."""
    out, seen, literal, place = bytearray(varint(len(data))), {}, bytearray(), 0

    def flush():
        for start in range(0, len(literal), 300):
            piece = literal[start : start + 300]
            length = len(piece) - 1
            out.extend(bytes([length << 2]) if length < 60 else struct.pack("<BH", 61 << 2, length))
            out.extend(piece)
        literal.clear()

    while place < len(data):
        key = data[place : place + 4]
        start = seen.get(key)
        seen[key] = place
        if start is None or len(key) < 4:
            literal.append(data[place])
            place += 1
            continue
        flush()
        length, distance = 4, place - start
        while length < 64 and place + length < len(data) and data[start + length] == data[place + length]:
            length += 1
        if length < 12 and distance < 2048:
            out += bytes([distance >> 8 << 5 | length - 4 << 2 | 1, distance & 0xFF])
        elif length % 2:
            out += struct.pack("<BH", length - 1 << 2 | 2, distance)
        else:
            out += struct.pack("<BI", length - 1 << 2 | 3, distance)
        place += length
    flush()
    return bytes(out)


# Bundles


def header(shards=1, order=0, needs=None) -> bytes:
    """Return the value of the first key."""
    version = field(1, 1) + (b"" if needs is None else field(2, needs))
    return field(1, shards) + (field(2, order) if order else b"") + field(3, version)


def dims(shape) -> bytes:
    """Return a shape."""
    return b"".join(field(2, field(1, length)) for length in shape)


def extents(*pairs) -> bytes:
    """Return a slice: start and length along each axis; ``None`` for all of it."""
    return b"".join(
        field(1, b"" if pair is None else (field(1, pair[0]) if pair[0] else b"") + field(2, pair[1]))
        for pair in pairs
    )


def entry(
    data=bytes(16), dtype=1, shape=(4,), offset=0, size=None, shard=0, crc=None, slices=(), more=b""
) -> bytes:
    """Return what the index says about a tensor; by default four float32."""
    fields = [field(1, dtype), field(2, dims(shape))]
    fields += [field(3, shard)] if shard else []
    fields += [field(4, offset)] if offset else []
    fields += [field(5, len(data) if size is None else size)]
    fields += [] if slices and crc is None else [fixed32(6, masked(data) if crc is None else crc)]
    return b"".join([*fields, *(field(7, one) for one in slices), more])


def bundle(entries=None, data=bytes(16), head=None, name="m", shards=1, pack=None) -> dict[str, bytes]:
    """Return the files of a checkpoint; by default one tensor ``w`` of four float32 in one shard."""
    entries = {"w": entry()} if entries is None else entries
    rows = [(b"", header(shards) if head is None else head)]
    rows += [(key.encode() if isinstance(key, str) else key, value) for key, value in entries.items()]
    parts = [data] if isinstance(data, bytes) else data
    made = table(rows) if pack is None else table((pack(block(rows)), 1))
    return {f"{name}.index": made} | {
        f"{name}.data-{i:05d}-of-{shards:05d}": part for i, part in enumerate(parts)
    }


# The graph of objects


def node(children=(), values=(), slots=(), more=b"") -> bytes:
    """Return an object: children ``(name, node)``, values ``(full name, key)``, slots of three each."""
    out = b"".join(field(1, (field(1, child) if child else b"") + field(2, name)) for name, child in children)
    for value in values:
        what, full, key = value if len(value) == 3 else ("VARIABLE_VALUE", *value)
        out += field(2, field(1, what) + field(2, full) + field(3, key))
    for variable, slot, own in slots:
        out += field(3, field(1, variable) + field(2, slot) + field(3, own))
    return out + more


def text(data: bytes) -> tuple[bytes, int]:
    """Return how a scalar string is stored, and its checksum."""
    length = crc32c(struct.pack("<I", len(data)))
    check = struct.pack("<I", mask(length))
    return varint(len(data)) + check + data, mask(crc32c(check + data, length))


def objects(nodes, values, graph=None, **more) -> dict[str, bytes]:
    """Return a checkpoint of float32 vectors by their keys, with a graph of these objects."""
    data, entries = b"", {}
    stored, crc = text(b"".join(field(1, one) for one in nodes) if graph is None else graph)
    entries[GRAPH] = entry(stored, 7, (), 0, crc=crc)
    data += stored
    for key, value in values.items():
        raw = struct.pack(f"<{len(value)}f", *value)
        entries[key] = entry(raw, shape=(len(value),), offset=len(data))
        data += raw
    return bundle(dict(sorted(entries.items())), data, **more)


def saved_model(files, graph=None) -> dict[str, bytes]:
    """Return the files of a SavedModel around those of a checkpoint called ``variables``."""
    info = field(4, "serve") + field(5, "2.21.0")
    signature = field(1, "serving_default") + field(2, b"")
    graph = field(1, info) + field(5, signature) if graph is None else graph
    made = {f"variables/{name}": content for name, content in files.items()}
    return {"saved_model.pb": field(1, 1) + field(2, graph)} | made
