"""PyTorch: new values, ties, freezing and parameter groups, all in place."""

from __future__ import annotations

import copy
from collections.abc import MutableMapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from paratree.core.errors import MismatchError, UnsupportedError, printable
from paratree.frameworks._torch_tensors import tensor_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.results import Group
    from paratree.core.tree import ParamTree


def assign(source: Any, tree: ParamTree, values: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Copy new values into the tensors; whoever shares their memory sees them."""
    with torch.no_grad():
        for name, array in values.items():
            tensor = tree[name].handle
            tensor.copy_(tensor_of(array, tensor))
    return source


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> Any:
    """Register the parameter ``first`` in place of the others."""
    for name in others:
        _put(source, tree, name, tree[first].handle)
    return source


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Register a copy of its own for each name; a module that stands under several names is parted, too."""
    for name in names:
        tensor = tree[name].handle
        own = tensor.detach().clone()
        if isinstance(tensor, nn.Parameter):
            own = nn.Parameter(own, tensor.requires_grad)
        if isinstance(source, nn.Module):
            _part(source, _path(tree, name)[:-1])
        _put(source, tree, name, own)
    return source


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> Any:
    """Set ``requires_grad``."""
    for name in names:
        tree[name].handle.requires_grad = not frozen  # the method refuses lazy parameters
    return source


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return parameter groups as every ``torch.optim`` optimizer takes them."""
    if taken := next((g.label for g in groups if "params" in g.options), None):
        raise MismatchError(f"the options of {taken} have 'params', which are what the selector chooses")
    return [
        {"params": [leaf for name in g.names for leaf in leaves(tree, name)], **g.options} for g in groups
    ]


def leaves(tree: ParamTree, name: str) -> list[torch.Tensor]:
    """Return the tensors of a tied group: several, if they are one in memory only."""
    return tree.handles(tree.tied_with(name))


def _path(tree: ParamTree, name: str) -> list[str]:
    param = tree[name]
    return str(param.aliases[0] if param.aliases else name).split(".")


def _put(source: Any, tree: ParamTree, name: str, tensor: torch.Tensor) -> None:
    if isinstance(source, torch.jit.ScriptModule):
        raise UnsupportedError(
            f"{printable(name)}: a scripted module cannot be rewired; do it before scripting"
        )
    if isinstance(source, nn.Module):
        *above, key = _path(tree, name)
        setattr(source.get_submodule(".".join(above)), key, tensor)
    elif isinstance(source, MutableMapping) and name in source:
        source[name] = tensor
    else:
        raise UnsupportedError(
            f"{printable(name)}: a {type(source).__name__} has no place for another tensor; give the model"
        )


def _part(root: nn.Module, path: Sequence[str]) -> None:
    """Make every module on a path stand under that path alone; one met elsewhere, too, is copied."""
    parent = root
    for depth, key in enumerate(path, 1):
        child = parent._modules[key]
        if child is None:
            return
        here = ".".join(path[:depth])
        if any(m is child and name != here for name, m in root.named_modules(remove_duplicate=False)):
            child = _shallow(child)
            parent._modules[key] = child
        parent = child


def _shallow(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    for name, value in vars(module).items():
        if isinstance(value, dict | list | set):
            twin.__dict__[name] = value.copy()
    return twin
