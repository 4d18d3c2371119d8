"""MXNet arrays: their shape and dtype now, their values in the memory that MXNet has them in.

oneDNN, which MXNet's processor build calculates with, lays the weights of convolutions out anew, inside their
memory, when the model is run for inference, and puts them back when it is trained or read. A view taken
before would then show values in another order, and writing through it would spoil them. What oneDNN may lay
out is therefore read as a copy that cannot be written to; everything else shares memory (measured on 1.9.1,
which never moves the memory itself: ``src/ndarray/ndarray.cc``).
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import mxnet
import numpy as np

from paratree.core.array import Storage
from paratree.core.dtypes import is_known, numpy_dtype
from paratree.core.errors import UnreadableError, printable

if TYPE_CHECKING:
    from typing import Any

    Values = np.ndarray[Any, Any]

_BFLOAT16 = np.dtype([("bfloat16", np.uint16)])  # what MXNet calls it in NumPy's terms
_ON_HOST = ("cpu", "cpu_pinned", "cpu_shared")
_LAID_OUT_ANEW = {"float32": 3, "bfloat16": 3, "int8": 2, "uint8": 2}  # dtype -> from how many axes on


class HeldArray:
    """An MXNet array that is no parameter, to be read once; ``name`` is what messages call it."""

    __slots__ = ("_array", "_name")

    def __init__(self, array: Any, name: str) -> None:
        self._array, self._name = array, name

    def read(self) -> Values:
        """Return the values.

        Raises:
            UnreadableError: NumPy cannot hold them.
        """
        if (problem := problem_of(self._array, self._name)) is not None:
            raise UnreadableError(problem)
        return values_of(self._array)


def shape_of(array: Any) -> tuple[int, ...]:
    """Return the length along each axis."""
    return tuple(int(n) for n in array.shape)


@lru_cache(maxsize=256)
def dtype_name(dtype: Any) -> str:
    """Return the name of what MXNet takes for a dtype: a name, a NumPy type, or its own word for bfloat16."""
    if dtype is None:
        return "float32"  # MXNet's default
    return "bfloat16" if dtype in ("bfloat16", _BFLOAT16) else np.dtype(dtype).name


def problem_of(array: Any, name: str) -> str | None:
    """Return why NumPy cannot read an array, or ``None``; ``name`` is what the message calls it."""
    if array.stype != "default":
        return f'{printable(name)}: {array.stype} is no dense array; make it one with .tostype("default")'
    if not is_known(dtype := dtype_name(array.dtype)):
        return f"{printable(name)}: NumPy has no {dtype}; convert it in MXNet, with .astype"
    return None


def values_of(array: Any) -> Values:
    """Return the values of a dense array: its memory, or a copy of it that cannot be written to.

    Copies are made of what is on a device, and of what oneDNN may lay out anew.
    """
    dtype, shape = dtype_name(array.dtype), shape_of(array)
    if 0 in shape:
        return np.empty(shape, numpy_dtype(dtype))
    address = None if _may_be_laid_out_anew(dtype, len(shape)) else _address(array)
    if (
        address is not None
    ):  # the caller may write: what reads the array in the background has to be done, too
        mxnet.base.check_call(mxnet.base._LIB.MXNDArrayWaitToWrite(array.handle))
        return _seen(array, address, shape, dtype)
    copied: Values = array.asnumpy().view(_carrier(dtype)).view(numpy_dtype(dtype))
    copied.flags.writeable = False
    return copied


def array_of(values: Values, like: Any) -> Any:
    """Return NumPy values as an array on the host, of the class and dtype of ``like``; a copy."""
    make = mxnet.np.empty if isinstance(like, mxnet.np.ndarray) else mxnet.nd.empty
    array = make(shape_of(like), dtype=like.dtype, ctx=mxnet.cpu())
    if (address := _address(array)) is not None:
        _seen(array, address, shape_of(like), dtype_name(like.dtype))[...] = values
    return array


def storage_of(array: Any) -> Storage:
    """Return the memory of an array, kept alive by the result, so that no other can come to its address."""
    if array.stype != "default" or (address := _address(array)) is None:
        return Storage(_Place(("object", id(array)), array))
    return Storage(_Place((str(array.context), address), array))


def storage_of_object(owner: object) -> Storage:
    """Return what stands for the memory of a parameter that has none yet."""
    return Storage(_Place(("object", id(owner)), owner))


@cache
def _has_onednn() -> bool:
    return bool(mxnet.runtime.Features().is_enabled("MKLDNN"))


def _may_be_laid_out_anew(dtype: str, ndim: int) -> bool:
    return ndim >= _LAID_OUT_ANEW.get(dtype, 99) and _has_onednn()


def _address(array: Any) -> int | None:
    """Return where the first value is in the host's memory; ``None`` on a device and for an empty array.

    What oneDNN has laid out anew is put back by this call.
    """
    if array.context.device_type not in _ON_HOST:
        return None
    address = ctypes.c_void_p()
    library, check = mxnet.base._LIB, mxnet.base.check_call
    check(library.MXNDArrayWaitToRead(array.handle))  # MXNet calculates in the background
    check(library.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return address.value


def _carrier(dtype: str) -> np.dtype[Any]:
    """Return a dtype of NumPy's own, of the same width."""
    return np.dtype(np.uint16 if dtype == "bfloat16" else dtype)


def _seen(array: Any, address: int, shape: tuple[int, ...], dtype: str) -> Values:
    memory = _Memory(array, address, shape, _carrier(dtype))
    return np.asarray(memory).view(numpy_dtype(dtype))


class _Memory:
    """The memory of an array for NumPy, which keeps this object, and so the array, while it looks at it."""

    def __init__(self, array: Any, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._array = array
        self.__array_interface__ = {
            "version": 3, "data": (address, False), "shape": shape, "typestr": dtype.str,
        }  # fmt: skip


class _Place:
    """A place in memory as a key, with its owner, which is kept alive so that the place stays its own."""

    __slots__ = ("_owner", "_place")

    def __init__(self, place: tuple[str, int], owner: object) -> None:
        self._place, self._owner = place, owner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Place) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)

    def __repr__(self) -> str:
        return f"<{self._place[0]} at {self._place[1]:#x}>"
