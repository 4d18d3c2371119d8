"""Hostile and damaged TensorFlow checkpoints, each with its good twin; checksums are right unless said."""

from __future__ import annotations

import struct

from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS
from tests.attacks.tensorflow_files import (
    GRAPH,
    SUFFIX,
    block,
    bundle,
    dims,
    entry,
    extents,
    field,
    fixed32,
    header,
    node,
    objects,
    points,
    saved_model,
    snappy,
    table,
    text,
    varint,
)

GOOD = bundle()
_INDEX, _DATA = GOOD["m.index"], GOOD["m.data-00000-of-00001"]
_KEY = "a" + SUFFIX
_NAME = "\x1b[2J\u202e/../../etc/passwd"


def _case(id: str, bad: dict, good: dict = GOOD, get: str = "") -> Case:
    return Case(id, "", bad, good, get)


def _index(bad: bytes, good: dict = GOOD) -> dict:
    return {**good, "m.index": bad}


def _data(bad: bytes) -> dict:
    return {**GOOD, "m.data-00000-of-00001": bad}


def _w(**of: object) -> dict:
    return bundle({"w": entry(**of)})


_ROWS = [(b"", header()), (b"w", entry())]
_BLOCK = block(_ROWS)


def _table(**of: object) -> dict:
    return _index(table(_ROWS, **of))


def _block(content: bytes, kind: int = 0) -> dict:
    return _index(table((content, kind)))


def _raw_block(shared: int = 0, rest: int = 1, length: int | None = None, key: bytes = b"w") -> bytes:
    value = entry()
    first = varint(0) + varint(0) + varint(len(header())) + header()
    return (
        first
        + varint(shared)
        + varint(rest)
        + varint(len(value) if length is None else length)
        + key
        + value
        + points([0])
    )


def _packed(body: bytes, size: int = len(_BLOCK)) -> dict:
    return _block(varint(size) + body, 1)


def _literal(data: bytes) -> bytes:
    return struct.pack("<BH", 61 << 2, len(data) - 1) + data


_SNAPPY = bundle(pack=snappy)
_TWO = bundle({"a": entry(), "b": entry(offset=16)}, bytes(32))
_TIED = bundle({"a": entry(), "b": entry()})
_SHARDED = bundle({"a": entry(), "b": entry(shard=1)}, [bytes(16), bytes(16)], shards=2)


def _without(files: dict, name: str) -> dict:
    return {key: value for key, value in files.items() if key != name}


def _halves(offset: int = 8) -> dict:
    halves = {
        b"\0w\0\1\1\1" + key: entry(bytes(8), shape=(2,), offset=place)
        for key, place in ((b"\x80\x82", 0), (b"\x82\x82", offset))
    }
    return bundle({**halves, "w": entry(b"", shape=(4,), slices=(extents((0, 2)), extents((2, 2))))})


def _parts(
    first=((0, 3), None),
    second=((3, 1), None),
    shape=(4, 1),
    dtype=1,
    keys=(b"\x80\x83", b"\x83\x81"),
    offset=12,
) -> dict:
    slices = (extents(*first), extents(*second))
    name = b"\0w\0\1\1\2"
    return bundle({
        name + keys[0] + b"\x80\x7f": entry(bytes(12), shape=(3, 1)),
        name + keys[1] + b"\x80\x7f": entry(bytes(4), dtype, shape=(1, 1), offset=offset),
        "w": entry(b"", shape=shape, slices=slices),
    })  # fmt: skip


_SLICED = _parts()


def _graph(*nodes: bytes, graph: bytes | None = None, values: dict | None = None) -> dict:
    return objects(nodes, {_KEY: [1, 2]} if values is None else values, graph)


_TEXT, _CRC = text(field(1, b""))
_A = node(values=[("a", _KEY)])
_HELD = _graph(node([("a", 1)]), _A)
_SLOTS = _graph(
    node([("a", 1), ("o", 2)]),
    _A,
    node(slots=[(1, "m", 3)]),
    node(values=[("m", "m" + SUFFIX)]),
    values={_KEY: [1], "m" + SUFFIX: [2]},
)


def _chain(length: int) -> dict:
    return _graph(*(node([("n", i + 1)]) for i in range(length)), _A)


def _ladder(rungs: int, graph_only: bool = False) -> dict:
    """Return a graph in which the number of paths doubles with each rung: all of them are one variable's names."""
    nodes = [node([("l", i + 1), ("r", i + 1)]) for i in range(rungs)]
    return _graph(*nodes, _A, *([node([("x", 1 << 20)])] if graph_only else []))


def _long(count: int, length: int = 1000) -> dict:
    """Return a graph of one long name with many variables below."""
    keys = [f"{i:05d}{SUFFIX}" for i in range(count)]
    below = node([(f"{i:05d}", 2 + i) for i in range(count)])
    return _graph(
        node([("n" * length, 1)]),
        below,
        *(node(values=[("", key)]) for key in keys),
        values={key: [1] for key in keys},
    )


_SAVED = saved_model(bundle(name="variables"))
_LATEST = {**GOOD, "checkpoint": b'model_checkpoint_path: "m"\n'}


def _latest(path: bytes) -> dict:
    return {**_LATEST, "checkpoint": b'model_checkpoint_path: "' + path + b'"\n'}


def _far_keys(count: int) -> dict:
    """Return an index whose keys, written out, are far longer than the file."""
    rows = [(b"", header())] + [(b"k" * 2000 + struct.pack(">I", i), entry()) for i in range(count)]
    return _index(table(rows))


def _cut(files: dict, name: str, length: int) -> dict:
    return {**files, name: files[name][:length]}


SWEEPS = [
    Sweep("m.index", _INDEX, (("m.data-00000-of-00001", _DATA),)),
    Sweep("m.data-00000-of-00001", _HELD["m.data-00000-of-00001"], (("m.index", _HELD["m.index"]),)),
    Sweep("s.index", _SLICED["m.index"], (("s.data-00000-of-00001", _DATA),)),
    Sweep("p.index", _SNAPPY["m.index"], (("p.data-00000-of-00001", _DATA),)),
]
CASES = [
    _case("empty", _index(b"")),
    _case("only-footer", _index(_INDEX[-48:])),
    _case("cut-at-start", _index(_INDEX[1:])),
    _case("a-hole-before-the-footer", _table(after=b"\0" * 9)),
    _case("footer-with-more", _table(footer=lambda p: b"".join(map(varint, [*p, 7])))),
    _case("footer-cut", _table(footer=lambda p: b"\xff" * 40)),
    *(_case(f"index-at-{label}", _table(footer=lambda p, n=n: b"".join(map(varint, [p[0], p[1], n, p[3]])))) for label, n in NUMBERS.items()),
    *(_case(f"index-of-{label}", _table(footer=lambda p, n=n: b"".join(map(varint, [*p[:3], n])))) for label, n in NUMBERS.items()),
    _case("index-is-the-first-block", _table(footer=lambda p: b"".join(map(varint, [p[0], p[1], 0, len(_BLOCK)])))),
    _case("meta-is-the-first-block", _table(footer=lambda p: b"".join(map(varint, [0, len(_BLOCK), *p[2:]])))),
    _case("meta-not-empty", _table(meta=block([(b"filter", b"x")]))),
    _case("block-named-twice", _table(index=lambda h: block([(b"x", h[0][1]), (b"y", h[0][1])]))),
    _case("block-named-nowhere", _index(table(_ROWS, _ROWS, index=lambda h: block(h[:1])))),
    _case("block-of-2^62", _table(index=lambda h: block([(b"x", varint(0) + varint(1 << 62))]))),
    _case("block-handle-cut", _table(index=lambda h: block([(b"x", b"\x80")]))),
    _case("block-handle-with-more", _table(index=lambda h: block([(b"x", h[0][1] + b"\0")]))),
    _case("no-block", _index(table(index=lambda h: block([])))),
    _case("index-behind-the-keys", _table(index=lambda h: block([(b"a", h[0][1])]))),
    _case("block-type-7", _block(_BLOCK, 7)),
    _case("block-crc", _index(_INDEX[:5] + b"\xff" + _INDEX[6:])),
    _case("block-too-short", _block(b"\0\0")),
    _case("no-restart-points", _block(_BLOCK[:-8] + struct.pack("<I", 0))),
    *(_case(f"restart-points-{label}", _block(_BLOCK[:-4] + struct.pack("<I", n & 0xFFFFFFFF or 9))) for label, n in NUMBERS.items()),
    _case("restart-point-in-a-key", _block(block(_ROWS, restarts=[0, 3]))),
    _case("restart-point-beyond", _block(block(_ROWS, restarts=[0, 1 << 31]))),
    _case("restart-point-shares", _block(block([*_ROWS, (b"ww", entry(offset=16))], restarts=[0, len(_BLOCK) - 8])), bundle({"w": entry(), "ww": entry(offset=16)}, bytes(32))),
    _case("key-shares-more-than-there-is", _block(_raw_block(shared=5)), _block(_raw_block())),
    *(_case(f"key-of-{label}", _block(_raw_block(rest=n)), _block(_raw_block())) for label, n in NUMBERS.items()),
    *(_case(f"value-of-{label}", _block(_raw_block(length=n)), _block(_raw_block())) for label, n in NUMBERS.items()),
    _case("keys-out-of-order", bundle({"b": entry(), "a": entry(offset=16)}, bytes(32)), _TWO),
    _case("key-twice", _index(table([*_ROWS, (b"w", entry())]))),
    _case("keys-out-of-order-across-blocks", _index(table([(b"", header()), (b"w", entry())], [(b"a", entry(offset=16))]), _data(bytes(32))), _index(table([(b"", header()), (b"a", entry())], [(b"w", entry(offset=16))]), _data(bytes(32)))),
    _case("keys-far-longer-than-the-file", _far_keys(4000), _far_keys(1)),
    # snappy
    _case("snappy-claims-2^40", _packed(_literal(_BLOCK), 1 << 40), _packed(_literal(_BLOCK))),
    _case("snappy-claims-one-more", _packed(_literal(_BLOCK), len(_BLOCK) + 1), _packed(_literal(_BLOCK))),
    _case("snappy-claims-one-less", _packed(_literal(_BLOCK), len(_BLOCK) - 1), _packed(_literal(_BLOCK))),
    _case("snappy-literal-cut", _packed(_literal(_BLOCK)[:-3]), _packed(_literal(_BLOCK))),
    _case("snappy-length-cut", _packed(_literal(_BLOCK) + b"\xf4\x01"), _packed(_literal(_BLOCK))),
    _case("snappy-copy-from-before", _packed(b"\x06\x05\0" + _literal(_BLOCK)[:-2]), _SNAPPY),
    _case("snappy-copy-from-0", _packed(_literal(_BLOCK[:-4]) + b"\x0e\0\0"), _SNAPPY),
    _case("snappy-bomb", _packed(b"\0\0" + b"\xfe\1\0" * 30_000, 1 << 26), _SNAPPY),
    _case("snappy-no-size", _block(b"\xff" * 20, 1), _SNAPPY),
    # the header and the entries
    _case("no-header", _index(table(_ROWS[1:]))),
    _case("header-of-a-v1-checkpoint", bundle(head=field(1, field(1, b"w")))),
    _case("no-shards", bundle(head=header(0))),
    *(_case(f"shards-{label}", bundle(head=header(n))) for label, n in NUMBERS.items()),
    _case("byte-order-2", bundle(head=header(order=2))),
    _case("needs-a-newer-reader", bundle(head=header(needs=2)), bundle(head=header(needs=1))),
    _case("header-cut", bundle(head=header()[:-1])),
    _case("header-not-a-message", bundle(head=b"\xff\xff\xff")),
    _case("entry-cut", bundle({"w": entry()[:-2]})),
    _case("entry-not-a-message", bundle({"w": b"\x07"})),
    _case("name-not-utf8", bundle({b"\xff\xfe": entry()})),
    _case("dtype-0", _w(dtype=0)),
    _case("dtype-99", _w(dtype=99)),
    _case("dtype-a-reference", _w(dtype=101)),
    _case("dtype-of-another-width", _w(dtype=2)),
    _case("dtype-as-text", bundle({"w": field(1, b"float") + entry()[2:]})),
    *(_case(f"length-{label}", _w(shape=(n,))) for label, n in NUMBERS.items()),
    _case("length-negative", _w(shape=(-4,))),
    _case("product-overflows", _w(shape=(1 << 32, 1 << 32, 4))),
    _case("zero-times-huge", _w(data=b"", shape=(1 << 62, 1 << 62, 0)), _w(data=b"", shape=(1 << 40, 0))),
    _case("rank-100000", _w(data=bytes(4), shape=(1,) * 100_000), _w(data=bytes(4), shape=(1,) * 32)),
    _case("rank-unknown", bundle({"w": entry() + field(2, dims((4,)) + field(3, 1))})),
    _case("too-few-values", _w(shape=(3,))),
    _case("too-many-values", _w(shape=(5,))),
    *(_case(f"size-{label}", _w(size=n)) for label, n in NUMBERS.items()),
    *(_case(f"offset-{label}", _w(offset=n)) for label, n in NUMBERS.items()),
    _case("size-negative", _w(size=-16)),
    _case("offset-negative", _w(offset=-16)),
    _case("offset-one-more", _w(offset=1)),
    _case("data-cut", _data(bytes(15))),
    _case("data-empty", _data(b"")),
    _case("overlap", bundle({"a": entry(), "b": entry(offset=8)}, bytes(32)), _TWO),
    _case("same-bytes-of-another-dtype", bundle({"a": entry(), "b": entry(dtype=3)}), _TIED),
    _case("same-bytes-of-another-shape", bundle({"a": entry(), "b": entry(shape=(2, 2))}), _TIED),
    _case("same-bytes-of-another-checksum", bundle({"a": entry(), "b": entry(bytes(15) + b"\1")}), _TIED),
    _case("slices-of-the-same-bytes", _halves(offset=0), _halves()),
    _case("value-changed", _data(bytes(15) + b"\1"), get="w"),
    _case("value-of-another-checkpoint", _data(b"\xff" * 16), get="w"),
    _case("crc-missing", bundle({"w": entry()[:-5]}), get="w"),
    _case("slice-changed", {**_SLICED, "m.data-00000-of-00001": bytes(13) + b"\1\0\0"}, _SLICED, get="w"),
    _case("big-endian-changed", bundle({"w": entry()}, bytes(15) + b"\1", header(order=1)), bundle(head=header(order=1)), get="w"),
    _case("hostile-name", bundle({_NAME: entry(shape=(5,))}), bundle({_NAME: entry()})),
    # shards
    _case("shard-missing", _without(_SHARDED, "m.data-00001-of-00002"), _SHARDED),
    _case("shard-of-another-number", {**_without(GOOD, "m.data-00000-of-00001"), "m.data-00000-of-00002": bytes(16)}),
    _case("shard-2-of-2", bundle({"a": entry(), "b": entry(shard=2)}, [bytes(16), bytes(16)], shards=2), _SHARDED),
    _case("shard-negative", bundle({"a": entry(), "b": entry(shard=-1)}, [bytes(16), bytes(16)], shards=2), _SHARDED),
    _case("shard-a-folder", {**_without(GOOD, "m.data-00000-of-00001"), "m.data-00000-of-00001/x": b""}),
    # slices
    _case("slice-missing", _parts(keys=(b"\x80\x83", b"\x83\x82")), _SLICED),
    _case("slice-of-nothing", bundle({b"\0w\0\1\1\1\x80\x84": entry(), "w": entry(offset=16)}, bytes(32))),
    _case("slices-overlap", _parts(second=((2, 1), None), keys=(b"\x80\x83", b"\x82\x81")), _SLICED),
    _case("slices-leave-a-hole", _parts(shape=(5, 1)), _SLICED),
    _case("slice-beyond", _parts(second=((4, 1), None), keys=(b"\x80\x83", b"\x84\x81")), _SLICED),
    _case("slice-negative", _parts(second=((-1, 1), None), keys=(b"\x80\x83", b"\x7f\x81")), _SLICED),
    _case("slice-of-another-shape", _parts(second=((3, 2), None), keys=(b"\x80\x83", b"\x83\x82")), _SLICED),
    _case("slice-of-another-dtype", _parts(dtype=3), _SLICED),
    _case("slice-of-another-rank", _parts(second=((3, 1),)), _SLICED),
    _case("slice-over-slice", _parts(offset=8), _SLICED),
    _case("slices-of-text", bundle({"w": entry(b"", 7, slices=(extents((0, 4)),))})),
    _case("slices-of-rank-300", bundle({"w": entry(b"", shape=(1,) * 300, slices=(extents(*[None] * 300),))})),
    # the graph of objects
    _case("graph-changed", {**_HELD, "m.data-00000-of-00001": b"\x00" + _HELD["m.data-00000-of-00001"][1:]}, _HELD),
    _case("graph-crc", bundle({GRAPH: entry(_TEXT, 7, (), crc=_CRC ^ 1)}, _TEXT), bundle({GRAPH: entry(_TEXT, 7, (), crc=_CRC)}, _TEXT)),
    *(_case(f"graph-of-{label}", bundle({GRAPH: entry(varint(n) + bytes(9), 7, ())}, varint(n) + bytes(9)), _HELD) for label, n in NUMBERS.items()),
    _case("graph-not-a-message", _graph(graph=b"\xff" * 9), _HELD),
    _case("graph-cut", _graph(graph=field(1, node([("a", 1)]))[:-1]), _HELD),
    _case("graph-child-nowhere", _graph(node([("a", 2)]), _A), _HELD),
    *(_case(f"graph-child-{label}", _graph(node([("a", n)]), _A), _HELD) for label, n in NUMBERS.items()),
    _case("graph-child-without-name", _graph(node([("", 1)]), _A), _HELD),
    _case("graph-child-name-not-utf8", _graph(node([("a", 1)], more=field(1, field(1, 1) + field(2, b"\xff"))), _A), _HELD),
    _case("graph-key-not-utf8", _graph(node([("a", 1)]), node(more=field(2, field(1, "VARIABLE_VALUE") + field(3, b"\xff")))), _HELD),
    _case("graph-slot-nowhere", _graph(node([("a", 1)], slots=[(9, "m", 1)]), _A), _SLOTS),
    _case("graph-slot-without-name", _graph(node([("a", 1)], slots=[(1, "", 1)]), _A), _SLOTS),
    _case("graph-deep", _chain(5000), _chain(50)),
    _case("graph-groups", _graph(graph=b"\x0b" * 1000), _HELD),
    _case("graph-of-many-paths", _ladder(90, graph_only=True), _ladder(90)),
    _case("graph-of-long-names", _long(3000, 1 << 16), _long(30)),
    # SavedModels and training folders
    _case("saved-model-without-variables", _without(_SAVED, "variables/variables.index"), _SAVED),
    _case("saved-model-cut", _cut(_SAVED, "saved_model.pb", 12), _SAVED),
    _case("saved-model-of-2^62", {**_SAVED, "saved_model.pb": field(1, 1) + b"\x12" + varint(1 << 62) + b"\x0a"}, _SAVED),
    _case("saved-model-tag-not-utf8", saved_model(bundle(name="variables"), field(1, field(4, b"\xff"))), _SAVED),
    _case("saved-model-index-linked", {**_without(_SAVED, "variables/variables.index"), "secret": _INDEX, "variables/variables.index": "../secret"}, _SAVED),
    _case("saved-model-folder-linked", {"saved_model.pb": _SAVED["saved_model.pb"], "variables": "../elsewhere", "../elsewhere/variables.index": _INDEX}, _SAVED),
    *(_case(f"latest-{label}", _latest(path), _LATEST) for label, path in {
        "climbs": b"../m", "climbs-later": b"x/../../m", "absent": b"n", "nul": b"m\\000", "not-utf8": b"\\377", "escape-cut": b"\\x", "empty-steps": b".//m",
    }.items()),
    _case("latest-without-end", {**GOOD, "checkpoint": b'model_checkpoint_path: "m'}, _LATEST),
    _case("latest-of-an-absolute-path", _latest(b"/etc/passwd"), _latest(b"/somewhere/else/m")),
    _case("fixed-where-a-number-is-due", bundle({"w": fixed32(1, 1) + entry()[2:]})),
]  # fmt: skip
