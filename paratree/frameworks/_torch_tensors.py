"""PyTorch tensors: their shape and dtype now, their values in the memory that PyTorch has them in."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from torch.nn.parameter import is_lazy

from paratree.core.array import Storage, basic_index, normal_strides
from paratree.core.dtypes import is_known, numpy_dtype
from paratree.core.errors import UnreadableError, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, Shape

    Values = np.ndarray[Any, Any]

_NUMPY_LACKS = ("bfloat", "float8", "int4", "uint4", "int2", "uint2")
_PLAIN = {int, slice}  # parts of an index that NumPy and we take alike
_NO_MEMORY: tuple[tuple[Callable[[torch.Tensor], bool], str], ...] = (  # what applies, what to say
    (is_lazy, "not initialised yet; run the model once on a batch of data, net(X)"),
    (lambda t: t.is_meta, "the meta device holds no values; load a checkpoint and open it again"),
    (lambda t: t.is_nested, "a nested tensor is no array; make it one with .to_padded_tensor(0.0)"),
    (lambda t: t.is_quantized, "{dtype} has no values without its scale; make it plain with .dequantize()"),
    (lambda t: t.layout is not torch.strided, "{layout} is no dense array; make it one with .to_dense()"),
    (
        lambda t: type(t).__name__ == "DTensor",
        "a part of it is here; .full_tensor() gathers it on every rank",
    ),
    (lambda t: _is_wrapper(t), "{kind} computes its values; open a model of plain tensors"),
    (lambda t: _is_freed(t), "its memory was freed; bring the values back (FSDP: summon_full_params)"),
)


class TensorArray:
    """The array of a live tensor; ``name`` is what messages call it.

    ``expected`` is what is known of the shape while the tensor is not initialised.
    """

    __slots__ = ("expected", "name", "tensor")

    def __init__(self, tensor: torch.Tensor, name: str, expected: Shape = (None,)) -> None:
        self.tensor, self.name, self.expected = tensor, name, expected

    @property
    def shape(self) -> Shape:
        """Length along each axis."""
        return self.expected if is_lazy(self.tensor) else _shape(self.tensor)

    @property
    def dtype(self) -> str:
        """Name of the dtype, without the ``torch.`` before it."""
        return _dtype(self.tensor)

    @property
    def storage(self) -> Storage:
        """The memory, alive as long as the storage object is, so that no other can come to its address."""
        return _storage(self.tensor)

    @property
    def problem(self) -> str | None:
        """Why there is no value to read now."""
        words = _without_memory(self.tensor)
        if words is None and not is_known(self.dtype):
            words = f"NumPy has no {self.dtype}; convert it in PyTorch, or read its bytes: .view(torch.uint8)"
        return None if words is None else f"{printable(self.name)}: {words}"

    def read(self, index: Index = ...) -> Values:
        """Return the live memory at a basic index, or a copy of that part from a device.

        Raises:
            IndexError: the index does not fit the shape.
            UnreadableError: NumPy cannot hold the values, or they are gone.
        """
        if (problem := self.problem) is not None:
            raise UnreadableError(problem)
        if index is ...:
            return _values(self.tensor)
        parts = index if isinstance(index, tuple) else (index,)
        if self.tensor.is_cpu and set(map(type, parts)) <= _PLAIN:
            return _values(self.tensor)[(*parts, ...)]
        part, back = _part(self.tensor.detach(), index)
        return _values(part)[back]


def _part(tensor: torch.Tensor, index: Index) -> tuple[torch.Tensor, Index]:
    """Return the part at a basic index, and how to turn it round: PyTorch has no negative steps."""
    chosen: list[int | slice] = []
    back: list[Any] = []
    for part in basic_index(index, tuple(tensor.shape)):
        if isinstance(part, int):
            chosen.append(part)
            continue
        forward = part if part.step > 0 else part[::-1]
        chosen.append(slice(forward.start, forward.stop, forward.step) if part else slice(0, 0))
        back.append(slice(None, None, 1 if part.step > 0 else -1))
    return tensor[tuple(chosen)], (*back, ...)  # the Ellipsis keeps a single value an array


def _values(tensor: torch.Tensor) -> Values:
    name = _dtype(tensor)
    if name.startswith(_NUMPY_LACKS):
        carried: Values = tensor.view(torch.int16 if tensor.itemsize == 2 else torch.uint8).numpy(force=True)
        return carried.view(numpy_dtype(name))
    values: Values = tensor.numpy(force=True)
    return values


def tensor_of(values: Values, like: torch.Tensor) -> torch.Tensor:
    """Return NumPy values as a tensor of the dtype and on the device of ``like``; a copy."""
    import numpy as np

    carried = np.array(values, order="C")
    if _dtype(like).startswith(_NUMPY_LACKS):
        carried = carried.view(np.int16 if carried.itemsize == 2 else np.uint8)
    return torch.from_numpy(carried).view(like.dtype).to(like.device)


def unwritable(tensor: torch.Tensor, native: str) -> str | None:
    """Say why values cannot be copied into a tensor that has memory, and what to do; ``native`` is it."""
    if tensor.is_inference() and not torch.is_inference_mode_enabled():
        fact = "made under torch.inference_mode() and fixed outside it"
        return f"{fact}; load inside it, or make the model outside"
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    if tensor.numel() and any(step == 0 and n > 1 for n, step in steps):
        fix = f"put {native}.detach().clone() in its place, of a parameter in an nn.Parameter"
        return f"expanded, so that one value in memory stands for several; {fix}"
    return None


def _dtype(tensor: torch.Tensor) -> str:
    return _name_of(tensor.dtype)


@cache
def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(tensor: torch.Tensor) -> Shape:
    if tensor.is_nested:
        return (None,) * int(tensor.dim())
    shape = tuple(tensor.shape)
    return (
        shape if set(map(type, shape)) <= {int} else tuple(n if isinstance(n, int) else None for n in shape)
    )


def _without_memory(tensor: torch.Tensor) -> str | None:
    for applies, words in _NO_MEMORY:
        if applies(tensor):
            return words.format(kind=type(tensor).__name__, dtype=_dtype(tensor), layout=tensor.layout)
    return None


def _is_wrapper(tensor: torch.Tensor) -> bool:
    """Tell whether the class, as DTensor's, or a transform, as vmap, stands between tensor and memory."""
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return True
    try:
        tensor.untyped_storage()
    except NotImplementedError:
        return True
    return False


def _is_freed(tensor: torch.Tensor) -> bool:
    """Tell whether the memory is too small for the tensor, as FSDP leaves it: NumPy would read past it."""
    if not (size := tensor.numel()):
        return False
    if not tensor.is_contiguous():
        size = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (int(tensor.storage_offset()) + size) * tensor.itemsize
    return bool(needed > tensor.untyped_storage().nbytes())


def _storage(tensor: torch.Tensor) -> Storage:
    if _without_memory(tensor) is not None:
        return Storage(_Memory(("object", id(tensor)), tensor))
    memory = tensor.untyped_storage()
    place = (str(tensor.device), memory.data_ptr(), tensor.is_conj(), tensor.is_neg())
    strides = normal_strides(tuple(tensor.shape), tensor.stride())
    return Storage(_Memory(place, memory), int(tensor.storage_offset()) * tensor.itemsize, strides)


class _Memory:
    """An address as a key, with its owner, which is kept alive so that the address stays its own."""

    __slots__ = ("_owner", "_place")

    def __init__(self, place: tuple[Any, ...], owner: object) -> None:
        self._place, self._owner = place, owner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Memory) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)

    def __repr__(self) -> str:
        return f"<{self._place[0]} at {self._place[1]:#x}>"
