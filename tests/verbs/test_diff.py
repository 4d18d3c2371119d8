"""Two trees compared: structure, statuses, ties, names, blocks, and what a load really loaded."""

import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

import paratree as pt
from paratree import cli
from paratree.core.array import RefusedArray
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.render import diff as render
from paratree.verbs import _owners, _pairs
from paratree.verbs._differences import Diff
from tests.attacks.cases_gguf import Tensor, gguf
from tests.verbs.held import Held, held, tree_of, write

W = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.array([1.0, 2.0], np.float32)


def changed(values, *places, by=0.5):
    made = values.copy()
    for place in places:
        made[place] += by
    return made


def statuses(found):
    return {row.name: row.status for row in found}


# Structure


def test_equal_trees_are_the_same():
    found = pt.diff(tree_of(w=W, b=B), tree_of(b=B.copy(), w=W.copy()))
    assert (found.same, found.is_undecided) == (True, False)
    assert statuses(found) == {"w": "bit-equal", "b": "bit-equal"}
    assert found.verdict == "All 2 tensors are equal to the last bit."


def test_added_removed_and_reshaped():
    found = pt.diff(tree_of(w=W, gone=B), tree_of(w=W.reshape(3, 2), new=B))
    assert statuses(found) == {"w": "reshaped", "gone": "removed", "new": "added"}
    assert [row.shapes for row in found] == [((2, 3), (3, 2)), ((2,), None), (None, (2,))]
    assert found.verdict == (
        "1 of 1 tensor differs: w; 1 is only in the second (new); 1 is only in the first (gone)."
    )
    assert not found.same


@pytest.mark.parametrize("shape", [(3, 2), (6,), (1, 6), (2, 1, 3)])
def test_values_in_order_under_another_shape_are_told(shape, monkeypatch):
    monkeypatch.setattr(_owners, "_BLOCK", 2)
    row = pt.diff(tree_of(w=W), tree_of(w=W.reshape(shape))).rows[0]
    assert (row.status, row.in_order, row.transposed) == ("reshaped", True, None)
    for other in (changed(W, (1, 2)), W.astype(np.float64)):
        assert not pt.diff(tree_of(w=W), tree_of(w=other.reshape(shape))).rows[0].in_order


def test_in_order_in_blocks_of_any_cut(monkeypatch):
    monkeypatch.setattr(_owners, "_BLOCK", 7)
    values = np.arange(60, dtype=np.float32)
    for shape in ((3, 20), (5, 4, 3), (60,), (2, 2, 15)):
        for other in ((4, 15), (30, 2), (6, 10)):
            a, b = values.reshape(shape), values.reshape(other)
            assert pt.diff(tree_of(w=a), tree_of(w=b)).rows[0].in_order
            assert not pt.diff(tree_of(w=a), tree_of(w=changed(b, (1, 1)))).rows[0].in_order


def test_a_transpose_is_told():
    found = pt.diff(tree_of(w=W), tree_of(w=W.T))
    assert (found.rows[0].status, found.rows[0].transposed) == ("reshaped", (1, 0))


def test_a_kernel_of_a_convolution_with_its_axes_elsewhere_is_told():
    kernel = np.random.default_rng(0).random((3, 4, 5, 6), np.float32)  # height width in out
    row = pt.diff(tree_of(w=kernel.transpose(3, 2, 0, 1)), tree_of(w=kernel)).rows[0]
    assert (row.status, row.transposed) == ("reshaped", (3, 2, 0, 1))


def test_a_square_matrix_that_is_transposed_is_told():
    square = np.random.default_rng(0).random((4, 4))
    row = pt.diff(tree_of(w=square), tree_of(w=square.T)).rows[0]
    assert (row.status, row.transposed) == ("different", (1, 0))


def test_known_layouts_are_compared_axis_by_axis():
    a = tree_of(held("w", W, layout="out in"))
    b = tree_of(held("w", changed(W, (1, 2)).T, layout="in out"))
    row = pt.diff(a, b).rows[0]
    assert (row.status, row.changed, row.where, row.axes) == ("different", 1, (1, 2), (1, 0))
    assert pt.diff(a, tree_of(held("w", W.T, layout="in out"))).same


def test_a_square_matrix_of_known_layouts_that_lies_as_it_should_not():
    square = np.random.default_rng(0).random((4, 4))
    a, b = held("w", square, layout="out in"), held("w", square, layout="in out")
    row = pt.diff(tree_of(a), tree_of(b)).rows[0]
    assert (row.status, row.axes, row.transposed) == ("different", (1, 0), (0, 1))


@pytest.mark.parametrize("turned", [True, False])
def test_a_kernel_and_a_weight_of_two_files_are_equal_either_way(turned):
    square = np.random.default_rng(0).random((4, 4))
    a, b = tree_of(**{"a.weight": square}), tree_of(**{"a.kernel": square.T if turned else square})
    found = pt.diff(a, b, rename={"a.weight": "a.kernel"})
    assert (found.same, found.rows[0].axes) == (True, (1, 0) if turned else None)


@pytest.mark.parametrize("turned", [True, False])
def test_a_square_kernel_lies_as_the_others_do(turned):
    """Of two files, too: a kernel that is not square shows how all of them lie."""
    square, other = np.random.default_rng(0).random((2, 4, 4))
    a = tree_of(**{"a.weight": square, "b.weight": other[:3]})
    b = tree_of(**{"a.kernel": square.T if turned else square, "b.kernel": other[:3].T})
    row, wide = pt.diff(a, b, rename={"**.weight": "**.kernel"})
    assert (row.axes, wide.axes, wide.status) == ((1, 0), (1, 0), "bit-equal")
    assert (row.status, row.transposed) == (("bit-equal", None) if turned else ("different", (0, 1)))


@pytest.mark.parametrize(("format", "same"), [("Flax msgpack", False), ("safetensors", True)])
def test_a_square_kernel_of_a_format_of_flax_is_turned(format, same):
    square = np.random.default_rng(0).random((4, 4))
    a = tree_of(**{"a.weight": square}, format="PyTorch zip")
    found = pt.diff(a, tree_of(**{"a.kernel": square}, format=format), rename={"a.weight": "a.kernel"})
    assert (found.same, found.rows[0].transposed) == (same, None if same else (0, 1))


def test_kernels_that_all_lie_in_order_are_compared_so():
    square, other = np.random.default_rng(0).random((2, 4, 4))
    a = tree_of(**{"a.weight": square, "b.weight": other[:3]})
    b = tree_of(**{"a.kernel": square.T, "b.kernel": other[:3]})
    row, wide = pt.diff(a, b, rename={"**.weight": "**.kernel"})
    assert (row.axes, row.status, row.transposed) == (None, "different", (1, 0))
    assert (wide.axes, wide.status) == (None, "bit-equal")


def test_a_transpose_after_a_cast_is_called_so():
    wide = np.random.default_rng(0).random((4, 4), np.float32)
    found = pt.diff(tree_of(w=wide), tree_of(w=wide.T.astype(np.float16)))
    assert found.rows[0].transposed == (1, 0)
    assert "    the values are equal when transposed, after the cast" in render.lines(found)
    assert pt.diff(tree_of(w=wide.astype(np.float16)), tree_of(w=wide.T)).rows[0].transposed is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("dtype", "owned"),
    [("complex64", "c"), ("float32", "de"), ("float16", "e"), ("bfloat16", "e"), ("int8", ""), ("uint64", ""),
     ("bool", "")],
)  # fmt: skip
def test_no_cast_that_makes_other_numbers_is_an_owner_or_warns(dtype, owned):
    """Real parts of complex numbers, 1e39 as float16, fractions as integers: none of these is the value."""
    x = np.arange(1, 17.0).reshape(4, 4)
    values = {"z": x * (1 + 2j), "big": x * 1e9 if dtype == "float32" else x * 1e39, "half": x + 0.5}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        held = {n: v.astype(dtype) for n, v in zip("cde", values.values(), strict=True)}
        turned = {n: v.T.astype(dtype) for n, v in values.items()}
    zeros = {n: np.zeros((4, 4)) for n in "cde"}
    assert {
        row.name for row in pt.diff(tree_of(**values, **zeros), tree_of(**values, **held)) if row.found
    } == {*owned}
    for a, b in ((values, turned), (turned, values)):
        known = dict(zip("cde", values, strict=True))
        told = {row.name for row in pt.diff(tree_of(**a), tree_of(**b)) if row.transposed}
        assert told <= {known[n] for n in owned}


def test_known_layouts_of_a_convolution_in_small_blocks(monkeypatch):
    monkeypatch.setattr(_pairs, "_LARGEST_BLOCK", 28)
    kernel = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    a = tree_of(held("w", kernel.transpose(3, 2, 0, 1), layout="out in height width"))
    assert pt.diff(a, tree_of(held("w", kernel, layout="height width in out"))).same


def test_nothing_in_common():
    found = pt.diff(tree_of(w=W), tree_of(v=W))
    assert found.verdict == "No name is in both: 1 in the first only, 1 in the second only."
    assert (found.same, found.is_undecided) == (False, True)
    assert not pt.diff(tree_of(w=W, u=W), tree_of(w=W)).is_undecided


def test_two_empty_trees():
    found = pt.diff(tree_of(), tree_of())
    assert (found.same, found.is_undecided, found.verdict) == (False, True, "Both are empty.")


def test_an_array_without_values():
    empty = np.zeros((0, 3), np.float32)
    assert pt.diff(tree_of(w=empty), tree_of(w=empty)).same
    assert statuses(pt.diff(tree_of(w=empty), tree_of(w=empty.astype(float)))) == {"w": "equal after cast"}


def test_a_scalar():
    row = pt.diff(tree_of(s=np.float32(1)), tree_of(s=np.float32(3))).rows[0]
    assert (row.changed, row.where, row.max_abs, row.relative_l2) == (1, (), 2.0, 2.0)


# Values


def test_what_changed_and_where():
    row = pt.diff(tree_of(w=W), tree_of(w=changed(W, (0, 1), (1, 0)))).rows[0]
    assert (row.status, row.size, row.changed, row.max_abs, row.where) == ("different", 6, 2, 0.5, (0, 1))
    assert row.relative_l2 == pytest.approx(np.sqrt(0.5) / np.sqrt(55))


def test_nan_and_infinities_are_told_apart():
    a, b = changed(W), changed(W)
    b[0, 2], b[1, 1], a[1, 2] = np.nan, -np.inf, np.nan
    row = pt.diff(tree_of(w=a), tree_of(w=b)).rows[0]
    assert (row.nan, row.new_nan, row.first_nan) == ((1, 1), 1, (0, 2))
    assert (row.inf, row.new_inf, row.first_inf) == ((0, 1), 1, (1, 1))
    assert (row.changed, row.max_abs, row.where) == (3, None, None)
    assert (row.relative_l2, row.cosine) == (None, None)


def test_a_finite_change_beside_infinities_is_measured():
    a, b = changed(W), changed(W, (0, 0))
    a[1, 2], b[1, 2] = np.inf, 0
    row = pt.diff(tree_of(w=a), tree_of(w=b)).rows[0]
    assert (row.changed, row.max_abs, row.where) == (2, 0.5, (0, 0))
    assert row.relative_l2 == pytest.approx(0.5 / np.sqrt(30))


def test_nan_of_the_same_bits_are_equal():
    values = np.array([np.nan, 1], np.float32)
    assert pt.diff(tree_of(w=values), tree_of(w=values.copy())).same


def test_nan_of_other_bits_are_equal_on_request():
    a, b = (np.array([bits, 0], np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))
    found = pt.diff(tree_of(w=a), tree_of(w=b))
    assert (found.rows[0].status, found.rows[0].nan_bits, found.same) == ("other bits", 1, False)
    assert pt.diff(tree_of(w=a), tree_of(w=b), equal_nan=True).same


def test_zeros_of_other_sign_are_equal():
    found = pt.diff(tree_of(w=np.float32([0, 1])), tree_of(w=np.float32([-0.0, 1])))
    assert (found.rows[0].status, found.rows[0].changed, found.same) == ("other bits", 0, True)
    assert found.verdict == "The one tensor is equal, though of other bits."


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.float64])
def test_equal_after_a_cast_from_the_first_to_the_second(dtype):
    wide = np.random.default_rng(0).standard_normal(40).astype(np.float32)
    cast = wide.astype(dtype)
    for a, b in ((wide, cast), (cast, cast.astype(np.float32))):
        found = pt.diff(tree_of(w=a), tree_of(w=b))
        assert (found.rows[0].status, found.same) == ("equal after cast", True)
        assert f"{a.dtype} → {b.dtype}" in found.verdict
        other = b.copy()
        other[3] = b[4]
        assert pt.diff(tree_of(w=a), tree_of(w=other)).rows[0].status == "different"
    lost = pt.diff(tree_of(w=cast), tree_of(w=wide))  # what a cast to the wider would not have made
    assert lost.same == (dtype is np.float64)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("size", [40, 40_000])
def test_what_a_cast_rounds_is_not_counted_as_changed(dtype, size):
    wide = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    cast = wide.astype(dtype)
    row = pt.diff(tree_of(w=wide), tree_of(w=cast)).rows[0]
    assert (row.status, row.changed, row.beyond) == ("equal after cast", 0, 0)
    cast[[3, size - 1]] += dtype(1)
    row = pt.diff(tree_of(w=wide), tree_of(w=cast)).rows[0]
    assert (row.status, row.changed, row.beyond) == ("different", 2, 2)
    cast[3] = wide.astype(dtype)[3] * dtype(1.125)
    row = pt.diff(tree_of(w=wide), tree_of(w=cast), atol=0.5).rows[0]
    assert (row.status, row.changed, row.beyond) == ("different", 2, 1)
    assert pt.diff(tree_of(w=wide), tree_of(w=cast), atol=1.5).rows[0].status == "within tolerance"
    widened = cast.astype(np.float32)
    widened[5] += 1
    assert pt.diff(tree_of(w=cast), tree_of(w=widened)).rows[0].changed == 1
    assert pt.diff(tree_of(w=cast), tree_of(w=wide)).rows[0].changed > size // 2  # no cast made these


def test_what_a_cast_rounds_is_not_in_the_figures_of_a_new_nan():
    before = np.linspace(0.1, 1, 50, dtype=np.float32)
    after = before.astype(ml_dtypes.bfloat16)
    after[7] = np.nan
    row = pt.diff(tree_of(w=before), tree_of(w=after)).rows[0]
    assert (row.status, row.changed, row.new_nan, row.first_nan) == ("different", 1, 1, (7,))
    assert (row.max_abs, row.relative_l2, row.cosine, row.where) == (None, None, None, None)
    after[8] = 3
    row = pt.diff(tree_of(w=before), tree_of(w=after)).rows[0]
    assert (row.changed, row.where) == (2, (8,))


def test_a_cast_of_float64_rounds_once():
    value = np.array([1 + 2.0**-8 + 2.0**-40])
    there = (value + 2.0**-8).astype(ml_dtypes.bfloat16)  # 1 + 2**-7, to which it is nearest
    assert pt.diff(tree_of(w=value), tree_of(w=there)).rows[0].status == "equal after cast"


@pytest.mark.parametrize("top", [1e6, -1e6])
def test_what_overflows_in_a_cast_is_a_change(top):
    wide = np.array([1, top, 2], np.float32)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float16)
    for a, b in ((wide, narrow), (narrow, wide)):
        found = pt.diff(tree_of(w=a), tree_of(w=b))
        assert (found.rows[0].status, found.rows[0].changed, found.same) == ("different", 1, False)


@pytest.mark.parametrize("bad", [float("nan"), -1, "x", None])
def test_tolerances_are_numbers_of_at_least_zero(bad):
    for option in ("rtol", "atol"):
        with pytest.raises(pt.MismatchError, match=f"{option} is a number of at least 0"):
            pt.diff(tree_of(w=np.ones(2)), tree_of(w=np.ones(2)), **{option: bad})


def test_the_tolerance_is_relative_to_the_first():
    a, b = tree_of(w=np.float64([1, 100])), tree_of(w=np.float64([1.01, 101]))
    assert pt.diff(a, b, rtol=0.0101).rows[0].status == "within tolerance"
    assert pt.diff(a, b, rtol=0.0101).same
    row = pt.diff(a, b, atol=0.5).rows[0]
    assert (row.status, row.changed, row.beyond) == ("different", 2, 1)


def test_big_endian_and_strided_live_memory():
    big = W.astype(">f4")
    strided = np.zeros((4, 6), np.float32)[::2, ::2]
    strided[...] = W
    assert pt.diff(tree_of(w=big), tree_of(w=strided)).same
    assert pt.diff(tree_of(w=changed(big, (0, 0))), tree_of(w=strided)).rows[0].changed == 1


def test_booleans_and_complex_numbers():
    a = tree_of(m=np.array([True, False]), z=np.array([1 + 1j, 0], np.complex64))
    b = tree_of(m=np.array([True, True]), z=np.array([1 + 1j, 3 + 4j], np.complex64))
    flags, numbers = pt.diff(a, b)
    assert (flags.changed, flags.max_abs, flags.where) == (1, 1.0, (1,))
    assert (numbers.changed, numbers.max_abs, numbers.where) == (1, 5.0, (1,))


def test_a_tensor_that_holds_the_values_of_another_is_told():
    values = np.random.default_rng(0).random((3, 2000, 2), np.float32)
    a = tree_of(q=values[0], k=values[1], v=values[2])
    b = tree_of(q=values[1], k=values[1], v=values[2] + 1)
    assert {row.name: row.found for row in pt.diff(a, b)} == {
        "q": "holds k of the first",
        "k": None,
        "v": None,
    }


def test_a_beginning_in_common_is_not_enough():
    a = np.random.default_rng(0).random(5000, np.float32)
    b = changed(a, 4999)
    assert {row.found for row in pt.diff(tree_of(x=a, y=a * 2), tree_of(x=a * 3, y=b))} == {None}


def test_another_shape_is_another_tensor_and_another_dtype_is_cast():
    assert pt.diff(tree_of(x=W, z=W.T + 1), tree_of(x=W + 1)).rows[0].found is None
    a = tree_of(x=W, y=W.astype(np.float64) + 1)
    assert pt.diff(a, tree_of(x=W + 1)).rows[0].found == "holds y of the first"


def test_constants_belong_to_no_other_tensor():
    zeros, ones = np.zeros(8, np.float32), np.ones(8, np.float32)
    a, b = tree_of(x=zeros, y=ones, n=np.int64(1)), tree_of(x=ones, y=zeros, n=np.int64(2))
    assert {row.found for row in pt.diff(a, b)} == {None}


def test_looking_for_the_owner_reads_samples():
    values = np.random.default_rng(0).random((4, 50_000), np.float32)
    a = tree_of(*[held(f"w{i}", values[i]) for i in range(4)])
    found = pt.diff(a, tree_of(w0=values[0] + 1, **{f"w{i}": values[i] for i in range(1, 4)}))
    assert found.rows[0].found is None
    assert a["w1"].array.read_values < 52_000


def test_looking_for_a_transpose_reads_little_of_what_is_none():
    values = np.random.default_rng(0).random((300, 300), np.float32)
    changed = values.copy()
    changed[-1, -1] += 1
    a, b = tree_of(w=values), tree_of(w=changed)
    assert pt.diff(a, b).rows[0].transposed is None
    assert a["w"].array.read_values < 1.1 * values.size


def test_what_cannot_be_read_is_not_called_equal():
    refused = Param("w", RefusedArray((2, 3), "float32", "w: sparse (csr): no dense values"))
    b = ParamTree([refused], Origin("b", "test"))
    found = pt.diff(tree_of(w=W), b)
    assert (found.rows[0].status, found.same, found.is_undecided) == ("not compared", False, True)
    assert found.rows[0].problem == "sparse (csr): no dense values"
    assert found.verdict == "1 of 1 tensor could not be compared: w."


def test_a_shape_that_is_not_known_yet():
    lazy = ParamTree([Param("w", RefusedArray((None, 3), "float32", "w: not yet"))], Origin("b", "test"))
    assert pt.diff(tree_of(w=W), lazy).rows[0].problem == "its shape is not known yet"


class Late(Held):
    """An array whose values turn out not to be there."""

    def read(self, index=...):
        raise pt.UnreadableError("w: freed meanwhile")


def test_a_reader_that_refuses_in_the_middle():
    late = ParamTree([Param("w", Late(W))], Origin("late", "test"))
    assert pt.diff(tree_of(w=W), late).rows[0].problem == "freed meanwhile"


# Ties


def test_a_tied_group_is_compared_once():
    a = tree_of(held("embed", W, memory=1), held("head", W, memory=1), other=B)
    b = tree_of(held("embed", W, memory=2), held("head", W, memory=2), other=B)
    found = pt.diff(a, b)
    assert [(row.name, row.tied) for row in found] == [("embed", ("head",)), ("other", ())]
    assert found.same
    assert a["head"].array.read_values == 0


def test_tied_in_one_only():
    a = tree_of(held("embed", W, memory=1), held("head", W, memory=1))
    found = pt.diff(a, tree_of(embed=W, head=W))
    assert [(tie.names, tie.tied_in) for tie in found.ties] == [(("embed", "head"), "a")]
    assert not found.same
    assert found.verdict == ("All 2 tensors are equal to the last bit; 1 group is tied in one of them only.")
    assert pt.diff(tree_of(embed=W, head=W), a).ties[0].tied_in == "b"


def test_a_format_that_records_no_ties_is_not_blamed():
    a = tree_of(held("embed", W, memory=1), held("head", W, memory=1))
    found = pt.diff(a, tree_of(embed=W, head=W, format="NumPy npz"))
    assert (found.ties[0].records, found.same) == (False, True)


def test_a_name_that_is_missing_says_whom_it_is_tied_with():
    a = tree_of(held("embed", W, memory=1), held("head", W, memory=1))
    row = pt.diff(a, tree_of(embed=W)).rows[1]
    assert (row.name, row.status, row.tied) == ("head", "removed", ("embed",))


# Names


def test_slashes_and_dots_separate_alike():
    assert pt.diff(tree_of(**{"a/w": W}), tree_of(**{"a.w": W})).same


def test_other_names_of_the_framework_match():
    a = tree_of(held("dense.kernel", W, aliases=("sequential/dense/kernel",)))
    found = pt.diff(a, tree_of(**{"sequential.dense.kernel": W}))
    assert (found.rows[0].other, found.same) == ("sequential.dense.kernel", True)


@pytest.mark.parametrize(
    ("first", "second", "prefixes"),
    [
        ("module.", "", ("module.",)),
        ("", "model.", ("model.",)),
        ("net/", "", ("net/",)),
    ],
)
def test_a_prefix_is_proposed_and_applied_on_request(first, second, prefixes):
    names = ("0.weight", "1.weight", "head.weight")
    a = tree_of(**{first + name: W + i for i, name in enumerate(names)})
    b = tree_of(**{second + name: W + i for i, name in enumerate(names)})
    found = pt.diff(a, b)
    assert not found.same
    assert (found.proposal.prefixes, found.proposal.names) == (prefixes, 3)
    mended = pt.diff(a, b, strip=found.proposal.prefixes)
    assert (mended.same, len(mended), mended.proposal) == (True, 3, None)


def test_no_prefix_is_proposed_for_other_shapes():
    assert pt.diff(tree_of(**{"module.w": W}), tree_of(w=W.T)).proposal is None


def test_names_are_mapped():
    a = tree_of(**{"encoder.0.w": W, "encoder.1.w": W + 1, "b": B})
    b = tree_of(**{"layers.0.enc": W, "layers.1.enc": W + 1, "bias": B})
    assert pt.diff(a, b, rename={"encoder.*.w": "layers.*.enc", "b": "bias"}).same
    assert pt.diff(a, b, rename=lambda n: n.replace("encoder", "layers").replace(".w", ".enc")).rows[0].other
    with pytest.raises(pt.NoSuchParamError, match=r"did you mean 'encoder\.0\.w'"):
        pt.diff(a, b, rename={"0.w": "x"})
    with pytest.raises(pt.NoSuchParamError, match=r"nothing fits 'decoder\.\*\*'"):
        pt.diff(a, b, rename={"decoder.**": "**"})
    with pytest.raises(pt.MismatchError, match="as many wildcards"):
        pt.diff(a, b, rename={"encoder.*.w": "x"})


def test_two_names_that_become_one_are_refused():
    with pytest.raises(pt.MismatchError, match=r"'m\.w' and 'w' would both be 'w'"):
        pt.diff(tree_of(**{"m.w": W, "w": W}), tree_of(w=W), strip="m.")


def test_a_selection_is_of_either():
    a, b = tree_of(w=W, b=B), tree_of(w=changed(W, (0, 0)), b=B)
    assert pt.diff(a, b, select="b").same
    assert len(pt.diff(a, b, select="b")) == 1
    with pytest.raises(pt.NoSuchParamError):
        pt.diff(a, b, select="nothing.**")


def test_a_selection_that_can_be_read_once_is_of_both():
    a, b = tree_of(w=W, b=B), tree_of(v=W, b=B)
    assert statuses(pt.diff(a, b, select=iter(["w", "v"]))) == {"w": "removed", "v": "added"}


@pytest.mark.parametrize("options", [["--select", "nothing.**"], ["--map", "nothing=w"]])
def test_where_nothing_is_compared_the_command_does_not_say_that_it_differs(tmp_path, capsys, options):
    path = str(write(tmp_path / "a.safetensors", {"w": W}))
    assert cli.main(["diff", path, path, *options]) == 2
    assert cli.main(["show", path, "--select", "nothing.**"]) == 1
    assert "'nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"strip": None}, "strip is a prefix"),
        ({"strip": ["m.", 5]}, "strip is a prefix"),
        ({"rename": "x"}, "rename is a mapping"),
        ({"rename": {"w": 5}}, "rename is a mapping"),
        ({"rename": lambda name: None}, "rename returned None for 'w'"),
        ({"threads": "x"}, "threads is a number"),
        ({"executor": "x"}, "executor is a"),
        ({"progress": "x"}, "progress is a function"),
        ({"select": 5}, "select takes a glob"),
        ({"select": ["w", 5]}, "select takes a glob"),
        ({"select": b"w"}, "select takes a glob"),
        ({"kind": 5}, "there is no kind '5'"),
        ({"rtol": "a"}, "rtol is a number of at least 0, not 'a'"),
        ({"rtol": 1j}, "rtol is a number"),
    ],
)
def test_arguments_of_no_meaning_are_refused_in_a_line(options, text):
    with pytest.raises(pt.MismatchError) as caught:
        pt.diff(tree_of(w=W), tree_of(w=W), **options)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_a_tolerance_may_be_any_real_number():
    assert pt.diff(tree_of(w=W), tree_of(w=W + 1), atol=np.float32(1)).same
    assert pt.diff(tree_of(w=W), tree_of(w=W + 1), atol=1).atol == 1.0


def test_optimizer_state_is_left_out_and_counted():
    a = tree_of(held("w", W), held("m", W, "state"))
    b = tree_of(held("w", W), held("m", W + 1, "state"), held("v", W, "state"))
    found = pt.diff(a, b)
    assert (found.same, found.hidden) == (True, (("state", 2),))
    assert statuses(pt.diff(a, b, kind="state")) == {"m": "different", "v": "added"}


# The result


def test_rows_are_looked_up_by_name_and_place():
    found = pt.diff(
        tree_of(**{"a/w": W, "b": B}, gone=B), tree_of(**{"a.w": W + 1, "c": B}), rename={"b": "c"}
    )
    assert [found[name].name for name in ("a/w", "a.w", "b", "c", "gone")] == ["a/w", "a/w", "b", "b", "gone"]
    assert (found[0], found[-1]) == (found.rows[0], found.rows[-1])
    assert ("b" in found, "c" in found, "d" in found, found.rows[1] in found) == (True, True, False, True)
    assert [row.name for row in found[1:]] == ["b", "gone"]
    with pytest.raises(pt.NoSuchParamError, match="did you mean 'gone'"):
        found["gon"]
    with pytest.raises(IndexError, match="there is no row 3"):
        found[3]
    with pytest.raises(TypeError, match="not an object of type float"):
        found[1.5]


def test_a_tied_name_finds_the_row_of_its_group():
    memory = "memory"
    both = [tree_of(held("e", W, memory=memory), held("h", W, memory=memory)) for _ in range(2)]
    found = pt.diff(*both)
    assert (found["h"].name, "h" in found, len(found)) == ("e", True, 1)


def test_a_diff_is_neither_true_nor_false():
    with pytest.raises(TypeError, match=r"ask \.same"):
        bool(pt.diff(tree_of(w=W), tree_of(w=W)))


def test_rows_are_ranked_and_sorted():
    a = tree_of(small=W + 1, large=W + 1, nan=W, equal=B, gone=B)
    b = tree_of(small=changed(W + 1, (0, 0), by=0.1), large=W + 5, nan=changed(W, (0, 0), by=np.nan), equal=B)
    found = pt.diff(a, b)
    assert [row.name for row in found.differing] == ["nan", "large", "small", "gone"]
    assert [row.name for row in found.sorted("name")] == ["equal", "gone", "large", "nan", "small"]
    assert found.sorted("size").rows[0].size == 6
    with pytest.raises(ValueError, match="sort is one of"):
        found.sorted("color")
    assert found.to_dicts()[0]["name"] == "small"
    assert repr(found).startswith("<Diff: 3 of 4 tensors differ; the other is equal to the last bit")
    assert isinstance(found, Diff)


def test_what_differs_has_a_place():
    a = tree_of(**{"head.0.w": W, "head.1.b": B, "body.w": W})
    b = tree_of(**{"head.0.w": W + 1, "head.1.b": B + 1, "body.w": W})
    assert pt.diff(a, b).verdict == (
        "2 of 3 tensors differ, all under head; the other is equal to the last bit."
    )


# Blocks


@pytest.mark.parametrize("threads", [1, 3])
def test_equal_blocks_count_in_the_norms_of_what_differs(monkeypatch, threads):
    monkeypatch.setattr(_pairs, "_LARGEST_BLOCK", 64)
    rng = np.random.default_rng(0)
    a = rng.standard_normal((7, 11)).astype(np.float32)
    a[0, 0] = np.nan
    b = changed(a, (3, 4), (6, 10), by=2.0)
    seen = []
    row = pt.diff(
        tree_of(w=a, v=a), tree_of(w=b, v=a), threads=threads, progress=lambda *p: seen.append(p)
    ).rows[0]
    finite = np.where(np.isnan(a), 0, a).astype(float)
    other = np.where(np.isnan(b), 0, b).astype(float)
    assert (row.changed, row.where, row.nan) == (2, (3, 4), (1, 1))
    assert row.relative_l2 == pytest.approx(
        np.linalg.norm(other - finite) / np.linalg.norm(finite), rel=1e-12
    )
    cosine = (finite * other).sum() / np.linalg.norm(finite) / np.linalg.norm(other)
    assert row.cosine == pytest.approx(cosine, abs=1e-12)
    assert seen[-1][0] == seen[-1][1] == 4 * 77 * 4


def test_memory_is_bounded(tmp_path):
    values = np.zeros(96 << 20, np.uint8).view(np.float32)
    one = write(tmp_path / "a.safetensors", {"w": values})
    other = write(tmp_path / "b.safetensors", {"w": changed(values, 7)})
    del values
    tracemalloc.start()
    assert pt.diff(one, other, threads=2).rows[0].changed == 1
    assert tracemalloc.get_traced_memory()[1] < 48 << 20
    tracemalloc.stop()


def test_damage_is_an_error(tmp_path):
    path = write(tmp_path / "a.safetensors", {"w": W})
    tree = pt.open(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(pt.CorruptFileError):
        pt.diff(tree, tree_of(w=W))


# Quantised values


def quantised(path, scale, step):
    """Write 64 values of q8_0: two blocks of a float16 scale and 32 bytes."""
    blocks = b"".join(np.float16(scale).tobytes() + np.arange(32, dtype=np.int8).tobytes() for _ in range(2))
    changed = bytearray(blocks)
    changed[40] += step
    path.write_bytes(gguf([Tensor("w", (64,), 8, bytes(changed))]))
    return path


def test_quantised_arrays_that_are_stored_alike_are_equal_without_decoding(tmp_path, absent):
    absent("gguf")
    one, other = quantised(tmp_path / "a.gguf", 0.5, 0), quantised(tmp_path / "b.gguf", 0.5, 0)
    assert pt.diff(one, other).same
    differs = pt.diff(one, quantised(tmp_path / "c.gguf", 0.5, 3))
    assert (differs.rows[0].status, differs.is_undecided) == ("not compared", True)


def test_quantised_values_are_compared_as_what_they_stand_for(tmp_path):
    pytest.importorskip("gguf", reason="gguf decodes the values")
    one, other = quantised(tmp_path / "a.gguf", 0.5, 0), quantised(tmp_path / "b.gguf", 0.5, 3)
    row = pt.diff(one, other).rows[0]
    assert (row.changed, row.max_abs, row.where) == (1, 1.5, (36,))
    plain = write(tmp_path / "w.safetensors", {"w": np.tile(np.arange(32, dtype=np.float32) / 2, 2)})
    assert pt.diff(one, plain).rows[0].status == "equal after cast"
    for found in (pt.diff(plain, other), pt.diff(other, plain)):
        assert (found.rows[0].status, found.rows[0].changed, found.same) == ("different", 1, False)


def test_a_quantised_type_that_is_refused_is_not_compared(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(gguf([Tensor("w", (32,), 31, bytes(18))]))
    found = pt.diff(path, path)
    assert found.rows[0].status == "not compared"


def test_any_executor_may_run_it():
    with ThreadPoolExecutor(2) as pool:
        assert pt.diff(tree_of(w=W), tree_of(w=W + 1), executor=pool).rows[0].changed == 6


def test_the_kernel_of_a_transposed_convolution_may_be_in_two_orders():
    values = np.random.default_rng(0).standard_normal((3, 3, 2, 2)).astype("f4")
    a = tree_of(held("up.weight", values, layout="in out height width"))

    def row_of(kernel):
        (row,) = pt.diff(a, tree_of(held("up.kernel", kernel)), rename={"**.weight": "**.kernel"})
        return row

    assert row_of(values.transpose(2, 3, 1, 0)).status == "bit-equal"
    row = row_of(values.transpose(2, 3, 0, 1))
    assert (row.status, row.transposed, row.found) == ("different", (2, 3, 0, 1), None)
    row = row_of(values.transpose(2, 3, 1, 0) + 1)
    assert row.found == "a transposed convolution's: its axes may be in the order (2, 3, 0, 1), too"


def test_a_prefix_of_no_name_is_refused():
    a, b = tree_of(**{"module.net.w": np.ones(2)}), tree_of(w=np.ones(2), source="other")
    with pytest.raises(pt.NoSuchParamError) as caught:
        pt.diff(a, b, strip=("module.", "zzz."))
    assert str(caught.value) == (
        "net and other: no name begins with 'zzz.', which is to be stripped; the first is 'module.net.w'"
    )
    assert pt.diff(a, b, strip=("module.", "net.")).same
    assert pt.diff(b, a, strip=("module.", "net.")).same
    assert pt.diff(b, a, rename={"w": "x.w"}, strip=("module.", "net.", "x.")).same
