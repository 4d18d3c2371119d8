"""Hostile and damaged Orbax checkpoints, each with its good twin; none of them needs tensorstore."""

from __future__ import annotations

import gzip
import json
import struct

from paratree.files.crc32c import checksum
from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS

DATA = bytes(range(16))


def leaf(*path: object, kind: str = "jax.Array", **more: object) -> dict[str, object]:
    """Return the entry of a leaf in ``tree_metadata``."""
    keys = [{"key": key, "key_type": 2} for key in path]
    return {
        "key_metadata": keys,
        "value_metadata": {"value_type": kind, "skip_deserialize": kind == "None", **more},
    }


def metadata(leaves: object = None, **more: object) -> bytes:
    """Return a ``_METADATA``; by default of one leaf ``w``."""
    leaves = {"('w',)": leaf("w")} if leaves is None else leaves
    facts = {
        "tree_metadata": leaves,
        "use_ocdbt": False,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
    }
    return json.dumps(facts | more).encode()


def zarray(**wrong: object) -> bytes:
    """Return the metadata of an array of Zarr version 2; by default four float32, not compressed."""
    facts = {
        "zarr_format": 2,
        "shape": [4],
        "chunks": [4],
        "dtype": "<f4",
        "order": "C",
        "compressor": None,
        "filters": None,
        "fill_value": None,
        "dimension_separator": ".",
    }
    return json.dumps(facts | wrong).encode()


def _codec(name: str, **options: object) -> dict[str, object]:
    return {"name": name, "configuration": options}


BYTES = _codec("bytes", endian="little")
INDEX = [BYTES, {"name": "crc32c"}]


def zarr3(codecs: object = (BYTES,), chunk: object = (4,), **wrong: object) -> bytes:
    """Return the metadata of an array of Zarr version 3; by default four float32, not compressed."""
    facts = {
        "zarr_format": 3, "node_type": "array", "shape": [4], "data_type": "float32", "fill_value": 0.0, "codecs": codecs,
        "chunk_grid": _codec("regular", chunk_shape=chunk), "chunk_key_encoding": {"name": "default"},
    }  # fmt: skip
    return json.dumps(facts | wrong).encode()


def sharded(inner: object = (2,), codecs: object = (BYTES,), index: object = INDEX, **more: object) -> bytes:
    """Return the metadata of an array in one shard of two chunks."""
    return zarr3([_codec("sharding_indexed", chunk_shape=inner, codecs=codecs, index_codecs=index, **more)])


def shard(*places: tuple[int, int], data: bytes = DATA, crc: int | None = None) -> bytes:
    """Return a shard: chunks, where each begins and how long it is, and a checksum of that."""
    index = b"".join(struct.pack("<2Q", *place) for place in places or ((0, 8), (8, 8)))
    return data + index + struct.pack("<I", checksum(index) if crc is None else crc)


def folder(
    meta: bytes | None = None, array: bytes | None = None, chunk: object = DATA, **more: object
) -> dict[str, object]:
    """Return a checkpoint of plain files of Zarr version 2; ``_`` in a name of ``more`` stands for ``/``."""
    files = {
        "_METADATA": metadata() if meta is None else meta,
        "w/.zarray": zarray() if array is None else array,
        "w/0": chunk,
    }
    files |= {name.replace("_", "/"): content for name, content in more.items()}
    return {name: content for name, content in files.items() if content is not None}


def folder3(array: bytes | None = None, chunk: object = DATA) -> dict[str, object]:
    """Return a checkpoint of plain files of Zarr version 3."""
    return {
        "_METADATA": metadata(use_zarr3=True),
        "w/zarr.json": zarr3() if array is None else array,
        "w/c/0": chunk,
    }


def step(items: object = None, **more: object) -> dict[str, object]:
    """Return a step of a CheckpointManager."""
    items = {"default": "a.Handler"} if items is None else items
    files = {f"default/{name}": content for name, content in folder().items()}
    return {
        "_CHECKPOINT_METADATA": json.dumps({"item_handlers": items, "metrics": {}}).encode(),
        **files,
        **more,
    }


GOOD, GOOD_3, GOOD_STEP = folder(), folder3(), step()
GOOD_SHARD = folder3(sharded(), shard())
_BELOW = {"w.x_.zarray": zarray(), "w.x_0": DATA}
_GZIP = {"id": "gzip", "level": 1}
GOOD_GZIP = folder(array=zarray(compressor=_GZIP), chunk=gzip.compress(DATA))


def _case(id: str, bad: object, good: object = GOOD, get: str = "") -> Case:
    return Case(id, "", bad, good, get)


def _meta(id: str, meta: bytes, good: object = GOOD) -> Case:
    return _case(id, folder(meta), good)


def _array(id: str, get: str = "", **wrong: object) -> Case:
    return _case("array-" + id, folder(array=zarray(**wrong)), GOOD, get)


def _array3(id: str, codecs: object = (BYTES,), chunk: object = (4,), get: str = "", **wrong: object) -> Case:
    return _case("array3-" + id, folder3(zarr3(codecs, chunk, **wrong)), GOOD_3, get)


def _shard(
    id: str, *places: tuple[int, int], array: bytes | None = None, get: str = "w", **wrong: object
) -> Case:
    return _case(
        "shard-" + id,
        folder3(sharded() if array is None else array, shard(*places, **wrong)),
        GOOD_SHARD,
        get,
    )  # type: ignore[arg-type]


def _leaf(id: str, entry: object) -> Case:
    return _meta("leaf-" + id, metadata({"('w',)": entry}))


def _beside(*names: str) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, GOOD[name]) for name in names)  # type: ignore[misc]


SWEEPS = [
    Sweep("_METADATA", metadata(), _beside("w/.zarray", "w/0")),
    Sweep(
        "_CHECKPOINT_METADATA",
        GOOD_STEP["_CHECKPOINT_METADATA"],
        tuple((name, data) for name, data in GOOD_STEP.items() if name[0] != "_"),
    ),  # type: ignore[arg-type, misc]
]
CASES = [
    _meta("empty", b""), _meta("cut", metadata()[:-1]), _meta("byte-more", metadata() + b"x"), _meta("no-json", metadata()[:60] + b"!" + metadata()[61:]),
    _meta("duplicate-leaf", metadata().replace(b'{"(', b'{"(\'w\',)": {}, "(', 1)), _meta("deep", b'{"tree_metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    _meta("leaves-list", metadata([])), _meta("leaves-text", metadata("evil")),
    _leaf("null", None), _leaf("empty", {}), _leaf("keys-empty", leaf()), _leaf("key-number", leaf(7)), _leaf("key-null", leaf(None)), _leaf("keys-text", leaf() | {"key_metadata": "w"}),
    _leaf("path-of-200", leaf(*"w" * 200)), _leaf("path-of-100000", leaf(*"w" * 100_000)), _leaf("value-text", leaf("w") | {"value_metadata": "x"}),
    _leaf("climbs", leaf("..", "w")), _leaf("climbs-in-one", leaf("../w")), _leaf("absolute", leaf("/etc/passwd")), _leaf("nul", leaf("w\0")), _leaf("other", leaf("v")),
    _meta("two-of-one-name", metadata({"1": leaf("w"), "2": leaf("w")})), _case("leaf-and-node", folder(metadata({"1": leaf("w"), "2": leaf("w", "x")}), **_BELOW), folder(metadata({"1": leaf("w")}), **_BELOW)),
    _case("no-array", {"_METADATA": metadata()}), _case("no-array-metadata", folder(array=b"")), _case("no-chunk", folder(chunk=None)),
    _case("chunk-link", folder(chunk="/etc/passwd"), get=""), _case("chunk-link-inside", folder(chunk="../other", other=DATA)), _case("array-folder-link", {"_METADATA": metadata(), "w": "/etc"}),
    _case("link-beside", folder(link="/etc/passwd")), _case("link-to-nothing", folder(link="nowhere")), _case("link-below", folder(a_b_c_d="/")),
    _case("metadata-link", folder() | {"w/.zarray": "../../good/w/.zarray"}),
    _case("array-not-json", folder(array=zarray()[:-1])), *(_array(f"shape-{label}", shape=[n]) for label, n in NUMBERS.items()), *(_array(f"chunks-{label}", "w", chunks=[n]) for label, n in list(NUMBERS.items())[:4]),
    _array("shape-terabytes", shape=[10**12], chunks=[10**12]), _array("shape-of-many-chunks", shape=[10**12], chunks=[1]), _array("shape-negative", shape=[-4]), _array("shape-fraction", shape=[4.0]),
    _array("shape-boolean", shape=[True]), _array("shape-text", shape="4"), _array("shape-null", shape=None), _array("rank-100000", shape=[1] * 100_000, chunks=[1] * 100_000),
    _array("rank-of-chunks", chunks=[4, 1]), _array("chunks-zero", chunks=[0]), _array("chunks-negative", chunks=[-4]), _array("chunks-null", chunks=None),
    _array("dtype-wider", "w", dtype="<f8"), _array("dtype-objects", "w", dtype="|O"), _array("dtype-structured", "w", dtype=[["a", "<f4"]]), _array("dtype-unknown", "w", dtype="evil"),
    _array("version-3", zarr_format=3), _array("order", order="X"), _array("separator", dimension_separator="/../"), _array("filters", "w", filters=[{"id": "pickle"}]),
    _array("compressor-pickle", "w", compressor={"id": "pickle"}), _array("compressor-blosc", "w", compressor={"id": "blosc"}), _array("compressor-text", "w", compressor="zstd2"),
    _case("chunk-shorter", folder(chunk=DATA[:-1]), get="w"), _case("chunk-longer", folder(chunk=DATA + b"\0"), get="w"), _case("chunk-empty", folder(chunk=b""), get="w"),
    _case("gzip-damaged", folder(array=zarray(compressor=_GZIP), chunk=b"\x1f\x8b" + DATA), GOOD_GZIP, "w"), _case("gzip-cut", folder(array=zarray(compressor=_GZIP), chunk=gzip.compress(DATA)[:-9]), GOOD_GZIP, "w"),
    _case("gzip-goes-on", folder(array=zarray(compressor=_GZIP), chunk=gzip.compress(DATA) + b"x"), GOOD_GZIP, "w"), _case("gzip-shorter", folder(array=zarray(compressor=_GZIP), chunk=gzip.compress(DATA[:8])), GOOD_GZIP, "w"),
    _case("gzip-bomb", lambda: folder(array=zarray(compressor=_GZIP), chunk=gzip.compress(bytes(256 << 20), 6)), GOOD_GZIP, "w"), _case("gzip-beyond-physics", folder(array=zarray(compressor=_GZIP, shape=[1 << 22], chunks=[1 << 22]), chunk=gzip.compress(DATA)), GOOD_GZIP, "w"),
    _array3("codecs-empty", [], get="w"), _array3("codecs-pickle", [BYTES, _codec("pickle")], get="w"), _array3("codecs-text", "zstd"), _array3("codec-number", [7]), _array3("options-list", [{"name": "bytes", "configuration": []}]),
    _array3("endian", [_codec("bytes", endian="middle")]), _array3("compressed-twice", [BYTES, _codec("zstd"), _codec("gzip")], get="w"), _array3("grid-missing", chunk_grid=None), _array3("grid-rectilinear", chunk_grid=_codec("rectilinear"), get="w"),
    _array3("keys-unknown", chunk_key_encoding=_codec("evil")), _array3("separator", chunk_key_encoding=_codec("default", separator="/../")), _array3("group", node_type="group"), _array3("version-2", zarr_format=2),
    _array3("shape-terabytes", chunk=[10**12], shape=[10**12]), _array3("chunk-zero", chunk=[0]), _array3("dtype", data_type="evil", get="w"), _array3("crc", [BYTES, _codec("crc32c")], get="w"),
    _shard("index-checksum", crc=1), _shard("reaches-beyond", (0, 8), (9, 8)), _shard("reaches-far", (0, 8), (1 << 63, 8)), _shard("chunk-shorter", (0, 8), (8, 4)), _shard("no-index", data=b"", crc=0),
    _shard("too-short", array=sharded(inner=(1,))), _shard("inner-does-not-divide", array=sharded(inner=(3,)), get=""), _shard("inner-zero", array=sharded(inner=(0,)), get=""), _shard("inner-rank", array=sharded(inner=(2, 1)), get=""),
    _shard("index-compressed", array=sharded(index=[BYTES, _codec("zstd")])), _shard("index-at-start", array=sharded(index_location="start")),
    _case("step-item-climbs", step({"..": "a.Handler"}), GOOD_STEP), _case("step-item-absolute", step({"/etc": "a.Handler"}), GOOD_STEP), _case("step-item-deep", step({"a/../../b": "a.Handler"}), GOOD_STEP),
    _case("step-item-missing", step({"other": "a.Handler"}), GOOD_STEP), _case("step-item-link", step({"link": "a.Handler"}, link="/etc"), GOOD_STEP), _case("step-items-empty", step({}), GOOD_STEP),
    _case("step-items-number", step(7), GOOD_STEP), _case("step-of-link", step() | {"default/_METADATA": "../../good/default/_METADATA"}, GOOD_STEP), _case("step-json-item", step({"default": "a", "x": "b"}, **{"x/metadata": b"{"}), GOOD_STEP),
]  # fmt: skip
