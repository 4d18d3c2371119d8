"""HDF5 files that h5py writes in every form, against what h5py reads from them."""

from __future__ import annotations

import io
import struct

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from paratree.files.hdf5 import Group, read_tree
from paratree.files.local import Memory
from paratree.files.lookup3 import checksum

FORMS = {
    "earliest": {"libver": "earliest"},
    "latest": {"libver": "latest"},
    "v108": {"libver": ("v108", "v108")},
    "v110": {"libver": ("v110", "v110")},
    "block": {"libver": "earliest", "userblock_size": 512},
    "new-block": {"libver": "latest", "userblock_size": 512},
}
ORDERS = [False, True]


def made(fill, track_order: bool = False, **options) -> bytes:
    """Return a file that ``fill`` fills, all groups of which are tracked or none."""
    buffer, config = io.BytesIO(), h5py.get_config()
    before, config.track_order = config.track_order, track_order
    try:
        with h5py.File(buffer, "w", track_order=track_order, **options) as file:
            fill(file)
    finally:
        config.track_order = before
    return buffer.getvalue()


def read(data: bytes, wanted=lambda _: False) -> Group:
    """Read a file as paratree does."""
    return read_tree(Memory(data, "m.h5"), wanted)


def check(data: bytes) -> int:
    """Compare all that is in a file with h5py's reading; return how many arrays there are."""
    with h5py.File(io.BytesIO(data)) as file:
        return _check_group(file["/"], read(data))  # h5py 3.8 lists a file itself by name


def _check_group(group, found: Group) -> int:
    names = [name for name in group if group.get(name, getclass=True) is not h5py.Datatype]
    assert list(found.children) == names
    count = 0
    for name in names:
        if isinstance(group[name], h5py.Group):
            count += _check_group(group[name], found.children[name])
        else:
            _check_dataset(group[name], found.children[name].array)
            count += 1
    return count


def _check_dataset(dataset, array) -> None:
    assert array.shape == (dataset.shape or ()), dataset.name
    if array.problem is None and array.dtype != "bfloat16":  # which has a test of its own
        value = array.read()
        expected = dataset[...].astype(dataset.dtype.newbyteorder("="))
        assert value.dtype == expected.dtype, dataset.name
        np.testing.assert_array_equal(value, expected, err_msg=dataset.name)


def _low(group, name: str, kind, shape=(4,), plist=None) -> None:
    h5d.create(group.id, name.encode(), kind, h5s.create_simple(shape), plist)


def _float(bits: int, *fields: int, bias: int, order=h5t.IEEE_F32LE):
    kind = order.copy()
    kind.set_fields(*fields)
    kind.set_size(bits // 8)
    kind.set_ebias(bias)
    return kind


def _integer(size: int, precision: int):
    kind = h5t.STD_I32LE.copy()
    kind.set_precision(precision)
    kind.set_size(size)
    return kind


NUMBERS = ["f2", ">f2", "f4", ">f4", "f8", ">f8", "i1", "i2", ">i4", "i8", "u1", ">u2", "u4", "u8", "?"]
COMPLEX = ["c8", ">c8", "c16", ">c16"]
BOOLS = [("b1", {"FALSE": 0, "TRUE": 1}, "i1"), ("b2", {"TRUE": 1, "FALSE": 0}, "u1")]
WORDS = {  # an array of this type is called so
    "text": h5py.string_dtype(), "fixed": "S5", "opaque": "V3", "lists": h5py.vlen_dtype("f4"),
    "references": h5py.ref_dtype, "regions": h5py.regionref_dtype, "arrays": np.dtype(("f4", (3, 2))),
    "compound": np.dtype([("a", "f4"), ("b", "i4")]), "unlike": np.dtype([("r", "f4"), ("i", "f8")]),
    "nested": np.dtype([("r", [("r", "f4"), ("i", "f4")]), ("i", "f4")]),
}  # fmt: skip
CALLED = {
    "text": "text", "fixed": "text", "opaque": "opaque bytes", "lists": "lists", "references": "references",
    "regions": "references", "compound": "compounds", "unlike": "compounds", "nested": "compounds",
    "arrays": "arrays in an array", "int24": "integers of a form that NumPy lacks (3 bytes)",
    "int12": "integers of a form that NumPy lacks (2 bytes)", "bits": "bit fields",
    "float8": "floats of a form that NumPy lacks (1 bytes)", "bfloat16": "bfloat16",
    "bfloat16-big": "bfloat16", "enum": "int16", "three": "int8", "swapped": "uint8",
    "vax": "floats of a form that NumPy lacks (4 bytes)",
}  # fmt: skip


def _types(file) -> None:
    for code in [*NUMBERS, *COMPLEX]:
        file[code] = np.arange(6).reshape(2, 3).astype(code)
    for name, members, base in BOOLS:
        kind = h5py.enum_dtype(members, basetype=base)
        file.create_dataset(name, data=np.array([0, 1, 1], base), dtype=kind)
    for name, kind in WORDS.items():
        file.create_dataset(name, (3,), kind)
    file.create_dataset("enum", (3,), h5py.enum_dtype({"A": 1, "B": 2}, basetype="i2"))
    file.create_dataset("three", (3,), h5py.enum_dtype({"FALSE": 0, "TRUE": 1, "X": 2}, basetype="i1"))
    file.create_dataset("swapped", (3,), h5py.enum_dtype({"FALSE": 1, "TRUE": 0}, basetype="u1"))
    _low(file, "int24", _integer(3, 24))
    _low(file, "int12", _integer(2, 12))
    _low(file, "bits", h5t.STD_B8LE)
    _low(file, "float8", _float(8, 7, 3, 4, 0, 3, bias=7))
    _low(file, "bfloat16", _float(16, 15, 7, 8, 0, 7, bias=127))
    _low(file, "bfloat16-big", _float(16, 15, 7, 8, 0, 7, bias=127, order=h5t.IEEE_F32BE))
    vax = h5t.IEEE_F32LE.copy()
    vax.set_order(h5t.ORDER_VAX)
    _low(file, "vax", vax)


def _named_types(file) -> None:
    file["kept/float"], file["kept/big"] = np.dtype("f4"), np.dtype(">i2")
    file.create_dataset("a", data=[1, 2, 3], dtype=file["kept/float"])
    file.create_dataset("b", data=[4, 5, 6], dtype=file["kept/big"])
    file["kept/text"] = h5py.string_dtype()
    file.attrs.create("name", "by a named type", dtype=file["kept/text"])


def _spaces(file) -> None:
    file["scalar"], file["none"] = np.float32(3.5), h5py.Empty("f4")
    file["zero"], file["inner"] = np.zeros((0,), "f4"), np.zeros((3, 0, 2), "f4")
    file.create_dataset("grows", (0, 5), "f4", maxshape=(None, 5))
    file.create_dataset("never", (2, 3), "f4")
    file.create_dataset("filled", (2, 3), ">f4", fillvalue=3)
    file["axes"] = np.arange(2**10).reshape((2,) * 10)
    file["most"] = np.ones((1,) * 32, "f4")
    compact = h5p.create(h5p.DATASET_CREATE)
    compact.set_layout(h5d.COMPACT)
    _low(file, "compact", h5t.STD_I16BE, (3, 3), compact)
    file["compact"][...] = np.arange(9).reshape(3, 3)
    file["again"] = file["deeper/again"] = file["axes"]


PACKINGS = [
    {}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}, {"fletcher32": True},
    {"scaleoffset": 2}, {"compression": "lzf"},
]  # fmt: skip
CHUNKED = [  # shape, chunk, greatest shape: in the newer form, all ways to keep the places
    ((7, 9), (4, 5), None),
    ((7, 9), (7, 9), (7, 9)),
    ((7, 9), (4, 5), (40, 30)),
    ((7, 9), (4, 5), (None, 9)),
    ((7, 9), (2, 2), (7, None)),
    ((7, 9), (2, 2), (20, None)),
    ((7, 9), (2, 2), (None, None)),
    ((3, 4, 5), (2, 2, 2), (None, 4, None)),
]


def _chunks(file) -> None:
    generator = np.random.default_rng(0)
    for i, (shape, chunk, most) in enumerate(CHUNKED):
        for j, packing in enumerate(PACKINGS):
            code = "i4" if "scaleoffset" in packing else [">f4", "f8", "u2"][(i + j) % 3]
            data = generator.integers(0, 90, shape).astype(code)
            file.create_dataset(f"{i} {j}", data=data, chunks=chunk, maxshape=most, **packing)


def _partly(file) -> None:
    for most in (None, (None, 6), (60, None), (None, None), (99, 99)):
        for packing in ({}, {"compression": "gzip"}):
            options = {"chunks": (2, 3), "fillvalue": 7.5, "maxshape": most, **packing}
            part = file.create_dataset(f"{most} {len(packing)}", (60, 6), ">f4", **options)
            part[0:2, 0:3], part[40:43, 3:] = 1, 4
            file.create_dataset(f"never {most} {len(packing)}", (60, 6), ">f4", **options)
    for most in ((None, None), (30, None), (None, 40), (30, 40)):
        moved = file.create_dataset(f"moved {most}", (10, 10), "i4", chunks=(3, 3), maxshape=most)
        moved[...] = 1
        moved.resize((25 if most[0] != 30 else 30, 14))
        moved[5:, 3:] = 3
        moved.resize((8, 12))
    for name, most in (("early", (8, 9)), ("early, larger", (12, 20))):
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((3, 4))
        plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        h5d.create(file.id, name.encode(), h5t.IEEE_F32LE, h5s.create_simple((8, 9), most), plist)
        file[name][...] = np.arange(72).reshape(8, 9)


def _many_chunks(file) -> None:
    """Fill trees of some levels, and arrays in pages."""
    for packing in ({}, {"compression": "gzip", "compression_opts": 1}):
        for shape, most in (
            ((2500,), (None,)),
            ((2500,), None),
            ((60, 50), (None, None)),
            ((2, 2100), (3, None)),
        ):
            data, chunk = np.arange(np.prod(shape)).reshape(shape), (1,) * len(shape)
            name = f"{shape} {most} {len(packing)}"
            file.create_dataset(name, data=data.astype("i2"), chunks=chunk, maxshape=most, **packing)
        for most in (None, (None,)):
            name = f"sparse {most} {len(packing)}"
            sparse = file.create_dataset(name, (40_000,), "i2", chunks=(2,), maxshape=most, **packing)
            sparse[39_000:39_010] = np.arange(10)
            sparse[3] = 1


def _links(file) -> None:
    for count in (5, 8, 9, 20, 300):
        group = file.create_group(f"links {count}")
        for i in range(count):
            group[f"n{i * 7919 % count}"] = np.float32(i)
    for i in range(12):
        file["x" * (i * 200 + 1)] = np.float32(i)
    for i in range(10):
        file["long/" + "y" * (5000 + i)] = np.float32(i)
    file["wört"], file["日本"] = 1.0, 2.0
    file["/".join("d" * 60)] = np.zeros(3)
    file.create_group("nothing here")
    left = file.create_group("left")
    for i in range(60):
        left[f"n{i}"] = np.float32(i)
    for i in range(57):
        del left[f"n{i}"]


def _many_links(file) -> None:
    group, data = file.create_group("all"), file.create_dataset("one", data=np.zeros(2, "f4"))
    for i in range(2500):
        group[f"n{i * 7919 % 2500}"] = data
    for i in range(0, 2500, 3):
        del group[f"n{i}"]


FILLS = [_types, _named_types, _spaces, _chunks, _partly, _links]


@pytest.mark.parametrize("fill", FILLS, ids=lambda fill: fill.__name__.strip("_"))
@pytest.mark.parametrize("order", ORDERS, ids=["by-name", "by-creation"])
@pytest.mark.parametrize("form", FORMS)
def test_all_that_is_in_a_file_is_what_h5py_reads(form, order, fill):
    assert check(made(fill, track_order=order, **FORMS[form])) > 1


@pytest.mark.parametrize("form", ["earliest", "v108", "latest"])
def test_many_chunks(form):
    assert check(made(_many_chunks, **FORMS[form])) == 12


@pytest.mark.parametrize("order", ORDERS, ids=["by-name", "by-creation"])
@pytest.mark.parametrize("form", ["earliest", "latest"])
def test_many_links(form, order):
    found = read(made(_many_links, track_order=order, **FORMS[form]))
    names = [f"n{i * 7919 % 2500}" for i in range(2500) if i * 7919 % 2500 % 3]
    assert list(found.find("all").children) == (names if order else sorted(names))


@pytest.mark.parametrize("form", FORMS)
def test_what_types_are_called(form):
    found = read(made(_types, **FORMS[form])).children
    assert {name: found[name].array.dtype for name in CALLED} == CALLED
    assert [found[name].array.dtype for name, *_ in BOOLS] == ["bool", "bool"]
    assert [found[code].array.dtype for code in COMPLEX] == ["complex64"] * 2 + ["complex128"] * 2


def test_bfloat16_of_both_byte_orders_is_read():
    def fill(file) -> None:
        for name, order in (("little", h5t.IEEE_F32LE), ("big", h5t.IEEE_F32BE)):
            _low(file, name, _float(16, 15, 7, 8, 0, 7, bias=127, order=order))
            file[name][...] = [1, -2.5, 0, 3e38]

    for found in read(made(fill)).children.values():
        assert found.array.dtype == "bfloat16"
        np.testing.assert_allclose(found.array.read().astype("f4"), [1, -2.5, 0, 3e38], rtol=1e-2)


def _texts(large: bool):
    def fill(file) -> None:
        for count in (3, 9, 60):
            group = file.create_group(f"{count}")
            for i in range(count):
                group.attrs[f"t{i}"] = f"text {i}" * (i % 5)
            group.attrs["number"], group.attrs["none"] = 3, h5py.Empty("S1")
            group.attrs["list"], group.attrs["fixed"] = ["a", "b", "ccc"], np.array([b"x", b"yy"])
            group.attrs["no texts"] = np.zeros((0,), "S3")
        file.attrs["long"] = "z" * 100_000
        if large:
            file.attrs["over 64 KiB"] = np.array([b"q" * 1000] * 100)
            file.attrs["over 64 KiB, too"] = np.array([b"r" * 1000] * 90)
            file.attrs["numbers"] = np.arange(100_000)

    return fill


@pytest.mark.parametrize("order", ORDERS, ids=["by-name", "by-creation"])
@pytest.mark.parametrize("form", FORMS)
def test_texts_in_attributes_are_what_h5py_reads(form, order):
    large = FORMS[form]["libver"] != "earliest"
    data = made(_texts(large), track_order=order, **FORMS[form])
    tree = read(data, lambda _: True)
    with h5py.File(io.BytesIO(data)) as file:
        for group in (file, *file.values()):
            expected = {name: _as_texts(value) for name, value in group.attrs.items() if _is_text(value)}
            assert tree.find(group.name).texts == expected


def _is_text(value) -> bool:
    return isinstance(value, str | h5py.Empty) or (value.dtype.kind in "OS" and value.ndim > 0)


def _as_texts(value) -> list[str]:
    if isinstance(value, str | h5py.Empty):
        return [value] if isinstance(value, str) else []
    return [text.decode() if isinstance(text, bytes) else text for text in value]


def test_texts_of_named_types():
    for form in FORMS.values():
        assert read(made(_named_types, **form), lambda _: True).text("name") == "by a named type"


def test_a_type_may_have_many_names():
    def fill(file) -> None:
        file["kept"], file["w"] = np.dtype([(f"b{i}", "f4") for i in range(40)]), np.zeros(2)
        for i in range(200):
            file[f"n{i}"] = file["kept"]

    assert list(read(made(fill)).children) == ["w"]


@pytest.mark.parametrize("form", FORMS)
def test_hard_links_are_ties_whatever_the_storage(form):
    def fill(file) -> None:
        file["plain"], file["empty"] = np.ones(3), np.ones(3)
        file.create_dataset("chunks", data=np.ones(9), chunks=(2,))
        for name in ("plain", "chunks"):
            file[f"other/{name}"] = file[name]

    tree = read(made(fill, **FORMS[form]))
    for name in ("plain", "chunks"):
        assert tree.find(name).array.storage == tree.find(f"other/{name}").array.storage
    assert tree.find("plain").array.storage != tree.find("empty").array.storage


def _resum(data: bytes, start: int, end: int) -> bytes:
    """Return a file with the checksum at ``end`` made that of the bytes from ``start`` to there."""
    return data[:end] + struct.pack("<I", checksum(data[start:end])) + data[end + 4 :]


def test_chunks_at_the_edge_may_be_left_unfiltered():
    """H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS: h5py cannot ask for it, so the flag is set here."""

    def fill(file) -> None:
        made_so = file.create_dataset("w", data=np.arange(10, dtype="i4"), chunks=(4,), compression="gzip")
        made_so.id.write_direct_chunk((8,), np.array([8, 9, -1, -1], "<i4").tobytes())

    data = made(fill, libver=("v110", "v110"))
    layout = data.index(b"\4\2\0\2")  # version, kind, flags, axes and one
    start = data.rindex(b"OHDR", 0, layout)
    width = 1 << (data[start + 5] & 3)
    place = start + 6 + (16 if data[start + 5] & 0x20 else 0) + (4 if data[start + 5] & 0x10 else 0)
    end = place + width + int.from_bytes(data[place : place + width], "little")
    changed = _resum(data[: layout + 2] + b"\1" + data[layout + 3 :], start, end)
    assert check(changed) == 1
    assert read(changed).find("w").array.read().tolist() == list(range(10))


# Anything that h5py can write


NAMES = some.text(
    some.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=9
).filter(lambda name: name != ".")
SHAPES = some.lists(some.integers(0, 5), max_size=4).map(tuple)


@some.composite
def _array(draw):
    shape = draw(SHAPES)
    options = {"dtype": draw(some.sampled_from([*NUMBERS, *COMPLEX]))}
    if shape and draw(some.booleans()):
        options["chunks"] = tuple(draw(some.integers(1, max(n, 1))) for n in shape)
        most = [draw(some.sampled_from([n, n + 3, None])) for n in shape]
        options["maxshape"] = tuple(
            m if m is None else max(m, c) for m, c in zip(most, options["chunks"], strict=True)
        )
        options["compression"] = draw(some.sampled_from([None, "gzip"]))
        options["shuffle"] = draw(some.booleans())
    return shape, options, draw(some.booleans())


GROUPS = some.recursive(
    some.dictionaries(NAMES, _array(), max_size=12),
    lambda inner: some.dictionaries(NAMES, some.one_of(inner, _array()), max_size=12),
    max_leaves=4,
)


def _fill(group, content) -> None:
    for name, what in content.items():
        if isinstance(what, dict):
            _fill(group.create_group(name), what)
            continue
        shape, options, written = what
        dataset = group.create_dataset(name, shape, **options)
        if written:
            dataset[...] = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(options["dtype"])


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(GROUPS, some.sampled_from(list(FORMS)), some.booleans())
def test_whatever_h5py_writes_is_what_it_reads(content, form, order):
    check(made(lambda file: _fill(file, content), track_order=order, **FORMS[form]))
