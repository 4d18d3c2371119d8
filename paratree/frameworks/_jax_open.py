"""A pytree as a parameter tree: names, kinds, gradients, all from its structure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import jax
import numpy as np

from paratree.core.errors import MismatchError, printable
from paratree.core.layout import EQUINOX, layout_of
from paratree.core.names import BUFFER, COLLECTIONS, OTHER, PARAMETER, STATE, kind_of
from paratree.core.param import Param
from paratree.core.plain import PlainValues
from paratree.core.totals import tied_groups
from paratree.core.tree import Origin, ParamTree
from paratree.frameworks._jax_arrays import NUMBERS, JaxArray, dtype_name, is_array
from paratree.frameworks._jax_trees import by_class, children, expression, is_node, root_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from paratree.core.plain import Path

    Add = Callable[[str, Any, Any, "_Node"], object]  # takes a name, the key in the node, the leaf, the node

_AVERAGE = {
    "counter",
    "hidden",
    "average",
}  # the running statistics of Haiku: in a module "mean_ema" or "var_ema"
_ARRAYS: set[type] = set()  # classes of leaves that were met: most leaves are of one
_LONE = "parameter"  # what an array alone is called


def is_variables(source: object) -> bool:
    """Tell whether a mapping is what ``net.init`` of Flax returns: collections, one of them ``params``."""
    return (
        isinstance(source, Mapping)
        and "params" in source
        and all(isinstance(collection, Mapping) for collection in source.values())
    )


def tree_of(
    source: Any,
    *,
    native: str,
    title: str,
    grads: Any = None,
    format: str = "JAX",
    kind: str | None = None,
) -> ParamTree:
    """Return the tree of a pytree.

    Args:
        source: the pytree.
        native: expression for it.
        title: what it is called.
        grads: gradients in the same structure, or that of the parameters alone.
        format: name of the framework.
        kind: kind of every leaf, if that is known.

    Raises:
        MismatchError: ``grads`` are of another structure.
    """
    listing = _Listing()
    _walk(source, native, listing.add, kind)
    if grads is not None:
        given: dict[str, Any] = {}
        _walk(grads, "grads", lambda name, key, leaf, node: given.setdefault(name or _LONE, leaf))
        _pair(listing.params, given, title)
    notes = [*listing.notes, *listing.notes_on_sharing()]
    meta = PlainValues(listing.meta, listing.params.keys(), lambda: _places(source, ()))
    return ParamTree(listing.params, Origin(title, format, meta, notes, immutable=True))


class _Listing:
    """The parameters of a pytree, as they are met."""

    def __init__(self) -> None:
        self.params: dict[str, Param] = {}
        self.meta: dict[str, Any] = {}
        self.notes: list[str] = []
        self._place = -1
        self._met: set[int] = set()  # the identities of the leaves, which the parameters keep alive

    def add(self, name: str, key: Any, leaf: Any, node: _Node) -> None:
        """Add a leaf."""
        if leaf is None:
            return
        self._place += 1
        kind = node.kind
        if type(leaf) not in _ARRAYS:
            if is_array(type(leaf)):
                _ARRAYS.add(type(leaf))
            elif kind is None or not isinstance(leaf, NUMBERS):
                _set_aside(name, leaf, self.meta, self.notes)
                return
        if kind is None:
            kind = _kind_of_key(str(key), leaf.dtype) or _kind_in_haiku(name)
        if name in self.params or not name:
            name = _free(name or _LONE, self.params, self.notes)
        array = _Leaf(leaf, name, kind, self._place, node, key)
        self.params[name] = Param(name, array, kind, live=array)
        self._met.add(id(leaf))

    def notes_on_sharing(self) -> Iterator[str]:
        """Say that JAX knows no ties, if there are any."""
        if len(self._met) == len(self.params):
            return
        for first, other, *_ in tied_groups(self.params):
            if self.params[first].kind == PARAMETER:
                pair = f"{printable(first)} and {printable(other)}"
                yield f"{pair} are one array, which JAX trains as two; pt.tie keeps them one"
                return


class _Node:
    """What the leaves of a node have in common.

    Attributes:
        owner: its class.
        kind: kind of its leaves, if the structure tells it.
        collection: what stands before the full name of a parameter, as ``"params."``, or nothing.
        gradients: name -> gradient, if there are any.
    """

    __slots__ = ("_above", "_key", "collection", "gradients", "kind", "owner")

    def __init__(
        self,
        above: _Node | str,
        key: Any,
        owner: type,
        kind: str | None,
        gradients: dict[str, Any],
        collection: str = "",
    ) -> None:
        self._above, self._key, self.owner, self.kind = above, key, owner, kind
        self.gradients, self.collection = gradients, collection

    @property
    def native(self) -> str:
        """The expression for the node."""
        return self._above if isinstance(self._above, str) else self._above.expression(self._key)

    def expression(self, key: Any) -> str:
        """Return the expression for what stands under a key."""
        return expression(self.native, self.owner, key)

    def below(self, key: Any, child: Any) -> _Node:
        """Return the node that is a child of this one."""
        owner = type(child)
        kind = _kind_of_class(owner) if self.kind is None else self.kind
        return _Node(self, key, owner, kind, self.gradients, self.collection)


def _walk(source: Any, native: str, add: Add, kind: str | None = None) -> None:
    """Give every leaf to ``add``, and ``None`` wherever one is left out, in the order of the containers."""
    node = _Node(native, None, type(source), kind or _kind_of_class(type(source)), {})
    if not is_node(type(source)):
        add("", "", source, node)
    elif is_variables(source):
        _walk_variables(source, node, add)
    elif _is_train_state(type(source)):
        for segment, key, child in children(source) or ():
            told = _Node(native, None, type(source), COLLECTIONS.get(str(segment)), node.gradients)
            _walk_child(str(segment), key, child, told, add)
    else:
        _walk_children(source, "", node, add)


def _walk_variables(collections: Any, root: _Node, add: Add) -> None:
    """Collections are no part of a name, unless a parameter, or a collection before, has the name."""
    taken: set[str] = set()
    if len(collections) > 1:
        _walk_children(collections["params"], "", root, lambda name, key, leaf, node: taken.add(name))
    for collection, held in collections.items():
        node = root.below(collection, held)
        node.kind = COLLECTIONS.get(collection, BUFFER)
        node.collection = f"{collection}."
        if collection == "params":
            _walk_children(held, "", node, add)
        else:
            _walk_children(held, "", node, _renaming(collection, taken, add))


def _renaming(collection: str, taken: set[str], add: Add) -> Add:
    def add_renamed(name: str, key: Any, leaf: Any, node: _Node) -> None:
        name = f"{collection}.{name}" if name in taken else name
        taken.add(name)
        add(name, key, leaf, node)

    return add_renamed


def _walk_children(holder: Any, prefix: str, node: _Node, add: Add) -> None:
    if type(holder) is not dict:
        for segment, key, child in children(holder) or ():
            name = prefix[:-1] if segment is None else prefix + segment
            if type(child) in _ARRAYS:
                add(name, key, child, node)
            else:
                _walk_child(name, key, child, node, add)
        return
    for key, child in holder.items():  # nearly every node is a dict, and there are thousands
        name = prefix + key if type(key) is str else f"{prefix}{key}"
        if type(child) in _ARRAYS:
            add(name, key, child, node)
        else:
            _walk_child(name, key, child, node, add)


def _walk_child(name: str, key: Any, child: Any, node: _Node, add: Add) -> None:
    if child is None or not is_node(type(child)):
        add(name, key, child, node)
    else:
        _walk_children(child, name + ".", node.below(key, child), add)


@by_class
def _kind_of_class(kind: type) -> str | None:
    if root_of(kind) == "optax":
        return STATE
    return BUFFER if (root_of(kind), kind.__name__) == ("equinox", "State") else None


@by_class
def _is_train_state(kind: type) -> bool:
    return any(base.__name__ == "TrainState" and root_of(base) == "flax" for base in kind.__mro__)


@lru_cache(maxsize=4096)  # models have many leaves and few keys
def _kind_of_key(key: str, dtype: Any) -> str | None:
    """Return the kind of a leaf; ``None`` for what may be a running statistic of Haiku, by its whole name."""
    if dtype_name(dtype).startswith("key<"):
        return OTHER
    kind = kind_of(key, dtype_name(dtype))
    return None if kind == PARAMETER and key in _AVERAGE else kind


def _kind_in_haiku(name: str) -> str:
    return BUFFER if name.rpartition(".")[0].endswith(("mean_ema", "var_ema")) else PARAMETER


def _free(name: str, params: Mapping[str, Param], notes: list[str]) -> str:
    if name not in params:
        return name
    number = next(n for n in range(2, len(params) + 3) if f"{name}#{n}" not in params)
    notes.append(f"two leaves are called {printable(name)}: another is {printable(name)}#{number}")
    return f"{name}#{number}"


def _set_aside(name: str, leaf: Any, meta: dict[str, Any], notes: list[str]) -> None:
    """Keep a plain value beside the parameters; say what is neither that nor a function."""
    if isinstance(leaf, (str, *NUMBERS)):
        *above, last = name.split(".")
        for segment in above:
            below = meta.setdefault(segment, {})
            meta = below if isinstance(below, dict) else {}
        meta[last] = leaf
    elif not callable(leaf):
        notes.append(f"{printable(name)} is no array, but a {type(leaf).__name__}: not listed")


def _places(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield the path of each plain value and ``None``, and of each empty container."""
    if node is None or isinstance(node, (str, *NUMBERS)):
        yield path, node
    elif (below := children(node)) is not None:
        for segment, _, child in below:
            yield from _places(child, path if segment is None else (*path, segment))
        if not below:
            yield path, {}


# Gradients that stand beside the parameters


def _pair(params: Mapping[str, Param], given: Mapping[str, Any], title: str) -> None:
    """Give each parameter its gradient.

    Raises:
        MismatchError: one has none (not even ``None``), or another shape; or there is one too many.
    """
    for name, gradient in given.items():
        if gradient is None or not is_array(type(gradient)):
            continue
        if name not in params:
            raise MismatchError(f"grads: no parameter '{printable(name)}' in {title}")
        has, wants = np.shape(gradient), params[name].shape
        if has != wants:
            raise MismatchError(f"grads: '{printable(name)}' has the shape {has}, its parameter {wants}")
    for name, param in params.items():
        if param.kind != PARAMETER:
            continue
        if name not in given and not _is_left_out(name, given):
            raise MismatchError(
                f"grads: nothing for the parameter '{printable(name)}'; give the structure of {title}, "
                "with None where there is no gradient"
            )
        if given.get(name) is not None:
            param.live.gradients[name] = given[name]  # type: ignore[union-attr]


def _is_left_out(name: str, given: Mapping[str, Any]) -> bool:
    """Tell whether ``None`` stands in place of something above."""
    above = name.split(".")
    return any(given.get(".".join(above[:n]), name) is None for n in range(1, len(above)))


class _Leaf(JaxArray):
    """A leaf in its place: array and live object are one, since thousands of them are made at once.

    Attributes:
        place: how many leaves stand before it.
    """

    __slots__ = ("_key", "_node", "place")

    def __init__(self, leaf: Any, name: str, group: str, place: int, node: _Node, key: Any) -> None:
        self.leaf, self.name, self.group = leaf, name, group
        self.place, self._node, self._key = place, node, key

    @property
    def gradients(self) -> dict[str, Any]:
        """The gradients given to ``open``, by name."""
        return self._node.gradients

    @property
    def handle(self) -> Any:
        """The array itself."""
        return self.leaf

    @property
    def native(self) -> str:
        """The expression: ``params['params']['layers_2']['bias']``."""
        return self._node.expression(self._key)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The name with its collection: ``params.layers_2.bias``."""
        collection = self._node.collection
        is_told = collection != "params." and self.name.startswith(collection)  # in the name itself
        return (collection + self.name,) if collection and not is_told else ()

    @property
    def trainable(self) -> bool | None:
        """Whether it is real and among the parameters; ``None`` if the structure does not say what it is."""
        if self.group != PARAMETER:
            return False
        return None if self._node.kind is None else is_inexact(self.leaf)

    @property
    def layout(self) -> str | None:
        """Names of the axes, by the class of an Equinox layer; a dict does not tell."""
        key = str(self._key).removeprefix(".")
        return _layout(self._node.owner, key, len(np.shape(self.leaf)))

    @property
    def grad(self) -> np.ndarray[Any, Any] | None:
        """The gradient given to ``open``."""
        gradient = self.gradients.get(self.name)
        if gradient is None or not is_array(type(gradient)):
            return None
        return JaxArray(gradient, f"gradient of {self.name}").read()


def is_inexact(leaf: Any) -> bool:
    """Tell whether JAX can differentiate by a leaf."""
    return isinstance(leaf, float | complex) or (
        hasattr(leaf, "dtype") and bool(jax.dtypes.issubdtype(leaf.dtype, np.inexact))
    )


@lru_cache(maxsize=1024)
def _layout(owner: Any, key: str, ndim: int) -> str | None:
    names = (base.__name__ for base in owner.__mro__ if root_of(base) == "equinox")
    return layout_of(EQUINOX, names, key, ndim)
