"""Write ``.npz``: a zip of one ``.npy`` record an array, stored, as ``numpy.savez`` writes it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from numpy.lib.format import write_array_header_1_0

from paratree.core.dtypes import STANDARD, numpy_code
from paratree.core.errors import UnsupportedError, printable
from paratree.files.archive import Archive

if TYPE_CHECKING:
    from paratree.core.array import LazyArray
    from paratree.core.tree import ParamTree
    from paratree.files.output import Output

_LONGEST_NAME = 65_535 - len(".npy")  # bytes
_OUTSIDE = ("", ".", "..")  # parts of a name that would lead an unpacker out of its folder


def write(tree: ParamTree, output: Output) -> list[str]:
    """Write a tree.

    Raises:
        UnsupportedError: a name that an unpacker would take for a path outside its folder.
    """
    for name in tree:
        if (fault := _fault(name)) is not None:
            raise UnsupportedError(f"{fault}; rename it")
    with Archive(output) as archive:
        for name, param in tree.items():
            archive.values(f"{name}.npy", param.array, head=_header(param.array))
    void = [name for name, param in tree.items() if param.dtype not in STANDARD]
    if not void:
        return []
    dtype = printable(tree[void[0]].dtype)
    return [f"numpy.load gives {dtype} as bytes without a type; view them as those of ml_dtypes"]


def _header(array: LazyArray) -> bytes:
    file = io.BytesIO()
    facts = {"descr": numpy_code(array.dtype), "fortran_order": False, "shape": array.shape}
    write_array_header_1_0(file, facts)
    return file.getvalue()


def _fault(name: str) -> str | None:
    """Say why a name cannot be that of a member."""
    if any(part in _OUTSIDE for part in name.replace("\\", "/").split("/")) or "\0" in name:
        return f"'{printable(name)}' as a member of an archive is no safe path"
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
        return f"'{printable(name[:40])}…' is longer than the {_LONGEST_NAME} bytes of a name in an archive"
    if any("\ud800" <= sign <= "\udfff" for sign in name):
        return f"'{printable(name)}' is no UTF-8, as a name in an archive is"
    return None
