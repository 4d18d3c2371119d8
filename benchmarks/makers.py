"""Files to list: made once in a folder, by the framework where the framework's own writing matters.

Run as a process of its own (``python makers.py PATH``), so that the process that measures stays small.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

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


def layers() -> dict[str, Any]:
    """Names and values of 100 layers of 512 × 512 in float32, 105 MB."""
    import numpy as np

    generator, state = np.random.default_rng(0), {}
    for i in range(100):
        state[f"layers.{i}.weight"] = generator.random((512, 512), np.float32)
        state[f"layers.{i}.bias"] = generator.random(512, np.float32)
    return state


def nested_layers() -> dict[str, Any]:
    """Return the same as a pytree."""
    state = layers()
    return {
        f"layers_{i}": {"kernel": state[f"layers.{i}.weight"], "bias": state[f"layers.{i}.bias"]}
        for i in range(100)
    }


def layers_npz(path: Path) -> None:
    """As NumPy saves them."""
    import numpy as np

    with path.open("wb") as stream:
        np.savez(stream, **layers())


def layers_pickle(path: Path) -> None:
    """As pickle dumps them."""
    import pickle

    path.write_bytes(pickle.dumps(layers()))


def layers_msgpack(path: Path) -> None:
    """As Flax serialises them."""
    from flax.serialization import to_bytes

    path.write_bytes(to_bytes(nested_layers()))


def layers_orbax(path: Path) -> None:
    """As Orbax saves them."""
    import jax
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as writer:
        writer.save(path.absolute(), jax.tree_util.tree_map(jax.numpy.asarray, nested_layers()))


def equinox_layers() -> Any:
    """Return the layers as an Equinox module."""
    import equinox
    import jax

    return [equinox.nn.Linear(512, 512, key=jax.random.key(i)) for i in range(100)]


def layers_equinox(path: Path) -> None:
    """As Equinox saves them."""
    import equinox

    with path.open("wb") as stream:
        equinox.tree_serialise_leaves(stream, equinox_layers())


def layers_mxnet(path: Path) -> None:
    """As MXNet saves them."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.mxnet_numpy import mxnet

    mxnet.nd.save(str(path), {name: mxnet.nd.array(value) for name, value in layers().items()})


def layers_onnx(path: Path) -> None:
    """As ONNX saves a graph of them."""
    import onnx

    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in layers().items()]
    given = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 512])
    nodes, last = [], "x"
    for i in range(100):
        inputs = [last, f"layers.{i}.weight", f"layers.{i}.bias"]
        nodes.append(onnx.helper.make_node("Gemm", inputs, [last := f"h{i}"]))
    out = onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, [1, 512])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "layers", [given], [out], tensors)), path)


def layers_dcp(path: Path) -> None:
    """As one process of torch.distributed saves them."""
    import torch
    import torch.distributed.checkpoint as dcp

    state = {name: torch.from_numpy(value) for name, value in layers().items()}
    dcp.save(state, checkpoint_id=path, no_dist=True)


def layers_tensorflow(path: Path) -> None:
    """As tf.train.Checkpoint writes them."""
    import tensorflow as tf

    state, parts = layers(), {}
    for i in range(100):
        part = parts[f"layer_{i}"] = tf.Module()
        part.kernel = tf.Variable(state[f"layers.{i}.weight"])
        part.bias = tf.Variable(state[f"layers.{i}.bias"])
    tf.train.Checkpoint(**parts).write(str(path / "model"))


def layers_paddle(path: Path) -> None:
    """As paddle.save writes them."""
    import paddle

    paddle.save({name: paddle.to_tensor(value) for name, value in layers().items()}, str(path))


MAKERS = {
    "llama.safetensors": llama_safetensors,
    "many.safetensors": many_safetensors,
    "llama.pt": llama_pt,
    "dense.keras": dense_keras,
    "layers.npz": layers_npz,
    "layers.pkl": layers_pickle,
    "layers.msgpack": layers_msgpack,
    "layers-orbax": layers_orbax,
    "layers.eqx": layers_equinox,
    "layers.params": layers_mxnet,
    "layers.onnx": layers_onnx,
    "layers-dcp": layers_dcp,
    "layers-tf": layers_tensorflow,
    "layers.pdparams": layers_paddle,
}

if __name__ == "__main__":
    target = Path(sys.argv[1])
    part = target.with_name("part-" + target.name)
    MAKERS[target.name](part)
    part.replace(target)
