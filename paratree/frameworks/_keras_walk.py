"""The walk over the layers of a Keras model (imports no Keras)."""

from __future__ import annotations

import gc
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from paratree.core.errors import printable
from paratree.core.layout import KERAS, KERAS_PARTS
from paratree.core.names import BUFFER, PARAMETER
from paratree.core.param import Param
from paratree.frameworks._keras_labels import child_names, names_in
from paratree.frameworks._keras_layers import PACKAGES, Place, Unbuilt, Weight, row_of
from paratree.frameworks._keras_unbuilt import expected_of, is_statistic

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from paratree.frameworks._keras_layers import Dialect, Top


class _Walk(NamedTuple):
    dialect: Dialect
    tops: Mapping[int, str]
    params: dict[str, Param]
    seen: dict[int, str]
    notes: list[str]


def params_of(root: Any, dialect: Dialect, tops: Mapping[int, str], notes: list[str]) -> dict[str, Param]:
    """Return the parameters of a model or layer under their names, in Keras's order.

    Args:
        root: the model or layer.
        dialect: of its generation.
        tops: identity of a layer -> its expression, for those that have one.
        notes: what one should know is added here.
    """
    walk = _Walk(dialect, tops, {}, {}, notes)
    collects = gc.isenabled()
    gc.disable()  # all that is made here is kept: to look for garbage in it takes half the time of the walk
    try:
        walk.seen[id(root)] = ""
        _add(walk, Place(dialect, root, None, "", "", ("net", root, {})), dialect.children(root))
    finally:
        if collects:
            gc.enable()
    return walk.params


def _add(walk: _Walk, place: Place, children: Sequence[Any]) -> None:
    dialect, layer, start = walk.dialect, place.layer, len(walk.params)
    own_first = dialect.own_first is None or dialect.own_first(layer)
    if own_first:
        _add_own(walk, place)
    _add_children(walk, place, list({id(child): child for child in children}.values()))
    if not own_first:
        _add_own(walk, place)
    if (ordered := dialect.ordered(layer)) is not None:
        _sort(walk.params, start, {id(variable): i for i, variable in enumerate(ordered)})
    _note_uses(walk, dialect.uses(layer))


def _add_children(walk: _Walk, place: Place, layers: Sequence[Any]) -> None:
    dialect, tops, _, seen, _ = walk
    prefix, above, children_of = place.prefix, place.top, dialect.children
    for child, name in zip(layers, child_names(place.layer, layers), strict=True):
        identity = id(child)
        if identity in seen:
            _note_again(walk, prefix + name, seen[identity])
            continue
        expression, below = tops.get(identity), f"{prefix}{name}."
        top: Top = above if expression is None else (expression, child, {})
        seen[identity] = below
        here = Place(dialect, child, place, name, below, top)
        if children := children_of(child):
            _add(walk, here, children)
        else:
            _add_own(walk, here)


def _note_again(walk: _Walk, name: str, first: str) -> None:
    """Say that a layer is held in two places, if it has parameters."""
    if any(listed.startswith(first) for listed in walk.params):
        walk.notes.append(f"{printable(name)} is {printable(first[:-1])}: one layer, listed once")


def _sort(params: dict[str, Param], start: int, position: Mapping[int, int]) -> None:
    """Put the parameters from a place on into an order."""
    last = reversed([params.popitem() for _ in range(len(params) - start)])
    params.update(sorted(last, key=lambda item: position.get(id(item[1].handle), 0)))


def _note_uses(walk: _Walk, layers: Sequence[Any]) -> None:
    """Say which layers a model uses several times."""
    if len(set(map(id, layers))) == len(layers):
        return
    for layer, times in Counter(map(id, layers)).items():
        first = walk.seen.get(layer, "")
        if times > 1 and first and any(name.startswith(first) for name in walk.params):
            walk.notes.append(
                f"{printable(first[:-1])} is used {times} times: its parameters are listed and counted once"
            )


def _add_own(walk: _Walk, place: Place) -> None:
    trained, others = walk.dialect.own(place.layer)
    if not trained and not others:
        if not getattr(place.layer, "built", True):  # a tf.Module in a layer does not say
            _add_unbuilt(walk, place)
        return
    kinds = [PARAMETER] * len(trained)
    if others:
        kinds += map(walk.dialect.kind, others)
    _add_variables(walk.params, place, [*trained, *others] if others else trained, kinds)


def _add_variables(
    params: dict[str, Param], place: Place, variables: Sequence[Any], kinds: Sequence[str]
) -> None:
    """Add variables under the names that their paths end with, or else as :func:`names_in` says."""
    path_of, prefix, name = place.dialect.path, place.prefix, place.layer.name
    scope, done = f"{name}/", 0
    for variable, kind in zip(variables, kinds, strict=False):
        path = path_of(variable)
        if not path.startswith(scope):
            above = path[: path.rfind("/") + 1]
            if not above.endswith(f"/{name}/"):
                break
            scope = above
        key = path[len(scope) :]
        full = prefix + key
        if full in params or "/" in key:
            break
        weight = Weight(variable, place, key)
        params[full] = Param(full, weight, kind, live=weight)
        done += 1
    else:
        return
    keys = names_in(place, variables)
    for variable, kind, key in list(zip(variables, kinds, keys, strict=False))[done:]:
        while prefix + key in params:  # two layers of one name in places that nothing tells apart
            key += "_"
        weight = Weight(variable, place, key)
        params[prefix + key] = Param(prefix + key, weight, kind, live=weight)


def _add_unbuilt(walk: _Walk, place: Place) -> None:
    layer = place.layer
    expected = expected_of(row_of(layer), layer)
    for key, shape in expected.items():
        name = place.prefix + key
        weight = Unbuilt(place, key, shape, layer.variable_dtype)
        kind = BUFFER if is_statistic(key) else PARAMETER
        walk.params[name] = Param(name, weight, kind, live=weight)
    if not expected and not walk.dialect.children(layer) and _makes_variables(type(layer)):
        walk.notes.append(
            f"{printable('.'.join(place.names) or layer.name)} is not built: its parameters are not known; "
            "call net(X) or net.build(input_shape)"
        )


def _makes_variables(layer_class: type) -> bool:
    """Tell whether layers of a class may get variables: of Keras's own, those of which the table has some."""
    own = layer_class.__module__.partition(".")[0] in PACKAGES
    if own:
        return layer_class.__name__ in KERAS or layer_class.__name__ in KERAS_PARTS
    building = next(base for base in layer_class.__mro__ if "build" in vars(base))
    return building.__module__.partition(".")[0] not in PACKAGES
