"""Distributed checkpoints against torch's own reading: one process and four, chunks, state, plain values."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import paratree as pt
from paratree.formats import dcp as ours

torch = pytest.importorskip("torch", reason="torch writes these checkpoints and is the truth")
dcp = pytest.importorskip("torch.distributed.checkpoint")
pytestmark = pytest.mark.filterwarnings("ignore")  # torch says that it saves in a single process

FOUR = """
    import os, sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    def run(rank, folder, meeting):
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=4)
        line, square = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2))
        full = torch.arange(60.0).reshape(10, 6)
        share = lambda values, *how, mesh=line: distribute_tensor(values, mesh, list(how))
        state = {
            "model": {
                "rows": share(full, Shard(0)), "columns": share(full * 2, Shard(1)),
                "blocks": share(full * 3, Shard(0), Shard(1), mesh=square),
                "few": share(full[:2] * 4, Shard(0)), "copied": share(full * 5, Replicate()),
                "half": share(full.bfloat16(), Shard(0)), "plain": torch.arange(4),
                "scalar": torch.tensor(2.5),
            },
            "optim": {
                "state": {"rows": {"exp_avg": share(full * 6, Shard(0)), "step": torch.tensor(3.0)}},
                "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99), "params": ["rows"]}],
            },
            "step": 7,
        }
        dcp.save(state, checkpoint_id=folder)
        dist.destroy_process_group()

    children = []
    for rank in range(4):
        if (child := os.fork()) == 0:
            run(rank, sys.argv[1], sys.argv[1] + ".meeting")
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four processes that share tensors along one and two axes write a checkpoint."""
    folder = tmp_path_factory.mktemp("four") / "checkpoint"
    subprocess.run([sys.executable, "-c", textwrap.dedent(FOUR), str(folder)], check=True, timeout=300)
    return folder


def read_by_torch(folder):
    """Return what torch reads of a checkpoint without being told what is in it."""
    from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
    from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

    state = {}
    _load_state_dict(state, dcp.FileSystemReader(folder), planner=_EmptyStateDictLoadPlanner(), no_dist=True)
    return state


def flat(value, path=()):
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
    elif isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from flat(item, (*path, str(key)))


def same(param, expected):
    assert param.shape == tuple(expected.shape)
    assert param.dtype == str(expected.dtype).removeprefix("torch.")
    values = expected.contiguous().flatten()
    assert param.value.tobytes() == values.view(torch.uint8).numpy().tobytes() if values.numel() else True


def test_one_process_equals_torch(tmp_path):
    w = torch.randn(4, 3)
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint16, torch.bool,
             torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2]  # fmt: skip
    model = {f"of {kind}": torch.arange(6).to(kind) for kind in kinds}
    model |= {"w": w, "transposed": w.t(), "part": w[1:, ::2], "expanded": torch.ones(1).expand(100),
              "scalar": torch.tensor(2.0), "empty": torch.empty(0, 3)}  # fmt: skip
    dcp.save({"model": model}, checkpoint_id=tmp_path)
    tree = pt.open(tmp_path)
    assert tree.format == "PyTorch DCP"
    assert list(tree) == [f"model.{key}" for key in model]
    for name, expected in flat(read_by_torch(tmp_path)):
        same(tree._params[name], expected)
    np.testing.assert_array_equal(tree["model.w"][1:, 0], w[1:, 0].numpy())


def test_four_processes_equal_torch(four):
    tree, expected = pt.open(four), dict(flat(read_by_torch(four)))
    assert set(tree) == set(expected)
    assert len(list(four.glob("*.distcp"))) == 4
    for name, values in expected.items():
        same(tree[name], values)
    blocks = tree["model.blocks"]
    assert type(blocks.array).__name__ == "ComposedArray"
    np.testing.assert_array_equal(blocks[::-3, 1:5:2], expected["model.blocks"].numpy()[::-3, 1:5:2])
    np.testing.assert_array_equal(tree["model.rows"][4], expected["model.rows"][4])


def test_the_order_is_that_of_the_state_dict_and_state_is_state(four):
    tree = pt.open(four)
    assert list(tree["model"]) == ["rows", "columns", "blocks", "few", "copied", "half", "plain", "scalar"]
    assert {param.kind for param in tree["optim"].values()} == {"state"}
    assert tree["optim"].meta["param_groups"]["0"]["lr"] == 0.1
    assert tree.meta["step"] == 7
    assert tree["model.rows"].kind == "parameter"


def test_a_shard_stands_for_its_checkpoint(four):
    assert list(pt.open(four / "__2_0.distcp")) == list(pt.open(four))


def test_an_optimizer_and_its_model(tmp_path):
    from torch.distributed.checkpoint.state_dict import get_state_dict

    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    net(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    model, state = get_state_dict(net, optimizer)
    dcp.save({"model": model, "optimizer": state}, checkpoint_id=tmp_path)
    tree = pt.open(tmp_path)
    for name, expected in flat({"model": model, "optimizer": state}):
        same(tree[name], expected)
    assert {p.kind for p in tree["optimizer"].values()} == {"state"}
    assert [p.kind for p in tree["model"].values()].count("parameter") == 4
    assert tree.size == sum(p.numel() for p in net.parameters())
    assert tree["optimizer"].meta["param_groups"]["0"]["lr"] == 0.01


def test_flattened_optimizer_state(tmp_path):
    """As torchtitan saves it: flat names, so that param_groups and state are known by their dots only."""
    state = {
        "model": {"w": torch.ones(2)},
        "optimizer": {"state.w.exp_avg": torch.ones(2), "param_groups.w.lr": 0.1},
    }
    dcp.save(state, checkpoint_id=tmp_path)
    tree = pt.open(tmp_path)
    assert {name: param.kind for name, param in tree.items()} == {
        "model.w": "parameter", "optimizer.state.w.exp_avg": "state",
    }  # fmt: skip


def test_plain_values_are_read_and_nothing_is_built(tmp_path):
    class Config:
        def __init__(self):
            self.width, self.weights = 4, torch.ones(2)

    globals()["Config"] = Config
    Config.__qualname__ = "Config"
    values = {"w": torch.ones(1), "step": 3, "name": "run", "config": Config(), "none": None, "rate": 0.5}
    dcp.save(values, checkpoint_id=tmp_path)
    tree = pt.open(tmp_path)
    assert (tree.meta["step"], tree.meta["name"], tree.meta["rate"]) == (3, "run", 0.5)
    assert repr(tree.meta["config"]).endswith("Config, not built>")
    assert tree["config.weights"].kind == "other"
    assert "Config" in tree.notes[0]


def test_only_so_many_values_are_read(tmp_path, monkeypatch):
    """Each is an archive of its own; those beyond the limit are counted."""
    monkeypatch.setattr(ours, "_MOST_READ", 2)
    dcp.save({"a": torch.ones(1), "b": torch.ones(1), "x": 1, "y": 2, "z": 3}, checkpoint_id=tmp_path)
    tree = pt.open(tmp_path)
    assert tree.meta == {"x": 1, "y": 2}
    assert tree.notes == ("values that are no tensors and were not read: 1",)


def test_tied_tensors_are_stored_twice_and_no_tie_is_claimed(tmp_path):
    w = torch.ones(3)
    dcp.save({"a": w, "b": w}, checkpoint_id=tmp_path)
    assert pt.open(tmp_path).ties == ()


def test_listing_opens_no_chunk(tmp_path, monkeypatch):
    dcp.save({"a": torch.ones(3), "b": torch.ones(2)}, checkpoint_id=tmp_path)
    opened = []
    unpack = ours._unpack
    monkeypatch.setattr(ours, "_unpack", lambda part, name: opened.append(name) or unpack(part, name))
    tree = pt.open(tmp_path)
    assert opened == []
    assert tree["b"].value.tolist() == [1, 1]
    assert opened == ["b"]


def test_compressed_chunks_are_listed_with_the_reason(tmp_path):
    """The extension needs zstandard; what it would record is one word of the metadata."""
    dcp.save({"w": torch.ones(3, 4), "step": 1}, checkpoint_id=tmp_path)
    path = tmp_path / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    for info in metadata.storage_data.values():
        info.transform_descriptors = ["stream.zstd"]
    path.write_bytes(pickle.dumps(metadata))
    tree = pt.open(tmp_path)
    assert tree["w"].shape == (3, 4)
    with pytest.raises(pt.UnreadableError, match=r"^w: stored through stream\.zstd; "):
        _ = tree["w"].value
    assert tree.notes == ("values that are no tensors and were not read: 1",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_metadata_of_every_protocol(tmp_path, protocol):
    dcp.save({"a": torch.ones(3), "n": 1}, checkpoint_id=tmp_path)
    path = tmp_path / ".metadata"
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()), protocol))
    tree = pt.open(tmp_path)
    assert tree["a"].value.tolist() == [1, 1, 1]
    assert tree.meta["n"] == 1


def test_a_chunk_that_is_not_what_the_metadata_say(tmp_path):
    for name, values in (("one", torch.ones(3)), ("two", torch.ones(3).int())):
        dcp.save({"a": values}, checkpoint_id=tmp_path / name)
    shutil.copy(tmp_path / "two" / "__0_0.distcp", tmp_path / "one" / "__0_0.distcp")
    with pytest.raises(pt.CorruptFileError, match=r"member a\): the chunk is not of the shape and dtype"):
        _ = pt.open(tmp_path / "one")["a"].value


def test_a_missing_or_replaced_shard(tmp_path):
    writer = dcp.FileSystemWriter(tmp_path, thread_count=2)
    dcp.save({"a": torch.ones(3), "b": torch.ones(2)}, storage_writer=writer)
    tree = pt.open(tmp_path)
    shards = sorted(tmp_path.glob("*.distcp"))
    assert len(shards) == 2
    for shard in shards:
        shutil.copy(shard, tmp_path / "other")
        (tmp_path / "other").replace(shard)
    with pytest.raises(pt.CorruptFileError, match=r"_0_.\.distcp: the file has changed since it was opened"):
        _ = tree["a"].value, tree["b"].value
    shards[0].unlink()
    with pytest.raises(pt.SourceNotFoundError, match=r"__0_0\.distcp: no such file; \.metadata names it"):
        pt.open(tmp_path)


def test_a_closed_tree_reads_nothing(tmp_path):
    dcp.save({"a": torch.ones(3)}, checkpoint_id=tmp_path)
    with pt.open(tmp_path) as tree:
        param = tree["a"]
    with pytest.raises(pt.CorruptFileError, match="the tree was closed"):
        _ = param.value
