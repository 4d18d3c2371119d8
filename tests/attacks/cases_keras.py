"""Hostile and damaged Keras and HDF5 files, each with its good twin; made with h5py, then patched."""

from __future__ import annotations

import io
import json
import struct
import zlib

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from paratree.files.lookup3 import checksum
from tests.attacks.harness import Case, Sweep
from tests.attacks.makers import NUMBERS, member, zipped

_ADDRESS = struct.Struct("<Q")
_CONFIG = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {
        "name": "sequential",
        "trainable": True,
        "layers": [
            {"module": "keras.layers", "class_name": "Dense", "config": {"name": "first", "trainable": True, "units": 3, "use_bias": True}},
            {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "evil", "function": {"class_name": "__lambda__", "config": {"code": "4wEAAAA="}}}},
        ],
    },
}  # fmt: skip


def hdf5(fill, **options) -> bytes:
    """Return an HDF5 file that ``fill`` has filled."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", **options) as file:
        fill(file)
    return buffer.getvalue()


def later(fill, **options):
    """Return what makes the file that ``fill`` fills: most are wanted by one test only."""
    return lambda: hdf5(fill, **options)


def keras3(file) -> None:
    """Fill a file as Keras 3 does, with one dense layer."""
    file.create_group("vars").attrs["name"] = "sequential"
    held = file.create_group("layers/dense").create_group("vars")
    held.attrs["name"] = "first"
    held["0"] = np.arange(6, dtype="float32").reshape(2, 3)
    held["1"] = np.array([7, 8, 9], "float32")


def legacy(
    file, names=("first",), weights=("first/kernel:0", "first/bias:0"), config: object = _CONFIG
) -> None:
    """Fill a file as older versions of Keras do."""
    text = config if isinstance(config, str | bytes) else json.dumps(config)
    file.attrs["model_config"] = text
    held = file.create_group("model_weights")
    held.attrs["layer_names"] = list(names) if isinstance(names, tuple) else names
    layer = held.create_group("first")
    layer.attrs["weight_names"] = list(weights) if isinstance(weights, tuple) else weights
    layer["first/kernel:0"] = np.arange(6, dtype="float32").reshape(2, 3)
    layer["first/bias:0"] = np.array([7, 8, 9], "float32")


GOOD = hdf5(keras3)
LEGACY = hdf5(legacy)


def archive(weights: bytes = GOOD, config: object = _CONFIG, **wrong: object) -> bytes:
    """Return a ``.keras`` archive; ``wrong`` overrides fields of the member that holds the weights."""
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    metadata = json.dumps({"keras_version": "3.15.1", "date_saved": "2026-11-23@20:00:00"}).encode()
    members = [member("metadata.json", metadata), member("config.json", text)]
    return zipped([*members, member("model.weights.h5", weights, **wrong)])


ARCHIVE = archive()


def _patch(data: bytes, old: bytes, new: bytes, times: int = 1) -> bytes:
    assert data.count(old) >= times, (old, data.count(old))
    return data.replace(old, new, times)


def _case(id: str, bad: object, good: object = GOOD, get: str = "") -> Case:
    return Case(id, ".h5", bad, good, get)


def _zip(id: str, bad: object, good: object = ARCHIVE) -> Case:
    return Case(id, ".keras", bad, good)


def _layout(shape: tuple[int, ...] = (4,)) -> tuple[bytes, int, bytes]:
    """Return a file with the arrays ``a`` and ``b``, where ``a`` lies, and the message that says where ``b`` does."""

    def fill(file) -> None:
        file["a"], file["b"] = np.zeros(shape, "float32"), np.ones(shape, "float32")

    data = hdf5(fill)
    with h5py.File(io.BytesIO(data)) as file:
        first, place = file["a"].id.get_offset(), file["b"].id.get_offset()
    return data, first, _ADDRESS.pack(place) + _ADDRESS.pack(4 * int(np.prod(shape)))


_AB, _A_PLACE, _B_LAYOUT = _layout()


def _moved(place: int, size: int = 16) -> bytes:
    return _patch(_AB, _B_LAYOUT, _ADDRESS.pack(place) + _ADDRESS.pack(size))


def _sized(length: int) -> bytes:
    """Return a file whose array ``b`` claims another length; the array before it has its own."""
    data, _, _ = _layout((5,))
    dimensions = _ADDRESS.pack(5)
    last = data.rfind(dimensions + dimensions)  # length and greatest length
    return data[:last] + _ADDRESS.pack(length) * 2 + data[last + 16 :]


def _linked(link):
    def fill(file) -> None:
        keras3(file)
        file["layers/other"] = link

    return fill


def _external(file) -> None:
    keras3(file)
    file.create_dataset("out", (4,), "float32", external=[("/etc/passwd", 0, 16)])


def _virtual(file) -> None:
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(4,))
    file.create_virtual_dataset("out", layout)


def _plain(file) -> None:
    file["out"] = np.zeros(4, "float32")


def _bomb(shape, **options):
    return lambda file: file.create_dataset("w", shape, "float32", **options)


def _cycle(file) -> None:
    inner = file.create_group("layers/dense")
    inner["again"] = file["layers"]


def _doubling(file) -> None:
    below = file.create_group("last")
    for i in range(40):
        group = file.create_group(f"g{i}")
        group["left"] = group["right"] = below
        below = group


def _deep(levels: int):
    def fill(file) -> None:
        group = file
        for _ in range(levels):
            group = group.create_group("g")
        group["w"] = np.zeros(4, "float32")

    return fill


def _packed(write, chunk=(4,), **options):
    """Fill a file with a chunked array whose chunk is written as it is, past all filters."""

    def fill(file) -> None:
        dataset = file.create_dataset("w", chunk, "float32", chunks=chunk, **options)
        dataset.id.write_direct_chunk((0,) * len(chunk), write)

    return fill


_ZEROS = bytes(16)
_DEFLATED = hdf5(_packed(zlib.compress(_ZEROS), compression="gzip"))


def _filtered(*filters: int):
    """Fill a file with an array behind filters, by number."""

    def fill(file) -> None:
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((4,))
        for number in filters:
            if number == 1:
                plist.set_deflate(1)
            else:
                plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL)
        dataset = h5d.create(file.id, b"w", h5t.IEEE_F32LE, h5s.create_simple((4,)), plist)
        packed = _ZEROS
        for number in filters:
            packed = zlib.compress(packed) if number == 1 else packed
        dataset.write_direct_chunk((0,), packed)

    return fill


def _typed(kind):
    """Fill a file with an array of an HDF5 type."""

    def fill(file) -> None:
        kind_id = kind() if callable(kind) else kind
        h5d.create(file.id, b"w", kind_id, h5s.create_simple((4,)))
        file["fine"] = np.zeros(4, "float32")

    return fill


def _twelve_bits():
    kind = h5t.STD_I16LE.copy()
    kind.set_precision(12)
    return kind


def _compound():
    return h5t.py_create(np.dtype([("a", "f4"), ("b", "i4")]), logical=True)


def _repeated_text() -> bytes:
    """Return a file whose 4,000 layer names are all one text of a megabyte, stored once."""
    long, count = json.dumps({"x": "x" * (1 << 20)}), 4000

    def fill(file) -> None:
        file.attrs["model_config"] = long
        file.create_group("model_weights").attrs["layer_names"] = ["abcdefg"] * count

    data = hdf5(fill)
    place = data.rindex(b"GCOL", 0, data.index(b"x" * 1000))
    short = data.index(struct.pack("<I", 7) + _ADDRESS.pack(_heap_of(data, b"abcdefg")))
    reference = struct.pack("<IQI", len(long), place, 1)
    return data[:short] + reference * count + data[short + 16 * count :]


def _claimed(count: int) -> bytes:
    """Return the older form with a list of layers that claims another number of names."""
    place = LEGACY.index(_ADDRESS.pack(1), LEGACY.index(b"layer_names\0"))
    return LEGACY[:place] + _ADDRESS.pack(count) + LEGACY[place + 8 :]


def _heap_of(data: bytes, text: bytes) -> int:
    return data.rindex(b"GCOL", 0, data.index(text + b"\0"))


def _text_reference(old: bytes, new: bytes) -> bytes:
    """Return the older form with a reference to a text changed."""
    return _patch(LEGACY, old, new)


_FIRST = struct.pack("<I", 5) + _ADDRESS.pack(_heap_of(LEGACY, b"first"))


def _many(file) -> None:
    """Fill a file with so many names that they are kept in a tree of two levels."""
    data = file.create_dataset("w", data=np.zeros(4, "float32"))
    for i in range(600):
        file[f"name{i}"] = data


def _meeting(level: int) -> bytes:
    """Return a file in which two branches of the tree of names lead to one place."""
    data = hdf5(_many)
    node = data.index(b"TREE\0" + bytes([level]))
    first = node + 24 + 8  # a key, then the first branch, a key, and the second
    return data[: first + 16] + data[first : first + 8] + data[first + 24 :]


def free_circle() -> bytes:
    """Return a file in which the free places of a heap of names lead to themselves; HDF5 goes round for ever."""
    heap = LEGACY.index(b"HEAP")
    free, place = _ADDRESS.unpack_from(LEGACY, heap + 16)[0], _ADDRESS.unpack_from(LEGACY, heap + 24)[0]
    return LEGACY[: place + free] + _ADDRESS.pack(free) + LEGACY[place + free + 8 :]


def _chunk_tree() -> bytes:
    """Return a file in which two branches of a tree of chunks lead to one place."""
    data = hdf5(lambda f: f.create_dataset("w", data=np.zeros(100, "float32"), chunks=(1,)))
    node = data.index(b"TREE\1\1")
    first = node + 24 + 24
    return data[: first + 32] + data[first : first + 8] + data[first + 40 :]


# What each structure of the file says, changed; in the newer form with a checksum that fits again

_SUMMED = {b"FRHP": 142, b"BTHD": 34, b"EAHD": 68, b"FAHD": 24}  # bytes before the checksum
_NEW = hdf5(lambda file: file.create_group("some name"), libver="latest")


def _end_of(data: bytes, start: int) -> int:
    """Return where the checksum of the structure at ``start`` is."""
    if data[start : start + 4] in _SUMMED:
        return start + _SUMMED[data[start : start + 4]]
    flags = data[start + 5]
    place = start + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    width = 1 << (flags & 3)
    return place + width + int.from_bytes(data[place : place + width], "little")


def _changed(data: bytes, place: int, new: bytes, signature: bytes = b"") -> bytes:
    """Return a file with other bytes at a place, in a structure whose checksum fits if a signature is given."""
    data = data[:place] + new + data[place + len(new) :]
    if not signature:
        return data
    start = data.rindex(signature, 0, place)
    end = _end_of(data, start)
    return data[:end] + struct.pack("<I", checksum(data[start:end])) + data[end + 4 :]


def _flipped(data: bytes, signature: bytes, distance: int = 12) -> bytes:
    """Return a file with a bit flipped in the first structure of a kind, so that its checksum is wrong."""
    place = data.index(signature) + distance
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _symbol(name: bytes) -> int:
    """Return where the entry of a name is in the table of symbols of the older form."""
    heap = LEGACY.rindex(b"HEAP", 0, LEGACY.index(name + b"\0"))
    inside = LEGACY.index(name + b"\0") - _ADDRESS.unpack_from(LEGACY, heap + 24)[0]
    return LEGACY.index(_ADDRESS.pack(inside), LEGACY.index(b"SNOD"))


def _full_heap() -> bytes:
    """Return a file in which no name in the first heap ends."""
    heap = GOOD.index(b"HEAP")
    size, _, place = struct.unpack_from("<3Q", GOOD, heap + 8)
    return _changed(GOOD, place + 8, b"x" * (size - 8))


def _tree_in_itself(kind: bytes, data: bytes) -> bytes:
    node = data.index(b"TREE" + kind + b"\1")
    first = node + 24 + (8 if kind == b"\0" else 32)  # after a key
    return _changed(data, first, _ADDRESS.pack(node))


def _chunks(chunk: tuple[int, ...] = (1, 4), libver: str = "earliest", **options) -> bytes:
    def fill(file) -> None:
        file.create_dataset("w", data=np.zeros((40, 4), "f4"), chunks=chunk, **options)

    return hdf5(fill, libver=libver)


_CHUNKS, _MANY_CHUNKS = _chunks(), _chunks((1, 1))
_LAYOUT = _CHUNKS.index(b"\3\2\3")  # version, kind, axes and one
_FILTERED = _chunks(compression="gzip", shuffle=True)
_ARRAY, _GROWING, _TREE = (
    _chunks(libver="latest", maxshape=most) for most in ((80, 4), (None, 4), (None, None))
)


def _dense(file) -> None:
    """Fill a file with so many names that the newer form keeps them in a heap."""
    for i in range(40):
        file[f"name{i}"] = np.float32(i)


_DENSE = hdf5(_dense, libver="latest")
_HEAP, _INDEX = _DENSE.index(b"FRHP"), _DENSE.index(b"BTHD")


def _named(file) -> None:
    file["kept"] = np.dtype("f4")
    file.create_dataset("w", data=[1, 2, 3], dtype=file["kept"])


_NAMED = hdf5(_named)


def _shared(address: int | None) -> bytes:
    """Return a file with an array whose type is that of an object elsewhere, or of the array itself."""
    with h5py.File(io.BytesIO(_NAMED)) as file:
        kept, own = (h5py.h5o.get_info(file[name].id).addr for name in ("kept", "w"))
    place = _NAMED.index(_ADDRESS.pack(kept), own)
    return _changed(_NAMED, place, _ADDRESS.pack(own if address is None else address))


def _nested() -> bytes:
    kind = h5t.IEEE_F32LE
    for _ in range(900):
        outer = h5t.create(h5t.COMPOUND, 4)
        outer.insert(b"a", 0, kind)
        kind = outer
    return hdf5(_typed(kind))


def _compact(file) -> None:
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_layout(h5d.COMPACT)
    h5d.create(file.id, b"w", h5t.IEEE_F32LE, h5s.create_simple((100,)), plist)


_COMPACT = hdf5(_compact)
_ROOT_HEADER = LEGACY.index(b"\1\0", 96)  # of the root, right after the superblock


def _collision(file) -> None:
    for path in ("a.b/vars", "a/b/vars"):
        file.create_group(path)["0"] = np.zeros(4, "float32")
    file.create_group("a/vars")


def _no_collision(file) -> None:
    for path in ("a.b/vars", "a/c/vars"):
        file.create_group(path)["0"] = np.zeros(4, "float32")
    file.create_group("a/vars")


_HOSTILE = "\x1b[2J\u202e../../etc/passwd"


def _hostile_names(file) -> None:
    held = file.create_group("layers/dense").create_group("vars")
    held.attrs["name"] = _HOSTILE
    held["0"], held["1"] = np.zeros((2, 3), "float32"), np.zeros(3, "float32")


def _hostile_and_soft(file) -> None:
    _hostile_names(file)
    file[_HOSTILE.replace("/", "|")] = h5py.SoftLink("/layers")


_DEEP_JSON = b'{"config":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def _continued(length: int) -> bytes:
    """Return the older form with a header that goes on for another length elsewhere."""
    place = LEGACY.index(b"\x10\0\x10\0\0\0\0\0")
    return LEGACY[: place + 16] + _ADDRESS.pack(length) + LEGACY[place + 24 :]


def _continued_in_itself() -> bytes:
    """Return the older form with a header that goes on where it says so."""
    found = LEGACY.index(b"\x10\0\x10\0\0\0\0\0")
    return _changed(LEGACY, found + 8, _ADDRESS.pack(found) + _ADDRESS.pack(24))


_FIRST_SHARD, _SECOND_SHARD = "m_00000.weights.h5", "m_00001.weights.h5"
_BOTH = [_FIRST_SHARD, _SECOND_SHARD]


def _variables(path: str, name: str | None, **arrays):
    """Fill a file with the variables of a layer."""

    def fill(file) -> None:
        held = file.create_group(path)
        if name is not None:
            held.attrs["name"] = name
        for number, shape in arrays.items():
            held[number.strip("_")] = np.zeros(shape, "float32")

    return fill


_SHARDS = {
    _FIRST_SHARD: hdf5(_variables("layers/dense/vars", "first", _0=(2, 3))),
    _SECOND_SHARD: hdf5(_variables("layers/dense/vars", None, _1=(3,))),
}


def sharded(weight_map: object = None, **shards: object) -> dict[str, object]:
    """Return a checkpoint of an index and two shards, which share the variables of one layer."""
    weight_map = {"/layers/dense/vars": _BOTH} if weight_map is None else weight_map
    index = json.dumps({"metadata": {"total_size": 36.0}, "weight_map": weight_map}).encode()
    given = {_BOTH[int(number.strip("_"))]: data for number, data in shards.items()}
    files = {"m.weights.json": index, **_SHARDS, **given}
    return {name: data for name, data in files.items() if data is not None}


def _shards(id: str, weight_map: object = None, **shards: object) -> Case:
    return Case(f"shards-{id}", "m.weights.json", sharded(weight_map, **shards), sharded())


_OWN_SUFFIX = {"m.weights.json": b'{"weight_map": {"a": 1}}'}
CASES = [
    _case("empty", b""),
    _case("only-signature", GOOD[:8]),
    _case("cut-in-superblock", GOOD[:40]),
    _case("cut-half", GOOD[: len(GOOD) // 2]),
    _case("cut-one-byte", GOOD[:-1]),
    _case("superblock-version", _patch(GOOD, b"\x89HDF\r\n\x1a\n\0", b"\x89HDF\r\n\x1a\n\x63")),
    _case("offsets-of-255-bytes", GOOD[:13] + b"\xff" + GOOD[14:]),
    _case("heap-signature", _patch(GOOD, b"HEAP", b"HEAT")),
    _case("tree-signature", _patch(GOOD, b"TREE", b"FREE")),
    _case("symbol-table-signature", _patch(GOOD, b"SNOD", b"SNOW")),
    _case("root-beyond-the-file", _patch(GOOD, _ADDRESS.pack(96), _ADDRESS.pack(1 << 40))),
    _case("end-of-file-elsewhere", _patch(GOOD, _ADDRESS.pack(len(GOOD)), _ADDRESS.pack(1 << 62))),
    _case("soft-link", later(_linked(h5py.SoftLink("/layers/dense")))),
    _case("soft-link-to-nothing", later(_linked(h5py.SoftLink("/nothing")))),
    _case("link-into-another-file", later(_linked(h5py.ExternalLink("/etc/passwd", "/")))),
    _case("external-storage", later(_external), later(_plain)),
    _case("virtual-dataset", later(_virtual), later(_plain)),
    _case("shape-bomb", later(_bomb((10**12,), chunks=(1024,), compression="gzip")), later(_bomb((4096,), chunks=(1024,), compression="gzip"))),
    _case("shape-bomb-never-written", later(_bomb((10**6, 10**6)))),
    _case("shape-bomb-axes", later(_bomb((1 << 20,) * 3, chunks=(1, 1, 1)))),
    _case("no-values-on-a-huge-axis", later(_bomb((0, 1 << 62), maxshape=(None, 1 << 62), chunks=(1, 1))), later(_bomb((0, 1 << 32), maxshape=(None, 1 << 32), chunks=(1, 1)))),
    _case("group-in-itself", later(_cycle)),
    _case("groups-that-double", later(_doubling)),
    _case("deep-groups", later(_deep(1000)), later(_deep(50))),
    *(_case(f"place-{label}", _moved(n), _AB) for label, n in NUMBERS.items() if n < (1 << 64) - 1),
    _case("place-one-too-far", _moved(len(_AB) - 15), _AB),
    _case("overlap", _moved(_A_PLACE + 8), _AB),
    _case("same-bytes", _moved(_A_PLACE), _AB),
    *(_case(f"length-{label}", _sized(n), _AB) for label, n in NUMBERS.items()),
    _case("length-one-more", _sized(6), _AB),
    _case("layer-not-there", later(lambda f: legacy(f, ("first", "second"))), LEGACY),
    _case("layer-twice", later(lambda f: legacy(f, ("first", "first"))), LEGACY),
    _case("layer-outside", later(lambda f: legacy(f, ("../../etc/passwd",))), LEGACY),
    _case("weight-not-there", later(lambda f: legacy(f, weights=("first/kernel:0", "first/gone:0"))), LEGACY),
    _case("weight-twice", later(lambda f: legacy(f, weights=("first/kernel:0", "first/kernel:0"))), LEGACY),
    _case("weight-is-a-group", later(lambda f: legacy(f, weights=("first",))), LEGACY),
    *(_case(f"layer-names-{label}", _claimed(n), LEGACY) for label, n in NUMBERS.items()),
    _case("layer-names-repeat-one-text", _repeated_text, LEGACY),
    *(_case(f"header-of-{label}", _continued(n), LEGACY) for label, n in NUMBERS.items()),
    _case("header-reaches-out", _continued(len(LEGACY)), LEGACY),
    _case("text-longer-than-its-heap", _text_reference(_FIRST, struct.pack("<I", 1 << 31) + _FIRST[4:]), LEGACY),
    _case("text-not-in-a-heap", _patch(LEGACY, b"GCOL", b"COLD"), LEGACY),
    _case("tree-branches-meet", _meeting(1), later(_many)),
    _case("tree-leaves-meet", _meeting(0), later(_many)),
    _case("chunk-branches-meet", _chunk_tree, later(_many), "w"),
    *(_case(f"text-at-{label}", _text_reference(_FIRST, _FIRST[:4] + _ADDRESS.pack(n)), LEGACY) for label, n in NUMBERS.items() if n < (1 << 63)),
    _case("config-not-json", later(lambda f: legacy(f, config='{"a": nonsense}')), LEGACY),
    _case("config-key-twice", later(lambda f: legacy(f, config='{"a": 1, "a": 2}')), LEGACY),
    _case("config-not-utf8", later(lambda f: legacy(f, config=np.bytes_(b'{"\xff\xfe": 1}'))), LEGACY),
    _case("config-deep", later(lambda f: legacy(f, config=_DEEP_JSON.decode())), LEGACY),
    _case("two-of-one-name", later(_collision), later(_no_collision)),
    _case("hostile-name-of-a-link", later(_hostile_and_soft), later(_hostile_names)),
    _case("value-text", later(_typed(lambda: h5t.py_create(np.dtype("S4")))), GOOD, "w"),
    _case("value-compound", later(_typed(_compound)), GOOD, "w"),
    _case("value-references", later(_typed(h5t.STD_REF_OBJ)), GOOD, "w"),
    _case("value-lists", later(_typed(lambda: h5t.vlen_create(h5t.IEEE_F32LE))), GOOD, "w"),
    _case("value-long-double", later(_typed(h5t.NATIVE_LDOUBLE)), GOOD, "w"),
    _case("value-twelve-bits", later(_typed(_twelve_bits)), GOOD, "w"),
    _case("value-opaque", later(_typed(lambda: h5t.create(h5t.OPAQUE, 2))), GOOD, "w"),
    _case("value-unknown-filter", later(_filtered(32004)), later(_filtered(1)), "w"),
    _case("value-deflated-twice", later(_filtered(1, 1)), later(_filtered(1)), "w"),
    _case("value-chunk-inflates-to-more", lambda: hdf5(_packed(zlib.compress(bytes(1 << 26)), (1 << 15,), compression="gzip")), _DEFLATED, "w"),
    _case("value-chunk-damaged", later(_packed(b"\xff" * 40, compression="gzip")), _DEFLATED, "w"),
    _case("value-chunk-cut", later(_packed(zlib.compress(_ZEROS)[:-6], compression="gzip")), _DEFLATED, "w"),
    _case("value-checksummed", later(_packed(bytes([1]) * 20, fletcher32=True)), _DEFLATED, "w"),
    _case("value-claims-far-more", later(_bomb((1 << 29,), chunks=(1024,))), later(_bomb((1 << 10,), chunks=(1024,))), "w"),
    _case("value-huge-chunk", later(lambda f: f.create_dataset("w", (4,), "f4", maxshape=(None,), chunks=(1 << 28,))), _DEFLATED, "w"),
    _case("tree-in-itself", lambda: _tree_in_itself(b"\0", hdf5(_many)), later(_many)),
    _case("symbols-claim-more", _changed(GOOD, GOOD.index(b"SNOD") + 6, b"\xff\xff")),
    _case("symbol-table-of-another-version", _changed(GOOD, GOOD.index(b"SNOD") + 4, b"\2")),
    _case("name-outside-of-its-heap", _changed(LEGACY, _symbol(b"model_weights"), _ADDRESS.pack(1 << 40)), LEGACY),
    _case("names-that-do-not-end", _full_heap()),
    *(_case(f"heap-of-{label}", _changed(GOOD, GOOD.index(b"HEAP") + 8, _ADDRESS.pack(n))) for label, n in NUMBERS.items()),
    _case("name-with-a-slash", _patch(GOOD, b"dense\0", b"de/se\0"), GOOD),
    _case("name-of-nothing", _patch(GOOD, b"dense\0", b"\0ense\0"), GOOD),
    _case("two-links-of-one-name", _patch(_AB, b"b\0\0\0\0\0\0\0", b"a\0\0\0\0\0\0\0"), _AB),
    _case("root-is-an-array", lambda: _changed(_AB, 64, _ADDRESS.pack(_AB.index(b"\1\0", 800))), _AB),
    _case("message-longer-than-its-header", _changed(LEGACY, _ROOT_HEADER + 18, b"\xff\xff"), LEGACY),
    _case("header-goes-on-in-itself", _continued_in_itself(), LEGACY),
    _case("attribute-claims-more", _changed(LEGACY, LEGACY.index(b"layer_names\0") - 6, b"\xff\xff"), LEGACY),
    _case("axes-255", lambda: _changed(_CHUNKS, _CHUNKS.index(b"\1\2\1\0\0\0\0\0\x28") + 1, b"\xff"), _CHUNKS),
    _case("chunks-of-other-axes", _changed(_CHUNKS, _LAYOUT + 2, b"\2"), _CHUNKS),
    _case("chunks-of-no-length", _changed(_CHUNKS, _LAYOUT + 11, bytes(4)), _CHUNKS),
    _case("chunks-of-wider-values", _changed(_CHUNKS, _LAYOUT + 19, struct.pack("<I", 8)), _CHUNKS),
    _case("chunks-beyond-the-file", _changed(_CHUNKS, _LAYOUT + 3, _ADDRESS.pack(1 << 40)), _CHUNKS, "w"),
    _case("chunk-tree-in-itself", _tree_in_itself(b"\1", _MANY_CHUNKS), _MANY_CHUNKS, "w"),
    _case("layout-unknown", _changed(_CHUNKS, _LAYOUT, b"\x09"), _CHUNKS),
    _case("filters-claim-more", _changed(_FILTERED, _FILTERED.index(b"\1\2\0\0\0\0\0\0\2\0") + 1, b"\xff"), _FILTERED),
    _case("compact-claims-more", _patch(_COMPACT, b"\3\0\x90\1", b"\3\0\x80\1"), _COMPACT),
    _case("type-of-an-object-nowhere", lambda: _shared(1 << 40), _NAMED),
    _case("type-of-itself", lambda: _shared(None), _NAMED),
    _case("value-type-nested-900-deep", _nested, GOOD, "w"),
    _case("newer-soft-link", later(_linked(h5py.SoftLink("/layers/dense")), libver="latest")),
    _case("newer-link-into-another-file", later(_linked(h5py.ExternalLink("/etc/passwd", "/")), libver="latest")),
    _case("newer-soft-link-among-many", later(lambda f: (_dense(f), f.__setitem__("soft", h5py.SoftLink("/name1"))), libver="latest"), _DENSE),
    _case("newer-superblock-damaged", _flipped(_NEW, b"\x89HDF", 20), _NEW),
    _case("newer-header-damaged", _flipped(_NEW, b"OHDR"), _NEW),
    _case("newer-name-claims-more", _changed(_NEW, _NEW.index(b"\x09some name"), b"\xff", b"OHDR"), _NEW),
    _case("newer-name-with-a-slash", _changed(_NEW, _NEW.index(b"some name") + 5, b"/", b"OHDR"), _NEW),
    _case("newer-link-of-another-version", _changed(_NEW, _NEW.index(b"\x09some name") - 2, b"\2", b"OHDR"), _NEW),
    _case("dense-heap-damaged", _flipped(_DENSE, b"FRHP"), _DENSE),
    _case("dense-block-damaged", _flipped(_DENSE, b"FHDB", 60), _DENSE),
    _case("dense-tree-damaged", _flipped(_DENSE, b"BTHD"), _DENSE),
    _case("dense-leaf-damaged", _flipped(_DENSE, b"BTLF"), _DENSE),
    _case("dense-tree-too-deep", _changed(_DENSE, _INDEX + 12, b"\xff\xff", b"BTHD"), _DENSE),
    _case("dense-tree-of-no-records", _changed(_DENSE, _INDEX + 10, b"\0\0", b"BTHD"), _DENSE),
    _case("dense-tree-claims-more", _changed(_DENSE, _INDEX + 24, b"\xff\xff", b"BTHD"), _DENSE),
    _case("dense-tree-of-another-kind", _changed(_DENSE, _INDEX + 5, b"\x06", b"BTHD"), _DENSE),
    _case("dense-heap-of-no-columns", _changed(_DENSE, _HEAP + 110, b"\0\0", b"FRHP"), _DENSE),
    _case("dense-heap-of-huge-blocks", _changed(_DENSE, _HEAP + 112, _ADDRESS.pack(1 << 40) * 2, b"FRHP"), _DENSE),
    _case("dense-heap-of-more-rows", _changed(_DENSE, _HEAP + 140, b"\xff\xff", b"FRHP"), _DENSE),
    _case("dense-heap-elsewhere", _changed(_DENSE, _HEAP + 132, _ADDRESS.pack(1 << 40), b"FRHP"), _DENSE),
    _case("dense-ids-of-another-length", _changed(_DENSE, _HEAP + 5, b"\x09", b"FRHP"), _DENSE),
    _case("fixed-array-claims-more", _changed(_ARRAY, _ARRAY.index(b"FAHD") + 8, _ADDRESS.pack(1 << 60), b"FAHD"), _ARRAY, "w"),
    _case("fixed-array-of-odd-elements", _changed(_ARRAY, _ARRAY.index(b"FAHD") + 6, b"\3", b"FAHD"), _ARRAY, "w"),
    _case("fixed-array-damaged", _flipped(_ARRAY, b"FADB", 20), _ARRAY, "w"),
    _case("growing-array-of-no-size", _changed(_GROWING, _GROWING.index(b"EAHD") + 9, b"\0", b"EAHD"), _GROWING, "w"),
    _case("growing-array-of-64-bits", _changed(_GROWING, _GROWING.index(b"EAHD") + 7, b"\xff", b"EAHD"), _GROWING, "w"),
    _case("growing-array-damaged", _flipped(_GROWING, b"EAIB", 20), _GROWING, "w"),
    _case("tree-of-chunks-damaged", _flipped(_TREE, b"BTLF", 20), _TREE, "w"),
    _zip("archive-cut", ARCHIVE[:-30]),
    _zip("archive-of-cut-weights", archive(GOOD[:-200])),
    _zip("archive-of-empty-weights", archive(b"")),
    _zip("archive-of-text", archive(b"not HDF5 at all" * 100)),
    _zip("archive-headers-disagree", archive(local_size=len(GOOD) + 1)),
    _zip("archive-config-not-json", archive(config=b'{"config": nonsense}')),
    _zip("archive-config-not-an-object", archive(config=b"[1, 2]")),
    _zip("archive-config-key-twice", archive(config=b'{"a": 1, "a": 2}')),
    _zip("archive-config-deep", archive(config=_DEEP_JSON)),
    _zip("archive-bomb", lambda: archive(GOOD + bytes(256 << 20), method=8), archive(method=8)),
    _zip("archive-inflates-to-less", archive(method=8, size=len(GOOD) + 9), archive(method=8)),
    _shards("one-missing", _1=None),
    _shards("one-cut", _1=_SHARDS[_SECOND_SHARD][:-9]),
    _shards("one-is-text", _1=b"version https://git-lfs.github.com/spec/v1"),
    _shards("one-is-a-link-to-nothing", _1="/nothing"),
    _shards("variables-not-there", {"/layers/dense/vars": _BOTH, "/layers/gone/vars": [_FIRST_SHARD]}),
    _shards("variables-in-one-only", _1=hdf5(lambda file: file.create_group("layers/dense/vars"))),
    _shards("variables-not-named", {"/layers/dense/vars": [_FIRST_SHARD], "/layers/dense_1/vars": [_SECOND_SHARD]}),
    _shards("variables-of-another-shard", _1=hdf5(_variables("layers/dense_1/vars", None, _1=(3,)))),
    _shards("variable-twice", _1=_SHARDS[_FIRST_SHARD]),
    _shards("variable-where-a-group-is", _1=hdf5(lambda f: f.create_group("layers/dense/vars/0").create_dataset("x", (2,), "f4"))),
    _shards("names-differ", _1=hdf5(_variables("layers/dense/vars", "second", _1=(3,)))),
    _shards("shard-twice", {"/layers/dense/vars": [*_BOTH, _SECOND_SHARD]}),
    _shards("layer-twice", {"/layers/dense/vars": _BOTH, "layers/dense": _BOTH}),
    _shards("shard-outside", {"/layers/dense/vars": [_FIRST_SHARD, f"../{_SECOND_SHARD}"]}),
    _shards("shard-absolute", {"/layers/dense/vars": [_FIRST_SHARD, "/etc/passwd"]}),
    _shards("shard-is-the-folder", {"/layers/dense/vars": [_FIRST_SHARD, "."]}),
    _shards("shard-in-a-folder", {"/layers/dense/vars": [_FIRST_SHARD, f"x/{_SECOND_SHARD}"]}),
    _shards("shard-is-a-number", {"/layers/dense/vars": [_FIRST_SHARD, 1]}),
    _shards("shards-nested", {"/layers/dense/vars": [_BOTH]}),
    _shards("no-shards", {"/layers/dense/vars": _BOTH, "/layers/other/vars": []}),
    _shards("no-map", _BOTH),
    _shards("hostile-names", {"/layers/dense/vars": _BOTH, _HOSTILE: [_SECOND_SHARD]}),
    Case("shards-index-cut", "m.weights.json", {**sharded(), "m.weights.json": sharded()["m.weights.json"][:-1]}, sharded()),
    Case("shards-index-deep", "m.weights.json", {**sharded(), "m.weights.json": _DEEP_JSON}, sharded()),
    Case("shards-index-of-numbers", "m.weights.json", {**sharded(), **_OWN_SUFFIX}, sharded()),
]  # fmt: skip
SWEEPS = [Sweep("m.weights.json", sharded()["m.weights.json"], tuple(_SHARDS.items()))]
