"""Tensors of a GGUF file: their types, and arrays of quantised blocks that are read a part at a time."""

from __future__ import annotations

from math import prod

from paratree.core.array import RefusedArray, basic_index
from paratree.core.dtypes import BLOCKS, nbytes
from paratree.core.errors import CorruptFileError, MissingPackageError, UnreadableError, printable
from paratree.files.array import check_shape, file_array
from paratree.files.composed import slice_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, LazyArray, Storage
    from paratree.files.array import FileArray
    from paratree.files.local import LocalFile
    from paratree.formats._gguf_header import Tensor

TYPES = {  # number of a type of ggml -> name of the dtype
    0: "float32", 1: "float16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1",
    10: "q2_k", 11: "q3_k", 12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k",
    16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s", 22: "iq2_s",
    23: "iq4_xs", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 29: "iq1_m",
    30: "bfloat16", 31: "q4_0_4_4", 32: "q4_0_4_8", 33: "q4_0_8_8", 34: "tq1_0", 35: "tq2_0",
    36: "iq4_nl_4_4", 37: "iq4_nl_4_8", 38: "iq4_nl_8_8", 39: "mxfp4", 40: "nvfp4", 41: "q1_0",
}  # fmt: skip
_INTERMEDIATE = "a type of intermediate results, which gguf does not dequantise"
_INTERLEAVED = "rows interleaved for one kind of processor, which gguf does not dequantise; quantise it again"
REFUSED = {  # quantised dtypes without values -> why
    "q8_1": _INTERMEDIATE, "q8_k": _INTERMEDIATE, "q1_0": "gguf 0.19 does not dequantise q1_0",
    "q4_0_4_4": _INTERLEAVED, "q4_0_4_8": _INTERLEAVED, "q4_0_8_8": _INTERLEAVED,
    "iq4_nl_4_4": _INTERLEAVED, "iq4_nl_4_8": _INTERLEAVED, "iq4_nl_8_8": _INTERLEAVED,
}  # fmt: skip
HALVES = {  # where a block has numbers of two bytes, for the quantised dtypes that gguf can write big-endian
    "q4_0": (0,), "q8_0": (0,), "q4_k": (0, 2), "q6_k": (208,), "mxfp4": (), "nvfp4": (),
}  # fmt: skip


_WIDEST = 8  # bytes of a value, dequantised or not


def stored_bytes(file: LocalFile, tensor: Tensor) -> int:
    """Return how many bytes a tensor takes.

    Raises:
        CorruptFileError: its type is unknown, its shape is none, or its rows are no whole number of blocks.
    """
    shape = check_shape(tensor.shape, file, tensor.name, _WIDEST)
    if (dtype := TYPES.get(tensor.type)) is None:
        raise CorruptFileError(
            file.path, f"{tensor.type} is not the number of a type of ggml", offset=tensor.place,
            member=tensor.name, advice="a newer paratree may know it, or the file is damaged",
        )  # fmt: skip
    row = shape[-1] if shape else 1
    if dtype in BLOCKS and row % BLOCKS[dtype][0]:
        raise CorruptFileError(
            file.path, f"{row} values in a row are no whole number of {dtype} blocks of {BLOCKS[dtype][0]}",
            offset=tensor.place, member=tensor.name,
        )  # fmt: skip
    return nbytes(prod(shape), dtype)


def tensor_array(file: LocalFile, tensor: Tensor, data: int, big_endian: bool) -> LazyArray:
    """Describe the array of a tensor that :func:`stored_bytes` has checked.

    Args:
        file: the file.
        tensor: what the header says.
        data: where the data of all tensors begins.
        big_endian: the byte order of the file.

    Raises:
        CorruptFileError: it does not lie in the file.
    """
    name, shape, dtype, offset = tensor.name, tensor.shape, TYPES[tensor.type], data + tensor.offset
    if dtype not in BLOCKS:
        return file_array(file, offset, shape, dtype, big_endian=big_endian, member=name)
    values, width = BLOCKS[dtype]
    blocks = file_array(file, offset, (*shape[:-1], shape[-1] // values, width), "uint8", member=name)
    why = REFUSED.get(dtype)
    if big_endian and dtype not in HALVES:
        why = f"{dtype} in a big-endian file, which gguf does not convert"
    if why is not None:
        return RefusedArray(shape, dtype, f"{name}: {why}", blocks.storage)
    kept = SwappedBlocks(blocks, HALVES[dtype]) if big_endian else blocks
    return QuantisedArray(kept, shape, dtype, tensor.type, printable(file.path))


class SwappedBlocks:
    """The blocks of a big-endian file, as a little-endian file would hold them."""

    __slots__ = ("_blocks", "_halves", "dtype", "shape", "storage")

    problem = None

    def __init__(self, blocks: FileArray, halves: tuple[int, ...]) -> None:
        self._blocks, self._halves = blocks, halves
        self.shape, self.dtype, self.storage = blocks.shape, blocks.dtype, blocks.storage

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return bytes at a basic index; whole blocks are read for them.

        Raises:
            IndexError: the index does not fit the shape.
            CorruptFileError: the file has changed since it was opened.
        """
        *outer, last = basic_index(index, self.shape)
        blocks = self._blocks.read(tuple(slice_of(p) if isinstance(p, range) else p for p in outer))
        swapped = blocks.copy()
        for place in self._halves:
            swapped[..., place], swapped[..., place + 1] = blocks[..., place + 1], blocks[..., place]
        return swapped[..., slice_of(last) if isinstance(last, range) else last]


class QuantisedArray:
    """An array in blocks of ggml: the blocks that are asked for are read and dequantised, by gguf.

    Attributes:
        blocks: the blocks as little-endian bytes: the shape of the array, but in its last axis the number of
            blocks, and an axis more, the bytes of one.
    """

    __slots__ = ("_place", "_type", "blocks", "dtype", "shape")

    problem = None

    def __init__(
        self, blocks: FileArray | SwappedBlocks, shape: tuple[int, ...], dtype: str, type: int, place: str
    ) -> None:
        self.blocks, self.shape, self.dtype = blocks, shape, dtype
        self._type, self._place = type, place

    @property
    def storage(self) -> Storage:
        """The blocks."""
        return self.blocks.storage

    def read(self, index: Index = ...) -> np.ndarray[Any, Any]:
        """Return the values at a basic index, as float32.

        Raises:
            IndexError: the index does not fit the shape.
            CorruptFileError: the file has changed since it was opened.
            MissingPackageError: gguf is not installed.
            UnreadableError: the gguf that is installed does not dequantise the type.
        """
        import numpy as np

        *outer, last = basic_index(index, self.shape)
        places = last if isinstance(last, range) else range(last, last + 1)
        values = BLOCKS[self.dtype][0]
        low = min(places[0], places[-1]) // values if places else 0
        high = max(places[0], places[-1]) // values + 1 if places else 0
        rows = [slice_of(part) if isinstance(part, range) else part for part in outer]
        blocks = self.blocks.read((*rows, slice(low, high)))
        found = np.empty((*blocks.shape[:-2], (high - low) * values), np.float32)
        if found.size:
            found = self._dequantised(blocks.reshape(*blocks.shape[:-2], -1))
        taken = slice_of(places, low * values) if isinstance(last, range) else last - low * values
        return np.asarray(found[..., taken])

    def _dequantised(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        import numpy as np

        place = self._place
        try:
            from gguf.constants import GGMLQuantizationType
            from gguf.quants import dequantize
        except ImportError as error:
            raise MissingPackageError(
                f"{place}: {self.dtype} is dequantised by gguf; pip install 'paratree[gguf]' ({error})"
            ) from None
        try:
            with np.errstate(all="ignore"):  # a scale may be anything
                found: np.ndarray[Any, Any] = dequantize(rows, GGMLQuantizationType(self._type))
        except (ValueError, NotImplementedError):
            raise UnreadableError(
                f"{place}: the gguf that is installed does not dequantise {self.dtype}; "
                "pip install --upgrade gguf"
            ) from None
        return found
