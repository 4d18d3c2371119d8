"""Plain TensorFlow: every variable of a ``tf.Module``, under all its names, and containers of variables.

Names and kinds are those of the moment the module was opened. Shape, dtype and value are asked of the
variable each time, so an optimizer step is seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence
from typing import TYPE_CHECKING

import tensorflow as tf

from paratree.core.errors import UnsupportedError, printable
from paratree.core.names import BUFFER, PARAMETER
from paratree.core.param import Param
from paratree.core.tree import Origin, ParamTree
from paratree.frameworks._held_outside import give
from paratree.frameworks._tensorflow_gradients import differentiate, differentiate_variables
from paratree.frameworks._tensorflow_variables import VariableArray, dense, new_like

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.results import Derivative, Group

    Values = np.ndarray[Any, Any]
    Place = tuple[
        str, str, Any, Any, Any
    ]  # name; what holds it: expression, object; step from there; what it is

__all__ = [
    "array", "assign", "differentiate", "freeze", "gradients", "groups", "matches", "open", "tie", "untie",
]  # fmt: skip

_LISTS_OF_KERAS = {"_trainable_weights", "_non_trainable_weights", "_self_tracked_trackables"}


class _Attribute(str):
    """A step that is an attribute, where others are keys and places."""

    __slots__ = ()


def matches(source: object) -> bool:
    """Tell whether ``source`` is a module, a variable, or a container of variables."""
    if isinstance(source, tf.Module | tf.Variable):
        return True
    return any(True for _ in _contained("", "params", source, []))


def open(source: Any, *, grads: Any = None) -> ParamTree:
    """Return the tree of a module in the order of its ``variables``; no value is read or copied.

    A name is the path of attributes and keys to the variable (``layers.0.w``); a variable that the module
    holds under several stands under each. Variables made with ``trainable=False`` are buffers.

    Args:
        source: a ``tf.Module``; a dict, list or tuple of variables; or one variable, whose name is then
            ``"parameter"``.
        grads: what ``tape.gradient(loss, module.trainable_variables)`` returned, or gradients by name; of a
            container, in its own structure.

    Returns:
        The tree. ``value`` is a copy: TensorFlow's memory cannot be written from outside; use ``pt.update``.

    Raises:
        MismatchError: ``grads`` do not fit the variables.

    Example:
        >>> open({"w": tf.Variable([1.0, 2.0])})["w"].native
        "params['w']"
    """
    params: dict[str, Param] = {}
    for path, native, holder, step, variable in _places(source):
        kind, name = PARAMETER if variable.trainable else BUFFER, path or "parameter"
        live = _Live(variable, native, holder, step)
        params[name] = Param(name, VariableArray(variable, name), kind, live=live)
    tree = ParamTree(params, Origin(type(source).__name__, "TensorFlow"))
    if grads is not None:
        give(tree, grads, source.trainable_variables if isinstance(source, tf.Module) else None)
    return tree


def array(value: Any, name: str) -> VariableArray:
    """Return the array of a variable, a tensor or a sparse gradient; ``name`` is what messages call it."""
    return VariableArray(value if isinstance(value, tf.Variable) else dense(value), name)


# The walk


def _places(source: Any) -> Iterator[Place]:
    if isinstance(source, tf.Module):
        return _of_module("", "net", source, ())
    return _contained("", "params", source, [])


def _of_module(prefix: str, native: str, module: tf.Module, above: tuple[int, ...]) -> Iterator[Place]:
    """Yield every variable under all its names, in TensorFlow's order: a module's own before those below."""
    parts: list[Place] = []
    above = (*above, id(module))
    for key in sorted(vars(module)):
        if key not in module._TF_MODULE_IGNORED_PROPERTIES and key not in _LISTS_OF_KERAS:
            yield from _found(prefix + key, native, module, _Attribute(key), vars(module)[key], parts)
    for name, found_in, _, step, part in parts:
        if id(part) not in above:  # a module may hold the one that holds it
            yield from _of_module(f"{name}.", _expression(found_in, step), part, above)


def _contained(name: str, native: str, source: Any, parts: list[Place]) -> Iterator[Place]:
    """Yield the variables of a container; the modules in it are put aside, to come after them."""
    if isinstance(source, tf.Variable):
        yield name, native, None, None, source
        return
    if isinstance(source, Mapping):
        steps: Any = sorted(source.items(), key=_as_tensorflow_sorts)
    elif isinstance(source, list | tuple):
        steps = enumerate(source)
    else:
        return
    for key, below in steps:
        yield from _found(f"{name}.{key}" if name else str(key), native, source, key, below, parts)


def _as_tensorflow_sorts(item: tuple[Any, Any]) -> tuple[str, Any]:
    key = item[0]
    return type(key).__name__, key if isinstance(key, int | str) else str(key)


def _found(name: str, native: str, holder: Any, step: Any, value: Any, parts: list[Place]) -> Iterator[Place]:
    if isinstance(value, tf.Variable):
        yield name, native, holder, step, value
    elif isinstance(value, tf.Module):
        parts.append((name, native, holder, step, value))
    elif isinstance(value, Mapping | list | tuple):
        yield from _contained(name, _expression(native, step), value, parts)


def _expression(native: str, step: Any) -> str:
    """Return the Python expression for what is one step from an expression."""
    if step is None:
        return native
    if not isinstance(step, _Attribute):
        return f"{native}[{step!r}]"
    return f"{native}.{step}" if step.isidentifier() else f"getattr({native}, {str(step)!r})"


class _Live:
    """A variable one step from what holds it."""

    __slots__ = ("_native", "gradient", "handle", "holder", "step")

    def __init__(self, handle: Any, native: str, holder: Any, step: Any) -> None:
        self.handle, self._native, self.holder, self.step = handle, native, holder, step
        self.gradient: Any = None

    @property
    def native(self) -> str:
        """The expression: ``net.layers[0].w``."""
        return _expression(self._native, self.step)

    @property
    def aliases(self) -> tuple[str, ...]:
        """None: TensorFlow's own name of a variable, as ``Variable:0``, need not be its own."""
        return ()

    @property
    def trainable(self) -> bool:
        """Whether it was made to be trained."""
        return bool(self.handle.trainable)

    @property
    def layout(self) -> None:
        """None: TensorFlow's modules do not say."""
        return

    @property
    def grad(self) -> Values | None:
        """The gradient given to ``open``."""
        return None if self.gradient is None else array(self.gradient, "gradient").read()


# What the verbs ask for


def assign(source: Any, tree: ParamTree, values: Mapping[str, Values]) -> Any:
    """Assign new values to the variables."""
    for name, value in values.items():
        tree[name].handle.assign(value)
    return source


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> Any:
    """Put the variable ``first`` in place of the others, where the module or container holds them."""
    for name in others:
        _put(tree, name, tree[first].handle)
    return source


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Put a variable of its own in place of each.

    Raises:
        UnsupportedError: two names are one place, in a module that is held twice.
    """
    for name in names:
        if twin := next(
            (n for n in tree.tied_with(name) if n != name and _is_same_place(tree[n], tree[name])), None
        ):
            raise UnsupportedError(
                f"{printable(name)}: it and {printable(twin)} are one place in a module that is held twice; "
                "make two modules, and tie what they are to share"
            )
    for name in names:
        param = tree[name]
        _put(tree, name, new_like(param.handle, param.value, name.rpartition(".")[2]))
    return source


def _is_same_place(one: Param, other: Param) -> bool:
    a: Any = one.live
    b: Any = other.live
    return a.holder is b.holder and a.step == b.step


def _put(tree: ParamTree, name: str, variable: Any) -> None:
    live: Any = tree[name].live
    if isinstance(live.step, _Attribute):
        setattr(live.holder, live.step, variable)
    elif isinstance(live.holder, MutableMapping | MutableSequence):
        live.holder[live.step] = variable
    else:
        kind = type(live.holder).__name__
        raise UnsupportedError(
            f"{printable(name)}: a {kind} has no place to put another variable; hold it in a list"
        )


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> Any:
    """Refuse: TensorFlow fixes when a variable is made whether it is trained.

    Raises:
        UnsupportedError: always.
    """
    name = printable(next(iter(names), "parameter"))
    raise UnsupportedError(
        f"{name}: tf.Variable.trainable is read-only; give tape and optimizer only what is to be trained"
    )


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return option -> name in the tree -> value: two variables of TensorFlow may have one name."""
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        for option, value in group.options.items():
            found.setdefault(option, {}).update(dict.fromkeys(group.names, value))
    return found


def gradients(
    source: Any,
    tree: ParamTree,
    loss: Callable[..., Any],
    batch: tuple[Any, ...],
    names: Sequence[str],
    per_use: bool,
) -> Derivative:
    """Differentiate with a tape of its own; what the loss writes into variables is put back."""
    variables = [tree[name].handle for name in names]
    kept = [param.handle for param in tree.values()]
    return differentiate_variables(lambda: loss(source, *batch), variables, kept, per_use)
