"""NumPy: arrays in plain dicts, lists and tuples, as they are named where JAX opens them.

They are asked last, of what no framework that the user has imported recognises. Like a tree of JAX they are
never changed: a verb that changes something returns new containers.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from paratree.core.errors import MismatchError, UnsupportedError, printable
from paratree.core.tree import Origin, ParamTree
from paratree.frameworks._numpy_arrays import leaves_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from paratree.core.results import Group

    Path = tuple[Any, ...]

__all__ = ["assign", "freeze", "gradients", "groups", "matches", "open", "tie", "untie"]

_FORMAT = "arrays (NumPy)"  # not "NumPy", which is that of a file, without ties
_NEXT = "import jax, whose pytrees they are, or give the model"


def matches(source: object) -> bool:
    """Tell whether ``source`` is an array or a plain container with an array in it."""
    if isinstance(source, dict | list | tuple):
        return any(map(matches, source.values() if isinstance(source, dict) else source))
    return isinstance(source, np.ndarray | np.generic)


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of arrays in their containers; no value is copied.

    The collections of Flax variables are no part of the names. Numbers and texts are in ``tree.meta``.

    Args:
        source: dicts, lists and tuples, with arrays as leaves; or one array, whose name is then
            ``"parameter"``.
        grads: gradients in the same structure.

    Raises:
        MismatchError: ``grads`` are of another structure or shape.

    Example:
        >>> open({"dense": [np.ones(2)]})["dense.0"].native
        "params['dense'][0]"
    """
    title = type(source).__name__
    params, meta, notes = leaves_of(source)
    if grads is not None:
        given = leaves_of(grads)[0]
        for name, gradient in given.items():
            if name not in params:
                raise MismatchError(f"grads: no parameter '{printable(name)}' in {title}")
            if gradient.shape != (wants := params[name].shape):
                has = gradient.shape
                raise MismatchError(f"grads: '{printable(name)}' has the shape {has}, its parameter {wants}")
            params[name].live.gradient = gradient.value  # type: ignore[union-attr]
    return ParamTree(params, Origin(title, _FORMAT, meta, notes, immutable=True))


def assign(source: Any, tree: ParamTree, values: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Return containers of the same types with new arrays."""
    made = {name: _leaf(values[name], tree[name].handle) for name in values}
    return _with(source, tree, {other: made[name] for name in made for other in tree.tied_with(name)})


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> NoReturn:
    """Refuse: nothing would keep arrays one."""
    raise UnsupportedError(f"{printable(first)}: nothing keeps NumPy's arrays one; {_NEXT}")


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Return containers in which each name has an array of its own."""
    return _with(source, tree, {name: _leaf(tree[name].value, tree[name].handle) for name in names})


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> NoReturn:
    """Refuse: nothing trains them."""
    raise UnsupportedError(f"{printable(tree.source)}: nothing trains NumPy's arrays; {_NEXT}")


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> NoReturn:
    """Refuse: no optimizer takes them."""
    raise UnsupportedError(f"{printable(tree.source)}: no optimizer takes NumPy's arrays; {_NEXT}")


def gradients(source: Any, tree: ParamTree, *_: object) -> NoReturn:
    """Refuse: NumPy does not differentiate."""
    raise UnsupportedError(f"{printable(tree.source)}: NumPy does not differentiate; {_NEXT}")


def _leaf(values: np.ndarray[Any, Any], like: Any) -> Any:
    """Return values as a leaf of the same kind; a copy."""
    return np.array(values) if isinstance(like, np.ndarray) else type(like)(values[()])


def _with(source: Any, tree: ParamTree, leaves: Mapping[str, Any]) -> Any:
    lives: dict[str, Any] = {name: tree[name].live for name in leaves}
    return _rebuilt(source, (), {lives[name].path: leaf for name, leaf in leaves.items()})


def _rebuilt(node: Any, path: Path, places: Mapping[Path, Any]) -> Any:
    if isinstance(node, dict):
        made = copy.copy(node)
        made.update({key: _rebuilt(child, (*path, key), places) for key, child in node.items()})
        return made
    if isinstance(node, list | tuple):
        children = [_rebuilt(child, (*path, place), places) for place, child in enumerate(node)]
        return type(node)(*children) if hasattr(node, "_fields") else type(node)(children)
    return places.get(path, node)
