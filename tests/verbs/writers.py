"""The formats that are written from any tree, into one file, and the suffixes of their files."""

from paratree.registry import known_formats

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
