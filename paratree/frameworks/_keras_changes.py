"""Keras 3: new values, ties, freezing and multipliers, all in place."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import keras

from paratree.core.errors import UnreadableError, UnsupportedError, printable
from paratree.frameworks._keras_labels import held_in, names_in
from paratree.frameworks._keras_layers import Unbuilt, Weight

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    import numpy as np

    from paratree.core.param import Param
    from paratree.core.results import Group
    from paratree.core.tree import ParamTree

    Values = np.ndarray[Any, Any]


def assign(source: Any, tree: ParamTree, values: Mapping[str, Values]) -> Any:
    """Assign new values to the variables."""
    for name, value in values.items():
        tree[name].handle.assign(value.copy())  # torch warns of arrays that cannot be written
    return source


def tie(source: Any, tree: ParamTree, first: str, others: Sequence[str]) -> Any:
    """Put the variable ``first`` in place of the others in their layers.

    On JAX a model that has been trained must be compiled again: its optimizer has state for what is given up.
    """
    for name in others:
        _put(tree[name], tree[first].handle)
    _refresh(source)
    return source


def untie(source: Any, tree: ParamTree, names: Sequence[str]) -> Any:
    """Put a variable of its own in the layer of each name.

    A model that has been trained must be compiled again: its optimizer does not know the new variable.
    """
    taken = {param.handle.path for param in tree.values() if isinstance(param.live, Weight)}
    for name in names:
        weight = _weight(tree[name])
        path = f"{weight.place.layer.path or weight.place.layer.name}/{weight.key.replace('.', '/')}"
        while path in taken:
            path += "_"
        taken.add(path)
        _put(tree[name], _copy(weight.handle, tree[name].value.copy(), path))
    _refresh(source)
    return source


def freeze(source: Any, tree: ParamTree, names: Collection[str], frozen: bool) -> Any:
    """Set ``trainable`` of each variable.

    On JAX a model that has been trained must be compiled again, as Keras asks after setting ``trainable``.

    Raises:
        UnreadableError: a layer has not made its variables yet.
        UnsupportedError: the model as a whole is frozen, so that no variable of it is trained.
    """
    for name in names:
        if isinstance(tree[name].live, Unbuilt) and tree[name].array.problem is not None:
            raise UnreadableError(tree[name].array.problem)
    if not frozen and isinstance(source, keras.Layer) and not source.trainable:
        raise UnsupportedError(
            f"{printable(source.name)} is frozen as a whole; set net.trainable = True first"
        )
    for name in names:
        tree[name].handle.trainable = not frozen
    _refresh(source)
    return source


def groups(source: Any, tree: ParamTree, groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return option -> path of the variable -> value.

    The optimizers of Keras have no options for single variables: a training step of one's own has to apply
    them, as ``[g * scale.get(v.path, 1) for g, v in zip(grads, net.trainable_variables)]`` does.
    """
    times = Counter({id(p.handle): _path(p) for p in tree.values()}.values())
    found: dict[str, dict[str, Any]] = {}
    for group in groups:
        for name in group.names:
            path = _path(tree[name])
            if times[path] > 1:
                raise UnsupportedError(
                    f"{printable(name)}: {times[path]} variables have the path '{printable(path)}'; "
                    "give their layers names of their own"
                )
            for option, value in group.options.items():
                found.setdefault(option, {})[path] = value
    return found


def _path(param: Param) -> str:
    """Return Keras's path of a variable, or the name of one that is not made yet."""
    return str(param.handle.path) if isinstance(param.handle, keras.Variable) else param.name


def _weight(param: Param) -> Weight:
    live = param.live
    if isinstance(live, Unbuilt) and (built := live.live) is not None:
        live = built
    if not isinstance(live, Weight):
        raise UnsupportedError(
            f"{printable(param.name)}: there is no layer around it to put another in; give the model"
        )
    return live


def _put(param: Param, new: Any) -> None:
    """Put another variable in the place of one: in its layer's attributes, and in its lists of variables."""
    weight = _weight(param)
    layer, old = weight.place.layer, weight.handle
    own = [variable for part in weight.place.dialect.own(layer) for variable in part]
    places = [held for held in held_in(layer) if held.value is old]
    if sum(variable is old for variable in own) > 1:  # the layer holds it under several names: only this one
        places = [held for held in places if held.label == weight.key]
    if not places or any(isinstance(held.holder, tuple) for held in places):
        raise UnsupportedError(
            f"{printable(param.name)}: no attribute of {type(layer).__name__} holds it, to be replaced"
        )
    _track(layer, names_in(weight.place, own).index(weight.key), old, new)
    for held in places:
        if held.holder is layer:
            setattr(layer, held.key, new)
        elif isinstance(held.holder, list):
            list.__setitem__(held.holder, held.key, new)  # past Keras's own tracking, which is done
        else:
            dict.__setitem__(held.holder, held.key, new)


def _track(layer: Any, position: int, old: Any, new: Any) -> None:
    """Put a variable at a position of the lists that a layer has of its variables, though they are locked.

    Positions stay, as files of weights number them; what Keras has for its own quantisation
    (``_untrack_variable``, ``_track_variable``) would move it to the end.
    """
    store, stored = "trainable_variables", layer._trainable_variables
    if position >= len(stored):
        position -= len(stored)
        store, stored = "non_trainable_variables", layer._non_trainable_variables
    stored[position] = new
    ids = layer._tracker.stored_ids[store]
    ids.add(id(new))
    if not any(variable is old for variable in stored):
        ids.discard(id(old))


def _copy(variable: Any, values: Values, path: str) -> Any:
    """Return another variable with these values and the options of one."""
    made = keras.Variable(
        values,
        dtype=keras.backend.standardize_dtype(variable.dtype),
        trainable=variable.trainable,
        autocast=variable._autocast,
        aggregation=variable.aggregation,
        name=path.rpartition("/")[2],
    )
    made._path = path  # optimizers and torch know variables by it
    made.regularizer, made.constraint = variable.regularizer, variable.constraint
    made.overwrite_with_gradient = variable.overwrite_with_gradient
    return made


def _refresh(source: Any) -> None:
    """Let a model forget what it has compiled with the variables it had, and tell torch of the new ones."""
    for layer in source._flatten_layers() if isinstance(source, keras.Layer) else ():
        if "_torch_params" in vars(layer).get("_modules", ()):
            layer._track_variables()
        if isinstance(layer, keras.Model):
            layer.train_function = layer.test_function = layer.predict_function = None
