"""The files of the table of peers: a small transformer, the ways two files may differ, and damaged files.

Written by torch and safetensors themselves; only what they refuse to write is put together here. The names
are those of a Qwen2 model, which the peers that look for names know.
"""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file, save_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    State = dict[str, torch.Tensor]

VOCABULARY, WIDTH, HIDDEN, KEY, BLOCKS = 512, 64, 192, 32, 2
CHANGED = "model.layers.1.mlp.up_proj.weight"
HEAD = "lm_head.weight"
REMOVED = "model.layers.0.self_attn.q_proj.bias"
ADDED = "model.layers.1.mlp.extra_proj.weight"
PLACE = (3, 7)
SIZE, TIED_SIZE, TIED_TENSOR_SIZE = 164_416, 121, 80  # values, each once
MARKER = "PEERS_MARKER"  # the environment variable that names the file which the hostile pickle would make


def state() -> State:
    """Return the 27 tensors of the transformer, as a fresh model has them: zero biases, norms of one."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, shape in _shapes().items():
        if len(shape) == 2:
            found[name] = torch.randn(shape, generator=generator) * 0.02
        else:
            found[name] = torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    return found


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for block in range(BLOCKS):
        start = f"model.layers.{block}."
        shapes |= {
            start + "input_layernorm.weight": (WIDTH,),
            start + "self_attn.q_proj.weight": (WIDTH, WIDTH),
            start + "self_attn.q_proj.bias": (WIDTH,),
            start + "self_attn.k_proj.weight": (KEY, WIDTH),
            start + "self_attn.k_proj.bias": (KEY,),
            start + "self_attn.v_proj.weight": (KEY, WIDTH),
            start + "self_attn.v_proj.bias": (KEY,),
            start + "self_attn.o_proj.weight": (WIDTH, WIDTH),
            start + "post_attention_layernorm.weight": (WIDTH,),
            start + "mlp.gate_proj.weight": (HIDDEN, WIDTH),
            start + "mlp.up_proj.weight": (HIDDEN, WIDTH),
            start + "mlp.down_proj.weight": (WIDTH, HIDDEN),
        }
    return shapes | {"model.norm.weight": (WIDTH,), HEAD: (VOCABULARY, WIDTH)}


def _with(before: State, name: str, change: Callable[[torch.Tensor], Any]) -> State:
    """Return a state with one tensor copied and changed in place."""
    after = before | {name: before[name].clone()}
    change(after[name])
    return after


def _setting(value: float) -> Callable[[torch.Tensor], Any]:
    return lambda tensor: tensor.__setitem__(PLACE, value)


def variants() -> dict[str, State]:
    """Return what each pair of files differs in, by the name of the second file."""
    base = state()
    bf16 = {name: tensor.bfloat16() for name, tensor in base.items()}
    fp8 = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in base.items()}
    value = float(base[CHANGED][PLACE])
    return {
        "base": base,
        "value": _with(base, CHANGED, _setting(value + 1e-3)),
        "nan": _with(base, CHANGED, _setting(float("nan"))),
        "inf": _with(base, CHANGED, _setting(float("inf"))),
        "removed": {name: tensor for name, tensor in base.items() if name != REMOVED},
        "added": base | {ADDED: torch.full((KEY, WIDTH), 0.01)},
        "bf16": bf16,
        "bf16_matrix": _with(bf16, HEAD, lambda tensor: tensor.add_(0.5)),
        "bf16_one": _with(bf16, CHANGED, _setting(value + 0.01)),
        "fp8": fp8,
        "fp8_one": _with(fp8, CHANGED, lambda tensor: tensor.view(torch.uint8).__setitem__(PLACE, 0x3C)),
    }


def tied_net() -> torch.nn.Sequential:
    """Return a perceptron that uses one layer twice: 121 values, 193 if the layer is counted twice."""
    torch.manual_seed(0)
    shared = torch.nn.Linear(8, 8)
    relu = torch.nn.ReLU
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), relu(), shared, relu(), shared, relu(), torch.nn.Linear(8, 1)
    )


def tied_tensor_net() -> torch.nn.Sequential:
    """Return two layers that have one weight: 80 values, 144 if it is counted twice."""
    net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8))
    net[2].weight = net[0].weight
    return net


def make(folder: Path) -> None:
    """Write every file of the corpus into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in variants().items():
        _write(folder, name, tensors)
    _write_shards(folder / "shards", state())
    net = tied_net()
    torch.save(net.state_dict(), folder / "tied.pt")
    save_model(net, str(folder / "tied.safetensors"))
    _write_training(folder / "training.pt")
    _write_damaged(folder)
    torch.save({"weight": _Hostile()}, folder / "evil.pt")


def _write(folder: Path, name: str, tensors: State) -> None:
    """Write a state as a file, as the only file of a folder, and if it is float32 as .pt and .npz."""
    save_file(tensors, folder / f"{name}.safetensors", metadata={"format": "pt"})
    alone = folder / name
    alone.mkdir(exist_ok=True)
    save_file(tensors, alone / "model.safetensors", metadata={"format": "pt"})
    if tensors[HEAD].dtype == torch.float32:
        torch.save(tensors, folder / f"{name}.pt")
        np.savez(folder / f"{name}.npz", **{key: tensor.numpy() for key, tensor in tensors.items()})


def _write_shards(folder: Path, tensors: State) -> None:
    folder.mkdir(exist_ok=True)
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:14], names[14:]), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _write_training(path: Path) -> None:
    """Write a model, what Adam keeps of it, and where the training stood."""
    tensors = {name: torch.nn.Parameter(tensor) for name, tensor in state().items()}
    optimizer = torch.optim.Adam(list(tensors.values()))
    sum(tensor.square().sum() for tensor in tensors.values()).backward()
    optimizer.step()
    torch.save(
        {"model_state_dict": state(), "optimizer_state_dict": optimizer.state_dict(), "epoch": 3}, path
    )


def _write_damaged(folder: Path) -> None:
    """Write files that no writer writes: cut short, or with a header that lies."""
    for suffix in ("safetensors", "pt"):
        whole = (folder / f"base.{suffix}").read_bytes()
        (folder / f"truncated.{suffix}").write_bytes(whole[: len(whole) * 3 // 4])
    first, second = _entry(0, 64), _entry(64, 128)
    sound = {"a.weight": first, "b.weight": second}
    headers = {
        "overlapping": {"a.weight": first, "b.weight": _entry(32, 96)},
        "out_of_bounds": {"a.weight": first, "b.weight": _entry(64, 1 << 42, (1 << 40) - 16)},
    }
    for name, header in headers.items():
        (folder / f"{name}.safetensors").write_bytes(_safetensors(header, bytes(128)))
    (folder / "huge_header.safetensors").write_bytes(_safetensors(sound, bytes(128), claim=1 << 62))


def _entry(start: int, end: int, length: int = 16) -> dict[str, object]:
    return {"dtype": "F32", "shape": [length], "data_offsets": [start, end]}


def _safetensors(header: dict[str, Any], data: bytes, claim: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text) if claim is None else claim) + text + data


class _Hostile:
    """An object whose pickle runs a command, which makes the file that an environment variable names."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f': > "${MARKER}"',)
