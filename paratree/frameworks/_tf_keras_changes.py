"""Keras 2: new values, ties, freezing of whole layers, and multipliers, all in place."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import tf_keras

from paratree.core.errors import UnreadableError, UnsupportedError, printable
from paratree.core.names import PARAMETER
from paratree.frameworks._keras_labels import held_in, names_in
from paratree.frameworks._keras_layers import Unbuilt, Weight
from paratree.frameworks._tensorflow_variables import new_like

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.param import Param
    from paratree.core.results import Group
    from paratree.core.tree import ParamTree

    Values = np.ndarray[Any, Any]


def path_of(variable: Any) -> str:
    """Return Keras's own name of a variable, without TensorFlow's ``:0``."""
    return str(variable.name).removesuffix(":0")


def assign(source: Any, tree: ParamTree, values: Mapping[str, Values]) -> Any:
    """Assign new values to the variables."""
    for name, value in values.items():
        tree[name].handle.assign(value)
    return source


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> Any:
    """Put the variable ``first`` in place of the others in their layers."""
    for name in others:
        _put(tree[name], tree[first].handle)
    _forget_compiled(source)
    return source


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Put a variable of its own in the layer of each name.

    A model that has been trained must be compiled again: its optimizer does not know the new variable.
    """
    for name in names:
        param = tree[name]
        _put(param, new_like(param.handle, param.value, name.replace(".", "/")))
    _forget_compiled(source)
    return source


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> Any:
    """Set ``trainable`` of whole layers: the variables of TensorFlow have no such mark that could be changed.

    Raises:
        UnreadableError: a layer has not made its variables yet.
        UnsupportedError: only a part of a layer is chosen, or a layer around it is frozen as a whole.
    """
    wanted = {id(layer): layer for layer in (_place(tree[name]).layer for name in names)}
    for layer in wanted.values():
        inside = [name for name, param in tree.items() if _is_in(param, layer)]
        if left := next((name for name in inside if name not in names), None):
            raise UnsupportedError(
                f"{printable(left)}: Keras 2 freezes whole layers, and {printable(layer.name)} has it, too; "
                "choose it as well"
            )
    for name in names if not frozen else ():
        around = _place(tree[name]).above[:-1]
        if outer := next((x for x in around if not x.trainable and id(x) not in wanted), None):
            raise UnsupportedError(
                f"{printable(name)}: {printable(outer.name)}, which it is in, is frozen as a whole; "
                "set its trainable = True first"
            )
    for layer in wanted.values():
        layer.trainable = not frozen
    _forget_compiled(source)
    return source


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return option -> name of the variable, as ``dense/kernel:0`` -> value.

    The optimizers of Keras have no options for single variables: a training step of one's own has to apply
    them, as ``[g * scale.get(v.name, 1) for g, v in zip(grads, net.trainable_variables)]`` does.
    """
    times = Counter(handle.name for handle in tree.handles(tree))
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        for name in group.names if group.options else ():
            own = tree[name].handle.name
            if times[own] > 1:
                raise UnsupportedError(
                    f"{printable(name)}: {times[own]} variables have the name '{printable(own)}'; "
                    "give their layers names of their own"
                )
            for option, value in group.options.items():
                found.setdefault(option, {})[own] = value
    return found


def _place(param: Param) -> Any:
    live: Any = param.live
    if not isinstance(live, Weight | Unbuilt):
        raise UnsupportedError(
            f"{printable(param.name)}: what an optimizer keeps is not trained; give the model"
        )
    if param.array.problem is not None:
        raise UnreadableError(param.array.problem)
    return live.place


def _is_in(param: Param, layer: Any) -> bool:
    live: Any = param.live
    return param.kind == PARAMETER and any(around is layer for around in live.place.above)


def _put(param: Param, new: Any) -> None:
    """Put another variable in the place of one: in its layer's attributes, and in its lists of variables."""
    place, old = _place(param), param.handle
    layer, key = place.layer, param.name.removeprefix(place.prefix)
    own = [variable for part in place.dialect.own(layer) for variable in part]
    places = [held for held in held_in(layer) if held.value is old]
    if sum(variable is old for variable in own) > 1:  # the layer holds it under several names: only this one
        places = [held for held in places if held.label == key]
    if not places or any(isinstance(held.holder, tuple) for held in places):
        raise UnsupportedError(
            f"{printable(param.name)}: no attribute of {type(layer).__name__} holds it, to be replaced"
        )
    own[names_in(place, own).index(key)] = new
    trained = len(layer._trainable_weights)
    for held in places:
        if held.holder is layer:
            setattr(layer, held.key, new)
        else:
            held.holder[held.key] = new
    layer._trainable_weights[:], layer._non_trainable_weights[:] = (
        own[:trained],
        own[trained:],
    )  # in their places


def _forget_compiled(source: Any) -> None:
    """Let a model forget what it has compiled with the variables it had."""
    for layer in source._flatten_layers():
        if isinstance(layer, tf_keras.Model):
            layer.train_function = layer.test_function = layer.predict_function = None
