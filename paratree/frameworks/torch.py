"""PyTorch: every parameter and buffer of a module, under all its names, in its own memory.

Names, kinds and layouts are those of the moment the module was opened. Shape, dtype, value and gradient are
asked of the live tensor each time, so ``net.half()`` or an optimizer step is seen. What cannot be read (not
yet initialised, sparse, quantized, on the meta device) is fixed when opened: change it, then open again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from paratree.core.array import RefusedArray, Storage, basic_index, normal_strides
from paratree.core.dtypes import is_known, numpy_dtype
from paratree.core.errors import UnreadableError, printable
from paratree.core.layout import TORCH, layout_of
from paratree.core.names import BUFFER, PARAMETER
from paratree.core.tree import Origin, Param, ParamTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    import numpy as np

    from paratree.core.array import Index, Shape
    from paratree.core.tree import Gradient

    Values = np.ndarray[Any, Any]

_OF_RNN = re.compile(r"_l\d+(_reverse)?$")  # nn.LSTM numbers its weights: weight_ih_l0_reverse
_NUMPY_LACKS = ("bfloat", "float8")
_NO_MEMORY: tuple[tuple[Callable[[torch.Tensor], bool], str], ...] = (  # what applies, what to say
    (is_lazy, "not initialised yet; run the model once on a batch of data, net(X), and open it again"),
    (lambda t: t.is_meta, "the meta device holds no values; load a checkpoint and open it again"),
    (lambda t: t.is_nested, "a nested tensor is no array; make it one with .to_padded_tensor(0.0)"),
    (lambda t: t.is_quantized, "{dtype} has no values without its scale; make it plain with .dequantize()"),
    (lambda t: t.layout is not torch.strided, "{layout} is no dense array; make it one with .to_dense()"),
    (lambda t: _is_wrapper(t), "{kind} computes its values; open a model of plain tensors"),
    (lambda t: _is_freed(t), "its memory was freed; bring the values back (FSDP: summon_full_params)"),
)


def matches(source: object) -> bool:
    """Tell whether ``source`` is a module: a model or a layer of it."""
    return isinstance(source, nn.Module)


def open(source: nn.Module) -> ParamTree:
    """Return the tree of a module in the order of its ``state_dict``; no value is read or copied.

    A parameter that the module holds under several names stands under each. Buffers that are not saved
    (``persistent=False``) are in the tree too.

    Args:
        source: the module, initialised or lazy.

    Returns:
        The tree. ``value`` shares memory with the tensor if that is on the host, else it is a copy.

    Example:
        >>> open(nn.Linear(4, 8))["weight"].layout
        'out in'
    """
    params: dict[str, Param] = {}
    for prefix, owner in _walk(source, "", ()):
        for kind, tensors in ((PARAMETER, owner._parameters), (BUFFER, owner._buffers)):
            for key, tensor in tensors.items():
                if tensor is not None:
                    params[prefix + key] = _param(prefix + key, tensor, kind, owner, key)
    return ParamTree(params, Origin(type(source).__name__, "PyTorch"))


def _walk(module: nn.Module, prefix: str, above: tuple[int, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module under all its names; one that holds itself, which PyTorch allows, only once."""
    if id(module) in above:
        return
    yield prefix, module
    for key, child in module._modules.items():
        if child is not None:
            yield from _walk(child, f"{prefix}{key}.", (*above, id(module)))


def _param(name: str, tensor: torch.Tensor, kind: str, owner: nn.Module, key: str) -> Param:
    shape = _lazy_shape(owner, key) if is_lazy(tensor) else _shape(tensor)
    array: TensorArray | RefusedArray = TensorArray(tensor, name)
    if array.problem is not None:
        array = RefusedArray(shape, _dtype(tensor), array.problem, _storage(tensor))
    return Param(
        name,
        array,
        kind,
        trainable=kind == PARAMETER and tensor.requires_grad,
        layout=layout_of(TORCH, _classes(owner), _OF_RNN.sub("", key), len(shape)),
        gradient=_gradient(tensor, name) if kind == PARAMETER else None,
    )


def _classes(module: nn.Module) -> Iterator[str]:
    """Name the classes of a module, PyTorch's own bare and others with their package, as the table does."""
    for base in type(module).__mro__:
        root = base.__module__.partition(".")[0]
        yield base.__name__ if root == "torch" else f"{root}.{base.__name__}"


def _gradient(tensor: torch.Tensor, name: str) -> Gradient:
    def grad() -> Values | None:
        return None if tensor.grad is None else TensorArray(tensor.grad, f"gradient of {name}").read()

    return grad


class TensorArray:
    """The array of a live tensor; ``name`` is what messages call it."""

    __slots__ = ("name", "tensor")

    def __init__(self, tensor: torch.Tensor, name: str) -> None:
        self.tensor, self.name = tensor, name

    @property
    def shape(self) -> Shape:
        """Length along each axis."""
        return _shape(self.tensor)

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
            return _values(self.tensor.detach())
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
    host = tensor.resolve_conj().resolve_neg().cpu()
    name = _dtype(host)
    if name.startswith(_NUMPY_LACKS):
        carried: Values = host.view(torch.int16 if host.itemsize == 2 else torch.uint8).numpy()
        return carried.view(numpy_dtype(name))
    values: Values = host.numpy()
    return values


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _shape(tensor: torch.Tensor) -> Shape:
    if tensor.is_nested:
        return (None,) * int(tensor.dim())
    return tuple(n if isinstance(n, int) else None for n in tensor.shape)


def _lazy_shape(module: nn.Module, key: str) -> Shape:
    """Return what a layer knows of a shape before it has seen data."""
    if isinstance(module, nn.Linear):
        return (module.out_features, None) if key == "weight" else (module.out_features,)
    if isinstance(module, nn.modules.conv._ConvNd):
        channels = module.out_channels
        if key != "weight":
            return (channels,)
        pair = (None, channels // module.groups) if module.transposed else (channels, None)
        return (*pair, *module.kernel_size)
    return (None,)


def _without_memory(tensor: torch.Tensor) -> str | None:
    words = next((words for applies, words in _NO_MEMORY if applies(tensor)), None)
    if words is None:
        return None
    return words.format(kind=type(tensor).__name__, dtype=_dtype(tensor), layout=tensor.layout)


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
    if not tensor.numel():
        return False
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    needed = (int(tensor.storage_offset()) + last + 1) * tensor.itemsize
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
