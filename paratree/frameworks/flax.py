"""Flax: linen variables and modules, NNX modules and states, training states.

Linen keeps the parameters outside the module, as a pytree of JAX, which is what these functions pass it on
as. NNX keeps them in the module, which is changed in place.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from paratree.frameworks import _jax_changes as pytrees
from paratree.frameworks import jax as of_jax

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import ModuleType
    from typing import Any

    import numpy as np

    from paratree.core.results import Derivative, Group
    from paratree.core.tree import ParamTree


def matches(source: object) -> bool:
    """Tell whether ``source`` is a linen module, an NNX object, or a pytree with an array in it."""
    return _is_nnx(source) or _is_linen(source) or of_jax.matches(source)


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of a module, of variables or of a state; no value is read or moved.

    A linen module that is not bound has no parameters yet: what is known of them without data is listed.
    In NNX, ``nnx.Param`` are the parameters, random number generators and what was sown are neither
    parameters nor buffers, and every other variable is a buffer; the names are the paths of attributes, in
    the order of definition.

    Args:
        source: a linen module, its variables (dict or ``FrozenDict``), a ``TrainState``; an NNX module,
            state, optimizer or variable.
        grads: gradients in the structure of the source or of its parameters: for NNX, what ``nnx.grad``
            returns.

    Returns:
        The tree. ``value`` is the memory of the array, read-only, if that is on the host, else a copy.

    Raises:
        MismatchError: ``grads`` are of another structure or shape; it names the first path.

    Example:
        >>> open(nnx.Linear(4, 8, rngs=nnx.Rngs(0)))["kernel"].layout  # doctest: +SKIP
        'in out'
    """
    if _is_nnx(source):
        from paratree.frameworks import _flax_nnx

        return _flax_nnx.open(source, grads=grads)
    if _is_linen(source):
        from paratree.frameworks import _flax_linen

        return _flax_linen.open(source, grads=grads)
    return of_jax.open(source, grads=grads)


def assign(source: Any, tree: ParamTree, values: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Set the variables of NNX, and return a new tree of others."""
    return _changes(source).assign(source, tree, values)


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> Any:
    """Put one variable in several places of an NNX model; part variables of linen into a ``Tied``."""
    return _changes(source).tie(source, tree, first, others)


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Give each name a variable, or an array, of its own."""
    return _changes(source).untie(source, tree, names)


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> Any:
    """Return a ``Partition``; for NNX, its ``mask`` is a filter and its parts are states."""
    return _changes(source).freeze(source, tree, names, frozen)


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> Any:
    """Return ``Labels``; for NNX, a state of them."""
    return _changes(source).groups(source, tree, groups)


def gradients(
    source: Any,
    tree: ParamTree,
    loss: Callable[..., Any],
    batch: tuple[Any, ...],
    names: Sequence[str],
    per_use: bool,
) -> Derivative:
    """Differentiate the loss of variables, or of a copy of an NNX model."""
    module: Any = _changes(source) if _is_nnx(source) or _is_linen(source) else of_jax
    found: Derivative = module.gradients(source, tree, loss, batch, names, per_use)
    return found


def _changes(source: Any) -> ModuleType:
    """Return the module that changes such a source.

    Raises:
        UnsupportedError: it is a linen module, which holds no parameters.
    """
    if _is_linen(source):
        from paratree.frameworks._flax_linen import refuse

        refuse(source)
    if _is_nnx(source):
        from paratree.frameworks import _flax_nnx_changes

        return _flax_nnx_changes
    return pytrees


def _is_nnx(source: object) -> bool:
    """Tell whether a source is of NNX; who has such a source has imported it, which takes long."""
    if "flax.nnx" not in sys.modules:
        return False
    from paratree.frameworks._flax_nnx import is_nnx

    return is_nnx(source)


def _is_linen(source: object) -> bool:
    bases = type(source).__mro__
    return any(base.__name__ == "Module" and base.__module__.startswith("flax.linen") for base in bases)
