"""NumPy ``.npy`` (one array, named as the file) and ``.npz`` (a zip of them), stored or compressed.

Layout: ``numpy.lib.format``, versions 1 to 3. The header is a Python literal; it is matched, not evaluated.
"""

from __future__ import annotations

import re

from paratree.core.array import RefusedArray
from paratree.core.dtypes import from_numpy_code
from paratree.core.errors import CorruptFileError
from paratree.core.names import OTHER, kind_of
from paratree.core.tree import Origin, Param, ParamTree
from paratree.files.array import check_shape, file_array
from paratree.files.local import LocalFile, read
from paratree.files.zip import archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from paratree.core.array import LazyArray
    from paratree.files.local import Source

NAME = "NumPy"
SUFFIXES = (".npz", ".npy")
FOLDER = ("*.npz", "*.npy")
LAZY = "yes; compressed members are inflated up to what is asked for"
TIES = "no"
READS = "every numeric dtype, both byte orders, stored and compressed"
EXTRA = None

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 10_000  # what numpy.load accepts by default
_LONGEST_NUMBER = 20  # digits
_HEADER = re.compile(
    r"\s*\{\s*'descr'\s*:\s*(?P<descr>'[^']*'|\[.*\]|\(.*\))\s*,"
    r"\s*'fortran_order'\s*:\s*(?P<fortran>True|False)\s*,"
    r"\s*'shape'\s*:\s*\((?P<shape>[0-9L,\s]*)\)\s*,?\s*\}\s*",
    re.DOTALL,
)
_REFUSALS = {  # letter of a dtype's code -> why it is not read
    "O": "Python objects; reading them would run their pickles, which paratree never does",
    "V": "a void type, as bfloat16 and float8 become in NumPy's files; save it in a format that names them",
    "U": "text; paratree reads numbers",
    "S": "text; paratree reads numbers",
    "M": "dates; paratree reads numbers",
    "m": "time spans; paratree reads numbers",
}


def sniff(file: LocalFile) -> bool:
    """Tell whether the file begins as ``.npy`` or is a zip of nothing but ``.npy`` members."""
    if file.head.startswith(_MAGIC):
        return True
    members = archive(file)
    return members is not None and all(name.endswith(".npy") for name in members)


def open(file: LocalFile) -> ParamTree:
    """Read the header of every array and return the tree.

    Raises:
        CorruptFileError: a header is no header or does not fit its member.
    """
    members = archive(file)
    if members is None:
        name = file.path.rpartition("/")[2].removesuffix(".npy")
        arrays = {name: _array(file, name)}
    else:
        arrays = {name[:-4]: _array(member.verified(), name[:-4]) for name, member in members.items()}
    params = (Param(name, array, _kind(name, array)) for name, array in arrays.items())
    form = "NumPy npy" if members is None else "NumPy npz"
    return ParamTree(params, Origin(file.path, form, closers=[file.close]))


def _kind(name: str, array: LazyArray) -> str:
    return OTHER if array.problem and array.dtype[1:2] != "V" else kind_of(name, array.dtype)


def _array(source: Source, name: str) -> LazyArray:
    text, start = _header(source, name)
    if (found := _HEADER.fullmatch(text)) is None:
        raise CorruptFileError(source.path, "the header is not that of an array", offset=10, member=name)
    words = [n.strip().rstrip("L") for n in found["shape"].split(",") if n.strip()]
    if any(not word.isdecimal() or len(word) > _LONGEST_NUMBER for word in words):
        raise CorruptFileError(source.path, "a length in the shape is no number", offset=10, member=name)
    lengths = [int(word) for word in words]
    shape = check_shape(lengths, source, name)
    code = found["descr"].strip("'")
    known = from_numpy_code(code)
    if known is None:
        letter = "V" if found["descr"][0] in "[(" else code[1:2] or "?"
        why = _REFUSALS.get(letter, "a type that not every machine has; save it as float64")
        return RefusedArray(shape, "object" if letter == "O" else code[:40], f"{name}: {why}")
    strides = None
    if found["fortran"] == "True" and len(shape) > 1:
        strides = [1]
        for length in shape[:-1]:
            strides.append(strides[-1] * max(length, 1))
    array = file_array(source, start, shape, known[0], strides=strides, big_endian=known[1], member=name)
    size = start + array.nbytes
    if size != source.size:
        raise CorruptFileError(
            source.path, f"the array ends here and the bytes go on to {source.size}", offset=size, member=name
        )
    return array


def _header(source: Source, name: str) -> tuple[str, int]:
    """Return the header's text and where the values begin."""
    head = read(source, 0, min(12, source.size))
    if not head.startswith(_MAGIC) or len(head) < 10:
        raise CorruptFileError(source.path, "this is no NumPy array", offset=0, member=name)
    version = head[6]
    wide = version > 1
    length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
    start = 12 if wide else 10
    if not 1 <= version <= 3 or length > _LONGEST_HEADER:
        what = f"version {version}" if not 1 <= version <= 3 else f"a header of {length} bytes"
        raise CorruptFileError(source.path, f"{what} is not one that NumPy writes", offset=6, member=name)
    text = read(source, start, length)
    return text.decode("latin-1" if version < 3 else "utf-8", "replace"), start + length
