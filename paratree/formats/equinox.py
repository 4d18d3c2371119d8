"""Equinox ``.eqx``: ``.npy`` records one after the other, after a line of JSON if its author wrote one.

Layout: ``equinox.tree_serialise_leaves`` (0.13), and the line of hyperparameters that its documentation
proposes. There are no names: a leaf is known by its place.
"""

from __future__ import annotations

from paratree.core.errors import CorruptFileError, UnsafeFileError
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.json import parse_object
from paratree.files.local import read
from paratree.formats._npy import MAGIC, is_followed, kind_of_record, npy_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.files.local import LocalFile

NAME = "Equinox"
SUFFIXES = (".eqx",)
FOLDER = ("*.eqx",)
LAZY = "yes"
TIES = "no"
READS = "every leaf that Equinox saves, by its place; hyperparameters before them"
EXTRA = None
WRITES = ()

_LONGEST_LINE = 1 << 20
_VOID = "bfloat16"  # what jax.numpy.load, with which Equinox reads, makes of two bytes of no type
_NO_NAMES = "the format keeps no names: what is here is numbered in the order of the model's leaves"


def sniff(file: LocalFile) -> bool:
    """Tell whether records follow each other, or a JSON object; one alone is told from .npy by the suffix."""
    if file.head.startswith(MAGIC):
        return file.path.endswith(".eqx") or is_followed(file)
    return file.head.startswith(b"{") and _line(file) is not None


def open(file: LocalFile) -> ParamTree:
    """Read the header of every record and return the tree.

    Raises:
        CorruptFileError: something between the records is none, or one does not fit the file.
        UnsafeFileError: a record is a pickle, which would have to be run to find the next.
    """
    line = b"" if file.head.startswith(MAGIC) else _line(file) or b""
    meta: dict[str, Any] = parse_object(file, line, 0, "hyperparameters") if line else {}
    place = len(line) + 1 if line else 0
    params: list[Param] = []
    while place < file.size:
        name = str(len(params))
        array, end = npy_record(file, place, name, void=_VOID)
        if end is None:
            if array.dtype == "object":
                raise UnsafeFileError(
                    file.path, "Python objects, whose pickle would have to be run", offset=place, member=name,
                    advice="save the model without them",
                )  # fmt: skip
            raise CorruptFileError(
                file.path, f"an array of {array.dtype}, which no leaf is", offset=place, member=name
            )
        params.append(Param(name, array, kind_of_record(name, array)))
        place = end
    return ParamTree(params, Origin(file.path, NAME, meta, [_NO_NAMES], [file.close]))


def _line(file: LocalFile) -> bytes | None:
    """Return what stands before the first record, without the end of the line; ``None`` if there is none."""
    start, mark = file.head, b"\n" + MAGIC
    if mark not in start:
        start = read(file, 0, min(file.size, _LONGEST_LINE))
    end = start.find(mark)
    return None if end < 0 else start[:end]
