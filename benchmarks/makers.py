"""Files to list: made once in a folder, by the framework where the framework's own writing matters.

Run as a process of its own (``python makers.py PATH``), so that the process that measures stays small.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

VOCABULARY, WIDTH, HIDDEN, KEY = 32_000, 2_048, 5_632, 256
BLOCKS = 22


def llama_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a LLaMA of 1.1 billion parameters: 201 tensors."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    for block in range(BLOCKS):
        start = f"model.layers.{block}."
        shapes |= {
            start + "self_attn.q_proj.weight": (WIDTH, WIDTH),
            start + "self_attn.k_proj.weight": (KEY, WIDTH),
            start + "self_attn.v_proj.weight": (KEY, WIDTH),
            start + "self_attn.o_proj.weight": (WIDTH, WIDTH),
            start + "mlp.gate_proj.weight": (HIDDEN, WIDTH),
            start + "mlp.up_proj.weight": (HIDDEN, WIDTH),
            start + "mlp.down_proj.weight": (WIDTH, HIDDEN),
            start + "input_layernorm.weight": (WIDTH,),
            start + "post_attention_layernorm.weight": (WIDTH,),
        }
    return shapes | {"model.norm.weight": (WIDTH,), "lm_head.weight": (VOCABULARY, WIDTH)}


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], word: str, width: int) -> None:
    """Write a header and a hole where the values would be: nobody who lists the file reads them."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, count = end, 1
        for length in shape:
            count *= length
        end = start + count * width
        header[name] = {"dtype": word, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + end)


def llama_safetensors(path: Path) -> None:
    """201 tensors in bfloat16."""
    write_safetensors(path, llama_shapes(), "BF16", 2)


def many_safetensors(path: Path) -> None:
    """10,000 tensors of 16 × 16 in float32."""
    shapes = {f"model.layers.{i // 10}.part_{i % 10}.weight": (16, 16) for i in range(10_000)}
    write_safetensors(path, shapes, "F32", 4)


def llama_pt(path: Path) -> None:
    """The same 201 tensors as torch.save writes them, 2.2 GB."""
    import torch

    torch.manual_seed(0)
    grain = torch.randn(1 << 16, dtype=torch.bfloat16)
    state = {}
    for name, shape in llama_shapes().items():
        state[name] = tensor = torch.zeros(shape, dtype=torch.bfloat16)
        flat = tensor.view(-1)
        flat[: len(grain)] = grain[: len(flat)]
    torch.save(state, path)


def dense_keras(path: Path) -> None:
    """A model of 22 million parameters as Keras saves it, 88 MB."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    layers = [keras.layers.Dense(1024, name=f"block_{i}") for i in range(21)]
    model = keras.Sequential([keras.Input((1024,)), *layers])
    model.save(path)


MAKERS = {
    "llama.safetensors": llama_safetensors,
    "many.safetensors": many_safetensors,
    "llama.pt": llama_pt,
    "dense.keras": dense_keras,
}

if __name__ == "__main__":
    target = Path(sys.argv[1])
    part = target.with_name("part-" + target.name)
    MAKERS[target.name](part)
    part.replace(target)
