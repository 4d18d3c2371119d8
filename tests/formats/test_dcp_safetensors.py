"""Shards that processes of torch saved as safetensors, against torch's own reader of them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import paratree as pt
from tests.attacks.makers import entry, safetensors

TWO = """
    import os, sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    def run(rank, folder, meeting):
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        mesh = init_device_mesh("cpu", (2,))
        full = torch.arange(30.0).reshape(5, 6)
        state = {
            "layers.0.weight": distribute_tensor(full, mesh, [Shard(0)]),
            "layers.0.bias": distribute_tensor(full[0].bfloat16(), mesh, [Shard(0)]),
            "layers.10.weight": distribute_tensor(full * 2, mesh, [Shard(1)]),
            "layers.2.weight": distribute_tensor(full * 3, mesh, [Replicate()]),
        }
        numbers = {name: 1 + i % 2 for i, name in enumerate(state)}
        writer = dcp.HuggingFaceStorageWriter(folder, numbers, save_distributed=True)
        dcp.save(state, storage_writer=writer)
        dist.destroy_process_group()

    children = []
    for rank in range(2):
        if (child := os.fork()) == 0:
            run(rank, sys.argv[1], sys.argv[1] + ".meeting")
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def test_two_processes_equal_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch writes these shards and is the truth")
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    pytest.importorskip("safetensors")
    folder = tmp_path / "shards"
    subprocess.run([sys.executable, "-c", textwrap.dedent(TWO), str(folder)], check=True, timeout=300)
    state = {
        "layers.0.weight": torch.empty(5, 6), "layers.0.bias": torch.empty(6).bfloat16(),
        "layers.10.weight": torch.empty(5, 6), "layers.2.weight": torch.empty(5, 6),
    }  # fmt: skip
    dcp.load(state, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    for source in (folder, sorted(folder.iterdir())[-1]):
        tree = pt.open(source)
        assert tree.format == "safetensors, 4 shards of processes"
        assert list(tree) == ["layers.0.bias", "layers.0.weight", "layers.2.weight", "layers.10.weight"]
        for name, expected in state.items():
            assert tree[name].value.tobytes() == expected.view(torch.uint8).numpy().tobytes()
            assert tree[name].shape == tuple(expected.shape)
    np.testing.assert_array_equal(tree["layers.10.weight"][1::2, 2:5], state["layers.10.weight"][1::2, 2:5])
    assert tree.meta == {"format": "pt"}


def shard(offsets: object, shape=(2,), name="w") -> bytes:
    size = 4 * int(np.prod(shape))
    info = offsets if isinstance(offsets, str) else json.dumps({name: {"saved_offsets": offsets}})
    header = {"__metadata__": {"DCP_SHARDING_INFO": info}, name: entry("F32", list(shape), (0, size))}
    return safetensors(header, np.arange(size // 4, dtype=np.float32).tobytes())


def put(folder, *shards):
    for i, content in enumerate(shards):
        (folder / f"shard-{i + 1:05}-model-00001-of-00001.safetensors").write_bytes(content)
    return folder


def test_parts_are_put_together(tmp_path):
    tree = pt.open(put(tmp_path, shard([0]), shard([2])))
    assert tree["w"].value.tolist() == [0, 1, 0, 1]
    assert tree["w"].kind == "parameter"


@pytest.mark.parametrize(
    ("shards", "reason"),
    [
        ((shard([0]), shard([1])), "its parts overlap"), ((shard([0]), shard([3])), "leave a part of it out"),
        ((shard([2]),), "leave a part of it out"), ((shard([0]), shard([0])), "its parts overlap"),
        ((shard([0]), shard([2, 0])), "no list of its axes"), ((shard([0]), shard(["2"])), "no length"),
        ((shard([0]), shard([-1])), "no length"), ((shard([0]), shard("{")), "not JSON"),
        ((shard([0]), shard([2, 0], (2, 1))), "different numbers of axes"),
        ((shard([0]), shard(2**62)), "no list"),
        ((shard([0]), shard([2**62])), "leave a part of it out"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(tmp_path, shards, reason):
    with pytest.raises(pt.CorruptFileError, match=reason):
        pt.open(put(tmp_path, *shards))


def test_other_names_are_files_of_their_own(tmp_path):
    put(tmp_path, shard([0]), shard([2]))
    for name in ("shard-x-model-00001-of-00001.safetensors", "model-00001-of-00001.safetensors"):
        (tmp_path / name).write_bytes(shard([0]))
        assert pt.open(tmp_path / name)["w"].shape == (2,)
