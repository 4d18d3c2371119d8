"""What ``paddle.save`` pickles: arrays by their names in the model, or pairs of own name and array.

Layout: ``paddle.framework.io`` of Paddle 3.3, protocols 2 to 4. Nothing is unpickled, see files.pickle.
"""

from __future__ import annotations

import re
from itertools import count
from math import prod

from paratree.core.dtypes import nbytes
from paratree.core.errors import CorruptFileError
from paratree.core.names import BUFFER, STATE, join, kind_of, last_segment
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.files.array import FileArray, check_shape, file_array
from paratree.files.local import Joined, Window
from paratree.files.pickle import load
from paratree.formats._nested import Nested
from paratree.formats._numpy_pickled import is_numpy_array, numpy_array, plain_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import LocalFile
    from paratree.files.pickled import Global
    from paratree.formats._nested import Entry

NAMES = "StructuredToParameterName@@"  # key of the own names of the tensors
_PIECES = "UnpackBigParamInfor@@"  # key of the arrays that are cut into pieces, for protocols below 4
_STATISTICS = ("_mean", "_variance")  # what a batch norm of Paddle calls what it keeps
_SLOT = re.compile(
    r"_(moment\d*|beta\d_pow_acc|velocity|mean_square|mean_grad|momentum|inf_norm)(_acc)?_\d+$"
)
_MOST_VALUES = 50_000_000


def open_pickled(file: LocalFile, format: str) -> ParamTree:
    """Read the opcodes and return the tree; values stay in the file.

    Raises:
        CorruptFileError: it is no pickle, or an array does not have the bytes it needs.
        UnsafeFileError: it would call code.
    """
    root, _ = load(file, 0, _interpret, _no_persistent, length=file.size, lazy=True)
    tables = {}
    if isinstance(root, dict):
        tables = {key: root.pop(key) for key in (NAMES, _PIECES) if isinstance(root.get(key), dict)}
    budget = min(file.size, _MOST_VALUES)
    nested = Nested(file, _is_array, id, lambda found: None, plain_value, budget, {}, None)
    meta = nested.walk(root)
    reader = _Reader(file, tables.get(NAMES, {}))
    for entry in nested.entries:
        reader.add(entry)
    for name, about in tables.get(_PIECES, {}).items():
        reader.join_pieces(str(name), about)
    notes = reader.notes()
    if nested.unbuilt:
        notes.append(f"classes named by the file were not built: {', '.join(list(nested.unbuilt)[:3])}")
    return ParamTree(reader.params, Origin(file.path, format, meta, notes, [file.close]))


def _interpret(target: Global, args: tuple[Any, ...]) -> Any:
    """Return the array of ``eval("data", {"data": array})``, as a tensor of a static program is pickled.

    Nothing is evaluated: any other text is left, and refused as the call that it is.
    """
    match target.module, target.name, args:
        case ("builtins" | "__builtin__", "eval", ("data", {"data": array})) if is_numpy_array(array):
            return array
    return NotImplemented


def _no_persistent(pid: Any) -> Any:
    raise ValueError("a persistent id where none belongs")


def _is_array(value: Any) -> bool:
    return is_numpy_array(value) or _is_named(value)


def _is_named(value: Any) -> bool:
    """Tell whether a value is a pair of a tensor's own name and its array, as Paddle's reader asks."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and is_numpy_array(value[1])
    )


class _Reader:
    """Collects the parameters of one pickle."""

    def __init__(self, file: LocalFile, names: dict[Any, Any]) -> None:
        self.file, self.names = file, names
        self.params: dict[str, Param] = {}
        self.first: dict[tuple[Any, ...], LazyArray] = {}  # of a tensor's own name, its array
        self.doubles = 0
        self.state = file.path.lower().endswith(".pdopt")

    def add(self, entry: Entry) -> None:
        """Add an array; one of a tensor that stands beside it under another name is tied to that."""
        own, found = entry.found if isinstance(entry.found, tuple) else (None, entry.found)
        if own is None and len(entry.path) == 1 and isinstance(named := self.names.get(entry.path[0]), str):
            own = named
        name = self._new_name(join(entry.path) or self.file.path.rpartition("/")[2].partition(".")[0])
        array = _as_bfloat16(numpy_array(found, self.file, name), name)
        if own is not None:  # names of tensors are unique in one process, so in one dict of them
            same = (entry.path[:-1], own, array.shape, array.dtype)
            array = self.first.setdefault(same, array)
        self.params[name] = Param(name, array, entry.kind or self._kind(name, array))

    def join_pieces(self, name: str, about: Any) -> None:
        """Put an array together that was cut because pickles of its time held no longer ones."""
        match about:
            case {"OriginShape": tuple() | list() as shape, "slices": list() as slices}:
                pieces = [self.params.pop(part, None) for part in slices if isinstance(part, str)]
            case _:
                pieces = []
        arrays = [piece.array for piece in pieces if piece is not None and isinstance(piece.array, FileArray)]
        if not arrays or len(arrays) != len(slices) or len({array.dtype for array in arrays}) != 1:
            raise CorruptFileError(self.file.path, "the pieces it is cut into are not all there", member=name)
        lengths, dtype = check_shape(shape, self.file, name), arrays[0].dtype
        if sum(prod(array.shape) for array in arrays) != prod(lengths):
            raise CorruptFileError(self.file.path, f"its pieces do not add up to {lengths}", member=name)
        parts = [Window(array.source, array.offset, nbytes(prod(array.shape), dtype)) for array in arrays]
        whole = file_array(Joined(parts, self.file.path, name), 0, lengths, dtype, member=name)
        name = self._new_name(name)
        self.params[name] = Param(name, whole, self._kind(name, whole))

    def notes(self) -> list[str]:
        """Return what one should know of the names."""
        text = f"tensors whose joined keys are the name of another are listed as NAME~2: {self.doubles}"
        return [text] if self.doubles else []

    def _new_name(self, name: str) -> str:
        if name not in self.params:
            return name
        self.doubles += 1
        return next(other for n in count(2) if (other := f"{name}~{n}") not in self.params)

    def _kind(self, name: str, array: LazyArray) -> str:
        if self.state or _SLOT.search(name):
            return STATE
        return BUFFER if last_segment(name) in _STATISTICS else kind_of(name, array.dtype)


def _as_bfloat16(array: LazyArray, name: str) -> LazyArray:
    """Return an array as what Paddle reads it as: NumPy's uint16 is how it pickles bfloat16."""
    if not isinstance(array, FileArray) or array.dtype != "uint16":
        return array
    return file_array(array.source, array.offset, array.shape, "bfloat16", strides=array.strides, member=name)
