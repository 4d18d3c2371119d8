"""The two ways to do the hot loops of stats give the same figures, and the right ones."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from fractions import Fraction
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from paratree.verbs import _scan_numpy
from paratree.verbs._kernels import loops
from paratree.verbs._moments import together

WAYS = ["numpy", *(["numba"] if find_spec("numba") else [])]


def _loops(way):
    if way == "numpy":
        return _scan_numpy
    from paratree.verbs import _scan_numba

    return _scan_numba


def _floats(dtype):
    limit = 2.0**32 if dtype == "float32" else 1e70
    return hnp.arrays(
        dtype,
        st.integers(1, 300),
        elements=st.floats(-limit, limit, width=8 * np.dtype(dtype).itemsize, allow_subnormal=True),
    )


def _upper(way, values):
    counts = np.zeros(1 << 16, np.int64)
    _loops(way).moments(values, counts)
    return counts


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_moments_are_those_of_exact_arithmetic(way, dtype, data):
    values = data.draw(_floats(dtype))
    found = _loops(way).moments(values)
    exact = [Fraction(float(v)) for v in values]
    size = len(exact)
    mean = sum(exact) / size
    squares = sum((v - mean) ** 2 for v in exact)
    scale = sum(map(abs, exact)) / size
    assert (found.size, found.zeros) == (size, int((values == 0).sum()))
    assert (found.low, found.high) == (values.min(), values.max())
    assert abs(Fraction(found.mean) - mean) <= Fraction(1e-13) * scale + Fraction(1e-300)
    assert found.l1 == pytest.approx(float(sum(map(abs, exact))), rel=1e-13)
    assert found.l2 == pytest.approx(math.sqrt(float(sum(v * v for v in exact))), rel=1e-12)
    if squares:
        off = float(mean * mean * size / squares)  # how much of the sums cancels
        assert found.squares == pytest.approx(float(squares), rel=1e-12 * max(1.0, min(off, 1e9) * 1e-1))
    else:
        assert found.squares == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("place", [0, 1, 70_000, 299_999])
def test_no_moments_with_one_bad_value(way, bad, dtype, place):
    values = np.random.default_rng(0).normal(0, 1, 300_000).astype(dtype)
    values[place] = bad
    assert _loops(way).moments(values) is None


@pytest.mark.parametrize("way", WAYS)
def test_no_moments_with_negative_nan(way):
    values = np.array([1, 2, 0xFFC00001], np.uint32).view(np.float32)
    assert _loops(way).moments(values) is None


@pytest.mark.skipif("numba" not in WAYS, reason="numba is not installed here: there is one way only")
@pytest.mark.parametrize("mean", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_ways_agree_on_many_values(mean, dtype):
    values = np.random.default_rng(1).normal(mean, 0.02, 1_000_003).astype(dtype)
    values[::1001] = 0
    ours, theirs = (_loops(way).moments(values) for way in WAYS)
    assert tuple(ours) == pytest.approx(tuple(theirs), rel=1e-12, abs=1e-15)
    assert np.array_equal(*(_upper(way, values) for way in WAYS))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_accuracy_on_many_values(way, mean):
    values = np.random.default_rng(2).normal(mean, 0.02, 400_001).astype(np.float32)
    found, exact = _loops(way).moments(values), values.astype(np.float64)
    total = math.fsum(exact)
    assert found.mean == pytest.approx(total / exact.size, rel=1e-10)
    assert found.l1 == pytest.approx(math.fsum(np.abs(exact)), rel=1e-12)
    assert found.l2 == pytest.approx(math.sqrt(math.fsum(exact * exact)), rel=1e-12)
    off = exact - total / exact.size
    assert found.std == pytest.approx(math.sqrt(math.fsum(off * off) / exact.size), rel=1e-10)


@pytest.mark.parametrize("way", WAYS)
@given(hnp.arrays(np.uint16, st.integers(0, 400)))
@settings(max_examples=30, deadline=None)
def test_patterns_are_counted(way, patterns):
    counts = _loops(way).count(patterns, 1 << 16)
    assert np.array_equal(counts, np.bincount(patterns, minlength=1 << 16))
    narrow = (patterns & 255).astype(np.uint8)
    assert np.array_equal(_loops(way).count(narrow, 256), np.bincount(narrow, minlength=256))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("width", [4, 8])
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_upper_bits_of_finite_values_are_counted(way, width, data):
    bits = data.draw(hnp.arrays(f"u{width}", st.integers(1, 400)))
    bits = np.where(np.isfinite(bits.view(f"f{width}")), bits, 0).astype(bits.dtype)
    assert np.array_equal(
        _upper(way, bits.view(f"f{width}")),
        np.bincount((bits >> (8 * width - 16)).astype(int), minlength=1 << 16),
    )


@given(_floats("float64"), st.integers(1, 299))
@settings(max_examples=60, deadline=None)
def test_blocks_together_are_the_whole(values, cut):
    parts = [part for part in (values[:cut], values[cut:]) if part.size]
    found, whole = together([_scan_numpy.moments(part) for part in parts]), _scan_numpy.moments(values)
    assert (found.size, found.zeros, found.low, found.high) == whole[:4]
    scale = float(np.abs(values).max())
    assert found.mean == pytest.approx(whole.mean, abs=1e-13 * scale)
    assert found.std == pytest.approx(whole.std, rel=1e-9, abs=1e-12 * scale)
    assert found.l1 == pytest.approx(whole.l1, rel=1e-12)


def test_numba_is_used_where_it_repays(monkeypatch):
    monkeypatch.delitem(__import__("sys").modules, "numba", raising=False)
    assert loops("scan", 1 << 20).__name__.endswith("numpy")
    assert loops("scan", 1 << 31).__name__.endswith(WAYS[-1])


@pytest.mark.skipif(
    "numba" not in WAYS or find_spec("scipy") is None, reason="numba or SciPy is not installed"
)
def test_numba_is_loaded_without_scipy_which_others_still_have():
    code = """
import sys
import numpy as np
from paratree.verbs._kernels import loops
loops("scan", 1 << 40).count(np.zeros(9, np.uint16), 1 << 16)
print("scipy.linalg" in sys.modules)
from numba import njit
print(njit(lambda a: np.dot(a, a))(np.ones((3, 3)))[0, 0], "scipy.linalg" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n3.0 True\n"


@pytest.mark.once
@pytest.mark.skipif("numba" not in WAYS, reason="numba is not installed")
def test_what_numba_compiled_is_kept_for_the_next_process(tmp_path):
    code = """
import ml_dtypes
import numpy as np
from paratree.verbs import _compare_numba, _scan_numba
_scan_numba.count(np.zeros(9, np.uint16), 1 << 16)
for dtype in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64):
    values = np.ones(9, dtype)
    _compare_numba.measure(values, values + values)
    if values.itemsize > 2:
        _scan_numba.moments(values, np.zeros(1 << 16, np.int64))
found = [f for module in (_scan_numba, _compare_numba) for f in vars(module).values() if hasattr(f, "stats")]
print(sum(sum(f.stats.cache_misses.values()) for f in found), len(found) > 9)
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    first, second = (subprocess.check_output(command, text=True, env=environment) for _ in range(2))
    assert first != "0 True\n"
    assert second == "0 True\n"
