"""MXNet ``.params``: a number, the arrays one after another, then their names; the graph may lie beside it.

Layout: ``NDArray::Save`` of a list in ``src/ndarray/ndarray.cc`` (MXNet 1.9.1). ``save_parameters`` writes
names of the structure; ``export`` and ``save_checkpoint`` write ``arg:NAME``, ``aux:NAME`` and a graph,
``PREFIX-symbol.json``.
"""

from __future__ import annotations

import re
from collections import Counter

from paratree.core.array import RefusedArray
from paratree.core.errors import CorruptFileError, SourceNotFoundError
from paratree.core.names import BUFFER, OTHER, kind_of
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.cursor import Cursor
from paratree.files.folder import beside
from paratree.formats._mxnet_arrays import CsrArray, RowSparseArray, read_array
from paratree.formats._mxnet_symbol import Exported, Symbol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile
    from paratree.files.output import Output

NAME = "MXNet params"
SUFFIXES = (".params",)
FOLDER = ("*.params",)
LAZY = "yes; rows of sparse arrays, too"
TIES = "no; shared names are told by the symbol"
READS = "every version of arrays, every dtype, row_sparse and csr as dense, the symbol beside it"
EXTRA = None
MAKES = "file"
WRITES = (
    "float32",
    "float64",
    "float16",
    "uint8",
    "int32",
    "int8",
    "int64",
    "bool",
)  # that MXNet 1.9.1 loads

_MAGIC = (0x112).to_bytes(8, "little") + bytes(8)
_WINDOW = 4096  # bytes read at a time: what is between heads of arrays is passed over
_LONGEST_NAME = 65_535
_MOST_WITHOUT_SHAPE = 1000  # arrays that were saved before they were initialised take no room
_OF_EPOCH = re.compile(r"(?P<prefix>.+)-(?P<epoch>[0-9]{4,9})\.params", re.DOTALL)
_STATISTICS = ("_running_mean", "_running_var", "_moving_mean", "_moving_var")
_MOST_NAMED = 3  # in a note


def sniff(file: LocalFile) -> bool:
    """Tell whether the file begins as a list of MXNet's arrays does."""
    return file.head.startswith(_MAGIC)


def open(file: LocalFile) -> ParamTree:
    """Walk from array to array, read the names, and the graph if it lies beside the file.

    Raises:
        CorruptFileError: an array, a name or the graph contradicts itself or the file.
    """
    cursor = Cursor(file, len(_MAGIC), window=_WINDOW)
    arrays = _arrays(cursor)
    keys = _keys(cursor, len(arrays))
    notes = _notes(arrays, cursor.left)
    names = _names(keys)
    params = {
        name: Param(name, array, _kind(key, name, array), aliases=(key,) if key != name else ())
        for name, key, array in zip(names, keys, arrays, strict=True)
    }
    is_exported = bool(keys) and all(key.startswith(("arg:", "aux:")) for key in keys)
    meta: dict[str, Any] = Exported() if is_exported else {}
    closers = [file.close]
    if (found := _OF_EPOCH.fullmatch(file.path.rpartition("/")[2])) is not None:
        meta["epoch"] = int(found["epoch"])
        if (graph := _symbol_beside(file, found["prefix"])) is not None:
            closers.append(graph.close)
            symbol = Symbol(graph)
            params = {name: params[name] for name in _in_order(params, symbol)}
            notes += _notes_of(symbol, params)
            meta.update({} if symbol.version is None else {"mxnet_version": symbol.version})
    return ParamTree(params, Origin(file.path, NAME, meta, notes, closers))


def holds_tie(tree: ParamTree, group: Sequence[str]) -> bool:
    """Tell that no tied group can be written."""
    return False


def save(tree: ParamTree, output: Output) -> Sequence[str]:
    """Write the arrays, then their names, as ``mxnet.nd.save`` and Gluon's ``save_parameters`` do."""
    from paratree.formats._mxnet_written import write

    return write(tree, output)


def _arrays(cursor: Cursor) -> list[LazyArray]:
    count = cursor.number("Q")
    cursor.check_count(count, 4, "arrays")
    arrays: list[LazyArray] = []
    without_shape = 0
    for number in range(count):
        cursor.member = f"array {number}"
        arrays.append(read_array(cursor))
        without_shape += isinstance(arrays[-1], RefusedArray)
        if without_shape > _MOST_WITHOUT_SHAPE:
            raise cursor.fault(f"over {_MOST_WITHOUT_SHAPE} arrays have no shape", cursor.place)
    cursor.member = None
    return arrays


def _keys(cursor: Cursor, count: int) -> list[str]:
    """Return the names as they are stored; those of a list without names are its numbers."""
    place, named = cursor.place, cursor.number("Q")
    if named not in (0, count):
        raise cursor.fault(f"there are {count} arrays, and {named} names", place)
    cursor.check_count(named, 8, "names")
    keys: dict[str, None] = {}
    for _ in range(named):
        place, key = cursor.place, cursor.name(_LONGEST_NAME)
        if key in keys:
            raise CorruptFileError(cursor.source.path, "the name stands twice", offset=place, member=key)
        keys[key] = None
    return list(keys) if named else [str(number) for number in range(count)]


def _names(keys: list[str]) -> list[str]:
    """Return the keys without ``arg:`` and ``aux:``, but with it where that leaves one name for two."""
    bare = [key[4:] if key.startswith(("arg:", "aux:")) and len(key) > 4 else key for key in keys]
    counts: dict[str, int] = {}
    for name in bare:
        counts[name] = counts.get(name, 0) + 1
    return [name if counts[name] == 1 else key for name, key in zip(bare, keys, strict=True)]


def _kind(key: str, name: str, array: LazyArray) -> str:
    if array.problem is not None:
        return OTHER
    return BUFFER if key.startswith("aux:") or name.endswith(_STATISTICS) else kind_of(name, array.dtype)


def _symbol_beside(file: LocalFile, prefix: str) -> LocalFile | None:
    try:
        return beside(file, f"{prefix}-symbol.json", links=True)
    except SourceNotFoundError:
        return None


def _in_order(params: dict[str, Param], symbol: Symbol) -> list[str]:
    """Return the names in the order of the graph, those that it does not have last."""
    return [name for name in symbol.uses if name in params] + [n for n in params if n not in symbol.uses]


def _notes(arrays: list[LazyArray], left: int) -> list[str]:
    sparse = [array.stored_as for array in arrays if isinstance(array, RowSparseArray | CsrArray)]
    notes = [
        f"{number} of the arrays {'is' if number == 1 else 'are'} stored as {word}; "
        "sizes here count their zeros, too"
        for word, number in Counter(sparse).items()
    ]
    return notes + ([f"{left} bytes follow the names; nothing says what they are"] if left else [])


def _notes_of(symbol: Symbol, params: dict[str, Param]) -> list[str]:
    """Say what the graph tells and the list of arrays does not: who shares, and what is not used."""
    shared = [(name, users) for name, users in symbol.uses.items() if len(users) > 1 and name in params]
    notes = [f"{name} is shared by {_some(users)}" for name, users in shared[:_MOST_NAMED]]
    if len(shared) > _MOST_NAMED:
        notes.append(f"{len(shared) - _MOST_NAMED} more are shared by several operations")
    if strange := [name for name in params if name not in symbol.uses]:
        notes.append(f"not in the graph beside the file: {_some(strange)}")
    return notes


def _some(names: list[str]) -> str:
    named = ", ".join(name[:100] for name in names[:_MOST_NAMED])
    return f"{named} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else named
