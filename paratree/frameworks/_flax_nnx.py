"""Flax NNX: the variables of modules and states, under every path that leads to them, in definition order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from flax import nnx

from paratree.core.array import Storage
from paratree.core.errors import MismatchError, printable
from paratree.core.layout import FLAX, layout_of
from paratree.core.names import BUFFER, OTHER, PARAMETER, STATE
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.frameworks._flax_layouts import flax_classes
from paratree.frameworks._jax_arrays import NUMBERS, JaxArray, Same, is_array
from paratree.frameworks._jax_open import is_inexact
from paratree.frameworks._jax_trees import by_class, expression, root_of
from paratree.frameworks._jax_trees import children as children_of_pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from paratree.core.array import Index, Shape

    Values = np.ndarray[Any, Any]
    Add = Callable[[str, Any, Any, "Place"], object]  # takes a name, the key in the holder, what is there

_KINDS = (  # class of variable -> kind; every other variable is a buffer
    (nnx.Param, PARAMETER),
    (nnx.RngState, OTHER),
    (nnx.Intermediate, OTHER),
    (nnx.OptState, STATE),
)
_PRIVATE = "_pytree__"


def is_nnx(source: object) -> bool:
    """Tell whether ``source`` is a module or a variable of NNX, or a state or container with one in it."""
    if isinstance(source, nnx.Pytree | nnx.Variable):
        return True
    below = children_of_pytree(source)
    return below is not None and any(is_nnx(child) for _, _, child in below)


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of a module, a variable, a state, or a container of them."""
    found: dict[str, Param] = {}
    notes: list[str] = []

    def add(name: str, key: Any, it: Any, place: Place) -> None:
        leaf = Leaf(it, name, place, key)
        if isinstance(it, nnx.Variable) and not is_array(type(leaf.leaf)):
            if leaf.leaf is not None and not isinstance(leaf.leaf, NUMBERS):
                kind = type(leaf.leaf).__name__
                notes.append(f"{printable(name)} holds no array, but a {kind}: not listed")
            if not isinstance(leaf.leaf, NUMBERS):
                return
        found[name] = Param(name, leaf, _kind(type(it), place), live=leaf)

    walk(source, add)
    if grads is not None:
        _pair(found, grads, type(source).__name__)
    return ParamTree(found, Origin(type(source).__name__, "Flax NNX", notes=notes))


class Place:
    """Where leaves stand.

    Attributes:
        native: expression for the holder.
        holder: the module or container that has them.
        path: path of the holder as NNX has it, for filters.
        of_optimizer: whether the holder belongs to an Optax state.
    """

    __slots__ = ("holder", "native", "of_optimizer", "path")

    def __init__(self, native: str, holder: Any, path: tuple[Any, ...], of_optimizer: bool) -> None:
        self.native, self.holder, self.path, self.of_optimizer = native, holder, path, of_optimizer

    def below(self, key: Any, holder: Any) -> Place:
        """Return the place inside a holder that stands in this one."""
        inside = self.of_optimizer or root_of(type(holder)) == "optax"
        return Place(self.expression(key), holder, self.path_to(key), inside)

    def expression(self, key: Any) -> str:
        """Return the expression for what stands under a key."""
        kind = type(self.holder)
        if not issubclass(kind, nnx.Pytree):
            return self.native if key is None else expression(self.native, kind, key)
        if issubclass(kind, nnx.List | nnx.Dict):
            return f"{self.native}[{key!r}]"
        return f"{self.native}.{key}" if key.isidentifier() else f"getattr({self.native}, {key!r})"

    def path_to(self, key: Any) -> tuple[Any, ...]:
        """Return the path of what stands under a key."""
        return (*self.path, key.removeprefix(".") if isinstance(key, str) else key)


def walk(source: Any, add: Add, enter: Callable[[Place, Any, Any], object] | None = None) -> None:
    """Give every variable and array, under every path, to ``add``, and every holder in another to ``enter``.

    One that holds itself is entered only once.
    """
    root = Place("net" if isinstance(source, nnx.Pytree) else "params", source, (), False)
    if isinstance(source, nnx.Variable):
        add("parameter", None, source, root)
    else:
        _walk(root, "", (id(source),), add, enter)


def _walk(place: Place, prefix: str, above: tuple[int, ...], add: Add, enter: Any) -> None:
    for segment, key, child in _children(place.holder):
        what = _what(type(child))
        if what == "leaf":
            add(prefix + segment, key, child, place)
        elif what == "node" and id(child) not in above:
            if enter is not None:
                enter(place, key, child)
            _walk(place.below(key, child), f"{prefix}{segment}.", (*above, id(child)), add, enter)


def _children(holder: Any) -> Iterable[tuple[str, Any, Any]]:
    """Return what stands in a holder: the segment of its name, its key, itself."""
    if isinstance(holder, nnx.List):
        return [(str(i), i, child) for i, child in enumerate(holder)]
    if isinstance(holder, nnx.Pytree):
        told = holder._pytree__nodes
        return [
            (key, key, child)
            for key, child in vars(holder).items()
            if _what(type(child)) and not key.startswith(_PRIVATE) and told.get(key, True)
        ]
    return [(str(segment), key, child) for segment, key, child in children_of_pytree(holder) or ()]


@by_class
def _what(kind: type) -> str:
    if issubclass(kind, nnx.Variable) or is_array(kind):
        return "leaf"
    if kind is type(None):
        return ""
    return "node" if issubclass(kind, nnx.Pytree) or _is_pytree(kind) else ""


def _is_pytree(kind: type) -> bool:
    from jax.tree_util import is_tree_node

    return bool(is_tree_node(kind))


def put(holder: Any, key: Any, it: Any) -> bool:
    """Put something in a place; tell whether the holder can be changed."""
    if isinstance(holder, nnx.Pytree) and not isinstance(holder, nnx.List | nnx.Dict):
        setattr(holder, key, it)
    elif isinstance(holder, nnx.List | nnx.Dict | nnx.State | dict | list):
        holder[key] = it
    else:
        return False
    return True


@by_class
def _kind_of_class(kind: type) -> str:
    return next((name for base, name in _KINDS if issubclass(kind, base)), BUFFER)


def _kind(kind: type, place: Place) -> str:
    found = _kind_of_class(kind)
    return STATE if found == BUFFER and place.of_optimizer else found


def _pair(found: Mapping[str, Param], grads: Any, title: str) -> None:
    """Give each variable its gradient, under all its names; a variable left out of ``grads`` has none.

    Raises:
        MismatchError: there is one too many, or one of another shape.
    """
    by_variable: dict[int, Any] = {}

    def add(name: str, key: Any, it: Any, place: Place) -> None:
        gradient = Leaf(it, name, place, key).leaf
        if not is_array(type(gradient)):
            return
        if name not in found or found[name].kind != PARAMETER:
            raise MismatchError(f"grads: no parameter '{printable(name)}' in {title}")
        has, wants = np.shape(gradient), found[name].shape
        if has != wants:
            raise MismatchError(f"grads: '{printable(name)}' has the shape {has}, its parameter {wants}")
        by_variable[id(found[name].handle)] = gradient

    walk(grads, add)
    for param in found.values():
        param.live.gradient = by_variable.get(id(param.handle))  # type: ignore[union-attr]


class Leaf:
    """A variable, or an array without one, in its place; the value is asked of the variable each time."""

    __slots__ = ("gradient", "handle", "key", "name", "place")

    gradient: Any

    def __init__(self, handle: Any, name: str, place: Place, key: Any) -> None:
        self.handle, self.name, self.place, self.key, self.gradient = handle, name, place, key, None

    @property
    def leaf(self) -> Any:
        """The array now."""
        if not isinstance(self.handle, nnx.Variable):
            return self.handle
        hooked = self.handle.has_metadata("on_get_value")
        if hooked or type(self.handle).get_value is not nnx.Variable.get_value:
            return self.handle.get_value()
        return self.handle.get_raw_value()

    @property
    def shape(self) -> Shape:
        """Length along each axis, over all devices."""
        return JaxArray(self.leaf, self.name).shape

    @property
    def dtype(self) -> str:
        """Name of the dtype."""
        return JaxArray(self.leaf, self.name).dtype

    @property
    def storage(self) -> Storage | None:
        """The variable itself, kept alive; an array without one is set on its own and never tied."""
        return Storage(Same(self.handle, "")) if isinstance(self.handle, nnx.Variable) else None

    @property
    def problem(self) -> str | None:
        """Why there is no value to read now."""
        return JaxArray(self.leaf, self.name).problem

    def read(self, index: Index = ...) -> Values:
        """Return the values at a basic index: the memory of the host, read-only, or a copy from a device.

        Raises:
            IndexError: the index does not fit the shape.
            UnreadableError: there are no values here.
        """
        return JaxArray(self.leaf, self.name).read(index)

    @property
    def path(self) -> tuple[Any, ...]:
        """The path that NNX gives to filters."""
        return self.place.path_to(self.key)

    @property
    def native(self) -> str:
        """The expression: ``net.layers[2].bias``."""
        return self.place.expression(self.key)

    @property
    def aliases(self) -> tuple[str, ...]:
        """None: NNX has one name for it."""
        return ()

    @property
    def trainable(self) -> bool:
        """Whether it is an ``nnx.Param`` of real numbers: NNX marks nothing else."""
        return isinstance(self.handle, nnx.Param) and is_inexact(self.leaf)

    @property
    def layout(self) -> str | None:
        """Names of the axes, by the class of the module."""
        return layout_of(FLAX, flax_classes(self.place.holder), str(self.key), len(self.shape))

    @property
    def grad(self) -> Values | None:
        """The gradient given to ``open``."""
        return None if self.gradient is None else JaxArray(self.gradient, f"gradient of {self.name}").read()
