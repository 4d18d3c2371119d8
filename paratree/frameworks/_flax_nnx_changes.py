"""Flax NNX: new values and ties in place, freezing as a filter, groups as labels, gradients of a copy."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import jax
from flax import nnx

from paratree.core.errors import UnsupportedError, printable
from paratree.core.results import Labels, Partition
from paratree.frameworks._flax_nnx import open as open_tree
from paratree.frameworks._flax_nnx import put, walk
from paratree.frameworks._jax_arrays import leaf_of
from paratree.frameworks._jax_changes import NOT_TRAINED
from paratree.frameworks._jax_gradients import derivative
from paratree.frameworks._jax_open import is_inexact

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.results import Derivative, Group
    from paratree.core.tree import ParamTree
    from paratree.frameworks._flax_nnx import Place


def assign(source: Any, tree: ParamTree, values: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Set the variables; an array without one is replaced in its module."""
    for name, array in values.items():
        it = tree[name].live
        new = leaf_of(array, it.leaf)
        if isinstance(it.handle, nnx.Variable):
            it.handle.set_value(new)
        else:
            _put(name, it, new)
    return source


def _put(name: str, it: Any, new: Any) -> None:
    if not put(it.place.holder, it.key, new):
        kind = type(it.place.holder).__name__
        raise UnsupportedError(
            f"{printable(name)}: a {kind} cannot be changed in place; make it an nnx.List or an nnx.Dict"
        )


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> Any:
    """Put the variable ``first`` in the places of the others."""
    if not isinstance(tree[first].handle, nnx.Variable):
        raise UnsupportedError(
            f"{printable(first)}: an array without a variable has no identity; make it one, nnx.Param(array)"
        )
    for name in others:
        _put(name, tree[name].live, tree[first].handle)
    return source


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Put a copy of its own in each place; a module that stands under several paths is parted, too."""
    for name in names:
        path = open_tree(source)[name].live.path
        for depth in range(1, len(path)):
            _part(source, path[:depth])
        it = open_tree(source)[name].live
        _put(name, it, it.handle.copy())
    return source


def _part(source: Any, path: tuple[Any, ...]) -> None:
    """Make a module stand under one path alone: one met elsewhere, too, is copied, shallowly."""
    holders: list[tuple[Place, Any, Any]] = []
    walk(source, lambda *leaf: None, lambda place, key, holder: holders.append((place, key, holder)))
    place, key, child = next(found for found in holders if found[0].path_to(found[1]) == path)
    if any(holder is child and at.path_to(k) != path for at, k, holder in holders):
        put(place.holder, key, copy.copy(child))


class Trained:
    """A filter of NNX for what is trained: real ``nnx.Param`` but for some paths.

    For ``nnx.Optimizer(model, tx, wrt=...)``, ``nnx.grad(..., argnums=nnx.DiffState(0, ...))``,
    ``nnx.split``.
    """

    __slots__ = ("_frozen",)

    def __init__(self, frozen: frozenset[tuple[Any, ...]]) -> None:
        self._frozen = frozen

    def __call__(self, path: tuple[Any, ...], value: Any) -> bool:
        """Tell whether what stands at a path is trained."""
        return (
            isinstance(value, nnx.Param)
            and is_inexact(value.get_raw_value())
            and tuple(path) not in self._frozen
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trained) and self._frozen == other._frozen

    def __hash__(self) -> int:
        return hash(self._frozen)

    def __repr__(self) -> str:
        return f"<filter: nnx.Param, {len(self._frozen)} paths frozen>"


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> Partition:
    """Part the state; ``mask`` is the filter, ``merge`` makes a model of the two states."""
    left = names if frozen else ()
    mask = Trained(frozenset(tree[name].live.path for name in left))
    graphdef, trainable, rest = nnx.split(source, mask, ...)
    return Partition(mask, trainable, rest, lambda trained, others: nnx.merge(graphdef, trained, others))


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> Labels:
    """Return the state of the parameters, with labels in it: ``nnx.Optimizer(..., wrt=nnx.Param)``."""
    labels = {id(tree[name].handle): group.label for group in groups for name in group.names}
    state = nnx.state(source, nnx.Param)
    labelled = nnx.map_state(lambda path, variable: labels.get(id(variable), NOT_TRAINED), state)
    options: dict[str, Mapping[str, Any]] = {group.label: group.options for group in groups}
    number = sum(label == NOT_TRAINED for _, label in nnx.to_flat_state(labelled))
    return Labels(labelled, options | {NOT_TRAINED: {}} if number else options)


def gradients(
    source: Any,
    tree: ParamTree,
    loss: Callable[..., Any],
    batch: tuple[Any, ...],
    names: Sequence[str],
    per_use: bool,
) -> Derivative:
    """Differentiate the loss of a copy of the model, whose variables hold the arrays that JAX traces."""

    def of_leaves(leaves: Sequence[Any]) -> Any:
        twin = _twin(source)
        params = open_tree(twin)
        for name, leaf in zip(names, leaves, strict=True):
            params[name].handle.set_raw_value(leaf)
        return loss(twin, *batch)

    return derivative(of_leaves, [tree[name].handle.get_raw_value() for name in names], per_use)


def _twin(source: Any) -> Any:
    if isinstance(source, nnx.State | nnx.Variable):
        return jax.tree.map(lambda leaf: leaf, source)
    return nnx.clone(source)
