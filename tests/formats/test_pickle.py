"""Plain pickles against what unpickling gives: every protocol, NumPy, JAX, torch, joblib, old spellings."""

from __future__ import annotations

import bz2
import collections
import functools
import gzip
import lzma
import pickle
import struct
import sys
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import paratree as pt
from tests.attacks.makers import Op, call, name, op, pickled

FIXTURES = Path(__file__).parents[1] / "fixtures" / "joblib"
PROTOCOLS = pytest.mark.parametrize("protocol", range(6))


def opened(tmp_path, content: bytes, file: str = "m.pkl") -> pt.ParamTree:
    (tmp_path / file).write_bytes(content)
    return pt.open(tmp_path / file)


def same(param, expected):
    assert param.shape == expected.shape
    assert param.value.dtype == expected.dtype.newbyteorder("=")
    assert (
        param.value.tobytes()
        == np.ascontiguousarray(expected).astype(expected.dtype.newbyteorder("=")).tobytes()
    )


ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(20)[::3],
    "big": np.arange(5, dtype=">i4"),
    "scalar": np.array(2.5),
    "empty": np.empty((0, 3), np.int8),
    "flags": np.array([True, False]),
    "complex": np.array([1 + 2j], np.complex64),
    "half": np.array([1, 2], np.float16),
    "large": np.arange(10_000, dtype=np.uint16),
}


@PROTOCOLS
def test_arrays_of_every_protocol(tmp_path, protocol):
    tree = opened(tmp_path, pickle.dumps(ARRAYS, protocol))
    assert list(tree) == list(ARRAYS)
    assert tree.format == "Python pickle"
    assert tree.ties == ()
    for key, expected in ARRAYS.items():
        same(tree[key], expected)
    np.testing.assert_array_equal(tree["large"][10:5000:7], ARRAYS["large"][10:5000:7])


@PROTOCOLS
@pytest.mark.parametrize(
    "kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "float6_e2m3fn", "int4", "uint2"]
)
def test_dtypes_of_ml_dtypes(tmp_path, protocol, kind):
    values = np.arange(4).astype(getattr(ml_dtypes, kind))
    param = opened(tmp_path, pickle.dumps({"w": values}, protocol))["w"]
    assert param.dtype == kind
    same(param, values)


@PROTOCOLS
def test_one_array_in_two_places_is_tied_and_an_equal_one_is_not(tmp_path, protocol):
    w = np.ones(3)
    tree = opened(tmp_path, pickle.dumps({"a": w, "b": [w], "c": w.copy()}, protocol))
    assert tree.ties == (("a", "b.0"),)


class Point(collections.namedtuple("Point", "x y")):
    pass


class Estimator:
    def __init__(self):
        self.coef_ = np.arange(3.0)
        self.alpha = 0.5


@PROTOCOLS
def test_containers_and_objects(tmp_path, protocol):
    value = {
        "list": [np.ones(1), {"a": np.zeros(2)}], "tuple": (np.ones(1), 3), "point": Point(np.ones(2), 4),
        "estimator": Estimator(), "epoch": 3, "rate": np.float32(0.5), "name": "x",
        "ordered": collections.OrderedDict(w=np.ones(1)), 1: np.ones(4),
    }  # fmt: skip
    tree = opened(tmp_path, pickle.dumps(value, protocol))
    assert list(tree) == ["list.0", "list.1.a", "tuple.0", "point.0", "estimator.coef_", "ordered.w", "1"]
    assert (tree.meta["epoch"], tree.meta["rate"], tree.meta["name"]) == (3, 0.5, "x")
    assert tree["estimator.coef_"].kind == "parameter"
    assert tree["estimator.coef_"].value.tolist() == [0, 1, 2]
    assert "Estimator" in tree.notes[0]
    assert "not built" in tree.notes[0]


def test_a_bare_array_is_named_as_the_file(tmp_path):
    assert list(opened(tmp_path, pickle.dumps(np.ones(2)), "weights.pkl")) == ["weights"]


def test_pickles_in_a_row(tmp_path):
    content = pickle.dumps({"w": np.ones(2), "n": 1}) + pickle.dumps(np.zeros(3), 2) + pickle.dumps("end", 0)
    tree = opened(tmp_path, content)
    assert list(tree) == ["0.w", "1"]
    assert tree.meta == {"0": {"n": 1}, "2": {"value": "end"}}
    assert "3 pickles" in tree.notes[0]


def test_what_is_no_number_is_listed_and_refused(tmp_path):
    value = {
        "objects": np.array([{}, None]), "text": np.array(["ab", "c"]), "bytes": np.array([b"ab"]),
        "dates": np.array(["2020-01-01"], "M8[D]"), "spans": np.array([3], "m8[s]"),
        "records": np.zeros(2, [("a", "i4"), ("b", "f8")]), "wide": np.ones(2, np.longdouble),
    }  # fmt: skip
    tree = opened(tmp_path, pickle.dumps(value))
    assert {key: param.shape for key, param in tree.items()} == {key: v.shape for key, v in value.items()}
    for param in tree.values():
        with pytest.raises(pt.UnreadableError, match=f"^{param.name}: .*; "):
            _ = param.value


COMPRESSED = {  # engine -> suffix, and what compresses with it
    "zlib": ("", zlib.compress), "gzip": (".gz", gzip.compress), "bzip2": (".bz2", bz2.compress),
    "xz": (".xz", lzma.compress),
    "lzma": (".lzma", functools.partial(lzma.compress, format=lzma.FORMAT_ALONE)),
}  # fmt: skip
ENGINES = pytest.mark.parametrize("engine", COMPRESSED)


@ENGINES
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_compressed_pickles(tmp_path, engine, protocol):
    suffix, compress = COMPRESSED[engine]
    arrays = {**ARRAYS, "random": np.random.default_rng(0).normal(size=50_000)}
    for file in ("m.pkl", f"m.pkl{suffix}"):
        tree = opened(tmp_path, compress(pickle.dumps(arrays, protocol)), file)
        assert tree.format == f"Python pickle, {engine}-compressed"
        for key in [*arrays, *reversed(arrays)]:  # forwards, and backwards
            same(tree[key], arrays[key])
        np.testing.assert_array_equal(tree["random"][40_000:49_000:7], arrays["random"][40_000:49_000:7])
        tree.close()
        if protocol > 2:  # below 3, the values are part of the opcodes, and in memory
            with pytest.raises(pt.CorruptFileError, match="closed"):
                _ = tree["large"].value


@ENGINES
def test_a_compressed_dump_of_joblib(tmp_path, engine):
    expected = np.load(FIXTURES / "expected.npz")
    tree = opened(tmp_path, COMPRESSED[engine][1]((FIXTURES / "arrays4.joblib").read_bytes()), "m.joblib")
    for key in expected.files:
        file, _, name = key.partition(":")
        if file == "arrays4":
            same(tree[name], expected[key])


@ENGINES
def test_streams_in_a_row(tmp_path, engine):
    compress = COMPRESSED[engine][1]
    content = pickle.dumps(ARRAYS)
    both = compress(content[:5000]) + compress(content[5000:])
    if engine in ("zlib", "lzma"):
        with pytest.raises(pt.CorruptFileError, match=f"{engine} stream ends here and the file goes on"):
            opened(tmp_path, both)
    else:
        same(opened(tmp_path, both)["large"], ARRAYS["large"])


@ENGINES
def test_compressed_pickles_that_are_damaged(tmp_path, engine):
    compress = COMPRESSED[engine][1]
    whole = compress(pickle.dumps(ARRAYS))
    for cut in (len(whole) - 1, len(whole) // 2, 20):
        with pytest.raises(pt.CorruptFileError, match=f"{engine} stream is (cut short|damaged)"):
            opened(tmp_path, whole[:cut])
    with pytest.raises(pt.CorruptFileError):
        opened(tmp_path, whole + b"more")
    with pytest.raises(pt.CorruptFileError, match="what is inside begins as no pickle does; inflate it"):
        opened(tmp_path, compress(b"hello, world"))
    with pytest.raises(pt.UnsafeFileError, match="decompression bomb"):
        opened(tmp_path, compress(bytes(100 << 20)))


@pytest.mark.parametrize(("magic", "engine"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\x04\x22\x4d\x18", "lz4")])
def test_pickles_compressed_otherwise_say_so(tmp_path, magic, engine):
    with pytest.raises(
        pt.CorruptFileError, match=f"compressed with {engine}; inflate it, un{engine} -c '.*m"
    ):
        opened(tmp_path, magic + bytes(50))


def test_python_2_pickles(tmp_path):
    """NumPy under Python 2 wrote raw bytes as strings, and the module names of its time."""
    array = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), (0,), Op(b"U\1b"))
    dtype = Op(
        call(name("numpy", "dtype"), Op(b"U\2f4"), 0, 1)
        + b"(K\3U\1<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    raw = np.arange(4000, dtype="<f4").tobytes()
    state = Op(b"(K\1" + op((4000,)) + dtype + b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb")
    tree = opened(tmp_path, pickled({"w": Op(array + state)}))
    np.testing.assert_array_equal(tree["w"].value, np.arange(4000, dtype=np.float32))


def test_values_stay_in_the_file(tmp_path):
    """A pickle of 200 MiB is listed without holding it."""
    import tracemalloc

    path = tmp_path / "m.pkl"
    with path.open("wb") as stream:
        pickle.dump({"w": np.zeros((50, 1 << 20), np.float32), "v": np.arange(3)}, stream, 4)
    tracemalloc.start()
    tree = pt.open(path)
    assert tree["w"][49, -1] == 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_jax_arrays(tmp_path, protocol):
    jnp = pytest.importorskip("jax.numpy")
    value = {"w": jnp.arange(6.0).reshape(2, 3), "h": jnp.ones(3, jnp.bfloat16), "n": jnp.array(3)}
    tree = opened(tmp_path, pickle.dumps(value, protocol), "m.ckpt")
    for key, expected in value.items():
        same(tree[key], np.asarray(expected))
    assert tree["h"].dtype == "bfloat16"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_torch_tensors_pickled_plainly(tmp_path, protocol):
    torch = pytest.importorskip("torch")
    w = torch.arange(6.0).reshape(2, 3)
    value = {"w": w, "again": w, "t": w.t(), "p": torch.nn.Parameter(torch.ones(2)),
             "long": torch.arange(2000), "h": torch.ones(3).half(), "net": torch.nn.Linear(2, 3)}  # fmt: skip
    tree = opened(tmp_path, pickle.dumps(value, protocol))
    assert tree.ties == (("w", "again"),)
    net = value.pop("net")
    for key, expected in [*value.items(), *((f"net.{k}", v) for k, v in net.state_dict().items())]:
        same(tree[key], expected.detach().numpy())
    assert tree["p"].trainable is True
    assert tree["net.weight"].layout == "out in"


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.joblib")), ids=lambda path: path.stem)
def test_dumps_of_joblib(path):
    """The files and the expected values are those that tests/fixtures/make_joblib.py made with joblib."""
    tree = pt.open(path)
    with np.load(FIXTURES / "expected.npz") as expected:
        wanted = {key.split(":")[1]: expected[key] for key in expected if key.startswith(path.stem + ":")}
    assert wanted.keys() <= set(tree)
    for key, value in wanted.items():
        same(tree[key], value)
    if path.stem.startswith("arrays"):
        assert {key for key, param in tree.items() if param.array.problem} == {"objects", "text"}
        assert len(tree) == len(wanted) + 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.text(min_size=1, max_size=8),
        hnp.arrays(
            hnp.boolean_dtypes()
            | hnp.integer_dtypes(endianness="?")
            | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
            hnp.array_shapes(min_dims=0, min_side=0),
        ),
        max_size=4,
    ),
    protocol=st.integers(0, 5),
)  # fmt: skip
def test_any_dictionary_of_arrays(tmp_path, values, protocol):
    tree = opened(tmp_path, pickle.dumps(values, protocol))
    assert len(tree) == len(values)
    for param, expected in zip(tree.values(), values.values(), strict=True):
        same(param, expected)


class Held:
    """Pickled as whatever state it is given."""

    def __init__(self, state):
        self.state = state

    def __reduce_ex__(self, protocol):
        return Held, (), self.state


class Nest(dict):
    """A dictionary with attributes."""


@PROTOCOLS
@pytest.mark.parametrize(
    ("state", "names"),
    [
        (np.arange(3.0), ["w"]),
        (Held(np.arange(3.0)), ["w"]),
        ([Held((np.arange(3.0), {"b": np.ones(2)}))], ["w.0.0", "w.0.1.b"]),
        ({("a", 1): Held(np.ones(2))}, ["w.('a', 1)"]),
    ],
)
def test_arrays_that_are_the_state_of_objects(tmp_path, protocol, state, names):
    tree = opened(tmp_path, pickle.dumps({"w": Held(state), "v": np.ones(1)}, protocol))
    assert list(tree) == [*names, "v"]
    assert tree["v"].value == [1]


@PROTOCOLS
def test_attributes_of_a_subclass_of_dict(tmp_path, protocol):
    nest = Nest(a=np.ones(2))
    nest.extra = [np.zeros(3)]
    tree = opened(tmp_path, pickle.dumps({"n": nest, "z": np.ones(1)}, protocol))
    assert {"n.a", "n.extra.0", "z"} == set(tree)


@PROTOCOLS
def test_masked_arrays_are_data_and_mask(tmp_path, protocol):
    masked = np.ma.array([[1.5, 2, 3], [4, 5, 6]], mask=[[0, 1, 0], [1, 0, 0]], order="F")
    tree = opened(
        tmp_path, pickle.dumps({"m": masked, "again": masked, "plain": np.ma.array([1, 2])}, protocol)
    )
    np.testing.assert_array_equal(tree["m.data"].value, masked.data)
    np.testing.assert_array_equal(tree["m.mask"].value, masked.mask)
    assert tree.ties == (("m.data", "again.data"), ("m.mask", "again.mask"))
    np.testing.assert_array_equal(tree["plain.mask"].value, [False, False])


def test_masked_records_and_texts_are_listed(tmp_path):
    records = np.ma.array(np.zeros(2, [("a", "f4"), ("b", "i8")]), mask=[(0, 1), (1, 1)])
    tree = opened(tmp_path, pickle.dumps({"r": records, "t": np.ma.array(["a", "bc"])}))
    refused = [name for name in tree if tree[name].array.problem]
    assert refused == ["r.data", "r.mask", "r.fill_value", "t.data"]
    np.testing.assert_array_equal(tree["t.mask"].value, [False, False])


def test_objects_in_objects_without_end(tmp_path):
    held = Held(np.ones(1))
    for _ in range(300):
        held = Held(held)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        content = pickle.dumps({"w": held})
    finally:
        sys.setrecursionlimit(limit)
    with pytest.raises(pt.CorruptFileError, match="128 levels deep"):
        opened(tmp_path, content)
