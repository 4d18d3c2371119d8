"""Rules for CI: each one alone, where it holds and where it does not."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt
from paratree.core.array import Storage
from paratree.core.dtypes import numpy_dtype
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.verbs import fingerprint as hashing

TARGETS = [
    "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e4m3", "float8_e3m4", "float8_e4m3b11fnuz",
]  # fmt: skip


class Held:
    """An array in memory."""

    def __init__(self, values, storage=None, problem=None):
        self.values, self.storage, self.problem = np.asarray(values), storage, problem
        self.shape, self.dtype = self.values.shape, self.values.dtype.name

    def read(self, index=...):
        return self.values[index]


def tree_of(arrays=None, source="memory", **more):
    arrays = {**(arrays or {}), **more}
    held = {name: a if isinstance(a, Held) else Held(a) for name, a in arrays.items()}
    params = [Param(n, a, "state" if n.startswith("adam") else "parameter") for n, a in held.items()]
    return ParamTree(params, Origin(source, "test"))


def facts(tree, **rules):
    return [(failure.rule, failure.name, failure.fact) for failure in pt.check(tree, **rules).failures]


W = np.array([[1.5, -2.0, 0.0], [0.25, 3.0, -4.0]], np.float32)


def with_value(value):
    changed = W.copy()
    changed[1, 2] = value
    return tree_of(w=changed, v=W)


def test_no_nan():
    assert facts(tree_of(w=W), no_nan=True) == []
    assert facts(with_value(np.inf), no_nan=True) == []
    assert facts(with_value(np.nan), no_nan=True) == [
        ("no_nan", "w", "1 of 6 values are NaN, the first at [1, 2]")
    ]


def test_no_inf():
    assert facts(with_value(np.nan), no_inf=True) == []
    assert facts(with_value(-np.inf), no_inf=True) == [
        ("no_inf", "w", "1 of 6 values are infinite, the first at [1, 2]")
    ]


def test_max_abs():
    assert facts(tree_of(w=W), max_abs=4.0) == []
    assert facts(tree_of(w=W), max_abs=3.5) == [("max_abs", "w", "its largest magnitude is 4, above 3.5")]
    assert facts(with_value(np.nan), max_abs=3.0) == [("max_abs", "v", "its largest magnitude is 4, above 3")]
    assert facts(with_value(-np.inf), max_abs=4.0) == [
        ("max_abs", "w", "its largest magnitude is inf, above 4")
    ]
    assert facts(tree_of(w=W, steps=np.array([10**6])), max_abs=4.0) == []
    assert facts(tree_of(w=np.zeros((0, 3)), v=W), max_abs=4.0, no_nan=True, finite_in="fp16") == []


@pytest.mark.parametrize(
    ("value", "dtype", "fact"),
    [
        (65519.996, "fp16", None),
        (65520.0, "fp16", "its largest magnitude, 65520, overflows float16: that ends at 65504"),
        (-65520.0, "half", "its largest magnitude, 65520, overflows float16: that ends at 65504"),
        (464.0, "fp8_e4m3", None),
        (465.0, "fp8", "its largest magnitude, 465, overflows float8_e4m3fn: that ends at 448"),
        (61439.9, "fp8_e5m2", None),
        (61440.0, "fp8_e5m2", "its largest magnitude, 61440, overflows float8_e5m2: that ends at 57344"),
        (3e38, "bf16", None),
        (np.nan, "fp16", "1 of 6 values are NaN, the first at [1, 2]"),
        (np.inf, "bf16", "1 of 6 values are infinite, the first at [1, 2]"),
    ],
)
def test_finite_in(value, dtype, fact):
    assert facts(with_value(value), finite_in=dtype) == ([] if fact is None else [("finite_in", "w", fact)])


@given(st.floats(width=64), st.sampled_from(TARGETS), st.sampled_from(["float32", "float64", "bfloat16"]))
def test_finite_in_is_what_the_cast_does(value, target, dtype):
    with np.errstate(all="ignore"):
        values = np.array([value, 0.5]).astype(numpy_dtype(dtype))
        cast = values.astype(numpy_dtype(target)).astype(np.float64)
    assert pt.check(tree_of(w=values), finite_in=target).passed == bool(np.isfinite(cast).all())


@given(st.sampled_from(TARGETS), st.integers(-3, 3))
def test_finite_in_at_the_very_bound(target, steps):
    limits = ml_dtypes.finfo(numpy_dtype(target))
    value = float(limits.max) * (1 + 2.0 ** -(limits.nmant + 2))
    for _ in range(abs(steps)):
        value = float(np.nextafter(value, np.inf if steps > 0 else 0))
    with np.errstate(all="ignore"):
        cast = float(np.float64(value).astype(numpy_dtype(target)))
    assert pt.check(tree_of(w=np.array([value])), finite_in=target).passed == bool(np.isfinite(cast))


def test_one_place_fails_once():
    found = facts(with_value(np.nan), no_nan=True, no_inf=True, finite_in="fp16")
    assert found == [("no_nan", "w", "1 of 6 values are NaN, the first at [1, 2]")]


def test_expect_counts_a_tied_group_once():
    memory = Storage("memory")
    tied = tree_of({"a": Held(W, memory), "b": Held(W, memory), "adam.m": W})
    assert facts(tied, expect=6, expect_tensors=3) == []
    assert facts(tied, expect=12) == [("expect", None, "there are 6 parameters, not 12")]
    assert facts(tied, expect_tensors=2) == [("expect_tensors", None, "there are 3 tensors, not 2")]
    assert facts(tied, expect=6, kind="state", expect_tensors=1) == []
    assert facts(tied, expect=12, kind=["state", "parameter"]) == []
    assert facts(tied, expect=6, select="b") == []


def test_a_tied_group_fails_once_and_state_is_looked_at():
    memory, bad = Storage("memory"), np.array([np.nan])
    tree = tree_of({"a": Held(bad, memory), "b": Held(bad, memory), "adam.m": bad})
    assert [name for _, name, _ in facts(tree, no_nan=True)] == ["a", "adam.m"]
    assert [name for _, name, _ in facts(tree, no_nan=True, kind="parameter")] == ["a"]


def test_the_range_is_that_of_parameters_and_buffers():
    tree = tree_of({"w": W, "adam.step": np.array([1e5]), "adam.bad": np.array([np.nan])})
    assert facts(tree, finite_in="fp16", max_abs=4) == []
    assert [name for _, name, _ in facts(tree, finite_in="fp16", kind="state")] == ["adam.step", "adam.bad"]
    assert [name for _, name, _ in facts(tree, no_nan=True, finite_in="fp16")] == ["adam.bad"]


def test_texts_beside_a_model_are_left_out(tmp_path):
    np.savez(tmp_path / "m.npz", w=W, words=np.array(["a"]))
    assert facts(tmp_path / "m.npz", no_nan=True, same_as=tree_of(w=W), fingerprint=True) == []


def test_a_size_that_is_not_known():
    class Lazy(Held):
        def __init__(self):
            self.shape, self.dtype, self.storage, self.problem = (None, 3), "float32", None, "not initialised"

    tree = tree_of(w=Lazy())
    assert facts(tree, expect=3) == [("expect", None, "1 parameters are of unknown size")]
    assert pt.check(tree, expect=3, expect_tensors=1).numbers == {"expect_tensors": 1}
    assert facts(tree, no_inf=True, max_abs=1) == [("no_inf", "w", "not read: not initialised")]
    assert facts(tree, fingerprint=True) == [("fingerprint", "w", "not read: not initialised")]
    assert facts(tree, same_as=tree_of(w=W)) == [("same_as", "w", "not read: not initialised")]


def test_same_as():
    other = tree_of(
        {"same": W, "dtype": W.astype(np.float64), "shape": W.T, "value": -W, "theirs": W}, source="other.pt"
    )
    mine = tree_of({"value": W, "mine": W, "shape": W, "dtype": W, "same": W})
    assert facts(mine, same_as=other) == [
        ("same_as", "value", "other values than in other.pt"),
        ("same_as", "mine", "not in other.pt"),
        ("same_as", "shape", "float32 [2, 3], and float32 [3, 2] in other.pt"),
        ("same_as", "dtype", "float32 [2, 3], and float64 [2, 3] in other.pt"),
        ("same_as", "theirs", "only in other.pt"),
    ]
    assert facts(mine, same_as=other, select="same") == []
    assert facts(mine, same_as=mine) == []


def test_other_bits_of_equal_values():
    minus, payload = W.copy(), W.copy()
    minus[0, 2] = -0.0
    assert facts(tree_of(w=minus, v=W), same_as=tree_of(w=W, v=W)) == [
        ("same_as", "w", "other bits than in memory, equal values")
    ]
    payload.view(np.uint32)[0, 0] = 0x7FC00001
    assert facts(tree_of(w=payload), same_as=with_nan_at_first()) == [
        ("same_as", "w", "other bits than in memory, equal values")
    ]
    payload[1, 2] = 7
    assert facts(tree_of(w=payload), same_as=with_nan_at_first()) == [
        ("same_as", "w", "other values than in memory")
    ]


def with_nan_at_first():
    changed = W.copy()
    changed[0, 0] = np.nan
    return tree_of(w=changed)


def test_blocks_that_cannot_be_decoded_have_other_bytes():
    class Stored(Held):
        problem = None

        def __init__(self, byte):
            self.blocks, self.shape, self.dtype = Held(np.full(18, byte, np.uint8)), (32,), "q4_0"
            self.storage = None

        def read(self, index=...):
            raise pt.MissingPackageError("w: decoding needs: pip install 'paratree[gguf]'")

    assert facts(tree_of(w=Stored(1)), same_as=tree_of(w=Stored(2))) == [
        ("same_as", "w", "other bytes than in memory")
    ]


def test_what_differs_in_the_state_of_an_optimizer_only():
    model, trained = tree_of(w=W), tree_of({"w": W, "adam.step": np.array(3)}, source="trained.pt")
    for mine, other, fact in ((model, trained, "only in trained.pt"), (trained, model, "not in memory")):
        found = pt.check(mine, same_as=other)
        assert [(failure.name, failure.fact) for failure in found.failures] == [("adam.step", fact)]
        assert "--kind parameter --kind buffer" in found.hint
        assert repr(found).endswith(found.hint + ">")
        assert pt.check(mine, same_as=other, kind=["parameter", "buffer"])
    assert "--kind parameter --kind buffer" in pt.check(trained, fingerprint=pt.fingerprint(model).hash).hint
    for other in (tree_of({"w": -W, "adam.step": np.array(4)}), tree_of({"w": W, "adam.step": np.array(3)})):
        assert pt.check(trained, same_as=other).hint is None
        assert pt.check(trained, same_as=other, fingerprint="0" * 64).hint is None


def test_failures_carry_their_numbers():
    def numbers(tree, **rules):
        return [(f.rule, f.count, f.index, f.bound, f.found) for f in pt.check(tree, **rules).failures]

    assert numbers(with_value(np.nan), no_nan=True) == [("no_nan", 1, (1, 2), None, None)]
    assert numbers(with_value(np.inf), finite_in="fp16") == [("finite_in", 1, (1, 2), None, None)]
    assert numbers(with_value(7e4), finite_in="fp16") == [("finite_in", None, None, 65504, 7e4)]
    assert numbers(tree_of(w=W), max_abs=3.5) == [("max_abs", None, None, 3.5, 4)]
    assert numbers(tree_of(w=W), expect=8) == [("expect", None, None, 8, 6)]
    assert numbers(tree_of(w=W), expect_tensors=8) == [("expect_tensors", None, None, 8, 1)]
    passed = pt.check(tree_of(w=W), expect=6, expect_tensors=1, no_nan=True)
    assert (passed.passed, passed.numbers) == (True, {"expect": 6, "expect_tensors": 1})


def test_same_as_says_where_in_a_large_one(monkeypatch):
    monkeypatch.setattr(hashing, "CHUNK", 8)
    assert facts(with_value(5.0), same_as=with_value(6.0)) == [
        ("same_as", "w", "other values than in memory, the first between byte 16 and byte 24 of its values")
    ]


def test_fingerprint():
    tree = tree_of(w=W)
    expected = pt.fingerprint(tree).hash
    assert pt.check(tree, fingerprint=True).fingerprint.hash == expected
    assert facts(tree, fingerprint=expected.upper()) == []
    assert facts(tree, fingerprint="0" * 64) == [("fingerprint", None, f"it is {expected}, not {'0' * 64}")]


def test_the_rules_that_were_given_are_told():
    found = pt.check(tree_of(w=W), no_nan=True, expect=6)
    assert (found.passed, found.rules, found.tensors) == (True, ("no_nan", "expect"), 1)
    assert found.fingerprint is None
    assert repr(found) == "<Check memory: passed>"
    failed = pt.check(tree_of(w=W), expect=7, max_abs=1)
    assert repr(failed) == (
        "<Check memory: failed at 2 places, the first: w: its largest magnitude is 4, above 1>"
    )
    assert pt.check(tree_of(), no_nan=True, expect=0, fingerprint=True).passed


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "there is nothing to check"),
        ({"max_abs": -1.0}, "max_abs is a magnitude, at least 0, not -1.0"),
        ({"max_abs": float("nan")}, "max_abs is a magnitude"),
        ({"finite_in": "int8"}, "'int8' is no floating dtype"),
        ({"max_abs": "x"}, "max_abs is a magnitude, at least 0, not 'x'"),
        ({"max_abs": True}, "max_abs is a magnitude, at least 0, not True"),
        ({"max_abs": [1]}, r"max_abs is a magnitude, at least 0, not \[1\]"),
        ({"no_nan": "no"}, "no_nan is True or False, not 'no'"),
        ({"no_inf": None}, "no_inf is True or False, not None"),
        ({"expect": "x"}, "expect is a whole number, at least 0, not 'x'"),
        ({"expect": True}, "expect is a whole number, at least 0, not True"),
        ({"expect": -1}, "expect is a whole number, at least 0, not -1"),
        ({"expect_tensors": 2.0}, "expect_tensors is a whole number, at least 0, not 2.0"),
        ({"fingerprint": 5}, "fingerprint is 64 hexadecimal digits, as .* not 5"),
        ({"fingerprint": None}, "fingerprint is 64 hexadecimal digits, as .* not None"),
        ({"fingerprint": "12"}, "fingerprint is 64 hexadecimal digits, as .* not '12'"),
        ({"fingerprint": "g" * 64}, "fingerprint is 64 hexadecimal digits"),
        ({"finite_in": 16}, "'16' is no floating dtype; give a name, as float16 or bfloat16"),
        ({"no_nan": True, "threads": "x"}, "threads is a number of threads, at least 1, or None, not 'x'"),
        ({"expect": 6, "threads": 0}, "threads is a number of threads, at least 1, or None, not 0"),
        ({"no_nan": True, "executor": "ray"}, "executor is a concurrent.futures.Executor, not an object"),
        ({"no_nan": True, "progress": 5}, "progress is a function of two numbers of bytes, not an object"),
        ({"no_nan": True, "select": 5}, "select takes a glob, .* not an object of type int"),
        ({"no_nan": True, "kind": 5}, "there is no kind '5'; there are: parameter"),
        ({"finite_in": "float4_e2m1fn"}, "float4_e2m1fn has no infinity"),
        ({"finite_in": "float8_e8m0fnu"}, "float8_e8m0fnu has no infinity"),
    ],
)
def test_rules_without_meaning(rules, message):
    with pytest.raises(pt.MismatchError, match=message):
        pt.check(tree_of(w=W), **rules)


@pytest.mark.parametrize(
    "rule", [{"max_abs": np.float32(4)}, {"expect": np.int64(6)}, {"finite_in": "float64"}]
)
def test_numbers_of_numpy_and_the_widest_dtype(rule):
    assert facts(tree_of(w=W), **rule) == []


def test_a_selection_may_be_an_iterator():
    mine, other = tree_of(a=W, b=W), tree_of(a=W, b=-W)
    assert facts(mine, same_as=other, select=iter(["a", "c"]), kind=iter(["parameter"]), expect=6) == []


def test_a_name_of_nothing():
    from paratree.render.check import lines

    found = pt.check(tree_of({"": W}), max_abs=1)
    assert lines(found) == [str(failure) for failure in found.failures]
    assert str(found.failures[0]) == '"": its largest magnitude is 4, above 1'


def test_a_check_is_true_if_it_passed():
    assert pt.check(tree_of(w=W), no_nan=True)
    assert not pt.check(tree_of(w=W), max_abs=1)


@pytest.mark.parametrize("rule", [{"no_nan": True}, {"no_inf": True}, {"max_abs": 1}, {"finite_in": "fp16"}])
def test_nothing_to_look_at_does_not_pass(rule):
    fact = "there is nothing to look at; if that is right, expect 0 parameters"
    (name,) = rule
    assert facts(tree_of(), **rule) == [(name, None, fact)]
    assert facts(tree_of(), select="x", **rule) == [(name, None, fact)]
    assert facts(tree_of(), same_as=tree_of(), **rule) == [(name, None, fact), ("same_as", None, fact)]
    assert facts(tree_of(w=np.zeros((0, 3))), **rule) == [(name, None, fact)]
    assert facts(tree_of(w=np.zeros((0, 3))), **rule, expect=0) == []
    assert facts(tree_of(), **rule, expect=0) == []
    assert facts(tree_of(), **rule, same_as=tree_of(), expect_tensors=0) == []


@pytest.mark.parametrize("rule", [{"max_abs": 1}, {"finite_in": "fp16"}])
def test_integers_alone_are_no_range_to_look_at(rule):
    (name,) = rule
    counts = tree_of(n=np.arange(3), mask=np.ones(2, bool))
    assert facts(counts, **rule) == [(name, None, "there is no floating value to look at")]
    assert facts(counts, no_nan=True) == []
    assert facts(tree_of(n=np.arange(3), w=np.zeros(2)), **rule) == []


def test_texts_only_are_nothing_to_look_at(tmp_path):
    np.savez(tmp_path / "m.npz", words=np.array(["a"]))
    assert [rule for rule, *_ in facts(tmp_path / "m.npz", no_nan=True)] == ["no_nan"]


@pytest.mark.parametrize(
    "dtype", ["float32", "float64", "complex64", "complex128", "bfloat16", "float16", "int64"]
)
@pytest.mark.parametrize("size", [1, 3, 100_000])
def test_no_warning_leaks(dtype, size):
    import warnings

    kind = numpy_dtype(dtype)
    most = np.iinfo(kind).max if dtype == "int64" else ml_dtypes.finfo(kind).max
    values = np.full(size, most, kind)
    if dtype.startswith("complex"):
        values += 1j * most
    values[size // 2 :] *= -1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pt.check(tree_of(w=values), no_nan=True, no_inf=True, max_abs=1, finite_in="fp16", threads=1)
        pt.stats(tree_of(w=values, v=values.reshape(1, -1, 1)), target="fp16", threads=1).by("layer")
    fact = next(failure.fact for failure in found.failures if failure.rule == "max_abs")
    assert ("no floating value" in fact) == (dtype == "int64")


def test_nothing_that_fits():
    with pytest.raises(pt.NoSuchParamError, match="no parameter 'x'"):
        pt.check(tree_of(w=W), no_nan=True, select="x")


def test_a_live_model_and_its_file(tmp_path):
    torch = pytest.importorskip("torch", reason="the model is one of torch")
    net = torch.nn.Linear(3, 2)
    torch.save(net.state_dict(), tmp_path / "m.pt")
    assert pt.check(net, same_as=tmp_path / "m.pt", no_nan=True, expect=8).passed
    with torch.no_grad():
        net.bias[1] = float("nan")
    found = pt.check(net, same_as=tmp_path / "m.pt", no_nan=True)
    assert [(failure.rule, failure.name) for failure in found.failures] == [
        ("no_nan", "bias"), ("same_as", "bias"),
    ]  # fmt: skip
