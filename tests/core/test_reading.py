"""What ``array.read(index)`` means: NumPy's own indexing of the whole array, bit for bit."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paratree.core.array import basic_index, row_major
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.errors import CorruptFileError, UnreadableError
from paratree.files.array import MOST_AXES, file_array
from paratree.files.local import LocalFile, Memory

COMPLEX = ("complex64", "complex128")
NARROW = tuple(name for name, bits in BITS.items() if bits < 8)
WHOLE = tuple(name for name in BITS if name not in COMPLEX + NARROW)


class Counted(Memory):
    """Bytes in memory that count how many were asked for."""

    asked = 0

    def readinto(self, view, offset):
        self.asked += len(view)
        super().readinto(view, offset)


def decoded(data, start, places, dtype, big_endian):
    """Return the values at ``places`` of ``data`` as an array, one value at a time, from the definition."""
    bits, whole = BITS[dtype], numpy_dtype(dtype)
    values = np.empty(places.size, whole)
    for i, place in enumerate(places.ravel()):
        if bits < 8:
            number = int.from_bytes(data[start:], "little") >> (int(place) * bits)
            raw = bytes([number & ((1 << bits) - 1)])
        else:
            width = bits // 8
            raw = data[start + int(place) * width :][:width]
            parts = [raw[: width // 2], raw[width // 2 :]] if dtype in COMPLEX else [raw]
            raw = b"".join(part[::-1] for part in parts) if big_endian else raw
        values[i] = np.frombuffer(raw, whole)[0]
    return values.reshape(places.shape)


def numbers(count, dtype, seed):
    """Return the bytes of ``count`` values: no NaN, whose bits a copy may change, and no odd booleans."""
    random = np.random.default_rng(seed)
    if dtype == "bool" or BITS[dtype] < 8:
        return bytes(random.integers(0, 2 if dtype == "bool" else 256, count, np.uint8))
    real = numpy_dtype({"complex64": "float32", "complex128": "float64"}.get(dtype, dtype))
    return np.abs(random.integers(0, 100, 2 * count)).astype(real).tobytes()


@st.composite
def arrays(draw, dtypes=tuple(BITS)):
    """Draw bytes, and a description of an array that lies in them."""
    dtype = draw(st.sampled_from(dtypes))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    strides = draw(st.none() | st.tuples(*(st.integers(0, 9) for _ in shape)))
    return dtype, shape, strides, draw(st.integers(0, 5)), draw(st.booleans()), draw(st.integers(0, 9))


def indices(shape):
    """Strategy of basic indices of an array of this shape."""
    bound = st.none() | st.integers(-6, 6)
    step = st.none() | st.integers(-3, 3).filter(bool)

    def part(length):
        slices = st.builds(slice, bound, bound, step)
        return slices | st.integers(-length, length - 1) if length else slices

    @st.composite
    def whole(draw):
        used = draw(st.integers(0, len(shape)))
        front = draw(st.integers(0, used))
        ends = (*shape[:front], *shape[len(shape) - (used - front) :]) if used > front else shape[:front]
        parts = [draw(part(length)) for length in ends]
        if used > front or draw(st.booleans()):
            parts.insert(front, ...)
        return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)

    return whole()


def described(case, **more):
    """Return the array of a case, and what NumPy has for it."""
    dtype, shape, strides, start, big_endian, seed = case
    steps = strides or np.cumprod([1, *(max(n, 1) for n in shape[:0:-1])])[::-1][: len(shape)]
    places = np.zeros(shape, int)
    for axis, (length, step) in enumerate(zip(shape, steps, strict=True)):
        places += (int(step) * np.arange(length)).reshape([-1] + [1] * (len(shape) - axis - 1))
    data = bytes(start) + numbers(int(places.max(initial=0)) + 1, dtype, seed)
    array = file_array(
        Counted(data, "m"), start, shape, dtype, strides=strides, big_endian=big_endian, **more
    )
    return array, decoded(data, start, places, dtype, big_endian)


def assert_same(found, expected):
    assert type(found) is np.ndarray
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("dtypes", [WHOLE, NARROW, COMPLEX], ids=["whole bytes", "narrow", "complex"])
@given(st.data())
def test_an_index_reads_what_numpy_takes(dtypes, data):
    array, whole = described(data.draw(arrays(dtypes)))
    index = data.draw(indices(array.shape))
    assert_same(array.read(), whole)
    assert_same(array.read(index), np.asarray(whole[index]))


@given(arrays(), st.data())
def test_basic_index_takes_from_each_axis_what_numpy_takes(case, data):
    shape = case[1]
    index = data.draw(indices(shape))
    taken = basic_index(index, shape)
    coordinates = np.indices(shape)[(slice(None), *(index if isinstance(index, tuple) else (index,)))]
    expected = np.meshgrid(*([p] if isinstance(p, int) else list(p) for p in taken), indexing="ij")
    kept = tuple(0 if isinstance(p, int) else slice(None) for p in taken)
    for found, grid in zip(coordinates, expected, strict=True):
        np.testing.assert_array_equal(found, grid[kept])


@given(arrays(COMPLEX), st.data())
@example(("complex64", (2,), None, 0, False, 0), None)
def test_a_conjugated_array_is_conjugated_after_reading(case, data):
    array, whole = described(case, conjugate=True)
    index = data.draw(indices(array.shape)) if data else 1
    assert_same(array.read(index), np.asarray(whole[index].conj()))


@given(arrays([name for name in BITS if name != "bool"]), st.data())
@example(("float32", (2,), None, 0, False, 0), None)
def test_a_negated_array_is_negated_after_reading(case, data):
    array, whole = described(case, negative=True)
    index = data.draw(indices(array.shape)) if data else 1
    assert_same(array.read(index), np.asarray(-np.asarray(whole[index])))


@pytest.mark.parametrize(
    "index", [3, -4, (0, 0, 0), (..., 0, ...), None, "a", 1.0, True, [0], np.ones(3, bool)], ids=repr
)
def test_an_index_that_does_not_fit_is_an_index_error(index):
    array = file_array(Memory(bytes(24), "m"), 0, (3, 2), "float32")
    with pytest.raises(IndexError):
        array.read(index)


def test_numpy_integers_are_positions():
    array = file_array(Memory(bytes(range(6)), "m"), 0, (3, 2), "uint8")
    assert array.read((np.int64(2), np.uint8(1))) == 5


def test_a_part_of_a_large_array_is_read_and_not_the_whole():
    source = Counted(bytes(1 << 22), "m")
    array = file_array(source, 0, (1024, 1024), "float32")
    assert array.read((512, slice(10, 20))).shape == (10,)
    assert source.asked == 40
    source.asked = 0
    assert array.read((slice(None, None, 512), slice(0, 3))).shape == (2, 3)
    assert source.asked == 24


def test_every_length_of_a_broadcast_axis_shows_the_one_stored_value():
    array = file_array(Memory(bytes([7]), "m"), 0, (5, 4), "uint8", strides=(0, 0))
    value = array.read()
    assert (value == 7).all()
    assert not value.flags.writeable


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "reason"),
    [
        ((4,), None, 1, "needs 16 bytes here and 15 are left"),
        ((4,), None, 99, "needs 16 bytes here and 0 are left"),
        ((1,), None, -1, "needs 4 bytes here"),
        ((2, 2), (3, 1), 0, "needs 20 bytes"),
        ((-1,), None, 0, "no length"),
        ((True,), None, 0, "no length"),
        ((2.0,), None, 0, "no length"),
        ((2,), (-1,), 0, "no length"),
        ((2, 2), (1,), 0, "1 strides are given for 2 axes"),
        ((1 << 40, 1 << 40), None, 0, "overflows 64 bits"),
        ((1 << 62, 0, 1 << 62), None, 0, "overflows 64 bits"),
        ((1,) * (MOST_AXES + 1), None, 0, "65 axes are claimed"),
        ((1 << 30,), (0,), 0, "claims over 1000 times"),
    ],
)
def test_an_array_that_does_not_fit_its_source_is_refused(shape, strides, offset, reason):
    with pytest.raises(CorruptFileError, match=reason) as error:
        file_array(Memory(bytes(16), "file.bin"), offset, shape, "float32", strides=strides, member="w")
    assert error.value.path == "file.bin"
    assert error.value.member == "w"


def test_booleans_have_no_negative():
    with pytest.raises(CorruptFileError, match="booleans"):
        file_array(Memory(bytes(4), "m"), 0, (4,), "bool", negative=True)


@given(st.lists(st.integers(-3, 1 << 70), max_size=5), st.integers(-99, 1 << 70), st.integers(0, 64))
def test_no_claim_reaches_an_allocation(shape, offset, size):
    """Either the claim is refused at once, or the array can be read."""
    try:
        array = file_array(Memory(bytes(size), "m"), offset, shape, "uint8")
    except CorruptFileError:
        return
    assert array.read().shape == tuple(shape)


def test_more_axes_than_numpy_holds_are_said():
    shape = (1,) * 64
    array = file_array(Memory(bytes(4), "m"), 0, shape, "float32")
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        assert array.read().shape == shape
    else:
        with pytest.raises(UnreadableError, match="at most 32 axes and this array has 64; read"):
            array.read()


@pytest.mark.parametrize(
    ("index", "shape", "said"),
    [
        ((0,), (), "1 part and the array is a scalar, without axes"),
        ((0, 0), (3,), "2 parts and the array 1 axis"),
        ((0, 0, 0), (3, 4), "3 parts and the array 2 axes"),
    ],
)
def test_an_index_of_too_many_parts_says_how_many(index, shape, said):
    with pytest.raises(IndexError, match=f"^the index has {said}$"):
        basic_index(index, shape)


@given(
    st.lists(st.sampled_from([1, 2, 3, 65, 130]), min_size=0, max_size=3),
    st.data(),
    st.sampled_from(["float32", "uint8", "complex128"]),
)
def test_row_major_is_the_same_values_without_gaps(lengths, data, dtype):
    values = np.arange(math.prod(lengths)).astype(dtype).reshape(lengths)
    values = values.transpose(data.draw(st.permutations(range(len(lengths)))))
    values = values[tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1]))) for _ in lengths)]
    made = row_major(values)
    assert (made.shape, made.dtype, made.flags.c_contiguous) == (values.shape, values.dtype, True)
    np.testing.assert_array_equal(made, values)


@pytest.mark.parametrize("start", [0, 1, 8, 16, 4080, 4088, 4095])
def test_where_bytes_are_read_to_the_kernel_copies_fast(start, tmp_path):
    """Not 1 to 31 bytes further in a page than in the file, where some processors take four times as long."""
    data = np.random.default_rng(0).integers(0, 256, (6 << 20) + start, np.uint8)
    (tmp_path / "w").write_bytes(data)
    source = LocalFile(tmp_path / "w")
    for size in (5_000, 300_000, 6 << 20):  # from the heap, and mapped
        read = file_array(source, start, (size,), "uint8").read()
        np.testing.assert_array_equal(read, data[start : start + size])
        assert (read.ctypes.data - start) % 4096 not in range(1, 32)
