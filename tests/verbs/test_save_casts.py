"""pt.save with a cast: every value is rounded once, and what a dtype cannot hold is told."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.cast import rounded
from paratree.core.dtypes import numpy_dtype
from tests import weights
from tests.verbs.held import tree_with


def nearest(value, dtype):
    """Return the nearest value of a dtype, of two that with the even pattern, by looking at all of them."""
    patterns = np.arange(1 << (8 * numpy_dtype(dtype).itemsize), dtype=f"u{numpy_dtype(dtype).itemsize}")
    every = patterns.view(numpy_dtype(dtype)).astype(np.float64)
    order = [
        (abs(Fraction(value) - Fraction(float(one))), int(bits) & 1)
        for one, bits in zip(every, patterns, strict=True)
        if np.isfinite(one)
    ]
    finite = [float(one) for one in every if np.isfinite(one)]
    return finite[min(range(len(order)), key=order.__getitem__)]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz"])
@pytest.mark.parametrize("source", ["float32", "float64"])
@given(st.data())
@settings(max_examples=40)
def test_a_cast_is_rounded_once(dtype, source, data):
    largest = float(ml_dtypes.finfo(numpy_dtype(dtype)).max)
    value = data.draw(st.floats(-largest, largest, width=32 if source == "float32" else 64))
    cast = float(rounded(np.array([value], source), dtype)[0])
    assert cast == nearest(value, dtype)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (1 + 2**-8 + 2**-40, "bfloat16", 1 + 2**-7),  # through float32 it would be a tie, rounded down
        (1 + 2**-8 - 2**-40, "bfloat16", 1),
        (1 + 2**-8, "bfloat16", 1),
        (1 + 3 * 2**-8, "bfloat16", 1 + 2**-6),
        (-(1 + 2**-8 + 2**-40), "bfloat16", -(1 + 2**-7)),
        (1 + 2**-4 + 2**-40, "float8_e4m3fn", 1.125),
        (1 + 2**-11 + 2**-40, "float16", 1 + 2**-10),
        (3.3895313892515355e38, "bfloat16", 3.3895313892515355e38),
        (float(2**128 - 2**119), "bfloat16", np.inf),
        (float(2**128 - 2**119 - 2**76), "bfloat16", 3.3895313892515355e38),
        (1e300, "bfloat16", np.inf),
        (2.0**-150, "bfloat16", 0.0),
        (np.inf, "bfloat16", np.inf),
    ],
)
def test_float64_is_not_rounded_twice(value, dtype, expected):
    assert float(rounded(np.array([value]), dtype)[0]) == expected
    assert np.isnan(float(rounded(np.array([np.nan]), dtype)[0]))


def test_what_is_cast_and_what_is_not(tmp_path):
    arrays = {
        "w": np.array([1.5, 70000.0, np.inf, np.nan, -1e6], np.float32),
        "half": np.ones(3, np.float16),
        "steps": np.arange(3),
        "mask": np.ones(2, bool),
    }
    saved = pt.save(tree_with(arrays, [("x", "w")]), tmp_path / "m.safetensors", dtype="fp16", verify=True)
    found = pt.open(tmp_path / "m.safetensors")
    assert {name: param.dtype for name, param in found.items()} == {
        "w": "float16", "half": "float16", "steps": "int64", "mask": "bool", "x": "float16",
    }  # fmt: skip
    assert found.ties == (("w", "x"),)
    assert saved.notes == ("2 finite values beyond float16 became infinite or NaN: w",)
    assert found["w"].value[:1].tolist() == [1.5]


@pytest.mark.parametrize(
    ("dtype", "lost"),
    [
        ("float16", []),
        ("float8_e5m2", []),
        ("float8_e4m3fn", ["2 infinite values beyond float8_e4m3fn became NaN: v, w"]),
        ("float8_e4m3fnuz", ["2 infinite values beyond float8_e4m3fnuz became NaN: v, w"]),
        (
            "float4_e2m1fn",
            [
                "2 infinite values beyond float4_e2m1fn became finite: v, w",
                "1 NaN value beyond float4_e2m1fn became a number: w",
                "1 finite value beyond float4_e2m1fn became its largest: w",
            ],
        ),
    ],
)
@pytest.mark.parametrize("verify", [False, True])
def test_what_a_dtype_cannot_hold_is_told(dtype, lost, verify, tmp_path):
    arrays = {
        "v": np.array([-np.inf], np.float32),
        "w": np.array([np.inf, 1.0, -200.0, np.nan]),
        "x": np.ones(2, np.float32),
    }
    path = tmp_path / ("m.index" if dtype.startswith("float4") else "m.pt")
    saved = pt.save(tree_with(arrays).cast(dtype), path, verify=verify)
    assert list(saved.notes) == lost


def test_torch_casts_alike(tmp_path):
    torch = pytest.importorskip("torch", reason="its casts are the measure")
    values = torch.randn(100_000) * torch.logspace(-40, 38, 100_000)
    for name in ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"):
        pt.save({"w": values}, tmp_path / f"{name}.pt", dtype=name)
        found, expected = torch.load(tmp_path / f"{name}.pt")["w"], values.to(getattr(torch, name))
        fits = expected.float().isfinite() & (values.abs() <= torch.finfo(expected.dtype).max)
        assert torch.equal(
            found.view(torch.uint8 if found.itemsize == 1 else torch.int16)[fits],
            expected.view(torch.uint8 if found.itemsize == 1 else torch.int16)[fits],
        )


def test_quantised_values_are_written_as_what_they_stand_for(tmp_path):
    pytest.importorskip("gguf", reason="gguf decodes the values")
    source = weights.path("smollm2")
    with pytest.raises(pt.UnsupportedError, match="is q8_0, which safetensors cannot hold"):
        pt.save(source, tmp_path / "m.safetensors")
    select = "blk.0.**"
    pt.save(source, tmp_path / "m.safetensors", select=select, dtype="float32", verify=True)
    for name, param in pt.open(tmp_path / "m.safetensors").items():
        assert np.array_equal(param.value, pt.open(source)[name].value.astype(np.float32))


@pytest.mark.parametrize("dtype", ["int8", "float7", 3])
def test_what_is_no_dtype_to_cast_to(dtype, tmp_path):
    with pytest.raises(pt.MismatchError, match="is no floating dtype; give a name"):
        pt.save(tree_with({"w": np.ones(3)}), tmp_path / "m.pt", dtype=dtype)
