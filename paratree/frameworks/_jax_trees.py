"""Pytrees: what is in a node, in the node's own order, and the same node made anew.

JAX sorts the keys of dicts wherever it flattens; here they keep the order in which the model made them. A
leaf is known by its place: how many leaves stand before it.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, cast

from jax import tree_util

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[[type], Any])
    Child = tuple[str | None, Any, Any]  # segment of the name, key for ``expression``, the child
    Path = tuple[int, ...]  # which child at each step

_DICTS = (dict, OrderedDict, defaultdict)
_MAPPINGS = {("flax", "FrozenDict"), ("flax", "State"), ("haiku", "FlatMapping"), ("haiku", "FlatMap")}
_FLATTENED = "#"  # begins the end of an expression that JAX alone can tell: the number of the child
_GONE = object()
_Attribute = tree_util.GetAttrKey


def by_class(function: F) -> F:
    """Remember what a function says of a class."""
    return cast("F", lru_cache(maxsize=4096)(function))


def children(node: Any) -> list[Child] | None:
    """Return the children of a node in its own order; ``None`` for a leaf."""
    how = _how(type(node))
    return None if how is None else how(node)


@by_class
def _how(kind: type) -> Callable[[Any], list[Child]] | None:
    if kind is type(None):
        return lambda node: []
    if not tree_util.is_tree_node(kind):
        return None
    if is_mapping(kind):
        return _of_mapping
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return lambda node: [
            (name, f".{name}", child) for name, child in zip(kind._fields, node, strict=True)
        ]
    if issubclass(kind, list | tuple):
        return _of_sequence
    return _of_box if is_box(kind) else _of_registered


def is_node(kind: type) -> bool:
    """Tell whether the objects of a class have children, as ``None`` has none."""
    return _how(kind) is not None


@by_class
def is_mapping(kind: type) -> bool:
    """Tell whether a class is a mapping that is made of its items, so that one of them can be left out."""
    return kind in _DICTS or (kind.__module__.partition(".")[0], kind.__name__) in _MAPPINGS


def _of_mapping(node: Any) -> list[Child]:
    return [(str(key), key, child) for key, child in node.items()]


def _of_sequence(node: Any) -> list[Child]:
    return [(str(i), i, child) for i, child in enumerate(node)]


def _of_registered(node: Any) -> list[Child]:
    return [
        (key.name, "." + key.name, child) if type(key) is _Attribute else (*_step(node, key, child), child)
        for key, child in tree_util.flatten_one_level_with_keys(node)[0]
    ]


def _of_box(node: Any) -> list[Child]:
    return [(None, end, child) for _, end, child in _of_registered(node)]


def _step(node: Any, key: Any, child: Any) -> tuple[str, str]:
    """Return what a child is called, and the end of the expression for it."""
    if isinstance(key, tree_util.SequenceKey):
        return str(key.idx), f"[{key.idx}]"
    if isinstance(key, tree_util.DictKey):
        return str(key.key), f"[{key.key!r}]"
    name = next((name for name, value in getattr(node, "__dict__", {}).items() if value is child), None)
    if name is not None and name.isidentifier() and not name.startswith("_"):
        return name, f".{name}"
    return str(key.key), f"{_FLATTENED}{key.key}"


@by_class
def is_box(kind: type) -> bool:
    """Tell whether a class of Flax stands around one value, as ``nn.Partitioned``: no part of a name."""
    return any(base.__name__ == "AxisMetadata" and root_of(base) == "flax" for base in kind.__mro__)


def root_of(kind: type) -> str:
    """Return the package in which a class is defined."""
    return kind.__module__.partition(".")[0]


def expression(native: str, kind: type, key: Any) -> str:
    """Return the Python expression for the child of a node of a class, from that of the node."""
    if is_mapping(kind) or kind in (list, tuple):
        return f"{native}[{key!r}]"
    if key.startswith(_FLATTENED):
        return f"list(jax.tree_util.flatten_one_level({native})[0])[{key[1:]}]"
    return f"{native}{key}"


def with_children(node: Any, values: Sequence[Any]) -> Any:
    """Return a node of the same type with other children, as many and in the same order."""
    kind = type(node)
    if node is None:
        return None
    if is_mapping(kind):
        return with_items(node, dict(zip(node, values, strict=True)))
    if kind in (list, tuple):
        return kind(values)
    if issubclass(kind, tuple):
        return kind(*values)
    return tree_util.tree_structure(node, is_leaf=lambda child: child is not node).unflatten(values)


def with_items(node: Any, items: Mapping[Any, Any]) -> Any:
    """Return a mapping of the same type with other items."""
    if type(node) is defaultdict:
        return defaultdict(node.default_factory, items)
    return type(node)(items)


def mapped(source: Any, visit: Callable[[int, Any], Any]) -> Any:
    """Return the same structure with ``visit(place, leaf)`` in place of each leaf."""
    places = count()

    def again(node: Any) -> Any:
        below = children(node)
        if below is None:
            return visit(next(places), node)
        return with_children(node, [again(child) for _, _, child in below])

    return again(source)


def replaced(source: Any, new: Mapping[int, Any]) -> Any:
    """Return the same structure with new leaves at some places."""
    return mapped(source, lambda place, leaf: new.get(place, leaf))


def merged(first: Any, second: Any) -> Any:
    """Return the whole of two trees of one structure that have ``None`` where the other has the leaf.

    The keys of dicts stand in the order of ``second``: JAX sorts those of every tree that it computes.
    """
    if first is None or second is None:
        return second if first is None else first
    ours, theirs = children(first), children(second)
    if ours is None or theirs is None:
        return first
    if is_mapping(type(second)):
        return with_items(second, {key: merged(first[key], second[key]) for key in second})
    pairs = zip(ours, theirs, strict=True)
    return with_children(second, [merged(mine, yours) for (_, _, mine), (_, _, yours) in pairs])


def without(source: Any, places: Collection[int]) -> Any:
    """Return the tree without some leaves: their keys are gone from a mapping, elsewhere ``None`` is left."""
    numbers = count()

    def again(node: Any) -> Any:
        below = children(node)
        if below is None:
            return _GONE if next(numbers) in places else node
        values = [again(child) for _, _, child in below]
        if not is_mapping(type(node)):
            return with_children(node, [None if value is _GONE else value for value in values])
        kept = {key: value for key, value in zip(node, values, strict=True) if value is not _GONE}
        return _GONE if values and not kept else with_items(node, kept)

    return again(source)


def path_of(source: Any, place: int) -> Path:
    """Return the way to a leaf."""
    return next(path for number, path in enumerate(_paths(source, ())) if number == place)


def _paths(node: Any, path: Path) -> Iterator[Path]:
    below = children(node)
    if below is None:
        yield path
        return
    for step, (_, _, child) in enumerate(below):
        yield from _paths(child, (*path, step))


def taken(node: Any, whole: Any, path: Path) -> Any:
    """Return the leaf at a path of ``whole``, from a tree that lacks other leaves of it."""
    for step in path:
        if is_mapping(type(whole)):
            key = list(whole)[step]
            node, whole = node[key], whole[key]
        else:
            node, whole = children(node)[step][2], children(whole)[step][2]  # type: ignore[index]
    return node


def put(node: Any, whole: Any, path: Path, leaf: Any) -> Any:
    """Return the tree with a leaf that it lacks, at a path of ``whole``."""
    if not path:
        return leaf
    step, *rest = path
    if is_mapping(type(whole)):
        key = list(whole)[step]
        node = _empty(whole) if node is None else node  # it held nothing else and stood in a list
        below = put(node.get(key, _empty(whole[key])), whole[key], tuple(rest), leaf)
        return with_items(node, {**node, key: below})
    inside = [child for _, _, child in children(node) or ()]
    inside[step] = put(inside[step], children(whole)[step][2], tuple(rest), leaf)  # type: ignore[index]
    return with_children(node, inside)


def ordered(node: Any, whole: Any) -> Any:
    """Return the tree with the keys of its dicts in the order of ``whole``."""
    below, there = children(node), children(whole)
    if not below or not there:
        return node
    if is_mapping(type(whole)):
        known = {key: ordered(node[key], whole[key]) for key in whole if key in node}
        return with_items(node, known | {key: node[key] for key in node if key not in known})
    pairs = zip(below, there, strict=True)
    return with_children(node, [ordered(mine, yours) for (_, _, mine), (_, _, yours) in pairs])


def _empty(node: Any) -> Any:
    return with_items(node, {}) if is_mapping(type(node)) else None
