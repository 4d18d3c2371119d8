"""Write MXNet ``.params``: a list of dense arrays, then their names.

Layout: ``NDArray::Save`` of ``src/ndarray/ndarray.cc`` (MXNet 1.9.1). An array without axes or without values
takes the version that knows NumPy's shapes; in that before it, such a shape means that there is none yet.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, cast

from paratree.core.errors import UnsupportedError, printable
from paratree.core.names import BUFFER
from paratree.formats._mxnet_arrays import DTYPES, V2, V3
from paratree.formats._mxnet_symbol import Exported

if TYPE_CHECKING:
    from paratree.core.param import Param
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output

_CPU = struct.pack("<ii", 1, 0)
_LONGEST_NAME = 65_535
_PREFIXES = ("arg:", "aux:")  # by which MXNet tells parameters from statistics, and which readers take away


def write(tree: ParamTree, output: Output) -> list[str]:
    """Write a tree.

    Raises:
        UnsupportedError: a name that a list cannot hold.
    """
    names = [_encoded(name, mark) for name, mark in _marks(tree).items()]
    output.write(struct.pack("<QQQ", 0x112, 0, len(tree)))
    for param in tree.values():
        output.write(_head(param))
        output.values(param.array)
    output.write(struct.pack("<Q", len(names)))
    for name in names:
        output.write(struct.pack("<Q", len(name)) + name)
    return _notes(tree)


def _head(param: Param) -> bytes:
    shape = cast("tuple[int, ...]", param.shape)
    flag = next(flag for flag, name in DTYPES.items() if name == param.dtype)
    lengths = struct.pack(f"<i{len(shape)}q", len(shape), *shape)
    return struct.pack("<Ii", V3 if _is_of_numpy(param) else V2, 0) + lengths + _CPU + struct.pack("<i", flag)


def _is_of_numpy(param: Param) -> bool:
    return not param.size or not param.shape


def _marks(tree: ParamTree) -> dict[str, str]:
    """Return what stands before each name: as it was stored, or by its kind if others were stored with it."""
    stored = {
        name: next((alias[:4] for alias in param.aliases if alias.startswith(_PREFIXES)), "")
        for name, param in tree.items()
    }
    if not isinstance(tree.meta, Exported) and not any(stored.values()):
        return stored
    return {
        name: stored[name] or ("aux:" if param.kind == BUFFER else "arg:") for name, param in tree.items()
    }


def _encoded(name: str, mark: str) -> bytes:
    try:
        encoded = (mark + name).encode()
    except UnicodeEncodeError:
        raise UnsupportedError(
            f"'{printable(name)}' is no UTF-8, as a name in MXNet's lists is; rename it"
        ) from None
    if len(encoded) > _LONGEST_NAME or name.startswith(_PREFIXES):
        raise UnsupportedError(f"'{printable(name)}' cannot be a name in MXNet's lists; rename it")
    return encoded


def _notes(tree: ParamTree) -> list[str]:
    notes = []
    if any(map(_is_of_numpy, tree.values())):
        notes.append(
            "arrays without axes or values are there, which MXNet loads under mx.util.np_shape() only"
        )
    if left := ", ".join(map(printable, list(tree.meta)[:5])):
        notes.append(f"a list of arrays has no place for metadata, left out: {left}")
    return notes
