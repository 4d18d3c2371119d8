"""Copies of ONNX models with other values: the reference library reads them; nothing else is changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import BITS, numpy_dtype
from tests import weights
from tests.verbs.held import held, tree_of

onnx = pytest.importorskip("onnx", reason="the reference library is the truth here")
helper, numpy_helper = pytest.importorskip("onnx.helper"), pytest.importorskip("onnx.numpy_helper")

from tests.formats.test_onnx import (  # noqa: E402 -- it is skipped without onnx
    NUMERIC,
    REAL,
    array_of,
    branch,
    constant,
    external,
    model,
    sample,
    saved,
)

TensorProto, AttributeProto = onnx.TensorProto, onnx.AttributeProto
_VALUES = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def other_values(tree, seed=0):
    """Return a tree of the same names, shapes and dtypes with random bits, no NaN where floats are wide."""
    rng = np.random.default_rng(seed)
    return tree_of(*(held(n, random_values(p.shape, p.dtype, rng), p.kind) for n, p in tree.items()))


def random_values(shape, dtype, rng):
    if dtype in ("float32", "float64"):
        return rng.standard_normal(shape).astype(dtype)
    bits = rng.integers(0, 256, int(np.prod(shape)) * max(BITS[dtype] // 8, 1), np.uint8)
    if BITS[dtype] < 8 or dtype == "bool":
        bits &= 1 if dtype == "bool" else (1 << BITS[dtype]) - 1
    return bits.view(numpy_dtype(dtype)).reshape(shape)


def without_values(graph):
    """Take the values out of a graph, so that what is left can be compared."""
    for tensor in graph.initializer:
        empty(tensor)
    without_values_in(graph.node)


def without_values_in(nodes):
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                empty(attribute.t)
            if attribute.type == AttributeProto.GRAPH:
                without_values(attribute.g)
            if node.op_type in ("Constant", "LinearRegressor"):
                for field in ("f", "i", "floats", "ints"):
                    attribute.ClearField(field)


def empty(tensor):
    for field in (*_VALUES, "external_data", "data_location"):
        tensor.ClearField(field)


def check_same_but_values(one, other):
    one, other = onnx.load(one, load_external_data=False), onnx.load(other, load_external_data=False)
    for proto in (one, other):
        without_values(proto.graph)
        for function in proto.functions:
            without_values_in(function.node)
    assert one == other


def check_copy(path, source, target, **options):
    """Save a copy, and check that it has the values of the source and everything else of the model."""
    kept = pt.save(source, target, like=path, verify=True, **options)
    wanted = source if isinstance(source, pt.ParamTree) else pt.open(source)
    with pt.open(target) as found:
        assert list(found) == list(pt.open(path))
        for name, param in wanted.items():
            assert found[name].value.tobytes() == param.value.tobytes()
            assert (found[name].dtype, found[name].shape) == (param.dtype, param.shape)
    check_same_but_values(path, target)
    return kept


# Real models


@pytest.mark.parametrize("name", REAL)
def test_a_real_model_takes_its_own_values_and_stays_what_it_is(name, tmp_path):
    path = weights.path(name)
    pt.save(path, tmp_path / "m.onnx", verify=True)
    ours = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(ours, full_check=True)
    theirs = onnx.load(path)
    if all(tensor.raw_data for tensor in tensors_in(theirs.graph)):
        assert (tmp_path / "m.onnx").read_bytes() == path.read_bytes()
    for one, other in zip(tensors_in(ours.graph), tensors_in(theirs.graph), strict=True):
        assert numpy_helper.to_array(one).tobytes() == numpy_helper.to_array(other).tobytes()
    check_same_but_values(path, tmp_path / "m.onnx")


def tensors_in(graph):
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            if attribute.type == AttributeProto.GRAPH:
                yield from tensors_in(attribute.g)


def test_new_weights_act(tmp_path):
    reference = pytest.importorskip("onnx.reference", reason="the reference library runs models")
    path, name = weights.path("qlknn.onnx"), "_network.model.4.weight"
    tree = pt.open(path)
    values = random_values(tree[name].shape, "float32", np.random.default_rng(0))
    params = [held(n, values if n == name else p.value, p.kind) for n, p in tree.items()]
    pt.save(tree_of(*params), tmp_path / "m.onnx", like=path)
    ours, theirs, old = onnx.load(tmp_path / "m.onnx"), onnx.load(path), onnx.load(path)
    onnx.checker.check_model(ours, full_check=True)
    (weight,) = (tensor for tensor in theirs.graph.initializer if tensor.name == name)
    weight.CopyFrom(numpy_helper.from_array(values, name))
    inputs = {"input": np.random.default_rng(1).standard_normal((3, 10)).astype(np.float32)}
    found, expected, before = (
        np.hstack(reference.ReferenceEvaluator(m).run(None, inputs)) for m in (ours, theirs, old)
    )
    assert np.array_equal(found, expected)
    assert not np.allclose(found, before)


# Every dtype, in every place


@pytest.mark.parametrize("number", NUMERIC)
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_every_dtype_from_every_field(number, raw, tmp_path):
    tensors = []
    for name, shape in (("w", (3, 5)), ("without.values", (0, 2)), ("scalar", ()), ("long", (67,))):
        values = sample(number, shape)
        data = numpy_helper.from_array(values, name)
        if not raw:
            data = typed(number, values, name) or data
        tensors.append(data)
    path = saved(model(initializers=tensors), tmp_path)
    source = other_values(pt.open(path), number)
    check_copy(path, source, tmp_path / "copy.onnx")
    for tensor in onnx.load(tmp_path / "copy.onnx").graph.initializer:
        assert tensor.HasField("raw_data")
        found = numpy_helper.to_array(tensor)
        assert np.ascontiguousarray(found).tobytes() == source[tensor.name].value.tobytes()


def typed(number, values, name):
    """Return the values in the field of their type, or nothing if the library has no way to."""
    try:
        return helper.make_tensor(name, number, values.shape, values.flatten())
    except (TypeError, ValueError, KeyError, OverflowError):
        return None


def test_constants_inner_graphs_functions_and_attributes(tmp_path):
    factor = constant("factor", value=array_of([3, 4]))
    scale = helper.make_node("Mul", ["x", "factor"], ["y"])
    function = helper.make_function(
        "d", "Scale", ["x"], ["y"], [factor, scale], [helper.make_opsetid("", 21)]
    )
    inner = constant("w", value=array_of([1.0] * 40))
    nodes = [
        constant("tensor", value=array_of([1, 2], "inside")),
        constant("one", value_float=1.5),
        constant("whole", value_int=-7),
        constant("several", value_floats=[1.0, 2.0]),
        constant("wholes", value_ints=[1, -2, 300]),
        helper.make_node(
            "If",
            ["c"],
            ["o"],
            name="if",
            then_branch=branch("t", inner, initializers=[array_of([5, 6], "b")]),
            else_branch=branch("e", constant("w", value=array_of([2.0]))),
        ),
        helper.make_node(
            "LinearRegressor", ["x"], ["p"], name="linear", domain="ai.onnx.ml", coefficients=[0.5, 0.25, 1.0]
        ),
    ]
    proto = model(nodes, [array_of(np.ones((30, 30)), "weight")], functions=[function])
    path = saved(proto, tmp_path)
    tree = pt.open(path)
    assert len(tree) == 11
    source = other_values(tree)
    check_copy(path, source, tmp_path / "copy.onnx")
    found = {node.output[0]: node.attribute[0] for node in onnx.load(tmp_path / "copy.onnx").graph.node}
    assert found["one"].f == source["one"].value
    assert found["whole"].i == source["whole"].value
    assert np.array_equal(found["several"].floats, source["several"].value)
    assert np.array_equal(found["wholes"].ints, source["wholes"].value)
    assert np.array_equal(found["p"].floats, source["linear.coefficients"].value)


@given(st.data())
@settings(max_examples=40)
def test_lengths_of_every_message_are_right(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("saved")
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 3, 20, 60, 130, 5000]), min_size=1, max_size=4))
    raw = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    tensors = [
        array_of(np.zeros(size), f"w{place}", "int32")
        if inside
        else helper.make_tensor(f"w{place}", TensorProto.INT32, (size,), [0] * size)
        for place, (size, inside) in enumerate(zip(sizes, raw, strict=True))
    ]
    node = helper.make_node(
        "If", ["c"], ["o"], name="if", then_branch=branch("t", initializers=tensors), else_branch=branch("e")
    )
    proto = model([node], [array_of([1], "last")], doc_string="after")
    path = saved(proto, folder)
    check_copy(path, other_values(pt.open(path)), folder / "copy.onnx")
    onnx.load(folder / "copy.onnx")


def test_external_values_are_inside_the_copy(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    path, _ = external(tmp_path / "there")
    saved_as = check_copy(path, path, tmp_path / "here" / "copy.onnx")
    assert [entry.name for entry in (tmp_path / "here").iterdir()] == ["copy.onnx"]
    assert len(saved_as.notes) == 1
    assert saved_as.notes[0].startswith("values that the model has in other files are inside the copy: ")


# What does not fit


def small(folder):
    shape = constant("shape", value=array_of([2, 3], dtype="int64"))
    return saved(model([shape], [array_of([[1, 2]], "w"), array_of([1], "b")]), folder)


def test_what_is_no_parameter_may_be_left_as_it_is(tmp_path):
    path = small(tmp_path)
    source = tree_of(w=np.full((1, 2), 7, np.float32), b=np.zeros(1, np.float32))
    assert pt.save(source, tmp_path / "copy.onnx", like=path, verify=True).names == 2
    found = pt.open(tmp_path / "copy.onnx")
    assert found["shape"].value.tolist() == [2, 3]
    assert found["w"].value.tolist() == [[7, 7]]


@pytest.mark.parametrize(
    ("arrays", "fact"),
    [
        ({"w": (1, 2)}, r"what is written lacks b of the model; all its parameters are needed"),
        ({"w": (1, 2), "b": (1,), "c": (3,)}, r"the model has no c; rename them as the model does"),
        (
            {"w": (2, 1), "b": (1,)},
            r"w is float32 \[1, 2\] there, not float32 \[2, 1\]; it is of another model",
        ),
    ],
)
def test_other_names_and_shapes_are_refused(arrays, fact, tmp_path):
    path = small(tmp_path)
    source = tree_of(**{name: np.zeros(shape, np.float32) for name, shape in arrays.items()})
    with pytest.raises(pt.MismatchError, match=fact):
        pt.save(source, tmp_path / "copy.onnx", like=path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.onnx"]


def test_another_dtype_is_refused_and_a_cast_is_not(tmp_path):
    path = small(tmp_path)
    source = tree_of(w=np.zeros((1, 2)), b=np.zeros(1))
    with pytest.raises(pt.MismatchError, match=r"w is float32 \[1, 2\] there, not float64 \[1, 2\]; cast it"):
        pt.save(source, tmp_path / "copy.onnx", like=path)
    pt.save(source, tmp_path / "copy.onnx", like=path, dtype="float32")


def test_a_sparse_tensor_is_refused(tmp_path):
    sparse = helper.make_sparse_tensor(array_of([1.0], "s"), array_of([2], dtype="int64"), [4])
    path = saved(model(initializers=[array_of([1], "b")], sparse=[sparse]), tmp_path)
    with pytest.raises(pt.UnsupportedError, match="s is sparse there; make it dense in the model"):
        pt.save(path, tmp_path / "copy.onnx")


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    source = tree_of(w=np.zeros(3))
    with pytest.raises(pt.UnsupportedError, match="no ONNX model to write into a copy of"):
        pt.save(source, tmp_path / "copy.onnx", like=tmp_path / "m.onnx")
    with pytest.raises(pt.UnsupportedError, match="give its path, not a ModelProto"):
        pt.save(source, tmp_path / "copy.onnx", like=model())
    with pytest.raises(pt.UnsupportedError, match="give one as like"):
        pt.save(source, tmp_path / "copy.onnx")


def test_a_copy_over_the_limit_of_protobuf_is_refused(tmp_path, monkeypatch):
    from paratree.formats import _onnx_written

    path = small(tmp_path)
    size = path.stat().st_size
    monkeypatch.setattr(_onnx_written, "_LARGEST", size - 1)
    with pytest.raises(pt.UnsupportedError, match=f"the copy would take {size} bytes, over the 2 GB"):
        pt.save(path, tmp_path / "copy.onnx")


def test_a_model_may_be_replaced_by_its_copy(tmp_path):
    path = small(tmp_path)
    source = other_values(pt.open(path))
    check_before = path.read_bytes()
    pt.save(source, path, like=path, force=True, verify=True)
    assert path.read_bytes() != check_before
    assert pt.fingerprint(path) == pt.fingerprint(source)


def test_memory_does_not_grow_with_the_values(tmp_path):
    import tracemalloc

    values = np.zeros(12_000_000, np.float32)
    path = saved(model(initializers=[numpy_helper.from_array(values, "w")]), tmp_path)
    del values
    tracemalloc.start()
    try:
        pt.save(path, tmp_path / "copy.onnx")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20 << 20
    assert (tmp_path / "copy.onnx").read_bytes() == path.read_bytes()
