"""Trees and files with values, for what is done with values."""

import numpy as np

from paratree.core.array import Storage
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from tests.attacks.makers import entry, safetensors

_NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "uint64": "U64",
}  # fmt: skip


class Held:
    """An array in memory that counts how many values were read."""

    problem = None

    def __init__(self, values, storage=None):
        self.values, self.storage = values, storage
        self.shape, self.dtype, self.read_values = values.shape, values.dtype.name, 0

    def read(self, index=...):
        found = np.asarray(self.values[index])
        self.read_values += found.size
        return found


def held(name, values, kind="parameter", *, memory=None, **more):
    """Return a parameter with values; those of one ``memory`` are tied."""
    storage = None if memory is None else Storage(memory)
    return Param(name, Held(np.asarray(values), storage), kind, **more)


def tree_of(*params, source="net", format="test", immutable=False, **values):
    """Return a tree of parameters, and of plain arrays by name."""
    made = [*params, *(held(name, value) for name, value in values.items())]
    return ParamTree(made, Origin(source, format, immutable=immutable))


def tree_with(arrays, ties=(), meta=None):
    """Return a tree over arrays in memory; ``ties`` are pairs of a name and that which it is tied with."""
    params = [held(name, values, memory=name) for name, values in arrays.items()]
    params += [held(name, arrays[other], memory=other) for name, other in ties]
    return ParamTree(params, Origin("memory", "test", meta))


def write(path, arrays, metadata=None):
    """Write a safetensors file of arrays of any dtype, and return its path."""
    header, data = {} if metadata is None else {"__metadata__": metadata}, b""
    for name, array in arrays.items():
        array = np.asarray(array)
        end = len(data) + array.nbytes
        header[name] = entry(_NAMES[array.dtype.name], array.shape, (len(data), end))
        data += array.tobytes()
    path.write_bytes(safetensors(header, data))
    return path
