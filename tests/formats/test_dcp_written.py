"""Distributed checkpoints written without torch: torch loads them bit for bit, and so do we."""

from __future__ import annotations

import subprocess
import sys

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import BITS, numpy_dtype
from paratree.formats import dcp
from tests.verbs.held import held, tree_of

NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


def drawn_arrays(data, dtypes):
    """Return arrays of any bit patterns: NaN payloads, -0.0 and subnormal numbers among them."""
    arrays = {}
    for name in data.draw(st.lists(NAMES, max_size=5, unique=True)):
        dtype = data.draw(st.sampled_from(dtypes))
        shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        count = int(np.prod(shape)) * BITS[dtype] // 8
        raw = np.frombuffer(data.draw(st.binary(min_size=count, max_size=count)), np.uint8)
        arrays[name] = (raw & 1 if dtype == "bool" else raw).view(numpy_dtype(dtype)).reshape(shape)
    return arrays


def state_of(torch):
    state = {name: torch.arange(24).to(getattr(torch, name)).reshape(2, 3, 4) for name in dcp.WRITES}
    return state | {"a.scalar": torch.tensor(3.5), "without.values": torch.zeros(0, 4), "ü/b ": torch.ones(1)}


def equal(torch, one, other):
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and torch.equal(bits(torch, one), bits(torch, other))
    )


def bits(torch, tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_loads_every_dtype(tmp_path):
    torch = pytest.importorskip("torch", reason="torch reads its files")
    import torch.distributed.checkpoint as reader

    state = state_of(torch)
    pt.save(state, tmp_path / "c", format="dcp", verify=True)
    found = {name: torch.zeros_like(values) for name, values in state.items()}
    reader.load(found, checkpoint_id=tmp_path / "c", no_dist=True)
    assert all(equal(torch, found[name], values) for name, values in state.items())


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_converts_it(tmp_path):
    torch = pytest.importorskip("torch", reason="torch reads its files")
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    state = state_of(torch)
    pt.save(state, tmp_path / "c", format="dcp")
    dcp_to_torch_save(tmp_path / "c", tmp_path / "c.pt")
    found = torch.load(tmp_path / "c.pt", weights_only=True)
    assert list(found) == list(state)
    assert all(equal(torch, found[name], values) for name, values in state.items())


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_the_metadata_are_those_of_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch reads its files")
    import torch.distributed.checkpoint as reader

    state = state_of(torch)
    pt.save(state, tmp_path / "ours", format="dcp")
    reader.save(state, checkpoint_id=tmp_path / "theirs", no_dist=True)
    ours, theirs = (reader.FileSystemReader(tmp_path / name).read_metadata() for name in ("ours", "theirs"))
    assert ours.state_dict_metadata == theirs.state_dict_metadata
    assert ours.planner_data == theirs.planner_data
    assert ours.storage_data.keys() == theirs.storage_data.keys()
    assert ours.version == theirs.version


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torch_resumes_a_model(tmp_path):
    torch = pytest.importorskip("torch", reason="torch reads its files")
    import torch.distributed.checkpoint as reader

    torch.manual_seed(0)
    net, other = torch.nn.LSTM(3, 4), torch.nn.LSTM(3, 4)
    pt.save(net, tmp_path / "c", format="dcp")
    state = other.state_dict()
    reader.load(state, checkpoint_id=tmp_path / "c", no_dist=True)
    other.load_state_dict(state)
    assert pt.fingerprint(other) == pt.fingerprint(net)


@given(st.data())
@settings(max_examples=60)
def test_what_is_written_is_read_back(tmp_path_factory, data):
    arrays = drawn_arrays(data, sorted(dcp.WRITES))
    path = tmp_path_factory.mktemp("saved") / "c"
    saved = pt.save(tree_of(*map(held, arrays, arrays.values())), path, format="dcp")
    assert saved.nbytes == sum(file.stat().st_size for file in path.iterdir())
    assert sorted(saved.files) == sorted(map(str, path.iterdir()))
    with pt.open(path) as found:
        assert list(found) == list(arrays)
        for name, values in arrays.items():
            assert (found[name].dtype, found[name].shape) == (values.dtype.name, values.shape)
            assert found[name].value.tobytes() == values.tobytes()


def test_torch_is_not_imported(tmp_path):
    code = (
        "import sys, numpy as np, paratree as pt; np.savez(sys.argv[1] + '.npz', w=np.ones(3))\n"
        "pt.save(sys.argv[1] + '.npz', sys.argv[1], format='dcp'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "c"], check=True)
    assert pt.open(tmp_path / "c")["w"].value.tolist() == [1, 1, 1]


def test_ties_are_a_choice(tmp_path):
    one = np.arange(4.0)
    tree = tree_of(held("a", one, memory="one"), held("b", one, memory="one"))
    with pytest.raises(pt.UnsupportedError, match="a and b are tied, which PyTorch DCP cannot say"):
        pt.save(tree, tmp_path / "c", format="dcp")
    pt.save(tree, tmp_path / "once", format="dcp", ties="once")
    pt.save(tree, tmp_path / "twice", format="dcp", ties="twice")
    assert [list(pt.open(tmp_path / name)) for name in ("once", "twice")] == [["a"], ["a", "b"]]


def test_values_are_counted_and_metadata_are_said_to_be_left(tmp_path):
    np.savez(tmp_path / "m.npz", a=np.ones(5), b=np.ones((2, 3), np.float16))
    done = []
    pt.save(tmp_path / "m.npz", tmp_path / "c", format="dcp", progress=lambda *counts: done.append(counts))
    assert done[-1] == (52, 52)
    tree = tree_of(a=np.ones(3))
    tree.meta["epoch"] = 3
    would = pt.save(tree, tmp_path / "d", format="dcp", dry_run=True)
    saved = pt.save(tree, tmp_path / "d", format="dcp")
    assert would.notes == saved.notes == ("metadata are not written, left out: epoch",)


@pytest.mark.parametrize("first", ["dcp", "orbax", "safetensors", "torch", "numpy", "flax", "mxnet"])
@pytest.mark.parametrize("second", ["dcp", "orbax"])
def test_from_any_format_to_a_folder_and_back(first, second, tmp_path):
    nan = np.array([0x7FC00123, 0xFF800001, 0x80000000, 1], np.uint32).view(np.float32)
    tree = tree_of(**{"a.nan": nan, "a.half": np.ones((2, 3), np.float16), "whole": np.arange(5)})
    pt.save(tree, tmp_path / "one", format=first)
    pt.save(tmp_path / "one", tmp_path / "two", format=second)
    pt.save(tmp_path / "two", tmp_path / "three", format=first)
    for name in ("one", "two", "three"):
        assert pt.fingerprint(tmp_path / name) == pt.fingerprint(tree)


# What is replaced


def test_a_checkpoint_is_replaced_with_force_and_may_be_its_own_source(tmp_path):
    pt.save(tree_of(a=np.ones(3), b=np.zeros(2)), tmp_path / "c", format="dcp")
    with pytest.raises(FileExistsError, match="replacing it takes force"):
        pt.save(tmp_path / "c", tmp_path / "c", format="dcp", select="a")
    pt.save(tmp_path / "c", tmp_path / "c", format="dcp", select="a", force=True, verify=True)
    assert {name: param.value.tolist() for name, param in pt.open(tmp_path / "c").items()} == {"a": [1, 1, 1]}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("stranger", ["notes.txt", "__0_0.distcp.bak", "deep/__0_1.distcp", "link"])
def test_a_checkpoint_with_anything_else_in_it_is_not_replaced(stranger, tmp_path):
    tree, path = tree_of(a=np.ones(3)), tmp_path / "c"
    pt.save(tree, path, format="dcp")
    (path / stranger).parent.mkdir(exist_ok=True)
    if stranger == "link":
        (path / "__0_1.distcp").symlink_to("__0_0.distcp")
        stranger = "__0_1.distcp"
    else:
        (path / stranger).write_bytes(b"precious")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(pt.MismatchError, match=f"{stranger} in it is no file of one; only a checkpoint of"):
        pt.save(tree, path, format="dcp", force=True)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_what_is_no_checkpoint_is_not_replaced(tmp_path):
    tree = tree_of(a=np.ones(3))
    (tmp_path / "home" / "deep").mkdir(parents=True)
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "__0_0.distcp").write_bytes(b"precious")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".metadata").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name, fact in (
        ("home", "it is none"),
        ("named", "it is none"),
        ("other", "it is one of safetensors"),
    ):
        with pytest.raises(pt.MismatchError, match=f"{name}: {fact}; only a checkpoint of PyTorch DCP"):
            pt.save(tree, tmp_path / name, format="dcp", force=True)
    assert (tmp_path / "named" / "__0_0.distcp").read_bytes() == b"precious"


def test_an_error_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    from paratree.files.output import Output

    def full(self, array, write):
        raise OSError(28, "No space left on device")

    path = tmp_path / "c"
    pt.save(tree_of(a=np.ones(3)), path, format="dcp")
    monkeypatch.setattr(Output, "stream", full)
    with pytest.raises(OSError, match="No space left"):
        pt.save(tree_of(a=np.zeros(3)), path, format="dcp", force=True)
    assert pt.open(path)["a"].value.tolist() == [1, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_folder_is_named_by_format_only(tmp_path):
    with pytest.raises(pt.UnsupportedError, match="its suffix is of no format that is written"):
        pt.save(tree_of(a=np.ones(3)), tmp_path / "c.distcp")
