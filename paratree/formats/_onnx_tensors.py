"""Tensors of ONNX (``TensorProto``, ``SparseTensorProto``) as arrays that are read where they lie.

Specification: onnx.proto and docs/ExternalData.md of onnx 1.23.
"""

from __future__ import annotations

from math import prod

from paratree.core.array import RefusedArray, contiguous
from paratree.core.dtypes import BITS, nbytes
from paratree.core.errors import CorruptFileError, SourceNotFoundError, printable
from paratree.files.array import check_shape, file_array
from paratree.files.composed import DecodedArray
from paratree.files.folder import beside
from paratree.files.local import LocalFile, Memory, read
from paratree.files.protobuf import BYTES, FIXED32, FIXED64, LONGEST_VARINT, VARINT, Wire, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import numpy as np

    from paratree.core.array import LazyArray
    from paratree.files.protobuf import Span

_DIMS, _TYPE, SEGMENT, _NAME, EXTERNAL_DATA, LOCATION = 1, 2, 3, 8, 13, 14  # fields of TensorProto
_FLOATS, _INT32S, _STRINGS, _INT64S, RAW, _DOUBLES, _UINT64S = 4, 5, 6, 7, 9, 10, 11
VALUES = (_FLOATS, _INT32S, _STRINGS, _INT64S, RAW, _DOUBLES, _UINT64S)  # a tensor has one of them
_VALUES, _INDICES, _SPARSE_DIMS = 1, 2, 3  # fields of SparseTensorProto
DTYPES = {  # TensorProto.DataType -> name of the dtype, and the field that holds values if not raw_data
    1: ("float32", _FLOATS), 2: ("uint8", _INT32S), 3: ("int8", _INT32S), 4: ("uint16", _INT32S),
    5: ("int16", _INT32S), 6: ("int32", _INT32S), 7: ("int64", _INT64S), 8: ("string", _STRINGS),
    9: ("bool", _INT32S), 10: ("float16", _INT32S), 11: ("float64", _DOUBLES), 12: ("uint32", _UINT64S),
    13: ("uint64", _UINT64S), 14: ("complex64", _FLOATS), 15: ("complex128", _DOUBLES),
    16: ("bfloat16", _INT32S), 17: ("float8_e4m3fn", _INT32S), 18: ("float8_e4m3fnuz", _INT32S),
    19: ("float8_e5m2", _INT32S), 20: ("float8_e5m2fnuz", _INT32S), 21: ("uint4", _INT32S),
    22: ("int4", _INT32S), 23: ("float4_e2m1fn", _INT32S), 24: ("float8_e8m0fnu", _INT32S),
    25: ("uint2", _INT32S), 26: ("int2", _INT32S), 27: ("float6_e2m3fn", _INT32S),
    28: ("float6_e3m2fn", _INT32S),
}  # fmt: skip
_TENSOR = {
    _DIMS: (VARINT, BYTES), _TYPE: (VARINT,), SEGMENT: (BYTES,), _FLOATS: (BYTES, FIXED32),
    _INT32S: (BYTES, VARINT), _STRINGS: (BYTES,), _INT64S: (BYTES, VARINT), _NAME: (BYTES,), RAW: (BYTES,),
    _DOUBLES: (BYTES, FIXED64), _UINT64S: (BYTES, VARINT), EXTERNAL_DATA: (BYTES,), LOCATION: (VARINT,),
}  # fmt: skip
_SPARSE = {_VALUES: (BYTES,), _INDICES: (BYTES,), _SPARSE_DIMS: (VARINT, BYTES)}
PAIR = {1: (BYTES,), 2: (BYTES,)}  # of texts
_WIDTH_OF = {_FLOATS: 4, _DOUBLES: 8}  # bytes a number; those of other fields are varints
_WIDTHS = {FIXED32: 4, FIXED64: 8}
_PACKED = frozenset({"uint4", "int4", "float4_e2m1fn", "uint2", "int2"})  # several to an entry of int32_data
_IN_FILE, _EXTERNAL = 0, 1
_MOST_KEYS = 16  # of the description of external data; there are five
_MOST_DIGITS = 20
_MOST_DENSE, _MOST_EXPANSION = 64 << 20, 1000  # beyond both together, a sparse tensor stays sparse
_TEXT = "text; paratree reads numbers"


class Repeated:
    """Where the numbers of a repeated field are: packed in one piece or several, or each by itself."""

    __slots__ = ("first", "length", "loose", "pieces")

    def __init__(self) -> None:
        self.first: Span = (0, 0)
        self.pieces = self.length = self.loose = 0

    def add(self, wire: int, value: Any) -> None:
        """Count one field, which is a packed piece or one number."""
        if wire != BYTES:
            self.loose += 1
        elif value[0] < value[1]:
            self.first = value if not self.pieces else self.first
            self.pieces, self.length = self.pieces + 1, self.length + value[1] - value[0]


class _Parts:
    """The fields of a ``TensorProto``."""

    __slots__ = ("data", "dims", "kind", "location", "name", "outside", "raw", "segment")

    def __init__(self) -> None:
        self.data: dict[int, Repeated] = {}
        self.dims: list[int] = []
        self.kind, self.location, self.name, self.segment = 0, _IN_FILE, "", False
        self.outside: list[Span] = []
        self.raw: Span | None = None


class Tensors:
    """Describes the tensors of one model, and knows the files beside it that hold their values."""

    def __init__(self, file: LocalFile) -> None:
        self.file, self.wire = file, Wire(file)
        self.beside: dict[str, LocalFile] = {}
        self.missing: dict[str, int] = {}  # a file that is not there -> how many tensors it should hold

    def dense(self, span: Span, fallback: str = "") -> tuple[str, LazyArray]:
        """Return the name and the array of a ``TensorProto``; ``fallback`` names it in messages.

        Raises:
            CorruptFileError: its fields contradict each other, or the file with its values.
            UnsafeFileError: its values are said to be outside the folder of the model.
        """
        parts = self._parts(span)
        return parts.name, self._array(parts, span, parts.name or fallback)

    def sparse(self, span: Span, fallback: str = "") -> tuple[str, LazyArray]:
        """Return the name and the array of a ``SparseTensorProto``, which is read as a dense one.

        Raises:
            CorruptFileError: its values and indices do not fit each other, or the file.
        """
        dims: list[int] = []
        found: dict[int, Span] = {}
        for number, wire, value in self.wire.fields(span, _SPARSE):
            if number == _SPARSE_DIMS:
                self._add_dims(dims, wire, value)
            elif number in found:
                raise self.wire.fault("a sparse tensor has two of what it has one of", value[0])
            else:
                found[number] = value
        if len(found) < len((_VALUES, _INDICES)):
            raise self.wire.fault("a sparse tensor has no values or no indices", span[0])
        name, values = self.dense(found[_VALUES], fallback)
        _, indices = self.dense(found[_INDICES], name or fallback)
        return name, self._dense_of(values, indices, dims, name or fallback)

    def numbers(
        self, where: tuple[Span, int, Repeated], dims: Sequence[int], dtype: str, member: str, width: int
    ) -> LazyArray:
        """Describe an array whose values are numbers in a field of a message.

        Args:
            where: the message, the number of the field, and what has been counted there.
            dims: length along each axis.
            dtype: what the values are.
            member: what messages call the array.
            width: bytes a number, or 0 for varints.

        Raises:
            CorruptFileError: there are more or fewer numbers than the shape needs.
        """
        span, field, stored = where
        shape = check_shape(dims, self.file, member)
        entries = nbytes(prod(shape), dtype) if dtype in _PACKED else prod(shape)
        if not width:
            least, most = stored.loose - (-stored.length // LONGEST_VARINT), stored.loose + stored.length
            if not least <= entries <= most:
                raise self._count_fault(entries, f"between {least} and {most}", span, member)
            return DecodedArray(
                shape, dtype, lambda: self._varints(span, field, shape, dtype, entries, member)
            )
        needed, there = nbytes(prod(shape), dtype), stored.length + stored.loose * width
        if needed != there:
            raise self._count_fault(needed // width, str(there / width).removesuffix(".0"), span, member)
        if not stored.loose and stored.pieces <= 1:
            return file_array(self.file, stored.first[0], shape, dtype, member=member)
        return DecodedArray(shape, dtype, lambda: self._fixed(span, field, shape, dtype, member))

    # Parts

    def _parts(self, span: Span) -> _Parts:
        parts, wire = _Parts(), self.wire
        for number, kind, value in wire.fields(span, _TENSOR):
            if number == _DIMS:
                self._add_dims(parts.dims, kind, value)
            elif number == _TYPE:
                parts.kind = value
            elif number == _NAME:
                parts.name = wire.text(value)
            elif number == RAW:
                parts.raw = value
            elif number == EXTERNAL_DATA:
                parts.outside.append(value)
                if len(parts.outside) > _MOST_KEYS:
                    raise wire.fault("the place of external data has too many keys", value[0])
            elif number == LOCATION:
                parts.location = value
            elif number == SEGMENT:
                parts.segment = True
            else:
                parts.data.setdefault(number, Repeated()).add(kind, value)
        return parts

    def _add_dims(self, dims: list[int], wire: int, value: Any) -> None:
        dims += map(signed, self.wire.varints(value) if wire == BYTES else [value])
        if len(dims) > 1 << 10:
            check_shape(dims, self.file, None)

    def _array(self, parts: _Parts, span: Span, member: str) -> LazyArray:
        dtype, field = self._dtype(parts, span, member)
        if dtype == "string":
            return RefusedArray(check_shape(parts.dims, self.file, member), dtype, f"{member}: {_TEXT}")
        if parts.segment:
            why = "one piece of a tensor in several, which nobody writes; save the model again"
            return RefusedArray(check_shape(parts.dims, self.file, member), dtype, f"{member}: {why}")
        if parts.location == _EXTERNAL:
            return self._outside(parts, dtype, span, member)
        data = {number: stored for number, stored in parts.data.items() if stored.loose or stored.pieces}
        filled = parts.raw is not None and parts.raw[0] < parts.raw[1]
        if data.keys() - {field} or (filled and data):
            raise self._fault(f"the values of {dtype} are in a field for others, or in two", span, member)
        if parts.raw is None or data:
            stored = data.get(field, Repeated())
            return self.numbers((span, field, stored), parts.dims, dtype, member, _WIDTH_OF.get(field, 0))
        shape = check_shape(parts.dims, self.file, member)
        needed, there = nbytes(prod(shape), dtype), parts.raw[1] - parts.raw[0]
        if needed != there:
            raise self._fault(f"{dtype} {list(shape)} takes {needed} bytes and has {there}", span, member)
        return file_array(self.file, parts.raw[0], shape, dtype, end=parts.raw[1], member=member)

    def _dtype(self, parts: _Parts, span: Span, member: str) -> tuple[str, int]:
        if parts.location not in (_IN_FILE, _EXTERNAL):
            raise self._fault(f"{parts.location} is no place of data", span, member)
        if parts.kind not in DTYPES:
            what = f"the data type {parts.kind} is unknown" if parts.kind else "it has no data type"
            raise CorruptFileError(
                self.file.path, what, offset=span[0], member=member, advice="a newer paratree may know it"
            )
        return DTYPES[parts.kind]

    # External data

    def _outside(self, parts: _Parts, dtype: str, span: Span, member: str) -> LazyArray:
        said: dict[str, str] = {}
        for pair in parts.outside:
            words = {number: self.wire.text(value) for number, _, value in self.wire.fields(pair, PAIR)}
            key = words.get(1, "")
            if key in said:
                raise self._fault(f"the place of its values says {key[:40]} twice", span, member)
            said[key] = words.get(2, "")
        if "location" not in said:
            raise self._fault("its values are external and no file is named", span, member)
        offset = self._whole(said.get("offset", "0"), span, member)
        shape = check_shape(parts.dims, self.file, member)
        needed = nbytes(prod(shape), dtype)
        if "length" in said and (length := self._whole(said["length"], span, member)) != needed:
            raise self._fault(f"{dtype} {list(shape)} takes {needed} bytes, not {length}", span, member)
        location = said["location"].removeprefix("./")
        if (file := self._file(location)) is None:
            self.missing[location] = self.missing.get(location, 0) + 1
            where = printable(location[:200])
            why = f"its values are in {where}, which is not there; fetch that too, into the same folder"
            return RefusedArray(shape, dtype, f"{member}: {why}")
        return file_array(file, offset, shape, dtype, member=member)

    def _file(self, location: str) -> LocalFile | None:
        if location not in self.beside and location not in self.missing:
            try:
                self.beside[location] = beside(self.file, location)
            except SourceNotFoundError:
                return None
        return self.beside.get(location)

    def _whole(self, text: str, span: Span, member: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
            raise self._fault(f"{text[:40]!r} is no number of bytes", span, member)
        return int(text)

    # Values that are decoded

    def _varints(
        self, span: Span, field: int, shape: tuple[int, ...], dtype: str, entries: int, member: str
    ) -> np.ndarray[Any, Any]:
        import numpy as np

        pieces: list[np.ndarray[Any, Any]] = []
        loose: list[int] = []
        for _, wire, value in self.wire.fields(span, {field: (BYTES, VARINT)}):
            if wire == VARINT:
                loose.append(value)
                continue
            pieces += [np.array(loose, np.uint64), self.wire.many_varints(value)]
            loose = []
        found = np.concatenate([*pieces, np.array(loose, np.uint64)])
        if found.size != entries:
            raise self._count_fault(entries, str(found.size), span, member)
        if dtype.startswith("float6"):  # one to an entry, in its low bits; packed in raw_data only
            from paratree.core.dtypes import numpy_dtype

            return (found.astype(np.uint8) & 0x3F).view(numpy_dtype(dtype))
        narrow = found.astype(f"<u{max(BITS[dtype] // 8, 1)}")
        return self._read(narrow.tobytes(), shape, dtype, member)

    def _fixed(
        self, span: Span, field: int, shape: tuple[int, ...], dtype: str, member: str
    ) -> np.ndarray[Any, Any]:
        data = bytearray()
        for _, wire, value in self.wire.fields(span, {field: (BYTES, FIXED32, FIXED64)}):
            if wire == BYTES:
                data += read(self.file, value[0], value[1] - value[0])
            else:
                data += value.to_bytes(_WIDTHS[wire], "little")
        return self._read(bytes(data), shape, dtype, member)

    def _read(self, data: bytes, shape: tuple[int, ...], dtype: str, member: str) -> np.ndarray[Any, Any]:
        memory = Memory(data, self.file.path, member)
        return file_array(memory, 0, shape, dtype, member=member).read()

    # Sparse tensors

    def _dense_of(self, values: LazyArray, indices: LazyArray, dims: Sequence[int], member: str) -> LazyArray:
        shape, dtype = check_shape(dims, self.file, member), values.dtype
        count = values.shape[0] if len(values.shape) == 1 else None
        if count is None or indices.dtype != "int64" or indices.shape not in ((count,), (count, len(shape))):
            reason = (
                f"{values.shape} values and {indices.shape} {indices.dtype} indices make no sparse tensor"
            )
            raise CorruptFileError(self.file.path, reason, member=member)
        if problem := values.problem or indices.problem:
            return RefusedArray(shape, dtype, problem)
        dense = nbytes(prod(shape), dtype)
        if dense > max(_MOST_DENSE, _MOST_EXPANSION * (nbytes(count, dtype) + 8 * count)):
            why = f"sparse: its {count} values would be {dense} bytes of zeros; make it dense yourself"
            return RefusedArray(shape, dtype, f"{member}: {why}")
        return DecodedArray(shape, dtype, lambda: self._scatter(values, indices, shape, member))

    def _scatter(
        self, values: LazyArray, indices: LazyArray, shape: tuple[int, ...], member: str
    ) -> np.ndarray[Any, Any]:
        import numpy as np

        held, places = values.read(), indices.read()
        if places.ndim > 1:
            inside = ((places >= 0) & (places < np.array(shape, np.int64))).all()
            places = places @ np.array(contiguous(shape), np.int64) if inside else np.array([-1])
        if places.size and (places[0] < 0 or places[-1] >= prod(shape) or (np.diff(places) <= 0).any()):
            reason = "the indices of its values are not in ascending order inside its shape"
            raise CorruptFileError(self.file.path, reason, member=member)
        dense = np.zeros(prod(shape), held.dtype)
        dense[places] = held
        return dense.reshape(shape)

    # Faults

    def _count_fault(self, needed: int, there: str, span: Span, member: str) -> CorruptFileError:
        return self._fault(f"{needed} numbers are needed and {there} are there", span, member)

    def _fault(self, reason: str, span: Span, member: str) -> CorruptFileError:
        return CorruptFileError(self.file.path, reason, offset=span[0], member=member)
