"""ONNX: real models, every dtype and place of values, inner graphs; against the reference library."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import paratree as pt
from paratree.files.local import LocalFile
from paratree.formats import onnx as reader
from paratree.formats._onnx_tensors import DTYPES
from tests import weights

onnx = pytest.importorskip("onnx", reason="the reference library is the truth here")
helper, numpy_helper = pytest.importorskip("onnx.helper"), pytest.importorskip("onnx.numpy_helper")
TensorProto = onnx.TensorProto
REAL = ["silero-vad.onnx", "silero-vad-half.onnx", "basic-pitch.onnx", "qlknn.onnx"]
NUMERIC = [number for number, (name, _) in DTYPES.items() if name != "string"]


def words(array):
    """Return what two equal arrays have in common, NaN included."""
    return array.dtype.name, array.shape, np.ascontiguousarray(array).tobytes()


def tensors_of(graph):
    """Yield every tensor in a graph and in those inside it."""
    yield from ((tensor.name, numpy_helper.to_array(tensor)) for tensor in graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield (
                    node.output[0] if node.op_type == "Constant" else None,
                    numpy_helper.to_array(attribute.t),
                )
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from tensors_of(attribute.g)


def model(nodes=(), initializers=(), sparse=(), inputs=(), **more):
    graph = helper.make_graph(
        list(nodes), "g", list(inputs), [], list(initializers), sparse_initializer=list(sparse)
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], **more)


def saved(proto, folder, name="m.onnx"):
    (Path(folder) / name).write_bytes(proto.SerializeToString())
    return Path(folder) / name


def opened(proto, folder):
    return pt.open(saved(proto, folder))


def constant(name, **value):
    return helper.make_node("Constant", [], [name], **value)


def array_of(values, name="", dtype="float32"):
    return numpy_helper.from_array(np.array(values, dtype), name)


# Real models


@pytest.mark.parametrize("name", REAL)
def test_real_models_equal_the_reference(name):
    path = weights.path(name)
    expected = list(tensors_of(onnx.load(path).graph))
    tree = pt.open(path)
    assert Counter(words(array) for _, array in expected) == Counter(words(p.value) for p in tree.values())
    named = [(key, array) for key, array in expected if key is not None]
    assert all(words(tree[key].value) == words(array) for key, array in named)
    assert tree.notes == ()


def test_properties_are_kept_and_devices_are_not(tmp_path):
    proto = model(initializers=[array_of([1, 2], "w")], producer_name="me", ir_version=11)
    proto.metadata_props.add(key="labels", value="cat,dog")
    proto.configuration.add(name="two", num_devices=2)
    opset = {"ai.onnx": 21}
    inside = {"inputs": {}, "outputs": {}}
    meta = {
        "ir_version": 11,
        "producer_name": "me",
        "opset_import": opset,
        "metadata_props": {"labels": "cat,dog"},
    }
    assert opened(proto, tmp_path).meta == meta | inside


# Every dtype, in every place


def sample(number, shape=(3, 5)):
    """Return values of a dtype whose bits are all there, none of them a NaN."""
    dtype = helper.tensor_dtype_to_np_dtype(number)
    count = int(np.prod(shape))
    if dtype.kind in "iu" and dtype.itemsize > 1:
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return np.resize(np.array([0, 1, 127, 128, 300, high, low], dtype), count).reshape(shape)
    if DTYPES[number][0] == "bool":
        return (np.arange(count) % 3 == 0).reshape(shape)
    if dtype.kind == "c":
        return (np.arange(count) - 1.5j).astype(dtype).reshape(shape)
    return (np.arange(count) % 7 - 2).astype(dtype).reshape(shape)


@pytest.mark.parametrize("number", NUMERIC, ids=lambda n: DTYPES[n][0])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("shape", [(3, 5), (1,), (), (0, 2)], ids=str)
def test_every_dtype(number, raw, shape, tmp_path):
    values = sample(number, shape)
    data = numpy_helper.from_array(values).raw_data if raw else values.flatten()
    tensor = helper.make_tensor("w", number, shape, data, raw=raw)
    assert tensor.HasField("raw_data") == raw
    param = opened(model(initializers=[tensor]), tmp_path)["w"]
    assert words(param.value) == words(numpy_helper.to_array(tensor)) == words(values)
    assert param.dtype == DTYPES[number][0] == values.dtype.name
    if shape == (3, 5):
        assert words(param[1:, ::-2]) == words(values[1:, ::-2])


def test_the_dtypes_are_those_of_the_reference():
    known = {number for name, number in TensorProto.DataType.items() if name != "UNDEFINED"}
    assert known == DTYPES.keys()


def test_text_is_listed_and_refused(tmp_path):
    tensor = helper.make_tensor("labels", TensorProto.STRING, [2], [b"cat", b"dog"])
    param = opened(model(initializers=[tensor]), tmp_path)["labels"]
    assert (param.shape, param.dtype, param.kind) == ((2,), "string", "other")
    with pytest.raises(pt.UnreadableError, match="labels: text; paratree reads numbers"):
        _ = param.value


def test_one_piece_of_several_is_listed_and_refused(tmp_path):
    tensor = array_of([1, 2], "w")
    tensor.segment.begin = 1
    with pytest.raises(pt.UnreadableError, match="w: one piece of a tensor in several"):
        _ = opened(model(initializers=[tensor]), tmp_path)["w"].value


def field(number, wire, payload):
    """Return one field of a protocol buffer, of a number below 16."""
    return bytes([number << 3 | wire]) + payload


@pytest.mark.parametrize(
    ("number", "parts", "values"),
    [
        (TensorProto.FLOAT, [(4, 5, bytes([0, 0, n, 66])) for n in range(4)],
         np.linspace(32, 32.75, 4, dtype="f4")),
        (TensorProto.INT64, [(7, 0, bytes([v])) for v in range(4)], np.arange(4)),
        (TensorProto.INT64, [(7, 2, b"\x02\0\x01"), (7, 0, b"\x02"), (7, 2, b"\x01\x03")], np.arange(4)),
        (TensorProto.DOUBLE, [(10, 2, b"\x10" + np.arange(2.0).tobytes())] * 2, np.array([0.0, 1, 0, 1])),
        (TensorProto.INT8, [(5, 2, b"\x0b" + b"\xff" * 9 + b"\x01\x05"), (5, 0, b"\x07"), (5, 0, b"\0")],
         np.array([-1, 5, 7, 0], "int8")),
    ],
)  # fmt: skip
def test_numbers_that_are_not_packed_in_one_piece(number, parts, values, tmp_path):
    data = b"".join(field(*part) for part in parts)
    tensor = field(1, 0, b"\x04") + field(2, 0, bytes([number])) + data + field(8, 2, b"\x01w")
    graph = field(5, 2, bytes([len(tensor)]) + tensor)
    path = tmp_path / "m.onnx"
    path.write_bytes(field(1, 0, b"\x08") + field(7, 2, bytes([len(graph)]) + graph))
    assert words(pt.open(path)["w"].value) == words(values)
    assert words(values) == words(numpy_helper.to_array(TensorProto.FromString(tensor)))


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(st.data())
def test_what_the_reference_writes_is_read(data):
    names = data.draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), unique=True))
    expected, tensors = {}, []
    for name in names:
        number, raw = data.draw(st.sampled_from(NUMERIC)), data.draw(st.booleans())
        values = sample(number, data.draw(shapes))
        content = numpy_helper.from_array(values).raw_data if raw else values.flatten()
        tensors.append(helper.make_tensor(name, number, values.shape, content, raw=raw))
        expected[name] = words(values)
    with tempfile.TemporaryDirectory() as folder, opened(model(initializers=tensors), folder) as tree:
        assert {name: words(param.value) for name, param in tree.items()} == expected
        assert list(tree) == names


# Constants, inner graphs, functions


def test_the_value_of_a_constant_in_each_attribute(tmp_path):
    dense = array_of([[0, 2], [0, 0], [5, 0]])
    indices = array_of([1, 4], "i", "int64")
    nodes = [
        constant("tensor", value=dense),
        constant("float", value_float=1.5),
        constant("floats", value_floats=[1.0, 2.0, 3.0]),
        constant("int", value_int=-7),
        constant("ints", value_ints=[3, -1, 1 << 62]),
        constant("no_floats", value_floats=[0.0]),
        constant("text", value_string="abc"),
        constant("texts", value_strings=["a", "b", "c"]),
        constant("sparse", sparse_value=helper.make_sparse_tensor(array_of([2, 5], "v"), indices, [3, 2])),
    ]
    del nodes[5].attribute[0].floats[:]  # the helper makes no empty list
    tree = opened(model(nodes), tmp_path)
    values = {
        "tensor": np.array([[0, 2], [0, 0], [5, 0]], "float32"),
        "float": np.array(1.5, "float32"),
        "floats": np.array([1, 2, 3], "float32"),
        "int": np.array(-7),
        "ints": np.array([3, -1, 1 << 62]),
        "no_floats": np.zeros(0, "float32"),
        "sparse": np.array([[0, 2], [0, 0], [5, 0]], "float32"),
    }
    assert list(tree) == ["tensor", "float", "floats", "int", "ints", "no_floats", "text", "texts", "sparse"]
    assert all(words(tree[name].value) == words(value) for name, value in values.items())
    assert (tree["text"].shape, tree["texts"].shape) == ((), (3,))
    assert all(
        tree[name].array.problem.endswith("text; paratree reads numbers") for name in ("text", "texts")
    )
    kinds = {name: param.kind for name, param in tree.items()}
    assert [name for name, kind in kinds.items() if kind == "parameter"] == [
        "tensor",
        "floats",
        "no_floats",
        "sparse",
    ]


def branch(name, *nodes, initializers=()):
    return helper.make_graph(list(nodes), name, [], [], list(initializers))


def test_inner_graphs_and_the_names_they_need(tmp_path):
    """Names that stand once are left alone; twins bear the way to them, those of the outermost graph none."""
    inner = branch("i", constant("w", value=array_of([3, 3])), constant("deep", value=array_of([4, 4])))
    loop = helper.make_node("Loop", ["", ""], ["x"], name="/net/Loop", body=inner)
    chosen = branch("t", loop, constant("w", value=array_of([1, 1])), initializers=[array_of([9, 9], "own")])
    other = branch("e", constant("w", value=array_of([2, 2])))
    choice = helper.make_node("If", ["c"], ["y"], then_branch=chosen, else_branch=other)
    tree = opened(model([choice], [array_of([0, 0], "w")]), tmp_path)
    found = {name: param.value.tolist() for name, param in tree.items()}
    assert found == {
        "y.then_branch./net/Loop.body.w": [3, 3],
        "deep": [4, 4],
        "y.then_branch.w": [1, 1],
        "own": [9, 9],
        "y.else_branch.w": [2, 2],
        "w": [0, 0],
    }
    assert not tree.ties, "a name that is hidden by another of an inner graph is not tied to it"


def test_full_names_that_collide_are_numbered(tmp_path):
    nodes = [constant("w", value=array_of([1, 1])), constant("If.then_branch.w", value=array_of([2, 2]))]
    nodes.append(
        helper.make_node(
            "If", ["c"], [], name="If", then_branch=branch("t", constant("w", value=array_of([3, 3])))
        )
    )
    tree = opened(model(nodes), tmp_path)
    assert list(tree) == ["w", "If.then_branch.w", "If.then_branch.w~2"]
    assert "NAME~2: 1" in tree.notes[0]


def test_weights_in_functions_bear_its_name(tmp_path):
    scale = constant("scale", value=array_of([[1, 2]]))
    inner = helper.make_node(
        "If", ["x"], ["z"], name="if", then_branch=branch("t", constant("b", value=array_of([3, 3])))
    )
    opsets = [helper.make_opsetid("", 21)]
    functions = [
        helper.make_function("local", name, ["x"], ["y"], [scale, inner], opsets)
        for name in ("Norm", "Other")
    ]
    proto = model([constant("scale", value=array_of([5, 5]))], functions=functions)
    tree = opened(proto, tmp_path)
    assert list(tree) == [
        "scale",
        "Norm.scale",
        "Norm.if.then_branch.b",
        "Other.scale",
        "Other.if.then_branch.b",
    ]


def test_optimizer_state_of_the_training_information(tmp_path):
    proto = model([helper.make_node("Relu", ["w"], ["y"])], [array_of([1, 2], "w")])
    training = proto.training_info.add()
    training.algorithm.CopyFrom(
        branch("a", constant("rate", value_float=0.1), initializers=[array_of([0, 0], "m")])
    )
    training.initialization.CopyFrom(branch("i", constant("w", value=array_of([7, 7]))))
    kinds = {name: param.kind for name, param in opened(proto, tmp_path).items()}
    assert kinds == {"w": "parameter", "training.0.initialization.w": "other", "rate": "other", "m": "state"}


def test_tensors_in_attributes_of_other_nodes(tmp_path):
    nodes = [
        helper.make_node("ConstantOfShape", ["s"], ["zeros"], value=array_of([0])),
        helper.make_node("LinearRegressor", ["x"], ["y"], name="fit", domain="ai.onnx.ml",
                         coefficients=[0.5, -1.0], intercepts=[2.0]),
        helper.make_node("Resize", ["x"], ["r"], name="resize", scales=[1.0, 2.0]),
    ]  # fmt: skip
    tree = opened(model(nodes), tmp_path)
    assert {name: param.value.tolist() for name, param in tree.items()} == {
        "zeros.value": [0],
        "fit.coefficients": [0.5, -1.0],
        "fit.intercepts": [2.0],
    }
    assert [p.kind for p in tree.values()] == ["other", "parameter", "other"]


def test_order_of_use_and_what_is_not_used(tmp_path):
    initializers = [array_of([1, 1], name) for name in ("unused", "bias", "weight", "inner")]
    inner = helper.make_node(
        "If", ["c"], ["z"], then_branch=branch("t", helper.make_node("Neg", ["inner"], ["n"]))
    )
    nodes = [
        inner,
        helper.make_node("Gemm", ["x", "weight", "bias"], ["y"]),
        helper.make_node("Add", ["y", "weight"], ["s"]),
    ]
    tree = opened(model(nodes, initializers), tmp_path)
    assert list(tree) == ["inner", "weight", "bias", "unused"]
    assert not tree.ties, "one name in two nodes is one parameter"


def test_inputs_that_are_initializers_are_no_inputs(tmp_path):
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3]), ("w", [2]))
    ]
    tree = opened(model(initializers=[array_of([1, 2], "w")], inputs=inputs), tmp_path)
    assert tree.meta["inputs"] == {"x": "float32 [n, 3]"}


def test_quantised_weights_and_whole_numbers(tmp_path):
    made = {
        "conv.weight_quantized": ("parameter", np.ones((2, 3), "int8")),
        "zero_point": ("other", np.array(3, "uint8")),
        "axes": ("other", np.array([0, 1])),
        "bn.num_batches_tracked": ("buffer", np.array(3)),
        "position_ids": ("buffer", np.arange(4).reshape(1, 4)),
        "bn.running_mean": ("buffer", np.ones(2, "float32")),
        "logit_scale": ("parameter", np.array(1.5, "float32")),
        "table": ("parameter", np.ones((2, 3), ml_dtypes.int4)),
    }
    initializers = [numpy_helper.from_array(values, name) for name, (_, values) in made.items()]
    tree = opened(model(initializers=initializers), tmp_path)
    assert {name: param.kind for name, param in tree.items()} == {
        name: kind for name, (kind, _) in made.items()
    }


# Sparse tensors


@pytest.mark.parametrize("linear", [True, False], ids=["linear", "by axis"])
def test_a_sparse_tensor_reads_dense(linear, tmp_path):
    places = [[0, 1], [2, 0], [2, 3]]
    indices = [4 * a + b for a, b in places] if linear else places
    tensor = helper.make_sparse_tensor(array_of([1, 2, 3], "w"), array_of(indices, "i", "int64"), [3, 4])
    param = opened(model(sparse=[tensor]), tmp_path)["w"]
    expected = np.zeros((3, 4), "float32")
    expected[tuple(np.transpose(places))] = [1, 2, 3]
    assert words(param.value) == words(expected)
    assert words(param[2, 1:]) == words(expected[2, 1:])
    assert param.storage is None


def test_a_sparse_tensor_that_would_fill_the_memory_stays_sparse(tmp_path):
    tensor = helper.make_sparse_tensor(array_of([1], "w"), array_of([5], "i", "int64"), [1 << 20, 1 << 20])
    param = opened(model(sparse=[tensor]), tmp_path)["w"]
    assert param.shape == (1 << 20, 1 << 20)
    with pytest.raises(pt.UnreadableError, match="w: sparse: its 1 values would be 4398046511104 bytes"):
        _ = param.value


@pytest.mark.parametrize(
    ("indices", "dims"),
    [([1, 1], [4]), ([2, 1], [4]), ([-1, 1], [4]), ([0, 4], [4]), ([[0, 3], [1, 0]], [2, 3])],
)
def test_places_outside_or_out_of_order(indices, dims, tmp_path):
    tensor = helper.make_sparse_tensor(array_of([1, 2], "w"), array_of(indices, "i", "int64"), dims)
    param = opened(model(sparse=[tensor]), tmp_path)["w"]
    with pytest.raises(pt.CorruptFileError, match=r"w.*ascending order"):
        _ = param.value


# External data


def external(folder, location="weights.bin", **options):
    rng = np.random.default_rng(0)
    made = {f"l{i}.weight": rng.normal(size=(8, 16 + i)).astype("float32") for i in range(3)}
    made["half"] = rng.normal(size=(64, 64)).astype("float16")
    proto = model(initializers=[numpy_helper.from_array(values, name) for name, values in made.items()])
    onnx.save_model(
        proto,
        str(Path(folder) / "m.onnx"),
        save_as_external_data=True,
        location=location,
        size_threshold=0,
        **options,
    )
    return Path(folder) / "m.onnx", made


@pytest.mark.parametrize("one_file", [True, False], ids=["one file", "a file each"])
def test_external_data_equals_the_reference(one_file, tmp_path):
    path, made = external(tmp_path, all_tensors_to_one_file=one_file)
    expected = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    with pt.open(path) as tree:
        assert {name: words(p.value) for name, p in tree.items()} == {
            n: words(v) for n, v in expected.items()
        }
        assert {name: words(p.value) for name, p in tree.items()} == {n: words(v) for n, v in made.items()}
    assert path.stat().st_size < 1000


def test_values_that_are_not_there_leave_the_names(tmp_path):
    path, made = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    tree = pt.open(path)
    assert {name: p.shape for name, p in tree.items()} == {name: v.shape for name, v in made.items()}
    assert all(param.kind == "parameter" for param in tree.values())
    assert tree.notes == ("the values of 4 tensors are in weights.bin, which is not there: fetch it too",)
    with pytest.raises(pt.UnreadableError, match=r"half: its values are in weights\.bin, which is not there"):
        _ = tree["half"].value


def place(tensor, **said):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in said.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_one_place_of_an_external_file_is_one_parameter(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.arange(8, dtype="<f4").tobytes())
    tensors = [
        place(array_of([0, 0], "a"), location="w.bin", offset=8, length=8),
        place(array_of([0, 0], "b"), location="./w.bin", offset=8),
        place(array_of([0, 0], "c"), location="w.bin", offset=12),
        place(array_of([0, 0], "d", "int32"), location="w.bin", offset=8),
    ]
    tree = opened(model(initializers=tensors), tmp_path)
    assert tree["a"].value.tolist() == tree["b"].value.tolist() == [2, 3]
    assert tree.ties == (("a", "b"),)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"location": "../w.bin"}, "outside its folder"),
        ({"location": "/etc/passwd"}, "outside its folder"),
        ({"location": "link.bin"}, "outside its folder"),
        ({"location": "w.bin", "offset": 28}, "needs 8 bytes here and 4 are left"),
        ({"location": "w.bin", "length": 4}, "takes 8 bytes, not 4"),
        ({"location": "w.bin", "offset": -4}, "'-4' is no number of bytes"),
        ({"location": "w.bin", "offset": "0x8"}, "no number of bytes"),
        ({"offset": 0}, "no file is named"),
    ],
)  # fmt: skip
def test_external_data_that_leads_elsewhere(said, message, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (tmp_path / "w.bin", folder / "w.bin"):
        path.write_bytes(bytes(32))
    (folder / "link.bin").symlink_to("w.bin")
    path = saved(model(initializers=[place(array_of([0, 0], "a"), **said)]), folder)
    with pytest.raises((pt.CorruptFileError, pt.UnsafeFileError), match=message) as caught:
        pt.open(path)
    assert str(folder) in str(caught.value)


# What is no model


def test_the_runtimes_own_format_is_named(tmp_path):
    path = tmp_path / "m.ort"
    path.write_bytes(b"\x20\0\0\0ORTM" + bytes(100))
    with pytest.raises(pt.UnknownSourceError, match=r"ONNX Runtime's own format .* give the \.onnx"):
        pt.open(path)


def test_other_protocol_buffers_are_not_taken_for_models(tmp_path):
    descriptor = pytest.importorskip("google.protobuf.descriptor_pb2")
    graph = model(initializers=[array_of([1, 2], "w")]).graph
    others = [
        graph.SerializeToString(),
        graph.initializer[0].SerializeToString(),
        descriptor.FileDescriptorProto(name="x", package="y").SerializeToString(),
        b"\x08\x05\x12\x00\xa2\x1f\x00",  # CoreML: a version, a description, a kind of model
    ]
    for i, data in enumerate(others):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(data)
        with pytest.raises(pt.UnknownSourceError, match="no ONNX file does"):
            pt.open(path)
    path.write_bytes(b"\x08\x01\x12\x04\x0a\x02\x08\x01")  # a SavedModel: a version, then messages
    assert not reader.sniff(LocalFile(path))


def test_a_model_is_known_whatever_it_is_called(tmp_path):
    path = saved(model(initializers=[array_of([1, 2], "w")]), tmp_path, "weights.bin")
    assert pt.open(path).format == reader.NAME


def test_graphs_nest_as_deep_as_protobuf_reads(tmp_path):
    def within(number, data):
        size = len(data)
        return field(number, 2, bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + data)

    def nested(depth):
        graph = within(1, constant("w", value=array_of([1, 1])).SerializeToString())
        for _ in range(depth):
            graph = within(1, within(5, within(6, graph)))
        return field(1, 0, b"\x08") + within(7, graph)

    path = tmp_path / "m.onnx"
    path.write_bytes(nested(32))
    assert len(pt.open(path)) == 1
    onnx.ModelProto.FromString(nested(31))
    for depth in (33, 5000):
        path.write_bytes(nested(depth))
        with pytest.raises(pt.CorruptFileError, match="nested over 32 deep"):
            pt.open(path)
        with pytest.raises(Exception, match="MaxDepth"):
            onnx.ModelProto.FromString(nested(depth))


def test_memory_does_not_grow_with_the_tensors(tmp_path):
    import tracemalloc

    proto = model(
        initializers=[numpy_helper.from_array(np.zeros(1 << 22, "float32"), f"w{i}") for i in range(4)]
    )
    path = saved(proto, tmp_path)
    del proto
    tracemalloc.start()
    tree = pt.open(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tree.nbytes == 1 << 26
    assert peak < 1 << 20
