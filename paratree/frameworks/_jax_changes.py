"""Pytrees: new values, ties, freezing and groups, as new trees of the same structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paratree.core.names import PARAMETER
from paratree.core.results import Labels, Partition, Tied
from paratree.frameworks._jax_arrays import copy_of, leaf_of
from paratree.frameworks._jax_open import is_inexact
from paratree.frameworks._jax_trees import mapped, merged, ordered, path_of, put, replaced, taken, without

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.results import Group
    from paratree.core.tree import ParamTree

NOT_TRAINED = "not trained"  # the label of the leaves that are in no group


def assign(source: Any, tree: ParamTree, values: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    """Return a tree of the same structure with new leaves, each on the devices of the old one."""
    new = {}
    for name, array in values.items():
        leaf = leaf_of(array, tree[name].handle)
        new.update(dict.fromkeys(places_of(tree, name), leaf))
    return replaced(source, new)


def places_of(tree: ParamTree, name: str) -> list[int]:
    """Return the places of a leaf: several if it is tied."""
    return _places(tree, tree.tied_with(name))


def _places(tree: ParamTree, names: Iterable[str]) -> list[int]:
    return [tree[name].live.place for name in names]


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> Tied:
    """Return the tree without the others, and the function that puts the first in their places.

    Example:
        >>> tied = pt.tie(params, "embed.kernel", "head.kernel")  # doctest: +SKIP
        >>> grads = jax.grad(lambda v: loss(tied.expand(v), X))(tied.variables)  # doctest: +SKIP
        >>> variables = jax.tree.map(lambda v, g: v - 0.1 * g, tied.variables, grads)  # doctest: +SKIP
        >>> net.apply(tied.expand(variables), X)  # doctest: +SKIP
    """
    places = _places(tree, others)
    kept, given_up = path_of(source, tree[first].live.place), [path_of(source, place) for place in places]
    whole = mapped(source, lambda place, leaf: place)  # the structure alone: the arrays are not kept alive

    def expand(variables: Any) -> Any:
        leaf = taken(variables, whole, kept)
        for path in given_up:
            variables = put(variables, whole, path, leaf)
        return ordered(variables, whole)

    return Tied(without(source, places), expand)


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Return a tree in which each name has a copy of its own."""
    return replaced(source, {tree[name].live.place: copy_of(tree[name].handle) for name in names})


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> Partition:
    """Part the tree into what is trained, real parameters that are not frozen, and all else.

    Nothing is marked in the arrays, so what is not named is trained; ``frozen=False`` names nothing.

    Example:
        >>> parted = pt.freeze(params, "encoder.**")  # doctest: +SKIP
        >>> whole = lambda trainable: parted.merge(trainable, parted.frozen)  # doctest: +SKIP
        >>> grads = jax.grad(lambda t: loss(whole(t), X))(parted.trainable)  # doctest: +SKIP
    """
    left = set(names) if frozen else set()
    trained = set(
        _places(
            tree,
            (n for n, p in tree.items() if p.kind == PARAMETER and n not in left and is_inexact(p.handle)),
        )
    )
    return Partition(
        mapped(source, lambda place, leaf: place in trained),
        mapped(source, lambda place, leaf: leaf if place in trained else None),
        mapped(source, lambda place, leaf: None if place in trained else leaf),
        merged,
    )


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> Labels:
    """Return a tree of labels; leaves in no group, as running statistics, are labelled ``"not trained"``.

    Give that label ``optax.set_to_zero()``.
    """
    labels = {place: g.label for g in groups for name in g.names for place in places_of(tree, name)}
    options = {group.label: group.options for group in groups}
    labelled = mapped(source, lambda place, leaf: labels.get(place, NOT_TRAINED))
    if labels.keys() >= set(_places(tree, tree)):
        return Labels(labelled, options)
    return Labels(labelled, options | {NOT_TRAINED: {}})
