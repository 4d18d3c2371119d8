"""A saved pytree as parameters: names, kinds and order, as a live tree of JAX or Flax has them.

A node is a dict, or a list; a leaf is an array, or a plain value, which becomes meta.
"""

from __future__ import annotations

from paratree.core.errors import UnsupportedError, printable
from paratree.core.names import BUFFER, COLLECTIONS, STATE, kind_of, natural
from paratree.core.param import Param

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from paratree.core.array import LazyArray
    from paratree.core.plain import Path
    from paratree.core.tree import ParamTree

_STATES = frozenset({"opt_state", "optimizer", "optimizer_state", "optim", "opt"})
_AVERAGE = frozenset({"counter", "hidden", "average"})
_LONE = "parameter"  # what an array alone is called
_PLAIN = (str, int, float, complex, bool, type(None))


class _Nothing:
    """Stands in the plain values for a place that held only arrays."""


_NOTHING = _Nothing()


class Stored(str):
    """Bytes of a file among the plain values: a text that says how many, with the array that they are."""

    __slots__ = ("array",)
    array: LazyArray

    def __new__(cls, array: LazyArray) -> Stored:
        """Make the text."""
        stored = super().__new__(cls, f"<{array.shape[0]} bytes>")
        stored.array = array
        return stored

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return str, (str(self),)  # the array belongs to an open file


class Packed(dict):  # type: ignore[type-arg]  # a subscript would need typing at run time
    """A node that is packed in bytes of a file, with these."""

    __slots__ = ("stored",)

    def __init__(self, node: dict[Any, Any], stored: Stored) -> None:
        super().__init__(node)
        self.stored = stored


def places(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path of what is no array: plain values, lists of such, empty containers, packed nodes."""
    if _is_plain(node) or isinstance(node, Packed):
        yield path, node
    elif isinstance(node, dict | list):
        for key, child in _items(node):
            yield from places(child, (*path, key))


def arrays(node: Any) -> Iterator[LazyArray]:
    """Yield the arrays of a pytree."""
    if isinstance(node, dict | list):
        for _, child in _items(node):
            yield from arrays(child)
    elif not isinstance(node, _PLAIN):
        yield node


def _is_plain(node: Any) -> bool:
    if isinstance(node, list):
        return all(map(_is_plain, node))
    return isinstance(node, _PLAIN) or (isinstance(node, dict) and not node)


class Pytree:
    """The parameters and the plain values of a saved pytree.

    Args:
        root: the tree, no deeper than recursion may go; it is not changed.
        kinds: names of nodes and leaves -> their kind, if it is known otherwise.
        box: what every leaf of the file is called below its own name: ``value``, in NNX.

    Attributes:
        params: the parameters by name, in the order of the file; where that is only a sorting of names,
            numbers are in numeric order.
        meta: the plain values, keyed as the arrays are named.
        notes: what one should know.
    """

    def __init__(self, root: Any, kinds: Mapping[str, str] | None = None, box: str = "") -> None:
        self.params: dict[str, Param] = {}
        self.notes: list[str] = []
        self._kinds, self._box = kinds or {}, box
        if is_variables(root) and not self._kinds.keys() & root.keys():
            self.meta: dict[str, Any] = self._variables(root)
            return
        kept = self._below(root, "", None, COLLECTIONS if _is_train_state(root) else {})
        if isinstance(kept, dict):
            self.meta = kept
        else:
            self.meta = {} if kept is _NOTHING or kept is None else {"value": kept}

    def add(self, name: str, array: LazyArray, kind: str | None, alias: str = "") -> None:
        """Add an array; if the name is taken, as ``a.b`` may be by ``b`` below ``a``, it gets a number."""
        free = name or _LONE
        if free in self.params:
            number = next(n for n in range(2, len(self.params) + 3) if f"{free}#{n}" not in self.params)
            self.notes.append(
                f"two leaves are called {printable(free)}: another is {printable(free)}#{number}"
            )
            free = f"{free}#{number}"
        kind = kind or _kind_by_name(name, array.dtype)
        alias = alias or (f"{name}.{self._box}" if self._box else "")
        self.params[free] = Param(free, array, kind, aliases=(alias,) if alias else ())

    def _variables(self, collections: dict[str, Any]) -> dict[str, Any]:
        """Collections are no part of a name, unless a parameter, or a collection before, has the name."""
        meta: dict[str, Any] = {}
        taken = {path for path, _ in _leaves(collections["params"], "")}
        for collection, held in collections.items():
            kind = COLLECTIONS.get(collection, BUFFER)
            own = taken if collection != "params" else set()
            for path, leaf in _leaves(held, ""):
                full = f"{collection}.{path}"
                if isinstance(leaf, _PLAIN):
                    meta[full] = leaf
                elif path in own:
                    self.add(full, leaf, kind)
                else:
                    self.add(path, leaf, kind, full)
            taken |= {path for path, _ in _leaves(held, "")}
        return meta

    def _below(self, node: Any, name: str, kind: str | None, kinds: dict[str, str]) -> Any:
        """Add the arrays of a node and return its plain values."""
        if isinstance(node, _PLAIN):
            return node
        kind = kind or self._kinds.get(name)
        if not isinstance(node, dict | list):
            self.add(name, node, kind)
            return _NOTHING
        kept = {}
        for key, child in _items(node):
            below = kind or kinds.get(key) or (STATE if key in _STATES else None)
            plain = self._below(child, f"{name}.{key}" if name else key, below, {})
            if plain is not _NOTHING:
                kept[key] = plain
        if isinstance(node, list) and len(kept) == len(node):
            return list(kept.values())
        return kept or _NOTHING


def is_variables(root: Any) -> bool:
    """Tell whether a tree is what ``net.init`` of Flax returns: collections, one of them ``params``."""
    return (
        isinstance(root, dict)
        and "params" in root
        and not _is_train_state(root)
        and all(isinstance(collection, dict) for collection in root.values())
    )


def with_collections(tree: ParamTree) -> ParamTree:
    """Return a tree with the collections of Flax in its names, if all of it is of such: as it was saved.

    Names are without them, and the other name of a parameter tells its collection.
    """
    paths = {
        name: next((alias for alias in param.aliases if alias.partition(".")[2] == name), name)
        for name, param in tree.items()
    }
    collections = {path.partition(".")[0] for name, path in paths.items() if path != name}
    if "params" not in collections or len({*paths.values()}) < len(tree):
        return tree
    if any(path.partition(".")[0] not in collections for path in paths.values()):
        return tree
    return tree.with_params({path: tree[name] for name, path in paths.items()})


def check_nested(tree: ParamTree, format: str) -> None:
    """Look that names can be the keys of nested dicts.

    Raises:
        UnsupportedError: one lies below another.
    """
    names = set(tree)  # a tree has subtrees, too
    for name in tree:
        parts = name.split(".")
        above = (".".join(parts[:count]) for count in range(1, len(parts)))
        if (other := next((each for each in above if each in names), None)) is not None:
            fact = f"'{printable(other)}' is a parameter, and '{printable(name)}' lies below it"
            raise UnsupportedError(f"{fact}, and {format} nests names; rename one")


def _is_train_state(root: Any) -> bool:
    return isinstance(root, dict) and "params" in root and ("opt_state" in root or "step" in root)


def _kind_by_name(name: str, dtype: str) -> str:
    """Return the kind of a leaf of no collection; Haiku's running statistics are in ``mean_ema``."""
    above, _, last = name.rpartition(".")
    if last in _AVERAGE and above.endswith(("mean_ema", "var_ema")):
        return BUFFER
    return kind_of(name, dtype)


def _items(node: dict[Any, Any] | list[Any]) -> list[tuple[str, Any]]:
    """Return the children of a node by name; JAX sorts keys, and that puts layer 10 before layer 2."""
    if isinstance(node, list):
        return [(str(i), child) for i, child in enumerate(node)]
    items = [(str(key), child) for key, child in node.items()]
    names = [name for name, _ in items]
    return sorted(items, key=lambda item: natural(item[0])) if names == sorted(names) else items


def _leaves(node: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(node, dict | list):
        return [(name, node)]
    return [leaf for key, child in _items(node) for leaf in _leaves(child, f"{name}.{key}" if name else key)]
