"""What pt.save has written, read by the libraries whose files they are."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import paratree as pt
from paratree.core.dtypes import BITS, numpy_dtype
from tests import weights
from tests.verbs.held import tree_with
from tests.verbs.writers import WRITERS


@pytest.fixture
def net():
    torch = pytest.importorskip("torch", reason="torch reads its files")
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 5), torch.nn.Linear(5, 5), torch.nn.BatchNorm1d(5), torch.nn.Linear(5, 5)]
    layers[3].weight = layers[1].weight
    return torch.nn.Sequential(*layers)


def test_torch_loads_what_was_saved_for_it(net, tmp_path):
    import torch

    pt.save(net, tmp_path / "m.pt")
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    assert list(state) == list(net.state_dict())
    assert all(torch.equal(state[name], values) for name, values in net.state_dict().items())
    assert state["1.weight"].data_ptr() == state["3.weight"].data_ptr()
    mapped = torch.load(tmp_path / "m.pt", weights_only=True, mmap=True)
    assert torch.equal(mapped["0.weight"], net[0].weight)
    assert mapped["0.weight"].data_ptr() % 64 == 0


def test_torch_loads_every_dtype(tmp_path):
    torch = pytest.importorskip("torch", reason="torch reads its files")
    state = {name: torch.arange(6).to(getattr(torch, name)).reshape(2, 3) for name in WRITERS["torch"].WRITES}
    pt.save(state, tmp_path / "m.pt")
    found = torch.load(tmp_path / "m.pt", weights_only=True)
    for name, values in state.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape)
        assert bytes(found[name].view(torch.uint8).numpy()) == bytes(values.view(torch.uint8).numpy())


def test_a_tensor_of_torch_writes_no_more_than_itself(tmp_path):
    torch = pytest.importorskip("torch", reason="a view of a large storage")
    pt.save({"w": torch.zeros(1 << 20)[5:8]}, tmp_path / "m.pt")
    assert (tmp_path / "m.pt").stat().st_size < 4096


def test_safetensors_ties_a_model_again(net, tmp_path):
    library = pytest.importorskip("safetensors.torch", reason="the library reads its files")
    import copy

    pt.save(net, tmp_path / "ours.safetensors")
    library.save_model(net, str(tmp_path / "theirs.safetensors"))
    ours, theirs = (pt.open(tmp_path / f"{who}.safetensors") for who in ("ours", "theirs"))
    assert ours.ties == (("1.weight", "3.weight"),) == theirs.ties
    assert pt.fingerprint(ours) == pt.fingerprint(theirs)
    fresh = copy.deepcopy(net)
    with __import__("torch").no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    assert library.load_model(fresh, str(tmp_path / "ours.safetensors")) == (set(), [])
    assert pt.diff(net, fresh).same


def test_numpy_loads_what_was_saved_for_it(tmp_path):
    arrays = {"a/b": np.arange(6.0).reshape(2, 3), "c": np.float32(2), "d": np.ones(3, ml_dtypes.bfloat16)}
    saved = pt.save(tree_with(arrays), tmp_path / "m.npz")
    assert saved.notes == (
        "numpy.load gives bfloat16 as bytes without a type; view them as those of ml_dtypes",
    )
    with np.load(tmp_path / "m.npz") as found:
        assert list(found) == list(arrays)
        assert np.array_equal(found["a/b"], arrays["a/b"])
        assert found["c"] == 2
        assert found["d"].view(ml_dtypes.bfloat16).tolist() == [1, 1, 1]


def test_mxnet_loads_what_was_saved_for_it(tmp_path):
    mxnet = pytest.importorskip("tests.mxnet_numpy", reason="MXNet reads its files").mxnet
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 2, (2, 3)).astype(name) for name in WRITERS["mxnet"].WRITES}
    assert pt.save(tree_with(arrays), tmp_path / "m.params").notes == ()
    found = mxnet.nd.load(str(tmp_path / "m.params"))
    assert list(found) == list(arrays)
    for name, values in arrays.items():
        assert np.array_equal(found[name].asnumpy(), values)
        assert found[name].dtype == values.dtype


def test_gluon_loads_a_model_of_torch(net, tmp_path):
    mxnet = pytest.importorskip("tests.mxnet_numpy", reason="MXNet reads its files").mxnet
    block = mxnet.gluon.nn.Sequential()
    block.add(mxnet.gluon.nn.Dense(5, in_units=4), mxnet.gluon.nn.Dense(5, in_units=5))
    pt.save(net, tmp_path / "m.params", select=["0.*", "1.*"], ties="once")
    block.load_parameters(str(tmp_path / "m.params"))
    assert pt.diff(pt.open(net).select(["0.*", "1.*"]), block).same


def test_arrays_that_only_mxnets_numpy_knows_are_told(tmp_path):
    mxnet = pytest.importorskip("tests.mxnet_numpy", reason="MXNet reads its files").mxnet
    saved = pt.save(tree_with({"a": np.float32(3), "b": np.ones((0, 2), np.float32)}), tmp_path / "m.params")
    assert saved.notes == (
        "arrays without axes or values are there, which MXNet loads under mx.util.np_shape() only",
    )
    with mxnet.util.np_shape():
        found = mxnet.nd.load(str(tmp_path / "m.params"))
        assert (found["a"].asnumpy(), found["b"].shape) == (3, (0, 2))


def test_gguf_reads_what_was_saved_for_it(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the library reads its files")
    rng = np.random.default_rng(0)
    dtypes = sorted(BITS.keys() & set(WRITERS["gguf"].WRITES))
    arrays = {f"{name}.weight": rng.integers(-9, 9, (3, 5)).astype(numpy_dtype(name)) for name in dtypes}
    meta = {"general.architecture": "llama", "llama.block_count": 2, "x.b": True, "x.f": 0.5, "x.n": -3,
            "x.t": ["a", "b"], "x.big": 1 << 40, "x.none": None}  # fmt: skip
    saved = pt.save(tree_with(arrays, meta=meta), tmp_path / "m.gguf", verify=True)
    assert saved.notes == ("metadata that GGUF has no type for was left out: x.none",)
    found = gguf.GGUFReader(tmp_path / "m.gguf")
    assert {name: found.fields[name].contents() for name in meta if name != "x.none"} == {
        name: value for name, value in meta.items() if value is not None
    }
    for tensor in found.tensors:
        assert tensor.data.tobytes() == arrays[tensor.name].tobytes()
        assert tensor.shape.tolist() == [5, 3]


def test_a_gguf_file_keeps_its_blocks_and_the_types_of_its_metadata(tmp_path):
    gguf = pytest.importorskip("gguf", reason="the library reads its files")
    source = weights.path("smollm2")
    saved = pt.save(source, tmp_path / "m.gguf", verify=True)
    assert saved.ties == pt.open(source).ties == pt.open(tmp_path / "m.gguf").ties
    assert pt.diff(source, tmp_path / "m.gguf").same
    ours, theirs = gguf.GGUFReader(tmp_path / "m.gguf"), gguf.GGUFReader(source)
    assert [field.types for field in ours.fields.values()][3:] == [
        field.types for field in theirs.fields.values()
    ][3:]
    assert list(ours.fields) == list(theirs.fields)
    assert (
        ours.fields["tokenizer.ggml.tokens"].contents() == theirs.fields["tokenizer.ggml.tokens"].contents()
    )


@pytest.mark.parametrize(
    ("dtypes", "said", "cast", "name"),
    [
        (("float32", "float32"), 1, None, "ALL_F32"),
        (("float32", "float16"), 0, None, "MOSTLY_F16"),
        (("float32", "float16"), 1, "bf16", "MOSTLY_BF16"),
        (("float32", "float32"), None, "fp16", "MOSTLY_F16"),
        (("float32", "int32"), "1", None, None),
        (("bfloat16", "float32"), None, None, None),  # most is float32, and not all
        (("float32", "float64"), 0, None, None),
        (("bfloat16", "bfloat16"), 15, None, "MOSTLY_BF16"),
    ],
)
def test_gguf_says_of_which_dtype_most_values_are(dtypes, said, cast, name, tmp_path):
    gguf = pytest.importorskip("gguf", reason="its numbers of file types")
    small, large = (np.ones(size, numpy_dtype(dtype)) for size, dtype in zip((2, 9), dtypes, strict=True))
    meta = {} if said is None else {"general.file_type": said}
    pt.save(tree_with({"a": small, "b": large}, meta=meta), tmp_path / "m.gguf", dtype=cast)
    found = gguf.GGUFReader(tmp_path / "m.gguf").get_field("general.file_type")
    assert (found and found.contents()) == (None if name is None else gguf.LlamaFileType[name])


def test_a_cast_of_a_gguf_file_changes_what_it_says_of_its_dtype(tmp_path):
    gguf = pytest.importorskip("gguf", reason="it decodes, and reads the file")
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "phi2")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    for name in ("blk.0.a.weight", "blk.0.b.weight", "blk.0.c.weight"):
        blocks = gguf.quantize(np.ones((2, 32), np.float32), gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(name, blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tree, out = pt.open(tmp_path / "q.gguf"), tmp_path / "m.gguf"
    for changed, number in (
        (tree, 3),
        (tree.cast("fp32", "**.a.*"), 3),
        (tree.cast("fp16", "**.{a,b}.*"), 1),
        (tree.cast("bf16"), 32),
        (tree.drop("**.{b,c}.*").cast("fp64"), None),
    ):
        pt.save(changed, out, force=True)
        assert pt.open(out).meta.get("general.file_type") == number
        assert next(iter(pt.open(out).meta)) == "general.architecture"


def test_gguf_has_one_tie_only(tmp_path):
    w, meta = np.ones((2, 3), np.float32), {"general.architecture": "llama"}
    for name, architecture in (("output.weight", "phi2"), ("other.weight", "llama")):
        tree = tree_with(
            {"token_embd.weight": w}, [(name, "token_embd.weight")], {"general.architecture": architecture}
        )
        with pytest.raises(pt.UnsupportedError, match="are tied, which GGUF cannot say"):
            pt.save(tree, tmp_path / "m.gguf")
    tree = tree_with({"token_embd.weight": w}, [("output.weight", "token_embd.weight")], meta)
    assert pt.save(tree, tmp_path / "m.gguf", verify=True).ties == (("token_embd.weight", "output.weight"),)


def test_flax_restores_what_was_saved_for_it(tmp_path):
    serialization = pytest.importorskip("flax.serialization", reason="Flax reads its files")
    arrays = {
        "params.Dense_0.kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "params.Dense_0.bias": np.ones(3, ml_dtypes.bfloat16),
        "step": np.int64(7),
    }
    pt.save(tree_with(arrays), tmp_path / "m.msgpack")
    data = (tmp_path / "m.msgpack").read_bytes()
    found = serialization.msgpack_restore(data)
    assert found["params"]["Dense_0"]["bias"].dtype == ml_dtypes.bfloat16
    assert np.array_equal(found["params"]["Dense_0"]["kernel"], arrays["params.Dense_0.kernel"])
    assert found["step"] == 7


@pytest.mark.parametrize("source", ["live", "file", "through a file without collections"])
@pytest.mark.parametrize("has_statistics", [False, True])
def test_flax_restores_variables_with_their_collections(source, has_statistics, tmp_path):
    serialization = pytest.importorskip("flax.serialization", reason="Flax reads its files")
    nn = pytest.importorskip("flax.linen", reason="the model is one of Flax")
    import jax

    layers = [nn.Dense(4), *[nn.BatchNorm(use_running_average=False)] * has_statistics, nn.Dense(2)]
    variables = nn.Sequential(layers).init(jax.random.key(0), np.ones((1, 3)))
    given, out = variables, tmp_path / "out.msgpack"
    if source != "live":
        given = tmp_path / "in.msgpack"
        given.write_bytes(serialization.to_bytes(variables))
    if source.startswith("through"):
        pt.save(given, tmp_path / "m.npz")
        pt.save(pt.load(variables, tmp_path / "m.npz").model, out, verify=True)
    else:
        pt.save(given, out, verify=True)
    restored = serialization.from_bytes(variables, out.read_bytes())
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, variables))
    pt.save(pt.open(given)["layers_0"], tmp_path / "part.msgpack")
    assert serialization.msgpack_restore((tmp_path / "part.msgpack").read_bytes()).keys() == {
        "kernel",
        "bias",
    }


@pytest.mark.parametrize("shape", [(1_000,), (7, 5, 11), (3, 400)])
def test_a_large_array_is_written_to_flax_in_chunks(shape, tmp_path, monkeypatch):
    from paratree.formats import _flax_written

    monkeypatch.setattr(_flax_written, "_LARGEST", 400)
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    pt.save(tree_with({"w": values, "small": values.ravel()[:9]}), tmp_path / "m.msgpack", verify=True)
    serialization = pytest.importorskip("flax.serialization", reason="Flax reads its files")
    found = serialization.msgpack_restore((tmp_path / "m.msgpack").read_bytes())
    assert np.array_equal(found["w"], values)


@pytest.mark.parametrize("arrays", [{}, {"\u2028": np.ones(3)}, {".a": np.ones(3)}])
def test_flax_files_begin_with_a_name(arrays, tmp_path):
    with pytest.raises(pt.UnsupportedError, match="begin with a printable name"):
        pt.save(tree_with(arrays), tmp_path / "m.msgpack")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("names", [("a", "a.b"), ("a.b", "a"), ("a.b", "c", "a")])
def test_a_name_that_is_a_path_too_cannot_be_nested(names, tmp_path):
    tree = tree_with({name: np.ones(3, np.float32) for name in names})
    with pytest.raises(
        pt.UnsupportedError, match=r"'a' is a parameter, and 'a\.b' lies below it, and Flax nests"
    ):
        pt.save(tree, tmp_path / "m.msgpack")
