"""NumPy ``.npy`` (one array, named as the file) and ``.npz`` (a zip of them), stored or compressed."""

from __future__ import annotations

from paratree.core.dtypes import STANDARD
from paratree.core.errors import CorruptFileError
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.zip import archive
from paratree.formats._npy import MAGIC, is_followed, kind_of_record, npy_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile, Source
    from paratree.files.output import Output

NAME = "NumPy"
SUFFIXES = (".npz", ".npy")
FOLDER = ("*.npz", "*.npy")
LAZY = "yes; compressed members are inflated up to what is asked for"
TIES = "no"
READS = "every numeric dtype, both byte orders, bfloat16, stored and compressed"
EXTRA = None
MAKES = "file"
WRITES = (*STANDARD, "bfloat16", "float8_e5m2")


def sniff(file: LocalFile) -> bool:
    """Tell whether the file is one ``.npy`` record or a zip of nothing but ``.npy`` members."""
    if file.head.startswith(MAGIC):
        return not is_followed(file)
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
    params = (Param(name, array, kind_of_record(name, array)) for name, array in arrays.items())
    form = "NumPy npy" if members is None else "NumPy npz"
    return ParamTree(params, Origin(file.path, form, closers=[file.close]))


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell that no tied group can be written."""
    return False


def save(tree: ParamTree, output: Output) -> Sequence[str]:
    """Write an ``.npz`` as ``numpy.savez`` does, one member an array."""
    from paratree.formats._numpy_written import write

    return write(tree, output)


def _array(source: Source, name: str) -> LazyArray:
    array, end = npy_record(source, 0, name)
    if end is not None and end != source.size:
        raise CorruptFileError(
            source.path, f"the array ends here and the bytes go on to {source.size}", offset=end, member=name
        )
    return array
