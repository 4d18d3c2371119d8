"""The walk over the layers of a Keras model (imports no Keras)."""

from __future__ import annotations

import gc
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from paratree.core.errors import printable
from paratree.core.layout import KERAS, KERAS_PARTS
from paratree.core.names import BUFFER, PARAMETER
from paratree.core.tree import Param
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
        _add(walk, Place(dialect, root, None, "", "", ("net", root, {})))
    finally:
        if collects:
            gc.enable()
    return walk.params


def _add(walk: _Walk, place: Place) -> None:
    dialect, layer = walk.dialect, place.layer
    walk.seen[id(layer)] = place.prefix
    if not (children := dialect.children(layer)):
        _add_own(walk, place)
        return
    own_first, start = dialect.own_first is None or dialect.own_first(layer), len(walk.params)
    if own_first:
        _add_own(walk, place)
    _add_children(walk, place, list({id(child): child for child in children}.values()))
    if not own_first:
        _add_own(walk, place)
    if (ordered := dialect.ordered(layer)) is not None:
        _sort(walk.params, start, {id(variable): i for i, variable in enumerate(ordered)})
    _note_uses(walk, dialect.uses(layer))


def _add_children(walk: _Walk, place: Place, children: Sequence[Any]) -> None:
    dialect, prefix, above, seen, tops = walk.dialect, place.prefix, place.top, walk.seen, walk.tops
    for child, name in zip(children, child_names(place.layer, children), strict=True):
        first = seen.get(id(child))
        if first is None:
            expression = tops.get(id(child))
            top: Top = above if expression is None else (expression, child, {})
            _add(walk, Place(dialect, child, place, name, f"{prefix}{name}.", top))
        elif any(listed.startswith(first) for listed in walk.params):
            listed_as = f"{printable(first[:-1])}: one layer, listed once"
            walk.notes.append(f"{printable(prefix + name)} is {listed_as}")


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
    path_of, prefix, own = place.dialect.path, place.prefix, f"/{place.layer.name}"
    scope, done = own[1:], 0
    for variable, kind in zip(variables, kinds, strict=False):
        above, _, key = path_of(variable).rpartition("/")
        if above != scope:
            if not above.endswith(own):
                break
            scope = above
        name = prefix + key
        if name in params:
            break
        weight = Weight(variable, place, key)
        params[name] = Param(name, weight, kind, live=weight)
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
