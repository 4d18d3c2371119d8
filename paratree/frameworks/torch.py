"""PyTorch: every parameter and buffer of a module, under all its names, in its own memory.

Names and kinds are those of the moment the module was opened. Shape, dtype, value, gradient and whether it is
trained are asked of the live tensor each time, so ``net.half()`` or an optimizer step is seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from paratree.core.errors import MismatchError, printable
from paratree.core.layout import TORCH, layout_of
from paratree.core.names import BUFFER, PARAMETER, STATE, kind_of
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.frameworks._torch_changes import assign, freeze, groups, tie, untie
from paratree.frameworks._torch_gradients import differentiate, gradients
from paratree.frameworks._torch_tensors import TensorArray, unwritable

if TYPE_CHECKING:
    from typing import Any

    import numpy as np

    from paratree.core.array import Shape

    Step = tuple[str, str, str, nn.Module]  # prefix of names, the same with wrappers, expression, module

__all__ = [
    "array", "assign", "differentiate", "freeze", "gradients", "groups", "matches", "open", "tie", "untie",
]  # fmt: skip

_OF_RNN = re.compile(r"_l\d+(_reverse)?$")  # nn.LSTM numbers its weights: weight_ih_l0_reverse
_WRAPPERS = {  # class of PyTorch that wraps a module -> the name of the module in it
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "OptimizedModule": "_orig_mod",  # torch.compile
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
_LISTS, _DICTS = (nn.Sequential, nn.ModuleList), (nn.ModuleDict,)  # how modules are looked up in them
_OPTIMIZER = {"state", "param_groups"}  # the keys of an optimizer's state_dict


def matches(source: object) -> bool:
    """Tell whether ``source`` is a module, a tensor, or a container of tensors, as a state_dict."""
    if isinstance(source, nn.Module | torch.Tensor):
        return True
    return isinstance(source, Mapping | list | tuple) and any(True for _ in _tensors(source, "", "", False))


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of a module in the order of its ``state_dict``; no value is read or copied.

    A parameter that the module holds under several names stands under each. Buffers that are not saved
    (``persistent=False``) are in the tree too. Wrappers (DataParallel, torch.compile) are seen through.

    Args:
        source: a module, initialised or lazy; a ``state_dict``; a list of ``named_parameters()``; or one
            tensor, whose name is then ``"parameter"``.
        grads: gradients by name, as of ``torch.func.grad``; by default those that the parameters hold.

    Returns:
        The tree. ``value`` shares memory with the tensor if that is on the host, else it is a copy.

    Raises:
        MismatchError: ``grads`` do not fit the parameters.

    Example:
        >>> open(nn.Linear(4, 8))["weight"].layout
        'out in'
    """
    held = _gradients_by_name(grads)
    notes: list[str] = []
    if isinstance(source, nn.Module):
        params = _of_module(source, held, notes)
    else:
        params = {}
        for param in _of_container(source, held):
            if params.setdefault(param.name, param) is not param:
                raise MismatchError(
                    f"{type(source).__name__}: two tensors are named '{printable(param.name)}'"
                )
    if unknown := [name for name in held or () if name not in params]:
        raise MismatchError(f"grads: no parameter '{printable(unknown[0])}' in {type(source).__name__}")
    for name, gradient in (held or {}).items():
        if tuple(gradient.shape) != params[name].shape:
            has, wants = tuple(gradient.shape), params[name].shape
            raise MismatchError(f"grads: '{printable(name)}' has the shape {has}, its parameter {wants}")
    return ParamTree(params, Origin(type(source).__name__, "PyTorch", notes=notes))


def array(value: torch.Tensor, name: str) -> TensorArray:
    """Return the array of a tensor; ``name`` is what messages call it."""
    return TensorArray(value, name)


def _gradients_by_name(grads: Any) -> Mapping[str, torch.Tensor] | None:
    if grads is None or isinstance(grads, Mapping):
        return grads
    raise MismatchError("grads of a PyTorch model are given by name: {'2.weight': tensor}")


# A module


def _of_module(
    root: nn.Module, held: Mapping[str, torch.Tensor] | None, notes: list[str]
) -> dict[str, Param]:
    params: dict[str, Param] = {}
    for prefix, real, native, owner in _walk(root, notes):
        kind, owner_class, unsaved = PARAMETER, type(owner), owner._non_persistent_buffers_set
        for tensors in (owner._parameters, owner._buffers):
            for key, tensor in tensors.items():
                if tensor is None:
                    continue
                name = prefix + key
                gradient = None if held is None else held.get(name, False)
                alias = real + key if real != prefix else None
                expected = _lazy_shape(owner, key) if is_lazy(tensor) else (None,)
                live = _Live(tensor, kind, native, key, owner_class, alias, gradient)
                is_saved = kind == PARAMETER or key not in unsaved
                array = TensorArray(tensor, name, expected)
                params[name] = Param(name, array, kind, live=live, is_saved=is_saved)
            kind = BUFFER
    return params


def _walk(root: nn.Module, notes: list[str]) -> Iterator[Step]:
    """Yield every module under all its names; one that holds itself, which PyTorch allows, only once."""
    wrapped: dict[str, None] = {}
    waiting: list[tuple[Step, tuple[int, ...]]] = [(("", "", "net", root), ())]
    while waiting:
        step, above = waiting.pop()
        prefix, real, native, module = step
        if id(module) in above:
            continue
        yield step
        if not (children := module._modules):
            continue
        inside = _WRAPPERS.get(type(module).__name__) if _is_of_torch(type(module)) else None
        if inside is not None:
            wrapped[type(module).__name__] = None
        if "parametrizations" in children:
            notes += _computed(prefix, children["parametrizations"])
        deeper = (*above, id(module))
        for place, (key, child) in reversed([*enumerate(children.items())]):
            if child is not None:
                path = prefix if key == inside else f"{prefix}{key}."
                lists = _LISTS if key == str(place) else ()
                inner = _expression(native, key, type(module), lists, _DICTS)
                waiting.append(((path, f"{real}{key}.", inner, child), deeper))
    if wrapped:
        notes.insert(0, f"seen through {', '.join(wrapped)}: names are those of the model inside")


def _is_of_torch(module_class: type) -> bool:
    return module_class.__module__.partition(".")[0] == "torch"


def _computed(prefix: str, parametrizations: Any) -> Iterator[str]:
    """Say which weights are computed (weight_norm, spectral_norm) and from what."""
    for key, chain in parametrizations.items():
        by = ", then ".join(type(step).__name__.lstrip("_") for step in chain)
        parts = ", ".join(name for name, _ in chain.named_parameters(recurse=False))
        place = f"{prefix}parametrizations.{key}"
        yield f"{prefix}{key} is computed by {by} from {parts} in {place}"


def _expression(native: str, key: str, owner: type, lists: tuple[type, ...], dicts: tuple[type, ...]) -> str:
    """Return the Python expression for what is called ``key`` in the module of an expression."""
    if issubclass(owner, dicts):
        return f"{native}[{key!r}]"
    if issubclass(owner, lists) and key.isdecimal():
        return f"{native}[{key}]"
    return f"{native}.{key}" if key.isidentifier() else f"getattr({native}, {key!r})"


class _Live:
    """A parameter in a module, or in a container of tensors if it has no ``owner``."""

    __slots__ = ("_alias", "_gradient", "_key", "_kind", "_native", "_owner", "handle")

    def __init__(
        self,
        handle: Any,
        kind: str,
        native: str,
        key: str,
        owner: type | None,
        alias: str | None,
        gradient: Any,
    ) -> None:
        self.handle, self._kind, self._native, self._key, self._owner = handle, kind, native, key, owner
        self._alias, self._gradient = alias, gradient

    @property
    def native(self) -> str:
        """The expression: ``net[2].bias``."""
        if self._owner is None:
            return self._native
        return _expression(self._native, self._key, self._owner, (nn.ParameterList,), (nn.ParameterDict,))

    @property
    def aliases(self) -> tuple[str, ...]:
        """The name with those of the wrappers in it: ``module.2.bias``."""
        return () if self._alias is None else (self._alias,)

    @property
    def trainable(self) -> bool | None:
        """Whether it requires a gradient; ``None`` for a tensor of a state_dict, which is detached."""
        if self._owner is None and not isinstance(self.handle, nn.Parameter):
            return None
        return self._kind == PARAMETER and bool(self.handle.requires_grad)

    @property
    def unwritable(self) -> str | None:
        """Why PyTorch would not copy values into it."""
        return unwritable(self.handle, self.native)

    @property
    def layout(self) -> str | None:
        """Names of the axes, by the class of the module."""
        if self._owner is None or is_lazy(self.handle):
            return None if self._owner is None else _lazy_layout(self._owner, self._key)
        return _layout(self._owner, self._key, self.handle.dim())

    @property
    def grad(self) -> np.ndarray[Any, Any] | None:
        """The gradient given to ``open``, else the one that the parameter holds."""
        if self._kind != PARAMETER or self._gradient is False:
            return None
        gradient = self.handle.grad if self._gradient is None else self._gradient
        return None if gradient is None else TensorArray(gradient, f"gradient of {self._key}").read()


@lru_cache(maxsize=1024)
def _layout(owner: type, key: str, ndim: int) -> str | None:
    return layout_of(TORCH, _classes(owner), _OF_RNN.sub("", key), ndim)


def _lazy_layout(owner: type, key: str) -> str | None:
    found = (_layout(owner, key, ndim) for ndim in range(1, 6))
    return next((layout for layout in found if layout is not None), None)


def _classes(module_class: type) -> Iterator[str]:
    """Name the classes of a module, PyTorch's own bare and others with their package, as the table does."""
    for base in module_class.__mro__:
        yield base.__name__ if _is_of_torch(base) else f"{base.__module__.partition('.')[0]}.{base.__name__}"


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


# A container of tensors


def _of_container(source: Any, held: Mapping[str, torch.Tensor] | None) -> Iterator[Param]:
    for path, native, tensor, in_optimizer in _tensors(source, "", "params", False):
        name = path or "parameter"
        values = TensorArray(tensor, name)
        kind = STATE if in_optimizer else _kind(name, tensor, values.dtype)
        gradient = None if held is None else held.get(name, False)
        live = _Live(tensor, kind, native, name, None, None, gradient)
        yield Param(name, values, kind, live=live)


def _kind(name: str, tensor: torch.Tensor, dtype: str) -> str:
    if isinstance(tensor, nn.Parameter):
        return PARAMETER
    return BUFFER if isinstance(tensor, nn.Buffer) else kind_of(name, dtype)


def _tensors(
    source: Any, path: str, native: str, in_optimizer: bool
) -> Iterator[tuple[str, str, torch.Tensor, bool]]:
    """Yield the tensors of nested dicts, lists and pairs of a name and a tensor."""
    if isinstance(source, torch.Tensor):
        yield path, native, source, in_optimizer
        return
    if isinstance(source, Mapping):
        in_optimizer = in_optimizer or source.keys() >= _OPTIMIZER
        steps = [(str(key), f"{native}[{key!r}]", below) for key, below in source.items()]
    elif isinstance(source, list | tuple):
        steps = [_numbered(i, native, below) for i, below in enumerate(source)]
    else:
        return
    for key, expression, below in steps:
        yield from _tensors(below, f"{path}.{key}" if path else key, expression, in_optimizer)


def _numbered(place: int, native: str, below: Any) -> tuple[str, str, Any]:
    """Return what stands at a place of a list; a pair of a name and a tensor goes by its name."""
    if isinstance(below, tuple) and len(below) == 2 and isinstance(below[0], str):
        return below[0], f"{native}[{place}][1]", below[1]
    return str(place), f"{native}[{place}]", below
