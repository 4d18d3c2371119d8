"""The hot loops of diff, NumPy's and numba's, against exact arithmetic: every dtype, any bit pattern."""

from fractions import Fraction
from importlib import import_module
from math import isfinite, isinf, isnan, ldexp, sqrt

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratree.core.dtypes import BITS, numpy_dtype
from paratree.verbs._compare_numpy import Tolerance
from paratree.verbs._figures import combined

DTYPES = sorted(BITS)
COMPILED = ("bfloat16", "float16", "float32", "float64")
EXACT = Tolerance()
EXAMPLES = 40  # of each dtype
LOOPS = [*[("numpy", name) for name in DTYPES], *[("numba", name) for name in COMPILED]]


def loops(name):
    if name == "numba":
        pytest.importorskip("numba", reason="could not import numba; this test needs it")
    return import_module(f"paratree.verbs._compare_{name}")


@pytest.fixture(params=["numpy", "numba"])
def measure(request):
    return loops(request.param).measure


# A slow reference


def number(value):
    """Return a value as an int, a float or a complex, which hold it exactly."""
    if value.dtype.kind in "biu" or "int" in value.dtype.name:
        return int(value)
    return complex(value) if value.dtype.kind == "c" else float(value)


def parts(value):
    return (value.real, value.imag) if isinstance(value, complex) else (value,)


def is_nan(value):
    return any(isinstance(part, float) and isnan(part) for part in parts(value))


def is_inf(value):
    return not is_nan(value) and any(isinstance(part, float) and isinf(part) for part in parts(value))


def is_wild(value):
    return is_nan(value) or is_inf(value)


def square(value):
    return sum(Fraction(part) ** 2 for part in value)


def change_of(x, y):
    a, b = parts(x), parts(y)
    zeros = (0,) * max(len(a), len(b))
    padded = [(*v, *zeros)[: len(zeros)] for v in (a, b)]
    return [Fraction(q) - Fraction(p) for p, q in zip(*padded, strict=True)]


def root(value):
    """Return the square root of a fraction of any size."""
    if not value:
        return 0.0
    shift = (value.numerator.bit_length() - value.denominator.bit_length()) // 2
    try:
        return ldexp(sqrt(value / Fraction(4) ** shift), shift)
    except OverflowError:
        return float("inf")


def reference(a, b, tolerance=EXACT):
    pairs = [(number(x), number(y)) for x, y in zip(a, b, strict=True)]
    finite = [(x, y) for x, y in pairs if not (is_wild(x) or is_wild(y))]
    changes = [change_of(x, y) for x, y in finite]
    equal = [x == y or (is_nan(x) and is_nan(y)) for x, y in pairs]
    beyond = sum(
        root(square(change_of(x, y))) > tolerance.absolute + tolerance.relative * root(square(parts(x)))
        for x, y in finite
    )
    wild = sum(not same for same, pair in zip(equal, pairs, strict=True) if any(map(is_wild, pair)))
    return {
        "changed": len(pairs) - sum(equal),
        "beyond": beyond + wild if any(tolerance) else len(pairs) - sum(equal),
        "nan": (sum(is_nan(x) for x, _ in pairs), sum(is_nan(y) for _, y in pairs)),
        "inf": (sum(is_inf(x) for x, _ in pairs), sum(is_inf(y) for _, y in pairs)),
        "new_nan": sum(is_nan(y) and not is_nan(x) for x, y in pairs),
        "new_inf": sum(is_inf(y) and x != y for x, y in pairs),
        "first_nan": next((i for i, (x, y) in enumerate(pairs) if is_nan(y) and not is_nan(x)), -1),
        "first_inf": next((i for i, (x, y) in enumerate(pairs) if is_inf(y) and x != y), -1),
        "max_abs": root(max(map(square, changes), default=Fraction(-1))) if changes else -1,
        "sizes": [root(square(change_of(x, y))) if not (is_wild(x) or is_wild(y)) else -1 for x, y in pairs],
        "relative_l2": relative(sum(map(square, changes)), sum(square(parts(x)) for x, _ in finite)),
        "square_a": sum(square(parts(x)) for x, _ in finite),
        "square_b": sum(square(parts(y)) for _, y in finite),
        "product": sum(
            Fraction(p) * Fraction(q) for x, y in finite for p, q in zip(parts(x), parts(y), strict=False)
        ),
    }


def relative(change, base):
    if not change:
        return 0.0
    return root(change / base) if base else float("inf")


def holds(figures, expected):
    for name in ("changed", "beyond", "nan", "inf", "new_nan", "new_inf", "first_nan", "first_inf"):
        assert getattr(figures, name) == expected[name], name
    assert figures.max_abs == pytest.approx(expected["max_abs"], rel=1e-15, abs=0)
    if expected["max_abs"] > 0 and isfinite(expected["max_abs"]):
        assert expected["sizes"][figures.max_at] == pytest.approx(expected["max_abs"], rel=1e-15, abs=0)
    assert figures.relative_l2 == pytest.approx(expected["relative_l2"], rel=1e-12, abs=0)
    norms = expected["square_a"] * expected["square_b"]
    if not norms:
        assert figures.cosine is None
    else:
        sign = 1 if expected["product"] >= 0 else -1
        cosine = sign * root(expected["product"] ** 2 / norms)
        assert figures.cosine == pytest.approx(cosine, abs=1e-12)


# Arrays of every bit pattern


def special_bits(dtype):
    """Return bit patterns worth a look: zeros, the smallest, the largest, NaN of several payloads."""
    width = dtype.itemsize * (4 if dtype.kind == "c" else 8)
    ones = (1 << width) - 1
    half = ones >> 1
    found = [0, 1, 2, half + 1, half + 2, half, half - 1, ones, ones - 1]
    if "float" in dtype.name or dtype.kind in "fc":
        part = {4: np.float32, 8: np.float64}.get(width // 8, dtype)
        with np.errstate(all="ignore"):
            values = np.array([1, -1, 0.5, 3, np.inf, -np.inf, np.nan], np.float64).astype(part)
        found += [int(v) for v in values.view(f"u{np.dtype(part).itemsize}")]
    return found


@st.composite
def arrays(draw, name, most=12):
    """Return two arrays of a dtype, often with equal values."""
    dtype = numpy_dtype(name)
    width = dtype.itemsize * (4 if dtype.kind == "c" else 8)
    limit = (1 << min(BITS[name] // (2 if dtype.kind == "c" else 1), width)) - 1
    special = [bits & limit for bits in special_bits(dtype)]
    bits = st.sampled_from(special) | st.integers(0, limit)
    if dtype.kind == "b":
        bits = st.integers(0, 1)
    pair = st.tuples(bits, bits) | bits.map(lambda b: (b, b))
    pairs = draw(st.lists(pair, min_size=1, max_size=most))
    if dtype.kind == "c":
        pairs = pairs * 2
    unit = np.dtype(f"u{width // 8}")
    return tuple(np.array(column, unit).view(dtype) for column in zip(*pairs, strict=True))


@pytest.mark.parametrize(("way", "name"), LOOPS)
def test_figures_are_exact(way, name):
    measure = loops(way).measure

    @settings(max_examples=EXAMPLES)
    @given(arrays(name))
    def check(pair):
        holds(measure(*pair), reference(*pair))

    check()


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "float64", "int64", "int8", "complex64"])
def test_tolerance_is_that_of_the_first(name, measure):
    tolerance = Tolerance(2.0**-3, 2.0**-5)  # powers of two: the bound itself is exact

    @settings(max_examples=EXAMPLES)
    @given(arrays(name))
    def check(pair):
        assert measure(*pair, tolerance).beyond == reference(*pair, tolerance)["beyond"]

    check()


PAIRS = [
    ("float32", "bfloat16"), ("float16", "float32"), ("bfloat16", "float16"), ("float64", "float32"),
    ("float8_e4m3fn", "bfloat16"), ("int8", "float32"), ("int32", "int64"), ("uint8", "int16"),
    ("int64", "uint64"), ("int64", "float64"), ("uint64", "float32"), ("bool", "uint8"),
    ("complex64", "complex128"), ("float32", "complex64"), ("int4", "int8"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second"), [*PAIRS, *[pair[::-1] for pair in PAIRS]])
def test_two_dtypes(first, second):
    measure = loops("numpy").measure

    @settings(max_examples=EXAMPLES)
    @given(arrays(first), arrays(second))
    def check(one, other):
        n = min(len(one[0]), len(other[0]))
        a, b = one[0][:n], other[0][:n]
        figures, expected = measure(a, b), reference(a, b)
        for name in ("changed", "nan", "inf", "new_nan", "new_inf", "first_nan", "first_inf"):
            assert getattr(figures, name) == expected[name], name
        assert figures.other_bits == 0
        assert figures.uncast_beyond == figures.uncast <= figures.changed
        assert figures.max_abs == pytest.approx(expected["max_abs"], rel=1e-15, abs=0)
        assert figures.relative_l2 == pytest.approx(expected["relative_l2"], rel=1e-12, abs=0)

    check()


# What counts as equal


FLOATS = [name for name in DTYPES if name.startswith(("float", "bfloat"))]


@pytest.mark.parametrize("name", FLOATS)
def test_zeros_of_other_sign_are_equal_of_other_bits(name, measure):
    dtype = numpy_dtype(name)
    a = np.array([0.0, 1.0, 0.0], np.float32).astype(dtype)
    b = np.array([-0.0, 1.0, 0.0], np.float32).astype(dtype)
    if not np.signbit(b[:1].astype(np.float32))[0]:
        assert name.endswith("fnuz") or name == "float8_e8m0fnu"  # these have one zero, or none
        return
    figures = measure(a, b)
    assert (figures.changed, figures.other_bits, figures.nan_bits) == (0, 1, 0)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("bfloat16", (0x7FC0, 0x7F81)),
        ("float16", (0x7E00, 0xFE01)),
        ("float32", (0x7FC00000, 0x7F800001)),
        ("float64", (0x7FF8 << 48, (0xFFF8 << 48) + 5)),
        ("float8_e5m2", (0x7E, 0x7D)),
        ("float8_e4m3fn", (0x7F, 0xFF)),
    ],
)
def test_nan_of_another_payload_is_no_change_but_is_told(name, bits, measure):
    dtype = numpy_dtype(name)
    one = np.array([1.0], np.float32).astype(dtype)
    nan = [np.array([pattern], f"u{dtype.itemsize}").view(dtype) for pattern in bits]
    a, b = np.concatenate([one, nan[0]]), np.concatenate([one, nan[1]])
    figures = measure(a, b)
    assert (figures.changed, figures.other_bits, figures.nan_bits) == (0, 1, 1)
    assert (figures.nan, figures.new_nan, figures.max_abs) == ((1, 1), 0, 0)


def test_integers_beyond_2_to_the_53_are_compared_exactly(measure):
    a = np.array([2**53, -(2**63), 2**63 - 1], np.int64)
    b = np.array([2**53 + 1, 2**63 - 1, 2**63 - 1], np.int64)
    figures = measure(a, b)
    assert (figures.changed, figures.max_abs, figures.max_at) == (2, 2**64 - 1, 1)


def test_an_int4_of_a_file_and_of_jax_are_equal(measure):
    of_file, of_jax = (np.array([0x0F, 0x03], np.uint8), np.array([0xFF, 0x03], np.uint8))
    figures = measure(of_file.view(ml_dtypes.int4), of_jax.view(ml_dtypes.int4))
    assert (figures.changed, figures.other_bits) == (0, 0)


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [("float32", "float16"), ("float32", "bfloat16"), ("float64", "float32"), ("float32", "float8_e4m3fn")],
)
def test_a_cast_of_the_wider_is_recognised(wide, narrow, measure):
    a = np.random.default_rng(0).standard_normal(100).astype(numpy_dtype(wide))
    b = a.astype(numpy_dtype(narrow))
    assert measure(a, b).uncast == measure(b, a).uncast == 0
    assert measure(a, b).changed > 50
    b.view(f"u{b.itemsize}")[7] ^= 1
    assert measure(a, b).uncast and measure(b, a).uncast


def test_quantised_to_integers_is_no_cast(measure):
    assert measure(np.array([0.5, 2.0], np.float32), np.array([0, 2], np.int8)).uncast == 1


# Sums and places over many blocks


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("size", [767, 768, 769, 16_384, 16_385, 100_000])
def test_both_loops_give_the_same(name, size):
    a, b = large(name, size)
    numpy, numba = loops("numpy").measure(a, b), loops("numba").measure(a, b)
    for field in numpy._fields:
        one, other = getattr(numpy, field), getattr(numba, field)
        if field.startswith(("square", "product")):
            assert one[1] == other[1]
            assert one[0] == pytest.approx(other[0], rel=1e-12)
        else:
            assert one == other, field
    assert numpy.relative_l2 == pytest.approx(numba.relative_l2, rel=1e-12)
    assert numpy.cosine == pytest.approx(numba.cosine, abs=1e-12)


@pytest.mark.parametrize("name", COMPILED)
def test_sums_of_many_values_are_exact(name, measure):
    a, b = large(name, 2_500)
    holds(measure(a, b), reference(a, b))


def large(name, size):
    rng = np.random.default_rng(size)
    a = rng.standard_normal(size)
    b = np.where(rng.random(size) < 0.5, a, a + 1e-2 * rng.standard_normal(size))
    a, b = a.astype(numpy_dtype(name)), b.astype(numpy_dtype(name))
    a[size // 3] = b[size // 2] = b[size // 2 + 1] = np.nan
    b[size - 1], a[5], b[5] = np.inf, np.inf, np.inf
    a[6], b[6] = 0.0, -0.0
    return a, b


@pytest.mark.parametrize("place", [0, 767, 768, 16_383, 16_384, 49_999])
@pytest.mark.parametrize("name", COMPILED)
def test_the_first_of_several_largest_changes_is_found(name, place, measure):
    a = np.zeros(50_000, numpy_dtype(name))
    b = a.copy()
    b[place:] = -2.0
    figures = measure(a, b)
    assert (figures.changed, figures.max_abs, figures.max_at) == (50_000 - place, 2.0, place)


@pytest.mark.parametrize("name", ["float64", "complex128"])
@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e-170, 1e170, 1e308])
def test_squares_neither_overflow_nor_vanish(name, scale, measure):
    a = np.array([1.0, -0.5, 0.25], name) * scale
    b = np.array([-1.0, 0.5, 0.5], name) * scale
    holds(measure(a, b), reference(a, b))


def test_a_small_change_beside_large_values_has_its_norm(measure):
    a, b = np.array([1.0, 1e-300]), np.array([1.0, 2e-300])
    assert measure(a, b).relative_l2 == pytest.approx(1e-300, rel=1e-12)


def test_a_norm_that_is_a_large_multiple_of_a_small_one(measure):
    a, b = np.array([0, 1e-45], np.float32), np.array([1.9e109, 0.0])
    assert measure(a, b).relative_l2 == pytest.approx(1.9e109 / float(a[1]), rel=1e-12)


@pytest.mark.parametrize(("way", "name"), LOOPS)
def test_cutting_into_blocks_changes_no_figure(way, name):
    measure = loops(way).measure

    @settings(max_examples=EXAMPLES)
    @given(arrays(name), st.data())
    def check(pair, data):
        a, b = pair
        cut = data.draw(st.integers(0, len(a)))
        pieces = [(0, cut), (cut, len(a))]
        made = combined(measure(a[i:j], b[i:j]).moved(i) for i, j in pieces if j > i)
        holds(made, reference(a, b))

    check()
