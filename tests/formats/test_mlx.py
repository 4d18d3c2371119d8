"""Files that MLX writes: .npy, .npz, .safetensors and GGUF, with the values that MLX reads from them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import numpy_dtype

mx = pytest.importorskip("mlx.core", reason="MLX writes the files, and its reading is the truth")

DTYPES = [
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float16", "bfloat16", "float32", "complex64"),
]


def arrays():
    """An array of every dtype; and a transposed one, an empty one, one without axes."""
    every = {
        f"layers.{i}.{name}": (mx.arange(6).reshape(2, 3) % 2).astype(
            getattr(mx, "bool_" if name == "bool" else name)
        )
        for i, name in enumerate(DTYPES)
    }
    return every | {
        "transposed": mx.arange(6.0).reshape(2, 3).T,
        "empty": mx.zeros((0, 3)),
        "scalar": mx.array(1.5),
    }


def values(array):
    """The values of an array of MLX, bfloat16 too, for which it has no NumPy array."""
    if array.dtype == mx.bfloat16:
        return np.array(array.view(mx.uint16)).view(numpy_dtype("bfloat16"))
    return np.array(array)


def assert_equal(tree, expected):
    assert set(tree) == set(expected)
    for name, array in expected.items():
        expected_values = values(array)
        assert tree[name].dtype == expected_values.dtype.name, name
        assert tree[name].shape == expected_values.shape, name
        np.testing.assert_array_equal(tree[name].value, expected_values, err_msg=name)


@pytest.mark.parametrize("save", ["savez", "savez_compressed", "save_safetensors"])
def test_every_dtype_equals_what_mlx_reads(tmp_path, save):
    path = tmp_path / ("m.safetensors" if save == "save_safetensors" else "m.npz")
    given = arrays()
    if save == "save_safetensors":
        mx.save_safetensors(str(path), given, {"format": "mlx"})
    else:
        getattr(mx, save)(str(path), **given)
    expected = mx.load(str(path))
    assert set(expected) == set(given)
    with pt.open(path) as tree:
        assert_equal(tree, expected)
        np.testing.assert_array_equal(tree["transposed"][1:, ::-1], values(given["transposed"])[1:, ::-1])
        assert tree.meta == ({"format": "mlx"} if save == "save_safetensors" else {})


@pytest.mark.parametrize("name", DTYPES)
def test_npy(tmp_path, name):
    array = arrays()[f"layers.{DTYPES.index(name)}.{name}"]
    mx.save(str(tmp_path / "m.npy"), array)
    assert_equal(pt.open(tmp_path / "m.npy"), {"m": mx.load(str(tmp_path / "m.npy"))})


@given(st.text("abc", min_size=1, max_size=9), st.integers(0, 5))
def test_headers_of_any_length_whatever_they_are_aligned_to(tmp_path_factory, name, size):
    path = tmp_path_factory.mktemp("mlx") / "m.safetensors"
    given = {name: mx.arange(size).astype(mx.float32), f"{name}.half": mx.ones((3,), mx.bfloat16)}
    mx.save_safetensors(str(path), given)
    assert_equal(pt.open(path), mx.load(str(path)))


def test_gguf(tmp_path):
    path = tmp_path / "m.gguf"
    given = {
        name: array
        for name, array in arrays().items()
        if array.dtype in (mx.float32, mx.float16, mx.int32, mx.int8)
    }
    given = {name: array for name, array in given.items() if array.size and array.ndim}
    mx.save_gguf(str(path), given, {"general.name": "toy", "general.file_type": mx.array(3, mx.uint32)})
    expected, metadata = mx.load(str(path), return_metadata=True)
    with pt.open(path) as tree:
        assert len(given) == 5
        assert_equal(tree, expected)
        assert tree.meta["general.name"] == metadata["general.name"] == "toy"
        assert tree.meta["general.file_type"] == 3
