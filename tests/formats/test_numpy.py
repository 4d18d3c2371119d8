"""NumPy .npy and .npz: values as NumPy reads them, lazily; what NumPy's files cannot say."""

from __future__ import annotations

import io
import os
import pickle

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import paratree as pt
from paratree.files.local import Memory
from paratree.formats.numpy import _array
from tests import weights

DTYPES = (
    hnp.integer_dtypes(endianness="?")
    | hnp.unsigned_integer_dtypes(endianness="?")
    | hnp.boolean_dtypes()
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
)


def test_real_weights_equal_numpy():
    path = weights.path("g2p-en")
    expected = np.load(path)
    with pt.open(path) as tree:
        assert list(tree) == expected.files
        assert tree.format == "NumPy npz"
        assert tree.size == sum(value.size for value in expected.values())
        for name in expected.files:
            assert tree[name].value.dtype == expected[name].dtype
            assert tree[name].value.shape == expected[name].shape
            np.testing.assert_array_equal(tree[name].value, expected[name])


@given(
    DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4))),
    st.booleans(),
)
def test_every_numeric_array_round_trips(array, fortran):
    array = np.asfortranarray(array) if fortran else array
    buffer = io.BytesIO()
    np.save(buffer, array)
    found = _array(Memory(buffer.getvalue(), "m.npy"), "m")
    assert found.shape == array.shape
    assert found.dtype == array.dtype.name
    value = found.read()
    assert value.dtype.isnative
    np.testing.assert_array_equal(value, array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_of_many_kinds(tmp_path, save):
    arrays = {
        "encoder/w": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "big": np.arange(5, dtype=">i4"), "empty": np.zeros((0, 3)), "scalar": np.float32(2),
        "running_mean": np.ones(2),
    }  # fmt: skip
    save(tmp_path / "m.npz", **arrays)
    tree = pt.open(tmp_path / "m.npz")
    assert list(tree) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(tree[name].value, array)
    np.testing.assert_array_equal(tree["encoder.w"][1:, ::2], arrays["encoder/w"][1:, ::2])
    assert tree["running_mean"].kind == tree["big"].kind == "buffer"
    assert tree.ties == ()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([{}, 1], dtype=object), "would run their pickles"),
        (np.ones(3, ml_dtypes.float8_e4m3fn), "void type"),
        (np.zeros(2, [("a", "f4"), (("title", "b"), "i8", (2,))]), "of the fields a, b; save each"),
        (np.zeros(2, [("a", "f4"), ("c", [("d", "U3")]), ("e", "?")]), "of the fields a, c, e; save each"),
        (np.zeros(2, [(name, "f4") for name in "abcd"]), "of the fields a, b, c, …; save each"),
        (np.array("text"), "text"),
        (np.array(b"text"), "text"),
        (np.array("2020-01-01", "M8[D]"), "dates"),
        (np.array(1, "m8[s]"), "time spans"),
        (np.ones(2, np.longdouble), "not every machine"),
    ],
)
def test_listed_and_refused_on_read(tmp_path, array, reason):
    np.save(tmp_path / "m.npy", array, allow_pickle=True)
    param = pt.open(tmp_path / "m.npy")["m"]
    assert param.shape == array.shape
    assert param.nbytes is None
    assert param.array.problem
    with pytest.raises(pt.UnreadableError, match=reason):
        _ = param.value


def test_what_is_not_read_has_a_short_name(tmp_path):
    records, wide = (
        np.zeros(2, [(f"a long name of field {i}", "f4") for i in range(9)]),
        np.ones(2, np.longdouble),
    )
    np.savez(tmp_path / "m.npz", records=records, wide=wide)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps({"records": records, "wide": wide}))
    for file in ("m.npz", "m.pkl"):
        tree = pt.open(tmp_path / file)
        assert [param.dtype for param in tree.values()] == ["structured", wide.dtype.name]
        assert {param.kind for param in tree.values()} == {"other"}


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2])
def test_what_numpy_writes_and_cannot_name_is_known_by_its_code(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    np.save(tmp_path / "m.npy", array)
    np.savez(tmp_path / "m.npz", w=array)
    for param in (pt.open(tmp_path / "m.npy")["m"], pt.open(tmp_path / "m.npz")["w"]):
        assert param.dtype == array.dtype.name
        np.testing.assert_array_equal(param.value, array)


def test_a_flipped_bit_in_an_npz_is_found_on_reading(tmp_path):
    np.savez(tmp_path / "m.npz", w=np.arange(4.0))
    content = bytearray((tmp_path / "m.npz").read_bytes())
    content[content.index(np.float64(3).tobytes())] ^= 1
    (tmp_path / "m.npz").write_bytes(content)
    with pytest.raises(pt.CorruptFileError, match="CRC-32"):
        _ = pt.open(tmp_path / "m.npz")["w"].value


def test_slices_read_little(tmp_path, monkeypatch):
    array = np.arange(4_000_000.0).reshape(2000, 2000)
    np.save(tmp_path / "m.npy", array)
    tree = pt.open(tmp_path / "m.npy")
    taken = []
    preadv = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, offset: taken.append(len(views[0])) or preadv(fd, views, offset)
    )
    for index, bound in (
        (5, 16_000),
        (slice(3, 7), 64_000),
        ((slice(None), 7), 16_000 * 2),
        ((slice(1990, None), slice(0, 10)), 200_000),
    ):
        taken.clear()
        np.testing.assert_array_equal(tree["m"][index], array[index])
        assert sum(taken) <= bound, index
