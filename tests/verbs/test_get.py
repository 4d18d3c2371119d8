"""Values of one tensor: slices, casts, .npy files, errors."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratree.core.errors import NoSuchParamError, UnreadableError
from paratree.core.param import Param
from paratree.files.array import file_array
from paratree.files.local import Memory
from paratree.verbs.get import get, parse_index, write_npy
from tests.verbs.trees import listed, tree_of


def same(found, expected):
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


class Counting(Memory):
    """Bytes in memory that count how many of them are read."""

    read = 0

    def readinto(self, view, offset):
        self.read += len(view)
        super().readinto(view, offset)


def tree_with(values, dtype=None):
    source = Counting(values.tobytes(), "m.bin")
    array = file_array(source, 0, values.shape, dtype or values.dtype.name, member="w")
    return tree_of(Param("net.w", array), listed("net.b", problem="net.b: it holds Python objects")), source


VALUES = np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000)


def test_a_slice_reads_only_what_it_needs():
    tree, source = tree_with(VALUES)
    found = get(tree, "net.w", parse_index("0:3,1"))
    np.testing.assert_array_equal(found.values, VALUES[0:3, 1])
    assert source.read < VALUES.nbytes / 10
    np.testing.assert_array_equal(get(tree, "net/w").values, VALUES)
    assert get(tree, "net.w", (5, 7)).values.shape == ()


def test_a_cast_counts_what_it_changed():
    values = np.array([1.0, 1.5, np.nan, np.inf, 70000.0, -0.0], np.float32)
    tree, _ = tree_with(values)
    assert get(tree, "net.w", dtype="float64").changed == 0
    assert get(tree, "net.w", dtype="float32").changed == 0
    assert get(tree, "net.w", dtype="float16").changed == 1
    assert get(tree, "net.w", dtype="int32").changed == 3
    assert get(tree, "net.w", dtype="bool").changed == 4
    assert get(tree, "net.w", dtype="bfloat16").values.dtype == ml_dtypes.bfloat16
    tree, _ = tree_with(np.array([1 + 0j, 1 + 2j], np.complex64))
    assert get(tree, "net.w", dtype="float32").changed == 1
    tree, _ = tree_with(np.array([1.5, -2.0], ml_dtypes.bfloat16))
    found = get(tree, "net.w", dtype="float32")
    assert (found.dtype, found.changed, found.values.dtype) == ("float32", 0, np.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_a_cast_of_float64_rounds_once(dtype):
    one, step = 1.0, float(ml_dtypes.finfo(dtype).eps)
    value = np.array([one + step / 2 + 2**-40])
    tree, _ = tree_with(value)  # as float32 it lies in the middle, and goes to 1
    assert float(get(tree, "net.w", dtype=dtype).values[0]) == one + step


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("net.x", {}, NoSuchParamError, "did you mean"),
        ("net", {}, NoSuchParamError, "it is a subtree"),
        ("net.b", {}, UnreadableError, "net: net.b: it holds Python objects"),
        ("net.w", {"index": 1000}, IndexError, "net: net.w: index 1000 is out of bounds"),
        ("net.w", {"index": (0, 0, 0)}, IndexError, "the index has 3 parts and the array 2 axes"),
        ("net.w", {"dtype": "float31"}, UnreadableError, "'float31' is no dtype; there are: bool"),
    ],
)
def test_errors(name, options, error, message):
    tree, _ = tree_with(VALUES)
    with pytest.raises(error, match=message):
        get(tree, name, **options)


WHOLE = st.integers(-6, 6)
PARTS = st.one_of(
    WHOLE.map(str),
    st.tuples(st.one_of(st.just(""), WHOLE.map(str)), st.one_of(st.just(""), WHOLE.map(str))).map(":".join),
    st.tuples(WHOLE, WHOLE, st.sampled_from([-2, -1, 1, 2])).map(lambda t: ":".join(map(str, t))),
    st.just("..."),
)


@given(st.lists(PARTS, min_size=1, max_size=3))
def test_an_index_means_what_it_means_to_numpy(parts):
    text = ",".join(parts)
    values = np.arange(60).reshape(3, 4, 5)
    try:
        expected = eval(f"values[{text}]", {"values": values})
    except IndexError:
        with pytest.raises(IndexError):
            values[parse_index(text)]
    else:
        np.testing.assert_array_equal(values[parse_index(f" [{text}] ")], expected)


@pytest.mark.parametrize("text", ["", "a", "1:2:3:4", "::0", "1,,2", "1.5", "True", "1:a"])
def test_what_is_no_index(text):
    with pytest.raises(ValueError, match="is no index"):
        parse_index(text)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "bool", "complex64", "uint64"])
def test_a_npy_file_holds_the_values_bit_for_bit(dtype, tmp_path):
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    tree, _ = tree_with(values)
    path = tmp_path / "w.npy"
    write_npy(get(tree, "net.w"), str(path))
    same(np.load(path), values)
    with pytest.raises(FileExistsError, match="force"):
        write_npy(get(tree, "net.w", 0), str(path))
    write_npy(get(tree, "net.w", 0), str(path), force=True)
    same(np.load(path), values[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_what_npy_cannot_say_is_refused(dtype, tmp_path):
    tree, _ = tree_with(np.array([1.5, 2], getattr(ml_dtypes, dtype)))
    with pytest.raises(UnreadableError, match=f"cannot say {dtype}; cast it: --dtype float32"):
        write_npy(get(tree, "net.w"), str(tmp_path / "w.npy"))
    assert list(tmp_path.iterdir()) == []
    write_npy(get(tree, "net.w", dtype="float32"), str(tmp_path / "w.npy"))
    same(np.load(tmp_path / "w.npy"), np.array([1.5, 2], np.float32))
