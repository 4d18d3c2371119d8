"""What torch's pickles say of tensors: storages, rebuild functions, dtypes; nothing is rebuilt.

Source: the functions of ``torch._utils`` and ``torch._tensor`` that torch's pickles name (2.13).
"""

from __future__ import annotations

from paratree.core.array import RefusedArray
from paratree.core.dtypes import BITS, UNREAD
from paratree.files.array import check_shape, file_array
from paratree.files.pickled import Global

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.files.local import Source

_OF_STORAGE = {  # class of a storage, less "Storage" -> dtype
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "Untyped": "uint8",
    "ComplexDouble": "complex128", "ComplexFloat": "complex64", "ComplexHalf": "complex32",
    "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32", "QUInt4x2": "quint4x2", "QUInt2x4": "quint2x4",
}  # fmt: skip
STORAGES = {  # dtype -> the class of its storages; what came later has storages without a type
    dtype: f"{word}Storage" for word, dtype in _OF_STORAGE.items() if dtype in BITS and word != "Untyped"
}
WRITTEN = (
    *STORAGES, "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu",
)  # fmt: skip
_PACKED = frozenset({"quint4x2", "quint2x4", "bits1x8", "bits2x4", "bits4x2"})  # a byte holds several values
_WORDS = {"double": "float64", "float": "float32", "half": "float16", "long": "int64", "int": "int32"}


class StorageRecord:
    """A storage that a pickle refers to by a persistent id."""

    __slots__ = ("dtype", "first", "key", "size")

    def __init__(self, key: str, dtype: str, size: int, first: int = 0) -> None:
        self.key, self.dtype, self.size, self.first = key, dtype, size, first

    @property
    def itemsize(self) -> int:
        """Bytes a value."""
        return width(self.dtype)


class TensorRecord:
    """A tensor as a pickle describes it: where it begins in which storage, shape and strides in values."""

    __slots__ = (
        "attributes", "conjugate", "dtype", "negative", "offset", "parameter", "problem", "shape", "storage",
        "strides", "trainable",
    )  # fmt: skip

    def __init__(
        self, storage: StorageRecord | None, offset: Any, shape: Any, strides: Any, dtype: str | None = None
    ) -> None:
        self.storage, self.offset, self.shape, self.strides = (
            storage,
            _count(offset),
            _tuple(shape),
            _tuple(strides),
        )
        self.dtype = dtype or (storage.dtype if storage else "unknown")
        self.conjugate = self.negative = self.parameter = False
        self.trainable: bool | None = None
        self.problem: str | None = None
        self.attributes: Any = None  # what Python code has set on the tensor


def width(dtype: str) -> int:
    """Return the bytes a value of a torch dtype takes in a storage; 0 for a dtype that is not known here."""
    return (BITS.get(dtype) or UNREAD.get(dtype) or 8 * (dtype in _PACKED)) // 8


def storage_dtype(kind: object) -> str:
    """Return the dtype of a storage class, as ``torch.FloatStorage``."""
    if not isinstance(kind, Global) or not kind.name.endswith("Storage"):
        raise TypeError("a storage has no type")
    return _OF_STORAGE[kind.name.removesuffix("Storage")]


def dtype_name(kind: object) -> str:
    """Return the name of a dtype such as ``torch.float32``."""
    if not isinstance(kind, Global):
        raise TypeError("a dtype is expected")
    return _WORDS.get(kind.name, kind.name)


def interpret(target: Global, args: tuple[Any, ...]) -> Any:
    """Return the record that stands for what a function of torch would return, or ``NotImplemented``."""
    rebuild = _REBUILD.get(target.name) if target.module.partition(".")[0] == "torch" else None
    return NotImplemented if rebuild is None else rebuild(args)


def _tensor(args: tuple[Any, ...]) -> TensorRecord:
    storage, offset, shape, strides, *rest = args
    if not isinstance(storage, StorageRecord):
        raise TypeError("a tensor has no storage")
    record = TensorRecord(storage, offset, shape, strides)
    record.trainable = True if rest and rest[0] is True else None
    if len(rest) > 2:
        _apply_bits(record, rest[2])
    return record


def _tensor_v3(args: tuple[Any, ...]) -> TensorRecord:
    storage, offset, shape, strides, trainable, _hooks, dtype, *rest = args
    if not isinstance(storage, StorageRecord):
        raise TypeError("a tensor has no storage")
    record = TensorRecord(storage, offset, shape, strides, dtype_name(dtype))
    record.trainable = True if trainable is True else None
    if rest:
        _apply_bits(record, rest[0])
    return record


def _apply_bits(record: TensorRecord, metadata: Any) -> None:
    if isinstance(metadata, dict):
        record.conjugate, record.negative = metadata.get("conj") is True, metadata.get("neg") is True


def _parameter(args: tuple[Any, ...]) -> Any:
    data, trainable, *more = args
    if isinstance(data, TensorRecord):
        again = TensorRecord(data.storage, data.offset, data.shape, data.strides, data.dtype)
        again.conjugate, again.negative, again.problem = data.conjugate, data.negative, data.problem
        again.parameter, again.trainable = True, bool(trainable)
        again.attributes = data.attributes
        for state in more[1:]:  # after the hooks
            _attach(again, state)
        return again
    return data


def _quantized(args: tuple[Any, ...]) -> TensorRecord:
    record = _tensor(args[:4])
    record.problem = f"quantised ({record.dtype}): NumPy has no such dtype; dequantise it in torch"
    match args[4]:
        case (_, scales, zero_points, _):  # one for each channel
            record.attributes = {"scales": scales, "zero_points": zero_points}
    return record


def _sparse(args: tuple[Any, ...]) -> TensorRecord:
    layout, data = args[:2]
    shape = next((part for part in reversed(data) if isinstance(part, tuple)), ())
    values = next((part for part in reversed(data) if isinstance(part, TensorRecord)), None)
    record = TensorRecord(None, 0, shape, (), values.dtype if values else None)
    record.problem = f"sparse ({layout}): it has no dense values; make it dense in torch"
    return record


def _without_storage(args: tuple[Any, ...]) -> TensorRecord:
    dtype, shape = args[:2]
    record = TensorRecord(None, 0, shape, (), dtype_name(dtype))
    record.problem = "on the meta device: it was saved without values; save it from a real device"
    return record


def _subclass(args: tuple[Any, ...]) -> Any:
    function, _type, inner, *state = args
    if not isinstance(function, Global) or not isinstance(inner, tuple):
        return NotImplemented
    found = interpret(function, inner)
    if isinstance(found, TensorRecord):
        for attributes in state:
            _attach(found, attributes)
    return found


def _attach(record: TensorRecord, attributes: Any) -> None:
    record.attributes = attributes if record.attributes is None else [record.attributes, attributes]


_REBUILD: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "_rebuild_tensor": _tensor, "_rebuild_tensor_v2": _tensor, "_rebuild_tensor_v3": _tensor_v3,
    "_rebuild_parameter": _parameter, "_rebuild_parameter_with_state": _parameter,
    "_rebuild_qtensor": _quantized, "_rebuild_sparse_tensor": _sparse, "_rebuild_sparse_csr_tensor": _sparse,
    "_rebuild_meta_tensor_no_storage": _without_storage,
    "_rebuild_from_type": _subclass, "_rebuild_from_type_v2": _subclass,
    "_rebuild_device_tensor_from_numpy": lambda args: args[0],
    "_rebuild_device_tensor_from_cpu_tensor": lambda args: args[0],
    "Size": lambda args: _tuple(args[0]) if args else (), "device": lambda args: ":".join(map(str, args)),
    "_get_layout": lambda args: str(args[0]), "restore_type_tag": lambda args: args[0],
    "build_intlist": lambda args: args[0], "build_doublelist": lambda args: args[0],
    "build_boollist": lambda args: args[0], "build_tensorlist": lambda args: args[0],
}  # fmt: skip


def array_of(
    record: TensorRecord, source: Source | None, file: Source, member: str, big_endian: bool
) -> LazyArray:
    """Describe the array of a tensor of ``file`` whose storage lies in ``source``."""
    if source is None or record.storage is None or record.problem or BITS.get(record.dtype, 0) < 8:
        problem = record.problem or f"NumPy has no dtype {record.dtype}; convert it in torch"
        return RefusedArray(check_shape(record.shape, file, member), record.dtype, f"{member}: {problem}")
    start = record.storage.first * record.storage.itemsize
    return file_array(
        source,
        start + record.offset * width(record.dtype),
        record.shape,
        record.dtype,
        strides=record.strides,
        big_endian=big_endian,
        conjugate=record.conjugate,
        negative=record.negative,
        end=start + record.storage.size * record.storage.itemsize,
        member=member,
    )


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:40]} is no offset")
    return value


def _tuple(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise TypeError("a shape is no tuple")
    return tuple(value)
