"""Small trees over arrays in memory."""

import numpy as np

from paratree.core.array import Storage
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree


class Held:
    """An array that is simply there."""

    problem = None

    def __init__(self, values):
        self.values = values
        self.shape, self.dtype, self.storage = values.shape, str(values.dtype), Storage(id(values))

    def read(self, index=...):
        return self.values[index]


def param(name, shape=(2,), dtype="float32", kind="parameter", **more):
    return Param(name, Held(np.ones(shape, dtype)), kind, **more)


def tree_of(*names, meta=None, closers=(), source="net"):
    """Return a tree of the names; a name may come with the arguments of :func:`param`."""
    params = [param(*name) if isinstance(name, tuple) else param(name) for name in names]
    return ParamTree(params, Origin(source, "test", meta, ["a note"], closers))
