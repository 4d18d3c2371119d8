"""One array as MXNet saves it: dense, ``row_sparse`` or ``csr``; sparse ones are read as dense, in part.

Layout: ``NDArray::Save`` and ``NDArray::LegacyLoad`` of ``src/ndarray/ndarray.cc`` (MXNet 1.9.1, and 0.x).
"""

from __future__ import annotations

from math import prod

from paratree.core.array import RefusedArray, basic_index
from paratree.core.dtypes import nbytes, numpy_dtype
from paratree.core.errors import CorruptFileError, UnreadableError, printable
from paratree.files.array import MOST_AXES, check_shape, file_array
from paratree.files.composed import slice_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, LazyArray
    from paratree.files.array import FileArray
    from paratree.files.cursor import Cursor

    Shape = tuple[int, ...]

_V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA  # before them, the number of axes stood here
DTYPES = {  # type flag of mshadow -> name of the dtype
    0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64", 7: "bool",
    8: "int16", 9: "uint16", 10: "uint32", 11: "uint64", 12: "bfloat16",
}  # fmt: skip
_ROW_SPARSE, _CSR = 1, 2
STORED_AS = {_ROW_SPARSE: "row_sparse", _CSR: "csr"}
_SMALL = 64 << 20  # bytes of zeros that are always given
_MOST_EXPANSION = 1000  # and else, bytes for each that is stored


def read_array(cursor: Cursor) -> LazyArray:
    """Describe the array at the cursor, and move the cursor behind it.

    Raises:
        CorruptFileError: no array begins here, or it contradicts itself or the file.
    """
    place, magic = cursor.place, cursor.number("I")
    storage, stored = 0, None
    if magic in (V2, V3):
        storage = cursor.number("i")
        if storage not in (0, *STORED_AS) or (storage and magic == V3):
            raise cursor.fault(f"there is no storage type {storage} of arrays", place + 4)
        stored = _shape(cursor) if storage else None
    elif magic != _V1 and magic > MOST_AXES:
        raise cursor.fault(
            f"no array begins here: {magic:#x} is neither a version nor a number of axes", place
        )
    old = magic not in (_V1, V2, V3)
    shape = cursor.numbers("I", magic) if old else _shape(cursor)
    if shape is None or -1 in shape or (not shape and magic != V3):
        why = f"{cursor.member}: saved before it was initialised: there are no values"
        return RefusedArray((None,), "unknown", why)
    cursor.skip(8)  # the device it was on
    dtype = _dtype(cursor)
    if storage:
        return _sparse(cursor, storage, shape, stored, dtype)
    return _dense(cursor, shape, dtype)


def _shape(cursor: Cursor) -> Shape | None:
    axes = cursor.number("i")
    if axes == -1:
        return None
    if not 0 <= axes <= MOST_AXES:
        raise cursor.fault(f"{axes} axes are claimed; NumPy holds at most {MOST_AXES}", cursor.place - 4)
    return cursor.numbers("q", axes)


def _dtype(cursor: Cursor) -> str:
    place, flag = cursor.place, cursor.number("i")
    if flag not in DTYPES:
        raise cursor.fault(f"there is no dtype of number {flag}", place)
    return DTYPES[flag]


def _dense(cursor: Cursor, shape: Shape, dtype: str) -> FileArray:
    array = file_array(cursor.source, cursor.place, shape, dtype, member=cursor.member)
    cursor.skip(array.nbytes)
    return array


def _sparse(
    cursor: Cursor, storage: int, shape: Shape, stored: Shape | None, dtype: str
) -> RowSparseArray | CsrArray:
    """Describe a sparse array: the values that are stored, then where they belong."""
    check_shape(shape, cursor.source, cursor.member, nbytes(1, dtype))
    parts = [(_dtype(cursor), _shape(cursor)) for _ in range(storage)]
    place, rows, count = cursor.place, shape[0], stored[0] if stored else -1
    if storage == _ROW_SPARSE:
        fits = stored == (count, *shape[1:]) and 0 <= count <= rows and parts[0][1] == (count,)
    else:
        fits = len(shape) == 2 and stored == (count,) and parts[1][1] == (count,)
        fits = fits and (parts[0][1] == (rows + 1,) or (count, parts[0][1]) == (0, (0,)))
    if not fits or any(dtype not in ("int32", "int64") for dtype, _ in parts):
        raise cursor.fault(f"its parts do not fit together as {STORED_AS[storage]}", place)
    values = _dense(cursor, stored or (), dtype)
    first = _dense(cursor, parts[0][1] or (), parts[0][0])
    if storage == _ROW_SPARSE:
        return RowSparseArray(shape, values, first, cursor.member or "")
    columns = _dense(cursor, parts[1][1] or (), parts[1][0])
    return CsrArray(shape, values, first, columns, cursor.member or "")


class RowSparseArray:
    """An array of which some rows are stored; the others are zero."""

    __slots__ = ("_name", "_rows", "_values", "dtype", "shape")

    problem = storage = None
    stored_as = STORED_AS[_ROW_SPARSE]

    def __init__(self, shape: Shape, values: FileArray, rows: FileArray, name: str) -> None:
        self.shape, self.dtype = shape, values.dtype
        self._values, self._rows, self._name = values, rows, name

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index, zeros included.

        Raises:
            IndexError: the index does not fit the shape.
            CorruptFileError: the rows are not in ascending order, or outside the shape.
            UnreadableError: nearly all of very many values would be zeros.
        """
        import numpy as np

        first, *rest = basic_index(index, self.shape)
        rows = _range(first)
        inner = tuple(slice_of(part) if isinstance(part, range) else part for part in rest)
        found = _zeros(self._values, (len(rows), *(len(p) for p in rest if isinstance(p, range))), self._name)
        numbers = self._rows.read().astype(np.int64)
        _check_ascending(self._rows, numbers, self.shape[0], self._name)
        positions, taken = _positions(numbers, rows)
        if taken.any():
            low, high = (int(place) for place in np.flatnonzero(taken)[[0, -1]])
            values = self._values.read((slice(low, high + 1), *inner))
            found[positions[taken]] = values[taken[low : high + 1]]
        return np.asarray(found if isinstance(first, range) else found[0])


class CsrArray:
    """A matrix of which some values are stored, row by row; the others are zero."""

    __slots__ = ("_columns", "_name", "_starts", "_values", "dtype", "shape")

    problem = storage = None
    stored_as = STORED_AS[_CSR]

    def __init__(
        self, shape: Shape, values: FileArray, starts: FileArray, columns: FileArray, name: str
    ) -> None:
        self.shape, self.dtype = shape, values.dtype
        self._values, self._starts, self._columns, self._name = values, starts, columns, name

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index, zeros included.

        Raises:
            IndexError: the index does not fit the shape.
            CorruptFileError: rows or columns are not in ascending order, or outside the shape.
            UnreadableError: nearly all of very many values would be zeros.
        """
        import numpy as np

        wanted = basic_index(index, self.shape)
        rows, columns = (_range(part) for part in wanted)
        found = _zeros(self._values, (len(rows), len(columns)), self._name)
        if rows and self._values.shape[0]:
            low, high = min(rows[0], rows[-1]), max(rows[0], rows[-1]) + 1
            starts = self._row_starts()[low : high + 1]
            part = slice(int(starts[0]), int(starts[-1]))
            numbers = self._columns.read(part).astype(np.int64)
            of_row = np.repeat(np.arange(low, high), np.diff(starts))
            keys = of_row * (self.shape[1] or 1) + numbers
            if (numbers < 0).any() or (numbers >= self.shape[1]).any() or (np.diff(keys) <= 0).any():
                raise _fault(self._columns, "columns are not in ascending order, or outside", self._name)
            at_row, in_rows = _positions(of_row, rows)
            at_column, in_columns = _positions(numbers, columns)
            taken = in_rows & in_columns
            found[at_row[taken], at_column[taken]] = self._values.read(part)[taken]
        return np.asarray(found[tuple(slice(None) if isinstance(part, range) else 0 for part in wanted)])

    def _row_starts(self) -> np.ndarray[Any, Any]:
        import numpy as np

        starts = self._starts.read().astype(np.int64)
        if starts[0] != 0 or starts[-1] != self._values.shape[0] or (np.diff(starts) < 0).any():
            raise _fault(self._starts, "the rows do not follow one another from first to last", self._name)
        return starts


def _range(part: int | range) -> range:
    return part if isinstance(part, range) else range(part, part + 1)


def _positions(numbers: np.ndarray[Any, Any], places: range) -> tuple[np.ndarray[Any, Any], ...]:
    """Return at which positions of a range numbers stand, and which of them stand in it."""
    if not places:
        return numbers, numbers != numbers
    positions, rest = divmod(numbers - places.start, places.step)
    return positions, (rest == 0) & (positions >= 0) & (positions < len(places))


def _check_ascending(array: FileArray, numbers: np.ndarray[Any, Any], length: int, name: str) -> None:
    import numpy as np

    if len(numbers) and (numbers[0] < 0 or numbers[-1] >= length or (np.diff(numbers) <= 0).any()):
        raise _fault(array, "the rows are not in ascending order, or outside", name)


def _zeros(stored: FileArray, shape: Shape, name: str) -> np.ndarray[Any, Any]:
    import numpy as np

    needed = nbytes(prod(shape), stored.dtype)
    if needed > max(_SMALL, _MOST_EXPANSION * stored.nbytes):
        raise UnreadableError(
            f"{printable(stored.source.path)}: {name} is sparse, and takes {needed} bytes with its zeros; "
            "take a part of it, as [0:1000]"
        )
    return np.zeros(shape, numpy_dtype(stored.dtype))


def _fault(array: FileArray, reason: str, name: str) -> CorruptFileError:
    return CorruptFileError(array.source.path, reason, offset=array.offset, member=name)
