"""Names of number types."""

import numpy as np
import pytest

from paratree.core import dtypes
from paratree.core.dtypes import BITS, from_numpy_code, is_known, nbytes, numpy_dtype


@pytest.mark.parametrize("name", sorted(BITS))
def test_every_name_is_that_of_numpy_or_ml_dtypes_and_its_width_is_true(name):
    dtype = numpy_dtype(name)
    assert dtype.name == name
    assert is_known(name)
    assert dtype.itemsize == -(-BITS[name] // 8)


def test_quantised_dtypes_are_known_and_are_no_dtypes_of_numpy():
    assert all(map(is_known, dtypes.BLOCKS))
    assert not BITS.keys() & dtypes.BLOCKS.keys()


def test_other_names_are_not_known():
    assert not any(map(is_known, ("quint8", "object", "float128", "torch.float32", "")))


@pytest.mark.parametrize(
    ("size", "name", "expected"),
    [
        (0, "float32", 0), (3, "float32", 12), (3, "float4_e2m1fn", 2), (3, "float6_e2m3fn", 3),
        (5, "bool", 5), (0, "q4_1", 0), (64, "q4_1", 40), (256, "q6_k", 210),
    ],
)  # fmt: skip
def test_bytes_of_values_packed_without_gaps(size, name, expected):
    assert nbytes(size, name) == expected


@pytest.mark.parametrize("name", [name for name in sorted(BITS) if name in dtypes._OF_NUMPY_CODE.values()])
@pytest.mark.parametrize("order", "<>")
def test_the_code_that_numpy_writes_is_read_back(name, order):
    code = np.dtype(name).newbyteorder(order).str
    assert from_numpy_code(code) == (name, code[0] == ">")


@pytest.mark.parametrize("code", ["|O", "<U4", "|V2", "<M8[ns]", "f4", "", ">f16", "!f4"])
def test_what_is_no_number_or_no_code_is_not_known(code):
    assert from_numpy_code(code) is None
