"""JAX: any pytree of arrays, its leaves in the order and under the keys of its containers.

Flax linen variables, Haiku parameters, Equinox modules and Optax states are such trees. Arrays cannot be
changed, so every verb that changes something returns a new tree of the same structure and types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from paratree.frameworks._jax_arrays import JaxArray, is_array
from paratree.frameworks._jax_changes import assign, freeze, groups, tie, untie
from paratree.frameworks._jax_gradients import differentiate, gradients
from paratree.frameworks._jax_open import tree_of
from paratree.frameworks._jax_trees import children

if TYPE_CHECKING:
    from typing import Any

    from paratree.core.tree import ParamTree

__all__ = [
    "array", "assign", "differentiate", "freeze", "gradients", "groups", "matches", "open", "tie", "untie",
]  # fmt: skip


def matches(source: object) -> bool:
    """Tell whether ``source`` is an array or a pytree with an array in it."""
    below = children(source)
    if below is None:
        return is_array(type(source))
    return any(matches(child) for _, _, child in below)


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of a pytree; no value is read or moved.

    The collections of Flax variables are no part of the names: ``params`` are the parameters,
    ``batch_stats`` and other state are buffers, what was sown is neither. Optax states are the state of an
    optimizer. Python numbers among the leaves are in ``tree.meta``.

    Args:
        source: nested dicts, lists, tuples, named tuples and registered classes, with arrays as leaves; or
            one
            array, whose name is then ``"parameter"``.
        grads: gradients in the same structure, or in that of the parameters alone; ``None`` where there is
            none.

    Returns:
        The tree. ``value`` is the memory of the array, read-only, if that is on the host, else a copy.

    Raises:
        MismatchError: ``grads`` are of another structure or shape; it names the first path.

    Example:
        >>> open({"dense": {"w": jax.numpy.ones((2, 3))}})["dense.w"].native
        "params['dense']['w']"
    """
    whole = isinstance(source, Mapping | list | tuple) or is_array(type(source))
    return tree_of(source, native="params" if whole else "net", title=type(source).__name__, grads=grads)


def array(value: Any, name: str) -> JaxArray:
    """Return the array of a leaf; ``name`` is what messages call it."""
    return JaxArray(value, name)
